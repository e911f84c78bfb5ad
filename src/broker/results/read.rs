//! Reading an answer from its file, also while it is written.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;

use super::fill::Rest;
use super::{BodyStream, File, NotKept};
use crate::outgoing::{BoxError, Frames};
use crate::spool::{End, Grown};

/// Bytes that are read at once.
const READ: u64 = 64 * 1024;

/// An answer that is kept here. Clones share it.
#[derive(Clone, Debug)]
pub struct KeptAnswer(Arc<File>);

impl KeptAnswer {
    pub(super) fn new(file: Arc<File>) -> Self {
        KeptAnswer(file)
    }

    /// How long it is, or will be once it is whole; `None` while nobody knows.
    pub fn length(&self) -> Option<u64> {
        self.0.length()
    }

    /// All of it.
    pub fn whole(&self) -> BodyStream {
        reader(Arc::clone(&self.0), 0, None, self.length(), None)
    }

    /// These of its bytes, which must be within its length.
    pub fn part(&self, range: RangeInclusive<u64>) -> BodyStream {
        let end = range.end().saturating_add(1);
        let length = end.saturating_sub(*range.start());
        reader(Arc::clone(&self.0), *range.start(), Some(end), Some(length), None)
    }
}

impl File {
    fn length(&self) -> Option<u64> {
        let grown = self.bytes.grown();
        self.length.or_else(|| (grown.end == Some(End::Complete)).then_some(grown.written))
    }

    /// These of its bytes were given to somebody. What goes on where others ended counts with theirs.
    pub(super) fn gave(&self, bytes: Range<u64>) {
        let Some(collected) = &self.collected else { return };
        let mut given = self.given.lock();
        if bytes.start <= *given {
            *given = bytes.end.max(*given);
        }
        if self.length() == Some(*given) {
            // Once.
            *given = u64::MAX;
            collected.say();
        }
    }
}

/// All of an answer, for its first reader: if it turns out too large to keep, he gets the rest of it all the same.
pub(super) fn from_start(file: Arc<File>, rest: Option<oneshot::Receiver<Rest>>) -> BodyStream {
    let length = file.length();
    reader(file, 0, None, length, rest)
}

fn reader(
    file: Arc<File>,
    at: u64,
    end: Option<u64>,
    length: Option<u64>,
    rest: Option<oneshot::Receiver<Rest>>,
) -> BodyStream {
    let grown = file.bytes.watch();
    let reader = Reader { file, grown, at, end, rest, source: None, over: false };
    let frames = stream::unfold(reader, |mut reader| async move {
        let frame = reader.next().await?;
        reader.over |= frame.is_err();
        Some((frame, reader))
    });
    Frames::new(Box::pin(frames), length).boxed_unsync()
}

/// Somebody who reads an answer.
struct Reader {
    file: Arc<File>,
    grown: watch::Receiver<Grown>,
    at: u64,
    /// Behind the last byte that is wanted, if that is not the last there is.
    end: Option<u64>,
    /// Whence the rest comes, if it is not kept.
    rest: Option<oneshot::Receiver<Rest>>,
    /// The rest.
    source: Option<BodyStream>,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        while !self.over {
            if let Some(source) = &mut self.source {
                return source.frame().await;
            }
            let grown = *self.grown.borrow_and_update();
            let end = self.end.unwrap_or(u64::MAX).min(grown.written);
            if self.at < end {
                return Some(self.read(end).await);
            }
            if self.end.is_some_and(|end| self.at >= end) {
                return None;
            }
            match grown.end {
                None if self.grown.changed().await.is_ok() => {}
                Some(End::Complete) => {
                    self.over = true;
                    // How much there is may not have been known when the last of it was read.
                    self.file.gave(self.at..self.at);
                    return self.file.trailers.get().cloned().map(|trailers| Ok(Frame::trailers(trailers)));
                }
                Some(End::Over) => match self.rest.take() {
                    Some(rest) => {
                        let Ok(Rest { first, source }) = rest.await else {
                            return Some(Err(NotKept::TooLarge.into()));
                        };
                        self.source = Some(source);
                        return Some(Ok(Frame::data(first)));
                    }
                    None => return Some(Err(NotKept::TooLarge.into())),
                },
                None | Some(End::Broken) => return Some(Err(NotKept::Broken.into())),
            }
        }
        None
    }

    /// Some of what is written, up to `end`.
    async fn read(&mut self, end: u64) -> Result<Frame<Bytes>, BoxError> {
        let most = end.saturating_sub(self.at).min(READ);
        let room = vec![0; usize::try_from(most)?];
        let (file, at) = (Arc::clone(&self.file), self.at);
        let bytes = spawn_blocking(move || file.bytes.read_at(at, room)).await??;
        self.at = self.at.saturating_add(bytes.len() as u64);
        self.file.gave(at..self.at);
        Ok(Frame::data(bytes))
    }
}
