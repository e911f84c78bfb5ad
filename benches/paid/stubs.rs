//! Who a seller depends on, at next to no cost: a facilitator that says yes at once, an app, and a provider of runs that
//! asks for a payment and takes any. They count what they are asked, so that a run can be held to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy::primitives::hex;
use galaksio::sandbox::{NETWORK, Service, pay_to};
use memchr::memmem;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::http1::{Message, Reader};
use crate::rig::asset;

/// What a run costs us, in atomic units.
const COST: &str = "280";

/// What was asked of the stubs so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) verified: u64,
    pub(crate) settled: u64,
    /// Requests to the app.
    pub(crate) worked: u64,
    /// Runs that the provider was paid for.
    pub(crate) bought: u64,
}

#[derive(Default)]
struct Counts {
    verified: AtomicU64,
    settled: AtomicU64,
    worked: AtomicU64,
    bought: AtomicU64,
}

/// All of them, on one thread and one port.
pub(crate) struct Stubs {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

impl Stubs {
    /// They end with this process.
    pub(crate) fn start() -> Stubs {
        let counts = Arc::<Counts>::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stub = Arc::new(Stub { counts: Arc::clone(&counts), challenge: challenge(), work: work() });
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { serve(TcpListener::from_std(listener).unwrap(), stub).await });
        });
        Stubs { address, counts }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Asked {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { verified, settled, worked, bought } = &*self.counts;
        Asked {
            verified: count(verified),
            settled: count(settled),
            worked: count(worked),
            bought: count(bought),
        }
    }
}

impl Asked {
    /// What was asked since `before`.
    pub(crate) fn since(self, before: Asked) -> Asked {
        Asked {
            verified: self.verified - before.verified,
            settled: self.settled - before.settled,
            worked: self.worked - before.worked,
            bought: self.bought - before.bought,
        }
    }
}

struct Stub {
    counts: Arc<Counts>,
    challenge: Vec<u8>,
    work: Vec<u8>,
}

async fn serve(listener: TcpListener, stub: Arc<Stub>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(connection(stream, Arc::clone(&stub)));
    }
}

async fn connection(mut stream: TcpStream, stub: Arc<Stub>) {
    let mut reader = Reader::default();
    while let Some(request) = reader.next(&mut stream).await {
        if stream.write_all(&stub.answer(&request)).await.is_err() {
            return;
        }
    }
}

impl Stub {
    fn answer(&self, request: &Message) -> Vec<u8> {
        let path = request.head().split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed) + 1;
        match path {
            b"/verify" => {
                count(&self.counts.verified);
                answer(200, format!("{{\"isValid\":true,\"payer\":\"{}\"}}", payer(request)).as_bytes())
            }
            b"/settle" => {
                let transaction = hex::encode(u256(count(&self.counts.settled)));
                let payer = payer(request);
                let settled = format!(
                    "{{\"success\":true,\"payer\":\"{payer}\",\"transaction\":\"0x{transaction}\",\"network\":\"{NETWORK}\"}}"
                );
                answer(200, settled.as_bytes())
            }
            b"/supported" => answer(200, supported().to_string().as_bytes()),
            b"/work" => {
                let done = count(&self.counts.worked);
                answer(200, format!("{{\"done\":{done},\"method\":\"POST\"}}").as_bytes())
            }
            b"/execute" if request.field("x-payment").is_some() => {
                count(&self.counts.bought);
                self.work.clone()
            }
            b"/execute" => self.challenge.clone(),
            _ => answer(404, b"{}"),
        }
    }
}

/// Who pays, as the payment says.
fn payer(request: &Message) -> &str {
    let body = request.body();
    let at = memmem::find(body, b"\"from\":\"").map(|at| at + 8);
    at.and_then(|at| std::str::from_utf8(body.get(at..at + 42)?).ok()).expect("a payment names its payer")
}

fn u256(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&number.to_be_bytes());
    word
}

fn supported() -> Value {
    json!({ "kinds": [
        { "x402Version": 1, "scheme": "exact", "network": "base-sepolia" },
        { "x402Version": 2, "scheme": "exact", "network": NETWORK.to_string() },
    ], "extensions": [], "signers": {} })
}

/// As Merit Systems asks for a payment, in short.
fn challenge() -> Vec<u8> {
    let asset = asset();
    let accept = json!({
        "scheme": "exact", "network": "base-sepolia", "maxAmountRequired": COST, "resource": "http://127.0.0.1/execute",
        "description": "Execute Python code in a sandbox", "mimeType": "application/json", "maxTimeoutSeconds": 1000,
        "payTo": pay_to(Service::Merit).to_string(), "asset": asset.address.to_string(),
        "extra": { "name": asset.name, "version": asset.version },
    });
    let body = json!({ "x402Version": 1, "error": "Payment Required", "accepts": [accept] });
    answer(402, body.to_string().as_bytes())
}

/// As it answers.
fn work() -> Vec<u8> {
    let result = json!({ "results": [], "logs": { "stdout": ["499500\n"], "stderr": [] }, "duration": 1 });
    answer(200, result.to_string().as_bytes())
}

fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        402 => "Payment Required",
        _ => "Not Found",
    };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
