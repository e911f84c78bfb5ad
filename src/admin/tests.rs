//! The admin pages over a real socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Check, Pages, Readiness};
use crate::clock::Clock;
use crate::jobs::{State, StoreError};
use crate::listener::Listener;
use crate::telemetry::Metrics;

struct Running {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
    store_ok: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

fn start() -> Running {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.address();
    let metrics = Arc::new(Metrics::new());
    let (draining, store_ok) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let (drain, store) = (Arc::clone(&draining), Arc::clone(&store_ok));
    let readiness = move || {
        let ok = store.load(Ordering::SeqCst);
        let reason = if ok { None } else { Some("no answer".to_owned()) };
        Readiness {
            draining: drain.load(Ordering::SeqCst),
            checks: vec![Check { name: "store", ok, reason, only_for: None }],
        }
    };
    let pages = Pages::new(Arc::clone(&metrics), Clock::manual(1_761_652_800_000), readiness);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(super::serve(listener, pages, async move {
        let _ = stopped.await;
    }));
    Running { address, metrics, draining, store_ok, stop, task }
}

/// Head and body of the answer to one request on a connection of its own.
async fn request(address: SocketAddr, line: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn health_says_who_and_when() {
    let running = start();
    let (head, body) = request(running.address, "GET /health?x=1").await;
    assert_eq!(status(&head), "200");
    assert!(head.contains("content-type: application/json"), "{head}");
    let expected = json!({
        "ok": true, "service": "galaksio", "version": env!("CARGO_PKG_VERSION"),
        "timestamp": "2025-10-28T12:00:00.000Z",
    });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
}

#[tokio::test]
async fn readiness_follows_its_checks_and_draining() {
    let running = start();
    let ready = async || {
        let (head, body) = request(running.address, "GET /ready").await;
        (status(&head).to_owned(), serde_json::from_str::<Value>(&body).unwrap())
    };
    let (code, body) = ready().await;
    assert_eq!((code.as_str(), &body["ready"]), ("200", &json!(true)));
    assert_eq!(body["checks"], json!([{ "name": "store", "ok": true }]));

    running.store_ok.store(false, Ordering::SeqCst);
    let (code, body) = ready().await;
    assert_eq!(code, "503");
    assert_eq!(body["checks"], json!([{ "name": "store", "ok": false, "reason": "no answer" }]));

    running.store_ok.store(true, Ordering::SeqCst);
    running.draining.store(true, Ordering::SeqCst);
    let (code, body) = ready().await;
    assert_eq!((code.as_str(), &body["draining"]), ("503", &json!(true)));
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let running = start();
    running.metrics.transferred(0, 42);
    let (head, body) = request(running.address, "GET /metrics").await;
    assert_eq!(status(&head), "200");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\ngalaksio_sent_bytes_total 42\n"), "{body}");
    let (head, body) = request(running.address, "HEAD /metrics").await;
    assert_eq!((status(&head), body.as_str()), ("200", ""));
}

#[tokio::test]
async fn there_is_nothing_else() {
    let running = start();
    assert_eq!(status(&request(running.address, "GET /").await.0), "404");
    assert_eq!(status(&request(running.address, "GET /metrics/").await.0), "404");
    let (head, _) = request(running.address, "POST /metrics").await;
    assert_eq!(status(&head), "405");
    assert!(head.contains("allow: get, head"), "{head}");
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_the_listener() {
    let running = start();
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: admin\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    running.stop.send(()).unwrap();
    running.task.await.unwrap().unwrap();
    // The rest of the answer, then the end.
    idle.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn jobs_are_listed_only_where_the_listener_may() {
    let running = start();
    assert_eq!(status(&request(running.address, "GET /jobs?state=held").await.0), "403");
}

#[tokio::test]
async fn a_list_says_what_it_was_asked_for_and_whether_there_is_more() {
    let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let find: super::FindJobs = Box::new(move |state, limit| {
        seen.lock().push((state, limit));
        Box::pin(async move {
            match state {
                State::Held => Ok(Vec::new()),
                _ => Err(StoreError::Away("no answer".to_owned())),
            }
        })
    });
    let metrics = Arc::new(Metrics::new());
    let pages = Pages::new(metrics, Clock::manual(0), Readiness::default).list_jobs(find);
    let get = async |uri: &str| {
        let answer = pages.answer(&http::Method::GET, &uri.parse().unwrap()).await;
        let (head, body) = answer.into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    let (code, body) = get("/jobs?state=held&limit=7").await;
    assert_eq!(code, 200);
    let expected = json!({ "state": "held", "jobs": [], "more": false });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    assert_eq!(*asked.lock(), [(State::Held, 8)]);
    assert_eq!(get("/jobs").await.0, 400);
    assert_eq!(get("/jobs?state=settling").await, (503, "the job store is away: no answer\n".to_owned()));
}
