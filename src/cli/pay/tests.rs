//! The paying client against a seller on loopback: what it sends, what it refuses, and that it signs once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::http::{Answer, Client};
use super::order::Order;
use super::payment::parse_dollars;
use super::purchase;
use crate::clock::Clock;
use crate::money::Amount;
use crate::x402::{
    Address, Asset, Domain, Network, Payment, PaymentFlow, Requirement, Resource, challenge_v1, challenge_v2,
};

const KEY: &str = "0x0000000000000000000000000000000000000000000000000000000000000001";
const NOW: u64 = 1_800_000_000;

/// A response with this field is sent before the request's body is read.
const EARLY: &str = "x-early";

/// What the seller received.
#[derive(Clone, Debug)]
struct Received {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// A seller that gives the scripted answers, one for each request; `None` closes the connection instead.
struct Seller {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Seller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seller {
    async fn start(answers: Vec<Option<Response<Full<Bytes>>>>) -> Seller {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let script = Arc::new(Mutex::new(VecDeque::from(answers)));
        let seen = Arc::clone(&received);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                    async move {
                        let (head, body) = request.into_parts();
                        let answer = script.lock().pop_front().flatten().ok_or("closed");
                        let early = answer.as_ref().is_ok_and(|answer| answer.headers().contains_key(EARLY));
                        let body =
                            if early { Bytes::new() } else { body.collect().await.unwrap().to_bytes() };
                        seen.lock().push(Received { uri: head.uri, headers: head.headers, body });
                        answer
                    }
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Seller { address, received, task }
    }

