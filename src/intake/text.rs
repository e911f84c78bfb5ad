//! The text of a JSON string as it passes: its escapes undone, then base64 undone or UTF-8 checked. Whichever of the
//! two its beginning is, all of it must be.

use std::mem::take;

use super::Encoding;

/// A string's content on its way. `feed` takes it up to the closing quote.
#[derive(Debug)]
pub(super) struct Text {
    escape: Escape,
    /// The first half of a surrogate pair.
    high: Option<u16>,
    reading: Reading,
    decoded: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Escape {
    None,
    Backslash,
    /// So many digits, and their value.
    Unicode(u8, u16),
}

#[derive(Debug)]
enum Reading {
    /// Up to three characters that wait for the rest of their group; whether padding has ended it.
    Base64(Vec<u8>, bool),
    /// Up to three bytes that wait for the rest of their character.
    Utf8(Vec<u8>),
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is no JSON string.
    Json(&'static str),
    /// It began as base64 and does not go on so.
    Base64,
}

const CONTROL: Fault = Fault::Json("a string has a control character");
const ESCAPE: Fault = Fault::Json("a string has an invalid escape");
const UTF8: Fault = Fault::Json("it is not UTF-8");

impl Text {
    /// For a string that begins so, and is to be read so if its request says it.
    pub(super) fn new(begun: &[u8], encoding: Option<Encoding>) -> Self {
        let base64 = match encoding {
            Some(encoding) => encoding == Encoding::Base64,
            None => {
                // As plain text, whatever is wrong with it otherwise.
                let mut plain = Text::reading(Reading::Utf8(Vec::new()));
                let _ = plain.feed(begun);
                let whole = plain.decoded.len() & !3;
                base64_simd::STANDARD.check(&plain.decoded[..whole]).is_ok()
            }
        };
        Text::reading(if base64 { Reading::Base64(Vec::new(), false) } else { Reading::Utf8(Vec::new()) })
    }

    fn reading(reading: Reading) -> Self {
        Text { escape: Escape::None, high: None, reading, decoded: Vec::new() }
    }

    pub(super) fn encoding(&self) -> Encoding {
        match self.reading {
            Reading::Base64(..) => Encoding::Base64,
            Reading::Utf8(_) => Encoding::Utf8,
        }
    }

    /// What was decoded since the last time.
    pub(super) fn decoded(&mut self) -> Vec<u8> {
        take(&mut self.decoded)
    }

    /// Takes these bytes; where the closing quote stands, if it is among them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.escape {
                Escape::None if self.high.is_some() && byte != b'\\' => return Err(ESCAPE),
                Escape::None => {
                    let rest = &bytes[at..];
                    let found = memchr::memchr2(b'"', b'\\', rest);
                    let run = &rest[..found.unwrap_or(rest.len())];
                    self.characters(run, true)?;
                    at += run.len();
                    match found {
                        None => return Ok(None),
                        Some(_) if bytes[at] == b'"' => return Ok(Some(at)),
                        Some(_) => self.escape = Escape::Backslash,
                    }
                }
                Escape::Backslash => self.escape(byte)?,
                Escape::Unicode(digits, value) => {
                    let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
                    let value = value << 4 | digit.ok_or(ESCAPE)?;
                    self.escape = Escape::Unicode(digits + 1, value);
                    if digits == 3 {
                        self.escape = Escape::None;
                        self.unit(value)?;
                    }
                }
            }
            at += 1;
        }
        Ok(None)
    }

    /// The string has ended.
    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.high.is_some() {
            return Err(ESCAPE);
        }
        match &self.reading {
            Reading::Base64(group, _) if !group.is_empty() => Err(Fault::Base64),
            Reading::Utf8(begun) if !begun.is_empty() => Err(UTF8),
            _ => Ok(()),
        }
    }

    fn escape(&mut self, byte: u8) -> Result<(), Fault> {
        self.escape = Escape::None;
        let plain = match byte {
            b'u' => {
                self.escape = Escape::Unicode(0, 0);
                return Ok(());
            }
            _ if self.high.is_some() => return Err(ESCAPE),
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return Err(ESCAPE),
        };
        self.characters(&[plain], false)
    }

    /// A UTF-16 unit.
    fn unit(&mut self, unit: u16) -> Result<(), Fault> {
        let decoded = match (self.high.take(), unit) {
            (None, 0xd800..=0xdbff) => {
                self.high = Some(unit);
                return Ok(());
            }
            (None, unit) => char::decode_utf16([unit]).next(),
            (Some(high), low) => char::decode_utf16([high, low]).next(),
        };
        let character = decoded.and_then(Result::ok).ok_or(ESCAPE)?;
        self.characters(character.encode_utf8(&mut [0; 4]).as_bytes(), false)
    }

    /// `raw`: they stand so in the body. What is wrong first is what is said, however they arrive.
    fn characters(&mut self, text: &[u8], raw: bool) -> Result<(), Fault> {
        if text.is_empty() {
            return Ok(());
        }
        match &mut self.reading {
            Reading::Base64(group, ended) => {
                if *ended {
                    return Err(Fault::Base64);
                }
                let mut text = text;
                if !group.is_empty() {
                    let wanted = (4 - group.len()).min(text.len());
                    group.extend_from_slice(&text[..wanted]);
                    text = &text[wanted..];
                    if group.len() < 4 {
                        return Ok(());
                    }
                    *ended = group.ends_with(b"=");
                    decode(group, &mut self.decoded)?;
                    group.clear();
                    if *ended && !text.is_empty() {
                        return Err(Fault::Base64);
                    }
                }
                let (whole, rest) = text.split_at(text.len() & !3);
                *ended |= whole.ends_with(b"=");
                decode(whole, &mut self.decoded)?;
                if *ended && !rest.is_empty() {
                    return Err(Fault::Base64);
                }
                group.extend_from_slice(rest);
                Ok(())
            }
            Reading::Utf8(begun) => {
                let joined;
                let text = if begun.is_empty() {
                    text
                } else {
                    joined = [&take(begun)[..], text].concat();
                    &joined[..]
                };
                let (whole, broken) = match str::from_utf8(text) {
                    Ok(_) => (text.len(), false),
                    Err(error) => (error.valid_up_to(), error.error_len().is_some()),
                };
                let (whole, rest) = text.split_at(whole);
                if raw && whole.iter().any(|byte| *byte < 0x20) {
                    return Err(CONTROL);
                }
                if broken {
                    return Err(UTF8);
                }
                self.decoded.extend_from_slice(whole);
                begun.extend_from_slice(rest);
                Ok(())
            }
        }
    }
}

/// Whole groups; padding only in the last.
fn decode(groups: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    base64_simd::STANDARD.decode_append(groups, out).map_err(|_| Fault::Base64)
}
