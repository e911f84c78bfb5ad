//! What is bought, as a request that can be sent any number of times.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::form::{self, Form, Piece};

/// Everything but the characters that mean themselves anywhere in a URL (RFC 3986 2.3).
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Order {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) content_type: Option<String>,
    pub(super) body: Body,
    pub(super) length: u64,
}

/// Where its body comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Memory(Bytes),
    File(PathBuf),
    /// One after the other.
    Pieces(Vec<Piece>),
}

impl Order {
    /// Stores a file, sent as it is, with the options in the query.
    pub(in crate::cli) fn store(
        gateway: &Uri,
        file: &Path,
        permanent: bool,
        ttl: Option<u64>,
        filename: Option<&str>,
    ) -> anyhow::Result<Order> {
        let length = form::length(file)?;
        let name = filename.map(str::to_owned).or_else(|| Some(file.file_name()?.to_str()?.to_owned()));
        let content_type = name
            .as_deref()
            .and_then(|name| mime_guess::from_path(name).first())
            .map_or_else(|| OCTETS.to_owned(), |guess| guess.essence_str().to_owned());
        let mut query = Vec::new();
        if let Some(name) = name {
            query.push(format!("filename={}", utf8_percent_encode(&name, QUERY)));
        }
        if permanent {
            query.push("permanent=true".to_owned());
        }
        if let Some(ttl) = ttl {
            query.push(format!("ttl={ttl}"));
        }
        Ok(Order {
            url: endpoint(gateway, "store", &query.join("&"))?,
            method: Method::POST,
            // A JSON type would say that the body is a request with `data` in it. The name still tells the kind.
            content_type: Some(if is_envelope(&content_type) { OCTETS.to_owned() } else { content_type }),
            body: Body::File(file.to_owned()),
            length,
        })
    }

    /// Stores several files by one payment.
    pub(super) fn store_all(
        gateway: &Uri,
        files: &[PathBuf],
        permanent: bool,
        ttl: Option<u64>,
    ) -> anyhow::Result<Order> {
        let form = Form::of(files)?;
        let mut query = vec![format!("files={}", files.len()), format!("size={}", form.largest)];
        if permanent {
            query.push("permanent=true".to_owned());
        }
        if let Some(ttl) = ttl {
            query.push(format!("ttl={ttl}"));
        }
        Ok(Order {
            url: endpoint(gateway, "store", &query.join("&"))?,
            method: Method::POST,
            content_type: Some(form.content_type),
            body: Body::Pieces(form.pieces),
            length: form.length,
        })
    }

    /// Runs a program, sent in JSON.
    pub(super) fn run(gateway: &Uri, file: &Path, language: &str) -> anyhow::Result<Order> {
        let code =
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        if code.trim().is_empty() {
            bail!("{} is empty", file.display());
        }
        // Without `encoding`, code that happens to be valid base64 would be decoded.
        let body = json!({ "code": code, "language": language, "encoding": "utf8" }).to_string();
        Order::json(endpoint(gateway, "run", "")?, body)
    }

    /// Posts a JSON document.
    pub(in crate::cli) fn json(url: Uri, document: String) -> anyhow::Result<Order> {
        Ok(Order {
            method: Method::POST,
            url,
            content_type: Some("application/json".to_owned()),
            length: u64::try_from(document.len())?,
            body: Body::Memory(Bytes::from(document)),
        })
    }

    /// Gets what is at `url`.
    pub(in crate::cli) fn get(url: Uri) -> Order {
        Order { method: Method::GET, url, content_type: None, body: Body::None, length: 0 }
    }
}

const OCTETS: &str = "application/octet-stream";

/// Types that are read as a request in JSON, or refused, rather than taken as the bytes to store.
fn is_envelope(essence: &str) -> bool {
    matches!(
        essence,
        "application/json" | "text/json" | "multipart/form-data" | "application/x-www-form-urlencoded"
    ) || essence.ends_with("+json")
}

fn endpoint(gateway: &Uri, name: &str, query: &str) -> anyhow::Result<Uri> {
    if gateway.query().is_some() || gateway.authority().is_none() {
        bail!("{gateway} is not the URL of a gateway; write one such as https://api.example.com");
    }
    let base = gateway.to_string();
    let question = if query.is_empty() { "" } else { "?" };
    Ok(format!("{}/{name}{question}{query}", base.trim_end_matches('/')).parse()?)
}
