//! The facilitator: `/verify`, `/settle` and `/supported` for both versions, over the ledger.
//!
//! Answers as the TypeScript engine 2.27 does, apart from one strictness of x402-rs that can be
//! switched off: a v2 payment's `accepted` must equal the requirement as JSON.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::Fault;
use super::ledger::Ledger;
use super::payment::{Payment, Terms, reason};
use super::serve::{Body, Handler, json, read};
use crate::clock::Clock;
use crate::money::Amount;
use crate::x402::{Address, Asset, Network, Version};

pub(super) struct Facilitator {
    ledger: Arc<Ledger>,
    clock: Clock,
    strict: bool,
    signer: Address,
    /// Signatures of payments broadcast but not yet mined.
    pending: Mutex<HashSet<Vec<u8>>>,
}

/// The body of `/verify` and `/settle`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    x402_version: Version,
    payment_payload: Value,
    payment_requirements: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Requirement {
    scheme: String,
    network: String,
    /// v2.
    amount: Option<Amount>,
    /// v1.
    max_amount_required: Option<Amount>,
    asset: Address,
    pay_to: Address,
    extra: Option<Extra>,
}

#[derive(Deserialize)]
struct Extra {
    name: Option<String>,
    version: Option<String>,
}

/// Why there is no verdict, or a negative one.
enum No {
    /// An answer of another shape than a verdict.
    Error(StatusCode, String),
    /// A verdict, with this status.
    Verdict(StatusCode, &'static str, Box<Option<Payment>>),
}

#[async_trait]
impl Handler for Facilitator {
    async fn handle(&self, request: Request<Incoming>, fault: Option<Fault>) -> Response<Body> {
        let (head, body) = request.into_parts();
        match (head.method, head.uri.path()) {
            (Method::GET, "/supported") => json(StatusCode::OK, &self.supported()),
            (Method::POST, path @ ("/verify" | "/settle")) => {
                let settle = path == "/settle";
                match read(body, 1 << 20).await {
                    Err(answer) => *answer,
                    Ok(body) => match serde_json::from_slice::<Call>(&body) {
                        Err(error) => json(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() })),
                        Ok(call) if settle => self.settle(&call, fault),
                        Ok(call) => self.verify(&call, fault),
                    },
                }
            }
            _ => json(StatusCode::NOT_FOUND, &json!({ "error": "not found" })),
        }
    }
}

impl Facilitator {
    pub(super) fn new(ledger: Arc<Ledger>, clock: Clock, strict: bool, signer: Address) -> Self {
        Facilitator { ledger, clock, strict, signer, pending: Mutex::default() }
    }

    fn supported(&self) -> Value {
        let Asset { network, .. } = self.ledger.asset();
        json!({
            "kinds": [
                { "x402Version": 2, "scheme": "exact", "network": network.to_string() },
                { "x402Version": 1, "scheme": "exact", "network": network.v1_name() },
            ],
            "extensions": [],
            "signers": { "eip155:*": [self.signer.to_string()] },
        })
    }

    fn verify(&self, call: &Call, fault: Option<Fault>) -> Response<Body> {
        let payer = payer(&call.payment_payload);
        if fault == Some(Fault::Lie) {
            return json(StatusCode::OK, &json!({ "isValid": true, "payer": payer }));
        }
        let verdict = self.read(call).and_then(|(payment, terms)| {
            payment
                .verify(&self.ledger, &terms, self.clock.now())
                .map_err(|reason| No::Verdict(StatusCode::OK, reason, Box::new(Some(payment))))
        });
        match verdict {
            Ok(()) => json(StatusCode::OK, &json!({ "isValid": true, "payer": payer })),
            Err(No::Error(status, error)) => json(status, &json!({ "error": error })),
            Err(No::Verdict(status, reason, payment)) => {
                let payer = if payment.is_some() { payer } else { "" };
                json(status, &json!({ "isValid": false, "invalidReason": reason, "payer": payer }))
            }
        }
    }

