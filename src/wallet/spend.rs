//! From a provider's challenge to a signed payment: the entry that keeps to the quoted terms, and the
//! authorization for it. No I/O: the broker's purse writes [`Signed::payment`] to the journal, and
//! only then lets [`Signed::header`] out.

use super::{Wallet, WalletError};
use crate::clock::UnixSeconds;
use crate::jobs::ClaimKey;
use crate::jobs::job::{Fate, ProviderPayment};
use crate::money::Amount;
use crate::providers::{Offer, PaymentHeader, PurseError};
use crate::x402::{Asset, Authorization, Challenge, Offered, PaymentFlow};

/// Seconds a provider needs to collect, which may be the last thing it does: facilitators refuse what lapses within 6.
pub const COLLECT: u64 = 10;

/// A payment to be made: for what, and on which terms.
#[derive(Clone, Copy, Debug)]
pub struct Spend<'a> {
    /// The client payment that the work belongs to.
    pub claim: &'a ClaimKey,
    /// The job's attempt.
    pub attempt: u32,
    /// The adapter's name for the step.
    pub step: &'a str,
    /// Who is paid.
    pub provider: &'a str,
    /// What the provider asks for.
    pub challenge: &'a Challenge,
    /// What it was quoted to ask for, at most.
    pub offer: &'a Offer,
}

/// A signed payment: the record first, the header once that is durable.
#[derive(Clone, Debug)]
pub struct Signed {
    /// For the journal.
    pub payment: ProviderPayment,
    /// For the provider.
    pub header: PaymentHeader,
}

impl Wallet {
    /// Signs the payment for `spend`, valid until `deadline` or the provider's `maxTimeoutSeconds`, whichever
    /// is sooner. `recorded` is what the journal has for this step and attempt: then the outcome is that very
    /// payment again, or an error where the provider's terms are no longer its terms.
    pub fn pay(
        &self,
        spend: &Spend<'_>,
        recorded: Option<&ProviderPayment>,
        now: UnixSeconds,
        deadline: UnixSeconds,
    ) -> Result<Signed, PurseError> {
        let asset = &spend.offer.asset;
        let cap = self.cap(asset)?;
        let offered = match recorded {
            None => select(spend.challenge, spend.offer, cap)?,
            Some(recorded) => quoted(spend.challenge, spend.offer)
                .find(|offered| offered.amount == recorded.amount)
                .ok_or_else(|| changed(spend.provider))?,
        };
        let payment = ProviderPayment {
            step: spend.step.to_owned(),
            attempt: spend.attempt,
            provider: spend.provider.to_owned(),
            asset: asset.clone(),
            pay_to: offered.pay_to,
            amount: offered.amount,
            nonce: self.nonce(spend.claim, spend.step, spend.attempt),
            // A record of another wallet, or of none, is another payment's.
            from: recorded.map_or(Some(self.address()), |recorded| recorded.from),
            valid_before: match recorded {
                Some(recorded) => recorded.valid_before,
                None => deadline.min(now.saturating_add(offered.max_timeout_seconds)),
            },
            fate: recorded.map_or(Fate::Open, |recorded| recorded.fate),
        };
        if recorded.is_some_and(|recorded| *recorded != payment) {
            return Err(changed(spend.provider));
        }
        if payment.valid_before < now.saturating_add(COLLECT) {
            return Err(PurseError::Late);
        }
        let authorization = Authorization {
            from: self.address(),
            to: payment.pay_to,
            value: payment.amount,
            valid_after: 0,
            valid_before: payment.valid_before,
            nonce: payment.nonce,
        };
        let signature = self.sign(asset, &authorization)?;
        let (name, value) = spend.challenge.payment(offered, &authorization, &signature);
        Ok(Signed { payment, header: PaymentHeader { name, value } })
    }
}

/// The entry of `challenge` to pay: on the quoted network, asset and payee, at no more than the quoted cost and
/// `cap`. The cheapest; of two, the one that is settled after the work.
pub fn select<'c>(challenge: &'c Challenge, offer: &Offer, cap: Amount) -> Result<&'c Offered, PurseError> {
    let cheapest = quoted(challenge, offer)
        .min_by_key(|offered| (offered.amount, offered.flow == PaymentFlow::Upfront))
        .ok_or_else(|| terms(challenge, offer))?;
    if cheapest.amount > cap {
        return Err(PurseError::OverCap { amount: cheapest.amount, cap });
    }
    Ok(cheapest)
}

/// The entries that keep to the offer.
fn quoted<'c, 'o>(
    challenge: &'c Challenge,
    offer: &'o Offer,
) -> impl Iterator<Item = &'c Offered> + use<'c, 'o> {
    challenge.accepts.iter().filter(move |offered| {
        offered.network == offer.asset.network
            && offered.asset == offer.asset.address
            && offered.pay_to == offer.pay_to
            && offered.amount <= offer.cost
            && domain_matches(offered, &offer.asset)
    })
}

/// Whether what we would sign is what the entry's token verifies. A seller that names no domain is only
/// understood where the token is one we know.
fn domain_matches(offered: &Offered, asset: &Asset) -> bool {
    match &offered.domain {
        Some((name, version)) => *name == asset.name && *version == asset.version,
        None => Asset::default_for(asset.network).is_some_and(|known| known == *asset),
    }
}

fn terms(challenge: &Challenge, offer: &Offer) -> PurseError {
    let entry = |offered: &Offered| {
        format!("{} of {} on {} to {}", offered.amount, offered.asset, offered.network, offered.pay_to)
    };
    let found = match challenge.accepts.len() {
        0 => "nothing that can be paid".to_owned(),
        _ => challenge.accepts.iter().take(3).map(entry).collect::<Vec<_>>().join(", or "),
    };
    PurseError::Terms(format!(
        "quoted up to {} of {} on {} to {}; asked for {found}",
        offer.cost, offer.asset.address, offer.asset.network, offer.pay_to
    ))
}

fn changed(provider: &str) -> PurseError {
    PurseError::Terms(format!("{provider} was already sent a payment on other terms for this step"))
}

impl From<WalletError> for PurseError {
    fn from(error: WalletError) -> Self {
        match error {
            WalletError::OverCap { amount, cap } => PurseError::OverCap { amount, cap },
            other => PurseError::Terms(other.to_string()),
        }
    }
}
