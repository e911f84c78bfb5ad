//! The composition root: builds every part from the configuration, runs them, and ends them in order.
//!
//! Several runtimes. Each worker of the edge has one. Paid work, and every call it makes, runs on one of our own, which ends last:
//! a connection to a facilitator must not die under a settlement because clients are gone.

mod archive;
mod facilitators;
mod health;
mod hooks;
mod inventory;
mod observer;
mod refunds;
mod trust;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Request;
use secrecy::ExposeSecret;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::admin::{self, FindJobs, KeepBooks, Pages};
use crate::broker::{Audit, Broker, Limits, Recovery, Spending};
use crate::chain::{Chains, Misfit};
use crate::clock::Clock;
use crate::config::resolved::{Action, Config, Store};
use crate::facilitator::local::{LocalError, LocalFacilitator};
use crate::facilitator::{Facilitator, Pool};
use crate::guard::{Guards, OutlayWatch, Switch, Watched};
use crate::jobs::embedded::{self, Embedded};
use crate::jobs::redis::{OpenError as RedisError, Redis};
use crate::jobs::{JobStore, Retention, ValueStore};
use crate::ledger;
use crate::listener::{ListenError, Listener};
use crate::outgoing::{self, Outgoing};
use crate::providers::{Registry, Surroundings};
use crate::proxy::{
    Answer, BindError, Bound, Drain, Forward, ForwardError, Gateway, Hold, Kind, Own, OwnPaths, Paid, Parts,
    Peer, RequestBody, Router, Sell, Stop, threads,
};
use crate::quote_cache::{OpenError, QuoteCache, Settings};
use crate::reason::{Problem, Reason};
use crate::refunds::Watch;
use crate::telemetry::{CountedStore, Metrics, Open};
use crate::wallet::{Payees, Wallet, WalletError};
use crate::x402::Asset;
use health::Health;
use inventory::Stock;
use observer::Observer;

pub use refunds::refunds;
pub use trust::{TrustError, facilitators as trusted};

/// How long the paid runtime's last tasks may take to end, once nothing waits for them any more.
const LAST_TASKS: Duration = Duration::from_secs(5);

/// How long a start waits for the chains to be compared with the configuration.
const CHECK: Duration = Duration::from_secs(10);

/// Between two looks at where a chain stands, while nobody asks.
const CHAINS_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at what is left for gas.
const GAS_EVERY: Duration = Duration::from_secs(5);

