//! `/jobs/{id}` and `/jobs/{id}/events`: waiting for a job, wherever it runs.
//!
//! Who waits asks the store, less and less often, so a job on another gateway is followed like one of ours, and following
//! writes nothing. How many may wait is bounded; each costs a timer and a read a second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Inner;
use super::endpoints::document;
use super::prefer::Prefer;
use super::reply;
use crate::broker::description;
use crate::ids::JobId;
use crate::jobs::job::SCHEMA;
use crate::jobs::{ClaimKey, Job, State};
use crate::proxy::{Answer, Body};
use crate::reason::{Problem, Reason};
use crate::x402::Payment;

/// The longest that a request waits for a job, in seconds.
const LONGEST_WAIT: u64 = 60;
/// The store is asked again after this, then after twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A stream that has nothing to tell says so this often, so that nobody on the way takes it for dead.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A stream ends after this; its reader comes back, and goes on where it was.
const LONGEST_STREAM: Duration = Duration::from_secs(15 * 60);
/// When a reader comes back, in milliseconds.
const COME_BACK: u64 = 2_000;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Told to nginx and its like, which would hold events back until a buffer is full.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Those who wait.
pub(super) struct Watchers(Arc<Semaphore>);

impl Watchers {
    pub(super) fn new(most: usize) -> Self {
        Watchers(Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))))
    }

    fn begin(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let full =
            |_| Problem::new(Reason::Overloaded).message("too many clients wait for jobs").retry_after(5);
        Arc::clone(&self.0).try_acquire_owned().map_err(full)
    }
}

impl Inner {
    /// The state of a job: now, or once it is done, if that is within what the client waits. With its result, for who
    /// shows the payment and what of it is on no chain.
    pub(super) async fn watch(&self, id: JobId, head: &Parts) -> Result<Answer, Problem> {
        let wait = longest_wait(head)?;
        // One that cannot be read shows nothing.
        let shown = Payment::from_headers(&head.headers, self.paid.max_payment_header).ok().flatten();
        let job = self.at_rest_within(id, wait).await?;
        let answer = match shown {
            Some(payment) => self.show_result(&job, &payment, head).await,
            None => None,
        };
        Ok(answer.unwrap_or_else(|| {
            let mut response = document(&description::of(&job));
            if !job.state.is_decided() {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
            }
            Answer { job: Some(id), ..Answer::new(response, Reason::Own) }
        }))
    }

    async fn at_rest_within(&self, id: JobId, wait: Duration) -> Result<Job, Problem> {
        let until = Instant::now() + wait;
        let mut watcher = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let found = self.parts.broker.job(id).await;
            let job = found.map_err(|_| Reason::StoreAway)?.ok_or(Reason::JobUnknown)?;
            let left = until.saturating_duration_since(Instant::now());
            if job.state.is_decided() || left.is_zero() || self.parts.drain.started() {
                return Ok(job);
            }
            if watcher.is_none() {
                watcher = Some(self.watchers.begin()?);
            }
            self.pause(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits, unless the process is ending.
    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.parts.drain.wait_started() => {}
        }
    }

    /// What happens to a job, as server-sent events, until it is done.
    pub(super) async fn events(self: &Arc<Self>, id: JobId, head: &Parts) -> Result<Answer, Problem> {
        let watcher = self.watchers.begin()?;
        let last = head.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.trim().parse().ok());
        let job = self.parts.broker.job(id).await.map_err(|_| Reason::StoreAway)?;
        match &job {
            None if self.uploads.of(id).is_none() => return Err(Reason::JobUnknown.into()),
            // It has seen the end. This, and only this, keeps a browser from coming back.
            Some(job) if job.state.is_decided() && last.is_some_and(|last| last >= told_as(job)) => {
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::NO_CONTENT;
                return Ok(Answer { job: Some(id), ..Answer::new(response, Reason::Own) });
            }
            _ => {}
        }
        let now = Instant::now();
        let follower = Follower {
            inner: Arc::clone(self),
            id,
            last,
            received: None,
            first: Some(format!("retry: {COME_BACK}\n\n")),
            pause: FIRST_PAUSE,
            told: now,
            until: now + LONGEST_STREAM,
            over: false,
            _watcher: watcher,
        };
        let events = stream::unfold(follower, async |mut follower| {
            let event = follower.next().await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(event))), follower))
        });
        let mut response = Response::new(Body::stream(StreamBody::new(events)));
        response.headers_mut().extend([
            (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
        ]);
        Ok(Answer { job: Some(id), ..Answer::new(response, Reason::Own) })
    }
}

