//! Requests that are wrong in themselves: a clear error with its code, before any challenge, and nothing moves.

use galaksio::sandbox::Service;
use galaksio::x402::Version;
use http::Method;
use serde_json::{Value, json};

use crate::client::{HOST, Request};
use crate::gateway::Gateway;
use crate::payer::Payer;
use crate::rig::{Setup, Stage};
use crate::sold::base64;

/// A request, and the status and code it is answered with.
type Case = (&'static str, Request, u16, &'static str);

#[test]
fn every_bad_request_has_its_error() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    refused(&stage, &gateway, bodies());
    refused(&stage, &gateway, options());
    refused(&stage, &gateway, types_and_sizes());
    gateway.end();
    assert!(stage.jobs().is_empty(), "{:?}", stage.jobs());
}

fn bodies() -> Vec<Case> {
    let store = |body: Value| Request::json("/store", &body);
    let run = |body: Value| Request::json("/run", &body);
    vec![
        ("no data", store(json!({})), 400, "data_required"),
        ("empty data", store(json!({ "data": "" })), 400, "data_required"),
        ("null data", store(json!({ "data": null })), 400, "data_required"),
        ("no body to store", Request::post("/store", "application/json", ""), 400, "data_required"),
        (
            "no raw body to store",
            Request::post("/store", "image/png", "").header("content-length", "0"),
            400,
            "data_required",
        ),
        ("no code", run(json!({})), 400, "code_required"),
        ("empty code", run(json!({ "code": "" })), 400, "code_required"),
        ("no body to run", Request::post("/run", "application/json", ""), 400, "code_required"),
        (
            "no raw body to run",
            Request::post("/run", "text/x-python", "").header("content-length", "0"),
            400,
            "code_required",
        ),
        ("a raw body of no length", Request::post("/store", "image/png", ""), 411, "length_required"),
        ("half a document", Request::post("/store", "application/json", "{\"data\":"), 400, "invalid_json"),
        ("not a document", Request::post("/run", "application/json", "print(1)"), 400, "invalid_json"),
        ("an array", Request::post("/run", "application/json", "[]"), 400, "invalid_json"),
        ("not text", Request::post("/run", "application/json", vec![0x7b, 0xff]), 400, "invalid_json"),
        ("a number to store", store(json!({ "data": 7 })), 400, "invalid_field"),
        ("a program that is a number", run(json!({ "code": 7 })), 400, "invalid_field"),
        ("base64 that is not", store(json!({ "data": "a-b", "encoding": "base64" })), 400, "invalid_base64"),
        ("code that is not", run(json!({ "code": "print(1)", "encoding": "base64" })), 400, "invalid_base64"),
        ("an unknown encoding", store(json!({ "data": "aa", "encoding": "hex" })), 400, "invalid_field"),
        ("a .json that is not", store(json!({ "data": "{", "filename": "a.json" })), 400, "invalid_json"),
        ("a URL", store(json!({ "data": { "url": "http://10.0.0.1/" } })), 400, "not_supported"),
    ]
}

fn options() -> Vec<Case> {
    let store = |options: Value| Request::json("/store", &json!({ "data": "text", "options": options }));
    let run = |body: Value| Request::json("/run", &body);
    let raw = |query: &str| Request::post(&format!("/store?{query}"), "image/png", "bytes");
    vec![
        ("an unknown field", run(json!({ "code": "1", "cores": 4 })), 400, "invalid_field"),
        ("an unknown option", store(json!({ "colour": "red" })), 400, "invalid_field"),
        ("an unknown raw option", raw("colour=red"), 400, "invalid_field"),
        (
            "a field twice",
            Request::post("/run", "application/json", r#"{"code":"1","code":"2"}"#),
            400,
            "invalid_field",
        ),
        ("an option twice", raw("ttl=1&ttl=2"), 400, "invalid_field"),
        (
            "options and a query",
            Request::json("/run?language=python", &json!({ "code": "1" })),
            400,
            "invalid_field",
        ),
        ("a ttl of zero", store(json!({ "ttl": 0 })), 400, "invalid_field"),
        ("a ttl and for good", store(json!({ "ttl": 9, "permanent": true })), 400, "invalid_field"),
        ("a path for a name", raw("filename=..%2Fa"), 400, "invalid_field"),
        ("an unsold language", run(json!({ "code": "1", "language": "cobol" })), 400, "not_sold"),
        ("a GPU", run(json!({ "code": "1", "gpu": true })), 400, "not_sold"),
        ("a timeout", run(json!({ "code": "1", "timeout": 3600 })), 400, "not_sold"),
    ]
}

fn types_and_sizes() -> Vec<Case> {
    let mut untyped = Request::new(Method::POST, "/run");
    untyped.body = "print(1)".into();
    let large = vec![b'a'; 10 * 1024 * 1024 + 1];
    vec![
        ("no type", untyped, 415, "unsupported_media_type"),
        (
            "a form",
            Request::post("/store", "application/x-www-form-urlencoded", "a=b"),
            415,
            "unsupported_media_type",
        ),
        (
            "a form of nothing",
            Request::post("/store", "multipart/form-data; boundary=x", "--x--"),
            400,
            "invalid_form",
        ),
        ("no type at all", Request::post("/store", "nonsense", "a"), 415, "unsupported_media_type"),
        (
            "a coding",
            Request::post("/run", "text/x-python", "a").header("content-encoding", "gzip"),
            415,
            "unsupported_media_type",
        ),
        (
            "JSON as text",
            Request::post("/run", "text/plain", json!({ "code": "1" }).to_string()),
            402,
            "payment_required",
        ),
        ("a large document", Request::post("/store", "application/json", large.clone()), 413, "too_large"),
        ("a large file", Request::post("/store?ttl=60", "image/png", large), 413, "too_large"),
        (
            "a large program",
            Request::post("/run", "text/x-python", vec![b'#'; (1 << 20) + 1]),
            413,
            "too_large",
        ),
    ]
}

/// Sends every case without a payment, and with one that is good for something else.
fn refused(stage: &Stage, gateway: &Gateway, cases: Vec<Case>) {
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let payment = client.sign(&Request::run("1"), &payer, Version::V2).await;
        let before = stage.movements();
        for (name, request, status, code) in cases {
            let answer = client.send(&request).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{name}: {answer:?}");
            assert_eq!(answer.is_challenge(), status == 402, "{name}");
            assert!(!answer.json()["error"].as_str().unwrap().is_empty(), "{name}");
            assert_eq!(answer.field("cache-control"), Some("no-store"), "{name}");
            let answer = client.send(&request.paid(&payment)).await;
            assert!(answer.status >= 400 && answer.status < 500, "{name}, paid: {answer:?}");
            if status != 402 {
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (status, code),
                    "{name}, paid: {answer:?}"
                );
            }
        }
        assert_eq!(stage.movements(), before, "money moved");
        assert_eq!(stage.sandbox().requests.count(Service::Facilitator, "/verify"), 0);
    });
}

