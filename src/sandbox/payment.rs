//! A payment as the sandbox's own side of x402 reads it, and the checks of the reference facilitator.
//!
//! Written apart from the gateway's decoder and checks, so that a mistake there is not confirmed here.
//! Checks, their order and their words are those of `@x402/evm` 2.27, `exact` on EIP-3009.

use serde::Deserialize;
use serde_json::Value;

use super::ledger::{Ledger, TokenError};
use crate::clock::UnixSeconds;
use crate::money::Amount;
use crate::x402::{Address, Asset, Authorization, Domain, Version};

/// A facilitator demands that a payment stays valid for this long.
const SLACK_SECONDS: u64 = 6;

/// A decoded payload of either version.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) version: Version,
    /// Of v1, or of v2's `accepted`.
    pub(super) scheme: String,
    /// Of v1, or of v2's `accepted`; not yet looked at.
    pub(super) network: String,
    /// v2 only.
    pub(super) accepted: Option<Value>,
    pub(super) authorization: Authorization,
    pub(super) signature: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    x402_version: Version,
    scheme: Option<String>,
    network: Option<String>,
    accepted: Option<Value>,
    payload: WirePayload,
}

#[derive(Deserialize)]
struct WirePayload {
    authorization: Authorization,
    signature: String,
}

/// What a payment has to match.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The token, with the EIP-712 domain the seller named.
    pub(super) asset: Asset,
    pub(super) pay_to: Address,
    pub(super) amount: Amount,
    /// More than `amount` is welcome too.
    pub(super) or_more: bool,
}

impl Payment {
    /// The payment in this JSON; the error says what is wrong with it.
    pub(super) fn parse(value: &Value) -> Result<Payment, String> {
        let wire = Wire::deserialize(value).map_err(|error| error.to_string())?;
        let named = |field: &str| {
            let accepted = wire.accepted.as_ref().and_then(|accepted| accepted.get(field));
            accepted.and_then(Value::as_str).map(str::to_owned)
        };
        let (scheme, network) = match wire.x402_version {
            Version::V1 => (wire.scheme.clone(), wire.network.clone()),
            Version::V2 => (named("scheme"), named("network")),
        };
        let signature = wire.payload.signature.strip_prefix("0x").and_then(|text| hex::decode(text).ok());
        Ok(Payment {
            version: wire.x402_version,
            scheme: scheme.ok_or("no scheme")?,
            network: network.ok_or("no network")?,
            accepted: wire.accepted,
            authorization: wire.payload.authorization,
            signature: signature.ok_or("the signature is not hex")?,
        })
    }

    /// Would this payment settle on `terms`? The error is the reference's reason code.
    pub(super) fn verify(
        &self,
        ledger: &Ledger,
        terms: &Terms,
        now: UnixSeconds,
    ) -> Result<(), &'static str> {
        self.verify_offline(terms, now)?;
        if terms.asset.address != ledger.asset().address {
            return Err("asset_not_deployed_contract");
        }
        if ledger.simulate(&self.authorization, &self.signature).is_ok() {
            return Ok(());
        }
        // The reference asks the token what was wrong, and in this order.
        let Authorization { from, nonce, value, .. } = self.authorization;
        if ledger.authorization(from, nonce).is_some() {
            Err("invalid_exact_evm_nonce_already_used")
        } else if terms.asset.name != ledger.asset().name {
            Err("invalid_exact_evm_token_name_mismatch")
        } else if terms.asset.version != ledger.asset().version {
            Err("invalid_exact_evm_token_version_mismatch")
        } else if ledger.balance(from) < value {
            Err("invalid_exact_evm_insufficient_balance")
        } else {
            Err("invalid_exact_evm_transaction_simulation_failed")
        }
    }

    /// The part that needs no chain; all that the reference repeats before it settles.
    pub(super) fn verify_offline(&self, terms: &Terms, now: UnixSeconds) -> Result<(), &'static str> {
        let Authorization { from, to, value, valid_after, valid_before, .. } = self.authorization;
        let signature = self.signature.as_slice().try_into().ok();
        let domain = Domain::new(&terms.asset);
        let signer = signature.and_then(|signature| domain.recover(&self.authorization, signature).ok());
        if signer != Some(from) {
            return Err("invalid_exact_evm_signature");
        }
        if to != terms.pay_to {
            return Err("invalid_exact_evm_recipient_mismatch");
        }
        if valid_before < now + SLACK_SECONDS {
            return Err("invalid_exact_evm_payload_authorization_valid_before");
        }
        if valid_after > now {
            return Err("invalid_exact_evm_payload_authorization_valid_after");
        }
        if value != terms.amount && !(terms.or_more && value > terms.amount) {
            return Err(match self.version {
                Version::V1 => "invalid_exact_evm_authorization_value",
                Version::V2 => "invalid_exact_evm_payload_authorization_value_mismatch",
            });
        }
        Ok(())
    }
}

/// The reference's reason code for a transaction the token reverts.
pub(super) fn reason(error: TokenError) -> &'static str {
    match error {
        TokenError::Expired => "invalid_exact_evm_payload_authorization_valid_before",
        TokenError::NotYetValid => "invalid_exact_evm_payload_authorization_valid_after",
        TokenError::UsedOrCanceled => "invalid_exact_evm_nonce_already_used",
        TokenError::Balance => "invalid_exact_evm_insufficient_balance",
        TokenError::Signature => "invalid_exact_evm_signature",
        TokenError::ZeroAddress => "invalid_exact_evm_transaction_failed",
    }
}
