//! A provider that fails before it is paid is replaced by the next one that the client's payment covers; one that fails
//! after it is not, and one that fails again and again is left alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::x402::Version;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Request};
use crate::payer::Payer;
use crate::rig::Setup;
use crate::seller::{PAYEE, Reply, Seller, terms};
use crate::sold::RUN_COST;

/// What a run at 279 costs a client. Merit Systems, at 280, is within it.
const PRICE: i128 = 335;

/// A cheaper runner than Merit Systems, which goes away when told to.
fn cheaper() -> (Seller, Arc<AtomicBool>) {
    cheaper_at(279)
}

fn cheaper_at(price: u64) -> (Seller, Arc<AtomicBool>) {
    let away = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&away);
    let seller = Seller::start(move |_, _| match told.load(Ordering::SeqCst) {
        false => Reply::Json(402, terms(price, PAYEE)),
        true => Reply::Drop,
    });
    (seller, away)
}

fn declared(seller: &Seller) -> String {
    format!(
        "[[provider]]\nname = \"acme\"\nkind = \"run\"\nlanguages = [\"python\"]\nurl = \"{}\"\nbody = '{{\"code\": \"{{text}}\"}}'\nresult = {{ stdout = \"/out\" }}\n",
        seller.url()
    )
}

#[test]
fn who_goes_away_before_the_work_is_replaced() {
    // Found out when the work is ordered, or when the payment comes and the terms are too old.
    for max_age in ["60s", "1s"] {
        for version in [Version::V1, Version::V2] {
            let (seller, away) = cheaper();
            let setup = Setup::new().text("pricing", "terms_max_age", max_age).provider(&declared(&seller));
            let stage = setup.start();
            let gateway = stage.gateway();
            let (client, payer) = (gateway.client(), Payer::new());
            stage.run(async {
                let request = Request::run("1");
                let payment = client.sign(&request, &payer, version).await;
                away.store(true, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1_100)).await;
                let before = stage.books(payer.address());
                let answer = client.send(&request.clone().paid(&payment)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.json()["result"]["provider"], "merit-systems");
                let job = job(&client, &answer).await;
                assert_eq!((&job["provider"], &job["attempt"]), (&json!("merit-systems"), &json!(1)));
                assert_eq!(job["passedOver"], json!([{"provider": "acme", "fault": "unreachable"}]));
                // The client pays what was shown, and nothing but the work that was done is bought.
                let after = stage.books(payer.address()).since(before);
                assert_eq!((after.payer, after.wallet, after.merit), (-PRICE, -RUN_COST, RUN_COST));
                // The same payment again: the same answer.
                let again = client.send(&request.paid(&payment)).await;
                assert_eq!((again.status, again.body), (200, answer.body));
            });
            assert_eq!((seller.payments(), stage.sales(), stage.purchases(Service::Merit)), (0, 1, 1));
        }
    }
}

#[test]
fn nobody_dearer_than_the_payment_does_it_instead() {
    // Merit Systems costs 280, and is to leave 56 of 335.
    not_replaced(cheaper_at(100), Setup::new());
    not_replaced(cheaper_at(279), Setup::new().text("limits", "profit_floor", "$0.000056"));
}

fn not_replaced((seller, away): (Seller, Arc<AtomicBool>), setup: Setup) {
    let stage = setup.provider(&declared(&seller)).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("1");
        let payment = client.sign(&request, &payer, Version::V2).await;
        away.store(true, Ordering::SeqCst);
        let before = stage.movements();
        let answer = client.send(&request.paid(&payment)).await;
        answer.expect(502, "provider_failed", Some("no"), Some("same_payment"));
        assert_eq!(stage.movements(), before);
    });
}

#[test]
fn who_takes_the_money_and_fails_is_not_replaced_but_left_alone() {
    let seller = Seller::start(|seen, _| match seen.payment {
        None => Reply::Json(402, terms(279, PAYEE)),
        Some(_) => Reply::Json(500, json!({})),
    });
    let stage = Setup::new().provider(&declared(&seller)).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        for _ in 0..3 {
            let answer = client.buy(&Request::run("1"), &payer, Version::V2).await;
            answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
            let job = job(&client, &answer).await;
            assert_eq!((&job["state"], &job["passedOver"]), (&json!("held"), &Value::Null));
        }
        // Its price is not shown any more, and nothing is ordered of it.
        let answer = client.buy(&Request::run("1"), &payer, Version::V2).await;
        assert_eq!(answer.json()["result"]["provider"], "merit-systems", "{answer:?}");
    });
    assert_eq!((seller.payments(), stage.sales()), (3, 1));
}

/// The hourly budget for the cheapest is spent: what it was to do another does, and then the other's price is shown.
#[test]
fn who_may_not_be_paid_any_more_is_not_quoted() {
    let seller = Seller::start(|seen, _| match seen.payment {
        None => Reply::Json(402, terms(279, PAYEE)),
        Some(_) => Reply::Json(200, json!({ "out": "1" })),
    });
    let stage = Setup::new()
        .provider(&declared(&seller))
        .text("wallet", "max_payment", "$0.01")
        .text("limits", "provider_spend_per_hour", "$0.01")
        .start();
    // There is no stock: a cache costs more than that.
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let quoted = async |provider: &'static str| {
        crate::rig::eventually(provider, async || {
            let challenge = client.send(&Request::run("1")).await;
            (challenge.status == 402 && challenge.json()["provider"] == provider).then_some(())
        })
        .await;
    };
    stage.run(async {
        quoted("acme").await;
        let mut sold = 0;
        loop {
            let answer = client.buy(&Request::run(&sold.to_string()), &payer, Version::V2).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            if answer.json()["result"]["provider"] == "merit-systems" {
                break;
            }
            sold += 1;
            assert!(sold < 100, "there is no limit");
        }
        assert_eq!(seller.payments(), sold);
        quoted("merit-systems").await;
        let answer = client.buy(&Request::run("2"), &payer, Version::V2).await;
        let job = job(&client, &answer).await;
        assert_eq!((&job["provider"], &job["passedOver"]), (&json!("merit-systems"), &Value::Null), "{job}");
    });
}

/// The job that an answer is about.
async fn job(client: &Client, answer: &Answer) -> Value {
    let id = answer.json()["jobId"].as_str().expect("no job").to_owned();
    client.send(&Request::get(&format!("/job/{id}"))).await.json()
}
