//! What a facilitator can do to a sale: stay away, lose answers, take its time, refuse.

use galaksio::money::Amount;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use http_body_util::BodyExt;
use serde_json::json;

use crate::client::Request;
use crate::gateway::Gateway;
use crate::once::same;
use crate::payer::Payer;
use crate::rig::{Books, Setup, Stage};
use crate::sold::{RUN, RUN_COST};

#[test]
fn away_at_verify_nothing_is_lost() {
    for fault in [Fault::Drop, Fault::Status(500), Fault::Garbage] {
        let scene = Scene::new();
        let Scene { stage, payer, .. } = &scene;
        stage.sandbox().faults.add(Service::Facilitator, Rule::always(fault).at("/verify"));
        stage.run(async {
            let paid = scene.paid(Version::V2).await;
            let answer = scene.client().send(&paid).await;
            answer.expect(503, "facilitator_away", Some("no"), Some("same_payment"));
            assert!(answer.field("retry-after").is_some());
            assert!(!answer.is_challenge(), "{fault:?}: it may be taken for a no");
            assert_eq!(scene.changes(), Books::default());
            assert_eq!(stage.sandbox().requests.count(Service::Facilitator, "/settle"), 0);
            // It is no different while it lasts, and good afterwards.
            scene.client().send(&paid).await.expect(
                503,
                "facilitator_away",
                Some("no"),
                Some("same_payment"),
            );
            stage.sandbox().faults.clear(Service::Facilitator);
            assert_eq!(scene.client().send(&paid).await.status, 200);
            assert_eq!(scene.changes(), SOLD);
            assert_eq!(stage.balance(payer.address()), 100_000_000 - RUN);
        });
    }
}

#[test]
fn refused_at_verify() {
    let scene = Scene::new();
    // Enough for nothing.
    scene.stage.sandbox().ledger.set_balance(scene.payer.address(), Amount::new(335));
    scene.stage.run(async {
        let paid = scene.paid(Version::V1).await;
        for _ in 0..2 {
            let answer = scene.client().send(&paid).await;
            answer.expect(402, "payment_rejected", Some("no"), Some("new_payment"));
            assert!(answer.is_challenge());
            let details = &answer.json()["details"];
            assert_eq!(details["message"], "invalid_exact_evm_insufficient_balance", "{details}");
        }
        assert_eq!(scene.stage.purchases(Service::Merit), 0);
    });
}

#[test]
fn a_lost_answer_of_settle_is_never_a_new_price() {
    for fault in [Fault::Drop, Fault::Garbage, Fault::Status(502)] {
        let scene = Scene::new();
        let faults = &scene.stage.sandbox().faults;
        faults.add(Service::Facilitator, Rule::next(1, fault).at("/settle").after());
        scene.stage.run(async {
            let paid = scene.paid(Version::V2).await;
            let answer = scene.client().send(&paid).await;
            // The money did move. The facilitator says "nonce already used" when it is asked again, as it would say of
            // any other use of the nonce: that proves nothing, so the answer stays open.
            answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
            assert!(answer.field("retry-after").is_some());
            assert!(!answer.is_challenge());
            assert_eq!(scene.changes(), SOLD);
            let job = answer.json()["jobId"].as_str().unwrap().to_owned();
            let link = answer.field("link").unwrap();
            assert!(link.ends_with(&format!("/jobs/{job}>; rel=\"status\"")), "{link}");
            let state = scene.client().send(&Request::get(&format!("/job/{job}"))).await.json();
            assert_eq!((&state["state"], &state["status"]), (&json!("settling"), &json!("running")));
            // The same payment: the same, and neither is paid twice.
            let again = scene.client().send(&paid).await;
            again.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
            assert_eq!(scene.changes(), SOLD);
        });
    }
}

#[test]
fn a_settle_that_never_happened_is_repeated() {
    for fault in [Fault::Drop, Fault::Garbage, Fault::Status(502)] {
        let scene = Scene::with(patient());
        let faults = &scene.stage.sandbox().faults;
        faults.add(Service::Facilitator, Rule::next(2, fault).at("/settle"));
        scene.stage.run(async {
            let paid = scene.paid(Version::V1).await;
            let answer = scene.client().send(&paid).await;
            assert_eq!(answer.status, 200, "{fault:?}: {answer:?}");
            assert_eq!(scene.changes(), SOLD);
            assert_eq!(same(&scene.client().send(&paid).await), same(&answer));
        });
    }
}

#[test]
fn away_at_settle_the_answer_is_held_and_collected_later() {
    let scene = Scene::with(Setup::new().text("facilitator", "unknown_hold", "1s"));
    let faults = &scene.stage.sandbox().faults;
    faults.add(Service::Facilitator, Rule::always(Fault::Drop).at("/settle"));
    scene.stage.run(async {
        let paid = scene.paid(Version::V2).await;
        let answer = scene.client().send(&paid).await;
        answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
        // The provider is paid, the client is not charged yet, and nothing is done twice.
        assert_eq!(scene.changes(), Books { payer: 0, payee: 0, ..SOLD });
        faults.clear(Service::Facilitator);
        // As long as recovery has it in hand, nobody knows.
        let collected = crate::rig::eventually("an answer that knows", async || {
            let answer = scene.client().send(&paid).await;
            (answer.code() != "settlement_unknown").then_some(answer)
        })
        .await;
        assert_eq!(collected.status, 200, "{collected:?}");
        assert!(collected.receipt().success);
        assert_eq!(scene.changes(), SOLD);
    });
}

