use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::tests::{CREATE_PRICE, Service, config, note};
use super::super::{InventoryOrder, SET, SetShape, XCache};
use super::*;
use crate::intake::Kind;
use crate::jobs::Draw;
use crate::outgoing::stub::{Reply, Stub, closed_url};
use crate::providers::testing::*;
use crate::providers::{Done, Offer, Provider};

/// A gateway process: some of them may share a store and a service.
struct Gateway {
    xcache: XCache,
    store: Arc<MemoryStore>,
    wallet: Arc<FakeWallet>,
    clock: Clock,
}

const DAY: u64 = 20_000;
const SPENT: &str = "xcache.spent";
const PURCHASES: &str = "xcache.purchases";

impl Gateway {
    fn new(config: resolved::XCache, store: &Arc<MemoryStore>, clock: &Clock) -> Self {
        let wallet = Arc::new(FakeWallet::default());
        let xcache = XCache::new(line(), config, store.clone(), wallet.clone(), clock.clone());
        Gateway { xcache, store: store.clone(), wallet, clock: clock.clone() }
    }

    fn alone(config: resolved::XCache) -> Self {
        Gateway::new(config, &MemoryStore::new(Clock::system()), &Clock::manual(DAY * 86_400_000))
    }

    /// The same process after a crash: only the store is left.
    fn restarted(&self, config: resolved::XCache) -> Self {
        Gateway { wallet: self.wallet.clone(), ..Gateway::new(config, &self.store, &self.clock) }
    }

    async fn offer(&self) -> Result<Offer, ProviderError> {
        self.xcache.offer(SET, &store_ask(Kind::File, false, None, 1)).await
    }

    async fn store(&self) -> Result<Done, ProviderError> {
        self.xcache.perform(&note(None), &FakePurse::default()).await
    }

    /// Waits for a look in the background, or has one.
    async fn restocked(&self) {
        self.xcache.inventory.restock().await.unwrap();
    }

    fn spent_today(&self) -> i64 {
        self.store.counter(SPENT, &DAY.to_string())
    }

    fn purchase(&self, number: u32) -> Value {
        self.store.json(PURCHASES, &number.to_string()).unwrap()
    }
}

async fn service() -> Stub {
    let service = Service::new(&[SetShape::Body]);
    Stub::start(move |seen| service.answer(seen)).await
}

/// A service whose paid answers are `faulty` while there are replies in it.
async fn service_with(faulty: Vec<fn() -> Reply>) -> Stub {
    let (service, faulty) = (Service::new(&[SetShape::Body]), Mutex::new(faulty));
    Stub::start(move |seen| match is_paid(seen).then(|| faulty.lock().pop()).flatten() {
        Some(reply) => reply(),
        None => service.answer(seen),
    })
    .await
}

fn payments(stub: &Stub) -> Vec<String> {
    let seen = stub.seen();
    let paid = seen.iter().filter(|seen| is_paid(seen));
    paid.map(|seen| seen.headers["x-payment"].to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_first_offer_buys_the_first_cache() {
    let stub = service().await;
    let gateway = Gateway::alone(config(stub.url("")));
    assert_eq!(gateway.store().await.unwrap_err().fault, Fault::Unreachable);
    assert!(gateway.offer().await.is_ok());
    assert!(gateway.offer().await.is_ok());

    let signed = gateway.wallet.signed.lock().clone();
    let expected = InventoryOrder {
        scope: "inventory/xcache/1".into(),
        step: "create",
        attempt: 1,
        offer: offer(2_000_000),
        valid_before: DAY * 86_400 + 180,
    };
    assert_eq!(signed, [expected]);
    assert_eq!(payments(&stub), ["inventory/xcache/1 until 1728000180"]);
    let paid = stub.seen().into_iter().find(is_paid).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&paid.body).unwrap(), json!({"region": "eu-west-1"}));
    assert_only_our_headers(&stub.seen());

    assert_eq!(gateway.spent_today(), 2_000_000);
    assert_eq!(gateway.purchase(1)["outcome"], "bought");
    assert_eq!(gateway.store.json(CACHES, "1").unwrap()["id"], "secret-cache-1");
    gateway.store().await.unwrap();
    assert_eq!(gateway.store.counter(TAKEN, "1"), 4);
}

