//! How the process is told to end, and how it does: our own answer to pingora's question for a signal.
//!
//! pingora's own way sleeps a fixed grace period and then cuts what is left. Ours stops accepting, waits
//! until nothing is open any more, and only then lets pingora end its runtimes at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::drain::Drain;

/// Ends a running server. Clones end the same one.
#[derive(Clone, Debug)]
pub struct Stop {
    wanted: watch::Sender<Wanted>,
    hand_over: Arc<Notify>,
    signals: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Running,
    Drained,
    Now,
}

impl Stop {
    /// For a server inside another program: ends when told so by this handle.
    pub fn embedded() -> Self {
        Stop { wanted: watch::Sender::new(Wanted::Running), hand_over: Arc::default(), signals: false }
    }

    /// For a program of its own: ends on signals, too. TERM drains, INT ends at once, as does a second TERM;
    /// QUIT hands the listeners to the process that waits for them, then drains.
    pub fn on_signals() -> Self {
        Stop { signals: true, ..Stop::embedded() }
    }

    /// Stops accepting, and ends when all is finished or the deadlines have passed.
    pub fn drain(&self) {
        self.want(Wanted::Drained);
    }

    /// Ends at once.
    pub fn now(&self) {
        self.want(Wanted::Now);
    }

    /// Hands the listeners to the process that waits for them, then drains; serves on if there is none.
    pub fn hand_over(&self) {
        self.hand_over.notify_one();
    }

    fn want(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|current| {
            let later = *current < wanted;
            *current = wanted.max(*current);
            later
        });
    }

    async fn wait(&self, wanted: Wanted) -> Wanted {
        let mut changes = self.wanted.subscribe();
        match changes.wait_for(|current| *current >= wanted).await {
            Ok(current) => *current,
            // The sender lives in `self`.
            Err(_) => Wanted::Now,
        }
    }
}

/// What pingora asks when to end.
pub(super) struct Watch {
    pub(super) stop: Stop,
    pub(super) drain: Drain,
    /// Ends the accept loops.
    pub(super) accepting: watch::Sender<bool>,
    /// The listening sockets.
    pub(super) sockets: ListenFds,
    pub(super) upgrade_socket: Option<PathBuf>,
    pub(super) drain_timeout: Duration,
    pub(super) tunnel_drain_timeout: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = self.stop.signals.then(Signals::new).unwrap_or_default();
        let wanted = loop {
            tokio::select! {
                wanted = self.stop.wait(Wanted::Drained) => break wanted,
                () = self.stop.hand_over.notified() => if self.hand_over().await { break Wanted::Drained },
                caught = signals.next() => match caught {
                    Caught::Term => break Wanted::Drained,
                    Caught::Int => break Wanted::Now,
                    Caught::Quit => if self.hand_over().await { break Wanted::Drained },
                },
            }
        };
        self.drain.start();
        self.accepting.send_replace(true);
        if wanted == Wanted::Drained {
            tracing::info!("draining");
            tokio::select! {
                clean = self.drain.finished(self.drain_timeout, self.tunnel_drain_timeout) => {
                    if clean { tracing::info!("drained") } else { tracing::warn!("drain timeout: cutting what is left") }
                }
                _ = self.stop.wait(Wanted::Now) => {}
                () = signals.impatient() => {}
            }
        }
        ShutdownSignal::FastShutdown
    }
}

impl Watch {
    /// Sends the listening sockets to the process that waits for them. Both accept until this one stops, so
    /// no connection is lost; if nobody takes them, this process goes on.
    async fn hand_over(&self) -> bool {
        let Some(path) = self.upgrade_socket.as_ref().and_then(|path| path.to_str()).map(str::to_owned)
        else {
            tracing::error!("QUIT: no upgrade_socket is configured; still serving");
            return false;
        };
        let sockets = self.sockets.clone();
        // Waits for the other process, so not on this thread.
        let sent = tokio::task::spawn_blocking(move || {
            sockets.lock().send_to_sock(path.as_str()).map_err(|error| error.to_string())
        });
        match sent.await {
            Ok(Ok(_)) => {
                tracing::info!("the listeners are handed over");
                true
            }
            Ok(Err(error)) => {
                tracing::error!(error, "QUIT: nobody took the listeners; still serving");
                false
            }
            Err(_) => false,
        }
    }
}

enum Caught {
    Term,
    Int,
    Quit,
}

/// The signals listened to; none of them if the server is embedded.
#[derive(Default)]
struct Signals {
    term: Option<Signal>,
    int: Option<Signal>,
    quit: Option<Signal>,
}

impl Signals {
    fn new() -> Self {
        let listen = |kind| {
            signal(kind).inspect_err(|error| tracing::error!(%error, "cannot listen to a signal")).ok()
        };
        Signals {
            term: listen(SignalKind::terminate()),
            int: listen(SignalKind::interrupt()),
            quit: listen(SignalKind::quit()),
        }
    }

    async fn next(&mut self) -> Caught {
        tokio::select! {
            () = caught(&mut self.term) => Caught::Term,
            () = caught(&mut self.int) => Caught::Int,
            () = caught(&mut self.quit) => Caught::Quit,
        }
    }

    /// A second TERM, or INT, while draining.
    async fn impatient(&mut self) {
        while let Caught::Quit = self.next().await {}
    }
}

async fn caught(signal: &mut Option<Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}
