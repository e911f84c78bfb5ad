//! Killed again: while recovery works, and in the attempt that follows it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use galaksio::jobs::State;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};

use super::client::{Order, Purchase};
use super::money::Money;
use super::rig::{FOREVER, First, Rig, Store, until};

/// The default of `facilitator.settle_timeout`.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Kills the gateway in a settle that never arrives. The job is settling.
async fn killed_in_settle() -> (Rig, Purchase) {
    let mut rig = Rig::start(Store::Embedded).await;
    let purchase = rig.sign(Order::Run).await;
    rig.stall(Service::Facilitator, "/settle", First::Call(0), |rule| rule);
    let client = rig.client.presenting(rig.gateway().edge, &purchase);
    rig.until_settles(1).await;
    rig.kill();
    client.await.unwrap().unwrap_err();
    rig.sandbox.faults.clear(Service::Facilitator);
    (rig, purchase)
}

impl Rig {
    async fn until_settles(&self, count: u64) {
        until(&format!("settle number {count}"), async || {
            (self.sandbox.requests.count(Service::Facilitator, "/settle") >= count).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_recovery_settles() {
    let case = async |arrives: bool| {
        let (mut rig, purchase) = killed_in_settle().await;
        let before = rig.money(&purchase);
        rig.stall(
            Service::Facilitator,
            "/settle",
            First::Call(0),
            if arrives { Rule::after } else { |rule| rule },
        );
        rig.restart().await;
        rig.until_settles(2).await;
        let charged = usize::from(arrives);
        until("the settle to arrive, or not", async || {
            (rig.money(&purchase).charged == charged).then_some(())
        })
        .await;
        rig.kill();
        rig.sandbox.faults.clear(Service::Facilitator);
        rig.restart().await;
        rig.until_settles(3).await;
        if arrives {
            // Nobody heard that it was settled, so nobody may say so.
            let answer = rig.present(&purchase).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (503, &"settlement_unknown".into()));
        } else {
            rig.until_state(purchase.job, State::Completed).await;
            assert_eq!(rig.present(&purchase).await.status, 200);
        }
        let (job, journal) = rig.autopsy(&purchase).await;
        let ends = if arrives { State::Settling } else { State::Completed };
        assert_eq!((job.state, job.attempt), (ends, 1), "{journal:?}");
        assert_eq!(rig.money(&purchase), Money { charged: 1, ..before });
        rig.sandbox.stop().await;
    };
    join_all([case(false), case(true)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_second_attempt() {
    let mut rig = Rig::start(Store::Embedded).await;
    let purchase = rig.sign(Order::Run).await;
    let before = rig.money(&purchase);
    let unpaid = (First::Call(0), State::Claimed, 0, State::Voided);
    let paid = (First::Paid(0), State::Working, 1, State::Held);
    for (first, killed_in, payments, left) in [unpaid, paid] {
        let struck = rig.stall(Service::Merit, "/", first, Rule::after);
        let client = rig.client.presenting(rig.gateway().edge, &purchase);
        rig.until_struck(Service::Merit, struck).await;
        rig.until_state(purchase.job, killed_in).await;
        until("its effect", async || (rig.money(&purchase).provider == payments).then_some(())).await;
        rig.kill();
        client.await.unwrap().unwrap_err();
        rig.sandbox.faults.clear(Service::Merit);
        rig.restart().await;
        rig.until_state(purchase.job, left).await;
    }
    let answer = rig.present(&purchase).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["charged"]), (502, &"no".into()));
    let (job, journal) = rig.autopsy(&purchase).await;
    let expected = ["work_failed", "reopened", "verified", "signed", "work_failed"];
    assert_eq!(journal, expected);
    assert_eq!((job.state, job.attempt, job.provider.len()), (State::Held, 2, 1));
    assert_eq!(rig.money(&purchase), Money { charged: 0, provider: 1, ..before });
}

/// A settle that takes longer than the lease, while the same payment is presented: if recovery lost the lease meanwhile,
/// the payment would be settled a second time, refused, and the first answer thrown away.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_settle_in_recovery_is_not_lost() {
    let (mut rig, purchase) = killed_in_settle().await;
    let slow = Rule::next(1, Fault::Slow(Duration::from_secs(7))).after();
    rig.sandbox.faults.add(Service::Facilitator, slow.at("/settle"));
    rig.restart().await;
    rig.until_settles(2).await;
    let answer = until("the answer", async || {
        let answer = rig.present(&purchase).await;
        let json = answer.json();
        assert!(answer.status == 200 || json["code"] == "settlement_unknown", "{json}");
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.json()["jobId"], purchase.job.to_string());
    assert_eq!(rig.money(&purchase).charged, 1);
    let (job, journal) = rig.autopsy(&purchase).await;
    assert_eq!((job.state, job.attempt), (State::Completed, 1), "{journal:?}");
    assert_eq!(rig.sandbox.requests.count(Service::Facilitator, "/settle"), 2);
}

/// One facilitator call that hangs must not keep the other orphans waiting.
#[tokio::test(flavor = "multi_thread")]
async fn orphans_do_not_wait_for_each_other() {
    let (mut rig, first) = killed_in_settle().await;
    rig.sandbox.faults.add(Service::Facilitator, Rule::next(2, Fault::Slow(FOREVER)).at("/settle"));
    rig.restart().await;
    // Recovery hangs in the first job's settle; another job is left behind beside it.
    rig.until_settles(2).await;
    let second = rig.sign(Order::Run).await;
    let client = rig.client.presenting(rig.gateway().edge, &second);
    rig.until_settles(3).await;
    rig.kill();
    client.await.unwrap().unwrap_err();
    rig.sandbox.faults.clear(Service::Facilitator);
    rig.sandbox.faults.add(Service::Facilitator, Rule::next(1, Fault::Slow(FOREVER)).at("/settle"));
    rig.restart().await;
    rig.until_settles(4).await;
    let hung = Instant::now();
    let done = until("one of the two", async || {
        for purchase in [&first, &second] {
            if rig.job(purchase.job).await.is_some_and(|job| job["state"] == "completed") {
                return Some(purchase.job);
            }
        }
        None
    })
    .await;
    assert!(hung.elapsed() < SETTLE_TIMEOUT, "it waited for the call that hangs to time out");
    let other = if done == first.job { second.job } else { first.job };
    assert_eq!(rig.job(other).await.unwrap()["state"], "settling");
}
