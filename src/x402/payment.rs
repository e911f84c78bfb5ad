//! A client's payment, decoded from its header: well-formed, and not yet believed.
//!
//! What comes out has one reading: the parsed fields and the raw JSON, which goes to the facilitator
//! as it came, cannot disagree. Whether it pays for anything is [`super::check()`]'s question.

use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};
use serde_json::value::RawValue;

use super::json::{Malformed, Object, digits, excerpt};
use super::{Accepted, Address, Authorization, B256, Network, Version, header};
use crate::money::Amount;
use crate::reason::Reason;

/// Extension under which a client may send an idempotency key of its own.
pub(super) const PAYMENT_IDENTIFIER: &str = "payment-identifier";

/// A decoded `PaymentPayload` of scheme `exact`, by EIP-3009. Its `Debug` form shows no signature.
#[derive(Clone)]
pub struct Payment {
    version: Version,
    network: Network,
    authorization: Authorization,
    signature: Vec<u8>,
    accepted: Option<Accepted>,
    resource: Option<Box<RawValue>>,
    extensions: Option<Box<RawValue>>,
    identifier: Option<String>,
    raw: Arc<RawValue>,
}

/// Why a request carries no payment that can be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaymentError {
    /// Two lines of the same header, or the two names of the v1 header at once.
    #[error("the payment header is repeated; send exactly one")]
    Repeated,
    /// The header is over the limit.
    #[error("the payment header is larger than {limit} bytes")]
    TooLarge {
        /// The most that is read.
        limit: usize,
    },
    /// Not standard base64 with padding, or not UTF-8 inside.
    #[error("the payment header is not standard, padded base64 of UTF-8 text")]
    NotBase64,
    /// Not the shape of a payment.
    #[error("the payment header cannot be decoded: {0}")]
    Malformed(#[from] Malformed),
    /// A `payment-identifier` that is none.
    #[error("the payment-identifier must be 16 to 128 letters, digits, - and _")]
    Identifier,
    /// `x402Version` is not 1 or 2, or not the header's.
    #[error("x402Version {found} does not belong in the {header} header")]
    Version {
        /// The header it came in.
        header: HeaderName,
        /// What it says.
        found: u64,
    },
    /// Another scheme than `exact` by EIP-3009.
    #[error("the scheme {0:?} is not offered")]
    Scheme(String),
    /// Not an EVM network, or not by the name it has in this version.
    #[error("the network {0:?} is not offered")]
    Network(String),
    /// A number of the authorization that no offer of ours can match.
    #[error("{field} is out of range")]
    OutOfRange {
        /// Which.
        field: &'static str,
    },
}

impl PaymentError {
    /// The reason code of the answer.
    pub fn reason(&self) -> Reason {
        match self {
            PaymentError::Repeated => Reason::RepeatedPayment,
            PaymentError::TooLarge { .. } => Reason::HeaderTooLarge,
            PaymentError::NotBase64 | PaymentError::Malformed(_) => Reason::PaymentMalformed,
            PaymentError::Identifier => Reason::IdentifierInvalid,
            PaymentError::Version { .. } => Reason::PaymentVersion,
            PaymentError::Scheme(_) => Reason::PaymentScheme,
            PaymentError::Network(_) => Reason::PaymentNetwork,
            PaymentError::OutOfRange { field: "validAfter" } => Reason::PaymentNotYetValid,
            PaymentError::OutOfRange { field: "validBefore" } => Reason::PaymentTooLong,
            PaymentError::OutOfRange { .. } => Reason::PaymentAmount,
        }
    }
}

/// The headers a payment may be in, best first.
static NAMES: [HeaderName; 3] = [header::PAYMENT_SIGNATURE, header::X_PAYMENT, header::X402_PAYMENT];

impl Payment {
    /// Whether a request's head has something that calls itself a payment.
    pub fn is_in(headers: &HeaderMap) -> bool {
        // Mostly there is none; one pass over the names costs less than three look-ups.
        headers.keys().any(|name| NAMES.contains(name))
    }

    /// The payment in a request's head, if there is one. `PAYMENT-SIGNATURE` (v2) goes before `X-PAYMENT`
    /// (v1) and its alias `x402-payment` (either version); some wallets send both versions at once.
    pub fn from_headers(headers: &HeaderMap, max_bytes: usize) -> Result<Option<Payment>, PaymentError> {
        if !Payment::is_in(headers) {
            return Ok(None);
        }
        let mut found = None;
        let mut found_v1 = false;
        for name in &NAMES {
            let mut lines = headers.get_all(name).iter();
            let Some(line) = lines.next() else { continue };
            // Even of a header that is not used: which line counts must never be a guess.
            if lines.next().is_some() || (found_v1 && *name == header::X402_PAYMENT) {
                return Err(PaymentError::Repeated);
            }
            found_v1 |= *name == header::X_PAYMENT;
            found.get_or_insert((name, line));
        }
        let Some((name, line)) = found else { return Ok(None) };
        if line.len() > max_bytes {
            return Err(PaymentError::TooLarge { limit: max_bytes });
        }
        let text = header::decode(line.as_bytes()).ok_or(PaymentError::NotBase64)?;
        Payment::parse(text, name).map(Some)
    }

    /// The payment in a facilitator's request: the JSON that a header of `version` carried.
    pub fn from_json(json: &RawValue, version: Version) -> Result<Payment, PaymentError> {
        let header = match version {
            Version::V1 => header::X_PAYMENT,
            Version::V2 => header::PAYMENT_SIGNATURE,
        };
        Payment::parse(json.get().to_owned(), &header)
    }

