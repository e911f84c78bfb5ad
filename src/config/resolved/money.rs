//! What is paid in, what it costs, who settles it, and what the wallet may do.

use std::time::Duration;

use http::Uri;
use secrecy::{SecretSlice, SecretString};

use crate::x402::{Address, Asset, Network};

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
    /// The price of answers that were given before they were paid for, and are not settled yet.
    pub unsettled: u64,
    /// The same, of one client.
    pub payer_unsettled: u64,
    /// The price of such answers, in any hour, that were never paid for: then nothing more is answered before it is.
    pub uncollected_per_hour: u64,
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
