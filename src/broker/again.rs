//! A payment that was claimed before, and is presented again.
//!
//! A settled payment is public on chain, so presenting it proves nothing about who presents it: a kept result
//! is released only to whoever also has what was never published (see [`may_release`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::delivery::{Delivery, charged};
use super::stop::{Stop, failure};
use super::{Broker, Presented};
use crate::jobs::job::Sold;
use crate::jobs::{ClaimKey, Event, Job, Lease, State};
use crate::reason::{Charged, Problem, Reason, Retry};
use crate::x402::{Asset, Version};

const FIRST_POLL: Duration = Duration::from_millis(25);
const LONGEST_POLL: Duration = Duration::from_millis(500);

/// What is done about a payment that was claimed before.
pub(super) enum Again {
    /// Answer with this.
    Answer(Box<Delivery>),
    /// It bought nothing so far: start the next attempt of its job, or go on with one that waits to be settled upfront.
    GoOn(Box<Job>, Lease, OwnedSemaphorePermit),
}

impl Again {
    pub(super) fn answer(delivery: Delivery) -> Self {
        Again::Answer(Box::new(delivery))
    }
}

/// What becomes of a payment that was claimed before and bought nothing.
#[derive(Clone, Copy)]
pub(super) enum Next<'a> {
    /// The next attempt, which sells this.
    Sale(&'a Sold),
    /// Its client is told this, and pays anew: it buys nothing for good.
    Refusal(Reason),
    /// Nothing.
    Nothing,
}

