//! A challenge as the payer sees it: a provider's 402, either version.

use serde_json::value::RawValue;

use super::{Address, Network, PaymentFlow, Version};
use crate::money::Amount;

/// A decoded `PaymentRequired`.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// The version it came in, and so the version of the payment.
    pub version: Version,
    /// The entries we could read; unknown schemes, networks and malformed entries are left out.
    pub accepts: Vec<Offered>,
    /// v2 `resource`, verbatim, to be echoed.
    pub resource: Option<Box<RawValue>>,
    /// v2 `extensions`, verbatim, to be echoed.
    pub extensions: Option<Box<RawValue>>,
    /// `error`, for the log.
    pub error: Option<String>,
}

/// One `accepts[]` entry of scheme `exact` on an EVM network.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The network.
    pub network: Network,
    /// The token.
    pub asset: Address,
    /// How much.
    pub amount: Amount,
    /// To whom.
    pub pay_to: Address,
    /// `maxTimeoutSeconds`.
    pub max_timeout_seconds: u64,
    /// EIP-712 domain of the token, if given.
    pub domain: Option<(String, String)>,
    /// When it settles.
    pub flow: PaymentFlow,
    /// The entry itself, byte for byte, for the v2 echo.
    pub raw: Box<RawValue>,
}
