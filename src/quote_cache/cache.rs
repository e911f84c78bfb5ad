//! The quotes: a snapshot that requests read, and the one way by which a quote gets into it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use foldhash::fast::RandomState;
use moka::future::Cache;

use super::APP;
use super::bucket::{Buckets, TooLarge};
use super::epoch::{EpochBook, Epochs};
use super::error::{OpenError, QuoteError};
use super::key::{QuoteKey, Work};
use super::keyring::{Keyring, Keys};
use super::price::{Charging, Dollars, PriceError, Tariff};
use super::probe::{Bid, Prober, RETRY_AFTER};
use super::quote::{Quote, RouteId, Terms};
use super::template::{Listing, Template};
use crate::clock::{Clock, UnixMillis};
use crate::config::resolved::{Accept, Action, BrokeredWork, Config, Pricing, Route};
use crate::intake::{Ask, Kind, Wanted};
use crate::jobs::{StoreError, ValueStore};
use crate::money::Amount;
use crate::providers::{Fault, NotSold, Offer, Provider, ProviderError};
use crate::telemetry::Metrics;
use crate::wallet::Payees;

/// How long a quote waits for the providers, so that a client without one has its answer within two seconds. In the
/// background it is no longer: a client may join the wait.
pub(super) const PATIENCE: Duration = Duration::from_millis(1_800);

/// Quotes kept at most. Languages are the only part of a key that a provider, not we, must bound.
const MAX_QUOTES: usize = 4096;

/// The settings that quotes depend on.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// All routes; the free ones are skipped. A [`RouteId`] is an index of these.
    pub routes: &'a [Route],
    /// What clients may pay with.
    pub accepts: &'a [Accept],
    /// From cost to price.
    pub pricing: &'a Pricing,
    /// `maxTimeoutSeconds`.
    pub max_timeout: Duration,
    /// Brokered work of a higher price, in millionths of a dollar, is charged before it is done.
    pub upfront_above: Option<u64>,
}

/// Quotes for everything that is sold.
pub struct QuoteCache {
    snapshot: ArcSwap<Snapshot>,
    /// Holds one outcome a key, so that one task makes a quote and all others wait for it, and a failure
    /// is not repeated at once.
    outcomes: Cache<QuoteKey<'static>, Outcome>,
    fixed: HashMap<RouteId, Arc<Quote>>,
    counters: Vec<Counter>,
    pub(super) prober: Prober,
    pub(super) buckets: Buckets,
    tariff: Tariff,
    pub(super) keyring: Keyring,
    pub(super) epochs: EpochBook,
    pub(super) clock: Clock,
    pub(super) refresh_before: Duration,
    pub(super) terms_max_age: Duration,
}

/// Hashed quickly: each challenge does, and what a client could make collide is bounded by [`MAX_QUOTES`].
type Map<'a> = HashMap<QuoteKey<'a>, Arc<Quote>, RandomState>;

type Snapshot = Map<'static>;

/// A route that sells brokered work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter {
    route: RouteId,
    pub(super) work: BrokeredWork,
    charging: Charging,
}

#[derive(Clone)]
struct Outcome {
    at: UnixMillis,
    result: Result<Arc<Quote>, QuoteError>,
}

impl<'a> From<&'a Config> for Settings<'a> {
    fn from(config: &'a Config) -> Self {
        Settings {
            routes: &config.routes,
            accepts: &config.accepts,
            pricing: &config.pricing,
            max_timeout: config.paid.max_timeout,
            upfront_above: config.paid.upfront_above,
        }
    }
}

