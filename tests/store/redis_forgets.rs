//! A Redis that comes back without the last of what it acknowledged: what is missing of the jobs that somebody has in hand is
//! written again, and nothing else is believed until then.

use std::time::{Duration, Instant};

use galaksio::clock::Clock;
use galaksio::jobs::redis::Redis;
use galaksio::jobs::{Appended, Claim, Event, Job, JobStore, Lease, State, StoreError, ValueStore as _};
use tempfile::TempDir;

use crate::redis_server::RedisServer;
use crate::sample::{append, failed, job, paid_run, reopened, settled, signed, text, win};
use crate::subject::{LONG, RETENTION, SHORT};

/// It is down, it is reached again, and everybody had time to say what he knows: on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// One that has on disk what it acknowledged, so that a copy of that is a moment to go back to.
fn server() -> RedisServer {
    RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"])
}

async fn connect(server: &RedisServer) -> Redis {
    Redis::connect(&server.url(), "test", RETENTION).await.unwrap()
}

fn now() -> u64 {
    Clock::system().now_millis()
}

/// Asks until the store says what it knows.
async fn believed<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(said) => return said,
            Err(StoreError::Away(_)) => assert!(Instant::now() < give_up, "it is never believed again"),
            Err(unreadable) => panic!("{unreadable}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn forget_all(server: &RedisServer) {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
}

async fn names(store: &Redis, job: &Job) -> Vec<&'static str> {
    store.journal(&job.claim).await.unwrap().iter().map(|entry| entry.event.name()).collect()
}

