//! Refunds against a chain that keeps its own count of what was transferred.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::value::to_raw_value;

use super::*;
use crate::chain::{ChainError, Head, Proof, Unpaid};
use crate::facilitator::{FacilitatorError, PaymentRequest, Settlement, Supported, Verdict};
use crate::guard::Frozen;
use crate::ids::JobId;
use crate::jobs::job::{ClientLeg, Fate};
use crate::jobs::{Claim, ClaimKey, Embedded, Event, Shortfall, sample};
use crate::money::Amount;
use crate::telemetry::Metrics;
use crate::x402::fixtures::{NOW, authorization, payer, requirement, resource, usdc};
use crate::x402::{B256, Domain, Network, Payment, PaymentFlow, Receipt, Requirement, Version};

/// The wallet's key; the clients' is that of the fixtures.
const WALLET: &str = "2222222222222222222222222222222222222222222222222222222222222222";
const PRICE: u128 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Settles,
    /// It does it, and its answer is lost.
    Loses,
    /// It says so, and does nothing.
    Lies,
    Away,
}

/// The chain, and the only facilitator on it.
struct World {
    /// By nonce: payee, amount, and whether its block is final.
    transfers: Mutex<HashMap<B256, (Address, Amount, bool)>>,
    sent: Mutex<Vec<String>>,
    mood: Mutex<Mood>,
    /// The time of the final block.
    time: AtomicU64,
    knows: Mutex<bool>,
}

impl World {
    fn is(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn finalize(&self) {
        self.transfers.lock().values_mut().for_each(|(_, _, is_final)| *is_final = true);
    }

    /// What clients got back.
    fn refunded(&self) -> u128 {
        let transfers = self.transfers.lock();
        let back = transfers.values().filter(|(to, _, _)| *to == payer().address());
        back.map(|(_, amount, _)| amount.units()).sum()
    }
}

#[async_trait]
impl Prove for World {
    async fn prove(&self, _: Network, sought: &Sought) -> Option<Result<Proof, ChainError>> {
        if !*self.knows.lock() {
            return None;
        }
        let as_of = Head { number: 5, hash: B256::ZERO, time: self.time.load(Ordering::Relaxed) };
        Some(Ok(match self.transfers.lock().get(&sought.nonce) {
            Some((to, value, is_final)) if (*to, *value) == (sought.to, sought.value) => {
                Proof::Paid { transaction: sought.nonce, block: 5, is_final: *is_final }
            }
            Some(_) => Proof::Unpaid(Unpaid::Elsewhere),
            None if as_of.time >= sought.valid_before => Proof::Unpaid(Unpaid::Lapsed),
            None => Proof::Open { as_of },
        }))
    }

    async fn last_final(&self, _: Network) -> Option<Result<Head, ChainError>> {
        Some(Ok(Head { number: 5, hash: B256::ZERO, time: NOW }))
    }

    fn height(&self, _: Network) -> Option<u64> {
        None
    }

    fn knows(&self, _: Network) -> bool {
        *self.knows.lock()
    }
}

#[async_trait]
impl Balance for World {
    async fn balance(&self, _: &Asset, _: Address) -> Option<Result<Amount, ChainError>> {
        Some(Ok(Amount::new(15_000)))
    }

    fn knows(&self, _: Network) -> bool {
        true
    }
}

#[async_trait]
impl Facilitator for World {
    async fn verify(&self, _: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        panic!("a refund is settled, not verified")
    }

