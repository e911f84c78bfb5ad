//! What leaves the wallet and nobody signed for freezes it; everything else does not.

use std::ops::RangeInclusive;

use tempfile::TempDir;

use super::*;
use crate::chain::{ChainError, Head, Outlay};
use crate::jobs::{Claim, Embedded, Event, JobStore, sample};
use crate::wallet::Wallet;
use crate::x402::Network;
use crate::x402::fixtures::KEY;

const LONG: Duration = Duration::from_secs(30 * 86_400);
/// Longer than anything is doubted.
const A_WHILE: u64 = 31_000;

/// A chain that says what it is told to say, and notes what it was asked.
#[derive(Default)]
struct Told {
    newest: Mutex<u64>,
    says: Mutex<Vec<Outlay>>,
    asked: Mutex<Vec<RangeInclusive<u64>>>,
    away: AtomicBool,
}

fn head(number: u64) -> Head {
    Head { number, hash: B256::ZERO, time: NOW / 1000 + number }
}

#[async_trait]
impl Outlays for Told {
    /// The last ten blocks are not final.
    async fn heads(&self, _: Network) -> Result<(Head, Head), ChainError> {
        let newest = *self.newest.lock();
        Ok((head(newest), head(newest - 10)))
    }

    /// At most fifty blocks at once.
    async fn outlays(
        &self,
        _: &Asset,
        _: Address,
        blocks: RangeInclusive<u64>,
    ) -> Result<(Vec<Outlay>, u64), ChainError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(ChainError::Away("a test".into()));
        }
        let blocks = *blocks.start()..=(*blocks.end()).min(blocks.start() + 49);
        self.asked.lock().push(blocks.clone());
        let found =
            self.says.lock().iter().filter(|outlay| blocks.contains(&outlay.block)).copied().collect();
        Ok((found, *blocks.end()))
    }
}

/// A store, a chain, and as many gateways as a test wants.
struct World {
    clock: Clock,
    chain: Arc<Told>,
    store: Arc<Embedded>,
    _folder: TempDir,
}

impl World {
    fn new() -> World {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW));
        let store = Embedded::open(&folder.path().join("jobs.redb"), LONG, clock.clone()).unwrap();
        let chain = Arc::new(Told::default());
        *chain.newest.lock() = 100;
        World { clock, chain, store: Arc::new(store), _folder: folder }
    }

    async fn gateway(&self) -> (Arc<Guards>, OutlayWatch) {
        self.gateway_by(Switch::Store(self.store.clone()), None).await
    }

    async fn gateway_by(&self, switch: Switch, memory: Option<Duration>) -> (Arc<Guards>, OutlayWatch) {
        let metrics = Arc::new(Metrics::new());
        let guards = Guards::new(self.store.clone(), self.clock.clone(), metrics, &limits(), switch);
        guards.tend().await;
        let (jobs, wallet) = (self.store.clone(), Arc::new(wallet()));
        let chain = self.chain.clone();
        let watch = OutlayWatch::new(Arc::clone(&guards), jobs, wallet, chain, vec![usdc()], memory);
        (guards, watch)
    }

    /// Blocks until `newest`, and this in the first of them.
    fn paid(&self, newest: u64, nonce: Option<B256>) {
        let block = *self.chain.newest.lock() + 1;
        *self.chain.newest.lock() = newest;
        let transaction = B256::repeat_byte(u8::try_from(block).unwrap());
        let (to, value) = (Address::repeat_byte(3), Amount::new(1_500_000));
        self.chain.says.lock().push(Outlay { transaction, block, to, value, nonce });
    }

    /// Two looks, as far apart as it takes to be sure.
    async fn look_until_sure(&self, watch: &OutlayWatch) {
        watch.round().await;
        self.clock.advance(A_WHILE);
        watch.round().await;
    }

    /// A job with one payment to a provider, in the store.
    async fn job(&self, number: u64, nonce: B256) {
        let payment = crate::jobs::ProviderPayment { nonce, ..sample::payment("execute", 1, 0) };
        self.live(number, &[Event::Verified, Event::Signed { payment }]).await;
    }

    /// A job whose client gets its money back.
    async fn refund(&self, number: u64, nonce: B256) {
        let refund = crate::jobs::Refund { nonce, ..sample::refund(1, 0) };
        let (receipt, failure) = (sample::receipt(), sample::failure());
        let failed = [Event::SettleFirst, Event::Settled { receipt }, Event::WorkFailed { failure }];
        self.live(number, &[&failed[..], &[Event::RefundSigned { refund }]].concat()).await;
    }

    async fn live(&self, number: u64, life: &[Event]) {
        let mut job = sample::job(number);
        (job.created, job.updated) = (self.clock.now_millis(), self.clock.now_millis());
        let Claim::Won(mut job, mut lease) = self.store.claim(&job, LONG).await.unwrap() else {
            panic!("taken")
        };
        for event in life {
            if job.state.at_rest() {
                lease = self.store.take_over(&job.claim, LONG).await.unwrap().unwrap().1;
            }
            let next = job.apply(event, NOW).unwrap();
            let appended = self.store.append(&lease, event, &next).await.unwrap();
            assert_eq!(appended, crate::jobs::Appended::Written);
            job = next;
        }
    }
}

