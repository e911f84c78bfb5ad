//! Bytes that are kept until a payment is good: in memory as far as they are few, else in a temporary file.

use bytes::{Bytes, BytesMut};

use super::read::{Held, Memory};
use crate::intake::Data;
use crate::reason::{Problem, Reason};
use crate::spool::{Spool, SpoolError, Writer};

/// Bytes of a body that are held in memory; more than that go to a file.
pub(super) const IN_MEMORY: u64 = 1 << 20;
/// Bytes that are written to a file at once.
const WRITE: usize = 64 * 1024;

/// Bytes that arrive.
pub(super) struct Kept<'a> {
    memory: &'a Memory,
    /// Without one, too many are thrown away: they were only to be measured.
    spool: Option<&'a Spool>,
    in_memory: u64,
    first: Bytes,
    rest: BytesMut,
    held: Held,
    file: Option<Writer>,
    dropped: bool,
}

impl<'a> Kept<'a> {
    /// For so many bytes at most: if that is more than is held in memory, none of them wait there.
    pub(super) fn new(memory: &'a Memory, spool: Option<&'a Spool>, bytes: Option<u64>) -> Self {
        Kept {
            memory,
            spool,
            in_memory: if bytes.is_some_and(|bytes| bytes > IN_MEMORY) { 0 } else { IN_MEMORY },
            first: Bytes::new(),
            rest: BytesMut::new(),
            held: memory.nothing(),
            file: None,
            dropped: false,
        }
    }

    /// Holds this many in memory, if they are so many.
    pub(super) fn in_memory(&mut self, bytes: u64) {
        self.in_memory = self.in_memory.max(bytes);
    }

    pub(super) async fn add(&mut self, bytes: Bytes) -> Result<(), Problem> {
        if self.dropped {
            return Ok(());
        }
        let few = self.file.is_none() && self.held.bytes() + bytes.len() as u64 <= self.in_memory;
        if few {
            self.held.grow(bytes.len() as u64)?;
            if self.first.is_empty() && self.rest.is_empty() {
                self.first = bytes;
                return Ok(());
            }
        } else if self.spool.is_none() {
            (self.first, self.rest, self.dropped) = (Bytes::new(), BytesMut::new(), true);
            self.held = self.memory.nothing();
            return Ok(());
        }
        if !few && self.waiting() + bytes.len() > WRITE {
            self.write().await?;
        }
        self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        self.rest.extend_from_slice(&bytes);
        Ok(())
    }

    /// Bytes that are in memory.
    fn waiting(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// All of them; `None` if they were thrown away.
    pub(super) async fn end(mut self) -> Result<(Option<Data>, Held), Problem> {
        if self.dropped {
            return Ok((None, self.held));
        }
        if self.file.is_some() || self.waiting() as u64 > self.in_memory {
            self.write().await?;
        }
        let data = match self.file {
            Some(file) => Data::File(file.complete()),
            None if self.rest.is_empty() => self.first.into(),
            None => self.rest.freeze().into(),
        };
        Ok((Some(data), self.held))
    }

    /// Writes what is in memory to the file.
    async fn write(&mut self) -> Result<(), Problem> {
        if self.waiting() == 0 {
            return Ok(());
        }
        let bytes = match std::mem::take(&mut self.first) {
            first if first.is_empty() => std::mem::take(&mut self.rest).freeze(),
            first => first,
        };
        let (file, spool) = (self.file.take(), self.spool.cloned().ok_or(Reason::Internal)?);
        let written = tokio::task::spawn_blocking(move || {
            let mut file = file.map_or_else(|| spool.create(), Ok)?;
            file.write(&bytes)?;
            // The bytes are freed where they were allocated.
            Ok((file, bytes))
        });
        match written.await.map_err(|_| Reason::Internal)? {
            Ok((file, bytes)) => {
                self.file = Some(file);
                self.held = self.memory.nothing();
                // Their room is the next ones', but not that of what was held in memory before.
                self.rest =
                    bytes.try_into_mut().ok().filter(|room| room.capacity() <= WRITE).unwrap_or_default();
                self.rest.clear();
                self.rest.reserve(WRITE);
                Ok(())
            }
            Err(SpoolError::Full) => Err(Reason::Overloaded.into()),
            Err(error) => {
                tracing::error!(%error, "a body cannot be kept");
                Err(Reason::Internal.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends pieces of this size, of which so many bytes may be held, and returns what became of them.
    async fn keep(memory: u64, pieces: &[usize]) -> (Data, u64) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), 1 << 20);
        let lender = Memory::new(1 << 20);
        let mut kept = Kept::new(&lender, Some(&spool), Some(u64::MAX));
        kept.in_memory(memory);
        let mut whole = Vec::new();
        for (number, length) in pieces.iter().enumerate() {
            let piece = vec![number as u8; *length];
            whole.extend_from_slice(&piece);
            kept.add(piece.into()).await.unwrap();
        }
        let (data, held) = kept.end().await.unwrap();
        let data = data.unwrap();
        let bytes = match &data {
            Data::File(file) => file.whole().unwrap(),
            data => data.memory().unwrap().clone(),
        };
        assert!(bytes == whole, "{pieces:?}");
        (data, held.bytes())
    }

    #[tokio::test]
    async fn what_is_more_than_may_be_held_is_in_a_file() {
        for pieces in
            [&[WRITE / 2][..], &[10, WRITE - 10], &[WRITE - 10, 100, 7], &[3, 2 * WRITE, 3], &[1; 40]]
        {
            let total: usize = pieces.iter().sum();
            for memory in [0, 1, total as u64 - 1] {
                let (data, held) = keep(memory, pieces).await;
                assert!(matches!(data, Data::File(_)) && held == 0, "{pieces:?} with {memory}: {held}");
            }
            let (data, held) = keep(total as u64, pieces).await;
            assert!(data.memory().is_some() && held == total as u64, "{pieces:?}: {held}");
        }
        assert!(keep(0, &[]).await.0.memory().is_some_and(Bytes::is_empty));
    }
}
