//! The wallet, as the providers' inventory sees it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::jobs::ClaimKey;
use crate::providers::{InventoryOrder, InventoryWallet, PaymentHeader, PurseError};
use crate::wallet::{Spend, Wallet};
use crate::x402::Challenge;

/// Signs for the operator's own stock, within the wallet's caps. The inventory makes each payment durable before it
/// sends it.
pub(super) struct Stock {
    wallet: Arc<Wallet>,
    clock: Clock,
}

impl Stock {
    pub(super) fn new(wallet: Arc<Wallet>, clock: Clock) -> Self {
        Stock { wallet, clock }
    }
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
        let signed = self.wallet.pay(&spend, None, self.clock.now(), order.valid_before)?;
        Ok(signed.header)
    }
}
