//! The Redis store: one server, any number of gateways.
//!
//! Each write is one script, so it happens whole or not at all, by the server's clock. The scripts know versions,
//! epochs, leases and expiry, and nothing of what a state means. `connect` reads the URL, `sentinel` one with Sentinels, `server` says whether what is there may
//! be trusted with jobs, `connection` keeps one for each runtime, `calls` asks it in time, `keys` names things, `values` is what
//! is no job. `incarnation` notices that the server may have forgotten something, `reassert` writes it again, and `said`
//! remembers the small values for that.

mod calls;
mod connect;
mod connection;
mod incarnation;
mod keys;
mod lists;
mod reassert;
mod said;
mod scripts;
mod sentinel;
mod server;
mod values;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, ScriptInvocation};
use uuid::Uuid;

use super::held::{Held, Known, Place};
use super::job::{Job, Retention, SCHEMA};
use super::record::{Entry, Parts};
use super::store::{Appended, Claim, JobStore, Lease, Step, StoreError};
use super::{ClaimKey, State};
use crate::ids::JobId;

use calls::Again;
pub use connect::OpenError;
use connection::Connections;
use incarnation::Incarnation;
use keys::Keys;
use lists::resting;
use reassert::{Holds, Restored};
use scripts::Scripts;
use server::Server;

/// Jobs in Redis. Each runtime that asks has a connection of its own.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

/// All of it, shared with what runs in the background.
#[doc(hidden)]
pub struct Inner {
    server: Server,
    connections: Connections,
    incarnation: Incarnation,
    holds: Holds,
    keys: Keys,
    retention: Retention,
    scripts: Scripts,
    /// Jobs of each state, in the order of [`State::ALL`], that were given an expiry.
    expiring: [AtomicU32; State::ALL.len()],
}

impl Deref for Redis {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Every so many jobs of a state that will expire one tidies up, and takes twice as many that are past out of its index, and
/// their ids.
const TIDY_EVERY: u32 = 16;

/// What a script that writes by a lease says: done, or that the job is not there, or not as far. Anything else: another has it.
const WRITTEN: u8 = 1;
const FORGOTTEN: u8 = 2;

/// How often a server is reminded of a job in the course of one write.
const REMINDED: u32 = 3;

/// A job as the parts that are in its hash: fixed, record, answer.
type Found = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

impl Redis {
    /// Connects to the server at `url` (`redis://`, `rediss://`, `unix://`, or `redis+sentinel://`). Every key starts with `{prefix}`. Jobs are
    /// kept for `retention` after their last event. Refuses a server that may evict jobs, and a prefix with jobs
    /// that an earlier build laid out otherwise; warns of a server that a crash makes forget.
    pub async fn connect(
        url: &str,
        prefix: &str,
        retention: impl Into<Retention>,
    ) -> Result<Self, OpenError> {
        if prefix.is_empty() || prefix.contains(['{', '}']) {
            return Err(OpenError::Prefix);
        }
        let (server, fresh) = connect::connect(url, prefix).await?;
        let store = Redis(Arc::new(Inner {
            server,
            connections: Connections::new(Arc::default),
            incarnation: Incarnation::default(),
            holds: Holds::default(),
            keys: Keys::new(prefix),
            retention: retention.into(),
            scripts: Scripts::default(),
            expiring: Default::default(),
        }));
        store.take(&store.connections.here(), fresh);
        Ok(store)
    }

    /// Sets the end of a lease, or ends it.
    async fn set_lease(&self, lease: &Lease, duration: Option<Duration>) -> Result<Appended, StoreError> {
        // 0 means "end it" to the script; a lease so short has ended when it arrives.
        let lasts = duration.map_or(0, |duration| millis(duration).max(1));
        let mut script = self.scripts.renew.key(self.keys.job(&lease.claim));
        script.key(self.keys.open()).arg(lease.epoch).arg(lasts).arg(owner(lease));
        let written = self.reminding(lease, &script).await?;
        if let Some(held) = lease.held.as_ref().filter(|held| written && held.epoch == lease.epoch) {
            held.lasts(lasts);
            if lasts == 0 {
                self.holds.let_go(held);
            }
        }
        Ok(if written { Appended::Written } else { Appended::Fenced })
    }

