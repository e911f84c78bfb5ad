//! What the last look at a limit found missing: the edge asks this before it sells, without asking the store.

use std::sync::atomic::{AtomicU64, Ordering};

/// The smallest amount that was refused since enough was there; 0 for none.
#[derive(Default)]
pub(super) struct Lacking(AtomicU64);

impl Lacking {
    /// Whether this much, or less, was refused.
    pub(super) fn lacks(&self, amount: u64) -> bool {
        self.get().is_some_and(|lacking| amount >= lacking)
    }

    pub(super) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|lacking| *lacking > 0)
    }

    /// This much was refused. What is over the whole limit says nothing about smaller sums, and would be lacking for ever.
    pub(super) fn lack(&self, amount: u64, limit: u64) {
        if amount <= limit {
            let least = self.get().map_or(amount, |lacking| lacking.min(amount));
            self.0.store(least.max(1), Ordering::Relaxed);
        }
    }

    /// This much was there.
    pub(super) fn found(&self, amount: u64) {
        if self.get().is_some_and(|lacking| amount >= lacking) {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}
