//! The one body type of requests to the app and answers to clients.
//!
//! An enum, so that what passes through costs no allocation and no dynamic call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::idle::Idle;
use super::pool::Lease;
use super::request_body::RequestBody;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request or response body.
#[derive(Debug, Default)]
pub enum Body {
    /// No content.
    #[default]
    Empty,
    /// Content known in full; `None` once it was sent.
    Full(Option<Bytes>),
    /// The client's.
    Client(RequestBody),
    /// The app's.
    App(AppBody),
    /// Any other stream.
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body {
    /// A body of any other kind.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        use http_body_util::BodyExt;
        Body::Stream(body.map_err(Into::into).boxed_unsync())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Body::Empty } else { Body::Full(Some(bytes)) }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Client(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Body::App(body) => Pin::new(body).poll_frame(cx),
            Body::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_none(),
            Body::Client(body) => body.is_end_stream(),
            Body::App(body) => body.incoming.is_end_stream(),
            Body::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Client(body) => body.size_hint(),
            Body::App(body) => body.incoming.size_hint(),
            Body::Stream(body) => body.size_hint(),
        }
    }
}

/// The body of an answer of the app. Ends in an error when no byte came for too long.
#[derive(Debug)]
pub struct AppBody {
    incoming: Incoming,
    idle: Idle,
    /// The connection it comes from, unless all of it is here; given back after the body.
    _lease: Option<Lease>,
}

/// The app stopped in the middle of its answer.
#[derive(Debug, thiserror::Error)]
#[error("the app sent nothing for {0:?}")]
pub(super) struct AppStalled(Duration);

impl AppBody {
    pub(super) fn new(incoming: Incoming, timeout: Duration, lease: Option<Lease>) -> Self {
        AppBody { incoming, idle: Idle::new(timeout), _lease: lease }
    }

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.idle.moved();
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                ready!(self.idle.poll_expired(cx));
                Poll::Ready(Some(Err(AppStalled(self.idle.timeout()).into())))
            }
        }
    }
}
