use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::clock::Clock;
use crate::intake::{Kind, Wanted};
use crate::money::Amount;
use crate::quote_cache::QuoteCache;
use crate::quote_cache::testing::{self, FakeProvider, MemoryStore, NOW, store_ask};
use crate::x402::{Address, Network, PaymentFlow};

/// One gateway that sells storing at 1200 and pages at 250000, with its clock.
struct Stage {
    cache: Arc<QuoteCache>,
    clock: Clock,
    provider: Arc<FakeProvider>,
    url: ResourceUrl,
}

/// What a client was shown, and can echo.
struct Shown {
    header: Value,
    body: Value,
}

impl Stage {
    async fn new() -> Stage {
        let clock = Clock::manual(NOW);
        let provider = FakeProvider::new("a", 1_000);
        let cache = testing::cache(&[&provider], &MemoryStore::new(clock.clone()), &clock).await;
        let url = ResourceUrl::new("https", "api.example.com", "/store");
        Stage { cache, clock, provider, url }
    }

    fn store<'a>(&'a self, ask: &'a Ask) -> Request<'a> {
        Request {
            route: RouteId(0),
            charging: PaymentFlow::Authorization.into(),
            method: &Method::POST,
            path: "/store",
            url: &self.url,
            ask: Some(ask),
        }
    }

    fn page<'a>(&'a self, path: &'a str) -> Request<'a> {
        let charging = PaymentFlow::Upfront.into();
        Request { route: RouteId(2), charging, method: &Method::GET, path, url: &self.url, ask: None }
    }

    /// Decides as the edge would: fetching what is missing.
    async fn decide(&self, request: &Request<'_>, payment: Option<&Presented<'_>>) -> Decision {
        let now = self.clock.now_millis();
        let mut quote = match request.ask {
            Some(ask) => self.cache.lookup(ask, now),
            None => self.cache.fixed(request.route).cloned(),
        };
        let mut epochs_current = false;
        loop {
            let (keys, epochs) = (self.cache.keys(), self.cache.epochs());
            let (tariff, buckets) = (self.cache.tariff(), self.cache.buckets());
            let books = Books { keys: &keys, epochs: &epochs, epochs_current, tariff, buckets };
            match decide(request, payment, quote.as_deref(), &books, JobId::new(), now) {
                Decision::Missing(Missing::Quote) => {
                    assert!(quote.is_none());
                    quote = Some(self.cache.fetch(request.ask.unwrap()).await.unwrap());
                }
                Decision::Missing(Missing::Epochs) => {
                    assert!(!epochs_current);
                    self.cache.catch_up().await.unwrap();
                    epochs_current = true;
                }
                decision => return decision,
            }
        }
    }

    async fn shown(&self, request: &Request<'_>) -> Shown {
        match self.decide(request, None).await {
            Decision::Challenge(challenge) => shown(challenge),
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&self, request: &Request<'_>, payment: &Presented<'_>) -> Reason {
        match self.decide(request, Some(payment)).await {
            Decision::Challenge(challenge) => {
                let reason = challenge.reason;
                let shown = shown(challenge);
                assert_eq!(shown.body["code"], reason.code());
                assert_eq!(shown.body["charged"], "no");
                assert_eq!(shown.header["error"], reason.text());
                reason
            }
            other => panic!("{other:?}"),
        }
    }

    async fn admitted(&self, request: &Request<'_>, payment: &Presented<'_>) -> Admission {
        match self.decide(request, Some(payment)).await {
            Decision::Admit(admission) => admission,
            other => panic!("{other:?}"),
        }
    }
}

fn shown(challenge: Challenge) -> Shown {
    let response = challenge.into_response(&Challenge::fields());
    assert_eq!(response.status(), 402);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let header = response.headers()["payment-required"].as_bytes();
    let header = base64_simd::STANDARD.decode_to_vec(header).unwrap();
    Shown {
        header: serde_json::from_slice(&header).unwrap(),
        body: serde_json::from_slice(response.body()).unwrap(),
    }
}

impl Shown {
    fn v2(&self) -> Presented<'_> {
        let entry = &self.header["accepts"][0];
        let flow = if entry["extra"].get("paymentFlow").is_some() {
            PaymentFlow::Upfront
        } else {
            PaymentFlow::Authorization
        };
        let echo = Echo {
            network: entry["network"].as_str().unwrap().parse().unwrap(),
            asset: entry["asset"].as_str().unwrap().parse().unwrap(),
            pay_to: entry["payTo"].as_str().unwrap().parse().unwrap(),
            amount: entry["amount"].as_str().unwrap().parse().unwrap(),
            max_timeout_seconds: entry["maxTimeoutSeconds"].as_u64().unwrap(),
            flow,
            quote_id: entry["extra"]["quoteId"].as_str(),
        };
        Presented {
            version: Version::V2,
            network: echo.network,
            pay_to: echo.pay_to,
            value: echo.amount,
            accepted: Some(echo),
        }
    }

