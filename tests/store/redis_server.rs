//! A `redis-server` of its own for a test, on loopback, ended with it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::net::TcpSocket;

pub(crate) struct RedisServer {
    pub(crate) port: u16,
    process: Child,
    /// Keeps the port for the server, also while there is none. Both are bound to it, and only the server listens.
    _held: TcpSocket,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk, unless `arguments` say so.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        RedisServer::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts one that keeps in `directory` what `arguments` tell it to keep.
    pub(crate) fn start_in(directory: tempfile::TempDir, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        // A cluster wants a second port that follows from the first, and may not get it.
        for _ in 0..10 {
            let held = TcpSocket::new_v4().unwrap();
            held.set_reuseaddr(true).unwrap();
            held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let port = held.local_addr().unwrap().port();
            if let Some(process) = spawn(port, &directory, &arguments) {
                return RedisServer { port, process, _held: held, directory, arguments };
            }
        }
        panic!("redis-server does not start");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    #[allow(dead_code, reason = "for the benchmark")]
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts a killed server again, on the same port and directory.
    pub(crate) fn start_again(&mut self) {
        self.process =
            spawn(self.port, &self.directory, &self.arguments).expect("redis-server does not start again");
    }

    /// What it has on disk just now: with `appendfsync always`, all it acknowledged.
    #[allow(dead_code, reason = "for those who make it forget")]
    pub(crate) fn remember(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_all(self.directory.path(), copy.path());
        copy
    }

    /// Ends the server as a crash would, and starts it again on what it had on disk then. All it acknowledged since is lost.
    #[allow(dead_code, reason = "for those who make it forget")]
    pub(crate) fn go_back_to(&mut self, then: &tempfile::TempDir) {
        self.kill();
        self.directory = tempfile::tempdir().unwrap();
        copy_all(then.path(), self.directory.path());
        self.start_again();
    }

    /// `STOP` makes the server stand still without closing anything; `CONT` wakes it.
    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let copy = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&copy).unwrap();
            copy_all(&entry.path(), &copy);
        } else {
            std::fs::copy(entry.path(), copy).unwrap();
        }
    }
}

/// A running server that accepts connections, or `None` if it ended before that.
fn spawn(port: u16, directory: &tempfile::TempDir, arguments: &[String]) -> Option<Child> {
    let mut process = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--daemonize", "no", "--logfile", "", "--dir"])
        .arg(directory.path())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("these tests need redis-server in the PATH; `make test` installs it");
    let mut log = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    if log.by_ref().any(|line| line.contains("Ready to accept connections")) {
        // Read on, so that the server never waits for us.
        std::thread::spawn(move || log.for_each(drop));
        return Some(process);
    }
    process.wait().unwrap();
    None
}
