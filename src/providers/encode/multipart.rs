//! A `multipart/form-data` body with one file, around the file's bytes and not a copy of them.
//!
//! The part's name and file name are escaped as browsers do it (WHATWG HTML, "multipart/form-data encoding
//! algorithm"; RFC 7578 section 4.2 allows the UTF-8): a name can never end its line or its quotes.

use std::fmt::Write as _;

use bytes::Bytes;
use http::HeaderValue;
use uuid::Uuid;

/// One file in a form.
#[derive(Clone, Debug)]
pub(crate) struct FormFile<'a> {
    /// The form field.
    pub(crate) field: &'a str,
    /// The file's label.
    pub(crate) name: &'a str,
    /// Its media type; one that is no valid header value is sent as `application/octet-stream`.
    pub(crate) content_type: &'a str,
}

/// A form, ready to be sent around the bytes of its file.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    /// `multipart/form-data; boundary=...`
    pub(crate) content_type: HeaderValue,
    /// What comes before the file's bytes,
    pub(crate) head: Bytes,
    /// and after them.
    pub(crate) tail: Bytes,
}

impl FormFile<'_> {
    /// The form around this file.
    pub(crate) fn encode(&self) -> Form {
        // 122 random bits: nobody can put the boundary into the content, so the content is not searched for it.
        self.encode_with(&format!("galaksio-{}", Uuid::new_v4().simple()))
    }

    fn encode_with(&self, boundary: &str) -> Form {
        let head = format!(
            "--{boundary}\r\n\
             Content-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\n\
             Content-Type: {}\r\n\r\n",
            escape(self.field),
            escape(self.name),
            media_type(self.content_type),
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        Form { content_type: content_type(boundary), head: head.into(), tail: tail.into() }
    }
}

fn content_type(boundary: &str) -> HeaderValue {
    #[expect(clippy::expect_used, reason = "the boundary is letters, digits and a hyphen")]
    HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}")).expect("a valid header value")
}

/// The client names the type, and it stands alone on a line of ours.
fn media_type(text: &str) -> &str {
    let plain = !text.is_empty() && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if plain { text } else { "application/octet-stream" }
}

/// Percent-encodes quotes and control characters, as browsers do for `"`, CR and LF.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for character in name.chars() {
        if character == '"' || character.is_ascii_control() {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{:02X}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(form: &Form, content: &[u8]) -> Vec<u8> {
        [&form.head, content, &form.tail].concat()
    }

    #[test]
    fn is_byte_for_byte_what_a_browser_sends() {
        let file = FormFile { field: "file", name: "a.txt", content_type: "text/plain" };
        let form = file.encode_with("b1");
        assert_eq!(form.content_type, "multipart/form-data; boundary=b1");
        let expected = "--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
                        Content-Type: text/plain\r\n\r\n\r\n--x\r\n\r\n--b1--\r\n";
        assert_eq!(text(&form, b"\r\n--x\r\n"), expected.as_bytes());
    }

    #[test]
    fn boundaries_differ() {
        let file = FormFile { field: "file", name: "x", content_type: "" };
        let (one, two) = (file.encode(), file.encode());
        assert_ne!(one.content_type, two.content_type);
    }

    #[test]
    fn names_keep_their_line_and_their_quotes() {
        let escaped = escape("a\"; x=\"\r\nContent-Type: evil\0\\ü.png");
        assert_eq!(escaped, "a%22; x=%22%0D%0AContent-Type: evil%00\\ü.png");
        for bad in ["text/plain\r\nX: y", "", "téxt", "a\0"] {
            assert_eq!(media_type(bad), "application/octet-stream", "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_or_type_adds_a_line(name in any::<String>(), content_type in any::<String>()) {
            let file = FormFile { field: "file", name: &name, content_type: &content_type };
            let form = file.encode_with("b");
            let head = std::str::from_utf8(&form.head).unwrap();
            prop_assert_eq!(head.split("\r\n").count(), 5);
            let disposition = head.split("\r\n").nth(1).unwrap();
            prop_assert_eq!(disposition.matches('"').count(), 4);
            prop_assert!(!head.replace("\r\n", "").contains(|c: char| c.is_ascii_control()));
        }
    }
}
