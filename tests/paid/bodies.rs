//! Bodies: told the price before they are sent, taken in every form that is promised, and never half.

use std::net::SocketAddr;
use std::process::Command;

use galaksio::sandbox::Service;
use galaksio::x402::Version;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{HOST, Request};
use crate::payer::Payer;
use crate::rig::{Setup, eventually};
use crate::sold::{file, pinned, stored};

/// A connection on which a test says exactly what it wants.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// The answer to a question for a price, and its connection; asked again where the gateway says that it took too long to
    /// find out.
    pub(crate) async fn asked(address: SocketAddr, head: impl AsRef<[u8]>) -> (Raw, String, Vec<u8>) {
        eventually("a price", async || {
            let mut raw = Raw::open(address).await;
            raw.send(&head).await;
            let (head, body) = raw.answer().await;
            let later =
                head.starts_with("HTTP/1.1 503 ") && String::from_utf8_lossy(&body).contains("no_provider");
            (!later).then_some((raw, head, body))
        })
        .await
    }

    pub(crate) async fn open(address: SocketAddr) -> Raw {
        Raw(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// One answer's head, and its body if it says how long that is.
    pub(crate) async fn answer(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("no answer"));
        }
        let head = String::from_utf8(head).unwrap();
        let length = head
            .to_ascii_lowercase()
            .split("content-length: ")
            .nth(1)
            .map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
        let mut body = vec![0; length.unwrap_or_default()];
        self.0.read_exact(&mut body).await.unwrap();
        (head, body)
    }
}

pub(crate) fn head(path: &str, content_type: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

pub(crate) const EXPECT: &str = "Expect: 100-continue\r\n";
pub(crate) const FORM: &str = "multipart/form-data; boundary=b";

/// A form with these fields before a file.
pub(crate) fn form(fields: &[(&str, &str)], name: &str, content: &[u8]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, value) in fields {
        form.extend_from_slice(
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes(),
        );
    }
    form.extend_from_slice(
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: image/png\r\n\r\n"
        )
        .as_bytes(),
    );
    form.extend_from_slice(content);
    form.extend_from_slice(b"\r\n--b--\r\n");
    form
}

#[test]
fn the_price_comes_before_the_upload() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    stage.run(async {
        for (path, content_type) in [("/store?permanent=true", "image/png"), ("/store?permanent=true", FORM)] {
            let asking = head(path, content_type, 5_000_000, EXPECT);
            let (_, head, body) = Raw::asked(gateway.address, asking).await;
            assert!(head.starts_with("HTTP/1.1 402 "), "{content_type}: {head}");
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["accepts"][0]["maxAmountRequired"], "12000");
        }
        // Without a length there is no price, and the answer says what to do.
        let chunked = format!(
            "POST /store HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n{EXPECT}\r\n"
        );
        let mut raw = Raw::open(gateway.address).await;
        raw.send(chunked.clone()).await;
        let (head, body) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 411 "), "{head}");
        assert!(String::from_utf8(body).unwrap().contains("?size="));
        let sized = chunked.replace("/store", "/store?size=5000000");
        assert!(Raw::asked(gateway.address, sized).await.1.starts_with("HTTP/1.1 402 "));
    });
    assert_eq!(stage.sandbox().requests.count(Service::OpenX402, "/upload"), 0);
}

#[test]
fn only_a_payment_that_is_good_has_the_body_asked_for() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let bytes = vec![7; 2_000_000];
        let request = Request::post("/store?permanent=true", "image/png", bytes.clone());
        let offer = client.challenge(&request).await.offer(Version::V2);
        let good = payer.pay(&offer);
        let short =
            payer.pay_as(&offer, |authorization| authorization.valid_before = authorization.valid_after + 61);
        let mut forged = good.clone();
        forged.document["payload"]["authorization"]["nonce"] = json!(format!("0x{}", "11".repeat(32)));
        for bad in [short, forged] {
            let (name, value) = bad.header();
            let mut raw = Raw::open(gateway.address).await;
            raw.send(head(
                "/store?permanent=true",
                "image/png",
                2_000_000,
                &format!("{name}: {value}\r\n{EXPECT}"),
            ))
            .await;
            let (head, _) = raw.answer().await;
            assert!(head.starts_with("HTTP/1.1 402 "), "{head}");
        }
        let (name, value) = good.header();
        let mut raw = Raw::open(gateway.address).await;
        raw.send(head(
            "/store?permanent=true",
            "image/png",
            2_000_000,
            &format!("{name}: {value}\r\n{EXPECT}"),
        ))
        .await;
        assert_eq!(raw.answer().await.0, "HTTP/1.1 100 Continue\r\n\r\n");
        raw.send(&bytes).await;
        let (head, _) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 1));
    });
}

