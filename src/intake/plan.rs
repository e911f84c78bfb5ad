//! From the head of a request to the form of its body: a JSON document that must be read to be measured, raw
//! bytes that the head measures by itself, or a form, measured by its head or by the fields before its file.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use serde_json::json;

use super::query::Query;
use super::{
    Ask, Content, Data, Encoding, Form, Kind, Label, Wanted, data, document, measure, multipart, options,
};
use crate::config::resolved::{BrokeredWork, Paid};
use crate::reason::{Problem, Reason};

/// The media type of the JSON form.
const JSON: &str = "application/json";

/// The largest bodies that are read, in bytes as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A JSON body.
    pub json: u64,
    /// What must be whole in memory to be checked: a JSON document, a program.
    pub whole: u64,
    /// A raw body, or the file of a form; of several files, all of them.
    pub raw: u64,
    /// Files in one form.
    pub files: u16,
}

impl Limits {
    /// What is checked is held in memory, so it is taken up to what a JSON body may have.
    pub(super) fn of(self, kind: Kind) -> u64 {
        if kind == Kind::File { self.raw } else { self.raw.min(self.whole) }
    }
}

impl From<&Paid> for Limits {
    fn from(paid: &Paid) -> Self {
        Limits {
            json: paid.max_json_body,
            whole: paid.max_document,
            raw: paid.max_raw_body,
            files: paid.max_files,
        }
    }
}

/// What to do with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Read it, up to [`Limits::json`], and hand it to [`super::measure_json`], or through a [`super::JsonReader`].
    Json,
    /// It is already measured; it need not be read before there is money for it.
    Raw(Raw),
    /// A file among options.
    Form(Form),
}

/// A raw body, measured by its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// What is wanted; `size` is as declared.
    pub ask: Ask,
    /// `?filename=`, and `Content-Type` as sent.
    pub label: Label,
    /// Whether it must be read whole to be checked; else its bytes may be anything, and pass as they come.
    pub whole: bool,
}

/// The form of the body that belongs to this head, or why it cannot be taken.
///
/// `application/json`, `text/json` and `…+json` are the JSON form, `multipart/form-data` is a form.
/// `application/x-www-form-urlencoded` is refused (415): it is what tools send when nobody chose a type, so its bytes
/// would be stored or run by mistake. Any other type is raw. Without `Content-Type` nobody can tell which was meant, so
/// that is refused too (415).
///
/// A raw body's options are in the query: `filename`, `permanent`, `ttl` to store, `language` to run, and
/// `size`, which stands in for `Content-Length`. A form's may be, and if there are several files in it must be, with their
/// number as `files` and what each may have as `size`. With a JSON body the options are in the body, and a
/// query is refused.
pub fn plan(parts: &Parts, work: BrokeredWork, limits: Limits) -> Result<Plan, Problem> {
    let said = Said::of(parts);
    if said.coded {
        return Err(unsupported("a Content-Encoding is not undone here; send the bytes as they are"));
    }
    let content_type = said.content_type()?;
    let essence = essence(content_type);
    let query = parts.uri.query().unwrap_or_default();
    let length = said.length()?;
    match &*essence {
        "multipart/form-data" => form(query, work, length, content_type, limits).map(Plan::Form),
        "application/x-www-form-urlencoded" => Err(unsupported(
            "application/x-www-form-urlencoded is not read here (curl sends it unless told otherwise)",
        )),
        "" => Err(unsupported("the Content-Type is not a media type")),
        json if is_json(json) => {
            Query::parse(query)?
                .refuse_rest("query", "the options of a JSON request are fields of its body")?;
            let limit = if work == BrokeredWork::Run { limits.whole.min(limits.json) } else { limits.json };
            within(length, limit)?;
            Ok(Plan::Json)
        }
        _ => raw(query, work, length, content_type, limits).map(Plan::Raw),
    }
}

impl Raw {
    /// The content, once the body was read: checked against what the head promised.
    ///
    /// Errors, all before anything is spent: `invalid_field` if the length is not `?size=`, `invalid_json` if a
    /// `.json` name was promised, `unsupported_media_type` if a `text/plain` body is a request in the JSON form
    /// (`fetch` says `text/plain` when nobody chose a type, and its envelope is not what anybody wants stored).
    pub fn content(self, bytes: Bytes) -> Result<Content, Problem> {
        if !u64::try_from(bytes.len()).is_ok_and(|length| length == self.ask.size) {
            let message = format!("the body has {} bytes, and {} were declared", bytes.len(), self.ask.size);
            return Err(options::invalid("size", message));
        }
        let work = match self.ask.wanted {
            Wanted::Store { .. } => BrokeredWork::Store,
            Wanted::Run { .. } => BrokeredWork::Run,
        };
        let content_type = self.label.content_type.as_deref().unwrap_or_default();
        if essence(content_type) == "text/plain" && is_request(&bytes, work) {
            return Err(unsupported("a JSON request was sent as text/plain"));
        }
        content(self.ask.kind, self.label, bytes)
    }
}

