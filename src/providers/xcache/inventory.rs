//! The stock of caches: how many operations are left in which, and when the next one is bought.
//!
//! Shared by every gateway on one job store. A cache's record says what it came with; a counter beside it says what
//! was taken, raised before each use, so that two gateways never take the same operation. Buying is in
//! [`super::purchase`]; this file decides only when.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::purchase::{Bought, Buyer, InventoryWallet, Opened};
use crate::clock::{Clock, UnixSeconds};
use crate::config::resolved;
use crate::jobs::{StoreError, ValueStore};
use crate::outgoing::Call;
use crate::providers::exchange::Line;
use crate::providers::{Fault, ProviderError};

/// Caches by number: [`CacheRecord`].
pub(super) const CACHES: &str = "xcache.caches";
/// Operations taken, by cache number.
const TAKEN: &str = "xcache.taken";

/// A cache that did not answer to its id is left alone this long, in seconds, and given up if that happens again.
const REST: u64 = 600;
/// A purchase is tried this much after one that failed; a look in the background after the last. In seconds.
const PAUSE: u64 = 15;
/// Used-up caches are kept in the store for the operator's accounts this long.
const KEEP_USED: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// A cache as the store keeps it. The id is a secret.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct CacheRecord {
    pub(super) id: String,
    pub(super) region: String,
    pub(super) operations: u32,
    pub(super) bought: UnixSeconds,
    /// Too little is left for another store.
    pub(super) used_up: bool,
}

/// Operations taken from a cache for one store.
pub(super) struct Slot {
    number: u32,
    pub(super) id: String,
    operations: u32,
}

/// A cache as this process knows it.
#[derive(Clone)]
struct Known {
    number: u32,
    record: CacheRecord,
    missing_since: Option<UnixSeconds>,
}

/// The caches of all gateways on one store.
pub(super) struct Inventory {
    store: Arc<dyn ValueStore>,
    buyer: Buyer,
    clock: Clock,
    per_store: u32,
    low_water: u32,
    /// Caches believed to have room, oldest first, so that they are used up in order.
    known: Mutex<Vec<Known>>,
    /// Held while looking and buying.
    failure: tokio::sync::Mutex<Option<Failure>>,
    quiet_until: AtomicU64,
}

/// Why the last try to buy failed.
struct Failure {
    error: ProviderError,
    /// The next is not before this time.
    pause_until: UnixSeconds,
}

/// What the caches in stock hold.
struct Left {
    /// Operations, in caches that rest too: an outage is no reason to buy.
    stock: u64,
    /// Caches that would take a store now.
    usable: usize,
}

impl Known {
    fn is_usable(&self, now: UnixSeconds) -> bool {
        self.missing_since.is_none_or(|since| now >= since + REST)
    }
}

impl Inventory {
    pub(super) fn new(
        line: Line,
        config: &resolved::XCache,
        store: Arc<dyn ValueStore>,
        wallet: Arc<dyn InventoryWallet>,
        clock: Clock,
    ) -> Self {
        Inventory {
            buyer: Buyer::new(line, config, store.clone(), wallet, clock.clone()),
            store,
            clock,
            per_store: config.operations_per_store,
            low_water: config.low_water.max(config.operations_per_store),
            known: Mutex::new(Vec::new()),
            failure: tokio::sync::Mutex::new(None),
            quiet_until: AtomicU64::new(0),
        }
    }

    /// The unpaid request whose 402 says what a cache costs.
    pub(super) fn create_probe(&self) -> Result<Call, ProviderError> {
        self.buyer.create()
    }

    /// Takes the operations of one store out of a cache. Fails, before anything was charged, if none has room.
    pub(super) async fn reserve(self: &Arc<Self>) -> Result<Slot, ProviderError> {
        if let Some(slot) = self.take_from_known().await? {
            return Ok(slot);
        }
        self.reload().await?;
        if let Some(slot) = self.take_from_known().await? {
            return Ok(slot);
        }
        self.look_soon(self.clock.now());
        Err(ProviderError::new(Fault::Unreachable, "no cache has operations left"))
    }

