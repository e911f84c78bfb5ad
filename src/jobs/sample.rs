//! Jobs and events for unit tests, and for the tests and benchmarks of the stores, which read this file too: so it
//! names only what is public, by `crate::` paths.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::ids::JobId;
use crate::jobs::job::*;
use crate::jobs::transition::Event;
use crate::jobs::{ClaimKey, State};
use crate::money::Amount;
use crate::x402::{Address, Asset, B256, Network, PaymentFlow, Receipt, Requirement, Version};

pub(crate) fn asset() -> Asset {
    Asset {
        network: Network(84_532),
        address: Address::repeat_byte(0xaa),
        name: "USDC".into(),
        version: "2".into(),
        decimals: 6,
    }
}

/// A fresh claim whose payment is told apart by `number`.
pub(crate) fn job(number: u64) -> Job {
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    let from = Address::repeat_byte(0xbb);
    Job {
        schema: SCHEMA,
        id: JobId::new(),
        claim: ClaimKey::new(&asset(), from, B256::from(nonce)),
        fingerprint: Fingerprint([7; 32]),
        kind: JobKind::Run,
        requester: from,
        created: 1_700_000_000_000,
        updated: 1_700_000_000_000,
        version: 0,
        attempt: 1,
        state: State::Claimed,
        client: Arc::new(ClientLeg {
            version: Version::V2,
            requirement: Requirement {
                asset: asset(),
                amount: Amount::new(12_000),
                pay_to: Address::repeat_byte(0xcc),
                max_timeout_seconds: 120,
                flow: PaymentFlow::Authorization,
            },
            valid_before: 1_700_000_120,
            payload: RawValue::from_string(r#"{ "signature":"0x00" }"#.into()).unwrap().into(),
            requirements: RawValue::from_string(r#"{"scheme":"exact"}"#.into()).unwrap().into(),
            quote_id: Some("q-1".into()),
            height: Some(20_000_000),
        }),
        quote: sold(),
        provider: Vec::new(),
        answer: None,
        trusted: false,
        receipt: None,
        failure: None,
        shortfall: None,
        refunds: Vec::new(),
    }
}

pub(crate) fn sold() -> Sold {
    Sold {
        provider: "merit".into(),
        operation: "snippet".into(),
        price: Amount::new(12_000),
        cost: Amount::new(10_000),
        size: 60,
        passed_over: Vec::new(),
    }
}

pub(crate) fn payment(step: &str, attempt: u32, nonce: u8) -> ProviderPayment {
    ProviderPayment {
        step: step.into(),
        attempt,
        provider: "merit".into(),
        asset: asset(),
        pay_to: Address::repeat_byte(0xdd),
        amount: Amount::new(10_000),
        nonce: B256::repeat_byte(nonce),
        from: Some(Address::repeat_byte(0xee)),
        valid_before: 1_700_000_060,
        fate: Fate::Open,
    }
}

pub(crate) fn refund(attempt: u32, nonce: u8) -> Refund {
    Refund {
        attempt,
        nonce: B256::repeat_byte(nonce),
        from: Address::repeat_byte(0xee),
        valid_before: 1_700_000_900,
        height: 20_000_100,
        fate: Fate::Open,
        transaction: None,
    }
}

pub(crate) fn failure() -> Failure {
    Failure { code: "provider_failed".into(), message: "the provider failed".into(), status: 502 }
}

/// A third of the price is owed, for these steps.
pub(crate) fn shortfall(steps: &[&str]) -> Shortfall {
    Shortfall { owed: Amount::new(4_000), steps: steps.iter().map(|step| (*step).to_owned()).collect() }
}

pub(crate) fn answer(body: &[u8]) -> Answer {
    Answer {
        status: 200,
        headers: vec![("content-type".into(), "application/json".into())],
        body: Kept::Whole(body.to_vec()),
    }
}

pub(crate) fn receipt() -> Receipt {
    Receipt {
        success: true,
        transaction: "0xfeed".into(),
        network: "eip155:84532".into(),
        payer: None,
        error_reason: None,
        error_message: None,
    }
}

/// One event of every kind, with `payment` as the signed one.
pub(crate) fn events(payment: ProviderPayment) -> Vec<Event> {
    vec![
        Event::Verified,
        Event::Rejected { failure: failure() },
        Event::SettleFirst,
        Event::Signed { payment },
        Event::Trusted,
        Event::Answered { answer: answer(b"{}") },
        Event::AnsweredInPart { answer: answer(b"{}"), shortfall: shortfall(&["a"]) },
        Event::Answered { answer: Answer { body: Kept::Not, ..answer(b"") } },
        Event::WorkFailed { failure: failure() },
        Event::Settled { receipt: receipt() },
        Event::HandedOut,
        Event::Refused { failure: failure() },
        Event::ProvedSpent { unspent: Vec::new() },
        Event::ProvedUnspent,
        Event::Reopened { sold: sold() },
        Event::Turned { sold: sold() },
        Event::RefundSigned { refund: refund(1, 0xf1) },
        Event::RefundLapsed,
        Event::Refunded { transaction: B256::repeat_byte(0xfe) },
    ]
}
