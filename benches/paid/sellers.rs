//! Who sells: gateways on either store, and the others in the ecosystem, each a process that is asked for the same work by
//! the same stubs.

use std::net::SocketAddr;

use galaksio::sandbox::{Service, pay_to};
use tempfile::TempDir;

use crate::gateway::Process;
use crate::peers::Peer;
use crate::redis_server::RedisServer;
use crate::stubs::{Asked, Stubs};

/// As operators are told to run it.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

/// Something that is paid for.
pub(crate) struct Seller {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
    /// The process that sells.
    pub(crate) pid: u32,
    /// That of its store, where it has one of its own.
    pub(crate) store: Option<u32>,
    /// What one sale asks of the stubs.
    pub(crate) asks: Asked,
}

/// The processes; they end with this.
pub(crate) struct Sellers {
    pub(crate) all: Vec<Seller>,
    _gateways: Vec<Process>,
    _peers: Vec<Peer>,
    _redis: RedisServer,
    _folder: TempDir,
}

impl Sellers {
    /// `threads` is how many the peer in Rust has; Node has one.
    pub(crate) fn start(stubs: &Stubs, threads: usize) -> Sellers {
        let folder = TempDir::new().unwrap();
        let redis = RedisServer::start(&DURABLE);
        let on_redis = format!("kind = \"redis\"\nurl = {:?}", redis.url());
        let on_file = format!("path = {:?}", folder.path().join("jobs.redb"));
        let gateway = |name: &str, store: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, config(stubs, store)).unwrap();
            Process::start(path, &format!("{:064x}", uuid::Uuid::new_v4().as_u128()))
        };
        let (redis_gateway, file_gateway) =
            (gateway("redis.toml", &on_redis), gateway("file.toml", &on_file));
        let payee = pay_to(Service::App);
        let axum = Peer::server_axum_release(&stubs.url(), payee, threads);
        let express = Peer::server_v2(&stubs.url(), payee, "$0.001");

        let own = Asked { verified: 1, settled: 1, ..Asked::default() };
        let app = Asked { worked: 1, ..own };
        let run = Asked { bought: 1, ..own };
        let peer = |name, peer: &Peer| {
            let address = peer.url.strip_prefix("http://").unwrap().parse().unwrap();
            Seller { name, address, path: "/work", pid: peer.pid(), store: None, asks: own }
        };
        let sold = |name, gateway: &Process, path, store, asks| Seller {
            name,
            address: gateway.address,
            path,
            pid: gateway.pid(),
            store,
            asks,
        };
        let (on_redis, store) = (&redis_gateway, Some(redis.pid()));
        let all = vec![
            peer("x402-axum 2.0.2", &axum),
            sold("galaksio, app route, Redis", on_redis, "/work", store, app),
            sold("galaksio, /run, Redis", on_redis, "/run", store, run),
            sold("galaksio, app route, embedded", &file_gateway, "/work", None, app),
            sold("galaksio, /run, embedded", &file_gateway, "/run", None, run),
            peer("@x402/express 2.27", &express),
        ];
        Sellers {
            all,
            _gateways: vec![redis_gateway, file_gateway],
            _peers: vec![axum, express],
            _redis: redis,
            _folder: folder,
        }
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
