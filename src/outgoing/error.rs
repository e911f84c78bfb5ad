//! How a call can fail, sorted by what it may have done on the other side.

use std::error::Error;

use super::connect::TooSlow;

/// Why a call has no answer. The texts hold no URL and no header: a path can be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutgoingError {
    /// Not `https://`, and plain HTTP is not allowed to this host. Not sent.
    #[error("the URL must be https, or http on loopback")]
    NotAllowed,
    /// The name did not resolve, or TCP or TLS failed. Not sent.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// No connection in time. Not sent.
    #[error("no connection in time")]
    ConnectTimeout,
    /// No complete answer in time. Its effect is unknown.
    #[error("no complete answer in time")]
    Timeout,
    /// The connection ended before the answer did. Its effect is unknown.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// What came back is not HTTP, or a head over 64 KiB. Its effect is unknown.
    #[error("the answer is not valid HTTP: {0}")]
    Malformed(String),
    /// The answer's body is over the call's limit. Its effect is unknown.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

impl OutgoingError {
    /// Whether the other side may have seen the request. `false` is certain: it had no effect.
    pub fn was_sent(&self) -> bool {
        !matches!(self, Self::NotAllowed | Self::Connect(_) | Self::ConnectTimeout)
    }

    /// Whether a deadline passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::Timeout)
    }

    /// `connected` is whether the request was ever given a connection.
    pub(super) fn from_client(error: &hyper_util::client::legacy::Error, connected: bool) -> Self {
        if connected && !error.is_connect() {
            return OutgoingError::from_source(error.source(), error);
        }
        if causes(error.source()).any(|cause| cause.is::<TooSlow>()) {
            return OutgoingError::ConnectTimeout;
        }
        OutgoingError::Connect(describe(error.source(), error))
    }

    pub(super) fn from_body(error: Box<dyn Error + Send + Sync>) -> Self {
        OutgoingError::from_source(Some(&*error), &*error)
    }

    fn from_source(source: Option<&(dyn Error + 'static)>, whole: &dyn Error) -> Self {
        let malformed = causes(source)
            .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
            .any(|cause| cause.is_parse() || cause.is_parse_too_large());
        let text = describe(source, whole);
        if malformed { OutgoingError::Malformed(text) } else { OutgoingError::Broken(text) }
    }
}

/// The chain of causes, outermost first.
fn causes<'a>(first: Option<&'a (dyn Error + 'static)>) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(first, |&cause| cause.source())
}

/// The innermost cause is the one an operator can act on: "connection refused", "certificate expired".
fn describe(source: Option<&(dyn Error + 'static)>, whole: &dyn Error) -> String {
    causes(source).last().map_or_else(|| whole.to_string(), ToString::to_string)
}
