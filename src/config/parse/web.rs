//! What the web is made of: addresses to listen on, blocks of peers, URLs, methods and paths.

use std::net::{IpAddr, SocketAddr};

use http::{Method, Uri};
use secrecy::SecretString;

use super::{Parsed, Wrong, text};
use crate::config::node::{Node, Value};
use crate::config::resolved::IpBlock;

pub(in crate::config) fn socket_address(node: &Node) -> Parsed<SocketAddr> {
    let text = text(node)?;
    text.parse().map_err(|_| {
        let fix = "write an IP address and a port: \"127.0.0.1:8080\", \"0.0.0.0:8080\", \"[::]:8080\"; port 0 takes a free one";
        Wrong::new(format!("{text:?} is not an address to listen on"), fix)
    })
}

/// [`socket_address`], or the empty text for nowhere.
pub(in crate::config) fn socket_address_or_off(node: &Node) -> Parsed<Option<SocketAddr>> {
    match &node.value {
        Value::Text(text) if text.is_empty() => Ok(None),
        _ => socket_address(node).map(Some),
    }
}

/// An address or a block of them. Bits beyond the prefix must be zero, or the block is not the one meant.
pub(in crate::config) fn ip_block(node: &Node) -> Parsed<IpBlock> {
    let text = text(node)?;
    let fix = "write an address or a block: \"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\"";
    let wrong = |reason: String| Wrong::new(reason, fix);
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text.as_str(), None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong(format!("{text:?} is not an address block")))?;
    let (width, bits) = match address {
        IpAddr::V4(v4) => (32u8, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    };
    let prefix = match prefix {
        None => width,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            let prefix = digits.parse().ok().filter(|prefix| *prefix <= width);
            prefix.ok_or_else(|| wrong(format!("a prefix is at most {width} here")))?
        }
        Some(_) => return Err(wrong(format!("{text:?} is not an address block"))),
    };
    if bits.checked_shl(u32::from(prefix)).unwrap_or(0) != 0 {
        return Err(wrong(format!("{text:?} has address bits after its prefix of {prefix}")));
    }
    Ok(IpBlock { address, prefix })
}

/// A host name or address as it stands in a URL, or `*.` and the end of one. In lower case.
pub(in crate::config) fn host(node: &Node) -> Parsed<String> {
    let text = text(node)?;
    let name = text.strip_prefix("*.").unwrap_or(&text);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_address = address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let is_name =
        !name.is_empty() && !name.starts_with('.') && !name.ends_with('.') && name.bytes().all(plain);
    match is_name || is_address {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(Wrong::new(
            format!("{text:?} is not a host"),
            "write a name without scheme, port and path: \"hooks.example.com\", or \"*.example.com\" for all below it",
        )),
    }
}

