//! One request of a facilitator's caller, read: what is to be paid, and the payment for it. Nothing is believed yet.

use alloy::primitives::{Bytes, keccak256};
use serde::Deserialize;

use super::contracts::{self, Call, Deployment};
use crate::clock::UnixSeconds;
use crate::facilitator::PaymentRequest;
use crate::money::Amount;
use crate::x402::{Address, Asset, Authorization, B256, Domain, Network, Payment, PaymentError, Version};

/// Seconds that a payment must still be good for: about the time of three blocks.
const MARGIN: u64 = 6;

/// A "no", in the words of the TypeScript facilitator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct No {
    pub(super) reason: &'static str,
    pub(super) message: Option<String>,
}

/// The reasons. Their spelling is not ours to choose: callers compare it.
pub(super) mod reason {
    pub(in super::super) const PAYLOAD: &str = "invalid_payload";
    pub(in super::super) const REQUIREMENTS: &str = "invalid_payment_requirements";
    pub(in super::super) const VERSION: &str = "invalid_x402_version";
    pub(in super::super) const SCHEME: &str = "invalid_exact_evm_scheme";
    pub(in super::super) const NETWORK: &str = "invalid_exact_evm_network_mismatch";
    pub(in super::super) const DOMAIN: &str = "invalid_exact_evm_missing_eip712_domain";
    pub(in super::super) const SIGNATURE: &str = "invalid_exact_evm_signature";
    pub(in super::super) const FACTORY: &str = "eip6492_factory_not_allowed";
    pub(in super::super) const RECIPIENT: &str = "invalid_exact_evm_recipient_mismatch";
    pub(in super::super) const EXPIRED: &str = "invalid_exact_evm_payload_authorization_valid_before";
    pub(in super::super) const EARLY: &str = "invalid_exact_evm_payload_authorization_valid_after";
    pub(in super::super) const VALUE: &str = "invalid_exact_evm_payload_authorization_value_mismatch";
    pub(in super::super) const VALUE_V1: &str = "invalid_exact_evm_authorization_value";
    pub(in super::super) const NO_CONTRACT: &str = "asset_not_deployed_contract";
    pub(in super::super) const NOT_3009: &str = "invalid_exact_evm_eip3009_not_supported";
    pub(in super::super) const USED: &str = "invalid_exact_evm_nonce_already_used";
    pub(in super::super) const NAME: &str = "invalid_exact_evm_token_name_mismatch";
    pub(in super::super) const TOKEN_VERSION: &str = "invalid_exact_evm_token_version_mismatch";
    pub(in super::super) const BALANCE: &str = "invalid_exact_evm_insufficient_balance";
    pub(in super::super) const SIMULATION: &str = "invalid_exact_evm_transaction_simulation_failed";
    pub(in super::super) const FAILED: &str = "invalid_exact_evm_transaction_failed";
    pub(in super::super) const EVENTS: &str = "invalid_exact_evm_transfer_event_mismatch";
    pub(in super::super) const PENDING: &str = "settlement_pending";
}

impl No {
    pub(super) fn because(reason: &'static str) -> Self {
        No { reason, message: None }
    }

    pub(super) fn saying(reason: &'static str, message: impl Into<String>) -> Self {
        No { reason, message: Some(message.into()) }
    }
}

/// What is to be paid, and the payment.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) version: Version,
    /// The token that is wanted. Its decimals are not known here, and not needed.
    pub(super) asset: Asset,
    pay_to: Address,
    amount: Amount,
    pub(super) authorization: Authorization,
    /// Taken out of its ERC-6492 wrapper.
    pub(super) signature: Bytes,
    /// How to make the payer's wallet if it is not there yet.
    pub(super) deployment: Option<Deployment>,
    pub(super) digest: B256,
    pub(super) separator: B256,
    /// Whether the signature is an ordinary account's, and that of the payer.
    pub(super) recovered: bool,
}

/// `paymentRequirements` of either version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    scheme: String,
    network: String,
    amount: Option<Amount>,
    max_amount_required: Option<Amount>,
    asset: Address,
    pay_to: Address,
    extra: Option<Extra>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extra {
    name: Option<String>,
    version: Option<String>,
    asset_transfer_method: Option<String>,
}

