//! What must hold for any body and any head, whatever bytes they are. Shared by the fuzz target and the
//! ordinary test over its corpus; both say where `intake`, `BrokeredWork` and `Body` come from.

use super::intake::{self, Form, FormEvent, JsonEnd, JsonReader, Kind, Limits, Plan};
use super::{BrokeredWork, Problem};

/// Input: a byte that chooses the work and the form, then, for the raw form, a query and a content type each
/// ended by a line feed, then the body.
pub(super) fn check(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let work = if choice & 1 == 0 { BrokeredWork::Store } else { BrokeredWork::Run };
    if choice & 2 == 0 { json(rest, work) } else { raw(rest, work) }
}

fn json(body: &[u8], work: BrokeredWork) {
    if work == BrokeredWork::Store {
        assert_eq!(stream(body, body.len().max(1)), stream(body, 1));
    }
    let body = bytes::Bytes::copy_from_slice(body);
    let (ask, content) = match intake::measure_json(&body, work) {
        Ok(measured) => measured,
        Err(problem) => return refused(&problem),
    };
    assert_eq!(ask.size, content.data.size());
    assert!(ask.size > 0, "nothing was sold");
    assert_eq!(ask.kind == Kind::Code, work == BrokeredWork::Run);
    if ask.kind == Kind::Json {
        let text = std::str::from_utf8(content.data.memory().expect("it was")).expect("JSON is UTF-8");
        // What is forwarded must not be deeper than a common parser takes, wrapped in an object.
        let wrapped = format!("{{\"value\":{text}}}");
        serde_json::from_str::<serde_json::Value>(&wrapped)
            .map(drop)
            .or_else(|error| {
                // Numbers and half surrogates that only this parser cannot hold are the client's own.
                let text = error.to_string();
                let own = text.contains("number out of range")
                    || text.contains("surrogate")
                    || text.contains("hex escape");
                if own { Ok(()) } else { Err(text) }
            })
            .expect("what is called JSON parses");
    }
    // The same request, spelled in another way, is the same.
    let padded = [b" \n", &body[..], b"\t "].concat();
    let (again, other) = intake::measure_json(&padded.into(), work).expect("white space around it");
    let of = |ask, content| intake::fingerprint(&http::Method::POST, "/", "h", ask, content);
    assert_eq!(of(&ask, &content), of(&again, &other));
}

/// A request as it arrives in such pieces, as text.
fn stream(body: &[u8], piece: usize) -> String {
    let mut reader = JsonReader::looking_at(16, 1 << 16);
    let mut out = Vec::new();
    for piece in body.chunks(piece) {
        reader.push(bytes::Bytes::copy_from_slice(piece));
        loop {
            match reader.data() {
                Ok(Some(data)) => out.extend_from_slice(&data),
                Ok(None) => break,
                Err(problem) => {
                    refused(&problem);
                    return problem.to_json().to_string();
                }
            }
        }
    }
    match reader.end() {
        Ok(JsonEnd::Small(whole)) => {
            assert_eq!(whole, body, "what is small is kept as it stands");
            String::new()
        }
        Ok(end) => format!("{end:?} {out:?}"),
        Err(problem) => {
            refused(&problem);
            problem.to_json().to_string()
        }
    }
}

fn raw(input: &[u8], work: BrokeredWork) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let (Some(query), Some(content_type), Some(body)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let uri = [b"/x?", query].concat();
    let request = http::Request::post(uri.as_slice())
        .header(http::header::CONTENT_TYPE, content_type)
        .header(http::header::CONTENT_LENGTH, body.len());
    let Ok(request) = request.body(()) else { return };
    let (parts, ()) = request.into_parts();
    match intake::plan(&parts, work, Limits { json: 1 << 20, whole: 1 << 20, raw: 1 << 20, files: 4 }) {
        Ok(Plan::Json) => json(body, work),
        Ok(Plan::Form(whole)) => form(whole, body, work),
        Ok(Plan::Raw(raw)) => {
            assert_eq!(raw.ask.size, body.len() as u64);
            match raw.content(bytes::Bytes::copy_from_slice(body)) {
                Ok(content) => assert_eq!(content.data.memory().expect("it was"), body),
                Err(problem) => refused(&problem),
            }
        }
        Err(problem) => refused(&problem),
    }
}

/// A form is the same in whatever pieces it arrives, and never has more than was declared.
fn form(form: Form, body: &[u8], work: BrokeredWork) {
    let whole = read(form.clone(), body, body.len().max(1));
    let bytewise = read(form.clone(), body, 1);
    match (whole, bytewise) {
        (Ok(files), Ok(again)) => {
            assert_eq!(again, files);
            for (ask, _, file) in &files {
                assert!(ask.files > 1 || file.len() as u64 <= form.bound());
                assert_eq!(ask.kind == Kind::Code, work == BrokeredWork::Run);
                assert_eq!(usize::from(ask.files), files.len());
            }
        }
        (Err(problem), Err(_)) => refused(&problem),
        (whole, bytewise) => panic!("{whole:?}, and byte by byte {bytewise:?}"),
    }
}

type File = (intake::Ask, intake::Label, Vec<u8>);

fn read(form: Form, body: &[u8], piece: usize) -> Result<Vec<File>, Problem> {
    let mut reader = form.reader();
    let (mut files, mut ended) = (Vec::<File>::new(), false);
    let mut pieces = body.chunks(piece);
    loop {
        match reader.event()? {
            Some(FormEvent::File(ask, label)) => files.push((ask, label, Vec::new())),
            Some(FormEvent::Data(data)) => {
                files.last_mut().expect("data belongs to a file").2.extend_from_slice(&data);
            }
            Some(FormEvent::End) => ended = true,
            None => match pieces.next() {
                Some(piece) => reader.push(bytes::Bytes::copy_from_slice(piece)),
                None => break,
            },
        }
    }
    reader.end()?;
    assert!(ended);
    assert!(!files.is_empty(), "a form that ends well has a file");
    Ok(files)
}

/// A refusal is the client's fault, and short enough to be answered.
fn refused(problem: &Problem) {
    assert!((400..500).contains(&problem.reason.status()));
    assert!(problem.to_json().to_string().len() < 4_096);
}
