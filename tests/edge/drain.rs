//! The end of the process: what is waited for, and for how long.

use std::time::Duration;

use crate::gateway::Setup;
use crate::origin::Origin;
use crate::wire::Wire;
use galaksio::proxy::{Bound, Kind, Stop};

/// Waits until nobody listens any more.
async fn refused(addr: std::net::SocketAddr) {
    tokio::time::timeout(crate::wire::PATIENCE, async {
        while tokio::net::TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("still listening");
}

#[tokio::test]
async fn a_request_in_flight_is_finished() {
    let mut origin = Origin::start().await;
    let mut gateway = Setup::new(origin.addr).start();
    let mut idle = Wire::connect(gateway.addr).await;
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.answer().await;
    let mut busy = Wire::connect(gateway.addr).await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    while origin.seen().await.path() != "/slow" {}
    gateway.stop.drain();
    assert!(idle.rest().await.is_empty(), "an idle connection is closed at once");
    refused(gateway.addr).await;
    origin.go.notify_one();
    let answer = busy.answer().await;
    assert_eq!(answer.text(), "slow");
    assert!(answer.closes());
    gateway.ended().await;
}

#[tokio::test]
async fn paid_work_is_finished_though_its_client_has_gone() {
    let origin = Origin::start().await;
    let mut gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("POST /task HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.task_started.notified().await;
    drop(wire);
    gateway.quiet().await;
    gateway.stop.drain();
    refused(gateway.addr).await;
    assert_eq!(gateway.drain.open(Kind::Task), 1);
    gateway.task_may_end.notify_one();
    gateway.ended().await;
    assert_eq!(gateway.drain.open(Kind::Task), 0);
}

#[tokio::test]
async fn the_deadline_holds() {
    let mut origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    setup.edge.drain_timeout = Duration::from_millis(100);
    let mut gateway = setup.start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.seen().await;
    gateway.stop.drain();
    gateway.ended().await;
    assert!(wire.maybe_answer().await.is_none());
}

#[tokio::test]
async fn a_tunnel_has_a_deadline_of_its_own() {
    let origin = Origin::start().await;
    let mut gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 101);
    gateway.stop.drain();
    assert!(wire.rest().await.is_empty());
    gateway.ended().await;
}

#[tokio::test]
async fn now_is_now() {
    let mut origin = Origin::start().await;
    let mut gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.seen().await;
    gateway.stop.drain();
    gateway.stop.now();
    gateway.ended().await;
}

#[tokio::test]
async fn a_new_process_takes_the_listeners() {
    let mut origin = Origin::start().await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("upgrade.sock");
    let mut setup = Setup::new(origin.addr);
    setup.edge.upgrade_socket = Some(socket.clone());
    let mut old = setup.start();
    let mut busy = Wire::connect(old.addr).await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.seen().await;

    let mut setup = Setup::new(origin.addr);
    setup.edge.listen = vec![old.addr];
    let edge = setup.edge.clone();
    let taking = tokio::task::spawn_blocking(move || Bound::take_over(&edge, &socket).unwrap());
    old.stop.hand_over();
    let new = setup.start_on(taking.await.unwrap(), Stop::embedded());
    assert_eq!(new.addr, old.addr);
    old.drain.wait_started().await;

    origin.go.notify_one();
    assert_eq!(busy.answer().await.text(), "slow");
    old.ended().await;
    assert_eq!(Wire::ask(new.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
    new.quiet().await;
    assert_eq!(new.log.lines().len(), 1);
}

#[tokio::test]
async fn a_new_process_may_have_more_workers_or_fewer() {
    for (before, after) in [(1, 3), (3, 1)] {
        let origin = Origin::start().await;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("upgrade.sock");
        let mut setup = Setup::new(origin.addr);
        setup.edge.upgrade_socket = Some(socket.clone());
        setup.edge.threads = Some(before);
        let mut old = setup.start();

        let mut setup = Setup::new(origin.addr);
        setup.edge.listen = vec![old.addr];
        setup.edge.threads = Some(after);
        let edge = setup.edge.clone();
        let taking = tokio::task::spawn_blocking(move || Bound::take_over(&edge, &socket).unwrap());
        old.stop.hand_over();
        let new = setup.start_on(taking.await.unwrap(), Stop::embedded());
        old.ended().await;
        // The kernel spreads them over all sockets there are.
        for _ in 0..32 {
            assert_eq!(Wire::ask(new.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_of_the_start() {
    let origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut setup = Setup::new(origin.addr);
    setup.edge.listen = vec![gateway.addr];
    assert!(Bound::new(&setup.edge).is_err(), "two gateways would share the connections");
}

#[tokio::test]
async fn term_drains() {
    // Once somebody listens to it, the signal no longer ends this process.
    let _caught = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let mut origin = Origin::start().await;
    let setup = Setup::new(origin.addr);
    let bound = Bound::new(&setup.edge).unwrap();
    let mut gateway = setup.start_on(bound, Stop::on_signals());
    let mut busy = Wire::connect(gateway.addr).await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.seen().await;
    // The server may not listen to signals yet.
    let heard = async {
        loop {
            let kill =
                std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
            assert!(kill.unwrap().success());
            // Soon enough a second one would be taken for impatience.
            if tokio::time::timeout(Duration::from_secs(5), gateway.drain.wait_started()).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(crate::wire::PATIENCE, heard).await.expect("TERM is not heard");
    origin.go.notify_one();
    assert_eq!(busy.answer().await.text(), "slow");
    gateway.ended().await;
}
