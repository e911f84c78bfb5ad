//! `galaksio serve`: the gateway by a configuration file.

use std::path::Path;

use super::Exit;
use crate::config;

pub(super) fn run(path: &Path) -> Exit {
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
    eprintln!("galaksio: serving is not wired in this build");
    Exit::Failed
}
