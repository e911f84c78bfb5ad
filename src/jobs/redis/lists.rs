//! Who is where: the jobs that are not at rest, which are in one set together, and those that rest, in one for each state.

use redis::Cmd;

use super::calls::Again;
use super::{Redis, no_id};
use crate::ids::JobId;
use crate::jobs::store::StoreError;
use crate::jobs::{ClaimKey, State};

/// Jobs looked at in one go, where there is no saying how many there are.
const PART: usize = 256;

impl Redis {
    /// The claims of these jobs, but for those that are gone.
    pub(super) async fn claims(&self, ids: &[String]) -> Result<Vec<ClaimKey>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let names = ids.iter().map(|id| Ok(self.keys.id(id.parse().map_err(|_| no_id())?)));
        let names = names.collect::<Result<Vec<String>, StoreError>>()?;
        let claims: Vec<Option<String>> = self.query(&Cmd::mget(names), Again::Harmless).await?;
        Ok(claims.iter().flatten().map(|claim| ClaimKey::stored(claim)).collect())
    }

    /// The jobs that are not at rest. No sale keeps them by state: they are few, and seldom asked for.
    pub(super) async fn unfinished(&self) -> Result<Vec<(State, JobId)>, StoreError> {
        let all = Cmd::zrange(self.keys.open(), 0, -1);
        let ids: Vec<String> = self.query(&all, Again::Harmless).await?;
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(PART) {
            let mut asked = redis::pipe();
            for claim in self.claims(ids).await? {
                asked.cmd("HMGET").arg(self.keys.job(&claim)).arg(&["state", "id"]);
            }
            if asked.is_empty() {
                continue;
            }
            let asked = &asked;
            let once = |mut connection| async move { asked.query_async(&mut connection).await };
            let states: Vec<(Option<String>, Option<String>)> = self.in_time(once, Again::Harmless).await?;
            for (name, id) in states.into_iter().filter_map(|(name, id)| name.zip(id)) {
                let state = State::ALL.into_iter().find(|state| state.name() == name);
                // One that came to rest meanwhile is in the set of its state.
                if let Some(state) = state.filter(|state| !state.at_rest()) {
                    found.push((state, id.parse().map_err(|_| no_id())?));
                }
            }
        }
        Ok(found)
    }

    /// The sets that jobs are in, in the order in which they go through them, so that one that moves on during a scan is met
    /// again, not missed. Two come first, and again in their turn: a voided one may begin anew, and a held one be settled or
    /// voided, behind the scan's back once `open` and where it goes then have been gone through.
    pub(super) fn sets(&self) -> Vec<String> {
        let rest = |state| self.keys.rest(state);
        let first = [rest(State::Held), rest(State::Voided), self.keys.open()];
        first.into_iter().chain(resting().map(rest)).collect()
    }
}

/// The states that jobs rest in.
pub(super) fn resting() -> impl Iterator<Item = State> {
    State::ALL.into_iter().filter(|state| state.at_rest())
}
