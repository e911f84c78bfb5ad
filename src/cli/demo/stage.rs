//! What the demo plays on: the sandbox, and the gateway with the repository's own `proxy.toml` pointed at it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::thread::JoinHandle;

use anyhow::Context;
use http::Uri;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::app::{App, StartError};
use crate::config::resolved::{Config, Store};
use crate::config::{self, Loaded};
use crate::proxy::{BindError, Stop};
use crate::sandbox::{Sandbox, Settings};
use crate::wallet::Wallet;
use crate::x402::Address;

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
    /// Who pays the providers.
    pub(super) wallet: Address,
    pub(super) stop: Stop,
    gateway: JoinHandle<()>,
    /// Holds the job store, and what is made for visitors; removed at the end.
    folder: TempDir,
}

impl Stage {
    /// Starts both, the sandbox on `runtime`. The gateway ends by `stop`.
    pub(super) fn set(runtime: &Runtime, listen: SocketAddr) -> anyhow::Result<Stage> {
        let folder = tempfile::Builder::new().prefix("galaksio-demo-").tempdir();
        let folder = folder.context("a folder for the job store")?;
        let sandbox = runtime.block_on(Sandbox::start(Settings::default())).context("the sandbox")?;
        let wallet_key = random_key()?;
        let config = configure(&sandbox, listen, &wallet_key, &folder)?;
        let wallet = Wallet::new(SecretString::from(wallet_key), "0", Vec::new())?.address();
        let app = App::build(&config, false).map_err(explain)?;
        let address = *app.addresses().first().context("the gateway has no address")?;
        let admin = app.admin();
        let stop = Stop::embedded();
        let told = stop.clone();
        let gateway = std::thread::Builder::new().name("gateway".into()).spawn(move || app.run(told))?;
        Ok(Stage { address, admin, sandbox, config, wallet, stop, gateway, folder })
    }

    /// Where a client on this machine finds the gateway.
    pub(super) fn url(&self) -> anyhow::Result<Uri> {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        Ok(format!("http://{address}").parse()?)
    }

    /// Writes a file for visitors.
    pub(super) fn write(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }

    /// Writes a file with a key of its own, which only its owner can read.
    pub(super) fn write_key(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        let key = format!("0x{}\n", random_key()?);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(key.as_bytes()))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }

    /// Waits until the gateway has ended, then ends the sandbox.
    pub(super) fn strike(self, runtime: &Runtime) {
        let Stage { sandbox, gateway, .. } = self;
        // A panic of the gateway has been printed by then.
        let _ = gateway.join();
        runtime.block_on(sandbox.stop());
    }
}

/// 64 hex digits.
pub(super) fn random_key() -> anyhow::Result<String> {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).ok().context("no random numbers for a key")?;
    Ok(hex::encode(key))
}

/// The errors' texts include their causes.
fn explain(error: StartError) -> anyhow::Error {
    match &error {
        StartError::Bind(BindError::Listen { source, .. }) if source.kind() == ErrorKind::AddrInUse => {
            anyhow::anyhow!("{error}; give another address with --listen, or port 0 for a free one")
        }
        _ => anyhow::anyhow!("{error}"),
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
