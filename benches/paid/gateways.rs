//! The gateways that are put under load: one on Redis, one on a file.

use std::path::Path;

use galaksio::sandbox::{Service, pay_to};
use tempfile::TempDir;

use crate::gateway::Process;
use crate::redis_server::RedisServer;
use crate::stubs::Stubs;

/// As operators are told to run it.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

/// The processes; they end with this.
pub(crate) struct Gateways {
    pub(crate) on_redis: Process,
    pub(crate) on_file: Process,
    pub(crate) redis: RedisServer,
    _folder: TempDir,
}

impl Gateways {
    /// `program` serves for `stubs`.
    pub(crate) fn start(program: &Path, stubs: &Stubs) -> Gateways {
        let folder = TempDir::new().unwrap();
        let redis = RedisServer::start(&DURABLE);
        let on_redis = format!("kind = \"redis\"\nurl = {:?}", redis.url());
        let on_file = format!("path = {:?}", folder.path().join("jobs.redb"));
        let gateway = |name: &str, store: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, config(stubs, store)).unwrap();
            Process::run(program, path, &format!("{:064x}", uuid::Uuid::new_v4().as_u128()))
        };
        let (on_redis, on_file) = (gateway("redis.toml", &on_redis), gateway("file.toml", &on_file));
        Gateways { on_redis, on_file, redis, _folder: folder }
    }

    /// Has them drain.
    #[allow(dead_code, reason = "not in every program")]
    pub(crate) fn end(self) {
        self.on_redis.end();
        self.on_file.end();
    }
}

/// The defaults of every setting that has one, but for limits that a measurement would reach.
fn config(stubs: &Stubs, store: &str) -> String {
    let (url, payee) = (stubs.url(), pay_to(Service::App));
    format!(
        r#"
[edge]
listen = ["127.0.0.1:0"]
[app]
url = "{url}"
[[routes]]
path = "/work"
methods = ["POST"]
price = "$0.001"
[[routes]]
path = "/run"
methods = ["POST"]
work = "run"
[[accepts]]
network = "base-sepolia"
pay_to = "{payee}"
[facilitator]
url = "{url}"
[providers.xcache]
url = "{url}"
[providers.openx402]
url = "{url}"
[providers.merit]
url = "{url}/execute"
[wallet]
key_env = "GALAKSIO_WALLET_KEY"
[limits]
spend_per_hour = "$100000"
provider_spend_per_hour = "$100000"
exposure = "$10000"
payer_exposure = "$1000"
[admin]
listen = "127.0.0.1:0"
[store]
{store}
"#
    )
}
