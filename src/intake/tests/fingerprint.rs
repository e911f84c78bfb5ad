//! Fingerprints: equal for equal requests however written, different for every difference.

use std::collections::HashSet;

use http::Method;

use super::{run, store};
use crate::intake::{Ask, Body, Content, Kind, Wanted, app_fingerprint, fingerprint};
use crate::jobs::Fingerprint;

fn of(request: &(Ask, Content)) -> Fingerprint {
    fingerprint(&Method::POST, "/store", "api.example.com", &request.0, &request.1)
}

#[test]
fn spelling_makes_no_difference() {
    let plain = r#"{"data":"Hello World","filename":"a.txt","options":{"permanent":false,"ttl":60}}"#;
    let expected = of(&store(plain).unwrap());
    for same in [
        r#" { "options" : { "ttl" : 60 } , "filename":"a.txt", "data":"Hello World" } "#,
        r#"{"data":"SGVsbG8gV29ybGQ=","filename":"a.txt","options":{"ttl":60}}"#,
        r#"{"data":"\u0048ello World","filename":"a.txt","contentType":"text/plain","options":{"ttl":60}}"#,
        r#"{"data":"Hello World","encoding":"utf8","filename":"a.txt","options":{"ttl":60}}"#,
    ] {
        assert_eq!(of(&store(same).unwrap()), expected, "{same}");
    }
    let document = of(&store(r#"{"data":{"a":1,"b":[2,3]}}"#).unwrap());
    assert_eq!(of(&store("{\"data\":{ \"a\" : 1,\n\t\"b\" : [ 2, 3 ] } }").unwrap()), document);

    let request = store(plain).unwrap();
    let upper = fingerprint(&Method::POST, "/store", "API.Example.COM", &request.0, &request.1);
    assert_eq!(upper, expected);
}

#[test]
fn every_difference_makes_a_difference() {
    let (ask, content) = store(r#"{"data":"Hello World","filename":"a.txt","options":{"ttl":60}}"#).unwrap();
    let mut seen = HashSet::new();
    let mut add = |method: &Method, path: &str, host: &str, ask: &Ask, content: &Content| {
        assert!(
            seen.insert(fingerprint(method, path, host, ask, content)),
            "{ask:?} {content:?} seen before"
        );
    };
    add(&Method::POST, "/store", "h", &ask, &content);
    add(&Method::PUT, "/store", "h", &ask, &content);
    add(&Method::POST, "/store2", "h", &ask, &content);
    add(&Method::POST, "/store", "h2", &ask, &content);
    // The same bytes, split differently.
    add(&Method::POST, "/stor", "eh", &ask, &content);
    for kind in [Kind::Json, Kind::Code] {
        add(&Method::POST, "/store", "h", &Ask { kind, ..ask.clone() }, &content);
    }
    add(&Method::POST, "/store", "h", &Ask { size: 12, ..ask.clone() }, &content);
    for wanted in [
        Wanted::Store { permanent: true, ttl: Some(60) },
        Wanted::Store { permanent: false, ttl: None },
        Wanted::Store { permanent: false, ttl: Some(61) },
        Wanted::Store { permanent: true, ttl: None },
        Wanted::Run { language: "python".into() },
        Wanted::Run { language: "pythom".into() },
    ] {
        add(&Method::POST, "/store", "h", &Ask { wanted, ..ask.clone() }, &content);
    }
    for filename in [None, Some(""), Some("b.txt")] {
        let content = Content { filename: filename.map(str::to_owned), ..content.clone() };
        add(&Method::POST, "/store", "h", &ask, &content);
    }
    for content_type in [None, Some("text/css")] {
        let content = Content { content_type: content_type.map(str::to_owned), ..content.clone() };
        add(&Method::POST, "/store", "h", &ask, &content);
    }
    let swapped = Content {
        filename: content.content_type.clone(),
        content_type: content.filename.clone(),
        ..content.clone()
    };
    add(&Method::POST, "/store", "h", &ask, &swapped);
    add(&Method::POST, "/store", "h", &ask, &Content { digest: [1; 32], ..content });
    let program = run(r#"{"code":"Hello World"}"#).unwrap();
    add(&Method::POST, "/store", "h", &program.0, &program.1);
}

#[test]
fn app_requests_differ_by_query_and_body() {
    let of = |query, body| app_fingerprint(&Method::GET, "/report", query, "h", body);
    let all = [
        of(None, Body::Declared(None)),
        of(Some(""), Body::Declared(None)),
        of(Some("a=1"), Body::Declared(None)),
        of(None, Body::Declared(Some(0))),
        of(None, Body::Declared(Some(1))),
        of(None, Body::Digest(&[0; 32])),
        of(None, Body::Digest(&[1; 32])),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    assert_eq!(all[2], of(Some("a=1"), Body::Declared(None)));
}
