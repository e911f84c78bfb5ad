//! What a request asks for, measured before anything is promised or spent. No I/O of its own.
//!
//! [`plan()`] looks at the head alone and says which of three forms the body has. Raw bytes with their options in
//! the query are measured right there, so their price goes out before the body is read. So are those of a [`Form`]
//! whose options are in the query; else the fields before its file are read first. A short JSON
//! body is read by the caller and measured by [`measure_json`], or [`price_json`] for its price alone; a long one passes
//! through a [`JsonReader`]. Whatever is wrong with any of them is found here, before a challenge is made: unknown
//! fields are refused, never ignored.

mod data;
mod document;
mod fields;
mod fingerprint;
mod form;
mod measure;
mod multipart;
mod options;
mod plan;
mod query;
mod scan;
mod text;

#[cfg(test)]
mod tests;

pub use fingerprint::{Body, app_fingerprint, batch_fingerprint, fingerprint};
pub use form::{Form, FormEvent, FormReader, MAX_FIELDS};
pub use measure::{Digest, data_url, digest, measure_json, price_json};
pub use options::MAX_TTL;
pub use plan::{Limits, Plan, Raw, content, file, plan};
pub use scan::{JsonEnd, JsonReader, LargeJson, may_be_document};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::spool::Spooled;

/// The kind of content, decided once and carried in the quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A JSON document: an object was given, or a `.json` name, or text that parses as an object or array.
    Json,
    /// Any other bytes to store.
    File,
    /// A program to run.
    Code,
}

/// What is wanted, and how much of it: all that a price depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// `/store` or `/run`, with their options.
    pub wanted: Wanted,
    /// What the bytes are.
    pub kind: Kind,
    /// Decoded size in bytes; exact when the body was read, else as declared by the head. Of several files, what each may have.
    pub size: u64,
    /// How many files it is about: one, but for a form that has more.
    pub files: u16,
}

/// A brokered operation and its options, validated: unknown or unsold options never get here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "operation")]
pub enum Wanted {
    /// Keep these bytes.
    Store {
        /// Only a permanent store (IPFS) will do.
        permanent: bool,
        /// Seconds a cache must keep it; `None` is the provider's default.
        ttl: Option<u64>,
    },
    /// Run this program.
    Run {
        /// Lower-case language name; `python` when the client named none.
        language: String,
    },
}

/// How the client's `data` or `code` text was understood; named in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Strictly valid base64, decoded.
    Base64,
    /// Text, as it stands.
    Utf8,
    /// A JSON value, serialised without insignificant white space.
    Json,
    /// A raw body: the bytes themselves.
    Raw,
}

/// A store of what is at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataUrl {
    /// The URL, as the client wrote it.
    pub url: String,
    wanted: Wanted,
    label: Label,
}

/// What a client calls its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// Their name: a label, never a path.
    pub filename: Option<String>,
    /// Their media type, as given or guessed from the name.
    pub content_type: Option<String>,
}

/// Where the bytes of a request are.
#[derive(Clone, Debug)]
pub enum Data {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File(Spooled),
    /// With the provider, for nothing so far: [`crate::providers::Provider::receive`] took them as they arrived.
    Received(Received),
}

/// What a provider calls the bytes that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its own name for them.
    pub handle: String,
    /// How many they are.
    pub size: u64,
}

impl Data {
    /// How many bytes.
    pub fn size(&self) -> u64 {
        match self {
            Data::Memory(bytes) => bytes.len() as u64,
            Data::File(file) => file.len(),
            Data::Received(received) => received.size,
        }
    }

    /// The bytes, if they are in memory.
    pub fn memory(&self) -> Option<&Bytes> {
        match self {
            Data::Memory(bytes) => Some(bytes),
            Data::File(_) | Data::Received(_) => None,
        }
    }
}

impl From<Bytes> for Data {
    fn from(bytes: Bytes) -> Self {
        Data::Memory(bytes)
    }
}

/// The decoded bytes of a request, once its body has been read.
#[derive(Clone, Debug)]
pub struct Content {
    /// The bytes to store or run. Of [`Kind::Json`]: valid JSON of 100 levels at most, spelled as the client spelled
    /// it; its numbers may be beyond any float, so pass it on as it stands, never through a parser.
    pub data: Data,
    /// BLAKE3 of the bytes.
    pub digest: [u8; 32],
    /// How they were sent.
    pub encoding: Encoding,
    /// The client's name for them: a label, never a path.
    pub filename: Option<String>,
    /// The client's media type for them, or one guessed from the name.
    pub content_type: Option<String>,
}
