//! Forms: their options, their file, and everything that can be wrong with them, with its place.

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use proptest::prelude::*;

use crate::config::resolved::BrokeredWork::{self, Run, Store};
use crate::intake::{Ask, Form, FormEvent, Kind, Label, Limits, Plan, Wanted, plan};
use crate::reason::{Problem, Reason};

const LIMITS: Limits = Limits { json: 1_000, whole: 1_000, raw: 200_000, files: 4 };

fn form(uri: &str, work: BrokeredWork, boundary: &str, length: usize) -> Result<Form, Problem> {
    let request = Request::post(uri)
        .header("content-type", format!("multipart/form-data; boundary={boundary}"))
        .header("content-length", length);
    match plan(&request.body(()).unwrap().into_parts().0, work, LIMITS)? {
        Plan::Form(form) => Ok(form),
        other => panic!("taken for {other:?}"),
    }
}

/// The whole form, read in pieces of this size.
fn read(form: Form, body: &[u8], piece: usize) -> Result<(Ask, Label, Vec<u8>), Problem> {
    let mut reader = form.reader();
    let (mut head, mut file) = (None, Vec::new());
    let mut pieces = body.chunks(piece);
    loop {
        match reader.event()? {
            Some(FormEvent::File(ask, label)) => head = Some((ask, label)),
            Some(FormEvent::Data(data)) => file.extend_from_slice(&data),
            Some(FormEvent::End) => {}
            None => match pieces.next() {
                Some(piece) => reader.push(Bytes::copy_from_slice(piece)),
                None => break,
            },
        }
    }
    reader.end()?;
    let (ask, label) = head.unwrap();
    Ok((ask, label, file))
}

fn store(uri: &str, body: &str) -> Result<(Ask, Label, Vec<u8>), Problem> {
    read(form(uri, Store, "b", body.len())?, body.as_bytes(), 7)
}

fn field(name: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(name: &str, content: &str) -> String {
    format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: image/png\r\n\r\n{content}\r\n"
    )
}

const END: &str = "--b--\r\n";

#[test]
fn what_curl_sends_is_read() {
    let body = field("permanent", "false") + &field("ttl", "3600") + &file("a.png", "\r\n--not\r\n") + END;
    let (ask, label, bytes) = store("/store", &body).unwrap();
    let wanted = Wanted::Store { permanent: false, ttl: Some(3600) };
    assert_eq!(ask, Ask { wanted, kind: Kind::File, size: body.len() as u64, files: 1 });
    assert_eq!(
        (label.filename.as_deref(), label.content_type.as_deref()),
        (Some("a.png"), Some("image/png"))
    );
    assert_eq!(bytes, b"\r\n--not\r\n");
    let body = field("language", "Python") + &file("x.py", "print(1)") + END;
    let (ask, ..) = read(form("/run", Run, "b", body.len()).unwrap(), body.as_bytes(), 3).unwrap();
    assert_eq!((ask.wanted, ask.kind), (Wanted::Run { language: "python".into() }, Kind::Code));
}

#[test]
fn options_in_the_query_say_the_price_before_the_body() {
    let body = field("ttl", "60") + &file("a.png", "x") + END;
    let got = form("/store?ttl=60&filename=b.json&size=1", Store, "b", body.len()).unwrap();
    let ask = got.ask().unwrap().clone();
    assert_eq!((ask.size, ask.kind), (1, Kind::Json));
    // A field that says the same is what clients send that know both ways.
    let (again, label, _) = read(got, body.as_bytes(), 100).unwrap();
    assert_eq!((again, label.filename.as_deref()), (ask, Some("b.json")));
    assert_eq!(form("/store", Store, "b", 100).unwrap().ask(), None);
    // One that says something else would change what was priced.
    for uri in ["/store?ttl=61", "/store?permanent=true"] {
        let problem = store(uri, &body).unwrap_err();
        assert_eq!(
            (problem.reason, &problem.details.unwrap()["field"]),
            (Reason::InvalidField, &"ttl".into()),
            "{uri}"
        );
    }
}

