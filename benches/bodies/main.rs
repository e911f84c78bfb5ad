//! Large bodies through a gateway, beside nginx with the same bytes and curl straight to the provider: `make bench-bodies`.
//!
//! A row is one upload of `BENCH_MIB` MiB, the best of three by time. CPU is the process's own, per GB
//! of body; memory is by how much its resident set was ever larger than before. The provider is the sandbox's, which
//! reads and digests everything, on the same machine.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::float_arithmetic, reason = "a measurement")]
#![allow(dead_code, missing_docs, reason = "shared with the tests")]

#[path = "../../tests/paid/client.rs"]
mod client;
#[path = "../../tests/paid/gateway.rs"]
mod gateway;
mod nginx;
#[path = "../../tests/paid/payer.rs"]
mod payer;
#[path = "../../tests/paid/rig.rs"]
mod rig;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Instant;

use galaksio::sandbox::Service;
use galaksio::x402::{Challenge, Version};
use http::HeaderMap;

use client::{HOST, Request};
use payer::Payer;
use rig::{Setup, eventually};

const MIB: usize = 1 << 20;
const RUNS: usize = 3;
const HEAD: &str = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\
    Content-Type: application/octet-stream\r\n\r\n";
const TAIL: &str = "\r\n--b--\r\n";

/// What one upload took.
#[derive(Clone, Copy)]
struct Row {
    seconds: f64,
    cpu: Option<f64>,
    memory: Option<u64>,
}

fn main() {
    let mib =
        std::env::var("BENCH_MIB").ok().map_or(256, |text| text.parse().expect("BENCH_MIB is a number"));
    let bytes = mib * MIB;
    let limit = format!("{}MiB", mib + 16);
    let mut setup = Setup::new()
        .text("providers.openx402", "max_file", &limit)
        .text("paid", "max_raw_body", &limit)
        .text("paid", "max_json_body", &format!("{}MiB", mib * 2))
        .toml_value("pricing", "buckets", &format!("[\"1MiB\", {limit:?}]"));
    setup.sandbox.openx402_max_file = ((mib + 16) * MIB) as u64;
    let stage = setup.start();
    let gateway = stage.process();
    let client = gateway.client();
    stage.run(eventually("prices", async || {
        let small = Request::post("/store?permanent=true", "image/png", vec![7; 10]);
        (client.send(&small).await.status == 402).then_some(())
    }));
    let payer = Payer::new();
    let provider = stage.sandbox().urls.openx402.strip_prefix("http://").unwrap().parse().unwrap();
    let nginx = nginx::start(provider);
    let chunk: Vec<u8> = (0..MIB).map(|at| (at * 7 % 251) as u8).collect();
    let chunks = || std::iter::repeat_n(&chunk[..], mib);

    let form = || std::iter::once(HEAD.as_bytes()).chain(chunks()).chain(std::iter::once(TAIL.as_bytes()));
    let form_length = HEAD.len() + bytes + TAIL.len();
    let form_type = "multipart/form-data; boundary=b";
    let text = base64_simd::STANDARD.encode_to_string(&chunk[..MIB / 4 * 3]);
    let json = || {
        let texts = std::iter::repeat_n(text.as_bytes(), mib);
        std::iter::once(&b"{\"options\":{\"permanent\":true},\"data\":\""[..])
            .chain(texts)
            .chain(std::iter::once(&b"\"}"[..]))
    };
    let json_length = json().map(<[u8]>::len).sum();

    let file = tempfile::NamedTempFile::new().unwrap();
    chunks().for_each(|chunk| file.as_file().write_all(chunk).unwrap());
    let path = file.path().display().to_string();
    let curl = || {
        let began = Instant::now();
        let form = format!("file=@{path}");
        let url = format!("http://{provider}/upload");
        let out = Command::new("curl").args(["-sSf", "-o", "/dev/null", "-F", &form, &url]).status().unwrap();
        assert!(out.success(), "curl: {out}");
        Row { seconds: began.elapsed().as_secs_f64(), cpu: None, memory: None }
    };
    let upload =
        |pid, address, path: &str, kind, length, pieces: &mut dyn Iterator<Item = &[u8]>, paid: bool| {
            let payment = if paid { sign(address, &payer, path, kind, length) } else { String::new() };
            measured(pid, || {
                let (status, body) = send(address, path, kind, length, &payment, pieces);
                let expected = if path == "/store" { 402 } else { 200 };
                assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
            })
        };

    println!("{mib} MiB, best of {RUNS}\n");
    println!("{:<44} {:>7} {:>10} {:>11}", "", "GB/s", "CPU s/GB", "memory MiB");
    row("curl, straight to the provider", bytes, curl);
    row("nginx, the same bytes", bytes, || {
        upload(nginx.pid(), nginx.address, "/upload", form_type, form_length, &mut form(), false)
    });
    let store = "/store?permanent=true";
    row("galaksio, raw, paid and pinned", bytes, || {
        upload(gateway.pid(), gateway.address, store, "application/octet-stream", bytes, &mut chunks(), true)
    });
    row("galaksio, a form, paid and pinned", bytes, || {
        upload(gateway.pid(), gateway.address, store, form_type, form_length, &mut form(), true)
    });
    row("galaksio, base64 in JSON, told its price", json_length, || {
        upload(gateway.pid(), gateway.address, "/store", "application/json", json_length, &mut json(), false)
    });
    assert_eq!(stage.purchases(Service::OpenX402), 2 * RUNS);
}

fn row(name: &str, bytes: usize, mut run: impl FnMut() -> Row) {
    let runs: Vec<Row> = (0..RUNS).map(|_| run()).collect();
    let best = runs.iter().copied().min_by(|one, other| one.seconds.total_cmp(&other.seconds)).unwrap();
    let gigabytes = bytes as f64 / 1e9;
    let memory = runs.iter().filter_map(|run| run.memory).max();
    println!(
        "{name:<44} {:>7.2} {:>10} {:>11}",
        gigabytes / best.seconds,
        best.cpu.map_or(String::new(), |cpu| format!("{:.2}", cpu / gigabytes)),
        memory.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / MIB as f64)),
    );
}

/// Time, and what the process took of the machine for it.
fn measured(pid: u32, work: impl FnOnce()) -> Row {
    let status = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    let cpu = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = text[text.rfind(')').unwrap() + 2..].split(' ').collect();
        (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) as f64 / 100.0
    };
    // From here on the peak is a new one.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let (memory, before, began) = (status("VmRSS:"), cpu(), Instant::now());
    work();
    let seconds = began.elapsed().as_secs_f64();
    Row { seconds, cpu: Some(cpu() - before), memory: Some(status("VmHWM:").saturating_sub(memory)) }
}

/// The payment header for a body that is only announced.
fn sign(address: SocketAddr, payer: &Payer, path: &str, kind: &str, length: usize) -> String {
    let (status, body) =
        send(address, path, kind, length, "Expect: 100-continue\r\n", &mut std::iter::empty());
    assert_eq!(status, 402);
    let (name, value) = payer.pay(&Challenge::from_response(&HeaderMap::new(), &body).unwrap()).header();
    assert_eq!(name.to_ascii_lowercase(), "x-payment", "{:?}", Version::V1);
    format!("{name}: {value}\r\n")
}

fn send(
    address: SocketAddr,
    path: &str,
    kind: &str,
    length: usize,
    more: &str,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    pieces.for_each(|piece| stream.write_all(piece).unwrap());
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("no answer");
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}
