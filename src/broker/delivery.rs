//! What is answered, by what became of a job.

use bytes::Bytes;
use serde_json::json;

use super::release::etag;
use super::results::KeptAnswer;
use super::work::{BodyStream, Product};
use crate::ids::JobId;
use crate::jobs::{Job, Kept, State};
use crate::money::Amount;
use crate::reason::{Charged, Problem, Reason};
use crate::x402::{Receipt, Version};

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
            State::RefundDue => failed(told(job), Charged::Yes),
            State::Refunded | State::Uncollected | State::Held | State::ProviderLost | State::Voided => {
                failed(told(job), Charged::No)
            }
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

/// What the client of a job that failed is told, wherever it asks. What it failed by may be another thing.
pub(super) fn told(job: &Job) -> Reason {
    let code = job.failure.as_ref().map(|failure| failure.code.as_str());
    match job.state {
        State::RefundDue => Reason::RefundDue,
        State::Refunded => Reason::Refunded,
        State::Uncollected => Reason::Uncollected,
        // The same payment starts nothing any more, also once it is known that the provider was not paid.
        State::Held | State::ProviderLost => Reason::ProviderLost,
        State::Voided if !job.provider.is_empty() => Reason::ProviderLost,
        _ => code.and_then(Reason::from_code).unwrap_or(Reason::Internal),
    }
}
