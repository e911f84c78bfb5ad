mod cdp;

use serde_json::{Value, json};

use super::*;
use crate::outgoing::Settings;
use crate::outgoing::stub::{Reply as Served, Stub, closed_url};

const PAYER: &str = "0x857b06519E91e3A54538791bDbb0E22373e36b66";
const HASH: &str = "0x1234567890abcdef1234567890abcdef1234567890abcdef1234567890abcdef";
/// Long enough to connect and to send, on a machine with other work.
const SOON: Duration = Duration::from_secs(3);
const LATER: Duration = Duration::from_secs(10);

fn config(timeout: Duration) -> resolved::Facilitator {
    resolved::Facilitator {
        url: Uri::from_static("http://127.0.0.1:1"),
        allow_plain_http: false,
        cdp: None,
        local: None,
        hedge_after: timeout,
        fallback: Vec::new(),
        verify_timeout: timeout,
        settle_timeout: timeout,
        unknown_hold: LATER,
    }
}

fn client(url: Uri, timeout: Duration) -> HttpFacilitator {
    let settings = Settings { connect_timeout: LATER, allow_plain_http: false };
    let (config, outgoing) = (config(timeout), Outgoing::new(settings).unwrap());
    HttpFacilitator::new(outgoing, &config, (&url, None), &Clock::system()).unwrap()
}

fn payment() -> PaymentRequest {
    let raw = |value: Value| serde_json::value::to_raw_value(&value).unwrap().into();
    PaymentRequest {
        x402_version: Version::V2,
        payment_payload: raw(json!({
            "x402Version": 2,
            "payload": {"signature": "0x00", "authorization": {"from": PAYER}},
        })),
        payment_requirements: raw(json!({"scheme": "exact", "network": "eip155:84532"})),
        payer: PAYER.parse().ok(),
        network: Some(Network(84_532)),
    }
}

async fn settle(served: impl Fn() -> Served + Send + Sync + 'static) -> Result<Settlement, FacilitatorError> {
    let stub = Stub::start(move |_| served()).await;
    client(stub.url("/"), LATER).settle(&payment()).await
}

async fn verify(served: impl Fn() -> Served + Send + Sync + 'static) -> Result<Verdict, FacilitatorError> {
    let stub = Stub::start(move |_| served()).await;
    client(stub.url("/"), LATER).verify(&payment()).await
}

/// The outcome in one word, for the tables.
fn word<T: std::fmt::Debug>(outcome: &Result<T, FacilitatorError>) -> String {
    let text = match outcome {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("{error:?}"),
    };
    text.split([' ', '(']).next().unwrap().to_owned()
}

