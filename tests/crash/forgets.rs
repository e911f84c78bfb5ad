//! A Redis that dies in the middle of paid work and comes back without the last of what it acknowledged: the job goes on, ends once,
//! and whoever presents its payment elsewhere finds it.

use galaksio::jobs::State;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;

use super::client::{Answer, Order, Purchase};
use super::gateway::Gateway;
use super::money::Money;
use super::redis_server::RedisServer;
use super::rig::{Rig, Store, until};

/// One that has on disk what it acknowledged, so that a copy of that is a moment to go back to; and two gateways.
async fn rig() -> (RedisServer, Rig, Gateway) {
    let server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let rig = Rig::start(Store::Redis { url: server.url(), prefix: "forgets".to_owned() }).await;
    let second = rig.second().await;
    // Once they can say a price they ask for it no more for a while: what is held then is the work's.
    for edge in [rig.gateway().edge, second.edge] {
        rig.client.challenge(edge, Order::Run).await;
    }
    (server, rig, second)
}

impl Rig {
    /// Presents the payment until somebody has looked at it: while the store may have forgotten it, nobody does.
    pub(crate) async fn answered(&self, at: &Gateway, purchase: &Purchase) -> Answer {
        let waits = ["store_away", "settlement_unknown", "job_running"];
        until("an answer that knows", async || {
            let answer = self.client.present(at.edge, purchase).await.unwrap();
            assert_ne!(answer.status, 402, "a payment that was taken: {}", answer.json());
            (!waits.iter().any(|code| answer.json()["code"] == *code)).then_some(answer)
        })
        .await
    }

    pub(crate) async fn until_told(&self, by: &Gateway, purchase: &Purchase, state: State) {
        until(&format!("the job to be {}", state.name()), async || {
            let answer = self.client.get(by.edge, &format!("/job/{}", purchase.job)).await.unwrap();
            (answer.json()["state"] == state.name()).then_some(())
        })
        .await;
    }

    pub(crate) async fn ends_once(
        mut self,
        second: Gateway,
        purchase: &Purchase,
        before: Money,
        attempt: u32,
        lines: &[&str],
    ) {
        second.signal("TERM");
        assert!(second.ended().await.success());
        assert_eq!(self.money(purchase), Money { charged: 1, provider: before.provider + 1, ..before });
        let (job, journal) = self.autopsy(purchase).await;
        assert_eq!((job.state, job.attempt), (State::Completed, attempt));
        assert_eq!(journal, lines);
        self.sandbox.stop().await;
    }
}

pub(crate) const LINES: [&str; 4] = ["verified", "signed", "answered", "settled"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn a_job_in_work_goes_on_and_is_found_by_others() {
    struct Case {
        held: (Service, Rule),
        state: State,
    }
    let run = async |Case { held: (service, rule), state }: Case| {
        let (mut server, rig, second) = rig().await;
        let purchase = rig.client.sign(rig.gateway().edge, Order::Run, Version::V2).await;
        let before = rig.money(&purchase);
        let then = server.remember();
        let struck = rig.sandbox.faults.fired(service);
        rig.sandbox.faults.add(service, rule);
        let client = rig.client.presenting(rig.gateway().edge, &purchase);
        rig.until_struck(service, struck + 1).await;
        rig.until_told(&second, &purchase, state).await;
        rig.sandbox.faults.clear(service);

        server.go_back_to(&then);
        // The first knows it again, from memory; so does whoever asks the other.
        rig.until_told(&second, &purchase, state).await;
        let elsewhere = rig.client.presenting(second.edge, &purchase);
        for _ in struck..rig.sandbox.faults.fired(service) {
            rig.sandbox.faults.let_go(service);
        }
        let answer = client.await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.json());
        let other = elsewhere.await.unwrap().unwrap();
        assert_ne!(other.status, 402, "a payment that was taken: {}", other.json());
        let other = rig.answered(&second, &purchase).await;
        assert_eq!((other.status, &other.body), (answer.status, &answer.body));
        rig.ends_once(second, &purchase, before, 1, &LINES).await;
    };
    let cases = [
        Case { held: (Service::Merit, Rule::always(Fault::Held)), state: State::Claimed },
        Case { held: (Service::Merit, Rule::always(Fault::Held).paid().after()), state: State::Working },
        Case {
            held: (Service::Facilitator, Rule::always(Fault::Held).at("/settle").after()),
            state: State::Settling,
        },
    ];
    for case in cases {
        run(case).await;
    }
}

/// The other gateway is asked at once, before anybody could have written anything again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn what_was_sold_a_moment_ago_is_not_sold_again() {
    let (mut server, rig, second) = rig().await;
    let purchase = rig.client.sign(rig.gateway().edge, Order::Run, Version::V2).await;
    let before = rig.money(&purchase);
    let then = server.remember();
    let answer = rig.present(&purchase).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    // Its last record is behind the answer.
    rig.until_told(&second, &purchase, State::Completed).await;
    server.go_back_to(&then);
    let again = rig.answered(&second, &purchase).await;
    assert_eq!((again.status, &again.body), (answer.status, &answer.body));
    rig.ends_once(second, &purchase, before, 1, &LINES).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn who_lost_his_job_to_another_does_not_get_it_back() {
    let (mut server, rig, second) = rig().await;
    let purchase = rig.client.sign(rig.gateway().edge, Order::Run, Version::V2).await;
    let before = rig.money(&purchase);
    // The first stands still once it has claimed the payment, and the other takes the job over.
    let struck = rig.sandbox.faults.fired(Service::Merit);
    rig.sandbox.faults.add(Service::Merit, Rule::always(Fault::Held));
    let client = rig.client.presenting(rig.gateway().edge, &purchase);
    rig.until_struck(Service::Merit, struck + 1).await;
    rig.until_told(&second, &purchase, State::Claimed).await;
    rig.gateway().signal("STOP");
    let then = server.remember();
    rig.sandbox.faults.clear(Service::Merit);
    let stood = rig.sandbox.faults.fired(Service::Merit);
    rig.sandbox.faults.add(Service::Merit, Rule::always(Fault::Held).paid().after());
    let heir = rig.client.presenting(second.edge, &purchase);
    rig.until_struck(Service::Merit, stood + 1).await;
    rig.until_told(&second, &purchase, State::Working).await;
    rig.sandbox.faults.clear(Service::Merit);

    // Back to when it was the first one's.
    server.go_back_to(&then);
    rig.until_told(&second, &purchase, State::Working).await;
    rig.gateway().signal("CONT");
    for _ in struck..rig.sandbox.faults.fired(Service::Merit) {
        rig.sandbox.faults.let_go(Service::Merit);
    }
    let answer = heir.await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.json());
    let late = client.await.unwrap().unwrap();
    assert_ne!(late.status, 402, "a payment that was taken: {}", late.json());
    let again = rig.answered(rig.gateway(), &purchase).await;
    assert_eq!((again.status, &again.body), (answer.status, &answer.body));
    let lines = ["work_failed", "reopened", "verified", "signed", "answered", "settled"];
    rig.ends_once(second, &purchase, before, 2, &lines).await;
}
