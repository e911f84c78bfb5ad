//! Metrics of the quote cache.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter};

use super::catalogue::Catalogue;
use super::metrics::Metrics;
use super::paid::outcome;
use super::striped::Striped;
use crate::providers::Fault;

/// Seconds; quotes live for minutes.
const AGE_BUCKETS: &[f64] = &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 600.0];

/// Seconds; a probe may take two.
const PROBE_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0, 15.0];

#[derive(Debug)]
pub(super) struct QuoteMetrics {
    hits: Striped<IntCounter>,
    misses: IntCounter,
    age: Striped<Histogram>,
    probes: HistogramVec,
}

impl QuoteMetrics {
    pub(super) fn new(catalogue: &mut Catalogue) -> Self {
        QuoteMetrics {
            hits: catalogue.striped_counter("quote_cache_hits_total", "Asks whose quote was at hand."),
            misses: catalogue
                .counter("quote_cache_misses_total", "Asks that waited for providers to be asked."),
            age: catalogue.striped_histogram(
                "quote_age_seconds",
                AGE_BUCKETS,
                "Age of a quote when it was used.",
            ),
            probes: catalogue.histograms(
                "quote_probe_duration_seconds",
                &["provider", "outcome"],
                PROBE_BUCKETS,
                "Probes of a provider's price: ok, or the class of fault that made it no offer.",
            ),
        }
    }
}

impl Metrics {
    /// A quote of this age was at hand.
    pub fn quote_hit(&self, age: Duration) {
        self.quotes.hits.mine().inc();
        self.quotes.age.mine().observe(age.as_secs_f64());
    }

    /// No quote was at hand.
    pub fn quote_missed(&self) {
        self.quotes.misses.inc();
    }

    /// A provider was asked its price.
    pub fn quote_probed(&self, provider: &str, fault: Option<Fault>, duration: Duration) {
        let outcome = outcome(fault);
        self.quotes.probes.with_label_values(&[provider, outcome.as_str()]).observe(duration.as_secs_f64());
    }
}
