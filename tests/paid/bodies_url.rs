//! Data that is somewhere else: fetched from where the operator allows it, sold like data that is sent.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use galaksio::sandbox::Service;
use galaksio::x402::{Challenge, Version};
use http::HeaderMap;
use serde_json::json;

use crate::bodies::{Raw, head};
use crate::client::{HOST, Request};
use crate::gateway::Gateway;
use crate::payer::Payer;
use crate::rig::{Setup, Stage};
use crate::sold::{file, pinned, stored};
use crate::tap::Tap;

fn fetching(private: &str) -> Stage {
    Setup::new().toml_value("paid", "fetch_urls", "true").toml_value("paid", "fetch_private", private).start()
}

fn by_url(url: &str) -> Request {
    let options = json!({ "permanent": true });
    Request::json("/store", &json!({ "data": { "url": url }, "filename": "a.png", "options": options }))
}

#[test]
fn what_is_at_a_url_is_stored() {
    let stage = fetching("[\"127.0.0.0/8\"]");
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    // What was pinned before is what is fetched: a little, and more than is held in memory.
    for bytes in [file(), file().repeat(600)] {
        let request = Request::post("/store?permanent=true", "image/png", bytes.clone());
        let first = stage.run(client.buy(&request, &payer, Version::V2)).json();
        let url = first["result"]["url"].as_str().unwrap();
        for version in [Version::V1, Version::V2] {
            let request = by_url(url);
            let challenge = stage.run(client.challenge(&request));
            assert_eq!(challenge.json()["file_size_bytes"], bytes.len());
            let payment = payer.pay(&challenge.offer(version));
            let answer = stage.run(client.send(&request.clone().paid(&payment)));
            stored(&answer.json(), "openx402", bytes.len(), 0.012);
            assert_eq!(answer.json()["result"]["cid"], first["result"]["cid"]);
            let pinned = pinned(&stage, &answer.json());
            assert_eq!((pinned.body == bytes, pinned.field("content-type")), (true, Some("image/png")));
            let again = stage.run(client.send(&request.paid(&payment)));
            assert_eq!((again.status, &again.body), (200, &answer.body));
        }
    }
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (6, 6));
}

#[test]
fn nothing_inside_is_fetched() {
    let stage = fetching("[]");
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let payment = client.sign(&Request::run("1"), &payer, Version::V2).await;
        let port = stage.sandbox().urls.app.rsplit(':').next().unwrap().to_owned();
        let before = stage.movements();
        for url in [
            format!("http://127.0.0.1:{port}/hello"),
            format!("http://localhost:{port}/hello"),
            format!("http://[::ffff:127.0.0.1]:{port}/hello"),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "http://10.0.0.1/".to_owned(),
            "ftp://example.com/a".to_owned(),
            "file:///etc/passwd".to_owned(),
        ] {
            let answer = client.send(&by_url(&url)).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "url_refused"), "{url}: {answer:?}");
            let answer = client.send(&by_url(&url).paid(&payment)).await;
            answer.expect(400, "url_refused", Some("no"), Some("never"));
        }
        assert_eq!(stage.movements(), before);
        assert!(stage.sandbox().requests.seen(Service::App).is_empty());
    });
}

/// A request whose length nobody knows, or that is long for what it says, is read as it arrives, and means the same.
#[test]
fn a_url_may_stand_in_a_request_of_any_length() {
    let stage = fetching("[\"127.0.0.0/8\"]");
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let first = stage.run(client.buy(
        &Request::post("/store?permanent=true", "image/png", file().repeat(600)),
        &payer,
        Version::V2,
    ));
    let first = first.json();
    let request = by_url(first["result"]["url"].as_str().unwrap());
    stage.run(async {
        let long =
            Request::post("/store", "application/json", [&request.body[..], &[b' '; 2 << 20]].concat());
        let answer = client.buy(&long, &payer, Version::V2).await;
        assert_eq!(
            (answer.status, &answer.json()["result"]["cid"]),
            (200, &first["result"]["cid"]),
            "{answer:?}"
        );
        let chunked = |more: &str| {
            format!(
                "POST /store HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n{more}\
                 Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                request.body.len(),
                std::str::from_utf8(&request.body).unwrap()
            )
        };
        let (mut raw, head, price) = Raw::asked(gateway.address, chunked("")).await;
        assert!(head.starts_with("HTTP/1.1 402 "), "{head}");
        let payment = payer.pay(&Challenge::from_response(&HeaderMap::new(), &price).unwrap());
        let (name, value) = payment.header();
        raw.send(chunked(&format!("{name}: {value}\r\n"))).await;
        let (head, body) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["result"]["cid"], first["result"]["cid"]);
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (3, 3));
}

#[test]
fn without_the_operators_word_no_url_is_fetched() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let client = gateway.client();
    stage.run(async {
        let request = by_url(&format!("{}/hello", stage.sandbox().urls.app));
        let long = [&request.body[..], &[b' '; 2 << 20]].concat();
        for request in [request, Request::post("/store", "application/json", long)] {
            let answer = client.send(&request).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "not_supported"), "{answer:?}");
        }
        assert!(stage.sandbox().requests.seen(Service::App).is_empty());
    });
}

/// A source that says one thing when asked for the size, and does another when it is fetched.
fn source(inside: String) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let inside = inside.clone();
            std::thread::spawn(move || serve(stream, &inside));
        }
    });
    url
}

const LARGE: usize = 3 << 20;