#[tokio::test]
async fn settle_answers_by_implementation() {
    let no = |reason: &str| json!({"success": false, "errorReason": reason, "transaction": "", "network": "", "payer": ""});
    let yes = json!({"success": true, "transaction": HASH, "network": "eip155:84532", "payer": PAYER});
    let pending = json!({"success": false, "errorReason": "settlement_pending", "transaction": HASH,
        "network": "eip155:84532"});
    let with = |field: &str, value: Value| {
        let mut answer = yes.clone();
        answer[field] = value;
        answer
    };
    let table = [
        ("settled", 200, yes.clone(), "Settled"),
        (
            "short network name, lower-case payer",
            200,
            json!({"success": true, "transaction": HASH, "network": "base-sepolia",
                "payer": PAYER.to_lowercase()}),
            "Settled",
        ),
        (
            "only what v1 facilitators always send",
            200,
            json!({"success": true, "transaction": HASH}),
            "Settled",
        ),
        ("unknown fields and nulls", 201, with("extensions", Value::Null), "Settled"),
        ("TS and Python, reverted", 200, no("transaction_failed"), "Refused"),
        (
            "Python, reverted with a hash",
            200,
            json!({"success": false, "errorReason": "transaction_failed",
            "transaction": HASH, "network": "eip155:84532"}),
            "Refused",
        ),
        ("x402-rs, used nonce or bad signature", 500, no("unexpected_error"), "Refused"),
        ("x402-rs, invalid", 400, no("invalid_payment_expired"), "Refused"),
        ("x402-rs, no allowance", 412, no("permit2_allowance_required"), "Refused"),
        ("a bare no", 200, json!({"success": false}), "Refused"),
        ("TS, no receipt yet", 200, pending.clone(), "Pending"),
        ("CDP, no receipt yet", 500, pending, "Pending"),
        ("Circle, pending", 200, with("status", json!("pending")), "Pending"),
        // No answer.
        ("TS, unknown scheme", 500, json!({"error": "no facilitator registered"}), "Unknown"),
        ("a bare no of a gateway", 503, json!({"success": false, "message": "try later"}), "Unknown"),
        ("rate limit", 429, json!({"error": "rate limited"}), "Unknown"),
        ("not an object", 200, json!([true]), "Unknown"),
        ("not a boolean", 200, json!({"success": "true", "transaction": HASH}), "Unknown"),
        ("verify's answer", 200, json!({"isValid": true}), "Unknown"),
        // Yes, but it cannot be.
        ("yes at 500", 500, yes.clone(), "Unknown"),
        ("no transaction", 200, with("transaction", json!("")), "Unknown"),
        ("another payer", 200, with("payer", json!("0x0000000000000000000000000000000000000001")), "Unknown"),
        ("another network", 200, with("network", json!("eip155:8453")), "Unknown"),
        ("another unknown network", 200, with("network", json!("base-sepolia-2")), "Unknown"),
    ];
    for (row, status, body, expected) in table {
        let outcome = settle(move || Served::json(status, &body)).await;
        assert_eq!(word(&outcome), expected, "{row}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_settlement_that_may_have_happened_is_unknown() {
    type Row = (&'static str, fn() -> Served);
    let table: [Row; 6] = [
        ("PayAI's nginx", || Served::html(503)),
        ("HTML at 200", || Served::html(200)),
        ("reset", Served::drop),
        ("half an answer", || {
            Served::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"success\":true".into())
        }),
        ("not HTTP", || Served::Raw(b"garbage\r\n\r\n".into())),
        ("empty", || Served::Http(200, vec![], vec![])),
    ];
    for (row, served) in table {
        let outcome = settle(served).await;
        assert!(matches!(outcome, Err(FacilitatorError::Unknown(_))), "{row}: {outcome:?}");
    }
    let stub = Stub::start(|_| Served::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")).await;
    let outcome = client(stub.url("/"), SOON).settle(&payment()).await;
    assert!(matches!(outcome, Err(FacilitatorError::Unknown(_))), "timeout: {outcome:?}");
}

#[tokio::test]
async fn a_settlement_that_never_left_says_so() {
    let outcome = client(closed_url("/").await, LATER).settle(&payment()).await;
    assert!(matches!(outcome, Err(FacilitatorError::NotSent(_))), "{outcome:?}");
}

#[tokio::test]
async fn the_receipt_is_kept_and_completed() {
    let body = json!({"success": true, "transaction": HASH, "network": "", "payer": null});
    let Ok(Settlement::Settled(receipt)) = settle(move || Served::json(200, &body)).await else {
        panic!("settled")
    };
    assert_eq!(receipt.network, "eip155:84532");
    assert_eq!(receipt.payer.as_deref(), Some(PAYER));

    let body = json!({"success": false, "errorReason": "settlement_pending", "errorMessage": "wait",
        "transaction": HASH, "network": "base-sepolia"});
    let Ok(Settlement::Pending(receipt)) = settle(move || Served::json(500, &body)).await else {
        panic!("pending")
    };
    assert_eq!((receipt.success, receipt.transaction.as_str()), (false, HASH));
    assert_eq!(receipt.error_message.as_deref(), Some("wait"));
}

#[tokio::test]
async fn verify_answers_by_implementation() {
    let no = |reason: &str| json!({"isValid": false, "invalidReason": reason, "payer": ""});
    let table = [
        ("valid", 200, json!({"isValid": true, "payer": PAYER}), "Valid"),
        ("valid, no payer", 200, json!({"isValid": true}), "Valid"),
        ("TS and Python", 200, no("invalid_exact_evm_signature"), "Invalid"),
        ("x402-rs, invalid", 400, no("invalid_payment_amount"), "Invalid"),
        ("x402-rs, bad signature", 500, no("unexpected_error"), "Invalid"),
        (
            "CDP, a payer it will not serve",
            400,
            no("invalid_exact_evm_payload_authorization_from_address_kyt"),
            "Invalid",
        ),
        ("a bare no", 200, json!({"isValid": false}), "Invalid"),
        ("CDP, a key it does not know", 401, json!({"errorType": "unauthorized"}), "Unknown"),
        ("a bare no at 500", 500, json!({"isValid": false}), "Unknown"),
        ("TS, unknown network", 500, json!({"error": "unsupported"}), "Unknown"),
        ("yes at 400", 400, json!({"isValid": true}), "Unknown"),
        ("another payer", 200, json!({"isValid": true, "payer": HASH}), "Unknown"),
    ];
    for (row, status, body, expected) in table {
        let outcome = verify(move || Served::json(status, &body)).await;
        assert_eq!(word(&outcome), expected, "{row}: {outcome:?}");
    }
    let outcome = verify(|| Served::html(502)).await;
    assert!(matches!(outcome, Err(FacilitatorError::Unknown(_))), "{outcome:?}");

    let body = json!({"isValid": false, "invalidReason": "insufficient_funds", "invalidMessage": "0 < 1"});
    let expected = Verdict::Invalid { reason: "insufficient_funds".into(), message: Some("0 < 1".into()) };
    assert_eq!(verify(move || Served::json(200, &body)).await, Ok(expected));
}

#[tokio::test]
async fn the_same_request_is_the_same_bytes_under_the_base_path() {
    let stub = Stub::start(|_| Served::json(200, &json!({"success": false}))).await;
    let facilitator = client(stub.url("/platform/v2/x402/"), LATER);
    facilitator.settle(&payment()).await.unwrap();
    facilitator.settle(&payment()).await.unwrap();
    let seen = stub.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/platform/v2/x402/settle"));
    assert_eq!(seen[0].body, seen[1].body);
    let body: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(body["x402Version"], 2);
    assert_eq!(body["paymentPayload"]["payload"]["authorization"]["from"], PAYER);
    assert_eq!(body["paymentRequirements"]["network"], "eip155:84532");
    assert!(!seen[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn supported_leaves_out_what_it_cannot_read() {
    let kinds = json!({"kinds": [
        {"x402Version": 2, "scheme": "exact", "network": "eip155:84532", "extra": {"x": 1}},
        {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"},
        {"x402Version": 2, "scheme": "exact", "network": "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"},
        {"x402Version": 300, "scheme": "exact", "network": "eip155:1"},
        {"scheme": "exact"}, null, "x",
    ]});
    let stub = Stub::start(move |_| Served::json(200, &kinds)).await;
    let supported = client(stub.url("/"), LATER).supported().await.unwrap();
    let network = Network(84_532);
    let expected =
        [Version::V2, Version::V1].map(|version| Supported { version, scheme: "exact".into(), network });
    assert_eq!(supported, expected);

    let stub = Stub::start(|_| Served::json(500, &json!({"kinds": []}))).await;
    assert!(client(stub.url("/"), LATER).supported().await.is_err());
}
