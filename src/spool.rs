//! Bytes that are too many for memory: temporary files without a name, all together within one quota.
//!
//! A file has no name from its start, so nothing is left of it once nobody holds it, whatever ends the process. All
//! calls block for as long as the disk takes; they belong on threads that may.

mod growing;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

pub use growing::{End, Growing, Grown};

/// Where files are made, and how many bytes they may have together.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
    free: Arc<AtomicU64>,
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writer {
    file: File,
    lent: Lent,
}

/// A file that is complete. Clones share it.
#[derive(Clone, Debug)]
pub struct Spooled(Arc<Complete>);

#[derive(Debug)]
struct Complete {
    file: File,
    lent: Lent,
}

/// Part of the quota; given back when dropped.
#[derive(Debug)]
struct Lent {
    free: Arc<AtomicU64>,
    bytes: u64,
}

/// Why bytes cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// All files together would pass the quota.
    #[error("temporary files have reached their limit")]
    Full,
    /// The disk refuses.
    #[error("a temporary file cannot be written: {0}")]
    Disk(#[from] io::Error),
}

impl Spool {
    /// Files in `folder`, with so many bytes at most.
    pub fn new(folder: PathBuf, bytes: u64) -> Self {
        Spool { folder, free: Arc::new(AtomicU64::new(bytes)) }
    }

    /// Bytes that may still be written, all files together.
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Acquire)
    }

    /// A new file.
    pub fn create(&self) -> Result<Writer, SpoolError> {
        let file = tempfile::tempfile_in(&self.folder)?;
        Ok(Writer { file, lent: Lent { free: Arc::clone(&self.free), bytes: 0 } })
    }
}

impl Writer {
    /// Adds to its end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let at = self.lent.bytes;
        self.lent.grow(bytes.len() as u64)?;
        Ok(self.file.write_all_at(bytes, at)?)
    }

    /// No more is added.
    pub fn complete(self) -> Spooled {
        Spooled(Arc::new(Complete { file: self.file, lent: self.lent }))
    }
}

impl Spooled {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.0.lent.bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Room for at most `most` bytes from `offset` on; empty at its end. For [`Spooled::read_at`], so that a thread that
    /// may block allocates nothing: what it frees elsewhere would stay with it.
    pub fn room(&self, offset: u64, most: usize) -> Vec<u8> {
        let left = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        vec![0; left.min(most)]
    }

    /// The bytes from `offset` on, as many as there is room for.
    pub fn read_at(&self, offset: u64, mut room: Vec<u8>) -> io::Result<Bytes> {
        self.0.file.read_exact_at(&mut room, offset)?;
        Ok(room.into())
    }

    /// All of it.
    pub fn whole(&self) -> io::Result<Bytes> {
        self.read_at(0, self.room(0, usize::MAX))
    }
}

impl Lent {
    fn grow(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let lend = |free: u64| free.checked_sub(bytes);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Relaxed, lend).map_err(|_| SpoolError::Full)?;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.free.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_no_name_and_give_their_quota_back() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), 10);
        let mut writer = spool.create().unwrap();
        writer.write(b"hello").unwrap();
        writer.write(b" you").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut other = spool.create().unwrap();
        assert!(matches!(other.write(b"ab"), Err(SpoolError::Full)));
        other.write(b"a").unwrap();
        let file = writer.complete();
        assert_eq!((file.len(), &file.whole().unwrap()[..]), (9, &b"hello you"[..]));
        assert_eq!(&file.read_at(6, file.room(6, 2)).unwrap()[..], b"yo");
        assert!(file.read_at(9, file.room(9, 5)).unwrap().is_empty());
        drop((file, other));
        assert_eq!(spool.free.load(Ordering::Acquire), 10);
    }
}
