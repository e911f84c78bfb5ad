//! What is sent: a head, one piece again and again, and a tail. Never whole in memory, nor on a disk.

use std::io::{self, Write};
use std::sync::OnceLock;

use bytes::Bytes;
use ring::digest::{Context, SHA256};

use crate::cid::cid;
use crate::source::Source;

pub(crate) const MIB: usize = 1 << 20;

/// A request's body, and where it goes.
pub(crate) struct Payload {
    pub(crate) path: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) head: Vec<u8>,
    pub(crate) piece: Bytes,
    pub(crate) times: usize,
    pub(crate) tail: Vec<u8>,
    /// What it stores: this piece as often.
    stored: Bytes,
    stored_times: usize,
    cid: OnceLock<String>,
}

/// Bytes that are neither text nor JSON.
pub(crate) fn piece(bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at * 7 % 251) as u8).collect()
}

impl Payload {
    pub(crate) fn raw(mib: usize) -> Payload {
        Payload::around("/store?permanent=true", "application/octet-stream", "", "", mib)
    }

    pub(crate) fn form(mib: usize) -> Payload {
        let head = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\
            Content-Type: application/octet-stream\r\n\r\n";
        let kind = "multipart/form-data; boundary=b";
        Payload::around("/store?permanent=true", kind, head, "\r\n--b--\r\n", mib)
    }

    /// The request is short; the source has the bytes.
    pub(crate) fn url(source: &Source, mib: usize) -> Payload {
        let head =
            format!("{{\"data\":{{\"url\":\"{}\"}},\"options\":{{\"permanent\":true}}}}", source.url(mib));
        Payload { times: 0, ..Payload::around("/store", "application/json", &head, "", mib) }
    }

    /// So many MiB of base64.
    pub(crate) fn json(mib: usize) -> Payload {
        let stored = piece(MIB / 4 * 3);
        let text = base64_simd::STANDARD.encode_to_string(&stored);
        let head = "{\"options\":{\"permanent\":true},\"data\":\"";
        Payload {
            piece: text.into(),
            stored,
            ..Payload::around("/store", "application/json", head, "\"}", mib)
        }
    }

    fn around(path: &'static str, kind: &'static str, head: &str, tail: &str, mib: usize) -> Payload {
        let piece = piece(MIB);
        let (head, tail) = (head.as_bytes().to_vec(), tail.as_bytes().to_vec());
        Payload {
            path,
            kind,
            head,
            stored: piece.clone(),
            piece,
            times: mib,
            tail,
            stored_times: mib,
            cid: OnceLock::new(),
        }
    }

    /// Bytes of the body.
    pub(crate) fn length(&self) -> usize {
        self.head.len() + self.piece.len() * self.times + self.tail.len()
    }

    /// Bytes that it stores.
    pub(crate) fn content(&self) -> usize {
        self.stored.len() * self.stored_times
    }

    /// Bytes that come to the gateway for it, whoever sends them.
    pub(crate) fn sent(&self) -> usize {
        self.length().max(self.content())
    }

    pub(crate) fn write(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(&self.head)?;
        for _ in 0..self.times {
            out.write_all(&self.piece)?;
        }
        out.write_all(&self.tail)
    }

    /// What IPFS calls what it stores. Found out once, which takes seconds.
    pub(crate) fn cid(&self) -> &str {
        self.cid.get_or_init(|| {
            let mut digest = Context::new(&SHA256);
            (0..self.stored_times).for_each(|_| digest.update(&self.stored));
            cid(digest.finish().as_ref())
        })
    }
}
