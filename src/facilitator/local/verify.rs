//! What the chain says about an order, read in one round trip, and what follows from it.
//!
//! [`judge`] is pure: the checks in the order, and with the reasons, of the TypeScript facilitator.

use std::time::Duration;

use alloy::primitives::{Bytes, U256};
use alloy::rpc::client::Waiter;
use moka::sync::Cache;

use super::contracts::{self, Call, MULTICALL3};
use super::order::{No, Order, reason};
use super::rpc::{self, Away, Batch};
use crate::chain::Chain;
use crate::clock::UnixSeconds;
use crate::x402::abi::TokenRead;
use crate::x402::{Address, B256};

/// What never changes of a token is asked anew after this long all the same: a proxy may be upgraded.
const TOKEN_FRESH: Duration = Duration::from_secs(600);

/// Tokens remembered at most; whoever calls us names them.
const TOKENS: u64 = 1_024;

/// Reads one chain for verification.
pub(super) struct Reader {
    chain: Chain,
    /// In whose name calls are tried: the account that will make them.
    account: Address,
    /// Makers of wallets that we would call (ERC-6492).
    factories: Vec<Address>,
    tokens: Cache<Address, Token>,
}

/// What hardly ever changes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    deployed: bool,
    /// It knows of authorizations. One that does not may still have code that takes any call for a good one.
    eip3009: bool,
    /// `None`: it does not say.
    separator: Option<B256>,
}

/// What can be wrong with the money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Purse {
    /// The nonce is used.
    used: bool,
    /// What the payer has; `None` if the token does not say.
    balance: Option<U256>,
}

/// Whether the transfer is tried, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// Not at all.
    None,
    /// As a call.
    Call,
    /// As an estimate of its gas.
    Gas,
}

/// What the chain says.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The payer is a contract.
    pub(super) payer_has_code: bool,
    /// The payer is to be made by a factory of which this says whether it is one of ours to call.
    pub(super) factory_allowed: Option<bool>,
    /// What the payer's contract says of the signature, if it was asked.
    wallet_said: Option<bool>,
    token: Token,
    /// `None`: not asked, for the trial has shown that all is well.
    purse: Option<Purse>,
    /// What trying it came to: the gas, or why not.
    pub(super) tried: Option<Result<u64, String>>,
}

impl Facts {
    /// The nonce is used, or cancelled.
    pub(super) fn is_used(&self) -> bool {
        self.purse.is_some_and(|purse| purse.used)
    }
}

impl Reader {
    pub(super) fn new(chain: Chain, account: Address, factories: Vec<Address>) -> Self {
        let tokens = Cache::builder().max_capacity(TOKENS).time_to_live(TOKEN_FRESH).build();
        Reader { chain, account, factories, tokens }
    }

    /// Whether the payment would settle now.
    pub(super) async fn verify(&self, order: &Order, now: UnixSeconds) -> Result<Result<(), No>, Away> {
        // Wrong whatever the chain says, so it is not asked.
        if order.recovered
            && order.deployment.is_none()
            && let Err(no) = order.check_terms(now)
        {
            return Ok(Err(no));
        }
        let facts = self.read(order, Trial::Call).await?;
        self.judge(order, &facts, now).await
    }

    /// As [`judge`], with the one reason that takes another look.
    pub(super) async fn judge(
        &self,
        order: &Order,
        facts: &Facts,
        now: UnixSeconds,
    ) -> Result<Result<(), No>, Away> {
        match judge(order, facts, now) {
            Err(Verdict::No(no)) => Ok(Err(no)),
            Err(Verdict::OtherDomain) => Ok(Err(self.other_domain(order).await?)),
            Ok(()) => Ok(Ok(())),
        }
    }

