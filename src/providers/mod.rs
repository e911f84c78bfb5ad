//! Providers: those who sell the work. One trait, one file (or folder) for each.
//!
//! An adapter translates between our [`Order`] and one provider's API. It decides *when* to pay, and
//! asks its [`Purse`] for it; it never sees a key, a journal or a budget, so it cannot spend
//! what was not recorded. To add one: implement [`Provider`], name it in the registry; or declare it in `proxy.toml`,
//! which needs no code.

mod declared;
mod encode;
mod exchange;
mod merit;
mod openx402;
mod passed;
mod registry;
mod returned;
#[cfg(test)]
mod testing;
mod xcache;

pub use declared::Declared;
pub use merit::Merit;
pub use openx402::OpenX402;
pub use passed::{Passed, PassedBody};
pub use registry::{Registry, Surroundings};
pub use returned::{Returned, Sum, returned};
pub use xcache::{
    InventoryOrder, InventoryWallet, StockOutcome, StockPurchase, XCache, stock_purchases, stock_steps,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::ids::JobId;
use crate::intake::{Ask, Content, Label};
use crate::money::Amount;
use crate::reason::Reason;
use crate::x402::{Address, Asset};

/// One thing a provider does, named as in its API: `set`, `pin`, `pin_json`, `execute`.
pub type Operation = &'static str;

/// A seller of work.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name in `proxy.toml`, quotes, metrics and answers: `xcache`, `openx402`, `merit-systems`.
    fn name(&self) -> &'static str;

    /// The operation that would serve `ask`, or why none does. Pure: no I/O, and the same answer
    /// for every ask of the same size bucket and options. `ask.size` may be a bucket's upper end.
    fn sells(&self, ask: &Ask) -> Result<Operation, NotSold>;

    /// The live price of `operation` for an ask of up to `ask.size` bytes, from the provider's own 402.
    /// Anything but a 402 (or a documented free answer) is no offer.
    async fn offer(&self, operation: Operation, ask: &Ask) -> Result<Offer, ProviderError>;

    /// Does the work. Pays, if the operation is paid, through `purse` and no other way.
    /// Success is the adapter's word: an answer that only looks like success is an error here.
    async fn perform(&self, order: &Order, purse: &dyn Purse) -> Result<Done, ProviderError>;

    /// When `operation` is paid for.
    fn pays(&self, operation: &str) -> Pays {
        let _ = operation;
        Pays::WithHead
    }

    /// Takes bytes as they arrive, for an operation with [`Pays::AfterBody`], and for nothing: to order the work on them,
    /// an [`Order`] names what is returned. Nobody needs what is never ordered, so nothing is undone.
    async fn receive(
        &self,
        label: &Label,
        arriving: Arriving,
        deadline: Duration,
    ) -> Result<String, ProviderError> {
        let _ = (label, arriving, deadline);
        Err(ProviderError::new(Fault::Internal, "this provider is not given bytes before it is paid"))
    }

    /// Releases what [`Done::stored`] names, as the bytes of `GET /files/{id}`. Only for providers
    /// whose results are read back through us.
    async fn read_back(&self, handle: &StoredHandle) -> Result<ReadBack, ProviderError> {
        let _ = handle;
        Err(ProviderError::new(
            Fault::Refused,
            "this provider's results are not read back through the gateway",
        ))
    }
}

/// When an operation is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pays {
    /// By the head of the request that brings the bytes: they must be known to be good before any of them is sent.
    WithHead,
    /// After the provider has all bytes. Up to then nothing is lost, so they may pass while they arrive.
    AfterBody,
}

/// Bytes on their way from the client. They end well only if they are what was asked for, all of them.
#[derive(Debug)]
pub struct Arriving {
    /// The bytes.
    pub stream: crate::outgoing::Stream,
    /// How many they are, if that is known.
    pub length: Option<u64>,
}

/// Why a provider does not sell what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSold {
    /// It does other work altogether (stores, when asked to run).
    #[error("{provider} does not do this kind of work")]
    Operation {
        /// Who does not.
        provider: &'static str,
    },
    /// It does the work, but not with this option.
    #[error("{provider} does not sell {option}")]
    Option {
        /// Who does not.
        provider: &'static str,
        /// The option with its value, as the client wrote it: `language "ruby"`.
        option: String,
    },
    /// Too many bytes for it.
    #[error("{provider} takes up to {limit} bytes")]
    Size {
        /// Who does not.
        provider: &'static str,
        /// Its limit.
        limit: u64,
    },
}

/// What a provider wants for an operation, as its live challenge said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What one operation costs us. For inventory operations: the amortised share.
    pub cost: Amount,
    /// In what.
    pub asset: Asset,
    /// To whom; zero address for inventory, which pays nobody per operation.
    pub pay_to: Address,
}

/// A piece of work ordered of a provider.
#[derive(Clone, Debug)]
pub struct Order {
    /// The job it is for.
    pub job: JobId,
    /// 1 on the first attempt of the job.
    pub attempt: u32,
    /// Which of several orders of this attempt it is, from 1; 0 where there is one.
    pub part: u16,
    /// What [`Provider::sells`] chose.
    pub operation: String,
    /// What was asked.
    pub ask: Ask,
    /// The bytes.
    pub content: Content,
    /// The quote's terms; the purse refuses to pay more.
    pub offer: Offer,
    /// When the whole order must have ended, counted from its start.
    pub deadline: Duration,
}

