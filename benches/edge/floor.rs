//! The floor of the edge benchmark: hyper and a pool of connections on a thread for each core, and nothing else. No routes,
//! limits, deadlines or metrics, and a 402 that is always the same. What galaksio costs beyond this is its own doing; what
//! this costs beyond nginx is the price of the libraries.
//!
//! `floor passthrough PORT UPSTREAM_PORT`, or `floor challenge PORT HEADER_BYTES BODY_BYTES`.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, VIA};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1::Builder as Server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone)]
enum Mode {
    Passthrough { upstream: u16 },
    Challenge { header: HeaderValue, body: Bytes },
}

type Accepted = std::net::TcpStream;
type Idle = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<u16> {
        arguments.get(at).context("an argument is missing")?.parse().context("not a number")
    };
    let mode = match arguments.first().map(String::as_str) {
        Some("passthrough") => Mode::Passthrough { upstream: number(2)? },
        Some("challenge") => Mode::Challenge {
            header: HeaderValue::from_bytes(&vec![b'x'; number(2)?.into()])?,
            body: vec![b'x'; number(3)?.into()].into(),
        },
        _ => bail!("passthrough or challenge?"),
    };
    let port = number(1)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut workers = Vec::new();
    for _ in 0..thread::available_parallelism()?.get() {
        let (sender, receiver) = unbounded_channel();
        let mode = mode.clone();
        thread::spawn(move || work(mode, receiver));
        workers.push(sender);
    }
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            for worker in &workers {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                worker.send(stream.into_std()?)?;
            }
        }
    })
}

fn work(mode: Mode, mut accepted: UnboundedReceiver<Accepted>) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let idle = Idle::default();
        while let Some(stream) = accepted.recv().await {
            let io = TokioIo::new(TcpStream::from_std(stream)?);
            let (mode, idle) = (mode.clone(), idle.clone());
            spawn_local(async move {
                match mode {
                    Mode::Challenge { header, body } => {
                        let answer = service_fn(|request| challenge(request, header.clone(), body.clone()));
                        Server::new().serve_connection(io, answer).await
                    }
                    Mode::Passthrough { upstream } => {
                        let answer = service_fn(|request| pass(request, upstream, idle.clone()));
                        Server::new().serve_connection(io, answer).await
                    }
                }
            });
        }
        Ok(())
    })
}

async fn challenge(
    request: Request<Incoming>,
    header: HeaderValue,
    body: Bytes,
) -> Result<Response<Full<Bytes>>> {
    request.into_body().collect().await?;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::PAYMENT_REQUIRED;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("payment-required", header);
    Ok(response)
}

async fn pass(mut request: Request<Incoming>, upstream: u16, idle: Idle) -> Result<Response<Passing>> {
    let host = request.headers().get(HOST).cloned().context("no host")?;
    let headers = request.headers_mut();
    headers.insert("x-forwarded-for", HeaderValue::from_static("127.0.0.1"));
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    headers.insert("x-forwarded-host", host);
    headers.insert(VIA, HeaderValue::from_static("1.1 floor"));
    let kept = idle.borrow_mut().pop();
    let mut sender = match kept {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            spawn_local(connection);
            sender
        }
    };
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| Passing { body, sender: Some(sender), idle }))
}

/// An answer on its way; its connection is free afterwards.
struct Passing {
    body: Incoming,
    sender: Option<SendRequest<Incoming>>,
    idle: Idle,
}

impl Body for Passing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take()
            && sender.is_ready()
        {
            self.idle.borrow_mut().push(sender);
        }
    }
}
