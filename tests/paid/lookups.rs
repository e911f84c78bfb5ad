//! `/status/{id}`, `/job/{id}` and `/files/{id}`, on both stores.

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use serde_json::json;

use crate::client::Request;
use crate::payer::Payer;
use crate::redis_server::RedisServer;
use crate::rig::Setup;

#[test]
fn on_the_embedded_store() {
    lookups(Setup::new());
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn on_redis() {
    let server = RedisServer::start(&[]);
    lookups(Setup::new().redis(&server.url()));
}

fn lookups(setup: Setup) {
    let stage = setup.start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        for version in [Version::V1, Version::V2] {
            let request = Request::run("print('hidden')");
            let offered = client.challenge(&request).await;
            let answer = client.send(&request.clone().paid(&payer.pay(&offered.offer(version)))).await;
            let id = answer.json()["jobId"].clone();
            if version == Version::V2 {
                assert_eq!(id, offered.json()["jobId"], "the id that was promised");
            }
            let status = client.send(&Request::get(&format!("/status/{}", id.as_str().unwrap()))).await;
            assert_eq!(status.status, 200);
            assert_eq!(status.field("cache-control"), Some("no-store"));
            assert_eq!(status.json(), json!({ "jobId": id, "status": "completed" }));

            let job = client.send(&Request::get(&format!("/job/{}", id.as_str().unwrap()))).await.json();
            assert_eq!(job["jobId"], id);
            assert_eq!(job["status"], "completed");
            assert_eq!(job["state"], "completed");
            assert_eq!(job["kind"], "run");
            assert_eq!(job["provider"], "merit-systems");
            assert_eq!(
                job["requester"].as_str().unwrap().to_lowercase(),
                payer.address().to_string().to_lowercase()
            );
            assert_eq!(job["price_usd"].as_f64(), Some(0.000_336));
            assert_eq!(job["size"], "print('hidden')".len());
            assert_eq!(job["payment"]["transaction"], answer.receipt().transaction);
            assert!(job["createdAt"].as_str().unwrap() <= job["updatedAt"].as_str().unwrap());
            assert!(!job.to_string().contains("hidden"), "an id may be shared, the result is the payer's");
        }

        // A failed one.
        stage.sandbox().faults.add(Service::Facilitator, Rule::always(Fault::Status(500)).at("/verify"));
        let answer = client.buy(&Request::run("1"), &payer, Version::V2).await;
        let id = answer.json()["jobId"].as_str().unwrap().to_owned();
        let status = client.send(&Request::get(&format!("/status/{id}"))).await.json();
        assert_eq!(status, json!({ "jobId": id, "status": "failed" }));
        let job = client.send(&Request::get(&format!("/job/{id}"))).await.json();
        assert_eq!(job["code"], "facilitator_away");

        let nobody = uuid::Uuid::now_v7();
        for path in ["/status/", "/job/"] {
            let answer = client.send(&Request::get(&format!("{path}{nobody}"))).await;
            answer.expect(404, "job_unknown_or_unpaid", None, None);
        }
        let file = client.send(&Request::get(&format!("/files/{nobody}"))).await;
        file.expect(404, "file_unknown", None, None);
        // Anything else there is the app's.
        for path in ["/status/201", "/job/mine", "/files/readme.txt", "/status/", "/job"] {
            client.send(&Request::get(path)).await;
            assert_eq!(stage.sandbox().requests.count(Service::App, path), 1, "{path}");
        }
    });
}

#[test]
fn a_file_ends_with_its_time_to_live() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    stage.run(async {
        let request = Request::json("/store", &json!({ "data": "brief", "options": { "ttl": 1 } }));
        let answer = client.buy(&request, &Payer::new(), Version::V2).await;
        let url = answer.json()["result"]["url"].as_str().unwrap().to_owned();
        // Its time is counted in whole seconds.
        tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
        let found = client.send(&Request::get(url.strip_prefix("http://shop.example").unwrap())).await;
        found.expect(404, "file_unknown", None, None);
    });
}
