//! Paid work that the app does: a priced route.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{AGE, ALT_SVC, DATE, PROXY_AUTHENTICATE, SET_COOKIE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::broker::{Product, Work, WorkError, WorkFault};
use crate::intake::Data;
use crate::jobs::{Answer, Job, Kept};
use crate::outgoing;
use crate::providers::Purse;
use crate::proxy::{Body, Forward, Peer, Strip};
use crate::reason::Reason;

/// A request to the app, its body read, its payment stripped.
pub(super) struct AppWork {
    pub(super) forward: Arc<Forward>,
    pub(super) parts: Parts,
    pub(super) body: Data,
    pub(super) peer: Peer,
    /// The largest answer that is read before it is charged for, and kept.
    pub(super) result_max: u64,
}

#[async_trait]
impl Work for AppWork {
    async fn perform(self: Box<Self>, _: &Job, _: &dyn Purse, _: Duration) -> Result<Product, WorkError> {
        let AppWork { forward, parts, body, peer, result_max } = *self;
        let body = match body {
            Data::Memory(bytes) => Body::from(bytes),
            Data::File(file) => Body::stream(outgoing::Parts::from(file)),
            Data::Received(_) => {
                return Err(WorkError::new(Reason::Internal, "the app is not given its body early"));
            }
        };
        let response = forward.send(parts, body, &peer, Strip::Payment).await;
        let response = response.map_err(|problem| {
            let message = problem.message.unwrap_or_else(|| problem.reason.text().to_owned());
            WorkError::new(problem.reason, message)
        })?;
        let status = response.status();
        // It would be taken for ours, which says that this payment buys nothing.
        if status == StatusCode::PAYMENT_REQUIRED {
            return Err(WorkError::new(Reason::AppFailed, "the app asks to be paid itself"));
        }
        let product = product(response, result_max).await?;
        // As the x402 reference servers do: what the app calls an error is not charged for.
        if status.is_client_error() || status.is_server_error() {
            let message = format!("the app answered {status}");
            let fault = WorkFault::Declined(Box::new(product));
            return Err(WorkError { fault, message, undone: None });
        }
        Ok(product)
    }
}

/// Reads an answer that says it is short; anything else is streamed, and not kept.
async fn product(response: Response<Body>, result_max: u64) -> Result<Product, WorkError> {
    let (head, body) = response.into_parts();
    let fields = head.headers.iter().filter_map(|(name, value)| {
        // A field that is not text cannot be kept in a record; none that HTTP defines is not.
        Some((name.as_str().to_owned(), String::from_utf8(value.as_bytes().to_vec()).ok()?))
    });
    let (once, headers) = fields.partition(|(name, _)| is_for_once(name));
    let status = head.status.as_u16();
    if body.size_hint().exact().is_none_or(|size| size > result_max) {
        let answer = Answer { status, headers, body: Kept::Not };
        return Ok(Product { answer, shortfall: None, stream: Some(body.boxed_unsync()), once });
    }
    let whole = body.collect().await.map_err(|error| WorkError::new(Reason::AppFailed, error.to_string()))?;
    let body = Kept::Whole(whole.to_bytes().to_vec());
    Ok(Product { answer: Answer { status, headers, body }, shortfall: None, stream: None, once })
}

/// Fields that are about one client connection or one moment: a session that the app began with whoever paid is not for
/// whoever presents the payment again.
fn is_for_once(name: &str) -> bool {
    let fields = [SET_COOKIE, WWW_AUTHENTICATE, PROXY_AUTHENTICATE, DATE, AGE, ALT_SVC];
    fields.iter().any(|field| field == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn what_is_for_one_connection_is_not_kept() {
        let response = Response::builder()
            .header("set-cookie", "session=1")
            .header("set-cookie", "theme=dark")
            .header("date", "Thu, 01 Jan 2026 00:00:00 GMT")
            .header("content-disposition", "attachment; filename=\"\u{e4}.txt\"")
            .header("etag", "\"1\"")
            .body(Body::from(Bytes::from_static(b"paid for")))
            .unwrap();
        let Product { answer, once, .. } =
            product(response, 100).await.unwrap_or_else(|_| panic!("declined"));
        let names = |fields: &[(String, String)]| {
            fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&once), "set-cookie set-cookie date");
        assert_eq!(names(&answer.headers), "content-disposition etag");
        assert_eq!(answer.headers[0].1, "attachment; filename=\"\u{e4}.txt\"");
        assert_eq!(answer.body, Kept::Whole(b"paid for".to_vec()));
    }
}
