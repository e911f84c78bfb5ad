//! Books of everything that a store has, and of what it has let go.

use futures_util::StreamExt;
use futures_util::stream;
use std::collections::HashSet;
use std::path::PathBuf;

use super::Books;
use crate::ids::JobId;
use crate::jobs::archive::{self, ArchiveError};
use crate::jobs::{Entry, Job, JobStore, StoreError};
use crate::providers::{returned, stock_purchases};

/// Jobs asked for in one part of a scan.
const PART: usize = 256;
/// Jobs read at once.
const TOGETHER: usize = 16;
/// A job that moves on while it is read is read again so often.
const TRIES: u32 = 5;

/// Why there are no books.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive was not read to its end.
    #[error("the archive was not read to its end")]
    Interrupted,
    /// The stock.
    #[error("the stock's purchases cannot be read: {0}")]
    Stock(String),
}

/// Reads every job of `store` with its journal, every one in the folder `archive`, every purchase of stock, and what
/// providers sent back. Paid work may go on meanwhile.
pub async fn collect(store: &dyn JobStore, archive: Option<PathBuf>) -> Result<Books, CollectError> {
    let mut books = Books::default();
    let mut seen: HashSet<JobId> = HashSet::new();
    // Those that were not let go between being seen and being read.
    let mut posted: HashSet<JobId> = HashSet::new();
    let mut after: Option<String> = None;
    loop {
        let (part, mark) = store.scan(after.as_deref(), PART).await?;
        let fresh: Vec<JobId> = part.into_iter().filter(|id| seen.insert(*id)).collect();
        let mut read = stream::iter(fresh).map(|id| read(store, id)).buffer_unordered(TOGETHER);
        while let Some(job) = read.next().await {
            if let Some((job, journal)) = job? {
                books.post(&job, &journal);
                posted.insert(job.id);
            }
        }
        drop(read);
        match mark {
            Some(mark) => after = Some(mark),
            None => break,
        }
    }
    // After the store: a job that leaves it meanwhile is in the archive by then.
    if let Some(folder) = archive {
        let read = move || {
            let each = |job: Job, journal: Vec<Entry>| {
                if !posted.contains(&job.id) {
                    books.archived += 1;
                    books.post(&job, &journal);
                }
            };
            archive::read(&folder, each).map(|()| books)
        };
        books = tokio::task::spawn_blocking(read).await.map_err(|_| CollectError::Interrupted)??;
    }
    let purchases = stock_purchases(store).await.map_err(|error| CollectError::Stock(error.to_string()))?;
    for purchase in &purchases {
        books.stock(purchase);
    }
    for one in &returned(store).await? {
        books.returned(one);
    }
    Ok(books)
}

/// A job and its journal, of the same moment; `None` if it was forgotten meanwhile.
async fn read(store: &dyn JobStore, id: JobId) -> Result<Option<(Job, Vec<Entry>)>, StoreError> {
    let mut tries = 0;
    loop {
        let Some(job) = store.by_id(id).await? else { return Ok(None) };
        let journal = store.journal(&job.claim).await?;
        tries += 1;
        if journal.len() as u64 == job.version || tries == TRIES {
            return Ok(Some((job, journal)));
        }
    }
}
