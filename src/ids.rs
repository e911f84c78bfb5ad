//! Ids: of jobs and of stored files. Both are UUIDs in the hyphenated lower-case form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The 16 bytes of the id.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id of these 16 bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                $name(Uuid::from_bytes(bytes))
            }

            /// Writes the 36-character form into `out` without allocating.
            pub fn encode<'a>(&self, out: &'a mut [u8; 36]) -> &'a str {
                self.0.hyphenated().encode_lower(out)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.hyphenated(), f)
            }
        }

        /// Accepts exactly the 36-character hyphenated form; other spellings of a UUID are not
        /// ids of ours, and their paths may be the app's.
        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                if text.len() != 36 {
                    return Err(NotAnId);
                }
                Uuid::try_parse(text).map($name).map_err(|_| NotAnId)
            }
        }
    };
}

/// The text is not a hyphenated UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a hyphenated UUID")]
pub struct NotAnId;

uuid_id! {
    /// A job's id: UUIDv7, so journals sort by time, with 74 random bits, so it cannot be guessed.
    JobId
}

uuid_id! {
    /// The public name of a stored file: UUIDv4, unrelated to any provider's handle.
    FileId
}

impl JobId {
    /// A fresh id, stamped with the system's time.
    ///
    /// `Uuid::now_v7` would number the ids of a millisecond, behind a lock of the whole process: slower for each 402,
    /// and what is numbered is not random.
    pub fn new() -> Self {
        JobId(Uuid::new_v7(Timestamp::now(NoContext)))
    }

    /// A fresh id, stamped with this time, in milliseconds since 1970: for whoever has looked at the clock already.
    pub fn at(millis: u64) -> Self {
        let nanos = u32::try_from(millis % 1000 * 1_000_000).unwrap_or_default();
        JobId(Uuid::new_v7(Timestamp::from_unix(NoContext, millis / 1000, nanos)))
    }
}

impl JobId {
    /// When it was made, in seconds since 1970, by the clock of whoever made it.
    pub fn made(&self) -> u64 {
        self.0.get_timestamp().map_or(0, |made| made.to_unix().0)
    }
}

impl Default for JobId {
    fn default() -> Self {
        Self::new()
    }
}

impl FileId {
    /// A fresh random id.
    pub fn random() -> Self {
        FileId(Uuid::new_v4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_id_says_when_it_was_made() {
        let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let (before, made, after) = (now(), JobId::new().made(), now());
        assert!(before <= made && made <= after);
        assert_eq!(JobId::from_bytes([0xff; 16]).made(), 0);
        assert_eq!(JobId::at(1_800_000_000_999).made(), 1_800_000_000);
        assert_ne!(JobId::at(1), JobId::at(1));
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        let id = JobId::new();
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        let simple = id.to_string().replace('-', "");
        assert_eq!(simple.parse::<JobId>(), Err(NotAnId));
        assert_eq!(format!("{{{id}}}").parse::<JobId>(), Err(NotAnId));
        assert_eq!("..".parse::<FileId>(), Err(NotAnId));
    }
}
