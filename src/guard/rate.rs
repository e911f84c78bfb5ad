//! A limit on what is spent in any hour, by all gateways on one store together.
//!
//! This process draws a slice of it from the store and spends out of that, without asking anybody, for [`USE`] at most.
//! A slice counts in the store for an hour longer than it may be spent from, so in no hour is more spent than the limit.
//! One that is used up, or too old, is given back but for what was spent of it. What a process that died had drawn
//! counts as spent: nobody knows better, and it is a very small part of the limit. What somebody still had in hand when its slice
//! was given back counts as spent until he is done, and what he did not spend is given back then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;
use tracing::warn;
use uuid::Uuid;

use super::{Lacking, Refused, SPACE, millis};
use crate::clock::{Clock, UnixMillis};
use crate::jobs::{Draw, ValueStore};

/// The time that the limit is for.
pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// How long a slice may be spent from.
pub(super) const USE: Duration = Duration::from_secs(60);
/// What was taken is spent within this time, or not at all.
pub(super) const HOLD: Duration = Duration::from_secs(300);
/// A slice is this part of the limit, unless more is needed at once: so small that gateways that die hundreds of times in
/// an hour do not use the limit up by dying, and still three seconds of the limit at its full pace.
const PARTS: u64 = 1024;

pub(super) struct Rate {
    store: Arc<dyn ValueStore>,
    clock: Clock,
    key: String,
    limit: u64,
    slices: Mutex<Slices>,
    /// One draws at a time; the name of a slice whose drawing had no answer, so that it is not drawn twice.
    turn: Turn<Option<String>>,
    lacking: Lacking,
}

#[derive(Default)]
struct Slices {
    current: Slice,
    /// By name: those that were let go while some of them was in somebody's hands.
    gone: HashMap<String, Gone>,
}

#[derive(Default)]
struct Slice {
    name: String,
    size: u64,
    left: u64,
    /// In somebody's hands, spent or not.
    out: u64,
    ends: UnixMillis,
}

struct Gone {
    /// What the store counts of it.
    counts: u64,
    out: u64,
    /// Of that, what came back and the store is still to hear of.
    back: u64,
}

/// A part of the limit that is this caller's to spend. What is not spent of it goes back when it is dropped.
pub(super) struct Allowance {
    rate: Arc<Rate>,
    slice: String,
    amount: u64,
    left: u64,
    ends: UnixMillis,
}

impl Rate {
    pub(super) fn new(store: Arc<dyn ValueStore>, clock: Clock, key: String, limit: u64) -> Arc<Rate> {
        let (slices, turn) = (Mutex::default(), Turn::new(None));
        Arc::new(Rate { store, clock, key, limit, slices, turn, lacking: Lacking::default() })
    }

    /// Whether the last look found less left than this.
    pub(super) fn lacks(&self, amount: u64) -> bool {
        self.lacking.lacks(amount)
    }

    /// Takes `amount`: out of this process's slice, or a new one.
    pub(super) async fn take(self: &Arc<Self>, amount: u64) -> Result<Allowance, Refused> {
        if let Some(taken) = self.take_own(amount) {
            return Ok(taken);
        }
        let rate = Arc::clone(self);
        // In a task of its own: what is drawn for a caller that went away is ours all the same.
        let drawing = tokio::spawn(async move {
            let mut turn = rate.turn.lock().await;
            match rate.take_own(amount) {
                Some(taken) => Ok(taken),
                None => rate.draw(amount, &mut turn).await,
            }
        });
        drawing.await.unwrap_or_else(|stopped| Err(Refused::Away(stopped.to_string())))
    }

    /// Gives a slice back that is too old to be spent from, and looks whether there is anything left by now of a
    /// limit that was spent.
    pub(super) async fn tend(self: &Arc<Self>) {
        let Ok(mut turn) = self.turn.try_lock() else { return };
        if let Some(lacking) = self.lacking.get() {
            drop(self.draw(lacking, &mut turn).await);
            return;
        }
        if self.slices.lock().current.ends <= self.clock.now_millis() {
            self.close().await;
        }
        self.bring_back().await;
    }

    /// Gives back what is not spent, at the end.
    pub(super) async fn give_back(&self) {
        let _turn = self.turn.lock().await;
        self.close().await;
        self.bring_back().await;
    }