    fn url(&self) -> Uri {
        format!("http://{}", self.address).parse().unwrap()
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }
}

fn usdc() -> Asset {
    Asset::default_for(Network(84_532)).unwrap()
}

fn requirement(units: u128) -> Requirement {
    Requirement {
        asset: usdc(),
        amount: Amount::new(units),
        pay_to: Address::repeat_byte(7),
        max_timeout_seconds: 300,
        flow: PaymentFlow::Authorization,
    }
}

fn resource() -> Resource {
    Resource {
        url: "http://seller/run".to_owned(),
        description: String::new(),
        mime_type: "application/json".to_owned(),
    }
}

/// A 402 in version 2, in version 1, or in both as the gateway sends it.
fn challenge(requirement: &Requirement, v1: bool, v2: bool) -> Option<Response<Full<Bytes>>> {
    let mut response = Response::builder().status(402);
    if v2 {
        let accepts = [requirement.to_v2(&Map::from_iter([("quoteId".to_owned(), json!("q1"))]))];
        let document = challenge_v2("Payment required", &resource(), &accepts).to_string();
        response = response.header("payment-required", base64(&document));
    }
    let body = if v1 {
        challenge_v1("Payment required", &[requirement.to_v1(&resource()).unwrap()]).to_string()
    } else {
        "{}".to_owned()
    };
    Some(response.body(Full::from(body)).unwrap())
}

fn base64(text: &str) -> String {
    base64_simd::STANDARD.encode_to_string(text)
}

fn answer(status: u16, body: &Value) -> Option<Response<Full<Bytes>>> {
    Some(Response::builder().status(status).body(Full::from(body.to_string())).unwrap())
}

fn again() -> Option<Response<Full<Bytes>>> {
    let mut response = answer(503, &json!({"error": "running", "retry": "same_payment"})).unwrap();
    response.headers_mut().insert("retry-after", "0".parse().unwrap());
    Some(response)
}

fn done() -> Option<Response<Full<Bytes>>> {
    answer(200, &json!({"status": "completed"}))
}

fn program(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("hello.py");
    std::fs::write(&path, "print('hello')\n").unwrap();
    path
}

async fn run(seller: &Seller, max_price: &str) -> anyhow::Result<Answer> {
    let directory = tempfile::tempdir().unwrap();
    let order = Order::run(&seller.url(), &program(directory.path()), "python").unwrap();
    let clock = Clock::manual(NOW * 1000);
    let max_price = parse_dollars(max_price).unwrap();
    purchase(&Client::new(false).unwrap(), &order, SecretString::from(KEY), &max_price, &clock).await
}

fn payments(seller: &Seller) -> Vec<Payment> {
    let paid = seller.received().into_iter().filter_map(|received| {
        Payment::from_headers(&received.headers, 32 << 10).expect("the payment can be read")
    });
    paid.collect()
}

#[tokio::test]
async fn the_price_is_asked_then_paid_in_either_version() {
    for (v1, v2, header) in [(true, true, "payment-signature"), (true, false, "x-payment")] {
        let seller = Seller::start(vec![challenge(&requirement(12_000), v1, v2), done()]).await;
        let answer = run(&seller, "0.012").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);

        let received = seller.received();
        assert_eq!(received.len(), 2);
        assert_eq!(received[0].uri, "/run");
        assert_eq!(received[0].body, received[1].body);
        let sent: Value = serde_json::from_slice(&received[0].body).unwrap();
        assert_eq!(sent["code"], "print('hello')\n");
        assert_eq!(sent["language"], "python");
        assert!(!received[0].headers.contains_key(header));
        assert!(received[1].headers.contains_key(header));

        let payment = payments(&seller).remove(0);
        let authorization = *payment.authorization();
        assert_eq!(authorization.value, Amount::new(12_000));
        assert_eq!(authorization.to, Address::repeat_byte(7));
        assert!(authorization.valid_after < NOW);
        assert_eq!(authorization.valid_before, NOW + 300);
        let signature: [u8; 65] = payment.signature().try_into().unwrap();
        let payer = Domain::new(&usdc()).recover(&authorization, &signature).unwrap();
        assert_eq!(payer, authorization.from);
        if let Some(accepted) = payment.accepted() {
            assert_eq!(accepted.extra.quote_id.as_deref(), Some("q1"));
        }
    }
}

#[tokio::test]
async fn the_identical_payment_is_sent_again_and_nothing_else_is_signed() {
    let script = vec![challenge(&requirement(12_000), true, true), again(), None, again(), done()];
    let seller = Seller::start(script).await;
    assert_eq!(run(&seller, "1").await.unwrap().status, StatusCode::OK);
    let sent: Vec<_> =
        seller.received().iter().filter_map(|r| r.headers.get("payment-signature").cloned()).collect();
    assert!(sent.len() >= 4, "{}", sent.len());
    assert!(sent.iter().all(|header| *header == sent[0]));
}

#[tokio::test]
async fn a_second_challenge_is_an_answer_and_not_paid() {
    let script =
        vec![challenge(&requirement(12_000), true, true), challenge(&requirement(13_000), true, true)];
    let seller = Seller::start(script).await;
    assert_eq!(run(&seller, "1").await.unwrap().status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(payments(&seller).len(), 1);
}

#[tokio::test]
async fn a_price_over_the_limit_is_not_signed_for() {
    let seller = Seller::start(vec![challenge(&requirement(12_001), true, true)]).await;
    let error = run(&seller, "0.012").await.unwrap_err().to_string();
    assert!(error.contains("the price is $0.012001, over --max-price $0.012"), "{error}");
    assert_eq!(payments(&seller).len(), 0);
}

#[tokio::test]
async fn a_token_of_unknown_worth_is_not_signed_for() {
    let mut requirement = requirement(1);
    requirement.asset.address = Address::repeat_byte(9);
    let seller = Seller::start(vec![challenge(&requirement, true, true)]).await;
    let error = run(&seller, "1").await.unwrap_err().to_string();
    assert!(error.contains("none of the offered ways to pay"), "{error}");
    assert_eq!(payments(&seller).len(), 0);
}

#[tokio::test]
async fn a_payment_that_stays_open_for_long_is_not_signed() {
    let mut requirement = requirement(1);
    requirement.max_timeout_seconds = 86_401;
    let seller = Seller::start(vec![challenge(&requirement, true, true)]).await;
    assert!(run(&seller, "1").await.unwrap_err().to_string().contains("too long"));
    assert_eq!(payments(&seller).len(), 0);
}

#[tokio::test]
async fn what_is_free_is_not_paid_for() {
    let seller = Seller::start(vec![done()]).await;
    assert_eq!(run(&seller, "1").await.unwrap().status, StatusCode::OK);
    assert_eq!(seller.received().len(), 1);
}

#[tokio::test]
async fn a_file_is_streamed_as_it_is_with_its_options_in_the_query() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("räport & co.json");
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&path, &content).unwrap();
    let seller = Seller::start(vec![challenge(&requirement(5), true, true), done()]).await;
    let order = Order::store(&seller.url(), &path, true, None, None).unwrap();
    let max_price = parse_dollars("$1").unwrap();
    let clock = Clock::manual(NOW * 1000);
    let client = Client::new(false).unwrap();
    purchase(&client, &order, SecretString::from(KEY), &max_price, &clock).await.unwrap();

