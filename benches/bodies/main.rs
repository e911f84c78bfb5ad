//! Large bodies through a gateway, beside nginx with the same bytes and curl straight to the provider: `make bench-bodies`.
//!
//! Every row is one way in. Rounds are interleaved, so that a slow minute of the machine is everybody's. The bytes are made
//! while they are sent; what a row bought is compared, by digest, with what was sent. Time is the best round's; CPU is
//! the process's own, per GB as sent; memory is by how much its resident set was ever larger than when it was idle. The
//! provider is the sandbox's, which reads and digests everything, on the same machine.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::float_arithmetic, reason = "a measurement")]
#![allow(dead_code, missing_docs, reason = "shared with the tests")]

#[path = "../../tests/paid/cid.rs"]
mod cid;
#[path = "../../tests/paid/client.rs"]
mod client;
#[path = "../../tests/paid/gateway.rs"]
mod gateway;
mod nginx;
#[path = "../../tests/paid/payer.rs"]
mod payer;
mod payload;
mod process;
#[path = "../../tests/paid/rig.rs"]
mod rig;
mod slow;
mod source;
mod upload;

use std::net::SocketAddr;

use galaksio::intake::{JsonReader, Wanted};
use galaksio::sandbox::Service;

use client::Request;
use nginx::Nginx;
use payer::Payer;
use payload::{MIB, Payload};
use process::{Usage, measured};
use rig::{Setup, Stage, eventually};
use source::Source;
use upload::{buy, curl, price, sign};

/// A program of these is measured.
struct Bench {
    stage: Stage,
    gateway: gateway::Process,
    nginx: Nginx,
    source: Source,
    payer: Payer,
    provider: SocketAddr,
    /// The gateway's memory when it has nothing to do.
    idle: u64,
}

/// One way of sending something.
struct Way {
    name: &'static str,
    run: fn(&Bench, usize) -> (usize, Usage),
}

const WAYS: [Way; 7] = [
    Way { name: "curl, straight to the provider", run: |bench, mib| direct(bench, mib) },
    Way { name: "nginx, a form", run: |bench, mib| through_nginx(bench, mib) },
    Way { name: "galaksio, raw", run: |bench, mib| sold(bench, &Payload::raw(mib)) },
    Way { name: "galaksio, a form", run: |bench, mib| sold(bench, &Payload::form(mib)) },
    Way { name: "galaksio, {url}", run: |bench, mib| sold(bench, &Payload::url(&bench.source, mib)) },
    Way { name: "galaksio, base64 in JSON: its price", run: |bench, mib| priced(bench, &Payload::json(mib)) },
    Way { name: "galaksio, base64 in JSON", run: |bench, mib| sold(bench, &Payload::json(mib)) },
];

fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (mib, rounds) = (number("BENCH_MIB", 5 * 1024), number("BENCH_ROUNDS", 2));
    let (many, each) = (number("BENCH_MANY", 16), number("BENCH_MANY_MIB", 256));
    let slow = number("BENCH_SLOW", 2000);
    let bench = Bench::start(mib.max(each));
    println!("{mib} MiB, the best of {rounds} rounds; idle, the gateway has {} MiB\n", bench.idle >> 20);
    head();
    let mut runs = WAYS.map(|_| Vec::new());
    for _ in 0..rounds {
        for (way, runs) in WAYS.iter().zip(&mut runs) {
            runs.push((way.run)(&bench, mib));
        }
    }
    for (way, runs) in WAYS.iter().zip(&runs) {
        row(way.name, runs);
    }
    if many > 0 {
        println!("\n{many} at once of {each} MiB\n");
        head();
        at_once(&bench, "nginx, a form", many, &Payload::form(each), false);
        at_once(&bench, "galaksio, raw", many, &Payload::raw(each), true);
        at_once(&bench, "galaksio, a form", many, &Payload::form(each), true);
        at_once(&bench, "galaksio, {url}", many, &Payload::url(&bench.source, each), true);
        at_once(&bench, "galaksio, base64 in JSON", many, &Payload::json(each), true);
    }
    println!("\nThe JSON reader alone, on one core: {:.2} GB of base64 a second", reader(mib.min(1024)));
    if slow > 0 {
        slow::measure(&bench, slow);
    }
}

impl Bench {
    fn start(mib: usize) -> Bench {
        let limit = format!("{}MiB", mib + 16);
        let mut setup = Setup::new()
            .text("edge", "body_timeout", "10s")
            .text("providers.openx402", "max_file", &limit)
            .text("paid", "max_raw_body", &limit)
            .text("paid", "max_json_body", &limit)
            .text("paid", "max_spool", &format!("{}MiB", mib.max(4096) * 2))
            .text("paid", "work_timeout", "30s")
            .toml_value("paid", "fetch_urls", "true")
            .toml_value("paid", "fetch_private", "[\"127.0.0.0/8\"]")
            .toml_value("pricing", "buckets", &format!("[\"1MiB\", {limit:?}]"));
        setup.sandbox.openx402_max_file = ((mib + 16) * MIB) as u64;
        let stage = setup.start();
        let gateway = stage.process();
        let client = gateway.client();
        stage.run(eventually("prices", async || {
            let small = Request::post("/store?permanent=true", "image/png", vec![7; 10]);
            (client.send(&small).await.status == 402).then_some(())
        }));
        let provider = stage.sandbox().urls.openx402.strip_prefix("http://").unwrap().parse().unwrap();
        let (nginx, source) = (nginx::start(provider), Source::start());
        let mut bench = Bench { stage, gateway, nginx, source, payer: Payer::new(), provider, idle: 0 };
        // What is made once is made before anything is measured.
        for payload in [Payload::raw(4), Payload::form(4), Payload::url(&bench.source, 4), Payload::json(4)] {
            sold(&bench, &payload);
        }
        bench.idle = bench.gateway.resident();
        bench
    }
}

