//! What a chain says, through its JSON-RPC endpoints: where it stands, what is in it, and what that proves.
//!
//! ```text
//! transport   JSON-RPC over our own HTTP client
//! pool        several endpoints, in order of health, each failing over to the next
//! heads       where the chain stands; endpoints that are stale, behind or lie are left out
//! proof       what the chain proves about one authorization
//! income      what a payee received in a range of blocks, and by which nonces
//! outlays     what an account paid in a range of blocks
//! check       whether the chain and its tokens are what the configuration says
//! mined       waiting for transactions, one look for everybody
//! ```
//!
//! Nothing here signs, and nothing here knows jobs. alloy's types are for `facilitator/local`, which builds
//! transactions; everybody else sees this module's own.

mod balance;
mod check;
mod heads;
mod income;
mod mined;
mod outlays;
mod pool;
mod proof;
mod rpc;
#[cfg(test)]
mod tests;
mod transport;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy::providers::RootProvider;
use alloy::rpc::client::RpcClient;
use alloy::rpc::types::TransactionReceipt;
use async_trait::async_trait;
use futures_util::future::join_all;
use secrecy::ExposeSecret;

pub use check::Misfit;
pub use heads::Head;
pub use income::{Income, Spent};
pub use outlays::Outlay;
pub use proof::{Proof, Since, Sought, Unpaid};

use crate::clock::Clock;
use crate::config::resolved;
use crate::outgoing::{self, Outgoing};
use crate::x402::{Address, Asset, B256, Network};
use heads::LastLook;
use mined::Mined;
use pool::{Endpoint, Failover};
use transport::Http;

/// Connecting to an endpoint takes this long at most.
const CONNECT: Duration = Duration::from_secs(3);

/// Why the chain says nothing. Never a "no": whatever was asked is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No endpoint answered.
    #[error("no RPC endpoint answers: {0}")]
    Away(String),
    /// An endpoint answered with an error of its own words.
    #[error("an RPC endpoint refuses: {0}")]
    Refused(String),
    /// Those that answered are not fit to be believed.
    #[error("no RPC endpoint is fit to be believed: {0}")]
    Unfit(String),
    /// The endpoints name different final blocks at this height, and no majority is right.
    #[error("the RPC endpoints disagree about final block {0}")]
    Disagree(u64),
    /// They agree about the block and not about what is in it.
    #[error("the RPC endpoints contradict each other about what was paid up to block {0}")]
    Contradict(u64),
    /// The token says that the nonce is gone, and nothing that was found says how.
    #[error("the nonce is used or cancelled, and {0}")]
    NoEvidence(&'static str),
}

impl ChainError {
    fn of(self, endpoint: &str) -> Self {
        match self {
            ChainError::Away(why) => ChainError::Away(format!("{endpoint}: {why}")),
            ChainError::Refused(why) => ChainError::Refused(format!("{endpoint}: {why}")),
            other => other,
        }
    }
}

/// One chain. Clones share its endpoints.
#[derive(Clone, Debug)]
pub struct Chain {
    network: Network,
    endpoints: Arc<[Endpoint]>,
    provider: RootProvider,
    mined: Arc<Mined>,
    last_look: Arc<LastLook>,
    /// The newest height as of the last look; 0 before the first.
    known: Arc<AtomicU64>,
    clock: Clock,
    final_blocks: Option<u64>,
    max_head_age: Duration,
    log_range: u64,
}

impl Chain {
    /// The chain of these settings. Fails only if the TLS library offers no protocol version. Asks nothing yet.
    pub fn new(settings: &resolved::Chain, clock: Clock) -> Result<Self, rustls::Error> {
        let allow_plain_http = settings.allow_plain_http;
        let outgoing = Outgoing::new(outgoing::Settings { connect_timeout: CONNECT, allow_plain_http })?;
        let endpoints: Arc<[Endpoint]> = settings
            .rpc
            .iter()
            // Read as a URL by the configuration already.
            .filter_map(|url| url.expose_secret().parse::<http::Uri>().ok())
            .map(|url| {
                let name = url.authority().map(|authority| authority.to_string()).unwrap_or_default();
                Endpoint::new(name, Http::new(outgoing.clone(), url, settings.timeout))
            })
            .collect();
        let provider = RootProvider::new(RpcClient::new(Failover(Arc::clone(&endpoints)), true));
        Ok(Chain {
            network: settings.network,
            endpoints,
            mined: Arc::new(Mined::new(provider.clone(), settings.poll)),
            provider,
            last_look: Arc::default(),
            known: Arc::default(),
            clock,
            final_blocks: settings.final_blocks,
            max_head_age: settings.max_head_age,
            log_range: settings.log_range,
        })
    }

    /// Which chain it is.
    pub fn network(&self) -> Network {
        self.network
    }

    /// alloy's view of it, over every endpoint: the next is asked where one does not answer. Do not wait with it for
    /// a transaction ([`Chain::mined`] does): it polls for each on its own.
    pub fn provider(&self) -> &RootProvider {
        &self.provider
    }

