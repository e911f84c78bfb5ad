//! How much of a paid body has arrived, for those who watch its job before there is one.
//!
//! Known on the gateway that takes the body, for payments that name their job: those by version 2.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Inner;
use super::kept::IN_MEMORY;
use super::request::Asked;
use super::source::Source;
use crate::gate::Admission;
use crate::ids::JobId;

/// The bodies that are arriving, by the job they are for.
#[derive(Clone, Debug, Default)]
pub(super) struct Uploads(Arc<Mutex<HashMap<JobId, Progress>>>);

/// How far one is.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    received: Arc<AtomicU64>,
    /// As declared.
    pub(super) size: u64,
}

/// A body that is seen until this is dropped.
#[derive(Debug)]
pub(super) struct Upload {
    uploads: Uploads,
    job: JobId,
    received: Arc<AtomicU64>,
}

impl Uploads {
    /// The body of this job arrives, and is counted in [`Upload::received`].
    pub(super) fn begin(&self, job: JobId, size: u64) -> Upload {
        let received = Arc::<AtomicU64>::default();
        self.0.lock().insert(job, Progress { received: Arc::clone(&received), size });
        Upload { uploads: self.clone(), job, received }
    }

    /// How far the body of this job is, if it is one of those.
    pub(super) fn of(&self, job: JobId) -> Option<Progress> {
        self.0.lock().get(&job).cloned()
    }
}

impl Progress {
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Upload {
    pub(super) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut uploads = self.uploads.0.lock();
        // The same payment may have been sent twice at once; then the later one is seen.
        if uploads.get(&self.job).is_some_and(|shown| Arc::ptr_eq(&shown.received, &self.received)) {
            uploads.remove(&self.job);
        }
    }
}

impl Inner {
    /// Lets others see how much of the body has arrived, if it takes long enough to be of interest. The payment is good.
    pub(super) fn show_progress(&self, asked: &mut Asked, admission: &Admission) {
        let Some(job) = admission.job else { return };
        let declared = asked.body.as_ref().and_then(Source::declared).unwrap_or(u64::MAX);
        let size = asked.size().min(declared);
        if asked.is_taken() || size <= IN_MEMORY {
            return;
        }
        let upload = self.uploads.begin(job, size);
        if let Some(source) = &mut asked.body {
            source.show(upload.received());
            asked.upload = Some(Box::new(upload));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_is_seen_and_neither_for_ever() {
        let (uploads, job) = (Uploads::default(), JobId::new());
        let first = uploads.begin(job, 10);
        let second = uploads.begin(job, 20);
        second.received().store(7, Ordering::Relaxed);
        drop(first);
        let seen = uploads.of(job).map(|progress| (progress.received(), progress.size));
        assert_eq!(seen, Some((7, 20)));
        drop(second);
        assert!(uploads.of(job).is_none());
    }
}
