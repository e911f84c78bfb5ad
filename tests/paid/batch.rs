//! Several files in one form: one price, one payment, one job, an outcome for each, and money back for what was not stored.

use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use serde_json::{Value, json};

use crate::bodies::FORM;
use crate::client::{Answer, Client, Request};
use crate::guards::{dollars, ledger};
use crate::payer::Payer;
use crate::rig::{Books, Setup, Stage, eventually};
use crate::sold::{PIN, PIN_COST, SET, read_back, receipt_is_true};

/// Three that are told apart by their bytes; the second is over a buffer's length.
fn files() -> [(&'static str, Vec<u8>); 3] {
    let bytes = |length: usize, seed: u8| (0..length).map(|at| (at * 31 % 253) as u8 ^ seed).collect();
    [("a.png", bytes(1_000, 1)), ("b.json", bytes(200_000, 2)), ("ü.txt", bytes(1, 3))]
}

pub(crate) fn form(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, content) in files {
        let head =
            format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
        form.extend_from_slice(head.as_bytes());
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(b"--b--\r\n");
    form
}

fn store(query: &str, files: &[(&str, Vec<u8>)]) -> Request {
    Request::post(&format!("/store?{query}"), FORM, form(files))
}

fn pinning() -> Request {
    store("files=3&permanent=true", &files())
}

/// The outcome of each file: the code of its failure, or nothing.
fn codes(answer: &Answer) -> Vec<Value> {
    let body = answer.json();
    let results = body["result"]["results"].as_array().unwrap();
    let code = |result: &Value| {
        assert_eq!(result["success"].as_bool(), Some(result["code"].is_null()), "{result}");
        assert_eq!(result["cid"].is_string(), result["code"].is_null(), "{result}");
        result["code"].clone()
    };
    results.iter().map(code).collect()
}

/// What an IPFS gateway shows of a file.
async fn pinned(stage: &Stage, result: &Value) -> Answer {
    let base = &stage.sandbox().urls.openx402;
    let path = result["ipfsUrl"].as_str().unwrap().strip_prefix(base.as_str()).unwrap();
    let ipfs = Client::new(base.strip_prefix("http://").unwrap().parse().unwrap());
    ipfs.send(&Request::get(path)).await
}

async fn job(client: &Client, answer: &Answer) -> Value {
    let id = answer.json()["jobId"].as_str().expect("no job").to_owned();
    client.send(&Request::get(&format!("/job/{id}"))).await.json()
}

/// What is said of a job once it has come to this state.
async fn job_in(client: &Client, answer: &Answer, state: &str) -> Value {
    eventually("the job's state", async || {
        let job = job(client, answer).await;
        (job["state"] == state).then_some(job)
    })
    .await
}

#[test]
fn several_files_are_one_payment() {
    for version in [Version::V1, Version::V2] {
        let stage = Setup::new().start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        let before = stage.books(payer.address());
        stage.run(async {
            let request = pinning();
            let challenge = client.challenge(&request).await;
            assert_eq!(challenge.json()["accepts"][0]["maxAmountRequired"], "36000");
            assert_eq!(stage.sandbox().requests.count(Service::OpenX402, "/upload"), 0);
            let payment = payer.pay(&challenge.offer(version));
            let answer = client.send(&request.clone().paid(&payment)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            receipt_is_true(&stage, &answer.receipt(), version, &payer, 3 * PIN);
            let body = answer.json();
            let result = &body["result"];
            let brief = (&result["success"], &result["files"], &result["stored"], &result["size"]);
            assert_eq!(brief, (&json!(true), &json!(3), &json!(3), &json!(201_001)));
            assert_eq!((result["priceUsd"].as_f64(), &result["refund"]), (Some(0.036), &Value::Null));
            assert_eq!(codes(&answer), [Value::Null, Value::Null, Value::Null]);
            for ((name, bytes), result) in files().iter().zip(result["results"].as_array().unwrap()) {
                assert_eq!((&result["filename"], &result["size"]), (&json!(name), &json!(bytes.len())));
                assert_eq!(result["endpoint"], "/pin", "a file is a file, whatever it is called");
                assert_eq!(pinned(&stage, result).await.body, bytes);
            }
            let job = job_in(&client, &answer, "completed").await;
            assert_eq!((&job["status"], &job["size"]), (&json!("completed"), &json!(201_001)));
            // The same payment again; and for the same files in another order, which are another request.
            let again = client.send(&request.clone().paid(&payment)).await;
            assert_eq!((again.status, &again.body), (200, &answer.body));
            let mut turned = files();
            turned.swap(0, 2);
            let other = store("files=3&permanent=true", &turned);
            client.send(&other.paid(&payment)).await.expect(
                409,
                "payment_reused",
                Some("yes"),
                Some("new_payment"),
            );
        });
        let sold = Books {
            payer: -3 * PIN,
            payee: 3 * PIN,
            wallet: -3 * PIN_COST,
            openx402: 3 * PIN_COST,
            ..Books::default()
        };
        assert_eq!(stage.books(payer.address()).since(before), sold);
        assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 3));
    }
}

