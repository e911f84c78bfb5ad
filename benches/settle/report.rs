//! The figures, as tables and as JSON.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::BLOCK_SECONDS;
use crate::load::Settled;

/// Blocks of slack that our own facilitator is allowed.
const SLACK: u64 = 3;

pub(crate) struct Report {
    settlements: u64,
    at_once: u64,
    settled: Vec<(&'static str, Settled)>,
    verified: Vec<Verified>,
}

/// Verifications by one facilitator, so many at once.
struct Verified {
    facilitator: &'static str,
    at_once: u64,
    wall: Duration,
    latencies: Vec<Duration>,
}

impl Report {
    pub(crate) fn new(settlements: u64, at_once: u64) -> Report {
        Report { settlements, at_once, settled: Vec::new(), verified: Vec::new() }
    }

    pub(crate) fn settled(&mut self, facilitator: &'static str, settled: Settled) {
        println!("{facilitator}: {} settled in {:?}", settled.answered, settled.wall);
        self.settled.push((facilitator, settled));
    }

    pub(crate) fn verified(
        &mut self,
        facilitator: &'static str,
        at_once: u64,
        (wall, latencies): (Duration, Vec<Duration>),
    ) {
        let mine =
            self.verified.iter_mut().find(|mine| (mine.facilitator, mine.at_once) == (facilitator, at_once));
        match mine {
            Some(mine) => {
                mine.wall += wall;
                mine.latencies.extend(latencies);
            }
            None => self.verified.push(Verified { facilitator, at_once, wall, latencies }),
        }
    }

    /// Prints and writes everything. Stops with an error if our own facilitator lost a payment, made one twice, or
    /// took longer than the chain gives reason for.
    pub(crate) fn finish(self) {
        // Each of them waits for a block, and so many wait at once.
        let least = self.settlements.div_ceil(self.at_once);
        println!(
            "\n{} settlements, {} at once, a block every {BLOCK_SECONDS} s: {least} blocks at least\n",
            self.settlements, self.at_once
        );
        println!(
            "| facilitator | settled | lost | doubled | wall | blocks | p50 | p99 | transactions | gas each |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for (name, run) in &self.settled {
            println!(
                "| `{name}` | {} of {} | {} | {} | {} s | {} | {} ms | {} ms | {} | {} |",
                run.answered,
                run.asked,
                run.lost,
                run.wrong,
                tenths(run.wall),
                run.blocks,
                quantile(&run.latencies, 50).as_millis(),
                quantile(&run.latencies, 99).as_millis(),
                run.transactions,
                run.gas,
            );
        }
        println!(
            "\n| facilitator | verified at once | p50 | p99 | verified a second |\n|---|---|---|---|---|"
        );
        for run in &self.verified {
            println!(
                "| `{}` | {} | {} us | {} us | {} |",
                run.facilitator,
                run.at_once,
                quantile(&run.latencies, 50).as_micros(),
                quantile(&run.latencies, 99).as_micros(),
                rate(run),
            );
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/settle.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{:#}\n", self.json(least))).unwrap();
        println!("\nwritten to {}", path.display());

        let ours = self.settled.iter().filter(|(name, _)| name.starts_with("galaksio"));
        for (name, run) in ours {
            let all = run.answered == run.asked && run.lost == 0 && run.wrong == 0;
            assert!(all, "{name} lost or doubled payments");
            assert!(run.blocks <= least + SLACK, "{name} took {} blocks, the chain {least}", run.blocks);
        }
    }

    fn json(&self, least: u64) -> Value {
        let settled: Vec<Value> = self
            .settled
            .iter()
            .map(|(name, run)| {
                json!({
                    "facilitator": name,
                    "asked": run.asked,
                    "settled": run.answered,
                    "lost": run.lost,
                    "doubled": run.wrong,
                    "wall_ms": run.wall.as_millis() as u64,
                    "blocks": run.blocks,
                    "p50_ms": quantile(&run.latencies, 50).as_millis() as u64,
                    "p99_ms": quantile(&run.latencies, 99).as_millis() as u64,
                    "transactions": run.transactions,
                    "gas_each": run.gas,
                })
            })
            .collect();
        let verified: Vec<Value> = self
            .verified
            .iter()
            .map(|run| {
                json!({
                    "facilitator": run.facilitator,
                    "at_once": run.at_once,
                    "p50_us": quantile(&run.latencies, 50).as_micros() as u64,
                    "p99_us": quantile(&run.latencies, 99).as_micros() as u64,
                    "per_second": rate(run),
                })
            })
            .collect();
        json!({
            "settlements": self.settlements,
            "at_once": self.at_once,
            "block_seconds": BLOCK_SECONDS,
            "least_blocks": least,
            "settle": settled,
            "verify": verified,
        })
    }
}

fn quantile(latencies: &[Duration], percent: usize) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn tenths(wall: Duration) -> String {
    let tenths = wall.as_millis() / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn rate(run: &Verified) -> u64 {
    u64::try_from(run.latencies.len() as u128 * 1_000_000 / run.wall.as_micros().max(1)).unwrap()
}
