//! What passes through arrives as it was sent, both ways.

use crate::gateway::{Line, Setup};
use crate::origin::Origin;
use crate::wire::Wire;
use galaksio::reason::Reason;
use std::time::Duration;

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let answer = Wire::ask(
        gateway.addr,
        "PURGE //a/./b%2Fc;d?q=%20&r=a+b HTTP/1.1\r\nHost: shop.example:81\r\nX-B: 2\r\nX-A: 1\r\nX-B: 1\r\n\
         X-Payment: mine\r\nPAYMENT-SIGNATURE: too\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Cookie: a=1; b=2\r\nContent-Length: 2\r\n\r\nhi",
    )
    .await;
    assert_eq!(answer.text(), "hi");
    let seen = origin.seen().await;
    assert_eq!(seen.line(), "PURGE //a/./b%2Fc;d?q=%20&r=a+b HTTP/1.1");
    assert_eq!(seen.all("host"), ["shop.example:81"]);
    assert_eq!(seen.all("x-b"), ["2", "1"]);
    assert_eq!(seen.all("x-payment"), ["mine"]);
    assert_eq!(seen.all("payment-signature"), ["too"]);
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["shop.example:81"]);
    assert_eq!(seen.all("via"), ["1.1 galaksio"]);
    assert!(seen.all("x-hop").is_empty() && seen.all("connection").is_empty());
    assert_eq!(seen.body, b"hi");
    gateway.quiet().await;
    let line = Line {
        target: "//a/./b%2Fc;d?q=%20&r=a+b".into(),
        reason: Reason::Passed,
        status: Some(200),
        received: 2,
        sent: 2,
        complete: true,
    };
    assert_eq!(gateway.log.lines(), [line]);
}

#[tokio::test]
async fn a_trusted_peer_is_added_to_what_it_says() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).trusting().start();
    Wire::ask(
        gateway.addr,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nVia: 1.0 fred\r\n\r\n",
    )
    .await;
    let seen = origin.seen().await;
    assert_eq!(seen.all("x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("via"), ["1.0 fred", "1.1 galaksio"]);
}

#[tokio::test]
async fn an_answer_arrives_as_it_was_sent() {
    let origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET /fields HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = wire.answer().await;
    assert!(answer.head.starts_with("HTTP/1.1 207 Fine\r\n"));
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.all("payment-response"), ["app"]);
    assert!(answer.all("x-hop").is_empty() && answer.all("keep-alive").is_empty());

    for (path, status) in [("/none", 204), ("/same", 304)] {
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, status);
        assert!(answer.all("transfer-encoding").is_empty() && answer.all("content-length").is_empty());
    }
    wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = String::from_utf8(wire.head().await.unwrap()).unwrap();
    assert!(head.contains("content-length: 5\r\n"), "{head}");
    // The connection is still in step.
    wire.send("GET /old HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = wire.answer().await;
    assert!(answer.head.starts_with("HTTP/1.1 200"));
    assert_eq!(answer.text(), "old");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let answer = Wire::ask(
        gateway.addr,
        "POST /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Check\r\n\r\n1\r\na\r\n0\r\nX-Check: 5\r\n\r\n",
    )
    .await;
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.all("x-sum"), ["7"]);
    let seen = origin.seen().await;
    assert_eq!(seen.trailers.to_lowercase(), "x-check: 5\r\n");
    assert_eq!(seen.all("te"), ["trailers"]);
}

#[tokio::test]
async fn events_are_not_held_back() {
    let origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wire.head().await.unwrap();
    // The app sends the second only when the first was read.
    assert_eq!(wire.line().await, "9");
    assert_eq!(wire.exactly(11).await, b"data: 1\n\n\r\n");
    origin.go.notify_one();
    let (rest, _) = wire.chunked().await;
    assert_eq!(rest, b"data: 2\n\n");
}

#[tokio::test]
async fn a_large_body_streams_both_ways() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let body: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    wire.send(&body).await;
    assert!(wire.answer().await.body == body);
    assert!(origin.seen().await.body == body);
}

#[tokio::test]
async fn an_app_that_is_down_is_502() {
    // Bound, so that nobody else is given the port, and not listening.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gateway = Setup::new(nobody.local_addr().unwrap()).start();
    let answer = Wire::ask(gateway.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("\"app_unreachable\""));
}

#[tokio::test]
async fn an_app_that_is_slow_is_504() {
    let origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    setup.app.response_timeout = Duration::from_millis(50);
    let gateway = setup.start();
    let answer = Wire::ask(gateway.addr, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("\"app_timeout\""));
}

#[tokio::test]
async fn an_app_that_speaks_no_http_is_502() {
    let origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    for path in ["/garbage", "/coded", "/switch"] {
        let answer = Wire::ask(gateway.addr, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status, 502, "{path}");
    }
}

#[tokio::test]
async fn an_answer_that_stops_halfway_ends_in_a_closed_connection() {
    let origin = Origin::start().await;
    let mut setup = Setup::new(origin.addr);
    setup.edge.body_timeout = Duration::from_millis(50);
    let gateway = setup.start();
    let mut wire = Wire::connect(gateway.addr).await;
    wire.send("GET /stall HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wire.head().await.unwrap();
    assert_eq!(wire.rest().await, b"half");
    gateway.quiet().await;
    assert!(!gateway.log.lines()[0].complete);
}

#[tokio::test]
async fn a_request_is_never_sent_twice() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    let mut answered = Vec::new();
    // The app closes after each answer and does not say so: pooled connections are dead, or dying.
    for id in 0..50 {
        wire.send(format!("POST /once?{id} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
        match wire.answer().await.status {
            200 => answered.push(format!("/once?{id}")),
            status => assert_eq!(status, 502),
        }
    }
    let seen: Vec<String> = origin.drain().iter().map(|seen| seen.path().to_owned()).collect();
    assert!(!answered.is_empty());
    assert_eq!(seen, answered);
}

#[tokio::test]
async fn expect_is_relayed_to_the_app() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    };

    // The gateway gives up waiting for the app's 100 after a second; the app's comes sooner, if not each time
    // on a busy machine.
    let began = std::time::Instant::now();
    loop {
        let mut wire = Wire::connect(gateway.addr).await;
        let start = std::time::Instant::now();
        wire.send(head("/")).await;
        origin.go.notify_one();
        assert_eq!(wire.answer().await.status, 100);
        let took = start.elapsed();
        wire.send("abc").await;
        assert_eq!(wire.answer().await.text(), "abc");
        assert_eq!(origin.seen().await.body, b"abc");
        if took < Duration::from_millis(700) {
            break;
        }
        assert!(began.elapsed() < crate::wire::PATIENCE, "never before the gateway gives up: {took:?}");
    }

    // The same of a refusal.
    let began = std::time::Instant::now();
    let answer = loop {
        let answer = Wire::ask(gateway.addr, head("/refuse")).await;
        if answer.status != 100 {
            break answer;
        }
        assert!(began.elapsed() < crate::wire::PATIENCE, "never before the gateway gives up");
    };
    assert_eq!(answer.status, 403, "the app's refusal comes instead of a 100");
    assert!(answer.closes());

    let mut wire = Wire::connect(gateway.addr).await;
    wire.send(head("/deaf")).await;
    assert_eq!(wire.answer().await.status, 100, "an app that does not know it is not waited for for ever");
    wire.send("abc").await;
    assert_eq!(wire.answer().await.text(), "abc");
}