#[test]
fn the_head_is_refused_like_that_of_any_body() {
    assert_eq!(form("/store", Store, "b", 200_001).unwrap_err().reason, Reason::TooLarge);
    assert_eq!(form("/store?size=101", Store, "b", 100).unwrap_err().reason, Reason::InvalidField);
    assert_eq!(form("/store?colour=red", Store, "b", 100).unwrap_err().reason, Reason::InvalidField);
    assert_eq!(form("/run?filename=x", Run, "b", 100).unwrap_err().reason, Reason::InvalidField);
    assert_eq!(form("/store", Store, "b", 0).unwrap_err().reason, Reason::DataRequired);
    let long = "x".repeat(71);
    for boundary in ["", "\"\"", "\"a", "a; boundary=b", "{}", &long, "\"a \""] {
        assert_eq!(
            form("/store", Store, boundary, 100).unwrap_err().reason,
            Reason::InvalidForm,
            "{boundary}"
        );
    }
    let request = Request::post("/store").header("content-type", "multipart/form-data; boundary=b");
    let parts = request.body(()).unwrap().into_parts().0;
    assert_eq!(plan(&parts, Store, LIMITS).unwrap_err().reason, Reason::LengthRequired);
}

#[test]
fn names_are_kept_as_names() {
    let named = |name: &str| store("/store", &(file(name, "x") + END)).map(|(_, label, _)| label.filename);
    assert_eq!(named("").unwrap(), None);
    assert_eq!(named("na\u{ef}ve %22quoted%22.txt").unwrap().unwrap(), "na\u{ef}ve \"quoted\".txt");
    assert_eq!(named("a\\\"b").unwrap().unwrap(), "a\"b");
    for path in ["../../etc/passwd", "..", "a/b", "a\\b", "C:\\x", "x%0D%0Ay"] {
        let problem = named(path).unwrap_err();
        assert_eq!(
            (problem.reason, &problem.details.unwrap()["position"]),
            (Reason::InvalidField, &5.into()),
            "{path}"
        );
    }
    assert_eq!(named("a\0b").unwrap_err().reason, Reason::InvalidForm);
    let star =
        "--b\r\nContent-Disposition: form-data; name=file; filename*=UTF-8''na%C3%AFve.txt\r\n\r\nx\r\n--b--";
    assert_eq!(store("/store", star).unwrap().1.filename.unwrap(), "na\u{ef}ve.txt");
}

#[test]
fn whatever_is_wrong_is_refused_with_its_place() {
    let good = file("a", "x");
    let head = |text: &str| format!("--b\r\n{text}\r\n\r\nx\r\n--b--");
    let cases: Vec<(&str, String, Reason)> = vec![
        ("another boundary", good.replace("--b", "--c") + END, Reason::InvalidForm),
        ("a preamble", format!("hello\r\n{good}{END}"), Reason::InvalidForm),
        ("an epilogue", format!("{good}{END}hello"), Reason::InvalidForm),
        ("two files", format!("{good}{good}{END}"), Reason::InvalidForm),
        ("an option behind the file", good.clone() + &field("ttl", "60") + END, Reason::InvalidForm),
        ("a field twice", field("ttl", "60") + &field("ttl", "60") + &good + END, Reason::InvalidForm),
        ("an unknown field", field("colour", "red") + &good + END, Reason::InvalidField),
        ("a bad option", field("ttl", "-1") + &good + END, Reason::InvalidField),
        ("no file", field("ttl", "60") + END, Reason::InvalidForm),
        ("a file elsewhere", good.replace("name=\"file\"", "name=\"photo\"") + END, Reason::InvalidForm),
        ("too much before the file", field("ttl", &"6".repeat(70_000)) + &good + END, Reason::InvalidForm),
        ("a head without end", format!("--b\r\nX: {}", "x".repeat(9_000)), Reason::InvalidForm),
        ("no head", head("").replace("\r\n\r\n\r\n", "\r\n\r\n"), Reason::InvalidForm),
        ("no disposition", head("X: y"), Reason::InvalidForm),
        ("no name", head("Content-Disposition: form-data; filename=x"), Reason::InvalidForm),
        ("an attachment", head("Content-Disposition: attachment; name=file"), Reason::InvalidForm),
        ("a name twice", head("Content-Disposition: form-data; name=file; name=x"), Reason::InvalidForm),
        ("a line folded", head("Content-Disposition: form-data;\r\n name=file"), Reason::InvalidForm),
        ("a bare line feed", head("Content-Disposition: form-data; name=file\nX: y"), Reason::InvalidForm),
        (
            "a coding",
            head("Content-Disposition: form-data; name=file\r\nContent-Transfer-Encoding: base64"),
            Reason::InvalidForm,
        ),
        ("half a quote", head("Content-Disposition: form-data; name=\"file"), Reason::InvalidForm),
        ("a type that is none", good.replace("image/png", "nonsense") + END, Reason::InvalidField),
        ("a delimiter with something behind", good.clone() + "--bx--", Reason::InvalidForm),
    ];
    for (name, body, reason) in cases {
        for piece in [1, 7, body.len()] {
            let problem =
                read(form("/store", Store, "b", body.len()).unwrap(), body.as_bytes(), piece).unwrap_err();
            assert_eq!(problem.reason, reason, "{name}: {problem:?}");
            let details = problem.details.unwrap();
            assert!(details["position"].is_u64() || details["field"].is_string(), "{name}: {details}");
        }
    }
}

