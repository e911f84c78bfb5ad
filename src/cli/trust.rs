//! `galaksio trust`: which of them are used, and taking one back that was dropped.

use std::path::Path;

use super::Exit;
use crate::app;
use crate::config;

pub(super) fn run(path: &Path, again: Option<&str>) -> Exit {
    let config = match config::check(path, &config::process_environment()) {
        Ok(loaded) => loaded.config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Config;
        }
    };
    match app::trusted(&config, again) {
        Ok(facilitators) => {
            for (name, why) in facilitators {
                println!(
                    "{name}: {}",
                    why.map_or_else(|| "used".to_owned(), |why| format!("dropped: {why}"))
                );
            }
            Exit::Ok
        }
        Err(error) => {
            eprintln!("{error}");
            Exit::Failed
        }
    }
}
