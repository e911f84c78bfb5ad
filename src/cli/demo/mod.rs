//! `galaksio demo`: the gateway and the sandbox in one process, and a walk through what is sold.

mod stage;

use super::{Demo, Exit};
use crate::proxy::Stop;
use stage::Stage;

pub(super) fn run(arguments: Demo) -> Exit {
    match play(arguments) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("galaksio: {error:#}");
            Exit::Failed
        }
    }
}

fn play(arguments: Demo) -> anyhow::Result<()> {
    let mut key = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut key)
        .map_err(|_| anyhow::anyhow!("no random numbers for a wallet key"))?;
    let stage = Stage::set(arguments.listen, &hex::encode(key), Stop::on_signals())?;
    eprintln!("serving on http://{}", stage.address);
    stage.strike();
    Ok(())
}
