//! Two facilitators on one chain with a block every two seconds, in turns: `galaksio facilitator`, and the official one.
//! Many payments are settled, many at once; then others are verified. The chain's own logs and balances say whether
//! each payment moved its money once. `make bench-settle` runs it and leaves `target/bench/settle.json`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark may stop")]

#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/chain/anvil.rs"]
mod anvil;
mod load;
mod ours;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/chain/peers.rs"]
mod peers;
mod report;
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../tests/chain/token.rs"]
mod token;

use clap::Parser;
use galaksio::outgoing::Outgoing;
use galaksio::outgoing::Settings as OutgoingSettings;

use self::anvil::{Chain, Settings};
use self::load::Load;
use self::ours::Ours;
use self::peers::Peer;
use self::report::Report;

/// Seconds between blocks, as on Base.
const BLOCK_SECONDS: u64 = 2;

/// What is measured.
#[derive(Clone, Copy, Debug, Parser)]
struct Arguments {
    /// Payments settled by each facilitator in each round
    #[arg(long, default_value_t = 1000)]
    settlements: u64,
    /// As many of them at once
    #[arg(long, default_value_t = 64)]
    at_once: u64,
    /// Rounds; each facilitator is the first in every second one
    #[arg(long, default_value_t = 2)]
    rounds: u64,
    /// Payments verified by each facilitator: one after the other, and as many again 16 at once
    #[arg(long, default_value_t = 400)]
    verifications: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments = Arguments::parse();
    let chain = Chain::start(Settings::every(BLOCK_SECONDS)).await;
    let (gas_key, _) = chain.gas_key().await;
    let ours = Ours::start(&chain.url, &gas_key);
    let official = Peer::facilitator(&chain, None).await;
    let settings = OutgoingSettings { connect_timeout: load::DEADLINE, allow_plain_http: false };
    let load = Load { chain: &chain, outgoing: Outgoing::new(settings).unwrap() };
    let facilitators = [("galaksio facilitator", &ours.url), ("@x402/evm 2.27", &official.url)];

    let mut report = Report::new(arguments.settlements, arguments.at_once);
    // Both have opened their connections and compiled their code before anything counts.
    for (_, url) in facilitators {
        load.settle(url, 8, 8).await;
        load.verify(url, 16, 4).await;
    }
    for round in 0..arguments.rounds {
        for turn in 0..2 {
            let (name, url) = facilitators[usize::from((round + turn) % 2 == 1)];
            let settled = load.settle(url, arguments.settlements, arguments.at_once).await;
            report.settled(name, settled);
        }
    }
    for at_once in [1, 16] {
        for _ in 0..4 {
            for (name, url) in facilitators {
                report.verified(name, at_once, load.verify(url, arguments.verifications / 4, at_once).await);
            }
        }
    }
    drop((ours, official));
    report.finish();
}
