//! The 402 itself: a filled template and its header fields.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

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
        let payment_required =
            HeaderValue::from_maybe_shared(Bytes::from(encoded.header)).expect("base64 in a header");
        Challenge { reason, job, payment_required, body: encoded.body.into() }
    }

    /// The answer. Never cached. That scripts may read it is the edge's to say, as of all that is sold.
    pub fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = StatusCode::PAYMENT_REQUIRED;
        let fields = response.headers_mut();
        // With what the edge adds, or the map would grow twice. From seven on it takes twice the room.
        fields.reserve(6);
        fields.insert(PAYMENT_REQUIRED, self.payment_required);
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
