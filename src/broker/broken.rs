//! Answers that broke off after they were charged for: what their clients paid is owed to them.
//!
//! It is noted in the memory of the process that passed the answer on, and recorded as soon as the job can be taken. A process that
//! ends in between knows it no more: nobody else has seen it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::journal::JournalError;
use super::results::key;
use super::stop::failure;
use super::work::BodyStream;
use super::{Broker, WRITTEN_SOON};
use crate::jobs::{ClaimKey, Event, Job, JobKind, State};
use crate::outgoing::{BoxError, OutgoingError};
use crate::reason::Reason;

/// The jobs whose answers broke off. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Broken(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    claims: Mutex<Vec<ClaimKey>>,
    some: Notify,
}

/// An answer that is passed on.
struct Watched {
    body: BodyStream,
    /// Whom to tell that it broke off, once.
    told: Option<(Broken, ClaimKey)>,
}

impl Broken {
    /// Notes if this answer breaks off.
    pub(super) fn watch(&self, claim: &ClaimKey, body: BodyStream) -> BodyStream {
        Watched { body, told: Some((self.clone(), claim.clone())) }.boxed_unsync()
    }

    /// Returns when there is one that was not there before.
    pub(super) async fn wait(&self) {
        self.0.some.notified().await;
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(error)) = &frame
            // How much there is, is often the client's to choose; that it is cut off was said.
            && !matches!(error.downcast_ref(), Some(OutgoingError::TooLarge { .. }))
            && let Some((broken, claim)) = self.told.take()
        {
            broken.0.claims.lock().push(claim);
            broken.0.some.notify_one();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
        if job.state != State::Completed || !job.is_given_once() {
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

    /// Whether the answer of a job was with a process that is gone.
    pub(super) async fn has_gone(&self, job: &Job) -> bool {
        job.is_given_once()
            // What was given first was given, and what is owed for a part is owed.
            && !job.trusted
            && job.shortfall.is_none()
            && self.results.find(key(job)).is_none()
            && !self.results.is_elsewhere(key(job)).await
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