/// Somebody who reads the events of a job.
struct Follower {
    inner: Arc<Inner>,
    id: JobId,
    /// The version of the job that was told last.
    last: Option<u64>,
    /// The bytes of the body that were told last.
    received: Option<u64>,
    first: Option<String>,
    pause: Duration,
    told: Instant,
    until: Instant,
    over: bool,
    _watcher: OwnedSemaphorePermit,
}

impl Follower {
    /// The next event, or a sign of life; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            if self.over {
                return None;
            }
            if let Some(event) = self.look().await {
                (self.told, self.pause) = (Instant::now(), FIRST_PAUSE);
                return Some(event);
            }
            let now = Instant::now();
            self.over |= now >= self.until || self.inner.parts.drain.started();
            if now.saturating_duration_since(self.told) >= HEARTBEAT {
                self.told = now;
                return Some(": waiting\n\n".to_owned());
            }
            if !self.over {
                self.inner.pause(self.pause).await;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// What is new, if anything is.
    async fn look(&mut self) -> Option<String> {
        let upload = self.inner.uploads.of(self.id);
        let job = match self.inner.parts.broker.job(self.id).await {
            Ok(job) => job,
            // It will be back, or the stream ends by itself.
            Err(_) => return None,
        };
        let Some(job) = job else {
            let Some(upload) = upload else {
                // The body was not what was paid for: there is no job, and there will be none by this upload.
                self.over = true;
                return None;
            };
            let received = upload.received();
            if self.received.replace(received) == Some(received) {
                return None;
            }
            return Some(event("progress", None, &json!({ "received": received, "size": upload.size })));
        };
        self.over = job.state.is_decided();
        if self.last.is_some_and(|last| last >= told_as(&job)) {
            return None;
        }
        self.last = Some(job.version);
        let name = if self.over { "end" } else { "state" };
        Some(event(name, Some(job.version), &description::of(&job)))
    }
}

/// The version of a job from which on there is nothing to tell of it: that its answer was handed out is no news to its client.
fn told_as(job: &Job) -> u64 {
    // Only what was `delivering` has this schema.
    let handed_out = job.state == State::Completed && job.schema == SCHEMA;
    job.version.saturating_sub(u64::from(handed_out))
}

/// An event, as HTML's section 9.2 has it. JSON of one line is one line.
fn event(name: &str, id: Option<u64>, data: &Value) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n")
}

impl Inner {
    /// The result, for who has the payment with its quote id; or why it is not here.
    async fn show_result(&self, job: &Job, payment: &Payment, head: &Parts) -> Option<Answer> {
        let accepted = payment.accepted()?;
        let (asset, authorization) = (&job.client.requirement.asset, payment.authorization());
        if accepted.network != asset.network || accepted.asset != asset.address {
            return None;
        }
        let claim = ClaimKey::new(asset, authorization.from, authorization.nonce);
        let delivery = self.parts.broker.release(job, &claim, accepted.extra.quote_id.as_deref()).await?;
        Some(reply::kept(delivery, head))
    }
}

/// How long the client waits: as `?wait=` or `Prefer: wait=` say, in seconds, and no longer than we let it.
fn longest_wait(head: &Parts) -> Result<Duration, Problem> {
    let mut pairs = head.uri.query().into_iter().flat_map(|query| query.split('&'));
    let seconds = match pairs.find_map(|pair| pair.strip_prefix("wait=")) {
        Some(wait) => wait.parse().map(Some).map_err(|_| {
            Problem::new(Reason::InvalidField)
                .message("wait is not valid: it is a whole number of seconds")
                .details(json!({ "field": "wait" }))
        })?,
        None => Prefer::of(&head.headers).wait(),
    };
    Ok(Duration::from_secs(seconds.unwrap_or(0).min(LONGEST_WAIT)))
}
