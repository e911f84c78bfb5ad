//! Writing an answer into its file, as fast as it arrives.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Empty};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::{BodyStream, File, Key, NotKept, Results};
use crate::spool::{End, SpoolError};

/// Bytes that are written at once, at least, where so many are there.
const WRITE: usize = 128 * 1024;

/// What is left of an answer that turned out too large to keep: for its first reader, and for nobody else.
pub(super) struct Rest {
    /// Bytes that were read and not written.
    pub(super) first: Bytes,
    /// What comes after them.
    pub(super) source: BodyStream,
}

/// Nobody waits for more of what nobody writes any more.
struct Interrupted<'a> {
    results: &'a Results,
    key: Key,
    file: &'a File,
}

impl Drop for Interrupted<'_> {
    fn drop(&mut self) {
        if self.file.bytes.grown().end.is_none() {
            self.results.0.shelf.lock().remove(self.key);
            self.file.bytes.end(End::Broken);
        }
    }
}

impl Results {
    /// Writes `source` to its end. `primary` is whoever reads it first: once he has gone away it goes on for a while only.
    pub(super) async fn fill(
        self,
        key: Key,
        file: Arc<File>,
        source: BodyStream,
        mut primary: oneshot::Sender<Rest>,
    ) {
        let _unless_done = Interrupted { results: &self, key, file: &file };
        let linger = self.0.limits.linger;
        let written = {
            let gone = async {
                primary.closed().await;
                tokio::time::sleep(linger).await;
            };
            tokio::select! {
                written = self.write(key, &file, source) => written,
                () = gone => Err(None),
            }
        };
        let (end, rest) = match written {
            Ok(()) => (End::Complete, None),
            Err(None) => (End::Broken, None),
            Err(Some(rest)) => (End::Over, Some(rest)),
        };
        if end != End::Complete {
            self.let_go(key).await;
        }
        if let Some(rest) = rest {
            let whole = file.bytes.grown().written.saturating_add(rest.first.len() as u64);
            self.unkept(if whole > self.0.limits.largest { NotKept::TooLarge } else { NotKept::NoRoom });
            // Nobody is there to read it.
            let _ = primary.send(rest);
        }
        file.bytes.end(end);
        // Somebody may have been given the last of it before that was known to be the last.
        file.gave(0..0);
    }

    /// `Err`: it broke off, or is too large, with what is left of it.
    async fn write(&self, key: Key, file: &Arc<File>, mut source: BodyStream) -> Result<(), Option<Rest>> {
        let mut gathered = BytesMut::with_capacity(WRITE);
        let mut written: u64 = 0;
        loop {
            // As much as is there at once, and no more: somebody waits for it.
            let next = match gathered.len() {
                0 => Some(source.frame().await),
                length if length < WRITE => source.frame().now_or_never(),
                _ => None,
            };
            let end = match next {
                Some(Some(Ok(frame))) => {
                    match frame.into_data() {
                        Ok(bytes) => gathered.extend_from_slice(&bytes),
                        Err(frame) => {
                            if let Ok(trailers) = frame.into_trailers() {
                                let _ = file.trailers.set(trailers);
                            }
                        }
                    }
                    continue;
                }
                Some(Some(Err(error))) => {
                    warn!(job = %key.0, %error, "a paid answer broke off");
                    Some(Err(None))
                }
                Some(None) => Some(Ok(())),
                None => None,
            };
            written = written.saturating_add(gathered.len() as u64);
            let kept = match written <= self.0.limits.largest {
                true => self.append(key, file, gathered).await,
                false => Err(Some(gathered)),
            };
            match (kept, end) {
                (Ok(empty), None) => gathered = empty,
                (Ok(_), Some(Ok(()))) if file.length.is_some_and(|length| length != written) => {
                    return Err(None);
                }
                (Ok(_), Some(end)) => return end,
                // It is over; the rest must not be asked for more.
                (Err(Some(rest)), Some(Ok(()))) => {
                    let source = Empty::new().map_err(|never| match never {}).boxed_unsync();
                    return Err(Some(Rest { first: rest.freeze(), source }));
                }
                (Err(None), _) => return Err(None),
                (Err(Some(_)), Some(broken)) => return broken,
                (Err(Some(rest)), None) => return Err(Some(Rest { first: rest.freeze(), source })),
            }
        }
    }

    /// Gives the room back, empty. `Err`: there is no room for them in the file; `None`, they are lost.
    async fn append(
        &self,
        key: Key,
        file: &Arc<File>,
        bytes: BytesMut,
    ) -> Result<BytesMut, Option<BytesMut>> {
        let mut bytes = bytes;
        loop {
            let into = file.bytes.clone();
            // The bytes are freed where they were allocated.
            let append = spawn_blocking(move || (into.append(&bytes), bytes));
            let (appended, back) = append.await.map_err(|_| None)?;
            bytes = back;
            match appended {
                Ok(()) => {
                    bytes.clear();
                    return Ok(bytes);
                }
                Err(SpoolError::Full) if self.let_go_of_oldest().await => {}
                Err(SpoolError::Full) => return Err(Some(bytes)),
                Err(error) => {
                    warn!(job = %key.0, %error, "an answer is not kept");
                    return Err(Some(bytes));
                }
            }
        }
    }
}
