//! Answers: read whole, or as they arrive.

use std::time::Duration;

use futures_util::stream;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::body::{BoxError, Frames, Stream};
use super::{Answer, OutgoingError};

/// An answer that is given as it arrives has ended if nothing of it came for so long, while somebody waited for it.
const PAUSE: Duration = Duration::from_secs(30);

/// An answer whose body is still arriving.
#[derive(Debug)]
pub struct Opened {
    /// HTTP status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// How long its body is, if it says so.
    pub length: Option<u64>,
    /// The body. It ends well only if it is whole, and within the call's limit.
    pub body: Stream,
}

pub(super) async fn read(response: Response<Incoming>, limit: usize) -> Result<Answer, OutgoingError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, limit).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            OutgoingError::TooLarge { limit }
        } else {
            OutgoingError::from_body(error)
        }
    })?;
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
}

/// What says that it is over the limit is not even begun.
pub(super) fn open(response: Response<Incoming>, limit: usize) -> Result<Opened, OutgoingError> {
    let (head, body) = response.into_parts();
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length > limit as u64) {
        return Err(OutgoingError::TooLarge { limit });
    }
    let frames = stream::unfold(Some((body, limit)), move |rest| async move {
        let (mut body, left) = rest?;
        let failed = |error: OutgoingError| Some((Err(BoxError::from(error)), None));
        loop {
            let frame = match timeout(PAUSE, body.frame()).await {
                Err(_) => return failed(OutgoingError::Timeout),
                Ok(None) => return None,
                Ok(Some(Err(error))) => return failed(OutgoingError::from_body(error.into())),
                Ok(Some(Ok(frame))) => frame,
            };
            // What is behind the content is no part of it.
            let Ok(bytes) = frame.into_data() else { continue };
            let Some(left) = left.checked_sub(bytes.len()) else {
                return failed(OutgoingError::TooLarge { limit });
            };
            return Some((Ok(Frame::data(bytes)), Some((body, left))));
        }
    });
    let body = Frames::new(Box::pin(frames), length).boxed_unsync();
    Ok(Opened { status: head.status, headers: head.headers, length, body })
}
