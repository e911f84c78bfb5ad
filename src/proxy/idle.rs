//! A deadline on "nothing moved": armed only once there is something to wait for, and not touched
//! while things move.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Expires when it was waited on for `timeout` without [`Idle::moved`].
pub(super) struct Idle {
    timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When something last moved, if the sleep has not been told yet.
    moved: Option<Instant>,
}

impl Idle {
    pub(super) fn new(timeout: Duration) -> Self {
        Idle { timeout, sleep: None, moved: None }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Something moved. Free while the timer was never needed.
    pub(super) fn moved(&mut self) {
        if self.sleep.is_some() {
            self.moved = Some(Instant::now());
        }
    }

    /// To be called whenever nothing moves; ready when that has lasted too long.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.timeout)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            match self.moved.take() {
                Some(moved) => sleep.as_mut().reset(moved + self.timeout),
                None => return Poll::Ready(()),
            }
        }
    }
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn movement_puts_it_off() {
        let timeout = Duration::from_millis(40);
        let mut idle = Idle::new(timeout);
        assert!(poll_fn(|cx| Poll::Ready(idle.poll_expired(cx).is_pending())).await);
        tokio::time::sleep(timeout / 2).await;
        idle.moved();
        let moved = Instant::now();
        poll_fn(|cx| idle.poll_expired(cx)).await;
        assert!(moved.elapsed() >= timeout);
    }
}
