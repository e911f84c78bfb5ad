//! Who sells: gateways on either store, and the others in the ecosystem, each a process that is asked for the same work by
//! the same stubs.

use std::net::SocketAddr;
use std::path::Path;

use galaksio::sandbox::{Service, pay_to};

use crate::gateway::Process;
use crate::gateways::Gateways;
use crate::peers::Peer;
use crate::stubs::{Asked, Stubs};

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
    _gateways: Gateways,
    _peers: Vec<Peer>,
}

impl Sellers {
    /// `program` is the gateway's; `threads` is how many the peer in Rust has; Node has one.
    pub(crate) fn start(program: &Path, stubs: &Stubs, threads: usize) -> Sellers {
        let gateways = Gateways::start(program, stubs);
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
        let (on_redis, on_file) = (&gateways.on_redis, &gateways.on_file);
        let store = Some(gateways.redis.pid());
        let all = vec![
            peer("x402-axum 2.0.2", &axum),
            sold("galaksio, app route, Redis", on_redis, "/work", store, app),
            sold("galaksio, /run, Redis", on_redis, "/run", store, run),
            sold("galaksio, app route, embedded", on_file, "/work", None, app),
            sold("galaksio, /run, embedded", on_file, "/run", None, run),
            peer("@x402/express 2.27", &express),
        ];
        Sellers { all, _gateways: gateways, _peers: vec![axum, express] }
    }
}
