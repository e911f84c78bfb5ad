//! Gateways under test, in this process or as processes of their own. Each ends when it is dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use galaksio::app::{App, StartError};
use galaksio::clock::Clock;
use galaksio::config::Config;
use galaksio::jobs::embedded::OpenError;
use galaksio::proxy::Stop;

use crate::client::Client;
use crate::rig::when_free;

/// A gateway on threads of this process.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    pub(crate) fn start(config: &Config, clock: Clock) -> Gateway {
        let app = when_free(
            || App::build_by(clock.clone(), config, false),
            |error| matches!(error, StartError::Embedded(OpenError::InUse(_))),
        );
        let (address, admin) = (app.addresses()[0], app.admin().unwrap());
        let stop = Stop::embedded();
        let told = stop.clone();
        let thread = std::thread::spawn(move || app.run(told));
        Gateway { address, admin, stop, thread: Some(thread) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Drains, and waits until it has ended.
    pub(crate) fn end(mut self) {
        self.stop.drain();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A gateway that is a process of its own.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Process {
    #[allow(dead_code, reason = "not in every program")]
    pub(crate) fn start(config: PathBuf, key: &str) -> Process {
        Process::run(Path::new(env!("CARGO_BIN_EXE_galaksio")), config, key)
    }

    /// Of a build of its own.
    pub(crate) fn run(program: &Path, config: PathBuf, key: &str) -> Process {
        let mut child = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env_clear()
            .env("GALAKSIO_WALLET_KEY", key)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        let address = log.by_ref().find_map(|line| {
            let address =
                line.contains("serving").then(|| line.split("address=").nth(1)?.trim().parse().ok());
            seen.push(line);
            address.flatten()
        });
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the gateway does not start: {seen:#?}");
        };
        // Read on, so that it never waits for us.
        std::thread::spawn(move || log.for_each(drop));
        Process { address, child }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    #[allow(dead_code, reason = "not in every program")]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has in memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// What it ever had in memory since the last [`Process::forget`], in bytes.
    #[allow(dead_code, reason = "not in every program")]
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:") * 1024
    }

    #[allow(dead_code, reason = "not in every program")]
    pub(crate) fn forget(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    #[allow(dead_code, reason = "not in every program")]
    pub(crate) fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Tells it to end, and waits until it has.
    #[allow(dead_code, reason = "not in every program")]
    pub(crate) fn end(mut self) {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success() && self.child.wait().unwrap().success(), "the gateway did not end well");
    }

    /// Ends it as a crash would.
    #[allow(dead_code, reason = "not in every program")]
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
