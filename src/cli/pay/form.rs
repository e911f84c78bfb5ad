//! Several files as one form (`multipart/form-data`), streamed from where they are.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use uuid::Uuid;

/// What a body is put together from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Memory(Bytes),
    /// So many bytes of a file.
    File(PathBuf, u64),
}

/// A form with files only.
pub(super) struct Form {
    pub(super) content_type: String,
    pub(super) pieces: Vec<Piece>,
    /// Bytes of all of it.
    pub(super) length: u64,
    /// Bytes of the largest file.
    pub(super) largest: u64,
}

impl Form {
    /// With these files, in this order, each under its own name.
    pub(super) fn of(files: &[PathBuf]) -> anyhow::Result<Form> {
        // 122 random bits: no file has them in it.
        let boundary = format!("galaksio-{}", Uuid::new_v4().simple());
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let mut form = Form { content_type, pieces: Vec::new(), length: 0, largest: 0 };
        for file in files {
            let length = length(file)?;
            let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            let media_type = mime_guess::from_path(&*name).first_or_octet_stream();
            let mut head =
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"");
            escape(&name, &mut head);
            let _ = write!(head, "\"\r\nContent-Type: {}\r\n\r\n", media_type.essence_str());
            form.push(Piece::Memory(head.into()));
            form.push(Piece::File(file.clone(), length));
            form.push(Piece::Memory(Bytes::from_static(b"\r\n")));
            form.largest = form.largest.max(length);
        }
        form.push(Piece::Memory(format!("--{boundary}--\r\n").into()));
        Ok(form)
    }

    fn push(&mut self, piece: Piece) {
        self.length += match &piece {
            Piece::Memory(bytes) => bytes.len() as u64,
            Piece::File(_, length) => *length,
        };
        self.pieces.push(piece);
    }
}

/// The size of a file that can be sent.
pub(super) fn length(file: &Path) -> anyhow::Result<u64> {
    let metadata = std::fs::metadata(file).with_context(|| format!("{} cannot be read", file.display()))?;
    if !metadata.is_file() {
        bail!("{} is not a file", file.display());
    }
    if metadata.len() == 0 {
        bail!("{} is empty", file.display());
    }
    Ok(metadata.len())
}

/// As browsers do it.
fn escape(name: &str, out: &mut String) {
    for character in name.chars() {
        if character == '"' || character.is_ascii_control() {
            let _ = write!(out, "%{:02X}", u32::from(character));
        } else {
            out.push(character);
        }
    }
}
