//! The configuration as the program uses it: parsed, checked, typed. Made once, by [`super::load`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Uri};

use crate::x402::{Asset, PaymentFlow};

mod declared;
mod money;
mod paid;

pub use declared::{
    Condition, Declared, DeclaredKind, Keeping, Placeholder, Pointer, RequestBody, ResultMapping,
    ResumeClass, Segment, Template,
};
pub use money::{
    Accept, Cdp, CdpKey, Chain, Facilitator, Fallback, Limits, LocalFacilitator, Pricing, Wallet,
};
pub use paid::{Archive, LARGEST_KEPT, Paid, Store};

/// Everything `galaksio serve` needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where and how clients are served.
    pub edge: Edge,
    /// The service behind the gateway.
    pub app: App,
    /// Rules in order; the first match wins, no match is free.
    pub routes: Vec<Route>,
    /// What clients may pay with, best first.
    pub accepts: Vec<Accept>,
    /// From cost to price.
    pub pricing: Pricing,
    /// The facilitator.
    pub facilitator: Facilitator,
    /// Those who sell the work.
    pub providers: Providers,
    /// The wallet that pays them. `None` if no brokered route is configured.
    pub wallet: Option<Wallet>,
    /// The chains that are asked what happened, one for each network at most.
    pub chains: Vec<Chain>,
    /// What it may spend, lose and have out.
    pub limits: Limits,
    /// Where jobs live.
    pub store: Store,
    /// Deadlines and sizes of paid work.
    pub paid: Paid,
    /// Health, readiness and metrics.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
}

impl Config {
    /// The folder where finished jobs are kept when they are old; `None`: the store forgets them.
    pub fn archive(&self) -> Option<PathBuf> {
        match (&self.paid.archive, &self.store) {
            (Archive::At(folder), _) => Some(folder.clone()),
            (Archive::Usual, Store::Embedded { path }) => {
                let mut folder = path.clone().into_os_string();
                folder.push(".archive");
                Some(folder.into())
            }
            (Archive::Usual, Store::Redis { .. }) | (Archive::Off, _) => None,
        }
    }

    /// Every token that is taken or paid with, each once.
    pub fn assets(&self) -> Vec<&Asset> {
        let taken = self.accepts.iter().map(|accept| &accept.asset);
        let paid = self.wallet.iter().flat_map(|wallet| &wallet.assets);
        let mut assets: Vec<&Asset> = Vec::new();
        for asset in taken.chain(paid) {
            if !assets.contains(&asset) {
                assets.push(asset);
            }
        }
        assets
    }
}

/// The client-facing side.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Listening addresses; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain and key, PEM; `None` serves plain HTTP.
    pub tls: Option<Tls>,
    /// Scheme and authority clients know us by, e.g. `https://api.example.com`; makes `resource` in
    /// challenges. `None`: taken from the request's own `Host`.
    pub public_url: Option<Uri>,
    /// Worker threads; `None`: one per core.
    pub threads: Option<usize>,
    /// Open client connections at most; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// A request head must be complete within this time of its first byte, TLS handshakes likewise.
    pub header_timeout: Duration,
    /// A kept-alive connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// A body that moves no byte for this long is given up.
    pub body_timeout: Duration,
    /// Bytes of a request head at most (431 above).
    pub max_header_bytes: usize,
    /// How long requests in flight may take to end after SIGTERM.
    pub drain_timeout: Duration,
    /// How long upgraded connections (WebSocket) may live on after SIGTERM.
    pub tunnel_drain_timeout: Duration,
    /// An upgraded connection without traffic is closed after this.
    pub tunnel_idle_timeout: Duration,
    /// Peers whose `X-Forwarded-*` is kept and extended; others' is replaced. Addresses or CIDR blocks, as text, checked.
    pub trusted_peers: Vec<IpBlock>,
    /// Unix socket over which a new process takes the listeners; `None`: no upgrades.
    pub upgrade_socket: Option<PathBuf>,
}

/// An address block, `10.0.0.0/8` or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpBlock {
    /// Any address of the block.
    pub address: std::net::IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

