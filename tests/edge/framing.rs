//! Framing by hand: each request is refused, or the app sees exactly one request with exactly this content.

use crate::gateway::Setup;
use crate::origin::{Origin, Seen};
use crate::wire::Wire;

/// What must come of a row.
enum Want {
    /// The app sees one request, with this content; the client gets it back.
    Once(&'static [u8]),
    /// The app sees nothing; the client gets one of these, or just the end of its connection.
    Refused(&'static [u16]),
    /// The app may see the beginning of a request, but never the end of one.
    NeverWhole,
}

use Want::{NeverWhole, Once, Refused};

#[rustfmt::skip]
const TABLE: &[(&str, &str, Want)] = &[
    ("length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Once(b"abc")),
    ("chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Once(b"abc")),
    ("chunked, case", "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Once(b"abc")),
    ("chunk extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n", Once(b"abc")),
    ("GET with length", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Once(b"abc")),
    ("GET chunked", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Once(b"abc")),
    ("no content", "POST / HTTP/1.1\r\nHost: a\r\n\r\n", Once(b"")),
    ("HTTP/1.0", "POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", Once(b"abc")),
    ("leading empty line", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Once(b"")),
    // Both lengths: the coding counts, the length is dropped, the connection is closed (RFC 9112 section 6.1).
    ("both, length first", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Once(b"")),
    ("both, coding first", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Once(b"")),
    ("same length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Once(b"abc")),
    ("other length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", Refused(&[400])),
    ("list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", Refused(&[400])),
    ("signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", Refused(&[400])),
    ("negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", Refused(&[400])),
    ("hex length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", Refused(&[400])),
    ("huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nabc", Refused(&[400, 413])),
    ("empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nabc", Refused(&[400])),
    ("identity, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", Refused(&[400])),
    ("gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused(&[400])),
    ("chunked, identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused(&[400])),
    ("chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(&[400])),
    ("chunked then identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", Refused(&[400])),
    ("xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(&[400])),
    ("identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", Refused(&[400])),
    ("empty coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\nContent-Length: 3\r\n\r\nabc", Refused(&[400])),
    ("vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused(&[400])),
    ("coding in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(&[400])),
    ("chunk size of no digits", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n", NeverWhole),
    ("negative chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", NeverWhole),
    ("hex prefix chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", NeverWhole),
    ("huge chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", NeverWhole),
    ("chunk longer than its size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", NeverWhole),
    ("bare LF after chunk size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", NeverWhole),
    ("LF in chunk extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;\nabc\r\n0\r\n\r\n", NeverWhole),
    ("no last chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", NeverWhole),
    ("short content", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", NeverWhole),
    ("folded field", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n", Refused(&[400])),
    ("folded coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused(&[400])),
    ("space before colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc", Refused(&[400])),
    ("space before name", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(&[400])),
    ("NUL in value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n", Refused(&[400])),
    ("NUL in name", "GET / HTTP/1.1\r\nHost: a\r\nX\0A: b\r\n\r\n", Refused(&[400])),
    ("CR in value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n", Refused(&[400])),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX-A\r\n\r\n", Refused(&[400])),
    ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Refused(&[400])),
    ("no host", "GET / HTTP/1.1\r\n\r\n", Refused(&[400])),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused(&[400])),
    ("host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(&[400])),
    ("host with a user", "GET / HTTP/1.1\r\nHost: x@a\r\n\r\n", Refused(&[400])),
    ("HTTP/0.9", "GET /\r\n\r\n", Refused(&[400])),
    ("HTTP/3.0", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", Refused(&[400])),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(&[400])),
    ("space in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(&[400])),
    ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Refused(&[405])),
    ("asterisk GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(&[400])),
    ("other scheme", "GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(&[400])),
    ("user in target", "GET http://x@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(&[400])),
    ("absolute form", "GET http://a/ HTTP/1.1\r\nHost: other\r\n\r\n", Once(b"")),
    // The gateway's read of a bare LF as the end of a line is the app's too, because it writes CRLF.
    ("bare LF", "POST / HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc", Once(b"abc")),
];

#[tokio::test]
async fn every_request_is_refused_or_framed_once() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    for (name, bytes, want) in TABLE {
        let mut wire = Wire::connect(gateway.addr).await;
        wire.send(bytes).await;
        let whole = matches!(want, NeverWhole);
        if whole {
            tokio::io::AsyncWriteExt::shutdown(&mut wire.stream).await.unwrap();
        }
        let answer = wire.maybe_answer().await;
        // The end of everything that was said on this connection.
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut wire.stream).await;
        let more = wire.rest().await;
        assert!(more.is_empty(), "{name}: a second answer: {}", String::from_utf8_lossy(&more));
        drop(wire);
        gateway.quiet().await;
        let seen = origin.drain();
        match want {
            Once(content) => {
                assert_eq!(seen.len(), 1, "{name}: {seen:?}");
                assert_eq!(&seen[0].body, content, "{name}");
                let answer = answer.unwrap_or_else(|| panic!("{name}: no answer"));
                assert_eq!((answer.status, answer.body.as_slice()), (200, *content), "{name}");
            }
            Refused(statuses) => {
                assert!(seen.is_empty(), "{name}: {seen:?}");
                if let Some(answer) = answer {
                    assert!(statuses.contains(&answer.status), "{name}: {answer:?}");
                }
            }
            NeverWhole => {
                assert!(seen.is_empty(), "{name}: {seen:?}");
                if let Some(answer) = answer {
                    assert!(answer.status >= 400, "{name}: {answer:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_host_of_the_target_is_the_host() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    Wire::ask(gateway.addr, "GET http://shop.example/x?y=1 HTTP/1.1\r\nHost: other\r\n\r\n").await;
    let seen = origin.seen().await;
    assert_eq!(seen.line(), "GET /x?y=1 HTTP/1.1");
    assert_eq!(seen.all("host"), ["shop.example"]);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let mut wire = Wire::connect(gateway.addr).await;
    let one = |body: &str| {
        format!("POST /{body} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    wire.send([one("first"), one("second"), one("third")].concat()).await;
    for body in ["first", "second", "third"] {
        assert_eq!(wire.answer().await.text(), body);
        let Seen { body: seen, .. } = origin.seen().await;
        assert_eq!(seen, body.as_bytes());
    }
}

#[tokio::test]
async fn the_server_itself_may_be_asked_for_its_options() {
    let mut origin = Origin::start().await;
    let gateway = Setup::new(origin.addr).start();
    let answer = Wire::ask(gateway.addr, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.status, 204);
    assert!(origin.drain().is_empty());
}
