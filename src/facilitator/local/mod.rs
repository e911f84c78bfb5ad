//! A facilitator of our own: verifies and settles EIP-3009 payments through a JSON-RPC endpoint, from a gas account.
//!
//! ```text
//! order        a request, read; the reasons, spelled as the TypeScript facilitator spells them
//! verify       what the chain says of it, in one round trip, and the verdict
//! settle       one settlement, however often it is asked for
//! account      the gas account: what is sent, under which number, and what became of it; its parts are sent,
//!              transaction, and (pure) numbers and fees
//! contracts    what is said to token, wallet and Multicall3
//! serve        the same over HTTP, for others (`galaksio facilitator`)
//! ```
//!
//! It holds no money of anybody's but gas, and cannot move any: a payment goes where its payer signed it to.

mod account;
mod contracts;
mod fees;
mod numbers;
mod order;
mod rpc;
mod sent;
mod serve;
mod settle;
mod transaction;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::U256;
use alloy::rpc::client::Waiter;
use alloy::signers::local::PrivateKeySigner;
use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

pub use serve::serve;

use super::{Facilitator, FacilitatorError, PaymentRequest, Settlement, Supported, Verdict};
use crate::chain::{Chain, ChainError};
use crate::clock::Clock;
use crate::config::resolved;
use crate::x402::{Address, Asset, B256, Network, Receipt, Version};
use account::{Status, Terms};
use order::{No, Order, reason};
use rpc::{Away, Batch};
use settle::{End, Found, Settler};
use verify::Reader;

/// A transfer takes less gas than this; the account is empty if it cannot pay for one.
const ONE_TRANSFER: u64 = 100_000;

/// Verifies and settles by itself. Cheap to share, not to make: each chain's account is one task.
pub struct LocalFacilitator {
    lanes: Vec<Lane>,
    verify_timeout: Duration,
    settle_timeout: Duration,
    clock: Clock,
}

/// What those who call make of a success that they are told twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// They take each payment once, whatever we say, as the gateway does. A settlement that is repeated succeeds again,
    /// so that an answer that was lost is no loss.
    TakeOnce,
    /// They may deliver for each success: the official servers do, to ten requests with one payment at once. Success is
    /// told once; then the nonce is used.
    MayRepeat,
}

/// One chain.
struct Lane {
    chain: Chain,
    account: Address,
    reader: Arc<Reader>,
    settler: Arc<Settler>,
    status: Arc<Mutex<Status>>,
    /// What the operator is paid in there.
    assets: Vec<Asset>,
}

/// Why there is no facilitator.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The configuration does not ask for one.
    #[error("the configuration has no facilitator of our own: write kind = \"local\" in [facilitator]")]
    NotConfigured,
    /// The gas key is none. Says nothing of what it was.
    #[error("the gas account's key must be 32 bytes of hex, and a private key of secp256k1")]
    Key,
    /// No TLS for outgoing calls.
    #[error("cannot make outgoing TLS connections: {0}")]
    Tls(#[from] rustls::Error),
}

/// What is known of one chain's lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneStatus {
    /// The chain.
    pub network: Network,
    /// The gas account.
    pub account: Address,
    /// Wei it has for gas, as of the last block looked at.
    pub gas: u128,
    /// Transfers not yet sent.
    pub waiting: usize,
    /// Transactions not yet done with.
    pub out: usize,
    /// Settlements that ended with the money where it belongs, since the start.
    pub settled: u64,
    /// Settlements that were refused, since the start.
    pub refused: u64,
}

