//! The configuration as the program uses it: parsed, checked, typed. Made once, by [`super::load`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Uri};
use secrecy::{SecretSlice, SecretString};

use crate::x402::{Address, Asset, Network, PaymentFlow};

mod declared;

pub use declared::{
    Condition, Declared, DeclaredKind, Keeping, Placeholder, Pointer, RequestBody, ResultMapping,
    ResumeClass, Segment, Template,
};

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
        settle: PaymentFlow,
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

/// The brokered operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokeredWork {
    /// `/store`.
    Store,
    /// `/run`.
    Run,
}

/// A way clients may pay.
#[derive(Clone, Debug)]
pub struct Accept {
    /// The token.
    pub asset: Asset,
    /// Who is paid; never the wallet that pays providers.
    pub pay_to: Address,
}

/// From cost to price. Atomic units are of six-decimal dollars; assets with other decimals are scaled.
#[derive(Clone, Debug)]
pub struct Pricing {
    /// Hundredths of a percent on the provider's price.
    pub markup_bps: u32,
    /// Added to each brokered request, in dollars.
    pub fee: String,
    /// Upper ends of the size buckets, ascending; the last is the largest ask taken.
    pub buckets: Vec<u64>,
    /// How long a quote is honoured.
    pub quote_ttl: Duration,
    /// Quotes are refreshed this long before they expire.
    pub refresh_before: Duration,
    /// Provider terms older than this are probed again before we sign for them.
    pub terms_max_age: Duration,
    /// How long a probe of one provider may take.
    pub probe_timeout: Duration,
    /// More than this lost on one job (its price now against its price then), and its quote is withdrawn. Dollars.
    pub quote_loss_limit: String,
}

/// The facilitators: the first, and what holds for all.
#[derive(Clone, Debug)]
pub struct Facilitator {
    /// Its base URL, without a trailing slash.
    pub url: Uri,
    /// Whether an `http://` URL is allowed; only on loopback otherwise.
    pub allow_plain_http: bool,
    /// The key that calls are signed with, where it is Coinbase's.
    pub cdp: Option<Cdp>,
    /// The gateway is its own facilitator; `url` means nothing then.
    pub local: Option<LocalFacilitator>,
    /// Deadline of one `/verify`.
    pub verify_timeout: Duration,
    /// Deadline of one `/settle`.
    pub settle_timeout: Duration,
    /// How long a request is held while a settlement's outcome is unknown.
    pub unknown_hold: Duration,
    /// A verification without an answer for this long is asked of the next one too.
    pub hedge_after: Duration,
    /// Those that are asked where the first does not answer, in order.
    pub fallback: Vec<Fallback>,
}

/// A further facilitator.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// See [`Facilitator::url`].
    pub url: Uri,
    /// See [`Facilitator::cdp`].
    pub cdp: Option<Cdp>,
}

impl Facilitator {
    /// All of them, in the order they are asked.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Uri, Option<&Cdp>)> {
        let fallback = self.fallback.iter().map(|fallback| (&fallback.url, fallback.cdp.as_ref()));
        std::iter::once((&self.url, self.cdp.as_ref())).chain(fallback)
    }
}

/// A facilitator of our own, which puts payments on the chains of `[[chains]]` itself.
#[derive(Clone, Debug)]
pub struct LocalFacilitator {
    /// The private key of the account that pays for gas, 32 bytes of hex.
    pub gas_key: SecretString,
    /// The most that a unit of gas may cost, in wei.
    pub max_fee: u128,
    /// Blocks that a transfer must be in before it counts, its own among them.
    pub confirmations: u64,
    /// Transfers in one transaction at most.
    pub max_batch: usize,
    /// Factories that are called to make a payer's smart wallet (ERC-6492).
    pub wallet_factories: Vec<Address>,
}

/// An API key of Coinbase's CDP.
#[derive(Clone, Debug)]
pub struct Cdp {
    /// The key's name or id; not a secret.
    pub key_id: String,
    /// Its private half.
    pub key: CdpKey,
}

