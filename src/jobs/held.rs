//! What the holder of a lease knows of its job: all that a store was given of it and acknowledged, for one that may forget.
//!
//! It is as old as the lease, and is carried by it. Of a job that was taken over it has what was there then.

use std::fmt;

use parking_lot::Mutex;

use super::job::Job;
use super::{ClaimKey, State};
use crate::clock::UnixMillis;
use crate::ids::JobId;

/// A job, as its holder knows it.
pub(super) struct Held {
    pub(super) claim: ClaimKey,
    pub(super) id: JobId,
    /// Tells this lease from every other, also from one of the same epoch that a store gave when it had forgotten this.
    pub(super) owner: String,
    pub(super) epoch: u64,
    /// What never changes of it, as it is kept.
    pub(super) fixed: Vec<u8>,
    known: Mutex<Known>,
}

/// The rest of it.
pub(super) struct Known {
    pub(super) at: Place,
    pub(super) record: Vec<u8>,
    pub(super) answer: Option<Vec<u8>>,
    /// The journal lines of all versions, oldest first.
    pub(super) lines: Vec<Vec<u8>>,
    /// How long the lease was to last, by the last that was said of it, in ms; 0 once it was ended.
    pub(super) lease: u64,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) version: u64,
    pub(super) schema: u16,
    pub(super) state: State,
    pub(super) keep_until: Option<UnixMillis>,
}

impl Known {
    /// Whether nothing is missing: what has a gap is never written anywhere.
    pub(super) fn is_whole(&self) -> bool {
        self.lines.len() as u64 == self.at.version
    }
}

impl Held {
    /// What `job` is by its claim, or as it was taken over.
    pub(super) fn new(job: &Job, owner: String, epoch: u64, fixed: Vec<u8>, known: Known) -> Self {
        Held { claim: job.claim.clone(), id: job.id, owner, epoch, fixed, known: Mutex::new(known) }
    }

    /// Whether nothing is written by this lease any more.
    pub(super) fn has_ended(&self) -> bool {
        self.known(|known| known.lease == 0)
    }

    /// As it was acknowledged last.
    pub(super) fn known<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.lock())
    }

    /// A later version was acknowledged, which these lines made. `answer`: a new one; `no_answer`: there is none any more.
    pub(super) fn wrote(
        &self,
        at: Place,
        record: Vec<u8>,
        answer: Option<Vec<u8>>,
        no_answer: bool,
        lines: Vec<Vec<u8>>,
    ) {
        let mut known = self.known.lock();
        if at.version <= known.at.version {
            // A repeat.
            return;
        }
        // What came in between and was never acknowledged leaves a gap for good.
        if known.at.version + lines.len() as u64 == at.version {
            known.lines.extend(lines);
        }
        (known.at, known.record) = (at, record);
        if answer.is_some() || no_answer {
            known.answer = answer;
        }
        if at.state.at_rest() {
            known.lease = 0;
        }
    }

    /// The lease lasts so many ms from now on; 0: it was ended, for good.
    pub(super) fn lasts(&self, lease: u64) {
        let mut known = self.known.lock();
        let ended = known.lease == 0;
        known.lease = if ended { 0 } else { lease };
    }

    /// How much memory it takes, about.
    pub(super) fn size(&self) -> usize {
        self.known(|known| {
            let lines: usize = known.lines.iter().map(Vec::len).sum();
            self.fixed.len() + known.record.len() + known.answer.as_ref().map_or(0, Vec::len) + lines
        })
    }
}

impl fmt::Debug for Held {
    /// Without the payment and the answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("id", &self.id).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Place {
    /// Where `job` stands, which is kept so long.
    pub(super) fn of(job: &Job, keep_until: Option<UnixMillis>) -> Self {
        Place { version: job.version, schema: job.schema, state: job.state, keep_until }
    }
}
