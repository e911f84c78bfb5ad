//! What the demo plays on: the sandbox, and the gateway with the repository's own `proxy.toml` pointed at it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::Context;
use http::Uri;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::app::App;
use crate::config::resolved::{Config, Store};
use crate::config::{self, Loaded};
use crate::proxy::Stop;
use crate::sandbox::{Sandbox, Settings};

/// The configuration that is shown in the repository.
const PROXY_TOML: &str = include_str!("../../../proxy.toml");

/// A running sandbox and gateway.
pub(super) struct Stage {
    /// Where clients are served.
    pub(super) address: SocketAddr,
    /// Where health and metrics are served.
    pub(super) admin: Option<SocketAddr>,
    pub(super) sandbox: Sandbox,
    pub(super) config: Config,
    pub(super) stop: Stop,
    pub(super) runtime: Runtime,
    gateway: JoinHandle<()>,
    /// Holds the job store; removed at the end.
    _folder: TempDir,
}

impl Stage {
    /// Starts both. `wallet_key` is the gateway's own.
    pub(super) fn set(listen: SocketAddr, wallet_key: &str, stop: Stop) -> anyhow::Result<Stage> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let sandbox = runtime.block_on(Sandbox::start(Settings::default())).context("the sandbox")?;
        let folder = TempDir::new().context("a folder for the job store")?;
        let config = configure(&sandbox, listen, wallet_key, &folder)?;
        let app = App::build(&config, false)?;
        let address = *app.addresses().first().context("the gateway has no address")?;
        let admin = app.admin();
        let told = stop.clone();
        let gateway = std::thread::Builder::new().name("gateway".into()).spawn(move || app.run(told))?;
        Ok(Stage { address, admin, sandbox, config, stop, runtime, gateway, _folder: folder })
    }

    /// Waits until the gateway has ended, then ends the sandbox.
    pub(super) fn strike(self) {
        let Stage { sandbox, runtime, gateway, .. } = self;
        // A panic of the gateway has been printed by then.
        let _ = gateway.join();
        runtime.block_on(sandbox.stop());
    }
}

fn configure(
    sandbox: &Sandbox,
    listen: SocketAddr,
    wallet_key: &str,
    folder: &TempDir,
) -> anyhow::Result<Config> {
    let environment = BTreeMap::from([("GALAKSIO_WALLET_KEY".to_owned(), wallet_key.to_owned())]);
    let Loaded { mut config, .. } = config::load_text("proxy.toml", PROXY_TOML, &environment)
        .map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
    let url = |text: &str| text.parse::<Uri>().with_context(|| format!("{text} is no URL"));
    config.edge.listen = vec![listen];
    config.app.url = url(&sandbox.urls.app)?;
    config.facilitator.url = url(&sandbox.urls.facilitator)?;
    if let Some(xcache) = &mut config.providers.xcache {
        xcache.url = url(&sandbox.urls.xcache)?;
    }
    if let Some(openx402) = &mut config.providers.openx402 {
        openx402.url = url(&sandbox.urls.openx402)?;
    }
    if let Some(merit) = &mut config.providers.merit {
        merit.url = url(&sandbox.urls.merit)?;
    }
    config.store = Store::Embedded { path: folder.path().join("jobs.redb") };
    config.admin.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.log.filter = "warn".to_owned();
    config.log.access = false;
    Ok(config)
}
