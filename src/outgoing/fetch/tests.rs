use super::*;
use crate::outgoing::stub::{Reply, Stub};

fn fetch(loopback: bool) -> Fetch {
    Fetch::new(Arc::new(move |address| loopback && address == IpAddr::from([127, 0, 0, 1]))).unwrap()
}

#[test]
fn only_public_addresses_are_public() {
    let private = [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "64:ff9b::a00:1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "100::1",
    ];
    for address in private {
        assert!(!is_public(address.parse().unwrap()), "{address}");
    }
    for address in [
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "192.0.1.1",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:1.1.1.1",
    ] {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
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