impl LocalFacilitator {
    /// The facilitator of `config`. Asks nothing yet. Must be called within the tokio runtime it is to run on, which
    /// should be the one that ends last.
    pub fn new(config: &resolved::Config, clock: Clock) -> Result<Self, LocalError> {
        let settings = &config.facilitator;
        let local = settings.local.as_ref().ok_or(LocalError::NotConfigured)?;
        let signer = signer(&local.gas_key)?;
        let lane = |settings: &resolved::Chain| {
            let chain = Chain::new(settings, clock.clone())?;
            let terms = Terms {
                max_fee: local.max_fee,
                confirmations: local.confirmations,
                max_batch: local.max_batch,
                poll: settings.poll,
            };
            let reader = Reader::new(chain.clone(), signer.address(), local.wallet_factories.clone());
            let reader = Arc::new(reader);
            let (sender, status) = account::start(chain.clone(), signer.clone(), terms);
            let settler = Settler::new(
                chain.clone(),
                Arc::clone(&reader),
                sender,
                clock.clone(),
                terms,
                settings.log_range,
            );
            let assets = config.accepts.iter().map(|accept| accept.asset.clone());
            let assets = assets.filter(|asset| asset.network == settings.network).collect();
            let account = signer.address();
            Ok(Lane { chain, account, reader, settler: Arc::new(settler), status, assets })
        };
        Ok(LocalFacilitator {
            lanes: config.chains.iter().map(lane).collect::<Result<_, rustls::Error>>()?,
            verify_timeout: settings.verify_timeout,
            settle_timeout: settings.settle_timeout,
            clock,
        })
    }

    /// The gas account.
    pub fn account(&self) -> Option<Address> {
        self.lanes.first().map(|lane| lane.account)
    }

    /// What each chain's account has and does.
    pub fn status(&self) -> Vec<LaneStatus> {
        let status = |lane: &Lane| {
            let (settled, refused) = lane.settler.counts();
            let status = *lane.status.lock();
            LaneStatus {
                network: lane.chain.network(),
                account: lane.account,
                gas: u128::try_from(status.balance).unwrap_or(u128::MAX),
                waiting: status.waiting,
                out: status.out,
                settled,
                refused,
            }
        };
        self.lanes.iter().map(status).collect()
    }

    /// Everything that would keep payments from settling: an endpoint that is away or of another chain, a gas account
    /// without gas, a token that is none or has another name. Empty if all is well.
    pub async fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for lane in &self.lanes {
            match tokio::time::timeout(self.verify_timeout, lane.problems()).await {
                Ok(Ok(found)) => problems.extend(found),
                Ok(Err(Away(why))) => problems.push(format!("{}: {why}", lane.chain.network())),
                Err(_) => problems.push(format!("{}: no RPC endpoint answers in time", lane.chain.network())),
            }
        }
        problems
    }

    fn lane(&self, order: &Order) -> Result<&Lane, No> {
        let network = order.asset.network;
        self.lanes.iter().find(|lane| lane.chain.network() == network).ok_or_else(|| {
            No::saying(
                reason::NETWORK,
                format!("{network} is not one of the chains that are settled on here"),
            )
        })
    }
}

#[async_trait]
impl Facilitator for LocalFacilitator {
    async fn verify(&self, request: &PaymentRequest) -> Result<Verdict, FacilitatorError> {
        let verdict = match Order::read(request).and_then(|order| Ok((self.lane(&order)?, order))) {
            Err(no) => Err(no),
            Ok((lane, order)) => {
                let asked = lane.reader.verify(&order, self.clock.now());
                match tokio::time::timeout(self.verify_timeout, asked).await {
                    // Nothing was done, so the doubt is none.
                    Err(_) => {
                        return Err(FacilitatorError::NotSent("no RPC endpoint answers in time".to_owned()));
                    }
                    Ok(Err(Away(why))) => return Err(FacilitatorError::NotSent(why)),
                    Ok(Ok(verdict)) => verdict,
                }
            }
        };
        Ok(match verdict {
            Ok(()) => Verdict::Valid,
            Err(No { reason, message }) => Verdict::Invalid { reason: reason.to_owned(), message },
        })
    }

    async fn settle(&self, request: &PaymentRequest) -> Result<Settlement, FacilitatorError> {
        self.settle_for(request, Callers::TakeOnce).await
    }

    /// What it can settle; an error while it could not.
    async fn supported(&self) -> Result<Vec<Supported>, FacilitatorError> {
        if let Some(problem) = self.problems().await.into_iter().next() {
            return Err(FacilitatorError::NotSent(problem));
        }
        Ok(self.kinds())
    }
}