impl QuoteCache {
    /// Reads keys and epochs from the store, and makes the challenges of the app's priced routes. Asks no
    /// provider yet: [`QuoteCache::run`] does.
    pub async fn open(
        settings: Settings<'_>,
        providers: Vec<Arc<dyn Provider>>,
        store: Arc<dyn ValueStore>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let pricing = settings.pricing;
        let tariff = Tariff::new(settings.accepts, pricing, settings.max_timeout)?;
        let prober = Prober::new(providers, clock.clone(), metrics, pricing.probe_timeout);
        let whole = Buckets::new(&pricing.buckets, []);
        let limits = typical(whole.limit()).flat_map(|ask| prober.limits(&ask).collect::<Vec<_>>());
        let mut fixed = HashMap::new();
        let mut counters = Vec::new();
        for (at, route) in settings.routes.iter().enumerate() {
            let id = RouteId(at);
            match &route.action {
                Action::Free => {}
                Action::Priced { .. } => {
                    fixed.insert(id, Arc::new(fixed_quote(id, route, &tariff)?));
                }
                Action::Brokered { work, settle } => {
                    let charging = Charging::brokered(*settle, settings.upfront_above);
                    counters.push(Counter { route: id, work: *work, charging });
                }
            }
        }
        Ok(QuoteCache {
            snapshot: ArcSwap::default(),
            outcomes: Cache::new(MAX_QUOTES as u64),
            fixed,
            counters,
            buckets: Buckets::new(&pricing.buckets, limits),
            prober,
            tariff,
            keyring: Keyring::open(store.clone(), clock.clone(), pricing.quote_ttl).await?,
            epochs: EpochBook::open(store, clock.clone()).await?,
            clock,
            refresh_before: pricing.refresh_before,
            terms_max_age: pricing.terms_max_age,
        })
    }

    /// The quote for an ask, if there is one in memory that may be shown now. Takes no lock, waits for nothing.
    pub fn lookup(&self, ask: &Ask, now: UnixMillis) -> Option<Arc<Quote>> {
        let key = QuoteKey::of(ask, &self.buckets).ok()?;
        let snapshot = self.snapshot.load();
        // A map is covariant in its key, so one of owned keys can be asked with a borrowed one.
        let quotes: &Map<'_> = &snapshot;
        let quote = quotes.get(&key)?;
        let shown = now < quote.expires_at
            && self.sells(quote, ask).is_ok()
            && !self.is_ejected(quote, now)
            && !self.is_spent(quote);
        shown.then(|| {
            quote.mark_used();
            Arc::clone(quote)
        })
    }

    /// The quote of a priced route of the app.
    pub fn fixed(&self, route: RouteId) -> Option<&Arc<Quote>> {
        self.fixed.get(&route)
    }

    /// The quote for an ask, asking the providers if need be: at most once at a time for each key, at most once
    /// a second after a failure. Answers within two seconds.
    pub async fn fetch(&self, ask: &Ask) -> Result<Arc<Quote>, QuoteError> {
        let key = QuoteKey::of(ask, &self.buckets)?.into_owned();
        // Before anybody is asked: what is not sold stays unsold.
        let sellers = self.prober.sellers(ask)?;
        let now = self.clock.now_millis();
        let a_while_ago = |at| u128::from(now.saturating_sub(at)) >= RETRY_AFTER.as_millis();
        let stale = |outcome: &Outcome| match &outcome.result {
            Ok(quote) if now >= quote.expires_at || self.is_ejected(quote, now) => true,
            Ok(quote) => self.is_spent(quote) && a_while_ago(outcome.at) && self.others_sell(quote, &sellers),
            Err(_) => a_while_ago(outcome.at),
        };
        let quote = self.outcome(&key, stale).await?;
        // A key stands for many asks: its seller may take a shorter time to live than this one.
        self.sells(&quote, ask).map_err(|refusal| QuoteError::NotSold(vec![refusal]))?;
        quote.mark_used();
        Ok(quote)
    }

    /// What `operation` costs us now for one file, by terms no older than `pricing.terms_max_age`; asks the provider if need be.
    /// To be called before it is paid.
    pub async fn terms(&self, provider: &str, operation: &str, ask: &Ask) -> Result<Offer, ProviderError> {
        let seller = self.prober.seller(provider, operation, ask)?;
        if self.prober.is_ejected(seller, self.clock.now_millis()) {
            let message = "it is left alone for a while, since its work failed";
            return Err(ProviderError::new(Fault::Broken, message));
        }
        let refused = |error: TooLarge| ProviderError::new(Fault::Refused, error.to_string());
        let key = QuoteKey::of(ask, &self.buckets).map_err(refused)?.into_owned();
        self.prober.terms(seller, &key, self.terms_max_age).await
    }