/// The private half, in PKCS #8.
#[derive(Clone, Debug)]
pub enum CdpKey {
    /// Signs as `EdDSA`.
    Ed25519(SecretSlice<u8>),
    /// Signs as `ES256`.
    Es256(SecretSlice<u8>),
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

/// The wallet that pays providers.
#[derive(Clone, Debug)]
pub struct Wallet {
    /// The private key, 32 bytes of hex.
    pub key: SecretString,
    /// The most one provider payment may be, in dollars.
    pub max_payment: String,
    /// What it may pay in.
    pub assets: Vec<Asset>,
    /// Whom it may pay; empty: whoever a provider asked to have paid when it was first seen.
    pub payees: Vec<Address>,
}

/// What the wallet may spend, lose and have out, over all gateways on one store. In millionths of a dollar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Signed to providers in any hour.
    pub spend_per_hour: u64,
    /// Signed to one provider in any hour.
    pub provider_spend_per_hour: u64,
    /// Signed to providers at one time, for client payments that have not settled.
    pub exposure: u64,
    /// The same, for the payments of one client.
    pub payer_exposure: u64,
    /// Paid to providers in any hour for work that no client paid for: then clients pay upfront.
    pub loss_per_hour: u64,
    /// Lost in any hour on quotes that a provider's price has overtaken.
    pub quote_loss_per_hour: u64,
    /// What the provider's price must leave of the client's; `None`: whatever it leaves.
    pub profit_floor: Option<u64>,
}

/// A chain, by its JSON-RPC endpoints.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Which.
    pub network: Network,
    /// Its endpoints, best first. URLs, which hold keys.
    pub rpc: Vec<SecretString>,
    /// A block with this many on top of it is final; `None`: the chain's own `finalized` block.
    pub final_blocks: Option<u64>,
    /// Deadline of one call.
    pub timeout: Duration,
    /// An endpoint whose newest block is further off our clock than this is not believed.
    pub max_head_age: Duration,
    /// How many blocks are asked for logs at once.
    pub log_range: u64,
    /// How often the newest block is asked for while somebody waits for a transaction.
    pub poll: Duration,
    /// Whether `http://` URLs are allowed; only on loopback otherwise.
    pub allow_plain_http: bool,
}

/// Where jobs live.
#[derive(Clone, Debug)]
pub enum Store {
    /// One file, one process.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// Redis, for any number of gateways.
    Redis {
        /// `redis://` or `rediss://`, with credentials.
        url: SecretString,
        /// First part of every key.
        prefix: String,
    },
}

/// Deadlines and sizes of paid work.
#[derive(Clone, Debug)]
pub struct Paid {
    /// JSON body at most, in bytes.
    pub max_json_body: u64,
    /// JSON document to store, and program to run, at most, in bytes: they are checked whole.
    pub max_document: u64,
    /// Raw body, and file of a form, at most, in bytes.
    pub max_raw_body: u64,
    /// Bytes of paid request bodies held in temporary files at once, over all requests.
    pub max_spool: u64,
    /// Where those files are.
    pub spool_dir: PathBuf,
    /// Bytes of paid request bodies held in memory at once, over all requests.
    pub max_body_memory: u64,
    /// `{"url": …}` is taken in place of data.
    pub fetch_urls: bool,
    /// Addresses that may be fetched from though they are not public.
    pub fetch_private: Vec<IpBlock>,
    /// `maxTimeoutSeconds` of challenges.
    pub max_timeout: Duration,
    /// Deadline of the provider's whole part.
    pub work_timeout: Duration,
    /// At this time before the authorization lapses, it is settled or given up.
    pub settle_margin: Duration,
    /// Brokered work of a higher price is charged before it is done, whatever its route says. In millionths of a dollar.
    pub upfront_above: Option<u64>,
    /// How long finished jobs and their answers are kept.
    pub retention: Duration,
    /// The largest answer that is kept, in bytes.
    pub result_max: u64,
    /// How long a job may go without a sign of life before another process takes it.
    pub lease: Duration,
    /// Paid jobs running at once at most; 503 above.
    pub max_jobs: usize,
    /// Header of a payment at most, in bytes (431 above).
    pub max_payment_header: usize,
    /// First path segment, without slashes, of `GET /status/{id}`; likewise below for `/job/{id}` and `/files/{id}`.
    /// `None` switches it off.
    pub status_path: Option<String>,
    /// See `status_path`.
    pub job_path: Option<String>,
    /// See `status_path`.
    pub files_path: Option<String>,
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
