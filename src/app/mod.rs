//! The composition root: builds every part from the configuration, runs them, and ends them in order.
//!
//! Several runtimes. Each worker of the edge has one, where a sale runs in a task of its own, with its connections to store,
//! facilitator and provider, beside the connection of its client: nothing of it waits for another thread. Such a runtime
//! ends when no work is left in it, not when clients are gone. Recovery and all that runs in the background has one of its own, which ends last.

mod admin;
mod archive;
mod facilitators;
mod health;
mod hooks;
mod inventory;
mod observer;
mod paid;
mod refunds;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Request;
use secrecy::ExposeSecret;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::chain::Misfit;
use crate::clock::Clock;
use crate::config::resolved::{Action, Config, Store};
use crate::facilitator::local::LocalError;
use crate::guard::Switch;
use crate::jobs::embedded::{self, Embedded};
use crate::jobs::redis::{OpenError as RedisError, Redis};
use crate::jobs::{JobStore, Retention, ValueStore};
use crate::listener::ListenError;
use crate::outgoing::{self, Outgoing};
use crate::proxy::{
    Answer, BindError, Bound, Drain, Forward, ForwardError, Gateway, Kind, Own, OwnPaths, Peer, RequestBody,
    Router, Sell, Stop, threads,
};
use crate::quote_cache::OpenError;
use crate::reason::{Problem, Reason};
use crate::telemetry::{Metrics, Open};
use crate::wallet::WalletError;
use health::Health;
use observer::Observer;
use paid::Build;

pub use refunds::refunds;
pub use trust::{TrustError, facilitators as trusted};

/// How long the last tasks in the background may take to end, once nothing waits for them any more.
const LAST_TASKS: Duration = Duration::from_secs(5);

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
            .thread_name("galaksio-back")
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
            let (runtime, forward, drain) = (&runtime, &forward, &drain);
            let build = Build { config, clock, runtime, forward, drain, metrics: &metrics, health: &health };
            let (paid, jobs) = runtime.block_on(build.paid(stopped.clone()))?;
            (Arc::new(paid), own, Some(jobs))
        } else {
            (Arc::new(Nothing), OwnPaths::default(), None)
        };
        let admin = match config.admin.listen {
            Some(address) => {
                let jobs = jobs.filter(|_| address.ip().is_loopback());
                Some(admin::serve(&runtime, address, &metrics, &health, jobs, config.archive(), stopped)?)
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

/// What the edge has open, by the counts that it drains by.
fn open(drain: &Drain) -> impl Fn() -> Open + use<> {
    let drain = drain.clone();
    move || Open {
        connections: drain.open(Kind::Connection),
        tunnels: drain.open(Kind::Tunnel),
        work: drain.open(Kind::Task),
    }
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
