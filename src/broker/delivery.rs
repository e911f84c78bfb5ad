//! What is answered: to a payment just worked for, and to one that was seen before.
//!
//! A settled payment is public on chain, so presenting it proves nothing about who presents it: a kept result
//! is released only to whoever also has what was never published (see [`may_release`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::release::etag;
use super::results::KeptAnswer;
use super::stop::Again;
use super::work::{BodyStream, Product};
use super::{Broker, Presented};
use crate::ids::JobId;
use crate::jobs::job::Sold;
use crate::jobs::{ClaimKey, Event, Job, Kept, State};
use crate::money::Amount;
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
    /// Whether the client's money moved, where the answer is what was bought and there is no receipt.
    pub charged: Option<Charged>,
    /// The job, where there is one.
    pub job: Option<JobId>,
    /// Its price, in atomic units.
    pub price: Option<Amount>,
    /// The strong entity tag of a body that was kept: the same whenever and wherever it is given.
    pub etag: Option<String>,
}

/// A body on its way to who paid for it, and whether it is kept meanwhile.
pub(super) struct Fresh {
    pub(super) body: BodyStream,
    pub(super) kept: bool,
}

/// The body of an answer.
pub enum DeliveryBody {
    /// Known whole.
    Whole(Bytes),
    /// Still arriving, from the app or a provider.
    Stream(BodyStream),
    /// In a file of this process.
    Kept(KeptAnswer),
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
            charged: None,
            price: None,
            etag: None,
        }
    }

    /// An error of this job.
    pub(super) fn error(job: &Job, problem: Problem) -> Self {
        Delivery { price: Some(job.quote.price), ..Delivery::problem(problem.job(job.id)) }
    }

    /// A completed job, by the attempt that completed it.
    pub(super) fn fresh(job: &Job, stream: Option<Fresh>, once: Vec<(String, String)>) -> Self {
        let mut delivery = Delivery::completed(job, Reason::Paid);
        delivery.headers.extend(once);
        if let Some(Fresh { body, kept }) = stream {
            delivery.body = DeliveryBody::Stream(body);
            delivery.reason = Reason::Paid;
            delivery.etag = job.answer.as_ref().filter(|_| kept).map(|answer| etag(job, answer));
        }
        delivery
    }

    /// What was bought, before it is paid for.
    pub(super) fn trusted(job: &Job, stream: Option<Fresh>, once: Vec<(String, String)>) -> Self {
        Delivery { reason: Reason::Trusted, ..Delivery::fresh(job, stream, once) }
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
            headers: product.answer.headers.into_iter().chain(product.once).collect(),
            body,
            receipt: None,
            charged: None,
            job: Some(job.id),
            price: Some(job.quote.price),
            etag: None,
        }
    }

    /// A job whose settlement has an unknown outcome.
    pub(super) fn unsettled(job: &Job) -> Self {
        let problem = Problem::new(Reason::SettlementUnknown).charged(Charged::Unknown).retry_after(5);
        Delivery::error(job, problem)
    }

    /// A job that is done and paid for, while the store cannot be told so.
    pub(super) fn unwritten(job: &Job) -> Self {
        let problem = Problem::new(Reason::StoreAway)
            .message("the work is done and paid for, and its answer is given once that is on record; send the same payment again")
            .charged(Charged::Yes)
            .retry_after(5);
        let receipt = job.receipt.clone().map(|receipt| (job.client.version, receipt));
        Delivery { receipt, ..Delivery::error(job, problem) }
    }

    /// A job whose end is not known: settling with an unknown outcome, or somebody is working on it.
    pub(super) fn unfinished(job: &Job) -> Self {
        match job.state {
            State::Settling | State::SettlingUpfront => Delivery::unsettled(job),
            _ => Delivery::error(job, Problem::new(Reason::JobRunning).charged(charged(job)).retry_after(2)),
        }
    }

    /// The outcome of a job at rest, or of one that is answered: `delivering`, or before it is settled. `release`: whether its result may be shown to this client.
    pub(super) fn of_rest(job: &Job, release: bool) -> Self {
        let failed = |reason: Reason, charged: Charged| {
            let mut problem = Problem::new(reason).charged(charged);
            if let Some(failure) = &job.failure {
                problem = problem.details(json!({ "reason": failure.code, "message": failure.message }));
            }
            let mut delivery = Delivery::error(job, problem);
            delivery.receipt = job.receipt.clone().map(|receipt| (job.client.version, receipt));
            delivery
        };
        let answered = job.is_answered() || job.answered_first();
        match job.state {
            _ if answered && release => Delivery::completed(job, Reason::Replayed),
            _ if answered => Delivery::state_only(job),
            State::RefundDue => failed(Reason::RefundDue, Charged::Yes),
            State::Refunded => failed(Reason::Refunded, Charged::No),
            State::Uncollected => failed(Reason::Uncollected, Charged::No),
            // The same payment starts nothing any more.
            State::Held | State::ProviderLost => failed(Reason::ProviderLost, Charged::No),
            State::Voided if !job.provider.is_empty() => failed(Reason::ProviderLost, Charged::No),
            State::Voided => failed(failed_by(job), Charged::No),
            _ => Delivery::unfinished(job),
        }
    }

    fn completed(job: &Job, reason: Reason) -> Self {
        let receipt = job.receipt.clone().map(|receipt| (job.client.version, receipt));
        let charged = job.answered_first().then_some(Charged::Unknown);
        let Some(answer) = &job.answer else {
            return Delivery::error(job, Problem::new(Reason::Internal).charged(Charged::Yes));
        };
        match &answer.body {
            Kept::Whole(body) => Delivery {
                reason,
                status: answer.status,
                headers: answer.headers.clone(),
                body: DeliveryBody::Whole(Bytes::copy_from_slice(body)),
                receipt,
                charged,
                job: Some(job.id),
                price: Some(job.quote.price),
                etag: Some(etag(job, answer)),
            },
            Kept::Not => Delivery {
                receipt,
                charged,
                // The first delivery replaces this body with the stream itself.
                status: if reason == Reason::Paid { answer.status } else { Reason::NotKept.status() },
                headers: if reason == Reason::Paid { answer.headers.clone() } else { Vec::new() },
                ..Delivery::error(job, Problem::new(Reason::NotKept).charged(self::charged(job)))
            },
        }
    }

    /// The receipt and the state of a completed job, without its content.
    fn state_only(job: &Job) -> Self {
        let body = json!({ "jobId": job.id, "status": job.outer() }).to_string();
        Delivery {
            reason: Reason::Replayed,
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: DeliveryBody::Whole(body.into()),
            receipt: job.receipt.clone().map(|receipt| (job.client.version, receipt)),
            charged: job.answered_first().then_some(Charged::Unknown),
            job: Some(job.id),
            price: Some(job.quote.price),
            etag: None,
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
            // Its last record may be on its way to the store.
            let known = self.running.ended(&job.claim).unwrap_or_else(|| Arc::new(job));
            let problem = Problem::new(Reason::PaymentReused).charged(charged(&known));
            return Again::answer(Delivery::problem(problem));
        }
        if !job.state.is_decided() {
            payment.announce.job(job.id);
        }
        let patience = match job.state {
            State::Settling | State::SettlingUpfront => self.limits.unknown_hold,
            _ => self.limits.work_timeout + self.limits.unknown_hold,
        };
        let give_up = tokio::time::Instant::now() + patience;
        let mut pause = FIRST_POLL;
        loop {
            if let Some(ended) = self.running.ended(&job.claim) {
                job = Arc::unwrap_or_clone(ended);
            }
            if job.state == State::Delivering && self.has_gone(&job).await {
                // Who handed it out may be gone too. If not, he will say what became of it.
                if let Ok(Some((taken, lease))) = self.take_orphan(&job.claim).await {
                    job = self.bring_to_rest(taken, lease).await;
                }
            }
            let begins_anew = job.state == State::Voided && sold.is_some() && !job.buys_nothing();
            let rests = job.state.is_decided() && !begins_anew;
            if rests || job.answered_first() {
                let mut delivery = self.of_rest(&job, may_release(payment, &job)).await;
                // In the header that this client looks for.
                delivery.receipt = delivery.receipt.map(|(_, receipt)| (payment.version, receipt));
                return Again::answer(delivery);
            }
            match self.take_orphan(&job.claim).await {
                Ok(Some((taken, lease))) if taken.state == State::Voided => {
                    let Some(sold) = sold.filter(|_| !taken.buys_nothing()).cloned() else {
                        // Should this fail, it lapses.
                        let _ = self.jobs.release(&lease).await;
                        job = taken;
                        continue;
                    };
                    let journal = self.journal(taken, lease.clone());
                    job = Job::clone(&*journal.job().await);
                    let Some(slot) = self.slot() else {
                        // Should this fail, it lapses.
                        let _ = self.jobs.release(&lease).await;
                        return Again::answer(overloaded());
                    };
                    match journal.record(Event::Reopened { sold }).await {
                        Ok(job) => return Again::GoOn(Box::new(Arc::unwrap_or_clone(job)), lease, slot),
                        Err(error) => warn!(%error, "a voided job was not reopened"),
                    }
                }
                // What it pays for is here again, so it can still be done.
                Ok(Some((taken, lease)))
                    if taken.state == State::SettlingUpfront
                        && sold.is_some_and(|sold| sold.price == taken.quote.price) =>
                {
                    let Some(slot) = self.slot() else {
                        // Should this fail, it lapses.
                        let _ = self.jobs.release(&lease).await;
                        return Again::answer(Delivery::unfinished(&taken));
                    };
                    return Again::GoOn(Box::new(taken), lease, slot);
                }
                Ok(Some((taken, lease))) => {
                    job = self.bring_to_rest(taken, lease).await;
                    if !job.state.is_decided() {
                        return Again::answer(Delivery::unfinished(&job));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(away) => {
                    warn!(%away, "a known payment's job cannot be read");
                    let problem = Problem::new(Reason::StoreAway).charged(Charged::Unknown);
                    return Again::answer(Delivery::error(&job, problem));
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

    /// Whether this payment was ever claimed. A store that is away cannot tell, and then nobody may be told to pay anew.
    pub async fn claimed(&self, claim: &ClaimKey) -> Result<bool, Problem> {
        Ok(self.find(claim).await?.is_some())
    }

    /// The answer to a payment that would be refused today, if it was taken before: its quote may have expired
    /// since, its job has not. `None` if it never was, or bought nothing.
    pub async fn known(&self, payment: &Presented) -> Result<Option<Delivery>, Problem> {
        let Some(job) = self.find(&payment.claim()).await?.filter(|job| job.state != State::Voided) else {
            return Ok(None);
        };
        Ok(match self.seen_before(payment, None, job).await {
            Again::Answer(delivery) => Some(*delivery),
            Again::GoOn(..) => None,
        })
    }

    async fn find(&self, claim: &ClaimKey) -> Result<Option<Job>, Problem> {
        self.jobs.by_claim(claim).await.map_err(|away| {
            warn!(%away, "nobody knows whether a payment was seen before");
            Problem::new(Reason::StoreAway).charged(Charged::Unknown)
        })
    }

    /// The answer while too many attempts run. That of an earlier attempt can still be given.
    pub(super) async fn overloaded(&self, payment: &Presented) -> Delivery {
        match self.known(payment).await {
            Ok(Some(delivery)) => delivery,
            Ok(None) => overloaded(),
            Err(problem) => Delivery::problem(problem),
        }
    }

    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }
}

fn overloaded() -> Delivery {
    Delivery::problem(Problem::new(Reason::Overloaded).charged(Charged::No))
}

/// What is known of the client's money, wherever its job stands.
pub(super) fn charged(job: &Job) -> Charged {
    match (&job.receipt, job.state) {
        // It has its money back: what it wanted it may buy again, under the same name too.
        (Some(_), State::Refunded) if !job.is_answered() => Charged::No,
        (Some(_), _) => Charged::Yes,
        (None, state) if state.at_rest() => Charged::No,
        (None, _) => Charged::Unknown,
    }
}

/// As [`charged`], for a client that is told of a job that runs: before anything is settled it has paid nothing.
pub fn charged_so_far(job: &Job) -> Charged {
    match job.state {
        State::Claimed | State::Working => Charged::No,
        _ => charged(job),
    }
}

fn failed_by(job: &Job) -> Reason {
    let code = job.failure.as_ref().map(|failure| failure.code.as_str());
    code.and_then(Reason::from_code).unwrap_or(Reason::Internal)
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
