//! Providers that `[[provider]]` declares: they compete with the built-in ones, and whatever they answer, no client is
//! charged for work that was not done and nobody is paid twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Request};
use crate::payer::Payer;
use crate::rig::{Books, Setup};
use crate::seller::{PAYEE, Reply, Seller, terms};
use crate::sold::{PIN, PIN_COST, RUN, RUN_COST};

/// The sandbox's Merit Systems, as an operator would declare it.
const RUNNER: &str = r#"
[[provider]]
name = "acme"
kind = "run"
url = "$merit"
body = '{"snippet": "{text}"}'
languages = ["python"]
result = { stdout = "/logs/stdout", stderr = "/logs/stderr", execution_time = "/duration" }
"#;

/// The sandbox's OpenX402, for documents.
const PINNER: &str = r#"
[[provider]]
name = "acme-pins"
kind = "store-json"
url = "$openx402/pin/json"
body = "raw"
permanent = true
result = { cid = "/ipfsHash", url = "/pinataUrl" }
success = { at = "/success", equals = true }
"#;

/// A seller of a test's own, which sells runs in a language of its own.
fn scripted(seller: &Seller) -> String {
    format!(
        "[[provider]]\nname = \"acme\"\nkind = \"run\"\nlanguages = [\"forth\"]\nurl = \"{}\"\n\
         body = '{{\"code\": \"{{text}}\", \"id\": \"{{request_id}}\"}}'\nresult = {{ stdout = \"/out\", exit_code = \"/code\" }}\n\
         success = {{ at = \"/ok\" }}\n",
        seller.url()
    )
}

fn forth(code: &str) -> Request {
    Request::json("/run", &json!({ "code": code, "language": "forth" }))
}

fn done() -> Reply {
    Reply::Json(200, json!({"ok": true, "out": "3", "code": 0}))
}

#[test]
fn of_equals_the_first_by_name_is_sold() {
    for version in [Version::V1, Version::V2] {
        let stage = Setup::new().provider(RUNNER).start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let before = stage.books(payer.address());
            let answer = client.buy(&Request::run("print('hé \"quoted\"')"), &payer, version).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let result = &answer.json()["result"];
            assert_eq!((&result["provider"], &result["exitCode"]), (&json!("acme"), &json!(0)));
            assert!(result["stdout"].as_str().unwrap().contains("print('hé \"quoted\"')"), "{result}");
            let expected =
                Books { payer: -RUN, payee: RUN, wallet: -RUN_COST, merit: RUN_COST, ..Books::default() };
            assert_eq!(stage.books(payer.address()).since(before), expected);
        });
    }
}

#[test]
fn a_document_is_pinned_as_it_was_spelled() {
    let stage = Setup::new().provider(PINNER).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let before = stage.books(payer.address());
        let body = json!({ "data": { "a": [1, "\"}"] }, "options": { "permanent": true } });
        let answer = client.buy(&Request::json("/store", &body), &payer, Version::V2).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let result = &answer.json()["result"];
        assert_eq!((&result["provider"], &result["success"]), (&json!("acme-pins"), &json!(true)));
        assert_eq!(result["cid"], result["ipfsHash"]);
        assert!(result["url"].as_str().unwrap().ends_with(result["cid"].as_str().unwrap()), "{result}");
        let expected =
            Books { payer: -PIN, payee: PIN, wallet: -PIN_COST, openx402: PIN_COST, ..Books::default() };
        assert_eq!(stage.books(payer.address()).since(before), expected);
    });
}

#[test]
fn the_cheaper_one_is_sold() {
    for (price, provider) in [(279, "acme"), (281, "merit-systems")] {
        let seller = Seller::start(move |seen, _| match seen.payment {
            Some(_) => done(),
            None => Reply::Json(402, terms(price, PAYEE)),
        });
        let stage = Setup::new().provider(&scripted(&seller).replace("forth", "python")).start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let answer = client.buy(&Request::run("1"), &payer, Version::V2).await;
            assert_eq!(answer.json()["result"]["provider"], provider, "{answer:?}");
        });
        assert_eq!(seller.payments(), usize::from(provider == "acme"));
    }
}

#[test]
fn a_payee_that_is_not_the_pinned_one_sells_nothing() {
    let stage = Setup::new().provider(&format!("{RUNNER}pay_to = \"{PAYEE}\"\n")).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let answer = client.buy(&Request::run("1"), &payer, Version::V1).await;
        assert_eq!(answer.json()["result"]["provider"], "merit-systems", "{answer:?}");
    });
}

