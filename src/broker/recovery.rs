//! What a crash left: jobs without an owner are found and brought to a true state.
//!
//! | the journal says | what may have happened | what is done |
//! |---|---|---|
//! | `claimed`, `working`, nothing signed | nothing was spent | voided: the same payment starts the next attempt |
//! | `working`, a provider payment signed | it may have been sent and spent | held, listed; never signed again |
//! | `settling` | `/settle` may have been called | the identical settle is repeated; on success completed, else it stays |
//! | `settling_upfront` | the same | on success the client is owed: refund due; else it stays |
//! | `working_settled` | the client has paid | refund due |

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Broker;
use super::attempt::failure;
use super::journal::{Journal, JournalError};
use super::settlement::Settled;
use crate::jobs::{Event, Job, Lease, State};
use crate::reason::Reason;

/// Jobs looked at in one sweep.
const SWEEP: usize = 64;
/// How long a job that could not be brought to rest is left alone.
const PAUSE: Duration = Duration::from_secs(60);

/// The background service that looks for orphans.
pub struct Recovery {
    broker: Arc<Broker>,
    every: Duration,
}

impl Recovery {
    /// Looks every `every`; one lease is a good choice.
    pub fn new(broker: Arc<Broker>, every: Duration) -> Self {
        Recovery { broker, every }
    }

    /// Sweeps at once, then again and again, until dropped.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.sweep().await;
        }
    }

    /// One pass over the jobs without an owner; returns how many were taken.
    pub async fn sweep(&self) -> usize {
        let due = match self.broker.jobs.due(SWEEP).await {
            Ok(due) => due,
            Err(away) => {
                warn!(%away, "no recovery sweep");
                return 0;
            }
        };
        self.broker.forget_settled_elsewhere().await;
        let mut taken = 0;
        for claim in due {
            match self.broker.jobs.take_over(&claim, self.broker.limits.lease).await {
                Ok(Some((job, lease))) => {
                    taken += 1;
                    self.broker.bring_to_rest(job, lease).await;
                }
                Ok(None) => {}
                Err(away) => warn!(%away, claim = claim.as_str(), "an orphaned job cannot be taken"),
            }
        }
        taken
    }
}

impl Broker {
    /// Brings an orphan we hold the lease of as far as its journal proves, and returns it.
    pub(super) async fn bring_to_rest(&self, job: Job, lease: Lease) -> Job {
        let from = job.state;
        let journal = self.journal(job, lease.clone());
        if let Err(error) = self.finish(&journal, from).await {
            warn!(%error, state = from.name(), "an orphaned job was not finished");
        }
        let job = journal.job().await;
        if job.state.at_rest() {
            info!(job = %job.id, from = from.name(), to = job.state.name(), "orphaned job brought to rest");
        } else if let Err(away) = self.jobs.renew(&lease, PAUSE).await {
            warn!(%away, job = %job.id, "lease not renewed; it will lapse");
        }
        job
    }

    /// Jobs that were left unsettled here may have been brought to rest by another gateway.
    async fn forget_settled_elsewhere(&self) {
        for claim in self.tally.exposed() {
            if let Ok(job) = self.jobs.by_claim(&claim).await {
                self.tally.seen(&claim, job.as_ref());
            }
        }
    }

    async fn finish(&self, journal: &Journal, from: State) -> Result<(), JournalError> {
        match from {
            State::Claimed | State::Working | State::WorkingSettled => self.interrupted(journal).await,
            State::Settling => self.settle_again(journal).await.map(drop),
            State::SettlingUpfront => {
                if self.settle_again(journal).await? {
                    self.interrupted(journal).await?;
                }
                Ok(())
            }
            // At rest already: nothing to finish.
            _ => Ok(()),
        }
    }

    async fn interrupted(&self, journal: &Journal) -> Result<(), JournalError> {
        let failure = failure(Reason::Interrupted, Reason::Interrupted.text());
        journal.record(Event::WorkFailed { failure }).await.map(drop)
    }

    /// Repeats the identical settle once. Anything but a success proves nothing here.
    async fn settle_again(&self, journal: &Journal) -> Result<bool, JournalError> {
        let job = journal.job().await;
        match self.settle(&job, false, Duration::ZERO).await {
            Settled::Yes(receipt) => {
                journal.record(Event::Settled { receipt }).await?;
                Ok(true)
            }
            Settled::No { .. } | Settled::Unknown => Ok(false),
        }
    }
}
