//! What a provider can do to a sale: fail, lie about its price, take its time. The client is never charged for it.

use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Request};
use crate::payer::Payer;
use crate::rig::{Setup, Stage, eventually};

/// It fails before it is paid: the same payment starts again.
#[test]
fn failed_before_it_was_paid() {
    for fault in [Fault::Status(500), Fault::Garbage, Fault::Drop, Fault::Truncate] {
        let stage = Setup::new().start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let request = Request::post("/store?permanent=true", "image/png", vec![7; 100]);
            let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
            stage.sandbox().faults.add(Service::OpenX402, Rule::always(fault).at("/upload"));
            let answer = client.send(&paid).await;
            answer.expect(502, "provider_failed", Some("no"), Some("same_payment"));
            assert_eq!((stage.purchases(Service::OpenX402), stage.sales()), (0, 0), "{fault:?}");
            assert_eq!(state(&client, &answer).await, "voided");
            stage.sandbox().faults.clear(Service::OpenX402);
            let answer = client.send(&paid).await;
            assert_eq!(answer.status, 200, "{fault:?}: {answer:?}");
            assert_eq!((stage.purchases(Service::OpenX402), stage.sales()), (1, 1), "{fault:?}");
            assert_eq!(job(&client, &answer).await["attempt"], 2);
        });
    }
}

/// It fails once a payment to it is out: nobody knows whether it was taken, so it is not paid again.
#[test]
fn failed_after_it_was_paid() {
    for fault in [Fault::Status(500), Fault::Garbage, Fault::Drop, Fault::Truncate] {
        let (stage, answer) = pin_struck_by(Rule::always(fault).after());
        answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
        assert!(!answer.is_challenge());
        assert_eq!((stage.purchases(Service::OpenX402), stage.sales()), (1, 0), "{fault:?}");
    }
}

#[test]
fn its_work_fails_and_it_does_not_take_the_money() {
    let (stage, answer) = pin_struck_by(Rule::always(Fault::WorkFails));
    answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
    assert_eq!((stage.purchases(Service::OpenX402), stage.sales()), (0, 0));
}

#[test]
fn it_takes_the_money_and_asks_again() {
    let (stage, answer) = pin_struck_by(Rule::always(Fault::AskAgain));
    answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
    assert_eq!((stage.purchases(Service::OpenX402), stage.sales()), (1, 0), "paid once, not twice");
}

/// Buys a pin that goes wrong once the upload is done, twice; the second must change nothing.
fn pin_struck_by(rule: Rule) -> (Stage, Answer) {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let answer = stage.run(async {
        let request = Request::post("/store?permanent=true", "image/png", vec![7; 100]);
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        // Unpaid questions for the terms are answered, now and in the background.
        stage.sandbox().faults.add(Service::OpenX402, rule.at("/pin").paid());
        let answer = client.send(&paid).await;
        assert_eq!(state(&client, &answer).await, "held", "{answer:?}");
        let (money, asked) = (stage.movements(), stage.sandbox().requests.seen(Service::OpenX402).len());
        stage.sandbox().faults.clear(Service::OpenX402);
        let again = client.send(&paid).await;
        assert_eq!((again.status, again.code()), (answer.status, answer.code()));
        assert_eq!(again.json()["charged"], "no");
        assert_eq!(stage.movements(), money);
        let uploads = stage.sandbox().requests.seen(Service::OpenX402);
        let uploads = uploads[asked..].iter().filter(|seen| seen.path == "/upload").count();
        assert_eq!(uploads, 0, "the work is not begun again");
        answer
    });
    gateway.end();
    (stage, answer)
}

#[test]
fn the_money_it_sent_back_is_not_the_clients() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("1");
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V1).await);
        // Merit Systems sends everything back for a program that it could not run.
        stage.sandbox().faults.add(Service::Merit, Rule::always(Fault::WorkFails));
        let before = stage.books(payer.address());
        let answer = client.send(&paid).await;
        answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
        assert_eq!(stage.books(payer.address()).since(before), Default::default());
    });
}

