//! The token ledger: balances, nonces and transactions of one EIP-3009 token, as its contract keeps them.
//!
//! Every address opens with 100 dollars. The checks, and their order, are those of Circle's
//! FiatToken 2.2 for externally owned accounts. Nothing here knows x402.

mod blocks;
#[cfg(test)]
mod tests;

pub use blocks::{BLOCK_SECONDS, Block};

use std::collections::HashMap;

use parking_lot::Mutex;

use self::blocks::Blocks;
use super::hash;
use crate::clock::{Clock, UnixSeconds};
use crate::money::Amount;
use crate::x402::abi::{self, TokenEvent};
use crate::x402::{Address, Asset, Authorization, B256, Domain};

/// What an address has before anything happens to it: 100 units of a six-decimal dollar.
pub const OPENING_BALANCE: Amount = Amount::new(100_000_000);

/// One token on one chain. All operations are atomic; each that succeeds is mined at once, in a block
/// of its own.
#[derive(Debug)]
pub struct Ledger {
    asset: Asset,
    domain: Domain,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    accounts: HashMap<Address, Amount>,
    issued: Amount,
    nonces: HashMap<(Address, B256), (NonceState, u64)>,
    transactions: Vec<Transaction>,
    by_hash: HashMap<B256, usize>,
    blocks: Blocks,
}

/// What became of an authorization that is not fresh any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceState {
    /// Its transfer was made.
    Used,
    /// Its signer cancelled it.
    Canceled,
}

/// A mined transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its hash.
    pub hash: B256,
    /// The block it is alone in.
    pub block: Block,
    /// Its logs, in order.
    pub events: Vec<TokenEvent>,
}

/// A movement of money, as tests like to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Payer.
    pub from: Address,
    /// Payee.
    pub to: Address,
    /// Atomic units.
    pub value: Amount,
    /// The nonce of the authorization that allowed it; `None` for a transfer the owner sent himself.
    pub nonce: Option<B256>,
    /// Its transaction.
    pub transaction: B256,
    /// Its block.
    pub block: u64,
    /// That block's time.
    pub timestamp: UnixSeconds,
}

/// Why the token reverts, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `now <= validAfter`.
    #[error("FiatTokenV2: authorization is not yet valid")]
    NotYetValid,
    /// `now >= validBefore`.
    #[error("FiatTokenV2: authorization is expired")]
    Expired,
    /// The nonce is gone.
    #[error("FiatTokenV2: authorization is used or canceled")]
    UsedOrCanceled,
    /// Not the authorizer's.
    #[error("FiatTokenV2: invalid signature")]
    Signature,
    /// The payee is nobody.
    #[error("ERC20: transfer to the zero address")]
    ZeroAddress,
    /// The payer has less.
    #[error("ERC20: transfer amount exceeds balance")]
    Balance,
}

impl Ledger {
    /// An empty ledger of `asset`, its chain starting now.
    pub fn new(asset: Asset, clock: Clock) -> Self {
        let state = State {
            accounts: HashMap::new(),
            issued: Amount::ZERO,
            nonces: HashMap::new(),
            transactions: Vec::new(),
            by_hash: HashMap::new(),
            blocks: Blocks::starting_at(clock.now()),
        };
        let domain = Domain::new(&asset);
        Ledger { asset, domain, clock, state: Mutex::new(state) }
    }

    /// The token.
    pub fn asset(&self) -> &Asset {
        &self.asset
    }

    /// The balance of `account`.
    pub fn balance(&self, account: Address) -> Amount {
        self.state.lock().balance(account)
    }

    /// The balance of `account` after block `number`.
    pub fn balance_at(&self, account: Address, number: u64) -> Amount {
        let state = self.state.lock();
        let mut balance = state.balance(account).units();
        for event in
            state.transactions.iter().rev().take_while(|t| t.block.number > number).flat_map(|t| &t.events)
        {
            if let TokenEvent::Transfer { from, to, value } = *event {
                // Both can be the same account. Undoing in reverse order never passes below zero.
                balance = balance.wrapping_add(if from == account { value.units() } else { 0 });
                balance = balance.wrapping_sub(if to == account { value.units() } else { 0 });
            }
        }
        Amount::new(balance)
    }

    /// What became of an authorization; `None`: it can still be spent.
    pub fn authorization(&self, authorizer: Address, nonce: B256) -> Option<NonceState> {
        self.state.lock().nonces.get(&(authorizer, nonce)).map(|(state, _)| *state)
    }