    /// Succeeds once a cache has room, buying one if it may. Buying goes on if the caller stops waiting.
    pub(super) async fn ensure_room(self: &Arc<Self>) -> Result<(), ProviderError> {
        let left = self.left().await?;
        let restocking = (left.stock < u64::from(self.low_water)).then(|| self.restock_in_background());
        match restocking {
            _ if left.usable > 0 => Ok(()),
            Some(restocking) => {
                restocking.await.map_err(|error| ProviderError::new(Fault::Internal, error.to_string()))?
            }
            None => Err(ProviderError::new(Fault::Unreachable, "the caches in stock do not answer")),
        }
    }

    /// The provider says this cache has no operations left.
    pub(super) async fn exhaust(&self, slot: &Slot) {
        tracing::warn!(cache = slot.number, "xcache: the cache has fewer operations than were counted");
        self.forget(slot.number);
        let rest = i64::from(slot.operations);
        if let Err(error) = self.store.add(TAKEN, &slot.number.to_string(), rest).await {
            tracing::warn!(%error, "xcache: a used-up cache could not be marked");
        }
    }

    /// The provider does not know this cache. An outage can say so too, and a cache is paid for: it rests first.
    pub(super) async fn missing(&self, slot: &Slot) {
        let rested = self.mark_missing(slot.number, self.clock.now());
        tracing::error!(cache = slot.number, rested, "xcache: a cache we bought does not answer to its id");
        if rested {
            self.exhaust(slot).await;
        }
    }

    /// The cache works.
    pub(super) fn answered(&self, slot: &Slot) {
        let mut known = self.known.lock();
        if let Some(cache) = known.iter_mut().find(|cache| cache.number == slot.number) {
            cache.missing_since = None;
        }
    }

    async fn take_from_known(self: &Arc<Self>) -> Result<Option<Slot>, ProviderError> {
        let now = self.clock.now();
        let known = self.known.lock().clone();
        for cache in known.iter().filter(|cache| cache.is_usable(now)) {
            let (key, wanted) = (cache.number.to_string(), i64::from(self.per_store));
            let taken = self.store.add(TAKEN, &key, wanted).await?;
            let operations = i64::from(cache.record.operations);
            if taken <= operations {
                if operations - taken < i64::from(self.low_water) {
                    self.look_soon(now);
                }
                let (id, operations) = (cache.record.id.clone(), cache.record.operations);
                return Ok(Some(Slot { number: cache.number, id, operations }));
            }
            self.store.add(TAKEN, &key, -wanted).await?;
            self.forget(cache.number);
        }
        Ok(None)
    }

    /// Whether the cache was missing before, and has rested since. Stores that meet the same outage count once.
    fn mark_missing(&self, number: u32, now: UnixSeconds) -> bool {
        let mut known = self.known.lock();
        let Some(cache) = known.iter_mut().find(|cache| cache.number == number) else { return false };
        let rested = cache.missing_since.is_some() && cache.is_usable(now);
        cache.missing_since = cache.missing_since.or(Some(now));
        rested
    }

    fn forget(&self, number: u32) {
        self.known.lock().retain(|cache| cache.number != number);
    }

    /// Takes over what other processes bought. Keeps what this one knows of missing caches.
    async fn reload(&self) -> Result<(), ProviderError> {
        let mut fresh = Vec::new();
        for (key, value) in self.store.list(CACHES).await? {
            let record: Option<CacheRecord> = serde_json::from_slice(&value).ok();
            match (key.parse(), record) {
                (Ok(number), Some(record)) if !record.used_up => {
                    fresh.push(Known { number, record, missing_since: None });
                }
                (Ok(_), Some(_)) => {}
                _ => tracing::error!("xcache: a cache's record cannot be read and is left out"),
            }
        }
        fresh.sort_by_key(|cache| cache.number);
        let mut known = self.known.lock();
        for cache in &mut fresh {
            let before = known.iter().find(|before| before.number == cache.number);
            cache.missing_since = before.and_then(|before| before.missing_since);
        }
        *known = fresh;
        Ok(())
    }

