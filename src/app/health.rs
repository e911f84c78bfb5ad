//! Whether paid work can be taken: asked in the background, so that no request asks.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::admin::{Check, Readiness};
use crate::config::resolved::Config;
use crate::facilitator::{Facilitator, FacilitatorError};
use crate::guard::Guards;
use crate::jobs::JobStore;
use crate::proxy::Drain;
use crate::reason::{Problem, Reason};
use crate::telemetry::Metrics;

/// Between two looks at the store.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// Looks at the store between two counts of its jobs.
const COUNT_EVERY: u32 = 5;

/// The state of what paid work needs.
pub(super) struct Health {
    drain: Drain,
    metrics: Arc<Metrics>,
    closed: Arc<ArcSwapOption<Problem>>,
    checks: Mutex<Vec<Check>>,
}

impl Health {
    pub(super) fn new(drain: Drain, metrics: Arc<Metrics>) -> Self {
        Health { drain, metrics, closed: Arc::default(), checks: Mutex::default() }
    }

    /// Why nothing is sold just now; `None` while all is well.
    pub(super) fn closed(&self) -> Arc<ArcSwapOption<Problem>> {
        Arc::clone(&self.closed)
    }

    /// For `/ready`.
    pub(super) fn readiness(&self) -> Readiness {
        Readiness { draining: self.drain.started(), checks: self.checks.lock().clone() }
    }

    /// Looks again and again, until dropped.
    pub(super) async fn watch(
        self: Arc<Self>,
        jobs: Arc<dyn JobStore>,
        facilitator: Arc<dyn Facilitator>,
        guards: Arc<Guards>,
        config: Config,
    ) {
        let mut tick = tokio::time::interval(STORE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in (0u32..).cycle() {
            tick.tick().await;
            // Of jobs, since a store that may have forgotten some answers everything else.
            let store = jobs.due(1).await.err().map(|away| away.to_string());
            let facilitator_check = self.facilitator(&*facilitator, &config, round == 0).await;
            if round % COUNT_EVERY == 0
                && let Ok(counts) = jobs.count_by_state().await
            {
                for (state, count) in counts {
                    self.metrics.jobs_in_state(state, usize::try_from(count).unwrap_or(usize::MAX));
                }
            }
            let reason = match (&store, &facilitator_check) {
                (Some(_), _) => Some(Reason::StoreAway),
                (None, Some(_)) => Some(Reason::FacilitatorAway),
                (None, None) => None,
            };
            self.set(reason);
            let mut checks = vec![check("store", store), check("facilitator", facilitator_check.clone())];
            if config.wallet.is_some() {
                checks.push(Check { only_for: Some("brokered routes"), ..check("wallet", wallet(&guards)) });
            }
            *self.checks.lock() = checks;
        }
    }

    /// Sells nothing from now on, or again.
    pub(super) fn set(&self, reason: Option<Reason>) {
        let before = self.closed.load().as_ref().map(|problem| problem.reason);
        if before == reason {
            return;
        }
        match reason {
            Some(reason) => tracing::error!(reason = reason.code(), "nothing is sold until this is well"),
            None => tracing::info!("selling again"),
        }
        self.closed.store(reason.map(|reason| Arc::new(Problem::new(reason))));
    }

    /// Why no facilitator can be used, by what is known of them; nobody is asked for it. One that answers anything at
    /// all is there.
    async fn facilitator(
        &self,
        facilitator: &dyn Facilitator,
        config: &Config,
        first: bool,
    ) -> Option<String> {
        match facilitator.supported().await {
            Ok(kinds) => {
                let missing = config.accepts.iter().filter(|accept| {
                    !kinds.iter().any(|kind| kind.network == accept.asset.network && kind.scheme == "exact")
                });
                for accept in missing.filter(|_| first) {
                    tracing::warn!(network = %accept.asset.network,
                        "the facilitator does not list this network: payments on it may not settle");
                }
                None
            }
            Err(FacilitatorError::NotSent(why)) => Some(why),
            Err(FacilitatorError::Unknown(why)) => {
                if first {
                    tracing::warn!(why, "the facilitator did not say what it supports");
                }
                None
            }
        }
    }
}

/// Why providers are not paid.
fn wallet(guards: &Guards) -> Option<String> {
    match (guards.frozen(), guards.closed()) {
        (Some(frozen), _) => Some(format!("frozen by the {}: {}", frozen.by, frozen.reason)),
        (None, Some(problem)) => Some(problem.reason.code().to_owned()),
        (None, None) if guards.is_low() => Some("it has not enough to pay providers".to_owned()),
        (None, None) => None,
    }
}

fn check(name: &'static str, fault: Option<String>) -> Check {
    Check { name, ok: fault.is_none(), reason: fault, only_for: None }
}