#[test]
fn what_is_cut_off_anywhere_is_refused() {
    let body = field("ttl", "60") + &file("a.png", "bytes") + "--b--";
    for end in 0..body.len() {
        let problem =
            read(form("/store", Store, "b", body.len()).unwrap(), &body.as_bytes()[..end], 5).unwrap_err();
        assert_eq!(problem.reason, Reason::InvalidForm, "{end}");
    }
    store("/store", &body).unwrap();
}

#[test]
fn file_bytes_are_not_copied() {
    let body = Bytes::from(file("a.png", &"x".repeat(10_000)) + END);
    let mut reader = form("/store", Store, "b", body.len()).unwrap().reader();
    reader.push(body.clone());
    assert!(matches!(reader.event().unwrap(), Some(FormEvent::File(..))));
    let Some(FormEvent::Data(data)) = reader.event().unwrap() else { panic!("no data") };
    assert!(body.as_ptr_range().contains(&data.as_ptr()));
}

/// All files of a form, read in pieces of this size.
fn read_all(form: Form, body: &[u8], piece: usize) -> Result<Vec<(Label, Vec<u8>)>, Problem> {
    let mut reader = form.reader();
    let mut files: Vec<(Label, Vec<u8>)> = Vec::new();
    let mut pieces = body.chunks(piece);
    loop {
        match reader.event()? {
            Some(FormEvent::File(_, label)) => files.push((label, Vec::new())),
            Some(FormEvent::Data(data)) => files.last_mut().unwrap().1.extend_from_slice(&data),
            Some(FormEvent::End) => {}
            None => match pieces.next() {
                Some(piece) => reader.push(Bytes::copy_from_slice(piece)),
                None => break,
            },
        }
    }
    reader.end().map(|()| files)
}

#[test]
fn as_many_files_are_read_as_the_query_says() {
    let body =
        field("permanent", "true") + &file("a.png", "1") + &file("a.png", "") + &file("b.json", "{") + END;
    let of = |query: &str, body: &str| {
        let form = form(&format!("/store?{query}"), Store, "b", body.len())?;
        let ask = form.ask().cloned();
        read_all(form, body.as_bytes(), 3).map(|files| (ask, files))
    };
    let (ask, files) = of("files=3&permanent=true", &body).unwrap();
    let wanted = Wanted::Store { permanent: true, ttl: None };
    assert_eq!(ask, Some(Ask { wanted, kind: Kind::File, size: body.len() as u64, files: 3 }));
    let found: Vec<_> =
        files.iter().map(|(label, bytes)| (label.filename.as_deref().unwrap(), &bytes[..])).collect();
    assert_eq!(found, [("a.png", &b"1"[..]), ("a.png", b""), ("b.json", b"{")]);
    assert_eq!(files[2].0.content_type.as_deref(), Some("image/png"));
    // What each may have, and what one file is.
    assert_eq!(of("files=3&permanent=true&size=1", &body).unwrap().0.unwrap().size, 1);
    assert_eq!(of("files=1", &(file("a", "1") + END)).unwrap().0.unwrap().files, 1);
    for (query, body, reason, says) in [
        ("files=2&permanent=true", body.clone(), Reason::InvalidForm, "more fields called file"),
        ("files=4&permanent=true", body.clone(), Reason::InvalidForm, "3 files, and ?files= says 4"),
        ("permanent=true", body.clone(), Reason::InvalidForm, "?files=2"),
        ("files=3", body.clone(), Reason::InvalidField, "not the same there"),
        ("files=5", body.clone(), Reason::InvalidField, "from 1 to 4"),
        ("files=3&filename=a", body.clone(), Reason::InvalidField, "each of several files"),
        (
            "files=2",
            file("a", "1") + &field("ttl", "1") + &file("b", "2") + END,
            Reason::InvalidForm,
            "too late",
        ),
        ("", field("files", "2") + &file("a", "1") + &file("b", "2") + END, Reason::InvalidField, "files"),
    ] {
        let problem = of(query, &body).unwrap_err();
        assert_eq!(problem.reason, reason, "{query}: {problem:?}");
        let text = problem.to_json().to_string();
        assert!(text.contains(says), "{query}: {text}");
    }
    // All of them are held to what one may have; without a length, by how many there may be.
    let chunked = |uri: &str| {
        let request = Request::post(uri).header("content-type", "multipart/form-data; boundary=b");
        plan(&request.body(()).unwrap().into_parts().0, Store, LIMITS)
            .map(drop)
            .map_err(|problem| problem.reason)
    };
    assert_eq!(form("/store?files=3&size=9", Store, "b", 200_001).unwrap_err().reason, Reason::TooLarge);
    assert_eq!(chunked("/store?files=4&size=50000"), Ok(()));
    assert_eq!(chunked("/store?files=4&size=50001"), Err(Reason::TooLarge));
    assert_eq!(chunked("/store?files=4"), Err(Reason::LengthRequired));
}

