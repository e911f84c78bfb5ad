//! A primary, its replica, and a Sentinel that puts the one in the other's place, each a process of its own on loopback.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use super::redis_server::RedisServer;

/// For all that has to happen until another server is the primary: on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Sentinels {
    pub(crate) primary: RedisServer,
    pub(crate) replica: RedisServer,
    port: u16,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Of a Sentinel that is not there. Bound, so that nobody is.
    nobody: TcpSocket,
    _held: TcpSocket,
    _directory: tempfile::TempDir,
}

impl Sentinels {
    /// Once the Sentinel knows both.
    pub(crate) async fn start() -> Self {
        let primary = RedisServer::start(&[]);
        let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
        until("the replica to follow", || info(&replica, "master_link_status:up")).await;
        let (held, nobody) = (bound(), bound());
        let port = held.local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sentinel.conf");
        let watched = primary.port;
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor jobs 127.0.0.1 {watched} 1\n\
             sentinel down-after-milliseconds jobs 500\nsentinel failover-timeout jobs 5000\n",
            directory.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let mut process = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(process.stdout.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line))
        });
        let sentinels =
            Sentinels { primary, replica, port, process, log, nobody, _held: held, _directory: directory };
        sentinels.said("+slave slave").await;
        sentinels
    }

    /// The first of them is not there.
    pub(crate) fn url(&self) -> String {
        let nobody = self.nobody.local_addr().unwrap();
        format!("redis+sentinel://{nobody},127.0.0.1:{}/jobs/0", self.port)
    }

    /// What is written from now on does not get to the replica.
    pub(crate) async fn cut_off(&self) {
        // The Sentinel would put that right, after some seconds.
        let nobody = self.nobody.local_addr().unwrap().port().to_string();
        ask(&self.replica, &["REPLICAOF", "127.0.0.1", &nobody]);
        until("the replica to be alone", || info(&self.replica, "master_link_status:down")).await;
    }

    /// The primary dies, and the replica takes its place.
    pub(crate) async fn fail_over(&mut self) {
        self.primary.kill();
        self.said("+switch-master jobs").await;
    }

    async fn said(&self, what: &str) {
        until(what, || self.log.lock().unwrap().iter().any(|line| line.contains(what))).await;
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking()
            && let Ok(log) = self.log.lock()
        {
            eprintln!("sentinel:\n{}", log.join("\n"));
        }
    }
}

fn bound() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

/// What a server answers, as text.
pub(crate) fn ask(server: &RedisServer, words: &[&str]) -> String {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let said: redis::Value = command.query(&mut connection).unwrap();
    redis::from_redis_value(said).unwrap()
}

fn info(server: &RedisServer, line: &str) -> bool {
    ask(server, &["INFO", "replication"]).lines().any(|found| found == line)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
