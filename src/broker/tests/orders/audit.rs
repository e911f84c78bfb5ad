//! The settlement audit beside recovery: a facilitator that lies is found out, and one that does not is left alone.

use std::collections::{BTreeSet, HashMap};

use super::*;

/// Blocks of one second, from here on.
const GENESIS: u64 = NOW - 1_000;
/// As late as a transaction of an honest facilitator is mined.
const LATE: u64 = 50;

/// A payment that was made.
#[derive(Clone, Copy)]
struct Made {
    transaction: B256,
    at: u64,
}

/// A facilitator that may lie, and the chain that shows it.
struct Street {
    clock: Clock,
    made: Mutex<HashMap<B256, Made>>,
    /// What it said of these payments was not true.
    lied: Mutex<BTreeSet<u8>>,
    distrusted: Mutex<Vec<String>>,
    /// It lies about so many of a hundred payments.
    lies: u64,
    finality: u64,
    chance: Mutex<TestRng>,
    uneven: Uneven,
}

impl Street {
    fn any(&self, below: u64) -> u64 {
        self.chance.lock().random_range(0..below)
    }

    fn one_of<T: Copy>(&self, of: &[T]) -> T {
        of[self.any(of.len() as u64) as usize]
    }

    /// The newest block that an endpoint has, which may lag.
    fn head(&self) -> u64 {
        self.clock.now() - self.one_of(&[0, 0, 0, 2, 15, 70])
    }

    fn final_of(&self, head: u64) -> Head {
        let time = head - self.finality;
        Head { number: time - GENESIS, hash: B256::ZERO, time }
    }

    fn settle_now(&self, number: u8) -> Result<Settlement, FacilitatorError> {
        let nonce = B256::repeat_byte(number);
        if self.made.lock().contains_key(&nonce) {
            return Ok(Settlement::Refused(receipt(false, Some("nonce_already_used"), "")));
        }
        let settled = |hash: B256| Ok(Settlement::Settled(receipt(true, None, &hash.to_string())));
        if self.any(100) < self.lies {
            self.lied.lock().insert(number);
            let other = self.made.lock().values().map(|made| made.transaction).min();
            return settled(other.filter(|_| self.any(2) == 0).unwrap_or(B256::repeat_byte(0xaa)));
        }
        let said = self.one_of(&[0, 0, 0, 1, 2, 3]);
        if said != 3 {
            // What it said before has become true.
            self.lied.lock().remove(&number);
            let at = self.clock.now() + self.one_of(&[0, 2, 20, LATE]);
            self.made.lock().insert(nonce, Made { transaction: nonce, at });
        }
        match said {
            0 => settled(nonce),
            1 => Ok(Settlement::Pending(receipt(false, Some("settlement_pending"), &nonce.to_string()))),
            _ => Err(FacilitatorError::Unknown("502".into())),
        }
    }

    /// Blocks that are not final are undone, and what was in them is in later ones.
    fn reorganise(&self) {
        // Back in a block before the grace is over, even of one that was late.
        let (now, later) = (self.clock.now(), self.one_of(&[1, 5, 9]));
        for made in self.made.lock().values_mut().filter(|made| made.at + self.finality > now) {
            made.at = made.at.max(now + later);
        }
    }
}

#[async_trait]
impl crate::facilitator::Facilitator for Street {
    async fn verify(&self, _: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        self.uneven.a_while().await;
        Ok(Verdict::Valid)
    }

    async fn settle(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.uneven.a_while().await;
        let payload: serde_json::Value = serde_json::from_str(request.payment_payload.get()).unwrap();
        let said = self.settle_now(payload["nonce"].as_u64().unwrap() as u8);
        self.uneven.a_while().await;
        said
    }

    async fn settler(&self, _: &PaymentRequest) -> Option<String> {
        Some("fake".into())
    }