#[test]
fn the_words_are_the_seeds() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    stage.run(async {
        for (path, error) in [("/store", "data is required"), ("/run", "code is required")] {
            let answer = gateway.client().send(&Request::json(path, &json!({}))).await;
            assert_eq!(answer.json()["error"], error);
        }
    });
}

#[test]
fn a_payment_header_over_the_limit() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let long = "x".repeat(40 * 1024);
    stage.run(async {
        for name in ["payment-signature", "x-payment"] {
            let answer = gateway.client().send(&Request::run("1").header(name, &long)).await;
            answer.expect(431, "header_too_large", Some("no"), Some("never"));
        }
    });
}

/// hyper would not send this.
#[test]
fn a_header_of_a_megabyte() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    stage.run(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let body = json!({ "code": "1" }).to_string();
        let head = format!(
            "POST /run HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nPAYMENT-SIGNATURE: {}\r\n\r\n{body}",
            body.len(),
            base64(&vec![b'x'; 786_432])
        );
        // It may be refused while it is still being written.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert_eq!(gateway.client().challenge(&Request::run("1")).await.status, 402, "still serving");
    });
}

/// A body that ends early was not bought by anybody: the same payment is still good.
#[test]
fn half_a_body_uses_up_nothing() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let request = Request::post("/store?permanent=true", "image/png", vec![7; 100_000]);
        let payment = client.sign(&request, &payer, Version::V2).await;
        let (name, value) = payment.header();
        let head = format!(
            "POST /store?permanent=true HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n{name}: {value}\r\n\r\n",
        );
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[7; 50_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.is_empty() || answer.contains("\"body_incomplete\""), "{answer}");
        assert_eq!(stage.sandbox().requests.count(Service::Facilitator, "/verify"), 0);
        let answer = client.send(&request.paid(&payment)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 1));
}

/// Ways around a price: each is refused or priced, and the app is not asked.
#[test]
fn path_tricks() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    let paths = [
        "/premium//report",
        "//premium/report",
        "/premium/./report",
        "/premium/../premium/report",
        "/free/../premium/report",
        "/%2e%2e/premium/report",
        "/premium%2Freport",
        "/premium%252Freport",
        "/%70remium/report",
        "/premium/%72eport",
        "/premium\\report",
        "/premium/report/",
        "/premium/report;a=b",
        "/premium;a=b/report",
        "/PREMIUM/report",
        "/Premium/Report",
        "/premium/report%00",
        "/premium/report%20",
        "/premium/report?",
        "/premium/report?a=b",
        "/premium/report%3fa",
        "/premium/report%23",
        "/premium/.%2freport",
        "/%2fpremium/report",
        "/run/",
        "//run",
        "/run;x",
        "/%72un",
        "/RUN",
        "/store%2f",
        "/./store",
    ];
    stage.run(async {
        for path in paths {
            let app = path.to_ascii_lowercase().contains("prem") || path.contains("%70");
            let answer = if app {
                client.send(&Request::get(path)).await
            } else {
                client.send(&Request::post(path, "application/json", "")).await
            };
            let fine = match answer.status {
                400 => ["ambiguous_path", "code_required", "data_required"].contains(&answer.code().as_str()),
                status => status == 402,
            };
            assert!(fine, "{path}: {answer:?}");
        }
        // The others are really others.
        assert_eq!(client.send(&Request::get("/hello")).await.body, "Hello.\n");
    });
    let asked = stage.sandbox().requests.seen(Service::App);
    assert_eq!(asked.iter().map(|seen| seen.path.as_str()).collect::<Vec<_>>(), ["/hello"]);
}
