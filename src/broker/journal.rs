//! The journal of one running job: every event goes through here, durable before it has any effect.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};

use super::handing::Handing;
use super::running::Entered;
use super::tally::Tally;
use crate::clock::Clock;
use crate::jobs::{Appended, Event, Illegal, Job, JobStore, Lease, Step, StoreError};

/// How often a store that does not answer is asked again before a record counts as not made.
const TRIES: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(150);
/// How often it is asked whether it is back, to write what is carried.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The journal of a job we hold the lease of. Shared between the attempt and its purse.
#[derive(Clone)]
pub(super) struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    jobs: Arc<dyn JobStore>,
    clock: Clock,
    tally: Arc<Tally>,
    /// Another, once the job was lost and taken back. Whoever renews it hears of that.
    lease: watch::Sender<Arc<Lease>>,
    /// Shared with whoever looks at it: a job is large, and is looked at more often than it changes.
    job: Arc<Job>,
    /// Events that the store need not know of by themselves. Written together with the next that it must know of.
    noted: Record,
    /// Records that were made but could not be written: the store is away and the money is already
    /// spent, so the job goes on from memory. Written before anything else once the store is back. Each as it was
    /// sent at first: a store knows what it holds already by that.
    carried: Vec<Record>,
    /// The last record, if it counts as not made but may have reached the store all the same. It had no effect; when
    /// another event follows it is taken as made, or memory and store would part here.
    doubtful: Option<Record>,
    /// As long as it is there, nobody in this process takes the job for an orphan.
    running: Option<Entered>,
    /// An answer that is handed out beside the record.
    handing: Option<Handing>,
}

/// Events that are written at once, each with the job after it.
type Record = Vec<(Event, Arc<Job>)>;

/// What becomes of an event that the store does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carry {
    /// It did not happen.
    Never,
    /// It happened: it is carried until the store is back.
    IfAway,
    /// It happened, and counts even if the job was taken over meanwhile.
    Always,
}

/// Why an event was not recorded. Whatever it stood for must not happen.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// The lease is lost: somebody else runs this job now.
    #[error("the job was taken over by another process")]
    Fenced,
    /// The store is away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of ours: the event is not allowed where the job stands.
    #[error(transparent)]
    Illegal(#[from] Illegal),
}

impl Journal {
    pub(super) fn new(
        jobs: Arc<dyn JobStore>,
        clock: Clock,
        tally: Arc<Tally>,
        job: Job,
        lease: Lease,
        running: Entered,
    ) -> Self {
        tally.taken(&job);
        let (noted, carried, doubtful) = (Record::new(), Vec::new(), None);
        let (running, job) = (Some(running), Arc::new(job));
        let (handing, lease) = (None, watch::Sender::new(Arc::new(lease)));
        let inner = Inner { jobs, clock, tally, lease, job, noted, carried, doubtful, running, handing };
        Journal(Arc::new(Mutex::new(inner)))
    }

    /// The job as it stands.
    pub(super) async fn job(&self) -> Arc<Job> {
        Arc::clone(&self.0.lock().await.job)
    }

    /// Whether its client has the answer, and is to be settled with.
    pub(super) async fn answered_first(&self) -> bool {
        self.0.lock().await.job.answered_first()
    }

    /// Notes `event`, which nothing depends on until the next one is recorded: it is written with that one. A crash
    /// until then leaves the job as it was before it.
    pub(super) async fn note(&self, event: Event) -> Result<(), JournalError> {
        let mut inner = self.0.lock().await;
        let record = inner.next(event)?;
        inner.happened(&record);
        inner.noted = record;
        Ok(())
    }

    /// Records `event`, durably, and returns the job after it.
    ///
    /// Cancel-safe: the write runs in a task of its own, so a caller that is dropped here leaves
    /// the record and the job in memory agreeing with each other.
    pub(super) async fn record(&self, event: Event) -> Result<Arc<Job>, JournalError> {
        self.spawn(event, Carry::Never).await
    }

    /// Records `event` of a job whose money is already on its way: if the store stays away it is
    /// carried in memory, and [`Journal::close`] writes it when the store is back.
    pub(super) async fn record_or_carry(&self, event: Event) -> Result<Arc<Job>, JournalError> {
        self.spawn(event, Carry::IfAway).await
    }

    /// As [`Journal::record_or_carry`], for what nothing can undo: if somebody else took the job over meanwhile,
    /// [`Journal::close`] takes it back and writes it.
    pub(super) async fn insist(&self, event: Event) -> Result<Arc<Job>, JournalError> {
        self.spawn(event, Carry::Always).await
    }

