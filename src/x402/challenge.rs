//! A challenge as the payer sees it: a provider's 402 of either version, and the payment that answers it.
//!
//! Sellers differ, so reading is tolerant: unknown fields are passed over and entries that cannot be
//! read are left out. It is bounded all the same: a hostile seller gets an error, not our memory.

use std::collections::BTreeMap;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::Serialize;
use serde_json::value::RawValue;

use super::json::{Object, digits};
use super::payment::PAYMENT_IDENTIFIER;
use super::{Address, Authorization, Network, PaymentFlow, Version, header};
use crate::money::Amount;

/// The most bytes of a challenge header, and of a body that may hold a challenge.
const MAX_BYTES: usize = 1024 * 1024;

/// The most entries of a challenge, readable or not.
const MAX_ACCEPTS: usize = 40;

/// The most characters kept of a seller's `error`.
const MAX_ERROR: usize = 256;

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
    /// `error`, for the log; its first 256 characters.
    pub error: Option<String>,
}

/// One `accepts[]` entry of scheme `exact` by EIP-3009 on an EVM network.
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
    /// EIP-712 domain of the token, name and version, if given.
    pub domain: Option<(String, String)>,
    /// When it settles.
    pub flow: PaymentFlow,
    /// The entry itself, byte for byte, for the v2 echo.
    pub raw: Box<RawValue>,
}

/// Why an answer holds no challenge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Neither a header nor the body is one.
    #[error("the answer holds no x402 challenge")]
    Missing,
    /// A header or the body is over 1 MiB.
    #[error("the challenge is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// More than 40 entries.
    #[error("the challenge has more than {MAX_ACCEPTS} entries")]
    TooMany,
    /// Two lines of the same challenge header.
    #[error("the {0} header is repeated")]
    Repeated(HeaderName),
}

impl Challenge {
    /// The challenge of a 402: in `PAYMENT-REQUIRED` (v2), else in the body (v1, or against the
    /// specification v2), else in `x-payment-required`. A place that holds no challenge is passed over.
    pub fn from_response(headers: &HeaderMap, body: &[u8]) -> Result<Challenge, ChallengeError> {
        if let Some(text) = header_text(headers, &header::PAYMENT_REQUIRED)?
            && let Some(challenge) = Challenge::parse(&text)?
            && challenge.version == Version::V2
        {
            return Ok(challenge);
        }
        if body.len() > MAX_BYTES {
            return Err(ChallengeError::TooLarge);
        }
        if let Ok(text) = std::str::from_utf8(body)
            && let Some(challenge) = Challenge::parse(text)?
        {
            return Ok(challenge);
        }
        match header_text(headers, &header::X_PAYMENT_REQUIRED)? {
            Some(text) => Challenge::parse(&text)?.ok_or(ChallengeError::Missing),
            None => Err(ChallengeError::Missing),
        }
    }

    /// The header that pays `offered`, an entry of this challenge, with a signed authorization. The value is
    /// marked sensitive. Version 2 echoes the entry, `resource` and `extensions` byte for byte.
    pub fn payment(
        &self,
        offered: &Offered,
        authorization: &Authorization,
        signature: &[u8; 65],
    ) -> (HeaderName, HeaderValue) {
        let payload =
            Payload { signature: format!("0x{}", hex::encode(signature)), authorization: *authorization };
        let (name, mut value) = match self.version {
            Version::V1 => {
                // Only networks with a v1 name are read from a v1 challenge.
                let network = offered.network.v1_name().unwrap_or_default();
                let document = PaymentV1 { x402_version: self.version, scheme: "exact", network, payload };
                (header::X_PAYMENT, encode(&document))
            }
            Version::V2 => {
                let document = PaymentV2 {
                    x402_version: self.version,
                    payload,
                    accepted: &offered.raw,
                    resource: self.resource.as_deref(),
                    extensions: self.extensions.as_deref(),
                };
                (header::PAYMENT_SIGNATURE, encode(&document))
            }
        };
        value.set_sensitive(true);
        (name, value)
    }

    /// This challenge with `id` in its `payment-identifier`, if it asks for one; all else stays byte for byte.
    pub fn identified(mut self, id: &str) -> Challenge {
        if let Some(extensions) = self.extensions.as_deref()
            && let Some(named) = named(extensions, id)
        {
            self.extensions = Some(named);
        }
        self
    }