    fn settle(&self, call: &Call, fault: Option<Fault>) -> Response<Body> {
        let payer = payer(&call.payment_payload);
        if fault == Some(Fault::Lie) {
            let network = call.payment_requirements.get("network");
            let transaction = super::hash(&[b"lie", payer.as_bytes()]);
            let lie =
                json!({ "success": true, "transaction": transaction, "network": network, "payer": payer });
            return json(StatusCode::OK, &lie);
        }
        match self.read(call) {
            Err(No::Error(status, error)) => json(status, &json!({ "error": error })),
            Err(No::Verdict(status, reason, payment)) => {
                let network = payment.map_or(String::new(), |payment| payment.network);
                let no = json!({ "success": false, "errorReason": reason, "transaction": "", "network": network,
                    "payer": payer });
                json(status, &no)
            }
            Ok((payment, terms)) => {
                let mut answer = json!({ "network": payment.network, "payer": payer });
                match self.transact(&payment, &terms, fault) {
                    Ok(hash) => {
                        answer["success"] = true.into();
                        answer["transaction"] = hash.into();
                    }
                    Err((reason, hash)) => {
                        answer["success"] = false.into();
                        answer["errorReason"] = reason.into();
                        answer["transaction"] = hash.into();
                    }
                }
                json(StatusCode::OK, &answer)
            }
        }
    }

    /// The transaction's hash, or a reason and the hash of what was broadcast ("" for nothing).
    fn transact(
        &self,
        payment: &Payment,
        terms: &Terms,
        fault: Option<Fault>,
    ) -> Result<String, (&'static str, String)> {
        let hash = self.ledger.transaction_hash(&payment.authorization).to_string();
        let pending = self.pending.lock().remove(&payment.signature);
        if !pending {
            payment.verify_offline(terms, self.clock.now()).map_err(|reason| (reason, String::new()))?;
            if terms.asset.address != self.ledger.asset().address {
                return Err(("asset_not_deployed_contract", String::new()));
            }
        }
        let authorization = &payment.authorization;
        if fault == Some(Fault::Pending) && !self.ledger.used(authorization.from, authorization.nonce) {
            self.pending.lock().insert(payment.signature.clone());
            return Err(("settlement_pending", hash));
        }
        match self.ledger.transfer_with_authorization(authorization, &payment.signature) {
            Ok(_) => Ok(hash),
            // It was broadcast, and reverted.
            Err(_) if pending => Err(("invalid_exact_evm_transaction_failed", hash)),
            Err(error) => Err((reason(error), String::new())),
        }
    }

    /// Payment and terms of a call, as far as the two agree on scheme, network and version.
    fn read(&self, call: &Call) -> Result<(Payment, Terms), No> {
        let bad = |error: String| No::Error(StatusCode::BAD_REQUEST, error);
        let payment = Payment::parse(&call.payment_payload).map_err(bad)?;
        let requirement = Requirement::deserialize(&call.payment_requirements)
            .map_err(|error| bad(format!("paymentRequirements: {error}")))?;
        if payment.version != call.x402_version {
            return Err(bad("x402Version is not the payload's".to_owned()));
        }
        let (network, amount) = match payment.version {
            Version::V1 => (Network::from_v1_name(&requirement.network), requirement.max_amount_required),
            Version::V2 => (Network::from_caip2(&requirement.network), requirement.amount),
        };
        let amount = amount.ok_or_else(|| bad("paymentRequirements: no amount".to_owned()))?;
        if requirement.scheme != "exact" || network != Some(self.ledger.asset().network) {
            let Requirement { scheme, network, .. } = &requirement;
            let error = format!("No facilitator registered for scheme: {scheme} and network: {network}");
            return Err(No::Error(StatusCode::INTERNAL_SERVER_ERROR, error));
        }
        let no = |reason| Err(No::Verdict(StatusCode::OK, reason, Box::new(Some(payment.clone()))));
        if self.strict
            && payment.version == Version::V2
            && payment.accepted.as_ref() != Some(&call.payment_requirements)
        {
            return Err(No::Verdict(
                StatusCode::BAD_REQUEST,
                "accepted_requirements_mismatch",
                Box::new(None),
            ));
        }
        if payment.scheme != "exact" {
            return no("invalid_exact_evm_scheme");
        }
        let Some(Extra { name: Some(name), version: Some(version) }) = requirement.extra else {
            return no("invalid_exact_evm_missing_eip712_domain");
        };
        if payment.network != requirement.network {
            return no("invalid_exact_evm_network_mismatch");
        }
        let asset = Asset { name, version, address: requirement.asset, ..self.ledger.asset().clone() };
        Ok((payment, Terms { asset, pay_to: requirement.pay_to, amount, or_more: false }))
    }
}

/// The payer, as the payload spells it.
fn payer(payload: &Value) -> &str {
    payload.pointer("/payload/authorization/from").and_then(Value::as_str).unwrap_or("")
}
