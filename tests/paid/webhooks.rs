//! Webhooks: told when the job is done, signed, until they are heard; and nobody inside is called.

use std::time::{Duration, Instant};

use galaksio::clock::Clock;
use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use ring::hmac;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Request};
use crate::payer::Payer;
use crate::redis_server::RedisServer;
use crate::rig::{Setup, eventually};
use crate::seller::{Reply, Seen, Seller};

const KEY: [u8; 32] = [9; 32];

fn secret() -> String {
    format!("whsec_{}", base64_simd::STANDARD.encode_to_string(KEY))
}

fn telling() -> Setup {
    Setup::new().toml_value("paid", "webhooks", "true").toml_value(
        "paid",
        "webhook_private",
        "[\"127.0.0.0/8\"]",
    )
}

/// Somebody who answers with each of these in turn, and with the last for ever.
fn receiver(statuses: &'static [u16]) -> Seller {
    Seller::start(move |_, before| {
        let status = statuses.get(before).or(statuses.last()).unwrap();
        Reply::Json(*status, json!({}))
    })
}

fn run(url: &str) -> Request {
    let escaped = url.replace(':', "%3A").replace('/', "%2F");
    Request::json(&format!("/run?webhook={escaped}"), &json!({ "code": "print('hidden')" }))
        .header("webhook-secret", &secret())
}

async fn heard(receiver: &Seller, times: usize) -> Vec<Seen> {
    eventually("a webhook", async || {
        let seen = receiver.seen();
        (seen.len() >= times).then_some(seen)
    })
    .await
}

/// What was told, if it was signed by the secret.
fn words(seen: &Seen) -> (String, Value) {
    let field = |name: &str| seen.headers.get(name).unwrap_or_else(|| panic!("no {name}: {seen:?}")).clone();
    let (id, timestamp) = (field("webhook-id"), field("webhook-timestamp"));
    let signed = [format!("{id}.{timestamp}.").as_bytes(), &seen.body].concat();
    let signature = field("webhook-signature");
    let signature = base64_simd::STANDARD.decode_to_vec(signature.strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), &signed, &signature).unwrap();
    assert_eq!(field("content-type"), "application/json");
    assert!(seen.payment.is_none());
    (id, serde_json::from_slice(&seen.body).unwrap())
}

async fn metric(admin: &Client, line: &str) -> Option<u64> {
    let text = admin.send(&Request::get("/metrics")).await;
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}

async fn counted(admin: &Client, line: &str, count: u64) {
    eventually(line, async || (metric(admin, line).await == Some(count)).then_some(())).await;
}

const HEARD: &str = r#"galaksio_webhooks_told_total{outcome="heard"}"#;
const GIVEN_UP: &str = r#"galaksio_webhooks_told_total{outcome="given_up"}"#;
const WAITING: &str = "galaksio_webhooks_waiting";

#[test]
fn a_job_that_is_done_is_told_once_and_signed() {
    let stage = telling().start();
    let gateway = stage.gateway();
    let (client, admin, payer) = (gateway.client(), Client::new(gateway.admin), Payer::new());
    let receiver = receiver(&[204]);
    stage.run(async {
        for (number, version) in [Version::V1, Version::V2].into_iter().enumerate() {
            let request = run(&receiver.url());
            let answer = client.buy(&request.header("prefer", "wait=30"), &payer, version).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let seen = heard(&receiver, number + 1).await;
            let (id, told) = words(&seen[number]);
            let job = answer.json()["jobId"].clone();
            assert_eq!(id, format!("{}-1", job.as_str().unwrap()));
            assert_eq!(told["type"], "job.completed");
            assert_eq!(told["data"]["jobId"], job);
            assert_eq!(
                (&told["data"]["status"], &told["data"]["charged"]),
                (&json!("completed"), &json!("yes"))
            );
            assert_eq!(told["data"]["payment"]["transaction"], answer.receipt().transaction);
            assert!(!told.to_string().contains("hidden"), "the result is for the payment: {told}");
        }
        // The same words are what the job's URL says.
        let (_, told) = words(&receiver.seen()[1]);
        let path = format!("/jobs/{}", told["data"]["jobId"].as_str().unwrap());
        assert_eq!(client.send(&Request::get(&path)).await.json(), told["data"]);
        counted(&admin, HEARD, 2).await;
        counted(&admin, WAITING, 0).await;
    });
    assert_eq!(receiver.seen().len(), 2);
}

