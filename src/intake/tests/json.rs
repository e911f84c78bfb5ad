//! The JSON form: what is accepted, how it is read, and what is said of the rest.

use serde_json::{Value, json};

use super::{run, store, text};
use crate::intake::{Encoding, Kind, Wanted};
use crate::reason::{Problem, Reason};

fn refused(result: Result<(crate::intake::Ask, crate::intake::Content), Problem>) -> (Reason, Value, String) {
    let problem = result.map(|(ask, _)| ask).unwrap_err();
    assert_eq!(problem.reason.status() / 100, 4);
    let message = problem.message.clone().unwrap_or_else(|| problem.reason.text().to_owned());
    (problem.reason, problem.details.unwrap_or_default(), message)
}

#[test]
fn every_spelling_of_data_gives_its_bytes() {
    // (data, decoded bytes, encoding, kind)
    let cases: [(&str, &[u8], Encoding, Kind); 14] = [
        (r#""SGVsbG8gV29ybGQ=""#, b"Hello World", Encoding::Base64, Kind::File),
        (r#""Hello, World""#, b"Hello, World", Encoding::Utf8, Kind::File),
        (r#""a\/b+c===""#, b"a/b+c===", Encoding::Utf8, Kind::File),
        // PHP writes base64 with escaped slashes.
        (r#""\/\/79""#, &[0xff, 0xfe, 0xfd], Encoding::Base64, Kind::File),
        (r#""\u00e9 caf\n""#, "é caf\n".as_bytes(), Encoding::Utf8, Kind::File),
        // Not canonical, not padded, wrapped, or of the URL alphabet: text.
        (r#""YR==""#, b"YR==", Encoding::Utf8, Kind::File),
        (r#""YWE""#, b"YWE", Encoding::Utf8, Kind::File),
        (r#""YWFh\nYWFh""#, b"YWFh\nYWFh", Encoding::Utf8, Kind::File),
        (r#""__79""#, b"__79", Encoding::Utf8, Kind::File),
        (r#""{\"name\": \"Bob\"}""#, br#"{"name": "Bob"}"#, Encoding::Utf8, Kind::Json),
        (r#""eyJuYW1lIjogIkNoYXJsaWUifQ==""#, br#"{"name": "Charlie"}"#, Encoding::Base64, Kind::Json),
        (r#""{ no json""#, b"{ no json", Encoding::Utf8, Kind::File),
        (
            r#"{"b": 1.50e+02, "a": [ 1 , "x y\" [" ] }"#,
            br#"{"b":1.50e+02,"a":[1,"x y\" ["]}"#,
            Encoding::Json,
            Kind::Json,
        ),
        (r#"[]"#, b"[]", Encoding::Json, Kind::Json),
    ];
    for (data, bytes, encoding, kind) in cases {
        let (ask, content) = store(&format!(r#"{{"data": {data} }}"#)).unwrap();
        assert_eq!(text(&content), String::from_utf8_lossy(bytes), "{data}");
        assert_eq!((content.encoding, ask.kind), (encoding, kind), "{data}");
        assert_eq!(ask.size, bytes.len() as u64, "{data}");
        assert_eq!(content.digest, *blake3::hash(bytes).as_bytes());
    }
}

#[test]
fn encoding_overrides() {
    let (_, content) = store(r#"{"data":"test","encoding":"utf8"}"#).unwrap();
    assert_eq!((text(&content).as_str(), content.encoding), ("test", Encoding::Utf8));
    let (_, content) = store(r#"{"data":"test"}"#).unwrap();
    assert_eq!(
        (&content.data.memory().unwrap()[..], content.encoding),
        (&[0xb5, 0xeb, 0x2d][..], Encoding::Base64)
    );

    let (reason, details, message) = refused(store(r#"{"data":"not base64","encoding":"base64"}"#));
    assert_eq!((reason, &details["field"]), (Reason::InvalidBase64, &json!("data")));
    assert!(message.contains("standard alphabet"), "{message}");
    for body in [
        r#"{"data":"x","encoding":"hex"}"#,
        r#"{"data":"x","encoding":1}"#,
        r#"{"data":[],"encoding":"utf8"}"#,
    ] {
        assert_eq!(refused(store(body)).1["field"], "encoding", "{body}");
    }
}

#[test]
fn short_programs_that_look_like_base64_stay_programs() {
    for code in ["exit", "pass", "1+1=", "quit", "main", "print(1)"] {
        let (ask, content) = run(&json!({ "code": code }).to_string()).unwrap();
        assert_eq!((text(&content).as_str(), content.encoding), (code, Encoding::Utf8));
        assert_eq!(ask.kind, Kind::Code);
    }
    let (_, content) = run(r#"{"code":"cHJpbnQoMSkK"}"#).unwrap();
    assert_eq!((text(&content).as_str(), content.encoding), ("print(1)\n", Encoding::Base64));
    // "AAAA" decodes to control characters, "//79" to no text at all; asked for by name, the second is refused.
    assert_eq!(run(r#"{"code":"AAAA"}"#).unwrap().1.encoding, Encoding::Utf8);
    assert_eq!(run(r#"{"code":"//79"}"#).unwrap().1.encoding, Encoding::Utf8);
    let (reason, details, _) = refused(run(r#"{"code":"//79","encoding":"base64"}"#));
    assert_eq!((reason, &details["field"]), (Reason::InvalidField, &json!("code")));
}

#[test]
fn a_json_name_must_hold_json() {
    let with_name = |data: &str| store(&json!({ "data": data, "filename": "Report.JSON" }).to_string());
    for (data, bytes, encoding) in [
        ("{\"a\": 1}", "{\"a\": 1}", Encoding::Utf8),
        ("eyJhIjoxfQ==", "{\"a\":1}", Encoding::Base64),
        // Valid base64 of no JSON, and JSON as they stand.
        ("1234", "1234", Encoding::Utf8),
        ("true", "true", Encoding::Utf8),
    ] {
        let (ask, content) = with_name(data).unwrap();
        assert_eq!((text(&content).as_str(), content.encoding, ask.kind), (bytes, encoding, Kind::Json));
        assert_eq!(content.content_type.as_deref(), Some("application/json"));
    }
    for data in ["{\"a\": 1", "SGVsbG8gV29ybGQ=", "\u{feff}{}", "{} {}"] {
        assert_eq!(refused(with_name(data)).0, Reason::InvalidJson, "{data}");
    }
}

#[test]
fn options_are_read_and_checked() {
    let wanted = |options: &str| store(&format!(r#"{{"data":"a b","options":{options}}}"#));
    let got = |options| wanted(options).unwrap().0.wanted;
    assert_eq!(got("null"), Wanted::Store { permanent: false, ttl: None });
    assert_eq!(got(r#"{"permanent":false,"ttl":3600}"#), Wanted::Store { permanent: false, ttl: Some(3600) });
    assert_eq!(got(r#"{"permanent":true,"ttl":null}"#), Wanted::Store { permanent: true, ttl: None });
    for (options, field) in [
        (r#"{"permanent":true,"ttl":1}"#, "ttl"),
        (r#"{"ttl":0}"#, "ttl"),
        (r#"{"ttl":-1}"#, "ttl"),
        (r#"{"ttl":1.5}"#, "ttl"),
        (r#"{"ttl":"60"}"#, "ttl"),
        (r#"{"ttl":31536001}"#, "ttl"),
        (r#"{"ttl":99999999999999999999999999}"#, "ttl"),
        (r#"{"permanent":"yes"}"#, "options.permanent"),
        (r#"{"permanant":true}"#, "options.permanant"),
        (r#"{"ttl":1,"ttl":1}"#, "options.ttl"),
        (r#""permanent""#, "options"),
        ("[]", "options"),
    ] {
        let (reason, details, message) = refused(wanted(options));
        assert_eq!(
            (reason, &details["field"]),
            (Reason::InvalidField, &json!(field)),
            "{options}: {message}"
        );
        assert_eq!(details["line"], 1, "{options}");
        let column = details["column"].as_u64().unwrap();
        assert!((24..65).contains(&column), "{options}: column {column}");
    }
}

#[test]
fn names_and_types_are_labels() {
    let (_, content) = store(r#"{"data":"a b","filename":"photo.png"}"#).unwrap();
    assert_eq!(content.filename.as_deref(), Some("photo.png"));
    assert_eq!(content.content_type.as_deref(), Some("image/png"));
    let body = r#"{"data":"a b","filename":"photo.png","contentType":"text/plain; charset=utf-8"}"#;
    assert_eq!(store(body).unwrap().1.content_type.as_deref(), Some("text/plain; charset=utf-8"));
    for (name, value) in [
        ("filename", ""),
        ("filename", "a/b"),
        ("filename", "..\\b"),
        ("filename", ".."),
        ("filename", "a\r\nb"),
        ("contentType", "png"),
        ("content_type", "text/html\r\nx: y"),
        ("content_type", "text/"),
    ] {
        let (reason, details, _) = refused(store(&json!({ "data": "a b", name: value }).to_string()));
        assert_eq!((reason, &details["field"]), (Reason::InvalidField, &json!(name)), "{value:?}");
    }
    let long = "n".repeat(256);
    assert_eq!(refused(store(&json!({ "data": "a", "filename": long }).to_string())).0, Reason::InvalidField);
    let both = r#"{"data":"a b","contentType":"text/css","content_type":"text/css"}"#;
    assert_eq!(refused(store(both)).1["field"], "content_type");
}

#[test]
fn what_is_missing_is_said_in_the_known_words() {
    for body in ["", "{}", r#"{"data":null}"#, r#"{"data":""}"#, r#"{"data":"","encoding":"base64"}"#] {
        let (reason, _, message) = refused(store(body));
        assert_eq!((reason, message.as_str()), (Reason::DataRequired, "data is required"), "{body}");
    }
    for body in ["", "{}", r#"{"code":null}"#, r#"{"code":""}"#, r#"{"language":"python"}"#] {
        let (reason, _, message) = refused(run(body));
        assert_eq!((reason, message.as_str()), (Reason::CodeRequired, "code is required"), "{body}");
    }
}

#[test]
fn other_shapes_are_named() {
    for data in ["1", "true", "false", "0"] {
        let (reason, details, _) = refused(store(&format!("{{\n  \"data\": {data}}}")));
        assert_eq!(reason, Reason::InvalidField);
        assert_eq!(details, json!({ "field": "data", "line": 2, "column": 11 }));
    }
    for body in [r#"{"data":{"url":"https://example.com/x"}}"#, r#"{"data": { "url" : "" } }"#] {
        assert_eq!(refused(store(body)).0, Reason::NotSupported, "{body}");
    }
    assert_eq!(refused(run(r#"{"code":{"url":"https://example.com/x"}}"#)).0, Reason::NotSupported);
    // These are data that happen to have a `url`.
    for body in [r#"{"data":{"url":"x","n":1}}"#, r#"{"data":{"url":1}}"#, r#"{"data":["url"]}"#] {
        assert_eq!(store(body).unwrap().0.kind, Kind::Json, "{body}");
    }
    assert_eq!(refused(run(r#"{"code":["a"]}"#)).1["field"], "code");
}

#[test]
fn unknown_and_repeated_fields_are_refused_by_name() {
    let (reason, details, message) = refused(store("{\"data\":\"a\",\n \"tll\":1}"));
    assert_eq!(reason, Reason::InvalidField);
    assert_eq!((&details["field"], &details["line"]), (&json!("tll"), &json!(2)));
    assert!(details["accepted"].as_array().unwrap().contains(&json!("filename")));
    assert!(message.starts_with("there is no field tll"), "{message}");

    assert_eq!(refused(store(r#"{"data":"a","data":"b"}"#)).1["field"], "data");
    // The same name, escaped.
    assert_eq!(refused(store(r#"{"data":"a","\u0064ata":"b"}"#)).1["field"], "data");
    let huge = format!(r#"{{"{}":1}}"#, "k".repeat(100_000));
    assert!(refused(store(&huge)).2.len() < 400);
    let (_, details, _) = refused(run(r#"{"code":"x","permanent":true}"#));
    assert_eq!(details["accepted"], json!(["code", "language", "encoding"]));
}

#[test]
fn languages_and_unsold_options() {
    let language = |body| match run(body).unwrap().0.wanted {
        Wanted::Run { language } => language,
        Wanted::Store { .. } => unreachable!(),
    };
    assert_eq!(language(r#"{"code":"x y"}"#), "python");
    assert_eq!(language(r#"{"code":"x y","language":null}"#), "python");
    assert_eq!(language(r#"{"code":"x y","language":"JavaScript"}"#), "javascript");
    // Front ends send their defaults; those ask for nothing.
    assert_eq!(
        language(r#"{"code":"x y","gpu":null,"onDemand":false,"gpu_count":0,"gpu_type":""}"#),
        "python"
    );
    for bad in [r#""""#, r#""a b""#, "1", r#""é""#] {
        let body = format!(r#"{{"code":"x y","language":{bad}}}"#);
        assert_eq!(refused(run(&body)).1["field"], "language", "{body}");
    }
    for (option, value) in
        [("gpu", "\"l40s\""), ("timeout", "60"), ("on_demand", "true"), ("gpuCount", "[1]")]
    {
        let (reason, details, message) = refused(run(&format!(r#"{{"code":"x y","{option}":{value}}}"#)));
        assert_eq!(
            (reason, &details["option"], &details["value"]),
            (Reason::NotSold, &json!(option), &json!(value))
        );
        assert!(message.contains(option));
    }
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    for (body, line, column) in [
        ("{\"data\": \"a\"\n \"x\": 1}", 2, 2),
        ("{\"data\": tru}", 1, 13),
        ("{\"data\": \"a\"} x", 1, 15),
        ("{\"data\": \"a", 1, 11),
        ("{\"data\": 01}", 1, 11),
        ("{\"data\": \"\\ud800\"}", 1, 17),
    ] {
        let (reason, details, message) = refused(store(body));
        assert_eq!(
            (reason, &details["line"], &details["column"]),
            (Reason::InvalidJson, &json!(line), &json!(column)),
            "{body}: {message}"
        );
    }
    for body in ["[]", "\"data\"", "1", "null"] {
        let (reason, _, message) = refused(store(body));
        assert_eq!(reason, Reason::InvalidJson);
        assert!(message.contains("not a JSON object"), "{message}");
    }
    let bytes = bytes::Bytes::from_static(b"{\"data\":\"\xff\"}");
    let problem =
        crate::intake::measure_json(&bytes, crate::config::resolved::BrokeredWork::Store).unwrap_err();
    assert_eq!((problem.reason, &problem.details.unwrap()["column"]), (Reason::InvalidJson, &json!(10)));
}

#[test]
fn depth_bombs_end_in_an_error_or_a_file() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(store(&format!(r#"{{"data":{}}}"#, deep(100))).is_ok());
    assert_eq!(refused(store(&format!(r#"{{"data":{}}}"#, deep(101)))).0, Reason::InvalidJson);
    assert_eq!(refused(store(&format!(r#"{{"data":{}}}"#, deep(1_000_000)))).0, Reason::InvalidJson);
    assert_eq!(refused(store(&format!(r#"{{"data":{}"#, "[".repeat(1_000_000)))).0, Reason::InvalidJson);
    let (ask, _) = store(&json!({ "data": deep(100_000) }).to_string()).unwrap();
    assert_eq!(ask.kind, Kind::File);
}

#[test]
fn plain_text_and_compact_documents_are_not_copied() {
    for body in [r#"{"data":"plain text"}"#, r#"{"data":{"a":[1,2]}}"#] {
        let bytes = bytes::Bytes::copy_from_slice(body.as_bytes());
        let (_, content) =
            crate::intake::measure_json(&bytes, crate::config::resolved::BrokeredWork::Store).unwrap();
        let range = bytes.as_ptr_range();
        assert!(range.contains(&content.data.memory().unwrap().as_ptr()), "{body}");
    }
}