    /// Makes the quote for an ask anew, unless it is younger than terms may be: by [`QuoteCache::terms`] its provider
    /// wants more than the quote says, so nobody should be shown it any more. Asks providers at most once in
    /// `pricing.terms_max_age` for each key.
    pub async fn renew(&self, ask: &Ask) -> Result<Arc<Quote>, QuoteError> {
        let key = QuoteKey::of(ask, &self.buckets)?.into_owned();
        let age = u64::try_from(self.terms_max_age.as_millis()).unwrap_or(u64::MAX);
        let since = self.clock.now_millis().saturating_sub(age);
        self.outcome(&key, |outcome| outcome.at <= since).await
    }

    /// With offers only of those who may be paid.
    pub fn paying(mut self, payees: Arc<Payees>) -> Self {
        self.prober.payees = Some(payees);
        self
    }

    /// The keys that quotes are signed with.
    pub fn keys(&self) -> Guard<Arc<Keys>> {
        self.keyring.keys()
    }

    /// The prices that v1 payments are matched to.
    pub fn epochs(&self) -> Guard<Arc<Epochs>> {
        self.epochs.live()
    }

    /// Takes over prices shown by other replicas, for a v1 payment that matches none of the known.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        self.epochs.catch_up().await
    }

    /// From cost to price.
    pub fn tariff(&self) -> &Tariff {
        &self.tariff
    }

    /// The size buckets.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// Every quote in memory, shown or not.
    pub(super) fn quotes(&self) -> Vec<Arc<Quote>> {
        self.snapshot.load().values().cloned().collect()
    }

    pub(super) fn counters(&self) -> &[Counter] {
        &self.counters
    }

    /// A new quote of this key, unless one was made after `since`.
    pub(super) async fn refresh(
        &self,
        key: &QuoteKey<'static>,
        since: UnixMillis,
    ) -> Result<Arc<Quote>, QuoteError> {
        self.outcome(key, |outcome| outcome.at < since).await
    }

    async fn outcome(
        &self,
        key: &QuoteKey<'static>,
        stale: impl FnMut(&Outcome) -> bool + Send,
    ) -> Result<Arc<Quote>, QuoteError> {
        let make = async {
            let at = self.clock.now_millis();
            Outcome { at, result: self.make(key, at).await }
        };
        self.outcomes.entry_by_ref(key).or_insert_with_if(make, stale).await.into_value().result
    }

    /// Asks the providers, records the price, and then shows it. In this order, always.
    async fn make(&self, key: &QuoteKey<'static>, since: UnixMillis) -> Result<Arc<Quote>, QuoteError> {
        let sellers = self.prober.sellers(&key.ask())?;
        // Where its seller may only not be paid just now, what the others said is as good as terms may be old.
        let since = match self.snapshot.load().get(key).is_some_and(|quote| self.is_spent(quote)) {
            true => since.saturating_sub(u64::try_from(self.terms_max_age.as_millis()).unwrap_or(u64::MAX)),
            false => since,
        };
        let bid = self.prober.cheapest(&sellers, key, since, PATIENCE).await;
        let quote = self.quote(key, bid.ok_or(QuoteError::NoOffer)?)?;
        self.epochs.announce(&quote, self.tariff.quote_ttl()).await?;
        let quote = Arc::new(quote);
        self.publish(&quote, key);
        Ok(quote)
    }

    fn quote(&self, key: &QuoteKey<'static>, bid: Bid) -> Result<Quote, QuoteError> {
        let cost = bid.cost();
        let mut prices = self.tariff.prices(cost)?;
        for price in &mut prices {
            // Of one file, as many times: so the share of each is exact.
            price.amount = price.amount.checked_mul(key.files).ok_or(PriceError::Overflow)?;
        }
        let terms = Terms {
            provider: self.prober.name(bid.seller).to_owned(),
            operation: bid.seller.operation.to_owned(),
            cost: cost.times(key.files).ok_or(PriceError::Overflow)?,
            bound: key.bucket,
        };
        let mut quote = Quote::unpublished(Some(key.clone()), terms, prices);
        quote.seller = Some(bid.seller);
        quote.others_late = bid.others_late;
        quote.fetched_at = bid.asked_at;
        let ttl = u64::try_from(self.tariff.quote_ttl().as_millis()).unwrap_or(u64::MAX);
        quote.expires_at = bid.asked_at.saturating_add(ttl);
        if quote.is_free() {
            return Ok(quote);
        }
        let selling = self.counters.iter().filter(|counter| counter.work == key.work.brokered());
        for counter in selling {
            let listing = Listing {
                terms: &quote.terms,
                key: Some(key),
                prices: &quote.prices,
                max_timeout_seconds: self.tariff.max_timeout_seconds(),
                charging: counter.charging,
                description: description(key),
                mime_type: "application/json",
            };
            quote.templates.push((counter.route, Template::new(&listing)?));
        }
        Ok(quote)
    }

    fn publish(&self, quote: &Arc<Quote>, key: &QuoteKey<'static>) {
        let now = self.clock.now_millis();
        self.snapshot.rcu(|quotes| {
            let live = quotes.iter().filter(|(_, quote)| now < quote.expires_at);
            let mut next: Snapshot = live.map(|(key, quote)| (key.clone(), Arc::clone(quote))).collect();
            if next.len() >= MAX_QUOTES {
                let oldest = next.iter().min_by_key(|(_, quote)| quote.expires_at);
                if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                    next.remove(&oldest);
                }
            }
            next.insert(key.clone(), Arc::clone(quote));
            next
        });
    }

    /// A key stands for many asks; this is about the very one.
    fn sells(&self, quote: &Quote, ask: &Ask) -> Result<(), NotSold> {
        quote.seller.map_or(Ok(()), |seller| self.prober.sells(seller, ask))
    }

    /// Whether its seller is left alone just now, so that nobody should be shown it.
    fn is_ejected(&self, quote: &Quote, now: UnixMillis) -> bool {
        quote.seller.is_some_and(|seller| self.prober.is_ejected(seller, now))
    }
}

