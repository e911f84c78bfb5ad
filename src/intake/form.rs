//! A form (`multipart/form-data`): its options, and the file in it, or several. No I/O: bytes are pushed in as they arrive.
//!
//! The options are in the query, then the head alone says the price; or in fields before the file, then those must be
//! read first. How many files there are the query says, if it is not one. What stands behind the first file, and is no file
//! that was announced, comes too late to be priced, so it is refused.

use bytes::Bytes;
use serde_json::{Value, json};

use super::multipart::{Event, Parser, Part, fault};
use super::plan::Limits;
use super::query::Query;
use super::{Ask, Label, options, plan};
use crate::config::resolved::BrokeredWork;
use crate::reason::Problem;

/// The name of the field that holds the file.
const FILE: &str = "file";
/// Bytes before the file at most.
pub const MAX_FIELDS: u64 = 64 * 1024;
/// Fields before the file at most: more than there are options.
const MAX_COUNT: usize = 32;

/// A form, as its head describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    pub(super) work: BrokeredWork,
    pub(super) boundary: String,
    /// The options of the query, as text.
    pub(super) given: Vec<(String, String)>,
    /// `?filename=`.
    pub(super) filename: Option<String>,
    /// The most that the file, or each of several, can have: the whole body's length, or `?size=`.
    pub(super) bound: u64,
    /// How many files there are.
    pub(super) files: u16,
    pub(super) limits: Limits,
    /// What is asked, if the query says it.
    pub(super) ask: Option<Ask>,
}

/// What comes next of a form.
#[derive(Debug, PartialEq, Eq)]
pub enum FormEvent {
    /// The file begins, or the next of several, and what is asked is known. `ask.size` is the most that it can have.
    File(Ask, Label),
    /// Some of its bytes.
    Data(Bytes),
    /// The form is complete, and nothing was wrong with it.
    End,
}

/// Reads one form.
#[derive(Debug)]
pub struct FormReader {
    form: Form,
    parser: Parser,
    fields: Vec<(String, String)>,
    /// Files that began so far.
    files: u16,
    state: State,
}

#[derive(Debug)]
enum State {
    Fields,
    /// In a plain field, with what is read of its value.
    Field(Part, Vec<u8>),
    File,
    /// Behind a file.
    Behind,
    End,
}

impl Form {
    /// What is asked, if the head says it all: then its price goes out before the body is read.
    pub fn ask(&self) -> Option<&Ask> {
        self.ask.as_ref()
    }

    /// The most bytes that its file can have.
    pub fn bound(&self) -> u64 {
        self.bound
    }

    /// Begins to read it.
    pub fn reader(self) -> FormReader {
        let parser = Parser::new(&self.boundary);
        FormReader { form: self, parser, fields: Vec::new(), files: 0, state: State::Fields }
    }
}

impl FormReader {
    /// More of the body.
    pub fn push(&mut self, bytes: Bytes) {
        self.parser.push(bytes);
    }

    /// The most bytes that its file can have.
    pub fn bound(&self) -> u64 {
        self.form.bound
    }

    /// What comes next; `None` if more of the body is needed for it.
    pub fn event(&mut self) -> Result<Option<FormEvent>, Problem> {
        while let Some(event) = self.parser.next()? {
            match (std::mem::replace(&mut self.state, State::Fields), event) {
                (State::Fields | State::Behind, Event::Part(part))
                    if part.name == FILE && self.files < self.form.files =>
                {
                    self.state = State::File;
                    self.files += 1;
                    return self.file(&part).map(Some);
                }
                (State::Fields, Event::Part(part)) => {
                    self.refuse_unusable(&part)?;
                    self.state = State::Field(part, Vec::new());
                }
                (State::Fields, Event::End) => {
                    return Err(about(
                        FILE,
                        fault(self.parser.position(), "the form has no field called file"),
                    ));
                }
                (State::Field(part, mut value), Event::Data(data)) => {
                    value.extend_from_slice(&data);
                    self.state = State::Field(part, value);
                }
                (State::Field(part, value), Event::PartEnd) => {
                    let value = String::from_utf8(value)
                        .map_err(|_| about(&part.name, fault(part.at, "a field is not UTF-8")))?;
                    self.fields.push((part.name, value));
                }
                (State::File, Event::Data(data)) => {
                    self.state = State::File;
                    return Ok(Some(FormEvent::Data(data)));
                }
                (State::File, Event::PartEnd) => self.state = State::Behind,
                (State::Behind, Event::End) if self.files < self.form.files => {
                    let (there, said) = (self.files, self.form.files);
                    let what = format!("the form has {there} files, and ?files= says {said}");
                    return Err(about("files", fault(self.parser.position(), &what)));
                }
                (State::Behind, Event::End) => {
                    self.state = State::End;
                    return Ok(Some(FormEvent::End));
                }
                (State::Behind, Event::Part(part)) => return Err(self.too_late(&part)),
                // The parser has no other order.
                (_, _) => return Err(fault(self.parser.position(), "the form is out of order")),
            }
            self.refuse_long()?;
        }
        self.refuse_long()?;
        Ok(None)
    }

