//! Faults of the transport, and stopping.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::sandbox::faults::{Fault, Rule};
use crate::sandbox::testing::{Bench, Payer, v1_header};
use crate::sandbox::{Service, pay_to};

#[tokio::test]
async fn each_fault_strikes_as_told_and_then_no_more() {
    let bench = Bench::new().await;
    let (faults, url) = (&bench.sandbox.faults, format!("{}/hello", bench.sandbox.urls.app));
    faults.add(Service::App, Rule::next(1, Fault::Status(503)));
    assert_eq!(bench.get(&url).await.status, StatusCode::SERVICE_UNAVAILABLE);
    faults.add(Service::App, Rule::next(1, Fault::Garbage));
    let garbage = bench.get(&url).await;
    assert_eq!(
        (garbage.status, &garbage.headers["content-type"]),
        (StatusCode::OK, &"text/html".parse().unwrap())
    );
    faults.add(Service::App, Rule::next(1, Fault::Drop));
    assert!(bench.try_send(Method::GET, &url, &[], "").await.is_err());
    faults.add(Service::App, Rule::next(1, Fault::Truncate));
    assert!(bench.try_send(Method::GET, &url, &[], "").await.is_err());
    assert_eq!(bench.get(&url).await.text(), "Hello.\n");
    assert_eq!(faults.fired(Service::App), 4);
    // Struck requests are on record too.
    assert_eq!(bench.sandbox.requests.count(Service::App, "/hello"), 5);
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn a_slow_service_does_its_work_for_a_client_that_has_gone() {
    let bench = Bench::new().await;
    let time = Duration::from_millis(50);
    bench.sandbox.faults.add(Service::XCache, Rule::next(1, Fault::Slow(time)));
    let url = format!("{}/create", bench.sandbox.urls.xcache);
    let signed = Payer::new(1).authorize(pay_to(Service::XCache), 500_000, bench.clock.now());
    let payment = v1_header(&signed);
    let mut stream = TcpStream::connect(host(&url)).await.unwrap();
    let head =
        format!("POST /create HTTP/1.1\r\nhost: x\r\nx-payment: {payment}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    let paid = async {
        while bench.sandbox.ledger.transfers().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), paid).await.unwrap();
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn a_held_request_waits_to_be_let_go() {
    let bench = Bench::new().await;
    let (faults, url) = (&bench.sandbox.faults, format!("{}/hello", bench.sandbox.urls.app));
    faults.add(Service::App, Rule::next(2, Fault::Held));
    faults.let_go(Service::Merit);
    let mut held = Box::pin(bench.get(&url));
    let early = async {
        while bench.sandbox.requests.count(Service::App, "/hello") == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tokio::select! {
        answer = &mut held => panic!("{answer:?}"),
        () = early => {}
    }
    faults.let_go(Service::App);
    assert_eq!(held.await.text(), "Hello.\n");
    // Let go before it came.
    faults.let_go(Service::App);
    assert_eq!(bench.get(&url).await.text(), "Hello.\n");
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn stopping_ends_everything_that_is_open() {
    let bench = Bench::new().await;
    let address = host(&bench.sandbox.urls.app).to_owned();
    let mut idle = TcpStream::connect(&address).await.unwrap();
    let mut events = TcpStream::connect(&address).await.unwrap();
    events.write_all(b"GET /events?count=1000000&ms=5 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut tunnel = TcpStream::connect(&address).await.unwrap();
    tunnel
        .write_all(b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: bytes\r\n\r\n")
        .await
        .unwrap();
    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.write_all(b"GET /slow?ms=600000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    for stream in [&mut events, &mut tunnel] {
        stream.read_u8().await.unwrap();
    }
    tokio::time::timeout(Duration::from_secs(10), bench.sandbox.stop()).await.unwrap();
    for stream in [&mut idle, &mut events, &mut tunnel, &mut slow] {
        // The end, clean or not, and not a time-out.
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.unwrap();
    }
    assert!(TcpStream::connect(&address).await.is_err());
}

#[tokio::test]
async fn dropping_the_sandbox_stops_it_too() {
    let bench = Bench::new().await;
    let address = host(&bench.sandbox.urls.rpc).to_owned();
    drop(bench);
    let closed = async { while TcpStream::connect(&address).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
}

fn host(url: &str) -> &str {
    url.strip_prefix("http://").unwrap().split('/').next().unwrap()
}
