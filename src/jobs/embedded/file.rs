//! Opening the file: who may read it, that nobody else has it open, and that its layout is one we know.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadableTable, TableDefinition};

/// What is known of the file itself.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The tables' layout; records have a schema version of their own.
const LAYOUT: u64 = 1;

/// Pages kept in memory. The default of the library, 1 GiB, is more than a whole sidecar should take.
const CACHE_BYTES: usize = 32 << 20;

/// Why the embedded store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is locked.
    #[error("the job store {} is open in another process; one file serves one gateway: wait for that process to end, give this one another file, or use Redis", .0.display())]
    InUse(PathBuf),
    /// A file system error, for the file or its directory.
    #[error("cannot open the job store {}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a file, but not one of ours, or a damaged one.
    #[error("the job store {} cannot be read: {source}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the database library said.
        source: Box<redb::Error>,
    },
    /// A newer gateway wrote it.
    #[error("the job store {} has layout {found}; this version knows {LAYOUT}: use the gateway that wrote it, or a newer one", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u64,
    },
    /// The writer could not be started.
    #[error("cannot start the job store's writer thread: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// Opens or creates the database at `path`, with every table there.
pub(super) fn open(path: &Path) -> Result<Database, OpenError> {
    let file = open_file(path)?;
    let mut builder = Builder::new();
    let shown = path.to_owned();
    builder.set_cache_size(CACHE_BYTES).set_repair_callback(move |repair| {
        tracing::info!(path = %shown.display(), done = repair.progress(), "checking the job store after a crash");
    });
    let damaged =
        |source: redb::Error| OpenError::Damaged { path: path.to_owned(), source: Box::new(source) };
    let database = builder.create_file(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.to_owned()),
        other => damaged(other.into()),
    })?;
    match prepare(&database).map_err(damaged)? {
        LAYOUT => Ok(database),
        found => Err(OpenError::Newer { path: path.to_owned(), found }),
    }
}

fn open_file(path: &Path) -> Result<File, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed(path))?;
    // The name of a new file is on disk only once its directory is.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(directory))?;
    Ok(file)
}

/// Makes what is missing, unless the layout is not ours, and says which layout it is.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get("layout")?.map(|layout| layout.value());
        if found.is_none() {
            meta.insert("layout", LAYOUT)?;
        }
        found.unwrap_or(LAYOUT)
    };
    if found == LAYOUT {
        super::tables::Tables::open(&transaction, &crate::clock::Clock::system())?;
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(found)
}
