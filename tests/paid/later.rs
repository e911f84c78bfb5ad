//! `Prefer: respond-async` and `wait`: the answer comes later, to whom it belongs, and nobody pays twice.

use std::time::{Duration, Instant};

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use serde_json::json;

use crate::client::{Answer, Client, HOST, Request};
use crate::once::same;
use crate::payer::Payer;
use crate::rig::Setup;
use crate::sold::ran;

/// The next request there takes until it is let go.
fn held(path: &str) -> Rule {
    Rule::next(1, Fault::Held).at(path)
}

/// The job's URL, of an answer that says no more than that there is one.
fn accepted(answer: &Answer, applied: &str, charged: &str) -> String {
    assert_eq!(answer.status, 202, "{answer:?}");
    let body = answer.json();
    let url = body["url"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("http://{HOST}/jobs/{}", body["jobId"].as_str().unwrap()));
    assert_eq!(
        body,
        json!({
            "jobId": body["jobId"], "status": "running", "charged": charged, "retry": "same_payment",
            "url": url, "events": format!("{url}/events"),
        })
    );
    for (name, value) in [
        ("location", url.as_str()),
        ("content-location", &url),
        ("preference-applied", applied),
        ("cache-control", "private, no-store"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(answer.field(name), Some(value), "{name}");
    }
    assert!(answer.field("payment-response").is_none() && !answer.is_challenge());
    url.strip_prefix(&format!("http://{HOST}")).unwrap().to_owned()
}

async fn done(client: &Client, url: &str) -> Answer {
    client.send(&Request::get(&format!("{url}?wait=30"))).await
}

#[test]
fn a_client_that_does_not_wait_is_told_where_the_answer_will_be() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let before = (stage.sales(), stage.purchases(Service::Merit));
            let request = Request::run("print('hidden')");
            let payment = client.sign(&request, &payer, version).await;
            let paid = request.clone().paid(&payment);
            stage.sandbox().faults.add(Service::Facilitator, held("/verify"));
            // Whoever waits for it waits in vain.
            let answer = client.send(&paid.clone().header("prefer", "respond-async")).await;
            let url = accepted(&answer, "respond-async", "no");
            assert_eq!((stage.sales(), stage.purchases(Service::Merit)), before);
            // Sent again it is told the same, and still nothing happens twice.
            let again = client.send(&paid.clone().header("prefer", "respond-async")).await;
            assert_eq!(again.json(), answer.json());

            stage.sandbox().faults.let_go(Service::Facilitator);
            let done = done(&client, &url).await;
            let job = done.json();
            assert_eq!(
                (done.status, &job["status"], &job["charged"]),
                (200, &json!("completed"), &json!("yes"))
            );
            assert!(job["payment"]["transaction"].is_string());
            assert!(!job.to_string().contains("hidden"), "an id may be shared, the result is the payer's");

            // With the quote that only the payer was shown, the result; version 1 shows nothing that is secret.
            let (name, value) = payment.header();
            let shown = client.send(&Request::get(&url).header(name, &value)).await;
            assert_eq!(shown.status, 200);
            match version {
                Version::V1 => assert_eq!(shown.json(), job),
                Version::V2 => {
                    ran(&shown.json(), "hidden");
                    assert_eq!(shown.receipt().transaction, job["payment"]["transaction"].as_str().unwrap());
                    assert_eq!(shown.field("cache-control"), Some("private, no-store"));
                }
            }
            // The request itself, sent again, gets the answer that it would have waited for.
            let replayed = client.send(&paid).await;
            ran(&replayed.json(), "hidden");
            let at_once = client.send(&paid.clone().header("prefer", "respond-async")).await;
            assert_eq!(same(&at_once), same(&replayed));
            assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (before.0 + 1, before.1 + 1));
        }
    });
}

#[test]
fn a_result_is_not_for_who_shows_another_payment() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("print('hidden')");
        let payment = client.sign(&request, &payer, Version::V2).await;
        let answer = client.send(&request.clone().paid(&payment)).await;
        let url = format!("/jobs/{}", answer.json()["jobId"].as_str().unwrap());
        let other = client.challenge(&request).await.offer(Version::V2);
        let by_other_quote = payer.pay(&other).document["accepted"].clone();
        let others = [
            payment.as_v1(),
            payment.with("/accepted", by_other_quote),
            payment.with("/payload/authorization/nonce", format!("0x{}", "ab".repeat(32))),
            payer.pay(&other),
            Payer::new().pay(&other),
        ];
        for other in others {
            let (name, value) = other.header();
            let shown = client.send(&Request::get(&url).header(name, &value)).await;
            assert_eq!((shown.status, &shown.json()["status"]), (200, &json!("completed")));
            assert!(!String::from_utf8_lossy(&shown.body).contains("hidden"), "{shown:?}");
            assert!(shown.field("payment-response").is_none());
        }
        let (name, value) = payment.header();
        let shown = client.send(&Request::get(&url).header(name, &value)).await;
        assert_eq!(shown.body, answer.body);
        let junk = client.send(&Request::get(&url).header(name, "junk")).await;
        assert_eq!((junk.status, &junk.json()["status"]), (200, &json!("completed")));
        assert!(!String::from_utf8_lossy(&junk.body).contains("hidden"), "{junk:?}");
    });
}

