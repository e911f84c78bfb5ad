//! The work of one attempt, in the time that its payment leaves for it, by one provider after another until one was paid.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::guard::whole_cost;
use super::journal::{Journal, JournalError};
use super::purse::{AttemptPurse, Hand, NoPurse};
use super::work::{Product, WorkError};
use super::{Broker, Sale};
use crate::jobs::job::Sold;
use crate::jobs::{Event, Job, JobKind};
use crate::providers::{Offer, Purse};
use crate::reason::Reason;
use crate::wallet::COLLECT;
use crate::x402::PaymentFlow;

impl Broker {
    /// The work, in the time that is left for it: by whom it was sold, or by another if that one fails before it is paid.
    pub(super) async fn perform(&self, journal: &Journal, sale: Box<Sale>) -> Result<Product, WorkError> {
        let began = tokio::time::Instant::now();
        let mut job = journal.job().await;
        let whole = self.time_for_work(&job, sale.requirement.flow);
        if whole.is_zero() {
            return Err(WorkError::new(Reason::PaymentExpired, "too little of the authorization is left"));
        }
        let Sale { sold, mut offer, mut work, reserved, loss, .. } = *sale;
        let mut hand = Hand::new(reserved, loss);
        if job.quote != sold {
            // What a crash interrupted may be done by somebody else now.
            job = journal.record(Event::Turned { sold }).await.map_err(not_recorded)?;
        }
        loop {
            let left = whole.saturating_sub(began.elapsed());
            let purse = self.purse(journal, &job, offer, hand, left);
            let outcome = tokio::time::timeout(left, work.perform(&job, purse.as_ref(), left)).await;
            let mut error = match outcome {
                Ok(Ok(product)) => return Ok(product),
                Ok(Err(error)) => error,
                Err(_) => return Err(too_slow(&job, whole)),
            };
            let left = whole.saturating_sub(began.elapsed());
            // Once a payment is out it may be taken at any moment, and a second one would be on top of it.
            let nobody_paid = !journal.job().await.signature_open();
            let another = match error.undone.take().filter(|_| nobody_paid) {
                Some(undone) => tokio::time::timeout(left, undone.by_another()).await.ok().flatten(),
                None => None,
            };
            let Some(another) = another else { return Err(error) };
            warn!(job = %job.id, failed = job.quote.provider, message = error.message,
                provider = another.provider, "turned to another provider");
            let sold = Sold {
                provider: another.provider,
                operation: another.operation,
                cost: whole_cost(&another.offer, another.work.as_ref()),
                passed_over: another.passed_over,
                ..job.quote.clone()
            };
            job = journal.record(Event::Turned { sold }).await.map_err(not_recorded)?;
            // What was reserved is the other's. For this one the purse asks anew, before it signs.
            (offer, work, hand) = (Some(another.offer), another.work, Hand::new(None, None));
        }
    }

    fn time_for_work(&self, job: &Job, flow: PaymentFlow) -> Duration {
        let margin = self.limits.settle_margin.as_secs();
        let ends = job.client.valid_before.saturating_sub(margin);
        let left = Duration::from_secs(ends.saturating_sub(self.clock.now()));
        match flow {
            PaymentFlow::Authorization => left.min(self.limits.work_timeout),
            PaymentFlow::Upfront => self.limits.work_timeout,
        }
    }

    fn purse(
        &self,
        journal: &Journal,
        job: &Job,
        offer: Option<Offer>,
        hand: Hand,
        deadline: Duration,
    ) -> Box<dyn Purse> {
        match (&self.spending.wallet, offer) {
            (Some(wallet), Some(offer)) => Box::new(AttemptPurse {
                journal: journal.clone(),
                wallet: Arc::clone(wallet),
                clock: self.clock.clone(),
                offer,
                provider: job.quote.provider.clone(),
                spending: self.spending.clone(),
                hand,
                // Work may end at its deadline, and be collected for after it.
                deadline: self.clock.now().saturating_add(deadline.as_secs()).saturating_add(COLLECT),
            }),
            _ => Box::new(NoPurse),
        }
    }
}

fn too_slow(job: &Job, time: Duration) -> WorkError {
    let reason = match job.kind {
        JobKind::App => Reason::AppTimeout,
        JobKind::Store | JobKind::Run => Reason::ProviderTimeout,
    };
    WorkError::new(reason, format!("not done within {} s", time.as_secs()))
}

fn not_recorded(error: JournalError) -> WorkError {
    WorkError::new(Reason::Internal, format!("who does the work was not recorded: {error}"))
}
