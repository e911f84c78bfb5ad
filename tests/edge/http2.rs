//! HTTP/2, over TLS and on a plain port.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use galaksio::config::resolved::Tls;
use galaksio::proxy::Refusal;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::gateway::{Running, Setup};
use crate::origin::Origin;
use crate::wire::{PATIENCE, Wire};

/// A gateway with a fresh certificate, and what a client needs to trust it.
fn tls(origin: &Origin, alpn: &[&[u8]]) -> (Running, TlsConnector, tempfile::TempDir) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    let mut setup = Setup::new(origin.addr);
    setup.edge.tls = Some(Tls { certificate, key });

    let mut roots = rustls::RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    (setup.start(), TlsConnector::from(Arc::new(config)), dir)
}

async fn connect(tls: &TlsConnector, addr: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let tcp = TcpStream::connect(addr).await.unwrap();
    tls.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
}

async fn http2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Full<Bytes>> {
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    send
}

fn request(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("https://shop.example{path}")).body(Full::new(body.into())).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn http2_over_tls_reaches_the_app_as_http1() {
    let mut origin = Origin::start().await;
    let (gateway, connector, _dir) = tls(&origin, &[b"h2"]);
    let mut client = http2(connect(&connector, gateway.addr).await).await;
    let mut ask = request("/x?y", "hello");
    ask.headers_mut().append("cookie", "a=1".parse().unwrap());
    ask.headers_mut().append("cookie", "b=2".parse().unwrap());
    let response = client.send_request(ask).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(text(response).await, "hello");
    let seen = origin.seen().await;
    assert_eq!(seen.line(), "POST /x?y HTTP/1.1");
    assert_eq!(seen.all("host"), ["shop.example"]);
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("via"), ["2.0 galaksio"]);
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let mut origin = Origin::start().await;
    let (gateway, connector, _dir) = tls(&origin, &[b"h2"]);
    let client = http2(connect(&connector, gateway.addr).await).await;
    let asks = (0..50).map(|_| {
        let mut client = client.clone();
        async move {
            let response = client.send_request(request("/", "x")).await.unwrap();
            text(response).await
        }
    });
    assert!(futures_util::future::join_all(asks).await.iter().all(|body| body == "x"));
    assert_eq!(origin.drain().len(), 50);
    let mut client = client;
    // The second is more than a stream's window, so it cannot all be sent before it is wanted.
    for body in [vec![b'x'; 6], vec![b'x'; 3 << 20]] {
        let response = client.send_request(request("/run", body)).await.unwrap();
        assert_eq!(response.status(), 402);
        assert!(response.headers().get("connection").is_none());
    }
}

#[tokio::test]
async fn large_heads_are_431_and_payments_fit() {
    let origin = Origin::start().await;
    let (gateway, connector, _dir) = tls(&origin, &[b"h2"]);
    let mut client = http2(connect(&connector, gateway.addr).await).await;
    let with = |bytes: usize| {
        let mut ask = request("/", "");
        ask.headers_mut().insert("payment-signature", "x".repeat(bytes).parse().unwrap());
        ask
    };
    assert_eq!(client.send_request(with(32 * 1024)).await.unwrap().status(), 200);
    assert_eq!(client.send_request(with(41 * 1024)).await.unwrap().status(), 431);
}

#[tokio::test]
async fn trailers_come_through() {
    let origin = Origin::start().await;
    let (gateway, connector, _dir) = tls(&origin, &[b"h2"]);
    let mut client = http2(connect(&connector, gateway.addr).await).await;
    let response = client.send_request(request("/trailers", "")).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
}

#[tokio::test]
async fn a_drained_client_is_told_and_its_request_finished() {
    let mut origin = Origin::start().await;
    let (mut gateway, connector, _dir) = tls(&origin, &[b"h2"]);
    let client = http2(connect(&connector, gateway.addr).await).await;
    let mut busy = client.clone();
    let asked =
        tokio::spawn(async move { text(busy.send_request(request("/slow", "")).await.unwrap()).await });
    origin.seen().await;
    gateway.stop.drain();
    gateway.drain.wait_started().await;
    origin.go.notify_one();
    assert_eq!(asked.await.unwrap(), "slow");
    gateway.ended().await;
    // The client's own task notices a moment later.
    let noticed = async {
        while !client.is_closed() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, noticed).await.expect("it is not told");
}

#[tokio::test]
async fn tls_speaks_http1_too() {
    let mut origin = Origin::start().await;
    let (gateway, connector, _dir) = tls(&origin, &[b"http/1.1"]);
    let io = connect(&connector, gateway.addr).await;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let ask = Request::get("/").header("host", "a").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(send.send_request(ask).await.unwrap().status(), 200);
    assert_eq!(origin.seen().await.all("x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_counted_and_closed() {
    let mut origin = Origin::start().await;
    let (gateway, _connector, _dir) = tls(&origin, &[b"h2"]);
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wire.rest().await;
    gateway.quiet().await;
    assert_eq!(*gateway.log.refused.lock().unwrap(), [Refusal::Handshake]);
    assert!(origin.drain().is_empty());
}

#[tokio::test]
async fn http2_by_prior_knowledge_works_on_a_plain_port() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut client = http2(TcpStream::connect(gateway.addr).await.unwrap()).await;
    let ask = Request::get("http://shop.example/x").body(Full::default()).unwrap();
    assert_eq!(client.send_request(ask).await.unwrap().status(), 200);
    assert_eq!(origin.seen().await.all("x-forwarded-proto"), ["http"]);
}