    let received = seller.received();
    assert_eq!(received.len(), 2);
    for received in received {
        assert_eq!(received.uri, "/store?filename=r%C3%A4port%20%26%20co.json&permanent=true");
        assert_eq!(received.headers["content-type"], "application/octet-stream");
        assert_eq!(received.headers["content-length"], content.len().to_string());
        assert_eq!(received.body, content);
    }
}

#[tokio::test]
async fn several_files_are_one_form() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let large: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let files = [write("a \"1\".png", b"1"), write("ü", &large)];
    let seller = Seller::start(vec![challenge(&requirement(5), true, true), done()]).await;
    let order = Order::store_all(&seller.url(), &files, true, None).unwrap();
    let client = Client::new(false).unwrap();
    let clock = Clock::manual(NOW * 1000);
    purchase(&client, &order, SecretString::from(KEY), &parse_dollars("$1").unwrap(), &clock).await.unwrap();

    let received = seller.received();
    assert_eq!(received.len(), 2);
    for received in received {
        assert_eq!(received.uri, "/store?files=2&size=400000&permanent=true");
        assert_eq!(received.headers["content-length"], received.body.len().to_string());
        // As the gateway reads it.
        let request = Request::post(received.uri).header("content-type", &received.headers["content-type"]);
        let head = request.header("content-length", received.body.len()).body(()).unwrap().into_parts().0;
        let limits = crate::intake::Limits { json: 0, whole: 0, raw: 1 << 20, files: 2 };
        let work = crate::config::resolved::BrokeredWork::Store;
        let Ok(crate::intake::Plan::Form(form)) = crate::intake::plan(&head, work, limits) else {
            panic!("no form")
        };
        let mut reader = form.reader();
        reader.push(received.body);
        let (mut names, mut content) = (Vec::new(), Vec::new());
        while let Some(event) = reader.event().unwrap() {
            match event {
                crate::intake::FormEvent::File(_, label) => names.push(label.filename.unwrap()),
                crate::intake::FormEvent::Data(data) => content.extend_from_slice(&data),
                crate::intake::FormEvent::End => {}
            }
        }
        reader.end().unwrap();
        assert_eq!(names, ["a \"1\".png", "ü"]);
        assert_eq!(content, [b"1", &large[..]].concat());
    }
    let none = write("none", b"");
    assert!(Order::store_all(&seller.url(), &[none], true, None).is_err());
}

#[tokio::test]
async fn a_challenge_that_does_not_wait_for_the_body_is_paid() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.bin");
    std::fs::write(&path, vec![7; 8 << 20]).unwrap();
    let mut early = challenge(&requirement(5), true, true).unwrap();
    early.headers_mut().insert(EARLY, "1".parse().unwrap());
    let seller = Seller::start(vec![Some(early), done()]).await;
    let order = Order::store(&seller.url(), &path, false, None, None).unwrap();
    let max_price = parse_dollars("1").unwrap();
    let clock = Clock::manual(NOW * 1000);
    let client = Client::new(false).unwrap();
    let answer = purchase(&client, &order, SecretString::from(KEY), &max_price, &clock).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(seller.received()[1].body.len(), 8 << 20);
}

#[test]
fn orders_that_make_no_sense_are_refused_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let gateway: Uri = "http://127.0.0.1:8080/base/".parse().unwrap();
    let store = |path: &Path| Order::store(&gateway, path, false, None, None);
    assert!(store(&empty).unwrap_err().to_string().contains("is empty"));
    assert!(store(directory.path()).unwrap_err().to_string().contains("not a file"));
    assert!(store(&directory.path().join("missing")).is_err());
    assert!(Order::run(&gateway, &empty, "python").is_err());

    let text = directory.path().join("a.txt");
    std::fs::write(&text, "x").unwrap();
    let order = Order::store(&gateway, &text, false, Some(60), Some("b.html")).unwrap();
    assert_eq!(order.url, "http://127.0.0.1:8080/base/store?filename=b.html&ttl=60");
    assert_eq!(order.content_type.as_deref(), Some("text/html"));
    assert!(Order::run(&"/run".parse().unwrap(), &text, "python").is_err());
}