/// The asks that most clients make, of this size.
pub(super) fn typical(size: u64) -> impl Iterator<Item = Ask> {
    let store =
        |permanent, kind| Ask { wanted: Wanted::Store { permanent, ttl: None }, kind, size, files: 1 };
    let run = Ask { wanted: Wanted::Run { language: "python".to_owned() }, kind: Kind::Code, size, files: 1 };
    [
        store(false, Kind::File),
        store(false, Kind::Json),
        store(true, Kind::File),
        store(true, Kind::Json),
        run,
    ]
    .into_iter()
}

fn fixed_quote(id: RouteId, route: &Route, tariff: &Tariff) -> Result<Quote, OpenError> {
    let Action::Priced { price, settle, description, mime_type } = &route.action else {
        return Ok(Quote::unpublished(None, app_terms(route), Vec::new()));
    };
    let mut quote = Quote::unpublished(None, app_terms(route), tariff.fixed(price)?);
    if quote.is_free() {
        return Ok(quote);
    }
    let listing = Listing {
        terms: &quote.terms,
        key: None,
        prices: &quote.prices,
        max_timeout_seconds: tariff.max_timeout_seconds(),
        charging: settle.flow().into(),
        description,
        mime_type,
    };
    let template =
        Template::new(&listing).map_err(|error| OpenError::Route { path: route.path.clone(), error })?;
    quote.templates.push((id, template));
    Ok(quote)
}

fn app_terms(route: &Route) -> Terms {
    Terms {
        provider: APP.to_owned(),
        operation: route.path.clone(),
        cost: Dollars { units: Amount::ZERO, decimals: 0 },
        bound: u64::MAX,
    }
}

fn description(key: &QuoteKey<'_>) -> &'static str {
    match &key.work {
        Work::Store { permanent: false, .. } if key.files > 1 => "Stores files",
        Work::Store { permanent: true, .. } if key.files > 1 => "Stores files for good, on IPFS",
        Work::Store { permanent: false, .. } => "Stores data",
        Work::Store { permanent: true, .. } => "Stores data for good, on IPFS",
        Work::Run { .. } => "Runs a program",
    }
}

#[cfg(test)]
mod tests;