    fn v1(&self) -> Presented<'static> {
        let entry = &self.body["accepts"][0];
        Presented {
            version: Version::V1,
            network: Network::from_v1_name(entry["network"].as_str().unwrap()).unwrap(),
            pay_to: entry["payTo"].as_str().unwrap().parse().unwrap(),
            value: entry["maxAmountRequired"].as_str().unwrap().parse().unwrap(),
            accepted: None,
        }
    }
}

fn echoing<'a>(payment: &Presented<'a>, change: impl FnOnce(&mut Echo<'a>)) -> Presented<'a> {
    let mut payment = *payment;
    change(payment.accepted.as_mut().unwrap());
    payment
}

#[tokio::test]
async fn both_versions_buy_what_they_were_shown() {
    let stage = Stage::new().await;
    let ask = store_ask(10);
    let request = stage.store(&ask);
    let shown = stage.shown(&request).await;
    assert_eq!(shown.body["price_usd"], 0.0012);
    assert_eq!(shown.body["file_size_bytes"], 10);

    let v2 = stage.admitted(&request, &shown.v2()).await;
    assert_eq!(v2.job.unwrap().to_string(), shown.body["jobId"].as_str().unwrap());
    let v1 = stage.admitted(&request, &shown.v1()).await;
    assert_eq!(v1.job, None);
    assert_eq!((&v1.terms, &v1.requirement), (&v2.terms, &v2.requirement));
    let sold = v2.sold(10);
    assert_eq!((sold.provider.as_str(), sold.operation.as_str()), ("a", "set"));
    assert_eq!((sold.price, sold.cost, sold.size), (Amount::new(1_200), Amount::new(1_000), 10));
    assert_eq!(v2.requirement.asset, testing::asset());
}

#[tokio::test]
async fn above_a_price_version_1_is_charged_before_the_work_and_version_2_as_it_was_told() {
    let stage = Stage::new().await;
    let ask = store_ask(10);
    let shown = stage.shown(&stage.store(&ask)).await;
    for (limit, flow) in [(1_200, PaymentFlow::Authorization), (1_199, PaymentFlow::Upfront)] {
        let charging = Charging::brokered(PaymentFlow::Authorization, Some(limit));
        let request = Request { charging, ..stage.store(&ask) };
        assert_eq!(stage.admitted(&request, &shown.v1()).await.requirement.flow, flow);
        let v2 = stage.admitted(&request, &shown.v2()).await;
        assert_eq!(v2.requirement.flow, PaymentFlow::Authorization, "the limit is newer than the challenge");
    }
}

#[tokio::test]
async fn a_priced_route_sells_at_its_own_price_in_both_versions() {
    let stage = Stage::new().await;
    let request = stage.page("/page/1");
    let shown = stage.shown(&request).await;
    for payment in [shown.v1(), shown.v2()] {
        let admission = stage.admitted(&request, &payment).await;
        assert_eq!(admission.requirement.amount, Amount::new(250_000));
        assert_eq!(admission.requirement.flow, PaymentFlow::Upfront);
        assert_eq!(
            (admission.terms.provider.as_str(), admission.terms.operation.as_str()),
            ("app", "/page/*")
        );
    }
    let other = Presented { value: Amount::new(249_999), ..shown.v1() };
    assert_eq!(stage.refused(&request, &other).await, Reason::PaymentAmount);
    // A quote is for one page, and for one method.
    assert_eq!(stage.refused(&stage.page("/page/2"), &shown.v2()).await, Reason::QuoteInvalid);
    let head = Request { method: &Method::HEAD, ..request };
    assert_eq!(stage.refused(&head, &shown.v2()).await, Reason::QuoteInvalid);
}

#[tokio::test]
async fn a_shown_price_is_honoured_until_it_expires_whatever_the_price_is_now() {
    let stage = Stage::new().await;
    let ask = store_ask(10);
    let request = stage.store(&ask);
    stage.shown(&request).await;
    // The last moment at which the old price is shown.
    stage.clock.advance(299_999);
    let shown = stage.shown(&request).await;
    stage.provider.set_price(9_000);
    stage.clock.advance(300_001 + 29_000);
    assert_eq!(stage.shown(&request).await.body["price_usd"], 0.0108);
    for payment in [shown.v2(), shown.v1()] {
        assert_eq!(stage.admitted(&request, &payment).await.requirement.amount, Amount::new(1_200));
    }
    stage.clock.advance(1_000);
    assert_eq!(stage.refused(&request, &shown.v2()).await, Reason::QuoteExpired);
    stage.clock.advance(61_000);
    assert_eq!(stage.refused(&request, &shown.v1()).await, Reason::PaymentAmount);
}

#[tokio::test]
async fn a_quote_buys_up_to_the_end_of_its_bucket_and_nothing_else() {
    let stage = Stage::new().await;
    let ask = store_ask(10);
    let shown = stage.shown(&stage.store(&ask)).await;
    let full = store_ask(1_000_000);
    stage.admitted(&stage.store(&full), &shown.v2()).await;
    let permanent = Ask { wanted: Wanted::Store { permanent: true, ttl: None }, ..ask.clone() };
    let kept_short = Ask { wanted: Wanted::Store { permanent: false, ttl: Some(5) }, ..ask.clone() };
    let json = Ask { kind: Kind::Json, ..ask.clone() };
    for other in [&store_ask(1_000_001), &permanent, &kept_short, &json] {
        assert_eq!(stage.refused(&stage.store(other), &shown.v2()).await, Reason::QuoteInvalid);
    }
    let elsewhere = Request { path: "/store2", ..stage.store(&ask) };
    assert_eq!(stage.refused(&elsewhere, &shown.v2()).await, Reason::QuoteInvalid);
}

#[tokio::test]
async fn no_field_of_an_echo_can_be_changed() {
    let stage = Stage::new().await;
    let ask = store_ask(10);
    let request = stage.store(&ask);
    let shown = stage.shown(&request).await;
    let good = shown.v2();
    let other = Address::repeat_byte(0x66);
    for (payment, reason) in [
        (Presented { accepted: None, ..good }, Reason::PaymentMalformed),
        (echoing(&good, |echo| echo.quote_id = None), Reason::QuoteInvalid),
        (echoing(&good, |echo| echo.quote_id = Some("")), Reason::QuoteInvalid),
        (echoing(&good, |echo| echo.network = Network(8453)), Reason::PaymentNetwork),
        (echoing(&good, |echo| echo.asset = other), Reason::PaymentAsset),
        (echoing(&good, |echo| echo.pay_to = other), Reason::PaymentPayee),
        (echoing(&good, |echo| echo.amount = Amount::new(1)), Reason::QuoteInvalid),
        (echoing(&good, |echo| echo.max_timeout_seconds = 9_999), Reason::QuoteInvalid),
        (echoing(&good, |echo| echo.flow = PaymentFlow::Upfront), Reason::QuoteInvalid),
        (Presented { pay_to: other, ..good }, Reason::PaymentPayee),
        (Presented { value: Amount::new(1_199), ..good }, Reason::PaymentAmount),
        (Presented { value: Amount::new(1_201), ..good }, Reason::PaymentAmount),
        (Presented { network: Network(8453), ..good }, Reason::PaymentNetwork),
    ] {
        assert_eq!(stage.refused(&request, &payment).await, reason, "{payment:?}");
    }
    stage.admitted(&request, &good).await;
}

#[tokio::test]
async fn a_v1_payment_must_be_of_a_price_that_was_shown() {
    let stage = Stage::new().await;
    let ask = store_ask(10);
    let request = stage.store(&ask);
    let good = stage.shown(&request).await.v1();
    for (payment, reason) in [
        (Presented { network: Network(8453), ..good }, Reason::PaymentNetwork),
        (Presented { pay_to: Address::ZERO, ..good }, Reason::PaymentPayee),
        (Presented { value: Amount::new(1_199), ..good }, Reason::PaymentAmount),
        (Presented { value: Amount::new(1_201), ..good }, Reason::PaymentAmount),
        (Presented { value: Amount::ZERO, ..good }, Reason::PaymentAmount),
    ] {
        assert_eq!(stage.refused(&request, &payment).await, reason, "{payment:?}");
    }
    // The price of small things does not buy large ones.
    let large = store_ask(1_000_001);
    stage.provider.set_price(50_000);
    assert_eq!(stage.refused(&stage.store(&large), &good).await, Reason::PaymentAmount);
}

#[tokio::test]
async fn free_work_is_done_without_a_payment_and_too_much_is_refused() {
    let stage = Stage::new().await;
    stage.provider.set_price(0);
    let ask = store_ask(10);
    match stage.decide(&stage.store(&ask), None).await {
        Decision::Free(terms) => assert_eq!(terms.provider, "a"),
        other => panic!("{other:?}"),
    }
    let huge = store_ask(10_000_001);
    match stage.decide(&stage.store(&huge), None).await {
        Decision::Refuse(problem) => assert_eq!(problem.reason, Reason::TooLarge),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_later_refusal_gets_a_fresh_challenge_with_its_reason() {
    let stage = Stage::new().await;
    let ask = store_ask(10);
    let request = stage.store(&ask);
    let quote = stage.cache.fetch(&ask).await.unwrap();
    let (keys, tariff) = (stage.cache.keys(), stage.cache.tariff());
    let problem = Problem::new(Reason::PaymentRejected).charged(Charged::No).message("insufficient_funds");
    let answer = challenge(&request, &quote, &keys, tariff, &problem, JobId::new(), NOW).unwrap();
    let shown = shown(answer);
    assert_eq!(shown.body["error"], "insufficient_funds");
    assert_eq!(shown.body["code"], "payment_rejected");
    assert_eq!(shown.body["retry"], "new_payment");
    stage.admitted(&request, &shown.v2()).await;
    let elsewhere = Request { route: RouteId(1), ..request };
    assert!(challenge(&elsewhere, &quote, &keys, tariff, &problem, JobId::new(), NOW).is_none());
}
