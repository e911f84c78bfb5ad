//! Reading `multipart/form-data` as it arrives (RFC 7578, RFC 2046 section 5.1). No I/O: bytes are pushed in, events
//! come out, and no more is kept than a part's head or the start of what may be a delimiter.
//!
//! Stricter than the RFC where leniency would mean that two readers see two forms: nothing before the first
//! delimiter, nothing after the last, no folded lines, one `Content-Disposition`. What is wrong is said with its place.

use bytes::{Bytes, BytesMut};
use memchr::memmem::{self, Finder};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::reason::{Problem, Reason};

/// Bytes of a part's head at most.
const MAX_HEAD: usize = 8 * 1024;
/// Bytes of a boundary at most (RFC 2046 section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// What comes next in a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A part begins.
    Part(Part),
    /// Some of its bytes: a slice of what was pushed, wherever possible.
    Data(Bytes),
    /// It is complete.
    PartEnd,
    /// The last delimiter.
    End,
}

/// What a part says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// The name of its field.
    pub(super) name: String,
    /// The name of its file; `None` for a plain field.
    pub(super) filename: Option<String>,
    /// Its `Content-Type`.
    pub(super) content_type: Option<String>,
    /// Where its head begins, in bytes from the start of the body.
    pub(super) at: u64,
}

/// Reads one form.
#[derive(Debug)]
pub(super) struct Parser {
    /// `CRLF--boundary`.
    delimiter: Finder<'static>,
    state: State,
    rest: Bytes,
    /// Where `rest` begins in the body.
    at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Start,
    /// Behind a delimiter.
    Delimiter,
    Head,
    Data,
    /// Behind the last delimiter.
    Epilogue,
}

impl Parser {
    pub(super) fn new(boundary: &str) -> Self {
        let delimiter = Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned();
        Parser { delimiter, state: State::Start, rest: Bytes::new(), at: 0 }
    }

    /// More of the body.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if self.rest.is_empty() {
            self.rest = bytes;
        } else {
            let mut joined = BytesMut::with_capacity(self.rest.len() + bytes.len());
            joined.extend_from_slice(&self.rest);
            joined.extend_from_slice(&bytes);
            self.rest = joined.freeze();
        }
    }

    /// Bytes of the body that came out as events so far.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// The next event; `None` if more of the body is needed for it.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Problem> {
        loop {
            match self.state {
                State::Start => {
                    // The line break before the first delimiter may be missing, and mostly is.
                    let whole = self.delimiter.needle();
                    let delimiter =
                        if b'\r' == *self.rest.first().unwrap_or(&0) { whole } else { &whole[2..] };
                    let length = delimiter.len();
                    match self.begins_with(delimiter) {
                        None => return Ok(None),
                        Some(false) => {
                            return Err(self.fault(
                                "the body does not begin with the boundary that its Content-Type names",
                            ));
                        }
                        Some(true) => self.advance(length),
                    }
                    self.state = State::Delimiter;
                }
                State::Delimiter => match self.rest.get(..2) {
                    None => return Ok(None),
                    Some(b"--") => {
                        self.advance(2);
                        self.state = State::Epilogue;
                        return Ok(Some(Event::End));
                    }
                    Some(b"\r\n") => {
                        self.advance(2);
                        self.state = State::Head;
                    }
                    Some(_) => {
                        return Err(self.fault("a delimiter is followed by neither a line break nor --"));
                    }
                },
                State::Head => {
                    // An empty head is only its last line break.
                    let end = if self.rest.starts_with(b"\r\n") {
                        Some(0)
                    } else {
                        memmem::find(&self.rest, b"\r\n\r\n")
                    };
                    let Some(end) = end.filter(|end| *end <= MAX_HEAD) else {
                        if self.rest.len() > MAX_HEAD {
                            return Err(
                                self.fault("the head of a part is longer than 8 KiB, or does not end")
                            );
                        }
                        return Ok(None);
                    };
                    let part = Part::parse(&self.rest[..end], self.at)?;
                    self.advance(end + if end == 0 { 2 } else { 4 });
                    self.state = State::Data;
                    return Ok(Some(Event::Part(part)));
                }
                State::Data => return Ok(self.data()),
                State::Epilogue if self.rest.len() < 2 && b"\r\n".starts_with(&self.rest) => return Ok(None),
                State::Epilogue if self.rest == b"\r\n"[..] => return Ok(None),
                State::Epilogue => return Err(self.fault("there is something after the last delimiter")),
            }
        }
    }

    /// The body has ended. It must have ended behind the last delimiter.
    pub(super) fn end(&self) -> Result<(), Problem> {
        if self.state == State::Epilogue {
            Ok(())
        } else {
            Err(self.fault("the body ends before its last delimiter"))
        }
    }

    fn data(&mut self) -> Option<Event> {
        if let Some(found) = self.delimiter.find(&self.rest) {
            if found > 0 {
                return Some(Event::Data(self.take(found)));
            }
            self.advance(self.delimiter.needle().len());
            self.state = State::Delimiter;
            return Some(Event::PartEnd);
        }
        let sure = self.rest.len() - self.begun();
        if sure == 0 { None } else { Some(Event::Data(self.take(sure))) }
    }

    /// How many bytes at the end may be the start of a delimiter.
    fn begun(&self) -> usize {
        let delimiter = self.delimiter.needle();
        let from = self.rest.len().saturating_sub(delimiter.len() - 1);
        let end = &self.rest[from..];
        // A delimiter has one CR, at its start.
        match memchr::memrchr(b'\r', end) {
            Some(at) if delimiter.starts_with(&end[at..]) => end.len() - at,
            _ => 0,
        }
    }

    /// Whether what is left begins with `text`; `None` if it is too short to tell.
    fn begins_with(&self, text: &[u8]) -> Option<bool> {
        let length = text.len().min(self.rest.len());
        if self.rest[..length] != text[..length] {
            return Some(false);
        }
        if length == text.len() { Some(true) } else { None }
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.at += length as u64;
        self.rest.split_to(length)
    }

    fn advance(&mut self, length: usize) {
        drop(self.take(length));
    }

    fn fault(&self, what: &str) -> Problem {
        fault(self.at, what)
    }
}

