//! Paid requests: gateways on both stores, beside the middlewares of the ecosystem that gate a like handler, in turns.
//!
//! Everybody sells the same work for a payment by version 2, verified and settled by the same stub facilitator, which says
//! yes at once. A gateway's app route has the stub app do it; `/run` is bought of the stub provider, with a payment of the
//! gateway's own. Each payment has a challenge and a nonce of its own and is signed before the clock runs. Every answer
//! must be a 200, and every sale must have asked facilitator, app and provider exactly once.
//! `make bench-paid` runs it and leaves `target/bench/paid.json`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_arithmetic,
    reason = "a measurement, which may stop"
)]

#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/chain/anvil.rs"]
mod anvil;
mod buyers;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/paid/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/paid/gateway.rs"]
mod gateway;
mod gateways;
mod http1;
mod load;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/paid/payer.rs"]
mod payer;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/chain/peers.rs"]
mod peers;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/store/redis_server.rs"]
mod redis_server;
mod report;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/paid/rig.rs"]
mod rig;
mod sellers;
mod stubs;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/chain/token.rs"]
mod token;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use self::buyers::Buyers;
use self::report::{Measured, Report, cpu};
use self::sellers::{Seller, Sellers};
use self::stubs::{Asked, Stubs};

/// Requests that warm a seller up, and say how many it can be sent in a round.
const WARM_UP: usize = 2_000;
/// More than any seller can be sent in a round.
const MOST: usize = 100_000;

/// What is measured.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Rounds; the order turns around with each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that each measurement takes, about
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Threads of the peer in Rust
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only sellers whose name has this in it, beside the first
    #[arg(long)]
    only: Option<String>,
    /// The gateway's program
    #[arg(long, default_value = env!("CARGO_BIN_EXE_galaksio"))]
    galaksio: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (stubs, buyers) = (Stubs::start(), Buyers::new());
    let started = Sellers::start(&arguments.galaksio, &stubs, arguments.threads);
    let wanted = |at: usize, seller: &Seller| {
        at == 0 || arguments.only.as_ref().is_none_or(|only| seller.name.contains(only))
    };
    let sellers: Vec<&Seller> = started
        .all
        .iter()
        .enumerate()
        .filter(|(at, seller)| wanted(*at, seller))
        .map(|(_, seller)| seller)
        .collect();
    let round = |seller: &Seller, count| sell(seller, &stubs, &buyers, count, arguments.connections);

    let mut counts = Vec::new();
    for seller in &sellers {
        round(seller, WARM_UP / 10);
        let rate = round(seller, WARM_UP).rate();
        counts.push(((rate * arguments.seconds as f64) as usize).clamp(arguments.connections, MOST));
    }
    let mut report = Report::new(sellers.iter().map(|seller| seller.name));
    for number in 0..arguments.rounds {
        let mut order: Vec<usize> = (0..sellers.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let measured = round(sellers[at], counts[at]);
            eprintln!(
                "round {}/{}: {}: {:.0}/s",
                number + 1,
                arguments.rounds,
                sellers[at].name,
                measured.rate()
            );
            report.add(at, measured);
        }
    }
    report.finish(arguments.connections);
}

/// Sells so much, and proves that each sale was one.
fn sell(seller: &Seller, stubs: &Stubs, buyers: &Buyers, count: usize, connections: usize) -> Measured {
    let requests = buyers.sign(seller.address, seller.path, count);
    let (asked, used) = (stubs.asked(), cpu(seller.pid));
    let stored = seller.store.map(cpu);
    let run = load::send(seller.address, requests, connections);
    let used = cpu(seller.pid) - used;
    let stored = seller.store.zip(stored).map(|(pid, before)| cpu(pid) - before);
    let times = count as u64;
    let Asked { verified, settled, worked, bought } = seller.asks;
    let due = Asked {
        verified: verified * times,
        settled: settled * times,
        worked: worked * times,
        bought: bought * times,
    };
    assert_eq!(stubs.asked().since(asked), due, "{}: {times} sales", seller.name);
    assert_eq!(run.latencies.len(), count);
    assert!(run.wall > Duration::ZERO);
    Measured::new(run, used, stored)
}
