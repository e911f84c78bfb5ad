//! A JSON store request read as it arrives: what is small is kept, the text of `data` is decoded as it passes.
//!
//! No I/O. The scan only finds where the string of the member `data` begins and ends. While that is short it stays
//! where it stands. Once it is long it is cut out: what is left is a small document with an empty `data`, which is
//! checked by the parser and the rules that small requests are read by. So both have the same fields, and the same errors.

use std::mem::take;

use bytes::Bytes;
use serde_json::json;

use super::fields::Hole;
use super::text::{Fault, Text};
use super::{Ask, Content, Encoding, Kind, Label, Wanted, data, document, measure};
use crate::reason::{Problem, Reason};

/// Bytes of a text that are looked at to tell base64 from plain text; what they are, all of it must be.
const LOOKED_AT: usize = 64 * 1024;

/// Reads one request.
#[derive(Debug)]
pub struct JsonReader {
    /// The document, without what was cut out.
    rest: Vec<u8>,
    /// Bytes that `rest` may have.
    most: u64,
    looked_at: usize,
    state: State,
    depth: usize,
    /// The next string at depth 1 is a name.
    name_next: bool,
    /// The last name at depth 1 is `data`.
    is_data: bool,
    /// Where in `rest` the current string's content begins.
    string: usize,
    escaped: bool,
    cut: Option<(Hole, Text)>,
    input: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outside,
    /// In a string that is kept: a name at depth 1, the text of `data`, or any other.
    Name,
    Data,
    Other,
    /// In what is cut out.
    Cut,
}

/// What a request turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum JsonEnd {
    /// It was small: nothing came out on the way, and this is all of it, still to be measured.
    Small(Bytes),
    /// Its data came out on the way.
    Large(LargeJson),
}

/// A request whose data came out on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeJson {
    /// What is wanted.
    pub wanted: Wanted,
    /// What the client calls it.
    pub label: Label,
    /// How its text was read.
    pub encoding: Encoding,
}

impl JsonReader {
    /// A reader that keeps so many bytes at most.
    pub fn new(most: u64) -> Self {
        JsonReader::looking_at(LOOKED_AT, most)
    }

    /// The same, looking at fewer bytes to tell base64 from plain text: tests and fuzzers get past them sooner.
    pub fn looking_at(looked_at: usize, most: u64) -> Self {
        JsonReader {
            rest: Vec::new(),
            most,
            looked_at,
            state: State::Outside,
            depth: 0,
            name_next: false,
            is_data: false,
            string: 0,
            escaped: false,
            cut: None,
            input: Bytes::new(),
        }
    }

