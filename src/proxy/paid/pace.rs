//! How slowly content may come in. Whoever sends a byte now and then holds what others need, for as long as he likes.
//!
//! Only the time counts that was spent waiting for the sender, not that in which nobody took what he sent. There is no
//! timer: that nothing comes at all is found by whoever reads the connection.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

/// The slowest that content may come in over all that came so far, in bytes a second, after its patience.
pub(super) const SLOWEST: u64 = 16 * 1024;

/// One sender's.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) patience: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(patience: Duration) -> Self {
        Pace { patience, waited: Duration::ZERO, bytes: 0 }
    }

    /// Waits for `more`, and counts for how long. What is here already needs no clock.
    pub(super) async fn wait<T>(&mut self, more: impl Future<Output = T>) -> T {
        let mut more = pin!(more);
        let mut since = None;
        let came = poll_fn(|cx| {
            let polled = more.as_mut().poll(cx);
            if polled.is_pending() && since.is_none() {
                since = Some(Instant::now());
            }
            polled
        })
        .await;
        if let Some(since) = since {
            self.waited += since.elapsed();
        }
        came
    }

    /// Whether it is fast enough, now that so many bytes more have come.
    pub(super) fn is_kept(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waited <= longest(self.patience, self.bytes)
    }
}

/// How long so many bytes may take.
pub(super) fn longest(patience: Duration, bytes: u64) -> Duration {
    patience.saturating_add(Duration::from_secs(bytes / SLOWEST))
}
