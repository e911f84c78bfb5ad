use super::*;
use crate::x402::fixtures::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../tests/clients/vectors/challenge.json")).unwrap()
}

fn in_header(name: HeaderName, document: &Value) -> HeaderMap {
    HeaderMap::from_iter([(name, header::encode(document.to_string().as_bytes()))])
}

fn in_body(document: &Value) -> Result<Challenge, ChallengeError> {
    Challenge::from_response(&HeaderMap::new(), document.to_string().as_bytes())
}

/// The entries read of a v2 challenge whose one entry was changed.
fn accepts_after(edit: impl FnOnce(&mut Value)) -> Vec<Offered> {
    let mut document = fixture()["v2"].clone();
    edit(&mut document["accepts"][0]);
    in_body(&document).unwrap().accepts
}

#[test]
fn the_header_goes_before_the_body_and_the_body_before_the_odd_header() {
    let fixture = fixture();
    let (v1, v2) = (fixture["v1"].to_string(), fixture["v2"].to_string());
    let dual = Challenge::from_response(&in_header(header::PAYMENT_REQUIRED, &fixture["v2"]), v1.as_bytes());
    assert_eq!(dual.unwrap().version, Version::V2);
    let v1_only = Challenge::from_response(&HeaderMap::new(), v1.as_bytes()).unwrap();
    assert_eq!(v1_only.version, Version::V1);
    assert!(v1_only.resource.is_none() && v1_only.extensions.is_none());
    let v2_body = Challenge::from_response(&HeaderMap::new(), v2.as_bytes()).unwrap();
    assert_eq!(v2_body.version, Version::V2);
    for version in ["v1", "v2"] {
        let odd = in_header(header::X_PAYMENT_REQUIRED, &fixture[version]);
        assert_eq!(Challenge::from_response(&odd, b"<html>").unwrap().accepts.len(), 1);
    }
    // A header that is no v2 challenge is passed over.
    for headers in [
        in_header(header::PAYMENT_REQUIRED, &fixture["v1"]),
        HeaderMap::from_iter([(header::PAYMENT_REQUIRED, HeaderValue::from_static("***"))]),
    ] {
        let challenge = Challenge::from_response(&headers, v1.as_bytes()).unwrap();
        assert_eq!(challenge.version, Version::V1);
    }
}

#[test]
fn fields_are_read_and_unknown_ones_passed_over() {
    let accepts = accepts_after(|entry| {
        entry["recipient"] = json!("0x");
        entry["outputSchema"] = json!(null);
    });
    let [offered] = &accepts[..] else { panic!("one entry") };
    let requirement = requirement();
    assert_eq!(offered.network, requirement.asset.network);
    assert_eq!(offered.asset, requirement.asset.address);
    assert_eq!(offered.amount, requirement.amount);
    assert_eq!(offered.pay_to, requirement.pay_to);
    assert_eq!(offered.max_timeout_seconds, 300);
    assert_eq!(offered.domain, Some(("USDC".into(), "2".into())));
    assert_eq!(offered.flow, PaymentFlow::Upfront);
}

#[test]
fn entries_that_cannot_be_paid_are_left_out() {
    let edits: [fn(&mut Value); 17] = [
        |e| e["scheme"] = json!("upto"),
        |e| e["network"] = json!("base-sepolia"),
        |e| e["network"] = json!("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"),
        |e| e["amount"] = json!(10_000),
        |e| e["amount"] = json!("1.5"),
        |e| e["amount"] = json!("-1"),
        |e| e["amount"] = json!("340282366920938463463374607431768211456"),
        |e| e["asset"] = json!("USDC"),
        |e| e["payTo"] = json!("0x1"),
        |e| e["maxTimeoutSeconds"] = json!("300"),
        |e| e["maxTimeoutSeconds"] = json!(-1),
        |e| e["extra"]["paymentFlow"] = json!("escrow"),
        |e| e["extra"]["paymentFlow"] = json!(1),
        |e| e["extra"]["assetTransferMethod"] = json!("permit2"),
        |e| e["extra"] = json!([]),
        |e| *e = json!(null),
        |e| e["maxtimeoutseconds"] = json!(1),
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        assert!(accepts_after(edit).is_empty(), "edit {index}");
    }
    let bare = accepts_after(|e| e["extra"] = json!(null));
    assert_eq!((bare[0].domain.clone(), bare[0].flow), (None, PaymentFlow::Authorization));
}

#[test]
fn what_is_no_challenge_is_missing() {
    for body in ["", "{}", "[]", "null", "{\"x402Version\":1}", "{\"x402Version\":\"0.1\",\"accepts\":[]}"] {
        let error = Challenge::from_response(&HeaderMap::new(), body.as_bytes()).unwrap_err();
        assert_eq!(error, ChallengeError::Missing, "{body}");
    }
    assert!(in_body(&json!({"x402Version": 3, "accepts": []})).is_err());
    assert!(in_body(&json!({"x402Version": 2, "accepts": {}})).is_err());
    assert!(
        in_body(&json!({"x402Version": 2, "accepts": [], "error": {"code": 1}})).unwrap().error.is_none()
    );
}

