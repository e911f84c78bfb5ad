//! Content that does not change, given whole or in part, as its request says: `Range`, `If-Range` and `If-None-Match` by a
//! strong entity tag (RFC 9110 sections 13 and 14). For stored files, and for answers that are given again.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
};
use http::{Method, Response, StatusCode};

use super::range::{self, Part};
use crate::broker::KeptAnswer;
use crate::proxy::{Body, problem};
use crate::reason::{Problem, Reason};

/// The bytes.
pub(super) enum Content {
    /// All there.
    Memory(Bytes),
    /// In a file, or on the way into it.
    Kept(KeptAnswer),
}

/// Bytes with an entity tag, and the fields that describe them.
pub(super) struct Representation {
    pub(super) content: Content,
    /// Strong, with its quotes.
    pub(super) etag: String,
    /// Fields of the whole. Those that say what is given of it are made here.
    pub(super) fields: HeaderMap,
}

/// Fields that are made here.
const OURS: [HeaderName; 4] = [CONTENT_LENGTH, CONTENT_RANGE, ACCEPT_RANGES, ETAG];

impl Content {
    /// `None` while nobody knows it.
    fn length(&self) -> Option<u64> {
        match self {
            Content::Memory(bytes) => Some(bytes.len() as u64),
            Content::Kept(kept) => kept.length(),
        }
    }

    pub(super) fn whole(self) -> Body {
        match self {
            Content::Memory(bytes) => Body::from(bytes),
            Content::Kept(kept) => Body::Stream(kept.whole()),
        }
    }

    /// From the first of these bytes to the last, both within its length.
    fn part(self, first: u64, last: u64) -> Body {
        let at = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX);
        match self {
            Content::Memory(bytes) => Body::from(bytes.slice(at(first)..=at(last))),
            Content::Kept(kept) => Body::Stream(kept.part(first..=last)),
        }
    }
}

impl Representation {
    /// What a request with this method and header is answered: 200, 206, 304 or 416.
    pub(super) fn answer(mut self, method: &Method, asked: &HeaderMap) -> Response<Body> {
        for field in OURS {
            self.fields.remove(field);
        }
        let length = self.content.length();
        let part = match (method, length) {
            _ if range::is_known(asked, &self.etag) => {
                // The client has the rest of what describes it, too.
                self.fields.remove(CONTENT_TYPE);
                return self.with(StatusCode::NOT_MODIFIED, Body::Empty, None);
            }
            // A range is a part of what GET gives, and of nothing else (section 14.2).
            (&Method::GET, Some(length)) => range::part(asked, &self.etag, length),
            _ => Part::Whole,
        };
        match (part, length) {
            (Part::Range(first, last), Some(length)) => {
                let content = std::mem::replace(&mut self.content, Content::Memory(Bytes::new()));
                let range = format!("bytes {first}-{last}/{length}");
                self.with(StatusCode::PARTIAL_CONTENT, content.part(first, last), Some(range))
            }
            (Part::Unsatisfiable, Some(length)) => {
                let mut response = problem::answer(&Problem::new(Reason::RangeNotSatisfiable));
                if let Ok(range) = HeaderValue::try_from(format!("bytes */{length}")) {
                    response.headers_mut().insert(CONTENT_RANGE, range);
                }
                response
            }
            (_, length) => {
                let content = std::mem::replace(&mut self.content, Content::Memory(Bytes::new()));
                let mut response = Response::new(content.whole());
                *response.headers_mut() = self.fields;
                describe(response.headers_mut(), self.etag, length.is_some());
                response
            }
        }
    }

    fn with(self, status: StatusCode, body: Body, range: Option<String>) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        *headers = self.fields;
        describe(headers, self.etag, true);
        if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
            headers.insert(CONTENT_RANGE, range);
        }
        response
    }
}

/// Says what it is known by, and whether parts of it may be asked for: not as long as nobody knows where they are.
pub(super) fn describe(headers: &mut HeaderMap, etag: String, parts: bool) {
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    if parts {
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
}

/// The reason of an answer that [`Representation::answer`] gave, where `found` is that of content which was there.
pub(super) fn reason(response: &Response<Body>, found: Reason) -> Reason {
    match response.status() {
        StatusCode::RANGE_NOT_SATISFIABLE => Reason::RangeNotSatisfiable,
        _ => found,
    }
}