    /// Whether the money of an authorization moved.
    pub fn used(&self, authorizer: Address, nonce: B256) -> bool {
        self.authorization(authorizer, nonce) == Some(NonceState::Used)
    }

    /// `authorizationState` after block `number`: true once used or cancelled.
    pub fn authorization_state_at(&self, authorizer: Address, nonce: B256, number: u64) -> bool {
        self.state.lock().nonces.get(&(authorizer, nonce)).is_some_and(|(_, block)| *block <= number)
    }

    /// Moves what `authorization` says, if the token would.
    pub fn transfer_with_authorization(
        &self,
        authorization: &Authorization,
        signature: &[u8],
    ) -> Result<Transaction, TokenError> {
        // The costly part, outside the lock.
        let signer = self.signer(authorization, signature);
        let Authorization { from, to, value, nonce, .. } = *authorization;
        let mut state = self.state.lock();
        state.check(authorization, signer, self.clock.now())?;
        let events = vec![
            TokenEvent::AuthorizationUsed { authorizer: from, nonce },
            TokenEvent::Transfer { from, to, value },
        ];
        let hash = self.transaction_hash(authorization);
        let transaction = state.mine(self.clock.now(), hash, events);
        state.nonces.insert((from, nonce), (NonceState::Used, transaction.block.number));
        Ok(transaction)
    }

    /// Whether [`Ledger::transfer_with_authorization`] would succeed now: an `eth_call` of it.
    pub fn simulate(&self, authorization: &Authorization, signature: &[u8]) -> Result<(), TokenError> {
        let signer = self.signer(authorization, signature);
        self.state.lock().check(authorization, signer, self.clock.now())
    }

    fn signer(&self, authorization: &Authorization, signature: &[u8]) -> Option<Address> {
        self.domain.recover(authorization, signature.try_into().ok()?).ok()
    }

    /// The hash that the transaction spending `authorization` has, or will have.
    pub fn transaction_hash(&self, authorization: &Authorization) -> B256 {
        hash(&[b"spend", self.domain.digest(authorization).as_slice()])
    }

    /// Makes an authorization worthless, if its signer says so.
    pub fn cancel_authorization(
        &self,
        authorizer: Address,
        nonce: B256,
        signature: &[u8],
    ) -> Result<Transaction, TokenError> {
        let mut state = self.state.lock();
        if state.nonces.contains_key(&(authorizer, nonce)) {
            return Err(TokenError::UsedOrCanceled);
        }
        if abi::recover_cancel(&self.asset, authorizer, nonce, signature) != Some(authorizer) {
            return Err(TokenError::Signature);
        }
        let hash = hash(&[b"cancel", authorizer.as_slice(), nonce.as_slice()]);
        let events = vec![TokenEvent::AuthorizationCanceled { authorizer, nonce }];
        let transaction = state.mine(self.clock.now(), hash, events);
        state.nonces.insert((authorizer, nonce), (NonceState::Canceled, transaction.block.number));
        Ok(transaction)
    }

    /// A plain ERC-20 transfer by its owner: a refund, or a payer moving his money out of reach.
    pub fn transfer(&self, from: Address, to: Address, value: Amount) -> Result<Transaction, TokenError> {
        let mut state = self.state.lock();
        state.check_transfer(from, to, value)?;
        let hash = state.next_hash();
        Ok(state.mine(self.clock.now(), hash, vec![TokenEvent::Transfer { from, to, value }]))
    }

    /// Gives an account this balance, by minting or burning the difference.
    pub fn set_balance(&self, account: Address, balance: Amount) {
        let mut state = self.state.lock();
        let current = state.balance(account);
        let event = match balance.checked_sub(current) {
            Some(value) => TokenEvent::Transfer { from: Address::ZERO, to: account, value },
            None => {
                let value = current.checked_sub(balance).unwrap_or_default();
                TokenEvent::Transfer { from: account, to: Address::ZERO, value }
            }
        };
        let hash = state.next_hash();
        state.mine(self.clock.now(), hash, vec![event]);
    }

    /// Every transaction so far, oldest first.
    pub fn transactions(&self) -> Vec<Transaction> {
        self.state.lock().transactions.clone()
    }

    /// The transactions of blocks `from..=to`.
    pub fn transactions_between(&self, from: u64, to: u64) -> Vec<Transaction> {
        let state = self.state.lock();
        let first = state.transactions.partition_point(|t| t.block.number < from);
        state.transactions[first..].iter().take_while(|t| t.block.number <= to).cloned().collect()
    }

