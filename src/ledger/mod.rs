//! Books: a double-entry projection of the journals of all jobs, of the stock that was bought, and of what providers sent back.
//!
//! Nothing is written here: the journals are the truth, and these are sums over them. After each event a job has a
//! [`position`]: who has, owes or lost what. What an event changed in it is posted, as much to the debit side of some
//! accounts as to the credit side of others. [`Books::check`] holds the sums against the records of the jobs, which the
//! stores keep beside the journals.

mod collect;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use crate::ids::JobId;
use crate::jobs::job::{Fate, SCHEMA};
use crate::jobs::{Entry, Job, State};
use crate::money::Amount;
use crate::providers::{Returned, StockOutcome, StockPurchase};
use crate::x402::{Asset, B256};

pub use collect::{CollectError, collect};
pub use report::Report;

/// Where money is, or went. Balances are of debits less credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// What clients paid, at `accepts.pay_to`.
    Received,
    /// What the wallet paid, or may have paid, less what came back. Credit.
    Wallet,
    /// Signed to providers, or to clients as refunds, and nobody knows yet whether it is gone, and to the right end.
    Exposure,
    /// Stock that was bought.
    Inventory,
    /// Paid to providers for work that clients pay for.
    ProviderCost,
    /// Paid, or perhaps paid, to providers for work that no client pays for.
    Losses,
    /// What providers sent back. Credit.
    Returned,
    /// What clients paid for work that is done. Credit.
    Income,
    /// What clients paid for work that is not done yet. Credit.
    Unearned,
    /// What clients paid for work that failed, and have not got back. Credit.
    RefundsDue,
}

impl Account {
    /// All of them, as they are listed.
    pub const ALL: [Account; 10] = [
        Account::Received,
        Account::Wallet,
        Account::Exposure,
        Account::Inventory,
        Account::ProviderCost,
        Account::Losses,
        Account::Returned,
        Account::Income,
        Account::Unearned,
        Account::RefundsDue,
    ];

    /// The name in the list.
    pub fn name(self) -> &'static str {
        match self {
            Account::Received => "received",
            Account::Wallet => "wallet",
            Account::Exposure => "exposure",
            Account::Inventory => "inventory",
            Account::ProviderCost => "provider_cost",
            Account::Losses => "losses",
            Account::Returned => "returned",
            Account::Income => "income",
            Account::Unearned => "unearned",
            Account::RefundsDue => "refunds_due",
        }
    }
}

/// The two sides of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// All that was debited.
    pub debit: u128,
    /// All that was credited.
    pub credit: u128,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Discrepancy {
    /// Debits and credits differ.
    #[error("{token}: debits are {debit} and credits {credit}")]
    Unbalanced {
        /// Of what.
        token: String,
        /// Atomic units.
        debit: u128,
        /// Atomic units.
        credit: u128,
    },
    /// The accounts are not what the records of the jobs say.
    #[error("{token}: {account} is {booked} by the journals, and {recorded} by the jobs' records")]
    Account {
        /// Of what.
        token: String,
        /// Which.
        account: &'static str,
        /// Atomic units.
        booked: i128,
        /// Atomic units.
        recorded: i128,
    },
    /// A job's journal does not lead to its record.
    #[error("job {job}: {what}")]
    Job {
        /// Which.
        job: JobId,
        /// How they differ.
        what: String,
    },
    /// One nonce was signed for two payments, of which the chain takes one.
    #[error("job {job}: a payment has the nonce of one of job {other}")]
    Nonce {
        /// Which.
        job: JobId,
        /// The job of the other payment; it may be the same.
        other: JobId,
    },
    /// Larger than can be counted.
    #[error("job {job}: a sum that cannot be counted")]
    Overflow {
        /// Which.
        job: JobId,
    },
}

/// The sums.
#[derive(Default)]
pub struct Books {
    accounts: BTreeMap<(Token, Account), Sides>,
    recorded: BTreeMap<(Token, Account), i128>,
    nonces: HashMap<B256, JobId>,
    found: Vec<Discrepancy>,
    jobs: u64,
    /// So many of them were read from the archive.
    archived: u64,
    events: u64,
}

/// A token, in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Token {
    network: String,
    address: String,
    name: String,
    decimals: u8,
}

impl From<&Asset> for Token {
    fn from(asset: &Asset) -> Self {
        Token {
            network: asset.network.to_string(),
            address: format!("{:#x}", asset.address),
            name: asset.name.clone(),
            decimals: asset.decimals,
        }
    }
}

