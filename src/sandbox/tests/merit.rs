//! Merit Systems, oddities included.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::sandbox::faults::{Fault, Rule};
use crate::sandbox::testing::{Answer, Bench, Payer, v1_header};
use crate::sandbox::{Service, Settings, pay_to};

impl Bench {
    async fn run(&self, headers: &[(&str, &str)], body: &Value) -> Answer {
        let url = self.sandbox.urls.merit.clone();
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.send(Method::POST, &url, &all, body.to_string()).await
    }

    async fn run_paid(&self, payer: &Payer, snippet: &str) -> Answer {
        let payment = self.v1_payment(payer, &self.run(&[], &json!({})).await);
        self.run(&[("x-payment", &payment)], &json!({ "snippet": snippet })).await
    }
}

#[tokio::test]
async fn the_challenge_comes_before_the_body_and_has_its_oddities() {
    let bench = Bench::new().await;
    let challenge = bench.send(Method::POST, &bench.sandbox.urls.merit, &[], "not even json").await;
    assert_eq!(challenge.status, StatusCode::PAYMENT_REQUIRED);
    let body = challenge.json();
    let accept = &body["accepts"][0];
    assert_eq!(accept["maxAmountRequired"], "280");
    assert_eq!(accept["maxTimeoutSeconds"], 1000);
    assert!(accept["resource"].as_str().unwrap().ends_with("/e2b/execute"));
    assert!(!accept["resource"].as_str().unwrap().contains("/resource"));
    for private in ["type", "version", "recipient", "currency", "to", "url", "nonce", "discoverable"] {
        assert!(accept.get(private).is_some(), "{private}");
    }
    let authenticate = challenge.headers["www-authenticate"].to_str().unwrap();
    assert!(authenticate.starts_with("X-402 realm=\"echo\""), "{authenticate}");
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn code_is_echoed_and_the_unused_part_sent_back() {
    let bench = Bench::new().await;
    let payer = Payer::new(1);
    let ran = bench.run_paid(&payer, "print('hi')").await;
    assert_eq!(ran.status, StatusCode::OK, "{ran:?}");
    assert!(!ran.headers.contains_key("x-payment-response"));
    let body = ran.json();
    assert_eq!(body["logs"]["stdout"][0], "sandbox: would run 11 bytes of python:\nprint('hi')\n");
    assert_eq!(body["logs"]["stderr"], json!([]));
    assert_eq!(body["cost"].to_string(), "0.000028");
    assert!(body.get("error").is_none());

    let transfers = bench.sandbox.ledger.transfers();
    let values: Vec<u128> = transfers.iter().map(|transfer| transfer.value.units()).collect();
    assert_eq!(values, [280, 252]);
    assert_eq!((transfers[1].to, transfers[1].nonce), (payer.address(), None));
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn an_exception_is_completed_work_and_long_code_is_cut_in_the_echo() {
    let bench = Bench::with(Settings { merit_refunds: false, ..Settings::default() }).await;
    let payer = Payer::new(1);
    let raised = bench.run_paid(&payer, "x = 1\nraise ValueError('no')\n").await;
    assert_eq!(raised.status, StatusCode::OK);
    assert_eq!(raised.json()["error"]["name"], "ValueError");
    assert_eq!(raised.json()["error"]["value"], "no");
    let long = bench.run_paid(&payer, &"é".repeat(100_000)).await.json();
    let echo = long["logs"]["stdout"][0].as_str().unwrap();
    assert!(echo.starts_with("sandbox: would run 200000 bytes") && echo.len() < 5_000);
    assert_eq!(bench.sandbox.ledger.transfers().len(), 2);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn more_than_the_price_is_taken_whole_and_less_is_not() {
    let bench = Bench::new().await;
    let payer = Payer::new(1);
    let pay = |value| v1_header(&payer.authorize(pay_to(Service::Merit), value, bench.clock.now()));
    let (less, more) = (pay(279), pay(1_000));
    let code = json!({ "snippet": "1" });
    assert_eq!(bench.run(&[("x-payment", &less)], &code).await.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(bench.run(&[("x-payment", &more)], &code).await.status, StatusCode::OK);
    let values: Vec<u128> = bench.sandbox.ledger.transfers().iter().map(|t| t.value.units()).collect();
    assert_eq!(values, [1_000, 972]);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn bad_bodies_keys_and_failures_cost_nothing() {
    let bench = Bench::new().await;
    let payer = Payer::new(1);
    let payment = bench.v1_payment(&payer, &bench.run(&[], &json!({})).await);
    for body in [json!({}), json!({ "snippet": "" }), json!({ "script": "1" }), json!([])] {
        let refused = bench.run(&[("x-payment", &payment)], &body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.json()["error"], "Invalid body");
    }
    // A key that slips through wins over the payment, and is not known.
    let code = json!({ "snippet": "1" });
    let keyed = bench.run(&[("x-payment", &payment), ("authorization", "Bearer x")], &code).await;
    assert_eq!(keyed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(bench.sandbox.ledger.transfers().is_empty());

    bench.sandbox.faults.add(Service::Merit, Rule::next(1, Fault::WorkFails));
    assert_eq!(bench.run(&[("x-payment", &payment)], &code).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(bench.sandbox.ledger.balance(payer.address()).units(), 100_000_000);
    assert_eq!(bench.sandbox.ledger.transfers().len(), 2);
    // The nonce is gone all the same.
    assert_eq!(bench.run(&[("x-payment", &payment)], &code).await.status, StatusCode::PAYMENT_REQUIRED);
    bench.sandbox.stop().await;
}