impl Order {
    pub(super) fn read(request: &PaymentRequest) -> Result<Order, No> {
        let version = request.x402_version;
        let wanted: Wanted = serde_json::from_str(request.payment_requirements.get())
            .map_err(|error| No::saying(reason::REQUIREMENTS, super::rpc::words(&error.to_string())))?;
        let payment =
            Payment::from_json(&request.payment_payload, version).map_err(|error| no_of(&error, version))?;
        if wanted.scheme != "exact" {
            return Err(No::because(reason::SCHEME));
        }
        let Some(Extra { name: Some(name), version: Some(domain_version), asset_transfer_method }) =
            wanted.extra
        else {
            return Err(No::because(reason::DOMAIN));
        };
        if asset_transfer_method.is_some_and(|method| method != "eip3009") {
            return Err(No::because(reason::SCHEME));
        }
        let (network, amount) = match version {
            Version::V1 => (Network::from_v1_name(&wanted.network), wanted.max_amount_required),
            Version::V2 => (Network::from_caip2(&wanted.network), wanted.amount),
        };
        let network =
            network.filter(|network| *network == payment.network()).ok_or(No::because(reason::NETWORK))?;
        let amount = amount.ok_or_else(|| No::saying(reason::REQUIREMENTS, "no amount"))?;
        let asset = Asset { network, address: wanted.asset, name, version: domain_version, decimals: 0 };
        let domain = Domain::new(&asset);
        let authorization = *payment.authorization();
        let (mut signature, deployment) = contracts::unwrap(payment.signature());
        // A signature that recovers to nobody must never stand for the zero address.
        let recovered = !authorization.from.is_zero()
            && <&[u8; 65]>::try_from(&signature[..])
                .is_ok_and(|signature| domain.recover(&authorization, signature) == Ok(authorization.from));
        if recovered && signature[64] < 27 {
            // Tokens take 27 and 28 only.
            let mut spelled = signature.to_vec();
            spelled[64] += 27;
            signature = spelled.into();
        }
        Ok(Order {
            version,
            asset,
            pay_to: wanted.pay_to,
            amount,
            authorization,
            signature,
            deployment,
            digest: domain.digest(&authorization),
            separator: domain.separator(),
            recovered,
        })
    }

    /// What the money terms have against it: payee, time, amount.
    pub(super) fn check_terms(&self, now: UnixSeconds) -> Result<(), No> {
        let signed = &self.authorization;
        if signed.to != self.pay_to {
            return Err(No::because(reason::RECIPIENT));
        }
        if signed.valid_before < now.saturating_add(MARGIN) {
            return Err(No::because(reason::EXPIRED));
        }
        if signed.valid_after > now {
            return Err(No::because(reason::EARLY));
        }
        self.check_amount()
    }

    /// As [`Order::check_terms`], for a transfer that was made: time does not matter any more.
    pub(super) fn check_money(&self) -> Result<(), No> {
        if self.authorization.to != self.pay_to {
            return Err(No::because(reason::RECIPIENT));
        }
        self.check_amount()
    }

    fn check_amount(&self) -> Result<(), No> {
        match self.version {
            _ if self.authorization.value == self.amount => Ok(()),
            Version::V1 => Err(No::because(reason::VALUE_V1)),
            Version::V2 => Err(No::because(reason::VALUE)),
        }
    }

    /// The same for the same authorization with the same signature.
    pub(super) fn key(&self) -> B256 {
        let mut text = self.digest.to_vec();
        text.extend_from_slice(&self.signature);
        if let Some(deployment) = &self.deployment {
            text.extend_from_slice(deployment.factory.as_slice());
            text.extend_from_slice(&deployment.input);
        }
        // What is to be paid for it is part of the question.
        text.extend_from_slice(self.pay_to.as_slice());
        text.extend_from_slice(&self.amount.units().to_be_bytes());
        keccak256(text)
    }

    /// The transfer, as it is sent.
    pub(super) fn transfer(&self) -> Call {
        contracts::transfer(self.asset.address, &self.authorization, &self.signature)
    }

    /// The name of the network in this version.
    pub(super) fn network_name(&self) -> String {
        let network = self.asset.network;
        match (self.version, network.v1_name()) {
            (Version::V1, Some(name)) => name.to_owned(),
            _ => network.to_string(),
        }
    }

    /// The payer, as addresses are written.
    pub(super) fn payer(&self) -> String {
        self.authorization.from.to_string()
    }
}

fn no_of(error: &PaymentError, version: Version) -> No {
    let reason = match error {
        PaymentError::Version { .. } => reason::VERSION,
        PaymentError::Scheme(_) => reason::SCHEME,
        PaymentError::Network(_) => reason::NETWORK,
        PaymentError::OutOfRange { field: "validAfter" } => reason::EARLY,
        PaymentError::OutOfRange { field: "value" | "amount" } if version == Version::V2 => reason::VALUE,
        PaymentError::OutOfRange { field: "value" | "amount" } => reason::VALUE_V1,
        _ => reason::PAYLOAD,
    };
    No::saying(reason, error.to_string())
}
