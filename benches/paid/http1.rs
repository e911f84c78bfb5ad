//! As little of HTTP/1.1 as a measurement needs: messages with a `Content-Length`, on kept connections.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A request or an answer, as it was sent.
pub(crate) struct Message {
    whole: Bytes,
    head: usize,
}

impl Message {
    /// The first line and the fields.
    pub(crate) fn head(&self) -> &[u8] {
        &self.whole[..self.head]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.whole[self.head..]
    }

    /// Of an answer.
    pub(crate) fn status(&self) -> u16 {
        let digits = self.whole.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
    }

    /// A field's value, by its name in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head().split(|byte| *byte == b'\n').skip(1).find_map(|line| {
            let (found, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name.as_bytes()))?;
            std::str::from_utf8(value).ok().map(str::trim)
        })
    }
}

/// A connection's reading half: what came with one message may belong to the next.
#[derive(Default)]
pub(crate) struct Reader {
    buffer: BytesMut,
}

impl Reader {
    /// The next message; `None` at the end of the connection.
    pub(crate) async fn next(&mut self, stream: &mut TcpStream) -> Option<Message> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            if stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Message> {
        let head = memmem::find(&self.buffer, b"\r\n\r\n")? + 4;
        let message = Message { whole: Bytes::copy_from_slice(&self.buffer[..head]), head };
        assert!(message.field("transfer-encoding").is_none(), "a message without Content-Length");
        let length: usize = message.field("content-length").map_or(0, |length| length.parse().unwrap());
        if self.buffer.len() < head + length {
            self.buffer.reserve(length);
            return None;
        }
        Some(Message { whole: self.buffer.split_to(head + length).freeze(), head })
    }
}
