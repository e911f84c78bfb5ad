//! What the chain says about an order, read in one round trip, and what follows from it.
//!
//! [`judge`] is pure: the checks in the order, and with the reasons, of the TypeScript facilitator.

use std::time::Duration;

use alloy::primitives::U256;
use moka::sync::Cache;

use super::contracts::{self, Call};
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
    /// `None`: it does not say.
    separator: Option<B256>,
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
    balance: Option<U256>,
    /// Whether the nonce is used; `None` if the token does not know of nonces.
    pub(super) used: Option<bool>,
    /// What trying it came to: the gas, or why not.
    pub(super) tried: Option<Result<u64, String>>,
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

    /// Everything there is to know about `order`: one round trip, two for a wallet that is a contract.
    pub(super) async fn read(&self, order: &Order, trial: Trial) -> Result<Facts, Away> {
        let payer = order.authorization.from;
        let missing = match &order.deployment {
            Some(deployment) if !self.has_code(payer).await? => Some(deployment),
            _ => None,
        };
        let factory_allowed = missing.map(|deployment| self.factories.contains(&deployment.factory));
        let trial = if factory_allowed == Some(false) { Trial::None } else { trial };
        let token = order.asset.address;
        let known = self.tokens.get(&token);

        let mut batch = Batch::new(&self.chain);
        let code = batch.code(payer)?;
        let state = TokenRead::AuthorizationState(payer, order.authorization.nonce);
        let state = batch.call(self.account, &contracts::read(token, state))?;
        let balance = batch.call(self.account, &contracts::read(token, TokenRead::BalanceOf(payer)))?;
        let wallet = (!order.recovered && missing.is_none()).then(|| self.ask_wallet(order));
        let wallet = wallet.map(|call| batch.call(self.account, &call)).transpose()?;
        let fresh = match known {
            Some(_) => None,
            None => Some((
                batch.code(token)?,
                batch.call(self.account, &contracts::read(token, TokenRead::DomainSeparator))?,
            )),
        };
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
        let used = rpc::outcome(state).await?.ok().and_then(|answer| contracts::truth(&answer));
        let balance = rpc::outcome(balance).await?.ok().and_then(|answer| contracts::number(&answer));
        let mut wallet_said = match wallet {
            Some(wallet) => {
                Some(rpc::outcome(wallet).await?.is_ok_and(|answer| contracts::said_valid(&answer)))
            }
            None => None,
        };
        if payer_has_code && wallet_said.is_none() {
            // An ordinary signature of an account that turns out to be a contract: that has the last word.
            wallet_said = Some(self.wallet_says(order).await?);
        }
        let token = match (known, fresh) {
            (Some(token), _) => token,
            (None, Some((code, separator))) => {
                let deployed = !rpc::answer(code).await?.is_empty();
                let separator =
                    rpc::outcome(separator).await?.ok().and_then(|answer| contracts::word(&answer));
                let token = Token { deployed, separator };
                if deployed {
                    self.tokens.insert(order.asset.address, token);
                }
                token
            }
            (None, None) => Token { deployed: false, separator: None },
        };
        let tried = match (tried, gas) {
            (Some(tried), _) => Some(rpc::outcome(tried).await?.map(|_| 0)),
            (None, Some(gas)) => Some(rpc::outcome(gas).await?.map(|gas| gas.to())),
            (None, None) => None,
        };
        Ok(Facts { payer_has_code, factory_allowed, wallet_said, token, balance, used, tried })
    }

    async fn has_code(&self, address: Address) -> Result<bool, Away> {
        let mut batch = Batch::new(&self.chain);
        let code = batch.code(address)?;
        batch.send().await?;
        Ok(!rpc::answer(code).await?.is_empty())
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
    match facts.used {
        None => return no(reason::NOT_3009),
        Some(true) => return no(reason::USED),
        Some(false) => {}
    }
    if facts.token.separator.is_some_and(|separator| separator != order.separator) {
        return Err(Verdict::OtherDomain);
    }
    if facts.balance.is_none_or(|balance| balance < U256::from(order.authorization.value.units())) {
        return no(reason::BALANCE);
    }
    match &facts.tried {
        Some(Err(why)) => Err(Verdict::No(No::saying(reason::SIMULATION, why))),
        Some(Ok(_)) | None => Ok(()),
    }
}
