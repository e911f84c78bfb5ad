//! Request bodies: slices and files that are sent one after another without being copied together, and streams.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::task::JoinHandle;

use crate::spool::Spooled;

/// Any error of a stream.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Bytes that are still arriving.
pub type Stream = UnsyncBoxBody<Bytes, BoxError>;

/// Bytes of a file that are read at once.
const READ: usize = 64 * 1024;

/// A body of known length. A clone shares the bytes, so the same body can be sent again.
#[derive(Debug, Default)]
pub struct Parts {
    rest: VecDeque<Piece>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

#[derive(Clone, Debug)]
enum Piece {
    Bytes(Bytes),
    /// A file, from this byte on.
    File(Spooled, u64),
}

/// A body that can be sent once: something around a stream.
#[derive(Debug)]
pub struct Streamed {
    head: Bytes,
    stream: Stream,
    length: Option<u64>,
    /// `None` once the stream has ended, well or not.
    tail: Option<Bytes>,
}

/// Frames one after the other as a body, of known length where that is known.
pub struct Frames<S> {
    frames: S,
    left: Option<u64>,
}

/// What the client sends.
#[derive(Debug)]
pub(super) enum Outbound {
    Parts(Parts),
    Streamed(Streamed),
}

impl From<Bytes> for Parts {
    fn from(bytes: Bytes) -> Self {
        [bytes].into_iter().collect()
    }
}

impl From<Spooled> for Parts {
    fn from(file: Spooled) -> Self {
        let mut parts = Parts::default();
        parts.push_file(file);
        parts
    }
}

/// Empty slices are left out: an empty data frame would be a needless write.
impl FromIterator<Bytes> for Parts {
    fn from_iter<I: IntoIterator<Item = Bytes>>(slices: I) -> Self {
        let mut parts = Parts::default();
        slices.into_iter().for_each(|slice| parts.push(slice));
        parts
    }
}

/// A read that is under way is begun anew: what it reads was not sent yet.
impl Clone for Parts {
    fn clone(&self) -> Self {
        Parts { rest: self.rest.clone(), reading: None }
    }
}

impl Parts {
    /// Adds bytes.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.rest.push_back(Piece::Bytes(bytes));
        }
    }

    /// Adds the content of a file.
    pub fn push_file(&mut self, file: Spooled) {
        if !file.is_empty() {
            self.rest.push_back(Piece::File(file, 0));
        }
    }

    /// Bytes left to send.
    pub fn len(&self) -> u64 {
        let length = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(file, sent) => file.len().saturating_sub(*sent),
        };
        self.rest.iter().map(length).sum()
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn poll_file(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let Some(Piece::File(file, sent)) = self.rest.front_mut() else {
            return Poll::Ready(Ok(Bytes::new()));
        };
        let reading = self.reading.get_or_insert_with(|| {
            let (file, sent) = (file.clone(), *sent);
            let room = file.room(sent, READ);
            tokio::task::spawn_blocking(move || file.read_at(sent, room))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let bytes = read.map_err(io::Error::other)??;
        *sent += bytes.len() as u64;
        if *sent >= file.len() {
            self.rest.pop_front();
        }
        Poll::Ready(Ok(bytes))
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.rest.front() {
            None => Poll::Ready(None),
            Some(Piece::File(..)) => Poll::Ready(Some(ready!(self.poll_file(cx)).map(Frame::data))),
            Some(Piece::Bytes(_)) => match self.rest.pop_front() {
                Some(Piece::Bytes(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

impl Streamed {
    /// `head`, then `stream`, which is `length` bytes long if that is known, then `tail` if the stream ended well.
    pub fn new(head: Bytes, stream: Stream, length: Option<u64>, tail: Bytes) -> Self {
        Streamed { head, stream, length, tail: Some(tail) }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.head)))));
        }
        if self.tail.is_none() {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.stream).poll_frame(cx)) {
            // To send what belongs behind it would make a whole of what is none.
            Some(Err(error)) => {
                self.tail = None;
                Poll::Ready(Some(Err(error)))
            }
            Some(frame) => Poll::Ready(Some(frame)),
            None => Poll::Ready(
                self.tail.take().filter(|tail| !tail.is_empty()).map(|tail| Ok(Frame::data(tail))),
            ),
        }
    }
}

impl<S> Frames<S> {
    /// So many bytes, if that is known.
    pub fn new(frames: S, length: Option<u64>) -> Self {
        Frames { frames, left: length }
    }
}

impl<S> Body for Frames<S>
where
    S: futures_util::Stream<Item = Result<Frame<Bytes>, BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.frames).poll_next(cx));
        if let (Some(left), Some(Ok(frame))) = (&mut self.left, &frame) {
            *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Outbound::Parts(parts) => Pin::new(parts).poll_frame(cx).map_err(Into::into),
            Outbound::Streamed(streamed) => streamed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outbound::Parts(parts) => parts.is_end_stream(),
            Outbound::Streamed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outbound::Parts(parts) => parts.size_hint(),
            Outbound::Streamed(Streamed { head, length, tail, .. }) => match length {
                Some(length) => {
                    let around = head.len() + tail.as_ref().map_or(0, Bytes::len);
                    SizeHint::with_exact(length.saturating_add(around as u64))
                }
                None => SizeHint::new(),
            },
        }
    }
}