/// What it answers once it was paid: the client is not charged, and the same payment changes nothing any more.
#[test]
fn a_bad_answer_after_the_payment_holds_the_job() {
    let answers: [fn() -> Reply; 7] = [
        || Reply::Json(200, json!("text")),
        || Reply::Json(200, json!({"ok": true, "code": 0})),
        || Reply::Json(200, json!({"ok": false, "out": "3", "code": 0})),
        || Reply::Json(200, json!({"ok": true, "out": "3", "code": "0"})),
        || Reply::Json(402, terms(280, PAYEE)),
        || Reply::Json(500, json!({"ok": true, "out": "3"})),
        || Reply::Drop,
    ];
    for (row, answer) in answers.into_iter().enumerate() {
        let seller = Seller::start(move |seen, _| match seen.payment {
            Some(_) => answer(),
            None => Reply::Json(402, terms(280, PAYEE)),
        });
        let stage = Setup::new().provider(&scripted(&seller)).start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let payment = client.sign(&forth("1 2 + ."), &payer, Version::V2).await;
            let paid = forth("1 2 + .").paid(&payment);
            let before = stage.movements();
            for _ in 0..2 {
                let answer = client.send(&paid).await;
                answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
                assert_eq!(state(&client, &answer).await, "held", "row {row}");
            }
            assert_eq!(stage.movements(), before, "row {row}");
        });
        assert_eq!(seller.payments(), 1, "row {row}: paid once, whatever it says");
    }
}

/// It wants something else than it was quoted for: nothing is signed.
#[test]
fn other_terms_than_quoted_are_not_paid() {
    let change = |member: &'static str, value: &'static str| {
        move || {
            let mut terms = terms(280, PAYEE);
            terms["accepts"][0][member] = value.into();
            Reply::Json(402, terms)
        }
    };
    let other = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F";
    let answers: [Box<dyn Fn() -> Reply + Send + Sync>; 6] = [
        Box::new(change("payTo", other)),
        Box::new(change("asset", other)),
        Box::new(change("network", "base")),
        Box::new(change("maxAmountRequired", "281")),
        Box::new(|| Reply::Json(200, json!({"ok": true, "out": "free"}))),
        Box::new(|| Reply::Drop),
    ];
    for (row, answer) in answers.into_iter().enumerate() {
        let changed = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&changed);
        let seller = Seller::start(move |_, _| match told.load(Ordering::SeqCst) {
            0 => Reply::Json(402, terms(280, PAYEE)),
            _ => answer(),
        });
        let stage = Setup::new().provider(&scripted(&seller)).start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let payment = client.sign(&forth("1"), &payer, Version::V2).await;
            changed.store(1, Ordering::SeqCst);
            let before = stage.movements();
            let answer = client.send(&forth("1").paid(&payment)).await;
            answer.expect(502, "provider_failed", Some("no"), Some("same_payment"));
            assert_eq!(
                (state(&client, &answer).await.as_str(), seller.payments()),
                ("voided", 0),
                "row {row}"
            );
            assert_eq!(stage.movements(), before);
            // The same payment buys it once the terms are what they were.
            changed.store(0, Ordering::SeqCst);
            let _ = client.send(&forth("1").paid(&payment)).await;
            assert_eq!(seller.payments(), 1, "row {row}");
        });
    }
}

#[test]
fn it_takes_the_money_and_fails() {
    for fault in [Fault::Status(500), Fault::Garbage, Fault::Drop, Fault::Truncate] {
        let stage = Setup::new().provider(PINNER).start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let body = json!({ "data": { "a": 1 }, "options": { "permanent": true } });
            let request = Request::json("/store", &body);
            let paid = request.clone().paid(&client.sign(&request, &payer, Version::V1).await);
            stage.sandbox().faults.add(Service::OpenX402, Rule::always(fault).paid().after());
            for _ in 0..2 {
                let answer = client.send(&paid).await;
                answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
                assert_eq!(state(&client, &answer).await, "held", "{fault:?}");
            }
        });
        assert_eq!((stage.purchases(Service::OpenX402), stage.sales()), (1, 0), "{fault:?}");
    }
}

/// The identical payment, so that what was settled the first time is not settled again.
#[test]
fn an_idempotent_one_is_asked_again_when_its_answer_is_lost() {
    let lost = AtomicUsize::new(1);
    let seller = Seller::start(move |seen, _| match seen.payment {
        Some(_) if lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() => {
            Reply::Drop
        }
        Some(_) => done(),
        None => Reply::Json(402, terms(280, PAYEE)),
    });
    let stage = Setup::new().provider(&format!("{}resume = \"idempotent\"\n", scripted(&seller))).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let answer = client.buy(&forth("1"), &payer, Version::V2).await;
        assert_eq!((answer.status, &answer.json()["result"]["stdout"]), (200, &json!("3")), "{answer:?}");
    });
    let paid: Vec<_> = seller.seen().into_iter().filter(|seen| seen.payment.is_some()).collect();
    assert_eq!(paid.len(), 2);
    assert!(paid[0].payment == paid[1].payment && paid[0].body == paid[1].body);
    assert_eq!(stage.sales(), 1);
}

/// The state of the job that an answer is about.
async fn state(client: &Client, answer: &Answer) -> String {
    let id = answer.json()["jobId"].as_str().expect("no job").to_owned();
    let job: Value = client.send(&Request::get(&format!("/job/{id}"))).await.json();
    job["state"].as_str().unwrap().to_owned()
}