/// A certificate chain and its key.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// The service behind the gateway.
#[derive(Clone, Debug)]
pub struct App {
    /// `http://host:port` or `https://host:port`; a path is refused.
    pub url: Uri,
    /// TCP (and TLS) connect.
    pub connect_timeout: Duration,
    /// From the end of the request to the response head: 504 after it.
    pub response_timeout: Duration,
    /// Idle pooled connections per worker.
    pub max_idle: usize,
}

/// A rule: which requests, and what becomes of them.
#[derive(Clone, Debug)]
pub struct Route {
    /// Canonical path, exact, or a prefix if it ends in `/*`.
    pub path: String,
    /// Methods it is for; empty: all.
    pub methods: Vec<Method>,
    /// What becomes of a request.
    pub action: Action,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// Passed to the app.
    Free,
    /// Passed to the app for money.
    Priced {
        /// Dollars, in decimal text checked against every accepted asset.
        price: String,
        /// When the client is charged.
        settle: Settle,
        /// `description` of the challenge.
        description: String,
        /// `mimeType` of the challenge.
        mime_type: String,
    },
    /// Done by a provider.
    Brokered {
        /// Which work.
        work: BrokeredWork,
        /// When the client is charged.
        settle: PaymentFlow,
    },
}

/// When the client of a route is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// When the work succeeded, before it has the answer.
    Success,
    /// Before the work.
    Upfront,
    /// When it has the answer. Only the app's own work: see decision 9.
    After,
}

impl Settle {
    /// What a challenge says of it. A payment that is settled after the answer is the same as one that is settled before it.
    pub fn flow(self) -> PaymentFlow {
        match self {
            Settle::Success | Settle::After => PaymentFlow::Authorization,
            Settle::Upfront => PaymentFlow::Upfront,
        }
    }
}

/// The brokered operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokeredWork {
    /// `/store`.
    Store,
    /// `/run`.
    Run,
}

/// Those who sell the work; `None` is switched off.
#[derive(Clone, Debug)]
pub struct Providers {
    /// xCache.
    pub xcache: Option<XCache>,
    /// OpenX402 IPFS.
    pub openx402: Option<OpenX402>,
    /// Merit Systems.
    pub merit: Option<Merit>,
    /// Those that `[[provider]]` declares, in the order written.
    pub declared: Vec<Declared>,
    /// TCP and TLS connect, for all.
    pub connect_timeout: Duration,
    /// Whether `http://` URLs are allowed; only on loopback otherwise.
    pub allow_plain_http: bool,
}

/// xCache's settings.
#[derive(Clone, Debug)]
pub struct XCache {
    /// Base URL.
    pub url: Uri,
    /// Where new caches are made.
    pub region: String,
    /// How a value is set: both shapes are in use.
    pub set_shape: SetShape,
    /// Largest value, in bytes before encoding.
    pub max_value: u64,
    /// Operations (the set and its later reads) a store is charged for.
    pub operations_per_store: u32,
    /// Operations that come with a cache.
    pub operations_per_cache: u32,
    /// Buy the next cache when fewer operations than this are left.
    pub low_water: u32,
    /// Dollars that may be spent on caches in a day.
    pub daily_budget: String,
}

/// How xCache wants a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetShape {
    /// `{"value":…,"ttl":n}`.
    Body,
    /// The value as the JSON body, `?ttl=n`.
    Query,
}

/// OpenX402's settings.
#[derive(Clone, Debug)]
pub struct OpenX402 {
    /// Base URL.
    pub url: Uri,
    /// Largest file, in bytes.
    pub max_file: u64,
}

/// Merit Systems' settings.
#[derive(Clone, Debug)]
pub struct Merit {
    /// The endpoint itself.
    pub url: Uri,
    /// Largest program, in bytes.
    pub max_code: u64,
}

/// Health, readiness and metrics.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where they are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// Logs.
#[derive(Clone, Debug)]
pub struct Log {
    /// As in `RUST_LOG`.
    pub filter: String,
    /// One JSON object a line, or text.
    pub json: bool,
    /// One line for each request.
    pub access: bool,
}