    async fn settle(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        // As any facilitator would read it.
        let payment = Payment::from_json(&request.payment_payload, Version::V2).unwrap();
        let accepted = payment.accepted().unwrap();
        assert_eq!(accepted.raw.get(), request.payment_requirements.get());
        let signed = *payment.authorization();
        assert_eq!((accepted.pay_to, accepted.amount), (signed.to, signed.value));
        let signature = payment.signature().try_into().unwrap();
        assert_eq!(Domain::new(&usdc()).recover(&signed, signature), Ok(signed.from));
        self.sent.lock().push(request.payment_payload.get().to_owned());
        let mood = *self.mood.lock();
        if matches!(mood, Mood::Settles | Mood::Loses) {
            // The token takes a nonce once.
            self.transfers.lock().entry(signed.nonce).or_insert((signed.to, signed.value, false));
        }
        match mood {
            Mood::Settles | Mood::Lies => {
                Ok(Settlement::Settled(Receipt { success: true, ..sample::receipt() }))
            }
            Mood::Loses => Err(FacilitatorError::Unknown("lost".into())),
            Mood::Away => Err(FacilitatorError::NotSent("away".into())),
        }
    }

    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError> {
        Ok(Vec::new())
    }
}

struct Stage {
    payer: Payer,
    world: Arc<World>,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW * 1000);
        let path = folder.path().join("jobs.redb");
        let world = Arc::new(World {
            transfers: Mutex::default(),
            sent: Mutex::default(),
            mood: Mutex::new(Mood::Settles),
            time: AtomicU64::new(NOW),
            knows: Mutex::new(true),
        });
        let payer = Payer {
            jobs: Arc::new(Embedded::open(&path, Duration::from_secs(3600), clock.clone()).unwrap()),
            chains: world.clone(),
            balances: world.clone(),
            facilitator: world.clone(),
            wallet: Arc::new(Wallet::new(WALLET.to_owned().into(), "0.001", vec![usdc()]).unwrap()),
            switch: Switch::beside(&path),
            payees: vec![(usdc(), requirement().pay_to)],
            clock,
        };
        Stage { payer, world, folder }
    }

    /// A job whose client has paid, on the chain, for work that failed. `change` is made to the record.
    async fn owed_but(&self, number: u8, change: impl FnOnce(&mut Job)) -> JobId {
        self.owed_after(number, Event::WorkFailed { failure: sample::failure() }, change).await
    }

    /// The same for work that ended so.
    async fn owed_after(&self, number: u8, end: Event, change: impl FnOnce(&mut Job)) -> JobId {
        let requirement = Requirement { flow: PaymentFlow::Upfront, ..requirement() };
        let nonce = B256::repeat_byte(number);
        let signed = crate::x402::Authorization { nonce, ..authorization(&requirement) };
        let signature = Domain::new(&usdc()).sign(&payer(), &signed).unwrap();
        let mut job = sample::job(u64::from(number));
        job.claim = ClaimKey::new(&usdc(), signed.from, nonce);
        job.requester = signed.from;
        let client = Arc::make_mut(&mut job.client);
        client.payload = to_raw_value(&requirement.paid_v2(&resource(), &signed, &signature)).unwrap().into();
        (client.requirement, client.valid_before) = (requirement, signed.valid_before);
        self.world.transfers.lock().insert(nonce, (signed.to, signed.value, true));
        let now = self.payer.clock.now_millis();
        (job.created, job.updated) = (now, now);
        change(&mut job);
        let Claim::Won(mut job, lease) = self.payer.jobs.claim(&job, Duration::from_secs(9)).await.unwrap()
        else {
            panic!("taken")
        };
        for event in [Event::SettleFirst, Event::Settled { receipt: sample::receipt() }, end] {
            job = job.apply(&event, self.payer.clock.now_millis()).unwrap();
            self.payer.jobs.append(&lease, &event, &job).await.unwrap();
        }
        // Each has been due for longer than the next.
        self.payer.clock.advance(1);
        job.id
    }

    async fn owed(&self, number: u8) -> JobId {
        self.owed_but(number, |_| {}).await
    }

    async fn job(&self, id: JobId) -> Job {
        self.payer.jobs.by_id(id).await.unwrap().unwrap()
    }

    fn sent(&self) -> Vec<String> {
        self.world.sent.lock().clone()
    }

    fn watch(&self) -> Watch {
        Watch {
            jobs: self.payer.jobs.clone(),
            chains: self.world.clone(),
            metrics: Arc::new(Metrics::new()),
            clock: self.payer.clock.clone(),
        }
    }
}

