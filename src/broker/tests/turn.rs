//! A provider that fails before it is paid, and the one that does the work instead.

use super::trap::Trick;
use super::*;
use crate::intake::{Ask, Content, Data, Encoding, Kind, Received, Wanted};
use crate::jobs::job::PassedOver;
use crate::jobs::memory::MemoryStore;
use crate::providers::{Done, Fault, NotSold, Operation, Order, Provider, ProviderError};
use crate::quote_cache::testing::{accept, pricing, routes};
use crate::quote_cache::{Dollars, QuoteCache, Settings};

/// What a seller does with an order.
#[derive(Clone, Copy, Debug)]
enum Does {
    Works,
    /// Fails so, and was not paid.
    Fails(Fault),
    /// Takes the payment, and fails.
    PaidAndFails,
    /// Wants more than it said.
    WantsMore,
    Hangs,
    /// Takes so many seconds to fail.
    FailsAfter(u64),
}

struct Seller {
    name: &'static str,
    price: u128,
    does: Does,
    orders: AtomicUsize,
    /// The seconds it was given, the last time.
    given: AtomicUsize,
}

impl Seller {
    fn new(name: &'static str, price: u128, does: Does) -> Arc<Seller> {
        Arc::new(Seller { name, price, does, orders: 0.into(), given: 0.into() })
    }

    fn orders(&self) -> usize {
        self.orders.load(Ordering::SeqCst)
    }

    async fn paid(&self, purse: &dyn Purse, amount: u128) -> Result<(), ProviderError> {
        let requirement = Requirement {
            asset: usdc(),
            amount: Amount::new(amount),
            pay_to: Address::repeat_byte(0xdd),
            max_timeout_seconds: 60,
            flow: PaymentFlow::Authorization,
        };
        purse.pay("execute", &challenge(Version::V2, &requirement)).await?;
        Ok(())
    }
}

#[async_trait]
impl Provider for Seller {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sells(&self, _: &Ask) -> Result<Operation, NotSold> {
        Ok("execute")
    }

    async fn offer(&self, _: Operation, _: &Ask) -> Result<Offer, ProviderError> {
        Ok(offer(usdc(), self.price))
    }

    async fn perform(&self, order: &Order, purse: &dyn Purse) -> Result<Done, ProviderError> {
        self.orders.fetch_add(1, Ordering::SeqCst);
        self.given.store(order.deadline.as_secs() as usize, Ordering::SeqCst);
        let failed = |fault| Err(ProviderError::new(fault, "as told"));
        match self.does {
            Does::Works => self.paid(purse, self.price).await?,
            Does::Fails(fault) => return failed(fault),
            Does::PaidAndFails => {
                self.paid(purse, self.price).await?;
                return failed(Fault::Broken);
            }
            Does::WantsMore => self.paid(purse, self.price + 1).await?,
            Does::Hangs => std::future::pending().await,
            Does::FailsAfter(seconds) => {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                return failed(Fault::Timeout);
            }
        }
        let result = serde_json::Map::from_iter([("provider".to_owned(), self.name.into())]);
        Ok(Done { result, ..Done::default() })
    }
}

/// A sale of the first seller's work, with the others to turn to.
async fn sale(stage: &Stage, sellers: &[&Arc<Seller>]) -> Sale {
    sale_of(stage, sellers, bytes::Bytes::from_static(b"1+1").into()).await
}

