//! The app.

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::sandbox::Service;
use crate::sandbox::testing::Bench;

#[tokio::test]
async fn its_pages_answer() {
    let bench = Bench::new().await;
    let url = |path: &str| format!("{}{path}", bench.sandbox.urls.app);
    assert_eq!(bench.get(&url("/hello")).await.text(), "Hello.\n");
    assert_eq!(bench.get(&url("/premium/report")).await.json()["totalCents"], 67_475);
    assert_eq!(bench.get(&url("/status/418")).await.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(bench.get(&url("/status/101")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(bench.get(&url("/nowhere")).await.status, StatusCode::NOT_FOUND);
    let echoed = bench.send(Method::POST, &url("/echo"), &[("content-type", "a/b")], "body").await;
    assert_eq!((echoed.text(), &echoed.headers["content-type"]), ("body", &"a/b".parse().unwrap()));
    let headers = bench.send(Method::GET, &url("/headers"), &[("x-one", "1"), ("x-one", "2")], "").await;
    assert_eq!(headers.json()["x-one"], serde_json::json!(["1", "2"]));
    let large = bench.get(&url("/large?bytes=200000")).await;
    assert_eq!((large.body.len(), &large.headers["content-length"]), (200_000, &"200000".parse().unwrap()));
    let events = bench.get(&url("/events?count=3&ms=1")).await;
    assert_eq!(events.text().matches("data: ").count(), 3);
    assert_eq!(bench.get(&url("/slow?ms=1")).await.text(), "At last.\n");
    assert_eq!(bench.sandbox.requests.count(Service::App, "/hello"), 1);
    let seen = bench.sandbox.requests.seen(Service::App);
    assert!(seen.iter().any(|seen| seen.path == "/large" && seen.query.as_deref() == Some("bytes=200000")));
    bench.sandbox.stop().await;
}

#[tokio::test]
async fn an_upgraded_connection_echoes() {
    let bench = Bench::new().await;
    let address = bench.sandbox.urls.app.strip_prefix("http://").unwrap().to_owned();

    let mut bytes = TcpStream::connect(&address).await.unwrap();
    bytes
        .write_all(b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: bytes\r\n\r\nping")
        .await
        .unwrap();
    assert!(head(&mut bytes).await.starts_with("HTTP/1.1 101"));
    let mut echoed = [0; 4];
    bytes.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");

    // The handshake and the masked "Hello" are the examples of RFC 6455 1.3 and 5.7.
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    assert!(head(&mut socket).await.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    socket.write_all(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]).await.unwrap();
    let mut frame = [0; 7];
    socket.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x81\x05Hello");
    bench.sandbox.stop().await;
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