    async fn distrust(&self, _: &str, why: &str) {
        self.distrusted.lock().push(why.into());
    }

    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Prove for Street {
    async fn prove(&self, _: Network, sought: &Sought) -> Option<Result<Proof, ChainError>> {
        self.uneven.a_while().await;
        if self.any(8) == 0 {
            return Some(Err(ChainError::Away("as told".into())));
        }
        let head = self.head();
        let as_of = self.final_of(head);
        let made = self.made.lock().get(&sought.nonce).copied().filter(|made| made.at <= head);
        let proof = match made {
            Some(Made { transaction, at }) => {
                Proof::Paid { transaction, block: at - GENESIS, is_final: at <= as_of.time }
            }
            None if as_of.time >= sought.valid_before => Proof::Unpaid(crate::chain::Unpaid::Lapsed),
            None => Proof::Open { as_of },
        };
        self.uneven.a_while().await;
        Some(Ok(proof))
    }

    async fn last_final(&self, _: Network) -> Option<Result<Head, ChainError>> {
        self.uneven.a_while().await;
        Some(Ok(self.final_of(self.head())))
    }

    async fn spent(
        &self,
        _: Network,
        _: Address,
        _: Address,
        _: &[Address],
        blocks: RangeInclusive<u64>,
    ) -> Option<Result<Vec<Spent>, ChainError>> {
        self.uneven.a_while().await;
        if self.any(8) == 0 {
            return Some(Err(ChainError::Away("as told".into())));
        }
        let made = self.made.lock();
        let within = made.values().filter(|made| blocks.contains(&(made.at - GENESIS)));
        let (from, value) = (Address::repeat_byte(0xbb), Amount::new(PRICE));
        Some(Ok(within.map(|made| Spent { from, nonce: made.transaction, value }).collect()))
    }

    fn height(&self, _: Network) -> Option<u64> {
        Some(self.clock.now() - GENESIS)
    }

    fn knows(&self, _: Network) -> bool {
        true
    }
}

async fn audited(seed: u64, lies: u64) {
    let _of = Of("audited", seed);
    let mut chance = seeded(seed);
    let uneven = Uneven::default();
    uneven.seed(chance.random());
    let stage = Stage::new();
    let street = Arc::new(Street {
        clock: stage.clock.clone(),
        made: Mutex::default(),
        lied: Mutex::default(),
        distrusted: Mutex::default(),
        lies,
        finality: [0, 5, 60][chance.random_range(0..3)],
        chance: Mutex::new(chance),
        uneven,
    });
    let at = Arc::clone(&street);
    let change = move |mut broker: Broker, _: &Arc<Trap>| {
        (broker.facilitator, broker.chains) = (at.clone(), at.clone());
        broker
    };
    let world = World::on(stage, seed, 2, true, Guards::lax, change);
    let numbers = [1, 2, 3, 4, 5, 6];
    let ticks = world.ticks();
    // Each looks, and goes on looking when it has died and was started again.
    let mut looks = Vec::new();
    for gateway in &world.gateways {
        let broker = Arc::clone(&gateway.broker);
        let deaths: Vec<u64> = (0..world.any(3)).map(|_| world.any(100_000)).collect();
        looks.push(tokio::spawn(async move {
            for death in deaths {
                let audit = Audit::new(Arc::clone(&broker)).run();
                let _ = tokio::time::timeout(Duration::from_millis(death), audit).await;
                broker.audits.forget();
            }
            Audit::new(broker).run().await;
        }));
    }
    // That they are there is on record before they sell anything.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let within = world.one_of(&[1, 3_000, 60_000]);
    let mut tasks = Vec::new();
    for number in numbers {
        for _ in 0..1 + world.any(3) {
            let mut sale = world.stage.timed(number, &[]);
            sale.payload = RawValue::from_string(format!("{{\"nonce\":{number}}}")).unwrap().into();
            tasks.push(world.present(sale, within));
        }
    }
    for _ in 0..world.any(8) {
        tasks.push(world.sweep(90_000));
        tasks.push(world.stand_still(world.one_of(&[6, 16, 61]), 90_000));
    }
    if world.any(2) == 0 {
        let (street, pause) = (Arc::clone(&street), world.any(60_000));
        tasks.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            street.reorganise();
        }));
    }
    world.all(tasks).await;
    world.rest().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    ticks.abort();
    looks.iter().for_each(tokio::task::JoinHandle::abort);
    let (lied, distrusted) = (street.lied.lock().clone(), street.distrusted.lock().clone());
    for number in numbers {
        let Some(job) = world.found(number).await else { continue };
        let trips = distrusted.iter().filter(|why| why.contains(&job.id.to_string())).count();
        let lied = lied.contains(&number);
        assert!(trips > 0 || !lied, "order {seed}: nobody finds that it lied of {number}: {:?}", job.receipt);
        assert!(trips == 0 || lied, "order {seed}: {number} was paid, and {distrusted:?}");
    }
    for gateway in &world.gateways {
        assert_eq!(gateway.broker.audits.jobs().len(), 0, "order {seed}: somebody still waits");
    }
}

#[tokio::test(start_paused = true)]
async fn an_honest_facilitator_is_trusted() {
    for seed in orders(5) {
        audited(seed, 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_lie_is_found_out() {
    for seed in orders(5) {
        audited(seed, 30).await;
    }
}
