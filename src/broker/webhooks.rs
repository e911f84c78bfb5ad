//! Webhooks: a URL of the client's is told, signed by a secret of its own, that its job is done.
//!
//! What is to be told is in the store before the work begins, and until somebody has heard it; so it survives this process,
//! and any gateway of the store tells it. Told at least once, and each time by the same id and in the same words. Only
//! what anybody may know of a job is told: its result is for who shows the payment.

mod secret;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};

use super::{Broker, description};
use crate::clock::{UnixMillis, rfc3339};
use crate::ids::JobId;
use crate::jobs::{Job, StoreError};
use crate::outgoing::{Fetch, FetchError};
use crate::telemetry::Told;

pub use secret::{BadSecret, WebhookSecret};

/// The store's space: by job and attempt, the [`Pending`].
const PENDING: &str = "webhooks";
/// The store's space: by that and the number of a try, whoever makes it.
const TRIES: &str = "webhook-tries";
/// The store's space: by that, the words that are told.
const WORDS: &str = "webhook-words";
/// How long a webhook is kept, whatever becomes of its job.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// A try is somebody's for so long: three times what it may take. After a crash it is made again.
const TRYING: Duration = Duration::from_secs(30);
/// What was told is known for so long after it is over: one who stood still meanwhile may tell it again.
const LINGERS: Duration = Duration::from_secs(600);
/// What is over is forgotten at once.
const GONE: Duration = Duration::from_millis(1);
/// Between two looks at what is to be told.
const EVERY: Duration = Duration::from_secs(1);
/// Told at once at most: a URL that hangs must not keep the others waiting.
const TOGETHER: usize = 32;
/// Webhooks that a store may hold; more are refused before anybody pays.
const MOST: usize = 1000;
/// Seconds from each try to the next. After the last there is none: about a day in all.
const PAUSES: [u64; 8] = [5, 30, 120, 600, 3_600, 4 * 3_600, 8 * 3_600, 12 * 3_600];

/// Where a client wants to be told of its job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Webhook {
    /// Where.
    pub url: String,
    /// What it knows us by.
    pub secret: WebhookSecret,
}

/// What is to be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pending {
    #[serde(flatten)]
    webhook: Webhook,
    job: JobId,
    /// The job's: a later one has a webhook of its own.
    attempt: u32,
    tries: usize,
    due: UnixMillis,
    /// The words, once they were said.
    body: Option<String>,
}

impl Pending {
    /// The key, and the id that its receiver tells repeats by.
    fn id(&self) -> String {
        format!("{}-{}", self.job, self.attempt)
    }
}

impl Broker {
    /// Has a webhook told when the job is done. Durable, before anything is spent.
    pub(super) async fn remember_webhook(&self, webhook: &Webhook, job: &Job) -> Result<(), StoreError> {
        let pending = Pending {
            webhook: webhook.clone(),
            job: job.id,
            attempt: job.attempt,
            tries: 0,
            due: self.clock.now_millis(),
            body: None,
        };
        self.write(&pending).await
    }

    async fn write(&self, pending: &Pending) -> Result<(), StoreError> {
        let record =
            serde_json::to_vec(pending).map_err(|error| StoreError::Unreadable(error.to_string()))?;
        self.jobs.put(PENDING, &pending.id(), &record, Some(KEPT)).await
    }
}

/// The background service that tells them.
pub struct Webhooks {
    broker: Arc<Broker>,
    post: Box<dyn Post>,
    room: WebhookRoom,
}

/// How a message gets to its URL.
#[async_trait]
pub(super) trait Post: Send + Sync {
    /// The status of the answer.
    async fn post(&self, url: &str, headers: HeaderMap, json: Bytes) -> Result<StatusCode, FetchError>;
}

#[async_trait]
impl Post for Fetch {
    async fn post(&self, url: &str, headers: HeaderMap, json: Bytes) -> Result<StatusCode, FetchError> {
        Fetch::post(self, url, headers, json).await
    }
}

/// Whether a store holds as many webhooks as it may.
#[derive(Clone, Debug, Default)]
pub struct WebhookRoom(Arc<AtomicUsize>);

impl WebhookRoom {
    /// Whether there is room for one more, as of the last look.
    pub fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed) < MOST
    }
}

impl Webhooks {
    /// Tells what `broker` was asked to have told, by way of `fetch`, which knows whom it may call.
    pub fn new(broker: Arc<Broker>, fetch: Fetch, room: WebhookRoom) -> Self {
        Webhooks::by(broker, Box::new(fetch), room)
    }

    pub(super) fn by(broker: Arc<Broker>, post: Box<dyn Post>, room: WebhookRoom) -> Self {
        Webhooks { broker, post, room }
    }

