//! What a crash left: jobs without an owner are found and brought to a true state.
//!
//! | the journal says | what may have happened | what is done |
//! |---|---|---|
//! | `claimed`, `working`, nothing signed | nothing was spent | voided: the same payment starts the next attempt |
//! | `working`, a provider payment signed | it may have been sent and spent | held; never signed again |
//! | `held` | the same | the chain is asked: spent, or not and never; and whether the client has paid all the same |
//! | `settling` | `/settle` may have been called | the chain is asked; else the identical settle is repeated; else it stays |
//! | the same, its answer too large for the record | the same, and the answer is gone with its process | the same; if the client has paid, refund due, or `delivering` while another gateway says that it has it |
//! | `settling_upfront` | the same | left to the same payment, which goes on with it; see below |
//! | `delivering` | the client has paid, and has a part of its answer or all of it; the rest is gone with its process | refund due, unless another gateway says that it has it |
//! | `working_settled` | the client has paid | refund due |
//! | `refund_due` or `uncollected`, a provider payment signed | it may have been spent | the chain is asked, for the books |
//!
//! To repeat an upfront settle here would charge a client for work that nobody can do any more, unless it was charged
//! before. So that waits until the authorization has lapsed: what is paid then is the earlier call's, and refund due.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::Broker;
use super::attempt::CARRY_PATIENCE;
use super::broken::lost;
use super::journal::{Journal, JournalError};
use super::proof::{ClientProof, PATIENCE};
use super::results::key;
use super::settlement::Settled;
use super::stop::failure;
use crate::ids::JobId;
use crate::jobs::job::{Fate, ProviderPayment};
use crate::jobs::{ClaimKey, Event, Job, Lease, State, StoreError};
use crate::reason::Reason;

/// Jobs looked at in one sweep.
const SWEEP: usize = 64;
/// Of those, worked on at once: a facilitator that hangs must not keep the rest waiting.
const TOGETHER: usize = 8;
/// How long a job that could not be brought to rest is left alone: this, and as long as its payment has lapsed already,
/// up to the longest. Before it lapses a settle may still succeed; after that only what others say can change.
const PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Seconds by which the clock of a chain may be behind ours: what has lapsed here may be taken there for so long.
const CLOCKS_DIFFER: u64 = 10;
/// Jobs at rest in which a payment to a provider may be open, and how many of each are looked at in one sweep. More than
/// are worked on: those on a network nobody can be asked about stay for ever, and what is owed stays until it is paid, and a while after.
const OPEN: [(State, usize); 4] = [
    (State::Held, 1000),
    (State::RefundDue, 100_000),
    (State::Refunded, 100_000),
    (State::Uncollected, 100_000),
];
/// Between two looks at them.
const OPEN_EVERY: Duration = Duration::from_secs(30);

/// The background service that looks for orphans.
pub struct Recovery {
    broker: Arc<Broker>,
    every: Duration,
    /// Of those at rest, the ones with nothing open: they are not read again.
    closed: Mutex<HashSet<JobId>>,
}

impl Recovery {
    /// Looks every `every`; one lease is a good choice.
    pub fn new(broker: Arc<Broker>, every: Duration) -> Self {
        Recovery { broker, every, closed: Mutex::default() }
    }

