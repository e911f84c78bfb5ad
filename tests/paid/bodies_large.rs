//! Bodies larger than anybody keeps in memory: passed on while they arrive, held to what was priced, never half.

use galaksio::sandbox::Service;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::x402::{Challenge, Version};
use http::HeaderMap;
use serde_json::Value;
use std::time::Duration;

use crate::bodies::{EXPECT, FORM, Raw, form, head};
use crate::cid::cid;
use crate::client::{HOST, Request};
use crate::payer::{Payer, Payment};
use crate::rig::{Books, Setup, Stage, eventually};
use crate::sold::{PIN, PIN_COST, pinned, stored};

const MIB: usize = 1 << 20;
/// Over what is held in memory.
const LARGE: usize = 3 * MIB;
/// How much memory may grow, allocator and all, for bodies that are several times as large.
const AT_MOST: u64 = 16 << 20;

fn large() -> Vec<u8> {
    (0..LARGE).map(|i| (i * 31 % 253) as u8).collect()
}

/// The payment for a body that is only announced.
async fn sign(
    address: std::net::SocketAddr,
    payer: &Payer,
    path: &str,
    content_type: &str,
    length: usize,
) -> Payment {
    let (_, answer, body) = Raw::asked(address, head(path, content_type, length, EXPECT)).await;
    assert!(answer.starts_with("HTTP/1.1 402 "), "{answer}");
    payer.pay(&Challenge::from_response(&HeaderMap::new(), &body).unwrap())
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

/// A gateway that takes files of 300 MB, as a process of its own.
fn roomy() -> Stage {
    let mut setup = Setup::new()
        .text("providers.openx402", "max_file", "300MiB")
        .text("paid", "max_raw_body", "300MiB")
        .toml_value("pricing", "buckets", "[\"1MiB\", \"10MiB\", \"300MiB\"]");
    setup.sandbox.openx402_max_file = 300 << 20;
    setup.start()
}

#[test]
fn memory_stays_flat_while_256_mib_go_through() {
    let stage = roomy();
    let gateway = stage.process();
    let payer = Payer::new();
    let before = stage.books(payer.address());
    let growth = stage.run(async {
        eventually("a challenge", async || {
            let answer = gateway
                .client()
                .send(&Request::post("/store?permanent=true", "image/png", vec![7; 10]))
                .await;
            (answer.status == 402).then_some(())
        })
        .await;
        let path = "/store?permanent=true";
        let mut idle = 0;
        let mut most = 0;
        let chunk: Vec<u8> = (0..MIB).map(|i| (i * 7 % 251) as u8).collect();
        // The first is for everything that is made once.
        for chunks in [4, 256] {
            let length = chunks * MIB;
            let payment = sign(gateway.address, &payer, path, "image/png", length).await;
            let (name, value) = payment.header();
            let mut raw = Raw::open(gateway.address).await;
            raw.send(head(path, "image/png", length, &format!("{name}: {value}\r\n"))).await;
            let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
            for at in 0..chunks {
                raw.send(&chunk).await;
                digest.update(&chunk);
                if at % 8 == 0 {
                    most = most.max(gateway.resident());
                }
            }
            let (answer, body) = raw.answer().await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer} {}", String::from_utf8_lossy(&body));
            let result = &json(&body)["result"];
            assert_eq!(result["size"], length);
            assert_eq!(result["cid"], cid(digest.finish().as_ref()));
            most = most.max(gateway.resident());
            if chunks == 4 {
                (idle, most) = (gateway.resident(), 0);
            }
        }
        most.saturating_sub(idle)
    });
    println!("resident memory grew by {} KiB", growth / 1024);
    assert!(growth < AT_MOST, "memory grew by {} KiB", growth / 1024);
    let expected = Books { payer: -2 * PIN, payee: 2 * PIN, openx402: 2 * PIN_COST, ..Books::default() };
    let changes = stage.books(payer.address()).since(before);
    assert_eq!(
        (changes.payer, changes.payee, changes.openx402),
        (expected.payer, expected.payee, expected.openx402)
    );
}

