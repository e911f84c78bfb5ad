//! Registers metrics and remembers what each is called and means, for the documentation.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::striped::Striped;

/// A metric as documented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its full name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels, in order.
    pub labels: Vec<String>,
    /// What it counts, in one sentence.
    pub help: String,
}

/// A registry under construction. Names get the prefix `galaksio_`.
pub(super) struct Catalogue {
    pub(super) registry: Registry,
    pub(super) described: Vec<Described>,
}

impl Catalogue {
    pub(super) fn new() -> Self {
        Catalogue { registry: Registry::new(), described: Vec::new() }
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        let made = IntCounter::with_opts(opts(name, help));
        self.register("counter", made)
    }

    pub(super) fn counters(&mut self, name: &str, labels: &[&str], help: &str) -> IntCounterVec {
        let made = IntCounterVec::new(opts(name, help), labels);
        self.register("counter", made)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> IntGauge {
        let made = IntGauge::with_opts(opts(name, help));
        self.register("gauge", made)
    }

    pub(super) fn gauges(&mut self, name: &str, labels: &[&str], help: &str) -> IntGaugeVec {
        let made = IntGaugeVec::new(opts(name, help), labels);
        self.register("gauge", made)
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        labels: &[&str],
        buckets: &[f64],
        help: &str,
    ) -> HistogramVec {
        let options = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.register("histogram", HistogramVec::new(options, labels))
    }

    /// For what every request moves.
    pub(super) fn striped_counter(&mut self, name: &str, help: &str) -> Striped<IntCounter> {
        self.striped("counter", || IntCounter::with_opts(opts(name, help)))
    }

    pub(super) fn striped_counters(
        &mut self,
        name: &str,
        labels: &[&str],
        help: &str,
    ) -> Striped<IntCounterVec> {
        self.striped("counter", || IntCounterVec::new(opts(name, help), labels))
    }

    pub(super) fn striped_histogram(
        &mut self,
        name: &str,
        buckets: &[f64],
        help: &str,
    ) -> Striped<Histogram> {
        let options = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.striped("histogram", || Histogram::with_opts(options.clone()))
    }

    pub(super) fn striped_histograms(
        &mut self,
        name: &str,
        labels: &[&str],
        buckets: &[f64],
        help: &str,
    ) -> Striped<HistogramVec> {
        let options = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.striped("histogram", || HistogramVec::new(options.clone(), labels))
    }

    fn striped<M: Collector + 'static>(
        &mut self,
        kind: &'static str,
        make: impl FnMut() -> prometheus::Result<M>,
    ) -> Striped<M> {
        let made = Striped::new(make);
        self.register(kind, made)
    }

    #[expect(
        clippy::expect_used,
        reason = "names, labels and buckets are constants, and a test makes them all"
    )]
    fn register<C: Collector + Clone + 'static>(
        &mut self,
        kind: &'static str,
        made: prometheus::Result<C>,
    ) -> C {
        let metric = made.expect("a well-formed metric");
        for desc in metric.desc() {
            self.described.push(Described {
                name: desc.fq_name.clone(),
                kind,
                labels: desc.variable_labels.clone(),
                help: desc.help.clone(),
            });
        }
        self.registry.register(Box::new(metric.clone())).expect("a metric of a new name");
        metric
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("galaksio")
}
