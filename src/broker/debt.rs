//! Payers whose payment could not be collected after a provider was paid for them, or after they had the answer. Whatever is
//! bought for them, or would be answered first, is settled before the work from then on: a wallet that is emptied between
//! verifying and settling does so once.

use tracing::{error, warn};

use super::{Broker, Presented};
use crate::jobs::Job;

/// The store's space: by paying wallet, the job.
const DEBTORS: &str = "debtors";

impl Broker {
    /// Whether the client is charged before anything is bought for it, whatever it signed.
    pub(super) async fn pays_first(&self, payment: &Presented, brokered: bool, after: bool) -> bool {
        (brokered && self.loses_too_much()) || ((brokered || after) && self.owes(payment).await)
    }

    /// Whether this payer left a bill to us before. Where the store cannot tell, it counts as so.
    async fn owes(&self, payment: &Presented) -> bool {
        let payer = payment.authorization.from.to_string();
        !matches!(self.jobs.get(DEBTORS, &payer).await, Ok(None))
    }

    /// Remembers the payer of an uncollected job. For good: a payment once uncollected stays so.
    pub(super) async fn remember_debt(&self, job: &Job) {
        let payer = job.requester.to_string();
        warn!(job = %job.id, payer, "work was done that its client did not pay for");
        if let Err(away) = self.jobs.put(DEBTORS, &payer, job.id.to_string().as_bytes(), None).await {
            error!(%away, job = %job.id, payer, "a debtor was not recorded");
        }
    }
}