#[test]
fn a_wallet_that_is_empty_costs_no_client() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("1");
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        stage.sandbox().ledger.set_balance(stage.wallet(), galaksio::money::Amount::new(279));
        let answer = client.send(&paid).await;
        answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
        assert!(!answer.is_challenge());
        assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (0, 0));
    });
}

#[test]
fn too_slow_is_given_up_and_not_charged() {
    // Time enough to ask for the terms and to pay.
    let stage = Setup::new().text("paid", "work_timeout", "5s").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("1");
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        // Questions for the terms are answered, the work is not.
        stage
            .sandbox()
            .faults
            .add(Service::Merit, Rule::always(Fault::Slow(Duration::from_secs(600))).paid());
        let answer = client.send(&paid).await;
        answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
        assert_eq!(state(&client, &answer).await, "held");
        client.send(&paid).await.expect(502, "provider_lost", Some("no"), Some("new_payment"));
        let seen = stage.sandbox().requests.seen(Service::Merit);
        let paid = seen.iter().filter(|seen| seen.headers.contains_key("x-payment")).count();
        assert_eq!(paid, 1, "paid once");
        assert_eq!(stage.sales(), 0);
    });
}

#[test]
fn a_jump_of_the_price_withdraws_the_quote() {
    for version in [Version::V1, Version::V2] {
        let setup = Setup::new().text("pricing", "terms_max_age", "1s").text(
            "pricing",
            "quote_loss_limit",
            "$0.0001",
        );
        let stage = setup.start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let request = Request::run("1");
            let payment = client.sign(&request, &payer, version).await;
            stage.sandbox().faults.set_price(Service::Merit, 20_000);
            // Terms are asked for again once they are a second old.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            let before = stage.movements();
            let answer = client.send(&request.clone().paid(&payment)).await;
            answer.expect(402, "quote_withdrawn", Some("no"), Some("new_payment"));
            assert_eq!(answer.json()["accepts"][0]["maxAmountRequired"], "672", "a price that holds");
            assert_eq!(stage.movements(), before);
            // Its client pays anew, and is charged once, though the price falls and a copy of the first arrives.
            let again = payer.pay(&answer.offer(version));
            let answer = client.send(&request.clone().paid(&again)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            stage.sandbox().faults.set_price(Service::Merit, 10_000);
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            let answer = client.send(&request.clone().paid(&payment)).await;
            answer.expect(402, "quote_withdrawn", Some("no"), Some("new_payment"));
        });
        assert_eq!(stage.balance(payer.address()), 100_000_000 - 672);
    }
}

#[test]
fn a_small_rise_is_borne() {
    let setup = Setup::new().text("pricing", "terms_max_age", "1s");
    let stage = setup.start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("1");
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        stage.sandbox().faults.set_price(Service::Merit, 20_000);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let answer = client.send(&paid).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(stage.balance(payer.address()), 100_000_000 - 336);
        // But not for long.
        eventually("the new price", async || {
            let answer = client.challenge(&request).await.json();
            (answer["accepts"][0]["maxAmountRequired"] == "672").then_some(())
        })
        .await;
    });
}

#[test]
fn a_cache_that_fails_costs_nobody() {
    for fault in [Fault::Status(500), Fault::Garbage, Fault::Drop] {
        let stage = Setup::new().start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let request = Request::json("/store", &json!({ "data": "some text", "options": { "ttl": 60 } }));
            let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
            let before = stage.movements();
            stage.sandbox().faults.add(Service::XCache, Rule::always(fault));
            let answer = client.send(&paid).await;
            answer.expect(502, "provider_failed", Some("no"), Some("same_payment"));
            assert_eq!(stage.movements(), before, "{fault:?}");
            stage.sandbox().faults.clear(Service::XCache);
            let answer = client.send(&paid).await;
            assert_eq!(answer.status, 200, "{fault:?}: {answer:?}");
        });
    }
}

/// The state of the job that an answer is about.
async fn state(client: &Client, answer: &Answer) -> String {
    job(client, answer).await["state"].as_str().unwrap().to_owned()
}

/// The job that an answer is about.
async fn job(client: &Client, answer: &Answer) -> Value {
    let id = answer.json()["jobId"].as_str().expect("no job").to_owned();
    client.send(&Request::get(&format!("/job/{id}"))).await.json()
}
