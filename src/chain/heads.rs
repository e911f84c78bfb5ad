//! Where the endpoints say the chain stands, and which of them are to be believed.
//!
//! An endpoint is left out while it is of another chain, its newest block is old, or it names another final block
//! than most do. What then remains agrees about everything up to [`Heads::last_final`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alloy::primitives::B256;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::pool::{Distrust, Endpoint};
use super::rpc::{self, quantity};
use super::{Chain, ChainError};
use crate::clock::UnixSeconds;

/// A look at the heads serves everybody for this long.
const FRESH: Duration = Duration::from_millis(500);

/// An endpoint this many blocks behind another is not asked what is newest.
const MAX_BEHIND: u64 = 30;

/// An endpoint whose last final block is older than another's by more than this is left out of proofs, or it would
/// hold all of them up. Finality moves in steps of minutes.
const MAX_FINAL_LAG: u64 = 1_800;

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Its time.
    pub time: UnixSeconds,
}

/// What the endpoints that are fit agree on.
#[derive(Clone, Debug)]
pub(super) struct Heads {
    /// The newest block that any of them has.
    pub(super) newest: Head,
    /// A block that is final for all of them.
    pub(super) last_final: Head,
    /// Those to ask for a proof, by their place in the pool.
    pub(super) fit: Vec<usize>,
    /// Those that name another final block.
    liars: Vec<usize>,
}

/// What one endpoint says.
#[derive(Clone, Copy, Debug)]
struct View {
    at: usize,
    newest: Head,
    last_final: Head,
}

/// The last look, and when it was.
pub(super) type LastLook = tokio::sync::Mutex<Option<(Instant, Arc<Heads>)>>;

impl Chain {
    /// Where the chain stands, asked at most every half second.
    pub(super) async fn heads(&self) -> Result<Arc<Heads>, ChainError> {
        let mut last = self.last_look.lock().await;
        if let Some((when, heads)) = &*last
            && when.elapsed() < FRESH
        {
            return Ok(Arc::clone(heads));
        }
        let heads = Arc::new(self.look().await?);
        *last = Some((Instant::now(), Arc::clone(&heads)));
        self.known.store(heads.newest.number, Ordering::Relaxed);
        Ok(heads)
    }

    async fn look(&self) -> Result<Heads, ChainError> {
        let asked = join_all(self.endpoints.iter().enumerate().map(|(at, one)| self.view(at, one))).await;
        let mut why = ChainError::Away("no endpoint is configured".to_owned());
        let mut views = Vec::with_capacity(asked.len());
        for (endpoint, view) in self.endpoints.iter().zip(asked) {
            match view {
                Ok(Ok(view)) => views.push(view),
                Ok(Err(distrust)) => {
                    why = ChainError::Unfit(format!("{}: {distrust}", endpoint.name));
                    endpoint.distrust(Some(distrust));
                }
                Err(away) => why = away.of(&endpoint.name),
            }
        }
        let (Some(newest), Some(freshest)) = (
            views.iter().map(|view| view.newest).max_by_key(|head| head.number),
            views.iter().map(|view| view.last_final.time).max(),
        ) else {
            return Err(why);
        };
        // One that is merely behind still has its say: were it left out, whoever invents blocks would decide alone.
        let timely = |view: &View| view.last_final.time.saturating_add(MAX_FINAL_LAG) >= freshest;
        let agreed = self.agreed(newest, views.iter().copied().filter(timely).collect()).await;
        for view in &views {
            let behind = newest.number - view.newest.number;
            let distrust = match &agreed {
                Ok(heads) if timely(view) && heads.liars.contains(&view.at) => {
                    Some(Distrust::Lies(heads.last_final.number))
                }
                _ => (behind > MAX_BEHIND).then_some(Distrust::Behind(behind)),
            };
            if let Some(endpoint) = self.endpoints.get(view.at) {
                endpoint.distrust(distrust);
            }
        }
        agreed
    }

    /// What one endpoint says; or what is wrong with it.
    async fn view(&self, at: usize, endpoint: &Endpoint) -> Result<Result<View, Distrust>, ChainError> {
        let id = rpc::chain_id(&endpoint.client).await?;
        if id != self.network.0 {
            return Ok(Err(Distrust::WrongChain(id)));
        }
        let missing = || ChainError::Away("it has no newest block".to_owned());
        let newest = rpc::block(&endpoint.client, "latest").await?.ok_or_else(missing)?.head();
        let off = newest.time.abs_diff(self.clock.now());
        if off > self.max_head_age.as_secs() {
            return Ok(Err(Distrust::Stale(off)));
        }
        let name = match self.final_blocks {
            Some(blocks) => quantity(newest.number.saturating_sub(blocks)),
            None => "finalized".to_owned(),
        };
        let unnamed =
            || ChainError::Away("it names no final block; set final_blocks in [[chains]]".to_owned());
        let last_final = match rpc::block(&endpoint.client, &name).await {
            Ok(Some(block)) => block.head(),
            Ok(None) | Err(ChainError::Refused(_)) => return Err(unnamed()),
            Err(why) => return Err(why),
        };
        Ok(Ok(View { at, newest, last_final }))
    }

    /// The final block that the views agree on. Those that name another than most are left out.
    async fn agreed(&self, newest: Head, views: Vec<View>) -> Result<Heads, ChainError> {
        let lowest = views.iter().map(|view| view.last_final.number).min().unwrap_or_default();
        let named = join_all(views.iter().map(|view| self.block_of(*view, lowest))).await;
        let mut votes: Vec<(usize, Head)> = Vec::with_capacity(named.len());
        let mut why = None;
        for (view, named) in views.iter().zip(named) {
            match named {
                Ok(head) => votes.push((view.at, head)),
                Err(away) => why = Some(away),
            }
        }
        let most = votes
            .iter()
            .map(|(_, head)| head)
            .find(|head| votes.iter().filter(|(_, other)| other.hash == head.hash).count() * 2 > votes.len())
            .copied();
        let Some(last_final) = most else {
            return Err(why.filter(|_| votes.is_empty()).unwrap_or(ChainError::Disagree(lowest)));
        };
        let (fit, liars): (Vec<_>, Vec<_>) =
            votes.into_iter().partition(|(_, head)| head.hash == last_final.hash);
        let places = |votes: Vec<(usize, Head)>| votes.into_iter().map(|(at, _)| at).collect();
        Ok(Heads { newest, last_final, fit: places(fit), liars: places(liars) })
    }

    async fn block_of(&self, view: View, number: u64) -> Result<Head, ChainError> {
        if view.last_final.number == number {
            return Ok(view.last_final);
        }
        let endpoint = self.endpoints.get(view.at).ok_or(ChainError::Disagree(number))?;
        let block = rpc::block(&endpoint.client, &quantity(number)).await?;
        Ok(block.ok_or_else(|| ChainError::Away(format!("it has no block {number}")))?.head())
    }
}