    /// More of the body, once [`JsonReader::data`] has nothing left of what came before.
    pub fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.input.is_empty());
        self.input = bytes;
    }

    /// Bytes that are kept.
    pub fn kept(&self) -> u64 {
        self.rest.len() as u64
    }

    /// The next decoded bytes; `None` if more of the body is needed.
    pub fn data(&mut self) -> Result<Option<Bytes>, Problem> {
        while !self.input.is_empty() {
            match self.state {
                State::Outside => self.outside()?,
                State::Name | State::Data | State::Other => self.string()?,
                State::Cut => self.cut()?,
            }
            let decoded = self.cut.as_mut().map(|(_, text)| text.decoded()).unwrap_or_default();
            if !decoded.is_empty() {
                return Ok(Some(decoded.into()));
            }
            if self.rest.len() as u64 > self.most {
                let message = format!(
                    "all of the request but the text of data has more than {} bytes; a JSON document to store is one of them",
                    self.most
                );
                return Err(Problem::new(Reason::TooLarge)
                    .message(message)
                    .details(json!({ "limit": self.most })));
            }
        }
        Ok(None)
    }

    /// The body has ended: what it was.
    pub fn end(self) -> Result<JsonEnd, Problem> {
        let rest = Bytes::from(self.rest);
        let Some((hole, text)) = self.cut else { return Ok(JsonEnd::Small(rest)) };
        measure::large(&rest, hole, text.encoding()).map(JsonEnd::Large)
    }

    fn outside(&mut self) -> Result<(), Problem> {
        // Up to the next byte that means something.
        let means = |byte: &u8| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b':' | b',');
        let Some(at) = self.input.iter().position(means) else {
            self.rest.extend_from_slice(&take(&mut self.input));
            return Ok(());
        };
        self.rest.extend_from_slice(&self.input.split_to(at));
        let byte = self.input.split_to(1)[0];
        self.rest.push(byte);
        match byte {
            b'{' | b'[' => {
                self.depth += 1;
                self.name_next = self.depth == 1 && byte == b'{';
                self.is_data &= self.depth > 1;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' if self.depth == 1 => (self.name_next, self.is_data) = (true, false),
            b'"' => {
                self.string = self.rest.len();
                self.state = match (self.depth, self.name_next, self.is_data) {
                    (1, true, _) => State::Name,
                    // A second one is left to the parser, which refuses it.
                    (1, false, true) if self.cut.is_none() => State::Data,
                    _ => State::Other,
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// A string that is kept as it stands.
    fn string(&mut self) -> Result<(), Problem> {
        if take(&mut self.escaped) {
            self.rest.extend_from_slice(&self.input.split_to(1));
            return Ok(());
        }
        // Exactly so much is looked at, however the body arrives.
        let room = match self.state {
            State::Data => (self.looked_at + 1).saturating_sub(self.rest.len() - self.string),
            _ => usize::MAX,
        };
        let window = &self.input[..room.min(self.input.len())];
        let (found, end) = (memchr::memchr2(b'"', b'\\', window), window.len());
        let run = self.input.split_to(found.unwrap_or(end));
        self.rest.extend_from_slice(&run);
        if self.state == State::Data && self.rest.len() - self.string > self.looked_at {
            return self.begin_cut();
        }
        if found.is_none() {
            return Ok(());
        }
        let byte = self.input.split_to(1)[0];
        self.rest.push(byte);
        if byte == b'\\' {
            self.escaped = true;
            return Ok(());
        }
        if self.state == State::Name {
            let name = self.rest.get(self.string - 1..).unwrap_or_default();
            self.is_data = serde_json::from_slice::<String>(name).is_ok_and(|name| name == "data");
            self.name_next = false;
        }
        self.state = State::Outside;
        Ok(())
    }

    fn begin_cut(&mut self) -> Result<(), Problem> {
        let begun = self.rest.split_off(self.string);
        // What stands before says how to read it, if it says so at all.
        let before = [&self.rest[..], b"\"}"].concat();
        let encoding = measure::encoding_before(&before);
        let mut text = Text::new(&begun, encoding);
        self.state = State::Cut;
        let hole = Hole::new(&self.rest);
        let fed = text.feed(&begun);
        self.cut = Some((hole, text));
        fed.map(drop).map_err(|fault| self.fault(fault))?;
        if let Some((hole, _)) = &mut self.cut {
            hole.removed = begun.len();
        }
        Ok(())
    }

    /// What is cut out, up to its closing quote.
    fn cut(&mut self) -> Result<(), Problem> {
        let input = take(&mut self.input);
        let Some((hole, text)) = &mut self.cut else { return Err(Reason::Internal.into()) };
        let fed = match text.feed(&input) {
            Ok(Some(end)) => text.end().map(|()| Some(end)),
            fed => fed,
        };
        match fed {
            Ok(None) => hole.removed += input.len(),
            Ok(Some(end)) => {
                hole.removed += end;
                self.rest.push(b'"');
                self.state = State::Outside;
                self.input = input.slice(end + 1..);
            }
            Err(fault) => return Err(self.fault(fault)),
        }
        Ok(())
    }

    fn fault(&self, fault: Fault) -> Problem {
        match &self.cut {
            Some((hole, _)) => hole.problem(match fault {
                Fault::Base64 => data::not_base64("data"),
                Fault::Json(what) => {
                    Problem::new(Reason::InvalidJson).message(format!("the body is not valid JSON: {what}"))
                }
            }),
            None => Reason::Internal.into(),
        }
    }
}

impl LargeJson {
    /// What is asked for, of data that is in memory whole.
    pub fn content(self, bytes: Bytes) -> Result<(Ask, Content), Problem> {
        let kind = data::kind(self.label.filename.as_deref(), &bytes)?;
        let digest = measure::digest(&bytes);
        Ok(self.with(kind, bytes.into(), digest))
    }

    /// What is asked for, of data too long to be a document.
    pub fn file(self, data: super::Data, digest: [u8; 32]) -> (Ask, Content) {
        self.with(Kind::File, data, digest)
    }

    /// What is asked for, of data that nobody kept.
    pub fn ask(&self, size: u64) -> Ask {
        let kind = if self.is_document() { Kind::Json } else { Kind::File };
        Ask { wanted: self.wanted.clone(), kind, size, files: 1 }
    }

    /// Whether its name says that it is JSON.
    pub fn is_document(&self) -> bool {
        data::is_json_name(self.label.filename.as_deref())
    }

    fn with(self, kind: Kind, data: super::Data, digest: [u8; 32]) -> (Ask, Content) {
        let ask = Ask { wanted: self.wanted, kind, size: data.size(), files: 1 };
        let Label { filename, content_type } = self.label;
        let content_type = content_type.or_else(|| measure::guessed(kind, filename.as_deref()));
        (ask, Content { data, digest, encoding: self.encoding, filename, content_type })
    }
}

/// Whether bytes that begin so may be a JSON document.
pub fn may_be_document(start: &[u8]) -> bool {
    document::begins(start)
}