#[tokio::test]
async fn a_refund_is_paid_once_and_ends_with_the_final_block_it_is_in() {
    let stage = Stage::new();
    let id = stage.owed(1).await;
    let Outcome::Mined(transaction) = stage.payer.pay(id).await.unwrap() else { panic!("not mined") };
    assert_eq!(stage.job(id).await.state, State::RefundDue, "a block can be undone");
    stage.world.finalize();
    for _ in 0..3 {
        assert_eq!(stage.payer.pay(id).await.unwrap(), Outcome::Refunded(transaction));
    }
    let job = stage.job(id).await;
    assert_eq!((job.state, job.refunds.len(), job.refunds[0].fate), (State::Refunded, 1, Fate::Spent));
    assert_eq!(job.refunds[0].transaction, Some(transaction));
    assert_eq!((stage.sent().len(), stage.world.refunded()), (1, PRICE));
    let journal = stage.payer.jobs.journal(&job.claim).await.unwrap();
    let names: Vec<_> = journal.iter().map(|entry| entry.event.name()).collect();
    assert_eq!(names[3..], ["refund_signed", "refunded"]);
    let mut books = crate::ledger::Books::default();
    books.post(&job, &journal);
    assert_eq!(books.check(), []);
}

/// Of work in several parts.
#[tokio::test]
async fn for_a_part_its_share_is_paid_once() {
    let stage = Stage::new();
    let in_part = |owed| {
        let shortfall = Shortfall { owed: Amount::new(owed), steps: vec!["pin/2".to_owned()] };
        Event::AnsweredInPart { answer: sample::answer(b"{}"), shortfall }
    };
    let (first, whole) = (stage.owed_after(1, in_part(4_000), |_| {}).await, stage.owed(2).await);
    let watch = stage.watch();
    let mut due = HashMap::new();
    watch.look(&mut due).await.unwrap();
    assert_eq!(due[&usdc()], Amount::new(4_000 + PRICE));
    let plan = stage.payer.plan(&Wanted { max: Some(4_000), ..Wanted::default() }).await.unwrap();
    let (pays, left) = (plan.pay.iter().map(|owed| owed.job.id), plan.left.iter().map(|left| left.job));
    assert_eq!((pays.collect::<Vec<_>>(), left.collect::<Vec<_>>()), (vec![first], vec![whole]));
    assert_eq!(plan.totals[0].amount, Amount::new(4_000));
    // Lost, lapsed, and another is signed; the first turns up, and is found.
    stage.world.is(Mood::Away);
    assert!(matches!(stage.payer.pay(first).await.unwrap(), Outcome::Sent { .. }));
    stage.world.time.store(NOW + 3_600, Ordering::Relaxed);
    watch.look(&mut due).await.unwrap();
    stage.world.time.store(NOW, Ordering::Relaxed);
    stage.world.is(Mood::Settles);
    for _ in 0..3 {
        stage.payer.pay(first).await.unwrap();
        stage.world.finalize();
    }
    let job = stage.job(first).await;
    assert_eq!((job.state, job.refunds.len(), stage.world.refunded()), (State::Refunded, 2, 4_000));
    assert!(job.is_answered() && job.answer.is_some(), "what it bought stays bought");
    let mut books = crate::ledger::Books::default();
    books.post(&job, &stage.payer.jobs.journal(&job.claim).await.unwrap());
    assert_eq!(books.check(), []);
    // A record that says that more is owed than was paid.
    let more = Shortfall { owed: Amount::new(PRICE + 1), steps: Vec::new() };
    let odd = stage.owed_but(3, |job| job.shortfall = Some(more)).await;
    let error = stage.payer.pay(odd).await.unwrap_err();
    assert!(matches!(error, RefundError::Unpayable(Unpayable::Record("what is owed"))), "{error}");
}

#[tokio::test]
async fn many_who_pay_at_once_pay_once() {
    let stage = Stage::new();
    let ids = [stage.owed(1).await, stage.owed(2).await];
    let outcomes = join_all((0..16).map(|n| stage.payer.pay(ids[n % 2]))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Mined(_)))), "{outcomes:?}");
    stage.world.finalize();
    join_all((0..16).map(|n| stage.payer.pay(ids[n % 2]))).await;
    assert_eq!(stage.world.refunded(), 2 * PRICE);
    for id in ids {
        let job = stage.job(id).await;
        assert_eq!((job.state, job.refunds.len()), (State::Refunded, 1));
    }
}