    /// As [`Journal::insist`], by [`Journal::close`] alone: whoever is told of it need not wait until it is written.
    /// Until then this process knows better than the store.
    pub(super) async fn keep(&self, event: Event) -> Result<Arc<Job>, JournalError> {
        let mut inner = self.0.lock().await;
        let record = inner.next(event)?;
        let job = inner.happened(&record);
        // Where more than this is in memory only, a crash leaves another end of it.
        let told = job.state.is_decided() && inner.carried.is_empty();
        inner.carried.push(record);
        if let Some(running) = inner.running.as_ref().filter(|_| told) {
            running.ended(&job);
        }
        Ok(job)
    }

    /// The answer is handed out, and whoever closes this journal hears how.
    pub(super) async fn hand_out(&self, handing: Handing) {
        self.0.lock().await.handing = Some(handing);
    }

    /// The answer that is handed out.
    pub(super) async fn handing(&self) -> Option<Handing> {
        self.0.lock().await.handing.take()
    }

    /// Whether something is in memory only.
    pub(super) async fn carries(&self) -> bool {
        !self.0.lock().await.carried.is_empty()
    }

    /// Whether all that happened is on record, at the latest when `patience` is over. As [`Journal::close`], it takes back
    /// a job that was taken over.
    pub(super) async fn written_within(&self, patience: Duration, lease: Duration) -> bool {
        let mut inner = self.0.lock().await;
        let outcome = inner.write_within(patience, lease).await;
        // Where it came to another end meanwhile the store knows better, too.
        let told = matches!(outcome, Ok(()) | Err(JournalError::Illegal(_)));
        if let Some(running) = inner.running.as_ref().filter(|_| told) {
            running.written();
        }
        outcome.is_ok()
    }

    async fn spawn(&self, event: Event, carry: Carry) -> Result<Arc<Job>, JournalError> {
        let inner = Arc::clone(&self.0);
        let write = tokio::spawn(async move { inner.lock().await.write(event, carry).await });
        match write.await {
            Ok(outcome) => outcome,
            Err(panicked) => Err(StoreError::Away(panicked.to_string()).into()),
        }
    }

