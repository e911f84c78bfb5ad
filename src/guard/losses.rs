//! What was lost in the last hour, by all gateways on one store together.
//!
//! A loss is a fact: it is booked whether or not the limit allows it. Each process has one entry for each minute, so
//! that the store keeps some dozens of them, not one for each loss.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::warn;

use super::SPACE;
use super::rate::HOUR;
use crate::clock::Clock;
use crate::jobs::{Draw, StoreError, ValueStore};

pub(super) struct Losses {
    store: Arc<dyn ValueStore>,
    clock: Clock,
    /// Its key in the store.
    key: &'static str,
    /// This process's name.
    name: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By minute since 1970: what this process lost in it, and whether the store has it.
    own: BTreeMap<u64, (u64, bool)>,
    /// What the store said last; `None` before it said anything.
    total: Option<u64>,
}

impl Losses {
    pub(super) fn new(store: Arc<dyn ValueStore>, clock: Clock, key: &'static str, name: String) -> Losses {
        Losses { store, clock, key, name, known: Mutex::default() }
    }

    /// A loss. It counts here at once, and everywhere after the next [`Losses::tend`].
    pub(super) fn book(&self, amount: u64) {
        let mut known = self.known.lock();
        let (sum, kept) = known.own.entry(self.clock.now() / 60).or_default();
        (*sum, *kept) = (sum.saturating_add(amount), false);
        known.total = known.total.map(|total| total.saturating_add(amount));
    }

    /// What was lost; `None` while nobody knows.
    pub(super) fn total(&self) -> Option<u64> {
        self.known.lock().total
    }

    #[cfg(test)]
    pub(super) fn assume_none(&self) {
        self.known.lock().total = Some(0);
    }

    /// Writes what is not written yet, and reads what others lost.
    pub(super) async fn tend(&self) {
        if let Err(away) = self.exchange().await {
            warn!(%away, "losses of the last hour are not up to date");
        }
    }

    async fn exchange(&self) -> Result<(), StoreError> {
        let unwritten: Vec<(u64, u64)> = {
            let known = self.known.lock();
            known
                .own
                .iter()
                .filter(|(_, (_, kept))| !kept)
                .map(|(minute, (sum, _))| (*minute, *sum))
                .collect()
        };
        for (minute, sum) in unwritten {
            let draw = Draw { wanted: sum, least: 0, limit: Draw::MOST, ttl: HOUR };
            self.store.draw(SPACE, self.key, &format!("{minute}/{}", self.name), draw).await?;
            let mut known = self.known.lock();
            // More may have been lost meanwhile.
            if let Some(entry) = known.own.get_mut(&minute).filter(|(now, _)| *now == sum) {
                entry.1 = true;
            }
        }
        let total = self.store.drawn(SPACE, self.key).await?;
        let mut known = self.known.lock();
        let hour_ago = (self.clock.now() / 60).saturating_sub(61);
        known.own.retain(|minute, (_, kept)| *minute > hour_ago || !*kept);
        let unwritten = known.own.values().filter(|(_, kept)| !kept);
        known.total = Some(unwritten.fold(total, |total, (sum, _)| total.saturating_add(*sum)));
        Ok(())
    }
}
