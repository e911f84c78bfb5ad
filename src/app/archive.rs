//! Moving old jobs out of the store: not before their payments were seen to leave the wallet, where that is watched.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::clock::{Clock, UnixSeconds};
use crate::config::resolved::Config;
use crate::guard::looked_until;
use crate::jobs::archive::Keeper;
use crate::jobs::{JobStore, StoreError};
use crate::x402::{Address, Asset};

/// Archives jobs of `store` in `folder`. `watched`: the wallet, and the tokens in which everything that leaves it must be
/// somebody's.
pub(super) fn keeper(
    config: &Config,
    folder: PathBuf,
    store: &Arc<dyn JobStore>,
    clock: &Clock,
    watched: Option<(Address, Vec<Asset>)>,
) -> Keeper {
    let jobs = Arc::clone(store);
    let accounted_for = move || -> BoxFuture<'static, Result<UnixSeconds, StoreError>> {
        let (jobs, watched) = (Arc::clone(&jobs), watched.clone());
        Box::pin(async move {
            match watched {
                None => Ok(UnixSeconds::MAX),
                Some((account, assets)) => Ok(looked_until(&*jobs, account, &assets).await?.unwrap_or(0)),
            }
        })
    };
    Keeper::new(Arc::clone(store), folder, config.paid.retention, clock.clone(), Box::new(accounted_for))
}