#[tokio::test]
async fn what_was_signed_is_sent_again_byte_for_byte() {
    let stage = Stage::new();
    let id = stage.owed(1).await;
    stage.world.is(Mood::Away);
    let outcome = stage.payer.pay(id).await.unwrap();
    assert!(matches!(&outcome, Outcome::Sent { said } if said.contains("not reached")), "{outcome:?}");
    // As after a crash between the record and the facilitator, some time later.
    stage.payer.clock.advance(300_000);
    stage.world.is(Mood::Loses);
    assert!(matches!(stage.payer.pay(id).await, Ok(Outcome::Mined(_))), "found on the chain");
    stage.world.is(Mood::Settles);
    assert!(matches!(stage.payer.pay(id).await, Ok(Outcome::Mined(_))));
    let sent = stage.sent();
    assert_eq!((sent.len(), sent[0] == sent[1], stage.world.refunded()), (2, true, PRICE));
    assert_eq!(stage.job(id).await.refunds.len(), 1);
}

#[tokio::test]
async fn a_facilitator_that_lies_ends_nothing() {
    let stage = Stage::new();
    let id = stage.owed(1).await;
    stage.world.is(Mood::Lies);
    assert!(matches!(stage.payer.pay(id).await, Ok(Outcome::Sent { .. })));
    assert!(matches!(stage.payer.pay(id).await, Ok(Outcome::Sent { .. })));
    assert_eq!(stage.job(id).await.state, State::RefundDue);
    stage.world.is(Mood::Settles);
    assert!(matches!(stage.payer.pay(id).await, Ok(Outcome::Mined(_))));
    assert_eq!((stage.job(id).await.refunds.len(), stage.world.refunded()), (1, PRICE));
}

#[tokio::test]
async fn another_is_signed_only_when_the_last_can_never_be_paid() {
    let stage = Stage::new();
    let id = stage.owed(1).await;
    stage.world.is(Mood::Away);
    stage.payer.pay(id).await.unwrap();
    // It has lapsed by our clock, which proves nothing: the chain's is behind.
    stage.payer.clock.advance(3_600_000);
    let outcome = stage.payer.pay(id).await.unwrap();
    assert!(matches!(&outcome, Outcome::Sent { said } if said.contains("final block 5")), "{outcome:?}");
    assert_eq!((stage.sent().len(), stage.job(id).await.refunds.len()), (1, 1));
    stage.world.time.store(NOW + 3_600, Ordering::Relaxed);
    stage.world.is(Mood::Settles);
    assert!(matches!(stage.payer.pay(id).await, Ok(Outcome::Mined(_))));
    let job = stage.job(id).await;
    assert_eq!((job.refunds.len(), job.refunds[0].fate), (2, Fate::Unspent));
    assert_ne!(job.refunds[0].nonce, job.refunds[1].nonce);
    assert_eq!(stage.world.refunded(), PRICE);
}

#[tokio::test]
async fn a_frozen_wallet_signs_and_sends_nothing() {
    let stage = Stage::new();
    let (first, second) = (stage.owed(1).await, stage.owed(2).await);
    stage.world.is(Mood::Away);
    stage.payer.pay(first).await.unwrap();
    let frozen = Frozen { reason: "a test".into(), by: "operator".into(), since: NOW };
    stage.payer.switch.throw(&frozen).await.unwrap();
    for id in [first, second] {
        assert!(matches!(stage.payer.pay(id).await, Err(RefundError::Frozen { .. })));
    }
    assert_eq!((stage.sent().len(), stage.job(second).await.refunds.len()), (1, 0));
    // A switch that cannot be read is thrown.
    let path = stage.folder.path().join("jobs.redb.frozen");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(stage.payer.pay(second).await, Err(RefundError::Switch(_))));
    assert_eq!(stage.job(second).await.refunds.len(), 0);
}

