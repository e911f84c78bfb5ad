//! The names of the keys, all of them with one hash tag, `{prefix}`.
//!
//! One tag puts everything on one slot, so that one script can change a job together with the indexes it is
//! in. It also means that a Cluster would keep all jobs of a gateway on one shard.

use crate::ids::JobId;
use crate::jobs::{ClaimKey, State};

pub(super) struct Keys(String);

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Keys(format!("{{{prefix}}}:"))
    }

    /// Hash: fixed, record and answer (the job, see `record`), version, schema, epoch, lease (end, in ms; 0 when given
    /// back), owner, id, state (its name), rest (the key of the set it rests in, if it does), and under
    /// each version the journal line that made it.
    pub(super) fn job(&self, claim: &ClaimKey) -> String {
        format!("{}job:{}", self.0, claim.as_str())
    }

    /// String: the claim. It goes when the set its job rested in is tidied.
    pub(super) fn id(&self, id: JobId) -> String {
        format!("{}id:{id}", self.0)
    }

    /// Sorted set: ids of the jobs that are not at rest, by the end of their lease.
    pub(super) fn open(&self) -> String {
        format!("{}open", self.0)
    }

    /// Sorted set: ids of the jobs that rest in a state, by their expiry, or `+inf`.
    pub(super) fn rest(&self, state: State) -> String {
        debug_assert!(state.at_rest(), "{}", state.name());
        format!("{}rest:{}", self.0, state.name())
    }

    /// Sorted sets of jobs as earlier builds named them, one for each state.
    pub(super) fn old_layout(&self) -> Vec<String> {
        State::ALL.map(|state| format!("{}state:{}", self.0, state.name())).into()
    }

    /// String: a small value. Spaces are constants of this program, without a slash.
    pub(super) fn value(&self, space: &str, key: &str) -> String {
        debug_assert!(!space.contains('/'), "{space}");
        format!("{}value:{space}/{key}", self.0)
    }

    /// Sorted set: the keys of a space, by their expiry, or `+inf`.
    pub(super) fn space(&self, space: &str) -> String {
        format!("{}space:{space}", self.0)
    }

    /// String: a counter.
    pub(super) fn counter(&self, space: &str, key: &str) -> String {
        debug_assert!(!space.contains('/'), "{space}");
        format!("{}counter:{space}/{key}", self.0)
    }

    /// Hash: the slices of a limit, each with its end and its size.
    pub(super) fn slices(&self, space: &str, key: &str) -> String {
        debug_assert!(!space.contains('/'), "{space}");
        format!("{}slices:{space}/{key}", self.0)
    }
}