#[test]
fn a_client_waits_as_long_as_it_says() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        // Long enough: the answer itself.
        for prefer in ["wait=60", "respond-async, wait=60"] {
            let request = Request::run("print(1)").header("prefer", prefer);
            ran(&client.buy(&request, &payer, Version::V2).await.json(), "print(1)");
        }
        let request = Request::run("print(1)").header("prefer", "wait=1");
        let payment = client.sign(&request, &payer, Version::V2).await;
        stage.sandbox().faults.add(Service::Facilitator, held("/verify"));
        let began = Instant::now();
        let answer = client.send(&request.paid(&payment)).await;
        assert!(began.elapsed() >= Duration::from_secs(1));
        let url = accepted(&answer, "wait=1", "no");
        stage.sandbox().faults.let_go(Service::Facilitator);
        assert_eq!(done(&client, &url).await.json()["status"], "completed");
    });
    assert_eq!(stage.sales(), 3);
}

#[test]
fn while_nobody_knows_it_says_so_and_is_never_a_new_price() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request =
            Request::run("print(1)").header("idempotency-key", "later").header("prefer", "respond-async");
        let payment = client.sign(&request, &payer, Version::V2).await;
        let paid = request.clone().paid(&payment);
        stage.sandbox().faults.add(Service::Facilitator, held("/settle").after());
        let answer = client.send(&paid).await;
        let url = accepted(&answer, "respond-async", "no");
        let state = crate::rig::eventually("settling", async || {
            let job = client.send(&Request::get(&url)).await.json();
            (job["state"] == "settling").then_some(job)
        })
        .await;
        assert_eq!(state["charged"], "unknown");
        accepted(&client.send(&paid).await, "respond-async", "unknown");
        // Nor without the payment.
        let unpaid = client.send(&request).await;
        unpaid.expect(503, "settlement_unknown", Some("unknown"), Some("same_payment"));
        stage.sandbox().faults.let_go(Service::Facilitator);
        assert_eq!(done(&client, &url).await.json()["charged"], "yes");
    });
    assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (1, 1));
}

#[test]
fn what_fails_later_is_told_at_the_url_and_costs_nothing() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("print(1)").header("prefer", "respond-async");
        let payment = client.sign(&request, &payer, Version::V2).await;
        stage.sandbox().faults.add(Service::Facilitator, held("/verify"));
        stage.sandbox().faults.add(Service::Merit, Rule::always(Fault::WorkFails));
        let url = accepted(&client.send(&request.clone().paid(&payment)).await, "respond-async", "no");
        stage.sandbox().faults.let_go(Service::Facilitator);
        let job = done(&client, &url).await.json();
        assert_eq!((&job["status"], &job["charged"]), (&json!("failed"), &json!("no")), "{job}");
        // What cannot be taken at all is refused at once, as ever.
        let refused = client.send(&request.paid(&payment.with("/payload/authorization/value", "1"))).await;
        assert_eq!(refused.status, 402, "{refused:?}");
    });
    assert_eq!(stage.sales(), 0);
}

#[test]
fn a_result_that_nobody_waits_for_is_kept_though_it_is_large() {
    let stage = Setup::new().text("paid", "result_max", "1KiB").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let code = format!("print('{}')", "x".repeat(2000));
        let request = Request::run(&code);
        let payment = client.sign(&request, &payer, Version::V2).await;
        stage.sandbox().faults.add(Service::Facilitator, held("/verify"));
        let paid = request.clone().paid(&payment);
        let answer = client.send(&paid.clone().header("prefer", "respond-async")).await;
        let url = accepted(&answer, "respond-async", "no");
        stage.sandbox().faults.let_go(Service::Facilitator);
        assert_eq!(done(&client, &url).await.json()["status"], "completed");
        ran(&client.send(&paid).await.json(), &code);
    });
}

#[test]
fn a_gateway_without_the_endpoint_answers_when_it_is_done() {
    let stage = Setup::new().text("paid", "jobs_path", "").start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("print(1)").header("prefer", "respond-async");
        let answer = client.buy(&request, &payer, Version::V2).await;
        assert_eq!((answer.status, answer.field("preference-applied")), (200, None));
        let path = format!("/jobs/{}", answer.json()["jobId"].as_str().unwrap());
        client.send(&Request::get(&path)).await;
        assert_eq!(stage.sandbox().requests.count(Service::App, &path), 1, "it is the app's");
    });
}

#[test]
fn a_wait_that_is_none_is_refused() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    stage.run(async {
        let nobody = uuid::Uuid::now_v7();
        for wait in ["", "soon", "-1", "1.5"] {
            let answer = client.send(&Request::get(&format!("/jobs/{nobody}?wait={wait}"))).await;
            answer.expect(400, "invalid_field", None, None);
        }
        let answer = client.send(&Request::get(&format!("/jobs/{nobody}?wait=9"))).await;
        answer.expect(404, "job_unknown_or_unpaid", None, None);
    });
}
