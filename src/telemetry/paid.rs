//! Metrics of paid work: the challenge, the facilitator, providers, the job store, jobs.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGaugeVec};

use super::catalogue::Catalogue;
use super::metrics::Metrics;
use super::striped::Striped;
use crate::facilitator::{FacilitatorError, Observer, Operation, Outcome, Settlement, Verdict};
use crate::jobs::{JobKind, State};
use crate::providers::Fault;

/// Seconds; a challenge out of memory takes microseconds, one that waits for a probe seconds.
const CHALLENGE_BUCKETS: &[f64] =
    &[0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0];

/// Seconds; calls of others over the network.
const CALL_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// Seconds; a store in the next room or on the same disk.
const STORE_BUCKETS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// How a call of `/verify` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It would settle.
    Valid,
    /// It would not.
    Invalid,
    /// The facilitator was not reached.
    NotSent,
    /// No answer that can be understood.
    Unknown,
}

/// How a call of `/settle` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The money moved.
    Settled,
    /// Not mined yet.
    Pending,
    /// The facilitator says no.
    Refused,
    /// The facilitator was not reached.
    NotSent,
    /// No answer that can be understood.
    Unknown,
}

impl From<&Result<Verdict, FacilitatorError>> for Verified {
    fn from(verdict: &Result<Verdict, FacilitatorError>) -> Self {
        match verdict {
            Ok(Verdict::Valid) => Verified::Valid,
            Ok(Verdict::Invalid { .. }) => Verified::Invalid,
            Err(FacilitatorError::NotSent(_)) => Verified::NotSent,
            Err(FacilitatorError::Unknown(_)) => Verified::Unknown,
        }
    }
}

impl From<&Result<Settlement, FacilitatorError>> for Settled {
    fn from(settlement: &Result<Settlement, FacilitatorError>) -> Self {
        match settlement {
            Ok(Settlement::Settled(_)) => Settled::Settled,
            Ok(Settlement::Pending(_)) => Settled::Pending,
            Ok(Settlement::Refused(_)) => Settled::Refused,
            Err(FacilitatorError::NotSent(_)) => Settled::NotSent,
            Err(FacilitatorError::Unknown(_)) => Settled::Unknown,
        }
    }
}

#[derive(Debug)]
pub(super) struct PaidMetrics {
    challenge: Striped<Histogram>,
    verify: HistogramVec,
    settle: HistogramVec,
    facilitator_errors: IntCounterVec,
    facilitator: HistogramVec,
    facilitator_available: IntGaugeVec,
    provider: HistogramVec,
    ejected: IntGaugeVec,
    failovers: IntCounterVec,
    store: HistogramVec,
    jobs: IntGaugeVec,
    jobs_ended: IntCounterVec,
}

impl PaidMetrics {
    pub(super) fn new(catalogue: &mut Catalogue) -> Self {
        PaidMetrics {
            challenge: catalogue.striped_histogram(
                "challenge_duration_seconds",
                CHALLENGE_BUCKETS,
                "From a measured request to its challenge, the quote included.",
            ),
            verify: catalogue.histograms(
                "verify_duration_seconds",
                &["outcome"],
                CALL_BUCKETS,
                "Calls of the facilitator's /verify: valid, invalid, not_sent, unknown.",
            ),
            settle: catalogue.histograms(
                "settle_duration_seconds",
                &["outcome"],
                CALL_BUCKETS,
                "Calls of the facilitator's /settle: settled, pending, refused, not_sent, unknown.",
            ),
            facilitator_errors: catalogue.counters(
                "facilitator_errors_total",
                &["operation", "class"],
                "Calls of the facilitator without an answer: not_sent (never reached) or unknown (it may have acted).",
            ),
            facilitator: catalogue.histograms(
                "facilitator_duration_seconds",
                &["facilitator", "operation", "outcome"],
                CALL_BUCKETS,
                "Calls of each facilitator (verify, settle, supported): yes, no, pending, not_sent, unknown.",
            ),
            facilitator_available: catalogue.gauges(
                "facilitator_available",
                &["facilitator"],
                "1 while a facilitator is used, 0 while it is left out because it does not answer or was tripped.",
            ),
            provider: catalogue.histograms(
                "provider_duration_seconds",
                &["provider", "operation", "outcome"],
                CALL_BUCKETS,
                "Orders carried out by providers, paying included: ok, or the class of fault.",
            ),
            ejected: catalogue.gauges(
                "provider_ejected",
                &["provider"],
                "1 from when orders of a provider failed in a row, so that it is left alone, until one succeeds.",
            ),
            failovers: catalogue.counters(
                "provider_failovers_total",
                &["provider"],
                "Orders that went to another provider, because this one failed before it was paid.",
            ),
            store: catalogue.histograms(
                "store_duration_seconds",
                &["operation", "outcome"],
                STORE_BUCKETS,
                "Calls of the job store: ok or error.",
            ),
            jobs: catalogue.gauges("jobs", &["state"], "Jobs in each state, when last counted."),
            jobs_ended: catalogue.counters(
                "jobs_total",
                &["kind", "outcome"],
                "Times that a job came to rest in this process, by the state it rests in.",
            ),
        }
    }
}