#[tokio::test]
async fn a_cache_gives_exactly_its_operations() {
    let stub = service().await;
    // Two stores to a cache, and no budget for a second one.
    let config = resolved::XCache {
        operations_per_cache: 11,
        low_water: 0,
        daily_budget: "2".into(),
        ..config(stub.url(""))
    };
    let gateway = Gateway::alone(config);
    gateway.offer().await.unwrap();
    let taken = futures_util::future::join_all((0..20).map(|_| gateway.xcache.inventory.reserve())).await;
    assert_eq!(taken.iter().filter(|slot| slot.is_ok()).count(), 2);
    assert_eq!(gateway.store.counter(TAKEN, "1"), 8);
    gateway.clock.advance(60_000);
    let error = gateway.offer().await.unwrap_err();
    assert_eq!(error.fault, Fault::Terms, "{error}");
    assert_eq!((gateway.spent_today(), payments(&stub).len()), (2_000_000, 1));
    // Kept for the accounts, and no longer looked at.
    assert_eq!(gateway.store.json(CACHES, "1").unwrap()["used_up"], true);
}

#[tokio::test]
async fn the_next_cache_is_bought_below_low_water() {
    let stub = service().await;
    let config = resolved::XCache { operations_per_cache: 20, low_water: 13, ..config(stub.url("")) };
    let gateway = Gateway::alone(config);
    gateway.offer().await.unwrap();
    gateway.clock.advance(60_000);
    gateway.store().await.unwrap();
    gateway.restocked().await;
    assert_eq!(payments(&stub).len(), 1, "16 left");
    gateway.store().await.unwrap();
    gateway.restocked().await;
    assert_eq!(payments(&stub).len(), 2, "12 left");
    gateway.restocked().await;
    // Oldest first, then on to the next without a gap.
    for _ in 0..4 {
        gateway.store().await.unwrap();
    }
    assert_eq!((gateway.store.counter(TAKEN, "1"), gateway.store.counter(TAKEN, "2")), (20, 4));
    assert_eq!(payments(&stub).len(), 2);
}

#[tokio::test]
async fn the_budget_is_per_day() {
    let stub = service().await;
    let config = resolved::XCache { operations_per_cache: 4, low_water: 0, ..config(stub.url("")) };
    let gateway = Gateway::alone(config);
    for _ in 0..2 {
        gateway.offer().await.unwrap();
        gateway.store().await.unwrap();
        gateway.clock.advance(60_000);
    }
    // 4 of 5 dollars are spent, and a cache costs 2.
    assert_eq!(gateway.offer().await.unwrap_err().fault, Fault::Terms);
    assert_eq!(gateway.spent_today(), 4_000_000);
    gateway.clock.advance(86_400_000);
    gateway.offer().await.unwrap();
    assert_eq!((gateway.spent_today(), payments(&stub).len()), (4_000_000, 3));
    // The last purchase holds the number for good; the others may go.
    assert!(gateway.store.ttl(PURCHASES, "2").is_some());
    assert_eq!(gateway.store.ttl(PURCHASES, "3"), None);
}

