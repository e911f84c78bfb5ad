//! What pays refunds, for `galaksio refunds`: built beside a gateway, or while none runs. And what a gateway looks for of
//! money that comes back to it.

use std::sync::Arc;

use super::{StartError, facilitators, switch};
use crate::chain::Chains;
use crate::clock::Clock;
use crate::config::resolved::Config;
use crate::facilitator::local::LocalFacilitator;
use crate::jobs::{JobStore, ValueStore};
use crate::refunds::{Payer, Returns};
use crate::telemetry::Metrics;
use crate::wallet::Wallet;
use crate::x402::Address;

/// The payer of refunds over `jobs`; `None` without a wallet. Must be called within the runtime it is to run on.
pub async fn refunds(config: &Config, jobs: Arc<dyn JobStore>) -> Result<Option<Payer>, StartError> {
    let clock = Clock::system();
    let Some(wallet) = &config.wallet else { return Ok(None) };
    let wallet = Wallet::new(wallet.key.clone(), &wallet.max_payment, wallet.assets.clone())?;
    let values: Arc<dyn ValueStore> = jobs.clone();
    let local = match config.facilitator.local {
        Some(_) => Some(Arc::new(LocalFacilitator::new(config, clock.clone())?)),
        None => None,
    };
    let observer = Arc::new(Metrics::new());
    let pool = facilitators::pool(config, clock.clone(), Arc::clone(&values), observer, local).await?;
    let chains = Arc::new(Chains::new(&config.chains, &clock)?);
    let payees = config.accepts.iter().map(|accept| (accept.asset.clone(), accept.pay_to)).collect();
    Ok(Some(Payer {
        jobs,
        chains: chains.clone(),
        balances: chains,
        facilitator: Arc::new(pool),
        wallet: Arc::new(wallet),
        switch: switch(config, &values),
        payees,
        clock,
    }))
}

/// What looks for what providers send back to `wallet`, on the chains that can be asked.
pub(super) fn returns(
    config: &Config,
    wallet: Address,
    jobs: &Arc<dyn JobStore>,
    chains: Arc<Chains>,
    metrics: &Arc<Metrics>,
) -> Returns {
    let settings = config.wallet.as_ref();
    let assets = settings.into_iter().flat_map(|settings| &settings.assets);
    let asked = assets.filter_map(|asset| {
        let chain = config.chains.iter().find(|chain| chain.network == asset.network)?;
        Some((asset.clone(), chain.log_range))
    });
    Returns {
        store: jobs.clone(),
        chains,
        metrics: Arc::clone(metrics),
        named: settings.map(|settings| settings.payees.clone()).unwrap_or_default(),
        wallet,
        assets: asked.collect(),
    }
}
