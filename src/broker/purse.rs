//! The purse of one attempt: the only place where provider money leaves.
//!
//! The wallet checks the terms against the quote and the caps and signs with a nonce derived from the client's
//! claim; the record of it is durable before the signature is handed out.

use std::sync::Arc;

use async_trait::async_trait;

use super::journal::Journal;
use crate::clock::{Clock, UnixSeconds};
use crate::jobs::job::{Fate, ProviderPayment};
use crate::jobs::{Event, Job};
use crate::money::Amount;
use crate::providers::{Offer, PaymentHeader, Purse, PurseError};
use crate::quote_cache::Dollars;
use crate::wallet::{Spend, Wallet};
use crate::x402::{Asset, Challenge};

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
        let identifier = self.wallet.identifier(&job.claim, step, job.attempt);
        let challenge = &challenge.clone().identified(&identifier);
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
            within_what_the_client_pays(&job, &signed.payment)?;
            let event = Event::Signed { payment: signed.payment };
            self.journal.record(event).await.map_err(|error| PurseError::Journal(error.to_string()))?;
        }
        Ok(signed.header)
    }
}

/// A second signature is given only if all that is or may be spent stays within the client's payment; the first
/// may be as large as the terms said, whatever that did to the margin. One that lapsed may have been spent before.
fn within_what_the_client_pays(job: &Job, next: &ProviderPayment) -> Result<(), PurseError> {
    let earlier = || job.provider.iter().filter(|payment| payment.fate != Fate::Unspent);
    if earlier().next().is_none() {
        return Ok(());
    }
    let paid = &job.client.requirement;
    // All of it is dollars, in tokens of different decimals: the finest of them measures.
    let decimals = earlier().chain([next]).map(|payment| payment.asset.decimals);
    let decimals = decimals.fold(paid.asset.decimals, u8::max);
    let worth = |units, asset: &Asset| Dollars { units, decimals: asset.decimals }.ceil(decimals);
    let total = earlier()
        .chain([next])
        .try_fold(Amount::ZERO, |sum, payment| sum.checked_add(worth(payment.amount, &payment.asset)?));
    match (total, worth(paid.amount, &paid.asset)) {
        (Some(total), Some(limit)) if total <= limit => Ok(()),
        _ => Err(PurseError::Terms(format!(
            "{} more than is signed already would pass the client's payment of {}",
            next.amount, paid.amount
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