/// Signed sums by account; they add up to nothing in each token.
type Position = BTreeMap<(Token, Account), i128>;

impl Books {
    /// Posts the journal of a job.
    pub fn post(&mut self, job: &Job, journal: &[Entry]) {
        self.jobs += 1;
        if self.try_post(job, journal).is_none() {
            self.found.push(Discrepancy::Overflow { job: job.id });
        }
    }

    fn try_post(&mut self, job: &Job, journal: &[Entry]) -> Option<()> {
        let mut at = Job {
            version: 0,
            attempt: 1,
            state: State::Claimed,
            provider: Vec::new(),
            answer: None,
            trusted: false,
            receipt: None,
            failure: None,
            shortfall: None,
            refunds: Vec::new(),
            ..job.clone()
        };
        for entry in journal {
            self.events += 1;
            match at.replay(&entry.event, entry.at) {
                Ok(next) => {
                    self.move_to(&position(&at)?, &position(&next)?)?;
                    at = next;
                }
                Err(illegal) => {
                    self.differs(job, format!("its journal cannot be followed: {illegal}"));
                    break;
                }
            }
        }
        self.compare(job, &at);
        for (key, sum) in position(job)? {
            let recorded = self.recorded.entry(key).or_default();
            *recorded = recorded.checked_add(sum)?;
        }
        let signed = job.provider.iter().map(|payment| payment.nonce);
        for nonce in signed.chain(job.refunds.iter().map(|refund| refund.nonce)) {
            if let Some(other) = self.nonces.insert(nonce, job.id) {
                self.found.push(Discrepancy::Nonce { job: job.id, other });
            }
        }
        Some(())
    }

    /// Posts a purchase of stock.
    pub fn stock(&mut self, purchase: &StockPurchase) {
        let account = match purchase.outcome {
            StockOutcome::Open => Account::Exposure,
            StockOutcome::Bought => Account::Inventory,
            StockOutcome::Lost => Account::Losses,
        };
        self.without_journal(&purchase.offer.asset, purchase.offer.cost, account, Account::Wallet);
    }

    /// Posts what providers sent back of a token.
    pub fn returned(&mut self, returned: &Returned) {
        self.without_journal(&returned.asset, returned.total(), Account::Wallet, Account::Returned);
    }

    /// Posts what has no journal to be held against.
    fn without_journal(&mut self, asset: &Asset, amount: Amount, to: Account, from: Account) {
        let mut position = Position::new();
        let moved = shift(&mut position, asset, amount, to, from);
        let posted = moved.and_then(|()| self.move_to(&Position::new(), &position));
        for (key, sum) in position.into_iter().filter(|_| posted.is_some()) {
            let recorded = self.recorded.entry(key).or_default();
            *recorded = recorded.saturating_add(sum);
        }
    }

    /// What an account holds of a token, in atomic units: debit less credit.
    pub fn balance(&self, asset: &Asset, account: Account) -> Option<i128> {
        self.accounts.get(&(Token::from(asset), account)).map_or(Some(0), |sides| sides.balance())
    }

    /// All that is not as it must be.
    pub fn check(&self) -> Vec<Discrepancy> {
        let mut found = self.found.clone();
        let mut tokens: BTreeMap<String, Sides> = BTreeMap::new();
        for ((token, account), sides) in &self.accounts {
            let sum = tokens.entry(token.shown()).or_default();
            sum.debit = sum.debit.saturating_add(sides.debit);
            sum.credit = sum.credit.saturating_add(sides.credit);
            let booked = sides.balance();
            let recorded = self.recorded.get(&(token.clone(), *account)).copied().unwrap_or_default();
            if booked != Some(recorded) {
                let (token, account) = (token.shown(), account.name());
                let booked = booked.unwrap_or(i128::MAX);
                found.push(Discrepancy::Account { token, account, booked, recorded });
            }
        }
        for (key, recorded) in &self.recorded {
            if *recorded != 0 && !self.accounts.contains_key(key) {
                let (token, account) = (key.0.shown(), key.1.name());
                found.push(Discrepancy::Account { token, account, booked: 0, recorded: *recorded });
            }
        }
        for (token, Sides { debit, credit }) in tokens {
            if debit != credit {
                found.push(Discrepancy::Unbalanced { token, debit, credit });
            }
        }
        found
    }

