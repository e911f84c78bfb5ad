//! What was taken from the limits, in the hands of whoever is about to spend it.

use std::sync::Arc;
use std::time::Duration;

use super::levels::Outs;
use super::rate::Allowance;
use super::{Guards, micros};
use crate::jobs::ClaimKey;
use crate::money::Amount;
use crate::x402::{Asset, B256};

/// What a payment to a provider may be made of. What is not spent of it goes back when it is dropped.
pub struct Reserved {
    guards: Arc<Guards>,
    left: u64,
    spend: Allowance,
    provider: Allowance,
    exposed: Option<Outs>,
}

impl Reserved {
    pub(super) fn new(
        guards: Arc<Guards>,
        left: u64,
        spend: Allowance,
        provider: Allowance,
        exposed: Option<Outs>,
    ) -> Reserved {
        Reserved { guards, left, spend, provider, exposed }
    }

    /// Whether there is enough of it for this payment, and it is not too old.
    pub fn covers(&self, asset: &Asset, amount: Amount) -> bool {
        micros(amount, asset) <= self.left && self.spend.is_good() && self.provider.is_good()
    }

    /// A payment of this much, which lapses in `lapses`, is about to be signed under `nonce` for this job: it is spent, and
    /// out until the job is settled.
    pub fn sign(&mut self, claim: &ClaimKey, nonce: B256, asset: &Asset, amount: Amount, lapses: Duration) {
        self.guards.nonces.signed(nonce);
        if let Some(balances) = self.guards.balances.get() {
            balances.signed(claim, asset, amount, lapses);
        }
        let amount = micros(amount, asset);
        self.left = self.left.saturating_sub(amount);
        self.spend.spend(amount);
        self.provider.spend(amount);
        if let Some((all, one)) = &mut self.exposed {
            let out = (all.split(amount), one.split(amount));
            self.guards.exposed.lock().entry(claim.clone()).or_default().push(out);
        }
    }
}

/// A loss that may be made.
pub struct BornLoss(Allowance);

impl BornLoss {
    pub(super) fn new(allowance: Allowance) -> BornLoss {
        BornLoss(allowance)
    }

    /// It is made.
    pub fn made(mut self) {
        self.0.spend(u64::MAX);
    }
}
