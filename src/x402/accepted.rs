//! `accepted`: the requirement a v2 client says it was offered. It is the client's word until it is
//! compared with what was really offered, field by field.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::json::{Malformed, Object, digits, excerpt};
use super::payment::read_scheme;
use super::{Address, Asset, Network, PaymentError, PaymentFlow, Requirement};
use crate::money::Amount;

/// The echoed `accepts[]` entry of a v2 payment.
#[derive(Clone, Debug)]
pub struct Accepted {
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
    /// `extra`, parsed.
    pub extra: Extra,
    /// The entry itself, verbatim: for v2 this is also the requirement the facilitator is shown.
    pub raw: Arc<RawValue>,
    /// Whether the entry has keys that no entry of ours has.
    foreign_keys: bool,
}

/// `accepted.extra`: the keys that we give a meaning to.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// `name` of the token's EIP-712 domain.
    pub name: Option<String>,
    /// `version` of the token's EIP-712 domain.
    pub version: Option<String>,
    /// When the client believes it is charged.
    pub flow: PaymentFlow,
    /// The quote it answers, as we wrote it; unverified.
    pub quote_id: Option<String>,
    /// `extra` itself, verbatim, for keys of the quote.
    pub raw: Option<Box<RawValue>>,
    foreign_keys: bool,
}

/// The keys of an entry, all of them ours.
const KEYS: [&str; 7] = ["scheme", "network", "amount", "asset", "payTo", "maxTimeoutSeconds", "extra"];

/// The keys of `extra` that x402 gives a meaning to.
const EXTRA_KEYS: [&str; 4] = ["name", "version", "paymentFlow", "assetTransferMethod"];

/// How every key of `extra` begins that only we give a meaning to.
pub(super) const QUOTE_KEYS: &str = "quote";

impl Accepted {
    pub(super) fn from_payload(payload: &Object<'_>) -> Result<Accepted, PaymentError> {
        let raw = payload.get("accepted").ok_or_else(|| Malformed::new("accepted is missing"))?;
        let object = Object::inner(raw, "accepted")?;
        read_scheme(&object)?;
        let name = object.required_text("network")?;
        let network = Network::from_caip2(&name).ok_or_else(|| PaymentError::Network(excerpt(&name)))?;
        let amount = object.required_text("amount")?;
        let amount =
            digits(&amount).ok_or_else(|| Malformed::new("amount must be a whole number in a string"))?;
        Ok(Accepted {
            network,
            asset: Address::from(object.required_hex("asset")?),
            amount: amount.parse().map_err(|_| PaymentError::OutOfRange { field: "amount" })?,
            pay_to: Address::from(object.required_hex("payTo")?),
            max_timeout_seconds: object.required_integer("maxTimeoutSeconds")?,
            extra: object.get("extra").map(Extra::parse).transpose()?.unwrap_or_default(),
            raw: raw.to_owned().into(),
            foreign_keys: !object.has_only(&KEYS),
        })
    }

    /// The token it says, with the EIP-712 domain it says. Its decimals are not in a payment.
    pub fn said_asset(&self) -> Asset {
        let said = |text: &Option<String>| text.clone().unwrap_or_default();
        let (name, version) = (said(&self.extra.name), said(&self.extra.version));
        Asset { network: self.network, address: self.asset, name, version, decimals: 0 }
    }

    /// Whether this is `requirement` as we write it, apart from the spelling of addresses and the quote's keys in
    /// `extra`: every field that a facilitator acts on is equal. `false` also for keys we never write, since the
    /// facilitator is shown this entry as ours.
    pub fn echoes(&self, requirement: &Requirement) -> bool {
        let asset = &requirement.asset;
        !self.foreign_keys
            && !self.extra.foreign_keys
            && self.network == asset.network
            && self.asset == asset.address
            && self.amount == requirement.amount
            && self.pay_to == requirement.pay_to
            && self.max_timeout_seconds == requirement.max_timeout_seconds
            && self.extra.name.as_deref() == Some(&asset.name)
            && self.extra.version.as_deref() == Some(&asset.version)
            && self.extra.flow == requirement.flow
    }
}

impl Extra {
    fn parse(raw: &RawValue) -> Result<Extra, PaymentError> {
        let object = Object::inner(raw, "extra")?;
        let text = |key: &str| Ok::<_, Malformed>(object.text(key)?.map(|text| text.into_owned()));
        let flow = match object.text("paymentFlow")?.as_deref() {
            None | Some("authorization") => PaymentFlow::Authorization,
            Some("upfront") => PaymentFlow::Upfront,
            Some(other) => return Err(Malformed::new(format!("paymentFlow {:?}", excerpt(other))).into()),
        };
        match object.text("assetTransferMethod")?.as_deref() {
            None | Some("eip3009") => {}
            Some(other) => return Err(PaymentError::Scheme(format!("exact by {}", excerpt(other)))),
        }
        Ok(Extra {
            name: text("name")?,
            version: text("version")?,
            flow,
            quote_id: text("quoteId")?,
            raw: Some(raw.to_owned()),
            foreign_keys: !object.keys().all(|key| EXTRA_KEYS.contains(&key) || key.starts_with(QUOTE_KEYS)),
        })
    }
}