/// Bytes that were sent as they are, read whole: checked to be what was asked for, and not nothing.
pub fn content(kind: Kind, label: Label, bytes: Bytes) -> Result<Content, Problem> {
    if bytes.is_empty() {
        let work = if kind == Kind::Code { BrokeredWork::Run } else { BrokeredWork::Store };
        return Err(missing(work).into());
    }
    match kind {
        Kind::Json => document::check(&bytes)?,
        Kind::Code => data::refuse_binary_code(&bytes)?,
        Kind::File => {}
    }
    let digest = measure::digest(&bytes);
    Ok(file(label, bytes.into(), digest))
}

/// Bytes that were sent as they are, and may be anything.
pub fn file(label: Label, data: Data, digest: [u8; 32]) -> Content {
    let Label { filename, content_type } = label;
    Content { data, digest, encoding: Encoding::Raw, filename, content_type }
}

fn raw(
    query: &str,
    work: BrokeredWork,
    length: Option<u64>,
    content_type: &str,
    limits: Limits,
) -> Result<Raw, Problem> {
    let mut query = Query::parse(query)?;
    let filename = filename(&mut query, work)?;
    let (wanted, kind) = wanted(&mut query, work, filename.as_deref())?;
    let declared = query.take("size")?.map(|text| options::size(&text)).transpose()?;
    query.refuse_rest("query", "it is not an option of a raw body here")?;
    let size = match (length, declared) {
        (Some(length), Some(size)) if length != size => {
            return Err(options::invalid(
                "size",
                format!("Content-Length is {length}, and ?size= is {size}"),
            ));
        }
        (length, declared) => length.or(declared).ok_or(Reason::LengthRequired)?,
    };
    within(Some(size), limits.of(kind))?;
    if size == 0 {
        return Err(missing(work).into());
    }
    let whole = essence(content_type) == "text/plain" && size <= limits.whole;
    let label = Label { filename, content_type: Some(content_type.to_owned()) };
    Ok(Raw { ask: Ask { wanted, kind, size, files: 1 }, label, whole: whole || kind != Kind::File })
}

fn form(
    query: &str,
    work: BrokeredWork,
    length: Option<u64>,
    content_type: &str,
    limits: Limits,
) -> Result<Form, Problem> {
    let boundary = multipart::boundary(content_type)?;
    let mut query = Query::parse(query)?;
    let declared = query.take("size")?.map(|text| options::size(&text)).transpose()?;
    let bound = match (length, declared) {
        (Some(length), Some(size)) if size > length => {
            return Err(options::invalid(
                "size",
                format!("?size= is {size}, more than the whole body (Content-Length is {length})"),
            ));
        }
        (length, declared) => declared.or(length).ok_or(Reason::LengthRequired)?,
    };
    let given = query.rest();
    let files = match work {
        BrokeredWork::Store => {
            query.take("files")?.map(|text| options::files(&text, limits.files)).transpose()?
        }
        BrokeredWork::Run => None,
    };
    let files = files.unwrap_or(1);
    within(Some(bound), limits.of(if work == BrokeredWork::Run { Kind::Code } else { Kind::File }))?;
    if bound == 0 {
        return Err(missing(work).into());
    }
    if files > 1 {
        // Without a length, all of them may be as large as each.
        within(Some(length.unwrap_or(bound.saturating_mul(files.into()))), limits.raw)?;
    }
    let filename = filename(&mut query, work)?;
    if files > 1 && filename.is_some() {
        return Err(options::invalid(
            "filename",
            "each of several files has its own, in its part of the form",
        ));
    }
    let ask = if given.is_empty() {
        None
    } else {
        let (wanted, kind) = wanted(&mut query, work, filename.as_deref())?;
        query.refuse_rest("query", "it is not an option here")?;
        within(Some(bound), limits.of(kind))?;
        Some(Ask { wanted, kind, size: bound, files })
    };
    Ok(Form { work, boundary, given, filename, bound, files, limits, ask })
}

