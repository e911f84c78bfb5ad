//! Stands between a program and its chain's endpoint, and does to single calls what networks do.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use galaksio::outgoing::{Call, Outgoing, Settings};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing bad.
    None,
    /// Every connection breaks before anything was read.
    Down,
    /// This method's calls never arrive.
    Lost(&'static str),
    /// Every call arrives this late.
    Slow(Duration),
    /// This method's calls arrive, and their answers never come back.
    Unanswered(&'static str),
    /// Of several calls of this method in one batch, the first is refused, once; the others arrive.
    RefusedFirst(&'static str),
}

/// A relay to one endpoint. Ends when it is dropped.
pub(crate) struct Between {
    /// Where it listens.
    pub(crate) url: String,
    fault: Arc<Mutex<Fault>>,
    struck: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Between {
    pub(crate) async fn start(target: &str) -> Between {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fault = Arc::new(Mutex::new(Fault::None));
        let (count, struck) = watch::channel(0);
        let settings = Settings { connect_timeout: Duration::from_secs(5), allow_plain_http: false };
        let relay = Relay {
            target: target.to_owned(),
            outgoing: Outgoing::new(settings).unwrap(),
            fault: Arc::clone(&fault),
            count: Arc::new(count),
        };
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let relay = relay.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| relay.clone().pass(request));
                    // An error is the fault that was asked for.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Between { url, fault, struck, task }
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    /// Waits until this many calls in all were hit.
    pub(crate) async fn struck(&self, times: u64) {
        let waited = self.struck.clone().wait_for(|count| *count >= times).await.map(|_| ());
        waited.unwrap();
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Relay {
    target: String,
    outgoing: Outgoing,
    fault: Arc<Mutex<Fault>>,
    count: Arc<watch::Sender<u64>>,
}

impl Relay {
    async fn pass(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        let hit = |method: &str| text.contains(&format!("\"{method}\""));
        let fault = *self.fault.lock();
        let strike = || {
            self.count.send_modify(|count| *count += 1);
            Err(io::Error::other("the relay hung up"))
        };
        match fault {
            Fault::Down => return strike(),
            Fault::Slow(delay) => tokio::time::sleep(delay).await,
            Fault::Lost(method) if hit(method) => return strike(),
            _ => {}
        }
        let mut calls: Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
        let refused = match (fault, calls.as_array_mut()) {
            (Fault::RefusedFirst(method), Some(calls)) => {
                let of_method = |call: &Value| call["method"] == method;
                let first = calls.iter().position(of_method);
                first
                    .filter(|_| calls.iter().filter(|call| of_method(call)).count() > 1)
                    .map(|at| calls.remove(at))
            }
            _ => None,
        };
        let call =
            Call::json(Method::POST, self.target.parse().unwrap(), calls.to_string()).max_answer(64 << 20);
        let mut answer = self.outgoing.send(call, Duration::from_secs(30)).await.map_err(io::Error::other)?;
        if let Some(call) = refused {
            *self.fault.lock() = Fault::None;
            let mut answers: Vec<Value> = serde_json::from_slice(&answer.body).map_err(io::Error::other)?;
            let error = json!({ "code": -32_000, "message": "txpool is full" });
            answers.push(json!({ "jsonrpc": "2.0", "id": call["id"], "error": error }));
            answer.body = Value::from(answers).to_string().into();
            self.count.send_modify(|count| *count += 1);
        }
        match fault {
            Fault::Unanswered(method) if hit(method) => strike(),
            _ => Ok(Response::new(Full::new(answer.body))),
        }
    }
}
