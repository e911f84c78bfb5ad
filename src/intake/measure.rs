//! A JSON request, measured: its fields checked, its data decoded, its size and digest known.

use bytes::Bytes;
use serde_json::json;

use super::data::{self, Reading};
use super::fields::{Hole, Source, Value};
use super::{Ask, Content, DataUrl, Encoding, Kind, Label, LargeJson, Limits, document, options};
use crate::config::resolved::BrokeredWork;
use crate::reason::{Problem, Reason};

/// The ask and the content of a body in the JSON form.
///
/// To store: `data` (base64, text, an object or an array), `filename`, `contentType` or `content_type`, `encoding`
/// (`base64` or `utf8`), `options` with `permanent` and `ttl`. To run: `code` (base64 or text), `language`,
/// `encoding`. An optional field that is `null` counts as absent.
///
/// A `data` text that is strictly valid base64 is base64, unless `encoding` says otherwise or its name ends in
/// `.json` and only the text itself is JSON. A `code` text is base64 only if that gives a readable text. How
/// it was read is in [`Content::encoding`], for the answer.
pub fn measure_json(body: &Bytes, work: BrokeredWork) -> Result<(Ask, Content), Problem> {
    Ok(read_json(body, work)?.digested())
}

/// The ask alone of a body that [`measure_json`] takes: all that a price needs, and no digest.
pub fn price_json(body: &Bytes, work: BrokeredWork) -> Result<Ask, Problem> {
    Ok(read_json(body, work)?.ask())
}

fn read_json(body: &Bytes, work: BrokeredWork) -> Result<Measured, Problem> {
    let required = match work {
        BrokeredWork::Store => Reason::DataRequired,
        BrokeredWork::Run => Reason::CodeRequired,
    };
    if body.is_empty() {
        return Err(required.into());
    }
    let source = Source::new(body)?;
    match work {
        BrokeredWork::Store => store(body, source),
        BrokeredWork::Run => run(body, source),
    }
}

/// BLAKE3 of the bytes.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    blake3::hash(bytes).into()
}

/// BLAKE3 of bytes that pass; fastest in pieces of 16 KiB and more. What it keeps is 2 KiB, out of the way of futures.
#[derive(Clone, Debug, Default)]
pub struct Digest(Box<blake3::Hasher>);

impl Digest {
    /// These too.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all that passed.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// What a body says, read and checked.
struct Measured {
    wanted: super::Wanted,
    kind: Kind,
    bytes: Bytes,
    encoding: Encoding,
    filename: Option<String>,
    content_type: Option<String>,
}

impl Measured {
    fn ask(self) -> Ask {
        Ask { wanted: self.wanted, kind: self.kind, size: self.bytes.len() as u64, files: 1 }
    }

    fn digested(self) -> (Ask, Content) {
        let Measured { wanted, kind, bytes, encoding, filename, content_type } = self;
        let (size, digest) = (bytes.len() as u64, digest(&bytes));
        (
            Ask { wanted, kind, size, files: 1 },
            Content { data: bytes.into(), digest, encoding, filename, content_type },
        )
    }
}

/// The fields of a store.
struct Store<'a> {
    data: Value<'a>,
    filename: Option<String>,
    content_type: Option<String>,
    encoding: Option<Encoding>,
    wanted: super::Wanted,
}

const STORE: [&str; 6] = ["data", "filename", "contentType", "content_type", "encoding", "options"];

