//! Price epochs: which prices were shown, and until when they stand. A v1 payment echoes no quote, so it is
//! matched to the epoch whose price is exactly its value.
//!
//! An epoch is written before its price is first shown. Its record never changes, and two replicas that show the
//! same price write the same bytes under the same name, so there is nothing to race for; the end is rounded up
//! to the minute, and a price that goes on gets a record with a later end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use ring::digest;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::GRACE;
use super::key::QuoteKey;
use super::quote::{Quote, Terms};
use crate::clock::{Clock, UnixMillis, UnixSeconds};
use crate::jobs::{StoreError, ValueStore};
use crate::money::Amount;
use crate::x402::{Address, Network};

/// The store's space for epochs.
const SPACE: &str = "price-epochs";

/// Ends are rounded up to a multiple of this many seconds.
const GRAIN: u64 = 60;

/// The store is read at most once in this time on behalf of payments that match nothing.
const CATCH_UP_EVERY: Duration = Duration::from_secs(1);

/// A price that clients were shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// What it was shown for.
    pub key: QuoteKey<'static>,
    /// What was sold.
    pub terms: Terms,
    /// The price in each token that version 1 can name.
    pub prices: Vec<EpochPrice>,
    /// Until when it is honoured, grace not included.
    pub until: UnixSeconds,
}

/// A price in one token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochPrice {
    /// The network.
    pub network: Network,
    /// The token.
    pub asset: Address,
    /// Exactly this.
    pub amount: Amount,
}

/// The epochs known to this process.
#[derive(Clone, Debug, Default)]
pub struct Epochs(HashMap<QuoteKey<'static>, Vec<Arc<Epoch>>>);

/// The epochs, kept in step with the store.
pub(super) struct EpochBook {
    live: ArcSwap<Epochs>,
    store: Arc<dyn ValueStore>,
    clock: Clock,
    last_read: tokio::sync::Mutex<Option<(Instant, Result<(), StoreError>)>>,
}

impl Epochs {
    /// What was sold for exactly `value` of this token, to a request of this key. If several were, the one that
    /// stands longest: it was shown last.
    pub fn match_v1<'a>(
        &'a self,
        key: &QuoteKey<'a>,
        network: Network,
        asset: Address,
        value: Amount,
        now: UnixMillis,
    ) -> Option<&'a Terms> {
        let asked =
            |price: &EpochPrice| price.network == network && price.asset == asset && price.amount == value;
        let live = self.get(key)?.iter().filter(|epoch| epoch.is_live(now));
        let matching = live.filter(|epoch| epoch.prices.iter().any(asked));
        // Of equals `max_by` takes the last; names make the choice the same on every replica.
        let order = |epoch: &&Arc<Epoch>| (epoch.until, epoch.terms.provider.clone());
        matching.max_by_key(order).map(|epoch| &epoch.terms)
    }

    /// A map is covariant in its key, so one of owned keys can be asked with a borrowed one.
    fn get<'a>(&'a self, key: &QuoteKey<'a>) -> Option<&'a Vec<Arc<Epoch>>> {
        let map: &HashMap<QuoteKey<'a>, Vec<Arc<Epoch>>> = &self.0;
        map.get(key)
    }

    fn holds(&self, epoch: &Epoch) -> bool {
        self.0.get(&epoch.key).is_some_and(|known| known.iter().any(|other| **other == *epoch))
    }

    fn insert(&mut self, epoch: Epoch) {
        if !self.holds(&epoch) {
            self.0.entry(epoch.key.clone()).or_default().push(Arc::new(epoch));
        }
    }

    fn forget_dead(&mut self, now: UnixMillis) {
        self.0.retain(|_, epochs| {
            epochs.retain(|epoch| epoch.is_live(now));
            !epochs.is_empty()
        });
    }
}