    /// Looks and tells, again and again, until dropped.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(away) = self.sweep().await {
                warn!(%away, "no webhooks are told");
            }
        }
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        let all = self.broker.jobs.list(PENDING).await?;
        // What was forgotten a moment ago may still be there, empty.
        let waiting: Vec<Pending> = all.iter().filter_map(|(_, record)| parse(record)).collect();
        self.room.0.store(waiting.len(), Ordering::Relaxed);
        self.broker.metrics.webhooks_waiting(waiting.len());
        let now = self.broker.clock.now_millis();
        let due = waiting.iter().filter(|pending| pending.due <= now).map(Pending::id);
        let each = |key: String| async move {
            if let Err(away) = self.look(&key).await {
                warn!(%away, webhook = key, "a webhook is told later");
            }
        };
        stream::iter(due).for_each_concurrent(TOGETHER, each).await;
        Ok(())
    }

    /// Tells one, if its job is done and nobody else is telling it.
    async fn look(&self, key: &str) -> Result<(), StoreError> {
        let jobs = &self.broker.jobs;
        // As it is now: others look too, and this sweep may have taken a while.
        let Some(mut pending) = jobs.get(PENDING, key).await?.as_deref().and_then(parse) else {
            return Ok(());
        };
        let fresh = pending.body.is_none();
        if fresh {
            let Some(job) = jobs.by_id(pending.job).await? else { return Ok(()) };
            // Its payment was refused when it came again, and nobody heard of that but who sent it.
            let refused = job.buys_nothing();
            if job.attempt != pending.attempt && !refused {
                return self.forget(key, None).await;
            }
            if !job.state.at_rest() {
                return Ok(());
            }
            pending.body = Some(words(&job));
        }
        if pending.due > self.broker.clock.now_millis() {
            return Ok(());
        }
        let ours = jobs.put_new(TRIES, &format!("{key}/{}", pending.tries), b"1", Some(TRYING)).await?;
        if ours.is_some() {
            return Ok(());
        }
        // The same words in every try, whatever becomes of the job: those of whoever was first to come so far, though he or we stood
        // still since the job was read.
        if fresh && let Some(body) = &pending.body {
            let said = jobs.put_new(WORDS, key, body.as_bytes(), Some(KEPT)).await?;
            if let Some(said) = said.and_then(|said| String::from_utf8(said).ok()) {
                pending.body = Some(said);
            }
        }
        self.broker.write(&pending).await?;
        self.tell(key, pending).await
    }

    async fn tell(&self, key: &str, mut pending: Pending) -> Result<(), StoreError> {
        let outcome = self.send(&pending).await;
        pending.tries += 1;
        let pause = PAUSES.get(pending.tries - 1);
        let told = match (&outcome, pause) {
            (Ok(status), _) if (200..300).contains(status) => Told::Heard,
            // Gone: whoever was there wants to hear no more.
            (Ok(410), _) | (_, None) => Told::GivenUp,
            (_, Some(_)) => Told::Failed,
        };
        self.broker.metrics.webhook_told(told);
        match (told, pause) {
            (Told::Failed, Some(pause)) => {
                info!(webhook = key, tries = pending.tries, ?outcome, "a webhook was not heard");
                pending.due = self.broker.clock.now_millis().saturating_add(pause.saturating_mul(1000));
                self.broker.write(&pending).await
            }
            _ => {
                if told == Told::GivenUp {
                    warn!(webhook = key, tries = pending.tries, ?outcome, "a webhook is given up");
                }
                self.forget(key, pending.body.as_deref()).await
            }
        }
    }

    async fn send(&self, pending: &Pending) -> Result<u16, String> {
        let (id, body) = (pending.id(), pending.body.clone().unwrap_or_default());
        let timestamp = self.broker.clock.now().to_string();
        let signature = pending.webhook.secret.sign(&id, &timestamp, &body);
        let headers =
            [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)];
        let headers = headers.into_iter().filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
        });
        let status = self.post.post(&pending.webhook.url, headers.collect(), body.into()).await;
        status.map(|status| status.as_u16()).map_err(|error| error.to_string())
    }

    async fn forget(&self, key: &str, body: Option<&str>) -> Result<(), StoreError> {
        if let Some(body) = body {
            self.broker.jobs.put(WORDS, key, body.as_bytes(), Some(LINGERS)).await?;
        }
        self.broker.jobs.put(PENDING, key, b"", Some(GONE)).await
    }
}

fn parse(record: &[u8]) -> Option<Pending> {
    serde_json::from_slice(record).ok()
}

/// What is told of a job at rest.
fn words(job: &Job) -> String {
    let kind = if job.is_answered() { "job.completed" } else { "job.failed" };
    json!({ "type": kind, "timestamp": rfc3339(job.updated), "data": description::of(job) }).to_string()
}
