//! Names that clients give their requests, so that one request is paid for once however often it is signed for.
//!
//! - [`RequestName`]: by the payer, for one route: the `payment-identifier` of a payment, or the `Idempotency-Key` beside it.
//!   A payment that comes with a name whose request was sold before is not taken: the answer is the earlier one's,
//!   as far as [`super::delivery`] releases it to this payment. The same name for something else is refused.
//! - [`IdempotencyKey`]: for one route, without a payer: a client that lost the answer to a paid request and asks again
//!   without the payment is not told to pay anew while nobody knows whether it has paid. Official clients sign anew
//!   for every call; the key is what stays.
//!
//! A name is held by one payment at a time, and passed on only when that one has bought nothing. Holders are numbered:
//! the next is whoever writes the next number first. A holder that bought nothing may come back to try again, so each
//! looks at the other after it has written what the other looks at: the newcomer at all earlier jobs, once the name is
//! its own, whichever of its requests wrote that; the earlier one for a newcomer, once its job is running again and
//! before anything is spent.

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::again::{Again, Next};
use super::delivery::charged;
use super::{Broker, Delivery, Presented, Sale};
use crate::clock::UnixSeconds;
use crate::jobs::{ClaimKey, Fingerprint, Job, StoreError};
use crate::reason::{Charged, Problem, Reason};
use crate::x402::Address;

/// The store's space: by key, the job.
const KEYS: &str = "idempotency";
/// The store's space: by name and number, the [`Holder`].
const NAMES: &str = "request-names";
/// How long keys and names are remembered.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Payments that may hold one name one after the other.
const HOLDERS: u32 = 64;
/// Between its holder's record and its claim a name waits this long for the claim; seconds.
const CLAIM_WITHIN: UnixSeconds = 60;
/// How long a request waits for the claim of another that is just being made.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);
const CLAIM_POLL: Duration = Duration::from_millis(25);

/// A client's `Idempotency-Key`, for one method and path of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// A payer's name for one request to one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestName {
    name: String,
    /// The number this payment holds it by.
    held: Option<u32>,
}

/// Where a name came from: the two do not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSort {
    /// The extension `payment-identifier`.
    PaymentIdentifier,
    /// The header field `Idempotency-Key`.
    IdempotencyKey,
}

/// A route as names are scoped to it.
#[derive(Clone, Debug)]
pub struct NamedRoute(String);

/// Whose a name is.
#[derive(Clone, Serialize, Deserialize)]
struct Holder {
    claim: ClaimKey,
    fingerprint: Fingerprint,
    at: UnixSeconds,
}

impl IdempotencyKey {
    /// The key of a request to `route`.
    pub fn new(route: &NamedRoute, key: &[u8]) -> Self {
        IdempotencyKey(digest(&[route.0.as_bytes(), key]))
    }
}

impl RequestName {
    /// `name`, as `payer` gave it to a request to `route`.
    pub fn new(sort: NameSort, payer: Address, route: &NamedRoute, name: &[u8]) -> Self {
        let sort: &[u8] = match sort {
            NameSort::PaymentIdentifier => b"payment-identifier",
            NameSort::IdempotencyKey => b"idempotency-key",
        };
        RequestName { name: digest(&[sort, payer.as_slice(), route.0.as_bytes(), name]), held: None }
    }

    fn key(&self, number: u32) -> String {
        format!("{}/{number}", self.name)
    }
}

impl NamedRoute {
    /// The route of this method and canonical path, on the host that clients know us by.
    pub fn new(method: &http::Method, host: &str, path: &str) -> Self {
        let host = host.to_ascii_lowercase();
        NamedRoute(digest(&[method.as_str().as_bytes(), host.as_bytes(), path.as_bytes()]))
    }
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finish())
}

impl Broker {
    /// Remembers, before anything is spent, which job this key belongs to.
    pub(super) async fn remember_key(&self, key: &IdempotencyKey, job: &Job) -> Result<(), StoreError> {
        self.jobs.put(KEYS, &key.0, job.id.to_string().as_bytes(), Some(KEPT)).await
    }

    /// The answer to an unpaid request with this key, if it is not known what becomes of its job. Never the result: keys can be guessed.
    pub async fn unresolved(&self, key: &IdempotencyKey) -> Result<Option<Delivery>, Problem> {
        let Some(record) = self.jobs.get(KEYS, &key.0).await.map_err(away)? else { return Ok(None) };
        let id = std::str::from_utf8(&record).ok().and_then(|id| id.parse().ok()).ok_or(Reason::Internal)?;
        let job = self.job(id).await.map_err(away)?;
        Ok(job.filter(|job| !job.state.is_decided()).map(|job| Delivery::unfinished(&job)))
    }

    /// The answer of the earlier payment, if one of the sale's names is another's; else the names are this payment's.
    /// Nothing is claimed yet.
    pub(super) async fn hold_names(&self, sale: &mut Sale) -> Option<Delivery> {
        let mut names = std::mem::take(&mut sale.names);
        let mut rest = names.as_mut_slice();
        while let [name, others @ ..] = rest {
            rest = others;
            match self.hold(name, &sale.payment).await {
                Ok(None) => {}
                Ok(Some(delivery)) => return Some(delivery),
                // By another name it may have been sold long ago, to whom this one is of no use.
                Err(problem) if problem.reason == Reason::JobRunning => {
                    for other in rest.iter() {
                        if let Ok(Some(delivery)) = self.bought_by(other, &sale.payment).await {
                            return Some(delivery);
                        }
                    }
                    return Some(Delivery::problem(problem));
                }
                Err(problem) => return Some(Delivery::problem(problem)),
            }
        }
        sale.names = names;
        None
    }

