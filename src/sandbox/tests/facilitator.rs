//! `/verify`, `/settle`, `/supported`.

use http::StatusCode;
use serde_json::{Value, json};

use crate::sandbox::faults::{Fault, Rule};
use crate::sandbox::testing::{Answer, Bench, NOW, Payer, asset, hex_of, v1_payload};
use crate::sandbox::{Service, Settings};
use crate::x402::{Address, Authorization};

const SHOP: Address = Address::repeat_byte(0x51);

type Signed = (Authorization, Vec<u8>);

fn v1_requirement() -> Value {
    let asset = asset();
    json!({
        "scheme": "exact", "network": "base-sepolia", "maxAmountRequired": "10000", "resource": "https://shop/run",
        "description": "", "mimeType": "application/json", "payTo": SHOP, "maxTimeoutSeconds": 60,
        "asset": asset.address, "extra": { "name": asset.name, "version": asset.version },
    })
}

fn v2_requirement() -> Value {
    let asset = asset();
    json!({
        "scheme": "exact", "network": "eip155:84532", "amount": "10000", "payTo": SHOP, "maxTimeoutSeconds": 60,
        "asset": asset.address, "extra": { "name": asset.name, "version": asset.version, "quoteId": "q" },
    })
}

fn v1_call(signed: &Signed) -> Value {
    json!({ "x402Version": 1, "paymentPayload": v1_payload(signed), "paymentRequirements": v1_requirement() })
}

fn v2_call((authorization, signature): &Signed) -> Value {
    let payload = json!({ "authorization": authorization, "signature": hex_of(signature) });
    let payment = json!({ "x402Version": 2, "payload": payload, "accepted": v2_requirement() });
    json!({ "x402Version": 2, "paymentPayload": payment, "paymentRequirements": v2_requirement() })
}

impl Bench {
    async fn verify(&self, call: &Value) -> Answer {
        self.post(&format!("{}/verify", self.sandbox.urls.facilitator), call).await
    }

    async fn settle(&self, call: &Value) -> Answer {
        self.post(&format!("{}/settle", self.sandbox.urls.facilitator), call).await
    }
}