impl Epoch {
    /// The epoch of a quote that is first shown now. `None` if version 1 cannot pay for it.
    fn of(quote: &Quote, quote_ttl: Duration) -> Option<Epoch> {
        let key = quote.key.clone()?;
        let prices: Vec<EpochPrice> = quote
            .prices
            .iter()
            .filter(|price| price.accept.asset.network.legacy_name().is_some())
            .map(|price| EpochPrice {
                network: price.accept.asset.network,
                asset: price.accept.asset.address,
                amount: price.amount,
            })
            .collect();
        if prices.is_empty() || quote.is_free() {
            return None;
        }
        // It is shown until it expires, and honoured for a quote's time after that.
        let until = quote.expires_at.div_ceil(1000).saturating_add(quote_ttl.as_secs());
        let until = until.checked_next_multiple_of(GRAIN).unwrap_or(until);
        Some(Epoch { key, terms: quote.terms.clone(), prices, until })
    }

    fn is_live(&self, now: UnixMillis) -> bool {
        now / 1000 <= self.until.saturating_add(GRACE.as_secs())
    }
}

impl EpochBook {
    /// Reads the epochs that are live: those of other replicas, and of this one before it was restarted.
    pub(super) async fn open(store: Arc<dyn ValueStore>, clock: Clock) -> Result<Self, StoreError> {
        let live = ArcSwap::from_pointee(Epochs::default());
        let book = EpochBook { live, store, clock, last_read: tokio::sync::Mutex::new(None) };
        book.reload().await?;
        Ok(book)
    }

    /// The epochs as they are known now.
    pub(super) fn live(&self) -> Guard<Arc<Epochs>> {
        self.live.load()
    }

    /// Writes the epoch of a quote, and only then returns: now the quote may be shown. One write for a new
    /// price or a later end, none for anything else.
    pub(super) async fn announce(&self, quote: &Quote, quote_ttl: Duration) -> Result<(), StoreError> {
        let Some(epoch) = Epoch::of(quote, quote_ttl) else { return Ok(()) };
        if self.live.load().holds(&epoch) {
            return Ok(());
        }
        let value = serde_json::to_vec(&epoch).map_err(|error| StoreError::Unreadable(error.to_string()))?;
        let name = hex::encode(&digest::digest(&digest::SHA256, &value).as_ref()[..16]);
        let dead = epoch.until.saturating_add(GRACE.as_secs()) + 1;
        let ttl = Duration::from_secs(dead.saturating_sub(self.clock.now()));
        self.store.put(SPACE, &name, &value, Some(ttl)).await?;
        self.add(vec![epoch]);
        Ok(())
    }

    /// Takes over the epochs in the store.
    pub(super) async fn reload(&self) -> Result<(), StoreError> {
        let mut epochs = Vec::new();
        for (name, value) in self.store.list(SPACE).await? {
            let epoch = serde_json::from_slice(&value)
                .map_err(|error| StoreError::Unreadable(format!("price epoch {name}: {error}")))?;
            epochs.push(epoch);
        }
        self.add(epochs);
        Ok(())
    }

    /// Takes over epochs written up to now, for a payment that matched none of the known: another replica may
    /// have shown its price a moment ago. However many ask, the store is read at most once a second; those who
    /// come too soon wait for that, so that nobody is turned away who was shown the price before.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let mut last_read = self.last_read.lock().await;
        if let Some((last, outcome)) = &*last_read {
            if *last > asked {
                return outcome.clone();
            }
            tokio::time::sleep_until(*last + CATCH_UP_EVERY).await;
        }
        let started = Instant::now();
        let outcome = self.reload().await;
        *last_read = Some((started, outcome.clone()));
        outcome
    }

    #[cfg(test)]
    async fn last_read_at(&self) -> Option<Instant> {
        self.last_read.lock().await.as_ref().map(|(at, _)| *at)
    }

    fn add(&self, new: Vec<Epoch>) {
        let now = self.clock.now_millis();
        self.live.rcu(|known| {
            let mut next = Epochs::clone(known);
            next.forget_dead(now);
            for epoch in new.iter().filter(|epoch| epoch.is_live(now)) {
                next.insert(epoch.clone());
            }
            next
        });
    }
}

#[cfg(test)]
mod tests;
