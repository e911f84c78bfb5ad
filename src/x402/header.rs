//! The header fields x402 travels in, and their base64: the standard alphabet, padded, nothing else.
//! Source: the x402 specification, `specs/transports-v1/http.md` and `-v2/http.md`.

use http::{HeaderName, HeaderValue};

/// The challenge, version 2.
pub const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
/// The payment, version 2.
pub const PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
/// The receipt, version 2.
pub const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("payment-response");
/// The payment, version 1.
pub const X_PAYMENT: HeaderName = HeaderName::from_static("x-payment");
/// The receipt, version 1.
pub const X_PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("x-payment-response");
/// Another name some clients have for `X-PAYMENT`; either version may be inside.
pub const X402_PAYMENT: HeaderName = HeaderName::from_static("x402-payment");
/// Where some sellers put the challenge instead; either version may be inside.
pub(super) const X_PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("x-payment-required");

/// Decodes a header's base64 to text. `None` if it is not exactly that.
pub(super) fn decode(value: &[u8]) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    let bytes = base64_simd::STANDARD.decode_to_vec(value).ok()?;
    String::from_utf8(bytes).ok()
}

/// Encodes a document for a header.
pub(super) fn encode(document: &[u8]) -> HeaderValue {
    #[expect(clippy::expect_used, reason = "the base64 alphabet is visible ASCII")]
    HeaderValue::try_from(base64_simd::STANDARD.encode_to_string(document)).expect("base64 fits a header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_padded_standard_base64_decodes() {
        assert_eq!(decode(b"e30="), Some("{}".to_owned()));
        for bad in [
            &b""[..],
            b"e30",
            b"e30==",
            b"e3 0=",
            b" e30=",
            b"e30=\n",
            b"e30=e30=",
            b"e31=",
            b"_-8=",
            b"=",
            b"====",
            b"e30=, e30=",
            b"/w==",
            b"e",
        ] {
            assert_eq!(decode(bad), None, "{:?}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(text in ".+") {
            prop_assert_eq!(decode(encode(text.as_bytes()).as_bytes()), Some(text));
        }
    }
}