    fn parse(text: String, header: &HeaderName) -> Result<Payment, PaymentError> {
        let object = Object::document(&text)?;
        let version = read_version(&object, header)?;
        // In version 2 scheme and network are those of the accepted requirement.
        let accepted = match version {
            Version::V1 => None,
            Version::V2 => Some(Accepted::from_payload(&object)?),
        };
        let network = match &accepted {
            Some(accepted) => accepted.network,
            None => {
                read_scheme(&object)?;
                let name = object.required_text("network")?;
                Network::from_v1_name(&name).ok_or_else(|| PaymentError::Network(excerpt(&name)))?
            }
        };
        let payload = object.required_object("payload")?;
        // A second way to pay beside the authorization, and a facilitator might settle that one: by a nonce that
        // nobody has claimed.
        if payload.get("permit2Authorization").is_some() {
            return Err(PaymentError::Scheme("exact by permit2".to_owned()));
        }
        if !payload.has_only(&["authorization", "signature"]) {
            return Err(Malformed::new("payload may hold authorization and signature only").into());
        }
        let signature = payload.required_text("signature")?;
        let signature = signature
            .strip_prefix("0x")
            .and_then(|digits| hex::decode(digits).ok())
            .ok_or_else(|| Malformed::new("signature must be 0x and hex digits"))?;
        let authorization = read_authorization(&payload.required_object("authorization")?)?;
        let identifier = read_identifier(&object)?;
        let resource = object.get("resource").map(ToOwned::to_owned);
        let extensions = object.get("extensions").map(ToOwned::to_owned);
        let raw = RawValue::from_string(text).map_err(|_| Malformed::new("not JSON"))?.into();
        Ok(Payment {
            version,
            network,
            authorization,
            signature,
            accepted,
            resource,
            extensions,
            identifier,
            raw,
        })
    }

    /// The version it came in; receipts go back in the same.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The network it says it is for.
    pub fn network(&self) -> Network {
        self.network
    }

    /// What was signed.
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// The signature: 65 bytes of an ordinary account, or whatever a smart wallet understands.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The requirement the client says it accepted; `None` in version 1.
    pub fn accepted(&self) -> Option<&Accepted> {
        self.accepted.as_ref()
    }

    /// `resource` as the client echoed it, verbatim and unsigned. Proves nothing.
    pub fn resource(&self) -> Option<&RawValue> {
        self.resource.as_deref()
    }

    /// `extensions` as the client echoed and extended them, verbatim and unsigned.
    pub fn extensions(&self) -> Option<&RawValue> {
        self.extensions.as_deref()
    }

    /// The client's own idempotency key, `extensions["payment-identifier"].info.id`.
    pub fn identifier(&self) -> Option<&str> {
        self.identifier.as_deref()
    }

    /// The decoded JSON, verbatim, for the facilitator.
    pub fn raw(&self) -> &Arc<RawValue> {
        &self.raw
    }
}

impl fmt::Debug for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("version", &self.version)
            .field("network", &self.network)
            .field("authorization", &self.authorization)
            .finish_non_exhaustive()
    }
}

fn read_version(object: &Object<'_>, header: &HeaderName) -> Result<Version, PaymentError> {
    let number: u64 = object.required_integer("x402Version")?;
    match number {
        1 if *header != header::PAYMENT_SIGNATURE => Ok(Version::V1),
        2 if *header != header::X_PAYMENT => Ok(Version::V2),
        found => Err(PaymentError::Version { header: header.clone(), found }),
    }
}

pub(super) fn read_scheme(object: &Object<'_>) -> Result<(), PaymentError> {
    let scheme = object.required_text("scheme")?;
    if scheme == "exact" { Ok(()) } else { Err(PaymentError::Scheme(excerpt(&scheme))) }
}

fn read_authorization(object: &Object<'_>) -> Result<Authorization, PaymentError> {
    if !object.has_only(&["from", "to", "value", "validAfter", "validBefore", "nonce"]) {
        return Err(Malformed::new("authorization has a key that EIP-3009 does not have").into());
    }
    Ok(Authorization {
        from: Address::from(object.required_hex("from")?),
        to: Address::from(object.required_hex("to")?),
        value: Amount::new(read_number(object, "value")?),
        valid_after: read_number(object, "validAfter")?,
        valid_before: read_number(object, "validBefore")?,
        nonce: B256::from(object.required_hex("nonce")?),
    })
}

/// A decimal string. A `uint256` may be larger than our types; then it is out of every range of ours.
fn read_number<T: std::str::FromStr>(object: &Object<'_>, field: &'static str) -> Result<T, PaymentError> {
    let text = object.required_text(field)?;
    digits(&text)
        .ok_or_else(|| Malformed::new(format!("{field} must be a whole number in a string")))?
        .parse()
        .map_err(|_| PaymentError::OutOfRange { field })
}

fn read_identifier(object: &Object<'_>) -> Result<Option<String>, PaymentError> {
    let Some(extensions) = object.object("extensions")? else { return Ok(None) };
    let Some(extension) = extensions.object(PAYMENT_IDENTIFIER)? else { return Ok(None) };
    let Some(info) = extension.object("info")? else { return Ok(None) };
    let Some(id) = info.text("id").map_err(|_| PaymentError::Identifier)? else { return Ok(None) };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !(16..=128).contains(&id.len()) || !id.bytes().all(plain) {
        return Err(PaymentError::Identifier);
    }
    Ok(Some(id.into_owned()))
}

#[cfg(test)]
mod tests;
