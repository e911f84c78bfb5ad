//! Idempotency keys: a client that lost the answer to a paid request, and asks again without the payment, is not told to
//! pay anew while nobody knows whether it has paid. Official clients sign anew for every call; the key is what stays.

use std::time::Duration;

use ring::digest::{Context, SHA256};
use tracing::warn;

use super::{Broker, Delivery};
use crate::jobs::{Job, StoreError};
use crate::reason::{Charged, Problem, Reason};

/// The store's space: by key, the job.
const SPACE: &str = "idempotency";
/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// A client's `Idempotency-Key`, for one method and path of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key that a request with this head names.
    pub fn new(method: &http::Method, host: &str, path: &str, key: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        for part in [method.as_str().as_bytes(), host.to_ascii_lowercase().as_bytes(), path.as_bytes(), key] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        IdempotencyKey(hex::encode(hash.finish()))
    }
}

impl Broker {
    /// Remembers, before anything is spent, which job this key belongs to.
    pub(super) async fn remember_key(&self, key: &IdempotencyKey, job: &Job) -> Result<(), StoreError> {
        self.jobs.put(SPACE, &key.0, job.id.to_string().as_bytes(), Some(KEPT)).await
    }

    /// The answer to an unpaid request with this key, if its job is not at rest. Never the result: keys can be guessed.
    pub async fn unresolved(&self, key: &IdempotencyKey) -> Result<Option<Delivery>, Problem> {
        let away = |away: StoreError| {
            warn!(%away, "nobody knows whether an idempotency key was seen before");
            Problem::new(Reason::StoreAway).charged(Charged::Unknown)
        };
        let Some(record) = self.jobs.get(SPACE, &key.0).await.map_err(away)? else { return Ok(None) };
        let id = std::str::from_utf8(&record).ok().and_then(|id| id.parse().ok()).ok_or(Reason::Internal)?;
        let job = self.jobs.by_id(id).await.map_err(away)?;
        Ok(job.filter(|job| !job.state.at_rest()).map(|job| Delivery::unfinished(&job)))
    }
}
