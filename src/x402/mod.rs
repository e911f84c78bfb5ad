//! The x402 protocol, versions 1 and 2, without any I/O: what is offered ([`Requirement`]), what a
//! client signs ([`Payment`]), what settling it proves ([`Receipt`]).
//!
//! The same types serve both sides. As the seller we make requirements and decode payments; as the
//! buyer of a provider's work we decode its challenge and encode a payment of ours.
//! Source: the x402 specification, `specs/x402-specification-v1.md` and `-v2.md`,
//! `specs/transports-v*/http.md`, `specs/schemes/exact/scheme_exact_evm.md`.

pub mod abi;
mod accepted;
mod challenge;
mod check;
mod eip3009;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod header;
mod json;
mod network;
mod payment;
mod receipt;
mod requirement;

pub use accepted::{Accepted, Extra};
pub use alloy::primitives::{Address, B256};
pub use challenge::{Challenge, ChallengeError, Offered};
pub use check::{CheckError, SignatureCheck, Verified, Window, check, check_signature};
pub use eip3009::{Domain, SignatureError, address_of};
pub use json::Malformed;
pub use network::{Asset, Network, UnknownNetwork};
pub use payment::{Payment, PaymentError};
pub use requirement::{Resource, challenge_v1, challenge_v2};

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::money::Amount;

/// The protocol version of a challenge or payment; the two differ in fields, headers and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Version {
    /// Challenge in the body, payment in `X-PAYMENT`, receipt in `X-PAYMENT-RESPONSE`.
    V1,
    /// `PAYMENT-REQUIRED`, `PAYMENT-SIGNATURE`, `PAYMENT-RESPONSE`.
    V2,
}

impl From<Version> for u8 {
    fn from(version: Version) -> u8 {
        match version {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }
}

impl TryFrom<u8> for Version {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            1 => Ok(Version::V1),
            2 => Ok(Version::V2),
            other => Err(format!("x402Version {other} is not supported; use 1 or 2")),
        }
    }
}

/// When the client's payment is settled, as `extra.paymentFlow` announces it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaymentFlow {
    /// Verified before the work, settled after it succeeded. The default; absent on the wire.
    #[default]
    Authorization,
    /// Settled before the work starts.
    Upfront,
}

/// One way to pay for a request: the version-free form of an `accepts[]` entry, scheme `exact`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The token to pay in, and its network.
    pub asset: Asset,
    /// Exactly this much; neither less nor more is taken.
    pub amount: Amount,
    /// Who is paid.
    pub pay_to: Address,
    /// How long the whole exchange may take; clients sign for this long.
    pub max_timeout_seconds: u64,
    /// When settlement happens.
    #[serde(default)]
    pub flow: PaymentFlow,
}

/// An EIP-3009 `TransferWithAuthorization` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// The payer.
    pub from: Address,
    /// The payee.
    pub to: Address,
    /// Atomic units moved.
    pub value: Amount,
    /// Not spendable at or before this time.
    #[serde(with = "decimal")]
    pub valid_after: UnixSeconds,
    /// Not spendable at or after this time.
    #[serde(with = "decimal")]
    pub valid_before: UnixSeconds,
    /// Usable once per payer and token.
    pub nonce: B256,
}

/// The outcome of a settlement: `PAYMENT-RESPONSE` / `X-PAYMENT-RESPONSE`, and the answer of
/// a facilitator's `/settle`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Whether the money moved.
    pub success: bool,
    /// Transaction hash, empty if there is none.
    #[serde(default)]
    pub transaction: String,
    /// The network, named as in the payment's version: CAIP-2 in v2, the short name in v1.
    #[serde(default)]
    pub network: String,
    /// The paying address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    /// Why not, in the facilitator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// More about why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

/// Seconds as decimal strings, as x402 writes every number of an authorization.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(D::Error::custom("a time is written as decimal digits in a string"));
        }
        text.parse().map_err(D::Error::custom)
    }
}
