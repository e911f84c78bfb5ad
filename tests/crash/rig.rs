//! A rig: a sandbox, a store, a gateway on them, and a client. Independent of every other rig.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use galaksio::clock::Clock;
use galaksio::ids::JobId;
use galaksio::jobs::{Embedded, Job, JobStore, Redis, State};
use galaksio::sandbox;
use galaksio::sandbox::faults::{Fault, Rule};
use galaksio::sandbox::{Sandbox, Service};
use galaksio::x402::{Address, Version};
use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::client::{Answer, Client, Order, Purchase};
use super::gateway::{Gateway, PATIENCE};
use super::settings::Settings;

/// Longer than any test: a call stalled by this never goes on.
pub(crate) const FOREVER: Duration = Duration::from_secs(3600);

/// How long a dead gateway's jobs are still its own, and how often orphans are looked for. Shorter leases lapse while
/// their owners live, on a machine under load.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

const DAY: Duration = Duration::from_secs(86_400);

/// Gateways that start at once, of all rigs: with all of them at once first prices take longer than they may.
static STARTS: Semaphore = Semaphore::const_new(2);

/// Which of the calls that a rule matches is the first to stall; all that follow do too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// So many pass before, paid or not. Where prices are asked for, one that was given up may still come and be counted.
    Call(u32),
    /// Of those that carry a payment, so many pass before. Questions for prices never do.
    Paid(u32),
}

impl First {
    fn passed(self) -> u32 {
        match self {
            First::Call(passed) | First::Paid(passed) => passed,
        }
    }
}

/// Where jobs are kept.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// A file of the rig's own.
    Embedded,
    /// A server shared by rigs; this rig's keys begin with the prefix.
    Redis { url: String, prefix: String },
}

pub(crate) struct Rig {
    pub(crate) sandbox: Sandbox,
    pub(crate) client: Client,
    /// The wallet that pays providers.
    pub(crate) spender: Address,
    store: Store,
    folder: TempDir,
    gateway: Option<Gateway>,
    /// Whether the gateway may ask the chain.
    proving: bool,
}

impl Rig {
    /// Everything, with one gateway running.
    pub(crate) async fn start(store: Store) -> Rig {
        Rig::stocked(store, false).await
    }

    /// The same, with a gateway that asks the chain what it does not know, and whose payments to providers lapse soon.
    pub(crate) async fn proving(store: Store) -> Rig {
        Rig::stocked(store, true).await
    }

    async fn stocked(store: Store, proving: bool) -> Rig {
        let _start = STARTS.acquire().await.unwrap();
        let rig = Rig::built(store, proving, |_| {}).await;
        // A first gateway asks for the usual prices and stocks up on caches. None of that is to be struck.
        until("the first prices", async || {
            let asked = |service| !rig.sandbox.requests.seen(service).is_empty();
            let paid = rig.sandbox.ledger.transfers().len() == 1;
            (paid && asked(Service::Merit) && asked(Service::OpenX402)).then_some(())
        })
        .await;
        rig
    }

    /// The same at its very beginning. `prepare` sees the sandbox before the gateway does.
    pub(crate) async fn unstocked(store: Store, prepare: impl FnOnce(&Rig)) -> Rig {
        Rig::built(store, false, prepare).await
    }

    async fn built(store: Store, proving: bool, prepare: impl FnOnce(&Rig)) -> Rig {
        // A provider that sends part of the money back would make the books harder to read.
        let settings = sandbox::Settings { merit_refunds: false, ..Default::default() };
        let sandbox = Sandbox::start(settings).await.unwrap();
        let client = Client::new();
        let key = super::gateway::WALLET_KEY.to_owned().into();
        let spender = galaksio::wallet::Wallet::new(key, "1", vec![client.asset.clone()]).unwrap().address();
        let folder = TempDir::new().unwrap();
        let mut rig = Rig { sandbox, client, spender, store, folder, gateway: None, proving };
        std::fs::write(rig.config(), rig.proxy_toml()).unwrap();
        prepare(&rig);
        rig.restart().await;
        rig
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("a running gateway")
    }

    /// Another gateway on the same store; for Redis only.
    pub(crate) async fn second(&self) -> Gateway {
        self.second_at(0).await
    }

    /// The same, with a clock that is `ahead` by so many seconds.
    pub(crate) async fn second_at(&self, ahead: i64) -> Gateway {
        Gateway::start(&self.config(), ahead).await
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.gateway.take().expect("a running gateway").kill();
    }

    /// Starts a gateway on what the last one left.
    pub(crate) async fn restart(&mut self) {
        self.gateway = Some(Gateway::start(&self.config(), 0).await);
    }

    /// SIGTERM, and whether it ended well.
    pub(crate) async fn stop(&mut self) {
        let gateway = self.gateway.take().expect("a running gateway");
        gateway.signal("TERM");
        assert!(gateway.ended().await.success(), "the gateway ended with a failure");
    }

    /// The store, opened by the test. An embedded one only once its gateway has ended.
    pub(crate) async fn open_store(&self) -> Arc<dyn JobStore> {
        match &self.store {
            Store::Embedded => Arc::new(Embedded::open(&self.embedded_path(), DAY, Clock::system()).unwrap()),
            Store::Redis { url, prefix } => Arc::new(Redis::connect(url, prefix, DAY).await.unwrap()),
        }
    }

