//! Old jobs leave the store for the archive, and the books say the same before, after, and whatever is killed in between.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use galaksio::clock::Clock;
use galaksio::jobs::archive::{self, ArchiveError, Keeper};
use galaksio::jobs::embedded::{Embedded, OpenError};
use galaksio::jobs::redis::Redis;
use galaksio::jobs::{Claim, Entry, Event, Job, JobStore, Retention, State};
use galaksio::ledger::{Account, collect};
use tempfile::TempDir;

use crate::redis_server::RedisServer;
use crate::sample::{append, failed, job, paid_run, settled, win};
use crate::subject::{LONG, RETENTION};

const START: u64 = 1_800_000_000_000;
/// Older than what is kept, and than the margin beyond that.
const OLD: u64 = START - 3_600_000;
const KEPT: Retention = Retention { time: RETENTION, archived: true };

/// Set for the child: the store's file or URL, and the archive.
const STORE: &str = "GALAKSIO_TEST_ARCHIVE_STORE";
const FOLDER: &str = "GALAKSIO_TEST_ARCHIVE_FOLDER";

/// What comes and goes with a test.
enum Home {
    File(TempDir),
    Server(RedisServer, TempDir),
}

impl Home {
    fn file() -> Home {
        Home::File(tempfile::tempdir().unwrap())
    }

    fn server() -> Home {
        Home::Server(RedisServer::start(&[]), tempfile::tempdir().unwrap())
    }

    /// The store's file or URL.
    fn store(&self) -> String {
        match self {
            Home::File(folder) => folder.path().join("jobs.redb").to_str().unwrap().to_owned(),
            Home::Server(server, _) => server.url(),
        }
    }

    fn archive(&self) -> PathBuf {
        let (Home::File(folder) | Home::Server(_, folder)) = self;
        folder.path().join("archive")
    }

    /// The archive's files.
    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.archive())
            .map(|files| files.map(|file| file.unwrap().path()).collect())
            .unwrap_or_default()
    }
}

async fn open(store: &str) -> Arc<dyn JobStore> {
    if store.starts_with("redis:") {
        return Arc::new(Redis::connect(store, "test", KEPT).await.unwrap());
    }
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        match Embedded::open(Path::new(store), KEPT, Clock::manual(START)) {
            // Whoever was killed may take a moment to be gone.
            Err(OpenError::InUse(_)) if Instant::now() < give_up => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => return Arc::new(opened.unwrap()),
        }
    }
}

fn keeper(store: &Arc<dyn JobStore>, folder: PathBuf, accounted_for: u64) -> Keeper {
    let accounted_for = Box::new(move || -> futures_util::future::BoxFuture<'static, _> {
        Box::pin(async move { Ok(accounted_for) })
    });
    Keeper::new(Arc::clone(store), folder, RETENTION, Clock::manual(START), accounted_for)
}

/// Lives through these events.
async fn live(store: &dyn JobStore, fresh: &Job, life: &[Event]) -> Job {
    let (mut at, lease) = win(store, fresh, LONG).await;
    for event in life {
        at = append(store, &lease, event, &at).await;
    }
    at
}

async fn sold(store: &dyn JobStore, fresh: &Job) -> Job {
    live(store, fresh, &own(fresh)).await
}

/// A paid job's life, under a nonce of its own.
fn own(fresh: &Job) -> [Event; 4] {
    let mut life = paid_run(fresh);
    if let Event::Signed { payment } = &mut life[1] {
        payment.nonce = fresh.claim.nonce().unwrap();
    }
    life
}

/// What the books say of each account; they must balance.
async fn books(store: &Arc<dyn JobStore>, folder: Option<PathBuf>) -> Vec<(&'static str, i128)> {
    let books = collect(&**store, folder).await.unwrap();
    assert_eq!(books.check(), []);
    let asset = job(1, START).client.requirement.asset.clone();
    Account::ALL.map(|account| (account.name(), books.balance(&asset, account).unwrap())).to_vec()
}

fn archived(folder: &Path) -> Vec<(Job, Vec<Entry>)> {
    let mut found = Vec::new();
    archive::read(folder, |job, journal| found.push((job, journal))).unwrap();
    found
}

async fn old_jobs_leave_and_the_books_stay(home: Home) {
    let store = open(&home.store()).await;
    let mut gone = Vec::new();
    for number in 0..3 {
        gone.push(sold(&*store, &job(number, OLD)).await);
    }
    let mut stay = vec![sold(&*store, &job(3, START)).await];
    let lives: [&[Event]; 4] =
        [&[Event::SettleFirst, settled(), failed()], &[Event::Verified], &[], &own(&job(7, OLD))[..3]];
    for (number, life) in (4..).zip(lives) {
        stay.push(live(&*store, &job(number, OLD), life).await);
    }
    // Its payment is not lapsed though it is long done: it can still be presented.
    let mut payable = job(9, OLD);
    Arc::make_mut(&mut payable.client).valid_before = START / 1000;
    stay.push(sold(&*store, &payable).await);
    let before = books(&store, None).await;

    // Nobody has seen yet what became of the payments.
    assert_eq!(keeper(&store, home.archive(), OLD / 1000).round().await.unwrap(), 0);
    let mut keep = keeper(&store, home.archive(), u64::MAX);
    assert_eq!(keep.round().await.unwrap(), 3);
    assert_eq!(keep.round().await.unwrap(), 0);
    assert_eq!(keeper(&store, home.archive(), u64::MAX).round().await.unwrap(), 0, "after a restart");
    for job in &gone {
        assert!(store.by_claim(&job.claim).await.unwrap().is_none());
        assert!(store.by_id(job.id).await.unwrap().is_none());
        assert!(store.journal(&job.claim).await.unwrap().is_empty());
    }
    for job in &stay {
        assert_eq!(store.by_id(job.id).await.unwrap().unwrap().version, job.version, "{}", job.state.name());
    }
    let counts = store.count_by_state().await.unwrap();
    let of = |state| counts.iter().find(|(found, _)| *found == state).unwrap().1;
    assert_eq!((of(State::Completed), of(State::RefundDue)), (2, 1));

    assert_eq!(books(&store, Some(home.archive())).await, before);
    assert_ne!(books(&store, None).await, before);
    let mut found = archived(&home.archive());
    found.sort_by_key(|(job, _)| job.id);
    gone.sort_by_key(|job| job.id);
    for ((found, journal), gone) in found.iter().zip(&gone) {
        assert_eq!(
            (&found.claim, found.version, &found.provider),
            (&gone.claim, gone.version, &gone.provider)
        );
        assert_eq!(journal.len() as u64, gone.version);
        assert!(found.answer.is_none() && found.client.quote_id.is_none());
    }
    let text = std::fs::read_to_string(&home.files()[0]).unwrap();
    assert!(!text.contains("signature") && home.files().len() == 1, "{text}");
}

