//! The archive: finished jobs that the store lets go, one on a line, for the books and for whoever asks later.
//!
//! A folder of `2026-01-02-….jsonl` files. Each file is one process's, written for a day at most and never again after the
//! process has ended or a write has failed: so an unfinished last line is the only damage a crash can do, and what should
//! have been on it is still in the store. A job may be on two lines, of a process that died or was forestalled before the store let it go
//! and of the one that came after; where its record has moved on in between, the later version counts. `keeper` moves jobs from the
//! store to here. Nothing here removes a line.

mod keeper;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

pub use keeper::{AccountedFor, KeepError, Keeper};

use super::job::{Job, SCHEMA};
use super::record::Entry;
use crate::clock::{UnixMillis, rfc3339};
use crate::ids::JobId;

/// What the archive's files are called at their end.
const ENDING: &str = "jsonl";

/// Why the archive could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system.
    #[error("the archive {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A job that cannot be put on a line: it must not be let go.
    #[error("job {job} cannot be archived: {why}")]
    Unwritable {
        /// Which.
        job: JobId,
        /// What is wrong with it.
        why: serde_json::Error,
    },
    /// A line that was finished is none of ours, or of a newer version.
    #[error("the archive {} cannot be read at line {line}: {why}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// What is wrong with it, without what it says.
        why: String,
    },
}

/// A job, and how it came about.
#[derive(Serialize, Deserialize)]
struct Line {
    job: Job,
    journal: Vec<Entry>,
}

/// As much of a line as tells it from others of the same job.
#[derive(Deserialize)]
struct Mark {
    job: Version,
}

#[derive(Deserialize)]
struct Version {
    id: JobId,
    version: u64,
    schema: u16,
}

/// The file that this process writes.
struct Open {
    day: String,
    path: PathBuf,
    file: File,
}

/// One process's way into the archive.
pub(super) struct Archive {
    folder: PathBuf,
    open: Option<Open>,
}

impl Archive {
    /// The archive in `folder`. Nothing is made before something is written.
    pub(super) fn new(folder: PathBuf) -> Archive {
        Archive { folder, open: None }
    }

    /// Writes these, and returns once they are on disk.
    pub(super) fn append(
        &mut self,
        jobs: Vec<(Job, Vec<Entry>)>,
        now: UnixMillis,
    ) -> Result<(), ArchiveError> {
        let mut text = Vec::new();
        for (job, journal) in jobs {
            let id = job.id;
            let line = serde_json::to_vec(&Line { job, journal });
            text.extend(line.map_err(|why| ArchiveError::Unwritable { job: id, why })?);
            text.push(b'\n');
        }
        let day = rfc3339(now).chars().take(10).collect::<String>();
        // Taken out: after an error nobody knows how much of it was written, and nothing may follow that.
        let mut open = match self.open.take().filter(|open| open.day == day) {
            Some(open) => open,
            None => self.create(day)?,
        };
        let written = open.file.write_all(&text).and_then(|()| open.file.sync_data());
        written.map_err(io_error(&open.path))?;
        self.open = Some(open);
        Ok(())
    }

    /// A new file, which is in its folder, and that in its own, even after a crash of the machine.
    fn create(&self, day: String) -> Result<Open, ArchiveError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(io_error(&self.folder))?;
        let path = self.folder.join(format!("{day}-{}.{ENDING}", Uuid::new_v4()));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(io_error(&path))?;
        let above = self.folder.parent().filter(|above| !above.as_os_str().is_empty());
        for folder in [self.folder.as_path(), above.unwrap_or(Path::new("."))] {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error(folder))?;
        }
        Ok(Open { day, path, file })
    }
}

/// Gives every job of the archive in `folder` to `each`, once, as its last version is. An archive that is not there is empty. Blocks.
pub fn read(folder: &Path, mut each: impl FnMut(Job, Vec<Entry>)) -> Result<(), ArchiveError> {
    let mut files = match fs::read_dir(folder) {
        Ok(files) => files
            .map(|file| file.map(|file| file.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(io_error(folder))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(folder)(error)),
    };
    files.retain(|path| path.extension().is_some_and(|ending| ending == ENDING));
    files.sort();
    let mut last: HashMap<JobId, u64> = HashMap::new();
    lines(&files, |Mark { job: Version { id, version, schema } }| {
        let last = last.entry(id).or_default();
        *last = version.max(*last);
        schema
    })?;
    // What was written since the look before is of the store still, or is looked at next time.
    lines(&files, |Line { job, journal }| {
        let schema = job.schema;
        if last.get(&job.id) == Some(&job.version) {
            last.remove(&job.id);
            each(job, journal);
        }
        schema
    })
}

/// Every finished line of these files; `each` says the schema of its job.
fn lines<T: DeserializeOwned>(files: &[PathBuf], mut each: impl FnMut(T) -> u16) -> Result<(), ArchiveError> {
    for path in files {
        let mut file = BufReader::new(File::open(path).map_err(io_error(path))?);
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            file.read_until(b'\n', &mut text).map_err(io_error(path))?;
            // The end; or a line that was never finished, whose jobs the store still has.
            if text.last() != Some(&b'\n') {
                break;
            }
            let wrong = |why: String| ArchiveError::Line { path: path.clone(), line, why };
            let read = serde_json::from_slice(&text)
                .map_err(|error| wrong(format!("it is damaged at column {}", error.column())))?;
            let schema = each(read);
            if !Job::reads(schema) {
                return Err(wrong(format!("it is of schema {schema}; this version reads up to {SCHEMA}")));
            }
        }
    }
    Ok(())
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { path: path.clone(), source }
}

/// The job without what it was answered and how its client signed: nobody is answered again, and nothing is settled again,
/// after a payment has lapsed.
fn stripped(mut job: Job) -> Job {
    job.answer = None;
    let client = Arc::make_mut(&mut job.client);
    (client.payload, client.requirements) =
        (RawValue::NULL.to_owned().into(), RawValue::NULL.to_owned().into());
    client.quote_id = None;
    job
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::sample;

    #[test]
    fn of_a_job_that_is_on_several_lines_the_last_version_is_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let (first, other) = (sample::job(1), sample::job(2));
        let later = Job { version: 2, ..first.clone() };
        let mut expected = [(first.id, 2), (other.id, other.version)];
        expected.sort();
        for (day, jobs) in
            (0..).zip([vec![first.clone()], vec![later.clone()], vec![first], vec![later, other]])
        {
            // A process each, and so a file.
            let lines = jobs.into_iter().map(|job| (job, Vec::new())).collect();
            Archive::new(folder.path().to_owned()).append(lines, day * 86_400_000).unwrap();
        }
        let mut found = Vec::new();
        read(folder.path(), |job, _| found.push((job.id, job.version))).unwrap();
        found.sort();
        assert_eq!(found, expected);
    }
}
