//! Answers that are given again: who gets them, from where, and what they are known by.

use serde_json::json;

use super::Broker;
use super::delivery::{Delivery, DeliveryBody, charged};
use super::results::key;
use crate::ids::JobId;
use crate::jobs::{Answer, ClaimKey, Job, JobKind, Kept};
use crate::reason::{Charged, Problem, Reason};
use crate::x402::Version;

impl Broker {
    /// [`Delivery::of_rest`], with the content where only this process has it.
    pub(super) async fn of_rest(&self, job: &Job, release: bool) -> Delivery {
        match &job.answer {
            Some(answer)
                if release && (job.is_answered() || job.answered_first()) && answer.body == Kept::Not =>
            {
                self.kept(job, answer).await
            }
            _ => Delivery::of_rest(job, release),
        }
    }

    /// An answer that is not in the record.
    async fn kept(&self, job: &Job, answer: &Answer) -> Delivery {
        let receipt = job.receipt.clone().map(|receipt| (job.client.version, receipt));
        if let Some(kept) = self.results.find(key(job)) {
            return Delivery {
                reason: Reason::Replayed,
                status: answer.status,
                headers: answer.headers.clone(),
                body: DeliveryBody::Kept(kept),
                receipt,
                charged: job.answered_first().then_some(Charged::Unknown),
                job: Some(job.id),
                price: Some(job.quote.price),
                etag: Some(etag(job, answer)),
            };
        }
        let problem = match self.results.is_elsewhere(key(job)).await {
            true => Problem::new(Reason::KeptElsewhere),
            false => Problem::new(Reason::NotKept),
        };
        let problem = problem.charged(charged(job)).details(json!({ "status": job.outer() }));
        Delivery { receipt, ..Delivery::error(job, problem) }
    }

    /// The kept answer of a completed job, if whoever asks for it shows what is on no chain: the unguessable quote id that
    /// the payment echoed. A payment by version 1 has none; its answer is for the request itself, sent again, as an app's is.
    pub async fn release(&self, job: &Job, claim: &ClaimKey, quote_id: Option<&str>) -> Option<Delivery> {
        let shown = job.client.version == Version::V2
            && quote_id.is_some()
            && job.client.quote_id.as_deref() == quote_id;
        let released = shown && job.kind != JobKind::App && job.claim == *claim && job.is_answered();
        if released { Some(self.of_rest(job, true).await) } else { None }
    }
}

/// The answer's own strong entity tag, else one made of its job: a job has one answer.
pub(super) fn etag(job: &Job, answer: &Answer) -> String {
    let own = answer.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("etag"));
    let strong = own.map(|(_, tag)| tag).filter(|tag| tag.starts_with('"'));
    strong.cloned().unwrap_or_else(|| entity_tag(job.id))
}

/// The entity tag of the answer of this job.
pub(super) fn entity_tag(job: JobId) -> String {
    format!("\"{job}\"")
}
