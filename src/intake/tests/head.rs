//! The head: which form a body has, and a raw body's measure.

use bytes::Bytes;
use http::Request;
use http::request::Parts;

use crate::config::resolved::BrokeredWork::{self, Run, Store};
use crate::intake::{Ask, Encoding, Kind, Limits, Plan, Raw, Wanted, plan};
use crate::reason::{Problem, Reason};

const LIMITS: Limits = Limits { json: 1_000, whole: 1_000, raw: 2_000, files: 4 };

fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::post(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn raw(uri: &str, work: BrokeredWork, length: &str) -> Result<Raw, Problem> {
    let parts = head(uri, &[("content-type", "image/png"), ("content-length", length)]);
    match plan(&parts, work, LIMITS)? {
        Plan::Raw(raw) => Ok(raw),
        other => panic!("taken for {other:?}"),
    }
}

#[test]
fn the_content_type_decides() {
    let planned = |content_type: &str| {
        plan(&head("/store", &[("content-type", content_type), ("content-length", "5")]), Store, LIMITS)
    };
    for json in ["application/json", "Application/JSON; charset=utf-8", "application/ld+json", "text/json"] {
        assert_eq!(planned(json).unwrap(), Plan::Json, "{json}");
    }
    for other in ["image/png", "text/plain; charset=utf-8", "application/octet-stream"] {
        assert!(matches!(planned(other).unwrap(), Plan::Raw(_)), "{other}");
    }
    for form in ["multipart/form-data; boundary=x", "Multipart/Form-Data;boundary=\"a b\"; charset=utf-8"] {
        assert!(matches!(planned(form).unwrap(), Plan::Form(_)), "{form}");
    }
    for refused in ["application/x-www-form-urlencoded", "json", "", "a b/c"] {
        let problem = planned(refused).unwrap_err();
        assert_eq!(problem.reason, Reason::UnsupportedMediaType, "{refused}");
        assert!(problem.message.unwrap().contains("send application/json"));
    }
    for headers in [
        &[("content-length", "5")][..],
        &[("content-type", "image/png"), ("content-type", "application/json")],
        &[("content-type", "image/png"), ("content-encoding", "gzip")],
    ] {
        let problem = plan(&head("/store", headers), Store, LIMITS).unwrap_err();
        assert_eq!(problem.reason, Reason::UnsupportedMediaType);
    }
}

#[test]
fn json_options_belong_in_the_body() {
    let json = |uri| plan(&head(uri, &[("content-type", "application/json")]), Store, LIMITS);
    assert_eq!(json("/store").unwrap(), Plan::Json);
    assert_eq!(json("/store?").unwrap(), Plan::Json);
    let problem = json("/store?ttl=60").unwrap_err();
    assert_eq!((problem.reason, &problem.details.unwrap()["field"]), (Reason::InvalidField, &"ttl".into()));
}

#[test]
fn a_raw_body_is_measured_by_its_head() {
    let got = raw("/store?filename=my+photo%2Epng&ttl=60&permanent=false", Store, "1234").unwrap();
    let wanted = Wanted::Store { permanent: false, ttl: Some(60) };
    assert_eq!(got.ask, Ask { wanted, kind: Kind::File, size: 1234, files: 1 });
    let label = (got.label.filename.as_deref(), got.label.content_type.as_deref());
    assert_eq!(label, (Some("my photo.png"), Some("image/png")));
    assert_eq!(raw("/store?filename=a.json", Store, "2").unwrap().ask.kind, Kind::Json);
    let got = raw("/run?language=Python&gpu=", Run, "7").unwrap();
    assert_eq!(
        got.ask,
        Ask { wanted: Wanted::Run { language: "python".into() }, kind: Kind::Code, size: 7, files: 1 }
    );
}

#[test]
fn sizes_are_declared_once_and_within_limits() {
    let sized = |uri: &str, length: Option<&str>| {
        let mut headers = vec![("content-type", "image/png")];
        headers.extend(length.map(|length| ("content-length", length)));
        plan(&head(uri, &headers), Store, LIMITS).map(|plan| match plan {
            Plan::Raw(raw) => raw.ask.size,
            Plan::Json | Plan::Form(_) => 0,
        })
    };
    assert_eq!(sized("/store?size=9", None).unwrap(), 9);
    assert_eq!(sized("/store?size=9", Some("9")).unwrap(), 9);
    assert_eq!(sized("/store", Some("2000")).unwrap(), 2000);
    for (uri, length, reason) in [
        ("/store", None, Reason::LengthRequired),
        ("/store", Some("0"), Reason::DataRequired),
        ("/store?size=9", Some("8"), Reason::InvalidField),
        ("/store?size=-1", None, Reason::InvalidField),
        ("/store?size=", None, Reason::InvalidField),
        ("/store?size=1&size=1", None, Reason::InvalidField),
        ("/store", Some("2001"), Reason::TooLarge),
        ("/store?size=18446744073709551615", None, Reason::TooLarge),
        ("/store?size=18446744073709551616", None, Reason::InvalidField),
        ("/store", Some("+1"), Reason::BadRequest),
    ] {
        assert_eq!(sized(uri, length).unwrap_err().reason, reason, "{uri} {length:?}");
    }
    let json = head("/store", &[("content-type", "application/json"), ("content-length", "1001")]);
    let problem = plan(&json, Store, LIMITS).unwrap_err();
    assert_eq!(problem.reason, Reason::TooLarge);
    assert_eq!(problem.details.unwrap(), serde_json::json!({ "limit": 1000, "size": 1001 }));
}

#[test]
fn raw_options_are_checked() {
    for (uri, work, reason) in [
        ("/store?permanent=true&ttl=60", Store, Reason::InvalidField),
        ("/store?permanent=1", Store, Reason::InvalidField),
        ("/store?permanent", Store, Reason::InvalidField),
        ("/store?ttl=1.0", Store, Reason::InvalidField),
        ("/store?ttl=+60", Store, Reason::InvalidField),
        ("/store?filename=a%2Fb", Store, Reason::InvalidField),
        ("/store?filename=%ff", Store, Reason::InvalidField),
        ("/store?filename=a&filename=b", Store, Reason::InvalidField),
        ("/store?language=python", Store, Reason::InvalidField),
        ("/store?%66oo=1", Store, Reason::InvalidField),
        ("/run?language=", Run, Reason::InvalidField),
        ("/run?ttl=1", Run, Reason::InvalidField),
        ("/run?gpu=a100", Run, Reason::NotSold),
        ("/run?timeout=60", Run, Reason::NotSold),
    ] {
        assert_eq!(raw(uri, work, "5").unwrap_err().reason, reason, "{uri}");
    }
    let many = format!("/store?{}", "a=1&".repeat(40));
    assert_eq!(raw(&many, Store, "5").unwrap_err().reason, Reason::InvalidField);
}

#[test]
fn a_raw_body_is_held_to_its_head() {
    let body = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let content = raw("/store?filename=a.png", Store, "3").unwrap().content(body(b"\xff\0x")).unwrap();
    assert_eq!((&content.data.memory().unwrap()[..], content.encoding), (&b"\xff\0x"[..], Encoding::Raw));
    assert_eq!(content.content_type.as_deref(), Some("image/png"));

    let reason = |uri, work, bytes: &'static [u8]| {
        let length = bytes.len().to_string();
        raw(uri, work, &length).unwrap().content(body(bytes)).unwrap_err().reason
    };
    assert_eq!(
        raw("/store", Store, "4").unwrap().content(body(b"abc")).unwrap_err().reason,
        Reason::InvalidField
    );
    assert_eq!(reason("/store?filename=a.json", Store, b"{"), Reason::InvalidJson);
    assert_eq!(reason("/run", Run, b"\xff"), Reason::InvalidField);
}

#[test]
fn a_json_request_sent_as_text_is_not_taken_for_data() {
    let as_text = |body: &'static str| {
        let length = body.len().to_string();
        let parts =
            head("/store", &[("content-type", "text/plain;charset=UTF-8"), ("content-length", &length)]);
        match plan(&parts, Store, LIMITS).unwrap() {
            Plan::Raw(raw) => raw.content(Bytes::from_static(body.as_bytes())),
            other => panic!("taken for {other:?}"),
        }
    };
    assert_eq!(as_text(r#" {"data":"x","filename":"f"}"#).unwrap_err().reason, Reason::UnsupportedMediaType);
    assert!(as_text(r#"{"other":"x"}"#).is_ok());
    assert!(as_text("plain text").is_ok());
}
