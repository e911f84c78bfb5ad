use super::*;
use crate::x402::fixtures::*;
use crate::x402::{Asset, Authorization, B256, Version};
use alloy::primitives::Address;
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];
const WINDOW: Window = Window { now: NOW, needed: 60 };

fn decode(headers: &HeaderMap) -> Payment {
    Payment::from_headers(headers, 32 * 1024).unwrap().unwrap()
}

/// What was verified, after the check.
#[derive(Debug)]
struct Seen {
    payment: Payment,
    signature: SignatureCheck,
    flow: PaymentFlow,
    /// As the facilitator is shown them.
    requirements: String,
}

fn checked(headers: &HeaderMap, requirement: &Requirement) -> Result<Seen, CheckError> {
    let payment = decode(headers);
    let verified = check(&payment, requirement, &Domain::new(&requirement.asset), WINDOW)?;
    assert_eq!(verified.requirement(), requirement);
    let requirements = verified.requirements(resource).unwrap().get().to_owned();
    let (signature, flow) = (verified.signature(), verified.flow());
    Ok(Seen { payment, signature, flow, requirements })
}

/// The outcome of a payment signed as `change` made it, against the unchanged requirement.
fn signed_with(version: Version, change: impl Fn(&mut Authorization)) -> Result<Seen, CheckError> {
    let requirement = requirement();
    let mut authorization = authorization(&requirement);
    change(&mut authorization);
    checked(&paying(version, &requirement, &authorization), &requirement)
}

/// The outcome of a payment whose signed fields stand and whose `accepted` is changed.
fn echoed_with(change: impl FnOnce(&mut Value)) -> Reason {
    let requirement = requirement();
    let headers = paying(Version::V2, &requirement, &authorization(&requirement));
    checked(&edited(&headers, |p| change(&mut p["accepted"])), &requirement).expect_err("an error").reason()
}

#[test]
fn a_right_payment_is_verified() {
    for version in VERSIONS {
        let seen = signed_with(version, |_| {}).unwrap();
        assert_eq!(seen.signature, SignatureCheck::Recovered);
        assert_eq!(seen.payment.version(), version);
        assert_eq!(seen.flow, PaymentFlow::Upfront);
    }
}

#[test]
fn the_facilitator_is_shown_the_echo_or_the_v1_entry() {
    let requirement = requirement();
    let v1 = signed_with(Version::V1, |_| {}).unwrap().requirements;
    let v1: Value = serde_json::from_str(&v1).unwrap();
    assert_eq!(v1, requirement.to_v1(&resource()).unwrap());

    let v2 = signed_with(Version::V2, |_| {}).unwrap();
    assert!(v2.payment.raw().get().contains(&v2.requirements), "byte for byte");
}

#[test]
fn each_wrong_term_has_its_reason() {
    for version in VERSIONS {
        let other = Asset::default_for(Network(8453)).unwrap();
        let elsewhere = Requirement { asset: other, ..requirement() };
        let headers = paying(version, &requirement(), &authorization(&requirement()));
        assert_eq!(checked(&headers, &elsewhere).unwrap_err().reason(), Reason::PaymentNetwork);

        let reason = |change: fn(&mut Authorization)| signed_with(version, change).unwrap_err().reason();
        assert_eq!(reason(|a| a.to = a.from), Reason::PaymentPayee);
        assert_eq!(reason(|a| a.value = Amount::new(9_999)), Reason::PaymentAmount);
        assert_eq!(reason(|a| a.value = Amount::new(10_001)), Reason::PaymentAmount);
        assert_eq!(reason(|a| a.from = a.to), Reason::PaymentSignature);
    }
}

#[test]
fn window_edges_are_exact() {
    for version in VERSIONS {
        let before = |valid_before| {
            signed_with(version, |a| a.valid_before = valid_before).map(|_| ()).map_err(|e| e.reason())
        };
        assert_eq!(before(NOW + WINDOW.needed), Ok(()));
        assert_eq!(before(NOW + WINDOW.needed - 1), Err(Reason::PaymentExpired));
        assert_eq!(before(0), Err(Reason::PaymentExpired));
        assert_eq!(before(NOW + 300 + WINDOW_SLACK), Ok(()));
        assert_eq!(before(NOW + 300 + WINDOW_SLACK + 1), Err(Reason::PaymentTooLong));
        assert_eq!(before(u64::MAX), Err(Reason::PaymentTooLong));
        let after = |valid_after| {
            signed_with(version, |a| a.valid_after = valid_after).map(|_| ()).map_err(|e| e.reason())
        };
        assert_eq!(after(NOW), Ok(()));
        assert_eq!(after(NOW + 1), Err(Reason::PaymentNotYetValid));
        assert_eq!(after(u64::MAX), Err(Reason::PaymentNotYetValid));
    }
    // With nothing needed it must still not have lapsed; and no sum wraps.
    let requirement = Requirement { max_timeout_seconds: u64::MAX, ..requirement() };
    let domain = Domain::new(&requirement.asset);
    let lapsing = |valid_before, window| {
        let signed = Authorization { valid_before, ..authorization(&requirement) };
        check(&decode(&paying(Version::V1, &requirement, &signed)), &requirement, &domain, window)
            .map_err(|e| e.reason())
            .err()
    };
    assert_eq!(lapsing(NOW, Window { now: NOW, needed: 0 }), Some(Reason::PaymentExpired));
    assert_eq!(lapsing(NOW + 1, Window { now: NOW, needed: 0 }), None);
    assert_eq!(lapsing(NOW + 1, Window { now: NOW, needed: u64::MAX }), Some(Reason::PaymentExpired));
    assert_eq!(lapsing(u64::MAX, WINDOW), None);
}