/// As a process leaves it that is killed after it wrote the archive, and before the store let go of all that it wrote.
async fn what_was_written_and_not_let_go_is_counted_once(home: Home) {
    let store = open(&home.store()).await;
    let jobs: Vec<Job> = (0..5).map(|number| job(number, OLD)).collect();
    for fresh in &jobs {
        sold(&*store, fresh).await;
    }
    let before = books(&store, None).await;
    assert_eq!(keeper(&store, home.archive(), u64::MAX).round().await.unwrap(), 5);
    for fresh in &jobs[2..] {
        sold(&*store, fresh).await;
    }
    // And in the middle of a line.
    let part = std::fs::read_to_string(&home.files()[0]).unwrap()[..40].to_owned();
    std::fs::write(home.archive().join("2027-01-15-cut.jsonl"), &part).unwrap();
    assert_eq!(books(&store, Some(home.archive())).await, before);

    assert_eq!(keeper(&store, home.archive(), u64::MAX).round().await.unwrap(), 3);
    assert_eq!(books(&store, Some(home.archive())).await, before);
    assert_eq!(archived(&home.archive()).len(), 5);
    // Once it is finished, a line that cannot be read is an error that says where.
    std::fs::write(home.archive().join("2027-01-15-cut.jsonl"), part + "\n").unwrap();
    let error = archive::read(&home.archive(), |_, _| ()).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::Line { line: 1, path, .. } if path.ends_with("2027-01-15-cut.jsonl"))
    );
    assert!(collect(&*store, Some(home.archive())).await.is_err());
}

async fn an_archive_that_cannot_be_written_loses_nothing(home: Home) {
    let store = open(&home.store()).await;
    let old = sold(&*store, &job(1, OLD)).await;
    std::fs::write(home.archive(), "a file where the folder should be").unwrap();
    let mut keep = keeper(&store, home.archive(), u64::MAX);
    assert!(keep.round().await.is_err());
    assert!(store.by_id(old.id).await.unwrap().is_some());
    std::fs::remove_file(home.archive()).unwrap();
    assert_eq!(keep.round().await.unwrap(), 1);
}

/// A process that is killed while it archives, again and again.
async fn killed_while_it_archives(home: Home) {
    const MORE: u64 = 200;
    let mut before = Vec::new();
    for round in 1..=3 {
        let store = open(&home.store()).await;
        let all = join_all((MORE * (round - 1)..MORE * round).map(|number| {
            let store = Arc::clone(&store);
            async move { sold(&*store, &job(number, OLD)).await }
        }));
        all.await;
        before = books(&store, Some(home.archive())).await;
        drop(store);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "archive::child", "--nocapture"])
            .env(STORE, home.store())
            .env(FOLDER, home.archive())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Something is written: it lets go of that now.
        let give_up = Instant::now() + Duration::from_secs(60);
        let written = |path: &PathBuf| path.metadata().unwrap().len() > 0;
        while (home.files().iter().filter(|path| written(path)).count() as u64) < round {
            assert!(Instant::now() < give_up, "the child does nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(&home.store()).await;
        assert_eq!(books(&store, Some(home.archive())).await, before, "killed {round} times");
    }
    let store = open(&home.store()).await;
    keeper(&store, home.archive(), u64::MAX).round().await.unwrap();
    assert_eq!(archived(&home.archive()).len() as u64, 3 * MORE);
    assert_eq!(books(&store, Some(home.archive())).await, before);
    let income = before.iter().find(|(account, _)| *account == "income").unwrap().1;
    assert_eq!(income, -i128::from(3 * MORE) * 12_000);
    let Claim::Won(..) = store.claim(&job(1, START), LONG).await.unwrap() else { panic!("not let go") };
}

/// The child of [`killed_while_it_archives`]; without its environment it does nothing.
#[tokio::test]
async fn child() {
    if let (Ok(store), Ok(folder)) = (std::env::var(STORE), std::env::var(FOLDER)) {
        let store = open(&store).await;
        keeper(&store, folder.into(), u64::MAX).round().await.unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
}

macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod on_a_file {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::Home::file()).await })+
        }
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs redis-server; `make test` runs it"]
            async fn $case() { super::$case(super::Home::server()).await })+
        }
    };
}

on_both!(
    old_jobs_leave_and_the_books_stay,
    what_was_written_and_not_let_go_is_counted_once,
    an_archive_that_cannot_be_written_loses_nothing,
    killed_while_it_archives,
);