#[test]
fn work_is_bounded() {
    let entry = fixture()["v2"]["accepts"][0].clone();
    let many =
        |n: usize| json!({"x402Version": 2, "accepts": vec![entry.clone(); n], "error": "e".repeat(5000)});
    let full = in_body(&many(MAX_ACCEPTS)).unwrap();
    assert_eq!(full.accepts.len(), MAX_ACCEPTS);
    assert_eq!(full.error.map(|error| error.len()), Some(MAX_ERROR));
    assert_eq!(in_body(&many(MAX_ACCEPTS + 1)).unwrap_err(), ChallengeError::TooMany);

    let mut large = HeaderMap::new();
    large.insert(header::PAYMENT_REQUIRED, HeaderValue::try_from("A".repeat(MAX_BYTES + 1)).unwrap());
    assert_eq!(Challenge::from_response(&large, b"").unwrap_err(), ChallengeError::TooLarge);
    let body = vec![b' '; MAX_BYTES + 1];
    assert_eq!(Challenge::from_response(&HeaderMap::new(), &body).unwrap_err(), ChallengeError::TooLarge);

    let mut twice = in_header(header::PAYMENT_REQUIRED, &fixture()["v2"]);
    twice.append(header::PAYMENT_REQUIRED, HeaderValue::from_static("e30="));
    let error = Challenge::from_response(&twice, b"").unwrap_err();
    assert_eq!(error, ChallengeError::Repeated(header::PAYMENT_REQUIRED));
}

#[test]
fn the_echo_is_byte_for_byte_and_the_value_sensitive() {
    // White space, key order, escapes and unknown keys as a seller might send them.
    let entry = r#"{ "scheme":"exact","amount" : "10000","network":"eip155:84532",
        "payTo":"0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "maxTimeoutSeconds":300,"extra":{"name":"USDC","version":"2","z":1.0,"a":"\u00e9"}}"#;
    let (resource, extensions) = (r#"{"url" :"https:\/\/x"}"#, r#"{"e":{"info":{ },"schema":1e2}}"#);
    let body =
        format!(r#"{{"extensions":{extensions},"x402Version":2,"resource":{resource},"accepts":[{entry}]}}"#);
    let challenge = Challenge::from_response(&HeaderMap::new(), body.as_bytes()).unwrap();
    let (name, value) = challenge.payment(&challenge.accepts[0], &authorization(&requirement()), &[27; 65]);
    assert_eq!(name, header::PAYMENT_SIGNATURE);
    assert!(value.is_sensitive());
    let sent = header::decode(value.as_bytes()).unwrap();
    for part in [
        format!(r#""accepted":{entry}"#),
        format!(r#""resource":{resource}"#),
        format!(r#""extensions":{extensions}"#),
    ] {
        assert!(sent.contains(&part), "{part} in {sent}");
    }
}

#[test]
fn an_identifier_is_added_where_one_is_asked_for() {
    let with = |extensions: &str| {
        let entry = fixture()["v2"]["accepts"][0].to_string();
        let body = format!(r#"{{"x402Version":2,"accepts":[{entry}],"extensions":{extensions}}}"#);
        let challenge = Challenge::from_response(&HeaderMap::new(), body.as_bytes()).unwrap();
        challenge.identified("pay_1").extensions.unwrap().get().to_owned()
    };
    // What else is there stays as it is, numbers and escapes too.
    let asked =
        r#"{"b":{"x" : 1e2},"payment-identifier":{"info":{"required":true},"schema":{"a":"\u00e9"}}}"#;
    let expected = r#"{"b":{"x" : 1e2},"payment-identifier":{"info":{"id":"pay_1","required":true},"schema":{"a":"\u00e9"}}}"#;
    assert_eq!(with(asked), expected);
    for other in
        [r#"{"b":1}"#, r#"{"payment-identifier":true}"#, r#"{"payment-identifier":{"info":[]}}"#, "[ ]"]
    {
        assert_eq!(with(other), other);
    }
    let v1 = in_body(&fixture()["v1"]).unwrap().identified("pay_1");
    assert!(v1.extensions.is_none());
}

#[test]
fn a_v1_payment_has_the_shape_the_legacy_client_sends() {
    let payments: Value =
        serde_json::from_str(include_str!("../../../tests/clients/vectors/payments.json")).unwrap();
    let challenge = in_body(&fixture()["v1"]).unwrap();
    let signed = Authorization {
        nonce: std::array::from_fn::<u8, 32, _>(|i| i as u8 + 1).into(),
        ..authorization(&requirement())
    };
    let signature = crate::x402::Domain::new(&usdc()).sign(&payer(), &signed).unwrap();
    let (name, ours) = challenge.payment(&challenge.accepts[0], &signed, &signature);
    assert_eq!(name.as_str(), payments["v1"]["name"]);
    let document = |value: &[u8]| header::decode(value).unwrap().to_lowercase();
    let theirs = payments["v1"]["value"].as_str().unwrap();
    let (ours, theirs) = (document(ours.as_bytes()), document(theirs.as_bytes()));
    assert_eq!(
        serde_json::from_str::<Value>(&ours).unwrap(),
        serde_json::from_str::<Value>(&theirs).unwrap()
    );
}

proptest! {
    #[test]
    fn arbitrary_answers_never_panic(header in prop::collection::vec(any::<u8>(), 0..300), body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut headers = HeaderMap::new();
        headers.insert(header::PAYMENT_REQUIRED, header::encode(&header));
        if let Ok(value) = HeaderValue::from_bytes(&header) {
            headers.insert(header::X_PAYMENT_REQUIRED, value);
        }
        let _ = Challenge::from_response(&headers, &body);
    }

    #[test]
    fn damaged_challenges_never_panic(v2 in any::<bool>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = fixture()[if v2 { "v2" } else { "v1" }].to_string().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(challenge) = Challenge::from_response(&HeaderMap::new(), &body) {
            for offered in &challenge.accepts {
                let (_, value) = challenge.payment(offered, &authorization(&requirement()), &[27; 65]);
                prop_assert!(header::decode(value.as_bytes()).is_some());
            }
        }
    }
}
