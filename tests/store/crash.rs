//! SIGKILL in the middle of writing: whatever was acknowledged must be there afterwards.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use galaksio::clock::Clock;
use galaksio::jobs::embedded::Embedded;
use galaksio::jobs::{Claim, Event, JobStore};

use crate::sample::{append, job, win};
use crate::subject::{LONG, RETENTION};

/// Set for the child: where it writes, without end.
const FILE: &str = "GALAKSIO_TEST_CRASH_FILE";

const NOW: u64 = 1_800_000_000_000;

/// Claims and appends, and says so on `acknowledged` after each, until `enough`.
async fn write(path: &Path, mut acknowledged: impl Write, enough: u64) {
    let store = Embedded::open(path, RETENTION, Clock::system()).unwrap();
    for n in 0..enough {
        let (at, lease) = win(&store, &job(n, NOW), LONG).await;
        writeln!(acknowledged, "claimed {n}").unwrap();
        append(&store, &lease, &Event::Verified, &at).await;
        writeln!(acknowledged, "verified {n}").unwrap();
    }
}

/// The child of the test below when [`FILE`] is set; else a check that its loop writes what it says.
#[tokio::test]
async fn child() {
    match std::env::var_os(FILE) {
        Some(path) => write(Path::new(&path), std::io::stdout(), u64::MAX).await,
        None => {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("jobs.redb");
            let mut acknowledged = Vec::new();
            write(&path, &mut acknowledged, 3).await;
            check(&path, String::from_utf8(acknowledged).unwrap().lines()).await;
        }
    }
}

#[tokio::test]
async fn every_acknowledged_write_survives_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    // Killed after another number of writes each time, so at another point of the next one.
    for (round, enough) in [1, 2, 7, 30, 61].into_iter().enumerate() {
        let path = directory.path().join(format!("{round}.redb"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let said = |line: &String| line.starts_with("claimed ") || line.starts_with("verified ");
        let mut acknowledged: Vec<String> = lines.by_ref().filter(said).take(enough).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.filter(said));
        assert!(acknowledged.len() >= enough, "the child ended by itself: {acknowledged:?}");
        check(&path, acknowledged.iter().map(String::as_str)).await;
    }
}

/// Opens the store again and looks for everything that `acknowledged` says was written.
async fn check(path: &Path, acknowledged: impl Iterator<Item = &str>) {
    let store = Embedded::open(path, RETENTION, Clock::system()).unwrap();
    let mut next = 0;
    for line in acknowledged {
        let (what, n) = line.split_once(' ').unwrap();
        let n = n.parse().unwrap();
        next = next.max(n + 1);
        let found = store.by_claim(&job(n, NOW).claim).await.unwrap();
        let found = found.unwrap_or_else(|| panic!("{line} is lost"));
        let journal = store.journal(&found.claim).await.unwrap();
        assert!(found.version >= u64::from(what == "verified"), "{line} is lost");
        assert_eq!(journal.len() as u64, found.version, "record and journal disagree on {n}");
        assert_eq!(store.by_id(found.id).await.unwrap().unwrap().claim, found.claim);
    }
    // One write may have reached the disk unheard; the store goes on after it.
    let Claim::Won(..) = store.claim(&job(next + 1, NOW), LONG).await.unwrap() else {
        panic!("a job that was never written")
    };
}
