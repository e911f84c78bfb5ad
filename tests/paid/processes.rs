//! Gateways that are killed in the middle of a job: nothing is lost, and nothing is done twice.

use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;

use crate::client::{Answer, Request};
use crate::gateway::Process;
use crate::payer::Payer;
use crate::redis_server::RedisServer;
use crate::rig::{Setup, Stage, eventually};

/// Longer than any test lasts.
const STUCK: Fault = Fault::Slow(Duration::from_secs(600));

#[test]
fn killed_while_the_payment_is_verified() {
    let killed = Killed::at(Setup::new(), Service::Facilitator, "/verify", false);
    // Nothing was spent, so it begins again.
    killed.is_answered_by_both(|answer| assert_eq!(answer.status, 200, "{answer:?}"));
    assert_eq!(killed.money(), (1, 1));
}

#[test]
fn killed_while_the_provider_is_paid() {
    let killed = Killed::at(Setup::new(), Service::OpenX402, "/pin", false);
    // Whether the signature was spent, nobody can tell: it is neither charged for nor paid for again.
    killed.is_answered_by_both(|answer| {
        answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
        assert!(!answer.is_challenge());
    });
    assert_eq!(killed.money(), (0, 0));
}

#[test]
fn killed_after_the_provider_was_paid() {
    let killed = Killed::at(Setup::new(), Service::OpenX402, "/pin", true);
    killed.is_answered_by_both(|answer| {
        answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
        assert!(!answer.is_challenge());
    });
    assert_eq!(killed.money(), (0, 1));
}

#[test]
fn killed_while_the_client_is_charged() {
    let killed = Killed::at(Setup::new(), Service::Facilitator, "/settle", false);
    // The answer was kept before, and is collected for now.
    killed.is_answered_by_both(|answer| assert_eq!(answer.status, 200, "{answer:?}"));
    assert_eq!(killed.money(), (1, 1));
}

#[test]
fn killed_after_the_client_was_charged() {
    let killed = Killed::at(Setup::new(), Service::Facilitator, "/settle", true);
    // The facilitator says that the nonce is used, which it would say of any use of it: the answer stays open until
    // the chain is asked, and is never a new price.
    killed.stage.run(async {
        for _ in 0..2 {
            let answer = killed.second.client().send(&killed.paid).await;
            answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
            assert!(!answer.is_challenge());
        }
    });
    assert_eq!(killed.money(), (1, 1));
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn another_process_takes_over() {
    let server = RedisServer::start(&[]);
    for path in ["/verify", "/settle"] {
        let setup = Setup::new().redis(&server.url()).text("store", "prefix", path.trim_start_matches('/'));
        let killed = Killed::at(setup, Service::Facilitator, path, false);
        killed.is_answered_by_both(|answer| assert_eq!(answer.status, 200, "{path}: {answer:?}"));
        assert_eq!(killed.money(), (1, 1));
    }
}

/// A gateway was killed while it waited for an answer; the next one runs.
struct Killed {
    paid: Request,
    second: Process,
    stage: Stage,
}

impl Killed {
    /// Kills it while a request to a service's path hangs, before or after that had its effect. Of those to a provider, the
    /// paid one: prices are asked for at any time.
    fn at(setup: Setup, service: Service, path: &str, after: bool) -> Killed {
        let stage = setup.start();
        let first = stage.process();
        let payer = Payer::new();
        let paid = stage.run(async {
            let client = first.client();
            let request = Request::post("/store?permanent=true", "image/png", vec![7; 100]);
            let offered = eventually("a price", async || {
                let answer = client.send(&request).await;
                (answer.status == 402).then_some(answer)
            });
            let paid = request.clone().paid(&payer.pay(&offered.await.offer(Version::V2)));
            let money = || (stage.sales(), stage.purchases(Service::OpenX402));
            let faults = &stage.sandbox().faults;
            let (before, unmoved) = (faults.fired(service), money());
            let stuck = Rule::next(1, STUCK).at(path);
            let stuck = if service == Service::Facilitator { stuck } else { stuck.paid() };
            faults.add(service, if after { stuck.after() } else { stuck });
            let presented = tokio::spawn({
                let (client, paid) = (client.clone(), paid.clone());
                async move { client.send(&paid).await }
            });
            eventually("it hangs", async || {
                let effect = !after || money() != unmoved;
                (faults.fired(service) > before && effect).then_some(())
            })
            .await;
            presented.abort();
            paid
        });
        first.kill();
        stage.sandbox().faults.clear(service);
        Killed { paid, second: stage.process(), stage }
    }

    /// Presents the payment until there is an outcome, and then again.
    fn is_answered_by_both(&self, check: impl Fn(&Answer)) {
        let client = self.second.client();
        self.stage.run(async {
            // As long as nobody knows whether he was charged, the client is told just that.
            let first = eventually("an outcome", async || {
                let answer = client.send(&self.paid).await;
                if answer.code() != "settlement_unknown" {
                    return Some(answer);
                }
                answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
                None
            });
            check(&first.await);
            check(&client.send(&self.paid).await);
        });
    }

    /// How often the client paid, and how often the provider was paid.
    fn money(&self) -> (usize, usize) {
        (self.stage.sales(), self.stage.purchases(Service::OpenX402))
    }
}
