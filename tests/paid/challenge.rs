//! The 402: both versions in one answer, the seeds' fields, the price, and who would do the work.

use galaksio::money::{Amount, client_price};
use galaksio::sandbox::Service;
use galaksio::x402::Version;
use http::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Request, decode};
use crate::payer::Payer;
use crate::rig::{PAY_TO, Setup, asset, eventually};

#[test]
fn both_versions_say_the_same() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let request = Request::run("print(1)");
    let answer = stage.run(gateway.client().challenge(&request));
    let (body, v2) = (answer.json(), required(&answer));
    let token = asset();

    assert_eq!(v2["x402Version"], 2);
    assert_eq!(v2["resource"]["url"], "http://shop.example/run");
    let entry = &v2["accepts"][0];
    assert_eq!(v2["accepts"].as_array().unwrap().len(), 1);
    assert_eq!(entry["scheme"], "exact");
    assert_eq!(entry["network"], "eip155:84532");
    assert_eq!(entry["amount"], "336");
    assert_eq!(entry["asset"], token.address.to_string());
    assert_eq!(entry["payTo"], PAY_TO);
    assert_eq!(entry["maxTimeoutSeconds"], 300);
    assert_eq!((&entry["extra"]["name"], &entry["extra"]["version"]), (&json!("USDC"), &json!("2")));
    assert!(entry["extra"]["quoteId"].as_str().is_some_and(|id| id.len() >= 32));

    assert_eq!(body["x402Version"], 1);
    let entry = &body["accepts"][0];
    assert_eq!(entry["scheme"], "exact");
    assert_eq!(entry["network"], "base-sepolia");
    assert_eq!(entry["maxAmountRequired"], "336");
    assert_eq!(entry["resource"], "http://shop.example/run");
    assert_eq!(entry["payTo"], PAY_TO);
    assert_eq!(entry["asset"], token.address.to_string());
    assert!(entry["description"].is_string() && entry["mimeType"].is_string());
    assert_eq!(entry["extra"], json!({ "name": "USDC", "version": "2" }));
}

#[test]
fn the_seeds_fields_are_there() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    stage.run(async {
        let answer = client.challenge(&Request::run("print(1)")).await;
        let body = answer.json();
        assert_eq!(body["error"], "Payment required");
        assert_eq!(body["code"], "payment_required");
        assert_eq!(body["provider"], "merit-systems");
        assert_eq!(body["price_usd"].as_f64(), Some(0.000_336));
        assert_eq!(body["file_size_bytes"], "print(1)".len());
        let entry = &body["payment"]["accepts"][0];
        assert_eq!(entry["scheme"], "exact");
        assert_eq!(entry["network"], "base-sepolia");
        assert_eq!(entry["payTo"], PAY_TO);
        assert_eq!(entry["asset"], asset().address.to_string());
        assert_eq!(entry["maxAmountRequired"], "336");
        let job = body["jobId"].as_str().unwrap();
        assert_eq!(job.len(), 36);
        // Each is its own, and none exists before it is paid for.
        assert_ne!(client.challenge(&Request::run("print(1)")).await.json()["jobId"], job);
        let unpaid = client.send(&Request::get(&format!("/status/{job}"))).await;
        unpaid.expect(404, "job_unknown_or_unpaid", None, None);
        // A route of the app is asked for by no size.
        let body = client.challenge(&Request::get("/premium/report")).await.json();
        assert_eq!(body["provider"], "app");
        assert_eq!(body["accepts"][0]["description"], "Reports");
        assert_eq!(body.get("file_size_bytes"), None);
    });
    assert_eq!(stage.sales(), 0);
}

#[test]
fn nobody_stores_it_and_scripts_may_read_it() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    stage.run(async {
        for request in [Request::run("1"), Request::get("/premium/report")] {
            let answer = client.challenge(&request.header("origin", "https://dapp.example")).await;
            assert_eq!(answer.field("cache-control"), Some("no-store"));
            assert_eq!(answer.field("content-type"), Some("application/json"));
            assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
            let exposed = answer.field("access-control-expose-headers").unwrap();
            for name in ["PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE"] {
                assert!(exposed.contains(name), "{exposed}");
            }
        }
        let preflight = Request::new(Method::OPTIONS, "/run")
            .header("origin", "https://dapp.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "payment-signature,content-type");
        let answer = client.send(&preflight).await;
        assert_eq!(answer.status, 204);
        let allowed = answer.field("access-control-allow-headers").unwrap();
        for name in ["PAYMENT-SIGNATURE", "X-PAYMENT"] {
            assert!(allowed.contains(name), "{allowed}");
        }
        assert_eq!(client.send(&Request::new(Method::OPTIONS, "/run")).await.status, 204);
    });
}

