//! The switch that stops every payment to providers: who threw it, and why.
//!
//! Where gateways share a store, it is a value there. The embedded store belongs to one process, so there it is a file
//! beside it: whoever may read the store may throw the switch, while the gateway runs and while it does not.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::jobs::{StoreError, ValueStore};

const SPACE: &str = "wallet";
const KEY: &str = "frozen";

/// A wallet that pays nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Why.
    pub reason: String,
    /// `operator`, or `gateway`.
    pub by: String,
    /// Since when.
    pub since: UnixSeconds,
}

/// Where it is written that the wallet is frozen.
#[derive(Clone)]
pub enum Switch {
    /// In a store that gateways share.
    Store(Arc<dyn ValueStore>),
    /// In a file.
    File(PathBuf),
}

/// Why the switch could not be read or thrown.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The store is away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file system.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The switch, as it was seen last.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) at: Option<Instant>,
    pub(super) frozen: Option<Frozen>,
}

impl Switch {
    /// The switch of an embedded store at `path`.
    pub fn beside(path: &Path) -> Switch {
        let mut file = path.as_os_str().to_owned();
        file.push(".frozen");
        Switch::File(file.into())
    }

    /// Who threw it, if it is thrown. What cannot be read is thrown: somebody wrote it.
    pub async fn look(&self) -> Result<Option<Frozen>, SwitchError> {
        let written = match self {
            Switch::Store(store) => store.get(SPACE, KEY).await?,
            Switch::File(path) => match std::fs::read(path) {
                Ok(written) => Some(written),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(source) => return Err(SwitchError::File { path: path.clone(), source }),
            },
        };
        let unreadable = || Frozen { reason: "not readable".into(), by: "operator".into(), since: 0 };
        let Some(written) = written else { return Ok(None) };
        Ok(serde_json::from_slice(&written).unwrap_or_else(|_| Some(unreadable())))
    }

    /// Freezes.
    pub async fn throw(&self, frozen: &Frozen) -> Result<(), SwitchError> {
        let written = serde_json::to_vec(frozen).unwrap_or_default();
        match self {
            Switch::Store(store) => Ok(store.put(SPACE, KEY, &written, None).await?),
            Switch::File(path) => {
                write(path, &written).map_err(|source| SwitchError::File { path: path.clone(), source })
            }
        }
    }

    /// Unfreezes.
    pub async fn release(&self) -> Result<(), SwitchError> {
        match self {
            Switch::Store(store) => Ok(store.put(SPACE, KEY, b"null", None).await?),
            Switch::File(path) => match std::fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(SwitchError::File { path: path.clone(), source: error })
                }
                _ => Ok(()),
            },
        }
    }
}

/// On disk before it returns: a freeze outlives a crash of the machine.
fn write(path: &Path, written: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    file.write_all(written)?;
    file.sync_all()
}
