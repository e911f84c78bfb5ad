//! What a quote is kept under: all that its price, or who can sell at it, depends on. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::bucket::{Buckets, TooLarge};
use crate::config::resolved::BrokeredWork;
use crate::intake::{Ask, Kind, Wanted};

/// The time to live that stands for all of them, in seconds: no provider's price depends on how long it is.
const TYPICAL_TTL: u64 = 3600;

/// The key of a quote. Borrows from the ask, so that a look-up allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QuoteKey<'a> {
    /// The operation, with the options that count.
    #[serde(flatten)]
    pub work: Work<'a>,
    /// What the bytes are.
    pub kind: Kind,
    /// The upper end of the size bucket: of several files, of each.
    pub bucket: u64,
    /// How many files. Gateways from before there could be several read and write none.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub files: u16,
}

fn one() -> u16 {
    1
}

fn is_one(files: &u16) -> bool {
    *files == 1
}

/// A brokered operation, with the options that change its price or its sellers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "work")]
pub enum Work<'a> {
    /// Keep bytes.
    Store {
        /// Only a permanent store will do.
        permanent: bool,
        /// Whether a time to live was asked for. How long does not change a price, but a store that keeps
        /// things for ever cannot sell it.
        ttl: bool,
    },
    /// Run a program.
    Run {
        /// Lower-case language name.
        language: Cow<'a, str>,
    },
}

impl<'a> QuoteKey<'a> {
    /// The key of this ask.
    pub fn of(ask: &'a Ask, buckets: &Buckets) -> Result<Self, TooLarge> {
        let bucket = buckets.end_for(ask.size)?;
        Ok(QuoteKey { work: Work::of(&ask.wanted), kind: ask.kind, bucket, files: ask.files })
    }

    /// The largest ask of this key.
    pub(super) fn ask(&self) -> Ask {
        Ask { wanted: self.work.wanted(), kind: self.kind, size: self.bucket, files: self.files }
    }

    /// The same key, free of the ask.
    pub fn into_owned(self) -> QuoteKey<'static> {
        QuoteKey { work: self.work.into_owned(), kind: self.kind, bucket: self.bucket, files: self.files }
    }

    /// The key of each of several files: what a provider is asked a price for.
    pub(super) fn of_one(&self) -> QuoteKey<'a> {
        QuoteKey { files: 1, ..self.clone() }
    }
}

impl<'a> Work<'a> {
    /// The part of these options that counts.
    pub fn of(wanted: &'a Wanted) -> Self {
        match wanted {
            Wanted::Store { permanent, ttl } => Work::Store { permanent: *permanent, ttl: ttl.is_some() },
            Wanted::Run { language } => Work::Run { language: Cow::Borrowed(language) },
        }
    }

    /// Options that stand for all with this key: what a provider is asked a price for.
    pub(super) fn wanted(&self) -> Wanted {
        match self {
            Work::Store { permanent, ttl } => {
                Wanted::Store { permanent: *permanent, ttl: ttl.then_some(TYPICAL_TTL) }
            }
            Work::Run { language } => Wanted::Run { language: language.clone().into_owned() },
        }
    }

    /// Which kind of route sells it.
    pub fn brokered(&self) -> BrokeredWork {
        match self {
            Work::Store { .. } => BrokeredWork::Store,
            Work::Run { .. } => BrokeredWork::Run,
        }
    }

    fn into_owned(self) -> Work<'static> {
        match self {
            Work::Store { permanent, ttl } => Work::Store { permanent, ttl },
            Work::Run { language } => Work::Run { language: Cow::Owned(language.into_owned()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(permanent: bool, ttl: Option<u64>, size: u64) -> Ask {
        Ask { wanted: Wanted::Store { permanent, ttl }, kind: Kind::File, size, files: 1 }
    }

    #[test]
    fn only_what_changes_the_price_or_the_sellers_counts() {
        let buckets = Buckets::new(&[10, 100], []);
        let key = |ask: &Ask| QuoteKey::of(ask, &buckets).unwrap().into_owned();
        let plain = key(&store(false, None, 3));
        assert_eq!(plain, key(&store(false, None, 9)));
        assert_ne!(plain, key(&store(false, None, 11)));
        assert_ne!(plain, key(&store(true, None, 3)));
        assert_ne!(plain, key(&store(false, Some(60), 3)));
        assert_eq!(key(&store(false, Some(61), 3)), key(&store(false, Some(60), 3)));
        let several = key(&Ask { files: 3, ..store(false, None, 3) });
        assert_ne!(plain, several);
        assert_eq!(plain, several.of_one());
        let run = |language: &str| Ask {
            wanted: Wanted::Run { language: language.to_owned() },
            kind: Kind::Code,
            size: 3,
            files: 1,
        };
        assert_ne!(key(&run("python")), key(&run("ruby")));
    }

    #[test]
    fn json_form_round_trips() {
        let ask = Ask {
            wanted: Wanted::Run { language: "python".to_owned() },
            kind: Kind::Code,
            size: 3,
            files: 1,
        };
        let key = QuoteKey::of(&ask, &Buckets::new(&[10], [])).unwrap().into_owned();
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text, r#"{"work":"run","language":"python","kind":"code","bucket":10}"#);
        assert_eq!(serde_json::from_str::<QuoteKey<'static>>(&text).unwrap(), key);
        let several = QuoteKey { files: 3, ..key };
        let text = serde_json::to_string(&several).unwrap();
        assert_eq!(text, r#"{"work":"run","language":"python","kind":"code","bucket":10,"files":3}"#);
        assert_eq!(serde_json::from_str::<QuoteKey<'static>>(&text).unwrap(), several);
    }
}
