//! What is sent: the content as it is, or a template with a JSON value in each of its places.
//!
//! A template was cut at start into texts that are parts of a JSON document and places between them. Only whole JSON
//! values are put there, each written by a serialiser or proven to be one document, so nothing a client sends can end
//! the value it stands in.

use bytes::Bytes;
use http::HeaderValue;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::resolved::{Declared, DeclaredKind, Keeping, Placeholder, RequestBody, Segment, Template};
use crate::ids::JobId;
use crate::intake::Wanted;
use crate::outgoing::Parts;
use crate::providers::{Fault, Order, ProviderError};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What a client gave without a name is called so.
const FILENAME: &str = "file";

/// All that a request is filled with.
#[derive(Clone, Debug)]
pub(super) struct Filling<'a> {
    content: &'a Bytes,
    filename: &'a str,
    content_type: HeaderValue,
    language: &'a str,
    /// How long it is to be kept, where a time can be said.
    pub(super) ttl: Option<u64>,
    permanent: bool,
    request_id: String,
}

impl<'a> Filling<'a> {
    /// For an order, whose bytes these are.
    pub(super) fn of(config: &'a Declared, order: &'a Order, bytes: &'a Bytes) -> Self {
        let Order { ask, content, .. } = order;
        let named = content.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
        let (language, ttl) = match &ask.wanted {
            Wanted::Run { language } => (language.as_str(), None),
            Wanted::Store { ttl, .. } => ("", *ttl),
        };
        Filling {
            content: bytes,
            filename: content.filename.as_deref().unwrap_or(FILENAME),
            content_type: named.unwrap_or_else(|| usual_type(config)),
            language,
            ttl: kept_for(config, ttl),
            permanent: is_permanent(config),
            request_id: request_id(&config.name, order.job, order.attempt, order.part),
        }
    }

    /// For the question what it would cost.
    pub(super) fn sample(config: &'a Declared) -> Self {
        let language = match &config.kind {
            DeclaredKind::Run { languages } => languages.first().map_or("", String::as_str),
            DeclaredKind::StoreJson(_) | DeclaredKind::StoreFile(_) => "",
        };
        Filling {
            content: &config.sample,
            filename: FILENAME,
            content_type: usual_type(config),
            language,
            ttl: kept_for(config, None),
            permanent: is_permanent(config),
            // Never one of an order, and never one that was answered before.
            request_id: request_id(&config.name, JobId::new(), 0, 0),
        }
    }

    /// The request's media type and body.
    pub(super) fn body(&self, body: &RequestBody) -> Result<(HeaderValue, Parts), ProviderError> {
        match body {
            RequestBody::Raw => Ok((self.content_type.clone(), Parts::from(self.content.clone()))),
            RequestBody::Json(template) => Ok((JSON, self.fill(template)?)),
        }
    }

    fn fill(&self, template: &Template) -> Result<Parts, ProviderError> {
        let part = |segment: &Segment| match segment {
            Segment::Text(text) => Ok(text.clone()),
            Segment::Value(placeholder) => self.value(*placeholder),
        };
        template.0.iter().map(part).collect()
    }

    /// One JSON value, as text.
    fn value(&self, placeholder: Placeholder) -> Result<Bytes, ProviderError> {
        let refused = |what| ProviderError::new(Fault::Refused, what);
        let value: Value = match placeholder {
            Placeholder::Text => {
                let text = std::str::from_utf8(self.content);
                text.map_err(|_| refused("the content is not UTF-8 text"))?.into()
            }
            // Spelled as the client spelled it: its numbers may be beyond any of ours.
            Placeholder::Json => {
                let document: &RawValue = serde_json::from_slice(self.content)
                    .map_err(|_| refused("the document is not valid JSON"))?;
                return Ok(self.content.slice_ref(document.get().as_bytes()));
            }
            Placeholder::Base64 => base64_simd::STANDARD.encode_to_string(self.content).into(),
            Placeholder::Filename => self.filename.into(),
            Placeholder::ContentType => self.content_type.to_str().unwrap_or_default().into(),
            Placeholder::Size => self.content.len().into(),
            Placeholder::Language => self.language.into(),
            Placeholder::Ttl => self.ttl.into(),
            Placeholder::Permanent => self.permanent.into(),
            Placeholder::RequestId => self.request_id.as_str().into(),
        };
        Ok(value.to_string().into())
    }
}

/// Without a time of the client's, as long as it can be.
fn kept_for(config: &Declared, asked: Option<u64>) -> Option<u64> {
    match config.kind {
        DeclaredKind::StoreJson(Keeping::UpTo(longest)) | DeclaredKind::StoreFile(Keeping::UpTo(longest)) => {
            Some(asked.unwrap_or(longest.as_secs()))
        }
        _ => None,
    }
}

fn is_permanent(config: &Declared) -> bool {
    let permanent = Keeping::Permanent;
    matches!(&config.kind, DeclaredKind::StoreJson(how) | DeclaredKind::StoreFile(how) if *how == permanent)
}

fn usual_type(config: &Declared) -> HeaderValue {
    match config.kind {
        DeclaredKind::StoreJson(_) => JSON,
        DeclaredKind::StoreFile(_) => BYTES,
        DeclaredKind::Run { .. } => TEXT,
    }
}

/// Says nothing of the job to whoever does not know it.
fn request_id(provider: &str, job: JobId, attempt: u32, part: u16) -> String {
    let mut text = format!("galaksio request/{provider}/{job}/{attempt}");
    if part > 0 {
        text = format!("{text}/{part}");
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hex::encode(digest.as_ref().iter().take(16).copied().collect::<Vec<u8>>())
}
