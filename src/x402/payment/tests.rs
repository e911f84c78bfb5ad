use super::*;
use crate::x402::fixtures::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const LIMIT: usize = 32 * 1024;

fn decode(headers: &HeaderMap) -> Result<Payment, PaymentError> {
    Payment::from_headers(headers, LIMIT).map(|payment| payment.expect("a payment header"))
}

fn valid(version: Version) -> HeaderMap {
    paying(version, &requirement(), &authorization(&requirement()))
}

fn line(headers: &HeaderMap) -> http::HeaderValue {
    headers.values().next().unwrap().clone()
}

fn reason_after(version: Version, edit: impl FnOnce(&mut Value)) -> Reason {
    decode(&edited(&valid(version), edit)).expect_err("an error").reason()
}

#[test]
fn no_header_is_no_payment() {
    assert!(Payment::from_headers(&HeaderMap::new(), LIMIT).unwrap().is_none());
}

#[test]
fn both_versions_carry_the_same_authorization() {
    for version in [Version::V1, Version::V2] {
        let payment = decode(&valid(version)).unwrap();
        assert_eq!(payment.version(), version);
        assert_eq!(payment.network(), Network(84_532));
        assert_eq!(payment.authorization(), &authorization(&requirement()));
        assert_eq!(payment.accepted().is_some(), version == Version::V2);
        let raw = header::decode(line(&valid(version)).as_bytes()).unwrap();
        assert_eq!(payment.raw().get(), raw);
    }
}

#[test]
fn the_alias_takes_either_version_and_the_others_their_own() {
    let (v1, v2) = (line(&valid(Version::V1)), line(&valid(Version::V2)));
    let with = |name: HeaderName, value: &http::HeaderValue| {
        decode(&HeaderMap::from_iter([(name, value.clone())])).map(|payment| payment.version())
    };
    assert_eq!(with(header::X402_PAYMENT, &v1), Ok(Version::V1));
    assert_eq!(with(header::X402_PAYMENT, &v2), Ok(Version::V2));
    assert_eq!(with(header::X_PAYMENT, &v2).unwrap_err().reason(), Reason::PaymentVersion);
    assert_eq!(with(header::PAYMENT_SIGNATURE, &v1).unwrap_err().reason(), Reason::PaymentVersion);
}

#[test]
fn of_both_versions_the_second_is_used() {
    let mut both = valid(Version::V1);
    both.extend(valid(Version::V2));
    assert_eq!(decode(&both).unwrap().version(), Version::V2);
}

#[test]
fn repeated_lines_are_refused_even_unused_ones() {
    let (v1, v2) = (line(&valid(Version::V1)), line(&valid(Version::V2)));
    let cases = [
        vec![(header::PAYMENT_SIGNATURE, &v2), (header::PAYMENT_SIGNATURE, &v2)],
        vec![(header::X_PAYMENT, &v1), (header::X_PAYMENT, &v1)],
        vec![(header::X_PAYMENT, &v1), (header::X402_PAYMENT, &v1)],
        vec![(header::PAYMENT_SIGNATURE, &v2), (header::X_PAYMENT, &v1), (header::X_PAYMENT, &v1)],
    ];
    for case in cases {
        let mut headers = HeaderMap::new();
        for (name, value) in case {
            headers.append(name, value.clone());
        }
        assert_eq!(decode(&headers).unwrap_err().reason(), Reason::RepeatedPayment);
    }
    // Lines that an intermediary joined.
    let joined = [v2.as_bytes(), b", ", v2.as_bytes()].concat();
    let headers =
        HeaderMap::from_iter([(header::PAYMENT_SIGNATURE, http::HeaderValue::from_bytes(&joined).unwrap())]);
    assert_eq!(decode(&headers).unwrap_err(), PaymentError::NotBase64);
}