/// The file as another library reads it.
fn multer(body: &[u8], boundary: &str, piece: usize) -> Option<(Option<String>, Vec<u8>)> {
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        body.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut form = multer::Multipart::new(stream::iter(pieces), boundary);
        let mut found = None;
        while let Some(field) = form.next_field().await.ok()? {
            if field.name() == Some("file") {
                let name = field.file_name().map(str::to_owned);
                found = Some((name, field.bytes().await.ok()?.to_vec()));
            }
        }
        found
    })
}

proptest! {
    /// Whatever the bytes, in whatever pieces: the file comes out as it went in, and as another library reads it.
    #[test]
    fn any_file_in_any_pieces_comes_out_whole(
        content in prop::collection::vec(
            prop_oneof![Just(b"\r\n--b".to_vec()), Just(b"\r".to_vec()), Just(b"\n--".to_vec()), prop::collection::vec(any::<u8>(), 0..40)],
            0..12,
        ).prop_map(|parts| parts.concat()),
        boundary in "[0-9a-zA-Z'()+_,./:=?-]{1,69}",
        ttl in 1u32..1000,
        piece in 1usize..200,
    ) {
        let mut body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"ttl\"\r\n\r\n{ttl}\r\n--{boundary}\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"a b.png\"\r\n\r\n"
        ).into_bytes();
        prop_assume!(memchr::memmem::find(&[b"\r\n", &content[..], b"\r\n"].concat(), format!("\r\n--{boundary}").as_bytes()).is_none());
        body.extend_from_slice(&content);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let form = form("/store", Store, &format!("\"{boundary}\""), body.len()).unwrap();
        let (ask, label, file) = read(form, &body, piece).unwrap();
        prop_assert_eq!(&file, &content);
        prop_assert_eq!(ask.wanted, Wanted::Store { permanent: false, ttl: Some(u64::from(ttl)) });
        prop_assert_eq!(multer(&body, &boundary, piece), Some((label.filename, file)));
    }

    /// The same of several files: none has a byte of another's.
    #[test]
    fn any_files_in_any_pieces_come_out_whole(
        contents in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![Just(b"\r\n--b".to_vec()), Just(b"\r".to_vec()), prop::collection::vec(any::<u8>(), 0..40)],
                0..8,
            ).prop_map(|parts| parts.concat()),
            1..5,
        ),
        piece in 1usize..200,
        boundary in "[0-9a-zA-Z]{8,20}",
    ) {
        let mut body = Vec::new();
        for (at, content) in contents.iter().enumerate() {
            prop_assume!(memchr::memmem::find(content, format!("--{boundary}").as_bytes()).is_none());
            body.extend_from_slice(format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{at}\"\r\n\r\n"
            ).as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let uri = format!("/store?files={}", contents.len());
        let form = form(&uri, Store, &boundary, body.len()).unwrap();
        let files = read_all(form.clone(), &body, piece).unwrap();
        let names: Vec<_> = files.iter().map(|(label, _)| label.filename.clone().unwrap()).collect();
        prop_assert_eq!(names, (0..contents.len()).map(|at| at.to_string()).collect::<Vec<_>>());
        prop_assert_eq!(files.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), contents);
        // Cut off anywhere it is refused; the line break at the end may be missing.
        for end in (0..body.len() - 2).step_by(7) {
            prop_assert!(read_all(form.clone(), &body[..end], piece).is_err());
        }
    }

    /// Any bytes at all end in a form or a refusal, the same in any pieces.
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
        let of = |piece| {
            let form = form("/store", Store, "b", body.len().max(1)).unwrap();
            read(form, &body, piece).map_err(|problem| problem.reason)
        };
        prop_assert_eq!(of(piece), of(body.len().max(1)));
    }
}