#[tokio::test]
async fn what_the_client_did_not_pay_here_is_not_paid_back() {
    fn leg(job: &mut Job) -> &mut ClientLeg {
        Arc::make_mut(&mut job.client)
    }
    let stage = Stage::new();
    let thief = Address::repeat_byte(0x66);
    let refused = async |number: u8, change: fn(&mut Job)| {
        let id = stage.owed_but(number, change).await;
        match stage.payer.pay(id).await {
            Err(RefundError::Unpayable(why)) => why,
            other => panic!("{number}: {other:?}"),
        }
    };
    // Records that somebody wrote to who can write to the store.
    let record = |what| Unpayable::Record(what);
    assert_eq!(refused(1, |job| job.requester = Address::repeat_byte(0x66)).await, record("the payer"));
    let more = refused(2, |job| leg(job).requirement.amount = Amount::new(1_000_000)).await;
    assert_eq!(more, record("the amount"));
    let payee = refused(3, |job| leg(job).requirement.pay_to = Address::repeat_byte(0x66)).await;
    assert_eq!(payee, record("the payee"));
    let token = refused(4, |job| leg(job).requirement.asset.address = Address::repeat_byte(0x66)).await;
    assert_eq!(token, record("the token"));
    assert_eq!(
        refused(5, |job| leg(job).payload = to_raw_value("{}").unwrap().into()).await,
        record("its form")
    );
    // A payment that is on the chain, from the thief to himself.
    let own = refused(6, |job| {
        let requirement = Requirement { pay_to: Address::repeat_byte(0x66), ..requirement() };
        let signed =
            crate::x402::Authorization { nonce: job.claim.nonce().unwrap(), ..authorization(&requirement) };
        let signature = Domain::new(&usdc()).sign(&payer(), &signed).unwrap();
        let paid = requirement.paid_v2(&resource(), &signed, &signature);
        (leg(job).payload, leg(job).requirement) = (to_raw_value(&paid).unwrap().into(), requirement);
    });
    assert_eq!(own.await, Unpayable::Payee(thief));

    // A payment that never came.
    let id = stage.owed(7).await;
    stage.world.transfers.lock().remove(&B256::repeat_byte(7));
    let error = stage.payer.pay(id).await.unwrap_err();
    assert!(matches!(error, RefundError::Unpayable(Unpayable::NotFinal)), "{error}");
    stage.world.time.store(NOW + 3_600, Ordering::Relaxed);
    let error = stage.payer.pay(id).await.unwrap_err();
    assert!(matches!(error, RefundError::Unpayable(Unpayable::NeverPaid(Unpaid::Lapsed))), "{error}");
    *stage.world.knows.lock() = false;
    let error = stage.payer.pay(id).await.unwrap_err();
    assert!(matches!(error, RefundError::Unpayable(Unpayable::NoChain(_))), "{error}");
    assert!(stage.sent().is_empty());
    assert_eq!(stage.world.refunded(), 0);
}

#[tokio::test]
async fn a_record_that_hides_a_refund_gets_no_second_one() {
    let stage = Stage::new();
    let id = stage.owed(1).await;
    let owed = stage.job(id).await;
    stage.payer.pay(id).await.unwrap();
    stage.world.finalize();
    let Outcome::Refunded(transaction) = stage.payer.pay(id).await.unwrap() else { panic!("not paid") };
    // As it was before, but for a first refund that has lapsed; under its own nonce or another.
    for nonce in [transaction, B256::repeat_byte(9)] {
        let lapsed = Refund { fate: Fate::Unspent, nonce, ..sample::refund(1, 9) };
        let forged = Job { refunds: vec![lapsed], ..owed.clone() };
        assert_eq!(stage.payer.examine(&forged).await, Err(Unpayable::PaidBefore(transaction)));
    }
    // Without any, the next would be the first: the same nonce, which the token takes once.
    let next = stage.payer.wallet.next_refund(&owed, NOW, 5).unwrap();
    assert_eq!(next.nonce, transaction);
    let many = Job { refunds: vec![Refund { fate: Fate::Unspent, ..sample::refund(16, 9) }], ..owed };
    assert_eq!(stage.payer.examine(&many).await, Err(Unpayable::TooMany));
}

#[tokio::test]
async fn a_job_that_owes_nothing_is_paid_nothing() {
    let stage = Stage::new();
    let error = stage.payer.pay(JobId::new()).await.unwrap_err();
    assert!(matches!(error, RefundError::Gone), "{error}");
    let job = sample::job(9);
    let Claim::Won(job, _) = stage.payer.jobs.claim(&job, Duration::from_secs(9)).await.unwrap() else {
        panic!()
    };
    let error = stage.payer.pay(job.id).await.unwrap_err();
    assert!(matches!(error, RefundError::NotDue(State::Claimed)), "{error}");
}

#[tokio::test]
async fn a_nonce_spent_by_somebody_else_is_an_alarm() {
    let stage = Stage::new();
    let id = stage.owed(1).await;
    stage.world.is(Mood::Away);
    stage.payer.pay(id).await.unwrap();
    let nonce = stage.job(id).await.refunds[0].nonce;
    stage.world.transfers.lock().insert(nonce, (Address::repeat_byte(0x66), Amount::new(PRICE), true));
    let error = stage.payer.pay(id).await.unwrap_err();
    assert!(matches!(error, RefundError::Elsewhere), "{error}");
}

