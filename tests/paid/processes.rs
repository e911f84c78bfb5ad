//! Gateways that are killed in the middle of a job: nothing is lost, and nothing is done twice.

use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;

use crate::client::{Answer, Request};
use crate::payer::Payer;
use crate::rig::{Setup, Stage, eventually};

/// Longer than any test lasts.
const STUCK: Fault = Fault::Slow(Duration::from_secs(600));

#[test]
fn killed_while_the_payment_is_verified() {
    let (stage, answers) = killed_at(Service::Facilitator, "/verify", STUCK, 1);
    for answer in answers {
        assert_eq!(answer.status, 200, "nothing was spent, so it begins again: {answer:?}");
    }
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 1));
}

#[test]
fn killed_while_the_provider_is_paid() {
    // The second request for a pin is the paid one.
    let (stage, answers) = killed_at(Service::OpenX402, "/pin", STUCK, 2);
    for answer in answers {
        answer.expect(503, "interrupted", Some("no"), Some("same_payment"));
        assert!(!answer.is_challenge());
    }
    assert_eq!(stage.sales(), 0, "not charged for what may never be done");
    assert!(stage.purchases(Service::OpenX402) <= 1);
}

#[test]
fn killed_while_the_client_is_charged() {
    let (stage, answers) = killed_at(Service::Facilitator, "/settle", STUCK, 1);
    for answer in answers {
        assert_eq!(answer.status, 200, "the kept answer is collected for: {answer:?}");
    }
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 1));
}

/// Kills a gateway while the `nth` request to a service's path hangs; the same payment twice to the next gateway.
fn killed_at(service: Service, path: &str, fault: Fault, nth: usize) -> (Stage, Vec<Answer>) {
    let stage = Setup::new().start();
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
        let asked = async || {
            let seen = stage.sandbox().requests.seen(service);
            seen.iter().filter(|seen| seen.path.starts_with(path)).count()
        };
        let before = asked().await;
        for _ in 1..nth {
            stage.sandbox().faults.add(service, Rule::next(1, Fault::Slow(Duration::ZERO)).at(path));
        }
        stage.sandbox().faults.add(service, Rule::next(1, fault).at(path));
        let presented = tokio::spawn({
            let (client, paid) = (client.clone(), paid.clone());
            async move { client.send(&paid).await }
        });
        eventually("it hangs", async || (asked().await >= before + nth).then_some(())).await;
        presented.abort();
        paid
    });
    first.kill();
    stage.sandbox().faults.clear(service);
    let second = stage.process();
    let client = second.client();
    let answers = stage.run(async {
        // As long as nobody knows whether he was charged, the client is told just that.
        let first = eventually("an outcome", async || {
            let answer = client.send(&paid).await;
            match answer.code().as_str() {
                "settlement_unknown" => {
                    answer.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
                    None
                }
                _ => Some(answer),
            }
        });
        vec![first.await, client.send(&paid).await]
    });
    drop(second);
    (stage, answers)
}
