//! Encoded text with gaps: what a template is made of. Pure.

use base64_simd::STANDARD;

/// What stands in a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Why the challenge is sent.
    Error,
    /// The resource.
    Url,
    /// The job's id.
    Job,
    /// The size of what was asked.
    Size,
    /// When the quote expires.
    Expires,
    /// The new part of the token of this entry.
    Token(usize),
    /// Nothing: the end of the text.
    End,
}

/// Fixed text, and the slot after each piece of it.
#[derive(Debug)]
pub(super) struct Strip {
    text: Box<[u8]>,
    ends: Box<[(usize, Slot)]>,
}

impl Strip {
    /// The pieces in order, each with the slot that follows.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&[u8], Slot)> {
        let mut start = 0;
        self.ends.iter().map(move |(end, slot)| {
            let piece = &self.text[start..*end];
            start = *end;
            (piece, *slot)
        })
    }

    /// Bytes of fixed text.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// How many slots of this sort there are.
    pub(super) fn slots(&self, slot: Slot) -> usize {
        self.ends.iter().filter(|(_, found)| *found == slot).count()
    }
}

/// Builds a strip of plain text.
#[derive(Default)]
pub(super) struct BodyBuilder {
    text: Vec<u8>,
    ends: Vec<(usize, Slot)>,
}

impl BodyBuilder {
    pub(super) fn put(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    pub(super) fn slot(&mut self, slot: Slot) {
        self.ends.push((self.text.len(), slot));
    }

    pub(super) fn finish(mut self) -> Strip {
        self.slot(Slot::End);
        Strip { text: self.text.into(), ends: self.ends.into() }
    }
}

/// Builds a strip of base64. Every slot starts at a multiple of three bytes of the text, and is to be filled
/// with a multiple of three bytes.
#[derive(Default)]
pub(super) struct HeaderBuilder {
    pending: String,
    done: BodyBuilder,
}

impl HeaderBuilder {
    pub(super) fn put(&mut self, text: &str) {
        self.pending.push_str(text);
    }

    /// A slot after `lead`. White space must be allowed before `lead`: that is where the text is padded.
    pub(super) fn slot(&mut self, lead: &str, slot: Slot) {
        while !(self.pending.len() + lead.len()).is_multiple_of(3) {
            self.pending.push(' ');
        }
        self.pending.push_str(lead);
        self.flush();
        self.done.slot(slot);
    }

    pub(super) fn finish(mut self) -> Strip {
        self.flush();
        self.done.finish()
    }

    fn flush(&mut self) {
        STANDARD.encode_append(self.pending.as_bytes(), &mut self.done.text);
        self.pending.clear();
    }
}
