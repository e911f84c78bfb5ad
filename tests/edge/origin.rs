//! An app that records exactly what it received, and answers by the path.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use crate::wire::Wire;

/// A request as the app saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

impl Seen {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn path(&self) -> &str {
        self.line().split(' ').nth(1).unwrap()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}

pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    /// Lets the answers that wait for it go on.
    pub(crate) go: Arc<Notify>,
}

impl Origin {
    pub(crate) async fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, seen) = mpsc::unbounded_channel();
        let go = Arc::new(Notify::new());
        let gate = go.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(Wire::over(stream), tell.clone(), gate.clone()));
            }
        });
        Origin { addr, seen, go }
    }

    /// The next request; waits for it.
    pub(crate) async fn seen(&mut self) -> Seen {
        tokio::time::timeout(crate::wire::PATIENCE, self.seen.recv()).await.expect("no request came").unwrap()
    }

    /// All that has come and was not looked at.
    pub(crate) fn drain(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }
}

async fn serve(mut wire: Wire, tell: mpsc::UnboundedSender<Seen>, go: Arc<Notify>) {
    while let Some(head) = wire.head().await {
        let head = String::from_utf8(head).unwrap();
        let mut seen = Seen { head, body: Vec::new(), trailers: String::new() };
        if seen.path() == "/early" {
            let _ = tell.send(seen);
            wire.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
                .await;
            // As a real server would: not reset what is still being sent.
            let _ = wire.stream.shutdown().await;
            wire.rest().await;
            return;
        }
        if seen.all("expect") == ["100-continue"] && seen.path() != "/deaf" {
            if seen.path() == "/refuse" {
                let _ = tell.send(seen);
                wire.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
                return;
            }
            go.notified().await;
            wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        match (seen.all("content-length").as_slice(), seen.all("transfer-encoding").as_slice()) {
            ([], []) => {}
            ([length], []) => {
                let length = length.parse().unwrap();
                seen.body = wire.exactly(length).await;
            }
            ([], ["chunked"]) => (seen.body, seen.trailers) = wire.chunked().await,
            other => panic!("ambiguous framing reached the app: {other:?}"),
        }
        let path = seen.path().split('?').next().unwrap().to_owned();
        let head_only = seen.line().starts_with("HEAD ");
        let upgrade = seen.all("upgrade") == ["websocket"];
        let _ = tell.send(seen.clone());
        match path.as_str() {
            "/ws" if upgrade => {
                wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n").await;
                let (mut read, mut write) = wire.stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
                return;
            }
            "/ws" => wire.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n").await,
            "/switch" => {
                wire.send(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
                )
                .await;
            }
            "/slow" => {
                go.notified().await;
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
            }
            "/stall" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                wire.rest().await;
                return;
            }
            "/events" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await;
                go.notified().await;
                wire.send("data: 2\n\n").await;
                return;
            }
            "/trailers" => {
                wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n").await;
            }
            "/fields" => {
                wire.send("HTTP/1.1 207 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nPAYMENT-RESPONSE: app\r\nContent-Length: 1\r\n\r\n.").await;
            }
            "/none" => wire.send("HTTP/1.1 204 No Content\r\n\r\n").await,
            "/same" => wire.send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n").await,
            "/old" => {
                wire.send("HTTP/1.0 200 OK\r\n\r\nold").await;
                return;
            }
            "/coded" => {
                wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
                    .await;
            }
            "/garbage" => {
                wire.send("SSH-2.0-dropbear\r\n\r\n").await;
                return;
            }
            "/once" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce").await;
                // No `Connection: close`: the client's pool believes it is alive.
                return;
            }
            _ if head_only => wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await,
            _ => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
                wire.send(head).await;
                wire.send(&seen.body).await;
            }
        }
    }
    let _ = wire.stream.read(&mut [0]).await;
}
