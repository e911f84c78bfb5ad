//! `galaksio demo`: the gateway and the sandbox in one process, and a walk through what is sold.
//!
//! The walk is a client like any other: it speaks HTTP to the gateway's port, and learns from the sandbox's ledger only
//! what anybody can read on a chain.

mod books;
mod buyer;
mod invitation;
mod screen;
mod stage;
mod walk;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use self::screen::Screen;
use self::stage::Stage;
use super::{Demo, Exit};

pub(super) fn run(arguments: Demo) -> Exit {
    match play(arguments) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("galaksio: {error:#}");
            Exit::Failed
        }
    }
}

fn play(arguments: Demo) -> anyhow::Result<Exit> {
    let stage = Stage::set(arguments.listen)?;
    if arguments.quiet {
        eprintln!("serving on http://{}", stage.address);
        stage.strike();
        return Ok(Exit::Ok);
    }
    let screen = Screen::default();
    let walked = stage.runtime.block_on(unless_told_to_end(walk::walk(&stage, &screen)))?;
    let all_held = match walked {
        // The gateway has heard the same signal.
        None => {
            stage.strike();
            return Ok(Exit::Ok);
        }
        Some(Ok(())) => screen.conclude(),
        Some(Err(error)) => {
            screen.failed(&format!("{error:#}"));
            screen.conclude()
        }
    };
    if arguments.once {
        stage.stop.now();
        stage.strike();
        return Ok(if all_held { Exit::Ok } else { Exit::Failed });
    }
    invitation::print(&stage, &screen)?;
    stage.strike();
    Ok(Exit::Ok)
}

/// Does `work`, unless a signal ends the process first: that is no failure of the work.
async fn unless_told_to_end<T>(work: impl Future<Output = T>) -> anyhow::Result<Option<T>> {
    let mut term = signal(SignalKind::terminate()).context("signals")?;
    let mut int = signal(SignalKind::interrupt()).context("signals")?;
    Ok(tokio::select! {
        // Whoever is told later, the gateway or this, a failure after the signal is its consequence.
        biased;
        _ = term.recv() => None,
        _ = int.recv() => None,
        done = work => Some(done),
    })
}
