//! The metrics of one gateway, in a registry of their own: two gateways in one process do not mix.

use prometheus::{Registry, TextEncoder};

use super::catalogue::{Catalogue, Described};
use super::edge::EdgeMetrics;
use super::guards::GuardMetrics;
use super::money::MoneyMetrics;
use super::paid::PaidMetrics;
use super::quotes::QuoteMetrics;
use super::results::ResultMetrics;
use super::webhooks::WebhookMetrics;

/// Every metric of the gateway. Shared by reference; observing takes no lock of ours and, for what happens on
/// every request, no look-up: see [`Metrics::route`].
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    pub(super) edge: EdgeMetrics,
    pub(super) paid: PaidMetrics,
    pub(super) quotes: QuoteMetrics,
    pub(super) money: MoneyMetrics,
    pub(super) guards: GuardMetrics,
    pub(super) webhooks: WebhookMetrics,
    pub(super) results: ResultMetrics,
}

impl Metrics {
    /// Metrics that all stand at zero.
    pub fn new() -> Self {
        let mut catalogue = Catalogue::new();
        let build = catalogue.gauges("build_info", &["version"], "Always 1; the version is in the label.");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let edge = EdgeMetrics::new(&mut catalogue);
        let paid = PaidMetrics::new(&mut catalogue);
        let quotes = QuoteMetrics::new(&mut catalogue);
        let money = MoneyMetrics::new(&mut catalogue);
        let guards = GuardMetrics::new(&mut catalogue);
        let webhooks = WebhookMetrics::new(&mut catalogue);
        let results = ResultMetrics::new(&mut catalogue);
        let Catalogue { registry, described } = catalogue;
        Metrics { registry, described, edge, paid, quotes, money, guards, webhooks, results }
    }

    /// The text exposition, format 0.0.4. Series that were never touched are left out.
    pub fn exposition(&self) -> Result<String, prometheus::Error> {
        self.edge.refresh();
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Every metric there is, touched or not, in order of registration.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    #[cfg(test)]
    pub(super) fn families(&self) -> Vec<String> {
        self.registry.gather().iter().map(|family| family.name().to_owned()).collect()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