    /// Sweeps at once, then again and again, until dropped. `begin` is asked before each job: `None` leaves it for
    /// later, and what it returns is held while the job is worked on. A process must not end then: a settlement whose
    /// answer nobody hears is lost.
    pub async fn run<H: Send>(self, begin: impl Fn() -> Option<H> + Sync) {
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.broker.broken.wait() => {
                    self.broker.owe_broken(&begin).await;
                    continue;
                }
            }
            self.broker.results.tend(self.every).await;
            self.broker.owe_broken(&begin).await;
            self.sweep(&begin).await;
            if looked.is_none_or(|when| when.elapsed() >= OPEN_EVERY) {
                looked = Some(tokio::time::Instant::now());
                self.look_at_open(&begin).await;
            }
        }
    }

    /// One pass over the jobs at rest whose payments to providers may be open: what the chain proves of those is recorded,
    /// and brings the held ones to their end.
    pub(super) async fn look_at_open<H: Send>(&self, begin: &(impl Fn() -> Option<H> + Sync)) {
        let mut at_rest = HashSet::new();
        for (state, most) in OPEN {
            match self.broker.jobs.in_state(state, most).await {
                Ok(found) => at_rest.extend(found),
                Err(away) => {
                    warn!(%away, state = state.name(), "jobs with open payments cannot be read");
                    return;
                }
            }
        }
        let unread: Vec<JobId> = {
            let mut closed = self.closed.lock();
            closed.retain(|id| at_rest.contains(id));
            at_rest.difference(&closed).copied().collect()
        };
        let each = |id| async move {
            let Some(_held) = begin() else { return };
            match self.broker.prove_open(id).await {
                Ok(true) => {}
                Ok(false) => drop(self.closed.lock().insert(id)),
                Err(error) => warn!(%error, job = %id, "the open payments of a job were not proven"),
            }
        };
        stream::iter(unread).for_each_concurrent(TOGETHER, each).await;
    }

    /// One pass over the jobs without an owner.
    pub(super) async fn sweep<H: Send>(&self, begin: &(impl Fn() -> Option<H> + Sync)) {
        let due = match self.broker.jobs.due(SWEEP).await {
            Ok(due) => due,
            Err(away) => {
                warn!(%away, "no recovery sweep");
                return;
            }
        };
        self.broker.forget_settled_elsewhere().await;
        let each = |claim| async move {
            if let Some(_held) = begin() {
                self.take(&claim).await;
            }
        };
        stream::iter(due).for_each_concurrent(TOGETHER, each).await;
    }

    async fn take(&self, claim: &ClaimKey) {
        match self.broker.take_orphan(claim).await {
            Ok(Some((job, lease))) => {
                self.broker.bring_to_rest(job, lease).await;
            }
            Ok(None) => {}
            Err(away) => warn!(%away, claim = claim.as_str(), "an orphaned job cannot be taken"),
        }
    }
}

impl Broker {
    /// Takes a job over whose lease has ended, unless this process has it in hand all the same.
    pub(super) async fn take_orphan(&self, claim: &ClaimKey) -> Result<Option<(Job, Lease)>, StoreError> {
        match self.running.has(claim) {
            true => Ok(None),
            false => self.jobs.take_over(claim, self.limits.lease).await,
        }
    }

    /// Brings an orphan we hold the lease of as far as its journal proves, and returns it.
    pub(super) async fn bring_to_rest(&self, job: Job, lease: Lease) -> Job {
        let from = job.state;
        if from.at_rest() {
            // Since it was read. No record will end this lease, and whoever wants the job would wait for it to lapse.
            let _ = self.jobs.release(&lease).await;
            return job;
        }
        let journal = self.journal(job, lease.clone());
        // A settle may outlast the lease. Without it the answer could not be recorded, and would not come twice.
        let lease_for = self.limits.lease;
        if let Err(error) = journal.keeping(lease_for, self.finish(&journal, from)).await {
            warn!(%error, state = from.name(), "an orphaned job was not finished");
        }
        let job = journal.job().await;
        if job.state.at_rest() {
            info!(job = %job.id, from = from.name(), to = job.state.name(), "orphaned job brought to rest");
            tokio::spawn(async move {
                journal.keeping(lease_for, journal.close(CARRY_PATIENCE, lease_for)).await;
            });
        } else if job.state == State::SettlingUpfront && !self.lapsed(&job) {
            // For the same payment to take, at any moment.
            journal.close(Duration::ZERO, lease_for).await;
        } else if let Err(away) = self.jobs.renew(&lease, self.pause(&job)).await {
            warn!(%away, job = %job.id, "lease not renewed; it will lapse");
        }
        Arc::unwrap_or_clone(job)
    }

    /// Jobs that were left unsettled here may have been brought to rest by another gateway.
    async fn forget_settled_elsewhere(&self) {
        for claim in self.tally.exposed() {
            // Of what is in hand here its journal says what is out, and the store may know it later.
            if self.running.has(&claim) {
                continue;
            }
            let Ok(job) = self.jobs.by_claim(&claim).await else { continue };
            if !self.running.has(&claim) {
                self.tally.seen(&claim, job.as_ref());
            }
        }
    }

