//! A facilitator reached over HTTP.
//!
//! Implementations disagree on status codes, so the JSON decides first: an answer with `isValid` or `success` counts at
//! any status, and a status without one proves nothing. Reason texts are passed through; the only one acted on is
//! `settlement_pending`. A "yes" that contradicts itself or the payment is no answer, and is logged as an error.
//! Source: x402 specification v1 and v2, section 7 (facilitator interface).

mod cdp;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Uri};
use serde_json::{Map, Value};

use super::{Facilitator, FacilitatorError, PaymentRequest, Settlement, Supported, Verdict};
use crate::clock::Clock;
use crate::config::resolved;
use crate::outgoing::{Answer, Call, Outgoing, OutgoingError};
use crate::x402::{Address, Network, Receipt, Version};
use cdp::Signer;

/// Talks to `/verify`, `/settle` and `/supported` under one base URL. Never repeats a call by itself.
#[derive(Clone, Debug)]
pub struct HttpFacilitator {
    outgoing: Outgoing,
    verify: Uri,
    settle: Uri,
    supported: Uri,
    signer: Option<Signer>,
    verify_timeout: Duration,
    settle_timeout: Duration,
}

impl HttpFacilitator {
    /// The facilitator at `url`, one of those of `config`, called through `outgoing`.
    pub fn new(
        outgoing: Outgoing,
        config: &resolved::Facilitator,
        (url, cdp): (&Uri, Option<&resolved::Cdp>),
        clock: &Clock,
    ) -> Result<Self, http::uri::InvalidUri> {
        let base = url.to_string();
        let at = |path| format!("{}{path}", base.trim_end_matches('/')).parse();
        Ok(HttpFacilitator {
            outgoing,
            verify: at("/verify")?,
            settle: at("/settle")?,
            supported: at("/supported")?,
            signer: cdp.map(|cdp| Signer::new(cdp, clock.clone())),
            verify_timeout: config.verify_timeout,
            settle_timeout: config.settle_timeout,
        })
    }

    async fn post(
        &self,
        url: &Uri,
        request: &PaymentRequest,
        deadline: Duration,
    ) -> Result<Reply, FacilitatorError> {
        let body = serde_json::to_vec(request)
            .map_err(|error| FacilitatorError::NotSent(format!("the request cannot be written: {error}")))?;
        let call = Call::json(Method::POST, url.clone(), Bytes::from(body));
        self.call(call, &Method::POST, url, deadline).await
    }

    async fn call(
        &self,
        call: Call,
        method: &Method,
        url: &Uri,
        deadline: Duration,
    ) -> Result<Reply, FacilitatorError> {
        let call = match &self.signer {
            Some(signer) => signer.sign(call, method, url)?,
            None => call,
        };
        Reply::read(self.outgoing.send(call, deadline).await?)
    }
}

#[async_trait]
impl Facilitator for HttpFacilitator {
    async fn verify(&self, request: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        let reply = self.post(&self.verify, request, self.verify_timeout).await?;
        match reply.claim("isValid", "invalidReason")? {
            true => {
                reply.check_payer(request)?;
                Ok(Verdict::Valid)
            }
            false => Ok(Verdict::Invalid {
                reason: reply.text("invalidReason").unwrap_or("invalid").to_owned(),
                message: reply.text("invalidMessage").map(str::to_owned),
            }),
        }
    }

    async fn settle(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        let reply = self.post(&self.settle, request, self.settle_timeout).await?;
        let success = reply.claim("success", "errorReason")?;
        let mut receipt = reply.receipt(success);
        if reply.is_pending() {
            receipt.success = false;
            return Ok(Settlement::Pending(receipt));
        }
        if !success {
            return Ok(Settlement::Refused(receipt));
        }
        reply.check_payer(request)?;
        reply.check_network(request)?;
        if receipt.transaction.is_empty() {
            return Err(lie("it says settled, and names no transaction"));
        }
        // What it left out is known from the payment.
        if let Some(network) = request.network.filter(|_| receipt.network.is_empty()) {
            let short = network.legacy_name().filter(|_| request.x402_version == Version::V1);
            receipt.network = short.map_or_else(|| network.to_string(), str::to_owned);
        }
        receipt.payer = receipt.payer.or_else(|| request.payer.map(|payer| payer.to_string()));
        Ok(Settlement::Settled(receipt))
    }

    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError> {
        let call = Call::get(self.supported.clone());
        let reply = self.call(call, &Method::GET, &self.supported, self.verify_timeout).await?;
        match reply.body.get("kinds").and_then(Value::as_array) {
            Some(kinds) if reply.ok => Ok(kinds.iter().filter_map(kind).collect()),
            _ => {
                let status = status_words(reply.status);
                Err(FacilitatorError::Unknown(format!("/supported: {status} without kinds")))
            }
        }
    }
}

