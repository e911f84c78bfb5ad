//! What any client may send as a payment, through decoding and the local checks: the input as the
//! value of a header, and as the document inside one, since mutated base64 is rarely base64.
#![no_main]

use galaksio::x402::{
    Asset, Domain, Payment, PaymentFlow, Requirement, SignatureCheck, Window, check, header,
};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 32 * 1024;

fuzz_target!(|bytes: &[u8]| {
    try_header(bytes);
    try_header(base64_simd::STANDARD.encode_to_string(bytes).as_bytes());
});

fn try_header(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    for name in [header::PAYMENT_SIGNATURE, header::X_PAYMENT, header::X402_PAYMENT] {
        let headers = HeaderMap::from_iter([(name, value.clone())]);
        match Payment::from_headers(&headers, LIMIT) {
            Ok(Some(payment)) => try_check(payment),
            Ok(None) => panic!("the header was not seen"),
            Err(error) => assert!(error.to_string().len() < 1024, "an error repeats its input"),
        }
    }
}

/// Checks a payment against the requirement that it comes nearest to.
fn try_check(payment: Payment) {
    assert_eq!(payment.accepted().is_some(), u8::from(payment.version()) == 2);
    let Some(asset) = Asset::default_for(payment.network()) else { return };
    let signed = *payment.authorization();
    let requirement = Requirement {
        asset,
        amount: signed.value,
        pay_to: signed.to,
        max_timeout_seconds: 300,
        flow: PaymentFlow::Upfront,
    };
    let domain = Domain::new(&requirement.asset);
    let window = Window { now: 1_800_000_000, needed: 60 };
    if let Ok(verified) = check(&payment, &requirement, &domain, window) {
        let is_65_bytes = verified.payment().signature().len() == 65;
        assert_eq!(is_65_bytes, verified.signature() == SignatureCheck::Recovered);
    }
}
