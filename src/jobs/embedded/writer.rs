//! The one thread that writes. Operations that arrive while it waits for the disk share the next commit,
//! so that many jobs at once cost one `fsync`, not one each.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Database;
use tokio::sync::oneshot;

use super::Fault;
use super::tables::Tables;
use crate::clock::Clock;
use crate::jobs::store::StoreError;

/// How often expired entries are looked for while nothing is written.
const IDLE_SWEEP: Duration = Duration::from_secs(1);

/// Expired entries removed in one idle sweep, at most.
const IDLE_SWEEP_LIMIT: usize = 512;

/// Expired entries removed for each operation of a batch, at most: more than one operation can leave behind.
const SWEPT_PER_OPERATION: usize = 2;

/// Operations in one commit, at most.
const BATCH: usize = 512;

/// Sends to the thread; ends it when dropped.
pub(super) struct Writer {
    queue: Option<Sender<Operation>>,
    thread: Option<JoinHandle<()>>,
}

/// Changes the tables and returns what is to be done once the change is on disk. Dropping either half
/// unused tells the caller that the outcome is unknown.
type Operation = Box<dyn FnOnce(&mut Tables<'_>) -> Result<Reply, redb::Error> + Send>;
type Reply = Box<dyn FnOnce() + Send>;

impl Writer {
    pub(super) fn start(database: Arc<Database>, clock: Clock) -> std::io::Result<Self> {
        let (queue, operations) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("job-store".into())
            .spawn(move || run(&database, &clock, &operations))?;
        Ok(Writer { queue: Some(queue), thread: Some(thread) })
    }

    /// Runs `operation` in the next commit and returns once that is on disk. It runs even if the caller goes away.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Tables<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, outcome) = oneshot::channel();
        let operation: Operation = Box::new(move |tables| {
            let result = match operation(tables) {
                Ok(value) => Ok(value),
                Err(Fault::Store(error)) => Err(error),
                Err(Fault::File(error)) => return Err(error),
            };
            Ok(Box::new(move || {
                // The caller may have gone away; what it asked for is done all the same.
                let _ = reply.send(result);
            }))
        });
        let away = || StoreError::Away("the job store's file cannot be written; the log says why".into());
        self.queue.as_ref().ok_or_else(away)?.send(operation).map_err(|_| away())?;
        outcome.await.unwrap_or_else(|_| Err(away()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the job store's writer thread panicked");
        }
    }
}

fn run(database: &Database, clock: &Clock, operations: &Receiver<Operation>) {
    loop {
        let batch = match operations.recv_timeout(IDLE_SWEEP) {
            Ok(first) => std::iter::once(first).chain(operations.try_iter()).take(BATCH).collect(),
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match commit(database, clock, batch) {
            Ok(replies) => replies.into_iter().for_each(|reply| reply()),
            Err(error) => tracing::error!(%error, "the job store's file cannot be written"),
        }
    }
}

/// All of `batch` in one transaction; the replies are due once this returns.
fn commit(database: &Database, clock: &Clock, batch: Vec<Operation>) -> Result<Vec<Reply>, redb::Error> {
    let sweep = if batch.is_empty() { IDLE_SWEEP_LIMIT } else { batch.len() * SWEPT_PER_OPERATION };
    let transaction = database.begin_write()?;
    let mut tables = Tables::open(&transaction, clock)?;
    let replies = batch.into_iter().map(|operation| operation(&mut tables)).collect::<Result<_, _>>()?;
    tables.sweep(sweep)?;
    let changed = tables.changed;
    drop(tables);
    // What was only looked at, such as a claim that was taken, is on disk already.
    if changed {
        transaction.commit()?
    } else {
        transaction.abort()?
    }
    Ok(replies)
}
