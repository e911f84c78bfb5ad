//! The stage a test plays on: the sandbox, and a generated `proxy.toml` that gateways are started by. Everything ends
//! when it is dropped.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::future::Future;
use std::time::{Duration, Instant};

use galaksio::clock::Clock;
use galaksio::config::{self, Config};
use galaksio::guard::Switch;
use galaksio::jobs::JobStore;
use galaksio::jobs::embedded::{Embedded, OpenError};
use galaksio::sandbox::{NETWORK, Sandbox, Service, Settings, pay_to};
use galaksio::wallet::Wallet;
use galaksio::x402::{Address, Asset};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::gateway::{Gateway, Process};

/// A condition that is not met by then has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Who clients pay.
pub(crate) const PAY_TO: &str = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F";

pub(crate) const ROUTES: &str = r#"
[[routes]]
path = "/store"
methods = ["POST"]
work = "store"
[[routes]]
path = "/run"
methods = ["POST"]
work = "run"
[[routes]]
path = "/premium/*"
methods = ["GET"]
price = "$0.001"
description = "Reports"
[[routes]]
path = "/echo"
methods = ["POST"]
price = "$0.002"
[[routes]]
path = "/events"
methods = ["GET"]
price = "$0.003"
[[routes]]
path = "/slow"
methods = ["GET"]
price = "$0.005"
[[routes]]
path = "/large"
methods = ["GET"]
price = "$0.006"
"#;

/// How a stage is set up. Deadlines are short; a test that is about one of them sets it.
pub(crate) struct Setup {
    pub(crate) sandbox: Settings,
    routes: String,
    providers: String,
    token: String,
    asks_chain: bool,
    settings: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
}

impl Setup {
    pub(crate) fn new() -> Setup {
        Setup {
            sandbox: Settings::default(),
            routes: ROUTES.to_owned(),
            providers: String::new(),
            token: String::new(),
            asks_chain: false,
            settings: BTreeMap::new(),
        }
        .text("edge", "listen", "127.0.0.1:0")
        .text("edge", "drain_timeout", "5s")
        .text("facilitator", "unknown_hold", "2s")
        .text("paid", "work_timeout", "20s")
        .text("paid", "lease", "2s")
        .text("admin", "listen", "127.0.0.1:0")
        .text("log", "filter", "info")
    }

    /// Sets `key` of `[section]` to a text.
    pub(crate) fn text(mut self, section: &'static str, key: &'static str, value: &str) -> Setup {
        let value =
            if key == "listen" && section == "edge" { format!("[{value:?}]") } else { format!("{value:?}") };
        self.settings.entry(section).or_default().insert(key, value);
        self
    }

    /// Sets `key` of `[section]` to a list of texts.
    pub(crate) fn list(mut self, section: &'static str, key: &'static str, values: &[&str]) -> Setup {
        self.settings.entry(section).or_default().insert(key, format!("{values:?}"));
        self
    }

    /// Sets `key` of `[section]` to a number.
    pub(crate) fn number(mut self, section: &'static str, key: &'static str, value: u64) -> Setup {
        self.settings.entry(section).or_default().insert(key, value.to_string());
        self
    }

    /// Sets `key` of `[section]` to a value as TOML writes it.
    pub(crate) fn toml_value(mut self, section: &'static str, key: &'static str, value: &str) -> Setup {
        self.settings.entry(section).or_default().insert(key, value.to_owned());
        self
    }

    /// By this clock.
    pub(crate) fn clock(mut self, clock: &Clock) -> Setup {
        self.sandbox.clock = clock.clone();
        self
    }

    /// With an endpoint of the chain.
    pub(crate) fn asking_the_chain(mut self) -> Setup {
        self.asks_chain = true;
        self
    }

    /// Keeps jobs in Redis.
    pub(crate) fn redis(self, url: &str) -> Setup {
        self.text("store", "kind", "redis").text("store", "url", url)
    }

    /// These routes instead, or whatever else `proxy.toml` has tables of.
    pub(crate) fn routes(mut self, routes: &str) -> Setup {
        self.routes = routes.to_owned();
        self
    }

    /// One more `[[provider]]`; `$merit` and `$openx402` stand for the sandbox's.
    pub(crate) fn provider(mut self, text: &str) -> Setup {
        self.providers += text;
        self
    }

