//! JSON as it arrives: the same in any pieces, and as a plain parser and a plain decoder read it.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::property::plain_base64;
use super::store;
use crate::config::resolved::BrokeredWork;
use crate::intake::scan::{JsonEnd, JsonReader, LargeJson};
use crate::intake::{Ask, Content, Encoding, measure_json};
use crate::reason::{Problem, Reason};

/// Short, so that tests get past it.
const LOOKED_AT: usize = 64;
const MOST: u64 = 4096;

#[derive(Debug)]
enum Read {
    Small(Ask, Content),
    Large(LargeJson, Vec<u8>),
}

fn read(body: &[u8], sizes: &[usize]) -> Result<Read, Problem> {
    let mut reader = JsonReader::looking_at(LOOKED_AT, MOST);
    let (mut rest, mut out) = (body, Vec::new());
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len()));
        reader.push(Bytes::copy_from_slice(piece));
        while let Some(data) = reader.data()? {
            out.extend_from_slice(&data);
        }
        rest = after;
    }
    Ok(match reader.end()? {
        JsonEnd::Small(whole) => {
            let (ask, content) = measure_json(&whole, BrokeredWork::Store)?;
            Read::Small(ask, content)
        }
        JsonEnd::Large(large) => Read::Large(large, out),
    })
}