    fn move_to(&mut self, before: &Position, after: &Position) -> Option<()> {
        let mut changes = after.clone();
        for (key, sum) in before {
            let change = changes.entry(key.clone()).or_default();
            *change = change.checked_sub(*sum)?;
        }
        for (key, change) in changes {
            let sides = self.accounts.entry(key).or_default();
            match change {
                0.. => sides.debit = sides.debit.checked_add(change.unsigned_abs())?,
                _ => sides.credit = sides.credit.checked_add(change.unsigned_abs())?,
            }
        }
        Some(())
    }

    /// Whether a journal leads to the record.
    fn compare(&mut self, job: &Job, led: &Job) {
        let receipt = |job: &Job| job.receipt.as_ref().map(|receipt| receipt.transaction.clone());
        // Journals are without the bodies of answers, so only the record tells whether one was handed out beside it.
        let beside = job.is_given_once() && job.schema == SCHEMA;
        let state = |of: &Job| if beside { of.state } else { of.state.shown() };
        let ends = |of: &Job| (of.version, state(of), of.attempt);
        if ends(job) != ends(led) {
            let (to, is) = (led.state.name(), job.state.name());
            let what = format!(
                "its journal ends as {to} at version {}, its record is {is} at version {}",
                led.version, job.version
            );
            self.differs(job, what);
        } else if job.provider != led.provider {
            self.differs(job, "its journal and its record name different payments to providers".to_owned());
        } else if job.refunds != led.refunds {
            self.differs(job, "its journal and its record name different refunds".to_owned());
        } else if job.shortfall != led.shortfall {
            self.differs(job, "its journal and its record differ in what was not done".to_owned());
        } else if receipt(job) != receipt(led) {
            self.differs(job, "its journal and its record name different receipts".to_owned());
        }
    }

    fn differs(&mut self, job: &Job, what: String) {
        self.found.push(Discrepancy::Job { job: job.id, what });
    }
}

impl Sides {
    /// Debit less credit.
    pub fn balance(self) -> Option<i128> {
        i128::try_from(self.debit).ok()?.checked_sub(i128::try_from(self.credit).ok()?)
    }
}

impl Token {
    fn shown(&self) -> String {
        format!("{} on {} ({})", self.name, self.network, self.address)
    }
}

/// What a job has done to the accounts by now. `None` if that cannot be counted.
fn position(job: &Job) -> Option<Position> {
    let mut position = Position::new();
    let unpaid_for = matches!(
        job.state,
        State::Uncollected | State::ProviderLost | State::RefundDue | State::Refunded | State::Voided
    );
    for payment in &job.provider {
        let account = match payment.fate {
            Fate::Unspent => continue,
            // A loss is never counted too small.
            Fate::Spent if unpaid_for && !job.is_paid_for(payment) => Account::Losses,
            Fate::Open if unpaid_for => Account::Losses,
            Fate::Open => Account::Exposure,
            Fate::Spent => Account::ProviderCost,
        };
        shift(&mut position, &payment.asset, payment.amount, account, Account::Wallet)?;
    }
    if job.receipt.is_some() {
        let requirement = &job.client.requirement;
        let mut received =
            |amount, account| shift(&mut position, &requirement.asset, amount, Account::Received, account);
        match job.state {
            State::Completed | State::Delivering => received(requirement.amount, Account::Income)?,
            State::RefundDue | State::Refunded => {
                received(job.owed(), Account::RefundsDue)?;
                let earned = requirement.amount.checked_sub(job.owed())?;
                if earned != Amount::ZERO {
                    received(earned, Account::Income)?;
                }
            }
            _ => received(requirement.amount, Account::Unearned)?,
        }
    }
    for refund in &job.refunds {
        let account = match refund.fate {
            Fate::Unspent => continue,
            Fate::Open => Account::Exposure,
            Fate::Spent => Account::RefundsDue,
        };
        shift(&mut position, &job.client.requirement.asset, job.owed(), account, Account::Wallet)?;
    }
    Some(position)
}

/// Debits one account and credits another.
fn shift(position: &mut Position, asset: &Asset, amount: Amount, to: Account, from: Account) -> Option<()> {
    let sum = i128::try_from(amount.units()).ok()?;
    let token = Token::from(asset);
    let debit = position.entry((token.clone(), to)).or_default();
    *debit = debit.checked_add(sum)?;
    let credit = position.entry((token, from)).or_default();
    *credit = credit.checked_sub(sum)?;
    Some(())
}
