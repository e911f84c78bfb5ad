//! xCache: buying a cache, and using it up.

use http::{Method, StatusCode};
use serde_json::json;

use crate::config::resolved::SetShape;
use crate::sandbox::faults::{Fault, Rule};
use crate::sandbox::testing::{Bench, Payer};
use crate::sandbox::{Service, Settings, pay_to};

impl Bench {
    async fn buy_cache(&self, payer: &Payer) -> String {
        let url = format!("{}/create", self.sandbox.urls.xcache);
        let payment = self.v1_payment(payer, &self.post(&url, &json!({})).await);
        let bought =
            self.send(Method::POST, &url, &[("x-payment", &payment)], r#"{"region":"us-east-1"}"#).await;
        assert_eq!(bought.status, StatusCode::OK, "{bought:?}");
        assert_eq!(bought.header_json("x-payment-response")["success"], true);
        format!("{}/{}", self.sandbox.urls.xcache, bought.json()["id"].as_str().unwrap())
    }
}

#[tokio::test]
async fn a_cache_is_bought_once_per_payment() {
    let bench = Bench::new().await;
    let payer = Payer::new(1);
    let url = format!("{}/create", bench.sandbox.urls.xcache);
    let challenge = bench.post(&url, &json!({})).await;
    assert_eq!(challenge.json()["accepts"][0]["maxAmountRequired"], "500000");
    assert!(!challenge.headers.contains_key("payment-required"));
    let payment = bench.v1_payment(&payer, &challenge);
    let first = bench.send(Method::POST, &url, &[("x-payment", &payment)], "{}").await;
    let second = bench.send(Method::POST, &url, &[("x-payment", &payment)], "{}").await;
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::PAYMENT_REQUIRED));
    assert_eq!(second.json()["error"], "invalid_exact_evm_nonce_already_used");
    assert_eq!(bench.sandbox.ledger.balance(pay_to(Service::XCache)).units(), 100_500_000);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn values_are_set_read_expired_and_deleted() {
    let bench = Bench::new().await;
    let cache = bench.buy_cache(&Payer::new(1)).await;
    let key = format!("{cache}/a%20key");
    let set = bench.send(Method::PUT, &key, &[], r#"{"value":"AAEC","ttl":60}"#).await;
    let stored = json!({ "key": "a key", "value": "AAEC", "ttl": 60 });
    assert_eq!(set.json(), stored);
    assert_eq!(bench.get(&key).await.json(), stored);
    let info = json!({ "keys": ["a key"], "count": 1, "operations": 49_998 });
    assert_eq!(bench.get(&cache).await.json(), info);

    bench.clock.advance(59_000);
    assert_eq!(bench.get(&format!("{key}/ttl")).await.json()["ttl"], 1);
    bench.clock.advance(1_000);
    assert_eq!(bench.get(&key).await.status, StatusCode::NOT_FOUND);

    bench.send(Method::PUT, &key, &[], r#"{"value":{"a":[1]}}"#).await;
    assert_eq!(bench.get(&key).await.json()["value"], json!({ "a": [1] }));
    assert_eq!(bench.send(Method::PUT, &format!("{key}/ttl"), &[], r#"{"ttl":9}"#).await.json()["ttl"], 9);
    assert_eq!(bench.send(Method::DELETE, &key, &[], "").await.status, StatusCode::OK);
    assert_eq!(bench.send(Method::DELETE, &key, &[], "").await.status, StatusCode::NOT_FOUND);
    let elsewhere = format!("{}/nobody/key", bench.sandbox.urls.xcache);
    assert_eq!(bench.get(&elsewhere).await.status, StatusCode::NOT_FOUND);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn the_two_set_shapes_are_not_mistaken_for_each_other() {
    let bench = Bench::with(Settings { set_shape: SetShape::Query, ..Settings::default() }).await;
    let cache = bench.buy_cache(&Payer::new(1)).await;
    let set = bench.send(Method::PUT, &format!("{cache}/k?ttl=5"), &[], r#""text""#).await;
    assert_eq!(set.json(), json!({ "key": "k", "value": "text", "ttl": 5 }));
    bench.sandbox.stop().await;

    let bench = Bench::new().await;
    let cache = bench.buy_cache(&Payer::new(1)).await;
    for (body, status) in [
        (r#""text""#, StatusCode::BAD_REQUEST),
        (r#"{"value":1,"ttl":0}"#, StatusCode::BAD_REQUEST),
        (r#"{"value":1,"ttl":"5"}"#, StatusCode::BAD_REQUEST),
        ("not json", StatusCode::BAD_REQUEST),
        (r#"{"value":null}"#, StatusCode::OK),
    ] {
        assert_eq!(bench.send(Method::PUT, &format!("{cache}/k"), &[], body).await.status, status, "{body}");
    }
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn operations_run_out_and_can_be_topped_up() {
    let settings = Settings { cache_operations: 2, cache_max_value: 64, ..Settings::default() };
    let bench = Bench::with(settings).await;
    let payer = Payer::new(1);
    let cache = bench.buy_cache(&payer).await;
    let put = async |size: usize| {
        let body = json!({ "value": "x".repeat(size) }).to_string();
        bench.send(Method::PUT, &format!("{cache}/k"), &[], body).await.status
    };
    assert_eq!(put(100).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(put(1).await, StatusCode::OK);
    assert_eq!(put(2).await, StatusCode::OK);
    assert_eq!(put(3).await, StatusCode::FORBIDDEN);
    assert_eq!(bench.get(&cache).await.json()["operations"], 0);

    let id = cache.rsplit('/').next().unwrap();
    let url = format!("{}/topup/{id}", bench.sandbox.urls.xcache);
    let payment = bench.v1_payment(&payer, &bench.post(&url, &json!({})).await);
    let topped = bench.send(Method::POST, &url, &[("x-payment", &payment)], "{}").await;
    assert_eq!(topped.json()["operations"], 2);
    assert_eq!(put(3).await, StatusCode::OK);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn work_that_fails_is_not_charged_and_asking_again_is() {
    let bench = Bench::new().await;
    let payer = Payer::new(1);
    let url = format!("{}/create", bench.sandbox.urls.xcache);
    let payment = bench.v1_payment(&payer, &bench.post(&url, &json!({})).await);
    bench.sandbox.faults.add(Service::XCache, Rule::next(1, Fault::WorkFails));
    let failed = bench.send(Method::POST, &url, &[("x-payment", &payment)], "{}").await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(bench.sandbox.ledger.transfers().is_empty());
    bench.sandbox.faults.add(Service::XCache, Rule::next(1, Fault::AskAgain));
    let again = bench.send(Method::POST, &url, &[("x-payment", &payment)], "{}").await;
    assert_eq!(again.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(bench.sandbox.ledger.transfers().len(), 1);
    bench.sandbox.stop().await;
}
