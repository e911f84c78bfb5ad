//! The embedded store: jobs in one file, for one process, durable by `fsync`.
//!
//! `file` opens it, `tables` says what is in it and how a job changes, `values` the same for small values
//! and counters, `writer` is the one thread that writes, `read` looks things up. Time is the injected clock's.

mod file;
mod read;
mod tables;
mod values;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redb::Database;

use super::job::{Job, Retention};
use super::record::Entry;
use super::slices::Slices;
use super::store::{Appended, Claim, Draw, JobStore, Lease, Step, StoreError, ValueStore};
use super::{ClaimKey, State};
use crate::clock::{Clock, UnixMillis};
use crate::ids::JobId;

pub use file::OpenError;
use read::Snapshot;
use tables::{Append, NEVER};
use writer::Writer;

/// Jobs in one file. Dropping it ends the writer once all it was given is on disk.
pub struct Embedded {
    // First, so that it is dropped first: it holds the file until its last commit.
    writer: Writer,
    database: Arc<Database>,
    retention: Retention,
    clock: Clock,
}

impl Embedded {
    /// Opens the store at `path`, or creates it with its directories, readable by its owner only. Jobs are kept for
    /// `retention` after their last event. After a crash this checks the whole file, so it may take a while: not for
    /// an async thread.
    pub fn open(path: &Path, retention: impl Into<Retention>, clock: Clock) -> Result<Self, OpenError> {
        let database = Arc::new(file::open(path)?);
        let writer = Writer::start(Arc::clone(&database), clock.clone())
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Embedded { writer, database, retention: retention.into(), clock })
    }

    /// Reads on a thread that may block: a page that is not cached comes from the disk.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Snapshot) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        let now = self.clock.now_millis();
        let read = move || query(&Snapshot::of(&database, now)?);
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(fault)) => Err(fault.into()),
            Err(stopped) => Err(StoreError::Away(stopped.to_string())),
        }
    }
}

#[async_trait]
impl JobStore for Embedded {
    async fn claim(&self, job: &Job, lease: Duration) -> Result<Claim, StoreError> {
        let job = job.clone();
        self.writer.write(move |tables| tables.claim(job, lease)).await
    }

    async fn append_all(&self, lease: &Lease, steps: &[Step<'_>], job: &Job) -> Result<Appended, StoreError> {
        if lease.claim != job.claim || steps.is_empty() {
            return Ok(Appended::Fenced);
        }
        let append = Append {
            claim: lease.claim.clone(),
            epoch: lease.epoch,
            version: job.version,
            state: job.state.name(),
            at_rest: job.state.at_rest(),
            keep_until: job.keep_until(self.retention).unwrap_or(NEVER),
            record: job.encode(),
            lines: steps.iter().map(Entry::line).collect(),
        };
        self.writer.write(move |tables| Ok(tables.append(&append)?)).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Appended, StoreError> {
        let lease = lease.clone();
        self.writer.write(move |tables| Ok(tables.renew(&lease, duration)?)).await
    }

    async fn take_over(&self, claim: &ClaimKey, lease: Duration) -> Result<Option<(Job, Lease)>, StoreError> {
        let claim = claim.clone();
        self.writer.write(move |tables| tables.take_over(claim, lease)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.writer.write(move |tables| Ok(tables.release(&lease)?)).await
    }

    async fn by_claim(&self, claim: &ClaimKey) -> Result<Option<Job>, StoreError> {
        let claim = claim.clone();
        self.read(move |snapshot| snapshot.by_claim(claim.as_str())).await
    }

    async fn by_id(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read(move |snapshot| snapshot.by_id(id)).await
    }

    async fn journal(&self, claim: &ClaimKey) -> Result<Vec<Entry>, StoreError> {
        let claim = claim.clone();
        self.read(move |snapshot| snapshot.journal(claim.as_str())).await
    }

    async fn forget(&self, job: &Job) -> Result<bool, StoreError> {
        let (claim, version) = (job.claim.clone(), job.version);
        self.writer.write(move |tables| Ok(tables.forget(&claim, version)?)).await
    }

    async fn due(&self, limit: usize) -> Result<Vec<ClaimKey>, StoreError> {
        self.read(move |snapshot| snapshot.due(limit)).await
    }

    async fn in_state(&self, state: State, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.read(move |snapshot| snapshot.in_state(state, limit)).await
    }

    async fn scan(
        &self,
        after: Option<&str>,
        about: usize,
    ) -> Result<(Vec<JobId>, Option<String>), StoreError> {
        let after = after.map(str::to_owned);
        self.read(move |snapshot| snapshot.scan(after.as_deref(), about)).await
    }

    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError> {
        self.read(Snapshot::count_by_state).await
    }
}

#[async_trait]
impl ValueStore for Embedded {
    async fn put(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let (space, key, value) = (space.to_owned(), key.to_owned(), value.to_owned());
        self.writer.write(move |tables| Ok(tables.put(&space, &key, &value, ttl)?)).await
    }

    async fn put_new(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (space, key, value) = (space.to_owned(), key.to_owned(), value.to_owned());
        self.writer.write(move |tables| Ok(tables.put_new(&space, &key, &value, ttl)?)).await
    }

    async fn get(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (space, key) = (space.to_owned(), key.to_owned());
        self.read(move |snapshot| snapshot.value(&space, &key)).await
    }

    async fn list(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let space = space.to_owned();
        self.read(move |snapshot| snapshot.values(&space)).await
    }

    async fn add(&self, space: &str, key: &str, delta: i64) -> Result<i64, StoreError> {
        let (space, key) = (space.to_owned(), key.to_owned());
        self.writer.write(move |tables| tables.add(&space, &key, delta)).await
    }

    async fn draw(&self, space: &str, key: &str, slice: &str, draw: Draw) -> Result<Option<u64>, StoreError> {
        let (space, key, slice) = (space.to_owned(), key.to_owned(), slice.to_owned());
        self.writer.write(move |tables| tables.draw(&space, &key, &slice, draw)).await
    }

    async fn drawn(&self, space: &str, key: &str) -> Result<u64, StoreError> {
        let (value, now) = (self.get(space, key).await?, self.clock.now_millis());
        Ok(Slices::decode(&value.unwrap_or_default(), now)?.sum())
    }
}

/// Why an operation on the tables failed.
#[derive(Debug)]
enum Fault {
    /// The file: nothing of the transaction counts.
    File(redb::Error),
    /// What was asked or found; nothing was written for it.
    Store(StoreError),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Fault::File(error.into())
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::File(error) => StoreError::Away(error.to_string()),
            Fault::Store(error) => error,
        }
    }
}

/// `duration` from `now`, at most the end of time.
fn after(now: UnixMillis, duration: Duration) -> UnixMillis {
    now.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
