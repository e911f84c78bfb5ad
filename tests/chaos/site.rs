//! Where a run takes place: a sandbox that survives everything, a store, and gateways that are killed and started again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use galaksio::clock::Clock;
use galaksio::jobs::{Embedded, JobStore, Redis, State};
use galaksio::money::Amount;
use galaksio::sandbox::{self, Sandbox};
use galaksio::wallet::Wallet;
use galaksio::x402::Address;
use parking_lot::{Mutex, RwLock};
use tempfile::TempDir;

use super::client::Client;
use super::gateway::{Gateway, WALLET_KEY};
use super::plan;
use super::redis_server::RedisServer;
use super::settings::Settings;

/// Short, so that a run has all of it in it.
const PAID: &str = r#"
max_timeout = "40s"
work_timeout = "6s"
settle_margin = "5s"
lease = "3s"
"#;
/// Far away: what is lost here is lost on purpose.
const LIMITS: &str = r#"
[limits]
spend_per_hour = "$1000"
provider_spend_per_hour = "$1000"
loss_per_hour = "$1000"
"#;
/// Long enough for a payment of either leg to lapse, and for the chain to say so.
const QUIET: Duration = Duration::from_secs(240);
const DAY: Duration = Duration::from_secs(86_400);
/// More than any run can spend.
const PLENTY: Amount = Amount::new(1_000_000_000_000);

pub(crate) struct Site {
    pub(crate) sandbox: Sandbox,
    pub(crate) client: Client,
    /// The wallet that pays providers.
    pub(crate) spender: Address,
    /// What the clients' account and the wallet held at the beginning.
    pub(crate) opened: Amount,
    /// Gateways that were killed so far.
    pub(crate) killed: AtomicUsize,
    redis: Option<Mutex<RedisServer>>,
    gateways: Vec<Slot>,
    folder: TempDir,
}

struct Slot {
    gateway: tokio::sync::Mutex<Option<Gateway>>,
    edge: RwLock<SocketAddr>,
    /// By how many seconds its clock is wrong.
    ahead: i64,
}

impl Site {
    /// Two gateways on one Redis.
    pub(crate) async fn replicated(seed: u64) -> Site {
        // A kill of the server must lose nothing that it acknowledged. By "everysec" it may: while the disk is slow to sync,
        // it puts off writing to its file, and answers all the same.
        // In memory if there is such a folder: a file there outlives the server, and is not slow where the disk is.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let server = RedisServer::start_in(folder, &["--appendonly", "yes", "--appendfsync", "always"]);
        Site::start(Some(server), plan::clocks(seed, 2)).await
    }

    /// One gateway on a file.
    pub(crate) async fn alone(seed: u64) -> Site {
        Site::start(None, plan::clocks(seed, 1)).await
    }

    async fn start(redis: Option<RedisServer>, clocks: Vec<i64>) -> Site {
        // A provider that sends part of the money back would make the books harder to read.
        let settings = sandbox::Settings { merit_refunds: false, ..Default::default() };
        let sandbox = Sandbox::start(settings).await.unwrap();
        let client = Client::new();
        let key = WALLET_KEY.to_owned().into();
        let spender = Wallet::new(key, "1", vec![client.asset.clone()]).unwrap().address();
        sandbox.ledger.set_balance(client.address(), PLENTY);
        sandbox.ledger.set_balance(spender, PLENTY);
        let mut site = Site {
            sandbox,
            client,
            spender,
            opened: PLENTY,
            killed: AtomicUsize::new(0),
            redis: redis.map(Mutex::new),
            gateways: Vec::new(),
            folder: TempDir::new().unwrap(),
        };
        std::fs::write(site.config(), site.proxy_toml()).unwrap();
        for ahead in clocks {
            let gateway = Gateway::start(&site.config(), ahead).await;
            let edge = RwLock::new(gateway.edge);
            site.gateways.push(Slot { gateway: tokio::sync::Mutex::new(Some(gateway)), edge, ahead });
        }
        site
    }

