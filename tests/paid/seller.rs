//! A seller that does as a test says, on a thread and a loopback port of its own. It asks for money and takes none, so what
//! it was sent is all there is to say about it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::rig::asset;

/// Whom it wants to be paid, unless a test says otherwise.
pub(crate) const PAYEE: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Its payment header.
    pub(crate) payment: Option<String>,
    /// Its header fields, by name in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What it answers.
pub(crate) enum Reply {
    Json(u16, Value),
    /// A whole answer, as it goes on the wire.
    Raw(Vec<u8>),
    /// The connection ends without a word.
    Drop,
    /// Whatever it writes; then the connection ends.
    Script(Writing),
}

/// Writes an answer.
pub(crate) type Writing = Box<dyn FnOnce(&mut TcpStream) -> std::io::Result<()> + Send>;

type Script = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

pub(crate) struct Seller {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Seller {
    /// `script` is told the request, and how many came before it.
    pub(crate) fn start(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Seller {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, ended) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let (log, over) = (Arc::clone(&seen), Arc::clone(&ended));
        let script: Box<Script> = Box::new(script);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // A client that went away is none of a seller's business.
                let _ = stream.map(|stream| serve(stream, &log, &script));
            }
        });
        Seller { address, seen, ended, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/run", self.base())
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// How many requests brought a payment.
    pub(crate) fn payments(&self) -> usize {
        self.seen.lock().iter().filter(|seen| seen.payment.is_some()).count()
    }
}

impl Drop for Seller {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A 402 of version 1 for so much, in the token of the sandbox.
pub(crate) fn terms(amount: u64, payee: &str) -> Value {
    json!({"x402Version": 1, "error": "payment required", "accepts": [{
        "scheme": "exact", "network": "base-sepolia", "maxAmountRequired": amount.to_string(),
        "resource": "http://127.0.0.1/run", "description": "", "mimeType": "application/json", "payTo": payee,
        "maxTimeoutSeconds": 300, "asset": asset().address.to_string(),
        "extra": {"name": asset().name, "version": asset().version},
    }]})
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Seen>>, script: &Script) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut stream = BufReader::new(stream);
    let (mut payment, mut length, mut headers) = (None, 0, BTreeMap::new());
    let mut first = String::new();
    stream.read_line(&mut first)?;
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            break;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "x-payment" | "payment-signature" => payment = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let seen = Seen { method, path, payment, headers, body };
    let before = {
        let mut log = log.lock();
        log.push(seen.clone());
        log.len() - 1
    };
    match script(&seen, before) {
        Reply::Drop => Ok(()),
        Reply::Raw(answer) => stream.get_mut().write_all(&answer),
        Reply::Script(script) => script(stream.get_mut()),
        Reply::Json(status, body) => {
            let body = body.to_string();
            let head = "content-type: application/json\r\nconnection: close";
            let length = body.len();
            write!(
                stream.get_mut(),
                "HTTP/1.1 {status} X\r\n{head}\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        }
    }
}
