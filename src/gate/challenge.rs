//! The 402 itself: a filled template and its header fields.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::ids::JobId;
use crate::quote_cache::Encoded;
use crate::reason::Reason;

const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");

/// A `402 Payment Required` in both protocol versions.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// Why it is sent.
    pub reason: Reason,
    /// The id the job will have if it is paid by version 2.
    pub job: JobId,
    payment_required: HeaderValue,
    body: Bytes,
}

impl Challenge {
    pub(super) fn new(reason: Reason, job: JobId, encoded: Encoded) -> Self {
        #[expect(clippy::expect_used, reason = "base64 has no character that a header value may not have")]
        let payment_required = HeaderValue::from_maybe_shared(encoded.header).expect("base64 in a header");
        Challenge { reason, job, payment_required, body: encoded.body }
    }

    /// The fields that every challenge has; [`PAYMENT_REQUIRED`] is empty. Never cached.
    pub fn fields() -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(PAYMENT_REQUIRED, HeaderValue::from_static(""));
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields
    }

    /// The answer, with [`Challenge::fields`] and what the edge added to them: to copy a map costs a third of making it anew.
    pub fn into_response(self, fields: &HeaderMap) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = StatusCode::PAYMENT_REQUIRED;
        *response.headers_mut() = fields.clone();
        // It is the first one: nothing is hashed to find it.
        match response.headers_mut().iter_mut().find(|(name, _)| **name == PAYMENT_REQUIRED) {
            Some((_, value)) => *value = self.payment_required,
            None => drop(response.headers_mut().insert(PAYMENT_REQUIRED, self.payment_required)),
        }
        response
    }
}