    /// Where a replica listens now. Numbers go round.
    pub(crate) fn edge(&self, replica: usize) -> SocketAddr {
        *self.gateways[replica % self.gateways.len()].edge.read()
    }

    /// SIGKILL, and a new process at once.
    pub(crate) async fn strike(&self, replica: usize) {
        let slot = &self.gateways[replica % self.gateways.len()];
        let mut gateway = slot.gateway.lock().await;
        if let Some(running) = gateway.take() {
            running.kill();
            self.killed.fetch_add(1, Ordering::Relaxed);
        }
        // Nobody finds it where it was, and it may need the store to start.
        let started = Gateway::start(&self.config(), slot.ahead).await;
        *slot.edge.write() = started.edge;
        *gateway = Some(started);
    }

    /// SIGKILL for the store, which comes back after `outage`.
    pub(crate) async fn lose_store(&self, outage: Duration) {
        let Some(redis) = &self.redis else { return };
        // No gateway starts meanwhile: without its store it would refuse to.
        let mut held = Vec::new();
        for slot in &self.gateways {
            held.push(slot.gateway.lock().await);
        }
        redis.lock().kill();
        tokio::time::sleep(outage).await;
        tokio::task::block_in_place(|| redis.lock().start_again());
    }

    /// Waits until no job waits for anything, and no payment to a provider is open.
    pub(crate) async fn until_quiet(&self) {
        let give_up = Instant::now() + QUIET;
        loop {
            let mut restless = Vec::new();
            for state in State::ALL.into_iter().filter(|state| !settled(*state)) {
                restless.extend(self.in_state(state).await);
            }
            let owed = self.in_state(State::RefundDue).await;
            let open = |job: &serde_json::Value| {
                job["provider"].as_array().is_some_and(|paid| paid.iter().any(|one| one["fate"] == "open"))
            };
            restless.extend(owed.into_iter().filter(open));
            if restless.is_empty() {
                return;
            }
            assert!(Instant::now() < give_up, "jobs that never come to rest: {restless:#?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn in_state(&self, state: State) -> Vec<serde_json::Value> {
        let admin = self.gateways[0].gateway.lock().await.as_ref().unwrap().admin;
        let path = format!("/jobs?state={}&limit=1000", state.name());
        let answer = self.client.get(admin, &path).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()["jobs"].as_array().unwrap().clone()
    }

    /// Ends the gateways, each of which must end well.
    pub(crate) async fn close(&self) {
        for slot in &self.gateways {
            let gateway = slot.gateway.lock().await.take().unwrap();
            gateway.signal("TERM");
            assert!(gateway.ended().await.success(), "a gateway ended with a failure");
        }
    }

    /// What they leave.
    pub(crate) async fn open(&self) -> Arc<dyn JobStore> {
        match &self.redis {
            None => Arc::new(Embedded::open(&self.embedded_path(), DAY, Clock::system()).unwrap()),
            Some(redis) => {
                let url = redis.lock().url();
                Arc::new(Redis::connect(&url, "chaos", DAY).await.unwrap())
            }
        }
    }

    /// How many gateways there are.
    pub(crate) fn replicas(&self) -> usize {
        self.gateways.len()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("proxy.toml")
    }

    fn embedded_path(&self) -> PathBuf {
        self.folder.path().join("jobs.redb")
    }

    fn proxy_toml(&self) -> String {
        let urls = &self.sandbox.urls;
        let store = match &self.redis {
            None => format!("path = {:?}", self.embedded_path()),
            Some(redis) => format!("kind = \"redis\"\nurl = {:?}\nprefix = \"chaos\"", redis.lock().url()),
        };
        Settings { store, proving: true, paid: PAID, more: LIMITS }.proxy_toml(urls)
    }
}

/// States in which nothing is open: no money may still move, and no work goes on.
pub(crate) fn settled(state: State) -> bool {
    state.at_rest() && state != State::Held
}
