//! The deadlines of a client connection, and the counting of what moves on it.
//!
//! One timer per connection, armed for the shortest deadline and not touched by requests: when it fires it
//! looks at what the connection has noted since, and closes it or sleeps on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

/// How long a connection may stay in a state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From a head's first byte to its last.
    pub(super) header: Duration,
    /// Without a request.
    pub(super) idle: Duration,
    /// With bytes to send that the client does not read.
    pub(super) write: Duration,
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    Idle,
    Header,
    Write,
}

/// What a connection is doing, noted by whoever sees it. Times are milliseconds since `start`; 0 is "not".
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    requests: AtomicU32,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    /// HTTP/2 frames of an idle connection are not the start of a head.
    multiplexed: AtomicBool,
}

/// `head_since` of a head that has begun, of which nobody looked up when.
const JUST_NOW: u64 = u64::MAX;

impl Activity {
    pub(super) fn new() -> Self {
        Activity {
            start: Instant::now(),
            requests: AtomicU32::new(0),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
        }
    }

    pub(super) fn request_begins(&self, multiplexed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        if multiplexed {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn request_ends(&self, now: Instant) {
        self.idle_since.store(self.millis(now), Ordering::Relaxed);
        self.requests.fetch_sub(1, Ordering::Release);
    }

    /// Bytes came. Mostly they are a whole head, so the clock is left alone until it turns out that they are not.
    fn read(&self) {
        if self.requests.load(Ordering::Acquire) == 0
            && !self.multiplexed.load(Ordering::Relaxed)
            && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(JUST_NOW, Ordering::Relaxed);
        }
    }

    /// More bytes are waited for.
    fn starved(&self) {
        if self.head_since.load(Ordering::Relaxed) == JUST_NOW {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn wrote(&self, pending: bool) {
        let blocked = self.blocked_since.load(Ordering::Relaxed) != 0;
        if pending != blocked {
            self.blocked_since.store(if pending { self.now() } else { 0 }, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        self.millis(Instant::now())
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// How long until the next deadline of what is going on, and which; `None`: nothing is being waited for.
    fn next(&self, limits: &Limits) -> Option<(Duration, Expired)> {
        self.starved();
        let now = self.now();
        let left = |since: u64, limit: Duration| {
            limit.saturating_sub(Duration::from_millis(now.saturating_sub(since)))
        };
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 {
            return Some((left(blocked, limits.write), Expired::Write));
        }
        if self.requests.load(Ordering::Acquire) > 0 {
            return None;
        }
        let head = self.head_since.load(Ordering::Relaxed);
        if head != 0 {
            return Some((left(head, limits.header), Expired::Header));
        }
        Some((left(self.idle_since.load(Ordering::Relaxed), limits.idle), Expired::Idle))
    }

    /// Returns when a deadline has passed. Deadlines that begin while it sleeps are seen in time, because it
    /// never sleeps longer than the shortest of them.
    pub(super) async fn expired(&self, limits: &Limits) -> Expired {
        let period = limits.header.min(limits.idle).min(limits.write);
        loop {
            match self.next(limits) {
                Some((Duration::ZERO, expired)) => return expired,
                Some((left, _)) => sleep(left.min(period).max(Duration::from_millis(1))).await,
                None => sleep(period).await,
            }
        }
    }
}

/// A connection that notes what moves on it.
#[derive(Debug)]
pub(super) struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, activity: Arc<Activity>) -> Self {
        Watched { io, activity }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_pending() {
            self.activity.starved();
        } else if buf.filled().len() > before {
            self.activity.read();
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.activity.wrote(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.activity.wrote(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        header: Duration::from_millis(20),
        idle: Duration::from_secs(600),
        write: Duration::from_millis(30),
    };

    #[tokio::test]
    async fn a_head_that_has_begun_must_end() {
        let activity = Activity::new();
        activity.read();
        assert_eq!(activity.expired(&LIMITS).await, Expired::Header);
    }

    #[tokio::test]
    async fn a_request_may_take_its_time_unless_its_answer_is_not_read() {
        let activity = Activity::new();
        activity.read();
        activity.request_begins(false);
        let waiting = tokio::time::timeout(Duration::from_millis(80), activity.expired(&LIMITS)).await;
        assert!(waiting.is_err());
        activity.wrote(true);
        assert_eq!(activity.expired(&LIMITS).await, Expired::Write);
    }

    #[tokio::test]
    async fn frames_between_requests_are_no_head() {
        let activity = Activity::new();
        activity.request_begins(true);
        activity.request_ends(Instant::now());
        activity.read();
        let limits = Limits { idle: Duration::from_millis(5), ..LIMITS };
        assert_eq!(activity.expired(&limits).await, Expired::Idle);
    }
}
