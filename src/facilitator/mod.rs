//! Facilitators: those who verify a client's payment and put it on chain.
//!
//! Their words about failure prove nothing (a mined transfer may later read "expired"), so the answers here
//! keep three things apart: it says yes, it says no, and *nobody knows*.

mod http;
pub mod local;
mod pool;

pub use self::http::HttpFacilitator;
pub use self::pool::{Pool, reset, tripped};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::x402::{Address, Network, Receipt, Version};

/// The body of `/verify` and `/settle`; the same bytes every time it is sent.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequest {
    /// The payment's version.
    pub x402_version: Version,
    /// The client's payload, verbatim.
    pub payment_payload: Arc<RawValue>,
    /// The one requirement it was matched with; for v2 equal to the payload's `accepted` as JSON.
    pub payment_requirements: Arc<RawValue>,
    /// Who pays, as far as whoever asks knows: no answer may say another.
    #[serde(skip)]
    pub payer: Option<Address>,
    /// Where, likewise.
    #[serde(skip)]
    pub network: Option<Network>,
}

/// The answer of `/verify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The payment would settle now.
    Valid,
    /// It would not, in the facilitator's own words.
    Invalid {
        /// `invalidReason`, passed through, never switched on.
        reason: String,
        /// `invalidMessage`.
        message: Option<String>,
    },
}

/// The answer of `/settle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The money moved, says the facilitator.
    Settled(Receipt),
    /// Broadcast, not yet mined: ask again with the identical request.
    Pending(Receipt),
    /// It says no. Not a proof: a nonce it calls used may have been used by this very payment.
    Refused(Receipt),
}

/// No answer that can be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FacilitatorError {
    /// It was never reached, so it did nothing.
    #[error("the facilitator was not reached: {0}")]
    NotSent(String),
    /// The request was sent and may have had its effect: time-out, reset, 5xx, not JSON.
    #[error("the facilitator gave no answer that can be understood: {0}")]
    Unknown(String),
}

/// One entry of `/supported`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supported {
    /// Protocol version.
    pub version: Version,
    /// `exact`, ...
    pub scheme: String,
    /// The network.
    pub network: Network,
}

/// A verifier and settler of client payments.
#[async_trait]
pub trait Facilitator: Send + Sync {
    /// Would this payment settle?
    async fn verify(&self, request: &PaymentRequest) -> Result<Verdict, FacilitatorError>;

    /// Settle it. Repeating the identical request is always safe: the chain takes a nonce once.
    async fn settle(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError>;

    /// Settle it, where the identical request may have been sent before, by this process or another.
    async fn settle_again(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.settle(request).await
    }

    /// Which of several settles this payment, by name; `None` where there is but one, without a name.
    async fn settler(&self, _: &PaymentRequest) -> Option<String> {
        None
    }

    /// Uses the one of this name no more: it said of a payment that it is settled, and the chain shows that it is not.
    async fn distrust(&self, _name: &str, _why: &str) {}

    /// What it can settle.
    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError>;
}

/// What is asked of a facilitator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `/verify`.
    Verify,
    /// `/settle`.
    Settle,
    /// `/supported`.
    Supported,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Valid, settled, or an answer to what it supports.
    Yes,
    /// Invalid, or refused.
    No,
    /// Broadcast, not mined yet.
    Pending,
    /// Not reached.
    NotSent,
    /// No answer that can be understood.
    Unknown,
}

impl Outcome {
    fn of(error: &FacilitatorError) -> Self {
        match error {
            FacilitatorError::NotSent(_) => Outcome::NotSent,
            FacilitatorError::Unknown(_) => Outcome::Unknown,
        }
    }
}

/// Hears of every call, by the facilitator's name.
pub trait Observer: Send + Sync {
    /// A call ended.
    fn called(&self, facilitator: &str, operation: Operation, outcome: Outcome, duration: Duration);

    /// It is used, or not any more.
    fn available(&self, facilitator: &str, available: bool);
}
