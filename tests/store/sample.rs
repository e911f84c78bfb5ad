//! Jobs, and the events of their lives.

use galaksio::clock::UnixMillis;
use galaksio::ids::JobId;
use galaksio::jobs::job::{ClientLeg, Fate, SCHEMA, Sold};
use galaksio::jobs::{
    Answer, Claim, ClaimKey, Event, Failure, Fingerprint, Job, JobKind, JobStore, Kept, Lease,
    ProviderPayment, State,
};
use galaksio::money::Amount;
use galaksio::x402::{Address, Asset, B256, Network, PaymentFlow, Receipt, Requirement, Version};
use serde_json::value::RawValue;

fn asset() -> Asset {
    Asset::default_for(Network(84_532)).unwrap()
}

/// A fresh claim made at `now`, whose payment is told apart by `number`.
pub(crate) fn job(number: u64, now: UnixMillis) -> Job {
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
        created: now,
        updated: now,
        version: 0,
        attempt: 1,
        state: State::Claimed,
        client: ClientLeg {
            version: Version::V2,
            requirement: Requirement {
                asset: asset(),
                amount: Amount::new(12_000),
                pay_to: Address::repeat_byte(0xcc),
                max_timeout_seconds: 120,
                flow: PaymentFlow::Authorization,
            },
            valid_before: now / 1000,
            payload: RawValue::from_string(r#"{ "signature": "0x00" }"#.into()).unwrap(),
            requirements: RawValue::from_string(r#"{"scheme":"exact"}"#.into()).unwrap(),
            quote_id: Some("q-1".into()),
        },
        quote: sold(),
        provider: Vec::new(),
        answer: None,
        receipt: None,
        failure: None,
    }
}

pub(crate) fn sold() -> Sold {
    Sold {
        provider: "merit".into(),
        operation: "snippet".into(),
        price: Amount::new(12_000),
        cost: Amount::new(10_000),
        size: 60,
    }
}

pub(crate) fn reopened() -> Event {
    Event::Reopened { sold: sold() }
}

pub(crate) fn signed(job: &Job) -> Event {
    let payment = ProviderPayment {
        step: "snippet".into(),
        attempt: job.attempt,
        provider: "merit".into(),
        asset: asset(),
        pay_to: Address::repeat_byte(0xdd),
        amount: Amount::new(10_000),
        nonce: B256::with_last_byte(u8::try_from(job.attempt).unwrap()),
        valid_before: job.client.valid_before,
        fate: Fate::Open,
    };
    Event::Signed { payment }
}

pub(crate) fn answered(body: &[u8]) -> Event {
    let headers = vec![("content-type".into(), "application/json".into())];
    Event::Answered { answer: Answer { status: 200, headers, body: Kept::Whole(body.to_vec()) } }
}

pub(crate) fn settled() -> Event {
    let receipt = Receipt {
        success: true,
        transaction: format!("0x{}", "ab".repeat(32)),
        network: "eip155:84532".into(),
        payer: None,
        error_reason: None,
        error_message: None,
    };
    Event::Settled { receipt }
}

pub(crate) fn failed() -> Event {
    let message = "the provider could not do the work".to_owned();
    Event::WorkFailed { failure: Failure { code: "provider_failed".into(), message, status: 502 } }
}

/// The whole life of a paid job, from its claim on.
#[allow(dead_code, reason = "the benchmarks, which share this file, use it; not every test binary does")]
pub(crate) fn paid_run(job: &Job) -> [Event; 4] {
    [Event::Verified, signed(job), answered(br#"{"stdout":"42\n"}"#), settled()]
}

/// Claims `job`, which must be new.
pub(crate) async fn win(store: &dyn JobStore, job: &Job, lease: std::time::Duration) -> (Job, Lease) {
    match store.claim(job, lease).await.unwrap() {
        Claim::Won(job, lease) => (job, lease),
        Claim::Taken(job) => panic!("claimed before: {job:?}"),
    }
}

/// Appends `event`, which must be allowed, and returns the job after it.
pub(crate) async fn append(store: &dyn JobStore, lease: &Lease, event: &Event, job: &Job) -> Job {
    let next = job.apply(event, job.updated).unwrap();
    let appended = store.append(lease, event, &next).await.unwrap();
    assert_eq!(appended, galaksio::jobs::Appended::Written, "{event:?}");
    next
}

/// Every field, as text: jobs have no equality of their own.
#[allow(dead_code, reason = "not for the benchmarks, which share this file")]
pub(crate) fn text(job: &Job) -> String {
    format!("{job:?}")
}