/// A gateway that is built, and listens, but does not answer yet.
pub struct App {
    bound: Bound,
    gateway: Gateway,
    drain: Drain,
    admin: Option<SocketAddr>,
    runtime: Runtime,
    stopping: watch::Sender<bool>,
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The runtime cannot be made.
    #[error("cannot start threads: {0}")]
    Threads(#[source] std::io::Error),
    /// An address is taken, or TLS is wrong.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The app's URL is no use.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A chain, or a token on it, is another than the configuration says.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Misfits(Vec<Misfit>),
    /// The embedded store cannot be opened.
    #[error(transparent)]
    Embedded(#[from] embedded::OpenError),
    /// Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// No quotes can be made.
    #[error(transparent)]
    Quotes(#[from] OpenError),
    /// The wallet's key or cap is no use.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The facilitator's URL is no use.
    #[error("the facilitator's URL is not valid: {0}")]
    Facilitator(#[from] http::uri::InvalidUri),
    /// The gateway cannot be its own facilitator.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// No TLS for outgoing calls.
    #[error("cannot make outgoing TLS connections: {0}")]
    Tls(#[from] rustls::Error),
    /// The admin address is taken.
    #[error("health and metrics: {0}")]
    Admin(#[source] ListenError),
}

impl App {
    /// Builds the gateway and binds its addresses. Must not be called inside a runtime: it has its own.
    ///
    /// `take_over`: whether to take the listeners of the process that runs now, over `edge.upgrade_socket`.
    pub fn build(config: &Config, take_over: bool) -> Result<App, StartError> {
        App::build_by(Clock::system(), config, take_over)
    }

    /// As [`App::build`], by another clock than the machine's: what quotes, payments and kept answers last is then
    /// for a test to say. Timeouts are not.
    pub fn build_by(clock: Clock, config: &Config, take_over: bool) -> Result<App, StartError> {
        let bound = match &config.edge.upgrade_socket {
            Some(socket) if take_over => Bound::take_over(&config.edge, socket)?,
            _ => Bound::new(&config.edge)?,
        };
        let workers = threads(&config.edge);
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("galaksio-paid")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let (stopping, stopped) = watch::channel(false);
        let drain = Drain::new();
        let metrics = Arc::new(Metrics::new());
        metrics.count_open(open(&drain));
        let health = Arc::new(Health::new(drain.clone(), Arc::clone(&metrics)));
        let forward = Arc::new(Forward::new(&config.app, config.edge.body_timeout, workers)?);
        let own = OwnPaths {
            status: config.paid.status_path.clone(),
            job: config.paid.job_path.clone(),
            files: config.paid.files_path.clone(),
            jobs: config.paid.jobs_path.clone(),
        };
        let sells = config.routes.iter().any(|route| !matches!(route.action, Action::Free));
        let (sell, own, jobs): (Arc<dyn Sell>, _, _) = if sells {
            let build =
                Build { config, clock, runtime: &runtime, drain: &drain, metrics: &metrics, health: &health };
            let (paid, jobs) = runtime.block_on(build.paid(stopped.clone()))?;
            (Arc::new(paid), own, Some(jobs))
        } else {
            (Arc::new(Nothing), OwnPaths::default(), None)
        };
        let admin = match config.admin.listen {
            Some(address) => {
                let jobs = jobs.filter(|_| address.ip().is_loopback());
                Some(serve_admin(&runtime, address, &metrics, &health, jobs, config.archive(), stopped)?)
            }
            None => None,
        };
        let observer = Observer::new(&config.routes, Arc::clone(&metrics), &config.log);
        let router = Router::new(&config.routes, own);
        let gateway =
            Gateway::new(config.edge.clone(), router, forward, sell, Some(Arc::new(observer)), drain.clone());
        Ok(App { bound, gateway, drain, admin, runtime, stopping })
    }

    /// Where clients are served.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.bound.local_addrs()
    }

    /// Where health and metrics are served.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Serves until told to stop; blocks this thread. Returns when requests, tunnels and paid work have ended, or
    /// their deadlines have.
    pub fn run(self, stop: Stop) {
        let App { bound, gateway, drain, runtime, stopping, .. } = self;
        bound.run(gateway, stop);
        // Says so to whoever has not heard it: a stop at once does not drain.
        drain.start();
        stopping.send_replace(true);
        runtime.shutdown_timeout(LAST_TASKS);
    }
}

/// What the paid part is built from.
struct Build<'a> {
    config: &'a Config,
    clock: Clock,
    runtime: &'a Runtime,
    drain: &'a Drain,
    metrics: &'a Arc<Metrics>,
    health: &'a Arc<Health>,
}

impl Build<'_> {
    async fn paid(&self, stopped: watch::Receiver<bool>) -> Result<(Paid, Arc<dyn JobStore>), StartError> {
        let Build { config, ref clock, runtime, drain, metrics, health } = *self;
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
        let quotes = Arc::new(quotes.paying(Arc::clone(&payees)));
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
        let broker = Arc::new(broker.proved_by(chains));
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
            // Of its own, because connections live on the runtime that opened them.
            forward: Arc::new(Forward::new(&config.app, config.edge.body_timeout, threads(&config.edge))?),
            drain: drain.clone(),
            runtime: runtime.handle().clone(),
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

/// The HTTP client for calls to providers or facilitators.
fn outgoing(config: &Config, allow_plain_http: bool) -> Result<Outgoing, rustls::Error> {
    let connect_timeout = config.providers.connect_timeout;
    Outgoing::new(outgoing::Settings { connect_timeout, allow_plain_http })
}

/// What stops the wallet.
fn switch(config: &Config, values: &Arc<dyn ValueStore>) -> Switch {
    match &config.store {
        Store::Embedded { path } => Switch::beside(path),
        Store::Redis { .. } => Switch::Store(Arc::clone(values)),
    }
}

async fn open_store(config: &Config, clock: &Clock) -> Result<Arc<dyn JobStore>, StartError> {
    let retention = Retention { time: config.paid.retention, archived: config.archive().is_some() };
    Ok(match &config.store {
        Store::Embedded { path } => Arc::new(Embedded::open(path, retention, clock.clone())?),
        Store::Redis { url, prefix } => {
            Arc::new(Redis::connect(url.expose_secret(), prefix, retention).await?)
        }
    })
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

fn limits(config: &Config) -> Limits {
    Limits {
        work_timeout: config.paid.work_timeout,
        settle_margin: config.paid.settle_margin,
        unknown_hold: config.facilitator.unknown_hold,
        lease: config.paid.lease,
        max_jobs: config.paid.max_jobs,
    }
}

fn serve_admin(
    runtime: &Runtime,
    address: SocketAddr,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    jobs: Option<Arc<dyn JobStore>>,
    archive: Option<PathBuf>,
    mut stopped: watch::Receiver<bool>,
) -> Result<SocketAddr, StartError> {
    let _inside = runtime.enter();
    let listener = Listener::bind(address).map_err(StartError::Admin)?;
    let address = listener.address();
    let health = Arc::clone(health);
    let mut pages = Pages::new(Arc::clone(metrics), Clock::system(), move || health.readiness());
    if let Some(jobs) = jobs {
        pages = pages.keep_books(keep_books(Arc::clone(&jobs), archive)).list_jobs(find_jobs(jobs));
    }
    runtime.spawn(async move {
        let until = async move {
            // Also when the sender is gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        if let Err(error) = admin::serve(listener, pages, until).await {
            tracing::error!(%error, "health and metrics are not served any more");
        }
    });
    Ok(address)
}

/// What the edge has open, by the counts that it drains by.
fn open(drain: &Drain) -> impl Fn() -> Open + use<> {
    let drain = drain.clone();
    move || Open {
        connections: drain.open(Kind::Connection),
        tunnels: drain.open(Kind::Tunnel),
        work: drain.open(Kind::Task),
    }
}

/// How the admin pages make the books.
fn keep_books(jobs: Arc<dyn JobStore>, archive: Option<PathBuf>) -> KeepBooks {
    Box::new(move |check| {
        let (jobs, archive) = (Arc::clone(&jobs), archive.clone());
        Box::pin(async move {
            let books = ledger::collect(&*jobs, archive).await.map_err(|error| error.to_string())?;
            let found = check.then(|| books.check());
            Ok(ledger::Report::new(&books, found.as_deref()).to_string())
        })
    })
}

/// How the admin pages find jobs.
fn find_jobs(jobs: Arc<dyn JobStore>) -> FindJobs {
    Box::new(move |state, limit| {
        let jobs = Arc::clone(&jobs);
        Box::pin(async move {
            let mut found = Vec::new();
            for id in jobs.in_state(state, limit).await? {
                // One that has moved on or was forgotten in between is left out.
                found.extend(jobs.by_id(id).await?.filter(|job| job.state == state));
            }
            Ok(found)
        })
    })
}

/// Sells nothing: for a configuration without prices.
struct Nothing;

impl Sell for Nothing {
    fn sell(&self, _: usize, _: Request<RequestBody>, _: Peer) -> BoxFuture<'static, Answer> {
        Box::pin(async { Answer::from(Problem::new(Reason::Internal)) })
    }

    fn own(&self, _: Own, _: Request<RequestBody>, _: Peer) -> BoxFuture<'static, Answer> {
        Box::pin(async { Answer::from(Problem::new(Reason::JobUnknown)) })
    }
}