#[test]
fn accepted_must_be_what_was_offered() {
    use Reason::*;
    assert_eq!(echoed_with(|a| a["network"] = json!("eip155:8453")), PaymentNetwork);
    assert_eq!(echoed_with(|a| a["asset"] = json!(Address::ZERO)), PaymentAsset);
    assert_eq!(echoed_with(|a| a["payTo"] = json!(Address::ZERO)), PaymentPayee);
    assert_eq!(echoed_with(|a| a["amount"] = json!("1")), PaymentAmount);
    assert_eq!(echoed_with(|a| a["maxTimeoutSeconds"] = json!(301)), QuoteInvalid);
    assert_eq!(echoed_with(|a| a["extra"]["name"] = json!("USD Coin")), QuoteInvalid);
    assert_eq!(echoed_with(|a| a["extra"]["version"] = json!("1")), QuoteInvalid);
    assert_eq!(echoed_with(|a| a["extra"]["paymentFlow"] = json!(null)), QuoteInvalid);
    assert_eq!(echoed_with(|a| a["extra"] = json!(null)), QuoteInvalid);
    assert_eq!(echoed_with(|a| a["extra"]["feePayer"] = json!("0x")), QuoteInvalid);
    assert_eq!(echoed_with(|a| a["maxAmountRequired"] = json!("1")), QuoteInvalid);
}

#[test]
fn addresses_may_be_spelt_in_either_case_and_extra_may_hold_a_quote() {
    let requirement = requirement();
    let headers = paying(Version::V2, &requirement, &authorization(&requirement));
    let headers = edited(&headers, |p| {
        let lower = p["accepted"]["payTo"].as_str().unwrap().to_lowercase();
        p["accepted"]["payTo"] = json!(lower);
        p["accepted"]["extra"]["quoteId"] = json!("q");
    });
    assert!(checked(&headers, &requirement).is_ok());
}

#[test]
fn other_than_65_bytes_is_left_to_the_facilitator_but_not_nothing() {
    let requirement = requirement();
    let headers = paying(Version::V1, &requirement, &authorization(&requirement));
    let signed = |hex: String| {
        checked(&edited(&headers, |p| p["payload"]["signature"] = json!(hex)), &requirement)
            .map(|seen| seen.signature)
            .map_err(|error| error.reason())
    };
    assert_eq!(signed(format!("0x{}", "ab".repeat(66))), Ok(SignatureCheck::Deferred));
    assert_eq!(signed(format!("0x{}", "ab".repeat(64))), Ok(SignatureCheck::Deferred));
    assert_eq!(signed("0x".into()), Err(Reason::PaymentSignature));
    assert_eq!(signed(format!("0x{}", "00".repeat(65))), Err(Reason::PaymentSignature));
}

#[test]
fn a_signature_for_another_token_or_chain_is_not_the_payers() {
    let requirement = requirement();
    for asset in [
        Asset { name: "USD Coin".into(), ..usdc() },
        Asset { version: "1".into(), ..usdc() },
        Asset { network: Network(8453), ..usdc() },
        Asset { address: Address::ZERO, ..usdc() },
    ] {
        let signed = authorization(&requirement);
        let headers = paying(Version::V1, &requirement, &signed);
        let signature = Domain::new(&asset).sign(&payer(), &signed).unwrap();
        let forged =
            edited(&headers, |p| p["payload"]["signature"] = json!(format!("0x{}", hex::encode(signature))));
        assert_eq!(checked(&forged, &requirement).unwrap_err(), CheckError::Signer);
    }
}

/// The signed message and its signature as bytes, to flip single bits of.
fn flip(authorization: &mut Authorization, signature: &mut [u8; 65], bit: usize) {
    let (byte, mask) = (bit / 8, 1u8 << (bit % 8));
    let word = |bit: usize| 1u64 << (bit % 64);
    match byte {
        0..20 => authorization.from.0[byte] ^= mask,
        20..40 => authorization.to.0[byte - 20] ^= mask,
        40..72 => authorization.nonce.0[byte - 40] ^= mask,
        72..80 => authorization.valid_after ^= word(bit),
        80..88 => authorization.valid_before ^= word(bit),
        88..104 => authorization.value = Amount::new(authorization.value.units() ^ (1 << (bit - 88 * 8))),
        _ => signature[byte - 104] ^= mask,
    }
}

#[test]
fn any_flipped_bit_of_what_is_signed_fails() {
    let requirement = requirement();
    let signed = authorization(&requirement);
    let good = Domain::new(&requirement.asset).sign(&payer(), &signed).unwrap();
    for version in VERSIONS {
        let challenge = challenge(version, &requirement);
        for bit in 0..169 * 8 {
            let (mut changed, mut signature) = (signed, good);
            flip(&mut changed, &mut signature, bit);
            assert!(changed != signed || signature != good);
            let header = challenge.payment(&challenge.accepts[0], &changed, &signature);
            assert!(checked(&HeaderMap::from_iter([header]), &requirement).is_err(), "bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn a_payment_signed_by_another_key_fails(key in any::<[u8; 32]>(), nonce in any::<[u8; 32]>()) {
        let Ok(other) = alloy::signers::local::PrivateKeySigner::from_slice(&key) else { return Ok(()) };
        let requirement = requirement();
        let signed = Authorization { nonce: B256::from(nonce), ..authorization(&requirement) };
        let signature = Domain::new(&requirement.asset).sign(&other, &signed).unwrap();
        let challenge = challenge(Version::V2, &requirement);
        let headers = HeaderMap::from_iter([challenge.payment(&challenge.accepts[0], &signed, &signature)]);
        prop_assert_eq!(checked(&headers, &requirement).unwrap_err(), CheckError::Signer);
    }
}