impl Part {
    fn parse(head: &[u8], at: u64) -> Result<Part, Problem> {
        let fault = |what: &str| fault(at, what);
        let head = str::from_utf8(head).map_err(|_| fault("the head of a part is not UTF-8"))?;
        if head.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\r' | '\n')) {
            return Err(fault("the head of a part has a control character"));
        }
        let mut disposition = None;
        let mut part = Part { at, ..Part::default() };
        for line in head.split("\r\n") {
            if line.contains(['\r', '\n']) || line.starts_with([' ', '\t']) {
                return Err(fault("the head of a part has a line break where none belongs"));
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| fault("a line of a part's head has no colon"))?;
            let value = value.trim();
            let first = match name.to_ascii_lowercase().as_str() {
                "content-disposition" => disposition.replace(value).is_none(),
                "content-type" => part.content_type.replace(value.to_owned()).is_none(),
                "content-transfer-encoding" => {
                    if !["binary", "8bit", "7bit"].iter().any(|plain| value.eq_ignore_ascii_case(plain)) {
                        return Err(fault(
                            "a Content-Transfer-Encoding is not undone here; send the bytes as they are",
                        ));
                    }
                    true
                }
                _ => true,
            };
            if !first {
                return Err(fault("the head of a part has a field twice"));
            }
        }
        let disposition = disposition.ok_or_else(|| fault("a part has no Content-Disposition"))?;
        part.read_disposition(disposition).ok_or_else(|| {
            fault("the Content-Disposition of a part is not form-data with a name, each parameter once")
        })?;
        Ok(part)
    }

    /// `None` if it is not well-formed.
    fn read_disposition(&mut self, value: &str) -> Option<()> {
        let (kind, mut rest) = value.split_once(';').unwrap_or((value, ""));
        if !kind.trim().eq_ignore_ascii_case("form-data") {
            return None;
        }
        let (mut name, mut plain, mut extended) = (None, None, None);
        while !rest.trim().is_empty() {
            let (parameter, after) = rest.split_once('=')?;
            let (value, after) = parameter_value(after)?;
            let first = match parameter.trim().to_ascii_lowercase().as_str() {
                "name" => name.replace(value).is_none(),
                "filename" => plain.replace(value).is_none(),
                // Forbidden by RFC 7578, and what some libraries send for names that are not ASCII.
                "filename*" => extended.replace(decode_extended(&value)?).is_none(),
                _ => true,
            };
            if !first {
                return None;
            }
            rest = after;
        }
        self.name = name?;
        self.filename = extended.or(plain);
        Some(())
    }
}

/// The value at the start of `text`, quoted or not, and what follows its semicolon.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(';').unwrap_or((text, ""));
        return Some((value.trim().to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = quoted[at + 1..].trim_start();
                let rest = if rest.is_empty() { rest } else { rest.strip_prefix(';')? };
                // As browsers escape them.
                return Some((value.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n"), rest));
            }
            // As others do. Any other backslash is one.
            '\\' if quoted[at + 1..].starts_with('"') => {
                value.push('"');
                chars.next();
            }
            c => value.push(c),
        }
    }
    None
}

/// `UTF-8''na%C3%AFve.txt` (RFC 8187).
fn decode_extended(text: &str) -> Option<String> {
    let (charset, rest) = text.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    let known = charset.eq_ignore_ascii_case("utf-8");
    known.then(|| percent_decode_str(encoded).decode_utf8().ok().map(|name| name.into_owned())).flatten()
}

/// The boundary that a `Content-Type` names.
pub(super) fn boundary(content_type: &str) -> Result<String, Problem> {
    let refuse = |what: &str| Problem::new(Reason::InvalidForm).message(what.to_owned());
    let mut found = None;
    let mut rest = content_type.split_once(';').map_or("", |(_, rest)| rest);
    while !rest.trim().is_empty() {
        let malformed = || refuse("the parameters of multipart/form-data are not well-formed");
        let (name, after) = rest.split_once('=').ok_or_else(malformed)?;
        let (value, after) = parameter_value(after).ok_or_else(malformed)?;
        if name.trim().eq_ignore_ascii_case("boundary") && found.replace(value).is_some() {
            return Err(refuse("multipart/form-data has more than one boundary"));
        }
        rest = after;
    }
    let boundary = found.ok_or_else(|| {
        refuse("multipart/form-data has no boundary; let the HTTP library write the Content-Type")
    })?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    let fits = (1..=MAX_BOUNDARY).contains(&boundary.len())
        && boundary.bytes().all(plain)
        && !boundary.ends_with(' ');
    if fits {
        Ok(boundary)
    } else {
        Err(refuse("the boundary has characters that none may have, or more than 70"))
    }
}

/// What is wrong, and where: bytes from the start of the body.
pub(super) fn fault(at: u64, what: &str) -> Problem {
    Problem::new(Reason::InvalidForm)
        .message(format!("{what} (at byte {at} of the body)"))
        .details(json!({ "position": at }))
}
