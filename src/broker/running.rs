//! The jobs that this process has in hand, written down or not.
//!
//! While the store is away a job goes on from memory, and its lease may end. When the store is back, its record says
//! less than what happened: this process must not take it for an orphan.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::jobs::{ClaimKey, Job};

/// The journals that are open, by claim.
#[derive(Clone, Debug, Default)]
pub(super) struct Running(Arc<Mutex<HashMap<ClaimKey, Open>>>);

#[derive(Debug, Default)]
struct Open {
    journals: usize,
    /// What the job came to, while that is being written.
    ended: Option<Arc<Job>>,
    /// Nobody writes any more, or all is written.
    closed: Arc<Notify>,
}

/// One journal; counted until dropped.
#[derive(Debug)]
pub(super) struct Entered {
    claim: ClaimKey,
    running: Running,
}

impl Running {
    pub(super) fn enter(&self, claim: ClaimKey) -> Entered {
        self.0.lock().entry(claim.clone()).or_default().journals += 1;
        Entered { claim, running: self.clone() }
    }

    pub(super) fn has(&self, claim: &ClaimKey) -> bool {
        self.0.lock().contains_key(claim)
    }

    /// What a job came to that is being written just now. The store may not know it yet.
    pub(super) fn ended(&self, claim: &ClaimKey) -> Option<Arc<Job>> {
        self.0.lock().get(claim)?.ended.clone()
    }

    /// Waits until what a job came to is written, if it came to something.
    pub(super) async fn written(&self, claim: &ClaimKey) {
        let closed = {
            let running = self.0.lock();
            let ended = running.get(claim).filter(|open| open.ended.is_some());
            // Made under the lock: what closes from here on is heard.
            ended.map(|open| Arc::clone(&open.closed).notified_owned())
        };
        if let Some(closed) = closed {
            closed.await;
        }
    }
}

impl Entered {
    /// The job has ended so, whatever the store says until that is written.
    pub(super) fn ended(&self, job: &Arc<Job>) {
        if let Some(open) = self.running.0.lock().get_mut(&self.claim) {
            open.ended = Some(Arc::clone(job));
        }
    }

    /// The store knows all that there is to know so far.
    pub(super) fn written(&self) {
        if let Some(open) = self.running.0.lock().get_mut(&self.claim) {
            open.ended = None;
            open.closed.notify_waiters();
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut running = self.running.0.lock();
        if let Some(open) = running.get_mut(&self.claim) {
            open.journals -= 1;
            if open.journals == 0
                && let Some(open) = running.remove(&self.claim)
            {
                open.closed.notify_waiters();
            }
        }
    }
}
