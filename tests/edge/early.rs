//! Answers before the body: the client must get to read them. And the seam to the seller.

use crate::gateway::Setup;
use crate::origin::Origin;
use crate::wire::Wire;
use galaksio::reason::Reason;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_short_body_nobody_wants_keeps_the_connection() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    for _ in 0..3 {
        // At once: what is late is not waited for.
        let head = b"POST /run HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
        wire.send([&head[..], &[b'x'; 60_000]].concat()).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 402);
        assert!(!answer.closes());
        assert!(answer.all("access-control-expose-headers")[0].contains("PAYMENT-REQUIRED"));
        assert_eq!(answer.all("cache-control"), ["no-store"]);
    }
    assert!(origin.drain().is_empty());
}

#[tokio::test]
async fn a_long_body_nobody_wants_is_read_so_that_the_answer_is() {
    let origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    for head in ["Content-Length: 3000000", "Transfer-Encoding: chunked"] {
        let mut wire = Wire::connect(gateway.addr).await;
        let start = format!("POST /run HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
        let content = if head.starts_with('C') {
            vec![b'x'; 3_000_000]
        } else {
            ["2dc6c0\r\n".as_bytes(), &vec![b'x'; 3_000_000], b"\r\n0\r\n\r\n"].concat()
        };
        // A client that reads only after it has sent everything.
        wire.stream.write_all(&[start.as_bytes(), &content].concat()).await.expect("a reset");
        let answer = wire.answer().await;
        assert_eq!(answer.status, 402, "{head}");
        assert!(answer.closes(), "{head}");
    }
}

#[tokio::test]
async fn a_body_let_go_of_after_the_answer_is_read_too() {
    let origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("POST /keep HTTP/1.1\r\nHost: a\r\nContent-Length: 7000000\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 402);
    assert!(answer.closes());
    gateway.task_may_end.notify_one();
    wire.stream.write_all(&vec![b'x'; 7_000_000]).await.expect("a reset");
    assert!(wire.rest().await.is_empty());
}

#[tokio::test]
async fn what_is_not_wanted_is_not_asked_for() {
    let origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("POST /run HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 402, "not a 100");
    assert!(answer.closes());
    assert!(wire.rest().await.is_empty());
}

#[tokio::test]
async fn the_apps_early_answer_arrives() {
    let origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n").await;
    wire.stream.write_all(&vec![b'x'; 3_000_000]).await.expect("a reset");
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.text()), (413, "big"));
}

#[tokio::test]
async fn payment_fields_stay_between_client_and_gateway() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let answer = Wire::ask(
        gateway.addr,
        "POST /priced HTTP/1.1\r\nHost: a\r\nX-PAYMENT: secret\r\nPAYMENT-SIGNATURE: secret\r\nX402-PAYMENT: secret\r\n\
         Authorization: Bearer app\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )
    .await;
    assert_eq!((answer.status, answer.text()), (200, "abc"));
    assert_eq!(answer.all("payment-response"), ["ours"]);
    let seen = origin.seen().await;
    assert!(!seen.head.contains("secret"), "{}", seen.head);
    assert_eq!(seen.all("authorization"), ["Bearer app"]);
    assert_eq!(seen.all("content-length"), ["3"]);
    gateway.quiet().await;
    assert_eq!(gateway.log.lines()[0].reason, Reason::Paid);
}

#[tokio::test]
async fn ambiguous_paths_and_own_endpoints_never_reach_the_app() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    for path in ["/run/", "//run", "/%72un", "/x/../run", "/Run", "/run;x", "/a%00"] {
        let answer = Wire::ask(gateway.addr, format!("POST {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.text().contains("\"ambiguous_path\""));
    }
    let id = galaksio::ids::JobId::new();
    let answer = Wire::ask(gateway.addr, format!("GET /status/{id} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(answer.text(), format!("Status(JobId({id}))"));
    assert!(origin.drain().is_empty());
    Wire::ask(gateway.addr, "GET /status/ours HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(origin.seen().await.path(), "/status/ours");
}

#[tokio::test]
async fn a_browser_may_ask_what_it_may_send() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let preflight = |path: &str| {
        format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\nAccess-Control-Request-Method: POST\r\n\r\n"
        )
    };
    let answer = Wire::ask(gateway.addr, preflight("/run")).await;
    assert_eq!(answer.status, 204);
    assert!(answer.all("access-control-allow-headers")[0].contains("PAYMENT-SIGNATURE"));
    assert_eq!(answer.all("access-control-allow-methods"), ["POST"]);
    assert!(origin.drain().is_empty());
    // The app's own policy on its free paths is its own.
    Wire::ask(gateway.addr, preflight("/free")).await;
    assert_eq!(origin.seen().await.path(), "/free");
}