    /// Runs a script that writes by a lease. A server that has forgotten the job, or the last of it, is reminded first. Whether
    /// it was written.
    async fn reminding(&self, lease: &Lease, script: &ScriptInvocation<'_>) -> Result<bool, StoreError> {
        let mut reminded = Restored::No;
        // It may forget once more, and it may be reminded by others.
        for _ in 0..REMINDED {
            let answer = self.run::<u8>(script, Again::Harmless).await?;
            if answer == FORGOTTEN {
                reminded = self.remind(lease).await?;
            }
            if answer != FORGOTTEN || reminded == Restored::No {
                return Ok(answer == WRITTEN);
            }
        }
        match reminded {
            Restored::Again => Err(StoreError::Away("Redis forgets what it is told".into())),
            // It is as far as its holder knows, and this is further on.
            Restored::Yes | Restored::No => Ok(false),
        }
    }

    /// Whether one more job that expires in `state` tidies up. Each state counts by itself: of two that come by turns, one
    /// would else never be tidied.
    fn is_to_tidy(&self, state: State) -> bool {
        let count = State::ALL.iter().zip(&self.expiring).find(|(of, _)| **of == state);
        count.is_some_and(|(_, count)| count.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIDY_EVERY))
    }
}

#[async_trait]
impl JobStore for Redis {
    async fn claim(&self, job: &Job, lease: Duration) -> Result<Claim, StoreError> {
        let owner = Uuid::new_v4().to_string();
        let mut ours = job.clone();
        loop {
            let mut script = self.scripts.claim.key(self.keys.job(&ours.claim));
            script.key(self.keys.id(ours.id)).key(self.keys.open());
            script.arg(millis(lease)).arg(ours.claim.as_str());
            script.arg("owner").arg(&owner).arg("id").arg(ours.id.to_string());
            script.arg("version").arg(ours.version).arg("schema").arg(ours.schema);
            script.arg("state").arg(ours.state.name());
            let (fixed, record) = (Parts::fixed(&ours), Parts::record(&ours));
            script.arg("fixed").arg(&fixed).arg("record").arg(&record);
            let answer: Vec<Option<Vec<u8>>> = self.run(&script, Again::Believed).await?;
            match answer.as_slice() {
                [Some(outcome)] if outcome == b"won" => {
                    let (at, lines) = (Place::of(&ours, None), Vec::new());
                    let known = Known { at, record, answer: None, lines, lease: millis(lease).max(1) };
                    let lease = self.holds.take(Held::new(&ours, owner, 1, fixed, known));
                    return Ok(Claim::Won(ours, lease));
                }
                // Another job has this id.
                [Some(outcome)] if outcome == b"id" => ours.id = JobId::new(),
                [_, fixed, record, answer] => {
                    return Ok(Claim::Taken(join(fixed.as_deref(), record.as_deref(), answer.as_deref())?));
                }
                _ => return Err(unknown_answer("claim")),
            }
        }
    }

