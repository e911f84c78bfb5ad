//! The seam to metrics and the access log: one call at the end of each request, none if nobody listens.

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, StatusCode, Version};

use super::peer::Peer;
use super::router::Own;
use crate::ids::JobId;
use crate::money::Amount;
use crate::reason::Reason;

/// Whoever counts and logs. Called on the worker threads: must not block.
pub trait Observe: Send + Sync + 'static {
    /// Whether [`Exchange::target`] is wanted: it is kept for the length of the request only then.
    fn wants_target(&self) -> bool {
        false
    }

    /// A connection was accepted. Whether it becomes one that carries requests is not known yet.
    fn accepted(&self) {}

    /// A request ended: its answer was sent, or its client went away.
    fn ended(&self, exchange: &Exchange<'_>);

    /// A connection, or what should have become a request, was turned away before it was one.
    fn refused(&self, refusal: Refusal) {
        let _ = refusal;
    }
}

/// A request, at its end.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// Whose it was.
    pub peer: &'a Peer,
    /// HTTP version of the client's side.
    pub version: Version,
    /// Its method.
    pub method: &'a Method,
    /// Path and query, if [`Observe::wants_target`].
    pub target: Option<&'a PathAndQuery>,
    /// Which rule it fell under.
    pub route: RouteLabel,
    /// Why it ended as it did.
    pub reason: Reason,
    /// The job it is about, if it is about one.
    pub job: Option<JobId>,
    /// What the client was asked or charged, in atomic units.
    pub price: Option<Amount>,
    /// The status of the answer; `None` if the client went away before there was one.
    pub status: Option<StatusCode>,
    /// Bytes of the request's content that were read.
    pub received: u64,
    /// Bytes of the answer's content that were handed to the connection.
    pub sent: u64,
    /// From the end of the request's head to the end of the answer.
    pub took: Duration,
    /// Whether the answer was sent to its end.
    pub complete: bool,
}

/// Which rule a request fell under: an index of the configuration's routes, so the number of labels is
/// bounded by the operator, not by clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteLabel {
    /// No rule: free.
    Default,
    /// The rule with this index.
    Rule(usize),
    /// One of the gateway's own endpoints.
    Own(Own),
    /// Refused before routing.
    None,
}

/// What was turned away before it was a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A TLS handshake that failed or took too long.
    Handshake,
    /// Bytes that are not HTTP; hyper has answered 400, 414 or 431.
    Malformed,
    /// A head that was not complete in time.
    SlowHeader,
    /// A client that did not read its answer.
    SlowReader,
}
