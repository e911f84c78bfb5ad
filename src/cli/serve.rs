//! `galaksio serve`: the gateway by a configuration file.

use std::path::Path;

use super::Exit;
use crate::app::App;
use crate::config;
use crate::proxy::Stop;
use crate::telemetry;

pub(super) fn run(path: &Path, upgrade: bool) -> Exit {
    let loaded = match config::load(path, &config::process_environment()) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Config;
        }
    };
    for (variable, setting) in &loaded.overrides {
        eprintln!("galaksio: {setting} is from the environment variable {variable}");
    }
    for warning in &loaded.warnings {
        eprintln!("galaksio: warning: {warning}");
    }
    if let Err(error) = telemetry::init_logging(&loaded.config.log) {
        eprintln!("galaksio: {error}");
        return Exit::Config;
    }
    match App::build(&loaded.config, upgrade) {
        Ok(app) => {
            for address in app.addresses() {
                tracing::info!(%address, "serving");
            }
            if let Some(address) = app.admin() {
                tracing::info!(%address, "health and metrics");
            }
            app.run(Stop::on_signals());
            Exit::Ok
        }
        Err(error) => {
            eprintln!("galaksio: {error}");
            Exit::Failed
        }
    }
}