/// `http://` or `https://` with a host; no user name, query or fragment. A trailing slash is dropped.
pub(in crate::config) fn base_url(node: &Node) -> Parsed<Uri> {
    let text = text(node)?;
    let fix = "write scheme, host and, where needed, port and path: \"https://api.example.com\"";
    let wrong = |reason: &str| Wrong::new(format!("{text:?} {reason}"), fix);
    if text.contains('#') {
        return Err(wrong("has a fragment"));
    }
    let url: Uri = text.trim_end_matches('/').parse().map_err(|_| wrong("is not a URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("does not start with http:// or https://"));
    }
    let authority = url.authority().ok_or_else(|| wrong("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("carries a user name; it would be sent to whoever answers there"));
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') || bad_port(&url) {
        return Err(wrong("has no host, or a port that is none"));
    }
    if url.query().is_some() {
        return Err(wrong("has a query"));
    }
    Ok(url)
}

fn bad_port(url: &Uri) -> bool {
    // `Uri` takes any digits for a port; `port_u16` is `None` for those that do not fit.
    url.port().is_some_and(|port| port.as_str().parse::<u16>().map_or(true, |number| number == 0))
        || (url.port().is_none()
            && url
                .authority()
                .is_some_and(|a| a.as_str().rsplit(']').next().is_some_and(|end| end.contains(':'))))
}

/// `http://` or `https://` with a host; path and query as they are. Never quoted: they hold the operator's key.
pub(in crate::config) fn rpc_url(node: &Node) -> Parsed<(Uri, SecretString)> {
    let text = text(node)?;
    let fix = "write the whole URL as the service shows it: \"https://rpc.example.com/v2/key\"";
    let wrong = |reason: &str| Wrong::new(reason, fix);
    let url: Uri = text.parse().map_err(|_| wrong("this is not a URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("this does not start with http:// or https://"));
    }
    let authority = url.authority().ok_or_else(|| wrong("this URL has no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("this URL has a user name, which is not sent; services take the key in the path"));
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') || bad_port(&url) {
        return Err(wrong("this URL has no host, or a port that is none"));
    }
    Ok((url, SecretString::from(text)))
}

/// [`base_url`] without a path.
pub(in crate::config) fn origin(node: &Node) -> Parsed<Uri> {
    let url = base_url(node)?;
    if url.path() == "/" || url.path().is_empty() {
        Ok(url)
    } else {
        Err(Wrong::new(
            format!("{url} has a path, and none would be added to what clients ask for"),
            "write scheme, host and port only: \"http://127.0.0.1:3000\"",
        ))
    }
}

/// Whether what is sent to `url` stays on this machine, or is encrypted.
pub(crate) fn is_private(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    url.scheme_str() == Some("https")
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A method in the case HTTP has it; those that are never sold are refused.
pub(in crate::config) fn method(node: &Node) -> Parsed<Method> {
    let text = text(node)?;
    if text == "CONNECT" || text == "TRACE" {
        return Err(Wrong::new(format!("{text} is never proxied"), "remove it"));
    }
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    let upper = text.to_ascii_uppercase();
    if text != upper && known.contains(&upper.as_str()) {
        return Err(Wrong::new("methods are case-sensitive", format!("write {upper:?}")));
    }
    Method::from_bytes(text.as_bytes())
        .map_err(|_| Wrong::new(format!("{text:?} is not a method"), "write one such as \"GET\" or \"POST\""))
}

/// The first segment of a path of ours, without slashes; `None` for the empty text, which switches it off.
pub(in crate::config) fn own_segment(node: &Node) -> Parsed<Option<String>> {
    let text = text(node)?;
    if text.is_empty() {
        return Ok(None);
    }
    let segment = text.strip_prefix('/').unwrap_or(&text);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    if segment.is_empty() || !segment.bytes().all(plain) || segment.bytes().all(|b| b == b'.') {
        return Err(Wrong::new(
            format!("{text:?} is not one path segment"),
            "write a slash and letters, digits, - or _: \"/status\"; \"\" switches it off",
        ));
    }
    Ok(Some(segment.to_owned()))
}

/// A route's path in the one spelling requests are matched by: no `//`, dot segments, needless or
/// ambiguous escapes; `*` only as the last segment.
pub(in crate::config) fn route_path(node: &Node) -> Parsed<String> {
    let text = text(node)?;
    let fix = "write the path as clients send it: \"/reports\", or \"/reports/*\" for all below it";
    let wrong = |reason: &str| Err(Wrong::new(format!("{text:?} {reason}"), fix));
    if !text.starts_with('/') {
        return wrong("does not start with a slash");
    }
    let fixed = text.strip_suffix("/*").unwrap_or(&text);
    if fixed.contains('*') {
        return wrong("has a * elsewhere than as its last segment");
    }
    if fixed.contains("//") || (fixed.ends_with('/') && text.ends_with('*')) {
        return wrong("has an empty segment");
    }
    if fixed.split('/').any(|segment| segment == "." || segment == "..") {
        return wrong("has a dot segment");
    }
    let unescaped = |b: u8| b.is_ascii_alphanumeric() || b"/-_.~!$&'()+,;=:@".contains(&b);
    let bytes = fixed.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let escaped = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
            let escaped =
                escaped.filter(|hex| hex.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()));
            match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(b'/' | b'\\' | b'%' | 0..0x20 | 0x7f) => {
                    return wrong("escapes a character that makes it ambiguous");
                }
                Some(plain) if unescaped(plain) => return wrong("escapes a character that needs no escape"),
                Some(_) => at += 3,
                None => return wrong("has a broken escape (two upper-case hex digits follow %)"),
            }
        } else if unescaped(byte) {
            at += 1;
        } else {
            return wrong("has a character that a path cannot have, or a query");
        }
    }
    Ok(text)
}
