//! What the tests of this module and of the wallet start from.

use alloy::primitives::address;
use alloy::signers::local::PrivateKeySigner;
use http::HeaderMap;
use serde_json::Map;

use super::*;

/// When tests happen; the time of the committed payments.
pub(crate) const NOW: UnixSeconds = 1_800_000_000;

/// The payer of the committed payments: a key that has been public since development chains exist.
pub(crate) const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

pub(crate) fn payer() -> PrivateKeySigner {
    KEY.parse().unwrap()
}

pub(crate) fn usdc() -> Asset {
    Asset::default_for(Network(84_532)).unwrap()
}

pub(crate) fn resource() -> Resource {
    Resource {
        url: "https://api.example.com/run".into(),
        description: "Runs a program".into(),
        mime_type: "application/json".into(),
    }
}

pub(crate) fn requirement() -> Requirement {
    Requirement {
        asset: usdc(),
        amount: Amount::new(10_000),
        pay_to: address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
        max_timeout_seconds: 300,
        flow: PaymentFlow::Upfront,
    }
}

pub(crate) fn authorization(requirement: &Requirement) -> Authorization {
    Authorization {
        from: payer().address(),
        to: requirement.pay_to,
        value: requirement.amount,
        valid_after: NOW - 600,
        valid_before: NOW + 300,
        nonce: B256::repeat_byte(0xa7),
    }
}

/// The challenge of one requirement, as a payer reads it.
pub(crate) fn challenge(version: Version, requirement: &Requirement) -> Challenge {
    let document = match version {
        Version::V1 => challenge_v1("Payment required", &[requirement.to_v1(&resource()).unwrap()]),
        Version::V2 => challenge_v2("Payment required", &resource(), &[requirement.to_v2(&Map::new())]),
    };
    Challenge::from_response(&HeaderMap::new(), document.to_string().as_bytes()).unwrap()
}

/// The head of a request that pays `requirement` with this authorization, signed as it stands.
pub(crate) fn paying(
    version: Version,
    requirement: &Requirement,
    authorization: &Authorization,
) -> HeaderMap {
    let signature = Domain::new(&requirement.asset).sign(&payer(), authorization).unwrap();
    let challenge = challenge(version, requirement);
    HeaderMap::from_iter([challenge.payment(&challenge.accepts[0], authorization, &signature)])
}

/// The JSON inside a payment header, changed.
pub(crate) fn edited(headers: &HeaderMap, edit: impl FnOnce(&mut serde_json::Value)) -> HeaderMap {
    let (name, value) = headers.iter().next().unwrap();
    let mut document = serde_json::from_str(&header::decode(value.as_bytes()).unwrap()).unwrap();
    edit(&mut document);
    HeaderMap::from_iter([(name.clone(), header::encode(document.to_string().as_bytes()))])
}