    /// The transaction of this hash, once mined.
    pub fn transaction(&self, hash: B256) -> Option<Transaction> {
        let state = self.state.lock();
        state.by_hash.get(&hash).and_then(|index| state.transactions.get(*index)).cloned()
    }

    /// Every movement of money so far, oldest first.
    pub fn transfers(&self) -> Vec<Transfer> {
        self.state.lock().transactions.iter().filter_map(Transaction::transfer).collect()
    }

    /// The newest block.
    pub fn head(&self) -> Block {
        self.state.lock().blocks.head(self.clock.now())
    }

    /// The block of this number; `None` if it is still to come.
    pub fn block(&self, number: u64) -> Option<Block> {
        self.state.lock().blocks.get(number, self.clock.now())
    }

    /// All balances together, and what was ever issued: always equal.
    pub fn totals(&self) -> (Amount, Amount) {
        let state = self.state.lock();
        let sum = state.accounts.values().map(|balance| balance.units()).sum();
        (Amount::new(sum), state.issued)
    }
}

impl Transaction {
    /// The movement of money in it, if any.
    pub fn transfer(&self) -> Option<Transfer> {
        let mut nonce = None;
        for event in &self.events {
            match *event {
                TokenEvent::AuthorizationUsed { nonce: used, .. } => nonce = Some(used),
                TokenEvent::Transfer { from, to, value } => {
                    let Block { number, timestamp } = self.block;
                    return Some(Transfer {
                        from,
                        to,
                        value,
                        nonce,
                        transaction: self.hash,
                        block: number,
                        timestamp,
                    });
                }
                TokenEvent::AuthorizationCanceled { .. } => {}
            }
        }
        None
    }
}

impl State {
    fn balance(&self, account: Address) -> Amount {
        self.accounts.get(&account).copied().unwrap_or(OPENING_BALANCE)
    }

    fn check(&self, a: &Authorization, signer: Option<Address>, now: UnixSeconds) -> Result<(), TokenError> {
        if now <= a.valid_after {
            return Err(TokenError::NotYetValid);
        }
        if now >= a.valid_before {
            return Err(TokenError::Expired);
        }
        if self.nonces.contains_key(&(a.from, a.nonce)) {
            return Err(TokenError::UsedOrCanceled);
        }
        if signer != Some(a.from) {
            return Err(TokenError::Signature);
        }
        self.check_transfer(a.from, a.to, a.value)
    }

    fn check_transfer(&self, from: Address, to: Address, value: Amount) -> Result<(), TokenError> {
        if from.is_zero() || to.is_zero() {
            return Err(TokenError::ZeroAddress);
        }
        if self.balance(from) < value { Err(TokenError::Balance) } else { Ok(()) }
    }

    /// Appends a block with these events, and applies them. They have been checked.
    fn mine(&mut self, now: UnixSeconds, hash: B256, events: Vec<TokenEvent>) -> Transaction {
        for event in &events {
            if let TokenEvent::Transfer { from, to, value } = *event {
                self.debit(from, value);
                self.credit(to, value);
            }
        }
        let transaction = Transaction { hash, block: self.blocks.mine(now), events };
        self.by_hash.insert(hash, self.transactions.len());
        self.transactions.push(transaction.clone());
        transaction
    }

    fn debit(&mut self, account: Address, value: Amount) {
        let purse = if account.is_zero() { None } else { Some(self.open(account)) };
        match purse {
            Some(balance) => *balance = less(*balance, value),
            None => self.issued = more(self.issued, value),
        }
    }

    fn credit(&mut self, account: Address, value: Amount) {
        let purse = if account.is_zero() { None } else { Some(self.open(account)) };
        match purse {
            Some(balance) => *balance = more(*balance, value),
            None => self.issued = less(self.issued, value),
        }
    }

    fn open(&mut self, account: Address) -> &mut Amount {
        self.accounts.entry(account).or_insert_with(|| {
            self.issued = more(self.issued, OPENING_BALANCE);
            OPENING_BALANCE
        })
    }

    fn next_hash(&self) -> B256 {
        hash(&[b"transaction", &self.transactions.len().to_be_bytes()])
    }
}

#[expect(clippy::expect_used, reason = "balances were compared before, under the same lock")]
fn less(balance: Amount, value: Amount) -> Amount {
    balance.checked_sub(value).expect("a checked debit")
}

#[expect(clippy::expect_used, reason = "the supply would have to exceed 2^128")]
fn more(balance: Amount, value: Amount) -> Amount {
    balance.checked_add(value).expect("a supply below 2^128")
}