fn store_fields(source: Source<'_>) -> Result<Store<'_>, Problem> {
    let [data, filename, camel, snake, encoding, store_options] = source.members(&STORE)?;
    let data = required(data, Reason::DataRequired)?;
    let filename = optional_text(source, "filename", filename, options::filename)?;
    if let (Some(_), Some(again)) = (camel, snake) {
        let problem = options::invalid("content_type", "contentType is there too; send one of the two");
        return Err(source.at(again, problem));
    }
    let content_type = match camel {
        Some(_) => {
            optional_text(source, "contentType", camel, |text| options::content_type("contentType", text))?
        }
        None => {
            optional_text(source, "content_type", snake, |text| options::content_type("content_type", text))?
        }
    };
    let encoding = read_encoding(source, encoding)?;
    let wanted = read_store_options(source, store_options)?;
    Ok(Store { data, filename, content_type, encoding, wanted })
}

fn store(body: &Bytes, source: Source<'_>) -> Result<Measured, Problem> {
    let Store { data, filename, content_type, encoding, wanted } = store_fields(source)?;
    let (bytes, encoding, kind) = if let Some(text) = source.text(data)? {
        let reading = if data::is_json_name(filename.as_deref()) { Reading::Json } else { Reading::Any };
        let (bytes, encoding) = data::decode(body, "data", text, encoding, reading)
            .map_err(|problem| source.at(data, problem))?;
        refuse_empty(&bytes, Reason::DataRequired)?;
        let kind = data::kind(filename.as_deref(), &bytes).map_err(|problem| source.at(data, problem))?;
        (bytes, encoding, kind)
    } else if data.is_document() {
        refuse_url(source, data, "data")?;
        if encoding.is_some() {
            let problem = options::invalid("encoding", "it is about text, and data is a JSON document");
            return Err(source.at(data, problem));
        }
        let bytes = document::compact(body, data.raw()).map_err(|problem| source.at(data, problem))?;
        (bytes, Encoding::Json, Kind::Json)
    } else {
        let problem = options::invalid("data", "it is a text (base64 or plain), an object or an array");
        return Err(source.at(data, problem));
    };
    let content_type = content_type.or_else(|| guessed(kind, filename.as_deref()));
    Ok(Measured { wanted, kind, bytes, encoding, filename, content_type })
}

/// A store of what is at a URL: `{"url": "…"}` in place of its data. `None` for any other, valid or not.
pub fn data_url(body: &Bytes) -> Option<DataUrl> {
    let source = Source::new(body).ok()?;
    let store = store_fields(source).ok()?;
    if store.encoding.is_some() || !store.data.is_object() {
        return None;
    }
    let [url] = source.inner(store.data, "", &["url"]).ok()?;
    let url = source.text(url?).ok()??.into_owned();
    let label = Label { filename: store.filename, content_type: store.content_type };
    Some(DataUrl { url, wanted: store.wanted, label })
}

impl DataUrl {
    /// What is asked for, if it has so many bytes and this media type.
    pub fn ask(self, size: u64, content_type: Option<&str>, limits: Limits) -> Result<(Ask, Label), Problem> {
        let DataUrl { wanted, mut label, .. } = self;
        let kind = if data::is_json_name(label.filename.as_deref()) { Kind::Json } else { Kind::File };
        super::plan::within(Some(size), limits.of(kind))?;
        if size == 0 {
            return Err(Reason::DataRequired.into());
        }
        let found = content_type.and_then(|text| options::content_type("Content-Type", text).ok());
        label.content_type =
            label.content_type.or(found).or_else(|| guessed(kind, label.filename.as_deref()));
        Ok((Ask { wanted, kind, size, files: 1 }, label))
    }
}

/// The media type of what has none.
pub(super) fn guessed(kind: Kind, filename: Option<&str>) -> Option<String> {
    match kind {
        Kind::Json => Some("application/json".to_owned()),
        _ => filename.and_then(|name| mime_guess::from_path(name).first_raw()).map(str::to_owned),
    }
}

/// A store whose text was cut out of `rest`, and read as `encoding`.
pub(super) fn large(rest: &[u8], hole: Hole, encoding: Encoding) -> Result<LargeJson, Problem> {
    let source = Source::without(rest, Some(hole))?;
    let store = store_fields(source)?;
    if store.encoding.is_some_and(|said| said != encoding) {
        let why = "a large data that comes before it was read as the other; put encoding before data";
        return Err(options::invalid("encoding", why));
    }
    let label = Label { filename: store.filename, content_type: store.content_type };
    Ok(LargeJson { wanted: store.wanted, label, encoding })
}

/// The `encoding` of a store, as far as it is known.
pub(super) fn encoding_before(rest: &[u8]) -> Option<Encoding> {
    let source = Source::new(rest).ok()?;
    let [_, _, _, _, encoding, _] = source.members(&STORE).ok()?;
    read_encoding(source, encoding).ok()?
}

fn run(body: &Bytes, source: Source<'_>) -> Result<Measured, Problem> {
    const NAMES: [&str; 3 + options::UNSOLD.len()] = {
        let mut names = ["code", "language", "encoding", "", "", "", "", "", "", "", ""];
        let mut at = 0;
        while at < options::UNSOLD.len() {
            names[3 + at] = options::UNSOLD[at];
            at += 1;
        }
        names
    };
    let [code, language, encoding, unsold @ ..] = source.members(&NAMES)?;
    let code = required(code, Reason::CodeRequired)?;
    let language = optional_text(source, "language", language, options::language)?;
    let encoding = read_encoding(source, encoding)?;
    for (name, value) in options::UNSOLD.iter().zip(unsold) {
        if let Some(value) = value {
            options::refuse_unsold(name, value.raw()).map_err(|problem| source.at(value, problem))?;
        }
    }

    let Some(text) = source.text(code)? else {
        refuse_url(source, code, "code")?;
        return Err(source.at(code, options::invalid("code", "it is a text: the program, or its base64")));
    };
    let (bytes, encoding) = data::decode(body, "code", text, encoding, Reading::Code)
        .map_err(|problem| source.at(code, problem))?;
    refuse_empty(&bytes, Reason::CodeRequired)?;
    data::refuse_binary_code(&bytes).map_err(|problem| source.at(code, problem))?;
    let wanted = options::run(language);
    Ok(Measured { wanted, kind: Kind::Code, bytes, encoding, filename: None, content_type: None })
}

fn required(value: Option<Value<'_>>, reason: Reason) -> Result<Value<'_>, Problem> {
    value.filter(|value| !value.is_null()).ok_or_else(|| reason.into())
}

fn refuse_empty(bytes: &[u8], reason: Reason) -> Result<(), Problem> {
    if bytes.is_empty() { Err(reason.into()) } else { Ok(()) }
}

fn optional_text(
    source: Source<'_>,
    field: &str,
    value: Option<Value<'_>>,
    check: impl FnOnce(&str) -> Result<String, Problem>,
) -> Result<Option<String>, Problem> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let text =
        source.text(value)?.ok_or_else(|| source.at(value, options::invalid(field, "it is not a string")))?;
    check(&text).map(Some).map_err(|problem| source.at(value, problem))
}

fn read_encoding(source: Source<'_>, value: Option<Value<'_>>) -> Result<Option<Encoding>, Problem> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    match source.text(value)?.as_deref() {
        Some("base64") => Ok(Some(Encoding::Base64)),
        Some("utf8") => Ok(Some(Encoding::Utf8)),
        _ => Err(source.at(value, options::invalid("encoding", "it is \"base64\" or \"utf8\""))),
    }
}

