//! What must not get from one side to the other.

use galaksio::sandbox::Service;
use galaksio::sandbox::requests::Seen;
use galaksio::x402::Version;
use serde_json::json;

use crate::client::{Answer, Request};
use crate::payer::Payer;
use crate::rig::Setup;

const SECRET: &str = "do-not-tell";
const CREDENTIALS: [(&str, &str); 6] = [
    ("authorization", "Bearer do-not-tell"),
    ("cookie", "session=do-not-tell"),
    ("x-api-key", "do-not-tell"),
    ("x-goog-api-key", "do-not-tell"),
    ("proxy-authorization", "Basic do-not-tell"),
    ("x-of-the-client", "do-not-tell"),
];

#[test]
fn nothing_of_the_clients_reaches_a_provider() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let mut payments = Vec::new();
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            for request in [
                Request::run("1"),
                Request::post("/store?permanent=true", "image/png", vec![7; 64]),
                Request::json("/store", &json!({ "data": [1], "options": { "permanent": true } })),
                Request::json("/store", &json!({ "data": "text", "options": { "ttl": 60 } })),
            ] {
                let request =
                    CREDENTIALS.iter().fold(request, |request, (name, value)| request.header(name, value));
                let payment = client.sign(&request, &payer, version).await;
                payments.push(payment.header().1);
                let answer = client.send(&request.paid(&payment)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
    });
    for service in [Service::XCache, Service::OpenX402, Service::Merit, Service::Facilitator] {
        let seen = stage.sandbox().requests.seen(service);
        assert!(!seen.is_empty(), "{service:?}");
        for request in seen {
            assert!(!says(&request, SECRET), "{service:?}: {request:?}");
            assert!(payments.iter().all(|payment| !says(&request, payment)), "{service:?}: {request:?}");
            for (name, _) in CREDENTIALS {
                assert!(!request.headers.contains_key(name), "{service:?}: {request:?}");
            }
        }
    }
}

#[test]
fn the_app_sees_payments_where_it_takes_them_itself() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let free = Request::get("/headers")
            .header("x-payment", "of the app's own")
            .header("payment-signature", "likewise")
            .header("x402-payment", "likewise")
            .header("cookie", "a=b");
        let echoed = client.send(&free).await.json();
        assert_eq!(echoed["x-payment"], json!(["of the app's own"]));
        assert_eq!(echoed["payment-signature"], json!(["likewise"]));
        assert_eq!(echoed["x402-payment"], json!(["likewise"]));

        for version in [Version::V1, Version::V2] {
            let request =
                Request::get("/premium/report").header("cookie", "a=b").header("authorization", "Bearer x");
            assert_eq!(client.buy(&request, &payer, version).await.status, 200);
        }
    });
    let seen = stage.sandbox().requests.seen(Service::App);
    let paid: Vec<_> = seen.iter().filter(|seen| seen.path == "/premium/report").collect();
    assert_eq!(paid.len(), 2);
    for request in paid {
        for name in ["payment-signature", "x-payment", "x402-payment"] {
            assert!(!request.headers.contains_key(name), "{request:?}");
        }
        // Who the client is to the app is between the two.
        assert_eq!(request.headers["cookie"], "a=b");
        assert_eq!(request.headers["authorization"], "Bearer x");
    }
}

/// Whoever knows a cache's id owns the cache.
#[test]
fn ids_of_caches_are_never_shown() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let mut shown: Vec<Answer> = Vec::new();
    stage.run(async {
        let request = Request::json("/store", &json!({ "data": "some text", "options": { "ttl": 60 } }));
        let offered = client.challenge(&request).await;
        for version in [Version::V1, Version::V2] {
            let paid = request.clone().paid(&payer.pay(&offered.offer(version)));
            let answer = client.send(&paid).await;
            assert_eq!(answer.status, 200);
            let body = answer.json();
            let file = body["result"]["url"].as_str().unwrap().strip_prefix("http://shop.example").unwrap();
            let job = body["jobId"].as_str().unwrap();
            for path in [file.to_owned(), format!("/status/{job}"), format!("/job/{job}")] {
                let found = client.send(&Request::get(&path)).await;
                assert_eq!(found.status, 200, "{path}");
                shown.push(found);
            }
            shown.extend([
                answer,
                client.send(&paid).await,
                client.send(&Request::run("1").paid(&payer.pay(&offered.offer(version)))).await,
            ]);
        }
        shown.push(offered);
        // When it goes wrong, too.
        let fault = galaksio::sandbox::faults::Fault::Status(500);
        stage.sandbox().faults.add(Service::XCache, galaksio::sandbox::faults::Rule::always(fault));
        shown.push(client.buy(&request, &payer, Version::V2).await);
        let admin = crate::client::Client::new(gateway.admin);
        shown.push(admin.send(&Request::get("/metrics")).await);
        shown.push(admin.send(&Request::get("/ready")).await);
    });
    let handles: Vec<String> = stage
        .sandbox()
        .requests
        .seen(Service::XCache)
        .iter()
        .flat_map(|seen| seen.path.split('/').map(str::to_owned).collect::<Vec<_>>())
        // Names of the API are shorter.
        .filter(|part| part.len() >= 32)
        .collect();
    assert!(handles.len() >= 4, "{handles:?}");
    for answer in shown {
        let text = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.body));
        for handle in &handles {
            assert!(!text.contains(handle.as_str()), "{answer:?}");
        }
    }
}

fn says(request: &Seen, text: &str) -> bool {
    let target = format!("{}?{}", request.path, request.query.as_deref().unwrap_or_default());
    target.contains(text)
        || request.headers.values().any(|value| String::from_utf8_lossy(value.as_bytes()).contains(text))
}
