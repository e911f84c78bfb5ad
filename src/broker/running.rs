//! The jobs that this process has in hand, written down or not.
//!
//! While the store is away a job goes on from memory, and its lease may end. When the store is back, its record says
//! less than what happened: this process must not take it for an orphan.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::jobs::ClaimKey;

/// Counts the journals that are open, by claim.
#[derive(Clone, Debug, Default)]
pub(super) struct Running(Arc<Mutex<HashMap<ClaimKey, usize>>>);

/// One journal; counted until dropped.
#[derive(Debug)]
pub(super) struct Entered {
    claim: ClaimKey,
    running: Running,
}

impl Running {
    pub(super) fn enter(&self, claim: ClaimKey) -> Entered {
        *self.0.lock().entry(claim.clone()).or_default() += 1;
        Entered { claim, running: self.clone() }
    }

    pub(super) fn has(&self, claim: &ClaimKey) -> bool {
        self.0.lock().contains_key(claim)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut running = self.running.0.lock();
        if let Some(count) = running.get_mut(&self.claim) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.claim);
            }
        }
    }
}
