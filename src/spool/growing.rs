//! A file that is read while it is written, by any number of readers.
//!
//! As with every file of a [`Spool`], reading and writing block; to hear that there is more does not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Lent, Spool, SpoolError};

/// A file with one writer. Clones share it.
#[derive(Clone, Debug)]
pub struct Growing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    lent: Mutex<Lent>,
    grown: watch::Sender<Grown>,
}

/// How far a file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grown {
    /// Bytes that can be read.
    pub written: u64,
    /// Nothing is added any more.
    pub end: Option<End>,
}

/// Why nothing is added any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is whole.
    Complete,
    /// What it is made from broke off.
    Broken,
    /// There is more, which is not kept.
    Over,
}

impl Spool {
    /// A new file that may be read from its first byte on.
    pub fn grow(&self) -> Result<Growing, SpoolError> {
        let file = tempfile::tempfile_in(&self.folder)?;
        let lent = Mutex::new(Lent { free: Arc::clone(&self.free), bytes: 0 });
        Ok(Growing(Arc::new(Inner { file, lent, grown: watch::Sender::new(Grown::default()) })))
    }
}

impl Growing {
    /// Adds to its end. By one writer only.
    pub fn append(&self, bytes: &[u8]) -> Result<(), SpoolError> {
        let at = {
            let mut lent = self.0.lent.lock();
            let at = lent.bytes;
            lent.grow(bytes.len() as u64)?;
            at
        };
        self.0.file.write_all_at(bytes, at)?;
        self.0.grown.send_modify(|grown| grown.written = at.saturating_add(bytes.len() as u64));
        Ok(())
    }

    /// No more is added.
    pub fn end(&self, end: End) {
        self.0.grown.send_modify(|grown| grown.end = grown.end.or(Some(end)));
    }

    /// How far it is written by now.
    pub fn grown(&self) -> Grown {
        *self.0.grown.borrow()
    }

    /// Tells how far it is written, whenever that has changed.
    pub fn watch(&self) -> watch::Receiver<Grown> {
        self.0.grown.subscribe()
    }

    /// The bytes from `offset` on, as many as there is room for; they must have been written. The room is made by the caller,
    /// for the reason of [`super::Spooled::room`].
    pub fn read_at(&self, offset: u64, mut room: Vec<u8>) -> io::Result<Bytes> {
        self.0.file.read_exact_at(&mut room, offset)?;
        Ok(room.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_is_written_can_be_read_and_the_rest_is_heard_of() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), 10);
        let file = spool.grow().unwrap();
        let heard = file.watch();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        file.append(b"hello").unwrap();
        assert!(heard.has_changed().unwrap());
        assert_eq!(file.grown(), Grown { written: 5, end: None });
        file.append(b" you").unwrap();
        assert_eq!(&file.read_at(3, vec![0; 4]).unwrap()[..], b"lo y");
        // What does not fit is not half there.
        assert!(matches!(file.append(b"ab"), Err(SpoolError::Full)));
        assert_eq!(file.grown().written, 9);
        file.append(b"!").unwrap();
        file.end(End::Complete);
        file.end(End::Broken);
        assert_eq!(*heard.borrow(), Grown { written: 10, end: Some(End::Complete) });
        drop(file);
        assert_eq!(spool.free.load(Ordering::Acquire), 10);
    }
}