async fn sale_of(stage: &Stage, sellers: &[&Arc<Seller>], data: Data) -> Sale {
    let providers: Vec<Arc<dyn Provider>> =
        sellers.iter().map(|seller| Arc::clone(*seller) as Arc<dyn Provider>).collect();
    let (routes, accepts, pricing) = (routes(), [accept()], pricing());
    let settings = Settings {
        routes: &routes,
        accepts: &accepts,
        pricing: &pricing,
        max_timeout: Duration::from_secs(300),
        upfront_above: None,
    };
    let (values, metrics) = (MemoryStore::new(stage.clock.clone()), Arc::new(Metrics::new()));
    let quotes = QuoteCache::open(settings, providers, values, stage.clock.clone(), Arc::clone(&metrics));
    let first = sellers[0];
    let work = ProviderWork {
        provider: Arc::clone(first) as Arc<dyn Provider>,
        operation: "execute".into(),
        ask: Ask { wanted: Wanted::Run { language: "python".into() }, kind: Kind::Code, size: 3, files: 1 },
        content: Content {
            data,
            digest: [0; 32],
            encoding: Encoding::Raw,
            filename: None,
            content_type: None,
        },
        offer: offer(usdc(), first.price),
        at_most: Dollars { units: Amount::new(PRICE), decimals: 6 },
        passed_over: Vec::new(),
        quotes: Arc::new(quotes.await.unwrap()),
        files: stage.store.clone(),
        metrics,
        guards: Arc::clone(stage.broker.guards()),
        files_url: String::new(),
        result_max: 10_000,
        jobs_url: None,
        later: false,
        results: Results::none(),
    };
    let mut sale = stage.sale(1, &[]);
    sale.sold.provider = first.name.into();
    Sale { work: Box::new(work), offer: Some(offer(usdc(), first.price)), ..sale }
}

