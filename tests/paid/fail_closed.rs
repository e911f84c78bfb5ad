//! When paid work cannot be recorded or settled, nothing is sold; free traffic goes on.

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::Version;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, HOST, Request};
use crate::front::Front;
use crate::gateway::Gateway;
use crate::payer::Payer;
use crate::redis_server::RedisServer;
use crate::rig::{Setup, eventually};

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn without_its_store() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let stage = Setup::new().redis(&server.url()).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let request = Request::run("print(1)");
    let (used, answer, unused) = stage.run(async {
        let used = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        let answer = client.send(&used).await;
        assert_eq!(answer.status, 200);
        (used, answer, request.clone().paid(&client.sign(&request, &payer, Version::V2).await))
    });
    server.kill();
    stage.run(async {
        closed(&gateway, "store_away").await;
        let before = stage.movements();
        // Nobody can tell the one from the other now.
        for paid in [&unused, &used] {
            client.send(paid).await.expect(503, "store_away", Some("unknown"), Some("same_payment"));
        }
        assert_eq!(stage.movements(), before);
    });
    server.start_again();
    stage.run(async {
        open(&gateway).await;
        // Neither the answer nor the quote is lost.
        assert_eq!(client.send(&used).await.body, answer.body);
        let bought = client.send(&unused).await;
        assert_eq!(bought.status, 200, "{bought:?}");
    });
    assert_eq!(stage.sales(), 2);
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn while_its_store_stands_still() {
    let server = RedisServer::start(&[]);
    let stage = Setup::new().redis(&server.url()).start();
    let gateway = stage.gateway();
    stage.run(gateway.client().challenge(&Request::run("1")));
    server.signal("STOP");
    stage.run(closed(&gateway, "store_away"));
    server.signal("CONT");
    stage.run(async {
        open(&gateway).await;
        let answer = gateway.client().buy(&Request::run("1"), &Payer::new(), Version::V1).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

#[test]
fn with_too_much_to_do() {
    let stage = Setup::new().number("paid", "max_jobs", 1).start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::run("1");
        let first = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        let second = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
        stage.sandbox().faults.add(Service::Facilitator, Rule::next(1, Fault::Held).at("/verify"));
        let busy = tokio::spawn({
            let client = client.clone();
            async move { client.send(&first).await }
        });
        eventually("the only place is taken", async || {
            (stage.sandbox().requests.count(Service::Facilitator, "/verify") > 0).then_some(())
        })
        .await;
        client.send(&second).await.expect(503, "overloaded", Some("no"), Some("same_payment"));
        assert_eq!(client.challenge(&request).await.status, 402, "prices are still named");
        stage.sandbox().faults.let_go(Service::Facilitator);
        assert_eq!(busy.await.unwrap().status, 200);
        let answer = eventually("the place is free", async || {
            let answer = client.send(&second).await;
            (answer.status != 503).then_some(answer)
        });
        assert_eq!(answer.await.status, 200);
    });
    assert_eq!(stage.sales(), 2);
}

#[test]
fn without_its_facilitator() {
    let stage = Setup::new().start();
    stage.sandbox().faults.add(Service::Facilitator, Rule::always(Fault::Drop));
    let gateway = stage.gateway();
    stage.run(async {
        // One that hangs up may be there; only one that cannot be reached is away. Nothing is lost on it either way.
        let answer = gateway.client().buy(&Request::run("1"), &Payer::new(), Version::V2).await;
        answer.expect(503, "facilitator_away", Some("no"), Some("same_payment"));
    });
    drop(gateway);
    let nobody = Front::new();
    let stage = Setup::new().text("facilitator", "url", &nobody.url()).start();
    let gateway = stage.gateway();
    stage.run(closed(&gateway, "facilitator_away"));
}

#[test]
fn while_it_drains() {
    // One thread, so that who is heard last tells that the other is heard too: of one it has heard nothing of, a
    // gateway that drains just closes the connection.
    let stage = Setup::new().text("edge", "drain_timeout", "60s").number("edge", "threads", 1).start();
    let gateway = stage.gateway();
    stage.run(async {
        // A request whose head is not complete yet when the end begins.
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let body = json!({ "code": "1" }).to_string();
        stream.write_all(format!("POST /run HTTP/1.1\r\nHost: {HOST}\r\n").as_bytes()).await.unwrap();
        let busy = Request::get("/slow-once");
        stage.sandbox().faults.add(Service::App, Rule::next(1, Fault::Held).at("/slow-once"));
        let client = gateway.client();
        let busy = tokio::spawn(async move { client.send(&busy).await });
        eventually("the app is asked", async || {
            (stage.sandbox().requests.count(Service::App, "/slow-once") > 0).then_some(())
        })
        .await;
        gateway.stop.drain();
        let admin = Client::new(gateway.admin);
        eventually("draining", async || {
            (admin.send(&Request::get("/ready")).await.json()["draining"] == true).then_some(())
        })
        .await;
        let rest = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(rest.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\"draining\"") && answer.contains("retry-after"), "{answer}");
        assert!(!answer.contains("payment-required"), "{answer}");
        // What was in flight is finished.
        stage.sandbox().faults.let_go(Service::App);
        assert_eq!(busy.await.unwrap().status, 404);
    });
}

/// Everything that is sold answers 503 with this code, and everything else goes on.
async fn closed(gateway: &Gateway, code: &str) {
    let client = gateway.client();
    let store = Request::json("/store", &json!({ "data": "some text" }));
    for request in [Request::run("1"), store, Request::get("/premium/report")] {
        // Before that it is sold, or there is no price yet, which is a 503 too.
        let answer = eventually("it is not sold", async || {
            let answer = client.send(&request).await;
            (answer.code() == code).then_some(answer)
        })
        .await;
        answer.expect(503, code, None, None);
        assert!(answer.field("retry-after").is_some());
        assert!(!answer.is_challenge(), "{answer:?}");
    }
    assert_eq!(client.send(&Request::get("/hello")).await.body, "Hello.\n");
    assert_eq!(client.send(&Request::new(Method::DELETE, "/anything")).await.status, 200);
    let admin = Client::new(gateway.admin);
    assert_eq!(admin.send(&Request::get("/health")).await.status, 200);
    eventually("not ready", async || (admin.send(&Request::get("/ready")).await.status == 503).then_some(()))
        .await;
}

async fn open(gateway: &Gateway) {
    let client = gateway.client();
    eventually("sold again", async || (client.send(&Request::run("1")).await.status == 402).then_some(()))
        .await;
}
