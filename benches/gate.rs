//! The gate's hot path: finding a quote, making a challenge, deciding about a payment.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use criterion::{Criterion, criterion_group, criterion_main};
use galaksio::clock::Clock;
use galaksio::config::resolved::{Accept, Action, BrokeredWork, Pricing, Route};
use galaksio::gate::{self, Books, Challenge, Decision, Echo, Presented, Request};
use galaksio::ids::JobId;
use galaksio::intake::{Ask, Kind, Wanted};
use galaksio::jobs::{Draw, StoreError, ValueStore};
use galaksio::money::Amount;
use galaksio::providers::{Done, Fault, NotSold, Offer, Operation, Order, Provider, ProviderError, Purse};
use galaksio::quote_cache::{
    Fill, Money, QuoteCache, QuoteKey, ResourceUrl, RouteId, Settings, Target, Token,
};
use galaksio::reason::{Problem, Reason};
use galaksio::x402::{Address, Asset, Network, PaymentFlow, Version};
use http::Method;

criterion_group!(benches, gate);
criterion_main!(benches);

#[expect(clippy::unwrap_used, reason = "a benchmark may stop")]
fn gate(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock = Clock::system();
    let cache = runtime.block_on(open(&clock));
    let ask =
        Ask { wanted: Wanted::Run { language: "python".to_owned() }, kind: Kind::Code, size: 60, files: 1 };
    let quote = runtime.block_on(cache.fetch(&ask)).unwrap();
    let now = clock.now_millis();

    let url = ResourceUrl::new("http", "127.0.0.1:8080", "/run");
    let request = Request {
        route: RouteId(0),
        charging: PaymentFlow::Authorization.into(),
        method: &Method::POST,
        path: "/run",
        url: &url,
        ask: Some(&ask),
    };
    let (keys, epochs) = (cache.keys(), cache.epochs());
    let (tariff, buckets) = (cache.tariff(), cache.buckets());
    let books = Books { keys: &keys, epochs: &epochs, epochs_current: true, tariff, buckets };
    let fill = Fill {
        problem: &Problem::new(Reason::PaymentRequired),
        url: &url,
        method: request.method,
        path: request.path,
        job: JobId::new(),
        size: ask.size,
        expires: now / 1000 + 300,
        now,
    };
    let template = quote.template(request.route).unwrap();
    let encoded = template.encode(&keys, &fill);
    println!("a challenge is {} bytes of header and {} of body", encoded.header.len(), encoded.body.len());

    let json = base64_simd::STANDARD.decode_to_vec(&encoded.header).unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let text = shown["accepts"][0]["extra"]["quoteId"].as_str().unwrap();
    let price = &quote.prices[0];
    let money = Money {
        network: price.accept.asset.network,
        asset: price.accept.asset.address,
        pay_to: price.accept.pay_to,
        amount: price.amount,
        max_timeout_seconds: 300,
        flow: PaymentFlow::Authorization,
    };
    let echo = Echo {
        network: money.network,
        asset: money.asset,
        pay_to: money.pay_to,
        amount: money.amount,
        max_timeout_seconds: money.max_timeout_seconds,
        flow: money.flow,
        quote_id: Some(text),
    };
    let v2 = Presented {
        version: Version::V2,
        network: money.network,
        pay_to: money.pay_to,
        value: money.amount,
        accepted: Some(echo),
    };
    let v1 = Presented { version: Version::V1, accepted: None, ..v2 };
    let job = JobId::new();
    let decide =
        |payment: Option<&Presented<'_>>| gate::decide(&request, payment, Some(&quote), &books, job, now);
    assert!(matches!(decide(Some(&v2)), Decision::Admit(_)));
    assert!(matches!(decide(Some(&v1)), Decision::Admit(_)));
    assert!(matches!(decide(None), Decision::Challenge(_)));

    criterion.bench_function("quote/lookup", |b| b.iter(|| cache.lookup(black_box(&ask), now)));
    criterion.bench_function("challenge/encode", |b| b.iter(|| template.encode(&keys, black_box(&fill))));
    let fields = Challenge::fields();
    criterion.bench_function("challenge/answer", |b| {
        b.iter(|| match gate::decide(black_box(&request), None, Some(&quote), &books, JobId::new(), now) {
            Decision::Challenge(challenge) => Some(challenge.into_response(&fields)),
            _ => None,
        });
    });
    criterion.bench_function("decide/v2", |b| b.iter(|| decide(Some(black_box(&v2)))));
    criterion.bench_function("decide/v1", |b| b.iter(|| decide(Some(black_box(&v1)))));
    let key = QuoteKey::of(&ask, buckets).unwrap();
    let target = Target { method: request.method, path: request.path };
    criterion.bench_function("token/verify", |b| {
        b.iter(|| Token::verify(black_box(text), &keys, Some(&key), &money, target, now));
    });
    criterion.bench_function("job id", |b| b.iter(JobId::new));
}