/// A page that follows a job, and shows its payment for the result.
#[test]
fn a_page_in_a_browser_may_follow_a_job_and_collect_its_result() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("1");
        let payment = client.sign(&request, &payer, Version::V2).await;
        let answer = client.send(&request.paid(&payment)).await;
        let id = answer.json()["jobId"].as_str().unwrap().to_owned();
        let (name, value) = payment.header();
        for path in [format!("/jobs/{id}"), format!("/jobs/{id}/events")] {
            let preflight = Request::new(Method::OPTIONS, &path)
                .header("origin", "https://dapp.example")
                .header("access-control-request-method", "GET")
                .header("access-control-request-headers", "payment-signature,range,last-event-id");
            let asked = client.send(&preflight).await;
            assert_eq!((asked.status, asked.body.len()), (204, 0));
            assert_eq!(asked.field("access-control-allow-origin"), Some("*"));
            assert_eq!(asked.field("access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
            let allowed = asked.field("access-control-allow-headers").unwrap();
            for field in ["PAYMENT-SIGNATURE", "X-PAYMENT", "Range", "If-Range", "Last-Event-ID"] {
                assert!(allowed.contains(field), "{field}: {allowed}");
            }
            let plain = client.send(&Request::new(Method::OPTIONS, &path)).await;
            assert_eq!((plain.status, plain.field("allow")), (204, Some("GET, HEAD, OPTIONS")));
            let get = Request::get(&path).header("origin", "https://dapp.example").header(name, &value);
            let answer = client.send(&get).await;
            assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
            let exposed = answer.field("access-control-expose-headers").unwrap();
            for field in ["PAYMENT-RESPONSE", "ETag", "Content-Range", "Accept-Ranges"] {
                assert!(exposed.contains(field), "{field}: {exposed}");
            }
        }
        // What is no job is the app's to say.
        let other =
            Request::new(Method::OPTIONS, "/jobs/mine").header("access-control-request-method", "GET");
        client.send(&other).await;
        assert_eq!(stage.sandbox().requests.count(Service::App, "/jobs/mine"), 1);
    });
}

#[test]
fn the_price_is_cost_and_markup_and_fee_rounded_up() {
    // 280 and 1.11 percent of it are 283.108.
    let setup = Setup::new().text("pricing", "markup", "1.11%").text("pricing", "fee", "$0.000007");
    let stage = setup.start();
    let gateway = stage.gateway();
    let client = gateway.client();
    let price = |cost: u128| client_price(Amount::new(cost), 111, Amount::new(7)).unwrap().to_string();
    assert_eq!(price(280), "291");
    stage.run(async {
        assert_eq!(amount(&client, &Request::run("1")).await, price(280));
        let pin = Request::post("/store?permanent=true", "image/png", vec![1; 64]);
        assert_eq!(amount(&client, &pin).await, price(10_000));
        // What the app does has a price of its own.
        assert_eq!(amount(&client, &Request::get("/premium/report")).await, "1000");
    });
}

#[test]
fn options_choose_the_provider() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    stage.run(async {
        // One that is slow to say its price is asked again.
        let sold_by = async |provider: &'static str, options: Value| {
            let body = json!({ "data": "some text", "options": options });
            eventually(provider, async || {
                let challenge = client.challenge(&Request::json("/store", &body)).await;
                (challenge.json()["provider"] == provider).then_some(())
            })
            .await;
        };
        sold_by("openx402", json!({ "permanent": true })).await;
        sold_by("xcache", json!({ "ttl": 60 })).await;
        // The cheapest.
        sold_by("xcache", json!({})).await;
        // More than the cheapest takes goes to who takes it.
        let large = Request::post("/store", "application/octet-stream", vec![7; (1 << 20) + 1]);
        assert_eq!(client.challenge(&large).await.json()["provider"], "openx402");
    });
}

#[test]
fn a_provider_that_is_away_is_not_waited_for() {
    use galaksio::sandbox::faults::{Fault, Rule};
    let stage = Setup::new().text("pricing", "probe_timeout", "300ms").start();
    let faults = &stage.sandbox().faults;
    faults.add(Service::XCache, Rule::always(Fault::Drop));
    faults.add(Service::Merit, Rule::always(Fault::Garbage));
    let gateway = stage.cold_gateway();
    let client = gateway.client();
    stage.run(async {
        let text = Request::json("/store", &json!({ "data": "some text" }));
        assert_eq!(client.challenge(&text).await.json()["provider"], "openx402");
        // Only a 402 is a price.
        let answer = client.send(&Request::run("1")).await;
        answer.expect(503, "no_provider", None, None);
        assert_eq!(answer.json()["error"], "No providers available");
        assert!(answer.field("retry-after").is_some());
        assert!(!answer.is_challenge());
    });
}

async fn amount(client: &Client, request: &Request) -> String {
    let answer = client.challenge(request).await;
    let (v1, v2) = (answer.offer(Version::V1), answer.offer(Version::V2));
    assert_eq!(v1.accepts[0].amount, v2.accepts[0].amount);
    v1.accepts[0].amount.to_string()
}

/// `PAYMENT-REQUIRED`, decoded.
fn required(answer: &Answer) -> Value {
    decode(&answer.headers["payment-required"])
}
