//! WebSockets, and what else calls itself an upgrade.

use std::time::Duration;

use crate::gateway::Setup;
use crate::origin::Origin;
use crate::wire::Wire;
use galaksio::proxy::Kind;

const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";

#[tokio::test]
async fn a_websocket_is_a_tunnel() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send(WEBSOCKET).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.all("upgrade"), ["websocket"]);
    assert_eq!(answer.all("sec-websocket-accept"), ["x"]);
    assert_eq!(origin.seen().await.all("sec-websocket-key"), ["k"]);
    for message in ["ping", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"] {
        wire.send(message).await;
        assert_eq!(wire.exactly(message.len()).await, message.as_bytes());
    }
    tokio::io::AsyncWriteExt::shutdown(&mut wire.stream).await.unwrap();
    assert!(wire.rest().await.is_empty());
    tokio::time::timeout(crate::wire::PATIENCE, gateway.drain.below(Kind::Tunnel, 1)).await.unwrap();
    assert!(origin.drain().is_empty());
}

#[tokio::test]
async fn bytes_sent_too_soon_are_the_tunnels_not_the_apps() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send(format!("{WEBSOCKET}early")).await;
    assert_eq!(wire.answer().await.status, 101);
    assert_eq!(wire.exactly(5).await, b"early");
    assert_eq!(origin.seen().await.path(), "/ws");
}

#[tokio::test]
async fn a_refused_upgrade_leaves_http_as_it_was() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    // Not a 101: so the second is a request like any other, and is routed as one.
    wire.send(format!("{}POST /run HTTP/1.1\r\nHost: a\r\n\r\n", WEBSOCKET.replace("/ws", "/"))).await;
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(wire.answer().await.status, 402);
    assert_eq!(origin.seen().await.path(), "/");
    assert!(origin.drain().is_empty());
}

#[tokio::test]
async fn no_other_protocol_is_offered_to_the_app() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    for protocol in ["h2c", "HTTP/2.0", "TLS/1.0", "websocket, h2c"] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        );
        assert_eq!(Wire::ask(gateway.addr, request).await.status, 200);
        let seen = origin.seen().await;
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert!(seen.all(gone).is_empty(), "{protocol}: {}", seen.head);
        }
    }
}

#[tokio::test]
async fn an_idle_tunnel_is_closed() {
    let origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    setup.edge.tunnel_idle_timeout = Duration::from_millis(100);
    let gateway = setup.start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send(WEBSOCKET).await;
    assert_eq!(wire.answer().await.status, 101);
    assert!(wire.rest().await.is_empty());
}
