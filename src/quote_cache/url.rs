//! The absolute URL that a challenge names as its `resource`. Host and path come from the client, so both are
//! bounded and held to characters that need no escape in JSON. Pure.

use std::fmt;

/// Bytes of a URL at most: it is repeated in each v1 entry, and the v2 challenge is a header.
pub(super) const MAX_URL: usize = 1024;

/// Bytes of a host with its port at most (RFC 1035 2.3.4 gives 253 to the name).
const MAX_AUTHORITY: usize = 262;

/// `scheme://authority/path`, of visible ASCII without `"` and `\`.
#[derive(Clone)]
pub struct ResourceUrl {
    bytes: Vec<u8>,
}

impl ResourceUrl {
    /// The URL of a canonical path (without a query) at an authority. Bytes that a URL does not have are
    /// percent-encoded. What is no authority is replaced by `localhost`, and a path that does not fit by `/`:
    /// a client that sends those misinforms nobody but itself.
    pub fn new(scheme: &str, authority: &str, path: &str) -> Self {
        let scheme = if scheme.eq_ignore_ascii_case("http") { "http" } else { "https" };
        let authority = if is_authority(authority) { authority } else { "localhost" };
        let expected = scheme.len() + b"://".len() + authority.len() + path.len();
        let mut url = ResourceUrl { bytes: Vec::with_capacity(expected.min(MAX_URL)) };
        url.put(scheme.as_bytes());
        url.put(b"://");
        url.put(authority.as_bytes());
        let origin = url.bytes.len();
        if !path.starts_with('/') || !path.bytes().all(|byte| url.put_escaped(byte)) {
            url.bytes.truncate(origin);
            url.put(b"/");
        }
        url
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// Whether it fitted.
    fn put(&mut self, part: &[u8]) -> bool {
        let fits = self.bytes.len() + part.len() <= MAX_URL;
        if fits {
            self.bytes.extend_from_slice(part);
        }
        fits
    }

    fn put_escaped(&mut self, byte: u8) -> bool {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        if byte.is_ascii_graphic() && !b"\"\\<>^`{|}".contains(&byte) {
            return self.put(&[byte]);
        }
        self.put(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])
    }
}

impl fmt::Debug for ResourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

fn is_authority(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !text.is_empty() && text.len() <= MAX_AUTHORITY && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_good_url_stands_as_it_is() {
        let url = ResourceUrl::new("https", "api.example.com:8443", "/store/a%20b");
        assert_eq!(url.as_str(), "https://api.example.com:8443/store/a%20b");
        assert_eq!(ResourceUrl::new("http", "[::1]:80", "/").as_str(), "http://[::1]:80/");
    }

    #[test]
    fn what_a_client_made_up_is_escaped_or_replaced() {
        let url = ResourceUrl::new("https", "evil\",\"payTo\":\"0x", "/a\"b\\c\u{7f}ü");
        assert_eq!(url.as_str(), "https://localhost/a%22b%5Cc%7F%C3%BC");
        let url = ResourceUrl::new("https", "h", &format!("/{}", "x".repeat(2000)));
        assert_eq!(url.as_str(), "https://h/");
        assert_eq!(ResourceUrl::new("https", &"h".repeat(300), "*").as_str(), "https://localhost/");
    }

    proptest! {
        #[test]
        fn it_is_always_a_json_string_as_it_stands(scheme in ".{0,9}", host in ".{0,300}", path in ".{0,1500}") {
            let url = ResourceUrl::new(&scheme, &host, &path);
            let quoted = format!("\"{}\"", url.as_str());
            prop_assert_eq!(serde_json::to_string(url.as_str()).unwrap(), quoted);
            prop_assert!(url.as_str().parse::<http::Uri>().is_ok(), "{:?}", url);
        }
    }
}
