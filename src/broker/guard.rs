//! What the broker asks of the guards: before it takes a client's money, and before it signs.

use tracing::warn;

use super::delivery::Delivery;
use super::journal::Journal;
use super::stop::{Stop, failure};
use super::work::Work;
use super::{Broker, Sale};
use crate::guard::Wish;
use crate::jobs::job::Sold;
use crate::jobs::{Event, Job};
use crate::money::Amount;
use crate::providers::Offer;
use crate::reason::{Problem, Reason};
use crate::x402::{Address, PaymentFlow};

impl Broker {
    /// Whether clients are charged before the work, whatever they signed: while too much was lost otherwise.
    pub(super) fn loses_too_much(&self) -> bool {
        self.spending.guards.losses_spent()
    }

    /// Takes from the wallet's limits what the work will cost, before anybody is charged or paid. Where no more may be spent
    /// with one provider, another does it whom the payment covers. Where a limit refuses all the same, the job is voided: the
    /// same payment may try again, but for one whose quote is withdrawn.
    pub(super) async fn reserve(&self, journal: &Journal, sale: &mut Sale) -> Result<(), Stop> {
        let job = journal.job().await;
        loop {
            let refused = match self.reserve_once(&job, sale).await {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            // Each was passed over once, so this ends.
            let passed_on = match refused.reason {
                Reason::BudgetSpent if !self.all_spent(sale) => sale.work.passed_on().await,
                _ => None,
            };
            let Some(next) = passed_on else {
                let failure = failure(refused.reason, refused.reason.text());
                let job = journal.record(Event::WorkFailed { failure }).await?;
                return Err(Stop::Answer(Box::new(Delivery::of_rest(&job, true))));
            };
            warn!(job = %job.id, spent = sale.sold.provider, provider = next.provider,
                "no more may be spent with a provider; turned to another");
            sale.sold = Sold {
                provider: next.provider,
                operation: next.operation,
                cost: whole_cost(&next.offer, sale.work.as_ref()),
                passed_over: next.passed_over,
                ..sale.sold.clone()
            };
            // No loss is made on it.
            (sale.offer, sale.loss) = (Some(next.offer), None);
        }
    }

    fn all_spent(&self, sale: &Sale) -> bool {
        let spent = |offer: &Offer| {
            self.spending.guards.all_spent(&offer.asset, whole_cost(offer, sale.work.as_ref()))
        };
        sale.offer.as_ref().is_some_and(spent)
    }

    async fn reserve_once(&self, job: &Job, sale: &mut Sale) -> Result<(), Problem> {
        let Some(offer) = &sale.offer else { return Ok(()) };
        // Out of stock: paid for long ago.
        if offer.pay_to == Address::ZERO {
            return Ok(());
        }
        let wish = Wish {
            provider: &sale.sold.provider,
            asset: &offer.asset,
            amount: whole_cost(offer, sale.work.as_ref()),
            payer: job.requester,
            until: match sale.requirement.flow {
                PaymentFlow::Authorization => Some(job.client.valid_before),
                PaymentFlow::Upfront => None,
            },
        };
        sale.reserved = Some(self.spending.guards.reserve(wish).await?);
        Ok(())
    }
}

/// What work costs on these terms, all its payments together.
pub(super) fn whole_cost(offer: &Offer, work: &dyn Work) -> Amount {
    Amount::new(offer.cost.units().saturating_mul(work.payments().into()))
}
