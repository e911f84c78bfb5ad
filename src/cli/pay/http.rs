//! Sending an order: the body streamed from its file under a progress bar, the answer read whole.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Empty, Full, Limited, StreamBody};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::form::Piece;
use super::order::{Body, Order};

/// One request, from connecting to the last byte of the answer: an upload over a slow line, and paid work after it.
const DEADLINE: Duration = Duration::from_secs(900);

/// Bytes of an answer at most.
const MAX_ANSWER: usize = 32 << 20;

const CHUNK: usize = 64 << 10;

type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// Sends orders.
pub(in crate::cli) struct Client {
    client: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, RequestBody>,
    progress: bool,
}

/// A complete answer.
#[derive(Debug)]
pub(in crate::cli) struct Answer {
    pub(in crate::cli) status: StatusCode,
    pub(in crate::cli) headers: HeaderMap,
    pub(in crate::cli) body: Bytes,
}

impl Client {
    /// `progress`: whether a bar shows how much of a body has been sent.
    pub(in crate::cli) fn new(progress: bool) -> anyhow::Result<Client> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .build();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .http1_max_buf_size(256 << 10)
            .build(connector);
        Ok(Client { client, progress })
    }

    /// Sends `order`, paid if there is a payment. Any status is an answer.
    pub(in crate::cli) async fn send(
        &self,
        order: &Order,
        payment: Option<&(HeaderName, HeaderValue)>,
        doing: &'static str,
    ) -> anyhow::Result<Answer> {
        let bar = if self.progress { progress(order.length, doing) } else { ProgressBar::hidden() };
        let mut request = Request::builder()
            .method(&order.method)
            .uri(&order.url)
            .header(ACCEPT, "application/json, */*;q=0.5")
            .header(USER_AGENT, concat!("galaksio/", env!("CARGO_PKG_VERSION")));
        if let Some(content_type) = &order.content_type {
            request = request.header(CONTENT_TYPE, content_type).header(CONTENT_LENGTH, order.length);
        }
        if let Some((name, value)) = payment {
            request = request.header(name, value);
        }
        let request = request.body(body(order, bar.clone()))?;
        let exchange = async {
            let response = self.client.request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let outcome = tokio::time::timeout(DEADLINE, exchange).await;
        bar.finish_and_clear();
        outcome
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", DEADLINE.as_secs())))
            .with_context(|| format!("{} cannot be asked", order.url))
    }
}

impl Answer {
    /// Whether the gateway says that this same payment may still get its answer.
    pub(super) fn wants_same_payment(&self) -> bool {
        self.status.is_server_error() && self.json()["retry"] == "same_payment"
    }

    /// Whether the gateway says that the client's money did not move.
    pub(super) fn says_uncharged(&self) -> bool {
        self.json()["charged"] == "no"
    }

    /// `Retry-After`, if it is in seconds.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
    }

    /// What went wrong, in the gateway's words.
    pub(in crate::cli) fn error(&self) -> String {
        let json = self.json();
        let field = |name: &str| json[name].as_str().map(str::to_owned);
        let error = field("error").unwrap_or_else(|| format!("the gateway answered {}", self.status));
        let details = [("code", "code"), ("charged", "charged"), ("jobId", "job")]
            .iter()
            .filter_map(|(name, label)| Some(format!("{label} {}", field(name)?)))
            .collect::<Vec<_>>();
        if details.is_empty() { error } else { format!("{error} ({})", details.join(", ")) }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Hidden by the library where standard error is no terminal.
fn progress(length: u64, doing: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(doing);
    let style = "{msg:>16} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn body(order: &Order, bar: ProgressBar) -> RequestBody {
    match &order.body {
        Body::None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        Body::Memory(bytes) => {
            let whole = order.length;
            let body = Full::new(bytes.clone()).map_err(|never| match never {});
            body.map_frame(move |frame| {
                bar.set_position(whole);
                frame
            })
            .boxed_unsync()
        }
        Body::File(path) => file(path.clone(), order.length, bar),
        Body::Pieces(pieces) => {
            let pieces = pieces.clone().into_iter().map(move |piece| match piece {
                Piece::Memory(bytes) => {
                    bar.inc(bytes.len() as u64);
                    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
                }
                Piece::File(path, length) => file(path, length, bar.clone()),
            });
            let frames = stream::iter(pieces).flat_map(BodyStream::new);
            StreamBody::new(frames).boxed_unsync()
        }
    }
}

/// Streams exactly `length` bytes of the file: the length was announced, and the price was made for it.
fn file(path: PathBuf, length: u64, bar: ProgressBar) -> RequestBody {
    let start = (None::<File>, length);
    let chunks = stream::try_unfold(start, move |(open, left)| {
        let (path, bar) = (path.clone(), bar.clone());
        async move {
            if left == 0 {
                return Ok(None);
            }
            let mut file = match open {
                Some(file) => file,
                None => File::open(&path).await?,
            };
            let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let mut chunk = BytesMut::zeroed(wanted);
            let read = file.read(&mut chunk).await?;
            if read == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter while it was sent",
                ));
            }
            chunk.truncate(read);
            let read = u64::try_from(read).unwrap_or(left).min(left);
            bar.inc(read);
            Ok(Some((Frame::data(chunk.freeze()), (Some(file), left - read))))
        }
    });
    StreamBody::new(chunks).boxed_unsync()
}