impl LocalFacilitator {
    async fn settle_for(
        &self,
        request: &PaymentRequest,
        callers: Callers,
    ) -> Result<Settlement, FacilitatorError> {
        let (lane, order) = match Order::read(request).and_then(|order| Ok((self.lane(&order)?, order))) {
            Ok(found) => found,
            Err(no) => return Ok(Settlement::Refused(refused(unpaid(), no))),
        };
        let receipt = Receipt { network: order.network_name(), payer: Some(order.payer()), ..unpaid() };
        let with = |transaction: Option<B256>| Receipt {
            transaction: transaction.map(|transaction| transaction.to_string()).unwrap_or_default(),
            ..receipt
        };
        match lane.settler.settle(order.clone(), self.settle_timeout).await {
            End::Paid(transaction, found)
                if callers == Callers::MayRepeat
                    && (found == Found::Before || !lane.settler.tell_first(&order)) =>
            {
                let no = No::saying(reason::USED, "it was settled before");
                Ok(Settlement::Refused(refused(with(Some(transaction)), no)))
            }
            End::Paid(transaction, _) => {
                Ok(Settlement::Settled(Receipt { success: true, ..with(Some(transaction)) }))
            }
            End::No(no, transaction) => Ok(Settlement::Refused(refused(with(transaction), no))),
            End::Pending(transaction) => Ok(Settlement::Pending(Receipt {
                error_reason: Some(reason::PENDING.to_owned()),
                ..with(transaction)
            })),
            End::Away(Away(why)) => Err(FacilitatorError::NotSent(why)),
            End::Unknown(why) => Err(FacilitatorError::Unknown(why)),
        }
    }

    fn kinds(&self) -> Vec<Supported> {
        let kind = |network, version| Supported { version, scheme: "exact".to_owned(), network };
        let networks = self.lanes.iter().map(|lane| lane.chain.network());
        networks
            .flat_map(|network| {
                let v1 = network.v1_name().map(|_| kind(network, Version::V1));
                [Some(kind(network, Version::V2)), v1].into_iter().flatten()
            })
            .collect()
    }
}

impl Lane {
    async fn problems(&self) -> Result<Vec<String>, Away> {
        let away = |error: ChainError| Away(error.to_string());
        let misfits = self.chain.check(&self.assets.iter().collect::<Vec<_>>()).await.map_err(away)?;
        if !misfits.is_empty() {
            return Ok(misfits.iter().map(ToString::to_string).collect());
        }
        // Also the way to learn that an endpoint is stale.
        self.chain.newest().await.map_err(away)?;
        let mut batch = Batch::new(&self.chain);
        let block = batch.newest()?;
        let balance: Waiter<U256> = batch.ask("eth_getBalance", (self.account, "latest"))?;
        batch.send().await?;
        let base_fee = rpc::answer(block).await?.base_fee();
        let needed = U256::from(base_fee.max(1)) * U256::from(ONE_TRANSFER);
        let balance = rpc::answer(balance).await?;
        self.status.lock().balance = balance;
        if balance >= needed {
            return Ok(Vec::new());
        }
        Ok(vec![format!(
            "the gas account {} has {balance} wei on {}, less than one transfer costs\n    fix: send it some of the chain's own coin",
            self.account.to_checksum(None),
            self.chain.network(),
        )])
    }
}

fn unpaid() -> Receipt {
    Receipt {
        success: false,
        transaction: String::new(),
        network: String::new(),
        payer: None,
        error_reason: None,
        error_message: None,
    }
}

fn refused(receipt: Receipt, no: No) -> Receipt {
    Receipt { error_reason: Some(no.reason.to_owned()), error_message: no.message, ..receipt }
}

fn signer(key: &SecretString) -> Result<PrivateKeySigner, LocalError> {
    let text = key.expose_secret().trim();
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, secret.as_mut_slice()).map_err(|_| LocalError::Key)?;
    PrivateKeySigner::from_slice(secret.as_slice()).map_err(|_| LocalError::Key)
}