    pub(crate) fn start(self) -> Stage {
        Stage::new(self)
    }

    fn toml(&self, sandbox: &Sandbox, folder: &TempDir) -> String {
        let urls = &sandbox.urls;
        let text = |value: &str| format!("{value:?}");
        let store = folder.path().join("jobs.redb");
        let mut settings = self.settings.clone();
        let mut default = |section, key, value| {
            settings.entry(section).or_default().entry(key).or_insert(value);
        };
        default("app", "url", text(&urls.app));
        if !self.settings.get("facilitator").is_some_and(|settings| settings.contains_key("kind")) {
            default("facilitator", "url", text(&urls.facilitator));
        }
        default("providers.xcache", "url", text(&urls.xcache));
        default("providers.openx402", "url", text(&urls.openx402));
        default("providers.merit", "url", text(&urls.merit));
        default("wallet", "key_env", text("GALAKSIO_WALLET_KEY"));
        if !self.settings.contains_key("store") {
            default("store", "path", text(store.to_str().unwrap()));
        }
        let mut toml = String::new();
        for (section, entries) in settings {
            writeln!(toml, "[{section}]").unwrap();
            for (key, value) in entries {
                writeln!(toml, "{key} = {value}").unwrap();
            }
        }
        let accept = format!("[[accepts]]\nnetwork = \"base-sepolia\"\npay_to = {PAY_TO:?}\n{}", self.token);
        let declared = self.providers.replace("$merit", &urls.merit).replace("$openx402", &urls.openx402);
        let chain = format!("[[chains]]\nnetwork = \"base-sepolia\"\nrpc = [{:?}]\n", urls.rpc);
        toml + &self.routes + &accept + &declared + if self.asks_chain { &chain } else { "" }
    }
}

/// The sandbox, and what gateways are started from.
pub(crate) struct Stage {
    // In the order in which they are to go.
    pub(crate) sandbox: Option<Sandbox>,
    runtime: Option<Runtime>,
    folder: TempDir,
    setup: Setup,
    key: String,
}

impl Stage {
    fn new(setup: Setup) -> Stage {
        // Whoever was first has installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let sandbox = runtime.block_on(Sandbox::start(setup.sandbox.clone())).unwrap();
        Stage {
            sandbox: Some(sandbox),
            runtime: Some(runtime),
            folder: TempDir::new().unwrap(),
            setup,
            key: format!("{:064x}", uuid::Uuid::new_v4().as_u128()),
        }
    }

    /// A gateway in this process, which has bought its stock: that is no part of any sale.
    pub(crate) fn gateway(&self) -> Gateway {
        let gateway = self.cold_gateway();
        self.run(eventually("a cache in stock", async || {
            (self.purchases(Service::XCache) > 0).then_some(())
        }));
        gateway
    }

    /// A gateway in this process that may still be asking for prices.
    pub(crate) fn cold_gateway(&self) -> Gateway {
        Gateway::start(&self.config(), self.setup.sandbox.clock.clone())
    }

    /// A gateway that is a process of its own.
    pub(crate) fn process(&self) -> Process {
        let path = self.folder.path().join("proxy.toml");
        std::fs::write(&path, self.setup.toml(self.sandbox(), &self.folder)).unwrap();
        Process::start(path, &self.key)
    }

    fn config(&self) -> Config {
        let environment = BTreeMap::from([("GALAKSIO_WALLET_KEY".to_owned(), self.key.clone())]);
        let toml = self.setup.toml(self.sandbox(), &self.folder);
        config::load_text("proxy.toml", &toml, &environment).unwrap_or_else(|wrong| panic!("{wrong}")).config
    }

    /// Changes a setting for gateways that are started from now on.
    pub(crate) fn change(&mut self, section: &'static str, key: &'static str, value: &str) {
        let setup = std::mem::replace(&mut self.setup, Setup::new());
        self.setup = setup.text(section, key, value);
    }

    /// The same for the token that is taken.
    pub(crate) fn change_token(&mut self, token: &str) {
        token.clone_into(&mut self.setup.token);
    }