    /// Does `work`, and keeps the lease alive meanwhile; where it is lost, the next.
    pub(super) async fn keeping<T>(&self, duration: Duration, work: impl Future<Output = T>) -> T {
        let (jobs, mut leases) = {
            let inner = self.0.lock().await;
            (Arc::clone(&inner.jobs), inner.lease.subscribe())
        };
        let renew = async {
            let mut pause = tokio::time::interval(duration / 3);
            pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pause.tick().await;
            loop {
                pause.tick().await;
                let lease = Arc::clone(&leases.borrow_and_update());
                match jobs.renew(&lease, duration).await {
                    Ok(Appended::Written) => {}
                    // It is another's, or ended with the job. There may be a next.
                    Ok(Appended::Fenced) => {
                        if leases.changed().await.is_err() {
                            return std::future::pending().await;
                        }
                    }
                    Err(away) => warn!(claim = lease.claim.as_str(), %away, "lease not renewed"),
                }
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            never = renew => never,
        }
    }

    /// Ends the work on this job: writes what was carried (asking until `patience` is over) and gives
    /// the lease back. A job that was taken over while the store was away is taken back for `lease` first.
    pub(super) async fn close(&self, patience: Duration, lease: Duration) {
        let mut inner = self.0.lock().await;
        if let Err(problem) = inner.write_within(patience, lease).await {
            let (claim, state) = (inner.job.claim.as_str(), inner.job.state.name());
            error!(claim, state, %problem, "a paid job's last events could not be written");
            return;
        }
        // The record says all there is to say.
        inner.running = None;
        if !inner.job.state.at_rest()
            && let Err(away) = inner.jobs.release(&inner.lease()).await
        {
            warn!(claim = inner.job.claim.as_str(), %away, "lease not released; it will lapse");
        }
    }
}

impl Inner {
    fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.lease.borrow())
    }

    /// What `event` is written with: all that was noted before it.
    fn next(&mut self, event: Event) -> Result<Record, Illegal> {
        if let Some(record) = self.doubtful.take() {
            if let Some((_, job)) = record.last() {
                self.job = Arc::clone(job);
            }
            self.carried.push(record);
        }
        let job = Arc::new(self.job.apply(&event, self.clock.now_millis())?);
        let mut record = std::mem::take(&mut self.noted);
        record.push((event, job));
        Ok(record)
    }

    /// The last event of `record` has happened.
    fn happened(&mut self, record: &Record) -> Arc<Job> {
        if let Some((event, job)) = record.last() {
            self.tally.recorded(event, job);
            self.job = Arc::clone(job);
        }
        Arc::clone(&self.job)
    }

    async fn write(&mut self, event: Event, carry: Carry) -> Result<Arc<Job>, JournalError> {
        let name = event.name();
        let record = self.next(event)?;
        let outcome = match self.write_carried().await {
            Ok(()) => self.append(&record).await,
            Err(problem) => Err(problem),
        };
        let away_or_lost = match outcome {
            Ok(()) => return Ok(self.happened(&record)),
            Err(problem) => problem,
        };
        let claim = self.job.claim.as_str();
        match &away_or_lost {
            JournalError::Store(away) if carry != Carry::Never => {
                error!(claim, event = name, %away, "the store is away after money moved; the job goes on from memory");
            }
            JournalError::Fenced if carry == Carry::Always => {
                error!(
                    claim,
                    event = name,
                    "the lease was lost after money moved; the job goes on from memory"
                );
            }
            JournalError::Store(_) => {
                self.doubtful = Some(record);
                return Err(away_or_lost);
            }
            _ => return Err(away_or_lost),
        }
        let job = self.happened(&record);
        self.carried.push(record);
        Ok(job)
    }

    async fn write_carried(&mut self) -> Result<(), JournalError> {
        while let Some(record) = self.carried.first() {
            self.append(record).await?;
            self.carried.remove(0);
        }
        Ok(())
    }

    /// Writes what is carried, asking again until `patience` is over, or why it cannot be written.
    async fn write_within(&mut self, patience: Duration, lease: Duration) -> Result<(), JournalError> {
        let give_up = tokio::time::Instant::now() + patience;
        while let Err(problem) = self.write_carried().await {
            match &problem {
                JournalError::Store(_) => {}
                JournalError::Fenced => self.take_back(lease).await?,
                JournalError::Illegal(_) => return Err(problem),
            }
            if tokio::time::Instant::now() >= give_up {
                return Err(problem);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(())
    }

    /// Takes the job back from whoever took it over, once he is done, and puts what is carried on top of what he
    /// recorded. An error if the two do not fit together; not, if he is not done or the store is away.
    async fn take_back(&mut self, lease: Duration) -> Result<(), JournalError> {
        let Ok(Some((job, lease))) = self.jobs.take_over(&self.job.claim, lease).await else {
            return Ok(());
        };
        let mut job = Arc::new(job);
        if job.state.at_rest() && job.ends_as(&self.job) {
            // He has come to the same end, by what the chain proves.
            self.carried.clear();
            let _ = self.jobs.release(&lease).await;
            return Ok(());
        }
        let events: Vec<&(Event, Arc<Job>)> = self.carried.iter().flatten().collect();
        // He may have come as far, by what the chain proves, and not to the end.
        let as_far = |mine: &Job| job.state.is_decided() && mine.state == job.state && mine.ends_as(&job);
        let known = events.iter().rposition(|(_, mine)| as_far(mine));
        let mut carried = Record::new();
        // A refusal stands while nobody else could settle. Whoever had the job meanwhile may have.
        let stands = |event: &&Event| !matches!(event, Event::Refused { .. });
        let unknown = events.into_iter().skip(known.map_or(0, |at| at + 1)).map(|(event, _)| event);
        for event in unknown.take_while(stands) {
            job = match job.apply(event, self.clock.now_millis()) {
                Ok(job) => Arc::new(job),
                Err(illegal) => {
                    // Should this fail, it lapses.
                    let _ = self.jobs.release(&lease).await;
                    return Err(illegal.into());
                }
            };
            carried.push((event.clone(), Arc::clone(&job)));
        }
        (self.job, self.carried) = (job, vec![carried]);
        self.lease.send_replace(Arc::new(lease));
        Ok(())
    }

    /// Appends until the store says what became of it. Repeating the identical append is safe: a
    /// store recognises the version it already holds.
    async fn append(&self, record: &Record) -> Result<(), JournalError> {
        let Some((_, job)) = record.last() else { return Ok(()) };
        let steps: Vec<Step<'_>> =
            record.iter().map(|(event, job)| Step { event, at: job.updated }).collect();
        let (lease, mut tries) = (self.lease(), 1);
        loop {
            match self.jobs.append_all(&lease, &steps, job).await {
                Ok(Appended::Written) => return Ok(()),
                Ok(Appended::Fenced) => return Err(JournalError::Fenced),
                Err(_) if tries < TRIES => tokio::time::sleep(RETRY_PAUSE * tries).await,
                Err(away) => return Err(away.into()),
            }
            tries += 1;
        }
    }
}
