//! A gateway on the sandbox, by the repository's own `proxy.toml`, and a client that can pay.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use galaksio::app::App;
use galaksio::clock::Clock;
use galaksio::config::{self, resolved::Store};
use galaksio::proxy::Stop;
use galaksio::sandbox::{NETWORK, Sandbox, Settings};
use galaksio::wallet::Wallet;
use galaksio::x402::{Asset, Authorization, B256, Challenge};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::wire::{Answer, PATIENCE, Wire};

pub(crate) const RUN: &str = "POST /run HTTP/1.1\r\ncontent-type: application/json\r\n";
pub(crate) const CODE: &[u8] = br#"{"code":"print(42)","language":"python"}"#;

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) sandbox: Sandbox,
    pub(crate) runtime: Runtime,
    admin: SocketAddr,
    stop: Stop,
    thread: JoinHandle<()>,
    _folder: TempDir,
}

/// An unpaid request's answer.
pub(crate) struct Challenged(Value);

impl Challenged {
    /// The price.
    pub(crate) fn units(&self) -> u128 {
        self.0["accepts"][0]["maxAmountRequired"].as_str().unwrap().parse().unwrap()
    }

    /// The id that the job is promised.
    pub(crate) fn job(&self) -> &Value {
        &self.0["jobId"]
    }
}

impl Gateway {
    pub(crate) fn start() -> Gateway {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let sandbox = runtime.block_on(Sandbox::start(Settings::default())).unwrap();
        let folder = TempDir::new().unwrap();
        let environment = BTreeMap::from([("GALAKSIO_WALLET_KEY".to_owned(), "11".repeat(32))]);
        let text = include_str!("../../proxy.toml");
        let mut config = config::load_text("proxy.toml", text, &environment).unwrap().config;
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        config.edge.listen = vec![loopback];
        config.admin.listen = Some(loopback);
        config.app.url = sandbox.urls.app.parse().unwrap();
        config.facilitator.url = sandbox.urls.facilitator.parse().unwrap();
        config.providers.xcache.as_mut().unwrap().url = sandbox.urls.xcache.parse().unwrap();
        config.providers.openx402.as_mut().unwrap().url = sandbox.urls.openx402.parse().unwrap();
        config.providers.merit.as_mut().unwrap().url = sandbox.urls.merit.parse().unwrap();
        config.store = Store::Embedded { path: folder.path().join("jobs.redb") };
        config.log.access = true;
        let app = App::build(&config, false).unwrap();
        let (address, admin, stop) = (app.addresses()[0], app.admin().unwrap(), Stop::embedded());
        let told = stop.clone();
        let thread = std::thread::spawn(move || app.run(told));
        Gateway { address, sandbox, runtime, admin, stop, thread, _folder: folder }
    }

    /// Sends one request, which is `head` without its `Host` and length, on a connection of its own.
    pub(crate) async fn ask(&self, head: &str, body: &[u8]) -> Answer {
        ask(self.address, head, body).await
    }

    /// Asks the price of running [`CODE`]; returns it with the header line that pays it.
    pub(crate) async fn challenged(&self) -> (Challenged, String) {
        let answer = self.ask(RUN, CODE).await;
        assert_eq!(answer.status, 402, "{}", answer.text());
        let mut headers = HeaderMap::new();
        for (name, value) in answer.head.lines().filter_map(|line| line.split_once(": ")) {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let challenge = Challenge::from_response(&headers, &answer.body).unwrap();
        let offered = &challenge.accepts[0];
        let asset = Asset::default_for(NETWORK).unwrap();
        let wallet = Wallet::new("22".repeat(32).into(), "1", vec![asset.clone()]).unwrap();
        let now = Clock::system().now();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let job = body["jobId"].as_str().unwrap().replace('-', "");
        let authorization = Authorization {
            from: wallet.address(),
            to: offered.pay_to,
            value: offered.amount,
            valid_after: now - 600,
            valid_before: now + offered.max_timeout_seconds,
            // Another one for each challenge.
            nonce: B256::from_slice(&hex::decode(format!("{job}{job}")).unwrap()),
        };
        let signature = wallet.sign(&asset, &authorization).unwrap();
        let (name, value) = challenge.payment(offered, &authorization, &signature);
        (Challenged(body), format!("{name}: {}\r\n", value.to_str().unwrap()))
    }

    /// The metrics, once they are as `expected`: jobs are counted every few seconds, and a connection after its end.
    pub(crate) async fn scrape_once(
        &self,
        expected: impl Fn(&BTreeMap<String, u64>) -> Result<(), String>,
    ) -> BTreeMap<String, u64> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let series = self.scrape().await;
            match expected(&series) {
                Ok(()) => return series,
                Err(fault) => assert!(Instant::now() < give_up, "{fault} in {series:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The metrics: each series with its value, rounded up.
    async fn scrape(&self) -> BTreeMap<String, u64> {
        let answer = ask(self.admin, "GET /metrics HTTP/1.1\r\n", b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let lines = answer.text().lines().filter(|line| !line.starts_with('#'));
        let series = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            (name.to_owned(), value.ceil() as u64)
        });
        series.collect()
    }

    pub(crate) fn stop(self) {
        self.stop.now();
        self.thread.join().unwrap();
        self.runtime.block_on(self.sandbox.stop());
    }
}

async fn ask(address: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let mut wire = Wire::connect(address).await;
    let length = body.len();
    wire.send(format!("{head}host: {address}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"))
        .await;
    wire.send(body).await;
    let answer = wire.answer().await;
    // A request ends after its last byte; its connection after that.
    wire.rest().await;
    answer
}
