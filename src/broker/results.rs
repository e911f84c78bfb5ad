//! Answers that are too large for the record of their job: kept in files of this process for as long as the record is, so that
//! the same payment gets them again here.
//!
//! A file has no name and ends with the process. It is written as fast as its answer arrives, whoever reads it and however
//! slowly, and can be read from its first byte on. All files have a quota together; where it is used up, the oldest that
//! nobody reads goes.
//! Where gateways share a store, it says which of them has an answer ([`whereabouts`]).

mod fill;
mod read;
#[cfg(test)]
mod tests;
mod whereabouts;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName};
use http_body::Body;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::delivery::Fresh;
use super::handing::Collected;
use super::work::BodyStream;
use crate::clock::{Clock, UnixMillis};
use crate::ids::JobId;
use crate::jobs::{Answer, Job, Kept, ValueStore};
use crate::spool::{End, Growing, Spool};
use crate::telemetry::{Metrics, Unkept};
use whereabouts::Whereabouts;

pub use read::KeptAnswer;

/// What is kept, and for how long.
#[derive(Clone, Debug)]
pub struct ResultLimits {
    /// Where the files are.
    pub folder: PathBuf,
    /// The largest answer, in bytes; 0 keeps none.
    pub largest: u64,
    /// All of them together, in bytes.
    pub together: u64,
    /// For so long.
    pub retention: Duration,
    /// An answer that nobody reads any more arrives for so long at most.
    pub linger: Duration,
}

/// The answers that this process keeps. Clones share them.
#[derive(Clone)]
pub struct Results(Arc<Inner>);

struct Inner {
    limits: ResultLimits,
    spool: Spool,
    clock: Clock,
    metrics: Arc<Metrics>,
    whereabouts: Option<Whereabouts>,
    shelf: Mutex<Shelf>,
}

/// An answer belongs to an attempt of a job: an earlier one that was not paid for is never given for a later one.
pub(super) type Key = (JobId, u32);

pub(super) fn key(job: &Job) -> Key {
    (job.id, job.attempt)
}

/// What there is, and in which order it came.
#[derive(Default)]
struct Shelf {
    answers: HashMap<Key, Entry>,
    oldest_first: VecDeque<Key>,
}

struct Entry {
    file: Arc<File>,
    until: UnixMillis,
}

/// An answer's content.
#[derive(Debug)]
struct File {
    bytes: Growing,
    /// What it says it will be, where it does.
    length: Option<u64>,
    /// What came behind it.
    trailers: OnceLock<HeaderMap>,
    /// So many of its first bytes were given to somebody.
    given: Mutex<u64>,
    /// Who hears that all were.
    collected: Option<Collected>,
}

/// Why an answer is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// More than is kept of one.
    #[error("it is larger than answers that are kept")]
    TooLarge,
    /// No room, or none at all.
    #[error("there is no room for it")]
    NoRoom,
    /// It was never whole.
    #[error("it broke off")]
    Broken,
}

impl Results {
    /// Keeps nothing.
    pub fn none() -> Self {
        let limits = ResultLimits {
            folder: PathBuf::new(),
            largest: 0,
            together: 0,
            retention: Duration::ZERO,
            linger: Duration::ZERO,
        };
        Results::new(limits, Clock::system(), Arc::default(), None)
    }

    /// Keeps answers within `limits`. `shared`: the store, where other gateways have the same.
    pub fn new(
        limits: ResultLimits,
        clock: Clock,
        metrics: Arc<Metrics>,
        shared: Option<Arc<dyn ValueStore>>,
    ) -> Self {
        let spool = Spool::new(limits.folder.clone(), limits.together);
        let whereabouts = shared.map(|store| Whereabouts::new(store, limits.retention));
        Results(Arc::new(Inner { limits, spool, clock, metrics, whereabouts, shelf: Mutex::default() }))
    }

    /// Keeps the answer of this attempt while its first reader gets it: what comes back is read in place of `body`. What is
    /// too large, or told as it happens, is passed on and not kept.
    pub(super) async fn keep(
        &self,
        key: Key,
        answer: &Answer,
        body: BodyStream,
        collected: Option<Collected>,
    ) -> Fresh {
        if self.find(key).is_some() {
            return Fresh { body, kept: true };
        }
        if answer.body != Kept::Not || is_told_as_it_happens(&answer.headers) {
            return Fresh { body, kept: false };
        }
        match self.begin(key, body, collected).await {
            Ok((file, source)) => {
                let (primary, rest) = oneshot::channel();
                tokio::spawn(self.clone().fill(key, Arc::clone(&file), source, primary));
                Fresh { body: read::from_start(file, Some(rest)), kept: true }
            }
            Err((why, body)) => {
                self.unkept(why);
                Fresh { body, kept: false }
            }
        }
    }

    /// Counts an answer that is not kept. Where none are to be kept, that is nothing to be told of.
    fn unkept(&self, why: NotKept) {
        let why = match why {
            _ if self.0.limits.largest == 0 => return,
            NotKept::TooLarge => Unkept::TooLarge,
            NotKept::NoRoom => Unkept::NoRoom,
            NotKept::Broken => return,
        };
        self.0.metrics.answer_unkept(why);
    }