/// A body that must be complete before it is sent on waits in a file.
#[test]
fn memory_stays_flat_while_a_body_is_checked() {
    // What comes back is not kept: that is another file, with a test of its own.
    let stage = Setup::new().text("paid", "result_file_max", "").start();
    let gateway = stage.process();
    let payer = Payer::new();
    let growth = stage.run(async {
        let client = gateway.client();
        let buy = async |length: usize| {
            let body: Vec<u8> = (0..length).map(|i| (i % 249) as u8).collect();
            let request = Request::post("/echo", "application/octet-stream", body);
            let answer = client.buy(&request, &payer, Version::V2).await;
            assert_eq!((answer.status, answer.body == request.body), (200, true), "{length}");
        };
        // The first is for everything that is made once.
        buy(8 * MIB).await;
        let idle = gateway.resident();
        buy(48 * MIB).await;
        gateway.resident().saturating_sub(idle)
    });
    println!("resident memory grew by {} KiB", growth / 1024);
    assert!(growth < AT_MOST * 3 / 2, "memory grew by {} KiB", growth / 1024);
}

/// Several files wait until the last has come.
#[test]
fn memory_stays_flat_while_several_files_are_held() {
    let stage = roomy();
    let gateway = stage.process();
    let payer = Payer::new();
    let growth = stage.run(async {
        let client = gateway.client();
        let request = |length: usize| {
            let file = |seed: usize| (0..length).map(|i| ((i + seed) % 249) as u8).collect::<Vec<_>>();
            let body = crate::batch::form(&[("a", file(1)), ("b", file(2)), ("c", file(3))]);
            let uri = format!("/store?files=3&permanent=true&size={length}");
            Request::post(&uri, crate::bodies::FORM, body)
        };
        let small = request(4 * MIB);
        eventually("a challenge", async || (client.send(&small).await.status == 402).then_some(())).await;
        assert_eq!(client.buy(&small, &payer, Version::V2).await.status, 200);
        let idle = gateway.resident();
        let answer = client.buy(&request(20 * MIB), &payer, Version::V2).await;
        assert_eq!((answer.status, &answer.json()["result"]["size"]), (200, &(60 * MIB).into()));
        gateway.resident().saturating_sub(idle)
    });
    println!("resident memory grew by {} KiB", growth / 1024);
    assert!(growth < AT_MOST, "memory grew by {} KiB", growth / 1024);
}

/// JSON must be read to be priced: it is decoded as it passes, and nothing of it is kept before there is a payment.
#[test]
fn memory_stays_flat_while_json_is_read() {
    let stage = roomy();
    let gateway = stage.process();
    let payer = Payer::new();
    let (growth, answer, bytes) = stage.run(async {
        let client = gateway.client();
        let request = |length: usize| {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 11 % 251) as u8).collect();
            let text = base64_simd::STANDARD.encode_to_string(&bytes);
            let body = format!(
                "{{\"data\": \"{text}\", \"filename\": \"a.bin\", \"options\": {{\"permanent\": true}}}}"
            );
            (Request::post("/store", "application/json", body), bytes)
        };
        let (small, _) = request(8 * MIB);
        eventually("a challenge", async || (client.send(&small).await.status == 402).then_some(())).await;
        assert_eq!(client.buy(&small, &payer, Version::V2).await.status, 200);
        let idle = gateway.resident();
        let (large, bytes) = request(48 * MIB);
        let offer = client.challenge(&large).await;
        assert_eq!(offer.json()["file_size_bytes"], 48 * MIB);
        let most = gateway.resident();
        let payment = payer.pay(&offer.offer(Version::V2));
        let answer = client.send(&large.paid(&payment)).await;
        (most.max(gateway.resident()).saturating_sub(idle), answer, bytes)
    });
    println!("resident memory grew by {} KiB", growth / 1024);
    assert!(growth < AT_MOST, "memory grew by {} KiB", growth / 1024);
    assert_eq!(answer.status, 200, "{answer:?}");
    let result = &answer.json()["result"];
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    assert_eq!((&result["size"], &result["encoding"]), (&bytes.len().into(), &"base64".into()));
    assert_eq!(result["cid"], cid(digest.as_ref()));
}