    pub(crate) async fn sign(&self, order: Order) -> Purchase {
        self.client.sign(self.gateway().edge, order, Version::V2).await
    }

    /// Asks without a payment.
    pub(crate) async fn ask(&self, order: Order) -> Answer {
        self.client.ask(self.gateway().edge, order).await.unwrap()
    }

    pub(crate) async fn present(&self, purchase: &Purchase) -> Answer {
        self.client.present(self.gateway().edge, purchase).await.unwrap()
    }

    /// Presents the payment until there is more to say than that nobody knows: another gateway's last record, or a
    /// block, may be a moment away.
    pub(crate) async fn settled(&self, edge: SocketAddr, purchase: &Purchase) -> Answer {
        until("an answer that knows", async || {
            let answer = self.client.present(edge, purchase).await.unwrap();
            (answer.json()["code"] != "settlement_unknown").then_some(answer)
        })
        .await
    }

    /// Stalls the requests to `service` whose path starts so, see [`FOREVER`], until its faults are cleared. How many
    /// will have been struck when the first of them is stalled, see [`Rig::until_struck`].
    pub(crate) fn stall(&self, service: Service, path: &str, first: First, rule: fn(Rule) -> Rule) -> u64 {
        let of =
            |rule: Rule| if matches!(first, First::Paid(_)) { rule.at(path).paid() } else { rule.at(path) };
        if first.passed() > 0 {
            let passing = Rule::next(first.passed(), Fault::Slow(Duration::ZERO));
            self.sandbox.faults.add(service, of(passing));
        }
        self.sandbox.faults.add(service, rule(of(Rule::always(Fault::Slow(FOREVER)))));
        self.sandbox.faults.fired(service) + u64::from(first.passed()) + 1
    }

    /// Waits until so many requests to `service` were struck.
    pub(crate) async fn until_struck(&self, service: Service, count: u64) {
        until("the stalled call", async || (self.sandbox.faults.fired(service) >= count).then_some(())).await;
    }

    /// `GET /job/{id}`; `None` while there is no such job.
    pub(crate) async fn job(&self, id: JobId) -> Option<Value> {
        let answer = self.client.get(self.gateway().edge, &format!("/job/{id}")).await.unwrap();
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until `GET /job/{id}` says so.
    pub(crate) async fn until_state(&self, id: JobId, state: State) {
        until(&format!("job {id} to be {}", state.name()), async || {
            let job = self.job(id).await?;
            (job["state"] == state.name()).then_some(())
        })
        .await;
    }

    /// Waits until it is known of every payment to a provider for a job in this state whether it was made.
    pub(crate) async fn until_proven(&self, id: JobId, state: State) {
        until("the payments to providers to be proven", async || {
            let path = format!("/jobs?state={}", state.name());
            let listed = self.client.get(self.gateway().admin, &path).await.unwrap().json();
            // A store that is slow to answer lists nothing, which proves nothing.
            let jobs = listed["jobs"].as_array()?;
            let job = jobs.iter().find(|job| job["jobId"] == id.to_string())?;
            let payments = job["provider"].as_array()?;
            payments.iter().all(|payment| payment["fate"] != "open").then_some(())
        })
        .await;
    }

    /// Ends the gateway, and hands out the job and the names of its events.
    pub(crate) async fn autopsy(&mut self, purchase: &Purchase) -> (Job, Vec<&'static str>) {
        self.stop().await;
        let store = self.open_store().await;
        let job = store.by_claim(&purchase.claim).await.unwrap().expect("the job of the payment");
        let journal = store.journal(&purchase.claim).await.unwrap();
        (job, journal.iter().map(|entry| entry.event.name()).collect())
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("proxy.toml")
    }

    fn embedded_path(&self) -> PathBuf {
        self.folder.path().join("jobs.redb")
    }

    fn proxy_toml(&self) -> String {
        let urls = &self.sandbox.urls;
        let store = match &self.store {
            Store::Embedded => format!("path = {:?}", self.embedded_path()),
            Store::Redis { url, prefix } => {
                format!("kind = \"redis\"\nurl = {url:?}\nprefix = {prefix:?}")
            }
        };
        let work_timeout = if self.proving { "4s" } else { "60s" };
        let paid = format!("work_timeout = {work_timeout:?}\nlease = \"{}s\"", LEASE.as_secs());
        Settings { store, proving: self.proving, paid: &paid, more: "" }.proxy_toml(urls)
    }
}

impl Client {
    /// The challenge for `order`. A gateway waits two seconds for a first price, and says then when to ask again: on a busy
    /// machine that is what it may come to.
    pub(crate) async fn challenge(&self, edge: SocketAddr, order: Order) -> Answer {
        let challenge = until("a price", async || {
            let answer = self.ask(edge, order).await.unwrap();
            (answer.status != 503 || answer.json()["code"] != "no_provider").then_some(answer)
        })
        .await;
        assert_eq!(challenge.status, StatusCode::PAYMENT_REQUIRED, "{challenge:?}");
        challenge
    }

    /// Asks for `order`, and signs the challenge.
    pub(crate) async fn sign(&self, edge: SocketAddr, order: Order, version: Version) -> Purchase {
        let challenge = self.challenge(edge, order).await;
        self.accept(&challenge, order, version)
    }
}

/// Asks again until there is an answer.
pub(crate) async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < give_up, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
