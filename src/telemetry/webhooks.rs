//! Metrics of webhooks.

use prometheus::{IntCounterVec, IntGauge};

use super::catalogue::Catalogue;
use super::metrics::Metrics;

/// What became of a try to tell somebody that a job is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was heard.
    Heard,
    /// It was not, and is tried again.
    Failed,
    /// It was not, and is not tried again.
    GivenUp,
}

#[derive(Debug)]
pub(super) struct WebhookMetrics {
    told: IntCounterVec,
    waiting: IntGauge,
}

impl WebhookMetrics {
    pub(super) fn new(catalogue: &mut Catalogue) -> Self {
        WebhookMetrics {
            told: catalogue.counters(
                "webhooks_told_total",
                &["outcome"],
                "Tries to tell a client's URL that its job is done: heard, failed (to be tried again) or given_up.",
            ),
            waiting: catalogue.gauge(
                "webhooks_waiting",
                "Webhooks of jobs that are not done, or that nobody has heard yet, when last looked at.",
            ),
        }
    }
}

impl Metrics {
    /// Somebody was told that a job is done, or was not to be reached.
    pub fn webhook_told(&self, told: Told) {
        let outcome = match told {
            Told::Heard => "heard",
            Told::Failed => "failed",
            Told::GivenUp => "given_up",
        };
        self.webhooks.told.with_label_values(&[outcome]).inc();
    }

    /// So many webhooks wait now.
    pub fn webhooks_waiting(&self, waiting: usize) {
        self.webhooks.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}
