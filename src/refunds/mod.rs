//! Refunds: what is owed to clients whose work failed after they had paid, and paying it from the gateway's own wallet.
//!
//! ```text
//! owed       which jobs, how much, and whether the chain bears it out
//! plan       what one order to pay would pay, and what it leaves and why
//! pay        one refund: signed once, sent as often as need be, ended by what the chain proves
//! watch      what a gateway that runs finds out about refunds that somebody sent
//! returns    the other way round: what providers send back to the wallet
//! ```
//!
//! Money moves once, whatever happens in between:
//! - A refund is in the job's journal before its signature leaves the process, under the job's lease and version. Two
//!   processes cannot both write one.
//! - What is sent is what the journal has, byte for byte, however often and by whomever. Its nonce is derived from the wallet's
//!   secret, the client's payment and the refund's number, and a token takes a nonce once.
//! - The next number is signed only after the chain has proved, in a final block, that the last was not paid and cannot be.
//! - A facilitator's words decide nothing: only a transfer in a final block makes a job `refunded`.
//!
//! What is paid, and to whom, is nobody's word either: it is the client's own payment, or a share of it, which the chain must
//! show to have arrived at one of the operator's addresses. Who can write to the store can at most give clients back what they paid.

mod owed;
mod pay;
mod plan;
mod returns;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use crate::chain::{Prove, Since, Sought};
use crate::clock::Clock;
use crate::facilitator::Facilitator;
use crate::guard::{Balance, Switch, SwitchError};
use crate::jobs::job::Refund;
use crate::jobs::{Job, JobStore, State, StoreError};
use crate::wallet::{Wallet, WalletError};
use crate::x402::{Address, Asset};

pub use owed::{Owed, Unpayable, owed};
pub use pay::Outcome;
pub use plan::{Left, Plan, Total, Wanted, Why};
pub use returns::Returns;
pub use watch::Watch;

/// Pays refunds.
pub struct Payer {
    /// The jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Who proves payments, the clients' and ours.
    pub chains: Arc<dyn Prove>,
    /// Who knows what the wallet has.
    pub balances: Arc<dyn Balance>,
    /// Who puts refunds on the chain.
    pub facilitator: Arc<dyn Facilitator>,
    /// Who signs them.
    pub wallet: Arc<Wallet>,
    /// What stops the wallet.
    pub switch: Switch,
    /// Where clients pay, by token.
    pub payees: Vec<(Asset, Address)>,
    /// The time.
    pub clock: Clock,
}

/// Why a refund was not paid, or nobody knows whether it was.
#[derive(Debug, thiserror::Error)]
pub enum RefundError {
    /// The store is away. What was written before is found again.
    #[error("{0}; run the command again, it goes on where this one stopped")]
    Store(#[from] StoreError),
    /// The wallet pays nobody.
    #[error("the wallet is frozen by the {by}: {reason}; `galaksio wallet unfreeze` ends it")]
    Frozen {
        /// Who froze it.
        by: String,
        /// Why.
        reason: String,
    },
    /// Nobody knows whether it does.
    #[error("whether the wallet is frozen is not known: {0}")]
    Switch(#[from] SwitchError),
    /// The wallet does not sign it.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// It is not to be paid.
    #[error(transparent)]
    Unpayable(#[from] Unpayable),
    /// There is no such job any more.
    #[error("there is no such job")]
    Gone,
    /// Nothing is owed.
    #[error("the job is {}: nothing is owed", .0.name())]
    NotDue(State),
    /// Another process has it in hand.
    #[error("another process has this job in hand; run the command again")]
    Busy,
    /// Ours was spent, but not as it was signed here.
    #[error(
        "the nonce of this refund was spent on another transfer of the wallet: somebody else has its key; freeze it with `galaksio wallet freeze`"
    )]
    Elsewhere,
}

/// What is to be looked for on the chain of a refund.
fn sought(job: &Job, refund: &Refund) -> Sought {
    let requirement = &job.client.requirement;
    Sought {
        asset: requirement.asset.address,
        from: refund.from,
        nonce: refund.nonce,
        to: job.requester,
        value: job.owed(),
        valid_before: refund.valid_before,
        since: Since::Block(refund.height),
    }
}
