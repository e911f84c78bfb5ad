//! One kill at each step of each kind of job, by the table in `table.rs`.

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
use super::table::{Effect, STEPS, Step, Then};

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
    join_all([Order::Run, Order::StoreCached, Order::App, Order::AppUpfront, Order::AppAfter].map(unread))
        .await;
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
    let (service, path, first) = step.stalled;
    let struck =
        rig.stall(service, path, first, if step.effect == Effect::Done { Rule::after } else { |rule| rule });

    let client = rig.client.presenting(rig.gateway().edge, &purchase);
    rig.until_struck(service, struck).await;
    rig.until_state(purchase.job, step.killed_in).await;
    let stalled_payment =
        step.effect == Effect::Done && path != "/upload" && step.order != Order::StoreCached;
    if stalled_payment {
        let expected = Money { charged: step.charged, provider: step.provider, ..before };
        until(&format!("{}: its effect", step.name), async || {
            (rig.money(&purchase) == expected).then_some(())
        })
        .await;
    }
    let had = match step.answered() {
        // In its hands before anybody is asked to settle, or just after.
        true => {
            let answer = client.await.unwrap().expect("an answer before the kill");
            check_trusted(step, &answer);
            rig.kill();
            Some(answer.body)
        }
        false => {
            rig.kill();
            client.await.unwrap().expect_err("an answer from a process that was killed");
            None
        }
    };
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

    let mut first = rig.present(&purchase).await;
    if step.order == Order::AppAfter && step.then == Then::Redone {
        check_trusted(step, &first);
        rig.until_state(purchase.job, State::Completed).await;
        first = rig.present(&purchase).await;
    }
    check(step, &first);
    assert!(had.is_none_or(|had| had == first.body), "{}: another answer", step.name);
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

/// What the same payment is answered with. Never a 402 where the money may have moved.
fn check(step: &Step, answer: &Answer) {
    let json = answer.json();
    let receipt = Receipt::from_headers(&answer.headers);
    let said =
        (answer.status.as_u16(), json["code"].as_str(), json["charged"].as_str(), json["retry"].as_str());
    let expected = match step.then {
        Then::Redone | Then::Kept => (200, None, None, None),
        Then::Trusted => return check_trusted(step, answer),
        Then::Held => (502, Some("provider_lost"), Some("no"), Some("new_payment")),
        Then::Unknown => (503, Some("settlement_unknown"), Some("unknown"), Some("same_payment")),
        Then::Refund => (502, Some("refund_due"), Some("yes"), Some("never")),
    };
    assert_eq!(said, expected, "{}: {json}", step.name);
    let paid = matches!(step.then, Then::Redone | Then::Kept | Then::Refund);
    assert_eq!(receipt.is_some_and(|receipt| receipt.success), paid, "{}: receipt", step.name);
}

/// The answer without a receipt, and where it is said what became of the payment.
fn check_trusted(step: &Step, answer: &Answer) {
    assert_eq!(answer.status, 200, "{}: {}", step.name, answer.json());
    assert_eq!(Receipt::from_headers(&answer.headers), None, "{}: a receipt", step.name);
    assert_eq!(answer.headers["galaksio-charged"], "unknown", "{}", step.name);
    let link = answer.headers["link"].to_str().unwrap();
    assert!(link.starts_with("<http://gateway.test/jobs/") && link.ends_with("rel=\"status\""), "{link}");
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
