//! One attempt at one paid piece of work. The order of the steps in [`Broker::attempt`] is the product.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::again::{Again, Next};
use super::delivery::{Delivery, Fresh, told};
use super::journal::{Journal, JournalError};
use super::settlement::{Settled, payment_request};
use super::stop::{Stop, failure};
use super::work::{WorkError, WorkFault};
use super::{Broker, Limits, Sale};
use crate::facilitator::Verdict;
use crate::jobs::job::{ClientLeg, Failure, ONE_PART, PARTS};
use crate::jobs::{Claim, Event, Job, State, StoreError};
use crate::reason::{Charged, Problem, Reason, Retry};
use crate::telemetry;
use crate::x402::{PaymentFlow, Receipt};

/// How long a finished attempt waits for a store that is away, to write what it carries.
pub(super) const CARRY_PATIENCE: Duration = Duration::from_secs(600);

impl Broker {
    /// Does what the payment buys, once, and says what to answer. Runs to its end whatever the client
    /// does, so the caller spawns it and only listens. `guard` is dropped when nothing is left to be written.
    ///
    /// A future is as large as all that it may ever wait for, and is copied whole wherever it goes: what is rare, or
    /// large, is in an allocation of its own here and below.
    pub async fn sell(self: Arc<Self>, mut sale: Box<Sale>, guard: impl Send + 'static) -> Delivery {
        // Its names are left to whoever pays anew.
        let withdrawn = sale.work.withdrawn();
        if !sale.names.is_empty()
            && withdrawn.is_none()
            && let Some(delivery) = Box::pin(self.hold_names(&mut sale)).await
        {
            return delivery;
        }
        let Some(slot) = self.slot() else { return Box::pin(self.overloaded(&sale.payment)).await };
        let fresh = self.fresh_job(&sale);
        let (brokered, after) = (sale.offer.is_some(), sale.after);
        // Asked at once: the store is waited for one time.
        let owes = self.pays_first(&sale.payment, brokered, after);
        let (claimed, owes) = tokio::join!(self.jobs.claim(&fresh, self.limits.lease), owes);
        let (job, lease, slot, owes) = match claimed {
            Ok(Claim::Won(job, lease)) => (job, lease, slot, owes),
            Ok(Claim::Taken(job)) => {
                // Waiting for another's work takes no slot: one payment, sent often, must not take them all.
                drop(slot);
                let next = withdrawn.map_or(Next::Sale(&sale.sold), Next::Refusal);
                match Box::pin(self.seen_before(&sale.payment, next, job)).await {
                    Again::Answer(delivery) => return *delivery,
                    // That may have taken a while.
                    Again::GoOn(job, lease, slot) => {
                        (*job, lease, slot, self.pays_first(&sale.payment, brokered, after).await)
                    }
                }
            }
            Err(away) => {
                warn!(%away, "no claim");
                // It may have been claimed long ago, and settled.
                return Delivery::problem(Problem::new(Reason::StoreAway).charged(Charged::Unknown));
            }
        };
        let journal = self.journal(job, lease);
        let lease_for = self.limits.lease;
        let attempt = Box::pin(self.attempt(&journal, sale, owes));
        let outcome = journal.keeping(lease_for, attempt).await;
        let unsettled = journal.answered_first().await;
        // Settling behind the answer is a part of the attempt; anything else is over.
        let slot = unsettled.then_some(slot);
        // The answer waits for nothing more; the lease is kept until all is written.
        tokio::spawn(async move {
            let closing = async {
                if unsettled {
                    Box::pin(self.collect(&journal)).await;
                }
                drop(slot);
                self.see_handed_out(&journal).await;
                journal.close(CARRY_PATIENCE, lease_for).await;
            };
            journal.keeping(lease_for, closing).await;
            drop(guard);
        });
        outcome
    }

    async fn attempt(&self, journal: &Journal, mut sale: Box<Sale>, owes: bool) -> Delivery {
        if let Some(reason) = sale.work.withdrawn() {
            return Box::pin(self.end(journal, failure(reason, reason.text()))).await;
        }
        let job = journal.job().await;
        let flow = match job.state {
            // Begun upfront, so it goes on upfront, whatever the reason was.
            State::SettlingUpfront => PaymentFlow::Upfront,
            _ if owes => PaymentFlow::Upfront,
            // As the client signed it: the route may have another flow by now.
            _ => job.client.requirement.flow,
        };
        sale.requirement.flow = flow;
        if let Some(key) = &sale.key
            && let Err(away) = self.remember_key(key, &job).await
        {
            return Stop::Journal(away.into()).into_delivery();
        }
        if job.state == State::Claimed {
            match self.lost_a_name(&sale.names).await {
                Ok(false) => {}
                Ok(true) => {
                    // Repeated, it finds the other's answer.
                    let failure =
                        failure(Reason::Interrupted, "another payment is used for the same request");
                    return Box::pin(self.end(journal, failure)).await;
                }
                Err(away) => return Stop::Journal(away.into()).into_delivery(),
            }
        }
        if let Some(webhook) = &sale.webhook
            && let Err(away) = Box::pin(self.remember_webhook(webhook, &job)).await
        {
            return Stop::Journal(away.into()).into_delivery();
        }
        sale.payment.announce.job(job.id);
        let outcome = match flow {
            PaymentFlow::Authorization => self.settle_on_success(journal, sale).await,
            PaymentFlow::Upfront => Box::pin(self.settle_upfront(journal, sale)).await,
        };
        outcome.unwrap_or_else(|stop| stop.into_delivery())
    }

