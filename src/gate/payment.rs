//! What the gate looks at in a payment. The signature and the time window are checked after it, by `x402::check`.

use crate::money::Amount;
use crate::x402::{Address, Network, PaymentFlow, Version};

/// A decoded payment of scheme `exact`.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its version.
    pub version: Version,
    /// Its network.
    pub network: Network,
    /// `to` of the authorization.
    pub pay_to: Address,
    /// `value` of the authorization.
    pub value: Amount,
    /// `accepted`, which version 2 must have.
    pub accepted: Option<Echo<'a>>,
}

/// The requirement that a v2 client says it was offered.
#[derive(Clone, Copy, Debug)]
pub struct Echo<'a> {
    /// `network`.
    pub network: Network,
    /// `asset`.
    pub asset: Address,
    /// `payTo`.
    pub pay_to: Address,
    /// `amount`.
    pub amount: Amount,
    /// `maxTimeoutSeconds`.
    pub max_timeout_seconds: u64,
    /// `extra.paymentFlow`.
    pub flow: PaymentFlow,
    /// `extra.quoteId`.
    pub quote_id: Option<&'a str>,
}