    fn take_own(self: &Arc<Self>, amount: u64) -> Option<Allowance> {
        let (mut slices, now) = (self.slices.lock(), self.clock.now_millis());
        let slice = &mut slices.current;
        if slice.ends <= now {
            return None;
        }
        slice.left = slice.left.checked_sub(amount)?;
        slice.out = slice.out.saturating_add(amount);
        Some(self.allow(&slice.name, amount, now))
    }

    async fn draw(
        self: &Arc<Self>,
        amount: u64,
        unanswered: &mut Option<String>,
    ) -> Result<Allowance, Refused> {
        self.close().await;
        self.bring_back().await;
        let name = unanswered.get_or_insert_with(|| Uuid::new_v4().to_string()).clone();
        let wanted = amount.max(self.limit / PARTS);
        let draw = Draw { wanted, least: amount, limit: self.limit, ttl: USE + HOLD + HOUR };
        let began = self.clock.now_millis();
        let drawn = self.store.draw(SPACE, &self.key, &name, draw).await;
        let size = drawn.map_err(|away| Refused::Away(away.to_string()))?;
        *unanswered = None;
        let Some(left) = size.and_then(|size| size.checked_sub(amount)) else {
            self.lacking.lack(amount, self.limit);
            return Err(Refused::Spent);
        };
        let size = left + amount;
        self.lacking.found(size);
        let allowance = self.allow(&name, amount, began);
        self.slices.lock().current = Slice { name, size, left, out: amount, ends: began + millis(USE) };
        Ok(allowance)
    }

    fn allow(self: &Arc<Self>, slice: &str, amount: u64, now: UnixMillis) -> Allowance {
        let ends = now.saturating_add(millis(HOLD));
        Allowance { rate: Arc::clone(self), slice: slice.to_owned(), amount, left: amount, ends }
    }

    /// Lets the slice go: nothing is taken of it any more, and the store learns what was.
    async fn close(&self) {
        let Slice { name, size, left, .. } = {
            let mut slices = self.slices.lock();
            let slice = std::mem::take(&mut slices.current);
            if slice.out > 0 {
                let gone = Gone { counts: slice.size - slice.left, out: slice.out, back: 0 };
                slices.gone.insert(slice.name.clone(), gone);
            }
            slice
        };
        if left == 0 {
            return;
        }
        let spent = Draw { wanted: size - left, least: 0, limit: self.limit, ttl: HOLD + HOUR };
        if let Err(away) = self.store.draw(SPACE, &self.key, &name, spent).await {
            warn!(limit = self.key, %away, "a slice was not given back; it counts as spent for now");
        }
    }

    /// Tells the store what came back of slices that were let go before.
    async fn bring_back(&self) {
        let back: Vec<(String, u64, u64)> = {
            let slices = self.slices.lock();
            let back = slices.gone.iter().filter(|(_, gone)| gone.back > 0);
            back.map(|(name, gone)| (name.clone(), gone.counts.saturating_sub(gone.back), gone.back))
                .collect()
        };
        for (name, wanted, back) in back {
            let rest = Draw { wanted, least: 0, limit: self.limit, ttl: HOLD + HOUR };
            if let Err(away) = self.store.draw(SPACE, &self.key, &name, rest).await {
                warn!(limit = self.key, %away, "what was not spent counts as spent for now");
                return;
            }
            let mut slices = self.slices.lock();
            if let Some(gone) = slices.gone.get_mut(&name) {
                (gone.counts, gone.back) = (wanted, gone.back.saturating_sub(back));
            }
            slices.gone.retain(|_, gone| gone.is_needed());
        }
    }
}

impl Gone {
    fn is_needed(&self) -> bool {
        self.out > 0 || self.back > 0
    }
}

impl Allowance {
    /// Whether it may still be spent.
    pub(super) fn is_good(&self) -> bool {
        self.rate.clock.now_millis() < self.ends
    }

    /// So much of it is spent, for good. More than is left of it is all of it.
    pub(super) fn spend(&mut self, amount: u64) {
        self.left = self.left.saturating_sub(amount);
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        let mut slices = self.rate.slices.lock();
        let slice = &mut slices.current;
        if slice.name == self.slice {
            slice.left = slice.left.saturating_add(self.left).min(slice.size);
            slice.out = slice.out.saturating_sub(self.amount);
            return;
        }
        // A slice that was given back meanwhile was given back as if this had been spent.
        if let Some(gone) = slices.gone.get_mut(&self.slice) {
            gone.back = gone.back.saturating_add(self.left);
            gone.out = gone.out.saturating_sub(self.amount);
            if !gone.is_needed() {
                slices.gone.remove(&self.slice);
            }
        }
    }
}