    async fn finish(&self, journal: &Journal, from: State) -> Result<(), JournalError> {
        match from {
            State::Claimed | State::Working | State::WorkingSettled => self.interrupted(journal).await,
            State::Settling => self.settle_again(journal).await.map(drop),
            State::Delivering => self.delivered_or_lost(journal).await,
            State::SettlingUpfront if !self.lapsed(&*journal.job().await) => Ok(()),
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

    /// Whether nobody can settle the client's payment any more, by a chain's clock that is behind ours.
    fn lapsed(&self, job: &Job) -> bool {
        self.clock.now() >= job.client.valid_before.saturating_add(CLOCKS_DIFFER)
    }

    /// How long a job that cannot be brought to rest is left alone.
    fn pause(&self, job: &Job) -> Duration {
        if job.state == State::Delivering {
            // For as long as another gateway has its answer, as far as the store knows.
            return PAUSE;
        }
        let lapsed_for = self.clock.now().saturating_sub(job.client.valid_before);
        Duration::from_secs(lapsed_for).clamp(PAUSE, LONGEST_PAUSE)
    }

    /// Records what the chain proves of a job's open payments to providers, once it proves it of every one, or that one
    /// is spent. A held job comes to its end by it. Whether something may still be open.
    async fn prove_open(&self, id: JobId) -> Result<bool, JournalError> {
        let proven = |state| OPEN.iter().any(|(open, _)| *open == state);
        let Some(job) = self.jobs.by_id(id).await?.filter(|job| proven(job.state)) else {
            return Ok(true);
        };
        let open = |payment: &&ProviderPayment| payment.fate == Fate::Open;
        if !job.signature_open() {
            return Ok(false);
        }
        if !job.provider.iter().filter(open).all(|payment| self.chains.knows(payment.asset.network)) {
            return Ok(true);
        }
        let (mut spent, mut unspent) = (false, Vec::new());
        for payment in job.provider.iter().filter(open) {
            match self.prove_provider(&job, payment).await {
                Fate::Spent => spent = true,
                Fate::Unspent => unspent.push(payment.nonce),
                // Of several, one that may still be taken is waited for: it is a loss or it is none.
                Fate::Open => return Ok(true),
            }
        }
        let mut event = if spent { Event::ProvedSpent { unspent } } else { Event::ProvedUnspent };
        if job.state == State::Held {
            match self.prove_client(&job, PATIENCE).await {
                // By a gateway that was cut off from the store, and never came back to write it down.
                ClientProof::Paid(receipt) => event = Event::Settled { receipt },
                ClientProof::Unpaid(_) => {}
                // It may have been, and be seen later. Given up is not for good, but lost is.
                ClientProof::Nothing if matches!(event, Event::ProvedSpent { .. }) => return Ok(true),
                ClientProof::Nothing => {}
            }
        }
        let Some((taken, lease)) = self.take_orphan(&job.claim).await? else { return Ok(true) };
        if taken.version != job.version {
            // Should this fail, it lapses.
            let _ = self.jobs.release(&lease).await;
            return Ok(true);
        }
        let job = self.journal(taken, lease).record(event).await?;
        info!(job = %job.id, state = job.state.name(), "the open payments of a job were proven");
        Ok(job.signature_open())
    }

    /// The work cannot be finished: what it needs was in the memory of the process that died.
    async fn interrupted(&self, journal: &Journal) -> Result<(), JournalError> {
        let job = journal.job().await;
        // A payment that may be with the provider is not made again, so the same client payment buys nothing any more.
        let failure = if !job.provider.is_empty() {
            failure(Reason::ProviderLost, "interrupted after a payment to the provider was signed")
        } else {
            failure(Reason::Interrupted, Reason::Interrupted.text())
        };
        journal.record_or_carry(Event::WorkFailed { failure }).await.map(drop)
    }

    /// Asks the chain; where it proves nothing, repeats the identical settle once. Whether the client has paid.
    async fn settle_again(&self, journal: &Journal) -> Result<bool, JournalError> {
        let job = journal.job().await;
        let settled = match self.prove_client(&job, PATIENCE).await {
            ClientProof::Paid(receipt) => Settled::Yes(receipt),
            ClientProof::Unpaid(why) => Settled::No { reason: why.to_string() },
            ClientProof::Nothing => self.settle(&job, false, Duration::ZERO).await,
        };
        match settled {
            Settled::Yes(receipt)
                if job.state == State::Settling && job.is_given_once() && job.shortfall.is_none() =>
            {
                let here = self.results.find(key(&job)).is_some();
                let gone = self.has_gone(&job).await;
                if !(job.trusted || here || gone) {
                    // Another has it, or died with it: `delivering`, until that is known.
                    self.settled(journal, receipt).await?;
                    return Ok(true);
                }
                // In one record: nobody hands it out from here.
                journal.note(Event::Settled { receipt }).await?;
                let job = journal.insist(if gone { lost(&job) } else { Event::HandedOut }).await?;
                if gone {
                    warn!(job = %job.id, "the answer of a paid job is gone: a refund is due");
                }
                Ok(true)
            }
            Settled::Yes(receipt) => {
                self.settled(journal, receipt).await?;
                Ok(true)
            }
            Settled::No { reason } => {
                self.refused(journal, &reason).await?;
                Ok(false)
            }
            Settled::Unknown => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests;
