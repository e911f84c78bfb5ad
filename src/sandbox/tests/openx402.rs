//! OpenX402 IPFS: upload, then pin; or both at once.

use http::{Method, StatusCode};
use serde_json::json;

use crate::sandbox::testing::{Answer, Bench, Payer};
use crate::sandbox::{Service, Settings, cid, pay_to};

const FORM: &str = "multipart/form-data; boundary=b";

fn form(content: &str) -> String {
    let head =
        "Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain";
    format!("--b\r\n{head}\r\n\r\n{content}\r\n--b--\r\n")
}

impl Bench {
    async fn upload(&self, content: &str) -> Answer {
        let url = format!("{}/upload", self.sandbox.urls.openx402);
        self.send(Method::POST, &url, &[("content-type", FORM)], form(content)).await
    }
}

#[tokio::test]
async fn a_file_is_uploaded_for_nothing_and_pinned_for_money() {
    let bench = Bench::new().await;
    let payer = Payer::new(1);
    let uploaded = bench.upload("some text").await.json();
    assert_eq!((&uploaded["success"], &uploaded["size"]), (&json!(true), &json!(9)));
    let url = uploaded["paymentUrl"].as_str().unwrap();

    let challenge = bench.get(url).await;
    let payment = bench.v2_payment(&payer, &challenge);
    let pinned = bench.send(Method::GET, url, &[("payment-signature", &payment)], "").await;
    assert_eq!(pinned.status, StatusCode::OK, "{pinned:?}");
    assert_eq!(pinned.header_json("payment-response")["network"], "eip155:84532");
    let cid = cid::of(b"some text");
    let expected = json!({
        "success": true, "id": uploaded["id"], "filename": "a.txt", "ipfsHash": cid,
        "pinataUrl": format!("{}/ipfs/{cid}", bench.sandbox.urls.openx402), "fileName": "a.txt", "fileSize": 9,
    });
    assert_eq!(pinned.json(), expected);
    let read = bench.get(pinned.json()["pinataUrl"].as_str().unwrap()).await;
    assert_eq!((read.text(), &read.headers["content-type"]), ("some text", &"text/plain".parse().unwrap()));

    // The legacy client pays the same challenge from its body.
    let payment = bench.v1_payment(&payer, &challenge);
    let again = bench.send(Method::GET, url, &[("x-payment", &payment)], "").await;
    assert_eq!(again.header_json("x-payment-response")["network"], "base-sepolia");
    assert_eq!(bench.sandbox.ledger.balance(pay_to(Service::OpenX402)).units(), 100_020_000);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn any_id_has_a_price_and_an_unknown_one_costs_nothing() {
    let bench = Bench::new().await;
    let url = format!("{}/pin/quote_request", bench.sandbox.urls.openx402);
    let challenge = bench.get(&url).await;
    assert_eq!(challenge.json()["accepts"][0]["maxAmountRequired"], "10000");
    let payment = bench.v1_payment(&Payer::new(1), &challenge);
    let paid = bench.send(Method::GET, &url, &[("x-payment", &payment)], "").await;
    assert_eq!(paid.status, StatusCode::NOT_FOUND);
    assert!(bench.sandbox.ledger.transfers().is_empty());
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn uploads_are_kept_for_an_hour() {
    let bench = Bench::new().await;
    let url = bench.upload("x").await.json()["paymentUrl"].as_str().unwrap().to_owned();
    bench.clock.advance(3_600_000);
    let payment = bench.v1_payment(&Payer::new(1), &bench.get(&url).await);
    assert_eq!(
        bench.send(Method::GET, &url, &[("x-payment", &payment)], "").await.status,
        StatusCode::NOT_FOUND
    );
    assert!(bench.sandbox.ledger.transfers().is_empty());
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn json_and_files_are_pinned_in_one_paid_step() {
    let bench = Bench::new().await;
    let payer = Payer::new(1);
    for (kind, content_type, body, content) in [
        ("json", "application/json", r#"{"a": 1}"#.to_owned(), r#"{"a": 1}"#),
        ("file", FORM, form("text"), "text"),
    ] {
        let url = format!("{}/pin/{kind}", bench.sandbox.urls.openx402);
        let unpaid = bench.send(Method::POST, &url, &[], "").await;
        let payment = bench.v1_payment(&payer, &unpaid);
        let headers = [("content-type", content_type), ("x-payment", &*payment)];
        let bad = bench.send(Method::POST, &url, &headers, "{").await;
        assert_eq!(bad.status, StatusCode::BAD_REQUEST);
        let pinned = bench.send(Method::POST, &url, &headers, body).await;
        assert_eq!(pinned.json()["ipfsHash"], cid::of(content.as_bytes()));
    }
    assert_eq!(bench.sandbox.ledger.transfers().len(), 2);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn a_changed_price_is_a_fresh_challenge_and_takes_nothing() {
    let bench = Bench::with(Settings { openx402_v2: false, ..Settings::default() }).await;
    let url = format!("{}/pin/json", bench.sandbox.urls.openx402);
    let unpaid = bench.send(Method::POST, &url, &[], "").await;
    assert!(!unpaid.headers.contains_key("payment-required"));
    let payment = bench.v1_payment(&Payer::new(1), &unpaid);
    bench.sandbox.faults.set_price(Service::OpenX402, 15_000);
    let paid = bench.send(Method::POST, &url, &[("x-payment", &payment)], "{}").await;
    assert_eq!(paid.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(paid.json()["error"], "invalid_exact_evm_authorization_value");
    assert_eq!(paid.json()["accepts"][0]["maxAmountRequired"], "15000");
    assert!(bench.sandbox.ledger.transfers().is_empty());
    bench.sandbox.stop().await;
}
