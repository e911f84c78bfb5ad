//! The purse of one attempt: the only place where provider money leaves.
//!
//! The wallet checks the terms against the quote and the caps and signs with a nonce derived from the client's
//! claim; the guards say whether it may be spent, the payees whether it may be paid there; the record of it is durable
//! before the signature is handed out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tracing::error;

use super::Spending;
use super::journal::{Journal, JournalError};
use crate::clock::{Clock, UnixSeconds};
use crate::guard::{BornLoss, Reserved, Wish};
use crate::jobs::job::{Fate, ProviderPayment};
use crate::jobs::{Event, Job};
use crate::money::Amount;
use crate::providers::{Offer, PaymentHeader, Purse, PurseError};
use crate::quote_cache::Dollars;
use crate::reason::Reason;
use crate::telemetry::Guard;
use crate::wallet::{PayeeError, Spend, Wallet};
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
    pub(super) spending: Spending,
    pub(super) hand: Hand,
}

/// What was taken from the limits for this attempt. What is left at its end goes back.
pub(super) struct Hand(Mutex<(Option<Reserved>, Option<BornLoss>)>);

impl Hand {
    pub(super) fn new(reserved: Option<Reserved>, loss: Option<BornLoss>) -> Self {
        Hand(Mutex::new((reserved, loss)))
    }
}

#[async_trait]
impl Purse for AttemptPurse {
    async fn pay(&self, step: &str, challenge: &Challenge) -> Result<PaymentHeader, PurseError> {
        // Also where the payment was signed before: it is not handed out again.
        if let Some(closed) = self.spending.guards.closed() {
            return Err(PurseError::Guarded(closed.reason));
        }
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
            self.payee(&signed.payment).await?;
            self.take(&job, &signed.payment).await?;
            let event = Event::Signed { payment: signed.payment };
            self.journal.record(event).await.map_err(|error| {
                // Another has the job: what it exposes is that one's to count.
                if matches!(error, JournalError::Fenced) {
                    self.spending.guards.settled(&job.claim);
                }
                PurseError::Journal(error.to_string())
            })?;
        }
        Ok(signed.header)
    }
}

impl AttemptPurse {
    /// Whether the provider is who it was before.
    async fn payee(&self, payment: &ProviderPayment) -> Result<(), PurseError> {
        let known = self.spending.payees.check(&payment.provider, &payment.asset, payment.pay_to).await;
        known.map_err(|error| match error {
            PayeeError::Away { .. } => PurseError::Guarded(Reason::StoreAway),
            PayeeError::Changed { .. } | PayeeError::NotNamed { .. } => {
                error!(%error, "a provider is not paid");
                PurseError::Guarded(self.spending.guards.refusal(Guard::Payee).reason)
            }
        })
    }

    /// Takes the payment from what was reserved, or else from the limits themselves.
    async fn take(&self, job: &Job, payment: &ProviderPayment) -> Result<(), PurseError> {
        let (reserved, loss) = std::mem::take(&mut *self.hand.0.lock());
        let mut reserved = match reserved.filter(|hand| hand.covers(&payment.asset, payment.amount)) {
            Some(reserved) => reserved,
            None => {
                let wish = Wish {
                    provider: &payment.provider,
                    asset: &payment.asset,
                    amount: payment.amount,
                    payer: job.requester,
                    until: job.receipt.is_none().then_some(job.client.valid_before),
                };
                let refused = |problem: crate::reason::Problem| PurseError::Guarded(problem.reason);
                self.spending.guards.reserve(wish).await.map_err(refused)?
            }
        };
        let lapses = Duration::from_secs(payment.valid_before.saturating_sub(self.clock.now()));
        reserved.sign(&job.claim, payment.nonce, &payment.asset, payment.amount, lapses);
        if let Some(loss) = loss {
            loss.made();
        }
        self.hand.0.lock().0 = Some(reserved);
        Ok(())
    }
}

/// A second signature is given only if all that is or may be spent stays within the client's payment; the first
/// may be as large as the terms said, whatever that did to the margin. One that lapsed may have been spent before.
pub(super) fn within_what_the_client_pays(job: &Job, next: &ProviderPayment) -> Result<(), PurseError> {
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
    async fn pay(&self, step: &str, _: &Challenge) -> Result<PaymentHeader, PurseError> {
        Err(PurseError::Terms(format!("nothing is paid for {step} here")))
    }
}
