//! Two facilitators: what becomes of a sale when one of them fails, over sockets and on one ledger.

use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;

use crate::client::{Client, Request};
use crate::front::Front;
use crate::gateway::Gateway;
use crate::once::same;
use crate::payer::Payer;
use crate::rig::{Setup, Stage, eventually};

/// A gateway with two facilitators that are two doors to one.
struct Scene {
    gateway: Gateway,
    first: Front,
    second: Front,
    payer: Payer,
    stage: Stage,
}

impl Scene {
    fn new(setup: impl FnOnce(Setup) -> Setup) -> Scene {
        let (first, second) = (Front::new(), Front::new());
        let routes = format!("{}\n[[facilitator.fallback]]\nurl = {:?}\n", crate::rig::ROUTES, second.url());
        // However busy the machine is, only the test that is about it asks the second to verify what the first has not.
        let setup_ = Setup::new()
            .text("facilitator", "url", &first.url())
            .text("facilitator", "hedge_after", "30s")
            .routes(&routes);
        let stage = setup(setup_).start();
        stage.run(async {
            first.open(&stage.sandbox().urls.facilitator).await;
            second.open(&stage.sandbox().urls.facilitator).await;
        });
        let gateway = stage.gateway();
        Scene { gateway, first, second, payer: Payer::new(), stage }
    }

    fn client(&self) -> Client {
        self.gateway.client()
    }

    async fn paid(&self, version: Version) -> Request {
        let request = Request::run("print(1)");
        let payment = self.client().sign(&request, &self.payer, version).await;
        request.paid(&payment)
    }

    fn url(&self) -> &str {
        &self.stage.sandbox().urls.facilitator
    }

    fn asked(&self) -> [(usize, usize); 2] {
        [self.first.asked(), self.second.asked()]
    }
}

#[test]
fn the_first_does_all_the_work_until_it_is_gone() {
    let scene = Scene::new(|setup| setup);
    scene.stage.run(async {
        let answer = scene.client().send(&scene.paid(Version::V2).await).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(scene.asked(), [(1, 1), (0, 0)]);
        scene.first.shut().await;
        for version in [Version::V1, Version::V2] {
            let paid = scene.paid(version).await;
            let answer = scene.client().send(&paid).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(same(&scene.client().send(&paid).await), same(&answer));
        }
        assert_eq!(scene.asked(), [(1, 1), (2, 2)]);
    });
    assert_eq!((scene.stage.sales(), scene.stage.purchases(Service::Merit)), (3, 3));
}

#[test]
fn a_verification_that_hangs_is_answered_by_the_other() {
    let scene = Scene::new(|setup| setup.text("facilitator", "hedge_after", "100ms"));
    scene.stage.run(async {
        let paid = scene.paid(Version::V2).await;
        scene.first.hang(true);
        let began = std::time::Instant::now();
        let answer = scene.client().send(&paid).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // And who vouched for it settled it: the other would still hang.
        assert_eq!(scene.asked(), [(1, 0), (1, 1)]);
    });
    assert_eq!(scene.stage.sales(), 1);
}

#[test]
fn who_began_to_settle_ends_it() {
    let scene = Scene::new(|setup| setup.text("facilitator", "unknown_hold", "30s"));
    let faults = &scene.stage.sandbox().faults;
    scene.stage.run(async {
        // It hangs up on two settles, and the other is there all the time.
        faults.add(Service::Facilitator, Rule::next(2, Fault::Drop).at("/settle"));
        let answer = scene.client().send(&scene.paid(Version::V2).await).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(scene.asked(), [(1, 3), (0, 0)]);
        // A door that is shut between verify and settle has begun nothing.
        faults.add(Service::Merit, Rule::next(1, Fault::Held).paid().after());
        let paid = scene.paid(Version::V2).await;
        let client = scene.client();
        let shut = async {
            eventually("the first verified", async || (scene.first.asked().0 == 2).then_some(())).await;
            eventually("the provider works", async || {
                (scene.stage.purchases(Service::Merit) == 2).then_some(())
            })
            .await;
            scene.first.shut().await;
            faults.let_go(Service::Merit);
        };
        let (answer, ()) = tokio::join!(client.send(&paid), shut);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(scene.asked(), [(2, 3), (0, 1)]);
    });
    assert_eq!((scene.stage.sales(), scene.stage.purchases(Service::Merit)), (2, 2));
}

#[test]
fn with_none_nothing_is_sold_and_the_rest_flows() {
    let scene = Scene::new(|setup| setup);
    scene.stage.run(async {
        let paid = scene.paid(Version::V2).await;
        scene.first.shut().await;
        scene.second.shut().await;
        // The payment in hand is told so first; then nobody is asked to sign any more.
        scene.client().send(&paid).await.expect(503, "facilitator_away", Some("no"), Some("same_payment"));
        let away = eventually("nothing is sold", async || {
            let answer = scene.client().send(&Request::run("print(1)")).await;
            (answer.status == 503).then_some(answer)
        })
        .await;
        assert_eq!(away.code(), "facilitator_away");
        assert!(away.field("retry-after").is_some() && !away.is_challenge());
        assert_eq!(scene.client().send(&Request::get("/hello")).await.status, 200, "free traffic flows");
        let ready = Client::new(scene.gateway.admin).send(&Request::get("/ready")).await;
        assert_eq!(ready.status, 503);
        assert!(
            String::from_utf8_lossy(&ready.body).contains(scene.second.url().trim_start_matches("http://"))
        );

        scene.second.open(scene.url()).await;
        let answer = eventually("selling again", async || {
            let answer = scene.client().send(&paid).await;
            (answer.status != 503).then_some(answer)
        })
        .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(scene.first.asked(), (0, 0));
    });
    assert_eq!(scene.stage.sales(), 1);
}

#[test]
fn it_starts_without_them_and_sells_when_one_is_there() {
    let (first, second) = (Front::new(), Front::new());
    let routes = format!("{}\n[[facilitator.fallback]]\nurl = {:?}\n", crate::rig::ROUTES, second.url());
    let stage = Setup::new()
        .text("facilitator", "url", &first.url())
        .text("facilitator", "hedge_after", "30s")
        .routes(&routes)
        .start();
    let gateway = stage.gateway();
    stage.run(async {
        let client = gateway.client();
        eventually("nothing is sold", async || {
            (client.send(&Request::run("1")).await.code() == "facilitator_away").then_some(())
        })
        .await;
        second.open(&stage.sandbox().urls.facilitator).await;
        eventually("prices are named", async || {
            (client.send(&Request::run("1")).await.status == 402).then_some(())
        })
        .await;
        assert_eq!(client.buy(&Request::run("1"), &Payer::new(), Version::V2).await.status, 200);
    });
    assert_eq!((first.asked(), second.asked()), ((0, 0), (1, 1)));
}
