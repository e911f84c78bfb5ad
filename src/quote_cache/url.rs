//! The absolute URL that a challenge names as its `resource`. Host and path come from the client, so both are
//! bounded and held to characters that need no escape in JSON. Pure.

use std::fmt;

/// Bytes of a URL at most: it is repeated in each v1 entry, and the v2 challenge is a header.
pub(super) const MAX_URL: usize = 1024;

/// Bytes of a host with its port at most (RFC 1035 2.3.4 gives 253 to the name).
const MAX_AUTHORITY: usize = 262;

/// `scheme://authority/path`, of visible ASCII without `"` and `\`.
#[derive(Clone)]
pub struct ResourceUrl(String);

impl ResourceUrl {
    /// The URL of a canonical path (without a query) at an authority. Bytes that a URL does not have are
    /// percent-encoded. What is no authority is replaced by `localhost`, and a path that does not fit by `/`:
    /// a client that sends those misinforms nobody but itself.
    pub fn new(scheme: &str, authority: &str, path: &str) -> Self {
        let scheme = if scheme.eq_ignore_ascii_case("http") { "http" } else { "https" };
        let authority = if is_authority(authority) { authority } else { "localhost" };
        let expected = scheme.len() + b"://".len() + authority.len() + path.len();
        let mut url = ResourceUrl(String::with_capacity(expected.min(MAX_URL)));
        url.put(scheme);
        url.put("://");
        url.put(authority);
        let origin = url.0.len();
        if !path.starts_with('/') || !url.put_escaped(path) {
            url.0.truncate(origin);
            url.put("/");
        }
        url
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it fitted.
    fn put(&mut self, part: &str) -> bool {
        let fits = self.0.len() + part.len() <= MAX_URL;
        if fits {
            self.0.push_str(part);
        }
        fits
    }

    fn put_escaped(&mut self, path: &str) -> bool {
        const HEX: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
        let mut rest = path;
        // Nearly always the whole path stands as it is.
        while let Some(at) = rest.bytes().position(|byte| !PLAIN[usize::from(byte)]) {
            let (plain, escaped) = rest.split_at(at);
            let Some(first) = escaped.chars().next() else { return false };
            if !self.put(plain) {
                return false;
            }
            for byte in first.encode_utf8(&mut [0; 4]).bytes() {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                if self.0.len() + 3 > MAX_URL {
                    return false;
                }
                self.0.extend(['%', high, low]);
            }
            rest = &escaped[first.len_utf8()..];
        }
        self.put(rest)
    }
}

impl fmt::Debug for ResourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What a path has as it is.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}');
        byte += 1;
    }
    plain
};

/// What an authority has.
const AUTHORITY: [bool; 128] = {
    let mut allowed = [false; 128];
    let mut byte = 0u8;
    while byte < 128 {
        allowed[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']');
        byte += 1;
    }
    allowed
};

fn is_authority(text: &str) -> bool {
    let allowed = |byte: u8| AUTHORITY.get(usize::from(byte)) == Some(&true);
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
