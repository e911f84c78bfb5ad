//! Stand-ins for the tests of quotes and the gate: a provider whose price is set, settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::cache::{QuoteCache, Settings};
use super::price::Price;
use super::token::Money;
use crate::clock::{Clock, UnixMillis};
use crate::config::resolved::{Accept, Action, BrokeredWork, Pricing, Route, Settle};
use crate::intake::{Ask, Kind, Wanted};
pub(crate) use crate::jobs::memory::MemoryStore;
use crate::money::Amount;
use crate::providers::{Done, Fault, NotSold, Offer, Operation, Order, Provider, ProviderError, Purse};
use crate::telemetry::Metrics;
use crate::x402::{Address, Asset, Network, PaymentFlow};

/// 2027-01-15 08:00:00 UTC, in milliseconds.
pub(crate) const NOW: UnixMillis = 1_800_000_000_000;

pub(crate) fn asset() -> Asset {
    Asset::default_for(Network(84_532)).unwrap()
}

pub(crate) fn accept() -> Accept {
    Accept { asset: asset(), pay_to: Address::repeat_byte(0x42) }
}

pub(crate) fn price(amount: u128) -> Price {
    Price { accept: accept(), amount: Amount::new(amount) }
}

pub(crate) fn money(amount: u128) -> Money {
    Money {
        network: asset().network,
        asset: asset().address,
        pay_to: accept().pay_to,
        amount: Amount::new(amount),
        max_timeout_seconds: 300,
        flow: PaymentFlow::Authorization,
    }
}

pub(crate) fn pricing() -> Pricing {
    Pricing {
        markup_bps: 2_000,
        fee: "0".to_owned(),
        buckets: vec![1_000_000, 10_000_000],
        quote_ttl: Duration::from_secs(300),
        refresh_before: Duration::from_secs(60),
        terms_max_age: Duration::from_secs(60),
        probe_timeout: Duration::from_secs(20),
        quote_loss_limit: "0.01".to_owned(),
    }
}

/// Route 0 sells storing, 1 running, and 2 is a page of the app's at a quarter.
pub(crate) fn routes() -> Vec<Route> {
    let brokered = |path: &str, work| Route {
        path: path.to_owned(),
        methods: vec![http::Method::POST],
        action: Action::Brokered { work, settle: PaymentFlow::Authorization },
    };
    let priced = Action::Priced {
        price: "0.25".to_owned(),
        settle: Settle::Upfront,
        description: "A page".to_owned(),
        mime_type: "text/html".to_owned(),
    };
    vec![
        brokered("/store", BrokeredWork::Store),
        brokered("/run", BrokeredWork::Run),
        Route { path: "/page/*".to_owned(), methods: Vec::new(), action: priced },
    ]
}

pub(crate) async fn cache(
    providers: &[&Arc<FakeProvider>],
    store: &Arc<MemoryStore>,
    clock: &Clock,
) -> Arc<QuoteCache> {
    let (routes, accepts, pricing) = (routes(), [accept()], pricing());
    let settings = Settings {
        routes: &routes,
        accepts: &accepts,
        pricing: &pricing,
        max_timeout: Duration::from_secs(300),
        upfront_above: None,
    };
    let providers = providers.iter().map(|provider| Arc::clone(*provider) as Arc<dyn Provider>).collect();
    let metrics = Arc::new(Metrics::new());
    Arc::new(QuoteCache::open(settings, providers, store.clone(), clock.clone(), metrics).await.unwrap())
}

pub(crate) fn store_ask(size: u64) -> Ask {
    Ask { wanted: Wanted::Store { permanent: false, ttl: None }, kind: Kind::File, size, files: 1 }
}

/// A seller of storage whose price and faults are set from outside.
pub(crate) struct FakeProvider {
    name: &'static str,
    price: AtomicU64,
    probes: AtomicUsize,
    limit: u64,
    broken: AtomicBool,
    /// Does not answer while nobody gives it a permit.
    gate: Option<tokio::sync::Semaphore>,
}

impl FakeProvider {
    pub(crate) fn new(name: &'static str, price: u64) -> Arc<Self> {
        Arc::new(FakeProvider::unshared(name, price))
    }

    pub(crate) fn gated(name: &'static str, price: u64) -> Arc<Self> {
        let gate = Some(tokio::sync::Semaphore::new(0));
        Arc::new(FakeProvider { gate, ..FakeProvider::unshared(name, price) })
    }

    pub(crate) fn limited(name: &'static str, price: u64, limit: u64) -> Arc<Self> {
        Arc::new(FakeProvider { limit, ..FakeProvider::unshared(name, price) })
    }

    fn unshared(name: &'static str, price: u64) -> Self {
        FakeProvider {
            name,
            price: price.into(),
            probes: 0.into(),
            limit: u64::MAX,
            broken: false.into(),
            gate: None,
        }
    }

    pub(crate) fn set_price(&self, price: u64) {
        self.price.store(price, Ordering::SeqCst);
    }

    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    pub(crate) fn probes(&self) -> usize {
        self.probes.load(Ordering::SeqCst)
    }

    pub(crate) fn release(&self) {
        if let Some(gate) = &self.gate {
            gate.add_permits(1000);
        }
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sells(&self, ask: &Ask) -> Result<Operation, NotSold> {
        match ask.wanted {
            Wanted::Run { .. } => Err(NotSold::Operation { provider: self.name }),
            Wanted::Store { ttl: Some(ttl), .. } if ttl > 86_400 => {
                Err(NotSold::Option { provider: self.name, option: format!("ttl {ttl}") })
            }
            _ if ask.size > self.limit => Err(NotSold::Size { provider: self.name, limit: self.limit }),
            Wanted::Store { permanent: true, .. } => Ok("pin"),
            Wanted::Store { .. } => Ok("set"),
        }
    }

    async fn offer(&self, _: Operation, _: &Ask) -> Result<Offer, ProviderError> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.broken.load(Ordering::SeqCst) {
            return Err(ProviderError::new(Fault::Broken, "503"));
        }
        let cost = Amount::new(self.price.load(Ordering::SeqCst).into());
        Ok(Offer { cost, asset: asset(), pay_to: Address::repeat_byte(0x11) })
    }

    async fn perform(&self, _: &Order, _: &dyn Purse) -> Result<Done, ProviderError> {
        Err(ProviderError::new(Fault::Internal, "does no work"))
    }
}