#[expect(clippy::unwrap_used, reason = "a benchmark may stop")]
async fn open(clock: &Clock) -> QuoteCache {
    let asset = asset();
    let accepts = [Accept { asset, pay_to: Address::repeat_byte(0x42) }];
    let pricing = Pricing {
        markup_bps: 2_000,
        fee: "0".to_owned(),
        buckets: vec![1_000_000, 10_000_000, 100_000_000],
        quote_ttl: Duration::from_secs(3_600),
        refresh_before: Duration::from_secs(60),
        terms_max_age: Duration::from_secs(60),
        probe_timeout: Duration::from_secs(1),
        quote_loss_limit: "0.01".to_owned(),
    };
    let action = Action::Brokered { work: BrokeredWork::Run, settle: PaymentFlow::Authorization };
    let routes = [Route { path: "/run".to_owned(), methods: vec![Method::POST], action }];
    let settings = Settings {
        routes: &routes,
        accepts: &accepts,
        pricing: &pricing,
        max_timeout: Duration::from_secs(300),
        upfront_above: None,
    };
    let (sellers, store) = (vec![Arc::new(Seller) as Arc<dyn Provider>], Arc::new(Memory::default()));
    QuoteCache::open(settings, sellers, store, clock.clone(), Arc::default()).await.unwrap()
}

#[expect(clippy::unwrap_used, reason = "a benchmark may stop")]
fn asset() -> Asset {
    Asset::default_for(Network(84_532)).unwrap()
}

/// Sells everything for 280.
struct Seller;

#[async_trait]
impl Provider for Seller {
    fn name(&self) -> &'static str {
        "merit-systems"
    }

    fn sells(&self, ask: &Ask) -> Result<Operation, NotSold> {
        match &ask.wanted {
            Wanted::Run { language } if language == "python" => Ok("execute"),
            _ => Err(NotSold::Operation { provider: self.name() }),
        }
    }

    async fn offer(&self, _: Operation, _: &Ask) -> Result<Offer, ProviderError> {
        Ok(Offer { cost: Amount::new(280), asset: asset(), pay_to: Address::repeat_byte(0x11) })
    }

    async fn perform(&self, _: &Order, _: &dyn Purse) -> Result<Done, ProviderError> {
        Err(ProviderError::new(Fault::Internal, "not in this benchmark"))
    }
}

/// A store in memory, as far as quotes need one.
#[derive(Default)]
struct Memory(parking_lot::Mutex<Vec<(String, String, Vec<u8>)>>);

fn away<T>() -> Result<T, StoreError> {
    Err(StoreError::Away("not in this benchmark".to_owned()))
}

type Ttl = Option<Duration>;

#[async_trait]
impl ValueStore for Memory {
    async fn put(&self, space: &str, key: &str, value: &[u8], _: Ttl) -> Result<(), StoreError> {
        self.0.lock().push((space.to_owned(), key.to_owned(), value.to_vec()));
        Ok(())
    }

    async fn put_new(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Ttl,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.put(space, key, value, ttl).await.map(|()| None)
    }

    async fn get(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        away()
    }

    async fn list(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let values = self.0.lock();
        let found = values.iter().filter(|(found, ..)| found == space);
        Ok(found.map(|(_, key, value)| (key.clone(), value.clone())).collect())
    }

    async fn add(&self, _: &str, _: &str, _: i64) -> Result<i64, StoreError> {
        away()
    }

    async fn draw(&self, _: &str, _: &str, _: &str, _: Draw) -> Result<Option<u64>, StoreError> {
        away()
    }

    async fn drawn(&self, _: &str, _: &str) -> Result<u64, StoreError> {
        away()
    }
}
