//! Where a provider takes payment: its challenge, and the money on the ledger.
//!
//! Works as the reference middleware does: check, let the work be done, settle, hand out the receipt.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::Service;
use super::faults::{Fault, Faults};
use super::ledger::{Ledger, Transaction};
use super::payment::{Payment, Terms, reason};
use super::serve::{Body, json};
use crate::clock::Clock;
use crate::money::Amount;
use crate::x402::{Address, Network, Receipt, Version};

/// `maxTimeoutSeconds` of the challenges.
const TIMEOUT_SECONDS: u64 = 300;

/// One provider's till.
pub(super) struct Till {
    pub(super) service: Service,
    pub(super) ledger: Arc<Ledger>,
    pub(super) faults: Arc<Faults>,
    pub(super) clock: Clock,
    pub(super) pay_to: Address,
    /// `http://127.0.0.1:port`, for `resource`.
    pub(super) base: String,
    /// Whether it speaks v2 as well as v1.
    pub(super) v2: bool,
}

/// What is sold: names the price and the challenge.
pub(super) struct Item<'a> {
    pub(super) price: Amount,
    /// The path asked for.
    pub(super) path: &'a str,
    pub(super) description: &'static str,
}

impl Till {
    /// The payment of a request, if it is good for `item`; else the 402 to answer. Takes nothing.
    pub(super) fn admit(&self, headers: &HeaderMap, item: &Item<'_>) -> Result<Payment, Box<Response<Body>>> {
        let no = |error: &str| Box::new(self.challenge(item, error));
        let payment = match self.read(headers) {
            Ok(Some(payment)) => payment,
            Ok(None) if self.v2 => return Err(no("Payment required")),
            Ok(None) => return Err(no("X-PAYMENT header is required")),
            Err(error) => return Err(no(&error)),
        };
        if payment.version == Version::V2 && !self.accepts(&payment, item) {
            return Err(no("No matching payment requirements"));
        }
        let terms = self.terms(item.price, false);
        payment.verify(&self.ledger, &terms, self.clock.now()).map_err(no)?;
        Ok(payment)
    }

    /// Takes the money of an admitted payment, and adds the receipt to `answer`; or a fresh 402.
    pub(super) fn collect(
        &self,
        payment: &Payment,
        item: &Item<'_>,
        fault: Option<Fault>,
        mut answer: Response<Body>,
    ) -> Response<Body> {
        let settled = self.settle(payment);
        if fault == Some(Fault::AskAgain) {
            return self.challenge(item, "X-PAYMENT header is required");
        }
        let mut receipt = Receipt {
            success: settled.is_ok(),
            transaction: String::new(),
            network: payment.network.clone(),
            payer: Some(payment.authorization.from.to_string()),
            error_reason: None,
            error_message: None,
        };
        match settled {
            Ok(transaction) => receipt.transaction = transaction.hash.to_string(),
            Err(reason) => {
                answer = self.challenge(item, reason);
                receipt.error_reason = Some(reason.to_owned());
            }
        }
        let name = match payment.version {
            Version::V1 => "x-payment-response",
            Version::V2 => "payment-response",
        };
        set(&mut answer, name, &json!(receipt));
        answer
    }

    /// Takes the money of a payment, whatever it is for.
    pub(super) fn settle(&self, payment: &Payment) -> Result<Transaction, &'static str> {
        self.ledger.transfer_with_authorization(&payment.authorization, &payment.signature).map_err(reason)
    }

    /// The payment header, decoded: `PAYMENT-SIGNATURE` first where v2 is spoken, else `X-PAYMENT`.
    pub(super) fn read(&self, headers: &HeaderMap) -> Result<Option<Payment>, String> {
        let v2 = headers.get("payment-signature").filter(|_| self.v2);
        let Some(header) = v2.or_else(|| headers.get("x-payment")) else { return Ok(None) };
        let json = base64_simd::STANDARD.decode_to_vec(header).map_err(|_| "the payment is not base64")?;
        let json: Value = serde_json::from_slice(&json).map_err(|_| "the payment is not JSON")?;
        let payment = Payment::parse(&json)?;
        let expected = if v2.is_some() { Version::V2 } else { Version::V1 };
        if payment.version != expected {
            return Err(format!("Unsupported x402 version: {}", u8::from(payment.version)));
        }
        let network = match expected {
            Version::V1 => Network::from_v1_name(&payment.network),
            Version::V2 => Network::from_caip2(&payment.network),
        };
        if payment.scheme != "exact" || network != Some(self.ledger.asset().network) {
            return Err("No matching payment requirements".to_owned());
        }
        Ok(Some(payment))
    }

    /// What a payment of `price` has to match.
    pub(super) fn terms(&self, price: Amount, or_more: bool) -> Terms {
        let amount = self.faults.price(self.service, price);
        Terms { asset: self.ledger.asset().clone(), pay_to: self.pay_to, amount, or_more }
    }

    /// A 402: v1 in the body; v2 in the header where it is spoken.
    pub(super) fn challenge(&self, item: &Item<'_>, error: &str) -> Response<Body> {
        let asset = self.ledger.asset();
        let resource = format!("{}{}", self.base, item.path);
        let v1 = json!({
            "scheme": "exact",
            "network": asset.network.v1_name(),
            "maxAmountRequired": self.faults.price(self.service, item.price),
            "resource": resource,
            "description": item.description,
            "mimeType": "application/json",
            "payTo": self.pay_to.to_string(),
            "maxTimeoutSeconds": TIMEOUT_SECONDS,
            "asset": asset.address.to_string(),
            "extra": { "name": asset.name, "version": asset.version },
        });
        let body = json!({ "x402Version": 1, "error": error, "accepts": [v1] });
        let mut answer = json(StatusCode::PAYMENT_REQUIRED, &body);
        if self.v2 {
            let resource =
                json!({ "url": resource, "description": item.description, "mimeType": "application/json" });
            let accepts = [self.v2_entry(item)];
            let required =
                json!({ "x402Version": 2, "error": error, "resource": resource, "accepts": accepts });
            set(&mut answer, "payment-required", &required);
        }
        answer
    }

    fn v2_entry(&self, item: &Item<'_>) -> Value {
        let asset = self.ledger.asset();
        json!({
            "scheme": "exact",
            "network": asset.network,
            "amount": self.faults.price(self.service, item.price),
            "asset": asset.address.to_string(),
            "payTo": self.pay_to.to_string(),
            "maxTimeoutSeconds": TIMEOUT_SECONDS,
            "extra": { "name": asset.name, "version": asset.version },
        })
    }

    /// Whether `accepted` is our offer: equal but for `extra`, to which clients may add.
    fn accepts(&self, payment: &Payment, item: &Item<'_>) -> bool {
        let Some(mut accepted) = payment.accepted.clone() else { return false };
        let mut ours = self.v2_entry(item);
        let (theirs, extra) = (accepted["extra"].take(), ours["extra"].take());
        let subset =
            extra.as_object().is_some_and(|extra| extra.iter().all(|(key, value)| theirs[key] == *value));
        accepted == ours && subset
    }
}

/// Sets a header to the base64 of some JSON.
fn set(answer: &mut Response<Body>, name: &'static str, value: &Value) {
    let text = base64_simd::STANDARD.encode_to_string(value.to_string());
    if let Ok(value) = HeaderValue::try_from(text) {
        answer.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
