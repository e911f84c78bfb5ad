//! `galaksio demo`: the gateway and the sandbox in one process, and a walk through what is sold.
//!
//! The walk is a client like any other: it speaks HTTP to the gateway's port, and learns from the sandbox's ledger only
//! what anybody can read on a chain.

mod books;
mod buyer;
mod invitation;
mod screen;
mod signals;
mod stage;
#[cfg(test)]
mod tests;
mod walk;

use self::screen::Screen;
use self::signals::Signals;
use self::stage::Stage;
use super::{Demo, Exit};
use crate::telemetry;

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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut signals = Signals::listen(&runtime)?;
    let stage = Stage::set(&runtime, arguments.listen)?;
    let mut exit = Exit::Ok;
    if arguments.quiet {
        eprintln!("serving on http://{}", stage.address);
    } else {
        telemetry::init_logging(&stage.config.log)?;
        let screen = Screen::stdout();
        let walked = runtime.block_on(async {
            tokio::select! {
                biased;
                () = signals.pass_on(&stage.stop) => None,
                walked = walk::walk(&stage, &screen) => Some(walked),
            }
        });
        let Some(walked) = walked else {
            stage.strike(&runtime);
            return Ok(Exit::Ok);
        };
        if let Err(error) = walked {
            screen.failed(&format!("{error:#}"));
        }
        let all_held = screen.conclude();
        if arguments.once {
            stage.stop.now();
            exit = if all_held { Exit::Ok } else { Exit::Failed };
        } else {
            invitation::print(&stage, &screen)?;
        }
    }
    runtime.spawn(signals.pass_all_on(stage.stop.clone()));
    stage.strike(&runtime);
    Ok(exit)
}
