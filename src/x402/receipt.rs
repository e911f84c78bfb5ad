//! Receipts in their headers: `PAYMENT-RESPONSE` (v2) and `X-PAYMENT-RESPONSE` (v1).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::json::Object;
use super::{Receipt, Version, header};

/// The most bytes of a receipt that are read.
const MAX_RECEIPT: usize = 64 * 1024;

impl Receipt {
    /// The header a client of this version looks for.
    pub fn to_header(&self, version: Version) -> (HeaderName, HeaderValue) {
        let name = match version {
            Version::V1 => header::X_PAYMENT_RESPONSE,
            Version::V2 => header::PAYMENT_RESPONSE,
        };
        #[expect(clippy::expect_used, reason = "strings and a flag always serialise")]
        let document = serde_json::to_vec(self).expect("a receipt is JSON");
        (name, header::encode(&document))
    }

    /// The receipt in an answer's head, version 2 first. `None` if there is none that can be read.
    pub fn from_headers(headers: &HeaderMap) -> Option<Receipt> {
        [header::PAYMENT_RESPONSE, header::X_PAYMENT_RESPONSE].iter().find_map(|name| {
            let value = headers.get(name).filter(|value| value.len() <= MAX_RECEIPT)?;
            let text = header::decode(value.as_bytes())?;
            Receipt::parse(&text)
        })
    }

    /// Unknown fields are passed over, and `null` is as good as absent.
    fn parse(text: &str) -> Option<Receipt> {
        let object = Object::document(text).ok()?;
        let string = |key: &str| Some(object.text(key).ok()?.map(|text| text.into_owned()));
        Some(Receipt {
            success: serde_json::from_str(object.get("success")?.get()).ok()?,
            transaction: string("transaction")?.unwrap_or_default(),
            network: string("network")?.unwrap_or_default(),
            payer: string("payer")?,
            error_reason: string("errorReason")?,
            error_message: string("errorMessage")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_headers(name: HeaderName, value: HeaderValue) -> HeaderMap {
        HeaderMap::from_iter([(name, value)])
    }

    #[test]
    fn receipts_of_others_are_read() {
        let read = |json: &str| {
            Receipt::from_headers(&in_headers(header::PAYMENT_RESPONSE, header::encode(json.as_bytes())))
        };
        let receipt = read(r#"{"success":true,"transaction":"0x1","network":"base","payer":null,"amount":"1","extensions":{}}"#).unwrap();
        assert!(receipt.success && receipt.payer.is_none());
        assert!(
            !read(r#"{"success":false,"errorReason":"settlement_pending","transaction":null}"#)
                .unwrap()
                .success
        );
        for bad in ["", "null", "[]", "{}", r#"{"success":"true"}"#, r#"{"success":true,"success":false}"#] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn absent_fields_are_left_out() {
        let receipt = Receipt {
            success: true,
            transaction: "0xab".into(),
            network: "eip155:84532".into(),
            payer: None,
            error_reason: None,
            error_message: None,
        };
        let (name, value) = receipt.to_header(Version::V2);
        assert_eq!(name, "payment-response");
        let json = header::decode(value.as_bytes()).unwrap();
        assert_eq!(json, r#"{"success":true,"transaction":"0xab","network":"eip155:84532"}"#);
    }

    proptest! {
        #[test]
        fn round_trip(
            success in any::<bool>(), transaction in ".{0,80}", network in ".{0,20}",
            payer in proptest::option::of(".{0,50}"), error in proptest::option::of(".{0,50}"), v2 in any::<bool>(),
        ) {
            let receipt = Receipt {
                success, transaction, network, payer, error_reason: error.clone(), error_message: error,
            };
            let version = if v2 { Version::V2 } else { Version::V1 };
            let (name, value) = receipt.to_header(version);
            prop_assert_eq!(Receipt::from_headers(&in_headers(name, value)), Some(receipt));
        }
    }
}
