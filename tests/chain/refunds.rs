//! Refunds of a real gateway's jobs, on a real chain: by the command, killed, run again, run several times at once.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use galaksio::chain::Chains;
use galaksio::clock::Clock;
use galaksio::config::{Environment, load_text};
use galaksio::jobs::{Embedded, Job, JobStore, Redis, State};
use galaksio::money::Amount;
use galaksio::providers::returned;
use galaksio::refunds::Returns;
use galaksio::telemetry::Metrics;
use galaksio::wallet::Payees;
use galaksio::x402::{Address, Version};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::anvil::{Chain, Settings, new_key};
use crate::between::{Between, Fault};
use crate::client::Request as Ask;
use crate::gateway::Gateway;
use crate::payer::{Payer, Payment};
use crate::proof::settings;
use crate::redis_server::RedisServer;
use crate::rig::PAY_TO;

const PRICE: u64 = 1_000;
const PURSE: u64 = 5_000;
const FLOAT: u64 = 100_000;

/// A gateway whose app is gone, so that all it has been paid for is owed; and who can pay it back.
struct Debtor {
    // In the order in which they are to go.
    gateway: Gateway,
    rpc: Between,
    chain: Chain,
    redis: RedisServer,
    folder: TempDir,
    wallet_key: String,
    wallet: Address,
    payer: Payer,
    /// What it failed at, and was paid for.
    owed: Vec<Payment>,
    runtime: Runtime,
}

impl Debtor {
    fn new() -> Debtor {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let chain = runtime.block_on(Chain::start(Settings::default()));
        let rpc = runtime.block_on(Between::start(&chain.url));
        let redis = RedisServer::start(&[]);
        let (wallet_key, wallet) = new_key();
        let payer = Payer::new();
        let (gas_key, _) = runtime.block_on(async {
            chain.mint(payer.address(), PURSE).await;
            chain.mint(wallet, FLOAT).await;
            chain.gas_key().await
        });
        let text = proxy_toml(&chain.url, &redis.url(), "");
        let environment = Environment::from([("GAS".to_owned(), gas_key)]);
        let loaded = load_text("proxy.toml", &text, &environment);
        let config = loaded.unwrap_or_else(|mistakes| panic!("{mistakes}")).config;
        let gateway = Gateway::start(&config, Clock::system());
        let folder = TempDir::new().unwrap();
        let paying = proxy_toml(&rpc.url, &redis.url(), "[wallet]\nkey_env = \"WALLET\"\n");
        std::fs::write(folder.path().join("proxy.toml"), paying).unwrap();
        let owed = runtime.block_on(async {
            let (client, mut owed) = (gateway.client(), Vec::new());
            for version in [Version::V1, Version::V2] {
                let ask = Ask::get("/premium/report");
                let payment = client.sign(&ask, &payer, version).await;
                let answer = client.send(&ask.paid(&payment)).await;
                answer.expect(502, "refund_due", Some("yes"), Some("never"));
                owed.push(payment);
            }
            // Nothing is paid back that is not final.
            chain.mine(3).await;
            owed
        });
        Debtor { gateway, rpc, chain, redis, folder, wallet_key, wallet, payer, owed, runtime }
    }

    /// `galaksio` with these arguments, and a gas account of its own.
    fn command(&self, arguments: &[&str]) -> Command {
        let (gas_key, _) = self.runtime.block_on(self.chain.gas_key());
        let mut command = Command::new(env!("CARGO_BIN_EXE_galaksio"));
        let config: PathBuf = self.folder.path().join("proxy.toml");
        command.args(arguments).arg("--config").arg(config).env_clear();
        command.env("GAS", gas_key).env("WALLET", &self.wallet_key).stdin(Stdio::null());
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What it says, and whether it ended well.
    fn say(&self, arguments: &[&str]) -> (String, bool) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let said = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        (said, status.success())
    }

    /// What the client has, and the wallet.
    fn balances(&self) -> (u64, u64) {
        self.runtime.block_on(async {
            (self.chain.balance(self.payer.address()).await, self.chain.balance(self.wallet).await)
        })
    }