#[test]
fn a_connection_goes_on_after_the_price() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let payer = Payer::new();
    stage.run(async {
        let body = form(&[("permanent", "true")], "a.png", &[7; 40_000]);
        let request = Request::post("/store", FORM, body.clone());
        let asking = [head("/store", FORM, body.len(), "").as_bytes(), &body].concat();
        let (mut raw, first, _) = Raw::asked(gateway.address, asking).await;
        assert!(first.starts_with("HTTP/1.1 402 ") && !first.contains("connection: close"), "{first}");
        let payment = gateway.client().sign(&request, &payer, Version::V2).await;
        let (name, value) = payment.header();
        let paid = head("/store", FORM, body.len(), &format!("{name}: {value}\r\n"));
        raw.send([paid.as_bytes(), &body].concat()).await;
        let (second, _) = raw.answer().await;
        assert!(second.starts_with("HTTP/1.1 200 "), "{second}");
        // One that sends a lot before it looks is not cut off before it sees the price.
        let large = head("/store", "image/png", 10_000_000, "");
        Raw::asked(gateway.address, large.replace("\r\n\r\n", &format!("\r\n{EXPECT}\r\n"))).await;
        let mut raw = Raw::open(gateway.address).await;
        raw.send(large).await;
        for _ in 0..10 {
            raw.send(vec![7; 1_000_000]).await;
        }
        let (head, _) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 402 ") && head.contains("connection: close"), "{head}");
    });
}

#[test]
fn a_form_without_options_in_its_query_is_read_up_to_its_file() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    stage.run(async {
        let body = form(&[("permanent", "true")], "a.png", &[7; 2_000_000]);
        // So that the price is known.
        gateway.client().challenge(&Request::post("/store", FORM, body.clone())).await;
        let mut raw = Raw::open(gateway.address).await;
        raw.send(head("/store", FORM, body.len(), EXPECT)).await;
        assert_eq!(raw.answer().await.0, "HTTP/1.1 100 Continue\r\n\r\n");
        // Only so much, and the price is known.
        raw.send(&body[..1_000]).await;
        let (head, price) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 402 "), "{head}");
        let price: serde_json::Value = serde_json::from_slice(&price).unwrap();
        assert_eq!(price["accepts"][0]["maxAmountRequired"], "12000");
    });
}

#[test]
fn forms_buy_what_other_bodies_buy() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    let cases = [
        ("/store", &[("permanent", "true"), ("ttl", "")][..]),
        ("/store?permanent=true", &[("permanent", "true")]),
        ("/store?permanent=true&filename=b.png", &[]),
    ];
    for (path, fields) in cases {
        let request = Request::post(path, FORM, form(fields, "a.png", &file()));
        let answer = stage.run(client.buy(&request, &payer, Version::V2));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        stored(&answer.json(), "openx402", file().len(), 0.012);
        let pinned = pinned(&stage, &answer.json());
        assert_eq!((&pinned.body[..], pinned.field("content-type")), (&file()[..], Some("image/png")));
    }
    let request = Request::post("/run", FORM, form(&[("language", "python")], "x.py", b"print('hello')"));
    let answer = stage.run(client.buy(&request, &payer, Version::V1));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (4, 3));
}

