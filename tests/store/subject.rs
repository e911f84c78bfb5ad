//! A store under test, its clock, and what has to outlive it.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use galaksio::clock::{Clock, UnixMillis};
use galaksio::jobs::JobStore;

/// How long the stores under test keep finished jobs.
pub(crate) const RETENTION: Duration = Duration::from_secs(5);

/// A lease that does not end during a test.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// A lease that does, with [`Subject::pass`].
pub(crate) const SHORT: Duration = Duration::from_millis(150);

/// The same where something is done before it ends, which takes a while on a machine that is busy.
pub(crate) const BRIEF: Duration = Duration::from_secs(3);

pub(crate) struct Subject {
    pub(crate) store: Arc<dyn JobStore>,
    /// Another client of the same store where there can be one, else the same.
    pub(crate) other: Arc<dyn JobStore>,
    /// The store's clock: a manual one, or the machine's if the store has its own.
    pub(crate) clock: Clock,
    pub(crate) manual: bool,
    /// Directories and servers, ended with the subject.
    pub(crate) _keep: Box<dyn Any + Send + Sync>,
}

impl Subject {
    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now_millis()
    }

    /// How long something lasts that has to be there for some calls, and then to end.
    pub(crate) fn brief(&self) -> Duration {
        if self.manual { SHORT } else { BRIEF }
    }

    /// Lets `time` pass by the store's clock, and a little more.
    pub(crate) async fn pass(&self, time: Duration) {
        let time = time + Duration::from_millis(20);
        if self.manual {
            self.clock.advance(u64::try_from(time.as_millis()).unwrap());
        } else {
            // Redis has no clock but the machine's.
            tokio::time::sleep(time).await;
        }
    }

    /// Either client, by turns.
    pub(crate) fn client(&self, n: usize) -> Arc<dyn JobStore> {
        Arc::clone(if n.is_multiple_of(2) { &self.store } else { &self.other })
    }
}