#[tokio::test]
async fn a_new_key_waits_until_what_the_old_one_signed_has_lapsed() {
    let mut stage = Stage::new();
    let id = stage.owed(1).await;
    stage.world.is(Mood::Away);
    stage.payer.pay(id).await.unwrap();
    stage.world.is(Mood::Settles);
    let wallet = Wallet::new("33".repeat(32).into(), "1", vec![usdc()]).unwrap();
    stage.payer.wallet = Arc::new(wallet);
    assert!(matches!(stage.payer.pay(id).await, Ok(Outcome::Sent { .. })));
    assert_eq!(stage.sent().len(), 1);
    stage.world.time.store(NOW + 3_600, Ordering::Relaxed);
    assert!(matches!(stage.payer.pay(id).await, Ok(Outcome::Mined(_))));
    assert_eq!(stage.world.refunded(), PRICE);
}

#[tokio::test]
async fn a_plan_says_what_is_paid_what_is_left_and_why() {
    let stage = Stage::new();
    let ids = [stage.owed(1).await, stage.owed(2).await];
    let odd = stage.owed_but(3, |job| job.requester = Address::repeat_byte(0x66)).await;
    let all = stage.payer.plan(&Wanted::default()).await.unwrap();
    let paid = |plan: &Plan| plan.pay.iter().map(|owed| owed.job.id).collect::<Vec<_>>();
    assert_eq!(paid(&all), ids);
    assert_eq!(all.totals.len(), 1);
    assert_eq!((all.totals[0].amount, all.totals[0].has), (Amount::new(20_000), Some(Amount::new(15_000))));
    assert!(all.totals[0].lacks());
    let why = |plan: &Plan| plan.left.iter().map(|left| (left.job, left.why.clone())).collect::<Vec<_>>();
    assert_eq!(why(&all), [(odd, Why::Unpayable(Unpayable::Record("the payer")))]);

    // The one that has been due the longest.
    let most = stage.payer.plan(&Wanted { max: Some(19_999), ..Wanted::default() }).await.unwrap();
    assert_eq!((paid(&most), most.totals[0].lacks()), (vec![ids[0]], false));
    assert!(why(&most).contains(&(ids[1], Why::Max)));

    let unknown = JobId::new();
    let some = Wanted { jobs: vec![ids[1], unknown], max: None };
    let some = stage.payer.plan(&some).await.unwrap();
    assert_eq!((paid(&some), why(&some)), (vec![ids[1]], vec![(unknown, Why::NotOwed)]));
    // A plan is no more than that.
    assert!(stage.sent().is_empty());
    assert_eq!(stage.job(ids[0]).await.version, 3);
}

#[tokio::test]
async fn a_gateway_notices_what_became_of_a_refund_and_sends_none() {
    let stage = Stage::new();
    let (first, second) = (stage.owed(1).await, stage.owed(2).await);
    let watch = stage.watch();
    let mut due = HashMap::new();
    let mut look = async |expected: u128| {
        watch.look(&mut due).await.unwrap();
        let text = watch.metrics.exposition().unwrap();
        let line = text.lines().find(|line| line.starts_with("galaksio_refunds_due_atomic")).unwrap();
        assert!(line.ends_with(&format!(" {expected}")), "{line}, not {expected}");
    };
    look(2 * PRICE).await;
    stage.payer.pay(first).await.unwrap();
    look(2 * PRICE).await;
    stage.world.finalize();
    look(PRICE).await;
    assert_eq!(stage.job(first).await.state, State::Refunded);
    stage.world.is(Mood::Away);
    stage.payer.pay(second).await.unwrap();
    stage.world.time.store(NOW + 3_600, Ordering::Relaxed);
    look(PRICE).await;
    assert_eq!(stage.job(second).await.refunds[0].fate, Fate::Unspent);
    assert_eq!(stage.sent().len(), 2);
    stage.world.is(Mood::Settles);
    stage.payer.pay(second).await.unwrap();
    stage.world.finalize();
    look(0).await;
}
