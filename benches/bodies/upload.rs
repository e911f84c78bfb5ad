//! Sending a payload over a connection of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use galaksio::x402::Challenge;
use http::HeaderMap;
use serde_json::Value;

use crate::client::HOST;
use crate::payer::{Payer, Payment};
use crate::payload::Payload;

/// What came back.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answered {
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
    }
}

/// The head of a request for this payload.
pub(crate) fn head(path: &str, more: &str, payload: &Payload) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Type: {}\r\nContent-Length: {}\r\n{more}\r\n",
        payload.kind,
        payload.length()
    )
}

pub(crate) fn post(address: SocketAddr, path: &str, more: &str, payload: &Payload) -> Answered {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(head(path, more, payload).as_bytes()).unwrap();
    // One that is answered early is not read on.
    let _ = payload.write(&stream);
    answer(stream)
}

fn answer(mut stream: TcpStream) -> Answered {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("no answer");
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    Answered { status, body: answer[end + 4..].to_vec() }
}

/// What is asked for it. JSON must be sent for that; other bodies are only announced.
pub(crate) fn price(address: SocketAddr, payload: &Payload) -> Challenge {
    let answered = if payload.kind == "application/json" {
        post(address, payload.path, "", payload)
    } else {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = head(payload.path, "Expect: 100-continue\r\n", payload);
        stream.write_all(head.as_bytes()).unwrap();
        answer(stream)
    };
    answered.expect(402);
    Challenge::from_response(&HeaderMap::new(), &answered.body).unwrap()
}

pub(crate) fn sign(address: SocketAddr, payer: &Payer, payload: &Payload) -> Payment {
    payer.pay(&price(address, payload))
}

/// Sends it, paid, and sees that what was stored is what was sent.
pub(crate) fn buy(address: SocketAddr, payment: &Payment, payload: &Payload) {
    let (name, value) = payment.header();
    let answered = post(address, payload.path, &format!("{name}: {value}\r\n"), payload);
    answered.expect(200);
    let result = &serde_json::from_slice::<Value>(&answered.body).unwrap()["result"];
    assert_eq!((&result["size"], &result["cid"]), (&payload.content().into(), &payload.cid().into()));
}

/// The same bytes by curl, from a pipe.
pub(crate) fn curl(address: SocketAddr, payload: &Payload) {
    let kind = format!("Content-Type: {}", payload.kind);
    let mut curl = Command::new("curl")
        .args(["-sSf", "-o", "/dev/null", "-X", "POST", "-T", "-", "-H", "Expect:", "-H", &kind])
        .arg(format!("http://{address}/upload"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    payload.write(curl.stdin.take().unwrap()).unwrap();
    let ended = curl.wait().unwrap();
    assert!(ended.success(), "curl: {ended}");
}
