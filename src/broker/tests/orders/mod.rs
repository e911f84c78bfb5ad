//! Concurrent situations in orders that a seed decides: calls to the store, the facilitator's answers and the steps of the work
//! take times of their own, gateways stand still or lose their store in the middle, and sweeps come in between.
//!
//! What must hold whatever the order is in [`World::check`].

mod audit;
mod bank;
mod limits;
mod names;
mod once;
mod owed;
mod refunds;
mod truth;
mod webhooks;

use std::sync::atomic::AtomicBool;

use proptest::prelude::RngExt as _;
use proptest::test_runner::TestRng;

use super::trap::seeded;
use super::*;
use crate::jobs::ValueStore as _;
use crate::jobs::job::Fate;
use truth::Truth;

/// Longer than any answer may take.
const EVER: Duration = Duration::from_secs(900);

/// A gateway of several on one store, with a way to it of its own.
pub(super) struct Gateway {
    pub(super) broker: Arc<Broker>,
    pub(super) trap: Arc<Trap>,
    pub(super) recovery: Arc<Recovery>,
}

/// What a client was told, and whether its money had moved when it asked, and when it was told.
pub(super) struct Told {
    pub(super) number: u8,
    pub(super) said: Said,
    pub(super) before: bool,
    pub(super) moved: bool,
}

pub(super) struct World {
    pub(super) stage: Stage,
    pub(super) gateways: Vec<Gateway>,
    pub(super) told: Arc<Mutex<Vec<Told>>>,
    /// Payments that are answered with each other's answers.
    pub(super) together: bool,
    /// Whether a gateway was cut off from the store while money may have moved.
    cut_off: AtomicBool,
    chance: Mutex<TestRng>,
    seed: u64,
}

/// So many orders, or as many as `PROPTEST_CASES` says.
pub(super) fn orders(least: u64) -> std::ops::Range<u64> {
    let told = std::env::var("PROPTEST_CASES").ok();
    0..told.map_or(least, |cases| cases.parse().unwrap())
}

/// Says which order it was that failed.
pub(super) struct Of(pub(super) &'static str, pub(super) u64);

impl Drop for Of {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: of order {}", self.0, self.1);
        }
    }
}

impl World {
    /// So many gateways on one store; `knows`: a chain can be asked.
    pub(super) fn new(seed: u64, gateways: usize, knows: bool) -> World {
        World::with(seed, gateways, knows, Guards::lax, |broker, _| broker)
    }

    /// With guards and results of their own.
    pub(super) fn with(
        seed: u64,
        gateways: usize,
        knows: bool,
        guards: impl Fn(Arc<dyn crate::jobs::ValueStore>, Clock, Arc<Metrics>) -> Arc<Guards>,
        change: impl Fn(Broker, &Arc<Trap>) -> Broker,
    ) -> World {
        World::on(Stage::new(), seed, gateways, knows, guards, change)
    }

    /// On a stage of its own.
    pub(super) fn on(
        stage: Stage,
        seed: u64,
        gateways: usize,
        knows: bool,
        guards: impl Fn(Arc<dyn crate::jobs::ValueStore>, Clock, Arc<Metrics>) -> Arc<Guards>,
        change: impl Fn(Broker, &Arc<Trap>) -> Broker,
    ) -> World {
        let mut chance = seeded(seed);
        let gateways = (0..gateways)
            .map(|_| {
                let trap = Arc::new(Trap::over(Arc::clone(&stage.store.inner)));
                trap.shuffle(chance.random());
                let metrics = Arc::new(Metrics::new());
                let spending = Spending {
                    wallet: stage.broker.spending.wallet.clone(),
                    guards: guards(trap.clone(), stage.clock.clone(), Arc::clone(&metrics)),
                    payees: Arc::new(Payees::new(trap.clone(), Vec::new())),
                };
                let (jobs, facilitator) = (trap.clone(), stage.facilitator.clone());
                let (clock, limits) = (stage.clock.clone(), stage.broker.limits);
                let truth = Truth {
                    facilitator: stage.facilitator.clone(),
                    log: stage.log.clone(),
                    clock: clock.clone(),
                    knows,
                };
                let broker = Broker::new(jobs, facilitator, spending, metrics, clock, limits);
                let broker = Arc::new(change(broker.proved_by(Arc::new(truth)), &trap));
                let recovery = Arc::new(Recovery::new(Arc::clone(&broker), Duration::from_secs(15)));
                Gateway { broker, trap, recovery }
            })
            .collect();
        stage.facilitator.uneven.seed(chance.random());
        stage.log.uneven.seed(chance.random());
        let told = Arc::default();
        World {
            stage,
            gateways,
            told,
            together: false,
            cut_off: false.into(),
            chance: Mutex::new(chance),
            seed,
        }
    }

    /// A number below this.
    pub(super) fn any(&self, below: u64) -> u64 {
        self.chance.lock().random_range(0..below)
    }

