//! Metrics of the guards: what they refused, what was lost, and whether the wallet is frozen.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalogue::Catalogue;
use super::metrics::Metrics;
use crate::money::Amount;
use crate::x402::Asset;

/// A reason not to sell, or not to pay a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// `limits.spend_per_hour`.
    Spend,
    /// `limits.provider_spend_per_hour`.
    ProviderSpend,
    /// `limits.exposure`.
    Exposure,
    /// `limits.payer_exposure`.
    PayerExposure,
    /// `limits.quote_loss_per_hour`.
    QuoteLoss,
    /// `pricing.profit_floor`.
    ProfitFloor,
    /// A provider asks to be paid elsewhere than before.
    Payee,
    /// The wallet has not enough.
    Balance,
    /// `limits.unsettled`.
    Unsettled,
    /// `limits.payer_unsettled`.
    PayerUnsettled,
    /// `limits.uncollected_per_hour`.
    Uncollected,
}

impl Guard {
    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Guard::Spend => "spend",
            Guard::ProviderSpend => "provider_spend",
            Guard::Exposure => "exposure",
            Guard::PayerExposure => "payer_exposure",
            Guard::QuoteLoss => "quote_loss",
            Guard::ProfitFloor => "profit_floor",
            Guard::Payee => "payee",
            Guard::Balance => "balance",
            Guard::Unsettled => "unsettled",
            Guard::PayerUnsettled => "payer_unsettled",
            Guard::Uncollected => "uncollected",
        }
    }
}

#[derive(Debug)]
pub(super) struct GuardMetrics {
    refusals: IntCounterVec,
    lost: IntCounter,
    frozen: IntGauge,
    balance: IntGaugeVec,
    foreign_outlays: IntCounter,
    watched: IntGaugeVec,
}

impl GuardMetrics {
    pub(super) fn new(catalogue: &mut Catalogue) -> Self {
        GuardMetrics {
            refusals: catalogue.counters(
                "guard_refusals_total",
                &["guard"],
                "Sales not made, payments to providers not signed, or answers not given before they were paid for, by the limit or check that forbade it.",
            ),
            lost: catalogue.counter(
                "losses_microdollars_total",
                "Paid, or perhaps paid, to providers for work that no client paid for, in millionths of a dollar.",
            ),
            frozen: catalogue.gauge("wallet_frozen", "1 while the wallet is frozen and pays nobody."),
            balance: catalogue.gauges(
                "wallet_balance_atomic",
                &["network", "asset"],
                "What the wallet has, in atomic units, where [[chains]] has an endpoint to ask.",
            ),
            foreign_outlays: catalogue.counter(
                "wallet_foreign_outlays_total",
                "Transfers out of the wallet that nobody here signed for: an alarm, and the wallet is frozen.",
            ),
            watched: catalogue.gauges(
                "wallet_watched_block",
                &["network", "asset"],
                "The last block that was looked through for transfers out of the wallet.",
            ),
        }
    }
}

impl Metrics {
    /// A guard said no.
    pub fn guarded(&self, guard: Guard) {
        self.guards.refusals.with_label_values(&[guard.name()]).inc();
    }

    /// Money was lost, in millionths of a dollar.
    pub fn lost(&self, micros: u64) {
        let room = u64::MAX - self.guards.lost.get();
        self.guards.lost.inc_by(micros.min(room));
    }

    /// What the wallet has.
    pub fn balance(&self, asset: &Asset, balance: Amount) {
        let units = i64::try_from(balance.units()).unwrap_or(i64::MAX);
        let [network, address] = super::money::labels(asset);
        self.guards.balance.with_label_values(&[&network, &address]).set(units);
    }

    /// So many transfers out of the wallet are nobody's.
    pub fn foreign_outlays(&self, transfers: usize) {
        self.guards.foreign_outlays.inc_by(u64::try_from(transfers).unwrap_or(u64::MAX));
    }

    /// What leaves the wallet in this token was looked at up to this block.
    pub fn watched(&self, asset: &Asset, block: u64) {
        let [network, address] = super::money::labels(asset);
        let block = i64::try_from(block).unwrap_or(i64::MAX);
        self.guards.watched.with_label_values(&[&network, &address]).set(block);
    }

    /// Whether the wallet is frozen.
    pub fn frozen(&self, frozen: bool) {
        self.guards.frozen.set(i64::from(frozen));
    }
}
