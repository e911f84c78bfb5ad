//! What a payment was presented for, as 32 bytes. Every part goes in with its length before it, so no two
//! different requests can run together into the same bytes.

use http::Method;
use ring::digest::{Context, SHA256};

use super::{Ask, Content, Kind, Wanted};
use crate::jobs::Fingerprint;

/// The fingerprint of brokered work. `path` is canonical, `host` as the client named us, in any case.
///
/// It is over the *decoded* data and the validated options: white space and the order of fields, base64 or text,
/// the query or the body make no difference; any difference in what is bought does.
pub fn fingerprint(method: &Method, path: &str, host: &str, ask: &Ask, content: &Content) -> Fingerprint {
    let mut hash = Hash::new("galaksio:brokered:2", method, path, host);
    hash.wanted(ask);
    hash.content(content, ask.size);
    hash.end()
}

/// The fingerprint of a store of several files: their order counts too.
pub fn batch_fingerprint(
    method: &Method,
    path: &str,
    host: &str,
    ask: &Ask,
    files: &[Content],
) -> Fingerprint {
    let mut hash = Hash::new("galaksio:batch:2", method, path, host);
    hash.wanted(ask);
    hash.part(&(files.len() as u64).to_be_bytes());
    for file in files {
        hash.content(file, file.data.size());
    }
    hash.end()
}

/// What is known of a priced request's body when its payment is claimed.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// It was read: its BLAKE3 digest.
    Digest(&'a [u8; 32]),
    /// It will be streamed: its declared length, if it has one.
    Declared(Option<u64>),
}

/// The fingerprint of a priced request to the app. The query belongs to what is asked for.
pub fn app_fingerprint(
    method: &Method,
    path: &str,
    query: Option<&str>,
    host: &str,
    body: Body<'_>,
) -> Fingerprint {
    let mut hash = Hash::new("galaksio:app:2", method, path, host);
    hash.option(query.map(str::as_bytes));
    match body {
        Body::Digest(digest) => {
            hash.part(b"digest");
            hash.part(digest);
        }
        Body::Declared(length) => {
            hash.part(b"length");
            hash.option(length.map(u64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
        }
    }
    hash.end()
}

struct Hash(Context);

impl Hash {
    fn new(domain: &str, method: &Method, path: &str, host: &str) -> Self {
        let mut hash = Hash(Context::new(&SHA256));
        hash.part(domain.as_bytes());
        hash.part(method.as_str().as_bytes());
        hash.part(path.as_bytes());
        hash.part(host.to_ascii_lowercase().as_bytes());
        hash
    }

    /// What is asked, but for the bytes.
    fn wanted(&mut self, ask: &Ask) {
        match &ask.wanted {
            Wanted::Store { permanent, ttl } => {
                self.part(b"store");
                self.part(&[u8::from(*permanent)]);
                self.option(ttl.map(u64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
            }
            Wanted::Run { language } => {
                self.part(b"run");
                self.part(language.as_bytes());
            }
        }
        self.part(match ask.kind {
            Kind::Json => b"json",
            Kind::File => b"file",
            Kind::Code => b"code",
        });
    }

    fn content(&mut self, content: &Content, size: u64) {
        self.option(content.filename.as_deref().map(str::as_bytes));
        self.option(content.content_type.as_deref().map(str::as_bytes));
        self.part(&size.to_be_bytes());
        self.part(&content.digest);
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn option(&mut self, bytes: Option<&[u8]>) {
        self.0.update(&[u8::from(bytes.is_some())]);
        if let Some(bytes) = bytes {
            self.part(bytes);
        }
    }

    fn end(self) -> Fingerprint {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        Fingerprint(out)
    }
}
