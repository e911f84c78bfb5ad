//! OpenX402: stores a file on IPFS, for good.
//!
//! Files take two steps: `POST /upload` is free and yields an id, `GET /pin/{id}` is paid and yields the CID, so a
//! failed upload costs nothing, and a file may be passed on while it still arrives. JSON documents take one, `POST /pin/json`, paid. CIDs are served by Pinata's gateway.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::encode::{Form, FormFile};
use super::exchange::{Exchange, Line, at, is_plain_id, is_web_url, object, success, whole};
use super::{Arriving, Done, Fault, NotSold, Offer, Operation, Order, Pays, Provider, ProviderError, Purse};
use crate::config::resolved;
use crate::intake::{Ask, Content, Data, Kind, Label, Wanted};
use crate::outgoing::{Call, Parts, Streamed};

const NAME: &str = "openx402";
const PIN: Operation = "pin";
const PIN_JSON: Operation = "pin_json";
/// Bytes of a document that take longer to read than a connection's thread should.
const LONG: usize = 64 << 10;
const GATEWAY: &str = "https://gateway.pinata.cloud/ipfs/";

/// The adapter. Operations, and their payment steps: `pin`, `pin_json`.
///
/// Results: `success`, `cid` = `ipfsHash`, `url` = `ipfsUrl` = `pinataUrl`, `size`, `endpoint`, `provider`.
#[derive(Clone, Debug)]
pub struct OpenX402 {
    line: Line,
    config: resolved::OpenX402,
}

impl OpenX402 {
    pub(super) fn new(line: Line, config: resolved::OpenX402) -> Self {
        OpenX402 { line, config }
    }

    fn pin_json(&self, body: bytes::Bytes) -> Result<Call, ProviderError> {
        Ok(Call::json(Method::POST, at(&self.config.url, "/pin/json")?, body))
    }

    /// The challenge does not depend on the document, so the probe sends none of it.
    fn pin_json_probe(&self) -> Result<Call, ProviderError> {
        self.pin_json(bytes::Bytes::from_static(b"{}"))
    }

    async fn store_json(
        &self,
        exchange: &Exchange<'_>,
        order: &Order,
        purse: &dyn Purse,
    ) -> Result<Done, ProviderError> {
        let document = whole(&order.content.data).await?;
        if !is_json(document.clone()).await {
            return Err(ProviderError::new(Fault::Refused, "the document is not valid JSON"));
        }
        let challenge = exchange.challenge(self.pin_json_probe()?).await?;
        let answer = exchange.paid(purse, PIN_JSON, &challenge, self.pin_json(document)?).await?;
        pinned(&object(&answer)?, "/pin/json", order)
    }

    async fn store_file(
        &self,
        exchange: &Exchange<'_>,
        order: &Order,
        purse: &dyn Purse,
    ) -> Result<Done, ProviderError> {
        let id = match &order.content.data {
            Data::Received(received) => received.handle.clone(),
            data => self.upload(exchange, &order.content, data).await?,
        };
        let pin = Call::get(at(&self.config.url, &format!("/pin/{id}"))?);
        let challenge = exchange.challenge(pin.clone()).await?;
        let answer = exchange.paid(purse, PIN, &challenge, pin).await?;
        pinned(&object(&answer)?, "/pin", order)
    }

    /// Uploads the file and returns its id. Free; nothing is paid for a file that did not arrive whole.
    async fn upload(
        &self,
        exchange: &Exchange<'_>,
        content: &Content,
        data: &Data,
    ) -> Result<String, ProviderError> {
        let form = form(content.filename.as_deref(), content.content_type.as_deref());
        let mut body = Parts::from(form.head);
        match data {
            Data::File(file) => body.push_file(file.clone()),
            data => body.push(whole(data).await?),
        }
        body.push(form.tail);
        let call = Call::new(Method::POST, at(&self.config.url, "/upload")?, body);
        let answer = exchange.call(call.header(CONTENT_TYPE, form.content_type)).await?;
        uploaded(&object(&success(answer)?)?, data.size())
    }
}

/// Whether it is JSON. A long one is read where no client waits for it.
async fn is_json(document: bytes::Bytes) -> bool {
    let long = document.len() > LONG;
    let read = move || serde_json::from_slice::<IgnoredAny>(&document).is_ok();
    if long { tokio::task::spawn_blocking(read).await.unwrap_or(false) } else { read() }
}

fn form(name: Option<&str>, content_type: Option<&str>) -> Form {
    let content_type = content_type.unwrap_or_default();
    FormFile { field: "file", name: name.unwrap_or("file"), content_type }.encode()
}

