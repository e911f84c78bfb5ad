//! Clients that are slow, large or too many.

use std::time::Duration;

use crate::gateway::Setup;
use crate::origin::Origin;
use crate::wire::Wire;
use galaksio::proxy::{Kind, Refusal};
use galaksio::reason::Reason;

#[tokio::test]
async fn a_head_that_never_ends_is_closed() {
    let origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    setup.edge.header_timeout = Duration::from_millis(100);
    let gateway = setup.start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nX-A: ").await;
    assert!(wire.rest().await.is_empty());
    // The same after a request, on a kept connection.
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wire.answer().await;
    wire.send("GET / HTTP/1.1\r\nHo").await;
    assert!(wire.rest().await.is_empty());
    gateway.quiet().await;
    assert_eq!(*gateway.log.refused.lock().unwrap(), [Refusal::SlowHeader, Refusal::SlowHeader]);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    setup.edge.idle_timeout = Duration::from_millis(100);
    let gateway = setup.start();
    let mut silent = Wire::connect(gateway.addr).await;
    let mut used = Wire::heard(gateway.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    used.answer().await;
    assert!(silent.rest().await.is_empty());
    assert!(used.rest().await.is_empty());
}

#[tokio::test]
async fn a_slow_request_is_not_an_idle_connection() {
    let mut origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    setup.edge.idle_timeout = Duration::from_millis(50);
    setup.edge.header_timeout = Duration::from_millis(50);
    let gateway = setup.start();
    let asking = async {
        loop {
            let mut wire = Wire::connect(gateway.addr).await;
            wire.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
            // On a busy machine the connection may have been idle for too long before the request came.
            let closed = tokio::select! {
                _ = origin.seen() => false,
                rest = wire.rest() => rest.is_empty(),
            };
            if !closed {
                return wire;
            }
        }
    };
    let mut wire = tokio::time::timeout(crate::wire::PATIENCE, asking).await.expect("no request is taken");
    tokio::time::sleep(Duration::from_millis(200)).await;
    origin.go.notify_one();
    assert_eq!(wire.answer().await.text(), "slow");
}

#[tokio::test]
async fn a_large_head_is_431() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let head =
        |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-PAYMENT: {}\r\n\r\n", "x".repeat(bytes));
    assert_eq!(Wire::ask(gateway.addr, head(32 * 1024)).await.status, 200);
    let answer = Wire::ask(gateway.addr, head(41 * 1024)).await;
    assert_eq!(answer.status, 431);
    assert!(answer.text().contains("\"header_too_large\""));
    assert_eq!(origin.drain().len(), 1);
    // Far too large: refused while it is still coming.
    let mut wire = Wire::connect(gateway.addr).await;
    let huge = head(1024 * 1024);
    let _ = tokio::io::AsyncWriteExt::write_all(&mut wire.stream, huge.as_bytes()).await;
    let answer = wire.maybe_answer().await;
    assert!(answer.is_none_or(|answer| answer.status == 431));
    drop(wire);
    gateway.quiet().await;
    assert!(origin.drain().is_empty());
    assert_eq!(*gateway.log.refused.lock().unwrap(), [Refusal::Malformed]);
}

#[tokio::test]
async fn a_body_that_stops_is_408() {
    let origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    setup.edge.body_timeout = Duration::from_millis(100);
    let gateway = setup.start();
    for path in ["/", "/priced"] {
        let answer = Wire::ask(
            gateway.addr,
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"),
        )
        .await;
        assert_eq!(answer.status, 408, "{path}");
        assert!(answer.text().contains("\"body_timeout\""));
        assert!(answer.closes());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    // It is the client's time to send, too, which is slow only to read.
    setup.edge.body_timeout = Duration::from_secs(3);
    let gateway = setup.start();
    let mut wire = Wire::connect(gateway.addr).await;
    // Requests whose answers, being unread, fill every buffer there is.
    let body = "x".repeat(1 << 20);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for _ in 0..64 {
        if tokio::io::AsyncWriteExt::write_all(&mut wire.stream, request.as_bytes()).await.is_err() {
            break;
        }
    }
    gateway.quiet().await;
    assert_eq!(*gateway.log.refused.lock().unwrap(), [Refusal::SlowReader]);
}

#[tokio::test]
async fn one_connection_too_many_waits() {
    let origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    setup.edge.max_connections = 2;
    let gateway = setup.start();
    let mut first = Wire::connect(gateway.addr).await;
    let mut second = Wire::connect(gateway.addr).await;
    for wire in [&mut first, &mut second] {
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, 200);
    }
    let mut third = Wire::connect(gateway.addr).await;
    third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(tokio::time::timeout(Duration::from_millis(100), third.head()).await.is_err());
    assert_eq!(gateway.drain.open(Kind::Connection), 2);
    drop(first);
    assert_eq!(third.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_is_observed() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.seen().await;
    drop(wire);
    gateway.quiet().await;
    let lines = gateway.log.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].status, lines[0].complete, lines[0].reason), (None, false, Reason::Passed));
}
