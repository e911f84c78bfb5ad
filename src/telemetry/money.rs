//! Metrics of money, in atomic units of an asset. For watching, not for books: those are the journal's.
//!
//! A counter holds 2^64 - 1 and stays there rather than start again at nothing, which would read as a restart.
//! The text format carries doubles, exact to 2^53: nine thousand million dollars of a six-decimal asset.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalogue::Catalogue;
use super::metrics::Metrics;
use crate::money::Amount;
use crate::x402::{Asset, Network};

#[derive(Debug)]
pub(super) struct MoneyMetrics {
    income: IntCounterVec,
    cost: IntCounterVec,
    exposure: IntGaugeVec,
    refunds_due: IntGaugeVec,
    returned: IntGaugeVec,
    gas: IntGaugeVec,
    audited: IntCounterVec,
    to_be_audited: IntGauge,
}

/// What was found of a payment that a facilitator said was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audited {
    /// It is on the chain.
    Found,
    /// It is not.
    Missing,
}

impl MoneyMetrics {
    pub(super) fn new(catalogue: &mut Catalogue) -> Self {
        MoneyMetrics {
            income: catalogue.counters(
                "client_income_atomic_total",
                &["network", "asset"],
                "Client payments that settled, in atomic units.",
            ),
            cost: catalogue.counters(
                "provider_cost_atomic_total",
                &["provider", "network", "asset"],
                "Payments signed to providers, in atomic units; some may lapse unspent.",
            ),
            exposure: catalogue.gauges(
                "exposure_atomic",
                &["network", "asset"],
                "Provider money this process signed for jobs whose client payments have not settled, in atomic units.",
            ),
            refunds_due: catalogue.gauges(
                "refunds_due_atomic",
                &["network", "asset"],
                "What clients are owed for work that failed after they had paid, in all the store has, in atomic units.",
            ),
            returned: catalogue.gauges(
                "provider_returned_atomic",
                &["network", "asset"],
                "What providers have sent back to the wallet, as found on the chain, in atomic units.",
            ),
            gas: catalogue.gauges(
                "gas_gwei",
                &["network"],
                "What the gateway's own facilitator has left for gas, in gwei (a billionth of the chain's coin).",
            ),
            audited: catalogue.counters(
                "settlements_audited_total",
                &["outcome"],
                "Settled client payments that were looked for on the chain: found, or missing, which is an alarm.",
            ),
            to_be_audited: catalogue.gauge(
                "settlements_to_be_audited",
                "Settled client payments that are still to be looked for on the chain.",
            ),
        }
    }
}

impl Metrics {
    /// A client payment settled.
    pub fn earned(&self, asset: &Asset, amount: Amount) {
        let [network, address] = labels(asset);
        add(&self.money.income.with_label_values(&[&network, &address]), amount);
    }

    /// A payment to a provider was signed.
    pub fn spent(&self, provider: &str, asset: &Asset, amount: Amount) {
        let [network, address] = labels(asset);
        add(&self.money.cost.with_label_values(&[provider, &network, &address]), amount);
    }

    /// A payment that was said to be settled was looked for.
    pub fn audited(&self, outcome: Audited) {
        let outcome = match outcome {
            Audited::Found => "found",
            Audited::Missing => "missing",
        };
        self.money.audited.with_label_values(&[outcome]).inc();
    }

    /// So many payments are still to be looked for.
    pub fn to_be_audited(&self, payments: usize) {
        self.money.to_be_audited.set(i64::try_from(payments).unwrap_or(i64::MAX));
    }

    /// So much is exposed now. Sums above 2^63 - 1 read as that.
    pub fn exposed(&self, asset: &Asset, amount: Amount) {
        let [network, address] = labels(asset);
        let units = i64::try_from(amount.units()).unwrap_or(i64::MAX);
        self.money.exposure.with_label_values(&[&network, &address]).set(units);
    }

    /// So much is owed to clients now.
    pub fn refunds_due(&self, asset: &Asset, amount: Amount) {
        let [network, address] = labels(asset);
        let units = i64::try_from(amount.units()).unwrap_or(i64::MAX);
        self.money.refunds_due.with_label_values(&[&network, &address]).set(units);
    }

    /// So much was sent back by providers.
    pub fn returned(&self, asset: &Asset, amount: Amount) {
        let [network, address] = labels(asset);
        let units = i64::try_from(amount.units()).unwrap_or(i64::MAX);
        self.money.returned.with_label_values(&[&network, &address]).set(units);
    }

    /// So much is left for gas, in wei.
    pub fn gas_left(&self, network: Network, wei: u128) {
        let gwei = i64::try_from(wei / 1_000_000_000).unwrap_or(i64::MAX);
        self.money.gas.with_label_values(&[&network.to_string()]).set(gwei);
    }
}

/// CAIP-2 network and lower-case address, as in the key of a claim.
pub(super) fn labels(asset: &Asset) -> [String; 2] {
    [asset.network.to_string(), format!("{:#x}", asset.address)]
}

fn add(counter: &IntCounter, amount: Amount) {
    let room = u64::MAX - counter.get();
    counter.inc_by(u64::try_from(amount.units()).unwrap_or(u64::MAX).min(room));
}