fn passed(provider: &str, fault: &str) -> PassedOver {
    PassedOver { provider: provider.into(), fault: fault.into() }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_unpaid_is_replaced_by_the_next_cheapest() {
    for upfront in [false, true] {
        let stage = Stage::new();
        let a = Seller::new("a", 5_000, Does::Fails(Fault::Unreachable));
        let b = Seller::new("b", 9_000, Does::Works);
        let c = Seller::new("c", 6_000, Does::WantsMore);
        let mut sale = sale(&stage, &[&a, &b, &c]).await;
        if upfront {
            sale.requirement.flow = PaymentFlow::Upfront;
        }
        let said = stage.sell(sale).await;
        assert_eq!(said.reason, Reason::Paid, "{said:?}");
        assert!(said.body.contains(r#""provider":"b""#), "{said:?}");
        assert_eq!([a.orders(), b.orders(), c.orders(), stage.facilitator.moved()], [1; 4]);
        let job = stage.job(1).await;
        assert_eq!((job.state, job.quote.provider.as_str()), (State::Completed, "b"));
        assert_eq!((job.quote.price, job.quote.cost), (Amount::new(PRICE), Amount::new(9_000)));
        assert_eq!(job.quote.passed_over, [passed("a", "unreachable"), passed("c", "terms")]);
        let paid: Vec<_> = job.provider.iter().map(|paid| (paid.provider.as_str(), paid.amount)).collect();
        assert_eq!(paid, [("b", Amount::new(9_000))]);
        let events = stage.events(1).await;
        let way: &[&str] = match upfront {
            false => &["verified", "turned", "turned", "signed", "answered", "settled"],
            true => &["settle_first", "settled", "turned", "turned", "signed", "answered"],
        };
        assert_eq!(events, way);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_paid_is_not_replaced() {
    let stage = Stage::new();
    let a = Seller::new("a", 1, Does::PaidAndFails);
    let b = Seller::new("b", 1, Does::Works);
    for _ in 0..2 {
        let said = stage.sell(sale(&stage, &[&a, &b]).await).await;
        assert!(said.is(Reason::ProviderLost, Charged::No), "{said:?}");
    }
    let job = stage.job(1).await;
    assert_eq!((job.state, job.provider.len(), job.quote.passed_over.len()), (State::Held, 1, 0));
    assert_eq!([a.orders(), b.orders(), stage.facilitator.moved()], [1, 0, 0]);
}

/// What arrived was passed on, and is nowhere else.
#[tokio::test(start_paused = true)]
async fn one_that_has_the_bytes_is_not_replaced() {
    let stage = Stage::new();
    let a = Seller::new("a", 1, Does::Fails(Fault::Broken));
    let b = Seller::new("b", 1, Does::Works);
    let received = Data::Received(Received { handle: "upload".into(), size: 3 });
    let said = stage.sell(sale_of(&stage, &[&a, &b], received).await).await;
    assert!(said.is(Reason::ProviderFailed, Charged::No), "{said:?}");
    assert_eq!((b.orders(), stage.state(1).await), (0, State::Voided));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_replaced_by_one_that_the_payment_does_not_cover() {
    for (price, done) in [(PRICE, true), (PRICE + 1, false)] {
        let stage = Stage::new();
        let a = Seller::new("a", 1, Does::Fails(Fault::Broken));
        let b = Seller::new("b", price, Does::Works);
        let said = stage.sell(sale(&stage, &[&a, &b]).await).await;
        assert_eq!((said.reason == Reason::Paid, b.orders()), (done, usize::from(done)), "{said:?}");
        let job = stage.job(1).await;
        assert_eq!(job.provider.len(), usize::from(done));
        if !done {
            assert!(said.is(Reason::ProviderFailed, Charged::No), "{said:?}");
            assert_eq!((job.state, job.quote.provider.as_str()), (State::Voided, "a"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_fail_unpaid_the_same_payment_may_try_again() {
    let stage = Stage::new();
    let a = Seller::new("a", 1, Does::Fails(Fault::Broken));
    let b = Seller::new("b", 2, Does::Fails(Fault::Refused));
    let said = stage.sell(sale(&stage, &[&a, &b]).await).await;
    assert!(said.is(Reason::ProviderFailed, Charged::No), "{said:?}");
    let job = stage.job(1).await;
    assert_eq!((job.state, job.quote.passed_over), (State::Voided, vec![passed("a", "broken")]));
    let c = Seller::new("c", 3, Does::Works);
    let said = stage.sell(sale(&stage, &[&c]).await).await;
    let job = stage.job(1).await;
    assert_eq!((said.reason, job.attempt, job.quote.passed_over.len()), (Reason::Paid, 2, 0));
}

/// Our own fault is the same with everybody, and a payment may have been written down.
#[tokio::test(start_paused = true)]
async fn a_fault_of_ours_turns_to_nobody() {
    let stage = Stage::new();
    let a = Seller::new("a", 1, Does::Fails(Fault::Internal));
    let b = Seller::new("b", 1, Does::Works);
    let said = stage.sell(sale(&stage, &[&a, &b]).await).await;
    assert!(said.is(Reason::Internal, Charged::No), "{said:?}");
    assert_eq!((b.orders(), stage.state(1).await), (0, State::Voided));
}

/// Who is paid is in the record before he is.
#[tokio::test(start_paused = true)]
async fn a_turn_that_cannot_be_recorded_is_not_made() {
    for tricks in
        [vec![Trick::Before; 3], vec![Trick::After, Trick::Before, Trick::Before], vec![Trick::Stolen]]
    {
        let stage = Stage::new();
        stage.store.trap("turned", &tricks);
        let a = Seller::new("a", 1, Does::Fails(Fault::Broken));
        let b = Seller::new("b", 1, Does::Works);
        let said = stage.sell(sale(&stage, &[&a, &b]).await).await;
        assert_ne!(said.charged, Some(Charged::Yes), "{said:?}");
        assert_eq!((b.orders(), stage.facilitator.moved()), (0, 0), "{said:?}");
        assert_eq!(stage.job(1).await.provider, []);
    }
}

#[tokio::test(start_paused = true)]
async fn all_of_them_share_one_deadline() {
    let stage = Stage::new();
    let a = Seller::new("a", 1, Does::FailsAfter(100));
    let b = Seller::new("b", 1, Does::Works);
    assert_eq!(stage.sell(sale(&stage, &[&a, &b]).await).await.reason, Reason::Paid);
    assert_eq!([a.given.load(Ordering::SeqCst), b.given.load(Ordering::SeqCst)], [120, 20]);

    let stage = Stage::new();
    let a = Seller::new("a", 1, Does::Hangs);
    let b = Seller::new("b", 1, Does::Works);
    let said = stage.sell(sale(&stage, &[&a, &b]).await).await;
    assert!(said.is(Reason::ProviderTimeout, Charged::No), "{said:?}");
    assert_eq!(b.orders(), 0);
}

/// A settle that a crash interrupted is gone on with, also where another does the work by now.
#[tokio::test(start_paused = true)]
async fn what_was_begun_upfront_may_be_done_by_another() {
    let stage = Stage::new();
    stage.facilitator.says(&[Settle::Silent; 12]);
    let a = Seller::new("a", 1, Does::Works);
    let b = Seller::new("b", 2, Does::Works);
    let mut first = sale(&stage, &[&a, &b]).await;
    first.requirement.flow = PaymentFlow::Upfront;
    let said = stage.sell(first).await;
    assert!(said.is(Reason::SettlementUnknown, Charged::Unknown), "{said:?}");
    stage.facilitator.settles.lock().clear();
    stage.clock.advance(61_000);
    let mut second = sale(&stage, &[&b]).await;
    second.requirement.flow = PaymentFlow::Upfront;
    second.sold.passed_over = vec![passed("a", "unreachable")];
    assert_eq!(stage.sell(second).await.reason, Reason::Paid);
    let job = stage.job(1).await;
    assert_eq!((job.state, job.provider[0].provider.as_str()), (State::Completed, "b"));
    assert_eq!((job.quote.provider.as_str(), job.quote.passed_over.len()), ("b", 1));
}

/// What the wallet may not do, it may not do with anybody; but for what is about the one provider.
#[tokio::test(start_paused = true)]
async fn a_wallet_that_may_not_pay_turns_to_another_only_where_that_helps() {
    let guarded = |reason| Does::Fails(Fault::Guarded(reason));
    for (reason, turned) in [
        (Reason::WalletFrozen, false),
        (Reason::WalletLow, false),
        (Reason::StoreAway, false),
        (Reason::ExposureLimit, false),
        (Reason::BudgetSpent, true),
        (Reason::PayeeChanged, true),
    ] {
        let stage = Stage::new();
        let (a, b) = (Seller::new("a", 1, guarded(reason)), Seller::new("b", 2, Does::Works));
        let said = stage.sell(sale(&stage, &[&a, &b]).await).await;
        assert_eq!((b.orders() == 1, said.reason == Reason::Paid), (turned, turned), "{said:?}");
        if !turned {
            assert!(said.is(reason, Charged::No), "{said:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_is_for_the_one_who_is_paid() {
    let limits = crate::config::resolved::Limits {
        spend_per_hour: 10_000,
        provider_spend_per_hour: 10_000,
        exposure: 10_000,
        payer_exposure: 10_000,
        loss_per_hour: 10_000,
        quote_loss_per_hour: 0,
        profit_floor: None,
        unsettled: 1 << 40,
        payer_unsettled: 1 << 40,
        uncollected_per_hour: 1 << 40,
    };
    let stage = Stage::guarded(64, move |store, clock, metrics| {
        let switch = crate::guard::Switch::Store(Arc::clone(&store));
        let guards = crate::guard::Guards::new(store, clock, metrics, &limits, switch);
        guards.assume_well();
        guards
    });
    let a = Seller::new("a", 6_000, Does::Fails(Fault::Unreachable));
    let b = Seller::new("b", 9_000, Does::Works);
    let said = stage.sell(sale(&stage, &[&a, &b]).await).await;
    assert_eq!(said.reason, Reason::Paid, "what was taken for a is free for b: {said:?}");
    // 9,000 of 10,000 are spent.
    assert!(
        stage.sell(stage.sale(2, &[Do::Pay("execute", 1_001)])).await.is(Reason::BudgetSpent, Charged::No)
    );
}

/// The same work, for another payment.
fn numbered(stage: &Stage, number: u8, Sale { work, offer, sold, .. }: Sale) -> Sale {
    Sale { work, offer, sold, ..stage.sale(number, &[]) }
}

/// So much may be spent with each provider in an hour.
fn with_budget(budget: u64) -> Stage {
    Stage::guarded(64, move |store, clock, metrics| {
        let limits = crate::config::resolved::Limits {
            spend_per_hour: 1 << 40,
            provider_spend_per_hour: budget,
            exposure: 1 << 40,
            payer_exposure: 1 << 40,
            loss_per_hour: 1 << 40,
            quote_loss_per_hour: 0,
            profit_floor: None,
            unsettled: 1 << 40,
            payer_unsettled: 1 << 40,
            uncollected_per_hour: 1 << 40,
        };
        let switch = crate::guard::Switch::Store(Arc::clone(&store));
        let guards = crate::guard::Guards::new(store, clock, metrics, &limits, switch);
        guards.assume_well();
        guards
    })
}

#[tokio::test(start_paused = true)]
async fn one_whose_budget_is_spent_is_replaced_before_anything_is_begun() {
    for upfront in [false, true] {
        let stage = with_budget(9_000);
        let a = Seller::new("a", 5_000, Does::Works);
        let b = Seller::new("b", 7_000, Does::Works);
        let c = Seller::new("c", 8_000, Does::Works);
        for (number, provider, passed_over) in [
            (1, "a", vec![]),
            (2, "b", vec![passed("a", "budget")]),
            (3, "c", vec![passed("a", "budget"), passed("b", "budget")]),
        ] {
            let mut sale = numbered(&stage, number, sale(&stage, &[&a, &b, &c]).await);
            if upfront {
                sale.requirement.flow = PaymentFlow::Upfront;
            }
            let said = stage.sell(sale).await;
            assert_eq!(said.reason, Reason::Paid, "{number}: {said:?}");
            let job = stage.job(number).await;
            assert_eq!((job.quote.provider.as_str(), &job.quote.passed_over), (provider, &passed_over));
            assert_eq!(job.provider.len(), 1);
        }
        // Nobody is left: nothing is charged, and the payment stays good.
        let mut last = numbered(&stage, 4, sale(&stage, &[&a, &b, &c]).await);
        if upfront {
            last.requirement.flow = PaymentFlow::Upfront;
        }
        let said = stage.sell(last).await;
        assert!(said.is(Reason::BudgetSpent, Charged::No), "{said:?}");
        let job = stage.job(4).await;
        assert_eq!((job.state, job.quote.provider.as_str()), (State::Voided, "a"));
        assert_eq!([a.orders(), b.orders(), c.orders(), stage.facilitator.moved()], [1, 1, 1, 3]);
    }
}

/// What another does for more than the payment covers is not done, and what arrived already is nowhere else.
#[tokio::test(start_paused = true)]
async fn one_whose_budget_is_spent_is_not_replaced_at_any_price() {
    let stage = with_budget(9_000);
    let a = Seller::new("a", 9_000, Does::Works);
    let b = Seller::new("b", PRICE + 1, Does::Works);
    let c = Seller::new("c", 1, Does::Works);
    assert_eq!(stage.sell(sale(&stage, &[&a, &b]).await).await.reason, Reason::Paid);
    for (number, sellers, data) in [
        (2, [&a, &b], bytes::Bytes::from_static(b"1+1").into()),
        (3, [&a, &c], Data::Received(Received { handle: "upload".into(), size: 3 })),
    ] {
        let sale = numbered(&stage, number, sale_of(&stage, &sellers, data).await);
        let said = stage.sell(sale).await;
        assert!(said.is(Reason::BudgetSpent, Charged::No), "{number}: {said:?}");
    }
    assert_eq!([a.orders(), b.orders(), c.orders()], [1, 0, 0]);
}