#[test]
fn several_files_are_kept_for_a_time() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let before = stage.books(payer.address());
    stage.run(async {
        let answer = client.buy(&store("files=3&ttl=600", &files()), &payer, Version::V2).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        for ((_, bytes), result) in files().iter().zip(body["result"]["results"].as_array().unwrap()) {
            let path = result["url"].as_str().unwrap().strip_prefix("http://shop.example").unwrap();
            read_back(&client.send(&Request::get(path)).await, bytes);
        }
    });
    let sold = Books { payer: -3 * SET, payee: 3 * SET, ..Books::default() };
    assert_eq!(stage.books(payer.address()).since(before), sold);
}

/// Lets one request to the pins that is paid for pass, and has the next meet this.
fn second_pin(stage: &Stage, fault: Fault) {
    let faults = &stage.sandbox().faults;
    faults.add(Service::OpenX402, Rule::next(1, Fault::Slow(Duration::ZERO)).at("/pin").paid());
    faults.add(Service::OpenX402, Rule::next(1, fault).at("/pin").paid());
}

#[test]
fn what_is_not_stored_is_owed() {
    /// What goes wrong with the second file: the outcomes, and how often the provider was paid.
    type Row = (fn(&Stage), [&'static str; 3], i128);
    let rows: [Row; 4] = [
        // It is not uploaded: nobody is paid for it, and the third is stored.
        (
            |stage| {
                let faults = &stage.sandbox().faults;
                faults.add(Service::OpenX402, Rule::next(1, Fault::Slow(Duration::ZERO)).at("/upload"));
                faults.add(Service::OpenX402, Rule::next(1, Fault::Status(400)).at("/upload").after());
            },
            ["", "provider_failed", ""],
            2,
        ),
        // Its payment is out, and was not taken: no further one is made.
        (|stage| second_pin(stage, Fault::WorkFails), ["", "provider_failed", "provider_failed"], 1),
        // It was taken.
        (|stage| second_pin(stage, Fault::AskAgain), ["", "provider_failed", "provider_failed"], 2),
        // Nobody is there any more.
        (
            |stage| {
                let faults = &stage.sandbox().faults;
                faults.add(Service::OpenX402, Rule::next(1, Fault::Slow(Duration::ZERO)).at("/upload"));
                faults.add(Service::OpenX402, Rule::always(Fault::Drop).at("/upload"));
            },
            ["", "provider_failed", "provider_failed"],
            1,
        ),
    ];
    for (number, (goes_wrong, outcomes, paid)) in rows.into_iter().enumerate() {
        for version in [Version::V1, Version::V2] {
            let stage = Setup::new().start();
            let gateway = stage.gateway();
            let (client, payer) = (gateway.client(), Payer::new());
            let before = stage.books(payer.address());
            stage.run(async {
                let request = pinning();
                let payment = client.sign(&request, &payer, version).await;
                goes_wrong(&stage);
                let answer = client.send(&request.clone().paid(&payment)).await;
                assert_eq!(answer.status, 207, "row {number}: {answer:?}");
                receipt_is_true(&stage, &answer.receipt(), version, &payer, 3 * PIN);
                let expected = outcomes.map(|code| if code.is_empty() { Value::Null } else { json!(code) });
                assert_eq!(codes(&answer), expected, "row {number}: {answer:?}");
                let missing = outcomes.iter().filter(|code| !code.is_empty()).count();
                let owed = 0.012 * missing as f64;
                let result = &answer.json()["result"];
                let brief = (&result["success"], &result["files"], &result["stored"]);
                assert_eq!(brief, (&json!(false), &json!(3), &json!(3 - missing)), "row {number}");
                assert_eq!(result["refund"], json!({ "state": "due", "amountUsd": owed }), "row {number}");
                let job = job_in(&client, &answer, "refund_due").await;
                assert_eq!((&job["status"], &job["charged"]), (&json!("completed"), &Value::Null));
                assert_eq!(job["refund"], json!({ "state": "due", "amountUsd": owed }), "row {number}");
                // Whoever presents the payment again gets the same, and nothing is bought or charged again.
                stage.sandbox().faults.clear(Service::OpenX402);
                let again = client.send(&request.paid(&payment)).await;
                assert_eq!((again.status, &again.body), (207, &answer.body), "row {number}");
                assert_eq!(again.receipt(), answer.receipt());
                // In the books too: a part of the price is earned, the rest is owed, and what is not vouched for is a loss.
                let books = ledger(&gateway).await;
                assert!(books.contains("the books balance"), "row {number}: {books}");
                let (done, missing) = (3 - missing as u32, missing as u32);
                let signed = if number == 1 || number == 2 { 1 } else { 0 };
                let sum = |times: u32, of: i128| format!("{:.6}", f64::from(times) * of as f64 / 1e6);
                let says = |account: &str, sum: &str| {
                    let found: f64 = dollars(&books, account).parse().unwrap();
                    assert_eq!(format!("{found:.6}"), sum, "row {number}, {account}: {books}");
                };
                says("received", &sum(3, PIN));
                says("income", &format!("-{}", sum(done, PIN)));
                says("refunds_due", &format!("-{}", sum(missing, PIN)));
                says("provider_cost", &sum(done, PIN_COST));
                if signed > 0 {
                    says("losses", &sum(signed, PIN_COST));
                }
            });
            let sold = Books {
                payer: -3 * PIN,
                payee: 3 * PIN,
                wallet: -paid * PIN_COST,
                openx402: paid * PIN_COST,
                ..Books::default()
            };
            assert_eq!(stage.books(payer.address()).since(before), sold, "row {number}");
            assert_eq!(stage.sales(), 1, "row {number}");
            gateway.end();
            assert_eq!(stage.jobs(), [("refund_due", 1)].into(), "row {number}");
        }
    }
}

#[test]
fn nothing_stored_is_not_charged() {
    // Before anybody was paid: the same payment may try again.
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = pinning();
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        let before = stage.movements();
        // Once it has the file: refused before that, the connection that the next one takes may be closing.
        let refuses = Rule::always(Fault::Status(400)).at("/upload").after();
        stage.sandbox().faults.add(Service::OpenX402, refuses);
        let answer = client.send(&paid).await;
        answer.expect(502, "provider_failed", Some("no"), Some("same_payment"));
        assert_eq!(stage.sandbox().requests.count(Service::OpenX402, "/upload"), 3, "each was tried");
        assert_eq!(stage.movements(), before);
        stage.sandbox().faults.clear(Service::OpenX402);
        let answer = client.send(&paid).await;
        assert_eq!((answer.status, codes(&answer)), (200, vec![Value::Null; 3]));
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 3));

    // After the first was paid for: no more than that is lost.
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = pinning();
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        stage.sandbox().faults.add(Service::OpenX402, Rule::next(1, Fault::AskAgain).at("/pin").paid());
        let answer = client.send(&paid).await;
        answer.expect(502, "provider_lost", Some("no"), Some("new_payment"));
        job_in(&client, &answer, "held").await;
        client.send(&paid).await.expect(502, "provider_lost", Some("no"), Some("new_payment"));
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (0, 1));
}

