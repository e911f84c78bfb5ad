//! The local checks: from a payment that was sent to one worth claiming and showing to a facilitator.
//! Pure, and cheap enough that junk never leaves the process.
//!
//! What is left to the facilitator: balance, used nonces, and the signatures of smart wallets.

use super::eip3009::{Domain, SignatureError};
use super::{Address, Network, Payment, PaymentFlow, Requirement};
use crate::clock::UnixSeconds;
use crate::money::Amount;
use crate::reason::Reason;

/// How much later than offered a payment may still be valid: the client's clock may run ahead of ours, and
/// it may sign long after it was offered.
const WINDOW_SLACK: u64 = 600;

/// When a payment must be spendable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The time of the check.
    pub now: UnixSeconds,
    /// Seconds from now in which it must not lapse: the work, the settlement, and a margin.
    pub needed: u64,
}

/// A payment that matches its requirement, and is signed by its payer as far as that can be known here.
/// Made by [`check`] only.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    payment: &'a Payment,
    requirement: &'a Requirement,
    signature: SignatureCheck,
}

/// What is known of a payment's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureCheck {
    /// It recovers to the payer.
    Recovered,
    /// It is not of 65 bytes, so a smart wallet's: only the chain can tell (EIP-1271, ERC-6492).
    Deferred,
}

/// Why a payment does not pay for what is required.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// On another chain.
    #[error("the payment is on {found}, not on {required}")]
    Network {
        /// Required.
        required: Network,
        /// Paid on.
        found: Network,
    },
    /// In another token.
    #[error("the payment is in another asset than {required}")]
    Asset {
        /// Required.
        required: Address,
    },
    /// To somebody else.
    #[error("the payment is to {found}, not to {required}")]
    Payee {
        /// Required.
        required: Address,
        /// Paid to.
        found: Address,
    },
    /// Less or more than the price.
    #[error("the payment is of {found} atomic units, not of {required}")]
    Amount {
        /// Required.
        required: Amount,
        /// Paid.
        found: Amount,
    },
    /// `accepted` differs from the offer in something other than the above.
    #[error("accepted is not one of the offered requirements")]
    Echo,
    /// `validAfter` is in the future.
    #[error("the payment is valid after {valid_after} only; it is {now}")]
    NotYetValid {
        /// Its `validAfter`.
        valid_after: UnixSeconds,
        /// Now.
        now: UnixSeconds,
    },
    /// `validBefore` is past, or too near.
    #[error("the payment is valid before {valid_before}; it must be valid until {needed_until}")]
    Expired {
        /// Its `validBefore`.
        valid_before: UnixSeconds,
        /// When the work may end.
        needed_until: UnixSeconds,
    },
    /// `validBefore` is too far away.
    #[error("the payment is valid before {valid_before}; at most {allowed} was offered")]
    TooLong {
        /// Its `validBefore`.
        valid_before: UnixSeconds,
        /// The latest that is taken.
        allowed: UnixSeconds,
    },
    /// The signature is no signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The signature is somebody else's, or of another message.
    #[error("the signature is not the payer's")]
    Signer,
}

impl CheckError {
    /// The reason code of the answer.
    pub fn reason(&self) -> Reason {
        match self {
            CheckError::Network { .. } => Reason::PaymentNetwork,
            CheckError::Asset { .. } => Reason::PaymentAsset,
            CheckError::Payee { .. } => Reason::PaymentPayee,
            CheckError::Amount { .. } => Reason::PaymentAmount,
            CheckError::Echo => Reason::QuoteInvalid,
            CheckError::NotYetValid { .. } => Reason::PaymentNotYetValid,
            CheckError::Expired { .. } => Reason::PaymentExpired,
            CheckError::TooLong { .. } => Reason::PaymentTooLong,
            CheckError::Signature(_) | CheckError::Signer => Reason::PaymentSignature,
        }
    }
}

/// Checks `payment` against the one `requirement` it is to meet, cheapest first. The scheme was checked in
/// decoding. For version 2, `accepted` must be an echo of the requirement; that its quote is ours is the
/// caller's to check. `domain` is that of `requirement.asset`.
pub fn check<'a>(
    payment: &'a Payment,
    requirement: &'a Requirement,
    domain: &Domain,
    window: Window,
) -> Result<Verified<'a>, CheckError> {
    check_terms(payment, requirement)?;
    check_window(payment, requirement, window)?;
    let signature = check_signature(payment, domain)?;
    Ok(Verified { payment, requirement, signature })
}

fn check_terms(payment: &Payment, requirement: &Requirement) -> Result<(), CheckError> {
    let asset = &requirement.asset;
    let (accepted, signed) = (payment.accepted(), payment.authorization());
    if payment.network() != asset.network {
        return Err(CheckError::Network { required: asset.network, found: payment.network() });
    }
    if accepted.is_some_and(|accepted| accepted.asset != asset.address) {
        return Err(CheckError::Asset { required: asset.address });
    }
    let payees = accepted.map(|accepted| accepted.pay_to).into_iter().chain([signed.to]);
    if let Some(found) = payees.into_iter().find(|payee| *payee != requirement.pay_to) {
        return Err(CheckError::Payee { required: requirement.pay_to, found });
    }
    let amounts = accepted.map(|accepted| accepted.amount).into_iter().chain([signed.value]);
    if let Some(found) = amounts.into_iter().find(|amount| *amount != requirement.amount) {
        return Err(CheckError::Amount { required: requirement.amount, found });
    }
    match accepted {
        Some(accepted) if !accepted.echoes(requirement) => Err(CheckError::Echo),
        _ => Ok(()),
    }
}

fn check_window(payment: &Payment, requirement: &Requirement, window: Window) -> Result<(), CheckError> {
    let signed = payment.authorization();
    let Window { now, needed } = window;
    if signed.valid_after > now {
        return Err(CheckError::NotYetValid { valid_after: signed.valid_after, now });
    }
    // The token wants the time of the block to be before `validBefore`, not at it.
    let needed_until = now.saturating_add(needed);
    if signed.valid_before < needed_until || signed.valid_before <= now {
        return Err(CheckError::Expired { valid_before: signed.valid_before, needed_until });
    }
    let allowed = now.saturating_add(requirement.max_timeout_seconds).saturating_add(WINDOW_SLACK);
    if signed.valid_before > allowed {
        return Err(CheckError::TooLong { valid_before: signed.valid_before, allowed });
    }
    Ok(())
}

/// Whether `payment` is signed by its payer, as far as that can be known here.
pub fn check_signature(payment: &Payment, domain: &Domain) -> Result<SignatureCheck, CheckError> {
    let signature = payment.signature();
    if signature.is_empty() {
        return Err(CheckError::Signer);
    }
    let Ok(signature) = <&[u8; 65]>::try_from(signature) else {
        return Ok(SignatureCheck::Deferred);
    };
    let signer = domain.recover(payment.authorization(), signature)?;
    if signer != payment.authorization().from {
        return Err(CheckError::Signer);
    }
    Ok(SignatureCheck::Recovered)
}

impl<'a> Verified<'a> {
    /// The payment.
    pub fn payment(&self) -> &'a Payment {
        self.payment
    }

    /// What it pays.
    pub fn requirement(&self) -> &'a Requirement {
        self.requirement
    }

    /// Whether the signature is known to be the payer's.
    pub fn signature(&self) -> SignatureCheck {
        self.signature
    }

    /// When the client is charged.
    pub fn flow(&self) -> PaymentFlow {
        self.requirement.flow
    }
}

#[cfg(test)]
mod tests;
