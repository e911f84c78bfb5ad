//! What the broker asks of the guards: before it takes a client's money, and before it signs.

use super::attempt::{Stop, failure};
use super::delivery::Delivery;
use super::journal::Journal;
use super::{Broker, Sale};
use crate::guard::Wish;
use crate::jobs::Event;
use crate::x402::{Address, PaymentFlow};

impl Broker {
    /// Whether clients are charged before the work, whatever they signed: while too much was lost otherwise.
    pub(super) fn loses_too_much(&self) -> bool {
        self.spending.guards.losses_spent()
    }

    /// Takes from the wallet's limits what the work will cost, before anybody is charged or paid. Where one refuses, the
    /// job is voided: the same payment may try again.
    pub(super) async fn reserve(&self, journal: &Journal, sale: &mut Sale) -> Result<(), Stop> {
        let Some(offer) = &sale.offer else { return Ok(()) };
        // Out of stock: paid for long ago.
        if offer.pay_to == Address::ZERO {
            return Ok(());
        }
        let job = journal.job().await;
        let wish = Wish {
            provider: &sale.sold.provider,
            asset: &offer.asset,
            amount: offer.cost,
            payer: job.requester,
            until: match sale.requirement.flow {
                PaymentFlow::Authorization => Some(job.client.valid_before),
                PaymentFlow::Upfront => None,
            },
        };
        match self.spending.guards.reserve(wish).await {
            Ok(reserved) => {
                sale.reserved = Some(reserved);
                Ok(())
            }
            Err(problem) => {
                let failure = failure(problem.reason, problem.reason.text());
                let job = journal.record(Event::WorkFailed { failure }).await?;
                Err(Stop::Answer(Box::new(Delivery::of_rest(&job, true))))
            }
        }
    }
}