/// Pays for one order: checks terms against the quote and the caps, signs with a derived nonce, makes
/// the signature durable, and only then hands it out.
#[async_trait]
pub trait Purse: Send + Sync {
    /// The payment for a challenge the provider sent (or is known to send) for `step`.
    /// Calling it twice for the same step gives the identical payment, never a second one.
    async fn pay(&self, step: &str, challenge: &crate::x402::Challenge) -> Result<PaymentHeader, PurseError>;
}

/// A signed payment, ready for the wire.
#[derive(Clone, Debug)]
pub struct PaymentHeader {
    /// `PAYMENT-SIGNATURE` or `X-PAYMENT`.
    pub name: http::HeaderName,
    /// The base64 payload; marked sensitive.
    pub value: http::HeaderValue,
}

/// Why the purse would not pay. Nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurseError {
    /// No entry of the challenge is on the quoted network, asset and payee, at no more than its price.
    #[error("the provider's terms are not the quoted ones: {0}")]
    Terms(String),
    /// More than the cap on one provider payment.
    #[error("{amount} is over the cap of {cap} for one provider payment")]
    OverCap {
        /// What it asked.
        amount: Amount,
        /// `wallet.max_payment`.
        cap: Amount,
    },
    /// The signature could not be made durable, so it was not handed out.
    #[error("the payment could not be journalled: {0}")]
    Journal(String),
    /// Too little time is left for the provider to collect.
    #[error("the order's deadline is too near to sign for")]
    Late,
    /// A limit of the wallet, or its owner, forbids it for now.
    #[error("the wallet may not pay now: {}", .0.code())]
    Guarded(Reason),
}

/// Work done.
#[derive(Debug, Default)]
pub struct Done {
    /// The result itself, where that is the provider's own answer; then there is nothing else.
    pub passed: Option<Passed>,
    /// The result object of the client's answer, as its members are named in the API of `/store` and `/run`.
    pub result: serde_json::Map<String, serde_json::Value>,
    /// Where the bytes can be read back, if through us. Never shown to a client.
    pub stored: Option<StoredHandle>,
}

/// A provider's own name for a stored thing: secret, since whoever holds it can read or change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHandle {
    /// Which provider.
    pub provider: String,
    /// Its handle, as the adapter wrote it (xCache: cache id and key).
    pub handle: String,
    /// Media type to serve it with.
    pub content_type: Option<String>,
    /// Its size in bytes.
    pub size: u64,
}

/// A stored thing, read back.
#[derive(Clone, Debug)]
pub struct ReadBack {
    /// The bytes as the client stored them.
    pub bytes: bytes::Bytes,
}

/// Why an order failed. Whether money may be gone is the purse's knowledge, not the adapter's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}: {message}")]
pub struct ProviderError {
    /// The class of fault.
    pub fault: Fault,
    /// What happened, for the log; clients see the class only.
    pub message: String,
}

/// Classes of provider faults; the `Display` form is the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Connection refused, reset, DNS, TLS.
    Unreachable,
    /// A deadline passed.
    Timeout,
    /// 5xx, or an answer that is not what its API says.
    Broken,
    /// 4xx: it does not want this request.
    Refused,
    /// It asked for payment again after it was paid.
    Unpaid,
    /// The same, because our wallet has not enough.
    Funds,
    /// Terms other than quoted, or over a cap; nothing was signed.
    Terms,
    /// Our own store or wallet failed before anything was signed.
    Internal,
    /// A limit of our wallet, or its owner, forbade to sign.
    Guarded(Reason),
}

impl Fault {
    /// Whether it is our own, so that it would be met with any provider.
    pub fn is_ours(self) -> bool {
        match self {
            Fault::Internal => true,
            // Of what a guard forbids, these are about the one provider.
            Fault::Guarded(reason) => !matches!(reason, Reason::PayeeChanged | Reason::BudgetSpent),
            Fault::Unreachable
            | Fault::Timeout
            | Fault::Broken
            | Fault::Refused
            | Fault::Unpaid
            | Fault::Funds
            | Fault::Terms => false,
        }
    }
}

impl ProviderError {
    /// An error of this class.
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        ProviderError { fault, message: message.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::Unreachable => "unreachable",
            Fault::Timeout => "timeout",
            Fault::Broken => "broken",
            Fault::Refused => "refused",
            Fault::Unpaid => "unpaid",
            Fault::Funds => "funds",
            Fault::Terms => "terms",
            Fault::Internal => "internal",
            Fault::Guarded(_) => "guarded",
        })
    }
}

impl From<PurseError> for ProviderError {
    fn from(error: PurseError) -> Self {
        let fault = match error {
            PurseError::Journal(_) => Fault::Internal,
            PurseError::Guarded(reason) => Fault::Guarded(reason),
            _ => Fault::Terms,
        };
        ProviderError::new(fault, error.to_string())
    }
}