    pub(super) fn one_of<T: Clone>(&self, of: &[T]) -> T {
        of[self.any(of.len() as u64) as usize].clone()
    }

    pub(super) fn gateway(&self) -> &Gateway {
        &self.gateways[self.any(self.gateways.len() as u64) as usize]
    }

    /// Presents it to one of the gateways within so many milliseconds. Ends when all is written that can be.
    pub(super) fn present(&self, sale: Sale, within: u64) -> tokio::task::JoinHandle<()> {
        let number = sale.payment.authorization.nonce[0];
        let (broker, told) = (Arc::clone(&self.gateway().broker), Arc::clone(&self.told));
        let (facilitator, together) = (Arc::clone(&self.stage.facilitator), self.together);
        let (seed, pause) = (self.seed, self.any(within));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let has_moved = || facilitator.has_moved(number) || (together && facilitator.moved() > 0);
            let before = has_moved();
            let (guard, written) = tokio::sync::oneshot::channel::<()>();
            let answer = tokio::time::timeout(EVER, broker.sell(Box::new(sale), guard)).await;
            let said = Said::of(answer.unwrap_or_else(|_| panic!("order {seed}: no answer to {number}")));
            told.lock().push(Told { number, said, before, moved: has_moved() });
            let written = tokio::time::timeout(EVER, written).await;
            assert!(written.is_ok(), "order {seed}: {number} is never written");
        })
    }

    /// A gateway looks for orphans within so many milliseconds.
    pub(super) fn sweep(&self, within: u64) -> tokio::task::JoinHandle<()> {
        let Gateway { broker, recovery, .. } = self.gateway();
        let (broker, recovery) = (Arc::clone(broker), Arc::clone(recovery));
        let pause = self.any(within);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            broker.results.tend(Duration::from_secs(15)).await;
            broker.owe_broken(&|| Some(())).await;
            recovery.sweep(&|| Some(())).await;
            recovery.look_at_open(&|| Some(())).await;
        })
    }

    /// All stand still for so many seconds of the clock, within so many milliseconds.
    pub(super) fn stand_still(&self, seconds: u64, within: u64) -> tokio::task::JoinHandle<()> {
        let (clock, pause) = (self.stage.clock.clone(), self.any(within));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            clock.advance(seconds * 1000);
        })
    }

    /// A gateway is cut off from the store for a while.
    pub(super) fn cut_off(&self, within: u64, seconds: u64) -> tokio::task::JoinHandle<()> {
        self.cut_off.store(true, Ordering::SeqCst);
        let (trap, pause) = (Arc::clone(&self.gateway().trap), self.any(within));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            trap.go_away(true);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            trap.go_away(false);
        })
    }

    /// What a process does, begun within so many milliseconds, until it is killed, wherever it is then.
    pub(super) fn lives(
        &self,
        within: u64,
        does: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let (pause, life) = (self.any(within), self.one_of(&[50, 300, 8_000, 8_000]));
        let life = self.any(life);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let _ = tokio::time::timeout(Duration::from_millis(life), does).await;
        })
    }

    /// The jobs' clock goes on as the world's does, until this is ended.
    pub(super) fn ticks(&self) -> tokio::task::JoinHandle<()> {
        let clock = self.stage.clock.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                clock.advance(100);
            }
        })
    }

    /// Everything that waits for nothing but time comes to its end.
    pub(super) async fn rest(&self) {
        for _ in 0..9 {
            self.stage.clock.advance(61_000);
            for gateway in &self.gateways {
                gateway.broker.owe_broken(&|| Some(())).await;
                gateway.recovery.sweep(&|| Some(())).await;
                gateway.recovery.look_at_open(&|| Some(())).await;
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }

    pub(super) async fn all(&self, tasks: Vec<tokio::task::JoinHandle<()>>) {
        for task in tasks {
            task.await.unwrap();
        }
    }

    /// Whoever had a job in hand that is at rest has given it back.
    pub(super) async fn check_quiet(&self, numbers: &[u8]) {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let (store, seed) = (&self.stage.store.inner, self.seed);
        for number in numbers {
            let Some(job) = self.found(*number).await.filter(|job| job.state.at_rest()) else { continue };
            let taken = store.take_over(&job.claim, Duration::from_secs(1)).await.unwrap();
            let state = job.state.name();
            let (_, lease) =
                taken.unwrap_or_else(|| panic!("order {seed}: {number} is {state}, and held by somebody"));
            store.release(&lease).await.unwrap();
        }
    }

    pub(super) async fn found(&self, number: u8) -> Option<Job> {
        self.stage.store.inner.by_claim(&presented(number).claim()).await.unwrap()
    }

    /// Whether its provider was paid, or may have been, by who did not come to the end of it.
    pub(super) async fn is_held(&self, number: u8) -> bool {
        self.found(number).await.is_some_and(|job| matches!(job.state, State::Held | State::ProviderLost))
    }

    /// What was told was true.
    pub(super) fn check_told(&self) {
        for Told { number, said, before, moved } in self.told.lock().iter() {
            let seed = self.seed;
            let yes = said.receipt.is_some() || said.charged == Some(Charged::Yes);
            assert!(!yes || *moved, "order {seed}: {number} is told that it paid: {said:?}");
            // The one lie that is known: of a job that is held nobody knows that one who is cut off settles it from memory.
            let held = self.cut_off.load(Ordering::SeqCst) && said.reason == Reason::ProviderLost;
            // Of two requests with one payment, one may fail while the other buys.
            // Who has its money back did not pay in the end: `refunds` looks whether that is so.
            let no = !held
                && said.reason != Reason::Refunded
                && (said.charged == Some(Charged::No) || said.status == 402);
            assert!(
                !no || !before || self.together,
                "order {seed}: {number} is told that it did not pay: {said:?}"
            );
        }
    }

    /// What must hold once all is at rest.
    pub(super) async fn check(&self, numbers: &[u8]) {
        let seed = self.seed;
        self.check_told();
        let given = self.stage.log.given();
        let knows = self.gateways[0].broker.chains.knows(usdc().network);
        let mut known = 0;
        let mut unsettled = false;
        for number in numbers {
            let Some(job) = self.found(*number).await else {
                assert!(
                    !self.stage.facilitator.has_moved(*number),
                    "order {seed}: {number} paid for nothing"
                );
                continue;
            };
            let state = job.state;
            let moved = self.stage.facilitator.has_moved(*number);
            let ours = |payment: &&crate::jobs::job::ProviderPayment| {
                given.iter().any(|given| given.contains(&format!("{:#x}", payment.nonce)))
            };
            let out = job.provider.iter().filter(ours).count();
            known += out;
            assert!(out <= 1, "order {seed}: {number} bought {out} times: {job:?}");
            let right = match state {
                State::Completed | State::RefundDue => moved,
                State::Voided => !moved && out == 0,
                State::Uncollected => !moved && (out == 1 || job.trusted),
                State::Held => !moved && !knows,
                State::ProviderLost => !moved && out == 1,
                State::Settling | State::SettlingUpfront => moved && !knows,
                _ => false,
            };
            assert!(right, "order {seed}: {number} is {} and paid {moved}, bought {out}", state.name());
            unsettled |= state == State::Settling;
            if knows {
                assert!(
                    job.provider.iter().all(|payment| payment.fate != Fate::Open),
                    "order {seed}: {job:?}"
                );
            }
            // Nobody has it in hand, and it can be forgotten.
            for gateway in &self.gateways {
                assert!(!gateway.broker.running.has(&job.claim), "order {seed}: {number} is in hand");
            }
            if state.at_rest() {
                let forgotten = self.stage.store.inner.forget(&job).await.unwrap();
                assert!(forgotten, "order {seed}: {number} cannot be forgotten");
            }
        }
        assert_eq!(known, given.len(), "order {seed}: a payment left that is not on record");
        for gateway in &self.gateways {
            let free = gateway.broker.slots.available_permits();
            assert_eq!(free, gateway.broker.limits.max_jobs, "order {seed}: a slot is taken");
        }
        // What is reserved comes back.
        for _ in 0..4 {
            self.stage.clock.advance(31_000);
            for gateway in &self.gateways {
                gateway.broker.guards().tend().await;
            }
        }
        let payer = Address::repeat_byte(0xbb);
        for limit in
            ["exposure", "unsettled"].map(|all| [all.to_owned(), format!("{all}/{payer:#x}")]).concat()
        {
            let drawn = self.stage.store.inner.drawn("limits", &limit).await.unwrap();
            assert!(drawn == 0 || unsettled, "order {seed}: {drawn} of {limit} is still out");
        }
    }

    /// The same payment again is answered as before.
    pub(super) async fn check_again(&self, number: u8) {
        let seed = self.seed;
        let Some(job) = self.found(number).await else { return };
        if !job.state.at_rest() || job.state == State::Voided {
            return;
        }
        let (runs, given, moved) =
            (self.stage.log.runs(), self.stage.log.given(), self.stage.facilitator.moved());
        for gateway in &self.gateways {
            let mut before: Option<Said> = None;
            for _ in 0..2 {
                let again = Box::new(self.stage.sale(number, &[PAY]));
                let answer = Arc::clone(&gateway.broker).sell(again, ());
                let said = Said::of(tokio::time::timeout(EVER, answer).await.unwrap());
                assert_eq!(before.as_ref().unwrap_or(&said), &said, "order {seed}");
                before = Some(said);
            }
        }
        let now = (self.stage.log.runs(), self.stage.log.given(), self.stage.facilitator.moved());
        assert_eq!((runs, given, moved), now, "order {seed}: {number} was worked for again");
    }
}