    fn jobs(&self, state: State) -> Vec<Job> {
        self.runtime.block_on(async {
            let store = Redis::connect(&self.redis.url(), "galaksio", Duration::from_secs(3600)).await;
            let store = store.unwrap();
            let mut jobs = Vec::new();
            for id in store.in_state(state, 100).await.unwrap() {
                jobs.push(store.by_id(id).await.unwrap().unwrap());
            }
            jobs
        })
    }
}

fn proxy_toml(rpc: &str, redis: &str, wallet: &str) -> String {
    format!(
        r#"
[edge]
listen = ["127.0.0.1:0"]
[app]
url = "http://127.0.0.1:1"
[[routes]]
path = "/premium/*"
methods = ["GET"]
price = "$0.001"
settle = "upfront"
[[accepts]]
network = "base-sepolia"
pay_to = "{PAY_TO}"
[[chains]]
network = "base-sepolia"
rpc = ["{rpc}"]
final_blocks = 2
poll = "20ms"
[facilitator]
kind = "local"
gas_key_env = "GAS"
[store]
kind = "redis"
url = "{redis}"
[admin]
listen = "127.0.0.1:0"
{wallet}"#
    )
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_refund_is_paid_once_though_one_is_killed_and_four_pay_at_once() {
    let debtor = Debtor::new();
    assert_eq!(debtor.balances(), (PURSE - 2 * PRICE, FLOAT));
    let (said, well) = debtor.say(&["refunds", "list"]);
    assert!(well && said.lines().count() == 2, "{said}");
    let payer = debtor.payer.address().to_string();
    assert!(said.lines().all(|line| line.contains("0.001 USDC") && line.contains(&payer)), "{said}");
    let (said, well) = debtor.say(&["refunds", "pay", "--dry-run"]);
    assert!(well && said.contains("total 0.002 USDC on eip155:84532"), "{said}");
    assert!(said.contains("which has 0.1"), "{said}");
    // Nobody is there to say yes.
    let (said, well) = debtor.say(&["refunds", "pay"]);
    assert!(!well && said.contains("--yes"), "{said}");
    assert!(debtor.jobs(State::RefundDue).iter().all(|job| job.refunds.is_empty()));

    // Killed when the refund is in the journal, and nothing of it has reached the chain.
    debtor.rpc.set(Fault::Lost("eth_sendRawTransaction"));
    let mut killed = debtor.start(&["refunds", "pay", "--yes"]);
    debtor.runtime.block_on(debtor.rpc.struck(1));
    killed.kill().unwrap();
    killed.wait().unwrap();
    debtor.rpc.set(Fault::None);
    let open: Vec<Job> = debtor.jobs(State::RefundDue);
    let signed: Vec<_> = open.iter().filter_map(|job| job.open_refund().cloned()).collect();
    assert_eq!((open.len(), signed.len()), (2, 1), "{open:#?}");
    assert_eq!(debtor.balances(), (PURSE - 2 * PRICE, FLOAT));
    let (said, _) = debtor.say(&["refunds", "list"]);
    assert!(said.contains("refund 1 is signed"), "{said}");

    let mut paying: Vec<Child> = (0..4).map(|_| debtor.start(&["refunds", "pay", "--yes"])).collect();
    for child in &mut paying {
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(status.success(), "{said}");
    }
    assert_eq!(debtor.balances(), (PURSE, FLOAT - 2 * PRICE));
    let refunded = debtor.jobs(State::Refunded);
    assert!(refunded.len() == 2 && debtor.jobs(State::RefundDue).is_empty());
    assert!(refunded.iter().all(|job| job.refunds.len() == 1), "{refunded:#?}");
    // What was signed before the kill is what was paid.
    assert!(refunded.iter().any(|job| job.refunds[0].nonce == signed[0].nonce));
    let spent = debtor.runtime.block_on(debtor.chain.spent_since(0, debtor.wallet));
    assert_eq!(spent.len(), 2);

    let (said, well) = debtor.say(&["refunds", "pay", "--yes"]);
    assert!(well && said.contains("nothing is to be paid"), "{said}");
    assert_eq!(debtor.balances(), (PURSE, FLOAT - 2 * PRICE));
    let (said, well) = debtor.say(&["ledger", "--check"]);
    assert!(well, "{said}");
    let of = |account: &str| said.lines().find_map(|line| line.trim().strip_prefix(account)).map(str::trim);
    assert!(of("wallet").is_some_and(|rest| rest.starts_with("-0.002 ")), "{said}");
    assert!(of("refunds_due").is_some_and(|rest| rest.starts_with("0 ")), "{said}");
    assert!(of("received").is_some_and(|rest| rest.starts_with("0.002 ")), "{said}");

    // The client is told, by the gateway that runs all the while.
    debtor.runtime.block_on(async {
        let client = debtor.gateway.client();
        for payment in &debtor.owed {
            let answer = client.send(&Ask::get("/premium/report").paid(payment)).await;
            answer.expect(502, "refunded", Some("no"), Some("new_payment"));
            let id = answer.json()["jobId"].as_str().unwrap().to_owned();
            let job = refunded.iter().find(|job| job.id.to_string() == id).unwrap();
            let transaction = job.refunds[0].transaction.unwrap();
            assert!(debtor.chain.mined(transaction).await);
            let status = client.send(&Ask::get(&format!("/status/{id}"))).await.json();
            assert_eq!(status["refund"]["transaction"], transaction.to_string(), "{status}");
            assert_eq!(status["refund"]["state"], "paid");
        }
    });
}

#[test]
#[ignore = "needs node and anvil; `make test` runs it"]
fn a_frozen_wallet_and_a_limit_leave_refunds_due() {
    let debtor = Debtor::new();
    let (said, well) = debtor.say(&["wallet", "freeze", "--reason", "a test"]);
    assert!(well, "{said}");
    let (said, well) = debtor.say(&["refunds", "pay", "--yes"]);
    assert!(!well && said.contains("frozen by the operator: a test"), "{said}");
    assert!(debtor.jobs(State::RefundDue).iter().all(|job| job.refunds.is_empty()));
    let (said, well) = debtor.say(&["wallet", "unfreeze"]);
    assert!(well, "{said}");

    let (said, well) = debtor.say(&["refunds", "pay", "--yes", "--max", "$0.0019"]);
    assert!(!well && said.contains("--max"), "what is left is said, and by the exit code: {said}");
    assert_eq!(debtor.balances(), (PURSE - PRICE, FLOAT - PRICE));
    let [left] = &debtor.jobs(State::RefundDue)[..] else { panic!() };
    let (said, well) = debtor.say(&["refunds", "pay", "--yes", "--job", &left.id.to_string()]);
    assert!(well, "{said}");
    assert_eq!(debtor.balances(), (PURSE, FLOAT - 2 * PRICE));
}

#[tokio::test]
#[ignore = "needs node and anvil; `make test` runs it"]
async fn what_a_provider_sends_back_is_found_on_the_chain_and_booked_once() {
    let chain = Chain::start(Settings::instant()).await;
    let (_, provider) = chain.payer(50_000).await;
    let (_, stranger) = chain.payer(50_000).await;
    let (_, wallet) = new_key();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jobs.redb");
    let store = Embedded::open(&path, Duration::from_secs(3600), Clock::system()).unwrap();
    let store = Arc::new(store);
    let payees = Payees::new(store.clone(), Vec::new());
    payees.check("merit-systems", &chain.asset(), provider).await.unwrap();
    let returns = async || Returns {
        store: store.clone(),
        chains: Arc::new(Chains::new(&[settings(&[&chain.url])], &Clock::system()).unwrap()),
        metrics: Arc::new(Metrics::new()),
        named: Vec::new(),
        wallet,
        assets: vec![(chain.asset(), 5)],
    };
    chain.mine(3).await;
    returns().await.look().await;
    let send = async |from: Address, units: u64| {
        let transaction = chain.transfer(from, wallet, units).await;
        assert!(chain.mined(transaction).await);
    };
    send(provider, 252).await;
    send(stranger, 9_000).await;
    send(provider, 252).await;
    let total = async || {
        let [kept] = &returned(&*store).await.unwrap()[..] else { panic!("one token") };
        kept.total()
    };
    // The last two blocks are not final.
    returns().await.look().await;
    assert_eq!(total().await, Amount::new(252));
    chain.mine(30).await;
    let (first, second) = (returns().await, returns().await);
    tokio::join!(first.look(), second.look());
    first.look().await;
    assert_eq!(total().await, Amount::new(504));
}
