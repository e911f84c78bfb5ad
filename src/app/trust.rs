//! What an operator does about a facilitator that was dropped for lying: looks, and takes it back. By the store, which every
//! gateway reads.

use std::collections::BTreeMap;

use tokio::runtime::Builder;

use super::facilitators::names;
use super::{StartError, open_store};
use crate::clock::Clock;
use crate::config::resolved::Config;
use crate::facilitator::{reset, tripped};
use crate::jobs::StoreError;

/// Why nothing was found out or changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] StartError),
    /// It does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody of that name.
    #[error("{name} is not dropped; those that are: {dropped}")]
    Unknown {
        /// Who was asked for.
        name: String,
        /// Who is.
        dropped: String,
    },
}

/// The configured facilitators, each with why it is dropped, if it is; after `again` was taken back. Must not be called inside
/// a runtime.
pub fn facilitators(
    config: &Config,
    again: Option<&str>,
) -> Result<BTreeMap<String, Option<String>>, TrustError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::Threads)?;
    runtime.block_on(async {
        let store = open_store(config, &Clock::system()).await?;
        let mut dropped = tripped(&*store).await?;
        if let Some(name) = again {
            if dropped.remove(name).is_none() {
                let dropped = dropped.into_keys().collect::<Vec<_>>().join(", ");
                let dropped = if dropped.is_empty() { "none".to_owned() } else { dropped };
                return Err(TrustError::Unknown { name: name.to_owned(), dropped });
            }
            reset(&*store, name).await?;
        }
        let known = names(&config.facilitator).into_iter();
        let mut all: BTreeMap<String, Option<String>> = known.map(|name| (name, None)).collect();
        all.extend(dropped.into_iter().map(|(name, why)| (name, Some(why))));
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_text};

    #[test]
    fn one_that_was_dropped_is_listed_and_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[app]\nurl = \"http://127.0.0.1:1\"\n[store]\npath = {:?}\n[facilitator]\nurl = \"https://f.example/x402\"\n\
             [[facilitator.fallback]]\nurl = \"https://g.example\"\n",
            directory.path().join("jobs.redb")
        );
        let config = load_text("t.toml", &text, &Environment::new()).unwrap().config;
        let unknown = facilitators(&config, Some("f.example/x402")).unwrap_err();
        assert!(unknown.to_string().ends_with("those that are: none"), "{unknown}");
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = open_store(&config, &Clock::system()).await.unwrap();
            store.put("facilitators.tripped", "f.example/x402", b"it lied", None).await.unwrap();
        });
        let listed = facilitators(&config, None).unwrap();
        assert_eq!(listed["f.example/x402"].as_deref(), Some("it lied"));
        assert_eq!(listed["g.example"], None);
        assert!(facilitators(&config, Some("g.example")).is_err());
        for again in [Some("f.example/x402"), None] {
            let listed = facilitators(&config, again).unwrap();
            assert!(listed.len() == 2 && listed.values().all(Option::is_none), "{listed:?}");
        }
    }
}
