//! A gateway in this process, with a seller that is not one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use galaksio::config::resolved::{Action, App, BrokeredWork, Edge, IpBlock, Route, Settle};
use galaksio::proxy::{
    self, Answer, Body, Bound, Drain, Exchange, Forward, Gateway, Kind, Observe, Own, OwnPaths, Peer,
    Refusal, RequestBody, Router, Sell, Stop, Strip,
};
use galaksio::reason::{Problem, Reason};
use galaksio::x402::PaymentFlow;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use tokio::sync::Notify;

/// How the gateway is set up, with short deadlines.
pub(crate) struct Setup {
    pub(crate) edge: Edge,
    pub(crate) app: App,
}

impl Setup {
    pub(crate) fn new(app: SocketAddr) -> Setup {
        let edge = Edge {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            tls: None,
            public_url: None,
            threads: Some(2),
            max_connections: 100,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(5),
            max_header_bytes: 40 * 1024,
            drain_timeout: Duration::from_secs(10),
            tunnel_drain_timeout: Duration::from_millis(100),
            tunnel_idle_timeout: Duration::from_secs(30),
            trusted_peers: Vec::new(),
            upgrade_socket: None,
        };
        let app = App {
            url: format!("http://{app}").parse().unwrap(),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(5),
            max_idle: 16,
        };
        Setup { edge, app }
    }

    pub(crate) fn trusting(mut self) -> Setup {
        self.edge.trusted_peers = vec![IpBlock { address: "127.0.0.0".parse().unwrap(), prefix: 8 }];
        self
    }

    pub(crate) fn start(self) -> Running {
        let bound = Bound::new(&self.edge).unwrap();
        self.start_on(bound, Stop::embedded())
    }

    pub(crate) fn start_on(self, bound: Bound, stop: Stop) -> Running {
        let priced = Action::Priced {
            price: "0.01".into(),
            settle: Settle::Success,
            description: String::new(),
            mime_type: String::new(),
        };
        let brokered = Action::Brokered { work: BrokeredWork::Run, settle: PaymentFlow::Authorization };
        let route = |path: &str, methods: &[Method], action| Route {
            path: path.into(),
            methods: methods.to_vec(),
            action,
        };
        let routes = [
            route("/run", &[Method::POST], brokered),
            route("/priced", &[], priced.clone()),
            route("/task", &[], priced.clone()),
            route("/keep", &[], priced),
        ];
        let own = OwnPaths { status: Some("status".into()), job: None, files: None, jobs: None };
        let forward = Arc::new(Forward::new(&self.app, self.edge.body_timeout, 2).unwrap());
        let drain = Drain::new();
        let (task_started, task_may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let seller = Seller {
            forward: forward.clone(),
            drain: drain.clone(),
            started: task_started.clone(),
            may_end: task_may_end.clone(),
        };
        let log = Arc::new(Log::default());
        let addr = bound.local_addrs()[0];
        let gateway = Gateway::new(
            self.edge,
            Router::new(&routes, own),
            forward,
            Arc::new(seller),
            Some(log.clone()),
            drain.clone(),
        );
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || bound.run(gateway, stopped));
        Running { addr, stop, drain, log, task_started, task_may_end, thread: Some(thread) }
    }
}

pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) stop: Stop,
    pub(crate) drain: Drain,
    pub(crate) log: Arc<Log>,
    pub(crate) task_started: Arc<Notify>,
    pub(crate) task_may_end: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Waits until the server has ended.
    pub(crate) async fn ended(&mut self) {
        let thread = self.thread.take().unwrap();
        tokio::time::timeout(crate::wire::PATIENCE, tokio::task::spawn_blocking(|| thread.join()))
            .await
            .expect("the server does not end")
            .unwrap()
            .unwrap();
    }

    /// Waits until no connection is left, so that the log is complete.
    pub(crate) async fn quiet(&self) {
        tokio::time::timeout(crate::wire::PATIENCE, self.drain.below(Kind::Connection, 1)).await.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What was observed.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) ended: Mutex<Vec<Line>>,
    pub(crate) refused: Mutex<Vec<Refusal>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) target: String,
    pub(crate) reason: Reason,
    pub(crate) status: Option<u16>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) complete: bool,
}

impl Log {
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.ended.lock().unwrap().clone()
    }
}

impl Observe for Log {
    fn wants_target(&self) -> bool {
        true
    }

    fn ended(&self, exchange: &Exchange<'_>) {
        self.ended.lock().unwrap().push(Line {
            target: exchange.target.map(ToString::to_string).unwrap_or_default(),
            reason: exchange.reason,
            status: exchange.status.map(|status| status.as_u16()),
            received: exchange.received,
            sent: exchange.sent,
            complete: exchange.complete,
        });
    }

    fn refused(&self, refusal: Refusal) {
        self.refused.lock().unwrap().push(refusal);
    }
}

struct Seller {
    forward: Arc<Forward>,
    drain: Drain,
    started: Arc<Notify>,
    may_end: Arc<Notify>,
}

impl Sell for Seller {
    fn sell(&self, rule: usize, request: Request<RequestBody>, peer: Peer) -> BoxFuture<'static, Answer> {
        match rule {
            // Answers before it has read anything.
            0 => Box::pin(async { Problem::new(Reason::PaymentRequired).into() }),
            // Reads all, and lets the app do it.
            1 => {
                let forward = self.forward.clone();
                Box::pin(async move {
                    let (parts, body) = request.into_parts();
                    let bytes = match body.collect().await {
                        Ok(body) => body.to_bytes(),
                        Err(error) => return Problem::new(error.reason()).into(),
                    };
                    match forward.send(parts, Body::from(bytes), &peer, Strip::Payment).await {
                        Ok(mut response) => {
                            response.headers_mut().insert(proxy::PAYMENT_RESPONSE, "ours".parse().unwrap());
                            Answer::new(response, Reason::Paid)
                        }
                        Err(problem) => problem.into(),
                    }
                })
            }
            // Answers, and lets go of the body later.
            3 => {
                let may_end = self.may_end.clone();
                tokio::spawn(async move {
                    may_end.notified().await;
                    drop(request);
                });
                Box::pin(async { Problem::new(Reason::PaymentRequired).into() })
            }
            // Works on when the client has gone.
            _ => {
                let (started, may_end) = (self.started.clone(), self.may_end.clone());
                let drain = self.drain.clone();
                Box::pin(async move {
                    let work = drain.spawn(async move {
                        started.notify_one();
                        may_end.notified().await;
                    });
                    work.await.unwrap();
                    Answer::new(Response::new(Body::from(Bytes::from("done"))), Reason::Paid)
                })
            }
        }
    }

    fn own(&self, own: Own, _request: Request<RequestBody>, _peer: Peer) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            let body = Bytes::from(format!("{own:?}"));
            Answer::new(Response::new(Body::from(body)), Reason::Own)
        })
    }
}
