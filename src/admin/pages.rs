//! The pages: `/health`, `/ready` and `/metrics`, answered from memory, at once; `/jobs` and `/ledger`, which ask the
//! store.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode, Uri};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use super::jobs::{FindJobs, Query};
use crate::clock::{Clock, rfc3339};
use crate::telemetry::Metrics;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether paid work is taken now, and if not, why. A snapshot: whoever makes it has asked the store and the wallet
/// before, in the background.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Shutting down: not ready, whatever the checks say.
    pub draining: bool,
    /// What must be well; all of them.
    pub checks: Vec<Check>,
}

/// One thing that must be well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `store`, `facilitator`, `wallet`.
    pub name: &'static str,
    /// Whether it is.
    pub ok: bool,
    /// Why not, for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only some routes need it: the others are served, so the gateway is ready without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_for: Option<&'static str>,
}

impl Readiness {
    /// Whether to answer 200.
    pub fn is_ready(&self) -> bool {
        !self.draining && self.checks.iter().all(|check| check.ok || check.only_for.is_some())
    }
}

/// Makes the books, as a text; with what a check of them found, if it is asked for. Else why not.
pub type KeepBooks = Box<dyn Fn(bool) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// What the pages are made from.
pub struct Pages {
    metrics: Arc<Metrics>,
    clock: Clock,
    readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    find: Option<FindJobs>,
    books: Option<KeepBooks>,
}

impl Pages {
    /// Pages over these metrics. `readiness` is called on every `/ready` and must not block.
    pub fn new(
        metrics: Arc<Metrics>,
        clock: Clock,
        readiness: impl Fn() -> Readiness + Send + Sync + 'static,
    ) -> Self {
        Pages { metrics, clock, readiness: Box::new(readiness), find: None, books: None }
    }

    /// With `/jobs`, which finds them so. For a listener on loopback.
    pub fn list_jobs(mut self, find: FindJobs) -> Self {
        self.find = Some(find);
        self
    }

    /// With `/ledger`, made so. For a listener on loopback.
    pub fn keep_books(mut self, books: KeepBooks) -> Self {
        self.books = Some(books);
        self
    }

    pub(super) async fn answer(&self, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
        let path = uri.path();
        if !matches!(path, "/health" | "/ready" | "/metrics" | "/jobs" | "/ledger") {
            let there_is = "there is /health, /ready, /metrics, /jobs and /ledger\n";
            return page(StatusCode::NOT_FOUND, TEXT, there_is);
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "the pages can only be read\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/health" => self.health(),
            "/ready" => self.ready(),
            "/metrics" => self.exposition(),
            "/ledger" => self.ledger(uri.query().unwrap_or_default()).await,
            _ => self.jobs(uri.query().unwrap_or_default()).await,
        }
    }

    async fn ledger(&self, query: &str) -> Response<Full<Bytes>> {
        let Some(books) = &self.books else {
            let why = "the books are shown on a loopback listener of a gateway that sells\n";
            return page(StatusCode::FORBIDDEN, TEXT, why);
        };
        if !matches!(query, "" | "check") {
            return page(StatusCode::BAD_REQUEST, TEXT, "there is ?check\n");
        }
        match books(query == "check").await {
            Ok(text) => page(StatusCode::OK, TEXT, text),
            Err(why) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        }
    }

    async fn jobs(&self, query: &str) -> Response<Full<Bytes>> {
        let Some(find) = &self.find else {
            let why = "jobs are listed on a loopback listener of a gateway that sells\n";
            return page(StatusCode::FORBIDDEN, TEXT, why);
        };
        let query = match Query::parse(query) {
            Ok(query) => query,
            Err(wrong) => return page(StatusCode::BAD_REQUEST, TEXT, wrong + "\n"),
        };
        match query.answer(find).await {
            Ok(list) => page(StatusCode::OK, JSON, list.to_string()),
            Err(away) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{away}\n")),
        }
    }

    /// The process answers; nothing else is claimed.
    fn health(&self) -> Response<Full<Bytes>> {
        let body = json!({
            "ok": true,
            "service": "galaksio",
            "version": env!("CARGO_PKG_VERSION"),
            "timestamp": rfc3339(self.clock.now_millis()),
        });
        page(StatusCode::OK, JSON, body.to_string())
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let readiness = (self.readiness)();
        let ready = readiness.is_ready();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = json!({
            "ready": ready,
            "draining": readiness.draining,
            "checks": readiness.checks,
            "timestamp": rfc3339(self.clock.now_millis()),
        });
        page(status, JSON, body.to_string())
    }

    fn exposition(&self) -> Response<Full<Bytes>> {
        match self.metrics.exposition() {
            Ok(text) => page(StatusCode::OK, EXPOSITION, text),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be written\n")
            }
        }
    }
}

fn page(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
