use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::outgoing::stub::{Reply, Stub};

fn fetch(loopback: bool) -> Fetch {
    Fetch::new(Arc::new(move |address| loopback && address == IpAddr::from([127, 0, 0, 1]))).unwrap()
}

#[tokio::test]
async fn no_way_of_writing_it_leads_inside() {
    let stub = Stub::start(|_| Reply::Http(200, vec![], b"secret".to_vec())).await;
    let port = stub.url("/").port_u16().unwrap();
    for host in
        ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "127.1", "2130706433", "0x7f000001", "0"]
    {
        let error = fetch(false).get(&format!("http://{host}:{port}/")).await.unwrap_err();
        // A name that nobody resolves is not refused, it is not there.
        let expected = [NOT_PUBLIC, FetchError::Failed("it cannot be reached".to_owned()), NOT_A_URL];
        assert!(expected.contains(&error), "{host}: {error:?}");
    }
    for url in [
        "ftp://a/",
        "file:///etc/passwd",
        "gopher://a",
        "http://",
        "/x",
        "http://u:p@1.1.1.1/",
        "http://a b/",
    ] {
        assert_eq!(fetch(true).get(url).await.unwrap_err(), NOT_A_URL, "{url}");
    }
    assert!(stub.seen().is_empty());
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_they_are_allowed() {
    let stub = Stub::start(|seen| match seen.target.as_str() {
        "/end" => Reply::Http(200, vec![("content-type", "image/png".into())], b"bytes".to_vec()),
        "/inside" => Reply::Http(302, vec![("location", "http://169.254.169.254/meta".into())], vec![]),
        "/name" => Reply::Http(302, vec![("location", "http://[::1]:9/".into())], vec![]),
        "/file" => Reply::Http(302, vec![("location", "file:///etc/passwd".into())], vec![]),
        "/loop" => Reply::Http(302, vec![("location", "/loop".into())], vec![]),
        "/gone" => Reply::html(404),
        _ => Reply::Http(307, vec![("location", "end".into())], vec![]),
    })
    .await;
    let url = |path: &str| stub.url(path).to_string();
    let mut fetched = fetch(true).get(&url("/begin")).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((fetched.size, fetched.next().await.unwrap().unwrap()), (5, Bytes::from_static(b"bytes")));
    assert_eq!(fetched.next().await.unwrap(), None);
    let found = fetch(true).find(&url("/end")).await.unwrap();
    assert_eq!(found, Found { size: 5, content_type: Some("image/png".to_owned()) });
    for (path, expected) in [
        ("/inside", NOT_PUBLIC),
        ("/name", NOT_PUBLIC),
        ("/file", NOT_A_URL),
        ("/loop", FetchError::Failed("it redirects too often".to_owned())),
        ("/gone", FetchError::Failed("it answers 404".to_owned())),
    ] {
        assert_eq!(fetch(true).get(&url(path)).await.unwrap_err(), expected, "{path}");
    }
    // A body-less request with nothing of anybody's in it.
    for seen in stub.seen() {
        assert!(seen.headers.keys().all(|name| ["host", "user-agent"].contains(&name.as_str())), "{seen:?}");
    }
}

/// A name that says another address the second time does not lead there; of several, only public ones are used.
#[tokio::test]
async fn a_name_that_changes_its_mind_leads_nowhere() {
    let stub = Stub::start(|_| Reply::Http(200, vec![], b"bytes".to_vec())).await;
    let port = stub.url("/").port_u16().unwrap();
    let (outside, inside) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
    let allowed: Exceptions = Arc::new(move |address| address == outside);
    let asked = Arc::new(AtomicUsize::new(0));
    let times = Arc::clone(&asked);
    let names = PublicNames::resolved_by(Arc::clone(&allowed), move |name| {
        let first = times.fetch_add(1, Ordering::Relaxed) == 0;
        let address = |address| SocketAddr::new(address, 0);
        match name {
            "both.example" => vec![address(inside), address(outside)],
            _ if first => vec![address(outside)],
            _ => vec![address(inside)],
        }
    });
    let fetch = Fetch::by(names, allowed).unwrap();
    let url = format!("http://rebinds.example:{port}/");
    assert_eq!(fetch.find(&url).await.unwrap().size, 5);
    assert_eq!(fetch.get(&url).await.unwrap_err(), NOT_PUBLIC);
    // Each look-up is followed by the connection that it is for, and by no other.
    assert_eq!((asked.load(Ordering::Relaxed), stub.seen().len()), (2, 1));
    let both = fetch.get(&format!("http://both.example:{port}/")).await;
    assert_eq!(both.unwrap_or_else(|error| panic!("{error}")).size, 5);
}

#[tokio::test]
async fn the_size_is_asked_for_by_a_get_where_head_is_refused() {
    let stub = Stub::start(|seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("HEAD", "/no-head") => Reply::html(405),
        ("HEAD", _) => Reply::drop(),
        ("GET", "/endless") => Reply::Raw(b"HTTP/1.1 200 OK\r\n\r\nand so on".to_vec()),
        _ => Reply::Http(200, vec![], b"bytes".to_vec()),
    })
    .await;
    for path in ["/no-head", "/other"] {
        let found = fetch(true).find(&stub.url(path).to_string()).await.unwrap();
        assert_eq!(found, Found { size: 5, content_type: None }, "{path}");
    }
    let error = fetch(true).find(&stub.url("/endless").to_string()).await.unwrap_err();
    assert_eq!(error, FetchError::Failed("it tells no size (Content-Length)".to_owned()));
}

#[tokio::test]
async fn what_does_not_go_on_is_given_up() {
    let stub = Stub::start(|_| Reply::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbyt")).await;
    let fetched = fetch(true).get(&stub.url("/").to_string()).await;
    let mut fetched = fetched.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(fetched.next().await.unwrap().unwrap(), Bytes::from_static(b"byt"));
    tokio::time::pause();
    assert_eq!(fetched.next().await.unwrap_err(), FetchError::Failed("it sends no more".to_owned()));
    let stub = Stub::start(|_| Reply::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n")).await;
    let began = tokio::time::Instant::now();
    let error = fetch(true).find(&stub.url("/").to_string()).await.unwrap_err();
    assert_eq!(error, FetchError::Failed("it does not answer in time".to_owned()));
    assert_eq!(began.elapsed().as_secs(), 2 * HEAD_TIME.as_secs());
}
