//! A challenge as the payer sees it: a provider's 402, either version.

use http::HeaderMap;
use serde::Deserialize;
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

/// The answer holds no challenge that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no readable challenge: {0}")]
pub struct ChallengeError(String);

impl Challenge {
    /// The challenge of a 402: `PAYMENT-REQUIRED`, else the body.
    pub fn from_response(headers: &HeaderMap, body: &[u8]) -> Result<Challenge, ChallengeError> {
        let wrong = |error: &dyn std::fmt::Display| ChallengeError(error.to_string());
        let decoded = headers
            .get("payment-required")
            .map(|value| base64_simd::STANDARD.decode_to_vec(value.as_bytes()).map_err(|e| wrong(&e)))
            .transpose()?;
        let wire: Wire = serde_json::from_slice(decoded.as_deref().unwrap_or(body)).map_err(|e| wrong(&e))?;
        Ok(Challenge {
            version: wire.x402_version,
            accepts: wire.accepts.into_iter().filter_map(Offered::read).collect(),
            resource: wire.resource,
            extensions: wire.extensions,
            error: wire.error,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    x402_version: Version,
    accepts: Vec<Box<RawValue>>,
    resource: Option<Box<RawValue>>,
    extensions: Option<Box<RawValue>>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    scheme: String,
    network: Network,
    asset: Address,
    #[serde(alias = "maxAmountRequired")]
    amount: Amount,
    pay_to: Address,
    max_timeout_seconds: u64,
    extra: Option<WireExtra>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireExtra {
    name: Option<String>,
    version: Option<String>,
    #[serde(default)]
    payment_flow: PaymentFlow,
}

impl Offered {
    fn read(raw: Box<RawValue>) -> Option<Self> {
        let entry: WireEntry = serde_json::from_str(raw.get()).ok()?;
        let extra = entry.extra.unwrap_or_default();
        (entry.scheme == "exact").then_some(Offered {
            network: entry.network,
            asset: entry.asset,
            amount: entry.amount,
            pay_to: entry.pay_to,
            max_timeout_seconds: entry.max_timeout_seconds,
            domain: extra.name.zip(extra.version),
            flow: extra.payment_flow,
            raw,
        })
    }
}
