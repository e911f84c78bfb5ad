//! Two gateways on one Redis: what one leaves behind the other finishes or holds; one that only stood still for a while
//! finds that its job is no longer its own.

use galaksio::jobs::State;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::sandbox::requests::Seen;
use galaksio::x402::Version;

use super::client::Order;
use super::gateway::Gateway;
use super::money::Money;
use super::redis_server::RedisServer;
use super::rig::{First, LEASE, Rig, Store, until};

async fn rig(server: &RedisServer) -> (Rig, Gateway) {
    let rig = Rig::start(Store::Redis { url: server.url(), prefix: "replicas".to_owned() }).await;
    let second = rig.second().await;
    // Once it can say a price it has asked for it, and asks no more for a while: its question is not to be struck.
    rig.client.challenge(second.edge, Order::Run).await;
    (rig, second)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn the_other_gateway_finishes_or_holds_the_job() {
    struct Case {
        service: Service,
        path: &'static str,
        first: First,
        effect: fn(Rule) -> Rule,
        killed_in: State,
        status: u16,
        ends: State,
        attempt: u32,
        charged: usize,
    }
    let never: fn(Rule) -> Rule = |rule| rule;
    let merit = |first, effect, killed_in, status, ends, attempt, charged| Case {
        service: Service::Merit,
        path: "/",
        first,
        effect,
        killed_in,
        status,
        ends,
        attempt,
        charged,
    };
    let cases = [
        merit(First::Call(0), never, State::Claimed, 200, State::Completed, 2, 1),
        merit(First::Paid(0), Rule::after, State::Working, 502, State::Held, 1, 0),
        Case {
            service: Service::Facilitator,
            path: "/settle",
            first: First::Call(0),
            effect: never,
            killed_in: State::Settling,
            status: 200,
            ends: State::Completed,
            attempt: 1,
            charged: 1,
        },
    ];
    let run = async |case: Case| {
        let server = RedisServer::start(&[]);
        let (mut rig, second) = rig(&server).await;
        // The version without a quote to echo: the second gateway must know the price by itself.
        let purchase = rig.client.sign(rig.gateway().edge, Order::Run, Version::V1).await;
        let before = rig.money(&purchase);
        let struck = rig.stall(case.service, case.path, case.first, case.effect);
        let client = rig.client.presenting(rig.gateway().edge, &purchase);
        rig.until_struck(case.service, struck).await;
        let store = rig.open_store().await;
        until("the job to be that far", async || {
            let job = store.by_claim(&purchase.claim).await.unwrap()?;
            let paid = rig.money(&purchase).provider == usize::from(case.killed_in != State::Claimed);
            (job.state == case.killed_in && paid).then_some(())
        })
        .await;
        // Presented to the other while the first still works on it: it waits, and then it finds an orphan.
        let waiting = rig.client.presenting(second.edge, &purchase);
        rig.kill();
        client.await.unwrap().unwrap_err();
        rig.sandbox.faults.clear(case.service);
        let answer = waiting.await.unwrap().unwrap();
        // While a settlement's outcome is unknown nobody waits long; the same payment may ask again.
        let answer = match answer.json()["code"] == "settlement_unknown" {
            true => rig.settled(second.edge, &purchase).await,
            false => answer,
        };
        assert_eq!(answer.status, case.status, "{}", answer.json());
        second.signal("TERM");
        assert!(second.ended().await.success());
        let job = store.by_claim(&purchase.claim).await.unwrap().unwrap();
        assert_eq!((job.state, job.attempt), (case.ends, case.attempt));
        assert_eq!(rig.money(&purchase), Money { charged: case.charged, provider: 1, ..before });
    };
    futures_util::future::join_all(cases.map(run)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn a_gateway_that_stood_still_spends_nothing_more() {
    let server = RedisServer::start(&[]);
    let (mut rig, second) = rig(&server).await;
    let purchase = rig.sign(Order::Run).await;
    let before = rig.money(&purchase);
    // Stands still while it waits for the price: it has claimed the payment and signed nothing.
    let struck = rig.sandbox.faults.fired(Service::Merit);
    rig.sandbox.faults.add(Service::Merit, Rule::always(Fault::Held));
    let client = rig.client.presenting(rig.gateway().edge, &purchase);
    rig.until_struck(Service::Merit, struck + 1).await;
    rig.until_state(purchase.job, State::Claimed).await;
    rig.gateway().signal("STOP");
    rig.sandbox.faults.clear(Service::Merit);
    let answer = rig.client.present(second.edge, &purchase).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(rig.money(&purchase), Money { charged: 1, provider: 1, ..before });

    for _ in struck..rig.sandbox.faults.fired(Service::Merit) {
        rig.sandbox.faults.let_go(Service::Merit);
    }
    rig.gateway().signal("CONT");
    let late = client.await.unwrap().unwrap();
    assert_ne!(late.status, 402, "a payment that was taken: {}", late.json());
    let again = rig.settled(rig.gateway().edge, &purchase).await;
    assert_eq!((again.status, &again.body), (answer.status, &answer.body));
    assert_eq!(rig.money(&purchase), Money { charged: 1, provider: 1, ..before });
    let paid = |seen: &Seen| seen.headers.contains_key("x-payment");
    let payments = rig.sandbox.requests.seen(Service::Merit).iter().filter(|seen| paid(seen)).count();
    assert_eq!(payments, 1, "provider payments that left either gateway");
    rig.stop().await;
    second.signal("TERM");
    assert!(second.ended().await.success());
    let store = rig.open_store().await;
    let job = store.by_claim(&purchase.claim).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (State::Completed, 2));
}

/// By its own clock the second gateway would have taken the job from the first at once: whose it is the store decides.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server and faketime; make test runs it"]
async fn a_clock_that_is_ahead_takes_no_job_from_its_owner() {
    let server = RedisServer::start(&[]);
    let mut rig = Rig::start(Store::Redis { url: server.url(), prefix: "replicas".to_owned() }).await;
    let second = rig.second_at(60).await;
    let purchase = rig.sign(Order::Run).await;
    let before = rig.money(&purchase);
    // Longer than two leases, and than the second waits before it looks for orphans.
    rig.sandbox.faults.add(Service::Merit, Rule::next(1, Fault::Slow(LEASE * 3)).paid());
    let client = rig.client.presenting(rig.gateway().edge, &purchase);
    let answer = client.await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.json());
    let again = rig.settled(second.edge, &purchase).await;
    assert_eq!((again.status, &again.body), (answer.status, &answer.body));
    assert_eq!(rig.money(&purchase), Money { charged: 1, provider: 1, ..before });
    second.signal("TERM");
    assert!(second.ended().await.success());
    let (job, journal) = rig.autopsy(&purchase).await;
    assert_eq!((job.state, job.attempt), (State::Completed, 1));
    assert_eq!(journal, ["verified", "signed", "answered", "settled"]);
}
