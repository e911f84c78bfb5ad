//! What is answered: to a payment just worked for, and to one that was seen before.
//!
//! A settled payment is public on chain, so presenting it proves nothing about who presents it: a kept result
//! is released only to whoever also has what was never published (see [`may_release`]).

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tracing::warn;

use super::attempt::Again;
use super::journal::Journal;
use super::work::{BodyStream, Product};
use super::{Broker, Presented};
use crate::ids::JobId;
use crate::jobs::job::Sold;
use crate::jobs::{ClaimKey, Event, Job, Kept, State};
use crate::reason::{Charged, Problem, Reason};
use crate::x402::{Receipt, Version};

const FIRST_POLL: Duration = Duration::from_millis(25);
const LONGEST_POLL: Duration = Duration::from_millis(500);

/// An answer on its way to a client.
pub struct Delivery {
    /// Why it is this answer; the code of log and metric.
    pub reason: Reason,
    /// HTTP status.
    pub status: u16,
    /// Header fields, without the receipt.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: DeliveryBody,
    /// The proof of settlement, to be put in the header of the payment's version.
    pub receipt: Option<(Version, Receipt)>,
    /// The job, where there is one.
    pub job: Option<JobId>,
}

/// The body of an answer.
pub enum DeliveryBody {
    /// Known whole.
    Whole(Bytes),
    /// Still arriving from the app.
    Stream(BodyStream),
    /// An error, to be written as such.
    Problem(Box<Problem>),
}

impl Delivery {
    /// An error that belongs to no job.
    pub fn problem(problem: Problem) -> Self {
        Delivery {
            reason: problem.reason,
            status: problem.reason.status(),
            headers: Vec::new(),
            job: problem.job,
            body: DeliveryBody::Problem(Box::new(problem)),
            receipt: None,
        }
    }

    /// A completed job, by the attempt that completed it.
    pub(super) fn fresh(job: &Job, stream: Option<BodyStream>) -> Self {
        let mut delivery = Delivery::completed(job, Reason::Paid);
        if let Some(stream) = stream {
            delivery.body = DeliveryBody::Stream(stream);
        }
        delivery
    }

    /// The app's own failure, for which nobody was charged.
    pub(super) fn declined(job: &Job, product: Product) -> Self {
        let body = match (product.stream, product.answer.body) {
            (Some(stream), _) => DeliveryBody::Stream(stream),
            (None, Kept::Whole(bytes)) => DeliveryBody::Whole(bytes.into()),
            (None, Kept::Not) => DeliveryBody::Whole(Bytes::new()),
        };
        Delivery {
            reason: Reason::AppFailed,
            status: product.answer.status,
            headers: product.answer.headers,
            body,
            receipt: None,
            job: Some(job.id),
        }
    }

    /// A job whose settlement has an unknown outcome.
    pub(super) fn unsettled(job: &Job) -> Self {
        Delivery::problem(
            Problem::new(Reason::SettlementUnknown).charged(Charged::Unknown).retry_after(5).job(job.id),
        )
    }

    /// A job that is not at rest: settling with an unknown outcome, or somebody is working on it.
    pub(super) fn unfinished(job: &Job) -> Self {
        match job.state {
            State::Settling | State::SettlingUpfront => Delivery::unsettled(job),
            _ => Delivery::problem(
                Problem::new(Reason::JobRunning).charged(Charged::Unknown).retry_after(2).job(job.id),
            ),
        }
    }

    /// The outcome of a job at rest. `release`: whether its result may be shown to this client.
    pub(super) fn of_rest(job: &Job, release: bool) -> Self {
        let failed = |reason: Reason, charged: Charged| {
            let mut problem = Problem::new(reason).charged(charged).job(job.id);
            if let Some(failure) = &job.failure {
                problem = problem.details(json!({ "reason": failure.code, "message": failure.message }));
            }
            let mut delivery = Delivery::problem(problem);
            delivery.receipt = job.receipt.clone().map(|receipt| (job.client.version, receipt));
            delivery
        };
        match job.state {
            State::Completed if release => Delivery::completed(job, Reason::Replayed),
            State::Completed => Delivery::state_only(job),
            State::RefundDue => failed(Reason::RefundDue, Charged::Yes),
            State::Uncollected => failed(Reason::Uncollected, Charged::No),
            State::Voided | State::Held | State::ProviderLost => {
                let code = job.failure.as_ref().map(|failure| failure.code.as_str());
                failed(code.and_then(Reason::from_code).unwrap_or(Reason::Internal), Charged::No)
            }
            _ => Delivery::unfinished(job),
        }
    }

