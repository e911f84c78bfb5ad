//! Chaos: many clients buy at once from gateways that are killed at random moments, over providers and a facilitator
//! that fail in every way they can, on a store that dies and comes back. When all is quiet, the money is counted; what is owed
//! to clients is then paid back, by a command that is killed in the middle, and the money is counted again.
//!
//! `make chaos JOBS=5000 SEED=7` runs all three tests as large as one likes: two gateways on a Redis with seed 7, one on a
//! file with seed 7, and two on a Redis again with seed 8. In the test suite their seeds are 1, 2 and 4. The seed makes the
//! plan (`plan`); the interleaving is the machine's. In each the clock of one gateway is two seconds wrong. What must hold
//! is in `audit`, how it is paid back in `refunds`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is what ends a test"
)]

mod audit;
#[path = "../crash/client.rs"]
#[expect(dead_code, reason = "the crash suite uses more of it")]
mod client;
#[path = "../crash/gateway.rs"]
mod gateway;
mod plan;
#[path = "../store/redis_server.rs"]
#[expect(dead_code, reason = "the store suite uses more of it")]
mod redis_server;
mod refunds;
#[path = "../crash/settings.rs"]
mod settings;
mod shopper;
mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use galaksio::sandbox::Service;

use plan::Plan;
use site::Site;

/// Clients that buy at the same time, in a run of so many jobs: most of them wait for something most of the time.
fn together(jobs: usize) -> usize {
    (jobs / 80).clamp(16, 64)
}

/// The size of a run.
#[derive(Clone, Copy)]
struct Size {
    jobs: usize,
    kills: usize,
    outages: usize,
}

/// What the environment says, or the size of the test suite's runs.
fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn size() -> Size {
    let jobs = asked("CHAOS_JOBS", 100) as usize;
    let kills = asked("CHAOS_KILLS", jobs as u64 / 3) as usize;
    Size { jobs, kills, outages: jobs / 40 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server and faketime; make test runs it"]
async fn two_gateways_on_one_redis() {
    let seed = asked("CHAOS_SEED", 1);
    run(seed, Site::replicated(seed).await, 2, size()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and needs faketime; make test runs it"]
async fn one_gateway_on_a_file() {
    let seed = asked("CHAOS_SEED", 2);
    run(seed, Site::alone(seed).await, 1, Size { outages: 0, ..size() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server and faketime; make test runs it"]
async fn two_gateways_on_one_redis_again() {
    let seed = asked("CHAOS_SEED", 3).wrapping_add(1);
    run(seed, Site::replicated(seed).await, 2, size()).await;
}

async fn run(seed: u64, site: Site, replicas: usize, size: Size) {
    let plan = Plan::new(seed, size.jobs, size.kills, replicas, size.outages);
    println!("seed {seed}: {} jobs, {} kills, {} outages of the store", size.jobs, size.kills, size.outages);
    let began = Instant::now();
    let (site, plan) = (Arc::new(site), Arc::new(plan));
    let begun = Arc::new(AtomicUsize::new(0));
    let trouble = tokio::spawn(trouble(Arc::clone(&site), Arc::clone(&plan), Arc::clone(&begun)));
    let outcomes: Vec<_> = futures_util::stream::iter(plan.jobs.iter().enumerate())
        .map(|(number, job)| {
            let (site, begun) = (&site, &begun);
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                for (service, rule) in &job.faults {
                    site.sandbox.faults.add(*service, rule.clone());
                }
                if let Some((service, bps)) = job.price {
                    site.sandbox.faults.set_price(service, bps);
                }
                site.shop(job, seed ^ (number as u64) << 20).await
            }
        })
        .buffer_unordered(together(size.jobs))
        .collect()
        .await;
    trouble.await.unwrap();
    let busy = began.elapsed();
    for service in [Service::Facilitator, Service::Merit, Service::OpenX402, Service::XCache, Service::App] {
        site.sandbox.faults.clear(service);
    }
    let unsold = outcomes.iter().filter(|outcome| outcome.is_none()).count();
    assert!(unsold * 10 <= size.jobs, "{unsold} of {} clients were never offered anything", size.jobs);
    let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    for outcome in outcomes.iter().filter(|outcome| outcome.gave_up) {
        println!("nobody told this client how its purchase ended: {}", outcome.story());
    }
    site.until_quiet().await;
    site.close().await;
    let books = site.audit(&*site.open().await, &outcomes).await;
    println!("seed {seed}: {books:?}, before anything is paid back");
    site.pay_back(seed, &books).await;
    let paid = site.audit(&*site.open().await, &outcomes).await;
    assert_eq!((paid.refunds_due, paid.refunded), (0, books.refunds_due), "paid otherwise than owed");
    let killed = site.killed.load(Ordering::Relaxed);
    println!(
        "seed {seed}: {busy:.0?} of trouble, {:.0?} until quiet, {killed} kills",
        began.elapsed() - busy
    );
    println!("seed {seed}: {books:?}, {unsold} never offered anything");
    assert_eq!(killed, size.kills);
    let completed = books.ended.get("completed").copied().unwrap_or(0);
    assert!(completed * 4 >= outcomes.len(), "chaos in which little is sold proves little: {books:?}");
}

/// Kills gateways and the store, spread over the run.
async fn trouble(site: Arc<Site>, plan: Arc<Plan>, begun: Arc<AtomicUsize>) {
    let due = |index: usize, of: usize| plan.jobs.len() * (index + 1) / (of + 1);
    let kills = async {
        for (index, kill) in plan.kills.iter().enumerate() {
            reached(&begun, due(index, plan.kills.len())).await;
            tokio::time::sleep(kill.after).await;
            site.strike(kill.replica).await;
        }
    };
    let outages = async {
        for (index, outage) in plan.outages.iter().enumerate() {
            reached(&begun, due(index, plan.outages.len())).await;
            site.lose_store(*outage).await;
        }
    };
    tokio::join!(kills, outages);
}

async fn reached(begun: &AtomicUsize, count: usize) {
    while begun.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
