//! How often a sale asks its store: what Redis itself sees of it, call by call.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;

use galaksio::x402::Version;
use parking_lot::Mutex;

use crate::client::{Client, Request};
use crate::payer::Payer;
use crate::redis_server::RedisServer;
use crate::rig::{Setup, Stage, eventually};

/// What a server is asked, line by line, but for what its own scripts ask.
struct Monitor(Arc<Mutex<Vec<String>>>);

impl Monitor {
    fn start(server: &RedisServer) -> Monitor {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("+OK"));
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let put = Arc::clone(&seen);
        // Ends with the server.
        std::thread::spawn(move || {
            lines.filter(|line| !line.contains(" lua] ")).for_each(|line| put.lock().push(line));
        });
        Monitor(seen)
    }

    /// What it was asked about one payment and its payer, in order.
    fn of(&self, nonce: &str, payer: &str) -> Vec<String> {
        let about = |line: &&String| {
            let line = line.to_ascii_lowercase();
            // The record of the payer's last purchase may be written just now: it is not of this payment.
            let of_payer = line.contains("value:debtors/") || line.contains("slices:limits/exposure/");
            line.contains(nonce) || (of_payer && line.contains(payer))
        };
        self.0.lock().iter().filter(about).map(|line| name(line)).collect()
    }
}

/// A call, by what it is for.
fn name(line: &str) -> String {
    let events = ["verified", "settle_first", "signed", "answered", "settled"];
    let written = |event: &&&str| line.contains(&format!(r#"event\":\"{event}\""#));
    let written: Vec<&str> = events.iter().filter(written).copied().collect();
    if line.contains("value:debtors/") {
        "is a debtor".to_owned()
    } else if line.contains("slices:limits/exposure/") {
        "draw exposure".to_owned()
    } else if line.contains("EVALSHA") {
        if written.is_empty() { "claim".to_owned() } else { written.join("+") }
    } else {
        line.to_owned()
    }
}

/// Buys, and says what the store was asked for it.
async fn trips(monitor: &Monitor, client: &Client, request: &Request, payer: &Payer) -> Vec<String> {
    let payment = client.sign(request, payer, Version::V2).await;
    let nonce = format!("{:x}", payment.authorization.nonce);
    let answer = client.send(&request.clone().paid(&payment)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let payer = format!("{:#x}", payer.address());
    let asked = || {
        let asked = monitor.of(&nonce, &payer);
        asked.last().is_some_and(|last| last.ends_with("settled")).then_some(asked)
    };
    let asked = eventually("the last record", async || asked()).await;
    monitor.0.lock().clear();
    asked
}

fn warm(setup: Setup) -> (Stage, RedisServer) {
    let server = RedisServer::start(&[]);
    // Nor is anything looked for in passing: recovery passes by once in a lease.
    (setup.text("paid", "lease", "5m").redis(&server.url()).start(), server)
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn work_of_the_app_is_claimed_answered_and_settled_for() {
    let (stage, server) = warm(Setup::new());
    let gateway = stage.cold_gateway();
    let (client, payer, request) = (gateway.client(), Payer::new(), Request::get("/premium/report"));
    stage.run(async {
        // Scripts are not loaded, and connections not made, in the middle of what is counted.
        assert_eq!(client.buy(&request, &payer, Version::V2).await.status, 200);
        let monitor = Monitor::start(&server);
        for _ in 0..2 {
            let asked = trips(&monitor, &client, &request, &payer).await;
            assert_eq!(asked, ["claim", "verified+answered", "settled"]);
        }
    });
}

#[test]
#[ignore = "needs redis-server; `make test` runs it"]
fn bought_work_has_one_trip_before_and_one_after_the_provider() {
    let (stage, server) = warm(Setup::new());
    let gateway = stage.gateway();
    let (client, payer, request) = (gateway.client(), Payer::new(), Request::run("print(1)"));
    stage.run(async {
        eventually("a price for it", async || (client.send(&request).await.status == 402).then_some(()))
            .await;
        assert_eq!(client.buy(&request, &payer, Version::V2).await.status, 200);
        let monitor = Monitor::start(&server);
        for _ in 0..2 {
            let mut asked = trips(&monitor, &client, &request, &payer).await;
            // Both at once.
            asked[..2].sort();
            assert_eq!(asked, ["claim", "is a debtor", "verified+signed", "answered", "settled"]);
        }
        // Of somebody who is seen for the first time.
        let mut asked = trips(&monitor, &client, &request, &Payer::new()).await;
        asked[..2].sort();
        let first = ["claim", "is a debtor", "draw exposure", "verified+signed", "answered", "settled"];
        assert_eq!(asked, first);
    });
}