#[test]
fn the_limit_is_on_the_header_as_sent() {
    let headers = valid(Version::V2);
    let size = line(&headers).len();
    assert!(Payment::from_headers(&headers, size).is_ok());
    let error = Payment::from_headers(&headers, size - 1).unwrap_err();
    assert_eq!(error.reason(), Reason::HeaderTooLarge);
}

#[test]
fn anything_but_a_payment_is_malformed() {
    for text in ["", "null", "[]", "1", "{", "{}", "\"x\"", "{}{}", "\u{feff}{}"] {
        let headers = HeaderMap::from_iter([(header::X_PAYMENT, header::encode(text.as_bytes()))]);
        assert_eq!(decode(&headers).unwrap_err().reason(), Reason::PaymentMalformed, "{text}");
    }
    let headers = HeaderMap::from_iter([(header::X_PAYMENT, http::HeaderValue::from_static(""))]);
    assert_eq!(decode(&headers).unwrap_err().reason(), Reason::PaymentMalformed);
}

#[test]
fn each_fault_of_a_field_has_its_reason() {
    use Reason::*;
    let v1 = |edit: fn(&mut Value)| reason_after(Version::V1, edit);
    let v2 = |edit: fn(&mut Value)| reason_after(Version::V2, edit);

    assert_eq!(v1(|p| p["x402Version"] = json!(3)), PaymentVersion);
    assert_eq!(v1(|p| p["x402Version"] = json!("1")), PaymentMalformed);
    assert_eq!(v1(|p| p["x402Version"] = json!(1.0)), PaymentMalformed);
    assert_eq!(v1(|p| p["x402Version"] = json!(-1)), PaymentMalformed);
    assert_eq!(v1(|p| p["scheme"] = json!("upto")), PaymentScheme);
    assert_eq!(v1(|p| p["network"] = json!("solana")), PaymentNetwork);
    assert_eq!(v1(|p| p["network"] = json!("eip155:84532")), PaymentNetwork);
    assert_eq!(v2(|p| p["accepted"] = json!(null)), PaymentMalformed);
    assert_eq!(v2(|p| p["accepted"]["scheme"] = json!("upto")), PaymentScheme);
    assert_eq!(v2(|p| p["accepted"]["network"] = json!("base-sepolia")), PaymentNetwork);
    assert_eq!(v2(|p| p["accepted"]["amount"] = json!(10_000)), PaymentMalformed);
    assert_eq!(v2(|p| p["accepted"]["amount"] = json!("010000")), PaymentMalformed);
    assert_eq!(v2(|p| p["accepted"]["extra"]["paymentFlow"] = json!("escrow")), PaymentMalformed);
    assert_eq!(v2(|p| p["accepted"]["extra"]["assetTransferMethod"] = json!("permit2")), PaymentScheme);
    assert_eq!(v2(|p| p["accepted"]["extra"]["quoteId"] = json!(7)), PaymentMalformed);
    assert_eq!(v2(|p| p["payload"] = json!({"permit2Authorization": {}, "signature": "0x"})), PaymentScheme);
    assert_eq!(v1(|p| p["payload"]["permit2Authorization"] = json!({})), PaymentScheme);
    assert_eq!(v1(|p| p["payload"]["delegator"] = json!("0x")), PaymentMalformed);
    assert_eq!(v2(|p| p["payload"]["authorization"]["deadline"] = json!("1")), PaymentMalformed);
    assert_eq!(v1(|p| p["payload"] = json!({"transaction": "AQ=="})), PaymentMalformed);
    assert_eq!(v1(|p| p["payload"]["signature"] = json!("0x123")), PaymentMalformed);
    assert_eq!(v1(|p| p["payload"]["signature"] = json!("1234")), PaymentMalformed);

    let field = |name: &'static str, value: Value| {
        reason_after(Version::V2, move |p| p["payload"]["authorization"][name] = value)
    };
    for name in ["from", "to", "value", "validAfter", "validBefore", "nonce"] {
        for bad in [json!(null), json!(1), json!(""), json!("-1"), json!("0x"), json!("1e3"), json!([])] {
            assert_eq!(field(name, bad), PaymentMalformed, "{name}");
        }
    }
    let uint256 = json!("115792089237316195423570985008687907853269984665640564039457584007913129639935");
    assert_eq!(field("value", uint256.clone()), PaymentAmount);
    assert_eq!(field("validBefore", uint256.clone()), PaymentTooLong);
    assert_eq!(field("validAfter", uint256), PaymentNotYetValid);
}

