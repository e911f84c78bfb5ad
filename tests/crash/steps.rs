//! One kill at each step of each kind of job. The table is the specification; `docs/recovery.md` tells it in words.

use std::panic::AssertUnwindSafe;

use futures_util::future::{FutureExt, join_all};
use galaksio::jobs::State;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::Rule;
use galaksio::x402::Receipt;
use tokio::io::AsyncWriteExt;

use super::client::{Answer, Order};
use super::money::{Money, may_stay};
use super::redis_server::RedisServer;
use super::rig::{LEASE, Rig, Store, until};

/// A step, and all that a kill there must lead to.
struct Step {
    name: &'static str,
    order: Order,
    /// Which call is stalled when the kill comes: the service, how its path begins, how many such calls pass before.
    stalled: (Service, &'static str, u32),
    effect: Effect,
    /// The state in the journal at the kill.
    killed_in: State,
    /// The state that recovery leaves, before the payment is presented again.
    recovered: State,
    /// What the same payment is answered with then.
    then: Then,
    /// Every event of the job, in order, at the end of it all.
    journal: &'static [&'static str],
    charged: usize,
    provider: usize,
}

/// Whether the stalled call does what it was sent for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// As if the request were lost on its way.
    Never,
    /// As if the answer were.
    Done,
}

/// The outcome of presenting the same payment after recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    /// The work, done in a second attempt.
    Redone,
    /// The work of the first attempt.
    Kept,
    /// Not charged; the provider's payment may be gone, so it is not made again.
    Held,
    /// The outcome of the settlement is not known.
    Unknown,
    /// Charged, and owed.
    Refund,
}

use Effect::{Done, Never};

const REDONE: &[&str] = &["work_failed", "reopened", "verified", "signed", "answered", "settled"];
const REDONE_WORKING: &[&str] =
    &["verified", "work_failed", "reopened", "verified", "signed", "answered", "settled"];
const REDONE_UNPAID: &[&str] = &["verified", "work_failed", "reopened", "verified", "answered", "settled"];
const HELD: &[&str] = &["verified", "signed", "work_failed"];

