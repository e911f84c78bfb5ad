//! SIGTERM is no crash: what was begun is finished first, the client's job and recovery's.

use std::time::Duration;

use galaksio::jobs::State;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};

use super::client::Order;
use super::money::Money;
use super::rig::{First, Rig, Store, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_before_the_process_does() {
    let mut rig = Rig::start(Store::Embedded).await;
    let purchase = rig.sign(Order::Run).await;
    let before = rig.money(&purchase);
    let faults = &rig.sandbox.faults;
    faults.add(Service::Merit, Rule::next(1, Fault::Slow(Duration::from_secs(2))).paid());
    faults.add(Service::Facilitator, Rule::next(1, Fault::Slow(Duration::from_secs(1))).at("/settle"));
    let struck = faults.fired(Service::Merit) + 1;
    let client = rig.client.presenting(rig.gateway().edge, &purchase);
    rig.until_struck(Service::Merit, struck).await;
    rig.stop().await;
    let answer = client.await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.json());
    let store = rig.open_store().await;
    let job = store.by_claim(&purchase.claim).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (State::Completed, 1));
    assert_eq!(rig.money(&purchase), Money { charged: 1, provider: 1, ..before });
}

/// The settle of an orphan is answered after the signal. Without that answer nobody could say whether it was paid.
#[tokio::test(flavor = "multi_thread")]
async fn recovery_hears_the_answer_it_waits_for() {
    let mut rig = Rig::start(Store::Embedded).await;
    let purchase = rig.sign(Order::Run).await;
    rig.stall(Service::Facilitator, "/settle", First::Call(0), |rule| rule);
    let client = rig.client.presenting(rig.gateway().edge, &purchase);
    until("the first settle", async || {
        (rig.sandbox.requests.count(Service::Facilitator, "/settle") == 1).then_some(())
    })
    .await;
    rig.kill();
    client.await.unwrap().unwrap_err();
    rig.sandbox.faults.clear(Service::Facilitator);
    let slow = Rule::next(1, Fault::Slow(Duration::from_secs(3))).after();
    rig.sandbox.faults.add(Service::Facilitator, slow.at("/settle"));
    rig.restart().await;
    until("recovery's settle", async || {
        (rig.sandbox.requests.count(Service::Facilitator, "/settle") == 2).then_some(())
    })
    .await;
    let (job, journal) = rig.autopsy(&purchase).await;
    assert_eq!(job.state, State::Completed, "{journal:?}");
    assert_eq!(rig.money(&purchase).charged, 1);
}