#[test]
fn an_authorization_with_two_readings_is_refused() {
    let text = header::decode(line(&valid(Version::V1)).as_bytes()).unwrap();
    for second in [r#""value":"1","#, r#""Value":"1","#, r#""v\u0061lue":"1","#] {
        let text = text.replacen(r#""value""#, &format!("{second}\"value\""), 1);
        assert_ne!(text.find(second), None);
        let headers = HeaderMap::from_iter([(header::X_PAYMENT, header::encode(text.as_bytes()))]);
        let error = decode(&headers).unwrap_err();
        assert!(error.to_string().contains("repeated"), "{error}");
    }
}

#[test]
fn unknown_fields_and_nulls_are_tolerated_outside_the_terms() {
    let headers = edited(&valid(Version::V2), |p| {
        p["future"] = json!({"a": [1]});
        p["resource"] = json!(null);
        p["extensions"] = json!(null);
    });
    let payment = decode(&headers).unwrap();
    assert!(payment.resource().is_none() && payment.extensions().is_none());
}

#[test]
fn the_payment_identifier_is_found_or_refused() {
    let with = |id: Value| {
        decode(&edited(&valid(Version::V2), |p| {
            p["extensions"] = json!({"payment-identifier": {"info": {"required": false, "id": id}}});
        }))
    };
    assert_eq!(with(json!("pay_0123456789abcdef")).unwrap().identifier(), Some("pay_0123456789abcdef"));
    assert_eq!(with(json!(null)).unwrap().identifier(), None);
    let long = "x".repeat(129);
    for bad in [json!("short"), json!("pay_0123456789abcde\u{e9}"), json!(long), json!(7), json!([])] {
        assert_eq!(with(bad.clone()).unwrap_err().reason(), Reason::IdentifierInvalid, "{bad}");
    }
}

#[test]
fn what_the_official_clients_send_is_decoded() {
    let payments: Value =
        serde_json::from_str(include_str!("../../../tests/clients/vectors/payments.json")).unwrap();
    for (key, version, valid_after) in [("v1", Version::V1, NOW - 600), ("v2", Version::V2, 0)] {
        let name: HeaderName = payments[key]["name"].as_str().unwrap().parse().unwrap();
        let value = payments[key]["value"].as_str().unwrap().parse().unwrap();
        let payment = decode(&HeaderMap::from_iter([(name, value)])).unwrap();
        let nonce: Vec<u8> = (1..=32).collect();
        let expected =
            Authorization { valid_after, nonce: B256::from_slice(&nonce), ..authorization(&requirement()) };
        assert_eq!(payment.version(), version);
        assert_eq!(payment.authorization(), &expected);
        let signature = payment.signature().try_into().unwrap();
        let domain = crate::x402::Domain::new(&usdc());
        assert_eq!(domain.recover(&expected, signature), Ok(payer().address()));
        // Both sign by RFC 6979, so ours are the same bytes.
        assert_eq!(domain.sign(&payer(), &expected).unwrap(), *signature);
        if let Some(accepted) = payment.accepted() {
            assert!(accepted.echoes(&requirement()));
            assert_eq!(accepted.extra.quote_id.as_deref(), Some("q1.0123456789abcdef"));
            assert!(payment.resource().unwrap().get().contains("https://api.example.com/run"));
        }
    }
}

#[test]
fn debug_shows_no_signature() {
    let payment = decode(&valid(Version::V2)).unwrap();
    let shown = format!("{payment:?}");
    assert!(!shown.contains(&hex::encode(payment.signature())));
    assert!(!shown.contains(&format!("{:?}", payment.signature())));
}

/// What the fuzzer starts from: values of payment headers, and documents inside them.
#[test]
fn the_corpus_is_decoded_without_panic() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/payment_header");
    let mut decoded = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        decoded += usize::from(try_every_header(&bytes));
        decoded += usize::from(try_every_header(header::encode(&bytes).as_bytes()));
    }
    assert!(decoded >= 4, "the corpus holds a payment of each version, plain and encoded");
}

