//! `/files/{id}`: stored files that are read through the gateway, whole or in ranges.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use moka::future::Cache;
use ring::digest::{SHA256, digest};

use super::representation::{self, Content, Representation};
use super::{FILES, Inner};
use crate::ids::FileId;
use crate::providers::{Fault, StoredHandle};
use crate::proxy::Answer;
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
        let read = tokio::spawn(async move { provider.read_back(&handle).await }).await;
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
        let octets = HeaderValue::from_static("application/octet-stream");
        let fields: [(HeaderName, HeaderValue); 4] = [
            (CONTENT_TYPE, self.content_type.clone().unwrap_or(octets)),
            // The bytes and their type are a stranger's, on the operator's own origin: nothing in them may run.
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
            (CACHE_CONTROL, HeaderValue::from_static("private, max-age=60")),
        ];
        let file = Representation {
            content: Content::Memory(self.bytes.clone()),
            etag: self.etag.clone(),
            fields: fields.into_iter().collect(),
        };
        let response = file.answer(&head.method, &head.headers);
        let reason = representation::reason(&response, Reason::Own);
        Answer::new(response, reason)
    }
}
