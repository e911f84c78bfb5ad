//! The client's body: with a deadline, with `Expect: 100-continue` kept shut until somebody wants the
//! content, and with what nobody read handed back, so that the connection can be ended properly.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::idle::Idle;
use super::linger;
use crate::reason::Reason;

/// The body of a client's request.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Option<Incoming>,
    idle: Idle,
    /// `None` for a request without content.
    progress: Option<Arc<Progress>>,
    gate: Option<Gate>,
}

/// Why a client's body ended too early.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// No byte came for this long.
    #[error("the client sent nothing for {0:?}")]
    Stalled(Duration),
    /// The client closed, or its framing is broken.
    #[error("the client's body is incomplete: {0}")]
    Incomplete(#[source] hyper::Error),
}

impl RequestBodyError {
    /// How such a request is answered, if it still can be.
    pub fn reason(&self) -> Reason {
        match self {
            RequestBodyError::Stalled(_) => Reason::BodyTimeout,
            RequestBodyError::Incomplete(_) => Reason::BodyIncomplete,
        }
    }
}

/// What the edge must know of a body that somebody else is reading.
#[derive(Debug, Default)]
pub(super) struct Progress {
    alone: bool,
    bytes: AtomicU64,
    /// The last byte was read.
    ended: AtomicBool,
    /// The reader waits for the client, not the client for the reader.
    starved: AtomicBool,
    rest: Mutex<Rest>,
}

#[derive(Debug, Default)]
struct Rest {
    /// The answer's head is out: what is left is of no use to anybody.
    answered: bool,
    /// What the reader left before that.
    left: Option<Incoming>,
}

impl Progress {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether what is left stands in the way of the connection's next request.
    pub(super) fn in_the_way(&self) -> bool {
        self.alone && !self.ended()
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// From now on a body that is dropped half read is read to its end, within limits.
    pub(super) fn answered(&self) {
        let mut rest = self.rest.lock();
        rest.answered = true;
        if let Some(left) = rest.left.take() {
            linger::spawn(left);
        }
    }

    pub(super) fn take_rest(&self) -> Option<Incoming> {
        self.rest.lock().left.take()
    }
}

impl RequestBody {
    /// `timeout`: how long the client may send nothing. `alone`: whether the connection has no other request
    /// to carry, so that it can only go on, or be closed, once this body has ended.
    pub(super) fn new(incoming: Incoming, timeout: Duration, alone: bool) -> Self {
        let progress =
            (!incoming.is_end_stream()).then(|| Arc::new(Progress { alone, ..Progress::default() }));
        RequestBody { incoming: Some(incoming), idle: Idle::new(timeout), progress, gate: None }
    }

    pub(super) fn progress(&self) -> Option<&Arc<Progress>> {
        self.progress.as_ref()
    }

    /// Keeps the content unread, and so unasked for, until the key opens it or `patience` is over.
    pub(super) fn shut(&mut self, patience: Duration) -> Key {
        let key = Key(Arc::default());
        self.gate = Some(Gate { key: key.clone(), patience: Box::pin(tokio::time::sleep(patience)) });
        key
    }

    fn count(&mut self, frame: Option<&Frame<Bytes>>) {
        self.idle.moved();
        let Some(progress) = &self.progress else { return };
        progress.starved.store(false, Ordering::Relaxed);
        if let Some(data) = frame.and_then(Frame::data_ref) {
            progress.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        if frame.is_none() || self.incoming.as_ref().is_none_or(HttpBody::is_end_stream) {
            progress.ended.store(true, Ordering::Release);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self.get_mut();
        if let Some(gate) = &mut this.gate {
            ready!(gate.poll_open(cx));
            this.gate = None;
        }
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                this.incoming = None;
                Poll::Ready(Some(Err(RequestBodyError::Incomplete(error))))
            }
            Poll::Ready(frame) => {
                this.count(frame.as_ref().and_then(|frame| frame.as_ref().ok()));
                Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::Incomplete)))
            }
            Poll::Pending => {
                if let Some(progress) = &this.progress {
                    progress.starved.store(true, Ordering::Relaxed);
                }
                ready!(this.idle.poll_expired(cx));
                this.incoming = None;
                Poll::Ready(Some(Err(RequestBodyError::Stalled(this.idle.timeout()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::new, HttpBody::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let (Some(incoming), Some(progress)) = (self.incoming.take(), &self.progress) else { return };
        // A shut body was never asked for; to read it now would be to ask for it. In HTTP/2, what is not
        // wanted is simply refused.
        if !progress.in_the_way() || self.gate.is_some() {
            return;
        }
        let mut rest = progress.rest.lock();
        if rest.answered {
            linger::spawn(incoming);
        } else {
            rest.left = Some(incoming);
        }
    }
}

/// Holds a body shut.
struct Gate {
    key: Key,
    patience: Pin<Box<Sleep>>,
}

impl Gate {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.key.0.waker.register(cx.waker());
        if self.key.0.turned.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// Opens a body that was shut.
#[derive(Clone, Debug)]
pub(super) struct Key(Arc<Lock>);

#[derive(Debug, Default)]
struct Lock {
    turned: AtomicBool,
    waker: AtomicWaker,
}

impl Key {
    /// The content is wanted.
    pub(super) fn turn(&self) {
        self.0.turned.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}