/// The id of an upload that arrived whole.
fn uploaded(answer: &Map<String, Value>, size: u64) -> Result<String, ProviderError> {
    if answer.get("size").and_then(Value::as_u64).is_some_and(|arrived| arrived != size) {
        return Err(ProviderError::new(Fault::Broken, "the upload arrived with another size"));
    }
    match text(answer, "id") {
        Some(id) if is_plain_id(id) && !failed(answer) => Ok(id.to_owned()),
        _ => Err(ProviderError::new(Fault::Broken, "the upload's answer has no usable id")),
    }
}

#[async_trait]
impl Provider for OpenX402 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn sells(&self, ask: &Ask) -> Result<Operation, NotSold> {
        match &ask.wanted {
            Wanted::Run { .. } => Err(NotSold::Operation { provider: NAME }),
            Wanted::Store { ttl: Some(ttl), .. } => {
                Err(NotSold::Option { provider: NAME, option: format!("ttl {ttl}") })
            }
            Wanted::Store { .. } if ask.size > self.config.max_file => {
                Err(NotSold::Size { provider: NAME, limit: self.config.max_file })
            }
            Wanted::Store { .. } if ask.kind == Kind::Json => Ok(PIN_JSON),
            Wanted::Store { .. } => Ok(PIN),
        }
    }

    async fn offer(&self, operation: Operation, _: &Ask) -> Result<Offer, ProviderError> {
        let probe = match operation {
            PIN_JSON => self.pin_json_probe()?,
            // Any id is answered with the price.
            _ => Call::get(at(&self.config.url, "/pin/quote_request")?),
        };
        self.line.offer(probe).await
    }

    fn pays(&self, operation: &str) -> Pays {
        if operation == PIN { Pays::AfterBody } else { Pays::WithHead }
    }

    async fn receive(
        &self,
        label: &Label,
        arriving: Arriving,
        deadline: Duration,
    ) -> Result<String, ProviderError> {
        let form = form(label.filename.as_deref(), label.content_type.as_deref());
        let passed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&passed);
        let stream = arriving.stream.map_frame(move |frame| {
            counter.fetch_add(frame.data_ref().map_or(0, |data| data.len() as u64), Ordering::Relaxed);
            frame
        });
        let body = Streamed::new(form.head, stream.boxed_unsync(), arriving.length, form.tail);
        let call = Call::new(Method::POST, at(&self.config.url, "/upload")?, Parts::default())
            .header(CONTENT_TYPE, form.content_type);
        let answer = object(&success(self.line.open(deadline).stream(call, body).await?)?)?;
        uploaded(&answer, passed.load(Ordering::Relaxed))
    }

    /// An upload is kept for an hour, and pinning it is repeatable by its id. A document is not uploaded.
    async fn perform(&self, order: &Order, purse: &dyn Purse) -> Result<Done, ProviderError> {
        let exchange = self.line.open(order.deadline);
        match order.operation.as_str() {
            PIN => self.store_file(&exchange, order, purse).await,
            PIN_JSON => self.store_json(&exchange, order, purse).await,
            other => Err(ProviderError::new(Fault::Internal, format!("no such operation: {other}"))),
        }
    }
}

/// The result of a pin. Without a CID nothing was pinned, whatever the status says.
fn pinned(answer: &Map<String, Value>, endpoint: &str, order: &Order) -> Result<Done, ProviderError> {
    let cid = text(answer, "ipfsHash").filter(|cid| is_plain_id(cid) && !failed(answer));
    let cid = cid.ok_or_else(|| ProviderError::new(Fault::Broken, "the answer has no ipfsHash"))?;
    let url = match text(answer, "pinataUrl") {
        Some(url) if is_web_url(url) && url.contains(cid) => url.to_owned(),
        _ => format!("{GATEWAY}{cid}"),
    };
    let mut result = Map::new();
    result.insert("success".into(), true.into());
    result.insert("cid".into(), cid.into());
    result.insert("ipfsHash".into(), cid.into());
    for name in ["url", "ipfsUrl", "pinataUrl"] {
        result.insert(name.into(), url.clone().into());
    }
    result.insert("size".into(), order.content.data.size().into());
    result.insert("endpoint".into(), endpoint.into());
    result.insert("provider".into(), NAME.into());
    Ok(Done { result, ..Done::default() })
}

fn text<'a>(answer: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    answer.get(field).and_then(Value::as_str)
}

fn failed(answer: &Map<String, Value>) -> bool {
    answer.get("success") == Some(&Value::Bool(false))
}
