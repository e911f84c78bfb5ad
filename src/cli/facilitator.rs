//! `galaksio facilitator`: the configuration's own facilitator, served to others.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Settle};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::facilitator::local::{self, Callers, LocalFacilitator};
use crate::listener::Listener;
use crate::telemetry;

pub(super) fn run(arguments: &Settle) -> Exit {
    let loaded = match config::load(&arguments.file.config, &config::process_environment()) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Config;
        }
    };
    for warning in &loaded.warnings {
        eprintln!("galaksio: warning: {warning}");
    }
    if let Err(error) = telemetry::init_logging(&loaded.config.log) {
        eprintln!("galaksio: {error}");
        return Exit::Config;
    }
    let served = runtime().map_err(anyhow::Error::from).and_then(|runtime| {
        let served = runtime.block_on(serve(&loaded.config, arguments));
        // What was sent is on its way whether anybody waits for it or not.
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("galaksio: {error:#}");
            Exit::Failed
        }
    }
}

/// Everything that would keep the configuration's own facilitator from settling.
pub(super) fn problems(config: &Config) -> anyhow::Result<Vec<String>> {
    let runtime = runtime()?;
    runtime.block_on(async { Ok(LocalFacilitator::new(config, Clock::system())?.problems().await) })
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_name("galaksio-settle").build()
}

async fn serve(config: &Config, arguments: &Settle) -> anyhow::Result<()> {
    let facilitator = Arc::new(LocalFacilitator::new(config, Clock::system())?);
    let problems = facilitator.problems().await;
    if !problems.is_empty() {
        anyhow::bail!("payments could not be settled:\n  {}", problems.join("\n  "));
    }
    let listener = Listener::bind(arguments.listen)?;
    let address = listener.address();
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever reaches this address can spend the gas account's gas");
    }
    for lane in facilitator.status() {
        let (account, wei) = (lane.account.to_checksum(None), lane.gas);
        tracing::info!(network = %lane.network, account, %wei, "settling");
    }
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    // To whoever started it on port 0, too.
    println!("facilitator on http://{address}");
    // A settlement that is being waited for ends, or is answered as pending, within its own time-out.
    let callers = if arguments.repeat_success { Callers::TakeOnce } else { Callers::MayRepeat };
    let grace = config.facilitator.settle_timeout + Duration::from_secs(1);
    local::serve(listener, facilitator, callers, stop, grace).await?;
    Ok(())
}
