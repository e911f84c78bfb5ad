//! What depends on the time, with a clock that is set by hand; `tests/crash` has the rest, with real processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::value::RawValue;

use super::*;
use crate::broker::Limits;
use crate::clock::Clock;
use crate::facilitator::{Facilitator, FacilitatorError, PaymentRequest, Settlement, Supported, Verdict};
use crate::ids::JobId;
use crate::jobs::job::{ClientLeg, SCHEMA, Sold};
use crate::jobs::{Claim, Embedded, Fingerprint, JobKind, JobStore};
use crate::money::Amount;
use crate::telemetry::Metrics;
use crate::x402::{Address, Asset, B256, Network, PaymentFlow, Receipt, Requirement, Version};

const START: u64 = 1_800_000_000;
const LEASE: Duration = Duration::from_secs(10);
/// How long the authorization is valid, in seconds.
const VALID: u64 = 300;

/// Settled before the first call that is answered, as one says that answers a repetition like the first.
#[derive(Default)]
struct Settles(AtomicUsize);

#[async_trait]
impl Facilitator for Settles {
    async fn verify(&self, _: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        Err(FacilitatorError::NotSent("nobody asks".to_owned()))
    }

    async fn settle(&self, _: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Settlement::Settled(Receipt {
            success: true,
            transaction: "0x1".to_owned(),
            network: "eip155:84532".to_owned(),
            payer: None,
            error_reason: None,
            error_message: None,
        }))
    }

    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError> {
        Ok(Vec::new())
    }
}

fn upfront_job() -> Job {
    let asset = Asset::default_for(Network(84_532)).unwrap();
    let price = Amount::new(2000);
    let payer = Address::repeat_byte(1);
    let raw = || RawValue::from_string("{}".to_owned()).unwrap();
    Job {
        schema: SCHEMA,
        id: JobId::new(),
        claim: ClaimKey::new(&asset, payer, B256::repeat_byte(2)),
        fingerprint: Fingerprint([3; 32]),
        kind: JobKind::App,
        requester: payer,
        created: START * 1000,
        updated: START * 1000,
        version: 0,
        attempt: 1,
        state: State::Claimed,
        client: Arc::new(ClientLeg {
            version: Version::V2,
            requirement: Requirement {
                asset,
                amount: price,
                pay_to: Address::repeat_byte(4),
                max_timeout_seconds: VALID,
                flow: PaymentFlow::Upfront,
            },
            valid_before: START + VALID,
            payload: raw().into(),
            requirements: raw().into(),
            quote_id: None,
            height: None,
        }),
        quote: Sold {
            provider: "app".to_owned(),
            operation: "/hello".to_owned(),
            price,
            cost: Amount::ZERO,
            size: 0,
            passed_over: Vec::new(),
        },
        provider: Vec::new(),
        answer: None,
        trusted: false,
        receipt: None,
        failure: None,
        shortfall: None,
        refunds: Vec::new(),
    }
}

#[tokio::test]
async fn a_lapsed_upfront_settle_is_owed_if_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START * 1000);
    let path = folder.path().join("jobs.redb");
    let store = Arc::new(Embedded::open(&path, Duration::from_secs(3600), clock.clone()).unwrap());
    let Claim::Won(job, lease) = store.claim(&upfront_job(), LEASE).await.unwrap() else { panic!("taken") };
    let settling = job.apply(&Event::SettleFirst, START * 1000).unwrap();
    store.append(&lease, &Event::SettleFirst, &settling).await.unwrap();

    let facilitator = Arc::new(Settles::default());
    let limits = Limits {
        max_jobs: 64,
        work_timeout: Duration::from_secs(60),
        settle_margin: Duration::from_secs(30),
        unknown_hold: Duration::ZERO,
        lease: LEASE,
    };
    let metrics = Arc::new(Metrics::new());
    let values: Arc<dyn crate::jobs::ValueStore> = store.clone();
    let spending = crate::broker::Spending {
        wallet: None,
        guards: crate::guard::Guards::lax(values.clone(), clock.clone(), metrics.clone()),
        payees: Arc::new(crate::wallet::Payees::new(values, Vec::new())),
    };
    let broker =
        Broker::new(store.clone(), facilitator.clone(), spending, metrics.clone(), clock.clone(), limits);
    let recovery = Recovery::new(Arc::new(broker), LEASE);
    let sweep = async || {
        recovery.sweep(&|| Some(())).await;
        store.by_claim(&job.claim).await.unwrap().unwrap()
    };
    let settles = || facilitator.0.load(Ordering::SeqCst);

    clock.advance(11_000);
    assert_eq!((sweep().await.state, settles()), (State::SettlingUpfront, 0));
    // It was given back at once: whoever presents the payment need not wait for a lease.
    assert!(store.take_over(&job.claim, LEASE).await.unwrap().is_some());

    clock.advance(VALID * 1000);
    recovery.sweep(&|| None::<()>).await;
    assert_eq!(settles(), 0, "a process that is ending begins nothing");
    let job = sweep().await;
    assert_eq!((job.state, settles()), (State::RefundDue, 1));
    assert_eq!(job.receipt.unwrap().transaction, "0x1");
    let once = "galaksio_jobs_total{kind=\"app\",outcome=\"refund_due\"} 1\n";
    assert!(metrics.exposition().unwrap().contains(once), "counted otherwise than once");
}
