//! HTTP/1.1 by hand, so that tests can send what no client library would.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A test that waits longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection, and what was read of it but not yet used.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response, read to the end of its framing.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The values of a field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn closes(&self) -> bool {
        self.all("connection").contains(&"close")
    }
}

impl Wire {
    pub(crate) async fn connect(addr: SocketAddr) -> Wire {
        Wire { stream: TcpStream::connect(addr).await.unwrap(), buffer: Vec::new() }
    }

    pub(crate) fn over(stream: TcpStream) -> Wire {
        Wire { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// A connection on which `request` was sent before the gateway took it for idle: where idle connections are closed
    /// soon and the machine is busy, that may need another try.
    pub(crate) async fn heard(addr: SocketAddr, request: impl AsRef<[u8]>) -> Wire {
        let connecting = async {
            loop {
                let mut wire = Wire::connect(addr).await;
                wire.send(&request).await;
                let mut first = [0];
                // Closed without a word: it came too late.
                if !matches!(wire.stream.peek(&mut first).await, Ok(0) | Err(_)) {
                    return wire;
                }
            }
        };
        timeout(PATIENCE, connecting).await.expect("every connection is idle")
    }

    /// Sends a whole request and reads its answer.
    pub(crate) async fn ask(addr: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
        let mut wire = Wire::connect(addr).await;
        wire.send(request).await;
        wire.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.maybe_answer().await.expect("the connection was closed instead of answered")
    }

    /// The next answer; `None` if the connection ends before one begins.
    pub(crate) async fn maybe_answer(&mut self) -> Option<Answer> {
        let head = self.head().await?;
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        if status == 101 || status == 100 || status == 204 || status == 304 {
            return Some(answer);
        }
        if let Some(length) = answer.all("content-length").first() {
            let length = length.parse().unwrap();
            answer.body = self.exactly(length).await;
        } else if answer.all("transfer-encoding") == ["chunked"] {
            let (body, trailers) = self.chunked().await;
            answer.body = body;
            answer.head.push_str(&trailers);
        } else {
            answer.body = self.rest().await;
        }
        Some(answer)
    }

    /// Up to and including the empty line.
    pub(crate) async fn head(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return Some(self.buffer.drain(..end + 4).collect());
            }
            if !self.more().await {
                assert!(self.buffer.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.more().await, "ended {} bytes early", length - self.buffer.len());
        }
        self.buffer.drain(..length).collect()
    }

    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            assert!(self.more().await, "ended in the middle of a line");
        }
    }

    /// Content and trailers.
    pub(crate) async fn chunked(&mut self) -> (Vec<u8>, String) {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line().await, 16).unwrap();
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size).await);
            assert_eq!(self.exactly(2).await, b"\r\n");
        }
        let mut trailers = String::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return (body, trailers);
            }
            trailers.push_str(&line);
            trailers.push_str("\r\n");
        }
    }

    /// Everything to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads some more; `false` at the end, however it came.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("nothing came");
        matches!(read, Ok(bytes) if bytes > 0)
    }
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
