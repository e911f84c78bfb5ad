//! One gateway process: started from a configuration file, killed or ended by its id; if it is to be, with a clock that
//! is wrong, by Debian's faketime: the product knows nothing of it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use galaksio::clock::{Clock, rfc3339};
use serde_json::Value;

/// How long anything that is waited for may take; a machine under load is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The private key of the wallet that pays providers.
pub(crate) const WALLET_KEY: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// Where Debian has the library that makes the clocks of whole processes wrong; the linker fills in the rest.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

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
    /// Starts one and returns when its listeners are bound. Its clock is `ahead` by so many seconds.
    pub(crate) async fn start(config: &Path, ahead: i64) -> Gateway {
        let config = config.to_owned();
        tokio::task::spawn_blocking(move || Gateway::spawn(&config, ahead)).await.unwrap()
    }

    fn spawn(config: &Path, ahead: i64) -> Gateway {
        let mut command = Command::new(env!("CARGO_BIN_EXE_galaksio"));
        command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env_clear()
            .env("GALAKSIO_WALLET_KEY", WALLET_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if ahead != 0 {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", format!("{ahead:+}s"));
            // How long something takes it knows all the same, as a machine does whose clock is wrong.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let before = Clock::system().now_millis();
        let mut child = command.spawn().unwrap();
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
                    let _ = found.send((entry["message"].as_str().map(str::to_owned), address));
                }
                kept.lock().unwrap().push(line);
            }
        });
        let (mut edge, mut admin) = (None, None);
        while edge.is_none() || admin.is_none() {
            let Ok((message, address)) = addresses.recv_timeout(PATIENCE) else {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the gateway does not serve:\n{}", log.lock().unwrap().join("\n"));
            };
            match message.as_deref() {
                Some("serving") => edge = Some(address),
                Some("health and metrics") => admin = Some(address),
                // Of something else, as the store.
                _ => {}
            }
        }
        let gateway = Gateway { child, edge: edge.unwrap(), admin: admin.unwrap(), log };
        gateway.clock_is(ahead, before);
        gateway
    }

    /// Whether its clock is as wrong as it was made, by the times in its log.
    fn clock_is(&self, ahead: i64, before: u64) {
        let shown = |millis: u64| rfc3339(millis.checked_add_signed(ahead * 1000).unwrap())[..23].to_owned();
        // What is logged from here on is later than that.
        let log = self.log.lock().unwrap().clone();
        let (from, to) = (shown(before), shown(Clock::system().now_millis()));
        for line in &log {
            let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not a log: {line}"));
            let at = &entry["timestamp"].as_str().unwrap()[..23];
            assert!(*from <= *at && *at <= *to, "{at} is not from {from} to {to}: is faketime installed?");
        }
    }

    /// SIGKILL: it runs not one instruction more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.tidy();
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

impl Gateway {
    /// What faketime leaves of a process that was killed.
    fn tidy(&self) {
        let id = self.child.id();
        for name in [format!("faketime_shm_{id}"), format!("sem.faketime_sem_{id}")] {
            // There is nothing where the clock was right.
            let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.tidy();
        if std::thread::panicking()
            && let Ok(log) = self.log.lock()
        {
            eprintln!("gateway {}:\n{}", self.child.id(), log.join("\n"));
        }
    }
}
