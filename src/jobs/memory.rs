//! A store of small values in memory, for the tests of those who keep some: it can fail, and its time can be set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::slices::Slices;
use super::{Draw, StoreError, ValueStore};
use crate::clock::{Clock, UnixMillis};

type Key = (String, String);

struct Stored {
    bytes: Vec<u8>,
    ttl: Option<Duration>,
    ends: Option<UnixMillis>,
}

pub(crate) struct MemoryStore {
    values: Mutex<BTreeMap<Key, Stored>>,
    counters: Mutex<BTreeMap<Key, i64>>,
    writes: AtomicUsize,
    failing: AtomicBool,
    clock: Clock,
}

impl MemoryStore {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(MemoryStore {
            values: Mutex::default(),
            counters: Mutex::default(),
            writes: 0.into(),
            failing: false.into(),
            clock,
        })
    }

    /// Whether every call fails from now on.
    pub(crate) fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// The bytes, expired or not, as only a test may see them.
    pub(crate) fn bytes(&self, space: &str, key: &str) -> Option<Vec<u8>> {
        self.values.lock().get(&slot(space, key)).map(|stored| stored.bytes.clone())
    }

    pub(crate) fn set(&self, space: &str, key: &str, bytes: Vec<u8>) {
        self.values.lock().insert(slot(space, key), Stored { bytes, ttl: None, ends: None });
    }

    pub(crate) fn remove(&self, space: &str, key: &str) {
        self.values.lock().remove(&slot(space, key));
    }

    /// The time to live that a value was written with.
    pub(crate) fn ttl(&self, space: &str, key: &str) -> Option<Duration> {
        self.values.lock()[&slot(space, key)].ttl
    }

    pub(crate) fn counter(&self, space: &str, key: &str) -> i64 {
        self.counters.lock().get(&slot(space, key)).copied().unwrap_or_default()
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.failing.load(Ordering::SeqCst) {
            true => Err(StoreError::Away("test".to_owned())),
            false => Ok(()),
        }
    }

    fn live(&self, stored: &Stored) -> bool {
        stored.ends.is_none_or(|end| self.clock.now_millis() < end)
    }
}

fn slot(space: &str, key: &str) -> Key {
    (space.to_owned(), key.to_owned())
}

#[async_trait]
impl ValueStore for MemoryStore {
    async fn put(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.check()?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        let ends = ttl.map(|ttl| self.clock.now_millis() + ttl.as_millis() as u64);
        self.values.lock().insert(slot(space, key), Stored { bytes: value.to_vec(), ttl, ends });
        Ok(())
    }

    async fn put_new(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self.get(space, key).await? {
            Some(known) => Ok(Some(known)),
            None => self.put(space, key, value, ttl).await.map(|()| None),
        }
    }

    async fn get(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.check()?;
        let values = self.values.lock();
        let found = values.get(&slot(space, key)).filter(|stored| self.live(stored));
        Ok(found.map(|stored| stored.bytes.clone()))
    }

    async fn list(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.check()?;
        let values = self.values.lock();
        let found = values.iter().filter(|((found, _), stored)| found == space && self.live(stored));
        Ok(found.map(|((_, key), stored)| (key.clone(), stored.bytes.clone())).collect())
    }

    async fn add(&self, space: &str, key: &str, delta: i64) -> Result<i64, StoreError> {
        self.check()?;
        let mut counters = self.counters.lock();
        let counter = counters.entry(slot(space, key)).or_default();
        *counter += delta;
        Ok(*counter)
    }

    async fn draw(&self, space: &str, key: &str, slice: &str, draw: Draw) -> Result<Option<u64>, StoreError> {
        self.check()?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        let now = self.clock.now_millis();
        let mut values = self.values.lock();
        let stored = values.entry(slot(space, key)).or_insert_with(|| Stored {
            bytes: Vec::new(),
            ttl: None,
            ends: None,
        });
        let mut slices = Slices::decode(&stored.bytes, now)?;
        let granted = slices.draw(slice, draw, now + draw.ttl.as_millis() as u64);
        stored.bytes = slices.encode();
        Ok(granted)
    }

    async fn drawn(&self, space: &str, key: &str) -> Result<u64, StoreError> {
        let value = self.get(space, key).await?;
        Ok(Slices::decode(&value.unwrap_or_default(), self.clock.now_millis())?.sum())
    }
}