#[test]
fn a_job_that_fails_is_told_too() {
    let stage = telling().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let receiver = receiver(&[200]);
    stage.run(async {
        stage.sandbox().faults.add(Service::Facilitator, Rule::always(Fault::Status(500)).at("/verify"));
        let answer = client.buy(&run(&receiver.url()), &payer, Version::V2).await;
        answer.expect(503, "facilitator_away", Some("no"), Some("same_payment"));
        let (_, told) = words(&heard(&receiver, 1).await[0]);
        assert_eq!((&told["type"], &told["data"]["charged"]), (&json!("job.failed"), &json!("no")));
        assert_eq!(told["data"]["code"], "facilitator_away");
    });
}

#[test]
fn what_is_not_heard_is_told_again_in_the_same_words_and_given_up_after_a_day() {
    let clock = Clock::manual(Clock::system().now_millis());
    let stage = telling().clock(&clock).start();
    let gateway = stage.gateway();
    let (client, admin, payer) = (gateway.client(), Client::new(gateway.admin), Payer::by(clock.clone()));
    let receiver = receiver(&[500, 302, 503]);
    stage.run(async {
        client.challenge_by(&clock, &run(&receiver.url())).await;
        let answer = client.buy(&run(&receiver.url()), &payer, Version::V2).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let first = words(&heard(&receiver, 1).await[0]);
        for (tries, pause) in
            [5, 30, 120, 600, 3_600, 4 * 3_600, 8 * 3_600, 12 * 3_600].into_iter().enumerate()
        {
            // Not before its time.
            counted(&admin, r#"galaksio_webhooks_told_total{outcome="failed"}"#, tries as u64 + 1).await;
            assert_eq!(receiver.seen().len(), tries + 1);
            clock.advance(pause * 1000);
            let seen = heard(&receiver, tries + 2).await;
            assert_eq!(words(&seen[tries + 1]), first);
            assert_ne!(
                seen[tries].headers["webhook-timestamp"],
                seen[tries + 1].headers["webhook-timestamp"]
            );
        }
        counted(&admin, GIVEN_UP, 1).await;
        counted(&admin, WAITING, 0).await;
        assert_eq!(receiver.seen().len(), 9);
    });
}

#[test]
fn what_was_not_heard_is_told_by_the_next_process() {
    let stage = telling().start();
    let first = stage.process();
    let payer = Payer::new();
    let receiver = receiver(&[500, 200]);
    stage.run(async {
        let (client, request) = (first.client(), run(&receiver.url()));
        let offered = priced(&client, &request).await;
        let paid = request.paid(&payer.pay(&offered.offer(Version::V2)));
        assert_eq!(client.send(&paid).await.status, 200);
        heard(&receiver, 1).await;
    });
    first.kill();
    let _second = stage.process();
    stage.run(async {
        // Killed at any moment, it may not have noted that it was not heard: then its try has to lapse first.
        let give_up = Instant::now() + Duration::from_secs(60);
        while receiver.seen().len() < 2 {
            assert!(Instant::now() < give_up, "nobody is told");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let seen = receiver.seen();
        assert_eq!(words(&seen[0]), words(&seen[1]));
    });
}

#[test]
fn a_job_that_a_crash_interrupts_is_told_by_who_brings_it_to_rest() {
    let stage = telling().start();
    let first = stage.process();
    let payer = Payer::new();
    let receiver = receiver(&[200]);
    let id = stage.run(async {
        let (client, request) = (first.client(), run(&receiver.url()).header("prefer", "respond-async"));
        let offered = priced(&client, &request).await;
        let stuck = Rule::next(1, Fault::Slow(Duration::from_secs(600))).at("/verify");
        stage.sandbox().faults.add(Service::Facilitator, stuck);
        let accepted = client.send(&request.paid(&payer.pay(&offered.offer(Version::V2)))).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        accepted.json()["jobId"].as_str().unwrap().to_owned()
    });
    first.kill();
    let second = stage.process();
    stage.run(async {
        let (webhook, told) = words(&heard(&receiver, 1).await[0]);
        assert_eq!(webhook, format!("{id}-1"));
        assert_eq!((&told["type"], &told["data"]["code"]), (&json!("job.failed"), &json!("interrupted")));
        assert_eq!(told["data"]["charged"], "no");
        // Who was told 202 finds the same where it was sent to.
        let job = second.client().send(&Request::get(&format!("/jobs/{id}"))).await;
        assert_eq!(job.json(), told["data"]);
    });
    assert_eq!(stage.sales(), 0);
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn of_two_gateways_one_tells() {
    let server = RedisServer::start(&[]);
    let stage = telling().redis(&server.url()).start();
    let (one, other) = (stage.process(), stage.process());
    let payer = Payer::new();
    let receiver = receiver(&[200]);
    stage.run(async {
        let request = run(&receiver.url());
        priced(&other.client(), &request).await;
        let offered = priced(&one.client(), &request).await;
        for times in 1..=3 {
            let paid = request.clone().paid(&payer.pay(&offered.offer(Version::V2)));
            assert_eq!(one.client().send(&paid).await.status, 200);
            heard(&receiver, times).await;
        }
        // Both have looked again by then.
        tokio::time::sleep(Duration::from_secs(3)).await;
    });
    assert_eq!(receiver.seen().len(), 3);
}

async fn priced(client: &Client, request: &Request) -> Answer {
    eventually("a price", async || {
        let answer = client.send(request).await;
        (answer.status == 402).then_some(answer)
    })
    .await
}

#[test]
fn a_payment_that_is_seen_on_chain_has_nobody_told() {
    let stage = telling().start();
    let gateway = stage.gateway();
    let (client, admin, payer) = (gateway.client(), Client::new(gateway.admin), Payer::new());
    let (receiver, thief) = (receiver(&[200]), receiver(&[200]));
    stage.run(async {
        let request = run(&receiver.url());
        let payment = client.sign(&request, &payer, Version::V1).await;
        assert_eq!(client.send(&request.paid(&payment)).await.status, 200);
        heard(&receiver, 1).await;
        assert_eq!(client.send(&run(&thief.url()).paid(&payment)).await.status, 200);
        counted(&admin, HEARD, 1).await;
        counted(&admin, WAITING, 0).await;
    });
    assert_eq!((receiver.seen().len(), thief.seen().len()), (1, 0));
}

#[test]
fn nobody_inside_is_told_and_what_would_not_be_told_is_refused_before_anybody_pays() {
    let setup = || Setup::new().toml_value("paid", "webhooks", "true");
    let with_hosts = |hosts| telling().toml_value("paid", "webhook_hosts", hosts);
    let inside = ["http://127.0.0.1:9/", "http://[::1]/", "http://169.254.169.254/x", "http://10.0.0.1/"];
    for url in inside.into_iter().chain(["ftp://example.com/", "https://a:b@example.com/", "here"]) {
        refused(setup(), &run(url), "url_refused");
    }
    refused(with_hosts("[\"*.example.com\"]"), &run("https://example.org/"), "url_refused");
    refused(Setup::new(), &run("https://example.com/"), "not_supported");
    let url = "/run?webhook=https%3A%2F%2Fexample.com";
    let code = json!({ "code": "1" });
    refused(setup(), &Request::json(url, &code), "invalid_field");
    let weak = Request::json(url, &code).header("webhook-secret", "whsec_c2hvcnQ=");
    refused(setup(), &weak, "invalid_field");
    refused(setup(), &Request::json("/run", &code).header("webhook-secret", &secret()), "invalid_field");
    let twice = Request::json("/run?webhook=a&webhook=b", &code).header("webhook-secret", &secret());
    refused(setup(), &twice, "invalid_field");
}

#[test]
fn what_was_bought_is_answered_though_its_webhook_would_not_be_taken_any_more() {
    let mut stage = telling().start();
    let gateway = stage.gateway();
    let payer = Payer::new();
    let receiver = receiver(&[200]);
    let request = run(&receiver.url());
    let (paid, first, unused) = stage.run(async {
        let client = gateway.client();
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        let first = client.send(&paid).await;
        assert_eq!(first.status, 200, "{first:?}");
        (paid, first, request.clone().paid(&client.sign(&request, &payer, Version::V2).await))
    });
    gateway.end();
    stage.change_list("paid", "webhook_hosts", &["hooks.example.com"]);
    let gateway = stage.gateway();
    stage.run(async {
        let again = gateway.client().send(&paid).await;
        assert_eq!(crate::once::same(&again), crate::once::same(&first));
        let refused = gateway.client().send(&unused).await;
        refused.expect(400, "url_refused", Some("no"), Some("never"));
    });
    assert_eq!(stage.sales(), 1);
}

#[test]
fn a_name_that_leads_inside_is_not_called() {
    // Only found out where it is connected to: it is tried, and nobody is reached.
    let stage = Setup::new().toml_value("paid", "webhooks", "true").start();
    let gateway = stage.gateway();
    let (client, admin, payer) = (gateway.client(), Client::new(gateway.admin), Payer::new());
    let receiver = receiver(&[200]);
    stage.run(async {
        let url = receiver.url().replace("127.0.0.1", "localhost");
        assert_eq!(client.buy(&run(&url), &payer, Version::V2).await.status, 200);
        counted(&admin, r#"galaksio_webhooks_told_total{outcome="failed"}"#, 1).await;
    });
    assert!(receiver.seen().is_empty());
}

fn refused(setup: Setup, request: &Request, code: &str) {
    let stage = setup.start();
    let gateway = stage.cold_gateway();
    let answer = stage.run(gateway.client().send(request));
    assert_eq!((answer.status, answer.code().as_str()), (400, code), "{}: {answer:?}", request.path);
}
