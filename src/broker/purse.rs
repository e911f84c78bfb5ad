//! The purse of one attempt: the only place where provider money leaves.
//!
//! The wallet checks the terms against the quote and the caps and signs with a nonce derived from the client's
//! claim; the record of it is durable before the signature is handed out.

use std::sync::Arc;

use async_trait::async_trait;

use super::journal::Journal;
use crate::clock::{Clock, UnixSeconds};
use crate::jobs::{Event, Job};
use crate::money::Amount;
use crate::providers::{Offer, PaymentHeader, Purse, PurseError};
use crate::wallet::{Spend, Wallet};
use crate::x402::Challenge;

/// Pays for the work of one attempt.
pub(super) struct AttemptPurse {
    pub(super) journal: Journal,
    pub(super) wallet: Arc<Wallet>,
    pub(super) clock: Clock,
    /// The provider's terms, as last asked for.
    pub(super) offer: Offer,
    pub(super) provider: String,
    /// When our signature lapses: our own deadline and the time to collect, not the provider's maximum.
    pub(super) deadline: UnixSeconds,
}

#[async_trait]
impl Purse for AttemptPurse {
    async fn pay(&self, step: &'static str, challenge: &Challenge) -> Result<PaymentHeader, PurseError> {
        let job = self.journal.job().await;
        let now = self.clock.now();
        let spend = Spend {
            claim: &job.claim,
            attempt: job.attempt,
            step,
            provider: &self.provider,
            challenge,
            offer: &self.offer,
        };
        let recorded = job.signed_for(step);
        let signed = self.wallet.pay(&spend, recorded, now, self.deadline)?;
        if recorded.is_none() {
            within_what_the_client_pays(&job, signed.payment.amount, now)?;
            let event = Event::Signed { payment: signed.payment };
            self.journal.record(event).await.map_err(|error| PurseError::Journal(error.to_string()))?;
        }
        Ok(signed.header)
    }
}

/// A second signature is given only if all that may still be spent stays within the client's payment; the first
/// may be as large as the terms said, whatever that did to the margin.
fn within_what_the_client_pays(job: &Job, amount: Amount, now: UnixSeconds) -> Result<(), PurseError> {
    let open = job.spendable(now);
    if open == Some(Amount::ZERO) {
        return Ok(());
    }
    let limit = job.client.requirement.amount;
    match open.and_then(|open| open.checked_add(amount)) {
        Some(total) if total <= limit => Ok(()),
        _ => Err(PurseError::Terms(format!(
            "{amount} more than is signed already would pass the client's payment of {limit}"
        ))),
    }
}

/// The purse of work that pays nobody: the app's.
pub(super) struct NoPurse;

#[async_trait]
impl Purse for NoPurse {
    async fn pay(&self, step: &'static str, _: &Challenge) -> Result<PaymentHeader, PurseError> {
        Err(PurseError::Terms(format!("nothing is paid for {step} here")))
    }
}
