//! Routes of the app that have a price: the app's word decides whether it is charged for.

use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::{Receipt, Version};
use http::Method;
use http_body_util::BodyExt;

use crate::client::{Client, Request};
use crate::front::Front;
use crate::once::same;
use crate::payer::Payer;
use crate::rig::{Setup, Stage};

const ROUTES: &str = r#"
[[routes]]
path = "/status/*"
methods = ["GET"]
price = "$0.004"
[[routes]]
path = "/premium/*"
methods = ["GET"]
price = "$0.001"
[[routes]]
path = "/events"
methods = ["GET"]
price = "$0.003"
[[routes]]
path = "/large"
methods = ["GET"]
price = "$0.006"
[[routes]]
path = "/echo"
methods = ["POST"]
price = "$0.002"
[[routes]]
path = "/slow"
methods = ["GET"]
price = "$0.005"
"#;

fn setup() -> Setup {
    Setup::new().routes(ROUTES).text("paid", "status_path", "/state").text("app", "response_timeout", "5s")
}

#[test]
fn what_the_app_calls_an_error_is_passed_on_and_not_charged() {
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        for status in [400, 404, 500, 503] {
            for version in [Version::V1, Version::V2] {
                let path = format!("/status/{status}");
                let request = Request::get(&path);
                let paid = request.clone().paid(&client.sign(&request, &payer, version).await);
                let answer = client.send(&paid).await;
                assert_eq!(answer.status, status);
                assert_eq!(answer.json(), serde_json::json!({ "status": status }), "the app's own words");
                assert_eq!(Receipt::from_headers(&answer.headers), None);
                // It may do better the next time.
                assert_eq!(same(&client.send(&paid).await), same(&answer));
                assert_eq!(stage.sandbox().requests.count(Service::App, &path) % 2, 0);
            }
        }
        // Its 402 would be taken for ours.
        let request = Request::get("/status/402");
        let answer = client.buy(&request, &payer, Version::V2).await;
        answer.expect(502, "app_failed", Some("no"), Some("same_payment"));
        assert!(!answer.is_challenge());
        assert_eq!(stage.movements(), 0);
        let request = Request::get("/status/204");
        let answer = client.buy(&request, &payer, Version::V2).await;
        assert_eq!((answer.status, answer.receipt().success), (204, true));
    });
    assert_eq!(stage.sales(), 1);
}

#[test]
fn an_app_that_recovers_is_charged_for_once() {
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::get("/premium/report");
        for (version, fault, status, code) in [
            (Version::V1, Fault::Drop, 502, "app_unreachable"),
            (Version::V2, Fault::Drop, 502, "app_unreachable"),
            (Version::V2, Fault::Slow(Duration::from_secs(600)), 504, "app_timeout"),
        ] {
            stage.sandbox().faults.add(Service::App, Rule::always(fault));
            let before = stage.movements();
            let paid = request.clone().paid(&client.sign(&request, &payer, version).await);
            let answer = client.send(&paid).await;
            answer.expect(status, code, Some("no"), Some("same_payment"));
            assert_eq!(stage.movements(), before);
            stage.sandbox().faults.clear(Service::App);
            let answer = client.send(&paid).await;
            assert_eq!(answer.json()["title"], "Monthly report", "{answer:?}");
            assert_eq!(stage.movements(), before + 1);
        }
    });
}

#[test]
fn an_app_that_is_not_there() {
    let nobody = Front::new();
    let stage = setup().text("app", "url", &nobody.url()).start();
    let gateway = stage.cold_gateway();
    stage.run(async {
        let answer = gateway.client().buy(&Request::get("/premium/report"), &Payer::new(), Version::V2).await;
        answer.expect(502, "app_unreachable", Some("no"), Some("same_payment"));
    });
    assert_eq!(stage.movements(), 0);
}

#[test]
fn an_answer_that_breaks_off_before_it_is_whole_is_not_charged() {
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    stage.sandbox().faults.add(Service::App, Rule::always(Fault::Truncate));
    stage.run(async {
        let answer = gateway.client().buy(&Request::get("/premium/report"), &Payer::new(), Version::V2).await;
        answer.expect(502, "app_failed", Some("no"), Some("same_payment"));
    });
    assert_eq!(stage.movements(), 0);
}

