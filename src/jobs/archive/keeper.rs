//! Moves finished jobs whose time has come from the store into the archive: first written and on disk, then let go. After a
//! crash in between the next keeper writes them again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{Archive, ArchiveError, stripped};
use crate::clock::{Clock, UnixSeconds};
use crate::jobs::{Entry, Job, JobStore, State, StoreError};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);
/// One gateway archives for all on its store; the next may begin after this.
const TURN: Duration = Duration::from_secs(55);
/// Jobs moved at once.
const PART: usize = 128;

/// Whoever knows up to when every payment of ours was accounted for: jobs with younger ones are still asked for.
pub type AccountedFor = Box<dyn Fn() -> BoxFuture<'static, Result<UnixSeconds, StoreError>> + Send + Sync>;

/// The background service.
pub struct Keeper {
    store: Arc<dyn JobStore>,
    /// In between, on a thread that may block.
    archive: Option<Archive>,
    folder: PathBuf,
    retention: Duration,
    clock: Clock,
    accounted_for: AccountedFor,
}

/// Why nothing, or not everything, was archived. The next look tries again.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The store is away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive cannot be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl Keeper {
    /// Moves jobs of `store`, which does not forget them by itself, into `folder` once they are older than `retention`.
    pub fn new(
        store: Arc<dyn JobStore>,
        folder: PathBuf,
        retention: Duration,
        clock: Clock,
        accounted_for: AccountedFor,
    ) -> Keeper {
        Keeper { store, archive: None, folder, retention, clock, accounted_for }
    }

    /// Looks again and again until `stopped`.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            let archived = match self.store.put_new("archive", "turn", b"taken", Some(TURN)).await {
                Ok(None) => self.round().await,
                Ok(Some(_)) => continue,
                Err(away) => Err(away.into()),
            };
            match archived {
                Ok(0) => {}
                Ok(jobs) => tracing::info!(jobs, folder = %self.folder.display(), "old jobs are archived"),
                Err(error) => tracing::error!(%error, "old jobs are not archived, and stay in the store"),
            }
        }
    }

    /// Moves everything whose time has come. How many.
    pub async fn round(&mut self) -> Result<usize, KeepError> {
        let accounted_for = (self.accounted_for)().await?;
        let mut moved = 0;
        for state in State::ALL.into_iter().filter(|state| state.is_archived()) {
            loop {
                // The oldest first, as far as a store knows: where none of these is to go, none is.
                let mut ready: Vec<(Job, Vec<Entry>)> = Vec::new();
                for id in self.store.in_state(state, PART).await? {
                    let Some(job) =
                        self.store.by_id(id).await?.filter(|job| self.is_ready(job, accounted_for))
                    else {
                        continue;
                    };
                    let journal = self.store.journal(&job.claim).await?;
                    if journal.len() as u64 == job.version {
                        ready.push((stripped(job), journal));
                    }
                }
                if ready.is_empty() {
                    break;
                }
                let jobs: Vec<Job> = ready.iter().map(|(job, _)| job.clone()).collect();
                self.write(ready).await?;
                let mut forgotten = 0;
                for job in &jobs {
                    forgotten += usize::from(self.store.forget(job).await?);
                }
                moved += forgotten;
                // Somebody holds what is left. It is not to be written again and again meanwhile.
                if forgotten < jobs.len() {
                    break;
                }
            }
        }
        Ok(moved)
    }

    fn is_ready(&self, job: &Job, accounted_for: UnixSeconds) -> bool {
        let old = job.archive_at(self.retention).is_some_and(|at| at <= self.clock.now_millis());
        let mut lapse = job.provider.iter().map(|payment| payment.valid_before);
        let mut refunds_lapse = job.refunds.iter().map(|refund| refund.valid_before);
        old && lapse.all(|at| at < accounted_for) && refunds_lapse.all(|at| at < accounted_for)
    }

    async fn write(&mut self, jobs: Vec<(Job, Vec<Entry>)>) -> Result<(), KeepError> {
        let now = self.clock.now_millis();
        let mut archive = self.archive.take().unwrap_or_else(|| Archive::new(self.folder.clone()));
        let write = move || {
            let written = archive.append(jobs, now);
            (archive, written)
        };
        let (archive, written) = tokio::task::spawn_blocking(write)
            .await
            .map_err(|stopped| StoreError::Away(stopped.to_string()))?;
        self.archive = Some(archive);
        Ok(written?)
    }
}
