//! The figures, as a table and as JSON.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Run;

/// Processor time of a process so far.
pub(crate) fn cpu(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is the command in brackets and may hold spaces.
    let fields: Vec<&str> = text[text.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// One seller in one round.
pub(crate) struct Measured {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
    store: Option<f64>,
}

impl Measured {
    pub(crate) fn new(run: Run, cpu: Duration, store: Option<Duration>) -> Measured {
        let Run { wall, mut latencies } = run;
        latencies.sort_unstable();
        let count = latencies.len();
        let quantile = |percent: usize| micros(latencies[(count * percent / 100).min(count - 1)]);
        let each = |time: Duration| micros(time) / count as f64;
        Measured {
            rate: count as f64 / wall.as_secs_f64(),
            p50: quantile(50),
            p99: quantile(99),
            cpu: each(cpu),
            store: store.map(each),
        }
    }

    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }
}

/// All of it. The first seller is the one that the others are compared with.
pub(crate) struct Report {
    rows: Vec<(&'static str, Vec<Measured>)>,
}

impl Report {
    pub(crate) fn new(names: impl IntoIterator<Item = &'static str>) -> Report {
        Report { rows: names.into_iter().map(|name| (name, Vec::new())).collect() }
    }

    pub(crate) fn add(&mut self, seller: usize, measured: Measured) {
        self.rows[seller].1.push(measured);
    }

    /// Prints and writes the medians over the rounds; a ratio is that of one round.
    pub(crate) fn finish(self, connections: usize) {
        println!("\n| seller | paid requests/s | of the first | p50 | p99 | CPU a request | its store's |");
        println!("|---|---|---|---|---|---|---|");
        let rows: Vec<Value> = self.rows.iter().map(|(name, rounds)| self.row(name, rounds)).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/paid.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let report = json!({ "connections": connections, "rounds": self.rows[0].1.len(), "sellers": rows });
        std::fs::write(&path, format!("{report:#}\n")).unwrap();
        println!("\nwritten to {}", path.display());
    }

    fn row(&self, name: &str, rounds: &[Measured]) -> Value {
        let of = |value: fn(&Measured) -> f64| median(rounds.iter().map(value));
        let (rate, p50, p99, cpu) =
            (of(|run| run.rate), of(|run| run.p50), of(|run| run.p99), of(|run| run.cpu));
        let base = &self.rows[0].1;
        let ratio = median(rounds.iter().zip(base).map(|(run, base)| run.rate / base.rate));
        let store = rounds.iter().any(|run| run.store.is_some());
        let store = store.then(|| of(|run| run.store.unwrap_or_default()));
        let shown = store.map_or_else(|| "-".to_owned(), |store| format!("{store:.0} us"));
        println!(
            "| `{name}` | {rate:.0} | {ratio:.2} | {:.2} ms | {:.1} ms | {cpu:.0} us | {shown} |",
            p50 / 1e3,
            p99 / 1e3
        );
        json!({
            "seller": name, "per_second": rate.round(), "ratio": (ratio * 1e3).round() / 1e3, "p50_us": p50.round(),
            "p99_us": p99.round(), "cpu_us": cpu.round(), "store_cpu_us": store.map(f64::round),
        })
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}
