//! The pool over facilitators that do as they are told, in time that stands still. Over sockets: `tests/paid/pool.rs`.

use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::clock::Clock;
use crate::facilitator::{Operation, Outcome};
use crate::jobs::memory::MemoryStore;
use crate::x402::{Network, Receipt, Version};

const HEDGE: Duration = Duration::from_millis(500);
const SLOW: Duration = Duration::from_secs(5);

/// What a facilitator does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Yes,
    No,
    Late,
    NotSent,
    Unknown,
}

struct Fake {
    verify: Mutex<Does>,
    settle: Mutex<Does>,
    look: Mutex<Does>,
    networks: Vec<u64>,
    verified: AtomicUsize,
    settled: AtomicUsize,
}

impl Fake {
    fn new() -> Arc<Self> {
        Fake::on(&[84_532])
    }

    fn on(networks: &[u64]) -> Arc<Self> {
        Arc::new(Fake {
            verify: Mutex::new(Does::Yes),
            settle: Mutex::new(Does::Yes),
            look: Mutex::new(Does::Yes),
            networks: networks.to_vec(),
            verified: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
        })
    }

    /// Does so whatever it is asked.
    fn does(&self, what: Does) {
        for does in [&self.verify, &self.settle, &self.look] {
            *does.lock() = what;
        }
    }

    /// How often it was asked to verify and to settle.
    fn asked(&self) -> (usize, usize) {
        (self.verified.load(Ordering::SeqCst), self.settled.load(Ordering::SeqCst))
    }
}

async fn result(does: &Mutex<Does>) -> Result<bool, FacilitatorError> {
    let does = *does.lock();
    match does {
        Does::Yes => Ok(true),
        Does::No => Ok(false),
        Does::Late => {
            tokio::time::sleep(SLOW).await;
            Ok(true)
        }
        Does::NotSent => Err(FacilitatorError::NotSent("refused".into())),
        Does::Unknown => Err(FacilitatorError::Unknown("502".into())),
    }
}

#[async_trait]
impl Facilitator for Fake {
    async fn verify(&self, _: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        self.verified.fetch_add(1, Ordering::SeqCst);
        let no = || Verdict::Invalid { reason: "insufficient_funds".into(), message: None };
        Ok(if result(&self.verify).await? { Verdict::Valid } else { no() })
    }