const STEPS: &[Step] = &[
    // A provider does the work, settled when it succeeded.
    Step {
        name: "run: claimed, /verify stalled",
        order: Order::Run,
        stalled: (Service::Facilitator, "/verify", 0),
        effect: Never,
        killed_in: State::Claimed,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE,
        charged: 1,
        provider: 1,
    },
    Step {
        name: "run: working, nothing signed",
        order: Order::Run,
        stalled: (Service::Merit, "/", 0),
        effect: Never,
        killed_in: State::Working,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE_WORKING,
        charged: 1,
        provider: 1,
    },
    Step {
        name: "run: signed, the provider not reached",
        order: Order::Run,
        stalled: (Service::Merit, "/", 1),
        effect: Never,
        killed_in: State::Working,
        recovered: State::Held,
        then: Then::Held,
        journal: HELD,
        charged: 0,
        provider: 0,
    },
    Step {
        name: "run: signed, the provider paid",
        order: Order::Run,
        stalled: (Service::Merit, "/", 1),
        effect: Done,
        killed_in: State::Working,
        recovered: State::Held,
        then: Then::Held,
        journal: HELD,
        charged: 0,
        provider: 1,
    },
    Step {
        name: "run: settling, not settled",
        order: Order::Run,
        stalled: (Service::Facilitator, "/settle", 0),
        effect: Never,
        killed_in: State::Settling,
        recovered: State::Completed,
        then: Then::Kept,
        journal: &["verified", "signed", "answered", "settled"],
        charged: 1,
        provider: 1,
    },
    Step {
        name: "run: settling, settled",
        order: Order::Run,
        stalled: (Service::Facilitator, "/settle", 0),
        effect: Done,
        killed_in: State::Settling,
        recovered: State::Settling,
        then: Then::Unknown,
        journal: &["verified", "signed", "answered"],
        charged: 1,
        provider: 1,
    },
    // A file for good: a free upload, then a paid pin.
    Step {
        name: "store: working, upload stalled",
        order: Order::StorePinned,
        stalled: (Service::OpenX402, "/upload", 0),
        effect: Done,
        killed_in: State::Working,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE_WORKING,
        charged: 1,
        provider: 1,
    },
    Step {
        name: "store: uploaded, the pin's price stalled",
        order: Order::StorePinned,
        stalled: (Service::OpenX402, "/pin/", 0),
        effect: Never,
        killed_in: State::Working,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE_WORKING,
        charged: 1,
        provider: 1,
    },
    Step {
        name: "store: signed, pinned",
        order: Order::StorePinned,
        stalled: (Service::OpenX402, "/pin/", 1),
        effect: Done,
        killed_in: State::Working,
        recovered: State::Held,
        then: Then::Held,
        journal: HELD,
        charged: 0,
        provider: 1,
    },
    // A value in a cache of the operator's: nothing is signed for the job.
    Step {
        name: "cache: working, the value not set",
        order: Order::StoreCached,
        stalled: (Service::XCache, "/", 0),
        effect: Never,
        killed_in: State::Working,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE_UNPAID,
        charged: 1,
        provider: 0,
    },
    Step {
        name: "cache: working, the value set",
        order: Order::StoreCached,
        stalled: (Service::XCache, "/", 0),
        effect: Done,
        killed_in: State::Working,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE_UNPAID,
        charged: 1,
        provider: 0,
    },
    Step {
        name: "cache: settling, not settled",
        order: Order::StoreCached,
        stalled: (Service::Facilitator, "/settle", 0),
        effect: Never,
        killed_in: State::Settling,
        recovered: State::Completed,
        then: Then::Kept,
        journal: &["verified", "answered", "settled"],
        charged: 1,
        provider: 0,
    },
    // The app does the work.
    Step {
        name: "app: working, the app not reached",
        order: Order::App,
        stalled: (Service::App, "/premium", 0),
        effect: Never,
        killed_in: State::Working,
        recovered: State::Voided,
        then: Then::Redone,
        journal: REDONE_UNPAID,
        charged: 1,
        provider: 0,
    },
    Step {
        name: "app: settling, not settled",
        order: Order::App,
        stalled: (Service::Facilitator, "/settle", 0),
        effect: Never,
        killed_in: State::Settling,
        recovered: State::Completed,
        then: Then::Kept,
        journal: &["verified", "answered", "settled"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "app: settling, settled",
        order: Order::App,
        stalled: (Service::Facilitator, "/settle", 0),
        effect: Done,
        killed_in: State::Settling,
        recovered: State::Settling,
        then: Then::Unknown,
        journal: &["verified", "answered"],
        charged: 1,
        provider: 0,
    },
    // Settled before the work.
    Step {
        name: "app upfront: settling, not settled",
        order: Order::AppUpfront,
        stalled: (Service::Facilitator, "/settle", 0),
        effect: Never,
        killed_in: State::SettlingUpfront,
        recovered: State::SettlingUpfront,
        then: Then::Kept,
        journal: &["settle_first", "settled", "answered"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "run upfront: settling, not settled",
        order: Order::RunUpfront,
        stalled: (Service::Facilitator, "/settle", 0),
        effect: Never,
        killed_in: State::SettlingUpfront,
        recovered: State::SettlingUpfront,
        then: Then::Kept,
        journal: &["settle_first", "settled", "signed", "answered"],
        charged: 1,
        provider: 1,
    },
    Step {
        name: "app upfront: settling, settled",
        order: Order::AppUpfront,
        stalled: (Service::Facilitator, "/settle", 0),
        effect: Done,
        killed_in: State::SettlingUpfront,
        recovered: State::SettlingUpfront,
        then: Then::Unknown,
        journal: &["settle_first"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "app upfront: settled, the app at work",
        order: Order::AppUpfront,
        stalled: (Service::App, "/hello", 0),
        effect: Never,
        killed_in: State::WorkingSettled,
        recovered: State::RefundDue,
        then: Then::Refund,
        journal: &["settle_first", "settled", "work_failed"],
        charged: 1,
        provider: 0,
    },
    Step {
        name: "run upfront: settled, the provider paid",
        order: Order::RunUpfront,
        stalled: (Service::Merit, "/", 1),
        effect: Done,
        killed_in: State::WorkingSettled,
        recovered: State::RefundDue,
        then: Then::Refund,
        journal: &["settle_first", "settled", "signed", "work_failed"],
        charged: 1,
        provider: 1,
    },
];

/// Rigs at once. They wait most of the time.
const TOGETHER: usize = 7;

#[tokio::test(flavor = "multi_thread")]
async fn every_step_on_the_embedded_store() {
    all(|_| Store::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn every_step_on_redis() {
    let server = RedisServer::start(&[]);
    all(|number| Store::Redis { url: server.url(), prefix: format!("step{number}") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_before_the_client_read_its_answer() {
    join_all([Order::Run, Order::StoreCached, Order::App, Order::AppUpfront].map(unread)).await;
}

async fn all(store: impl Fn(usize) -> Store) {
    let places = tokio::sync::Semaphore::new(TOGETHER);
    let outcomes = join_all(STEPS.iter().enumerate().map(|(number, step)| {
        let (store, places) = (store(number), &places);
        async move {
            let _place = places.acquire().await;
            // Caught, so that one that fails is named and the others still run.
            let outcome = AssertUnwindSafe(killed_at(step, store)).catch_unwind().await;
            outcome.is_err().then_some(step.name)
        }
    }))
    .await;
    let failed: Vec<&str> = outcomes.into_iter().flatten().collect();
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

async fn killed_at(step: &'static Step, store: Store) {
    let mut rig = Rig::start(store).await;
    let purchase = rig.sign(step.order).await;
    let before = rig.money(&purchase);
    let (service, path, skip) = step.stalled;
    rig.stall(service, path, skip, if step.effect == Done { Rule::after } else { |rule| rule });
    let struck = rig.sandbox.faults.fired(service) + u64::from(skip) + 1;

    let client = rig.client.presenting(rig.gateway().edge, &purchase);
    until(&format!("{}: the stalled call", step.name), async || {
        (rig.sandbox.faults.fired(service) == struck).then_some(())
    })
    .await;
    rig.until_state(purchase.job, step.killed_in).await;
    let stalled_payment = step.effect == Done && path != "/upload" && step.order != Order::StoreCached;
    if stalled_payment {
        let expected = Money { charged: step.charged, provider: step.provider, ..before };
        until(&format!("{}: its effect", step.name), async || {
            (rig.money(&purchase) == expected).then_some(())
        })
        .await;
    }
    rig.kill();
    client.await.unwrap().expect_err("an answer from a process that was killed");
    rig.sandbox.faults.clear(service);
    let settles = rig.sandbox.requests.count(Service::Facilitator, "/settle");

    rig.restart().await;
    if step.killed_in == State::Settling {
        until(&format!("{}: the settle to be repeated", step.name), async || {
            (rig.sandbox.requests.count(Service::Facilitator, "/settle") > settles).then_some(())
        })
        .await;
    }
    rig.until_state(purchase.job, step.recovered).await;
    if step.killed_in == State::SettlingUpfront {
        // Recovery passes by twice, and charges nobody for work that nobody waits for.
        tokio::time::sleep(2 * LEASE).await;
        assert_eq!(rig.sandbox.requests.count(Service::Facilitator, "/settle"), settles, "{}", step.name);
        until("the settle to be repeated for the client", async || {
            let answer = rig.present(&purchase).await;
            let more = rig.sandbox.requests.count(Service::Facilitator, "/settle") > settles;
            (more || answer.json()["code"] != "settlement_unknown").then_some(())
        })
        .await;
    }

    let first = rig.present(&purchase).await;
    check(step, &first);
    let again = rig.present(&purchase).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body), "{}: another answer", step.name);

    let (job, journal) = rig.autopsy(&purchase).await;
    assert_eq!(journal, step.journal, "{}", step.name);
    assert_eq!(job.state, step.ends(), "{}", step.name);
    assert_eq!(job.attempt, if step.then == Then::Redone { 2 } else { 1 }, "{}", step.name);
    let money = Money { charged: step.charged, provider: step.provider, ..before };
    assert_eq!(rig.money(&purchase), money, "{}", step.name);
    let store = rig.open_store().await;
    for (state, count) in store.count_by_state().await.unwrap() {
        let expected = u64::from(state == step.ends());
        assert_eq!(count, expected, "{}: jobs that are {}", step.name, state.name());
        assert!(count == 0 || may_stay(state), "{}: {} is no end", step.name, state.name());
    }
    assert!(store.due(10).await.unwrap().is_empty() || !step.ends().at_rest(), "{}", step.name);
    rig.sandbox.stop().await;
}

impl Step {
    fn ends(&self) -> State {
        match self.then {
            Then::Redone | Then::Kept => State::Completed,
            Then::Held => State::Held,
            Then::Unknown => self.recovered,
            Then::Refund => State::RefundDue,
        }
    }
}

/// What the same payment is answered with. Never a 402 where the money may have moved.
fn check(step: &Step, answer: &Answer) {
    let json = answer.json();
    let receipt = Receipt::from_headers(&answer.headers);
    let said =
        (answer.status.as_u16(), json["code"].as_str(), json["charged"].as_str(), json["retry"].as_str());
    let expected = match step.then {
        Then::Redone | Then::Kept => (200, None, None, None),
        Then::Held => (502, Some("provider_failed"), Some("no"), Some("new_payment")),
        Then::Unknown => (503, Some("settlement_unknown"), Some("unknown"), Some("same_payment")),
        Then::Refund => (502, Some("refund_due"), Some("yes"), Some("never")),
    };
    assert_eq!(said, expected, "{}: {json}", step.name);
    let paid = matches!(step.then, Then::Redone | Then::Kept | Then::Refund);
    assert_eq!(receipt.is_some_and(|receipt| receipt.success), paid, "{}: receipt", step.name);
}

/// The client does not read; the gateway is killed once the job is completed; the same payment collects.
async fn unread(order: Order) {
    let mut rig = Rig::start(Store::Embedded).await;
    let purchase = rig.sign(order).await;
    let mut deaf = tokio::net::TcpStream::connect(rig.gateway().edge).await.unwrap();
    deaf.write_all(&rig.client.raw(&purchase)).await.unwrap();
    rig.until_state(purchase.job, State::Completed).await;
    let before = rig.money(&purchase);
    assert_eq!(before.charged, 1);
    rig.kill();
    drop(deaf);

    rig.restart().await;
    let answer = rig.present(&purchase).await;
    assert_eq!(answer.status, 200, "{order:?}: {answer:?}");
    assert!(Receipt::from_headers(&answer.headers).is_some_and(|receipt| receipt.success));
    assert_eq!(rig.money(&purchase), before, "{order:?}");
    let (job, journal) = rig.autopsy(&purchase).await;
    assert_eq!((job.state, job.attempt), (State::Completed, 1), "{journal:?}");
}