    /// `None` if the text is no challenge at all.
    fn parse(text: &str) -> Result<Option<Challenge>, ChallengeError> {
        let Ok(object) = Object::document(text) else { return Ok(None) };
        let version = object.required_integer::<u8>("x402Version").ok();
        let Some(version) = version.and_then(|number| Version::try_from(number).ok()) else {
            return Ok(None);
        };
        let Some(accepts) = object.get("accepts") else { return Ok(None) };
        let Ok(Entries(accepts)) = serde_json::from_str(accepts.get()) else { return Ok(None) };
        if accepts.len() > MAX_ACCEPTS {
            return Err(ChallengeError::TooMany);
        }
        let error = object.text("error").ok().flatten();
        let echo = |key| match version {
            Version::V1 => None,
            Version::V2 => object.get(key).map(ToOwned::to_owned),
        };
        Ok(Some(Challenge {
            version,
            accepts: accepts.into_iter().filter_map(|raw| Offered::parse(raw, version)).collect(),
            resource: echo("resource"),
            extensions: echo("extensions"),
            error: error.map(|error| error.chars().take(MAX_ERROR).collect()),
        }))
    }
}

impl Offered {
    fn parse(raw: &RawValue, version: Version) -> Option<Offered> {
        let object = Object::inner(raw, "accepts").ok()?;
        if object.required_text("scheme").ok()? != "exact" {
            return None;
        }
        let network = object.required_text("network").ok()?;
        let (network, amount) = match version {
            Version::V1 => (Network::from_v1_name(&network)?, "maxAmountRequired"),
            Version::V2 => (Network::from_caip2(&network)?, "amount"),
        };
        let amount = object.required_text(amount).ok()?;
        let extra = object.object("extra").ok()?;
        let text = |key: &str| match &extra {
            Some(extra) => extra.text(key),
            None => Ok(None),
        };
        if !matches!(text("assetTransferMethod").ok()?.as_deref(), None | Some("eip3009")) {
            return None;
        }
        let flow = match text("paymentFlow").ok()?.as_deref() {
            None | Some("authorization") => PaymentFlow::Authorization,
            Some("upfront") => PaymentFlow::Upfront,
            Some(_) => return None,
        };
        Some(Offered {
            network,
            asset: Address::from(object.required_hex("asset").ok()?),
            amount: digits(&amount)?.parse().ok()?,
            pay_to: Address::from(object.required_hex("payTo").ok()?),
            max_timeout_seconds: object.required_integer("maxTimeoutSeconds").ok()?,
            domain: text("name").ok()?.zip(text("version").ok()?).map(|(n, v)| (n.into(), v.into())),
            flow,
            raw: raw.to_owned(),
        })
    }
}

/// The text of a challenge header, if it is there and is one. Over the limit or repeated is an error.
fn header_text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, ChallengeError> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(ChallengeError::Repeated(name.clone()));
    }
    if line.len() > MAX_BYTES {
        return Err(ChallengeError::TooLarge);
    }
    Ok(header::decode(line.as_bytes()))
}

/// The extensions of a challenge with this `id`. `None` if it asks for none, or not in the shape it has.
fn named(extensions: &RawValue, id: &str) -> Option<Box<RawValue>> {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let read = |raw: &RawValue| serde_json::from_str::<Fields>(raw.get()).ok();
    let write = |fields: &Fields| serde_json::value::to_raw_value(fields).ok();
    let mut extensions = read(extensions)?;
    let mut extension = read(extensions.get(PAYMENT_IDENTIFIER)?)?;
    let mut info = read(extension.get("info")?)?;
    info.insert("id".to_owned(), serde_json::value::to_raw_value(id).ok()?);
    extension.insert("info".to_owned(), write(&info)?);
    extensions.insert(PAYMENT_IDENTIFIER.to_owned(), write(&extension)?);
    write(&extensions)
}

fn encode(document: &impl Serialize) -> HeaderValue {
    #[expect(clippy::expect_used, reason = "strings, numbers and JSON already parsed always serialise")]
    header::encode(&serde_json::to_vec(document).expect("a payment is JSON"))
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentV1 {
    x402_version: Version,
    scheme: &'static str,
    network: &'static str,
    payload: Payload,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentV2<'a> {
    x402_version: Version,
    payload: Payload,
    accepted: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<&'a RawValue>,
}

#[derive(serde::Serialize)]
struct Payload {
    signature: String,
    authorization: Authorization,
}

/// The raw entries, at most one more than are allowed: enough to tell.
struct Entries<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    if entries.len() <= MAX_ACCEPTS {
                        entries.push(entry);
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

#[cfg(test)]
mod tests;