    /// Nothing was spent, so it ends.
    async fn end(&self, journal: &Journal, failure: Failure) -> Delivery {
        match journal.record(Event::Rejected { failure }).await {
            Ok(job) => Delivery::of_rest(&job, true),
            Err(error) => Stop::from(error).into_delivery(),
        }
    }

    /// verify, work, settle, deliver; or to deliver at once, and leave the settling to [`Broker::collect`].
    async fn settle_on_success(&self, journal: &Journal, mut sale: Box<Sale>) -> Result<Delivery, Stop> {
        let (verified, credit) = match sale.after && sale.offer.is_none() {
            true => Box::pin(async { tokio::join!(self.verify(journal), self.trust(journal)) }).await,
            false => (self.verify(journal).await, None),
        };
        verified?;
        if sale.offer.is_some() {
            Box::pin(self.reserve(journal, &mut sale)).await?;
        }
        let product = match self.perform(journal, sale).await {
            Ok(product) => product,
            Err(error) => return Box::pin(self.work_failed(journal, error)).await,
        };
        let (event, stream, once) = product.into_event();
        if let Some(credit) = credit {
            // One record too: the next attempt may be trusted less.
            journal.note(Event::Trusted).await?;
            let stream = self.keep(journal, event.answer(), stream).await;
            let job = journal.record(event).await?;
            credit.given(&job.claim);
            return Ok(Delivery::trusted(&job, stream, once));
        }
        // The result and "may be settled from now on" are one record, before /settle is called. Only for a provider
        // already paid does it go on without: else a restart would forget the work, and the client had paid for it.
        let job = match journal.job().await.signature_open() {
            true => journal.record_or_carry(event).await?,
            false => journal.record(event).await?,
        };
        match self.settle(&job, true, self.limits.unknown_hold).await {
            Settled::Yes(receipt) => {
                // Before anybody can see that it is done, and ask for it.
                let stream = self.keep(journal, job.answer.as_ref(), stream).await;
                let answered = !journal.carries().await;
                // The client need not wait for this record: what it paid for is on record, and the chain has the proof.
                let job = journal.keep(Event::Settled { receipt }).await?;
                debug!(job = %job.id, provider = job.quote.provider, "sold");
                Ok(self.hand_out(journal, &job, answered, stream, once).await)
            }
            Settled::No { reason } => {
                let job = Box::pin(self.refused(journal, &reason)).await?;
                Ok(Delivery::of_rest(&job, true))
            }
            Settled::Unknown => {
                // Nobody gets it before it is known; who has paid then finds it here.
                drop(self.keep(journal, job.answer.as_ref(), stream).await);
                Ok(Delivery::unsettled(&job))
            }
        }
    }

    /// settle, work, deliver. Or, where a crash interrupted the settle: the identical one again, and on from there.
    async fn settle_upfront(&self, journal: &Journal, mut sale: Box<Sale>) -> Result<Delivery, Stop> {
        let job = journal.job().await;
        let fresh = job.state != State::SettlingUpfront;
        if fresh {
            self.reserve(journal, &mut sale).await?;
        }
        let job = if fresh { journal.record(Event::SettleFirst).await? } else { job };
        match self.settle(&job, fresh, self.limits.unknown_hold).await {
            Settled::Yes(receipt) => journal.record_or_carry(Event::Settled { receipt }).await?,
            Settled::No { reason } => {
                let job = self.refused(journal, &reason).await?;
                return Ok(Delivery::of_rest(&job, true));
            }
            Settled::Unknown => return Ok(Delivery::unsettled(&job)),
        };
        match self.perform(journal, sale).await {
            Ok(product) => {
                let (event, stream, once) = product.into_event();
                let stream = self.keep(journal, event.answer(), stream).await;
                let job = journal.record_or_carry(event).await?;
                let answered = !journal.carries().await;
                Ok(self.hand_out(journal, &job, answered, stream, once).await)
            }
            Err(error) => self.work_failed(journal, error).await,
        }
    }

    /// The answer of a completed job, once it is on record that there is one (`answered`: it is): of a process that dies before
    /// that, all that is left is a client that was charged for nothing, which is owed. While the store is away the client
    /// waits, and is then told to come back for it. What cannot be kept is given out all the same: it would be lost.
    async fn hand_out(
        &self,
        journal: &Journal,
        job: &Job,
        answered: bool,
        stream: Option<Fresh>,
        once: Vec<(String, String)>,
    ) -> Delivery {
        let Limits { unknown_hold, lease, .. } = self.limits;
        let written = answered || journal.written_within(unknown_hold, lease).await;
        match (written, &stream) {
            (false, None | Some(Fresh { kept: true, .. })) => Delivery::unwritten(job),
            _ => Delivery::fresh(job, stream, once),
        }
    }