    async fn append_all(&self, lease: &Lease, steps: &[Step<'_>], job: &Job) -> Result<Appended, StoreError> {
        let ours = lease.claim == job.claim && !steps.is_empty();
        let (true, Some(before)) = (ours, job.version.checked_sub(steps.len() as u64)) else {
            return Ok(Appended::Fenced);
        };
        let keep_until = job.keep_until(self.retention);
        let tidied = if keep_until.is_some() && self.is_to_tidy(job.state) { TIDY_EVERY * 2 } else { 0 };
        let (record, answer) = (Parts::record(job), Parts::answer(job, steps));
        let lines: Vec<Vec<u8>> = steps.iter().map(Entry::line).collect();
        // None may be left of an attempt that failed. While it runs, there is none that it does not have.
        let no_answer = job.answer.is_none() && job.state.at_rest();
        let mut script = self.scripts.append.key(self.keys.job(&lease.claim));
        script.key(self.keys.id(job.id)).key(self.keys.open());
        script.arg(lease.epoch).arg(before).arg(keep_until.map_or_else(String::new, |at| at.to_string()));
        script.arg(tidied).arg(if no_answer { "answer" } else { "" }).arg(owner(lease));
        script.arg("version").arg(job.version).arg("record").arg(&record);
        script.arg("schema").arg(job.schema).arg("state").arg(job.state.name());
        if job.state.at_rest() {
            let rest = self.keys.rest(job.state);
            script.key(&rest).arg("rest").arg(&rest).arg("lease").arg(0);
        }
        if let Some(answer) = &answer {
            script.arg("answer").arg(answer);
        }
        // Up to the last one: a range without an end would count on past it.
        for (version, line) in (before + 1..=job.version).zip(&lines) {
            script.arg(version).arg(line);
        }
        if !self.reminding(lease, &script).await? {
            return Ok(Appended::Fenced);
        }
        if let Some(held) = lease.held.as_ref().filter(|held| held.epoch == lease.epoch) {
            held.wrote(Place::of(job, keep_until), record, answer, no_answer, lines);
            if job.state.at_rest() {
                self.holds.let_go(held);
            }
        }
        Ok(Appended::Written)
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Appended, StoreError> {
        self.set_lease(lease, Some(duration)).await
    }

    async fn take_over(&self, claim: &ClaimKey, lease: Duration) -> Result<Option<(Job, Lease)>, StoreError> {
        let mut script = self.scripts.take_over.key(self.keys.job(claim));
        script.key(self.keys.open());
        let owner = Uuid::new_v4().to_string();
        script.arg(&owner).arg(millis(lease)).arg(SCHEMA);
        let answer: Vec<Option<Vec<u8>>> = self.run(&script, Again::Believed).await?;
        match answer.iter().map(Option::as_deref).collect::<Vec<_>>().as_slice() {
            [Some(b"held")] => Ok(None),
            [Some(b"taken"), Some(epoch), fixed, record, answer, lines @ ..] => {
                let epoch = std::str::from_utf8(epoch).ok().and_then(|epoch| epoch.parse().ok());
                let epoch =
                    epoch.ok_or_else(|| StoreError::Unreadable("an epoch that is no number".into()))?;
                let job = join(*fixed, *record, *answer)?;
                let whole = |part: &Option<&[u8]>| part.unwrap_or_default().to_vec();
                let known = Known {
                    at: Place::of(&job, job.keep_until(self.retention)),
                    record: whole(record),
                    answer: answer.map(<[u8]>::to_vec),
                    lines: lines.iter().flatten().map(|line| line.to_vec()).collect(),
                    lease: millis(lease).max(1),
                };
                let lease = self.holds.take(Held::new(&job, owner, epoch, whole(fixed), known));
                Ok(Some((job, lease)))
            }
            [Some(b"schema"), Some(schema)] => {
                let schema = String::from_utf8_lossy(schema);
                Err(StoreError::Unreadable(format!(
                    "it is of schema {schema}; this version reads up to {SCHEMA}"
                )))
            }
            _ => Err(unknown_answer("take_over")),
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.set_lease(lease, None).await.map(drop)
    }

    async fn by_claim(&self, claim: &ClaimKey) -> Result<Option<Job>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.job(claim)).arg(&["fixed", "record", "answer"]);
        let (fixed, record, answer): Found = self.query(&command, Again::Believed).await?;
        match record {
            Some(record) => join(fixed.as_deref(), Some(&record), answer.as_deref()).map(Some),
            None => Ok(None),
        }
    }

    async fn by_id(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let claim: Option<String> = self.query(&Cmd::get(self.keys.id(id)), Again::Believed).await?;
        match claim {
            // It is tidied away some time after its job has expired.
            Some(claim) => Ok(self.by_claim(&ClaimKey::stored(&claim)).await?.filter(|job| job.id == id)),
            None => Ok(None),
        }
    }

    async fn journal(&self, claim: &ClaimKey) -> Result<Vec<Entry>, StoreError> {
        let script = self.scripts.journal.key(self.keys.job(claim));
        let lines: Vec<Option<Vec<u8>>> = self.run(&script, Again::Harmless).await?;
        let missing = || StoreError::Unreadable("a journal that misses a line".into());
        lines.iter().map(|line| Entry::decode(line.as_deref().ok_or_else(missing)?)).collect()
    }

    async fn forget(&self, job: &Job) -> Result<bool, StoreError> {
        let mut script = self.scripts.forget.key(self.keys.job(&job.claim));
        script.key(self.keys.id(job.id)).arg(job.version);
        // Sent again it may say that it did nothing, of what it did before: then it is done all the same.
        self.run(&script, Again::Harmless).await
    }

    async fn due(&self, limit: usize) -> Result<Vec<ClaimKey>, StoreError> {
        let mut script = self.scripts.range.key(self.keys.open());
        let ids: Vec<String> = self.run(script.arg("past").arg(limit), Again::Believed).await?;
        // Asked again and again, also where nothing comes to rest any more. Of a server that answers nothing is lost.
        self.holds.tidy();
        self.claims(&ids).await
    }

    async fn in_state(&self, state: State, limit: usize) -> Result<Vec<JobId>, StoreError> {
        if !state.at_rest() {
            let open = self.unfinished().await?.into_iter();
            return Ok(open.filter(|(of, _)| *of == state).map(|(_, id)| id).take(limit).collect());
        }
        let mut script = self.scripts.range.key(self.keys.rest(state));
        script.arg("future").arg(limit);
        let ids: Vec<String> = self.run(&script, Again::Harmless).await?;
        ids.iter().map(|id| id.parse().map_err(|_| no_id())).collect()
    }

    async fn scan(
        &self,
        after: Option<&str>,
        about: usize,
    ) -> Result<(Vec<JobId>, Option<String>), StoreError> {
        let unreadable = |what: &str| StoreError::Unreadable(format!("{what} that is none"));
        // The set that is gone through, and the place in it.
        let mark = after.map_or(Some((0, "0")), |mark| {
            let (set, place) = mark.split_once('/')?;
            Some((set.parse::<usize>().ok()?, place))
        });
        let (set, place) = mark.ok_or_else(|| unreadable("a mark"))?;
        let sets = self.sets();
        let key = sets.get(set).ok_or_else(|| unreadable("a mark"))?;
        let mut command = redis::cmd("ZSCAN");
        command.arg(key).arg(place).arg("COUNT").arg(about.max(1));
        let (place, pairs): (String, Vec<(String, String)>) = self.query(&command, Again::Harmless).await?;
        let id = |(id, _): &(String, String)| id.parse().map_err(|_| unreadable("an id"));
        let found = pairs.iter().map(id).collect::<Result<_, _>>()?;
        let next = if place == "0" {
            (set + 1 < sets.len()).then(|| format!("{}/0", set + 1))
        } else {
            Some(format!("{set}/{place}"))
        };
        Ok((found, next))
    }

    async fn count_by_state(&self) -> Result<Vec<(State, u64)>, StoreError> {
        // First, so that a job that comes to rest in between is counted twice rather than not at all.
        let open = self.unfinished().await?;
        let mut script = self.scripts.count.prepare_invoke();
        for state in resting() {
            script.key(self.keys.rest(state));
        }
        let counts: Vec<u64> = self.run(&script, Again::Harmless).await?;
        let resting: Vec<(State, u64)> = resting().zip(counts).collect();
        let count = |state: State| match resting.iter().find(|(of, _)| *of == state) {
            Some((_, count)) => *count,
            None => open.iter().filter(|(of, _)| *of == state).count() as u64,
        };
        Ok(State::ALL.map(|state| (state, count(state))).into())
    }
}

/// The job whose parts were found.
fn join(fixed: Option<&[u8]>, record: Option<&[u8]>, answer: Option<&[u8]>) -> Result<Job, StoreError> {
    match (fixed, record) {
        (Some(fixed), Some(record)) => Parts::join(fixed, record, answer),
        _ => Err(StoreError::Unreadable("a job without one of its parts".into())),
    }
}

/// What tells this lease from another of its epoch, if that is known.
fn owner(lease: &Lease) -> &str {
    let held = lease.held.as_ref().filter(|held| held.epoch == lease.epoch);
    held.map_or("", |held| held.owner.as_str())
}

fn no_id() -> StoreError {
    StoreError::Unreadable("an id that is none".into())
}

fn unknown_answer(script: &str) -> StoreError {
    StoreError::Unreadable(format!("an answer that {script} does not give"))
}

/// Whole milliseconds, small enough that a script can add them to the time exactly.
fn millis(duration: Duration) -> u64 {
    const CENTURY: u64 = 100 * 366 * 86_400_000;
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(CENTURY)
}
