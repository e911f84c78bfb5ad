//! Clients and providers that are slow, many at once: they take no thread, hardly any memory, nobody's turn, and end in time,
//! with a code that says who was slow. `make bench-bodies` does the same with thousands.

use std::time::{Duration, Instant};

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::{Challenge, Version};
use http::HeaderMap;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::bodies::{EXPECT, FORM, Raw, head};
use crate::client::Request;
use crate::gateway::Process;
use crate::payer::Payer;
use crate::rig::{Setup, Stage, eventually};

/// Of each sort, at once.
const MANY: usize = 50;
/// What a connection, and an upload with it, may take.
const EACH: u64 = 128 << 10;
const LARGE: usize = 3 << 20;
const PATH: &str = "/store?permanent=true";

fn stage() -> Stage {
    Setup::new()
        .text("edge", "body_timeout", "4s")
        .text("paid", "work_timeout", "2s")
        .text("paid", "settle_margin", "4s")
        .start()
}

/// A payment for a large file that lapses so soon that its upload has some seconds.
async fn payment(gateway: &Process, payer: &Payer) -> String {
    let challenge = eventually("a challenge", async || {
        let mut raw = Raw::open(gateway.address).await;
        raw.send(head(PATH, "image/png", LARGE, EXPECT)).await;
        let (answer, body) = raw.answer().await;
        answer
            .starts_with("HTTP/1.1 402 ")
            .then(|| Challenge::from_response(&HeaderMap::new(), &body).unwrap())
    })
    .await;
    let payment = payer.pay_as(&challenge, |authorization| {
        authorization.valid_before = authorization.valid_after + 60 + 20;
    });
    let (name, value) = payment.header();
    format!("{name}: {value}\r\n")
}

/// Sends `head`, then a byte now and then for as long as the other side listens; status and code of the answer.
async fn drip(address: std::net::SocketAddr, head: String, first: Vec<u8>) -> (String, String) {
    let mut raw = Raw::open(address).await;
    raw.send(head).await;
    // One that is not read waits here.
    let (mut read, mut write) = raw.0.split();
    let dripping = async {
        let _ = write.write_all(&first).await;
        while write.write_all(b"A").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        std::future::pending::<()>().await
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = dripping => {}
        read = tokio::time::timeout(Duration::from_secs(30), read.read_to_end(&mut answer)) => {
            let _ = read.expect("it never ends");
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    (head.get(9..12).unwrap_or_default().to_owned(), body["code"].as_str().unwrap_or_default().to_owned())
}

/// How all of them ended.
async fn ended(mut waiting: JoinSet<(String, String)>) {
    while let Some(ended) = waiting.join_next().await {
        let (status, code) = ended.unwrap();
        assert_eq!((status.as_str(), code.as_str()), ("408", "body_timeout"));
    }
}

#[test]
fn slow_clients_cost_nothing_and_end() {
    let stage = stage();
    let gateway = stage.process();
    let payer = Payer::new();
    stage.run(async {
        let small = Request::post(PATH, "image/png", vec![7; 10]);
        let client = gateway.client();
        assert_eq!(client.buy(&small, &payer, Version::V2).await.status, 200);
        let payment = payment(&gateway, &payer).await;
        let (idle, threads, moved) = (gateway.resident(), gateway.threads(), stage.movements());
        let (began, mut waiting) = (Instant::now(), JoinSet::new());
        for _ in 0..MANY {
            let json = head("/store", "application/json", 100_000, "Connection: close\r\n");
            waiting.spawn(drip(gateway.address, json, b"{\"data\":\"".to_vec()));
            let chunked = head("/store", "application/json", 0, "Connection: close\r\n")
                .replace("Content-Length: 0", "Transfer-Encoding: chunked");
            waiting.spawn(drip(gateway.address, chunked, b"f0000\r\n{\"data\":\"".to_vec()));
            let fields = head("/store", FORM, LARGE, "Connection: close\r\n");
            waiting.spawn(drip(gateway.address, fields, b"--b\r\nContent-Disposition: ".to_vec()));
            let file = head(PATH, "image/png", LARGE, &format!("Connection: close\r\n{payment}"));
            waiting.spawn(drip(gateway.address, file, vec![7; 1000]));
        }
        // All of them are there, and waited for.
        eventually("the uploads that are passed on", async || {
            let uploads = stage.sandbox().requests.count(Service::OpenX402, "/upload");
            (uploads > MANY as u64).then_some(())
        })
        .await;
        let (grown, more) =
            (gateway.resident().saturating_sub(idle), gateway.threads().saturating_sub(threads));
        println!("{} KiB and {more} threads for {} clients", grown / 1024, 4 * MANY);
        assert!(grown < 4 * MANY as u64 * EACH, "{} KiB for each", grown / 1024 / (4 * MANY as u64));
        assert!(more < 2 * MANY as u64, "{more} threads more for {} clients", 4 * MANY);
        // Others are served as ever.
        assert_eq!(client.buy(&small, &payer, Version::V2).await.status, 200);
        ended(waiting).await;
        // However much they said they would send.
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        assert_eq!(stage.movements(), moved + 2, "more than the one sale in between");
    });
}

/// It is the provider who is slow, and the client is told so.
#[test]
fn slow_providers_cost_nothing_and_end() {
    let stage = stage();
    let gateway = stage.process();
    let payer = Payer::new();
    stage.run(async {
        let client = gateway.client();
        let small = Request::post(PATH, "image/png", vec![7; 10]);
        assert_eq!(client.buy(&small, &payer, Version::V2).await.status, 200);
        let payment = payment(&gateway, &payer).await;
        let slow = Rule::always(Fault::Slow(Duration::from_secs(600))).at("/upload");
        stage.sandbox().faults.add(Service::OpenX402, slow);
        let (threads, moved) = (gateway.threads(), stage.movements());
        let mut waiting = JoinSet::new();
        for _ in 0..MANY {
            let head = head(PATH, "image/png", LARGE, &format!("Connection: close\r\n{payment}"));
            waiting.spawn(drip(gateway.address, head, vec![7; LARGE - 1]));
        }
        eventually("the uploads", async || {
            let uploads = stage.sandbox().requests.count(Service::OpenX402, "/upload");
            (uploads > MANY as u64).then_some(())
        })
        .await;
        let more = gateway.threads().saturating_sub(threads);
        assert!(more < MANY as u64, "{more} threads more for {MANY} clients");
        while let Some(ended) = waiting.join_next().await {
            let (status, code) = ended.unwrap();
            assert_eq!((status.as_str(), code.as_str()), ("504", "provider_timeout"));
        }
        assert_eq!(stage.movements(), moved);
    });
}
