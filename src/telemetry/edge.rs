//! Metrics of the client-facing side: requests, connections, bytes.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::catalogue::Catalogue;
use super::metrics::Metrics;
use super::striped::Striped;
use crate::reason::Reason;

/// Seconds; from an answer out of memory to a slow provider.
const REQUEST_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

#[derive(Debug)]
pub(super) struct EdgeMetrics {
    requests: Striped<IntCounterVec>,
    durations: Striped<HistogramVec>,
    connections: IntCounter,
    connections_open: IntGauge,
    tunnels_open: IntGauge,
    work_in_flight: IntGauge,
    count: OnceLock<Count>,
    received: Striped<IntCounter>,
    sent: Striped<IntCounter>,
    handshake_failures: IntCounter,
    parse_errors: IntCounter,
}

impl EdgeMetrics {
    pub(super) fn new(catalogue: &mut Catalogue) -> Self {
        EdgeMetrics {
            requests: catalogue.striped_counters(
                "requests_total",
                &["route", "reason", "status"],
                "Requests that ended, by the rule they matched, their reason code and the class of their status.",
            ),
            durations: catalogue.striped_histograms(
                "request_duration_seconds",
                &["route"],
                REQUEST_BUCKETS,
                "From a request's head to the end of its answer.",
            ),
            connections: catalogue.counter("connections_total", "Client connections that were accepted."),
            connections_open: catalogue.gauge("connections_open", "Client connections that are open."),
            tunnels_open: catalogue.gauge("tunnels_open", "Upgraded connections (WebSocket) that are open."),
            work_in_flight: catalogue.gauge(
                "paid_work_in_flight",
                "Paid requests that are worked on, also those whose client has gone.",
            ),
            count: OnceLock::new(),
            received: catalogue.striped_counter("received_bytes_total", "Bytes of request bodies read from clients."),
            sent: catalogue.striped_counter("sent_bytes_total", "Bytes of answer bodies written to clients."),
            handshake_failures: catalogue
                .counter("tls_handshake_failures_total", "TLS handshakes that failed or took too long."),
            parse_errors: catalogue.counter(
                "http_parse_errors_total",
                "Connections closed because what came was not HTTP that is allowed.",
            ),
        }
    }

    /// Brings the gauges of what is open up to date.
    pub(super) fn refresh(&self) {
        let Some(Count(count)) = self.count.get() else { return };
        let Open { connections, tunnels, work } = count();
        let gauge = |gauge: &IntGauge, open: usize| gauge.set(i64::try_from(open).unwrap_or(i64::MAX));
        gauge(&self.connections_open, connections);
        gauge(&self.tunnels_open, tunnels);
        gauge(&self.work_in_flight, work);
    }
}

/// What is open at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Client connections.
    pub connections: usize,
    /// Upgraded connections.
    pub tunnels: usize,
    /// Paid work.
    pub work: usize,
}

struct Count(Box<dyn Fn() -> Open + Send + Sync>);

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Count")
    }
}

impl Metrics {
    /// The metrics of one rule: resolved once, at the start, so that a request costs no look-up.
    /// `name` is the rule's path as configured, or a word for what has no rule.
    pub fn route(&self, name: &str) -> RouteMetrics {
        let cells = |_: &IntCounterVec| {
            std::iter::repeat_with(OnceLock::new).take(Reason::ALL.len() * CLASSES.len()).collect()
        };
        RouteMetrics(Arc::new(Route {
            name: name.to_owned(),
            duration: self.edge.durations.map(|durations| durations.with_label_values(&[name])),
            requests: self.edge.requests.clone(),
            cells: self.edge.requests.map(cells),
        }))
    }

    /// Whom to ask, at each scrape, what is open: whoever drains counts it already. The first to say so is asked.
    pub fn count_open(&self, count: impl Fn() -> Open + Send + Sync + 'static) {
        // A second one would count the same.
        let _ = self.edge.count.set(Count(Box::new(count)));
    }

    /// A client connection is accepted.
    pub fn connection_accepted(&self) {
        self.edge.connections.inc();
    }

    /// Body bytes that were read from and written to a client.
    pub fn transferred(&self, received: u64, sent: u64) {
        self.edge.received.mine().inc_by(received);
        self.edge.sent.mine().inc_by(sent);
    }

    /// A TLS handshake failed or took too long.
    pub fn handshake_failed(&self) {
        self.edge.handshake_failures.inc();
    }

    /// A connection was closed over what is not HTTP.
    pub fn parse_failed(&self) {
        self.edge.parse_errors.inc();
    }
}

/// The metrics of one rule. Clones are the same metrics.
#[derive(Clone, Debug)]
pub struct RouteMetrics(Arc<Route>);

#[derive(Debug)]
struct Route {
    name: String,
    duration: Striped<Histogram>,
    requests: Striped<IntCounterVec>,
    /// One counter for each reason and class, made when first needed, so that a scrape shows what happened only.
    cells: Striped<Box<[OnceLock<IntCounter>]>>,
}

const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl RouteMetrics {
    /// The label.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A request ended: for this reason, with this status, so long after it began.
    pub fn ended(&self, reason: Reason, status: u16, duration: Duration) {
        let route = &*self.0;
        route.duration.mine().observe(duration.as_secs_f64());
        let class = match usize::from(status / 100) {
            class @ 1..=5 => class,
            _ => 0,
        };
        if let Some(cell) = route.cells.mine().get(reason as usize * CLASSES.len() + class) {
            cell.get_or_init(|| {
                route.requests.mine().with_label_values(&[route.name.as_str(), reason.code(), CLASSES[class]])
            })
            .inc();
        }
    }
}
