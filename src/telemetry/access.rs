//! The access log: one structured event for each request, under the target `access`.
//!
//! It has no query and no header: both may carry secrets.

use std::net::IpAddr;
use std::time::Duration;

use http::Method;

use crate::config::resolved::Log;
use crate::ids::JobId;
use crate::money::Amount;
use crate::reason::Reason;

/// The target of its events.
pub(super) const TARGET: &str = "access";

/// What is known of a request when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path as sent, without the query.
    pub path: &'a str,
    /// The rule it matched, as in the metrics.
    pub route: &'a str,
    /// The status it was answered with.
    pub status: u16,
    /// Why.
    pub reason: Reason,
    /// Body bytes read from the client.
    pub received: u64,
    /// Body bytes written to the client.
    pub sent: u64,
    /// From its head to the end of its answer.
    pub duration: Duration,
    /// Who sent it.
    pub peer: IpAddr,
    /// Its job, if it has one, or the id that a challenge promises it.
    pub job: Option<JobId>,
    /// What the client was asked or charged, in atomic units of the token it paid in or was offered first.
    pub price: Option<Amount>,
}

/// Writes the access log, or does not.
#[derive(Clone, Copy, Debug)]
pub struct AccessLog {
    on: bool,
}

impl AccessLog {
    /// As configured.
    pub fn new(log: &Log) -> Self {
        AccessLog { on: log.access }
    }

    /// Whether it is worth gathering an [`Access`].
    pub fn is_on(self) -> bool {
        self.on
    }

    /// Writes the line of one request.
    pub fn record(self, access: &Access<'_>) {
        if !self.on {
            return;
        }
        tracing::info!(
            target: TARGET,
            method = access.method.as_str(),
            path = access.path,
            route = access.route,
            status = access.status,
            reason = access.reason.code(),
            received = access.received,
            sent = access.sent,
            duration_us = u64::try_from(access.duration.as_micros()).unwrap_or(u64::MAX),
            peer = %access.peer,
            job = access.job.map(tracing::field::display),
            price = access.price.map(tracing::field::display),
        );
    }
}
