//! Kills the gateway while it hands out an answer that the record of its job does not hold: the client has paid and has a part
//! of it, the rest is gone with the process, and a refund is recorded as due, once, by whoever finds the job.

use std::net::SocketAddr;
use std::time::Duration;

use galaksio::jobs::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Order, Purchase};
use super::redis_server::RedisServer;
use super::rig::{LEASE, Rig, Store, until};

/// More than there is room for on the way, for a client that does not read.
const LARGE: usize = 64 << 20;

/// A rig whose gateway keeps such an answer in a file, or does not.
async fn rig(store: Store, kept: bool) -> Rig {
    let largest = if kept { "100MiB" } else { "" };
    Rig::unstocked(store, |rig| {
        let settings = std::fs::read_to_string(rig.config()).unwrap();
        let paid = format!("[paid]\nresult_file_max = {largest:?}\nresult_files = \"200MiB\"\n");
        std::fs::write(rig.config(), settings.replace("[paid]\n", &paid)).unwrap();
    })
    .await
}

impl Rig {
    /// Presents the payment, and reads the beginning of the answer: it is on its way then.
    async fn begun(&self, purchase: &Purchase) -> TcpStream {
        let mut connection = TcpStream::connect(self.gateway().edge).await.unwrap();
        connection.write_all(&self.client.raw(purchase)).await.unwrap();
        let mut head = [0; 4096];
        let read = connection.read(&mut head).await.unwrap();
        assert!(head[..read].starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&head[..read]));
        self.until_listed(self.gateway().admin, purchase, State::Delivering).await;
        connection
    }

    /// Waits until the operator is told so.
    async fn until_listed(&self, admin: SocketAddr, purchase: &Purchase, state: State) {
        until(&format!("a job that is {}", state.name()), async || {
            let listed = self.client.get(admin, &format!("/jobs?state={}", state.name())).await.unwrap();
            listed.json().to_string().contains(&purchase.job.to_string()).then_some(())
        })
        .await;
    }

    /// What the same payment is told, and all that is on record.
    async fn owed_once(&mut self, purchase: &Purchase) {
        let answer = self.present(purchase).await;
        let json = answer.json();
        assert_eq!(
            (answer.status.as_u16(), &json["code"], &json["charged"]),
            (502, &"refund_due".into(), &"yes".into())
        );
        let money = self.money(purchase);
        assert_eq!((money.charged, money.provider), (1, 0));
        let (job, journal) = self.autopsy(purchase).await;
        assert_eq!((job.state, job.owed()), (State::RefundDue, job.client.requirement.amount));
        assert_eq!(journal, ["verified", "answered", "settled", "work_failed"]);
    }

    async fn kept_so(&mut self, purchase: &Purchase) {
        self.until_listed(self.gateway().admin, purchase, State::Completed).await;
        self.kill();
        self.restart().await;
        tokio::time::sleep(LEASE * 2).await;
        let answer = self.present(purchase).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (410, &"not_kept".into()));
        let (job, journal) = self.autopsy(purchase).await;
        assert_eq!(job.state, State::Completed);
        assert_eq!(journal, ["verified", "answered", "settled", "handed_out"]);
    }
}

async fn killed_midway(store: Store, kept: bool) {
    let mut rig = rig(store, kept).await;
    let purchase = rig.sign(Order::Large).await;
    let connection = rig.begun(&purchase).await;
    // Longer than a lease: it is not given up while somebody hands it out.
    tokio::time::sleep(LEASE * 2).await;
    rig.until_listed(rig.gateway().admin, &purchase, State::Delivering).await;
    rig.kill();
    drop(connection);
    rig.restart().await;
    rig.until_state(purchase.job, State::RefundDue).await;
    rig.owed_once(&purchase).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_kill_breaks_off_is_owed() {
    tokio::join!(killed_midway(Store::Embedded, false), killed_midway(Store::Embedded, true));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn an_answer_that_a_kill_breaks_off_is_owed_on_redis() {
    let server = RedisServer::start(&[]);
    killed_midway(Store::Redis { url: server.url(), prefix: "midway".to_owned() }, false).await;
}

/// Two gateways find it, and one records it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn two_that_find_it_owe_it_once() {
    let server = RedisServer::start(&[]);
    let mut rig = rig(Store::Redis { url: server.url(), prefix: "two".to_owned() }, false).await;
    let other = rig.second().await;
    let purchase = rig.sign(Order::Large).await;
    let _connection = rig.begun(&purchase).await;
    rig.kill();
    rig.restart().await;
    rig.until_listed(other.admin, &purchase, State::RefundDue).await;
    other.signal("TERM");
    assert!(other.ended().await.success());
    rig.owed_once(&purchase).await;
}

/// It stood still for longer than its lease, and goes on: its client gets all of it, and what was recorded meanwhile stays.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; make test runs it"]
async fn one_that_only_stood_still_changes_nothing_any_more() {
    let server = RedisServer::start(&[]);
    let mut rig = rig(Store::Redis { url: server.url(), prefix: "still".to_owned() }, false).await;
    let other = rig.second().await;
    let purchase = rig.sign(Order::Large).await;
    let mut connection = rig.begun(&purchase).await;
    rig.gateway().signal("STOP");
    rig.until_listed(other.admin, &purchase, State::RefundDue).await;
    rig.gateway().signal("CONT");
    other.signal("TERM");
    assert!(other.ended().await.success());
    let mut rest = vec![0; 1 << 20];
    let mut read = 4096;
    while read < LARGE {
        read += connection.read(&mut rest).await.unwrap();
    }
    rig.owed_once(&purchase).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_handed_out_whole_is_not_owed() {
    let mut rig = rig(Store::Embedded, false).await;
    let purchase = rig.sign(Order::Large).await;
    let answer = rig.present(&purchase).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, LARGE));
    rig.kept_so(&purchase).await;
}

/// It is the client's to read it.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_its_client_left_is_not_owed() {
    let mut rig = rig(Store::Embedded, false).await;
    let purchase = rig.sign(Order::Large).await;
    drop(rig.begun(&purchase).await);
    rig.kept_so(&purchase).await;
}

/// A second TERM cuts what is left, which is a crash like any other.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_cut_off_with_its_process_is_owed() {
    let mut rig = rig(Store::Embedded, false).await;
    let purchase = rig.sign(Order::Large).await;
    let _connection = rig.begun(&purchase).await;
    rig.gateway().signal("TERM");
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.stop().await;
    rig.restart().await;
    rig.until_state(purchase.job, State::RefundDue).await;
    rig.owed_once(&purchase).await;
}