/// Decodes under each name; whether any of them took it.
fn try_every_header(bytes: &[u8]) -> bool {
    let Ok(value) = http::HeaderValue::from_bytes(bytes) else { return false };
    [header::PAYMENT_SIGNATURE, header::X_PAYMENT, header::X402_PAYMENT]
        .into_iter()
        .any(|name| decode(&HeaderMap::from_iter([(name, value.clone())])).is_ok())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        try_every_header(&bytes);
        try_every_header(header::encode(&bytes).as_bytes());
    }

    #[test]
    fn a_damaged_payment_never_panics(
        v2 in any::<bool>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let version = if v2 { Version::V2 } else { Version::V1 };
        let mut json = header::decode(line(&valid(version)).as_bytes()).unwrap().into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        try_every_header(header::encode(&json).as_bytes());
        json.truncate(cut.index(json.len()));
        try_every_header(header::encode(&json).as_bytes());
    }

    #[test]
    fn the_claim_is_one_under_either_version_and_any_hex_case(
        nonce in any::<[u8; 32]>(), from in any::<[u8; 20]>(), upper in any::<bool>(),
    ) {
        let authorization =
            Authorization { from: from.into(), nonce: nonce.into(), ..authorization(&requirement()) };
        let mut keys = [Version::V1, Version::V2].map(|version| {
            let headers = edited(&paying(version, &requirement(), &authorization), |p| {
                for field in ["from", "nonce"] {
                    let value = &mut p["payload"]["authorization"][field];
                    let hex = value.as_str().unwrap().trim_start_matches("0x");
                    let hex = if upper == (version == Version::V1) { hex.to_uppercase() } else { hex.to_lowercase() };
                    *value = json!(format!("0x{hex}"));
                }
            });
            let payment = decode(&headers).unwrap();
            let signed = payment.authorization();
            crate::jobs::ClaimKey::new(&usdc(), signed.from, signed.nonce)
        });
        prop_assert_eq!(&keys[0], &keys[1]);
        keys[0] = crate::jobs::ClaimKey::new(&usdc(), from.into(), nonce.into());
        prop_assert_eq!(&keys[0], &keys[1]);
    }

    #[test]
    fn what_a_payer_encodes_is_decoded(
        v2 in any::<bool>(), from in any::<[u8; 20]>(), to in any::<[u8; 20]>(), nonce in any::<[u8; 32]>(),
        value in any::<u128>(), valid_after in any::<u64>(), valid_before in any::<u64>(), signature in any::<[u8; 32]>(),
    ) {
        let version = if v2 { Version::V2 } else { Version::V1 };
        let authorization = Authorization {
            from: from.into(), to: to.into(), value: Amount::new(value), valid_after, valid_before, nonce: nonce.into(),
        };
        let mut bytes = [27; 65];
        bytes[..32].copy_from_slice(&signature);
        let challenge = challenge(version, &requirement());
        let headers = HeaderMap::from_iter([challenge.payment(&challenge.accepts[0], &authorization, &bytes)]);
        let payment = decode(&headers).unwrap();
        prop_assert_eq!(payment.version(), version);
        prop_assert_eq!(payment.authorization(), &authorization);
        prop_assert_eq!(payment.signature(), &bytes[..]);
        if let Some(accepted) = payment.accepted() {
            prop_assert_eq!(accepted.raw.get(), challenge.accepts[0].raw.get());
            prop_assert_eq!(payment.resource().map(RawValue::get), challenge.resource.as_deref().map(RawValue::get));
        }
    }
}
