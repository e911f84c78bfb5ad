//! The facilitator over HTTP, for gateways and servers elsewhere: `POST /verify`, `POST /settle`, `GET /supported`.
//!
//! Whoever reaches it can make it spend gas, though never send money anywhere but where its owner signed it to. So it
//! belongs on loopback or a private network. An answer of 2xx or 4xx is a verdict; 5xx proves nothing.
//! Source: x402 specification v1 and v2, section 7 (facilitator interface).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Callers, LocalFacilitator};
use crate::facilitator::{Facilitator, FacilitatorError, PaymentRequest, Settlement, Verdict};
use crate::listener::Listener;
use crate::x402::Version;

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 1_024;

/// A request's body at most. A payment header is 32 KiB, and its requirement comes twice.
const MAX_BODY: usize = 256 * 1024;

/// A body must be complete within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of `/verify` and `/settle`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    x402_version: Version,
    payment_payload: Box<RawValue>,
    payment_requirements: Box<RawValue>,
}

/// Answers on `listener` until `stop` is ready, then lets answers in progress end, for `grace` at most. A settlement
/// runs on though its caller is gone. Fails as [`Listener::serve`] does.
pub async fn serve(
    listener: Listener,
    facilitator: Arc<LocalFacilitator>,
    callers: Callers,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> std::io::Result<()> {
    let answer = move |request| {
        let facilitator = Arc::clone(&facilitator);
        async move { answer(&facilitator, callers, request).await }
    };
    listener.serve(CONNECTIONS, answer, stop, grace).await
}

async fn answer(
    facilitator: &LocalFacilitator,
    callers: Callers,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let settle = match (&head.method, head.uri.path()) {
        (&Method::GET, "/supported") => return supported(facilitator).await,
        (&Method::POST, "/verify") => false,
        (&Method::POST, "/settle") => true,
        (_, "/verify" | "/settle" | "/supported") => {
            return error(StatusCode::METHOD_NOT_ALLOWED, "use POST /verify, POST /settle or GET /supported");
        }
        _ => return error(StatusCode::NOT_FOUND, "there are /verify, /settle and /supported"),
    };
    let body = match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error_)) if error_.is::<LengthLimitError>() => {
            return error(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 256 KiB");
        }
        Ok(Err(_)) => return error(StatusCode::BAD_REQUEST, "the body was cut off"),
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let call: Call = match serde_json::from_slice(&body) {
        Ok(call) => call,
        Err(why) => return error(StatusCode::BAD_REQUEST, &super::rpc::words(&why.to_string())),
    };
    let payer = echo(&call.payment_payload, "/payload/authorization/from");
    let network = echo(&call.payment_requirements, "/network");
    let request = PaymentRequest {
        x402_version: call.x402_version,
        payment_payload: call.payment_payload.into(),
        payment_requirements: call.payment_requirements.into(),
        payer: None,
        network: None,
    };
    let answer = if settle {
        facilitator.settle_for(&request, callers).await.map(|settlement| told(settlement, &network, &payer))
    } else {
        facilitator.verify(&request).await.map(|verdict| judged(verdict, &payer))
    };
    match answer {
        Ok(answer) => json_answer(StatusCode::OK, &answer),
        Err(FacilitatorError::NotSent(why)) => error(StatusCode::SERVICE_UNAVAILABLE, &why),
        Err(FacilitatorError::Unknown(why)) => error(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

fn judged(verdict: Verdict, payer: &Value) -> Value {
    match verdict {
        Verdict::Valid => json!({ "isValid": true, "payer": payer }),
        Verdict::Invalid { reason, message } => {
            let mut answer = json!({ "isValid": false, "invalidReason": reason, "payer": payer });
            if let Some(message) = message {
                answer["invalidMessage"] = message.into();
            }
            answer
        }
    }
}

/// Payer and network are written as the caller wrote them: some compare them as text.
fn told(settlement: Settlement, network: &Value, payer: &Value) -> Value {
    let (Settlement::Settled(receipt) | Settlement::Pending(receipt) | Settlement::Refused(receipt)) =
        settlement;
    let mut answer = json!({
        "success": receipt.success,
        "transaction": receipt.transaction,
        "network": network,
        "payer": payer,
    });
    if let Some(reason) = receipt.error_reason {
        answer["errorReason"] = reason.into();
    }
    if let Some(message) = receipt.error_message {
        answer["errorMessage"] = message.into();
    }
    answer
}

async fn supported(facilitator: &LocalFacilitator) -> Response<Full<Bytes>> {
    let kinds = match facilitator.supported().await {
        Ok(kinds) => kinds,
        Err(why) => return error(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
    };
    let kinds: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            let network = match (kind.version, kind.network.v1_name()) {
                (Version::V1, Some(name)) => name.to_owned(),
                _ => kind.network.to_string(),
            };
            json!({ "x402Version": kind.version, "scheme": kind.scheme, "network": network })
        })
        .collect();
    let signers: Vec<String> =
        facilitator.account().iter().map(|account| account.to_checksum(None)).collect();
    json_answer(
        StatusCode::OK,
        &json!({ "kinds": kinds, "extensions": [], "signers": { "eip155:*": signers } }),
    )
}

/// The text at `pointer`, as it was sent; empty if there is none.
fn echo(document: &RawValue, pointer: &str) -> Value {
    let document: Value = serde_json::from_str(document.get()).unwrap_or_default();
    document.pointer(pointer).filter(|value| value.is_string()).cloned().unwrap_or_else(|| "".into())
}

fn error(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json_answer(status, &json!({ "error": why }))
}

fn json_answer(status: StatusCode, document: &Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(document.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