/// The boundary is another on every retry; the request is the same.
#[test]
fn a_form_sent_again_is_the_same_request() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let body = form(&[("permanent", "true")], "a.png", &file());
        let request = Request::post("/store", FORM, body.clone());
        let payment = client.sign(&request, &payer, Version::V2).await;
        let first = client.send(&request.clone().paid(&payment)).await;
        assert_eq!(first.status, 200, "{first:?}");
        let longer = String::from_utf8_lossy(b"--longer").into_owned();
        let again = [longer.as_bytes(), &body[3..body.len() - 7], longer.as_bytes(), b"--\r\n"].concat();
        // Every delimiter between, too.
        let again = replace(&again, b"\r\n--b\r\n", b"\r\n--longer\r\n");
        let again = Request::post("/store", "multipart/form-data; boundary=longer", again);
        let second = client.send(&again.paid(&payment)).await;
        assert_eq!((second.status, &second.body), (200, &first.body));
        let other = Request::post("/store", FORM, form(&[("permanent", "true")], "a.png", b"other bytes"));
        client.send(&other.paid(&payment)).await.expect(
            409,
            "payment_reused",
            Some("yes"),
            Some("new_payment"),
        );
    });
    assert_eq!((stage.sales(), stage.purchases(Service::OpenX402)), (1, 1));
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// What is wrong behind the price is found before anybody is paid.
#[test]
fn a_bad_form_moves_nothing() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let (client, payer) = (gateway.client(), Payer::new());
    stage.run(async {
        let good = form(&[], "a.png", &file());
        let cut = good[..good.len() - 9].to_vec();
        let late = [
            &good[..good.len() - 7],
            b"--b\r\nContent-Disposition: form-data; name=\"ttl\"\r\n\r\n60\r\n--b--",
        ]
        .concat();
        let twice = [&good[..good.len() - 7], &good[..]].concat();
        let path = "/store?permanent=true";
        let before = stage.movements();
        for (name, body, status, code) in [
            ("cut off", cut, 400, "invalid_form"),
            ("an option behind the file", late, 400, "invalid_form"),
            ("two files", twice, 400, "invalid_form"),
            ("a path", form(&[], "../../x", &file()), 400, "invalid_field"),
            ("NUL", form(&[], "a\0", &file()), 400, "invalid_form"),
            ("another price", form(&[("permanent", "false")], "a", &file()), 400, "invalid_field"),
            ("nothing", form(&[], "a", b""), 400, "data_required"),
            ("another boundary", replace(&good, b"--b", b"--c"), 400, "invalid_form"),
        ] {
            let request = Request::post(path, FORM, body);
            let payment = client.sign(&request, &payer, Version::V2).await;
            let answer = client.send(&request.clone().paid(&payment)).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{name}: {answer:?}");
            assert_eq!(answer.json()["charged"], "no", "{name}");
        }
        assert_eq!(stage.movements(), before);
    });
    assert_eq!(stage.sandbox().requests.count(Service::OpenX402, "/upload"), 0);
    gateway.end();
    assert!(stage.jobs().is_empty(), "{:?}", stage.jobs());
}

#[test]
#[ignore = "needs curl"]
fn curl_uploads_nothing_to_be_told_the_price() {
    let stage = Setup::new().start();
    let gateway = stage.gateway();
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("large.bin");
    let content = vec![7; 5_000_000];
    std::fs::write(&path, &content).unwrap();
    // The first price may come too late, and curl does not ask again.
    let content_type = "application/octet-stream";
    stage.run(async {
        let client = gateway.client();
        let raw = Request::post("/store?permanent=true", content_type, content.clone());
        client.challenge(&raw).await;
        let form = Request::post("/store", FORM, form(&[("permanent", "true")], "large.bin", &content));
        client.challenge(&form).await;
    });
    let curl = |arguments: &[&str]| {
        let out = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}", "--max-time", "60"])
            // After a second it would begin to send.
            .args(["--expect100-timeout", "30"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    let file = format!("@{}", path.display());
    let url = format!("http://{}/store?permanent=true", gateway.address);
    let raw = curl(&["-H", &format!("Content-Type: {content_type}"), "--data-binary", &file, &url]);
    assert_eq!(raw, "402 0");
    assert_eq!(curl(&["-F", &format!("file={file}"), &url]), "402 0");
    // Without options in the query, as far as the fields.
    let url = format!("http://{}/store", gateway.address);
    let form = curl(&["-F", "permanent=true", "-F", &format!("file={file}"), &url]);
    let (status, sent) = form.split_once(' ').unwrap();
    assert_eq!(status, "402");
    assert!(sent.parse::<u64>().unwrap() < 5_000_000, "{form}");
}