/// A JSON object that came back, at any status.
struct Reply {
    status: u16,
    ok: bool,
    body: Map<String, Value>,
}

impl Reply {
    fn read(answer: Answer) -> Result<Self, FacilitatorError> {
        let (status, ok) = (answer.status.as_u16(), answer.status.is_success());
        match serde_json::from_slice(&answer.body) {
            Ok(body) => Ok(Reply { status, ok, body }),
            Err(_) => {
                Err(FacilitatorError::Unknown(format!("{} without a JSON object", status_words(status))))
            }
        }
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.body.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The boolean `field`. "Yes" needs a 2xx with it, "no" a 2xx or a reason: a bare "no" at another status may be
    /// a gateway's own error page.
    fn claim(&self, field: &str, reason: &str) -> Result<bool, FacilitatorError> {
        match self.body.get(field).and_then(Value::as_bool) {
            Some(true) if self.ok => Ok(true),
            Some(false) if self.ok || self.text(reason).is_some() => Ok(false),
            Some(true) => Err(lie(format!("`{field}` is true at status {}", self.status))),
            _ => {
                let status = status_words(self.status);
                Err(FacilitatorError::Unknown(format!("{status} without a usable `{field}`")))
            }
        }
    }

    /// Broadcast but not mined. One implementation says it in `status` of a 200, and its `success` is then not final.
    fn is_pending(&self) -> bool {
        matches!(self.text("errorReason"), Some("settlement_pending" | "pending"))
            || matches!(self.text("status"), Some("settlement_pending" | "pending"))
    }

    fn receipt(&self, success: bool) -> Receipt {
        let owned = |field| self.text(field).map(str::to_owned);
        Receipt {
            success,
            transaction: owned("transaction").unwrap_or_default(),
            network: owned("network").unwrap_or_default(),
            payer: owned("payer"),
            error_reason: owned("errorReason"),
            error_message: owned("errorMessage"),
        }
    }

    fn check_payer(&self, request: &PaymentRequest) -> Result<(), FacilitatorError> {
        match (self.text("payer"), request.payer) {
            (Some(said), Some(payer)) if said.parse::<Address>().ok() != Some(payer) => {
                Err(lie("it vouches for another payer than the payment's"))
            }
            _ => Ok(()),
        }
    }

    /// Short and CAIP-2 names of one network agree.
    fn check_network(&self, request: &PaymentRequest) -> Result<(), FacilitatorError> {
        match (self.text("network"), request.network) {
            (Some(said), Some(network)) if parse(said) != Some(network) => {
                Err(lie("it settled on another network than the payment's"))
            }
            _ => Ok(()),
        }
    }
}

impl From<OutgoingError> for FacilitatorError {
    fn from(error: OutgoingError) -> Self {
        if error.was_sent() {
            FacilitatorError::Unknown(error.to_string())
        } else {
            FacilitatorError::NotSent(error.to_string())
        }
    }
}

/// A status, and what an operator can do about it.
fn status_words(status: u16) -> String {
    match status {
        401 | 403 => format!("status {status} (it does not take our key: see [facilitator.cdp])"),
        _ => format!("status {status}"),
    }
}

/// A "yes" that cannot be true. Somebody must look; the outcome stays unknown.
fn lie(what: impl Into<String>) -> FacilitatorError {
    let what = what.into();
    tracing::error!(facilitator = %what, "the facilitator's answer contradicts the payment");
    FacilitatorError::Unknown(what)
}

fn parse(network: &str) -> Option<Network> {
    network.parse().ok()
}

/// One entry of `/supported`; other chains' and future versions' are left out.
fn kind(entry: &Value) -> Option<Supported> {
    let version = entry.get("x402Version")?.as_u64()?;
    Some(Supported {
        version: Version::try_from(u8::try_from(version).ok()?).ok()?,
        scheme: entry.get("scheme")?.as_str()?.to_owned(),
        network: parse(entry.get("network")?.as_str()?)?,
    })
}