#[tokio::test]
async fn an_interrupted_purchase_is_repeated_with_the_identical_payment() {
    type Row = (&'static str, fn() -> Reply);
    let table: [Row; 6] = [
        ("drop", Reply::drop),
        ("500", || Reply::html(500)),
        ("402 again", || payment_required(CREATE_PRICE)),
        ("no id", || Reply::json(200, &json!({"ok": true}))),
        ("an id that leads elsewhere", || Reply::json(200, &json!({"id": "../create"}))),
        ("HTML", || Reply::html(200)),
    ];
    for (row, reply) in table {
        let stub = service_with(vec![reply]).await;
        let gateway = Gateway::alone(config(stub.url("")));
        assert!(gateway.offer().await.is_err(), "{row}");
        assert_eq!(gateway.purchase(1)["outcome"], "open", "{row}");

        let gateway = gateway.restarted(config(stub.url("")));
        // Whoever began it may still be at it.
        let error = gateway.offer().await.unwrap_err();
        assert_eq!((error.fault, payments(&stub).len()), (Fault::Unreachable, 1), "{row}: {error}");

        gateway.clock.advance(50_000);
        gateway.offer().await.unwrap();
        let sent = payments(&stub);
        assert_eq!((sent.len(), &sent[0]), (2, &sent[1]), "{row}");
        assert_eq!(gateway.wallet.signed.lock().len(), 1, "{row}");
        assert_eq!((gateway.spent_today(), &gateway.purchase(1)["outcome"]), (2_000_000, &json!("bought")));
    }
}

#[tokio::test]
async fn a_purchase_whose_payment_lapsed_is_lost_and_stays_in_the_budget() {
    let stub = service_with(vec![Reply::drop]).await;
    let gateway = Gateway::alone(config(stub.url("")));
    assert!(gateway.offer().await.is_err());
    // Too near to its end to be tried again, and not yet over.
    gateway.clock.advance(170_000);
    assert_eq!(gateway.offer().await.unwrap_err().fault, Fault::Unreachable);
    assert_eq!(payments(&stub).len(), 1);

    gateway.clock.advance(20_000);
    gateway.offer().await.unwrap();
    assert_eq!((gateway.purchase(1)["outcome"].clone(), gateway.spent_today()), (json!("lost"), 4_000_000));
    let scopes: Vec<_> = gateway.wallet.signed.lock().iter().map(|order| order.scope.clone()).collect();
    assert_eq!(scopes, ["inventory/xcache/1", "inventory/xcache/2"]);
}

#[tokio::test]
async fn a_crash_between_the_two_records_buys_nothing() {
    let stub = service().await;
    let gateway = Gateway::alone(config(stub.url("")));
    gateway.offer().await.unwrap();
    let mut open = gateway.purchase(1);
    open["outcome"] = "open".into();
    gateway.store.set_json(PURCHASES, "1", &open);
    let xcache = &gateway.restarted(config(stub.url(""))).xcache;

    let bought = xcache.inventory.buy().await;
    assert!(bought.is_ok());
    assert_eq!((gateway.purchase(1)["outcome"].clone(), payments(&stub).len()), (json!("bought"), 1));
}

#[tokio::test]
async fn gateways_that_race_buy_one_cache() {
    let stub = service().await;
    let (store, clock) = (MemoryStore::new(Clock::system()), Clock::manual(DAY * 86_400_000));
    let gateways: Vec<_> = (0..3).map(|_| Gateway::new(config(stub.url("")), &store, &clock)).collect();
    let offers = futures_util::future::join_all(gateways.iter().map(Gateway::offer)).await;
    assert!(offers.iter().any(Result::is_ok), "{offers:?}");
    assert_eq!(payments(&stub).len(), 1);
    assert_eq!(gateways[0].spent_today(), 2_000_000);
    // All of them use it.
    for gateway in &gateways {
        gateway.store().await.unwrap();
    }
    assert_eq!(store.counter(TAKEN, "1"), 12);
}

/// A store in which another gateway buys a cache, from first to last, before this one first looks at the purchases.
struct Overtaken {
    store: Arc<MemoryStore>,
    other: Mutex<Option<Gateway>>,
}

#[async_trait::async_trait]
impl ValueStore for Overtaken {
    async fn put(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<std::time::Duration>,
    ) -> Result<(), StoreError> {
        self.store.put(space, key, value, ttl).await
    }

    async fn put_new(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<std::time::Duration>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.put_new(space, key, value, ttl).await
    }

    async fn get(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(space, key).await
    }

    async fn list(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let other = (space == PURCHASES).then(|| self.other.lock().take()).flatten();
        if let Some(other) = other {
            other.offer().await.unwrap();
        }
        self.store.list(space).await
    }

    async fn add(&self, space: &str, key: &str, delta: i64) -> Result<i64, StoreError> {
        self.store.add(space, key, delta).await
    }

    async fn draw(&self, space: &str, key: &str, slice: &str, draw: Draw) -> Result<Option<u64>, StoreError> {
        self.store.draw(space, key, slice, draw).await
    }

    async fn drawn(&self, space: &str, key: &str) -> Result<u64, StoreError> {
        self.store.drawn(space, key).await
    }
}

#[tokio::test]
async fn a_gateway_that_is_overtaken_after_its_look_at_the_stock_buys_nothing() {
    let stub = service().await;
    let other = Gateway::alone(config(stub.url("")));
    let (store, clock) = (other.store.clone(), other.clock.clone());
    let overtaken = Overtaken { store: store.clone(), other: Mutex::new(Some(other)) };
    let wallet = Arc::new(FakeWallet::default());
    let late = XCache::new(line(), config(stub.url("")), Arc::new(overtaken), wallet.clone(), clock);

    late.offer(SET, &store_ask(Kind::File, false, None, 1)).await.unwrap();
    assert_eq!((payments(&stub).len(), wallet.signed.lock().len()), (1, 0));
    assert_eq!(store.counter(SPENT, &DAY.to_string()), 2_000_000);
    // It sells from what the other bought.
    late.perform(&note(None), &FakePurse::default()).await.unwrap();
    assert_eq!(store.counter(TAKEN, "1"), 4);
}

#[tokio::test]
async fn nothing_is_sent_or_counted_when_the_wallet_refuses() {
    let stub = service().await;
    let gateway = Gateway::alone(config(stub.url("")));
    *gateway.wallet.refuses.lock() = true;
    assert_eq!(gateway.offer().await.unwrap_err().fault, Fault::Terms);
    assert_eq!((payments(&stub).len(), gateway.spent_today()), (0, 0));
    assert_eq!(gateway.store.json(PURCHASES, "1"), None);

    // It is not asked again at once.
    *gateway.wallet.refuses.lock() = false;
    assert!(gateway.offer().await.is_err());
    gateway.clock.advance(16_000);
    gateway.offer().await.unwrap();
}

#[tokio::test]
async fn a_price_over_the_budget_is_not_signed_for() {
    for budget in ["1.999999", "0"] {
        let stub = service().await;
        let config = resolved::XCache { daily_budget: budget.into(), ..config(stub.url("")) };
        let gateway = Gateway::alone(config);
        assert_eq!(gateway.offer().await.unwrap_err().fault, Fault::Terms);
        assert!(gateway.wallet.signed.lock().is_empty());
        assert_eq!(gateway.spent_today(), 0);
    }
}

#[tokio::test]
async fn an_unreadable_purchase_stops_buying() {
    let stub = service().await;
    let gateway = Gateway::alone(config(stub.url("")));
    gateway.store.set_json(PURCHASES, "7", &json!({"of": "a later version"}));
    assert_eq!(gateway.offer().await.unwrap_err().fault, Fault::Internal);
    assert!(payments(&stub).is_empty());
    gateway.store.remove(PURCHASES, "7");
}

#[tokio::test]
async fn a_cache_the_provider_calls_used_up_is_replaced() {
    let service = Service::new(&[SetShape::Body]);
    let stub = Stub::start(move |seen| match seen.target.contains("secret-cache-1") {
        true => payment_required("1"),
        false => service.answer(seen),
    })
    .await;
    let gateway = Gateway::alone(config(stub.url("")));
    gateway.offer().await.unwrap();
    assert_eq!(gateway.store().await.unwrap_err().fault, Fault::Broken);
    gateway.clock.advance(60_000);
    gateway.offer().await.unwrap();
    gateway.store().await.unwrap();
    assert_eq!(payments(&stub).len(), 2);
}

#[tokio::test]
async fn a_cache_that_is_not_found_rests_before_it_is_given_up() {
    let service = Service::new(&[SetShape::Body]);
    let stub = Stub::start(move |seen| match seen.target.contains("secret-cache-1") {
        true => Reply::html(404),
        false => service.answer(seen),
    })
    .await;
    let gateway = Gateway::alone(config(stub.url("")));
    gateway.offer().await.unwrap();
    // Stores that meet the same outage count once.
    for outcome in futures_util::future::join_all((0..3).map(|_| gateway.store())).await {
        assert_eq!(outcome.unwrap_err().fault, Fault::Broken);
    }
    gateway.clock.advance(60_000);
    // An outage is no reason to buy, and no reason to promise anything.
    assert_eq!(gateway.offer().await.unwrap_err().fault, Fault::Unreachable);
    assert_eq!(gateway.store().await.unwrap_err().fault, Fault::Unreachable);
    assert_eq!(payments(&stub).len(), 1);

    gateway.clock.advance(600_000);
    gateway.offer().await.unwrap();
    assert_eq!(gateway.store().await.unwrap_err().fault, Fault::Broken);
    gateway.offer().await.unwrap();
    gateway.store().await.unwrap();
    assert_eq!(payments(&stub).len(), 2);
}

#[tokio::test]
async fn nothing_is_bought_from_a_provider_that_is_away() {
    let gateway = Gateway::alone(config(closed_url("").await));
    assert_eq!(gateway.offer().await.unwrap_err().fault, Fault::Unreachable);
    assert_eq!(gateway.spent_today(), 0);
}
