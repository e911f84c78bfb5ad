//! A job store that counts and times its calls, and otherwise is the store it was given.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::Metrics;
use crate::ids::JobId;
use crate::jobs::{
    Appended, Claim, ClaimKey, Draw, Entry, Job, JobStore, Lease, State, Step, StoreError, ValueStore,
};

/// A store whose calls are in `galaksio_store_duration_seconds`.
pub struct CountedStore {
    store: Arc<dyn JobStore>,
    metrics: Arc<Metrics>,
}

impl CountedStore {
    /// Counts the calls of `store`.
    pub fn new(store: Arc<dyn JobStore>, metrics: Arc<Metrics>) -> Self {
        CountedStore { store, metrics }
    }

    async fn counted<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let outcome = call.await;
        self.metrics.store_called(operation, outcome.is_ok(), began.elapsed());
        outcome
    }
}

#[async_trait]
impl JobStore for CountedStore {
    async fn claim(&self, job: &Job, lease: Duration) -> Result<Claim, StoreError> {
        self.counted("claim", self.store.claim(job, lease)).await
    }

    async fn append_all(&self, lease: &Lease, steps: &[Step<'_>], job: &Job) -> Result<Appended, StoreError> {
        self.counted("append", self.store.append_all(lease, steps, job)).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Appended, StoreError> {
        self.counted("renew", self.store.renew(lease, duration)).await
    }

    async fn take_over(&self, claim: &ClaimKey, lease: Duration) -> Result<Option<(Job, Lease)>, StoreError> {
        self.counted("take_over", self.store.take_over(claim, lease)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.counted("release", self.store.release(lease)).await
    }

    async fn by_claim(&self, claim: &ClaimKey) -> Result<Option<Job>, StoreError> {
        self.counted("by_claim", self.store.by_claim(claim)).await
    }

    async fn by_id(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.counted("by_id", self.store.by_id(id)).await
    }

    async fn journal(&self, claim: &ClaimKey) -> Result<Vec<Entry>, StoreError> {
        self.counted("journal", self.store.journal(claim)).await
    }

    async fn forget(&self, job: &Job) -> Result<bool, StoreError> {
        self.counted("forget", self.store.forget(job)).await
    }

    async fn due(&self, limit: usize) -> Result<Vec<ClaimKey>, StoreError> {
        self.counted("due", self.store.due(limit)).await
    }

    async fn in_state(&self, state: State, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.counted("in_state", self.store.in_state(state, limit)).await
    }

    async fn scan(
        &self,
        after: Option<&str>,
        about: usize,
    ) -> Result<(Vec<JobId>, Option<String>), StoreError> {
        self.counted("scan", self.store.scan(after, about)).await
    }

    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError> {
        self.counted("count_by_state", self.store.count_by_state()).await
    }
}

#[async_trait]
impl ValueStore for CountedStore {
    async fn put(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.counted("put", self.store.put(space, key, value, ttl)).await
    }

    async fn put_new(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.counted("put_new", self.store.put_new(space, key, value, ttl)).await
    }

    async fn get(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.counted("get", self.store.get(space, key)).await
    }

    async fn list(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.counted("list", self.store.list(space)).await
    }

    async fn add(&self, space: &str, key: &str, delta: i64) -> Result<i64, StoreError> {
        self.counted("add", self.store.add(space, key, delta)).await
    }

    async fn draw(&self, space: &str, key: &str, slice: &str, draw: Draw) -> Result<Option<u64>, StoreError> {
        self.counted("draw", self.store.draw(space, key, slice, draw)).await
    }

    async fn drawn(&self, space: &str, key: &str) -> Result<u64, StoreError> {
        self.counted("drawn", self.store.drawn(space, key)).await
    }
}
