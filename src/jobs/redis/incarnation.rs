//! Which run of which server the jobs are in, and what is not asked of it while it may have forgotten something.
//!
//! A server that came back, or another that took its place, may not know what was acknowledged last: up to a second or two. Whoever
//! has jobs in hand writes them again, in every gateway at the same time. Until that is done, what is not there proves
//! nothing: no payment is claimed, no job is taken over, and none is looked up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::jobs::store::StoreError;

/// How long the others have to find out, and to write what they know.
pub(super) const SETTLES: Duration = Duration::from_secs(2);

/// What is known of the server.
#[derive(Default)]
pub(super) struct Incarnation {
    /// What it calls this run of itself, or that it does not say; `None` before the first connection.
    run: Mutex<Option<Option<String>>>,
    /// How many runs were seen before this one.
    number: AtomicU64,
    /// Whether what it may have forgotten is still being written.
    closed: AtomicBool,
    /// A connection broke since the last was made.
    broke: AtomicBool,
}

/// What a new connection has to do with those before it.
pub(super) struct Met {
    /// The number of its run, if that is known.
    pub(super) number: Option<u64>,
    /// The number of a run that was not seen before: somebody must see to it.
    pub(super) another: Option<u64>,
}

impl Incarnation {
    /// A connection was made, to this run. To be told before it is used.
    pub(super) fn meets(&self, run: Option<String>) -> Met {
        let mut last = self.run.lock();
        let broke = self.broke.swap(false, Ordering::AcqRel);
        let another = match (&*last, &run) {
            (None, _) => false,
            (Some(Some(known)), Some(found)) => known != found,
            // It does not say. A connection may have broken because it ended.
            (Some(None), None) => broke,
            (Some(_), _) => true,
        };
        if another {
            self.closed.store(true, Ordering::SeqCst);
            self.number.fetch_add(1, Ordering::SeqCst);
        }
        let number = self.number.load(Ordering::SeqCst);
        let known = run.is_some();
        *last = Some(run);
        Met { number: known.then_some(number), another: another.then_some(number) }
    }

    /// A connection is of no use any more.
    pub(super) fn lost(&self) {
        self.broke.store(true, Ordering::Release);
    }

    /// Whether a connection to the run of this number is one to the server that counts.
    pub(super) fn is(&self, number: Option<u64>) -> bool {
        number.is_none_or(|number| self.is_at(number))
    }

    pub(super) fn is_at(&self, number: u64) -> bool {
        self.number.load(Ordering::SeqCst) == number
    }

    /// What the run of this number had forgotten is written.
    pub(super) fn whole(&self, number: u64) {
        // None is met meanwhile.
        let _last = self.run.lock();
        if self.is_at(number) {
            self.closed.store(false, Ordering::SeqCst);
        }
    }

    /// Whether what is there may be believed.
    pub(super) fn believed(&self) -> Result<(), StoreError> {
        match self.closed.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(StoreError::Away(
                "Redis is another run than before, or another server; what it may have forgotten is being written"
                    .into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn another_run_is_believed_once_it_is_whole() {
        let seen = Incarnation::default();
        let first = seen.meets(run("a"));
        assert!(
            first.another.is_none() && seen.believed().is_ok(),
            "there is nothing it could have forgotten"
        );
        seen.lost();
        assert!(seen.meets(run("a")).another.is_none(), "only the connection broke");
        let second = seen.meets(run("b"));
        assert!(seen.believed().is_err() && !seen.is(first.number) && seen.is(second.number));
        let third = seen.meets(run("a"));
        seen.whole(second.another.unwrap());
        assert!(seen.believed().is_err(), "it is the one before that is whole");
        seen.whole(third.another.unwrap());
        assert!(seen.believed().is_ok());
    }

    #[test]
    fn of_one_that_does_not_say_every_connection_that_broke_counts() {
        let seen = Incarnation::default();
        let first = seen.meets(None);
        // Of another runtime.
        assert!(seen.meets(None).another.is_none());
        seen.lost();
        let again = seen.meets(None);
        assert!(again.another.is_some() && seen.believed().is_err());
        assert!(seen.is(first.number), "those of the others are not broken");
        assert!(seen.meets(run("a")).another.is_some());
    }
}
