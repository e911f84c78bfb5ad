//! A connection to Redis that is of no use any more is not used any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use galaksio::jobs::redis::Redis;
use galaksio::jobs::{StoreError, ValueStore as _};

use crate::cut::Wire;
use crate::redis_server::RedisServer;
use crate::subject::RETENTION;

/// As many calls at once, none of which is answered.
async fn unanswered(store: Arc<Redis>, calls: usize) {
    let calls = (0..calls).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.get("health", "probe").await })
    });
    for call in calls.collect::<Vec<_>>() {
        let away = call.await.unwrap();
        assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_dead_connection_costs_one_time_out_and_one_new_connection() {
    let server = RedisServer::start(&[]);
    let wire = Wire::to(server.port).await;
    let url = format!("redis://127.0.0.1:{}", wire.port);
    let store = Arc::new(Redis::connect(&url, "test", RETENTION).await.unwrap());
    assert_eq!(store.get("health", "probe").await.unwrap(), None);
    assert_eq!(wire.made(), 1);

    wire.go_dead();
    let first = tokio::spawn(unanswered(Arc::clone(&store), 16));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = tokio::spawn(unanswered(Arc::clone(&store), 16));
    first.await.unwrap();
    let next = store.get("health", "probe").await;
    assert!(matches!(next, Ok(None)), "the dead connection is used again: {next:?}");
    // Those that went out on the dead connection take only that one with them.
    second.await.unwrap();
    assert_eq!(store.get("health", "probe").await.unwrap(), None);
    assert_eq!(wire.made(), 2);
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_server_that_let_nobody_in_for_a_while_is_used_again() {
    let server = RedisServer::start(&["--requirepass", "one"]);
    let url = format!("redis://:one@127.0.0.1:{}", server.port);
    let store = Redis::connect(&url, "test", RETENTION).await.unwrap();
    let mut admin = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let password = |password: &str| {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("requirepass").arg(password);
        set
    };
    let () = password("another").query_async(&mut admin).await.unwrap();
    let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
    let killed: u32 = redis::cmd("CLIENT").arg(&kill).query_async(&mut admin).await.unwrap();
    assert_eq!(killed, 1);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let refused = store.get("health", "probe").await;
        assert!(matches!(refused, Err(StoreError::Away(_))), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let () = password("one").query_async(&mut admin).await.unwrap();
    let begun = Instant::now();
    while let Err(refused) = store.get("health", "probe").await {
        assert!(begun.elapsed() < Duration::from_secs(30), "refused for ever: {refused}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
