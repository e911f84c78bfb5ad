//! The money of a rig, as the ledger has it.

use galaksio::jobs::State;
use galaksio::sandbox::{Service, pay_to};
use galaksio::x402::Address;

use super::client::Purchase;
use super::rig::Rig;
use super::settings::PAY_TO;

/// Payments that were made, by the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Money {
    /// By the client to the gateway, with this purchase's authorization.
    pub(crate) charged: usize,
    /// By the gateway to each provider whose money belongs to jobs.
    pub(crate) provider: usize,
    /// By the gateway for its stock of caches.
    pub(crate) stock: usize,
}

impl Rig {
    /// What moved so far. Nothing else may have.
    pub(crate) fn money(&self, purchase: &Purchase) -> Money {
        let transfers = self.sandbox.ledger.transfers();
        let count =
            |from: Address, to: Address| transfers.iter().filter(|t| t.from == from && t.to == to).count();
        let income: Address = PAY_TO.parse().unwrap();
        let of_this = transfers.iter().filter(|t| {
            t.nonce == Some(purchase.authorization.nonce)
                && t.from == purchase.authorization.from
                && t.to == income
                && t.value == purchase.authorization.value
        });
        let money = Money {
            charged: of_this.count(),
            provider: count(self.spender, pay_to(Service::Merit))
                + count(self.spender, pay_to(Service::OpenX402)),
            stock: count(self.spender, pay_to(Service::XCache)),
        };
        let known = money.charged + money.provider + money.stock;
        assert_eq!(transfers.len(), known, "money moved that nobody expected: {transfers:#?}");
        money
    }
}

/// States in which a job may stay when nobody works on it: those at rest, and the two that wait for a look at the chain.
pub(crate) fn may_stay(state: State) -> bool {
    state.at_rest() || matches!(state, State::Settling | State::SettlingUpfront)
}
