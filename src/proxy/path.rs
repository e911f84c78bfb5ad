//! The readings of a request path: what an app behind us might make of it.
//!
//! HTTP says what a path is, not what an app does with it: some decode `%2F` before they split, some
//! merge `//`, drop `;parameters`, fold case, or decode twice. A path that only some of them read as a
//! priced one would be a way around the price, so [`readings`] lists what each could make of it and the
//! router compares them all. Only the comparison uses these forms; the app always gets the path as sent.

/// How a path looks at first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing in it that any app would rewrite, but for case and a final `/`.
    Plain,
    /// It has other readings.
    Odd,
    /// No client sends this in good faith: a control character, a `..`, a percent sign that encodes nothing.
    Broken,
}

/// The most often a path is decoded; one that still changes then is broken.
const MAX_DECODINGS: usize = 3;

/// Classifies in one pass, without allocating.
pub(super) fn shape(path: &str) -> Shape {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Shape::Broken;
    }
    let mut shape = Shape::Plain;
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'%' => match escape(bytes, i) {
                None => return Shape::Broken,
                Some(c) if c.is_ascii_control() => return Shape::Broken,
                Some(_) => {
                    shape = Shape::Odd;
                    i += 2;
                }
            },
            0..=0x20 | 0x7f => return Shape::Broken,
            b'\\' | b';' | 0x80.. => shape = Shape::Odd,
            // A segment that is empty (but the last), or begins or ends with a dot: `.`, `..`, `x.`.
            b'/' => match (bytes.get(i + 1), i.checked_sub(1).and_then(|before| bytes.get(before))) {
                (Some(b'/' | b'.'), _) | (_, Some(b'.')) => shape = Shape::Odd,
                _ => {}
            },
            _ => {}
        }
        i += 1;
    }
    if bytes.last() == Some(&b'.') { Shape::Odd } else { shape }
}

/// Every reading of a path, folded; `None` if it is [`Shape::Broken`] after all.
pub(super) fn readings(path: &str) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut level = vec![path.as_bytes().to_vec()];
    for depth in 0..=MAX_DECODINGS {
        let mut next = Vec::new();
        for form in level {
            if form.contains(&b';') {
                // To most apps a backslash is no separator, so it does not end a parameter either.
                read(without_parameters(&form, b"/"), depth, &mut found, &mut next)?;
                if form.contains(&b'\\') {
                    read(without_parameters(&form, b"/\\"), depth, &mut found, &mut next)?;
                }
            }
            read(form, depth, &mut found, &mut next)?;
        }
        if next.is_empty() {
            return Some(found);
        }
        level = next;
    }
    None
}

/// One form at one depth of decoding: its folded readings, and what decoding once more makes of it.
fn read(form: Vec<u8>, depth: usize, found: &mut Vec<Vec<u8>>, next: &mut Vec<Vec<u8>>) -> Option<()> {
    push(found, fold(&form)?);
    // An app that decodes before it looks for the query.
    if let Some(end) = form.iter().position(|byte| matches!(byte, b'?' | b'#')) {
        push(found, fold(form.get(..end)?)?);
    }
    if let Some(decoded) = decode(&form, depth)? {
        push(next, decoded);
    }
    Some(())
}

fn push(list: &mut Vec<Vec<u8>>, form: Vec<u8>) {
    if !list.contains(&form) {
        list.push(form);
    }
}

/// Decodes percent-escapes once. The inner `None`: there are none. The outer: one is broken, or makes a
/// control character.
fn decode(form: &[u8], depth: usize) -> Option<Option<Vec<u8>>> {
    let mut decoded = Vec::with_capacity(form.len());
    let mut changed = false;
    let mut i = 0;
    while let Some(&byte) = form.get(i) {
        match (byte, escape(form, i)) {
            (b'%', Some(c)) if c.is_ascii_control() => return None,
            (b'%', Some(c)) => {
                decoded.push(c);
                changed = true;
                i += 3;
            }
            // `100%25` decodes to a lone percent sign, which is one.
            (b'%', None) if depth == 0 => return None,
            _ => {
                decoded.push(byte);
                i += 1;
            }
        }
    }
    Some(changed.then_some(decoded))
}

/// The byte that the escape at `i` stands for.
fn escape(bytes: &[u8], i: usize) -> Option<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|c| char::from(*c).to_digit(16));
    let (high, low) = (digit(i + 1)?, digit(i + 2)?);
    (bytes.get(i) == Some(&b'%')).then(|| u8::try_from(high * 16 + low).ok()).flatten()
}