/// What is wrong is found wherever it stands, with its place in the body as it was sent.
#[test]
fn large_json_is_refused_like_small_json() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let text = "QUJD".repeat(MIB);
        let good = format!("{{\"data\":\"{text}\",\"options\":{{\"permanent\":true}}}}");
        let payment = client
            .sign(&Request::post("/store", "application/json", good.clone()), &payer, Version::V2)
            .await;
        let before = stage.movements();
        for (name, body, status, code) in [
            ("a field behind it", good.replace("\"options\"", "\"colour\""), 400, "invalid_field"),
            (
                "data twice",
                good.replace("\"options\":{\"permanent\":true}", "\"data\":\"x\""),
                400,
                "invalid_field",
            ),
            ("cut off", good[..good.len() - 40].to_owned(), 400, "invalid_json"),
            ("not base64 in the end", good.replace("QUJD\",", "QUJ-\","), 400, "invalid_base64"),
            (
                "a name that says JSON",
                good.replace("\"options\"", "\"filename\":\"a.json\",\"options\""),
                400,
                "invalid_json",
            ),
            ("nested too deep", format!("{{\"data\":{}", "[".repeat(2 * MIB)), 400, "invalid_json"),
            ("a document too long", format!("{{\"data\":[{}1]}}", "1,".repeat(6 * MIB)), 413, "too_large"),
        ] {
            let request = Request::post("/store", "application/json", body).paid(&payment);
            let answer = client.send(&request).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{name}: {answer:?}");
            assert_eq!(answer.json()["charged"], "no", "{name}");
            if name == "a field behind it" {
                assert_eq!(
                    answer.json()["details"]["column"],
                    "{\"data\":\"\",\"colour\"".len() + text.len()
                );
            }
        }
        assert_eq!(stage.movements(), before);
    });
}

#[test]
fn a_large_file_is_passed_on_whole() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    for version in [Version::V1, Version::V2] {
        let raw = Request::post("/store?permanent=true&filename=a.png", "image/png", large());
        let fields = Request::post("/store", FORM, form(&[("permanent", "true")], "a.png", &large()));
        for request in [raw, fields] {
            let answer = stage.run(client.buy(&request, &payer, version));
            stored(&answer.json(), "openx402", LARGE, 0.012);
            let pinned = pinned(&stage, &answer.json());
            assert_eq!((pinned.body == large(), pinned.field("content-type")), (true, Some("image/png")));
        }
    }
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (4, 4));
}

/// The bytes are asked for again, since only they show that it is the same request; they are not uploaded again.
#[test]
fn the_same_payment_again_is_the_same_answer_for_the_same_bytes() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let request = Request::post("/store?permanent=true", "image/png", large());
        let payment = client.sign(&request, &payer, Version::V2).await;
        let paid = request.paid(&payment);
        let (one, two) = tokio::join!(client.send(&paid), client.send(&paid));
        assert_eq!((one.status, &one.body), (200, &two.body), "{two:?}");
        let uploads = stage.sandbox().requests.count(Service::OpenX402, "/upload");
        let again = client.send(&paid).await;
        assert_eq!((again.status, &again.body), (200, &one.body));
        let mut other = paid.clone();
        let mut bytes = large();
        bytes[LARGE - 1] ^= 1;
        other.body = bytes.into();
        client.send(&other).await.expect(409, "payment_reused", Some("yes"), Some("new_payment"));
        assert_eq!(stage.sandbox().requests.count(Service::OpenX402, "/upload"), uploads);
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 1));
}

/// What is sent is not what was priced: it is found before the last byte, and nobody pays.
#[test]
fn what_is_not_as_priced_is_paid_by_nobody() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let payer = Payer::new();
    stage.run(async {
        let path = format!("/store?permanent=true&size={LARGE}");
        let whole = large();
        let late = "--b\r\nContent-Disposition: form-data; name=\"ttl\"\r\n\r\n60\r\n--b--\r\n";
        let mut form = form(&[], "a.png", &whole);
        form.truncate(form.len() - 7);
        form.extend_from_slice(late.as_bytes());
        let chunks = |bytes: &[u8]| {
            let mut out = Vec::new();
            for chunk in bytes.chunks(100_000) {
                out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            out
        };
        let end = b"0\r\n\r\n";
        let longer = [&whole[..], &whole[..1000]].concat();
        let cases = [
            ("more than declared", "image/png", [&chunks(&longer), &end[..]].concat(), 413, "too_large"),
            ("less than declared", "image/png", [&chunks(&whole[1000..]), &end[..]].concat(), 400, "invalid_field"),
            ("an option behind the file", FORM, [&chunks(&form), &end[..]].concat(), 400, "invalid_form"),
        ];
        let before = stage.movements();
        for (name, content_type, body, status, code) in cases {
            let chunked = format!(
                "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n"
            );
            let asking = format!("{chunked}{EXPECT}\r\n");
            let (_, answer, price) = Raw::asked(gateway.address, asking).await;
            assert!(answer.starts_with("HTTP/1.1 402 "), "{name}: {answer}");
            let payment = payer.pay(&Challenge::from_response(&HeaderMap::new(), &price).unwrap());
            let (header, value) = payment.header();
            let mut raw = Raw::open(gateway.address).await;
            raw.send(format!("{chunked}{header}: {value}\r\n\r\n")).await;
            raw.send(&body).await;
            let (answer, body) = raw.answer().await;
            let body = json(&body);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer} {body}");
            assert_eq!((body["code"].as_str(), body["charged"].as_str()), (Some(code), Some("no")), "{name}");
        }
        // One that goes away in the middle.
        let payment = sign(gateway.address, &payer, "/store?permanent=true", "image/png", LARGE).await;
        let (header, value) = payment.header();
        let mut raw = Raw::open(gateway.address).await;
        raw.send(head("/store?permanent=true", "image/png", LARGE, &format!("{header}: {value}\r\n"))).await;
        raw.send(&whole[..2 * MIB]).await;
        drop(raw);
        assert_eq!(stage.movements(), before);
        // It bought nothing, so it is still good.
        let again = Request::post("/store?permanent=true", "image/png", whole).paid(&payment);
        assert_eq!(gateway.client().send(&again).await.status, 200);
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 1));
    gateway.end();
    assert_eq!(stage.jobs().into_iter().collect::<Vec<_>>(), [("completed", 1)]);
}

