//! The registry: which providers there are. Who sells what is asked, and who of them is the cheapest, the quotes say.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::exchange::Line;
use super::xcache::{InventoryWallet, XCache};
use super::{Declared, Merit, OpenX402, Provider};
use crate::clock::Clock;
use crate::config::resolved;
use crate::jobs::ValueStore;
use crate::outgoing::Outgoing;
use crate::x402::Asset;

/// The providers, in the order of the configuration's documentation.
#[derive(Clone, Default)]
pub struct Registry {
    providers: Vec<Arc<dyn Provider>>,
}

/// What the adapters are given.
#[derive(Clone)]
pub struct Surroundings {
    /// The client they call through.
    pub outgoing: Outgoing,
    /// What the wallet pays in, best first: terms in other assets are no offer.
    pub assets: Vec<Asset>,
    /// Where inventory is kept.
    pub store: Arc<dyn ValueStore>,
    /// Who signs for inventory.
    pub wallet: Arc<dyn InventoryWallet>,
    /// The time.
    pub clock: Clock,
}

impl Registry {
    /// The providers that `config` switches on. Add new adapters here.
    pub fn from_config(config: &resolved::Providers, around: &Surroundings) -> Self {
        let line = Line::new(around.outgoing.clone(), &around.assets);
        let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
        if let Some(config) = config.xcache.clone() {
            let (store, wallet) = (around.store.clone(), around.wallet.clone());
            providers.push(Arc::new(XCache::new(line.clone(), config, store, wallet, around.clock.clone())));
        }
        if let Some(config) = config.openx402.clone() {
            providers.push(Arc::new(OpenX402::new(line.clone(), config)));
        }
        if let Some(config) = config.merit.clone() {
            providers.push(Arc::new(Merit::new(line.clone(), config)));
        }
        for config in &config.declared {
            providers.push(Arc::new(Declared::new(line.clone(), config.clone())));
        }
        Registry { providers }
    }

    /// These providers, in this order.
    pub fn new(providers: Vec<Arc<dyn Provider>>) -> Self {
        Registry { providers }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.providers.iter()
    }

    /// The provider of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.providers.iter().find(|provider| provider.name() == name)
    }
}