    /// The newest block. Also the way to learn that an endpoint is stale or of another chain: until somebody asks,
    /// none is left out.
    pub async fn newest(&self) -> Result<Head, ChainError> {
        Ok(self.heads().await?.newest)
    }

    /// The newest height as of the last look, however old that is: a lower bound, without asking. `None` before the
    /// first look.
    pub fn height(&self) -> Option<u64> {
        Some(self.known.load(Ordering::Relaxed)).filter(|height| *height > 0)
    }

    /// A block that all endpoints agree is final.
    pub async fn last_final(&self) -> Result<Head, ChainError> {
        Ok(self.heads().await?.last_final)
    }

    /// The receipt of `transaction`, milliseconds after its block is known; `None` if it is in none within `patience`.
    pub async fn mined(&self, transaction: B256, patience: Duration) -> Option<TransactionReceipt> {
        self.mined.wait(transaction, patience).await
    }

    /// Looks at the heads every `every`, until dropped, so that an endpoint that goes stale is left out before it is
    /// asked anything.
    pub async fn watch(self, every: Duration) {
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(why) = self.heads().await {
                tracing::warn!(network = %self.network, %why, "the chain cannot be asked");
            }
        }
    }
}

/// Whoever proves payments: the [`Chains`] that are configured, or a test.
#[async_trait]
pub trait Prove: Send + Sync {
    /// What is proven about `sought`; `None` where nobody can be asked about this network.
    async fn prove(&self, network: Network, sought: &Sought) -> Option<Result<Proof, ChainError>>;

    /// A block that is final; `None` where nobody can be asked about this network.
    async fn last_final(&self, network: Network) -> Option<Result<Head, ChainError>>;

    /// What a payee received in these blocks; see [`Chain::income`].
    async fn income(
        &self,
        _network: Network,
        _asset: Address,
        _to: Address,
        _blocks: RangeInclusive<u64>,
    ) -> Option<Result<Vec<Income>, ChainError>> {
        None
    }

    /// What these payers spent on a payee in these blocks; see [`Chain::spent`]. `None`, too, where that is not to be had at once.
    async fn spent(
        &self,
        _network: Network,
        _asset: Address,
        _to: Address,
        _payers: &[Address],
        _blocks: RangeInclusive<u64>,
    ) -> Option<Result<Vec<Spent>, ChainError>> {
        None
    }

    /// The newest height that is known of this network, without asking.
    fn height(&self, network: Network) -> Option<u64>;

    /// Whether there is somebody to ask about this network.
    fn knows(&self, network: Network) -> bool;
}

#[async_trait]
impl Prove for Chains {
    async fn prove(&self, network: Network, sought: &Sought) -> Option<Result<Proof, ChainError>> {
        Some(self.of(network)?.prove(sought).await)
    }

    async fn last_final(&self, network: Network) -> Option<Result<Head, ChainError>> {
        Some(self.of(network)?.last_final().await)
    }

    async fn income(
        &self,
        network: Network,
        asset: Address,
        to: Address,
        blocks: RangeInclusive<u64>,
    ) -> Option<Result<Vec<Income>, ChainError>> {
        Some(self.of(network)?.income(asset, to, blocks).await)
    }

    async fn spent(
        &self,
        network: Network,
        asset: Address,
        to: Address,
        payers: &[Address],
        blocks: RangeInclusive<u64>,
    ) -> Option<Result<Vec<Spent>, ChainError>> {
        Some(self.of(network)?.spent(asset, to, payers, blocks).await)
    }

    fn height(&self, network: Network) -> Option<u64> {
        self.of(network)?.height()
    }

    fn knows(&self, network: Network) -> bool {
        self.of(network).is_some()
    }
}

/// The chains that are configured.
#[derive(Clone, Debug, Default)]
pub struct Chains(Vec<Chain>);

impl Chains {
    /// All of these settings.
    pub fn new(settings: &[resolved::Chain], clock: &Clock) -> Result<Self, rustls::Error> {
        settings.iter().map(|one| Chain::new(one, clock.clone())).collect::<Result<_, _>>().map(Chains)
    }

    /// The one of this network, if it can be asked.
    pub fn of(&self, network: Network) -> Option<&Chain> {
        self.0.iter().find(|chain| chain.network == network)
    }

    /// Everything that does not fit these assets, on all chains, and what could not be asked.
    pub async fn check(&self, assets: &[&Asset]) -> (Vec<Misfit>, Vec<ChainError>) {
        let (mut misfits, mut unknown) = (Vec::new(), Vec::new());
        for found in join_all(self.0.iter().map(|chain| chain.check(assets))).await {
            match found {
                Ok(found) => misfits.extend(found),
                Err(why) => unknown.push(why),
            }
        }
        (misfits, unknown)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Chain> {
        self.0.iter()
    }
}
