//! Redis behind Sentinels: the primary is found, and found again when another takes its place; a replica is never written to.

use std::time::{Duration, Instant};

use galaksio::clock::Clock;
use galaksio::jobs::redis::{OpenError, Redis};
use galaksio::jobs::{Claim, Event, JobStore, StoreError};

use crate::redis_server::RedisServer;
use crate::sample::{append, job, signed, text, win};
use crate::sentinels::{Sentinels, ask};
use crate::subject::{LONG, RETENTION};

const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(url: &str) -> Redis {
    Redis::connect(url, "test", RETENTION).await.unwrap()
}

fn now() -> u64 {
    Clock::system().now_millis()
}

/// Asks until the store is not away.
async fn there<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(said) => return said,
            Err(away) => assert!(Instant::now() < give_up, "{away}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn what_the_new_primary_never_got_is_written_to_it() {
    let mut sentinels = Sentinels::start().await;
    let (store, other) = (connect(&sentinels.url()).await, connect(&sentinels.url()).await);
    let known = job(1, now());
    let (known, known_lease) = win(&store, &known, LONG).await;
    sentinels.cut_off().await;
    let known = append(&store, &known_lease, &Event::Verified, &known).await;
    let fresh = job(2, now());
    let (at, lease) = win(&store, &fresh, LONG).await;
    let at = append(&store, &lease, &Event::Verified, &at).await;
    sentinels.fail_over().await;

    let Claim::Taken(found) = there(async || other.claim(&fresh, LONG).await).await else {
        panic!("claimed twice")
    };
    assert_eq!(text(&found), text(&at));
    for (job, lease) in [(&at, &lease), (&known, &known_lease)] {
        let event = signed(job);
        let next = job.apply(&event, job.updated).unwrap();
        there(async || store.append(lease, &event, &next).await).await;
        assert_eq!(text(&other.by_claim(&job.claim).await.unwrap().unwrap()), text(&next));
        assert_eq!(other.journal(&job.claim).await.unwrap().len(), 2);
    }
    assert_eq!(ask(&sentinels.replica, &["DBSIZE"]), "5", "two jobs, their ids, and who is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn one_that_became_a_replica_is_left_alone_until_it_is_none() {
    let primary = RedisServer::start(&[]);
    let store = connect(&primary.url()).await;
    let (at, lease) = win(&store, &job(1, now()), LONG).await;
    // Nobody closes the connection.
    ask(&primary, &["REPLICAOF", "127.0.0.1", "1"]);
    for _ in 0..2 {
        let event = signed(&at);
        let next = at.apply(&Event::Verified, at.updated).unwrap().apply(&event, at.updated).unwrap();
        let steps = [
            galaksio::jobs::Step { event: &Event::Verified, at: at.updated },
            galaksio::jobs::Step { event: &event, at: at.updated },
        ];
        let away = store.append_all(&lease, &steps, &next).await;
        assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
    }
    let Err(StoreError::Away(why)) = store.by_claim(&at.claim).await else {
        panic!("a replica was believed")
    };
    assert!(why.contains("replica"), "{why}");
    ask(&primary, &["REPLICAOF", "NO", "ONE"]);
    there(async || {
        store.append(&lease, &Event::Verified, &at.apply(&Event::Verified, at.updated).unwrap()).await
    })
    .await;
    // What it was told meanwhile by another would be its history now.
    let why = store.claim(&job(2, now()), LONG).await.unwrap_err().to_string();
    assert!(why.contains("another run"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn nobody_who_is_no_sentinel_is_asked() {
    let server = RedisServer::start(&[]);
    let url = format!("redis+sentinel://127.0.0.1:{}/jobs", server.port);
    let Err(refused) = Redis::connect(&url, "test", RETENTION).await else { panic!("connected to {url}") };
    assert!(matches!(refused, OpenError::Away { .. }), "{refused:?}");
    let sentinels = Sentinels::start().await;
    let unknown = sentinels.url().replace("/jobs", "/others");
    let Err(refused) = Redis::connect(&unknown, "test", RETENTION).await else { panic!("connected") };
    assert!(refused.to_string().contains("others"), "{refused}");
}