    /// What is left in caches with room for another store; the others are marked used up.
    async fn left(&self) -> Result<Left, ProviderError> {
        self.reload().await?;
        let now = self.clock.now();
        let known = self.known.lock().clone();
        let mut left = Left { stock: 0, usable: 0 };
        for cache in known {
            let taken = self.store.add(TAKEN, &cache.number.to_string(), 0).await?;
            let here = i64::from(cache.record.operations).saturating_sub(taken);
            if here >= i64::from(self.per_store) {
                left.stock = left.stock.saturating_add(here.unsigned_abs());
                left.usable += usize::from(cache.is_usable(now));
            } else {
                self.forget(cache.number);
                let record = CacheRecord { used_up: true, ..cache.record };
                put_cache(&*self.store, cache.number, &record, Some(KEEP_USED)).await?;
            }
        }
        Ok(left)
    }

    /// Restocks without waiting, at most once a pause: every store out of a cache that runs low comes here.
    fn look_soon(self: &Arc<Self>, now: UnixSeconds) {
        if now >= self.quiet_until.load(Ordering::Relaxed) {
            self.quiet_until.store(now + PAUSE, Ordering::Relaxed);
            self.restock_in_background();
        }
    }

    /// In its own task: a purchase must not end with the request that made it needed.
    fn restock_in_background(self: &Arc<Self>) -> tokio::task::JoinHandle<Result<(), ProviderError>> {
        let inventory = self.clone();
        tokio::spawn(async move {
            let outcome = inventory.restock().await;
            if let Err(error) = &outcome {
                tracing::warn!(%error, "xcache: no cache was bought");
            }
            outcome
        })
    }

    /// Buys a cache if operations are low. One look at a time in a process; the rest wait and then find enough.
    async fn restock(&self) -> Result<(), ProviderError> {
        let mut failure = self.failure.lock().await;
        let now = self.clock.now();
        let left = self.left().await?;
        if left.stock >= u64::from(self.low_water) {
            return Ok(());
        }
        let outcome = match failure.take() {
            Some(last) if now < last.pause_until => {
                let error = last.error.clone();
                *failure = Some(last);
                Err(error)
            }
            _ => self.buy().await.inspect_err(|error| {
                *failure = Some(Failure { error: error.clone(), pause_until: now + PAUSE });
            }),
        };
        // What is left still serves, though it is little.
        if left.usable > 0 { Ok(()) } else { outcome }
    }

    async fn buy(&self) -> Result<(), ProviderError> {
        let Bought { number, record } = match self.buyer.open().await? {
            Opened::Finished(bought) => bought,
            // Another gateway may have bought between our look at the stock and the number we got.
            Opened::Next(_) if self.left().await?.stock >= u64::from(self.low_water) => return Ok(()),
            Opened::Next(next) => self.buyer.begin(next).await?,
        };
        tracing::info!(cache = number, operations = record.operations, "xcache: bought a cache");
        self.reload().await
    }
}

pub(super) async fn put_cache(
    store: &dyn ValueStore,
    number: u32,
    record: &CacheRecord,
    ttl: Option<std::time::Duration>,
) -> Result<(), ProviderError> {
    let value =
        serde_json::to_vec(record).map_err(|error| ProviderError::new(Fault::Internal, error.to_string()))?;
    Ok(store.put(CACHES, &number.to_string(), &value, ttl).await?)
}

impl From<StoreError> for ProviderError {
    fn from(error: StoreError) -> Self {
        ProviderError::new(Fault::Internal, error.to_string())
    }
}
