//! The Redis store: the suite, over two clients of one server, and what a network and a server can do to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use galaksio::clock::Clock;
use galaksio::jobs::ValueStore as _;
use galaksio::jobs::redis::{OpenError, Redis};
use galaksio::jobs::{Claim, Event, Job, JobStore, StoreError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::cut::Wire;
use crate::redis_server::RedisServer;
use crate::sample::{append, failed, job, paid_run, signed, text, win};
use crate::subject::{BRIEF, LONG, RETENTION, SHORT, Subject};
use crate::suite::conformance;

conformance!(super::redis::subject, ignore = "needs redis-server; `make test` runs it");

pub(crate) async fn subject() -> Subject {
    let server = RedisServer::start(&[]);
    let store: Arc<dyn JobStore> = Arc::new(connect(&server.url()).await);
    let other: Arc<dyn JobStore> = Arc::new(connect(&server.url()).await);
    Subject { store, other, clock: Clock::system(), manual: false, _keep: Box::new(server) }
}

async fn connect(url: &str) -> Redis {
    Redis::connect(url, "test", RETENTION).await.unwrap()
}

async fn refusal(url: &str) -> OpenError {
    match Redis::connect(url, "test", RETENTION).await {
        Ok(_) => panic!("connected to {url}"),
        Err(refused) => refused,
    }
}

fn now() -> u64 {
    Clock::system().now_millis()
}

/// A connection that the store knows nothing of.
async fn raw(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_restarted_server_is_found_again_with_all_it_acknowledged() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = connect(&server.url()).await;
    let (at, lease) = win(&store, &job(1, now()), LONG).await;
    let at = append(&store, &lease, &Event::Verified, &at).await;

    server.kill();
    let event = signed(&at);
    let next = at.apply(&event, at.updated).unwrap();
    for _ in 0..2 {
        let begun = Instant::now();
        let away = store.append(&lease, &event, &next).await;
        assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "the caller was kept waiting");
    }

    server.start_again();
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.append(&lease, &event, &next).await.is_err() {
        assert!(Instant::now() < deadline, "it never recovers");
    }
    // It might have forgotten something: until everybody had time to say so, what is there is not believed.
    while store.by_claim(&at.claim).await.is_err() {
        assert!(Instant::now() < deadline, "it is never believed again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(text(&store.by_claim(&at.claim).await.unwrap().unwrap()), text(&next));
    assert_eq!(store.journal(&at.claim).await.unwrap().len(), 2);
    assert!(store.take_over(&at.claim, LONG).await.unwrap().is_none(), "the lease outlives the server");
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_server_that_stands_still_is_away_and_its_outcome_unknown() {
    let server = RedisServer::start(&[]);
    let store = connect(&server.url()).await;
    win(&store, &job(1, now()), LONG).await;
    server.signal("STOP");
    let begun = Instant::now();
    let claimed = store.claim(&job(2, now()), LONG).await;
    server.signal("CONT");
    assert!(matches!(claimed, Err(StoreError::Away(_))), "{claimed:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // It was done after all. A new call is a new claimant, and must not believe that the job is its own.
    let Claim::Taken(_) = store.claim(&job(2, now()), LONG).await.unwrap() else { panic!("two winners") };
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_done_twice() {
    let server = RedisServer::start(&[]);
    let wire = Wire::to(server.port).await;
    let store = connect(&format!("redis://127.0.0.1:{}", wire.port)).await;
    // Loads every script, so that the answer that gets lost is that of the script itself.
    let (warm, lease) = win(&store, &job(0, now()), LONG).await;
    let warm = append(&store, &lease, &failed(), &warm).await;
    store.take_over(&warm.claim, LONG).await.unwrap().unwrap();
    store.put_new("keys", "warm", b"1", None).await.unwrap();

    wire.lose_next_answer();
    let (at, lease) = win(&store, &job(1, now()), LONG).await;
    assert!(wire.lost());
    wire.lose_next_answer();
    append(&store, &lease, &failed(), &at).await;
    assert!(wire.lost());
    assert_eq!(store.journal(&at.claim).await.unwrap().len(), 1);
    wire.lose_next_answer();
    let (_, lease) = store.take_over(&at.claim, LONG).await.unwrap().unwrap();
    assert!(wire.lost());
    assert_eq!(lease.epoch, 2);

    // These cannot tell their own work from another's: the caller has to know.
    wire.lose_next_answer();
    let added = store.add("spent", "today", 5).await;
    assert!(matches!(added, Err(StoreError::Away(_))), "{added:?}");
    // Connected again, so that the next answer lost is not that to the greeting.
    store.get("keys", "warm").await.unwrap();
    wire.lose_next_answer();
    let put = store.put_new("keys", "hmac", b"1", None).await;
    assert!(matches!(put, Err(StoreError::Away(_))), "{put:?}");
    assert_eq!(store.add("spent", "today", 0).await.unwrap(), 5);
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn two_gateways_claiming_at_the_same_moment_are_told_apart() {
    // The same quote id, the same millisecond: records equal to the last byte, and still one winner.
    let server = RedisServer::start(&[]);
    let (a, b) = (connect(&server.url()).await, connect(&server.url()).await);
    for number in 0..32 {
        let job = job(number, now());
        let (a, b) = tokio::join!(a.claim(&job, LONG), b.claim(&job, LONG));
        assert!(matches!(
            (a.unwrap(), b.unwrap()),
            (Claim::Won(..), Claim::Taken(_)) | (Claim::Taken(_), Claim::Won(..))
        ));
    }
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn every_key_has_the_hash_tag_and_prefixes_do_not_meet() {
    let server = RedisServer::start(&[]);
    let (a, b) =
        (connect(&server.url()).await, Redis::connect(&server.url(), "other", RETENTION).await.unwrap());
    for store in [&a, &b] {
        let (at, lease) = win(store, &job(1, now()), LONG).await;
        append(store, &lease, &Event::Verified, &at).await;
        store.put("keys", "hmac", b"1", Some(LONG)).await.unwrap();
        assert_eq!(store.add("spent", "today", 1).await.unwrap(), 1);
    }
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut raw(&server).await).await.unwrap();
    assert_eq!(keys.len(), 12, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("{test}:") || key.starts_with("{other}:")), "{keys:?}");
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn expired_jobs_leave_nothing_behind() {
    let server = RedisServer::start(&[]);
    let store = connect(&server.url()).await;
    let age = u64::try_from((RETENTION + Duration::from_secs(600) - BRIEF).as_millis()).unwrap();
    let live = async |job: Job, complete: bool| {
        let (mut at, lease) = win(&store, &job, LONG).await;
        let life = if complete { paid_run(&at).to_vec() } else { vec![failed()] };
        for event in life {
            at = append(&store, &lease, &event, &at).await;
        }
    };
    for number in 0..4 {
        // By turns, as it happens.
        live(job(number, now() - age), false).await;
        live(job(100 + number, now() - age), true).await;
        store.put("quotes", &number.to_string(), b"1", Some(BRIEF)).await.unwrap();
    }
    tokio::time::sleep(BRIEF + SHORT).await;
    // Those that come take twice as many that are past out of the indexes, jobs all at once; the keys go by themselves.
    for number in 4..20 {
        live(job(number, now()), false).await;
        live(job(100 + number, now()), true).await;
        store.put("quotes", &number.to_string(), b"1", None).await.unwrap();
    }
    let mut raw = raw(&server).await;
    let left = [("rest:voided", 16), ("rest:completed", 16), ("space:quotes", 16), ("open", 0)];
    for (index, left) in left.map(|(index, left)| (format!("{{test}}:{index}"), left)) {
        let members: usize = redis::cmd("ZCARD").arg(&index).query_async(&mut raw).await.unwrap();
        assert_eq!(members, left, "{index}");
    }
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut raw).await.unwrap();
    assert_eq!(keys.len(), 4 * 16 + 16 + 3, "{keys:?}");
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_server_that_would_lose_jobs_is_refused() {
    let evicts = RedisServer::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let refused = refusal(&evicts.url()).await;
    assert!(matches!(&refused, OpenError::Evicts { policy } if policy == "allkeys-lru"), "{refused:?}");
    assert!(refused.to_string().contains("noeviction"), "{refused}");

    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", "1"]);
    let refused = refusal(&replica.url()).await;
    assert!(matches!(refused, OpenError::Replica { .. }), "{refused:?}");

    let cluster = RedisServer::start(&["--cluster-enabled", "yes"]);
    let refused = refusal(&cluster.url()).await;
    assert!(matches!(refused, OpenError::Unsupported("Cluster")), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn jobs_of_builds_that_laid_them_out_otherwise_are_not_overlooked() {
    let server = RedisServer::start(&[]);
    let mut raw = raw(&server).await;
    let () = redis::cmd("ZADD")
        .arg("{test}:state:held")
        .arg("+inf")
        .arg("id")
        .query_async(&mut raw)
        .await
        .unwrap();
    let refused = refusal(&server.url()).await;
    assert!(matches!(&refused, OpenError::OldLayout { prefix } if prefix == "test"), "{refused:?}");
    assert!(refused.to_string().contains("store.prefix"), "{refused}");
    Redis::connect(&server.url(), "other", RETENTION).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_job_that_comes_to_rest_is_counted_all_the_while() {
    let server = RedisServer::start(&[]);
    let store = Arc::new(connect(&server.url()).await);
    let mut open = Vec::new();
    for number in 0..400 {
        open.push(win(&*store, &job(number, now()), LONG).await);
    }
    let jobs = open.len() as u64;
    let moving = Arc::clone(&store);
    let moves = tokio::spawn(async move {
        for (at, lease) in open {
            append(&*moving, &lease, &failed(), &at).await;
        }
    });
    while !moves.is_finished() {
        let counts = store.count_by_state().await.unwrap();
        assert!(counts.iter().map(|(_, count)| count).sum::<u64>() >= jobs, "{counts:?}");
    }
    moves.await.unwrap();
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_password_is_asked_for_and_never_shown() {
    let server = RedisServer::start(&["--requirepass", "hunter2"]);
    connect(&format!("redis://:hunter2@127.0.0.1:{}", server.port)).await;
    for url in [server.url(), format!("redis://:hunter3@127.0.0.1:{}", server.port)] {
        let refused = refusal(&url).await;
        assert!(matches!(refused, OpenError::Denied { .. }), "{refused:?}");
        assert!(!format!("{refused:?} {refused}").contains("hunter"), "{refused:?}");
    }
    // A user who may not run INFO is served, with a warning.
    let rules = ["SETUSER", "gateway", "on", ">hunter4", "~*", "+@all", "-info", "-config"];
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port);
    let mut admin = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("ACL").arg(&rules).query_async(&mut admin).await.unwrap();
    let store = connect(&format!("redis://gateway:hunter4@127.0.0.1:{}", server.port)).await;
    win(&store, &job(1, now()), LONG).await;
}

#[tokio::test]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_plain_server_does_not_pass_for_tls() {
    let server = RedisServer::start(&[]);
    let refused = refusal(&format!("rediss://127.0.0.1:{}", server.port)).await;
    assert!(matches!(refused, OpenError::Away { .. }), "{refused:?}");
}

#[tokio::test]
async fn nobody_there_is_said_soon_and_plainly() {
    // Bound, so that nobody else is given the port, and not listening.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = nobody.local_addr().unwrap().port();
    let begun = Instant::now();
    let refused = refusal(&format!("redis://127.0.0.1:{port}")).await;
    assert!(
        matches!(&refused, OpenError::Away { address, .. } if address.ends_with(&port.to_string())),
        "{refused:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(matches!(refusal("redis+sentinel://127.0.0.1").await, OpenError::Url(_)));
    let refused = Redis::connect(&format!("redis://127.0.0.1:{port}"), "a{b", RETENTION).await;
    assert!(matches!(refused, Err(OpenError::Prefix)));
}

#[tokio::test]
async fn a_server_without_resp3_is_too_old() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    // Answers as Redis 5 does, as often as it is tried.
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (requests, mut answers) = stream.into_split();
            let mut lines = BufReader::new(requests).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if matches!(line.as_str(), "HELLO" | "CLIENT") {
                    let unknown = format!("-ERR unknown command `{line}`, with args beginning with: \r\n");
                    answers.write_all(unknown.as_bytes()).await.unwrap();
                }
            }
        }
    });
    let refused = refusal(&url).await;
    assert!(matches!(refused, OpenError::TooOld { .. }), "{refused:?}");
    server.abort();
}