fn wallet() -> Wallet {
    Wallet::new(KEY.into(), "1", vec![usdc()]).unwrap()
}

fn count(guards: &Guards, name: &str) -> String {
    let text = guards.metrics.exposition().unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or("0");
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn money_that_nobody_signed_for_freezes_every_gateway_once() {
    for nonce in [None, Some(B256::repeat_byte(7))] {
        let world = World::new();
        let ((a, watch), (b, _)) = (world.gateway().await, world.gateway().await);
        watch.round().await;
        world.paid(120, nonce);
        watch.round().await;
        assert_eq!(a.frozen(), None, "a journal may be written late");
        world.clock.advance(A_WHILE);
        watch.round().await;
        let frozen = a.frozen().unwrap();
        assert_eq!((frozen.by.as_str(), frozen.since), ("gateway", world.clock.now()));
        let transaction = B256::repeat_byte(101).to_string();
        for word in [transaction.as_str(), "1.5 USDC", "eip155:84532"] {
            assert!(frozen.reason.contains(word), "{}", frozen.reason);
        }
        b.tend().await;
        assert_eq!(b.closed().map(|problem| problem.reason), Some(Reason::WalletFrozen));
        assert_eq!(count(&a, "galaksio_wallet_foreign_outlays_total"), "1");

        // The operator has seen it. It is not held against him twice, by whomever.
        Switch::Store(world.store.clone()).release().await.unwrap();
        for guards in [&a, &b] {
            guards.tend().await;
        }
        let (c, anew) = world.gateway().await;
        for watch in [&watch, &anew] {
            world.look_until_sure(watch).await;
        }
        assert_eq!((a.frozen(), c.frozen()), (None, None));
    }
}

#[tokio::test]
async fn what_was_signed_here_is_known() {
    let world = World::new();
    let ((a, watch), (b, others)) = (world.gateway().await, world.gateway().await);
    watch.round().await;
    let nonce = B256::repeat_byte;
    // By this one, and by another that noted it in time.
    reserve(&a, "a", 1, 1, None).await.unwrap().sign(&claim(1), nonce(1), &usdc(), Amount::new(1), MINUTE);
    reserve(&b, "a", 1, 1, None).await.unwrap().sign(&claim(2), nonce(2), &usdc(), Amount::new(1), MINUTE);
    watch.write_nonces().await;
    others.write_nonces().await;
    // By one that died before it noted anything.
    for number in 0..300 {
        world.job(number, B256::from(U256(number))).await;
    }
    world.refund(900, nonce(8)).await;
    // Stock: of three purchases the first is forgotten.
    for number in ["2", "3"] {
        world.store.put("xcache.purchases", number, b"{}", None).await.unwrap();
    }
    let stock = |number: u32| {
        let scope = ClaimKey::inventory(&format!("inventory/xcache/{number}"));
        wallet().nonce(&scope, "create", number)
    };
    let known =
        [nonce(1), nonce(2), B256::from(U256(0)), B256::from(U256(299)), stock(1), stock(3), nonce(8)];
    for (at, nonce) in (0..).zip(known) {
        world.paid(120 + at, Some(nonce));
    }
    world.paid(140, Some(stock(1)));
    world.look_until_sure(&watch).await;
    assert_eq!(a.frozen(), None);
    assert_eq!(count(&a, "galaksio_wallet_watched_block"), "130");
    // A purchase that was never begun is nobody's.
    world.paid(160, Some(stock(4)));
    world.look_until_sure(&watch).await;
    assert!(a.frozen().is_some());
}

/// A nonce of this number.
struct U256(u64);

impl From<U256> for B256 {
    fn from(U256(number): U256) -> B256 {
        let mut nonce = [9; 32];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        B256::from(nonce)
    }
}

#[tokio::test]
async fn a_journal_that_is_written_late_is_in_time() {
    let world = World::new();
    let (guards, watch) = world.gateway().await;
    watch.round().await;
    let nonce = B256::repeat_byte(5);
    world.paid(120, Some(nonce));
    watch.round().await;
    world.clock.advance(A_WHILE - 2_000);
    watch.round().await;
    world.job(1, nonce).await;
    world.look_until_sure(&watch).await;
    assert_eq!(guards.frozen(), None);
}

#[tokio::test]
async fn a_nonce_that_could_not_be_noted_is_noted_later() {
    let clock = Clock::manual(NOW);
    let store = MemoryStore::new(clock.clone());
    let nonces = super::super::nonces::Nonces::default();
    nonces.signed(B256::repeat_byte(1));
    nonces.keep();
    nonces.signed(B256::repeat_byte(2));
    store.fail(true);
    assert!(nonces.write(&*store).await.is_err());
    nonces.signed(B256::repeat_byte(3));
    store.fail(false);
    nonces.write(&*store).await.unwrap();
    nonces.write(&*store).await.unwrap();
    let mut written = super::super::nonces::written(&*store).await.unwrap();
    written.sort();
    // What was signed before anybody wanted to know is not kept for ever.
    assert_eq!(written, [2, 3].map(B256::repeat_byte));
    assert_eq!(store.writes(), 1);
}

#[tokio::test]
async fn every_block_is_looked_through_once_whoever_looks() {
    let world = World::new();
    let (first, watch) = world.gateway().await;
    watch.round().await;
    assert!(world.chain.asked.lock().is_empty(), "what was before the first start is not its business");
    world.paid(300, None);
    world.chain.away.store(true, Ordering::SeqCst);
    watch.round().await;
    world.chain.away.store(false, Ordering::SeqCst);
    watch.round().await;
    drop((first, watch));
    // Another process goes on from there, and still doubts what the first has seen.
    let (guards, watch) = world.gateway().await;
    for _ in 0..5 {
        watch.round().await;
    }
    assert_eq!(*world.chain.asked.lock(), [101..=150, 151..=200, 201..=250, 251..=290]);
    assert_eq!(guards.frozen(), None);
    world.clock.advance(A_WHILE);
    watch.round().await;
    assert!(guards.frozen().is_some());
    let until = looked_until(&*world.store, wallet().address(), &[usdc()]).await.unwrap();
    assert_eq!(until, Some(head(290).time));
}

#[tokio::test]
async fn a_freeze_that_could_not_be_written_is_made_again() {
    let world = World::new();
    let nowhere = Switch::File(world._folder.path().join("not/there"));
    let (guards, watch) = world.gateway_by(nowhere, None).await;
    watch.round().await;
    world.paid(120, None);
    world.look_until_sure(&watch).await;
    assert!(guards.frozen().is_some(), "here at least");
    let (guards, watch) = world.gateway().await;
    watch.round().await;
    assert!(guards.frozen().is_some());
}

#[tokio::test]
async fn what_nobody_can_remember_is_held_against_nobody() {
    let day = Duration::from_secs(86_400);
    for (memory, frozen) in [(None, true), (Some(day), false)] {
        let world = World::new();
        let (_, watch) = world.gateway().await;
        watch.round().await;
        world.paid(120, Some(B256::repeat_byte(1)));
        world.clock.advance(2 * 86_400_000);
        let (guards, watch) = world.gateway_by(Switch::Store(world.store.clone()), memory).await;
        world.look_until_sure(&watch).await;
        assert_eq!(guards.frozen().is_some(), frozen);
        // And it watches on.
        world.paid(140, None);
        world.look_until_sure(&watch).await;
        assert!(guards.frozen().is_some());
    }
}
