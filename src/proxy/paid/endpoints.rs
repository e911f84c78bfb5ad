//! The gateway's own endpoints: the state of a job, and stored files.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use moka::future::Cache;
use serde_json::{Value, json};

use super::{FILES, Inner};
use crate::clock::rfc3339;
use crate::ids::{FileId, JobId};
use crate::jobs::{Job, State};
use crate::providers::{Fault, StoredHandle};
use crate::proxy::{Answer, Body, Own};
use crate::reason::{Problem, Reason};

/// Memory for files that were read a moment ago, and how long they stay. Reading costs the operator an operation at
/// the provider, and anybody who has the URL may read: repeated reads must not spend his inventory.
const FILES_MEMORY: u64 = 64 * 1024 * 1024;
const FILES_FRESH: Duration = Duration::from_secs(60);

/// Stored files, as they were read lately.
pub(super) struct Files(Cache<FileId, Arc<File>>);

struct File {
    bytes: Bytes,
    content_type: Option<HeaderValue>,
}

impl Files {
    pub(super) fn new(largest: u64) -> Self {
        let weigh = |_: &FileId, file: &Arc<File>| u32::try_from(file.bytes.len()).unwrap_or(u32::MAX);
        let cache = Cache::builder()
            .weigher(weigh)
            .max_capacity(FILES_MEMORY.max(largest))
            .time_to_live(FILES_FRESH)
            .build();
        Files(cache)
    }
}

impl Inner {
    /// Answers one of the gateway's own endpoints.
    pub(super) async fn endpoint(&self, own: Own) -> Result<Answer, Problem> {
        match own {
            Own::Status(id) => self.job(id, false).await,
            Own::Job(id) => self.job(id, true).await,
            Own::File(id) => self.file(id).await,
        }
    }

    /// The state of a job. Never its result: an id may be shared, what was paid for is given to the payment again.
    async fn job(&self, id: JobId, whole: bool) -> Result<Answer, Problem> {
        let found = self.parts.broker.jobs().by_id(id).await;
        let job = found.map_err(|_| Reason::StoreAway)?.ok_or(Reason::JobUnknown)?;
        let body = if whole { describe(&job) } else { brief(&job) };
        let mut response = Response::new(Body::from(Bytes::from(body.to_string())));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(Answer { job: Some(id), ..Answer::new(response, Reason::Own) })
    }

    async fn file(&self, id: FileId) -> Result<Answer, Problem> {
        // However many ask at once, one reads.
        let read = async { self.read_file(id).await.map(Arc::new) };
        let file = self.files.0.try_get_with(id, read).await.map_err(Arc::unwrap_or_clone)?;
        let mut response = Response::new(Body::from(file.bytes.clone()));
        *response.status_mut() = StatusCode::OK;
        let octets = HeaderValue::from_static("application/octet-stream");
        let fields: [(HeaderName, HeaderValue); 4] = [
            (CONTENT_TYPE, file.content_type.clone().unwrap_or(octets)),
            // The bytes and their type are a stranger's, on the operator's own origin: nothing in them may run.
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
            (CACHE_CONTROL, HeaderValue::from_static("private, max-age=60")),
        ];
        response.headers_mut().extend(fields);
        Ok(Answer::new(response, Reason::Own))
    }

    async fn read_file(&self, id: FileId) -> Result<File, Problem> {
        let record = self.parts.broker.jobs().get(FILES, &id.to_string()).await;
        let record = record.map_err(|_| Reason::StoreAway)?.ok_or(Reason::FileUnknown)?;
        let handle: StoredHandle = serde_json::from_slice(&record).map_err(|_| Reason::Internal)?;
        let provider = self.parts.providers.get(&handle.provider).ok_or(Reason::NoProvider)?.clone();
        let content_type = handle.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
        let read = self.parts.runtime.spawn(async move { provider.read_back(&handle).await }).await;
        let read = read.map_err(|_| Reason::Internal)?.map_err(|error| {
            tracing::warn!(%error, "a stored file was not read back");
            match error.fault {
                // Its time to live is over.
                Fault::Refused => Reason::FileUnknown,
                Fault::Timeout => Reason::ProviderTimeout,
                _ => Reason::ProviderFailed,
            }
        })?;
        Ok(File { bytes: read.bytes, content_type })
    }
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

fn describe(job: &Job) -> Value {
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