fn filename(query: &mut Query<'_>, work: BrokeredWork) -> Result<Option<String>, Problem> {
    match work {
        BrokeredWork::Store => query.take("filename")?.map(|name| options::filename(&name)).transpose(),
        BrokeredWork::Run => Ok(None),
    }
}

/// What the options ask for.
pub(super) fn wanted(
    given: &mut Query<'_>,
    work: BrokeredWork,
    filename: Option<&str>,
) -> Result<(Wanted, Kind), Problem> {
    match work {
        BrokeredWork::Store => {
            let permanent = given.take("permanent")?.map_or(Ok(false), |text| options::permanent(&text))?;
            let ttl = given.take("ttl")?.map(|text| options::ttl(&text)).transpose()?;
            let kind = if data::is_json_name(filename) { Kind::Json } else { Kind::File };
            Ok((options::store(permanent, ttl)?, kind))
        }
        BrokeredWork::Run => {
            let language = given.take("language")?.map(|name| options::language(&name)).transpose()?;
            for name in options::UNSOLD {
                if let Some(value) = given.take(name)? {
                    options::refuse_unsold(name, &value)?;
                }
            }
            Ok((options::run(language), Kind::Code))
        }
    }
}

/// Why a request without content buys nothing.
pub(super) fn missing(work: BrokeredWork) -> Reason {
    match work {
        BrokeredWork::Store => Reason::DataRequired,
        BrokeredWork::Run => Reason::CodeRequired,
    }
}

/// What a head says of its body, found in one pass over the fields: to look up three names costs more.
struct Said<'a> {
    /// RFC 9110 8.4: a coding that is not undone must be refused, or compressed bytes would be taken for the data.
    coded: bool,
    types: usize,
    content_type: Option<&'a HeaderValue>,
    length: Option<&'a HeaderValue>,
}

impl<'a> Said<'a> {
    fn of(parts: &'a Parts) -> Self {
        let mut said = Said { coded: false, types: 0, content_type: None, length: None };
        for (name, value) in &parts.headers {
            if *name == CONTENT_TYPE {
                said.types += 1;
                said.content_type = Some(value);
            } else if *name == CONTENT_LENGTH {
                // There is one: the edge sees to that.
                said.length = said.length.or(Some(value));
            } else if *name == CONTENT_ENCODING {
                said.coded |= !value.as_bytes().eq_ignore_ascii_case(b"identity");
            }
        }
        said
    }

    fn content_type(&self) -> Result<&'a str, Problem> {
        let value = self.content_type.ok_or_else(|| unsupported("Content-Type is missing"))?;
        if self.types > 1 {
            return Err(unsupported("there is more than one Content-Type"));
        }
        value.to_str().map_err(|_| unsupported("the Content-Type is not a media type"))
    }

    fn length(&self) -> Result<Option<u64>, Problem> {
        let Some(value) = self.length else { return Ok(None) };
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|text| text.parse().ok()).ok_or(Reason::BadRequest)?;
        Ok(Some(length))
    }
}

/// `type/subtype` in lower case; empty if the text is no media type.
fn essence(content_type: &str) -> Cow<'static, str> {
    // In what nearly all requests say there is nothing to look for.
    if content_type == JSON {
        return JSON.into();
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if options::is_media_type(essence) { essence.to_ascii_lowercase().into() } else { "".into() }
}

fn is_json(essence: &str) -> bool {
    matches!(essence, JSON | "text/json") || essence.ends_with("+json")
}

/// Whether these bytes would be taken as a request in the JSON form.
fn is_request(bytes: &Bytes, work: BrokeredWork) -> bool {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    first == Some(&b'{') && measure::price_json(bytes, work).is_ok()
}

pub(super) fn within(size: Option<u64>, limit: u64) -> Result<(), Problem> {
    match size {
        Some(size) if size > limit => Err(Problem::new(Reason::TooLarge)
            .message(format!("the body has {size} bytes; at most {limit} are taken"))
            .details(json!({ "limit": limit, "size": size }))),
        _ => Ok(()),
    }
}

fn unsupported(why: &str) -> Problem {
    Problem::new(Reason::UnsupportedMediaType)
        .message(format!(
            "{why}; send application/json for a JSON request, multipart/form-data for a form with a file, or any other \
             type (application/octet-stream) for the bytes themselves with the options in the query"
        ))
        .details(json!({ "accepted": ["application/json", "multipart/form-data", "application/octet-stream", "*/*"] }))
}
