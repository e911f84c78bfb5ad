//! OpenX402: stores a file on IPFS, for good.
//!
//! Files take two steps: `POST /upload` is free and yields an id, `GET /pin/{id}` is paid and yields the CID, so a
//! failed upload costs nothing. JSON documents take one, `POST /pin/json`, paid. CIDs are served by Pinata's gateway.

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use http::Method;
use http::header::CONTENT_TYPE;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::encode::FormFile;
use super::exchange::{Exchange, Line, at, is_plain_id, is_web_url, object, success};
use super::{Done, Fault, NotSold, Offer, Operation, Order, Provider, ProviderError, Purse};
use crate::config::resolved;
use crate::intake::{Ask, Kind, Wanted};
use crate::outgoing::{Call, Parts};

const NAME: &str = "openx402";
const PIN: Operation = "pin";
const PIN_JSON: Operation = "pin_json";
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
        let document = &order.content.bytes;
        if serde_json::from_slice::<IgnoredAny>(document).is_err() {
            return Err(ProviderError::new(Fault::Refused, "the document is not valid JSON"));
        }
        let challenge = exchange.challenge(self.pin_json_probe()?).await?;
        let answer = exchange.paid(purse, PIN_JSON, &challenge, self.pin_json(document.clone())?).await?;
        pinned(&object(&answer)?, "/pin/json", order)
    }

    async fn store_file(
        &self,
        exchange: &Exchange<'_>,
        order: &Order,
        purse: &dyn Purse,
    ) -> Result<Done, ProviderError> {
        let id = self.upload(exchange, order).await?;
        let pin = Call::get(at(&self.config.url, &format!("/pin/{id}"))?);
        let challenge = exchange.challenge(pin.clone()).await?;
        let answer = exchange.paid(purse, PIN, &challenge, pin).await?;
        pinned(&object(&answer)?, "/pin", order)
    }

    /// Uploads the file and returns its id. Free; nothing is paid for a file that did not arrive whole.
    async fn upload(&self, exchange: &Exchange<'_>, order: &Order) -> Result<String, ProviderError> {
        let content = &order.content;
        let file = FormFile {
            field: "file",
            name: content.filename.as_deref().unwrap_or("file"),
            content_type: content.content_type.as_deref().unwrap_or_default(),
        };
        let form = file.encode(content.bytes.clone());
        let call = Call::new(Method::POST, at(&self.config.url, "/upload")?, Parts::from_iter(form.slices))
            .header(CONTENT_TYPE, form.content_type);
        let answer = object(&success(exchange.call(call).await?)?)?;
        if let Some(size) = answer.get("size").and_then(Value::as_u64)
            && size != content.bytes.len() as u64
        {
            return Err(ProviderError::new(Fault::Broken, "the upload arrived with another size"));
        }
        match text(&answer, "id") {
            Some(id) if is_plain_id(id) && !failed(&answer) => Ok(id.to_owned()),
            _ => Err(ProviderError::new(Fault::Broken, "the upload's answer has no usable id")),
        }
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
    result.insert("size".into(), order.content.bytes.len().into());
    result.insert("endpoint".into(), endpoint.into());
    result.insert("provider".into(), NAME.into());
    Ok(Done { result, stored: None })
}

fn text<'a>(answer: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    answer.get(field).and_then(Value::as_str)
}

fn failed(answer: &Map<String, Value>) -> bool {
    answer.get("success") == Some(&Value::Bool(false))
}
