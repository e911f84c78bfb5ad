//! What a store of jobs must offer. Two keep the promise: `embedded` (one file, one process) and
//! `redis` (many gateways); one suite of tests runs on both.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::held::Held;
use super::job::Job;
use super::record::Entry;
use super::transition::Event;
use super::{ClaimKey, State};
use crate::clock::UnixMillis;
use crate::ids::JobId;

/// The right to write a job, for a while. A larger epoch makes every smaller one void.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The job, by the claim that keys its record.
    pub claim: ClaimKey,
    /// Raised by one whenever the job changes hands.
    pub epoch: u64,
    /// All that was written of the job, where the store may forget what it acknowledged. Shared by the lease's copies.
    pub(super) held: Option<Arc<Held>>,
}

impl Lease {
    /// The lease of this epoch.
    pub fn new(claim: ClaimKey, epoch: u64) -> Self {
        Lease { claim, epoch, held: None }
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        (&self.claim, self.epoch) == (&other.claim, other.epoch)
    }
}

impl Eq for Lease {}

/// The outcome of [`JobStore::claim`].
#[derive(Clone, Debug)]
pub enum Claim {
    /// The payment is new: the job is written, and ours. Its id may differ from the one asked for, if that was taken.
    Won(Job, Lease),
    /// The payment was claimed before: its job, as it stands.
    Taken(Job),
}

/// What happened to a job, to be written to its journal.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The event.
    pub event: &'a Event,
    /// When it was applied: [`Job::updated`] of the record it made.
    pub at: UnixMillis,
}

/// The outcome of [`JobStore::append_all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Durable.
    Written,
    /// The lease's epoch is not the current one, it was ended, or the version has moved on: somebody else may own
    /// the job now, and whoever held this lease must stop.
    Fenced,
}

/// Why a store could not do as asked. The outcome of a write is then unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It did not answer, or not in time.
    #[error("the job store is away: {0}")]
    Away(String),
    /// It holds something this version cannot read.
    #[error("the job store holds a record this version cannot read: {0}")]
    Unreadable(String),
}

/// A slice to be drawn of a limit that several gateways share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// What the slice is to be from now on: all of it, with what it was before.
    pub wanted: u64,
    /// If it cannot be this much at least, nothing changes.
    pub least: u64,
    /// What all slices may be together. [`Draw::MOST`] at most.
    pub limit: u64,
    /// How long the slice counts, from now on.
    pub ttl: Duration,
}

impl Draw {
    /// The largest limit: what a script counts exactly.
    pub const MOST: u64 = (1 << 53) - 1;

    /// What the slice is from now on, where it was `own` and all others are `others`; `None` if nothing changes.
    pub(super) fn granted(&self, own: u64, others: u64) -> Option<u64> {
        // What a slice has it may keep, whatever the limit is by now: it may be spent.
        let free = self.limit.min(Draw::MOST).saturating_sub(others).max(own);
        let granted = self.wanted.min(free);
        (granted >= self.least).then_some(granted)
    }
}

/// A durable store of jobs. When a method that writes returns `Ok`, the write survives a crash.
#[async_trait]
pub trait JobStore: ValueStore {
    /// Registers a client payment, first wins. `job` is fresh (`State::Claimed`, version 0). The lease lasts `lease`
    /// by the store's clock. A new call after one whose outcome is unknown may find the record it wrote itself, as
    /// `Taken`: nobody can tell it from another claimant's, so the job is for recovery once that lease ends.
    async fn claim(&self, job: &Job, lease: Duration) -> Result<Claim, StoreError>;

