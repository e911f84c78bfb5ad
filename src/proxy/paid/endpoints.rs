//! The gateway's own endpoints: the state of a job, told at once, or followed ([`super::follow`]); and stored files
//! ([`super::files`]).

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use serde_json::{Value, json};

use super::Inner;
use crate::clock::rfc3339;
use crate::ids::JobId;
use crate::jobs::{Job, State};
use crate::proxy::{Answer, Body, Own};
use crate::reason::{Problem, Reason};

impl Inner {
    /// Answers one of the gateway's own endpoints.
    pub(super) async fn endpoint(self: &Arc<Self>, own: Own, head: &Parts) -> Result<Answer, Problem> {
        match own {
            Own::Status(id) => self.job(id, brief).await,
            Own::Job(id) => self.job(id, whole).await,
            Own::File(id) => self.file(id, head).await,
            Own::Watch(id) => self.watch(id, head).await,
            Own::Events(id) => self.events(id, head).await,
        }
    }

    /// The state of a job. Never its result: an id may be shared, what was paid for is given to the payment again.
    async fn job(&self, id: JobId, describe: fn(&Job) -> Value) -> Result<Answer, Problem> {
        let found = self.parts.broker.jobs().by_id(id).await;
        let job = found.map_err(|_| Reason::StoreAway)?.ok_or(Reason::JobUnknown)?;
        Ok(Answer { job: Some(id), ..Answer::new(document(&describe(&job)), Reason::Own) })
    }
}

/// A document of ours that nobody keeps.
pub(super) fn document(body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(body.to_string())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn brief(job: &Job) -> Value {
    let mut body = json!({ "jobId": job.id, "status": job.state.outer() });
    if let Some(refund) = refund(job) {
        body["refund"] = refund;
    }
    body
}

/// What became of the money of a job that failed after it was paid for.
fn refund(job: &Job) -> Option<Value> {
    match job.state {
        State::RefundDue => Some(json!({ "state": "due" })),
        State::Refunded => {
            let transaction = job.refunds.last().and_then(|refund| refund.transaction);
            Some(json!({ "state": "paid", "transaction": transaction }))
        }
        _ => None,
    }
}

/// All that anybody may know of a job.
pub(super) fn whole(job: &Job) -> Value {
    let price = job.quote.price.to_decimal(job.client.requirement.asset.decimals);
    let mut body = json!({
        "jobId": job.id,
        "status": job.state.outer(),
        "state": job.state.name(),
        "kind": job.kind,
        "provider": job.quote.provider,
        "requester": job.requester,
        "price_usd": price.parse::<serde_json::Number>().ok(),
        "size": job.quote.size,
        "attempt": job.attempt,
        "createdAt": rfc3339(job.created),
        "updatedAt": rfc3339(job.updated),
    });
    if !job.quote.passed_over.is_empty() {
        body["passedOver"] = json!(job.quote.passed_over);
    }
    if let Some(receipt) = &job.receipt {
        body["payment"] = json!({ "transaction": receipt.transaction, "network": receipt.network });
    }
    if let Some(refund) = refund(job) {
        body["refund"] = refund;
    }
    if let Some(failure) = &job.failure {
        body["error"] = failure.message.clone().into();
        body["code"] = failure.code.clone().into();
    }
    body
}
