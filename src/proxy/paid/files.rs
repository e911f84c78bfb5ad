//! `/files/{id}`: stored files that are read through the gateway, whole or in ranges.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use moka::future::Cache;
use ring::digest::{SHA256, digest};

use super::range::{self, Part};
use super::{FILES, Inner};
use crate::ids::FileId;
use crate::providers::{Fault, StoredHandle};
use crate::proxy::{Answer, Body, problem};
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
    /// Of the bytes themselves: the same whenever and wherever they are read.
    etag: String,
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
    pub(super) async fn file(&self, id: FileId, head: &Parts) -> Result<Answer, Problem> {
        // However many ask at once, one reads.
        let read = async { self.read_file(id).await.map(Arc::new) };
        let file = self.files.0.try_get_with(id, read).await.map_err(Arc::unwrap_or_clone)?;
        Ok(file.answer(head))
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
        let etag = format!("\"{}\"", hex::encode(digest(&SHA256, &read.bytes)));
        Ok(File { bytes: read.bytes, content_type, etag })
    }
}

impl File {
    /// What a request with this head is answered.
    fn answer(&self, head: &Parts) -> Answer {
        if range::is_known(&head.headers, &self.etag) {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            self.describe(&mut response);
            return Answer::new(response, Reason::Own);
        }
        let length = self.bytes.len() as u64;
        // A range is a part of what GET gives, and of nothing else (RFC 9110 section 14.2).
        let part = match head.method {
            Method::GET => range::part(&head.headers, &self.etag, length),
            _ => Part::Whole,
        };
        let (status, bytes, content_range) = match part {
            Part::Whole => (StatusCode::OK, self.bytes.clone(), None),
            Part::Range(first, last) => {
                let at = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX);
                let bytes = self.bytes.slice(at(first)..=at(last));
                (StatusCode::PARTIAL_CONTENT, bytes, Some(format!("bytes {first}-{last}/{length}")))
            }
            Part::Unsatisfiable => return unsatisfiable(length),
        };
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = status;
        if let Some(range) = content_range.and_then(|range| HeaderValue::try_from(range).ok()) {
            response.headers_mut().insert(CONTENT_RANGE, range);
        }
        self.describe(&mut response);
        Answer::new(response, Reason::Own)
    }

    fn describe(&self, response: &mut Response<Body>) {
        let octets = HeaderValue::from_static("application/octet-stream");
        let fields: [(HeaderName, HeaderValue); 5] = [
            (CONTENT_TYPE, self.content_type.clone().unwrap_or(octets)),
            // The bytes and their type are a stranger's, on the operator's own origin: nothing in them may run.
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
            (CACHE_CONTROL, HeaderValue::from_static("private, max-age=60")),
            (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        ];
        response.headers_mut().extend(fields);
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            response.headers_mut().insert(ETAG, etag);
        }
    }
}

fn unsatisfiable(length: u64) -> Answer {
    let problem = Problem::new(Reason::RangeNotSatisfiable);
    let mut response = problem::answer(&problem);
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{length}")) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    Answer::new(response, problem.reason)
}