fn read_store_options(source: Source<'_>, value: Option<Value<'_>>) -> Result<super::Wanted, Problem> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return options::store(false, None) };
    let [permanent, ttl] = source.inner(value, "options.", &["permanent", "ttl"])?;
    let permanent = match permanent.map(Value::raw) {
        None | Some("null" | "false") => false,
        Some("true") => true,
        Some(_) => {
            let problem = options::invalid("options.permanent", "it is true or false");
            return Err(source.at(permanent.unwrap_or(value), problem));
        }
    };
    let ttl = ttl.filter(|ttl| !ttl.is_null());
    let seconds =
        ttl.map(|ttl| options::ttl(ttl.raw()).map_err(|problem| source.at(ttl, problem))).transpose()?;
    options::store(permanent, seconds).map_err(|problem| source.at(ttl.unwrap_or(value), problem))
}

/// `{"url": "…"}` and nothing else asks us to fetch the data. Any other object is the data itself.
fn refuse_url(source: Source<'_>, value: Value<'_>, field: &str) -> Result<(), Problem> {
    if !value.is_object() {
        return Ok(());
    }
    let Ok([Some(url)]) = source.inner(value, "", &["url"]) else { return Ok(()) };
    if source.text(url).is_ok_and(|text| text.is_none()) {
        return Ok(());
    }
    let problem = Problem::new(Reason::NotSupported)
        .message(format!("{field} as {{\"url\": …}} is not supported; send the {field} itself"))
        .details(json!({ "field": field }));
    Err(source.at(value, problem))
}