#[test]
fn events_are_passed_on_as_they_come() {
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let before = stage.sales();
            // The second event comes a minute after the first: nobody here waits for it.
            let request = Request::get("/events?count=2&ms=60000");
            let paid = request.clone().paid(&client.sign(&request, &payer, version).await);
            let mut answer = client.open(&paid).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["content-type"], "text/event-stream");
            assert_eq!(stage.sales(), before + 1, "settled before its first byte");
            let receipt = Receipt::from_headers(answer.headers()).unwrap();
            assert!(receipt.success);
            let event = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(event, "id: 0\ndata: {\"number\":0}\n\n");
            drop(answer);
            // It was not kept, but it was paid for. By version 1 there is nothing but the state to ask for.
            let again = client.send(&paid).await;
            match version {
                Version::V1 => {
                    assert_eq!((again.status, &again.json()["status"]), (200, &"completed".into()))
                }
                Version::V2 => again.expect(410, "not_kept", Some("yes"), Some("never")),
            }
            assert_eq!(again.receipt(), receipt);
            assert_eq!(stage.sales(), before + 1);
        }
    });
}

#[test]
fn a_large_answer_is_streamed_and_not_kept() {
    let stage = setup().text("paid", "result_file_max", "").start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let length = (1 << 20) + 1;
    stage.run(async {
        let request = Request::get(&format!("/large?bytes={length}"));
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        let answer = client.send(&paid).await;
        assert_eq!((answer.status, answer.body.len()), (200, length));
        assert_eq!(answer.field("content-length"), Some(length.to_string().as_str()));
        client.send(&paid).await.expect(410, "not_kept", Some("yes"), Some("never"));
        // One byte less is kept.
        let request = Request::get(&format!("/large?bytes={}", 1 << 20));
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        let answer = client.send(&paid).await;
        assert_eq!(answer.body.len(), 1 << 20);
        assert_eq!(same(&client.send(&paid).await), same(&answer));
    });
    assert_eq!(stage.sales(), 2);
}

#[test]
fn the_query_and_the_body_are_what_was_paid_for() {
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::get("/premium/report?month=1");
        let payment = client.sign(&request, &payer, Version::V2).await;
        assert_eq!(client.send(&request.paid(&payment)).await.status, 200);
        let other = Request::get("/premium/report?month=2").paid(&payment);
        client.send(&other).await.expect(409, "payment_reused", Some("yes"), Some("new_payment"));

        let request = Request::post("/echo", "text/plain", "one");
        let payment = client.sign(&request, &payer, Version::V1).await;
        assert_eq!(client.send(&request.paid(&payment)).await.body, "one");
        let other = Request::post("/echo", "text/plain", "two").paid(&payment);
        client.send(&other).await.expect(409, "payment_reused", Some("yes"), Some("new_payment"));
    });
    assert_eq!(stage.sales(), 2);
}

#[test]
fn methods_that_are_not_sold_are_free() {
    let stage = setup().start();
    let gateway = stage.cold_gateway();
    stage.run(async {
        let ask =
            async |method: Method, path| gateway.client().send(&Request::new(method, path)).await.status;
        assert_eq!(ask(Method::HEAD, "/premium/report").await, 402, "a HEAD is a GET without its content");
        assert_eq!(ask(Method::DELETE, "/premium/report").await, 200);
        assert_eq!(ask(Method::GET, "/echo").await, 404, "the app's own");
        assert_ne!(ask(Method::OPTIONS, "/premium/report").await, 402);
    });
}

#[test]
fn a_client_that_goes_away_can_come_back() {
    let stage: Stage = setup().start();
    let gateway = stage.cold_gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::get("/slow?ms=400");
        let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        let going = tokio::spawn({
            let (client, paid) = (Client::clone(&client), paid.clone());
            async move { client.open(&paid).await.into_body().collect().await }
        });
        crate::rig::eventually("the app is working", async || {
            (stage.sandbox().requests.count(Service::App, "/slow") > 0).then_some(())
        })
        .await;
        going.abort();
        assert!(going.await.unwrap_err().is_cancelled());
        let answer = client.send(&paid).await;
        assert_eq!((answer.status, answer.body.as_ref()), (200, b"At last.\n".as_slice()));
        assert_eq!(stage.sandbox().requests.count(Service::App, "/slow"), 1);
    });
    assert_eq!(stage.sales(), 1);
}
