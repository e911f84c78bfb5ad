//! One payment buys one piece of work, however often it is presented at once.

use std::collections::HashSet;

use futures_util::future::join_all;
use galaksio::sandbox::Service;
use galaksio::x402::Version;
use serde_json::json;

use crate::client::{Answer, Client, Request};
use crate::payer::Payer;
use crate::redis_server::RedisServer;
use crate::rig::{Setup, Stage};

#[test]
fn ten_times_at_once() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    ten_times(&stage, &[gateway.client()]);
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn ten_times_at_once_across_two_processes_on_one_redis() {
    let server = RedisServer::start(&[]);
    let stage = Setup::new().redis(&server.url()).start();
    let (one, other) = (stage.process(), stage.process());
    ten_times(&stage, &[one.client(), other.client()]);
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn a_quote_of_one_process_is_honoured_by_the_other() {
    let server = RedisServer::start(&[]);
    let stage = Setup::new().redis(&server.url()).start();
    let (one, other) = (stage.process(), stage.process());
    let payer = Payer::new();
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let request = Request::run("1");
            let payment = one.client().sign(&request, &payer, version).await;
            let paid = request.paid(&payment);
            let answer = other.client().send(&paid).await;
            assert_eq!(answer.status, 200, "{version:?}: {answer:?}");
            assert_eq!(same(&answer), same(&one.client().send(&paid).await));
        }
        // What one stored, the other reads.
        let store = Request::json("/store", &json!({ "data": "some text", "options": { "ttl": 60 } }));
        let answer = one.client().buy(&store, &payer, Version::V2).await;
        let url = answer.json()["result"]["url"].as_str().unwrap().to_owned();
        let path = url.strip_prefix("http://shop.example").unwrap();
        assert_eq!(other.client().send(&Request::get(path)).await.body, "some text");
    });
    // One stock for both, though both looked for it in the same moment.
    assert_eq!(stage.purchases(Service::XCache), 1);
    assert_eq!(stage.sales(), 3);
}

#[test]
fn one_payment_for_ten_things_at_once() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    for version in [Version::V1, Version::V2] {
        let answers = stage.run(async {
            let payment = client.sign(&Request::run("print(0)"), &payer, version).await;
            join_all((0..10).map(|i| {
                let (client, payment) = (client.clone(), payment.clone());
                async move { client.send(&Request::run(&format!("print({i})")).paid(&payment)).await }
            }))
            .await
        });
        let sold = answers.iter().filter(|answer| answer.status == 200).count();
        let reused = answers.iter().filter(|answer| answer.code() == "payment_reused").count();
        assert_eq!((sold, reused), (1, 9), "{answers:?}");
    }
    assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (2, 2));
}

#[test]
fn one_authorization_in_both_versions_at_once() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let answers = stage.run(async {
        let request = Request::run("print(1)");
        let v2 = client.sign(&request, &payer, Version::V2).await;
        let v1 = v2.as_v1();
        join_all((0..10).map(|i| {
            let paid = request.clone().paid(if i % 2 == 0 { &v1 } else { &v2 });
            let client = client.clone();
            async move { client.send(&paid).await }
        }))
        .await
    });
    let receipts: HashSet<String> = answers.iter().map(|answer| answer.receipt().transaction).collect();
    assert_eq!(receipts.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (1, 1));
}

/// HTTP/2 has no `Host`, but an authority: it is the same shop.
#[test]
fn one_payment_over_http_1_and_2() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let request = Request::run("print(1)");
            // So that the price is known.
            client.challenge(&request).await;
            let offered = client.send_http2(&request).await;
            assert_eq!(offered.status, 402);
            assert_eq!(offered.offer(Version::V1).accepts[0].amount.to_string(), "336");
            assert_eq!(offered.json()["accepts"][0]["resource"], "http://shop.example/run");
            let paid = request.paid(&payer.pay(&offered.offer(version)));
            let answer = client.send_http2(&paid).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let again = client.send(&paid).await;
            assert_eq!((again.status, &again.body), (200, &answer.body), "{again:?}");
        }
    });
    assert_eq!(stage.sales(), 2);
}

#[test]
fn two_payments_of_one_quote_are_two_jobs() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    stage.run(async {
        let request = Request::run("print(1)");
        let offer = client.challenge(&request).await.offer(Version::V2);
        let answers = join_all((0..3).map(|_| {
            let paid = request.clone().paid(&Payer::new().pay(&offer));
            let client = client.clone();
            async move { client.send(&paid).await }
        }))
        .await;
        let jobs: HashSet<String> = answers.iter().map(|answer| answer.json()["jobId"].to_string()).collect();
        assert_eq!(jobs.len(), 3, "{answers:?}");
    });
    assert_eq!((stage.sales(), stage.purchases(Service::Merit)), (3, 3));
}

/// Each sort of work, in each version: ten presentations, one job.
fn ten_times(stage: &Stage, clients: &[Client]) {
    let payer = Payer::new();
    let document = json!({ "data": { "a": 1 }, "options": { "permanent": true } });
    let works = [
        (Request::run("print(1)"), Service::Merit, "/resource/e2b/execute"),
        (Request::post("/store?permanent=true", "image/png", vec![7; 4_000]), Service::OpenX402, "/upload"),
        (Request::json("/store", &document), Service::OpenX402, ""),
        (Request::get("/premium/report"), Service::App, "/premium/report"),
    ];
    for version in [Version::V1, Version::V2] {
        for (request, service, _) in &works {
            let before = (stage.sales(), stage.purchases(*service));
            let asked = stage.sandbox().requests.count(Service::App, "/premium/report");
            let answers = stage.run(async {
                let payment = clients[0].sign(request, &payer, version).await;
                let paid = request.clone().paid(&payment);
                join_all((0..10).map(|i| {
                    let (client, paid) = (clients[i % clients.len()].clone(), paid.clone());
                    async move { client.send(&paid).await }
                }))
                .await
            });
            let name = format!("{}, {version:?}", request.path);
            for answer in &answers {
                assert_eq!(answer.status, 200, "{name}: {answer:?}");
                assert!(answer.receipt().success);
            }
            assert_eq!(stage.sales(), before.0 + 1, "{name}: the client pays once");
            if *service == Service::App {
                let asked = stage.sandbox().requests.count(Service::App, "/premium/report") - asked;
                assert_eq!(asked, 1, "{name}: the app is asked once");
            } else {
                assert_eq!(stage.purchases(*service), before.1 + 1, "{name}: the provider is paid once");
            }
            // A payment by version 1 for a request without a body proves nothing about who presents it again.
            if request.body.is_empty() && version == Version::V1 {
                let whole =
                    answers.iter().filter(|answer| answer.json()["title"] == "Monthly report").count();
                assert_eq!(whole, 1, "{name}");
                let receipts: HashSet<String> = answers.iter().map(|a| a.receipt().transaction).collect();
                assert_eq!(receipts.len(), 1, "{name}");
            } else {
                for answer in &answers {
                    assert_eq!(same(answer), same(&answers[0]), "{name}");
                }
            }
        }
    }
}

/// What is the same in every answer to one payment.
pub(crate) fn same(answer: &Answer) -> (u16, Vec<(String, String)>, bytes::Bytes) {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        // When it was sent is another matter.
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (answer.status, headers, answer.body.clone())
}
