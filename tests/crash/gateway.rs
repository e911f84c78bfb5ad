//! One gateway process: started from a configuration file, killed or ended by its id.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::Value;

/// How long anything that is waited for may take; a machine under load is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The private key of the wallet that pays providers.
pub(crate) const WALLET_KEY: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// A running `galaksio serve`.
pub(crate) struct Gateway {
    child: Child,
    /// Where clients are served.
    pub(crate) edge: SocketAddr,
    /// Health, metrics and lists.
    pub(crate) admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Starts one and returns when its listeners are bound.
    pub(crate) async fn start(config: &Path) -> Gateway {
        let config = config.to_owned();
        tokio::task::spawn_blocking(move || Gateway::spawn(&config)).await.unwrap()
    }

    fn spawn(config: &Path) -> Gateway {
        let mut child = Command::new(env!("CARGO_BIN_EXE_galaksio"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env_clear()
            .env("GALAKSIO_WALLET_KEY", WALLET_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, addresses) = mpsc::channel();
        let kept = Arc::clone(&log);
        // Reads to the end, so that the gateway never waits for us.
        std::thread::spawn(move || {
            for line in lines {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(address) = entry["address"].as_str().and_then(|text| text.parse().ok()) {
                    // Nobody listens any more once both are known.
                    let _ = found.send((entry["message"] == "serving", address));
                }
                kept.lock().unwrap().push(line);
            }
        });
        let (mut edge, mut admin) = (None, None);
        while edge.is_none() || admin.is_none() {
            let Ok((serving, address)) = addresses.recv_timeout(PATIENCE) else {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the gateway does not serve:\n{}", log.lock().unwrap().join("\n"));
            };
            *(if serving { &mut edge } else { &mut admin }) = Some(address);
        }
        Gateway { child, edge: edge.unwrap(), admin: admin.unwrap(), log }
    }

    /// SIGKILL: it runs not one instruction more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `TERM` drains it, `STOP` makes it stand still, `CONT` wakes it.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.child.wait().unwrap()).await.unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Ok(log) = self.log.lock()
        {
            eprintln!("gateway {}:\n{}", self.child.id(), log.join("\n"));
        }
    }
}