#[test]
fn a_payment_is_for_as_many_files_as_it_says() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let (two, three) = (store("files=2&permanent=true", &files()[..2]), pinning());
        let one = store("permanent=true", &files()[..1]);
        // So that their prices are known.
        for request in [&one, &two, &three] {
            client.challenge(request).await;
        }
        for (version, code) in [(Version::V1, "payment_amount"), (Version::V2, "quote_invalid")] {
            for (paid_for, presented) in [(&two, &three), (&three, &two), (&one, &two), (&two, &one)] {
                let payment = client.sign(paid_for, &payer, version).await;
                let answer = client.send(&presented.clone().paid(&payment)).await;
                answer.expect(402, code, Some("no"), Some("new_payment"));
            }
        }
    });
    assert_eq!((stage.sales(), stage.movements()), (0, 0));
}

#[test]
fn what_is_not_as_announced_is_not_charged() {
    let stage = Setup::new().number("paid", "max_files", 4).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        // Before any price.
        let raw = |query: &str| Request::post(&format!("/store?{query}"), "image/png", vec![1; 10]);
        let run = Request::post("/run?files=2", FORM, form(&files()[..2]));
        for (request, status, code) in [
            (store("files=5", &files()), 400, "invalid_field"),
            (store("files=0", &files()), 400, "invalid_field"),
            (store("files=two", &files()), 400, "invalid_field"),
            (store("files=3&filename=a.png", &files()), 400, "invalid_field"),
            (store("files=3&files=3", &files()), 400, "invalid_field"),
            (raw("files=2"), 400, "invalid_field"),
            (run, 400, "invalid_field"),
        ] {
            let answer = client.send(&request).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
        }
        // By what the body turns out to be.
        let empty = [("a", vec![1]), ("b", Vec::new())];
        let long = [("a", vec![1; 10]), ("b", vec![1; 11])];
        let late = [
            form(&files()[..2]).strip_suffix(b"--b--\r\n").unwrap(),
            b"--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b--\r\n",
        ]
        .concat();
        for (request, status, code) in [
            (store("permanent=true", &files()), 400, "invalid_form"),
            (store("files=4&permanent=true", &files()), 400, "invalid_form"),
            (store("files=2&permanent=true", &files()), 400, "invalid_form"),
            (store("files=2&permanent=true", &empty), 400, "data_required"),
            (store("files=2&permanent=true&size=10", &long), 413, "too_large"),
            (Request::post("/store?files=2&permanent=true", FORM, late), 400, "invalid_form"),
        ] {
            let payment = client.sign(&request, &payer, Version::V2).await;
            let answer = client.send(&request.clone().paid(&payment)).await;
            answer.expect(status, code, Some("no"), Some("never"));
        }
    });
    assert_eq!(stage.sandbox().requests.count(Service::OpenX402, "/upload"), 0);
    assert_eq!(stage.movements(), 0);
    gateway.end();
    assert_eq!(stage.jobs(), [].into());
}

/// A provider may not become dearer than the client pays: the last payments would not be signed.
#[test]
fn no_loss_is_made_on_several_files() {
    let stage = Setup::new().text("pricing", "terms_max_age", "1s").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = pinning();
        let payment = client.sign(&request, &payer, Version::V2).await;
        stage.sandbox().faults.set_price(Service::OpenX402, 12_500);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let before = stage.movements();
        let answer = client.send(&request.clone().paid(&payment)).await;
        answer.expect(402, "quote_withdrawn", Some("no"), Some("new_payment"));
        assert_eq!(answer.json()["accepts"][0]["maxAmountRequired"], "45000");
        assert_eq!(stage.movements(), before);
    });
}
