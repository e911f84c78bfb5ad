//! INT and TERM, which end the demo: heard in one place, so that the walk stops before the gateway does and does not
//! take its end for a failure.

use std::io;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::proxy::Stop;

/// Those that came, and those to come.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    draining: bool,
}

impl Signals {
    /// From now on none of them kills the process.
    pub(super) fn listen(runtime: &Runtime) -> io::Result<Signals> {
        let _inside = runtime.enter();
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            draining: false,
        })
    }

    /// Waits for the next, and ends the gateway by it: TERM drains, INT and a second TERM cut.
    pub(super) async fn pass_on(&mut self, stop: &Stop) {
        tokio::select! {
            _ = self.term.recv() => {
                if self.draining { stop.now() } else { stop.drain() }
                self.draining = true;
            }
            _ = self.int.recv() => stop.now(),
        }
    }

    /// Passes on all that come.
    pub(super) async fn pass_all_on(mut self, stop: Stop) {
        loop {
            self.pass_on(&stop).await;
        }
    }
}
