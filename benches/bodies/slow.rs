//! Clients that send a byte a second, thousands at once: half of them JSON that nobody pays for, half of them files that are
//! passed on to the provider. What they take of the gateway while they wait, and how they end.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::payload::Payload;
use crate::process::{measured, resident, threads};
use crate::upload::{head, price};

/// One that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(90);

struct Slow {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Slow {
    fn open(bench: &Bench, more: &str, payload: &Payload) -> Slow {
        let mut stream = TcpStream::connect(bench.gateway.address).unwrap();
        stream.write_all(head(payload.path, more, payload).as_bytes()).unwrap();
        stream.write_all(&payload.head).unwrap();
        stream.set_nonblocking(true).unwrap();
        Slow { stream, answer: Vec::new() }
    }

    /// One more byte. Whether the other side has not closed yet.
    fn tick(&mut self) -> bool {
        let _ = self.stream.write(b"A");
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(read) => self.answer.extend_from_slice(&bytes[..read]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Status and code.
    fn outcome(&self) -> String {
        let text = String::from_utf8_lossy(&self.answer);
        let code = text.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
        format!("{} {}", text.get(9..12).unwrap_or("closed without an answer"), code.unwrap_or_default())
    }
}

pub(crate) fn measure(bench: &Bench, many: usize) {
    let (raw, json) = (Payload::raw(2), Payload::json(1));
    let challenge = price(bench.gateway.address, &raw);
    // It lapses soon, and with it the time that the upload has.
    let payment = bench.payer.pay_as(&challenge, |authorization| {
        authorization.valid_before = authorization.valid_after + 60 + 65;
    });
    let (name, value) = payment.header();
    let payment = format!("{name}: {value}\r\n");
    let pid = bench.gateway.pid();
    let (before, mut most_threads, mut settled) = (threads(pid), 0, 0);
    let (began, moved) = (Instant::now(), bench.stage.movements());
    let mut outcomes = BTreeMap::<String, usize>::new();
    let usage = measured(pid, bench.idle, || {
        let open = |at: usize| match at % 2 {
            0 => Slow::open(bench, "", &json),
            _ => Slow::open(bench, &payment, &raw),
        };
        let mut waiting: Vec<Slow> = (0..many).map(open).collect();
        while !waiting.is_empty() {
            assert!(began.elapsed() < PATIENCE, "{} never end", waiting.len());
            let next = Instant::now() + Duration::from_secs(1);
            waiting.retain_mut(|slow| {
                let goes_on = slow.tick();
                if !goes_on {
                    *outcomes.entry(slow.outcome()).or_default() += 1;
                }
                goes_on
            });
            most_threads = most_threads.max(threads(pid));
            if waiting.len() == many {
                settled = resident(pid);
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    });
    println!("\n{many} clients at once that send a byte a second\n");
    println!("  threads: {before} before, {most_threads} at most");
    println!(
        "  memory: {} KiB for each while they wait, {} MiB in all at most",
        settled.saturating_sub(bench.idle) / 1024 / many as u64,
        usage.grown.unwrap_or_default() >> 20
    );
    println!("  they ended within {:.0} s: {outcomes:?}", usage.seconds);
    assert_eq!(bench.stage.movements(), moved, "somebody was charged or paid");
}
