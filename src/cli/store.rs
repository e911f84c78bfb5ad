//! The job store of a configuration, as commands open it.

use std::path::Path;
use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio::runtime::{Builder, Runtime};

use super::Exit;
use crate::clock::Clock;
use crate::config::resolved::{Config, Store};
use crate::config::{self, Loaded};
use crate::guard::Switch;
use crate::jobs::embedded::{Embedded, OpenError};
use crate::jobs::redis::Redis;
use crate::jobs::{JobStore, Retention, ValueStore};

/// Why there is no store.
pub(super) enum Closed {
    /// A gateway has the file open.
    InUse(String),
    /// Anything else.
    Failed(String),
}

/// The configuration; its key need not be on this machine.
pub(super) fn configuration(path: &Path) -> Result<Config, Exit> {
    match config::check(path, &config::process_environment()) {
        Ok(Loaded { config, .. }) => Ok(config),
        Err(mistakes) => {
            eprintln!("{mistakes}");
            Err(Exit::Config)
        }
    }
}

/// A runtime for one command.
pub(super) fn runtime() -> Result<Runtime, Exit> {
    Builder::new_current_thread().enable_all().build().map_err(|error| {
        eprintln!("galaksio: {error}");
        Exit::Failed
    })
}

/// The store.
pub(super) async fn open(config: &Config) -> Result<Arc<dyn JobStore>, Closed> {
    let retention = Retention { time: config.paid.retention, archived: config.archive().is_some() };
    match &config.store {
        Store::Embedded { path } => {
            // A command that only looks makes no store.
            if !path.exists() {
                let why = format!("there is no job store {} yet", path.display());
                return Err(Closed::Failed(why));
            }
            match Embedded::open(path, retention, Clock::system()) {
                Ok(store) => Ok(Arc::new(store)),
                Err(error @ OpenError::InUse(_)) => Err(Closed::InUse(error.to_string())),
                Err(error) => Err(Closed::Failed(error.to_string())),
            }
        }
        Store::Redis { url, prefix } => {
            let store = Redis::connect(url.expose_secret(), prefix, retention).await;
            Ok(Arc::new(store.map_err(|error| Closed::Failed(error.to_string()))?))
        }
    }
}

/// The wallet's switch. That of the embedded store is beside it, so it can be thrown while a gateway runs.
pub(super) async fn switch(config: &Config) -> Result<Switch, Closed> {
    match &config.store {
        Store::Embedded { path } => Ok(Switch::beside(path)),
        Store::Redis { .. } => {
            let values: Arc<dyn ValueStore> = open(config).await?;
            Ok(Switch::Store(values))
        }
    }
}

impl Closed {
    /// Why, for a person.
    pub(super) fn reason(&self) -> &str {
        let (Closed::InUse(reason) | Closed::Failed(reason)) = self;
        reason
    }
}