#[test]
fn pending_then_mined() {
    let scene = Scene::with(patient());
    let faults = &scene.stage.sandbox().faults;
    faults.add(Service::Facilitator, Rule::next(2, Fault::Pending).at("/settle"));
    scene.stage.run(async {
        let paid = scene.paid(Version::V2).await;
        let answer = scene.client().send(&paid).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(scene.changes(), SOLD);
        assert_eq!(scene.stage.sandbox().requests.count(Service::Facilitator, "/settle"), 3);
    });
}

#[test]
fn refused_at_settle_the_result_is_withheld() {
    // While the provider works, the client spends his money elsewhere.
    let scene = Scene::new();
    let faults = &scene.stage.sandbox().faults;
    scene.stage.run(async {
        let paid = scene.paid(Version::V2).await;
        faults.add(Service::Merit, Rule::next(1, Fault::Held).paid());
        let client = scene.client();
        let spend = async {
            crate::rig::eventually("the provider is paid", async || {
                (faults.fired(Service::Merit) > 0).then_some(())
            })
            .await;
            assert_eq!(scene.stage.sandbox().requests.count(Service::Facilitator, "/verify"), 1);
            scene.stage.sandbox().ledger.set_balance(scene.payer.address(), Amount::ZERO);
            faults.let_go(Service::Merit);
        };
        let (answer, ()) = tokio::join!(client.send(&paid), spend);
        answer.expect(402, "uncollected", Some("no"), Some("new_payment"));
        assert!(!String::from_utf8_lossy(&answer.body).contains("stdout"), "{answer:?}");
        assert_eq!(scene.stage.purchases(Service::Merit), 1);
        assert_eq!(scene.stage.sales(), 0);
        // For good: money that comes later does not buy it, and the provider is not paid again.
        scene.stage.sandbox().ledger.set_balance(scene.payer.address(), Amount::new(1_000_000));
        scene.client().send(&paid).await.expect(402, "uncollected", Some("no"), Some("new_payment"));
        assert_eq!((scene.stage.purchases(Service::Merit), scene.stage.sales()), (1, 0));
    });
}

#[test]
fn a_client_that_goes_away_can_come_back() {
    let scene = Scene::new();
    let faults = &scene.stage.sandbox().faults;
    scene.stage.run(async {
        for version in [Version::V1, Version::V2] {
            let paid = scene.paid(version).await;
            let asked = scene.stage.sandbox().requests.count(Service::Facilitator, "/verify");
            faults.add(Service::Facilitator, Rule::next(1, Fault::Held).at("/verify"));
            let going = tokio::spawn({
                let (client, paid) = (scene.client(), paid.clone());
                async move { client.open(&paid).await.into_body().collect().await }
            });
            crate::rig::eventually("the work began", async || {
                let now = scene.stage.sandbox().requests.count(Service::Facilitator, "/verify");
                (now > asked).then_some(())
            })
            .await;
            going.abort();
            assert!(going.await.unwrap_err().is_cancelled());
            faults.let_go(Service::Facilitator);
            let answer = scene.client().send(&paid).await;
            assert_eq!(answer.status, 200, "{version:?}: {answer:?}");
        }
    });
    assert_eq!((scene.stage.sales(), scene.stage.purchases(Service::Merit)), (2, 2));
}

/// A facilitator that says yes and moves nothing is believed: without a chain there is nobody to ask. What it can
/// cost is bounded by its being the operator's own choice; this test is here so that a change of that is noticed.
#[test]
fn a_lying_facilitator_is_believed() {
    let scene = Scene::new();
    scene.stage.sandbox().faults.add(Service::Facilitator, Rule::always(Fault::Lie));
    scene.stage.run(async {
        let answer = scene.client().send(&scene.paid(Version::V2).await).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    assert_eq!(scene.changes(), Books { payer: 0, payee: 0, ..SOLD });
}

/// With time for several tries to settle, however busy the machine is.
fn patient() -> Setup {
    Setup::new().text("facilitator", "unknown_hold", "30s")
}

/// What a program that was run does to the books.
const SOLD: Books =
    Books { payer: -RUN, payee: RUN, wallet: -RUN_COST, merit: RUN_COST, xcache: 0, openx402: 0 };

/// A gateway, and a client who is about to run a program.
struct Scene {
    gateway: Gateway,
    payer: Payer,
    before: Books,
    stage: Stage,
}

impl Scene {
    fn new() -> Scene {
        Scene::with(Setup::new())
    }

    fn with(setup: Setup) -> Scene {
        let stage = setup.start();
        let gateway = stage.gateway();
        let payer = Payer::new();
        let before = stage.books(payer.address());
        Scene { gateway, payer, before, stage }
    }

    fn client(&self) -> crate::client::Client {
        self.gateway.client()
    }

    /// A request to run a program, paid.
    async fn paid(&self, version: Version) -> Request {
        let request = Request::run("print(1)");
        let payment = self.client().sign(&request, &self.payer, version).await;
        request.paid(&payment)
    }

    fn changes(&self) -> Books {
        self.stage.books(self.payer.address()).since(self.before)
    }
}
