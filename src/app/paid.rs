//! The paid part of a gateway, built: store, facilitators, wallet, guards, prices, broker; and its background services.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::health::Health;
use super::inventory::Stock;
use super::{StartError, archive, facilitators, hooks, open_store, outgoing, refunds, switch};
use crate::broker::{Audit, Broker, Limits, Recovery, ResultLimits, Results, Spending};
use crate::chain::Chains;
use crate::clock::Clock;
use crate::config::resolved::{Config, Store};
use crate::facilitator::local::LocalFacilitator;
use crate::facilitator::{Facilitator, Pool};
use crate::guard::{Guards, OutlayWatch, Watched};
use crate::jobs::{JobStore, ValueStore};
use crate::providers::{Registry, Surroundings};
use crate::proxy::{Drain, Forward, Hold, Kind, Paid, Parts};
use crate::quote_cache::{Dollars, QuoteCache, Settings};
use crate::reason::Reason;
use crate::refunds::Watch;
use crate::telemetry::{CountedStore, Metrics};
use crate::wallet::{Payees, Wallet};
use crate::x402::Asset;

/// How long a start waits for the chains to be compared with the configuration.
const CHECK: Duration = Duration::from_secs(10);

/// Between two looks at where a chain stands, while nobody asks.
const CHAINS_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at what is left for gas.
const GAS_EVERY: Duration = Duration::from_secs(5);

/// What the paid part is built from.
pub(super) struct Build<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: Clock,
    /// Where the background services run.
    pub(super) runtime: &'a Runtime,
    pub(super) forward: &'a Arc<Forward>,
    pub(super) drain: &'a Drain,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) health: &'a Arc<Health>,
}

