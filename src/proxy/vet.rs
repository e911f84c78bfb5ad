//! What every request must be before it is routed: one host, one reading of its length, a size, a target.
//!
//! hyper has already refused what is not HTTP at all; this refuses what HTTP allows but two implementations
//! may read differently (RFC 9112 sections 3.2, 6.1 and 11.2).

use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{Method, Version, request};

use crate::reason::{Problem, Reason};

/// What a request asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A path.
    Resource,
    /// The server itself: `OPTIONS *`.
    Server,
}

/// Checks the head, and makes the target origin-form with its host in `Host`.
pub(super) fn head(parts: &mut request::Parts, max_bytes: usize) -> Result<Asked, Problem> {
    if parts.method == Method::CONNECT {
        return Err(Problem::new(Reason::MethodNotAllowed).message("CONNECT is not allowed here"));
    }
    let seen = Seen::of(parts);
    if seen.bytes > max_bytes {
        return Err(Reason::HeaderTooLarge.into());
    }
    framing(&seen)?;
    let said = seen.host();
    target(parts, said)?;
    match parts.uri.path() {
        "*" if parts.method == Method::OPTIONS => Ok(Asked::Server),
        path if path.starts_with('/') => Ok(Asked::Resource),
        _ => Err(bad("the request target is not a path")),
    }
}

/// What is looked at, found in one pass over the fields: to look up three names that are mostly not there costs more.
struct Seen<'a> {
    /// Bytes of the head, as HTTP/1.1 would write it.
    bytes: usize,
    codings: usize,
    chunked: bool,
    lengths: usize,
    hosts: usize,
    host: Option<&'a HeaderValue>,
}

impl<'a> Seen<'a> {
    fn of(parts: &'a request::Parts) -> Self {
        let target = parts.uri.path_and_query().map_or(1, |target| target.as_str().len());
        let bytes = parts.method.as_str().len() + target;
        let mut seen = Seen { bytes, codings: 0, chunked: false, lengths: 0, hosts: 0, host: None };
        for (name, value) in &parts.headers {
            seen.bytes += name.as_str().len() + value.len() + 4;
            if *name == HOST {
                seen.hosts += 1;
                seen.host = Some(value);
            } else if *name == CONTENT_LENGTH {
                seen.lengths += 1;
            } else if *name == TRANSFER_ENCODING {
                seen.codings += 1;
                seen.chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
        }
        seen
    }

    /// What `Host` says.
    fn host(&self) -> Said {
        match (self.hosts, self.host) {
            (0, _) => Said::Nothing,
            (1, Some(host)) if is_host(host.as_bytes()) => Said::Host,
            _ => Said::Nonsense,
        }
    }
}

/// What `Host` says.
#[derive(Clone, Copy)]
enum Said {
    Nothing,
    Host,
    Nonsense,
}

/// hyper removes a length beside a transfer coding and closes the connection after it, and refuses lengths
/// that differ and codings that do not end in `chunked`. A coding besides `chunked` it leaves to us: we could
/// not undo it, and the app would never hear of it.
fn framing(seen: &Seen<'_>) -> Result<(), Problem> {
    if seen.codings > 1 || (seen.codings == 1 && !seen.chunked) {
        return Err(bad("this transfer coding is not supported"));
    }
    if seen.lengths > 1 {
        return Err(bad("there is more than one Content-Length"));
    }
    Ok(())
}

/// One host, from the target if that has one, in `Host`.
fn target(parts: &mut request::Parts, said: Said) -> Result<(), Problem> {
    if let Some(authority) = parts.uri.authority() {
        let known =
            parts.uri.scheme().is_none_or(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        if !known || !is_host(authority.as_str().as_bytes()) {
            return Err(bad("the request target is not one of this server"));
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| bad("the host is not valid"))?;
        // It replaces what the field says (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
        parts.headers.insert(HOST, host);
        let mut target = std::mem::take(&mut parts.uri).into_parts();
        (target.scheme, target.authority) = (None, None);
        parts.uri = http::Uri::from_parts(target).map_err(|_| bad("the request target is not a path"))?;
        return Ok(());
    }
    match said {
        Said::Host => Ok(()),
        Said::Nothing if parts.version == Version::HTTP_10 => Ok(()),
        Said::Nothing => Err(bad("there is no Host")),
        Said::Nonsense => Err(bad("Host is not valid")),
    }
}

/// The characters of `uri-host [ ":" port ]` (RFC 3986 section 3.2.2). No user, no path, no list.
fn is_host(host: &[u8]) -> bool {
    !host.is_empty()
        && host.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'.' | b'-'
                        | b'_'
                        | b'~'
                        | b':'
                        | b'['
                        | b']'
                        | b'%'
                        | b'!'
                        | b'$'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'*'
                        | b'+'
                        | b';'
                        | b'='
                )
        })
}

fn bad(message: &'static str) -> Problem {
    Problem::new(Reason::BadRequest).message(message)
}