fn direct(bench: &Bench, mib: usize) -> (usize, Usage) {
    let payload = Payload::form(mib);
    let began = std::time::Instant::now();
    curl(bench.provider, &payload);
    (payload.length(), Usage { seconds: began.elapsed().as_secs_f64(), cpu: None, grown: None })
}

fn through_nginx(bench: &Bench, mib: usize) -> (usize, Usage) {
    let payload = Payload::form(mib);
    let idle = process::resident(bench.nginx.pid());
    let usage = measured(bench.nginx.pid(), idle, || {
        upload::post(bench.nginx.address, "/upload", "", &payload).expect(200)
    });
    (payload.length(), usage)
}

/// Told its price, and paid for.
fn sold(bench: &Bench, payload: &Payload) -> (usize, Usage) {
    payload.cid();
    let payment = sign(bench.gateway.address, &bench.payer, payload);
    let before = bench.stage.purchases(Service::OpenX402);
    let usage = measured(bench.gateway.pid(), bench.idle, || buy(bench.gateway.address, &payment, payload));
    assert_eq!(bench.stage.purchases(Service::OpenX402), before + 1);
    (payload.sent(), usage)
}

fn priced(bench: &Bench, payload: &Payload) -> (usize, Usage) {
    let usage = measured(bench.gateway.pid(), bench.idle, || {
        price(bench.gateway.address, payload);
    });
    (payload.length(), usage)
}

fn at_once(bench: &Bench, name: &str, many: usize, payload: &Payload, paid: bool) {
    let (pid, idle) = match paid {
        true => (bench.gateway.pid(), bench.idle),
        false => (bench.nginx.pid(), process::resident(bench.nginx.pid())),
    };
    payload.cid();
    let challenge = paid.then(|| price(bench.gateway.address, payload));
    let payments: Vec<_> =
        (0..many).map(|_| challenge.as_ref().map(|challenge| bench.payer.pay(challenge))).collect();
    let usage = measured(pid, idle, || {
        std::thread::scope(|scope| {
            for payment in &payments {
                scope.spawn(move || match payment {
                    Some(payment) => buy(bench.gateway.address, payment, payload),
                    None => upload::post(bench.nginx.address, "/upload", "", payload).expect(200),
                });
            }
        });
    });
    row(name, &[(payload.sent() * many, usage)]);
}

/// GB of base64 that a reader takes in a second, in the pieces that a connection gives it.
fn reader(mib: usize) -> f64 {
    let payload = Payload::json(mib);
    let pieces: Vec<bytes::Bytes> =
        payload.piece.chunks(128 * 1024).map(bytes::Bytes::copy_from_slice).collect();
    let mut reader = JsonReader::new(1 << 20);
    let mut decoded = 0;
    let mut read = |piece: bytes::Bytes| {
        reader.push(piece);
        while let Some(data) = reader.data().unwrap() {
            decoded += std::hint::black_box(data).len();
        }
    };
    let began = std::time::Instant::now();
    read(payload.head.clone().into());
    for _ in 0..payload.times {
        pieces.iter().for_each(|piece| read(piece.clone()));
    }
    read(payload.tail.clone().into());
    let seconds = began.elapsed().as_secs_f64();
    let ask = match reader.end().unwrap() {
        galaksio::intake::JsonEnd::Large(large) => large.ask(decoded as u64),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (ask.size, ask.wanted),
        (payload.content() as u64, Wanted::Store { permanent: true, ttl: None })
    );
    payload.length() as f64 / 1e9 / seconds
}

fn head() {
    println!("{:<38} {:>7} {:>10} {:>11}", "", "GB/s", "CPU s/GB", "memory MiB");
}

fn row(name: &str, runs: &[(usize, Usage)]) {
    let (bytes, best) = runs.iter().min_by(|one, other| one.1.seconds.total_cmp(&other.1.seconds)).unwrap();
    let gigabytes = *bytes as f64 / 1e9;
    let most = runs.iter().filter_map(|(_, run)| run.grown).max();
    println!(
        "{name:<38} {:>7.2} {:>10} {:>11}",
        gigabytes / best.seconds,
        best.cpu.map_or(String::new(), |cpu| format!("{:.2}", cpu / gigabytes)),
        most.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / MIB as f64)),
    );
}