impl Build<'_> {
    pub(super) async fn paid(
        &self,
        stopped: watch::Receiver<bool>,
    ) -> Result<(Paid, Arc<dyn JobStore>), StartError> {
        let Build { config, ref clock, runtime, forward, drain, metrics, health } = *self;
        let jobs: Arc<dyn JobStore> =
            Arc::new(CountedStore::new(open_store(config, clock).await?, Arc::clone(metrics)));
        let values: Arc<dyn ValueStore> = jobs.clone();
        let pool = Arc::new(self.facilitators(&values).await?);
        let facilitator: Arc<dyn Facilitator> = pool.clone();
        let wallet = match &config.wallet {
            Some(wallet) => {
                Some(Arc::new(Wallet::new(wallet.key.clone(), &wallet.max_payment, wallet.assets.clone())?))
            }
            None => None,
        };
        let switch = switch(config, &values);
        let guards =
            Guards::new(Arc::clone(&values), clock.clone(), Arc::clone(metrics), &config.limits, switch);
        guards.tend().await;
        let named = config.wallet.as_ref().map(|wallet| wallet.payees.clone()).unwrap_or_default();
        let payees = Arc::new(Payees::new(Arc::clone(&values), named));
        let providers = match (&wallet, &config.wallet) {
            (Some(wallet), Some(settings)) => Registry::from_config(
                &config.providers,
                &Surroundings {
                    outgoing: outgoing(config, config.providers.allow_plain_http)?,
                    assets: settings.assets.clone(),
                    store: Arc::clone(&values),
                    wallet: Arc::new(Stock {
                        wallet: Arc::clone(wallet),
                        guards: Arc::clone(&guards),
                        payees: Arc::clone(&payees),
                        clock: clock.clone(),
                    }),
                    clock: clock.clone(),
                },
            ),
            _ => Registry::new(Vec::new()),
        };
        let sellers = providers.iter().cloned().collect();
        let settings = Settings::from(config);
        let quotes = QuoteCache::open(settings, sellers, values, clock.clone(), Arc::clone(metrics)).await?;
        let budgets = Arc::clone(&guards);
        let spent = move |provider: &str, cost: Dollars| {
            budgets.spent_with(provider, cost.units.micros(cost.decimals).unwrap_or(u64::MAX))
        };
        let quotes = Arc::new(quotes.paying(Arc::clone(&payees)).within(spent));
        let chains = Arc::new(Chains::new(&config.chains, clock)?);
        self.fits(&chains).await?;
        for chain in chains.iter() {
            runtime.spawn(chain.clone().watch(CHAINS_EVERY));
        }
        let mut watched = None;
        if let (Some(wallet), Some(settings)) = (&wallet, &config.wallet) {
            let (account, assets) = (wallet.address(), settings.assets.clone());
            guards.watch_balance(Watched { account, assets: assets.clone(), chains: chains.clone() });
            runtime.spawn(refunds::returns(config, account, &jobs, chains.clone(), metrics).run());
            let assets: Vec<Asset> =
                assets.into_iter().filter(|asset| chains.of(asset.network).is_some()).collect();
            // Where nobody can be asked, nothing is noted either.
            if !assets.is_empty() {
                watched = Some((account, assets.clone()));
                let watch = OutlayWatch::new(
                    Arc::clone(&guards),
                    Arc::clone(&jobs),
                    Arc::clone(wallet),
                    chains.clone(),
                    assets,
                    config.archive().is_none().then_some(config.paid.retention),
                );
                runtime.spawn(watch.run(stopped.clone()));
            }
        }
        let broker = Broker::new(
            Arc::clone(&jobs),
            Arc::clone(&facilitator),
            Spending { wallet, guards: Arc::clone(&guards), payees },
            Arc::clone(metrics),
            clock.clone(),
            limits(config),
        );
        let watch = Watch {
            jobs: jobs.clone(),
            chains: chains.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
        };
        runtime.spawn(watch.run());
        let end = drain.clone();
        let broker = broker.proved_by(chains).keeping(results(config, clock, metrics, &jobs));
        let broker = Arc::new(broker.ending_when(move || end.started()));
        runtime.spawn(Arc::clone(&guards).watch(stopped.clone()));
        if let Some(folder) = config.archive() {
            let keeper = archive::keeper(config, folder, &jobs, clock, watched);
            runtime.spawn(keeper.run(stopped.clone()));
        }
        runtime.spawn(Arc::clone(&quotes).run(stopped));
        runtime.spawn(pool.watch());
        if !config.chains.is_empty() {
            runtime.spawn(Audit::new(Arc::clone(&broker)).run());
        }
        runtime.spawn(Recovery::new(Arc::clone(&broker), config.paid.lease).run(counted(drain)));
        let hooks = hooks::tell(&config.paid, &broker, runtime)?;
        runtime.spawn(Arc::clone(health).watch(
            jobs.clone(),
            facilitator,
            Arc::clone(&guards),
            config.clone(),
        ));
        let parts = Parts {
            quotes,
            broker,
            providers,
            forward: Arc::clone(forward),
            drain: drain.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(metrics),
            closed: health.closed(),
            hooks,
        };
        Ok((Paid::new(parts, config), jobs))
    }

    async fn facilitators(&self, values: &Arc<dyn ValueStore>) -> Result<Pool, StartError> {
        let local = match self.config.facilitator.local {
            Some(_) => Some(self.local_facilitator().await?),
            None => None,
        };
        let observer = Arc::clone(self.metrics);
        facilitators::pool(self.config, self.clock.clone(), Arc::clone(values), observer, local).await
    }

    async fn local_facilitator(&self) -> Result<Arc<LocalFacilitator>, StartError> {
        let local = Arc::new(LocalFacilitator::new(self.config, self.clock.clone())?);
        let problems = local.problems().await;
        for problem in &problems {
            tracing::error!(problem, "the gateway's own facilitator cannot settle");
        }
        if !problems.is_empty() && self.config.facilitator.fallback.is_empty() {
            // Not the end: the app's own traffic flows, and money may come to the gas account any minute.
            self.health.set(Some(Reason::FacilitatorAway));
        }
        let (watched, metrics) = (Arc::clone(&local), Arc::clone(self.metrics));
        self.runtime.spawn(async move {
            let mut tick = tokio::time::interval(GAS_EVERY);
            loop {
                tick.tick().await;
                for lane in watched.status() {
                    metrics.gas_left(lane.network, lane.gas);
                }
            }
        });
        Ok(local)
    }

    /// Whether the chains are what the configuration says. One that cannot be asked is no reason not to start.
    async fn fits(&self, chains: &Chains) -> Result<(), StartError> {
        let Ok((misfits, unknown)) = tokio::time::timeout(CHECK, chains.check(&self.config.assets())).await
        else {
            tracing::warn!("the chains answer too slowly to be compared with the configuration");
            return Ok(());
        };
        for why in unknown {
            tracing::warn!(%why, "a chain is not compared with the configuration");
        }
        match misfits.is_empty() {
            true => Ok(()),
            false => Err(StartError::Misfits(misfits)),
        }
    }
}

/// Lets recovery begin a job unless the process is ending, and makes the end wait for it.
fn counted(drain: &Drain) -> impl Fn() -> Option<Hold> + Sync + use<> {
    let drain = drain.clone();
    move || {
        // Held first: an end that starts after the question waits for the answer.
        let hold = drain.hold(Kind::Task);
        (!drain.started()).then_some(hold)
    }
}

/// Where answers are kept that are too large for the store.
fn results(config: &Config, clock: &Clock, metrics: &Arc<Metrics>, jobs: &Arc<dyn JobStore>) -> Results {
    let paid = &config.paid;
    let limits = ResultLimits {
        folder: paid.spool_dir.clone(),
        largest: paid.result_file_max.unwrap_or(0),
        together: paid.result_files,
        retention: paid.retention,
        linger: paid.max_timeout,
    };
    let shared: Option<Arc<dyn ValueStore>> = match config.store {
        Store::Redis { .. } => Some(jobs.clone()),
        Store::Embedded { .. } => None,
    };
    Results::new(limits, clock.clone(), Arc::clone(metrics), shared)
}

fn limits(config: &Config) -> Limits {
    Limits {
        work_timeout: config.paid.work_timeout,
        settle_margin: config.paid.settle_margin,
        unknown_hold: config.facilitator.unknown_hold,
        lease: config.paid.lease,
        max_jobs: config.paid.max_jobs,
    }
}
