//! What the edge tells of each request, as metrics and access log lines.

use std::sync::Arc;

use crate::config::resolved::{Log, Route};
use crate::proxy::{Exchange, Observe, Refusal, RouteLabel};
use crate::telemetry::{Access, AccessLog, Metrics, RouteMetrics};

/// Counts and logs. One for the process.
pub(super) struct Observer {
    metrics: Arc<Metrics>,
    log: AccessLog,
    rules: Vec<RouteMetrics>,
    unmatched: RouteMetrics,
    own: RouteMetrics,
    refused: RouteMetrics,
}

impl Observer {
    pub(super) fn new(routes: &[Route], metrics: Arc<Metrics>, log: &Log) -> Self {
        Observer {
            rules: routes.iter().map(|route| metrics.route(&route.path)).collect(),
            unmatched: metrics.route("(none)"),
            own: metrics.route("(own)"),
            refused: metrics.route("(refused)"),
            log: AccessLog::new(log),
            metrics,
        }
    }

    fn route(&self, label: RouteLabel) -> &RouteMetrics {
        match label {
            RouteLabel::Rule(rule) => self.rules.get(rule).unwrap_or(&self.unmatched),
            RouteLabel::Default => &self.unmatched,
            RouteLabel::Own(_) => &self.own,
            RouteLabel::None => &self.refused,
        }
    }
}

impl Observe for Observer {
    fn wants_target(&self) -> bool {
        self.log.is_on()
    }

    fn accepted(&self) {
        self.metrics.connection_accepted();
    }

    fn ended(&self, exchange: &Exchange<'_>) {
        let route = self.route(exchange.route);
        // A client that went away before its answer: 499, as nginx counts them.
        let status = exchange.status.map_or(499, |status| status.as_u16());
        route.ended(exchange.reason, status, exchange.took);
        self.metrics.transferred(exchange.received, exchange.sent);
        if self.log.is_on() {
            self.log.record(&Access {
                method: exchange.method,
                path: exchange.target.map_or("", |target| target.path()),
                route: route.name(),
                status,
                reason: exchange.reason,
                received: exchange.received,
                sent: exchange.sent,
                duration: exchange.took,
                peer: exchange.peer.addr.ip(),
                job: exchange.job,
                price: exchange.price,
            });
        }
    }

    fn refused(&self, refusal: Refusal) {
        match refusal {
            Refusal::Handshake => self.metrics.handshake_failed(),
            Refusal::Malformed => self.metrics.parse_failed(),
            Refusal::SlowHeader | Refusal::SlowReader => {}
        }
    }
}
