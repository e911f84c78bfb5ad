//! How a [`Requirement`] is written: an `accepts[]` entry of either version, and the whole challenge.
//!
//! Optional fields are left out, never null: the legacy client throws a challenge away for a null, for a
//! missing `mimeType` or `description`, and for one network it does not know.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::accepted::QUOTE_KEYS;
use super::{Accepted, Authorization, PaymentFlow, Requirement, Verified};

/// What is sold, as challenges describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Absolute URL.
    pub url: String,
    /// What it does; may be empty.
    pub description: String,
    /// Media type of the answer.
    pub mime_type: String,
}

impl Requirement {
    /// The version 1 entry; also the `paymentRequirements` of a v1 payment for the facilitator. `None` if the
    /// legacy client does not know the network: then the offer is made in version 2 alone.
    pub fn to_v1(&self, resource: &Resource) -> Option<Value> {
        let network = self.asset.network.legacy_name()?;
        Some(json!({
            "scheme": "exact",
            "network": network,
            "maxAmountRequired": self.amount,
            "resource": resource.url,
            "description": resource.description,
            "mimeType": resource.mime_type,
            "payTo": self.pay_to.to_string(),
            "maxTimeoutSeconds": self.max_timeout_seconds,
            "asset": self.asset.address.to_string(),
            "extra": self.extra(),
        }))
    }

    /// The version 2 entry. The keys of `quote` (`quoteId`, `quoteExpires`) are put in `extra`; each must begin
    /// with `quote`, or the echo of the entry would be refused as not ours.
    pub fn to_v2(&self, quote: &Map<String, Value>) -> Value {
        debug_assert!(quote.keys().all(|key| key.starts_with(QUOTE_KEYS)), "{quote:?}");
        let mut all = quote.clone();
        all.extend(self.extra());
        json!({
            "scheme": "exact",
            "network": self.asset.network,
            "amount": self.amount,
            "asset": self.asset.address.to_string(),
            "payTo": self.pay_to.to_string(),
            "maxTimeoutSeconds": self.max_timeout_seconds,
            "extra": all,
        })
    }

    /// A version 2 payment of this requirement, as its payer makes it: `accepted` is [`Requirement::to_v2`] with no quote.
    pub fn paid_v2(&self, resource: &Resource, authorization: &Authorization, signature: &[u8; 65]) -> Value {
        json!({
            "x402Version": 2,
            "payload": {
                "signature": format!("0x{}", hex::encode(signature)),
                "authorization": authorization,
            },
            "accepted": self.to_v2(&Map::new()),
            "resource": resource.to_v2(),
        })
    }

    fn extra(&self) -> Map<String, Value> {
        let mut extra = Map::new();
        extra.insert("name".to_owned(), self.asset.name.as_str().into());
        extra.insert("version".to_owned(), self.asset.version.as_str().into());
        if self.flow == PaymentFlow::Upfront {
            extra.insert("paymentFlow".to_owned(), "upfront".into());
        }
        extra
    }
}

/// The version 1 challenge: the body of a 402.
pub fn challenge_v1(error: &str, accepts: &[Value]) -> Value {
    json!({ "x402Version": 1, "error": error, "accepts": accepts })
}

/// The version 2 challenge: `PAYMENT-REQUIRED`, before base64.
pub fn challenge_v2(error: &str, resource: &Resource, accepts: &[Value]) -> Value {
    json!({
        "x402Version": 2,
        "error": error,
        "resource": resource.to_v2(),
        "accepts": accepts,
    })
}

impl Resource {
    fn to_v2(&self) -> Value {
        json!({ "url": self.url, "description": self.description, "mimeType": self.mime_type })
    }
}

impl Verified<'_> {
    /// `paymentRequirements` for the facilitator. Version 2: the client's `accepted`, verbatim, since some
    /// facilitators compare the two as whole objects. `None` if the network has no v1 name.
    pub fn requirements(&self, resource: impl FnOnce() -> Resource) -> Option<Arc<RawValue>> {
        let Some(Accepted { raw, .. }) = self.payment().accepted() else {
            let entry = self.requirement().to_v1(&resource())?;
            return serde_json::value::to_raw_value(&entry).ok().map(Arc::from);
        };
        Some(Arc::clone(raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x402::fixtures::*;
    use crate::x402::{Asset, Network};

    /// The two objects that the official clients were given when they made the committed payments.
    #[test]
    fn challenges_are_those_the_official_clients_pay() {
        let fixture: Value =
            serde_json::from_str(include_str!("../../tests/clients/vectors/challenge.json")).unwrap();
        let requirement = requirement();
        let v1 = challenge_v1("Payment required", &[requirement.to_v1(&resource()).unwrap()]);
        assert_eq!(v1, fixture["v1"]);

        let quote = json!({ "quoteId": "q1.0123456789abcdef", "quoteExpires": NOW + 300 });
        let entry = requirement.to_v2(quote.as_object().unwrap());
        assert_eq!(challenge_v2("Payment required", &resource(), &[entry]), fixture["v2"]);
    }

    #[test]
    fn a_payment_that_is_written_is_one_that_is_read() {
        let requirement = Requirement { flow: PaymentFlow::Authorization, ..requirement() };
        let authorization = authorization(&requirement);
        let domain = crate::x402::Domain::new(&requirement.asset);
        let signature = domain.sign(&payer(), &authorization).unwrap();
        let written = requirement.paid_v2(&resource(), &authorization, &signature);
        let raw = serde_json::value::to_raw_value(&written).unwrap();
        let payment = crate::x402::Payment::from_json(&raw, crate::x402::Version::V2).unwrap();
        let window = crate::x402::Window { now: NOW, needed: 6 };
        let verified = crate::x402::check(&payment, &requirement, &domain, window).unwrap();
        assert_eq!(verified.signature(), crate::x402::SignatureCheck::Recovered);
    }

    #[test]
    fn the_default_flow_is_left_out() {
        let requirement = Requirement { flow: PaymentFlow::Authorization, ..requirement() };
        let extra = json!({"name": "USDC", "version": "2"});
        assert_eq!(requirement.to_v1(&resource()).unwrap()["extra"], extra);
        assert_eq!(requirement.to_v2(&Map::new())["extra"], extra);
    }

    #[test]
    fn networks_the_legacy_client_throws_on_have_no_v1_entry() {
        let asset = Asset::default_for(Network(1)).unwrap();
        assert_eq!(Requirement { asset, ..requirement() }.to_v1(&resource()), None);
    }
}
