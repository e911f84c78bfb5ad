//! A provider that `[[provider]]` declares: how it is asked, what it answers, and what it sells.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri};

use super::BrokeredWork;
use crate::x402::Address;

/// One `[[provider]]`.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its name in quotes, metrics, records and answers.
    pub name: String,
    /// What it does.
    pub kind: DeclaredKind,
    /// The endpoint itself.
    pub url: Uri,
    /// `POST`, `PUT` or `PATCH`.
    pub method: Method,
    /// Sent with every request, after what we send ourselves.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is sent.
    pub body: RequestBody,
    /// The content that is asked for the price with.
    pub sample: Bytes,
    /// Where the result is in its answer.
    pub result: ResultMapping,
    /// What an answer must say to be a success, besides its status.
    pub success: Option<Condition>,
    /// Largest content, in bytes before encoding.
    pub max_size: u64,
    /// The only payee its terms may name. `None`: any.
    pub pay_to: Option<Address>,
    /// Deadline of its whole part.
    pub timeout: Duration,
    /// Whether a paid call whose answer was lost may be repeated.
    pub resume: ResumeClass,
}

/// What a declared provider does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclaredKind {
    /// Stores JSON documents.
    StoreJson(Keeping),
    /// Stores any bytes.
    StoreFile(Keeping),
    /// Runs programs in these languages, lower case.
    Run {
        /// Never empty.
        languages: Vec<String>,
    },
}

impl DeclaredKind {
    /// Which kind of route it works for.
    pub fn work(&self) -> BrokeredWork {
        match self {
            DeclaredKind::StoreJson(_) | DeclaredKind::StoreFile(_) => BrokeredWork::Store,
            DeclaredKind::Run { .. } => BrokeredWork::Run,
        }
    }
}

/// How long it stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// As long as it likes.
    Unspecified,
    /// For good.
    Permanent,
    /// For as long as it is told, up to this.
    UpTo(Duration),
}

/// What is sent to a declared provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// The content itself.
    Raw,
    /// A JSON document with places for the content and what is known of it.
    Json(Template),
}

/// A JSON document, cut at its placeholders: what is between them is text of the document, ready for the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Segment>);

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// As it stands.
    Text(Bytes),
    /// A JSON value.
    Value(Placeholder),
}

/// What a place in a template is filled with, always as one JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// The content, as a string.
    Text,
    /// The content, as a string of base64.
    Base64,
    /// The content, as the JSON document it is.
    Json,
    /// The client's name for it, or `file`.
    Filename,
    /// Its media type.
    ContentType,
    /// Its size in bytes, a number.
    Size,
    /// The language of the program, lower case.
    Language,
    /// Seconds it is to be kept, a number.
    Ttl,
    /// Whether it is to be kept for good.
    Permanent,
    /// A text that is the same for every repetition of this request, and for no other.
    RequestId,
}

impl Placeholder {
    /// Every placeholder, as it is written between braces.
    pub const ALL: [(&'static str, Placeholder); 10] = [
        ("text", Placeholder::Text),
        ("base64", Placeholder::Base64),
        ("json", Placeholder::Json),
        ("filename", Placeholder::Filename),
        ("content_type", Placeholder::ContentType),
        ("size", Placeholder::Size),
        ("language", Placeholder::Language),
        ("ttl", Placeholder::Ttl),
        ("permanent", Placeholder::Permanent),
        ("request_id", Placeholder::RequestId),
    ];
}

impl Template {
    /// Whether there is a place for it.
    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Segment::Value(placeholder))
    }
}

/// Where the members of our result are in a provider's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultMapping {
    /// Of a run.
    Run {
        /// A string, or a list of strings; must be there.
        stdout: Pointer,
        /// Likewise, and may be missing.
        stderr: Option<Pointer>,
        /// A whole number; 0 where it is missing.
        exit_code: Option<Pointer>,
        /// A number of seconds.
        execution_time: Option<Pointer>,
        /// A string: the value of the program's last expression.
        text: Option<Pointer>,
    },
    /// Of a store; one of the two is there, and what is there must be in the answer.
    Store {
        /// A content identifier.
        cid: Option<Pointer>,
        /// An `http` or `https` URL.
        url: Option<Pointer>,
    },
    /// Of a run: the answer is the result itself, at most so many bytes of it.
    Raw {
        /// Bytes.
        max: u64,
    },
}

/// A JSON pointer (RFC 6901), checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(pub String);

/// What a value in an answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where it is.
    pub at: Pointer,
    /// What it must equal. `None`: it must be there, and be neither `null` nor `false`.
    pub equals: Option<serde_json::Value>,
}

/// What may be done about a paid call whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeClass {
    /// Nothing: the work may be done twice, or the payment asked for again.
    None,
    /// The identical request, with the identical payment, gets the same answer.
    Idempotent,
}