impl Observer for Metrics {
    fn called(&self, facilitator: &str, operation: Operation, outcome: Outcome, duration: Duration) {
        let operation = match operation {
            Operation::Verify => "verify",
            Operation::Settle => "settle",
            Operation::Supported => "supported",
        };
        let outcome = match outcome {
            Outcome::Yes => "yes",
            Outcome::No => "no",
            Outcome::Pending => "pending",
            Outcome::NotSent => "not_sent",
            Outcome::Unknown => "unknown",
        };
        let labels = [facilitator, operation, outcome];
        self.paid.facilitator.with_label_values(&labels).observe(duration.as_secs_f64());
    }

    fn available(&self, facilitator: &str, available: bool) {
        self.paid.facilitator_available.with_label_values(&[facilitator]).set(i64::from(available));
    }
}

impl Metrics {
    /// A challenge was made.
    pub fn challenged(&self, duration: Duration) {
        self.paid.challenge.mine().observe(duration.as_secs_f64());
    }

    /// `/verify` was called.
    pub fn verified(&self, duration: Duration, outcome: Verified) {
        let outcome = match outcome {
            Verified::Valid => "valid",
            Verified::Invalid => "invalid",
            Verified::NotSent => "not_sent",
            Verified::Unknown => "unknown",
        };
        self.facilitator_called(&self.paid.verify, "verify", outcome, duration);
    }

    /// `/settle` was called.
    pub fn settled(&self, duration: Duration, outcome: Settled) {
        let outcome = match outcome {
            Settled::Settled => "settled",
            Settled::Pending => "pending",
            Settled::Refused => "refused",
            Settled::NotSent => "not_sent",
            Settled::Unknown => "unknown",
        };
        self.facilitator_called(&self.paid.settle, "settle", outcome, duration);
    }

    /// A provider carried out an order, or failed to. Both names are the adapter's own.
    pub fn provider_performed(
        &self,
        provider: &str,
        operation: &str,
        fault: Option<Fault>,
        duration: Duration,
    ) {
        let outcome = outcome(fault);
        let labels = [provider, operation, outcome.as_str()];
        self.paid.provider.with_label_values(&labels).observe(duration.as_secs_f64());
    }

    /// A provider is left alone from now on, or does its work again.
    pub fn provider_ejected(&self, provider: &str, ejected: bool) {
        self.paid.ejected.with_label_values(&[provider]).set(i64::from(ejected));
    }

    /// An order went to another provider than this one.
    pub fn provider_failed_over(&self, provider: &str) {
        self.paid.failovers.with_label_values(&[provider]).inc();
    }

    /// The job store was called. `operation` is the name of the method: `claim`, `append`.
    pub fn store_called(&self, operation: &'static str, ok: bool, duration: Duration) {
        let outcome = if ok { "ok" } else { "error" };
        self.paid.store.with_label_values(&[operation, outcome]).observe(duration.as_secs_f64());
    }

    /// So many jobs are in this state now.
    pub fn jobs_in_state(&self, state: State, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.paid.jobs.with_label_values(&[state.name()]).set(count);
    }

    /// A job came to rest.
    pub fn job_ended(&self, kind: JobKind, state: State) {
        let kind = match kind {
            JobKind::Store => "store",
            JobKind::Run => "run",
            JobKind::App => "app",
        };
        self.paid.jobs_ended.with_label_values(&[kind, state.name()]).inc();
    }

    fn facilitator_called(
        &self,
        histogram: &HistogramVec,
        operation: &str,
        outcome: &str,
        duration: Duration,
    ) {
        histogram.with_label_values(&[outcome]).observe(duration.as_secs_f64());
        if matches!(outcome, "not_sent" | "unknown") {
            self.paid.facilitator_errors.with_label_values(&[operation, outcome]).inc();
        }
    }
}

/// `ok`, or the class of fault.
pub(super) fn outcome(fault: Option<Fault>) -> String {
    fault.map_or_else(|| "ok".to_owned(), |fault| fault.to_string())
}