impl Broker {
    /// A payment that was claimed before: waits for its job and gives the same answer; one that bought
    /// nothing comes to what is `next`; an orphan is brought to rest first.
    pub(super) async fn seen_before(&self, payment: &Presented, next: Next<'_>, mut job: Job) -> Again {
        // That of another payment is found by the name of its request.
        let forged = job.claim == payment.claim() && !job.client.is_of(&payment.authorization);
        if forged || job.fingerprint != payment.fingerprint {
            // Its last record may be on its way to the store.
            let known = self.running.ended(&job.claim).unwrap_or_else(|| Arc::new(job));
            let problem = Problem::new(Reason::PaymentReused).charged(charged(&known));
            return Again::answer(Delivery::problem(problem));
        }
        if !job.state.is_decided() {
            payment.announce.job(job.id);
        }
        let patience = match job.state {
            State::Settling | State::SettlingUpfront => self.limits.unknown_hold,
            _ => self.limits.work_timeout + self.limits.unknown_hold,
        };
        let give_up = tokio::time::Instant::now() + patience;
        let mut pause = FIRST_POLL;
        loop {
            if let Some(ended) = self.running.ended(&job.claim) {
                job = Arc::unwrap_or_clone(ended);
            }
            if job.state == State::Delivering && self.has_gone(&job).await {
                // Who handed it out may be gone too. If not, he will say what became of it.
                if let Ok(Some((taken, lease))) = self.take_orphan(&job.claim).await {
                    job = self.bring_to_rest(taken, lease).await;
                }
            }
            let goes_on = may_go_on(&job) && !matches!(next, Next::Nothing);
            let rests = job.state.is_decided() && !goes_on;
            if rests || job.answered_first() {
                let mut delivery = self.of_rest(&job, may_release(payment, &job)).await;
                // In the header that this client looks for.
                delivery.receipt = delivery.receipt.map(|(_, receipt)| (payment.version, receipt));
                return Again::answer(delivery);
            }
            match self.take_orphan(&job.claim).await {
                Ok(Some((taken, lease))) if taken.state == State::Voided => {
                    let sold = match next {
                        Next::Sale(sold) if may_go_on(&taken) => sold.clone(),
                        Next::Refusal(reason) if may_go_on(&taken) => {
                            return Again::answer(self.turn_away(taken, lease, reason).await);
                        }
                        _ => {
                            // Should this fail, it lapses.
                            let _ = self.jobs.release(&lease).await;
                            job = taken;
                            continue;
                        }
                    };
                    let journal = self.journal(taken, lease.clone());
                    job = Job::clone(&*journal.job().await);
                    let Some(slot) = self.slot() else {
                        // Should this fail, it lapses.
                        let _ = self.jobs.release(&lease).await;
                        return Again::answer(overloaded());
                    };
                    match journal.record(Event::Reopened { sold }).await {
                        Ok(job) => return Again::GoOn(Box::new(Arc::unwrap_or_clone(job)), lease, slot),
                        Err(error) => warn!(%error, "a voided job was not reopened"),
                    }
                }
                // What it pays for is here again, so it can still be done.
                Ok(Some((taken, lease)))
                    if taken.state == State::SettlingUpfront
                        && matches!(next, Next::Sale(sold) if sold.price == taken.quote.price) =>
                {
                    let Some(slot) = self.slot() else {
                        // Should this fail, it lapses.
                        let _ = self.jobs.release(&lease).await;
                        return Again::answer(Delivery::unfinished(&taken));
                    };
                    return Again::GoOn(Box::new(taken), lease, slot);
                }
                Ok(Some((taken, lease))) => {
                    job = self.bring_to_rest(taken, lease).await;
                    if !job.state.is_decided() {
                        return Again::answer(Delivery::unfinished(&job));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(away) => {
                    warn!(%away, "a known payment's job cannot be read");
                    let problem = Problem::new(Reason::StoreAway).charged(Charged::Unknown);
                    return Again::answer(Delivery::error(&job, problem));
                }
            }
            if tokio::time::Instant::now() + pause >= give_up {
                return Again::answer(Delivery::unfinished(&job));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_POLL);
            match self.jobs.by_claim(&job.claim).await {
                Ok(Some(current)) => job = current,
                Ok(None) => {}
                Err(away) => warn!(%away, "a known payment's job cannot be read"),
            }
        }
    }

    /// Whether this payment was ever claimed. A store that is away cannot tell, and then nobody may be told to pay anew.
    pub async fn claimed(&self, claim: &ClaimKey) -> Result<bool, Problem> {
        Ok(self.find(claim).await?.is_some())
    }

    /// The token that this payment was claimed for, if it ever was.
    pub async fn paid_in(&self, claim: &ClaimKey) -> Result<Option<Asset>, Problem> {
        Ok(self.find(claim).await?.map(|job| job.client.requirement.asset.clone()))
    }

    /// The answer to a payment that would be refused today, for this `reason`, if it was taken before: its quote may have
    /// expired since, its job has not. `None` if it never was, or may still buy something.
    pub async fn known(&self, payment: &Presented, reason: Reason) -> Result<Option<Delivery>, Problem> {
        let next = match reason.retry() {
            Retry::NewPayment => Next::Refusal(reason),
            Retry::SamePayment | Retry::Never => Next::Nothing,
        };
        let Some(job) = self.find(&payment.claim()).await? else { return Ok(None) };
        if may_go_on(&job) && matches!(next, Next::Nothing) {
            return Ok(None);
        }
        Ok(match self.seen_before(payment, next, job).await {
            Again::Answer(delivery) => Some(*delivery),
            Again::GoOn(..) => None,
        })
    }

    /// Ends a voided job for good: its client is about to be told to pay anew, and no copy of this payment that comes later, or
    /// elsewhere, may start the work again.
    async fn turn_away(&self, job: Job, lease: Lease, reason: Reason) -> Delivery {
        let journal = self.journal(job, lease);
        let reopened = Event::Reopened { sold: journal.job().await.quote.clone() };
        let rejected = Event::Rejected { failure: failure(reason, reason.text()) };
        let ended = async {
            journal.note(reopened).await?;
            journal.record(rejected).await
        };
        match ended.await {
            Ok(job) => Delivery::of_rest(&job, true),
            Err(error) => Stop::from(error).into_delivery(),
        }
    }

    async fn find(&self, claim: &ClaimKey) -> Result<Option<Job>, Problem> {
        self.jobs.by_claim(claim).await.map_err(|away| {
            warn!(%away, "nobody knows whether a payment was seen before");
            Problem::new(Reason::StoreAway).charged(Charged::Unknown)
        })
    }

    /// The answer while too many attempts run. That of an earlier attempt can still be given.
    pub(super) async fn overloaded(&self, payment: &Presented) -> Delivery {
        match self.known(payment, Reason::Overloaded).await {
            Ok(Some(delivery)) => delivery,
            Ok(None) => overloaded(),
            Err(problem) => Delivery::problem(problem),
        }
    }

    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }
}

fn overloaded() -> Delivery {
    Delivery::problem(Problem::new(Reason::Overloaded).charged(Charged::No))
}

/// Whether the same payment may start the work again.
fn may_go_on(job: &Job) -> bool {
    job.state == State::Voided && !job.buys_nothing()
}

/// Whether `payment` shows something about `job` that the chain does not: the quote's unguessable id where the
/// job was paid by v2, else the content itself, which the fingerprint has already compared.
fn may_release(payment: &Presented, job: &Job) -> bool {
    match (job.client.version, payment.version) {
        (Version::V2, Version::V2) => {
            job.client.quote_id.is_some() && job.client.quote_id == payment.quote_id
        }
        (Version::V2, Version::V1) => false,
        (Version::V1, _) => payment.has_body,
    }
}
