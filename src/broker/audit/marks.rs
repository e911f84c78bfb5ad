//! Since when a process has not looked: what is left of its list of settled payments when it ends.
//!
//! The payments themselves are in the records of their jobs. So a process writes down now and then how old the oldest is
//! that it waits for, and none of them by itself: nothing of it is on a request's way. Where one has not written for a
//! while, any other goes through the records from there on, and looks for what it finds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::broker::Broker;
use crate::clock::UnixSeconds;
use crate::ids::JobId;
use crate::jobs::{Job, StoreError};

/// The store's space: by process, a [`Mark`].
const MARKS: &str = "audits";
/// Between two marks of a process, in seconds.
const EVERY: UnixSeconds = 30;
/// Who has not marked for this long is gone, and so is its list.
const GONE: UnixSeconds = 120;
/// A mark is kept so long that somebody else will see it, and no longer.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// A mark that was taken over is of no use to anybody.
const SPENT: Duration = Duration::from_secs(1);
/// Clocks differ, and a record is younger than the settlement it tells of.
const SLACK: UnixSeconds = 10;
/// Jobs older than this are not read: hardly any is settled so late.
const OLDEST: UnixSeconds = 86_400;
/// Jobs asked for in one part of a scan, and read at once.
const PART: usize = 256;
const TOGETHER: usize = 8;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Mark {
    /// What was settled before is looked for.
    from: UnixSeconds,
    /// When it was written.
    seen: UnixSeconds,
}

impl Mark {
    /// Whether something settled then may have been on the list.
    fn covers(&self, settled: UnixSeconds) -> bool {
        let (from, to) = (self.from.saturating_sub(SLACK), self.seen.saturating_add(GONE + SLACK));
        (from..=to).contains(&settled)
    }
}

/// The marks of this process, and of those before it.
pub(super) struct Marks {
    broker: Arc<Broker>,
    me: String,
    due: UnixSeconds,
}

impl Marks {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Marks { broker, me: JobId::new().to_string(), due: 0 }
    }

    /// Once in a while: takes over what others left, and marks.
    pub(super) async fn keep(&mut self) {
        let now = self.broker.clock.now();
        if now < self.due {
            return;
        }
        match self.take_over(now).await {
            Ok(()) => self.due = now.saturating_add(EVERY),
            // The next round tries again.
            Err(away) => warn!(%away, "who looks for settled payments is not marked"),
        }
    }

    async fn take_over(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let mut left: Vec<(String, Mark)> = Vec::new();
        for (process, value) in self.broker.jobs.list(MARKS).await? {
            match serde_json::from_slice::<Mark>(&value) {
                Ok(mark) if process != self.me && mark.seen.saturating_add(GONE) < now => {
                    left.push((process, mark));
                }
                Ok(_) => {}
                Err(error) => warn!(process, %error, "a mark of the settlement audit cannot be read"),
            }
        }
        if !left.is_empty() {
            let found = self.settled(&left).await?;
            info!(
                processes = left.len(),
                payments = found,
                "settled payments that others left are looked for"
            );
        }
        self.mark(now).await?;
        // Only now: from here on they are on a list that is marked.
        for (process, mark) in left {
            self.write(&process, mark, SPENT).await?;
        }
        Ok(())
    }

    /// Puts on the list what was settled while one of these had it on its own, and counts it.
    async fn settled(&self, left: &[(String, Mark)]) -> Result<usize, StoreError> {
        let first = left.iter().map(|(_, mark)| mark.from).min().unwrap_or_default();
        let known = self.broker.audits.jobs();
        let (mut found, mut after) = (0, None);
        loop {
            let (part, mark) = self.broker.jobs.scan(after.as_deref(), PART).await?;
            let young = part
                .into_iter()
                .filter(|id| id.made().saturating_add(OLDEST) >= first && !known.contains(id));
            let jobs: Vec<_> = stream::iter(young)
                .map(|id| self.broker.jobs.by_id(id))
                .buffer_unordered(TOGETHER)
                .collect()
                .await;
            for job in jobs {
                let Some(job) = job? else { continue };
                found += usize::from(self.look_again(&job, left).await);
            }
            match mark {
                Some(mark) => after = Some(mark),
                None => return Ok(found),
            }
        }
    }

    async fn look_again(&self, job: &Job, left: &[(String, Mark)]) -> bool {
        let Some(receipt) = &job.receipt else { return false };
        let at = job.updated / 1000;
        let wanted = left.iter().any(|(_, mark)| mark.covers(at));
        if wanted {
            self.broker.look_for_since(job, &receipt.transaction, at).await;
        }
        wanted
    }

    async fn mark(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let from = self.broker.audits.oldest().unwrap_or(now);
        self.write(&self.me, Mark { from, seen: now }, KEPT).await
    }

    async fn write(&self, process: &str, mark: Mark, ttl: Duration) -> Result<(), StoreError> {
        let value = serde_json::to_vec(&mark).map_err(|error| StoreError::Unreadable(error.to_string()))?;
        self.broker.jobs.put(MARKS, process, &value, Some(ttl)).await
    }
}
