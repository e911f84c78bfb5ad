use std::time::Instant;

use super::stub::{Reply, Stub, closed_url};
use super::*;

const SOON: Duration = Duration::from_millis(150);
const LATER: Duration = Duration::from_secs(10);
/// Long enough to connect and to send, on a machine with other work.
const PAUSES: Duration = Duration::from_secs(3);

fn client() -> Outgoing {
    Outgoing::new(Settings { connect_timeout: LATER, allow_plain_http: false }).unwrap()
}

async fn outcome_of(reply: fn() -> Reply, deadline: Duration) -> Result<Answer, OutgoingError> {
    let stub = Stub::start(move |_| reply()).await;
    client().send(Call::get(stub.url("/")), deadline).await
}

#[tokio::test]
async fn sends_what_it_was_given_and_its_own_name() {
    let stub = Stub::start(|_| Reply::json(402, &serde_json::json!({"x": 1}))).await;
    let body: Parts = ["ab", "", "cd"].into_iter().map(Bytes::from).collect();
    assert_eq!((body.len(), body.is_empty()), (4, false));
    let call = Call::new(Method::PUT, stub.url("/a?b=c"), body);
    let answer = client().send(call, LATER).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (402, &b"{\"x\":1}"[..]));

    let seen = stub.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str(), &seen.body[..]), ("PUT", "/a?b=c", &b"abcd"[..]));
    assert_eq!(seen.headers["user-agent"], concat!("galaksio/", env!("CARGO_PKG_VERSION")));
    assert_eq!(seen.headers["content-length"], "4");
    let mut names: Vec<_> = seen.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "content-length", "host", "user-agent"]);
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let stub = Stub::start(|_| Reply::Http(307, vec![("location", "/elsewhere".into())], vec![])).await;
    assert_eq!(client().send(Call::get(stub.url("/")), LATER).await.unwrap().status, 307);
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn nothing_listening_is_not_sent() {
    let error = client().send(Call::get(closed_url("/").await), LATER).await.unwrap_err();
    assert!(matches!(&error, OutgoingError::Connect(text) if text.contains("refused")), "{error:?}");
    assert!(!error.was_sent());
}

#[tokio::test]
async fn a_tls_failure_is_not_sent() {
    // Closes at the ClientHello, which is not an HTTP request.
    let stub = Stub::start(|_| Reply::drop()).await;
    let url = stub.url("/").to_string().replace("http:", "https:").parse().unwrap();
    let error = client().send(Call::get(url), LATER).await.unwrap_err();
    assert!(matches!(error, OutgoingError::Connect(_)), "{error:?}");
    assert!(!error.was_sent());
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_not_sent() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Uri = format!("https://{}/", silent.local_addr().unwrap()).parse().unwrap();
    let quick = Outgoing::new(Settings { connect_timeout: SOON, allow_plain_http: false }).unwrap();
    // By the connect timeout, and by the call's own deadline where that is shorter.
    for (client, deadline) in [(quick, LATER), (client(), SOON)] {
        let started = Instant::now();
        let error = client.send(Call::get(url.clone()), deadline).await.unwrap_err();
        assert_eq!(error, OutgoingError::ConnectTimeout);
        assert!(!error.was_sent() && error.is_timeout());
        assert!(started.elapsed() < LATER);
    }
}

#[tokio::test]
async fn after_sending_every_failure_is_unknown() {
    type Expected = fn(&OutgoingError) -> bool;
    let table: [(fn() -> Reply, Expected); 7] = [
        (|| Reply::Stall(b""), |e| *e == OutgoingError::Timeout),
        (|| Reply::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"), |e| *e == OutgoingError::Timeout),
        (Reply::drop, |e| matches!(e, OutgoingError::Broken(_))),
        (
            || Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".into()),
            |e| matches!(e, OutgoingError::Broken(_)),
        ),
        (
            || Reply::Raw(b"220 mail.example ESMTP\r\n\r\n".into()),
            |e| matches!(e, OutgoingError::Malformed(_)),
        ),
        (
            || Reply::Http(200, vec![("x-long", "y".repeat(2 * MAX_HEAD))], vec![]),
            |e| matches!(e, OutgoingError::Malformed(_)),
        ),
        (
            || Reply::Http(200, vec![], vec![0; DEFAULT_MAX_ANSWER + 1]),
            |e| *e == OutgoingError::TooLarge { limit: DEFAULT_MAX_ANSWER },
        ),
    ];
    for (row, (reply, expected)) in table.into_iter().enumerate() {
        let hangs = matches!(reply(), Reply::Stall(_));
        let error = outcome_of(reply, if hangs { PAUSES } else { LATER }).await.unwrap_err();
        assert!(expected(&error) && error.was_sent(), "row {row}: {error:?}");
    }
}

#[tokio::test]
async fn an_answer_of_exactly_the_limit_is_read() {
    let stub = Stub::start(|_| Reply::Http(200, vec![], vec![7; 1000])).await;
    let call = Call::get(stub.url("/"));
    assert_eq!(client().send(call.clone().max_answer(1000), LATER).await.unwrap().body.len(), 1000);
    let error = client().send(call.max_answer(999), LATER).await.unwrap_err();
    assert_eq!(error, OutgoingError::TooLarge { limit: 999 });
}

#[tokio::test]
async fn plain_http_is_for_loopback_unless_allowed() {
    for url in ["http://192.0.2.1/", "http://example.com/", "ftp://127.0.0.1/", "/relative"] {
        let error = client().send(Call::get(url.parse().unwrap()), LATER).await.unwrap_err();
        assert_eq!(error, OutgoingError::NotAllowed, "{url}");
        assert!(!error.was_sent());
    }
    let lax = Outgoing::new(Settings { connect_timeout: SOON, allow_plain_http: true }).unwrap();
    assert_eq!(lax.check_scheme(&"http://192.0.2.1/".parse().unwrap()), Ok(()));
}

#[test]
fn loopback_is_recognised_in_every_spelling() {
    for host in ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LocalHost", "[::ffff:127.0.0.1]"] {
        assert!(is_loopback(host), "{host}");
    }
    for host in ["128.0.0.1", "[::2]", "localhost.example.com", "127.0.0.1.nip.io", ""] {
        assert!(!is_loopback(host), "{host}");
    }
}

#[test]
fn one_client_serves_several_runtimes() {
    let stub_runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let stub = stub_runtime.block_on(Stub::start(|_| Reply::html(200)));
    let client = client();
    // The second runtime meets the pooled connection of the first, which is gone.
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(client.send(Call::get(stub.url("/")), LATER));
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(stub.seen().len(), 2);
}