/// As it is in the store, the same in every place.
async fn is_there(store: &Redis, at: &Job, lines: &[&str], held: bool) {
    assert_eq!(text(&store.by_claim(&at.claim).await.unwrap().expect("the job")), text(at));
    assert_eq!(text(&store.by_id(at.id).await.unwrap().expect("the job's id")), text(at));
    assert_eq!(names(store, at).await, lines);
    assert_eq!(store.in_state(at.state, 10).await.unwrap(), [at.id]);
    let counts = store.count_by_state().await.unwrap();
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    assert_eq!(all, 1, "it is in one place: {counts:?}");
    assert!(store.due(10).await.unwrap().is_empty(), "it is nobody's");
    if held {
        assert!(store.take_over(&at.claim, LONG).await.unwrap().is_none(), "its lease is forgotten");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn a_job_in_hand_is_written_again_from_wherever_it_was_lost() {
    // How many of its events are known to the server that comes back; `None`: not even the claim.
    let rounds = [None, Some(0), Some(1), Some(2), Some(3), Some(4)].map(async |kept: Option<usize>| {
        let mut server = server();
        let (store, other) = (connect(&server).await, connect(&server).await);
        let mut then: Option<TempDir> = kept.is_none().then(|| server.remember());
        let fresh = job(1, now());
        let (mut at, lease) = win(&store, &fresh, LONG).await;
        let mut lease = lease;
        let life: [fn(&Job) -> Event; 4] = [|_| failed(), |_| reopened(), |_| Event::Verified, signed];
        for (number, event) in life.iter().enumerate() {
            if kept == Some(number) {
                then = Some(server.remember());
            }
            if at.state.at_rest() {
                (at, lease) = store.take_over(&at.claim, LONG).await.unwrap().unwrap();
            }
            at = append(&store, &lease, &event(&at), &at).await;
        }
        let then = then.unwrap_or_else(|| server.remember());
        server.go_back_to(&then);

        // Whoever asks somewhere else is told nothing at first, and then what is true.
        let Claim::Taken(found) = believed(async || other.claim(&fresh, LONG).await).await else {
            panic!("claimed twice: the server knew {kept:?} of its events")
        };
        assert_eq!(text(&found), text(&at));
        is_there(&other, &at, &["work_failed", "reopened", "verified", "signed"], true).await;
        // And it goes on.
        let at = append(&store, &lease, &crate::sample::answered(b"42"), &at).await;
        let at = append(&store, &lease, &settled(), &at).await;
        assert_eq!(text(&other.by_claim(&at.claim).await.unwrap().unwrap()), text(&at));
    });
    futures_util::future::join_all(rounds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn one_that_ended_a_moment_ago_is_written_again() {
    for kept in [None, Some(0), Some(3)] {
        let mut server = server();
        let (store, other) = (connect(&server).await, connect(&server).await);
        let mut then: Option<TempDir> = kept.is_none().then(|| server.remember());
        let fresh = job(1, now());
        let (mut at, lease) = win(&store, &fresh, LONG).await;
        for (number, event) in paid_run(&fresh).iter().enumerate() {
            if kept == Some(number) {
                then = Some(server.remember());
            }
            at = append(&store, &lease, event, &at).await;
        }
        assert_eq!(at.state, State::Completed);
        drop(lease);
        if kept.is_none() {
            // It takes a while until another takes its place, and nothing says that it is gone.
            server.signal("STOP");
            tokio::time::sleep(Duration::from_secs(11)).await;
        }
        server.go_back_to(&then.unwrap());
        let Claim::Taken(found) = believed(async || other.claim(&fresh, LONG).await).await else {
            panic!("claimed twice")
        };
        assert_eq!(text(&found), text(&at), "with its answer and its receipt");
        is_there(&other, &at, &["verified", "signed", "answered", "settled"], false).await;
        // It rests, and expires like any other.
        let client = redis::Client::open(server.url()).unwrap();
        let mut raw = client.get_multiplexed_async_connection().await.unwrap();
        let key = format!("{{test}}:job:{}", at.claim.as_str());
        let expires: i64 = redis::cmd("PEXPIRETIME").arg(&key).query_async(&mut raw).await.unwrap();
        assert_eq!(u64::try_from(expires).unwrap(), at.keep_until(RETENTION).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn nothing_is_believed_until_everybody_had_time_to_say_what_he_knows() {
    let mut server = server();
    let (store, other) = (connect(&server).await, connect(&server).await);
    let then = server.remember();
    let fresh = job(1, now());
    let (at, _lease) = win(&store, &fresh, LONG).await;
    server.go_back_to(&then);
    let begun = Instant::now();
    // Until it is reached again there is an error of another kind.
    let refused = async || match other.claim(&fresh, LONG).await {
        Err(StoreError::Away(why)) if why.contains("another run") => Ok(()),
        said => Err(StoreError::Away(format!("{said:?}"))),
    };
    believed(refused).await;
    assert!(other.by_claim(&at.claim).await.is_err(), "it is not there, which proves nothing");
    assert!(other.by_id(at.id).await.is_err());
    assert!(other.take_over(&at.claim, LONG).await.is_err());
    assert!(other.due(10).await.is_err());
    believed(async || other.by_claim(&at.claim).await).await.expect("the job");
    assert!(begun.elapsed() >= Duration::from_secs(2), "others had no time: {:?}", begun.elapsed());
}

/// The server does not say that it is another: what was lost is found out when it is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn what_is_missing_when_it_is_needed_is_written_again() {
    let server = server();
    let store = connect(&server).await;
    let (at, lease) = win(&store, &job(1, now()), LONG).await;
    let at = append(&store, &lease, &Event::Verified, &at).await;
    forget_all(&server).await;
    let at = append(&store, &lease, &signed(&at), &at).await;
    is_there(&store, &at, &["verified", "signed"], true).await;
    forget_all(&server).await;
    assert_eq!(store.renew(&lease, LONG).await.unwrap(), Appended::Written);
    is_there(&store, &at, &["verified", "signed"], true).await;
    // One that was given back may be had by anybody, also then.
    forget_all(&server).await;
    store.release(&lease).await.unwrap();
    let (taken, heir) = store.take_over(&at.claim, LONG).await.unwrap().unwrap();
    assert_eq!((text(&taken), heir.epoch), (text(&at), 2));
    // What its holder has brought to rest is not brought back by him: it may be gone with good reason.
    let held = append(&store, &heir, &failed(), &at).await;
    forget_all(&server).await;
    assert_eq!(store.renew(&heir, LONG).await.unwrap(), Appended::Fenced);
    assert!(store.by_claim(&held.claim).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn what_another_has_taken_meanwhile_is_his() {
    let mut server = server();
    let (store, other) = (connect(&server).await, connect(&server).await);
    let fresh = job(1, now());
    let (at, lease) = win(&store, &fresh, LONG).await;
    let at = append(&store, &lease, &Event::Verified, &at).await;
    forget_all(&server).await;
    // The same epoch, and not the same lease.
    let (theirs, heir) = win(&other, &fresh, LONG).await;
    assert_eq!(heir.epoch, lease.epoch);
    fenced(&store, &lease, &at).await;
    // Both write what they know, and it is still whose it was.
    let then = server.remember();
    server.go_back_to(&then);
    believed(async || store.by_claim(&at.claim).await).await;
    is_there(&other, &theirs, &[], true).await;
    fenced(&store, &lease, &at).await;
    let theirs = append(&other, &heir, &Event::Verified, &theirs).await;
    fenced(&store, &lease, &at).await;
    let theirs = append(&other, &heir, &signed(&theirs), &theirs).await;
    fenced(&store, &lease, &at).await;
    is_there(&other, &theirs, &["verified", "signed"], true).await;
}

/// Neither writes nor keeps its job.
async fn fenced(store: &Redis, lease: &Lease, at: &Job) {
    let event = signed(at);
    let next = at.apply(&event, at.updated).unwrap();
    assert_eq!(store.append(lease, &event, &next).await.unwrap(), Appended::Fenced);
    assert_eq!(store.renew(lease, LONG).await.unwrap(), Appended::Fenced);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn who_was_fenced_stays_fenced_when_the_server_forgets_by_whom() {
    let mut server = server();
    let (store, other) = (connect(&server).await, connect(&server).await);
    let (at, zombie) = win(&store, &job(1, now()), SHORT).await;
    let at = append(&store, &zombie, &Event::Verified, &at).await;
    let then = server.remember();
    let (taken, heir) = believed(async || {
        other.take_over(&at.claim, LONG).await?.ok_or_else(|| StoreError::Away("its lease lasts".into()))
    })
    .await;
    let theirs = append(&other, &heir, &signed(&taken), &taken).await;
    server.go_back_to(&then);
    believed(async || store.by_claim(&at.claim).await).await;
    fenced(&store, &zombie, &at).await;
    is_there(&store, &theirs, &["verified", "signed"], true).await;
    append(&other, &heir, &crate::sample::answered(b"42"), &theirs).await;
}

/// It was taken over, the server forgot that, and the one before went on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn lines_of_another_are_never_written_over() {
    let mut server = server();
    let (store, other) = (connect(&server).await, connect(&server).await);
    let (at, first) = win(&store, &job(1, now()), SHORT).await;
    let then = server.remember();
    let (taken, heir) = believed(async || {
        other.take_over(&at.claim, LONG).await?.ok_or_else(|| StoreError::Away("its lease lasts".into()))
    })
    .await;
    let theirs = append(&other, &heir, &Event::Verified, &taken).await;
    drop(other);
    server.go_back_to(&then);
    // The heir's gateway hears of it only when the first has gone on.
    let written =
        believed(async || store.append(&first, &failed(), &at.apply(&failed(), now()).unwrap()).await);
    assert_eq!(written.await, Appended::Written);
    let late = connect(&server).await;
    let event = signed(&theirs);
    let next = theirs.apply(&event, theirs.updated).unwrap();
    assert_eq!(late.append(&heir, &event, &next).await.unwrap(), Appended::Fenced);
    assert_eq!(names(&late, &at).await, ["work_failed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn who_may_not_ask_takes_every_broken_connection_for_a_crash() {
    let server = server();
    let client = redis::Client::open(server.url()).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    let rules = ["SETUSER", "gateway", "on", ">one", "~*", "+@all", "-info"];
    let () = redis::cmd("ACL").arg(&rules).query_async(&mut admin).await.unwrap();
    let url = format!("redis://gateway:one@127.0.0.1:{}", server.port);
    let store = Redis::connect(&url, "test", RETENTION).await.unwrap();
    let (at, lease) = win(&store, &job(1, now()), LONG).await;
    let killed: u32 =
        redis::cmd("CLIENT").arg(&["KILL", "USER", "gateway"]).query_async(&mut admin).await.unwrap();
    assert_eq!(killed, 1);
    let refused = async || match store.claim(&job(2, now()), LONG).await {
        Err(StoreError::Away(why)) if why.contains("another run") => Ok(()),
        said => Err(StoreError::Away(format!("{said:?}"))),
    };
    believed(refused).await;
    // What is in work goes on.
    append(&store, &lease, &Event::Verified, &at).await;
    believed(async || store.claim(&job(2, now()), LONG).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; `make test` runs it"]
async fn values_that_are_gone_are_said_again_and_no_other() {
    let mut server = server();
    let (store, other) = (connect(&server).await, connect(&server).await);
    store.put("epochs", "old", b"1", None).await.unwrap();
    let then = server.remember();
    store.put("epochs", "old", b"2", None).await.unwrap();
    store.put("epochs", "new", b"3", Some(LONG)).await.unwrap();
    assert_eq!(store.put_new("names", "a", b"4", Some(LONG)).await.unwrap(), None);
    assert_eq!(other.put_new("names", "a", b"5", Some(LONG)).await.unwrap().as_deref(), Some(&b"4"[..]));
    server.go_back_to(&then);
    believed(async || store.due(1).await).await;
    let get = async |space, key| other.get(space, key).await.unwrap();
    assert_eq!(get("epochs", "new").await.as_deref(), Some(&b"3"[..]));
    assert_eq!(get("names", "a").await.as_deref(), Some(&b"4"[..]), "of two the one that had it");
    assert_eq!(other.list("epochs").await.unwrap().len(), 2);
    // It may be newer.
    assert_eq!(get("epochs", "old").await.as_deref(), Some(&b"1"[..]));
    let client = redis::Client::open(server.url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let left: u64 = redis::cmd("PTTL").arg("{test}:value:epochs/new").query_async(&mut raw).await.unwrap();
    assert!(left > 0 && left <= LONG.as_millis() as u64, "{left}");
}