    /// Everything there is to know about `order`: one round trip; two for a trial that fails, and for a contract's
    /// signature that looks like an ordinary one.
    pub(super) async fn read(&self, order: &Order, trial: Trial) -> Result<Facts, Away> {
        let payer = order.authorization.from;
        let (mut missing, mut factory_allowed) = (None, None);
        if let Some(deployment) = &order.deployment {
            let [there, multicall] = self.have_code([payer, MULTICALL3]).await?;
            if !there {
                missing = Some(deployment);
                // Without Multicall3 nothing would be called, which looks like a call that went well.
                factory_allowed = Some(multicall && self.factories.contains(&deployment.factory));
            }
        }
        let trial = if factory_allowed == Some(false) { Trial::None } else { trial };
        let token = order.asset.address;
        let known = self.tokens.get(&token);

        let mut batch = Batch::new(&self.chain);
        let code = batch.code(payer)?;
        // A call that is tried says itself whether nonce and balance are good; why not is asked where it fails.
        let purse = if trial == Trial::Call { None } else { Some(self.ask_purse(&mut batch, order)?) };
        let wallet = (!order.recovered && missing.is_none()).then(|| self.ask_wallet(order));
        let wallet = wallet.map(|call| batch.call(self.account, &call)).transpose()?;
        let fresh = if known.is_none() { Some(self.ask_token(&mut batch, order)?) } else { None };
        let transfer = call(order, missing.is_some());
        let tried = match trial {
            Trial::Call => Some(batch.call(self.account, &transfer)?),
            Trial::None | Trial::Gas => None,
        };
        let gas = match trial {
            Trial::Gas => Some(batch.estimate(self.account, &transfer)?),
            Trial::None | Trial::Call => None,
        };
        batch.send().await?;

        let payer_has_code = !rpc::answer(code).await?.is_empty();
        let mut wallet_said = match wallet {
            Some(wallet) => {
                Some(rpc::outcome(wallet).await?.is_ok_and(|answer| contracts::said_valid(&answer)))
            }
            None => None,
        };
        let tried = match (tried, gas) {
            (Some(tried), _) => Some(rpc::outcome(tried).await?.map(|_| 0)),
            (None, Some(gas)) => Some(rpc::outcome(gas).await?.map(|gas| gas.to())),
            (None, None) => None,
        };
        let token = match (known, fresh) {
            (Some(token), _) => token,
            (None, Some(fresh)) => self.token(token, fresh).await?,
            (None, None) => Token { deployed: false, eip3009: false, separator: None },
        };
        let purse = match purse {
            Some(asked) => Some(purse_of(asked).await?),
            None if matches!(tried, Some(Ok(_))) => None,
            None => {
                let mut batch = Batch::new(&self.chain);
                let asked = self.ask_purse(&mut batch, order)?;
                batch.send().await?;
                Some(purse_of(asked).await?)
            }
        };
        if payer_has_code && wallet_said.is_none() {
            // An ordinary signature of an account that turns out to be a contract: that has the last word.
            wallet_said = Some(self.wallet_says(order).await?);
        }
        Ok(Facts { payer_has_code, factory_allowed, wallet_said, token, purse, tried })
    }

    /// Whether the nonce is used, and the payer's balance.
    fn ask_purse(&self, batch: &mut Batch<'_>, order: &Order) -> Result<[Waiter<Bytes>; 2], Away> {
        let (token, payer) = (order.asset.address, order.authorization.from);
        let state = TokenRead::AuthorizationState(payer, order.authorization.nonce);
        Ok([
            batch.call(self.account, &contracts::read(token, state))?,
            batch.call(self.account, &contracts::read(token, TokenRead::BalanceOf(payer)))?,
        ])
    }

    /// Its code, its domain separator, and whether it knows of this payer's nonces.
    fn ask_token(&self, batch: &mut Batch<'_>, order: &Order) -> Result<[Waiter<Bytes>; 3], Away> {
        let token = order.asset.address;
        let state = TokenRead::AuthorizationState(order.authorization.from, order.authorization.nonce);
        Ok([
            batch.code(token)?,
            batch.call(self.account, &contracts::read(token, TokenRead::DomainSeparator))?,
            batch.call(self.account, &contracts::read(token, state))?,
        ])
    }

    async fn token(&self, address: Address, asked: [Waiter<Bytes>; 3]) -> Result<Token, Away> {
        let [code, separator, state] = asked;
        let deployed = !rpc::answer(code).await?.is_empty();
        let separator = rpc::outcome(separator).await?.ok().and_then(|answer| contracts::word(&answer));
        let eip3009 = rpc::outcome(state).await?.ok().and_then(|answer| contracts::truth(&answer)).is_some();
        let token = Token { deployed, eip3009, separator };
        if deployed && eip3009 {
            self.tokens.insert(address, token);
        }
        Ok(token)
    }

