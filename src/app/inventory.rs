//! The wallet, as the providers' inventory sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::guard::{Guards, Wish};
use crate::jobs::ClaimKey;
use crate::providers::{InventoryOrder, InventoryWallet, Offer, PaymentHeader, PurseError};
use crate::telemetry::Guard;
use crate::wallet::{Payees, Spend, Wallet};
use crate::x402::Challenge;

/// Whose stock it is: the one provider that sells any.
const SELLER: &str = "xcache";

/// Signs for the operator's own stock, within the wallet's caps and limits. The inventory makes each payment durable
/// before it sends it.
pub(super) struct Stock {
    pub(super) wallet: Arc<Wallet>,
    pub(super) guards: Arc<Guards>,
    pub(super) payees: Arc<Payees>,
    pub(super) clock: Clock,
}

#[async_trait]
impl InventoryWallet for Stock {
    async fn sign(&self, order: &InventoryOrder, challenge: &Challenge) -> Result<PaymentHeader, PurseError> {
        let spend = Spend {
            claim: &ClaimKey::inventory(&order.scope),
            attempt: order.attempt,
            step: order.step,
            provider: "inventory",
            challenge,
            offer: &order.offer,
        };
        let Offer { cost, asset, pay_to } = &order.offer;
        self.payees.check(SELLER, asset, *pay_to).await.map_err(|error| {
            tracing::error!(%error, "no stock is bought");
            PurseError::Guarded(self.guards.refusal(Guard::Payee).reason)
        })?;
        // Nobody's payment but the operator's own: nothing is exposed.
        let payer = self.wallet.address();
        let wish = Wish { provider: SELLER, asset, amount: *cost, payer, until: None };
        let reserved = self.guards.reserve(wish).await;
        let mut reserved = reserved.map_err(|problem| PurseError::Guarded(problem.reason))?;
        let signed = self.wallet.pay(&spend, None, self.clock.now(), order.valid_before)?;
        let lapses = Duration::from_secs(order.valid_before.saturating_sub(self.clock.now()));
        let (claim, payment) = (ClaimKey::inventory(&order.scope), &signed.payment);
        reserved.sign(&claim, payment.nonce, asset, payment.amount, lapses);
        Ok(signed.header)
    }
}
