//! Merit Systems Echo: `POST /resource/e2b/execute`, with its oddities.
//!
//! 402 before the body is looked at, private fields in the challenge, a `resource` without the
//! `/resource` prefix, API-key headers that win over a payment. The whole authorised value is settled
//! first and the unused part sent back on chain. The program is never executed, only echoed.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::faults::Fault;
use super::payment::Payment;
use super::serve::{Body, Handler, json, read};
use super::till::Till;
use crate::money::Amount;

/// Ten seconds of two virtual CPUs, in atomic units.
const PRICE: Amount = Amount::new(280);
/// Every program pretends to take one second, a tenth of what was paid for.
const SHARE_USED: u128 = 10;
const MAX_BODY: usize = 100 << 20;
/// How much of a program is echoed, in bytes.
const ECHOED: usize = 4096;

const PREFIX: &str = "/resource";
pub(super) const PATH: &str = "/resource/e2b/execute";

pub(super) struct Merit {
    till: Till,
    refunds: bool,
    executions: AtomicU64,
}

#[async_trait]
impl Handler for Merit {
    async fn handle(&self, request: Request<Incoming>, fault: Option<Fault>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST || head.uri.path() != PATH {
            return json(StatusCode::NOT_FOUND, &json!({ "error": "Not Found" }));
        }
        // The body parser runs before any handler.
        let body = match read(body, MAX_BODY).await {
            Ok(body) => body,
            Err(answer) => return *answer,
        };
        let has = |name: &str| head.headers.contains_key(name);
        let by_key = has("x-api-key") || has("x-goog-api-key") || has("authorization");
        if !by_key && !has("x-payment") {
            return self.challenge();
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(snippet) = body["snippet"].as_str().filter(|snippet| !snippet.is_empty()) else {
            let issue = json!({ "code": "invalid_type", "path": ["snippet"], "message": "Required" });
            return json(StatusCode::BAD_REQUEST, &json!({ "error": "Invalid body", "issues": [issue] }));
        };
        if by_key {
            // No key is known here, and that is how the real service says so.
            return internal_error();
        }
        self.execute(&head.headers, snippet, fault)
    }
}

impl Merit {
    pub(super) fn new(till: Till, refunds: bool) -> Self {
        Merit { till, refunds, executions: AtomicU64::new(0) }
    }

    fn execute(&self, headers: &HeaderMap, snippet: &str, fault: Option<Fault>) -> Response<Body> {
        let Some((payment, authorised)) = self.take(headers) else { return self.challenge() };
        if fault == Some(Fault::AskAgain) {
            return self.challenge();
        }
        if fault == Some(Fault::WorkFails) {
            self.send_back(&payment, authorised);
            return internal_error();
        }
        let price = self.till.terms(PRICE, true).amount;
        let cost = Amount::new(price.units().div_ceil(SHARE_USED));
        self.send_back(&payment, authorised.checked_sub(cost).unwrap_or_default());
        json(StatusCode::OK, &self.result(snippet, cost))
    }

    /// Settles whatever was authorised, without a check before it: as much as the price, or more.
    fn take(&self, headers: &HeaderMap) -> Option<(Payment, Amount)> {
        let payment = self.till.read(headers).ok()??;
        let terms = self.till.terms(PRICE, true);
        payment.verify_offline(&terms, self.till.clock.now()).ok()?;
        self.till.settle(&payment).ok()?;
        let authorised = payment.authorization.value;
        Some((payment, authorised))
    }

    fn send_back(&self, payment: &Payment, amount: Amount) {
        if self.refunds && amount > Amount::ZERO {
            // It has just been paid, so it has the money; a refund that fails is only logged there too.
            let _ = self.till.ledger.transfer(self.till.pay_to, payment.authorization.from, amount);
        }
    }

    /// What the sandbox of the real service returns, for a program that was not run.
    fn result(&self, snippet: &str, cost: Amount) -> Value {
        let number = self.executions.fetch_add(1, Ordering::Relaxed) + 1;
        let echoed = &snippet[..snippet.floor_char_boundary(ECHOED)];
        let stdout = format!("sandbox: would run {} bytes of python:\n{echoed}\n", snippet.len());
        let cost: Value = serde_json::from_str(&cost.to_decimal(6)).unwrap_or_default();
        let mut result = json!({
            "results": [],
            "logs": { "stdout": [stdout], "stderr": [] },
            "executionCount": number,
            "cost": cost,
            "sandboxId": format!("sandbox{number:013}"),
            "duration": 1,
        });
        if let Some(error) = raised(snippet) {
            result["error"] = error;
        }
        result
    }

    fn challenge(&self) -> Response<Body> {
        let asset = self.till.ledger.asset();
        let network = asset.network.v1_name().unwrap_or_default();
        let pay_to = self.till.pay_to.to_string();
        let currency = asset.address.to_string();
        // The router sits below the prefix, and does not know it.
        let link = PATH.strip_prefix(PREFIX).unwrap_or(PATH);
        let url = format!("{}{link}", self.till.base);
        let nonce = super::hash(&[uuid::Uuid::new_v4().as_bytes()]);
        let accept = json!({
            "type": "x402",
            "version": "1",
            "network": network,
            "maxAmountRequired": self.till.terms(PRICE, true).amount,
            "recipient": pay_to,
            "currency": currency,
            "to": pay_to,
            "url": url,
            "nonce": nonce,
            "scheme": "exact",
            "resource": url,
            "description": "Execute Python code in a sandbox",
            "mimeType": "application/json",
            "maxTimeoutSeconds": 1000,
            "discoverable": true,
            "payTo": pay_to,
            "asset": currency,
            "extra": { "name": asset.name, "version": asset.version },
            "outputSchema": {
                "input": { "type": "http", "method": "POST", "bodyType": "json",
                    "bodyFields": { "snippet": { "type": "string", "required": true } } },
                "output": { "results": { "type": "array" } },
            },
        });
        let body = json!({ "x402Version": 1, "error": "Payment Required", "accepts": [accept] });
        let mut answer = json(StatusCode::PAYMENT_REQUIRED, &body);
        let realm = format!("X-402 realm=\"echo\", link=\"{link}\", network=\"{network}\"");
        if let Ok(realm) = HeaderValue::try_from(realm) {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        }
        answer
    }
}

fn internal_error() -> Response<Body> {
    json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": "Internal server error" }))
}

/// The exception a program that says `raise Name("value")` would end with.
fn raised(snippet: &str) -> Option<Value> {
    let (_, rest) = snippet.split_once("raise ")?;
    let statement = rest.lines().next().unwrap_or_default().trim();
    let (name, value) = statement.split_once('(').unwrap_or((statement, ""));
    let value = value.trim_end_matches(')').trim_matches(['"', '\'']);
    let traceback = format!("Traceback (most recent call last)\n{name}: {value}");
    Some(json!({ "name": name, "value": value, "traceback": traceback }))
}