    async fn have_code(&self, addresses: [Address; 2]) -> Result<[bool; 2], Away> {
        let mut batch = Batch::new(&self.chain);
        let [one, two] = addresses;
        let (one, two) = (batch.code(one)?, batch.code(two)?);
        batch.send().await?;
        Ok([!rpc::answer(one).await?.is_empty(), !rpc::answer(two).await?.is_empty()])
    }

    fn ask_wallet(&self, order: &Order) -> Call {
        contracts::is_valid_signature(order.authorization.from, order.digest, &order.signature)
    }

    async fn wallet_says(&self, order: &Order) -> Result<bool, Away> {
        let mut batch = Batch::new(&self.chain);
        let answer = batch.call(self.account, &self.ask_wallet(order))?;
        batch.send().await?;
        Ok(rpc::outcome(answer).await?.is_ok_and(|answer| contracts::said_valid(&answer)))
    }

    /// The token signs under another domain than the payment: which part of it is it?
    async fn other_domain(&self, order: &Order) -> Result<No, Away> {
        let token = order.asset.address;
        let mut batch = Batch::new(&self.chain);
        let name = batch.call(self.account, &contracts::read(token, TokenRead::Name))?;
        batch.send().await?;
        let name = rpc::outcome(name).await?.ok().and_then(|answer| contracts::text(&answer));
        Ok(match name {
            Some(name) if name != order.asset.name => {
                No::saying(reason::NAME, format!("the token is named {:?}", rpc::words(&name)))
            }
            _ => No::because(reason::TOKEN_VERSION),
        })
    }
}

async fn purse_of(asked: [Waiter<Bytes>; 2]) -> Result<Purse, Away> {
    let [state, balance] = asked;
    let used = rpc::outcome(state).await?.ok().and_then(|answer| contracts::truth(&answer));
    let balance = rpc::outcome(balance).await?.ok().and_then(|answer| contracts::number(&answer));
    Ok(Purse { used: used == Some(true), balance })
}

/// The call that settles `order`; with `deploy`, one that makes the payer's wallet first.
pub(super) fn call(order: &Order, deploy: bool) -> Call {
    let transfer = order.transfer();
    match &order.deployment {
        Some(deployment) if deploy => {
            let make = Call { to: deployment.factory, input: deployment.input.clone() };
            // Somebody else may have made it in the meantime, which some factories take ill.
            contracts::aggregate([(&make, true), (&transfer, false)])
        }
        _ => transfer,
    }
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    No(No),
    /// The token's domain separator is not that of the requirement's name and version.
    OtherDomain,
}

/// Whether the signature is the payer's.
pub(super) fn judge_signature(order: &Order, facts: &Facts) -> Result<(), No> {
    match facts.factory_allowed {
        Some(false) => return Err(No::because(reason::FACTORY)),
        // The wallet is not there to be asked. Trying the whole transfer asks it.
        Some(true) => return Ok(()),
        None => {}
    }
    let valid = if facts.payer_has_code { facts.wallet_said == Some(true) } else { order.recovered };
    if valid { Ok(()) } else { Err(No::because(reason::SIGNATURE)) }
}

fn judge(order: &Order, facts: &Facts, now: UnixSeconds) -> Result<(), Verdict> {
    let no = |reason| Err(Verdict::No(No::because(reason)));
    judge_signature(order, facts).map_err(Verdict::No)?;
    order.check_terms(now).map_err(Verdict::No)?;
    if !facts.token.deployed {
        return no(reason::NO_CONTRACT);
    }
    if !facts.token.eip3009 {
        return no(reason::NOT_3009);
    }
    if facts.is_used() {
        return no(reason::USED);
    }
    if facts.token.separator.is_some_and(|separator| separator != order.separator) {
        return Err(Verdict::OtherDomain);
    }
    let needed = U256::from(order.authorization.value.units());
    if facts.purse.is_some_and(|purse| purse.balance.is_none_or(|balance| balance < needed)) {
        return no(reason::BALANCE);
    }
    match &facts.tried {
        Some(Err(why)) => Err(Verdict::No(No::saying(reason::SIMULATION, why))),
        Some(Ok(_)) | None => Ok(()),
    }
}