#[tokio::test]
async fn settles_each_version_once_and_only_once() {
    let bench = Bench::new().await;
    let payer = Payer::new(1);
    for (network, call) in [
        ("base-sepolia", v1_call(&payer.authorize(SHOP, 10_000, NOW))),
        ("eip155:84532", v2_call(&payer.authorize(SHOP, 10_000, NOW))),
    ] {
        let verdict = bench.verify(&call).await.json();
        assert_eq!(verdict["isValid"], true, "{verdict}");
        let before = bench.sandbox.ledger.balance(SHOP).units();

        let settled = bench.settle(&call).await.json();
        assert_eq!(settled["success"], true, "{settled}");
        assert_eq!(settled["network"], network);
        let hash = settled["transaction"].as_str().unwrap().parse().unwrap();
        assert_eq!(bench.sandbox.ledger.transaction(hash).unwrap().transfer().unwrap().to, SHOP);

        let again = bench.settle(&call).await;
        assert_eq!(again.status, StatusCode::OK);
        assert_eq!(again.json()["success"], false);
        assert_eq!(again.json()["errorReason"], "invalid_exact_evm_nonce_already_used");
        assert_eq!(bench.verify(&call).await.json()["invalidReason"], "invalid_exact_evm_nonce_already_used");
        assert_eq!(bench.sandbox.ledger.balance(SHOP).units(), before + 10_000);
    }
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn ten_settlements_at_once_move_the_money_once() {
    let bench = Bench::new().await;
    let call = v1_call(&Payer::new(1).authorize(SHOP, 10_000, NOW));
    let answers = futures_util::future::join_all((0..10).map(|_| bench.settle(&call))).await;
    let settled = answers.iter().filter(|answer| answer.json()["success"] == true).count();
    assert_eq!((settled, bench.sandbox.ledger.transfers().len()), (1, 1));
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn each_defect_has_the_reference_reason() {
    let bench = Bench::new().await;
    let payer = Payer::new(2);
    let good = || payer.authorize(SHOP, 10_000, NOW);
    let altered = |change: fn(&mut Authorization)| {
        let (mut authorization, _) = good();
        change(&mut authorization);
        let signature = payer.sign(&authorization);
        v1_call(&(authorization, signature))
    };
    let required = |pointer: &str, value: Value| {
        let mut call = v1_call(&good());
        *call["paymentRequirements"].pointer_mut(pointer).unwrap() = value;
        call
    };
    let forged = v1_call(&(good().0, Payer::new(3).sign(&good().0)));
    let mut scheme = v1_call(&good());
    scheme["paymentPayload"]["scheme"] = "upto".into();
    let mut v2_value = v2_call(&payer.authorize(SHOP, 9_999, NOW));
    v2_value["paymentPayload"]["accepted"] = v2_requirement();
    let mut nameless = v1_call(&good());
    nameless["paymentRequirements"]["extra"].take();
    let cases = [
        (forged, "invalid_exact_evm_signature"),
        (altered(|a| a.to = Address::repeat_byte(9)), "invalid_exact_evm_recipient_mismatch"),
        (altered(|a| a.valid_before = NOW + 5), "invalid_exact_evm_payload_authorization_valid_before"),
        (altered(|a| a.valid_after = NOW + 1), "invalid_exact_evm_payload_authorization_valid_after"),
        (altered(|a| a.value = crate::money::Amount::new(10_001)), "invalid_exact_evm_authorization_value"),
        (v2_value, "invalid_exact_evm_payload_authorization_value_mismatch"),
        (scheme, "invalid_exact_evm_scheme"),
        (nameless, "invalid_exact_evm_missing_eip712_domain"),
        // The payer signed for the real domain, so another one recovers another signer.
        (required("/extra/name", "USD Coin".into()), "invalid_exact_evm_signature"),
    ];
    for (call, reason) in cases {
        let verdict = bench.verify(&call).await;
        assert_eq!((verdict.status, &verdict.json()["isValid"]), (StatusCode::OK, &json!(false)), "{reason}");
        assert_eq!(verdict.json()["invalidReason"], reason);
        assert_eq!(bench.settle(&call).await.json()["errorReason"], reason);
    }
    assert_eq!(bench.verify(&altered(|a| a.valid_before = NOW + 6)).await.json()["isValid"], true);

    let elsewhere = required("/network", "base".into());
    assert_eq!(bench.verify(&elsewhere).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(bench.verify(&elsewhere).await.json().get("isValid").is_none());
    assert_eq!(bench.verify(&json!({})).await.status, StatusCode::BAD_REQUEST);

    bench.sandbox.ledger.set_balance(payer.address(), crate::money::Amount::new(9_999));
    let poor = v1_call(&good());
    assert_eq!(bench.verify(&poor).await.json()["invalidReason"], "invalid_exact_evm_insufficient_balance");
    assert_eq!(bench.settle(&poor).await.json()["errorReason"], "invalid_exact_evm_insufficient_balance");
    let moved = bench.sandbox.ledger.transfers().iter().filter(|transfer| transfer.to == SHOP).count();
    assert_eq!(moved, 0);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn accepted_must_equal_the_requirement_unless_switched_off() {
    for strict in [true, false] {
        let bench = Bench::with(Settings { strict_accepted: strict, ..Settings::default() }).await;
        let mut call = v2_call(&Payer::new(1).authorize(SHOP, 10_000, NOW));
        call["paymentPayload"]["accepted"]["extra"]["more"] = 1.into();
        let verdict = bench.verify(&call).await;
        assert_eq!(verdict.json()["isValid"], !strict);
        if strict {
            assert_eq!(verdict.status, StatusCode::BAD_REQUEST);
            assert_eq!(verdict.json()["invalidReason"], "accepted_requirements_mismatch");
        }
        bench.sandbox.stop().await;
    }
}

#[tokio::test]
async fn a_pending_settlement_is_mined_when_asked_again() {
    let bench = Bench::new().await;
    bench.sandbox.faults.add(Service::Facilitator, Rule::next(2, Fault::Pending).at("/settle"));
    let call = v2_call(&Payer::new(1).authorize(SHOP, 10_000, NOW));
    let first = bench.settle(&call).await.json();
    assert_eq!((&first["success"], &first["errorReason"]), (&json!(false), &json!("settlement_pending")));
    assert_eq!(bench.settle(&call).await.json(), first);
    assert!(bench.sandbox.ledger.transfers().is_empty());
    let mined = bench.settle(&call).await.json();
    assert_eq!((&mined["success"], &mined["transaction"]), (&json!(true), &first["transaction"]));
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn a_lie_moves_nothing_and_lost_answers_moved_it() {
    let bench = Bench::new().await;
    let faults = &bench.sandbox.faults;
    let call = v1_call(&Payer::new(1).authorize(SHOP, 10_000, NOW));
    faults.add(Service::Facilitator, Rule::next(1, Fault::Lie));
    assert_eq!(bench.settle(&call).await.json()["success"], true);
    assert!(bench.sandbox.ledger.transfers().is_empty());

    let url = format!("{}/settle", bench.sandbox.urls.facilitator);
    faults.add(Service::Facilitator, Rule::next(1, Fault::Drop));
    assert!(bench.try_send(http::Method::POST, &url, &[], call.to_string()).await.is_err());
    assert!(bench.sandbox.ledger.transfers().is_empty());
    faults.add(Service::Facilitator, Rule::next(1, Fault::Drop).after());
    assert!(bench.try_send(http::Method::POST, &url, &[], call.to_string()).await.is_err());
    assert_eq!(bench.sandbox.ledger.transfers().len(), 1);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn supported_names_both_versions() {
    let bench = Bench::new().await;
    let supported = bench.get(&format!("{}/supported", bench.sandbox.urls.facilitator)).await.json();
    let kinds = supported["kinds"].as_array().unwrap();
    assert_eq!(kinds[0], json!({ "x402Version": 2, "scheme": "exact", "network": "eip155:84532" }));
    assert_eq!(kinds[1], json!({ "x402Version": 1, "scheme": "exact", "network": "base-sepolia" }));
    bench.sandbox.stop().await;
}