    /// Whether a name was passed on while its job was away. To be asked once the job runs, before anything is spent.
    pub(super) async fn lost_a_name(&self, names: &[RequestName]) -> Result<bool, StoreError> {
        for name in names {
            let Some(number) = name.held else { continue };
            if self.jobs.get(NAMES, &name.key(number + 1)).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn hold(&self, name: &mut RequestName, payment: &Presented) -> Result<Option<Delivery>, Problem> {
        let ours = Holder { claim: payment.claim(), fingerprint: payment.fingerprint, at: self.clock.now() };
        let record = serde_json::to_vec(&ours).map_err(|_| Reason::Internal)?;
        // All who held it so far: by the time the name is this payment's, one of them may have come back.
        let mut before: Vec<Holder> = Vec::new();
        for number in 0..HOLDERS {
            let written = self.jobs.put_new(NAMES, &name.key(number), &record, Some(KEPT)).await;
            let Some(found) = written.map_err(away)? else {
                name.held = Some(number);
                return self.answer_of_any(&before, payment).await;
            };
            let found: Holder = serde_json::from_slice(&found).map_err(|_| Reason::Internal)?;
            if found.fingerprint != payment.fingerprint {
                return Err(self.reused(payment).await?);
            }
            if found.claim != ours.claim {
                if let Some(delivery) = self.answer_of(&found, payment).await? {
                    return Ok(Some(delivery));
                }
            } else {
                // Its own: the repeat is for the claim to answer, unless somebody came after.
                let job = self.jobs.by_claim(&found.claim).await.map_err(away)?;
                let alive = job.is_some_and(|job| !bought_nothing(&job));
                if alive || self.jobs.get(NAMES, &name.key(number + 1)).await.map_err(away)?.is_none() {
                    name.held = Some(number);
                    // It may have been written a moment ago, by a request that looks at them only now.
                    return self.answer_of_any(&before, payment).await;
                }
            }
            before.push(found);
        }
        let why = "too many payments by this name bought nothing; use another";
        Err(Problem::new(Reason::IdentifierReused).message(why).charged(Charged::No))
    }

    /// The answer of another payment that bought something by this name. The name stays whose it is.
    async fn bought_by(&self, name: &RequestName, payment: &Presented) -> Result<Option<Delivery>, Problem> {
        for number in 0..HOLDERS {
            let Some(found) = self.jobs.get(NAMES, &name.key(number)).await.map_err(away)? else { break };
            let found: Holder = serde_json::from_slice(&found).map_err(|_| Reason::Internal)?;
            if found.fingerprint != payment.fingerprint {
                break;
            }
            if found.claim != payment.claim()
                && self.jobs.by_claim(&found.claim).await.map_err(away)?.is_some()
                && let Some(delivery) = self.answer_of(&found, payment).await?
            {
                return Ok(Some(delivery));
            }
        }
        Ok(None)
    }

    /// The answer of the first of these that bought something. To be asked by whoever holds the name after them.
    async fn answer_of_any(
        &self,
        holders: &[Holder],
        payment: &Presented,
    ) -> Result<Option<Delivery>, Problem> {
        for holder in holders {
            if let Some(delivery) = self.answer_of(holder, payment).await? {
                return Ok(Some(delivery));
            }
        }
        Ok(None)
    }

    /// What the holder's payment is answered, to be given to `payment` too. `None` if it bought nothing.
    async fn answer_of(&self, holder: &Holder, payment: &Presented) -> Result<Option<Delivery>, Problem> {
        let give_up = tokio::time::Instant::now() + CLAIM_PATIENCE;
        loop {
            let Some(job) = self.jobs.by_claim(&holder.claim).await.map_err(away)? else {
                if self.clock.now() >= holder.at.saturating_add(CLAIM_WITHIN) {
                    return Ok(None);
                }
                if tokio::time::Instant::now() >= give_up {
                    return Err(Problem::new(Reason::JobRunning).charged(Charged::No).retry_after(2));
                }
                tokio::time::sleep(CLAIM_POLL).await;
                continue;
            };
            // A payment that was used for something else before buys nothing by this name.
            if bought_nothing(&job) || job.fingerprint != holder.fingerprint {
                return Ok(None);
            }
            let attempt = job.attempt;
            let Again::Answer(delivery) = self.seen_before(payment, Next::Nothing, job).await else {
                return Err(Reason::Internal.into());
            };
            // It may have failed while it was waited for, and be tried again.
            match self.jobs.by_claim(&holder.claim).await.map_err(away)? {
                Some(job) if bought_nothing(&job) => return Ok(None),
                Some(job) if job.attempt != attempt => {}
                _ => return Ok(Some(*delivery)),
            }
        }
    }

    /// The refusal of a payment whose name is taken by something else.
    async fn reused(&self, payment: &Presented) -> Result<Problem, Problem> {
        let job = self.jobs.by_claim(&payment.claim()).await.map_err(away)?;
        // Its last record may be on its way to the store.
        let known = self.running.ended(&payment.claim()).or(job.map(Arc::new));
        let charged = known.as_deref().map_or(Charged::No, charged);
        Ok(Problem::new(Reason::IdentifierReused).charged(charged))
    }
}

/// Whether another payment may buy what this job was to do: it is at rest, and its client was not charged.
fn bought_nothing(job: &Job) -> bool {
    job.state.at_rest() && charged(job) == Charged::No
}

fn away(away: StoreError) -> Problem {
    warn!(%away, "nobody knows whether a request's name was seen before");
    Problem::new(Reason::StoreAway).charged(Charged::Unknown)
}
