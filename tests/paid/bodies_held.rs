//! Held to the quote: bytes that nobody paid for, in each form, reach no provider whole, and move no money.

use galaksio::sandbox::Service;
use galaksio::x402::{Challenge, Version};
use http::HeaderMap;

use crate::bodies::{EXPECT, FORM, Raw, form};
use crate::client::{HOST, Request};
use crate::payer::Payer;
use crate::rig::{Setup, Stage, eventually};
use crate::sold::base64;
use crate::tap::Tap;

/// Over what is held in memory, so that it is passed on while it arrives.
const LARGE: usize = 3 << 20;

/// A stage whose uploads are watched.
fn watched() -> (Stage, Tap) {
    let mut stage = Setup::new().start();
    let tap = Tap::before(&stage.sandbox().urls.openx402);
    stage.change("providers.openx402", "url", &tap.url());
    (stage, tap)
}

fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 253) as u8 ^ seed).collect()
}

/// The same file in every form that it can be sent in.
fn forms(file: &[u8]) -> [(&'static str, Request); 3] {
    let json = format!("{{\"data\":\"{}\",\"options\":{{\"permanent\":true}}}}", base64(file));
    [
        ("raw", Request::post("/store?permanent=true", "image/png", file.to_vec())),
        ("JSON", Request::post("/store", "application/json", json)),
        ("a form", Request::post("/store", FORM, form(&[("permanent", "true")], "a.png", file))),
    ]
}

/// Where the size is known before the bytes, they are not even begun to be passed on.
#[test]
fn more_than_was_paid_for_is_told_its_price() {
    let (stage, tap) = watched();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let (small, large) = (forms(&bytes(1000, 0)), forms(&bytes(LARGE, 0)));
    stage.run(async {
        for ((name, small), (_, large)) in small.into_iter().zip(large) {
            let payment = client.sign(&small, &payer, Version::V2).await;
            // So that its price is known.
            client.challenge(&large).await;
            let before = stage.movements();
            let answer = client.send(&large.clone().paid(&payment)).await;
            answer.expect(402, "quote_invalid", Some("no"), Some("new_payment"));
            let size = answer.json()["file_size_bytes"].as_u64().unwrap();
            assert!(size >= LARGE as u64, "{name}: {size}");
            assert_eq!(stage.movements(), before, "{name}");
            assert_eq!(tap.uploads(), [], "{name}");
            // What it says then is the right price: it buys it.
            let payment = payer.pay(&answer.offer(Version::V2));
            assert_eq!(client.send(&large.paid(&payment)).await.status, 200, "{name}");
            assert!(matches!(tap.uploads()[..], [(LARGE.., true)]), "{name}");
        }
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (3, 3));
}

/// Where it shows only at the end, the provider never gets the end.
#[test]
fn more_than_was_declared_is_never_whole() {
    let (stage, tap) = watched();
    let gateway = stage.gateway();
    let payer = Payer::new();
    stage.run(async {
        let file = bytes(LARGE, 0);
        for (name, kind, body) in [
            ("raw", "image/png", [&file[..], b"x"].concat()),
            ("a form", FORM, form(&[], "a.png", &[&file[..], b"x"].concat())),
        ] {
            let head = format!(
                "POST /store?permanent=true&size={LARGE} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n"
            );
            let (_, _, price) = Raw::asked(gateway.address, format!("{head}{EXPECT}\r\n")).await;
            let payment = payer.pay(&Challenge::from_response(&HeaderMap::new(), &price).unwrap());
            let (header, value) = payment.header();
            let before = stage.movements();
            let mut raw = Raw::open(gateway.address).await;
            raw.send(format!("{head}{header}: {value}\r\n\r\n")).await;
            for chunk in body.chunks(100_000) {
                raw.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).await;
            }
            raw.send("0\r\n\r\n").await;
            let (answer, body) = raw.answer().await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{name}: {answer}");
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&body["code"], &body["charged"]), (&"too_large".into(), &"no".into()), "{name}");
            assert_eq!(body["details"]["limit"], LARGE, "{name}");
            assert_eq!(stage.movements(), before, "{name}");
            // Begun, and broken off; the client may know that before the provider does.
            eventually("the end of the upload", async || tap.broken_off().then_some(())).await;
            let uploads = tap.uploads();
            assert!(matches!(uploads[..], [(_, false)]), "{name}: {uploads:?}");
        }
    });
    gateway.end();
    assert!(stage.jobs().is_empty(), "{:?}", stage.jobs());
}

#[test]
fn other_bytes_than_were_paid_for_are_not_bought() {
    let (stage, tap) = watched();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let (first, other) = (forms(&bytes(LARGE, 0)), forms(&bytes(LARGE, 1)));
    stage.run(async {
        for ((name, first), (_, other)) in first.into_iter().zip(other) {
            let payment = client.sign(&first, &payer, Version::V2).await;
            let answer = client.send(&first.paid(&payment)).await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(tap.uploads().len(), 1, "{name}");
            let before = stage.movements();
            let answer = client.send(&other.paid(&payment)).await;
            answer.expect(409, "payment_reused", Some("yes"), Some("new_payment"));
            assert_eq!((stage.movements(), tap.uploads().len()), (before, 0), "{name}");
        }
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (3, 3));
}

/// Two bodies for one payment, both on their way before either is claimed: one is bought.
#[test]
fn one_payment_buys_one_of_two_bodies() {
    let (stage, _tap) = watched();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let (first, other) = (forms(&bytes(LARGE, 0)), forms(&bytes(LARGE, 1)));
    stage.run(async {
        for ((name, first), (_, other)) in first.into_iter().zip(other) {
            let payment = client.sign(&first, &payer, Version::V2).await;
            let (first, other) = (first.paid(&payment), other.paid(&payment));
            let (one, two) = tokio::join!(client.send(&first), client.send(&other));
            let mut statuses = [one.status, two.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 409], "{name}: {one:?} {two:?}");
            let refused = if one.status == 409 { one } else { two };
            assert_eq!(refused.code(), "payment_reused", "{name}");
        }
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (3, 3));
}