/// `separators`: what ends a segment, and with it its parameters.
fn without_parameters(form: &[u8], separators: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(form.len());
    let mut skip = false;
    for &byte in form {
        match byte {
            byte if separators.contains(&byte) => skip = false,
            b';' => skip = true,
            _ => {}
        }
        if !skip {
            out.push(byte);
        }
    }
    out
}

/// The widest normal form: look-alikes to ASCII, lower case, no empty or `.` segments, no dots or spaces at
/// the end of one, no `/` at the end. `/` is the empty form. `None`: it has a `..`.
pub(super) fn fold(form: &[u8]) -> Option<Vec<u8>> {
    let ascii = to_ascii(form);
    let mut out = Vec::with_capacity(ascii.len());
    for segment in ascii.split(|byte| matches!(byte, b'/' | b'\\')) {
        let end = segment.iter().rposition(|byte| !matches!(byte, b'.' | b' '));
        match end {
            Some(end) => {
                out.push(b'/');
                out.extend(segment.iter().take(end + 1).map(u8::to_ascii_lowercase));
            }
            // Only dots and spaces: nothing, `.`, or something that climbs.
            None if segment.iter().filter(|byte| **byte == b'.').count() < 2 => {}
            None => return None,
        }
    }
    Some(out)
}

/// Characters that careless decoders take for ASCII: overlong UTF-8, full-width forms, and the two letters
/// that fold to ASCII ones.
fn to_ascii(form: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(form.len());
    let mut rest = form;
    while let [first, after @ ..] = rest {
        let (byte, used) = match (*first, after) {
            (a @ 0xc0..=0xc1, [b, ..]) => ((a << 6) | (b & 0x3f), 1),
            (0xe0, [a @ 0x80..=0x81, b, ..]) => ((a << 6) | (b & 0x3f), 2),
            (0xf0, [0x80, a @ 0x80..=0x81, b, ..]) => ((a << 6) | (b & 0x3f), 3),
            (0xc5, [0xbf, ..]) => (b's', 1),
            (0xe2, [0x84, 0xaa, ..]) => (b'k', 2),
            (0xef, [0xbc, b @ 0x81..=0xbf, ..]) => (b - 0x60, 2),
            (0xef, [0xbd, b @ 0x80..=0x9e, ..]) => (b - 0x20, 2),
            (byte, _) => (byte, 0),
        };
        out.push(byte);
        rest = after.get(used..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        for plain in ["/", "/store", "/store/", "/a/b-c_d~e", "/Store", "/a/b.json", "/@x:y!$&'()*+,="] {
            assert_eq!(shape(plain), Shape::Plain, "{plain}");
        }
        for odd in
            ["//", "//a", "/a//b", "/./a", "/a/.", "/a/..", "/a\\b", "/a;b", "/%73", "/a.", "/a./b", "/.a"]
        {
            assert_eq!(shape(odd), Shape::Odd, "{odd}");
        }
        for broken in ["", "*", "a", "/%", "/%7", "/%zz", "/%00", "/a%0a", "/%7f", "/a b"] {
            assert_eq!(shape(broken), Shape::Broken, "{broken}");
        }
    }

    #[test]
    fn look_alikes_are_ascii() {
        assert_eq!(to_ascii(b"\xc0\xaf\xe0\x80\xae\xf0\x80\x80\xae\xc1\xb3"), b"/..s");
        assert_eq!(to_ascii("／ｓｔｏｒｅ＼\u{17f}\u{212a}".as_bytes()), b"/store\\sk");
        assert_eq!(to_ascii("/café".as_bytes()), "/café".as_bytes());
        assert_eq!(to_ascii(b"/\xc0"), b"/\xc0");
    }

    #[test]
    fn a_parameter_ends_where_some_app_says() {
        let found = readings("/store;\\x").unwrap();
        for reading in [&b"/store"[..], b"/store/x"] {
            assert!(found.iter().any(|form| form == reading), "{found:?}");
        }
    }

    #[test]
    fn climbing_is_broken_at_every_depth() {
        for path in
            ["/a/../b", "/a/%2e%2E/b", "/a/%252e./b", "/a%2f..%2fb", "/a/..;x/b", "/a\\..\\b", "/a/.../b"]
        {
            assert_eq!(readings(path), None, "{path}");
        }
        assert_eq!(readings("/%2525252541"), None);
        assert!(readings("/100%25").is_some());
    }
}
