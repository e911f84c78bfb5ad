//! What a paid job costs in our own code, and in each store.
//!
//! `cargo bench --bench jobs`. The stores are measured with 64 jobs at once, each a claim and an append; the
//! embedded one in the target directory, so on a real disk. Redis is started here, with `appendfsync always`
//! (each answer is on disk, as the embedded store's is) and with its default of once a second.

#![expect(clippy::expect_used, reason = "a failed expectation is what ends a benchmark")]
#![expect(missing_docs, reason = "criterion's macros make public items")]

#[path = "../tests/store/redis_server.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared with the tests")]
mod redis_server;
#[path = "../tests/store/sample.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "shared with the tests")]
mod sample;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use galaksio::clock::Clock;
use galaksio::jobs::redis::Redis;
use galaksio::jobs::{Embedded, Event, Job, JobStore};
// `sample` shares a file with the library, which names these so.
use galaksio::{ids, jobs, money, x402};
use tokio::runtime::Runtime;

use redis_server::RedisServer;

const LEASE: Duration = Duration::from_secs(60);
const RETENTION: Duration = Duration::from_secs(86_400);
const AT_ONCE: u64 = 64;

/// The job at the moment its answer of `body` bytes is recorded.
fn answered(body: usize) -> Job {
    let job = sample::job(1, Clock::system().now_millis());
    let [verified, signed, _, _] = sample::paid_run(&job);
    [verified, signed, sample::answered(&vec![b'x'; body])]
        .iter()
        .fold(job, |job, event| job.apply(event, job.updated).unwrap_or(job))
}

fn records(c: &mut Criterion) {
    let working = answered(1024);
    c.bench_function("transition/settled", |b| b.iter(|| working.apply(&sample::settled(), working.updated)));
    for (name, body) in [("1 KiB", 1 << 10), ("1 MiB", 1 << 20)] {
        let job = answered(body);
        let record = job.encode();
        let mut group = c.benchmark_group(format!("record/{name} answer"));
        group.throughput(Throughput::Bytes(record.len() as u64));
        group.bench_function("encode", |b| b.iter(|| job.encode()));
        group.bench_function("decode", |b| b.iter(|| Job::decode(&record)));
        group.finish();
    }
}

fn stores(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(5));
    let mut measure = |name: &str, store: Arc<dyn JobStore>| {
        let mut latencies = Vec::new();
        let mut next = 0;
        group.bench_function(format!("{name}, claim and append"), |b| {
            b.iter_custom(|jobs| {
                let numbers = next..next + jobs;
                next += jobs;
                let begun = Instant::now();
                latencies = runtime.block_on(run(&store, numbers));
                begun.elapsed()
            });
        });
        latencies.sort();
        // Empty if the command line asked for another benchmark.
        if let Some(last) = latencies.len().checked_sub(1) {
            let at = |percent: usize| latencies[last * percent / 100];
            println!("{name}: {AT_ONCE} at once, one operation: p50 {:?}, p99 {:?}", at(50), at(99));
        }
        group.bench_function(format!("{name}, read"), |b| {
            let claim = sample::job(0, 0).claim;
            b.iter(|| runtime.block_on(store.by_claim(&claim)).expect("a job"));
        });
    };

    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = tempfile::tempdir_in(target).expect("a directory");
    let embedded = Embedded::open(&directory.path().join("jobs.redb"), RETENTION, Clock::system());
    measure("embedded", Arc::new(embedded.expect("a store")));
    for (name, fsync) in [("redis, fsync always", "always"), ("redis, fsync each second", "everysec")] {
        let server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", fsync]);
        let redis = runtime.block_on(Redis::connect(&server.url(), "bench", RETENTION));
        measure(name, Arc::new(redis.expect("a store")));
    }
    group.finish();
}

/// Runs the jobs of `numbers`, [`AT_ONCE`] at a time; how long each operation took.
async fn run(store: &Arc<dyn JobStore>, numbers: std::ops::Range<u64>) -> Vec<Duration> {
    let workers = (0..AT_ONCE).map(|worker| {
        let store = Arc::clone(store);
        let own = (numbers.start + worker..numbers.end).step_by(AT_ONCE as usize);
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            for number in own {
                let begun = Instant::now();
                let (job, lease) = sample::win(&*store, &sample::job(number, 0), LEASE).await;
                let claimed = Instant::now();
                sample::append(&*store, &lease, &Event::Verified, &job).await;
                latencies.extend([claimed - begun, claimed.elapsed()]);
            }
            latencies
        })
    });
    let mut latencies = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        latencies.extend(worker.await.expect("a worker"));
    }
    latencies
}

criterion_group!(benches, records, stores);
criterion_main!(benches);