fn serve(mut stream: std::net::TcpStream, inside: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut head = |size: usize| {
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes())
    };
    match first.split(' ').collect::<Vec<_>>()[..] {
        ["HEAD", ..] => head(LARGE),
        ["GET", "/grows", ..] => head(LARGE + 1),
        ["GET", "/breaks", ..] => {
            head(LARGE)?;
            stream.write_all(&vec![7; LARGE - 1])
        }
        ["GET", "/leads-inside", ..] => {
            stream.write_all(format!("HTTP/1.1 302 X\r\nLocation: {inside}\r\n\r\n").as_bytes())
        }
        _ => {
            head(LARGE)?;
            // Until nobody listens any more.
            loop {
                stream.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

#[test]
fn a_source_that_changes_its_mind_moves_nothing() {
    let mut stage = Setup::new()
        .toml_value("paid", "fetch_urls", "true")
        .toml_value("paid", "fetch_private", "[\"127.0.0.1/32\"]")
        .text("edge", "body_timeout", "2s")
        .start();
    let tap = Tap::before(&stage.sandbox().urls.openx402);
    stage.change("providers.openx402", "url", &tap.url());
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    // The app's port, by an address that no exception was made for.
    let inside = stage.sandbox().urls.app.replace("127.0.0.1", "127.0.0.2") + "/hello";
    let url = source(inside);
    stage.run(async {
        for (path, status, code, why) in [
            ("/grows", 502, "url_failed", "another size"),
            ("/breaks", 502, "url_failed", "breaks off"),
            ("/leads-inside", 400, "url_refused", "public address"),
            ("/drips", 502, "url_failed", "too slow"),
        ] {
            let request = by_url(&format!("{url}{path}"));
            let payment = client.sign(&request, &payer, Version::V2).await;
            let before = stage.movements();
            let answer = client.send(&request.paid(&payment)).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}: {answer:?}");
            assert!(answer.json()["error"].as_str().unwrap().contains(why), "{path}: {answer:?}");
            assert_eq!(stage.movements(), before, "{path}");
            assert!(tap.uploads().iter().all(|(_, whole)| !whole), "{path}: {:?}", tap.uploads());
        }
        assert!(stage.sandbox().requests.seen(Service::App).is_empty());
    });
    gateway.end();
    assert!(stage.jobs().is_empty(), "{:?}", stage.jobs());
}

/// Questions from this address about this URL: the code of each answer.
async fn ask(gateway: &Gateway, from: u8, request: &Request, times: usize) -> Vec<String> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, from], 0).into()).unwrap();
    let mut raw = Raw(socket.connect(gateway.address).await.unwrap());
    let mut codes = Vec::new();
    for _ in 0..times {
        let more: String = request
            .headers
            .iter()
            .filter(|(name, _)| ["x-payment", "payment-signature"].contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
            .collect();
        raw.send(
            [head("/store", "application/json", request.body.len(), &more).as_bytes(), &request.body]
                .concat(),
        )
        .await;
        let (_, body) = raw.answer().await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        codes.push(body["code"].as_str().unwrap_or_default().to_owned());
    }
    codes
}

#[test]
fn questions_are_limited_for_each_client_and_about_each_host() {
    let stage = fetching("[\"127.0.0.0/8\"]");
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let payment = client.sign(&Request::run("1"), &payer, Version::V2).await;
        let gone = by_url(&format!("{}/ipfs/none", stage.sandbox().urls.openx402));
        let asked = || stage.sandbox().requests.count(Service::OpenX402, "/ipfs/none");
        // One that asks too often is stopped, whatever he asks about, and asks no more of the host for it.
        let codes = ask(&gateway, 2, &gone, 70).await;
        assert!(codes[..60].iter().all(|code| code == "url_failed"), "{codes:?}");
        assert!(codes[60..].iter().all(|code| code == "overloaded"), "{codes:?}");
        let elsewhere =
            by_url(&format!("{}/hello", stage.sandbox().urls.app.replace("127.0.0.1", "localhost")));
        assert_eq!(ask(&gateway, 2, &elsewhere, 1).await, ["overloaded"]);
        let questions = asked();
        // A payment that anybody can sign lets him ask as much again, and no more.
        let codes = ask(&gateway, 2, &gone.clone().paid(&payment), 61).await;
        assert!(codes[..60].iter().all(|code| code == "url_failed"), "{codes:?}");
        assert_eq!(codes[60], "overloaded");
        // Others may ask, up to what the host is asked in all.
        for from in 3..6 {
            let codes = ask(&gateway, from, &gone, 60).await;
            assert!(codes.iter().all(|code| code == "url_failed"), "{from}: {codes:?}");
        }
        assert_eq!(ask(&gateway, 6, &gone, 1).await, ["overloaded"]);
        assert_eq!(ask(&gateway, 6, &elsewhere, 1).await, ["payment_required"]);
        // By HEAD, and by GET since that told nothing.
        assert_eq!(asked(), questions / 60 * 300);
    });
}

#[test]
fn what_cannot_be_fetched_costs_nothing() {
    let stage = fetching("[\"127.0.0.0/8\"]");
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let payment = client.sign(&Request::run("1"), &payer, Version::V2).await;
        let gone = by_url(&format!("{}/ipfs/none", stage.sandbox().urls.openx402));
        let before = stage.movements();
        // Unknown as far as anybody has looked: the payment may have bought it while it could be fetched.
        let answer = client.send(&gone.clone().paid(&payment)).await;
        answer.expect(502, "url_failed", Some("unknown"), Some("same_payment"));
        assert_eq!(stage.movements(), before);
    });
}
