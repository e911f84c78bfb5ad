//! The one file of a `multipart/form-data` body that is in memory. RFC 7578, RFC 2046 5.1.

use bytes::Bytes;
use memchr::memmem;

/// A part with a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) content_type: String,
    pub(super) bytes: Bytes,
}

/// The part called `field`; `None` if there is none, or the body is not well-formed.
pub(super) fn file(content_type: &str, body: &Bytes, field: &str) -> Option<File> {
    let delimiter = format!("\r\n--{}", boundary(content_type)?);
    let delimiter = delimiter.as_bytes();
    // The first delimiter may stand at the very start, without its line break.
    let mut at = if body.starts_with(&delimiter[2..]) {
        delimiter.len() - 2
    } else {
        memmem::find(body, delimiter)? + delimiter.len()
    };
    let mut found = None;
    while !body[at..].starts_with(b"--") {
        let head_start = at + memmem::find(&body[at..], b"\r\n")?;
        let head_end = head_start + memmem::find(&body[head_start..], b"\r\n\r\n")?;
        let start = head_end + 4;
        // An empty part's delimiter begins with the line break that ends its head.
        let end = head_end + 2 + memmem::find(&body[head_end + 2..], delimiter)?;
        let head = std::str::from_utf8(&body[head_start..head_end]).ok()?;
        if let Some((name, content_type)) = describe(head, field) {
            found = Some(File { name, content_type, bytes: body.slice(start.min(end)..end) });
        }
        at = end + delimiter.len();
    }
    found
}

fn boundary(content_type: &str) -> Option<&str> {
    let parameters = content_type.strip_prefix("multipart/form-data")?;
    let boundary = parameters.split(';').find_map(|p| p.trim().strip_prefix("boundary="))?.trim_matches('"');
    if boundary.is_empty() || boundary.len() > 70 { None } else { Some(boundary) }
}

/// File name and type of a part, if it is the field asked for.
fn describe(head: &str, field: &str) -> Option<(String, String)> {
    let mut disposition = None;
    let mut content_type = "application/octet-stream";
    for line in head.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-disposition") {
            disposition = Some(value);
        } else if name.eq_ignore_ascii_case("content-type") {
            content_type = value.trim();
        }
    }
    let disposition = disposition?;
    if parameter(disposition, "name")? != field {
        return None;
    }
    let name = parameter(disposition, "filename")?;
    // As HTML forms escape them.
    let name = name.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n");
    Some((name, content_type.to_owned()))
}

fn parameter<'a>(disposition: &'a str, name: &str) -> Option<&'a str> {
    let start = disposition.match_indices(name).find_map(|(at, _)| {
        let quoted = disposition[at + name.len()..].starts_with("=\"");
        let separated = disposition[..at].ends_with([' ', ';']);
        (quoted && separated).then_some(at + name.len() + 2)
    })?;
    let rest = &disposition[start..];
    rest.find('"').map(|end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Option<File> {
        file("multipart/form-data; boundary=\"xYz\"", &Bytes::copy_from_slice(body.as_bytes()), "file")
    }

    #[test]
    fn the_field_is_found_among_others() {
        let body = "--xYz\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhi\r\n\
            --xYz\r\ncontent-type: text/plain\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a%22.txt\"\
            \r\n\r\nline\r\n--xY not it\r\n\r\n--xYz--\r\n";
        let file = parse(body).unwrap();
        assert_eq!(file.name, "a\".txt");
        assert_eq!(file.content_type, "text/plain");
        assert_eq!(&file.bytes[..], b"line\r\n--xY not it\r\n");
    }

    #[test]
    fn an_empty_file_is_a_file() {
        let head = "--xYz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"e\"\r\n\r\n";
        assert_eq!(parse(&format!("{head}\r\n--xYz--")).unwrap().bytes.len(), 0);
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_refused() {
        let good =
            "--xYz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"e\"\r\n\r\nabc\r\n--xYz--";
        assert!(parse(good).is_some());
        for end in 0..good.len() - 2 {
            assert_eq!(parse(&good[..end]), None, "{end}");
        }
        assert_eq!(parse(&good.replace("\"file\"", "\"data\"")), None);
        assert_eq!(file("application/json", &Bytes::from_static(b"{}"), "file"), None);
    }
}
