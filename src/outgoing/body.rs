//! Request bodies: slices that are sent one after another without being copied together.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body of known length. A clone shares the bytes, so the same body can be sent again.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    rest: VecDeque<Bytes>,
}

impl From<Bytes> for Parts {
    fn from(bytes: Bytes) -> Self {
        [bytes].into_iter().collect()
    }
}

/// Empty slices are left out: an empty data frame would be a needless write.
impl FromIterator<Bytes> for Parts {
    fn from_iter<I: IntoIterator<Item = Bytes>>(slices: I) -> Self {
        Parts { rest: slices.into_iter().filter(|slice| !slice.is_empty()).collect() }
    }
}

impl Parts {
    /// Bytes left to send.
    pub fn len(&self) -> u64 {
        self.rest.iter().map(|slice| slice.len() as u64).sum()
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.rest.pop_front().map(|slice| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}