    /// The completed job. The client has paid and its answer is here: nothing keeps the two apart any more, not even
    /// another process that took the job over meanwhile.
    pub(super) async fn settled(
        &self,
        journal: &Journal,
        receipt: Receipt,
    ) -> Result<Arc<Job>, JournalError> {
        journal.insist(Event::Settled { receipt }).await
    }

    /// The job whose client does not pay.
    pub(super) async fn refused(&self, journal: &Journal, why: &str) -> Result<Arc<Job>, JournalError> {
        let reason = match journal.job().await.state {
            State::SettlingUpfront => Reason::PaymentRejected,
            _ => Reason::SettlementRefused,
        };
        let job = journal.record_or_carry(Event::Refused { failure: failure(reason, why) }).await?;
        if job.state == State::Uncollected {
            self.remember_debt(&job).await;
        }
        // As long as it is not written somebody else may take the job over and settle: nobody is told to pay anew.
        match journal.carries().await {
            true => Err(StoreError::Away("the refusal of a settlement is not recorded".to_owned()).into()),
            false => Ok(job),
        }
    }

    /// Asks the facilitator whether the payment would settle. Nothing was spent yet, so every "no" voids.
    async fn verify(&self, journal: &Journal) -> Result<(), Stop> {
        let request = payment_request(&*journal.job().await);
        let asked = Instant::now();
        let verdict = self.facilitator.verify(&request).await;
        self.metrics.verified(asked.elapsed(), telemetry::Verified::from(&verdict));
        let failure = match verdict {
            Ok(Verdict::Valid) => {
                // Until something is signed or answered a crash loses nothing that it would save.
                journal.note(Event::Verified).await?;
                return Ok(());
            }
            Ok(Verdict::Invalid { reason, message }) => {
                info!(reason, ?message, "the facilitator rejects a payment");
                failure(Reason::PaymentRejected, &reason)
            }
            Err(error) => {
                warn!(%error, "not verified");
                failure(Reason::FacilitatorAway, Reason::FacilitatorAway.text())
            }
        };
        let job = journal.record(Event::Rejected { failure }).await?;
        Err(Stop::Answer(Box::new(Delivery::of_rest(&job, true))))
    }

    async fn work_failed(&self, journal: &Journal, error: WorkError) -> Result<Delivery, Stop> {
        let reason = error.reason();
        warn!(reason = reason.code(), message = error.message, "work failed");
        let failure = failure(reason, reason.text());
        let job = journal.record_or_carry(Event::WorkFailed { failure }).await?;
        // As long as it is not written another may void it otherwise, and take the payment again.
        if told(&job).retry() == Retry::NewPayment && journal.carries().await {
            let away = StoreError::Away("the end of a job is not recorded".to_owned());
            return Err(Stop::Journal(away.into()));
        }
        match error.fault {
            // The app's own words, when nobody was charged for them.
            WorkFault::Declined(product) if job.receipt.is_none() => Ok(Delivery::declined(&job, *product)),
            WorkFault::Declined(_) | WorkFault::Reason(_) => Ok(Delivery::of_rest(&job, true)),
        }
    }

    /// The record of a payment nobody has seen before.
    pub(super) fn fresh_job(&self, sale: &Sale) -> Job {
        let now = self.clock.now_millis();
        Job {
            schema: if sale.work.payments() > 1 { PARTS } else { ONE_PART },
            id: sale.job.unwrap_or_default(),
            claim: sale.payment.claim(),
            fingerprint: sale.payment.fingerprint,
            kind: sale.kind,
            requester: sale.payment.authorization.from,
            created: now,
            updated: now,
            version: 0,
            attempt: 1,
            state: State::Claimed,
            client: Arc::new(ClientLeg {
                version: sale.payment.version,
                requirement: sale.requirement.clone(),
                valid_before: sale.payment.authorization.valid_before,
                payload: Arc::clone(&sale.payload),
                requirements: Arc::clone(&sale.requirements),
                quote_id: sale.payment.quote_id.clone(),
                height: self.chains.height(sale.requirement.asset.network),
            }),
            quote: sale.sold.clone(),
            provider: Vec::new(),
            answer: None,
            trusted: false,
            receipt: None,
            failure: None,
            shortfall: None,
            refunds: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are copied whole to where they are kept: into the task of a sale, and into what that waits for.
    #[test]
    fn a_sale_makes_no_room_for_what_is_rare() {
        fn sell<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        fn attempt<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let sizes = [sell::<Arc<Broker>, Box<Sale>, (), _>(Broker::sell), attempt(Broker::attempt)];
        assert!(sizes.iter().all(|bytes| *bytes < 4 * 1024), "{sizes:?} bytes");
    }
}