    /// Writes `steps` to the journal and `job` (the state after the last of them, `job.version` as much more than the
    /// stored as there are steps) at once, all or nothing. Where `job.state.at_rest()`, the lease ends and the job leaves
    /// the due list. The lease is not prolonged. A repeat of a call whose outcome is unknown is `Written` if the first was;
    /// a repeat has the same steps. A lease on another job, and no step at all, are `Fenced`.
    /// Steps and `job` must belong together: [`Job::apply`] made one from the other.
    async fn append_all(&self, lease: &Lease, steps: &[Step<'_>], job: &Job) -> Result<Appended, StoreError>;

    /// [`JobStore::append_all`] of one step.
    async fn append(&self, lease: &Lease, event: &Event, job: &Job) -> Result<Appended, StoreError> {
        self.append_all(lease, &[Step { event, at: job.updated }], job).await
    }

    /// Prolongs a lease; `Fenced` when it is no longer ours.
    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Appended, StoreError>;

    /// Takes a job whose lease has ended, whatever its state: a new epoch. `None` while somebody holds it, or if
    /// there is no such job. A job whose record is unreadable is left alone: the error says so.
    async fn take_over(&self, claim: &ClaimKey, lease: Duration) -> Result<Option<(Job, Lease)>, StoreError>;

    /// Ends a lease early, so that the job can be taken over at once; its holder can write no more. A lease already
    /// lost is no error.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// The job of a claim.
    async fn by_claim(&self, claim: &ClaimKey) -> Result<Option<Job>, StoreError>;

    /// The job with this public id.
    async fn by_id(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// The events of a job, oldest first, with the times they were applied. An `Answered` comes without its body,
    /// which is in the record.
    async fn journal(&self, claim: &ClaimKey) -> Result<Vec<Entry>, StoreError>;

    /// Forgets a job at rest, with its journal, if it is still the version that `job` is and nobody has a lease on it that has
    /// not ended. Its claim is free again then.
    /// Whether it was forgotten by this call.
    async fn forget(&self, job: &Job) -> Result<bool, StoreError>;

    /// Jobs not at rest whose lease has ended, oldest first, at most `limit`.
    async fn due(&self, limit: usize) -> Result<Vec<ClaimKey>, StoreError>;

    /// Jobs in this state, at most `limit`: for the operator's lists. Of those that never expire, roughly the oldest.
    async fn in_state(&self, state: State, limit: usize) -> Result<Vec<JobId>, StoreError>;

    /// Every job there is, some at a time: `after` is what the call before returned with them, and `None` begins. A job that
    /// is there from the first call to the last is among them, perhaps twice, unless it changes its state twice meanwhile; one that
    /// was forgotten may be too.
    async fn scan(
        &self,
        after: Option<&str>,
        about: usize,
    ) -> Result<(Vec<JobId>, Option<String>), StoreError>;

    /// How many jobs are in each state, all of [`State::ALL`] in its order.
    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError>;
}

/// Small durable values beside the jobs: price epochs, keys, inventory, the handles of stored files.
#[async_trait]
pub trait ValueStore: Send + Sync {
    /// Writes a small value under `space`/`key`; it is gone after `ttl`, or never.
    async fn put(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), StoreError>;

    /// As [`ValueStore::put`], unless there is a value already: then that one is returned and nothing written.
    async fn put_new(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// The value under `space`/`key`.
    async fn get(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Every live value of a space, with its key, in no order. For spaces of some hundreds at most.
    async fn list(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Adds `delta` to a counter that starts at 0 and returns the sum; counters do not expire.
    async fn add(&self, space: &str, key: &str, delta: i64) -> Result<i64, StoreError>;

    /// Makes `slice` of the limit `space`/`key` larger or smaller, as `draw` says, and returns what it is then; `None`
    /// if nothing changed. Whatever is drawn at the same time, live slices are never more than the limit together,
    /// unless the limit was made smaller meanwhile. A slice of 0 is none. A repeat of a call whose outcome is
    /// unknown has the same outcome, but for what others drew in between.
    async fn draw(&self, space: &str, key: &str, slice: &str, draw: Draw) -> Result<Option<u64>, StoreError>;

    /// What the live slices of a limit are together.
    async fn drawn(&self, space: &str, key: &str) -> Result<u64, StoreError>;
}