/// A text in JSON, some characters escaped as chance has it.
fn spell(text: &str, choices: &[u8]) -> String {
    let mut out = String::from("\"");
    for (c, choice) in text.chars().zip(choices.iter().cycle()) {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' if choice % 4 == 0 => out.push_str("\\/"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 || choice % 16 == 1 => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// A request whose `data` stands first, second or last.
fn request(data: &str, place: usize, more: &[&str]) -> String {
    let mut members: Vec<String> = more.iter().map(|member| (*member).to_owned()).collect();
    members.insert(place.min(members.len()), format!("\"data\" : {data}"));
    format!("{{{}}}", members.join(",\n "))
}

fn same(one: &Result<Read, Problem>, other: Result<(Ask, Content), Problem>) -> Result<(), TestCaseError> {
    match (one, other) {
        (Ok(Read::Small(ask, content)), Ok((other, expected))) => {
            prop_assert_eq!(ask, &other);
            prop_assert_eq!(content.data.memory(), expected.data.memory());
            prop_assert_eq!((content.digest, content.encoding), (expected.digest, expected.encoding));
            prop_assert_eq!(
                (&content.filename, &content.content_type),
                (&expected.filename, &expected.content_type)
            );
        }
        (Ok(Read::Large(large, bytes)), Ok((other, expected))) => {
            let (ask, content) = large.clone().content(bytes.clone().into()).unwrap();
            prop_assert_eq!(ask, other);
            prop_assert_eq!(content.data.memory(), expected.data.memory());
            prop_assert_eq!((content.digest, content.encoding), (expected.digest, expected.encoding));
            prop_assert_eq!(
                (content.filename, content.content_type),
                (expected.filename, expected.content_type)
            );
        }
        (Err(problem), Err(expected)) => prop_assert_eq!(problem.to_json(), expected.to_json()),
        (one, other) => prop_assert!(false, "{:?}\n{:?}", one, other),
    }
    Ok(())
}

proptest! {
    /// Base64 and plain text of any length, in any pieces, among fields that are right or wrong.
    #[test]
    fn any_request_in_any_pieces_is_what_it_is_whole(
        bytes in prop::collection::vec(any::<u8>(), 1..400),
        text in "[ -~\u{e4}\u{20ac}\u{1f600}\n]{1,300}",
        base64 in any::<bool>(),
        choices in prop::collection::vec(any::<u8>(), 1..40),
        place in 0usize..3,
        more in prop::sample::subsequence(vec![
            r#""filename":"a.bin""#, r#""options": {"ttl": 60}"#, r#""contentType":"image/png""#,
            r#""colour":"red""#, r#""options":{"ttl":0}"#, r#""data":"again""#, "\"filename\" \"a\"", r#""x": [1, {"data": "y"}]"#,
        ], 0..3),
        sizes in prop::collection::vec(1usize..90, 1..6),
        cut in any::<prop::sample::Index>(),
        whole in 0u8..4,
    ) {
        // A space first: no base64 begins so.
        let text = if base64 { base64_simd::STANDARD.encode_to_string(&bytes) } else { format!(" {text}") };
        let mut body = request(&spell(&text, &choices), place, &more);
        if whole == 0 {
            let mut at = cut.index(body.len());
            while !body.is_char_boundary(at) {
                at -= 1;
            }
            body.truncate(at);
        }
        let got = read(body.as_bytes(), &sizes);
        if let Ok(Read::Large(large, decoded)) = &got {
            let plain: Value = serde_json::from_str(&body).unwrap();
            let expected = plain["data"].as_str().unwrap();
            let encoding = if base64 { Encoding::Base64 } else { Encoding::Utf8 };
            prop_assert_eq!(large.encoding, encoding);
            let expected = if base64 { plain_base64(expected).unwrap() } else { expected.as_bytes().to_vec() };
            prop_assert_eq!(decoded, &expected);
        }
        match (&got, store(&body)) {
            // Where it ends, or what is said twice, is said of what is left: the reason and the line are the same.
            (Err(problem), Err(expected)) => {
                prop_assert_eq!(problem.reason, expected.reason);
                let line = |problem: &Problem| problem.details.as_ref().map(|details| details["line"].clone());
                prop_assert_eq!(line(problem), line(&expected));
                if whole != 0 {
                    prop_assert_eq!(problem.to_json(), expected.to_json());
                }
            }
            (_, expected) => same(&got, expected)?,
        }
        // And the same in other pieces.
        prop_assert_eq!(format!("{:?}", read(body.as_bytes(), &[1]).map_err(|problem| problem.to_json())),
            format!("{:?}", got.map_err(|problem| problem.to_json())));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused_the_same(body in prop::collection::vec(
        prop_oneof![Just(b"{\"data\":\"".to_vec()), Just(b"\\u00".to_vec()), Just(b"\"".to_vec()), Just(b"\\".to_vec()),
            Just(vec![b'A'; 70]), prop::collection::vec(any::<u8>(), 0..9)], 0..20),
        sizes in prop::collection::vec(1usize..90, 1..6),
    ) {
        let body = body.concat();
        let text = |read: Result<Read, Problem>| format!("{:?}", read.map_err(|problem| problem.to_json()));
        prop_assert_eq!(text(read(&body, &sizes)), text(read(&body, &[1])));
    }
}

#[test]
fn what_began_as_base64_must_go_on_so() {
    let begun = "QUJD".repeat(20);
    for wrong in ["!", "QUJ", "\0 \0", "QQ==QUJD", "QR==", "-_-_", "Q\\u0020JD"] {
        let body = format!("{{\"filename\":\"x\",\"data\":\"{begun}{wrong}\"}}");
        for sizes in [&[1][..], &[7], &[1000]] {
            let problem = read(body.as_bytes(), sizes).unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidBase64, "{wrong}");
            assert_eq!(
                problem.details.unwrap(),
                json!({ "field": "data", "line": 1, "column": 25 }),
                "{wrong}"
            );
        }
    }
    // Unless it is said, before it, that it is none.
    let said = format!("{{\"encoding\":\"utf8\",\"data\":\"{begun}!\"}}");
    assert!(matches!(read(said.as_bytes(), &[9]).unwrap(), Read::Large(large, data)
        if large.encoding == Encoding::Utf8 && data == format!("{begun}!").as_bytes()));
    let late = format!("{{\"data\":\"{begun}\",\"encoding\":\"utf8\"}}");
    let problem = read(late.as_bytes(), &[9]).unwrap_err();
    assert_eq!(
        (problem.reason, &problem.details.unwrap()["field"]),
        (Reason::InvalidField, &"encoding".into())
    );
}

#[test]
fn what_no_json_string_has_is_refused() {
    let begun = " text".repeat(20);
    let strings: [&[u8]; 8] =
        [b"\\x", b"\\u12g4", b"\\ud800", b"\\ud800x", b"\\ud800\\n", b"\\udc00", b"a\x01b", b"\xc3("];
    for wrong in strings {
        let body = [b"{\"data\":\"", begun.as_bytes(), wrong, b"\"}"].concat();
        for sizes in [&[1][..], &[1000]] {
            assert_eq!(read(&body, sizes).unwrap_err().reason, Reason::InvalidJson, "{wrong:?}");
        }
    }
}

#[test]
fn what_is_kept_is_bounded() {
    let deep = format!("{{\"data\":{}", "[".repeat(10_000));
    let wide = format!("{{\"data\":\"{}\",\"x\":\"{}\"}}", "a b ".repeat(100), "x".repeat(5000));
    for body in [deep, wide] {
        assert_eq!(read(body.as_bytes(), &[100]).unwrap_err().reason, Reason::TooLarge);
    }
}
