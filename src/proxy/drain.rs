//! Draining: who is told that the process is ending, and what is waited for before it does.
//!
//! Counted are connections (each ends when its requests do), tunnels, and tasks: paid work goes on
//! after its client has gone, so it has no connection that could be waited for. Requests are not
//! counted, so the hot path does not share a counter between workers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Handle to the process's end. Clones share their state.
#[derive(Clone, Debug)]
pub struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: watch::Sender<bool>,
    /// The same, to be read without the lock of the other.
    flag: AtomicBool,
    counts: [Count; 3],
}

#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    changed: Notify,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client connection that speaks HTTP.
    Connection,
    /// An upgraded connection.
    Tunnel,
    /// Work that outlives its client.
    Task,
}

/// Counts as one of its kind until dropped.
#[derive(Debug)]
pub struct Hold {
    drain: Drain,
    kind: Kind,
}

impl Drain {
    /// Nothing is open, nothing is ending.
    pub fn new() -> Self {
        Drain(Arc::new(Inner {
            started: watch::Sender::new(false),
            flag: AtomicBool::new(false),
            counts: Default::default(),
        }))
    }

    /// Tells everybody to end. There is no way back.
    pub fn start(&self) {
        self.0.flag.store(true, Ordering::Release);
        self.0.started.send_replace(true);
    }

    /// Whether the end has begun: no new paid work, not ready.
    pub fn started(&self) -> bool {
        self.0.flag.load(Ordering::Acquire)
    }

    /// Returns when the end begins.
    pub async fn wait_started(&self) {
        let mut started = self.0.started.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = started.wait_for(|started| *started).await;
    }

    /// Counts as one of `kind` from now on.
    pub fn hold(&self, kind: Kind) -> Hold {
        self.count(kind).open.fetch_add(1, Ordering::Relaxed);
        Hold { drain: self.clone(), kind }
    }

    /// Spawns work that is waited for, whether or not anybody still listens for its result.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let hold = self.hold(Kind::Task);
        tokio::spawn(async move {
            let _hold = hold;
            work.await
        })
    }

    /// How many of `kind` there are.
    pub fn open(&self, kind: Kind) -> usize {
        self.count(kind).open.load(Ordering::Acquire)
    }

    /// Returns when fewer than `limit` of `kind` are left.
    pub async fn below(&self, kind: Kind, limit: usize) {
        let count = self.count(kind);
        loop {
            let changed = count.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if count.open.load(Ordering::Acquire) < limit {
                return;
            }
            changed.await;
        }
    }

    /// Returns when nothing is left, or when its time is up: `requests` for connections and tasks, `tunnels` for
    /// tunnels. Says whether nothing is left.
    pub async fn finished(&self, requests: Duration, tunnels: Duration) -> bool {
        let work = async {
            loop {
                self.below(Kind::Connection, 1).await;
                self.below(Kind::Task, 1).await;
                // A connection may have started a task while the tasks were waited for.
                if self.open(Kind::Connection) == 0 && self.open(Kind::Task) == 0 {
                    return;
                }
            }
        };
        let (work, tunnels) = tokio::join!(
            tokio::time::timeout(requests, work),
            tokio::time::timeout(tunnels, self.below(Kind::Tunnel, 1)),
        );
        work.is_ok() && tunnels.is_ok()
    }

    fn count(&self, kind: Kind) -> &Count {
        let [connections, tunnels, tasks] = &self.0.counts;
        match kind {
            Kind::Connection => connections,
            Kind::Tunnel => tunnels,
            Kind::Task => tasks,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let count = self.drain.count(self.kind);
        count.open.fetch_sub(1, Ordering::Release);
        count.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_tasks_whose_client_is_gone() {
        let drain = Drain::new();
        let connection = drain.hold(Kind::Connection);
        let (done, wait) = tokio::sync::oneshot::channel::<()>();
        drop(drain.spawn(wait));
        drop(connection);
        assert_eq!(drain.open(Kind::Task), 1);
        assert!(!drain.finished(Duration::from_millis(5), Duration::from_millis(5)).await);
        drop(done);
        assert!(drain.finished(Duration::from_secs(60), Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn tunnels_have_a_deadline_of_their_own() {
        let drain = Drain::new();
        let _tunnel = drain.hold(Kind::Tunnel);
        let before = tokio::time::Instant::now();
        assert!(!drain.finished(Duration::from_secs(600), Duration::from_millis(5)).await);
        assert!(before.elapsed() < Duration::from_secs(300));
    }

    #[tokio::test]
    async fn everybody_hears_of_the_start() {
        let drain = Drain::new();
        let other = drain.clone();
        let heard = tokio::spawn(async move { other.wait_started().await });
        drain.start();
        heard.await.unwrap();
        assert!(drain.started());
        drain.wait_started().await;
    }
}
