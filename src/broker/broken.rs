//! Answers that broke off after they were charged for: what their clients paid is owed to them.
//!
//! While its job is in hand that is recorded at once ([`super::handing`]). Here are those that break off later, as an answer may that
//! was left for its client to collect: they are noted in memory, and recorded as soon as their job can be taken.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::journal::JournalError;
use super::stop::failure;
use super::{Broker, WRITTEN_SOON};
use crate::jobs::{ClaimKey, Event, Job, JobKind, State};
use crate::reason::Reason;

/// The jobs whose answers broke off. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Broken(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    claims: Mutex<Vec<ClaimKey>>,
    some: Notify,
}

impl Broken {
    /// What was paid for this job is owed.
    pub(super) fn note(&self, claim: ClaimKey) {
        self.0.claims.lock().push(claim);
        self.0.some.notify_one();
    }

    /// Returns when there is one that was not there before.
    pub(super) async fn wait(&self) {
        self.0.some.notified().await;
    }
}

impl Broker {
    /// Records what is owed for answers that broke off. What cannot be recorded now is left for later.
    pub(super) async fn owe_broken<H: Send>(&self, begin: &(impl Fn() -> Option<H> + Sync)) {
        let claims = std::mem::take(&mut *self.broken.0.claims.lock());
        for claim in claims {
            let owed = match begin() {
                Some(_held) => self.owe(&claim).await,
                None => Ok(false),
            };
            match owed {
                Ok(true) => {}
                Ok(false) => self.broken.0.claims.lock().push(claim),
                Err(error) => {
                    warn!(%error, claim = claim.as_str(), "what is owed for an answer that broke off is not recorded yet");
                    self.broken.0.claims.lock().push(claim);
                }
            }
        }
    }

    /// `false`: the job cannot be taken yet.
    async fn owe(&self, claim: &ClaimKey) -> Result<bool, JournalError> {
        // The record of its settlement may be on its way.
        let _ = tokio::time::timeout(WRITTEN_SOON, self.running.written(claim)).await;
        let Some((job, lease)) = self.take_orphan(claim).await? else { return Ok(false) };
        if !matches!(job.state, State::Delivering | State::Completed) || !job.is_given_once() {
            let at_rest = job.state.at_rest();
            // Should this fail, it lapses.
            let _ = self.jobs.release(&lease).await;
            return Ok(at_rest);
        }
        let event = lost(&job);
        let job = self.journal(job, lease).record(event).await?;
        warn!(job = %job.id, "a paid answer broke off: a refund is due");
        Ok(true)
    }
}

/// The client has paid for what it did not get whole, and nobody can give it any more.
pub(super) fn lost(job: &Job) -> Event {
    let reason = match job.kind {
        JobKind::App => Reason::AppFailed,
        JobKind::Store | JobKind::Run => Reason::ProviderFailed,
    };
    let why = "the answer was lost after it was paid for, before it was given whole";
    Event::WorkFailed { failure: failure(reason, why) }
}
