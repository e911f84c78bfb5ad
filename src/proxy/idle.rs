//! A deadline on "nothing moved": armed only once there is something to wait for, and not touched
//! while things move.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
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

/// Deadlines of one length for one use after the other. To arm and to disarm one costs each request two turns at the lock
/// of the runtime's timers; one that was armed by an earlier request is only told that something moved.
#[derive(Debug)]
pub(super) struct Timers {
    timeout: Duration,
    max_kept: usize,
    kept: Mutex<Vec<Idle>>,
}

/// A deadline in use; it goes back when dropped.
pub(super) struct Timer<'a> {
    timers: &'a Timers,
    idle: Idle,
}

impl Timers {
    /// Keeps at most `max_kept` for later.
    pub(super) fn new(timeout: Duration, max_kept: usize) -> Self {
        Timers { timeout, max_kept, kept: Mutex::default() }
    }

    /// A deadline that begins now, or rather when it is first waited on.
    pub(super) fn start(&self) -> Timer<'_> {
        let mut idle = self.kept.lock().pop().unwrap_or_else(|| Idle::new(self.timeout));
        idle.moved();
        Timer { timers: self, idle }
    }
}

impl Deref for Timer<'_> {
    type Target = Idle;

    fn deref(&self) -> &Idle {
        &self.idle
    }
}

impl DerefMut for Timer<'_> {
    fn deref_mut(&mut self) -> &mut Idle {
        &mut self.idle
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let mut kept = self.timers.kept.lock();
        if kept.len() < self.timers.max_kept {
            kept.push(std::mem::replace(&mut self.idle, Idle::new(self.timers.timeout)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn a_kept_timer_starts_anew() {
        let timers = Timers::new(Duration::from_millis(40), 1);
        let mut first = timers.start();
        poll_fn(|cx| first.poll_expired(cx)).await;
        drop(first);
        assert_eq!(timers.kept.lock().len(), 1);
        let again = Instant::now();
        let mut second = timers.start();
        assert!(timers.kept.lock().is_empty());
        poll_fn(|cx| second.poll_expired(cx)).await;
        assert!(again.elapsed() >= Duration::from_millis(40));
    }

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