    fn completed(job: &Job, reason: Reason) -> Self {
        let receipt = job.receipt.clone().map(|receipt| (job.client.version, receipt));
        let Some(answer) = &job.answer else {
            return Delivery::problem(Problem::new(Reason::Internal).charged(Charged::Yes).job(job.id));
        };
        match &answer.body {
            Kept::Whole(body) => Delivery {
                reason,
                status: answer.status,
                headers: answer.headers.clone(),
                body: DeliveryBody::Whole(Bytes::copy_from_slice(body)),
                receipt,
                job: Some(job.id),
            },
            Kept::Not => Delivery {
                receipt,
                // The first delivery replaces this body with the stream itself.
                status: if reason == Reason::Paid { answer.status } else { Reason::NotKept.status() },
                headers: if reason == Reason::Paid { answer.headers.clone() } else { Vec::new() },
                ..Delivery::problem(Problem::new(Reason::NotKept).charged(Charged::Yes).job(job.id))
            },
        }
    }

    /// The receipt and the state of a completed job, without its content.
    fn state_only(job: &Job) -> Self {
        let body = json!({ "jobId": job.id, "status": job.state.outer() }).to_string();
        Delivery {
            reason: Reason::Replayed,
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: DeliveryBody::Whole(body.into()),
            receipt: job.receipt.clone().map(|receipt| (job.client.version, receipt)),
            job: Some(job.id),
        }
    }
}

impl Broker {
    /// A payment that was claimed before: waits for its job and gives the same answer; a job that bought
    /// nothing starts its next attempt; an orphan is brought to rest first.
    ///
    /// `sold` is what a next attempt would sell; without it there is none.
    pub(super) async fn seen_before(&self, payment: &Presented, sold: Option<&Sold>, mut job: Job) -> Again {
        if job.fingerprint != payment.fingerprint {
            let charged = if job.receipt.is_some() { Charged::Yes } else { Charged::No };
            return Again::answer(Delivery::problem(Problem::new(Reason::PaymentReused).charged(charged)));
        }
        let patience = match job.state {
            State::Settling | State::SettlingUpfront => self.limits.unknown_hold,
            _ => self.limits.work_timeout + self.limits.unknown_hold,
        };
        let give_up = tokio::time::Instant::now() + patience;
        let mut pause = FIRST_POLL;
        loop {
            if job.state.at_rest() && (job.state != State::Voided || sold.is_none()) {
                return Again::answer(Delivery::of_rest(&job, may_release(payment, &job)));
            }
            match self.jobs.take_over(&job.claim, self.limits.lease).await {
                Ok(Some((taken, lease))) if taken.state == State::Voided => {
                    let journal = Journal::new(self.jobs.clone(), self.clock.clone(), taken, lease.clone());
                    let Some(sold) = sold.cloned() else { continue };
                    match journal.record(Event::Reopened { sold }).await {
                        Ok(job) => return Again::GoOn(Box::new(job), lease),
                        Err(error) => warn!(%error, "a voided job was not reopened"),
                    }
                }
                // What it pays for is here again, so it can still be done.
                Ok(Some((taken, lease)))
                    if taken.state == State::SettlingUpfront && sold == Some(&taken.quote) =>
                {
                    return Again::GoOn(Box::new(taken), lease);
                }
                Ok(Some((taken, lease))) => {
                    job = self.bring_to_rest(taken, lease).await;
                    if !job.state.at_rest() {
                        return Again::answer(Delivery::unfinished(&job));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(away) => {
                    warn!(%away, "a known payment's job cannot be read");
                    let problem = Problem::new(Reason::StoreAway).charged(Charged::Unknown).job(job.id);
                    return Again::answer(Delivery::problem(problem));
                }
            }
            if tokio::time::Instant::now() + pause >= give_up {
                return Again::answer(Delivery::unfinished(&job));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_POLL);
            match self.jobs.by_claim(&job.claim).await {
                Ok(Some(current)) => job = current,
                Ok(None) => {}
                Err(away) => warn!(%away, "a known payment's job cannot be read"),
            }
        }
    }

    /// Whether this payment was ever claimed. A store that is away says no: the payment is then refused as it stands.
    pub async fn claimed(&self, claim: &ClaimKey) -> bool {
        matches!(self.jobs.by_claim(claim).await, Ok(Some(_)))
    }

    /// The answer to a payment that would be refused today, if it was taken before: its quote may have expired
    /// since, its job has not. `None` if it never was, or bought nothing.
    pub async fn known(&self, payment: &Presented) -> Option<Delivery> {
        let job = self.jobs.by_claim(&payment.claim()).await.ok().flatten()?;
        if job.state == State::Voided {
            return None;
        }
        match self.seen_before(payment, None, job).await {
            Again::Answer(delivery) => Some(*delivery),
            Again::GoOn(..) => None,
        }
    }
}

/// Whether `payment` shows something about `job` that the chain does not: the quote's unguessable id where the
/// job was paid by v2, else the content itself, which the fingerprint has already compared.
fn may_release(payment: &Presented, job: &Job) -> bool {
    match (job.client.version, payment.version) {
        (Version::V2, Version::V2) => {
            job.client.quote_id.is_some() && job.client.quote_id == payment.quote_id
        }
        (Version::V2, Version::V1) => false,
        (Version::V1, _) => payment.has_body,
    }
}
