//! The facilitator over HTTP, for gateways and servers elsewhere: `POST /verify`, `POST /settle`, `GET /supported`.
//!
//! Whoever reaches it can make it spend gas, though never send money anywhere but where its owner signed it to. So it
//! belongs on loopback or a private network. An answer of 2xx or 4xx is a verdict; 5xx proves nothing.
//! Source: x402 specification v1 and v2, section 7 (facilitator interface).

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Callers, LocalFacilitator};
use crate::facilitator::{Facilitator, FacilitatorError, PaymentRequest, Settlement, Verdict};
use crate::x402::Version;

/// Connections at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1_024;

/// A request's body at most. A payment header is 32 KiB, and its requirement comes twice.
const MAX_BODY: usize = 256 * 1024;

/// A request must be complete within this time; an idle connection is closed after it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a request head at most.
const MAX_HEAD: usize = 16 * 1024;

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A bound listener that does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: StdListener,
    address: SocketAddr,
}

/// The body of `/verify` and `/settle`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    x402_version: Version,
    payment_payload: Box<RawValue>,
    payment_requirements: Box<RawValue>,
}

impl Server {
    /// Binds `address`; port 0 takes a free one.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bind = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Server { listener, address })
        };
        bind().map_err(|source| BindError { address, source })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is ready, then lets answers in progress end, for `grace` at most. A settlement runs on
    /// though its caller is gone.
    pub async fn serve(
        self,
        facilitator: Arc<LocalFacilitator>,
        callers: Callers,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) -> std::io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&listener, (&facilitator, callers), &mut connections, stopped) => {}
            () = stop => {}
        }
        drop((listener, stopping));
        let ended = async { while connections.join_next().await.is_some() {} };
        // What is left after that is cut when the set is dropped.
        let _ = timeout(grace, ended).await;
        Ok(())
    }
}

async fn accept(
    listener: &TcpListener,
    (facilitator, callers): (&Arc<LocalFacilitator>, Callers),
    connections: &mut JoinSet<()>,
    stopped: watch::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: trying again at once would only burn the processor.
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (facilitator, stopped) = (Arc::clone(facilitator), stopped.clone());
        connections.spawn(async move {
            serve_connection(stream, facilitator, callers, stopped).await;
            drop(place);
        });
        // Tasks that have ended are collected here, so the set does not grow.
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(
    stream: TcpStream,
    facilitator: Arc<LocalFacilitator>,
    callers: Callers,
    mut stopped: watch::Receiver<()>,
) {
    // Answers are small, and somebody waits for each.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let facilitator = Arc::clone(&facilitator);
        async move { Ok::<_, Infallible>(answer(&facilitator, callers, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // The sender is dropped when the server stops.
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(
    facilitator: &LocalFacilitator,
    callers: Callers,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let settle = match (&head.method, head.uri.path()) {
        (&Method::GET, "/supported") => return supported(facilitator).await,
        (&Method::POST, "/verify") => false,
        (&Method::POST, "/settle") => true,
        (_, "/verify" | "/settle" | "/supported") => {
            return error(StatusCode::METHOD_NOT_ALLOWED, "use POST /verify, POST /settle or GET /supported");
        }
        _ => return error(StatusCode::NOT_FOUND, "there are /verify, /settle and /supported"),
    };
    let body = match timeout(REQUEST_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error_)) if error_.is::<LengthLimitError>() => {
            return error(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 256 KiB");
        }
        Ok(Err(_)) => return error(StatusCode::BAD_REQUEST, "the body was cut off"),
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let call: Call = match serde_json::from_slice(&body) {
        Ok(call) => call,
        Err(why) => return error(StatusCode::BAD_REQUEST, &super::rpc::words(&why.to_string())),
    };
    let payer = echo(&call.payment_payload, "/payload/authorization/from");
    let network = echo(&call.payment_requirements, "/network");
    let request = PaymentRequest {
        x402_version: call.x402_version,
        payment_payload: call.payment_payload,
        payment_requirements: call.payment_requirements,
    };
    let answer = if settle {
        facilitator.settle_for(&request, callers).await.map(|settlement| told(settlement, &network, &payer))
    } else {
        facilitator.verify(&request).await.map(|verdict| judged(verdict, &payer))
    };
    match answer {
        Ok(answer) => json_answer(StatusCode::OK, &answer),
        Err(FacilitatorError::NotSent(why)) => error(StatusCode::SERVICE_UNAVAILABLE, &why),
        Err(FacilitatorError::Unknown(why)) => error(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

fn judged(verdict: Verdict, payer: &Value) -> Value {
    match verdict {
        Verdict::Valid => json!({ "isValid": true, "payer": payer }),
        Verdict::Invalid { reason, message } => {
            let mut answer = json!({ "isValid": false, "invalidReason": reason, "payer": payer });
            if let Some(message) = message {
                answer["invalidMessage"] = message.into();
            }
            answer
        }
    }
}

/// Payer and network are written as the caller wrote them: some compare them as text.
fn told(settlement: Settlement, network: &Value, payer: &Value) -> Value {
    let (Settlement::Settled(receipt) | Settlement::Pending(receipt) | Settlement::Refused(receipt)) =
        settlement;
    let mut answer = json!({
        "success": receipt.success,
        "transaction": receipt.transaction,
        "network": network,
        "payer": payer,
    });
    if let Some(reason) = receipt.error_reason {
        answer["errorReason"] = reason.into();
    }
    if let Some(message) = receipt.error_message {
        answer["errorMessage"] = message.into();
    }
    answer
}

async fn supported(facilitator: &LocalFacilitator) -> Response<Full<Bytes>> {
    let kinds = match facilitator.supported().await {
        Ok(kinds) => kinds,
        Err(why) => return error(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
    };
    let kinds: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            let network = match (kind.version, kind.network.v1_name()) {
                (Version::V1, Some(name)) => name.to_owned(),
                _ => kind.network.to_string(),
            };
            json!({ "x402Version": kind.version, "scheme": kind.scheme, "network": network })
        })
        .collect();
    let signers: Vec<String> =
        facilitator.account().iter().map(|account| account.to_checksum(None)).collect();
    json_answer(
        StatusCode::OK,
        &json!({ "kinds": kinds, "extensions": [], "signers": { "eip155:*": signers } }),
    )
}

/// The text at `pointer`, as it was sent; empty if there is none.
fn echo(document: &RawValue, pointer: &str) -> Value {
    let document: Value = serde_json::from_str(document.get()).unwrap_or_default();
    document.pointer(pointer).filter(|value| value.is_string()).cloned().unwrap_or_else(|| "".into())
}

fn error(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json_answer(status, &json!({ "error": why }))
}

fn json_answer(status: StatusCode, document: &Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(document.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
