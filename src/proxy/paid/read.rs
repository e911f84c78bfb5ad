//! Reading a body into memory, within a limit on each and on all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http_body::Body;

use super::source::Source;
use crate::proxy::RequestBodyError;
use crate::reason::{Problem, Reason};

/// The memory that bodies of paid requests may take, over all requests.
///
/// A count and no semaphore: nobody waits for memory, and a semaphore's release takes a lock that all workers share.
pub(super) struct Memory {
    free: Arc<AtomicU64>,
}

/// Memory lent to one body; given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    free: Arc<AtomicU64>,
    bytes: u64,
}

impl Memory {
    /// So many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Memory { free: Arc::new(AtomicU64::new(bytes)) }
    }

    /// Reads a whole body. Memory is lent as the bytes arrive: a length that is only declared takes none.
    ///
    /// Errors: those of [`Source::next`], `overloaded` when all bodies together would take too much.
    pub(super) async fn read<B>(&self, source: &mut Source<B>) -> Result<(Bytes, Held), Problem>
    where
        B: Body<Data = Bytes, Error = RequestBodyError> + Unpin,
    {
        let mut held = self.nothing();
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while !source.is_done()
            && let Some(data) = source.next().await?
        {
            held.grow(data.len() as u64)?;
            // Most bodies come in one piece, which is then the whole without a copy.
            if first.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok((if rest.is_empty() { first } else { rest.freeze() }, held))
    }

    /// Nothing so far.
    pub(super) fn nothing(&self) -> Held {
        Held { free: Arc::clone(&self.free), bytes: 0 }
    }
}

impl Held {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// This and another are one.
    pub(super) fn join(&mut self, mut other: Held) {
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
    }

    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Problem> {
        let lend = |free: u64| free.checked_sub(bytes);
        let lent = self.free.fetch_update(Ordering::AcqRel, Ordering::Relaxed, lend);
        lent.map_err(|_| Problem::new(Reason::Overloaded))?;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.free.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use http_body::{Frame, SizeHint};
    use tokio::time::{Instant, Sleep};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const UNIT: u64 = 1024;

    /// A body that sends a byte every `pause`, and says that it is `length` long.
    struct Drip {
        length: u64,
        left: u64,
        pause: Duration,
        sleep: Pin<Box<Sleep>>,
    }

    fn drip(length: u64, pause: Duration, limit: u64) -> Source<Drip> {
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        let mut source = Source::new(Drip { length, left: length, pause, sleep }, PATIENCE);
        source.at_most(limit);
        source
    }

    impl Body for Drip {
        type Data = Bytes;
        type Error = RequestBodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            std::task::ready!(self.sleep.as_mut().poll(cx));
            self.left -= 1;
            let next = Instant::now() + self.pause;
            self.sleep.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.length)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_length_that_is_only_declared_takes_no_memory_from_others() {
        let memory = Arc::new(Memory::new(4 * UNIT + 8));
        let slow: Vec<_> = (0..4)
            .map(|_| {
                let memory = Arc::clone(&memory);
                tokio::spawn(async move {
                    memory.read(&mut drip(8 * UNIT, Duration::from_secs(5), 8 * UNIT)).await.map(drop)
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (bytes, held) = memory.read(&mut drip(4 * UNIT, Duration::ZERO, 8 * UNIT)).await.unwrap();
        assert_eq!((bytes.len() as u64, held.bytes), (4 * UNIT, 4 * UNIT));
        let full = memory.read(&mut drip(8, Duration::ZERO, 8 * UNIT)).await;
        assert_eq!(full.unwrap_err().reason, Reason::Overloaded);
        drop(held);
        for one in slow {
            assert_eq!(one.await.unwrap().unwrap_err().reason, Reason::BodyTimeout);
        }
        assert_eq!(memory.free.load(Ordering::Acquire), 4 * UNIT + 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_in_time_though_it_never_stops() {
        let memory = Memory::new(64 << 20);
        let began = Instant::now();
        let read = memory.read(&mut drip(10 << 20, Duration::from_secs(1), 10 << 20)).await;
        assert_eq!(read.unwrap_err().reason, Reason::BodyTimeout);
        assert_eq!(began.elapsed().as_secs(), 31);
    }
}
