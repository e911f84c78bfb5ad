//! What anybody may know of a job: its URL, its events and its webhook say the same. Never its result.

use serde_json::{Value, json};

use super::delivery::{charged_so_far, told};
use crate::clock::rfc3339;
use crate::jobs::{Job, State};

/// How it stands, in a word, and where its client's money is if the work failed after it was paid for.
pub fn brief(job: &Job) -> Value {
    let mut body = json!({ "jobId": job.id, "status": job.outer() });
    if let Some(refund) = refund(job) {
        body["refund"] = refund;
    }
    body
}

/// All of it, with what it has cost so far.
pub fn of(job: &Job) -> Value {
    let mut body = without_charge(job);
    body["charged"] = json!(charged_so_far(job));
    body
}

/// All of it but what it has cost.
pub fn without_charge(job: &Job) -> Value {
    let price = job.quote.price.to_decimal(job.client.requirement.asset.decimals);
    let mut body = json!({
        "jobId": job.id,
        "status": job.outer(),
        "state": job.state.shown().name(),
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
        body["code"] = told(job).code().into();
        body["reason"] = failure.code.clone().into();
    }
    body
}

/// What became of the money of a job that failed after it was paid for, or of its share if a part did.
fn refund(job: &Job) -> Option<Value> {
    let mut refund = match job.state {
        State::RefundDue => json!({ "state": "due" }),
        State::Refunded => {
            let transaction = job.refunds.last().and_then(|refund| refund.transaction);
            json!({ "state": "paid", "transaction": transaction })
        }
        _ => return None,
    };
    if job.shortfall.is_some() {
        let owed = job.owed().to_decimal(job.client.requirement.asset.decimals);
        refund["amountUsd"] = json!(owed.parse::<serde_json::Number>().ok());
    }
    Some(refund)
}
