//! What may be answered before it is paid for: so much at one time, of each client and of all, and no more once too much of
//! it was never paid for. It is the price of answers that is counted here; the wallet spends nothing on them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::warn;

use super::levels::{Levels, Of, Outs};
use super::losses::Losses;
use super::{Guards, Refused, micros};
use crate::clock::{Clock, UnixSeconds};
use crate::config::resolved::Limits;
use crate::jobs::{ClaimKey, ValueStore};
use crate::money::Amount;
use crate::telemetry::Guard;
use crate::x402::{Address, Asset};

pub(super) struct Trust {
    unsettled: Levels,
    uncollected: Losses,
    /// Of jobs of this process, until they are settled or at rest.
    given: Mutex<HashMap<ClaimKey, Outs>>,
}

/// Room for one answer that is given before it is paid for. Back when this is dropped, unless it is given.
pub struct Credit {
    guards: Arc<Guards>,
    outs: Outs,
}

impl Credit {
    /// The answer is out: the room is taken until its payment is settled, or never will be.
    pub fn given(self, claim: &ClaimKey) {
        self.guards.trust.given.lock().insert(claim.clone(), self.outs);
    }
}

impl Trust {
    pub(super) fn new(store: &Arc<dyn ValueStore>, clock: &Clock, name: &str, limits: &Limits) -> Trust {
        let names = ("unsettled", name);
        Trust {
            unsettled: Levels::new(store, clock, names, limits.unsettled, limits.payer_unsettled),
            uncollected: Losses::new(Arc::clone(store), clock.clone(), "uncollected", name.to_owned()),
            given: Mutex::default(),
        }
    }

    pub(super) async fn tend(&self) {
        self.uncollected.tend().await;
        self.unsettled.tend().await;
    }

    #[cfg(test)]
    pub(super) fn assume_none(&self) {
        self.uncollected.assume_none();
    }
}

impl Guards {
    /// Room for an answer of this price, whose payment lapses at `until`. `None`: it is to be paid for first.
    pub async fn credit(
        self: &Arc<Self>,
        payer: Address,
        asset: &Asset,
        price: Amount,
        until: UnixSeconds,
    ) -> Option<Credit> {
        let lost = self.trust.uncollected.total();
        if lost.is_none_or(|lost| lost >= self.limits.uncollected_per_hour) {
            self.metrics.guarded(Guard::Uncollected);
            return None;
        }
        let taken = self.trust.unsettled.take(payer, micros(price, asset), until.saturating_mul(1000)).await;
        let (of, refused) = match taken {
            Ok(outs) => return Some(Credit { guards: Arc::clone(self), outs }),
            Err(refused) => refused,
        };
        match refused {
            Refused::Spent => self.metrics.guarded(match of {
                Of::All => Guard::Unsettled,
                Of::One => Guard::PayerUnsettled,
            }),
            Refused::Away(why) => warn!(why, "nothing is known of a limit; an answer waits for its payment"),
        }
        None
    }

    /// A job that somebody else had is ours now, and its answer is out.
    pub fn credited(&self, claim: &ClaimKey, payer: Address, asset: &Asset, price: Amount) {
        let mut given = self.trust.given.lock();
        given.entry(claim.clone()).or_insert_with(|| self.trust.unsettled.adopt(payer, micros(price, asset)));
    }

    /// The jobs of this process whose answers are out and not settled.
    pub fn uncollected(&self) -> Vec<ClaimKey> {
        self.trust.given.lock().keys().cloned().collect()
    }

    /// Nothing is to be collected for a job any more. `lost`: the price of its answer, which was never paid for.
    pub fn collected(&self, claim: &ClaimKey, lost: Option<(&Asset, Amount)>) {
        if let Some((asset, price)) = lost {
            self.trust.uncollected.book(micros(price, asset));
        }
        drop(self.trust.given.lock().remove(claim));
    }
}