    /// The same for a setting that is a list of texts.
    pub(crate) fn change_list(&mut self, section: &'static str, key: &'static str, values: &[&str]) {
        let setup = std::mem::replace(&mut self.setup, Setup::new());
        self.setup = setup.list(section, key, values);
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        self.sandbox.as_ref().unwrap()
    }

    /// Runs a test's own part.
    pub(crate) fn run<F: Future>(&self, part: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(part)
    }

    /// What stops its wallet.
    pub(crate) fn switch(&self) -> Switch {
        Switch::beside(&self.folder.path().join("jobs.redb"))
    }

    /// How many jobs are in its archive.
    pub(crate) fn archived(&self) -> usize {
        let mut jobs = 0;
        galaksio::jobs::archive::read(&self.folder.path().join("jobs.redb.archive"), |_, _| jobs += 1)
            .unwrap();
        jobs
    }

    /// The gateway's own wallet.
    pub(crate) fn wallet(&self) -> Address {
        Wallet::new(SecretString::from(self.key.clone()), "1", vec![asset()]).unwrap().address()
    }

    /// What an account has, in atomic units.
    pub(crate) fn balance(&self, account: Address) -> i128 {
        self.sandbox().ledger.balance(account).units().try_into().unwrap()
    }

    /// The balances that a sale changes.
    pub(crate) fn books(&self, payer: Address) -> Books {
        let balance = |account| self.balance(account);
        Books {
            payer: balance(payer),
            payee: balance(PAY_TO.parse().unwrap()),
            wallet: balance(self.wallet()),
            xcache: balance(pay_to(Service::XCache)),
            openx402: balance(pay_to(Service::OpenX402)),
            merit: balance(pay_to(Service::Merit)),
        }
    }

    /// How often money moved so far, but for stock, which is bought whenever it is low.
    pub(crate) fn movements(&self) -> usize {
        let transfers = self.sandbox().ledger.transfers();
        transfers.iter().filter(|transfer| transfer.to != pay_to(Service::XCache)).count()
    }

    /// How often a client paid the operator.
    pub(crate) fn sales(&self) -> usize {
        let payee: Address = PAY_TO.parse().unwrap();
        self.sandbox().ledger.transfers().iter().filter(|transfer| transfer.to == payee).count()
    }

    /// How often the gateway paid this provider.
    pub(crate) fn purchases(&self, provider: Service) -> usize {
        let (wallet, provider) = (self.wallet(), pay_to(provider));
        let transfers = self.sandbox().ledger.transfers();
        transfers.iter().filter(|transfer| transfer.from == wallet && transfer.to == provider).count()
    }

    /// How many jobs there are in each state. The gateway must have ended.
    pub(crate) fn jobs(&self) -> BTreeMap<&'static str, u64> {
        let store = self.folder.path().join("jobs.redb");
        let store = when_free(
            || Embedded::open(&store, Duration::from_secs(3600), Clock::system()),
            |error| matches!(error, OpenError::InUse(_)),
        );
        let counts = self.run(store.count_by_state()).unwrap();
        counts
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(state, count)| (state.name(), count))
            .collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.sandbox.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

/// Balances, in atomic units; or how they changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) payer: i128,
    pub(crate) payee: i128,
    pub(crate) wallet: i128,
    pub(crate) xcache: i128,
    pub(crate) openx402: i128,
    pub(crate) merit: i128,
}

impl Books {
    /// What changed since `before`.
    pub(crate) fn since(self, before: Books) -> Books {
        Books {
            payer: self.payer - before.payer,
            payee: self.payee - before.payee,
            wallet: self.wallet - before.wallet,
            xcache: self.xcache - before.xcache,
            openx402: self.openx402 - before.openx402,
            merit: self.merit - before.merit,
        }
    }
}

/// The token of the sandbox.
pub(crate) fn asset() -> Asset {
    Asset::default_for(NETWORK).unwrap()
}

/// Opens something as soon as whoever had it open before has let it go: the threads of a gateway that has ended may
/// take a moment more.
pub(crate) fn when_free<T, E: Debug>(open: impl Fn() -> Result<T, E>, in_use: impl Fn(&E) -> bool) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(error) if in_use(&error) && Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// Asks again and again until `met` gives something.
pub(crate) async fn eventually<T>(what: &str, mut met: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = met().await {
            return found;
        }
        assert!(Instant::now() < give_up, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
