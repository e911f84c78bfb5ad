//! The purse of one attempt: the only place where provider money leaves.
//!
//! Terms are checked against the quote and the caps, the payment is signed with a nonce derived from the
//! client's claim, and the record of it is durable before the signature is handed out.

use std::sync::Arc;

use async_trait::async_trait;

use super::journal::Journal;
use crate::clock::{Clock, UnixSeconds};
use crate::jobs::{Event, Job};
use crate::money::Amount;
use crate::providers::{Offer, PaymentHeader, Purse, PurseError};
use crate::wallet::Wallet;
use crate::x402::Challenge;

/// Pays for the work of one attempt.
pub(super) struct AttemptPurse {
    pub(super) journal: Journal,
    pub(super) wallet: Arc<Wallet>,
    pub(super) clock: Clock,
    /// The terms the client's price was made from.
    pub(super) offer: Offer,
    pub(super) provider: String,
    /// The most one payment may be.
    pub(super) cap: Amount,
    /// When our signature lapses: our own deadline, not the provider's maximum.
    pub(super) valid_before: UnixSeconds,
}

#[async_trait]
impl Purse for AttemptPurse {
    async fn pay(&self, step: &'static str, challenge: &Challenge) -> Result<PaymentHeader, PurseError> {
        let job = self.journal.job().await;
        let now = self.clock.now();
        if self.valid_before <= now {
            return Err(PurseError::Late);
        }
        let offered = self.wallet.select(challenge, &self.offer, self.cap)?;
        let signed = match job.signed_for(step) {
            // The identical payment: same nonce, same window, same signature.
            Some(signed) => self.wallet.sign_again(challenge, offered, signed)?,
            None => {
                self.within_what_the_client_pays(&job, offered.amount, now)?;
                self.wallet.authorize(
                    challenge,
                    offered,
                    &self.provider,
                    &job.claim,
                    step,
                    job.attempt,
                    self.valid_before,
                )?
            }
        };
        if job.signed_for(step).is_none() {
            let event = Event::Signed { payment: signed.record };
            self.journal.record(event).await.map_err(|error| PurseError::Journal(error.to_string()))?;
        }
        Ok(signed.header)
    }
}

impl AttemptPurse {
    /// A second signature is given only if all that may still be spent stays within the client's payment;
    /// the first may be as large as the quote said, whatever that did to the margin.
    fn within_what_the_client_pays(
        &self,
        job: &Job,
        amount: Amount,
        now: UnixSeconds,
    ) -> Result<(), PurseError> {
        let Some(open) = job.spendable(now) else {
            return Err(PurseError::Terms("the sum of earlier payments overflows".into()));
        };
        if open == Amount::ZERO {
            return Ok(());
        }
        let limit = job.client.requirement.amount;
        match open.checked_add(amount) {
            Some(total) if total <= limit => Ok(()),
            _ => Err(PurseError::Terms(format!(
                "{open} is already signed for this job; {amount} more would pass the client's {limit}"
            ))),
        }
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