    /// The body has ended. Errors if it should not have.
    pub fn end(&self) -> Result<(), Problem> {
        self.parser.end()
    }

    /// What is wrong with the form, or with what it asks for, before its file.
    fn file(&self, part: &Part) -> Result<FormEvent, Problem> {
        let form = &self.form;
        let here = |problem| with(problem, "position", part.at.into());
        let named = match (&form.filename, &part.filename) {
            (Some(name), _) => Some(name.clone()),
            // A field without a file name, or one that the client has no name for.
            (None, None) => None,
            (None, Some(name)) if name.is_empty() => None,
            (None, Some(name)) => Some(options::filename(name).map_err(here)?),
        };
        let content_type = part.content_type.as_deref();
        let content_type = content_type
            .map(|text| options::content_type("Content-Type of file", text))
            .transpose()
            .map_err(here)?;
        let ask = match &form.ask {
            Some(ask) => {
                self.same_as_the_query()?;
                ask.clone()
            }
            None => {
                let mut fields = Query::of_fields(&self.fields);
                let (wanted, kind) = plan::wanted(&mut fields, form.work, named.as_deref())?;
                fields.refuse_rest("form", "it is not an option here")?;
                plan::within(Some(form.bound), form.limits.of(kind))?;
                Ask { wanted, kind, size: form.bound, files: 1 }
            }
        };
        let guessed =
            || named.as_deref().and_then(|name| mime_guess::from_path(name).first_raw()).map(str::to_owned);
        let content_type = content_type.or_else(guessed);
        Ok(FormEvent::File(ask, Label { filename: named, content_type }))
    }

    /// A price was made from the query: fields may repeat it, as clients that send both do, and not change it.
    fn same_as_the_query(&self) -> Result<(), Problem> {
        for (name, value) in self.fields.iter().filter(|(_, value)| !value.is_empty()) {
            let given = self.form.given.iter().find(|(given, _)| given == name);
            if given.is_none_or(|(_, given)| given != value) {
                let why =
                    "the options are in the query of this request, and this field is not the same there";
                return Err(options::invalid(name, why));
            }
        }
        Ok(())
    }

    fn refuse_unusable(&self, part: &Part) -> Result<(), Problem> {
        if self.fields.iter().any(|(name, _)| *name == part.name) {
            return Err(about(&part.name, fault(part.at, "a field of the form is there more than once")));
        }
        if part.filename.is_some() {
            let what = "there is a file in another field than the one called file";
            return Err(about(&part.name, fault(part.at, what)));
        }
        if self.fields.len() >= MAX_COUNT {
            return Err(fault(part.at, "the form has too many fields"));
        }
        Ok(())
    }

    fn refuse_long(&self) -> Result<(), Problem> {
        let before = matches!(self.state, State::Fields | State::Field(..));
        if before && self.parser.position() > MAX_FIELDS {
            let what = "the fields before the file are longer than 64 KiB together";
            return Err(fault(MAX_FIELDS, what));
        }
        Ok(())
    }

    fn too_late(&self, part: &Part) -> Problem {
        let what = if part.name == FILE && self.form.files > 1 {
            "there are more fields called file than ?files= says"
        } else if part.name == FILE {
            "there is more than one field called file; say in the query how many (?files=2), or send one request for each"
        } else {
            "there is a field behind the file, too late to be priced; put it before the file, or into the query"
        };
        about(&part.name, fault(part.at, what))
    }
}

/// With the name of the field it is about.
fn about(name: &str, problem: Problem) -> Problem {
    with(problem, "field", options::excerpt(name).into())
}

fn with(mut problem: Problem, name: &str, value: Value) -> Problem {
    problem.details.get_or_insert_with(|| json!({}))[name] = value;
    problem
}