    /// Keeps it before anybody reads it: it is whole when this returns.
    pub(super) async fn keep_whole(&self, key: Key, body: BodyStream) -> Result<BodyStream, NotKept> {
        let begun = self.begin(key, body, None).await;
        let (file, source) = begun.map_err(|(why, _)| why).inspect_err(|why| self.unkept(*why))?;
        // Somebody waits for it, so it does not linger.
        let (primary, _waits) = oneshot::channel();
        self.clone().fill(key, Arc::clone(&file), source, primary).await;
        match file.bytes.grown().end {
            Some(End::Complete) => Ok(read::from_start(file, None)),
            Some(End::Over) => Err(NotKept::TooLarge),
            _ => Err(NotKept::Broken),
        }
    }

    /// The answer of a completed job, if it is here.
    pub(super) fn find(&self, key: Key) -> Option<KeptAnswer> {
        let shelf = self.0.shelf.lock();
        let entry = shelf.answers.get(&key)?;
        let live = entry.until > self.0.clock.now_millis();
        let good = matches!(entry.file.bytes.grown().end, None | Some(End::Complete));
        (live && good).then(|| KeptAnswer::new(Arc::clone(&entry.file)))
    }

    /// Whether another gateway has it, as far as the store knows.
    pub(super) async fn is_elsewhere(&self, key: Key) -> bool {
        match &self.0.whereabouts {
            Some(whereabouts) => whereabouts.is_elsewhere(key).await,
            None => false,
        }
    }

    /// Lets go what is old, and says that this gateway is there as long as it has something. To be called every so often.
    pub(super) async fn tend(&self, every: Duration) {
        let now = self.0.clock.now_millis();
        let (old, left) = {
            let mut shelf = self.0.shelf.lock();
            let old: Vec<Key> = shelf
                .answers
                .iter()
                .filter_map(|(key, entry)| (entry.until <= now).then_some(*key))
                .collect();
            for key in &old {
                shelf.remove(*key);
            }
            (old, shelf.answers.len())
        };
        self.0.metrics.answers_kept(left, self.0.limits.together.saturating_sub(self.0.spool.free()));
        if let Some(whereabouts) = &self.0.whereabouts {
            for key in old {
                whereabouts.gone(key).await;
            }
            if left > 0 {
                whereabouts.is_there(every).await;
            }
        }
    }

    /// A file for it, on the shelf. Gives the body back if there is none.
    async fn begin(
        &self,
        key: Key,
        body: BodyStream,
        collected: Option<Collected>,
    ) -> Result<(Arc<File>, BodyStream), (NotKept, BodyStream)> {
        let length = body.size_hint().exact();
        if self.0.limits.largest == 0 {
            return Err((NotKept::NoRoom, body));
        }
        if length.is_some_and(|length| length > self.0.limits.largest) {
            return Err((NotKept::TooLarge, body));
        }
        while self.0.spool.free() < length.unwrap_or(0).max(1) {
            if !self.let_go_of_oldest().await {
                return Err((NotKept::NoRoom, body));
            }
        }
        let spool = self.0.spool.clone();
        let bytes = match spawn_blocking(move || spool.grow()).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                warn!(%error, "an answer is not kept");
                return Err((NotKept::NoRoom, body));
            }
            Err(_) => return Err((NotKept::NoRoom, body)),
        };
        let (trailers, given) = (OnceLock::new(), Mutex::new(0));
        let file = Arc::new(File { bytes, length, trailers, given, collected });
        let retention = u64::try_from(self.0.limits.retention.as_millis()).unwrap_or(u64::MAX);
        let until = self.0.clock.now_millis().saturating_add(retention);
        {
            let mut shelf = self.0.shelf.lock();
            shelf.oldest_first.push_back(key);
            shelf.answers.insert(key, Entry { file: Arc::clone(&file), until });
        }
        if let Some(whereabouts) = &self.0.whereabouts {
            whereabouts.here(key).await;
        }
        Ok((file, body))
    }

    /// Makes room. What is being read or written stays: to let it go would make none. `false`: there is nothing to let go.
    async fn let_go_of_oldest(&self) -> bool {
        let now = self.0.clock.now_millis();
        let gone = {
            let mut shelf = self.0.shelf.lock();
            let answers = &shelf.answers;
            let idle = |key: &Key| answers.get(key).is_none_or(|entry| Arc::strong_count(&entry.file) == 1);
            let oldest = shelf.oldest_first.iter().copied().find(idle);
            let in_time = |key: &Key| answers.get(key).is_some_and(|entry| entry.until > now);
            if oldest.as_ref().is_some_and(in_time) {
                self.0.metrics.answer_dropped();
            }
            oldest.inspect(|key| shelf.remove(*key))
        };
        let Some(key) = gone else { return false };
        self.gone(key).await;
        true
    }

    async fn let_go(&self, key: Key) {
        self.0.shelf.lock().remove(key);
        self.gone(key).await;
    }

    async fn gone(&self, key: Key) {
        if let Some(whereabouts) = &self.0.whereabouts {
            whereabouts.gone(key).await;
        }
    }
}

impl Shelf {
    fn remove(&mut self, key: Key) {
        self.answers.remove(&key);
        self.oldest_first.retain(|other| *other != key);
    }
}

/// Events are for who listens now: there may be no end to them.
fn is_told_as_it_happens(headers: &[(String, String)]) -> bool {
    let is = |name: &str, field: HeaderName| name.eq_ignore_ascii_case(field.as_str());
    headers.iter().any(|(name, value)| is(name, CONTENT_TYPE) && is_event_stream(value))
}

/// Whether a media type is that of server-sent events.
pub(super) fn is_event_stream(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/event-stream")
}