#[test]
fn an_upload_that_fails_uses_up_nothing() {
    for fault in [Fault::Status(500), Fault::Garbage, Fault::Drop, Fault::Truncate] {
        let stage = Setup::new().start();
        let gateway = stage.gateway();
        let (client, payer) = (gateway.client(), Payer::new());
        stage.run(async {
            let request = Request::post("/store?permanent=true", "image/png", large());
            let paid = request.clone().paid(&client.sign(&request, &payer, Version::V2).await);
            stage.sandbox().faults.add(Service::OpenX402, Rule::always(fault).at("/upload"));
            let before = stage.movements();
            client.send(&paid).await.expect(502, "provider_failed", Some("no"), Some("same_payment"));
            assert_eq!(stage.movements(), before);
            stage.sandbox().faults.clear(Service::OpenX402);
            assert_eq!(client.send(&paid).await.status, 200, "{fault:?}");
        });
        assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 1), "{fault:?}");
    }
}

/// A client is not read faster than the provider takes it.
#[test]
fn a_slow_provider_slows_the_client() {
    let stage = roomy();
    let gateway = stage.process();
    let payer = Payer::new();
    stage.run(async {
        let length = 128 * MIB;
        let path = "/store?permanent=true";
        eventually("a challenge", async || {
            let answer = gateway.client().send(&Request::post(path, "image/png", vec![7; 10])).await;
            (answer.status == 402).then_some(())
        })
        .await;
        let payment = sign(gateway.address, &payer, path, "image/png", length).await;
        stage
            .sandbox()
            .faults
            .add(Service::OpenX402, Rule::always(Fault::Slow(Duration::from_secs(600))).at("/upload"));
        let (name, value) = payment.header();
        let mut raw = Raw::open(gateway.address).await;
        raw.send(head(path, "image/png", length, &format!("{name}: {value}\r\n"))).await;
        let mut sent = 0;
        while sent < length {
            match tokio::time::timeout(Duration::from_secs(2), raw.send(vec![7; MIB])).await {
                Ok(()) => sent += MIB,
                Err(_) => break,
            }
        }
        // What fits the buffers of four sockets.
        assert!(sent < 48 * MIB, "{sent} bytes went into the gateway and not out of it");
    });
}

#[test]
fn a_size_that_nobody_sells_has_no_challenge() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    stage.run(async {
        for (path, content_type, length) in [
            ("/store?permanent=true", "image/png", 100_000_001),
            ("/store?ttl=60", "image/png", (1 << 20) + 1),
            ("/store", "image/png", 101 << 20),
            ("/store?permanent=true&filename=a.json", "image/png", 11 << 20),
            ("/run", "text/x-python", 11 << 20),
            ("/store?permanent=true", FORM, 101 << 20),
        ] {
            let mut raw = Raw::open(gateway.address).await;
            raw.send(head(path, content_type, length, EXPECT)).await;
            let (answer, body) = raw.answer().await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{path} {length}: {answer}");
            assert!(json(&body)["details"]["limit"].is_u64(), "{path} {length}");
        }
    });
}