    async fn settle(&self, _: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.settled.fetch_add(1, Ordering::SeqCst);
        let success = result(&self.settle).await?;
        let receipt = Receipt {
            success,
            transaction: String::new(),
            network: "eip155:84532".into(),
            payer: None,
            error_reason: None,
            error_message: None,
        };
        Ok(if success { Settlement::Settled(receipt) } else { Settlement::Refused(receipt) })
    }

    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError> {
        result(&self.look).await?;
        let kind = |network: &u64| Supported {
            version: Version::V2,
            scheme: "exact".into(),
            network: Network(*network),
        };
        Ok(self.networks.iter().map(kind).collect())
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn called(&self, name: &str, operation: Operation, outcome: Outcome, _: Duration) {
        self.0.lock().push(format!("{name} {operation:?} {outcome:?}"));
    }

    fn available(&self, name: &str, available: bool) {
        self.0.lock().push(format!("{name} {available}"));
    }
}

fn memory() -> Arc<MemoryStore> {
    MemoryStore::new(Clock::system())
}

/// Facilitators called `a`, `b`, ...
async fn pool(fakes: &[&Arc<Fake>], store: &Arc<MemoryStore>) -> Pool {
    heard(fakes, store, Arc::default()).await
}

async fn heard(fakes: &[&Arc<Fake>], store: &Arc<MemoryStore>, heard: Arc<Heard>) -> Pool {
    let members = ["a", "b", "c"].into_iter().zip(fakes).map(|(name, fake)| {
        let fake: Arc<dyn Facilitator> = Arc::clone(fake) as _;
        (name.to_owned(), fake)
    });
    Pool::open(members.collect(), HEDGE, store.clone(), heard).await
}

fn payment(number: u32) -> PaymentRequest {
    let raw = |value: Value| serde_json::value::to_raw_value(&value).unwrap();
    PaymentRequest {
        x402_version: Version::V2,
        payment_payload: raw(json!({ "payload": number })).into(),
        payment_requirements: raw(json!({ "scheme": "exact", "network": "eip155:84532" })).into(),
        payer: None,
        network: None,
    }
}

fn is_settled(answer: &Result<Settlement, FacilitatorError>) -> bool {
    matches!(answer, Ok(Settlement::Settled(_)))
}

#[tokio::test(start_paused = true)]
async fn the_first_is_asked_and_the_others_are_not() {
    let (a, b, store) = (Fake::new(), Fake::new(), memory());
    let pool = pool(&[&a, &b], &store).await;
    assert_eq!(pool.verify(&payment(1)).await, Ok(Verdict::Valid));
    assert!(is_settled(&pool.settle(&payment(1)).await));
    assert_eq!((a.asked(), b.asked()), ((1, 1), (0, 0)));
    // The usual way costs the store nothing.
    assert_eq!(store.writes(), 0);
    *a.verify.lock() = Does::No;
    assert!(matches!(pool.verify(&payment(2)).await, Ok(Verdict::Invalid { .. })));
    assert_eq!((a.asked(), b.asked()), ((2, 1), (0, 0)), "a no is an answer");
}

#[tokio::test(start_paused = true)]
async fn a_slow_verification_is_helped_and_who_vouched_settles() {
    let (a, b, store) = (Fake::new(), Fake::new(), memory());
    let pool = pool(&[&a, &b], &store).await;
    *a.verify.lock() = Does::Late;
    let began = tokio::time::Instant::now();
    assert_eq!(pool.verify(&payment(1)).await, Ok(Verdict::Valid));
    assert_eq!(began.elapsed(), HEDGE);
    assert!(is_settled(&pool.settle(&payment(1)).await));
    assert_eq!((a.asked(), b.asked()), ((1, 0), (1, 1)));
    // Of a pool of one, the one is waited for.
    let alone = self::pool(&[&a], &store).await;
    let began = tokio::time::Instant::now();
    assert_eq!(alone.verify(&payment(2)).await, Ok(Verdict::Valid));
    assert_eq!((began.elapsed(), a.asked().0), (SLOW, 2));
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_to_verify_is_helped_at_once() {
    for fault in [Does::NotSent, Does::Unknown] {
        let (a, b) = (Fake::new(), Fake::new());
        let pool = pool(&[&a, &b], &memory()).await;
        *a.verify.lock() = fault;
        let began = tokio::time::Instant::now();
        assert_eq!(pool.verify(&payment(1)).await, Ok(Verdict::Valid));
        assert_eq!((began.elapsed(), b.asked().0), (Duration::ZERO, 1));
        *b.verify.lock() = fault;
        assert!(pool.verify(&payment(2)).await.is_err());
        assert_eq!((a.asked().0, b.asked().0), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn repetitions_have_a_budget() {
    let (a, b) = (Fake::new(), Fake::new());
    let pool = pool(&[&a, &b], &memory()).await;
    *a.verify.lock() = Does::Late;
    for number in 0..100 {
        assert_eq!(pool.verify(&payment(number)).await, Ok(Verdict::Valid));
    }
    // Ten saved up, and one for every five verifications.
    let helped = b.asked().0;
    assert!((25..=32).contains(&helped), "{helped}");
}

#[tokio::test(start_paused = true)]
async fn a_settle_goes_on_only_where_it_provably_did_not_begin() {
    let (a, b) = (Fake::new(), Fake::new());
    let pool = pool(&[&a, &b], &memory()).await;
    *a.settle.lock() = Does::NotSent;
    assert!(is_settled(&pool.settle(&payment(1)).await));
    assert_eq!((a.asked().1, b.asked().1), (1, 1));
    for does in [Does::Unknown, Does::No] {
        *a.settle.lock() = does;
        assert!(!is_settled(&pool.settle(&payment(2)).await));
    }
    assert_eq!((a.asked().1, b.asked().1), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn who_may_have_begun_is_asked_again_and_no_other() {
    let (a, b, store) = (Fake::new(), Fake::new(), memory());
    let one = pool(&[&a, &b], &store).await;
    *a.settle.lock() = Does::NotSent;
    *b.settle.lock() = Does::Unknown;
    assert!(one.settle(&payment(1)).await.is_err());
    // The first is back, and has nothing to say to this one. More failures than its breaker takes.
    *a.settle.lock() = Does::Yes;
    for _ in 0..8 {
        assert!(one.settle_again(&payment(1)).await.is_err());
    }
    assert_eq!((a.asked().1, b.asked().1), (1, 9));
    // Nor does another process ask it, or this one after a crash.
    let other = pool(&[&a, &b], &store).await;
    *b.settle.lock() = Does::Yes;
    assert!(is_settled(&other.settle_again(&payment(1)).await));
    assert_eq!((a.asked().1, b.asked().1), (1, 10));
    // A payment of which nothing is noted was begun by the first.
    assert!(is_settled(&other.settle_again(&payment(2)).await));
    assert_eq!((a.asked().1, b.asked().1), (2, 10));
}

#[tokio::test(start_paused = true)]
async fn who_began_and_is_gone_is_asked_first_and_then_another() {
    let (a, b, store) = (Fake::new(), Fake::new(), memory());
    let one = pool(&[&a, &b], &store).await;
    *a.settle.lock() = Does::Unknown;
    assert!(one.settle(&payment(1)).await.is_err());
    *a.settle.lock() = Does::NotSent;
    *b.settle.lock() = Does::Unknown;
    assert!(one.settle_again(&payment(1)).await.is_err());
    assert_eq!((a.asked().1, b.asked().1), (2, 1));
    // Now the other may have begun, and a process that starts anew knows it.
    let other = pool(&[&a, &b], &store).await;
    *b.settle.lock() = Does::Yes;
    for pool in [&one, &other] {
        assert!(is_settled(&pool.settle_again(&payment(1)).await));
    }
    assert_eq!((a.asked().1, b.asked().1), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_answer_is_left_out_until_a_trial_succeeds() {
    let (a, b) = (Fake::new(), Fake::new());
    let heard = Arc::new(Heard::default());
    let pool = self::heard(&[&a, &b], &memory(), heard.clone()).await;
    a.does(Does::Unknown);
    for number in 0..20 {
        assert_eq!(pool.verify(&payment(number)).await, Ok(Verdict::Valid));
    }
    assert_eq!((a.asked().0, b.asked().0), (5, 20));
    tokio::time::advance(Duration::from_secs(1)).await;
    a.does(Does::Yes);
    assert_eq!(pool.verify(&payment(20)).await, Ok(Verdict::Valid));
    assert_eq!((a.asked().0, b.asked().0), (6, 20));
    let heard = heard.0.lock();
    let breakers: Vec<_> = heard.iter().filter(|line| line.starts_with("a ") && line.len() < 8).collect();
    assert_eq!(breakers, ["a true", "a false", "a true"]);
    assert!(heard.contains(&"b Verify Yes".to_owned()) && heard.contains(&"a Verify Unknown".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn all_away_is_said_with_names_and_found_out_by_looking() {
    let (a, b) = (Fake::new(), Fake::new());
    let pool = Arc::new(pool(&[&a, &b], &memory()).await);
    a.does(Does::NotSent);
    b.does(Does::NotSent);
    let Err(FacilitatorError::NotSent(why)) = pool.supported().await else { panic!("they are away") };
    assert!(why.contains("a: refused; b: refused"), "{why}");
    // Nobody is called in vain.
    assert!(matches!(pool.verify(&payment(1)).await, Err(FacilitatorError::NotSent(_))));
    assert!(matches!(pool.settle(&payment(1)).await, Err(FacilitatorError::NotSent(_))));
    assert_eq!((a.asked(), b.asked()), ((0, 0), (0, 0)));

    b.does(Does::Yes);
    let watching = tokio::spawn(Arc::clone(&pool).watch());
    tokio::time::sleep(LOOK_AGAIN * 2).await;
    assert_eq!(pool.supported().await.unwrap().len(), 1);
    assert_eq!(pool.verify(&payment(1)).await, Ok(Verdict::Valid));
    assert_eq!((a.asked().0, b.asked().0), (0, 1));
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_do_this_network_is_not_asked() {
    let (a, b, c) = (Fake::on(&[8453]), Fake::on(&[]), Fake::on(&[8453, 84_532]));
    let pool = pool(&[&a, &b, &c], &memory()).await;
    let kinds = pool.supported().await.unwrap();
    assert_eq!(kinds.iter().map(|kind| kind.network.0).collect::<Vec<_>>(), [8453, 84_532]);
    assert_eq!(pool.verify(&payment(1)).await, Ok(Verdict::Valid));
    assert!(is_settled(&pool.settle(&payment(1)).await));
    assert_eq!((a.asked(), b.asked(), c.asked()), ((0, 0), (0, 0), (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn what_they_support_is_known_after_a_start_with_all_of_them_silent() {
    let (a, b, store) = (Fake::on(&[8453]), Fake::new(), memory());
    let known = pool(&[&a, &b], &store).await.supported().await.unwrap();
    let written = store.writes();
    a.does(Does::Unknown);
    b.does(Does::Unknown);
    let later = pool(&[&a, &b], &store).await;
    assert_eq!(later.supported().await, Ok(known.clone()));
    *b.verify.lock() = Does::Yes;
    assert_eq!(later.verify(&payment(1)).await, Ok(Verdict::Valid));
    assert_eq!(a.asked().0, 0, "it is known not to do this network");
    // What is known already is not written again, and without a store there is only less known.
    a.does(Does::Yes);
    b.does(Does::Yes);
    assert_eq!(pool(&[&a, &b], &store).await.supported().await, Ok(known.clone()));
    assert_eq!(store.writes(), written);
    store.fail(true);
    assert_eq!(pool(&[&a, &b], &store).await.supported().await, Ok(known));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_one_does_not_keep_a_start_waiting() {
    let (a, b) = (Fake::new(), Fake::new());
    *a.look.lock() = Does::Late;
    let pool = pool(&[&a, &b], &memory()).await;
    let began = tokio::time::Instant::now();
    assert_eq!(pool.supported().await.unwrap().len(), 1);
    assert_eq!(began.elapsed(), FIRST_LOOK);
    let began = tokio::time::Instant::now();
    pool.supported().await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_caught_lying_is_used_by_nobody_until_it_is_reset() {
    let (a, b, store) = (Fake::new(), Fake::new(), memory());
    let (one, other) = (pool(&[&a, &b], &store).await, Arc::new(pool(&[&a, &b], &store).await));
    *a.settle.lock() = Does::Unknown;
    assert!(one.settle(&payment(1)).await.is_err());
    // With the store away it holds here, and for the others as soon as it is back.
    store.fail(true);
    assert!(one.trip("a", "it settled nothing").await.is_err());
    *a.settle.lock() = Does::Yes;
    let settled = |pool: Arc<Pool>, number| async move { is_settled(&pool.settle(&payment(number)).await) };
    let one = Arc::new(one);
    assert!(settled(one.clone(), 2).await);
    assert_eq!(b.asked().1, 1);
    // Whatever it began is another's now: nothing that it says counts.
    assert!(is_settled(&one.settle_again(&payment(1)).await));
    assert_eq!((a.asked().1, b.asked().1), (1, 2));

    store.fail(false);
    let watching = [tokio::spawn(one.clone().watch()), tokio::spawn(other.clone().watch())];
    tokio::time::sleep(LOOK_EVERY * 3).await;
    for (number, pool) in [(3, &one), (4, &other), (5, &Arc::new(self::pool(&[&a, &b], &store).await))] {
        assert!(settled(Arc::clone(pool), number).await);
    }
    assert_eq!((a.asked().1, b.asked().1), (1, 5));

    assert_eq!(tripped(&*store).await.unwrap()["a"], "it settled nothing");
    reset(&*store, "a").await.unwrap();
    assert!(tripped(&*store).await.unwrap().is_empty());
    tokio::time::sleep(LOOK_EVERY * 3).await;
    for (number, pool) in [(6, &one), (7, &other), (8, &Arc::new(self::pool(&[&a, &b], &store).await))] {
        assert!(settled(Arc::clone(pool), number).await);
    }
    assert_eq!((a.asked().1, b.asked().1), (4, 5));
    watching.iter().for_each(|task| task.abort());
}
