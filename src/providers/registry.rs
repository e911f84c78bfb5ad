//! The registry: which providers there are, which of them sell what is asked, and which offer is the cheapest.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::sync::Arc;

use super::exchange::Line;
use super::xcache::{InventoryWallet, XCache};
use super::{Merit, NotSold, Offer, OpenX402, Operation, Provider};
use crate::clock::Clock;
use crate::config::resolved;
use crate::intake::Ask;
use crate::jobs::ValueStore;
use crate::money::Amount;
use crate::outgoing::Outgoing;
use crate::x402::Asset;

/// The providers, in the order that settles ties.
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

/// A provider that sells what is asked, and the operation it would be.
pub type Seller = (Arc<dyn Provider>, Operation);

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
            providers.push(Arc::new(Merit::new(line, config)));
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

    /// Everyone who sells this, in order; if nobody does, the reason that helps a client most.
    pub fn sellers(&self, ask: &Ask) -> Result<Vec<Seller>, NotSold> {
        let mut sellers = Vec::new();
        let mut reason = NotSold::Operation { provider: "this gateway" };
        for provider in &self.providers {
            match provider.sells(ask) {
                Ok(operation) => sellers.push((provider.clone(), operation)),
                Err(other) if helpfulness(&other) > helpfulness(&reason) => reason = other,
                Err(_) => {}
            }
        }
        if sellers.is_empty() { Err(reason) } else { Ok(sellers) }
    }
}

/// The index of the cheapest offer; among equals the first, which is the registry's order if the offers are in it.
pub fn cheapest<'a>(offers: impl IntoIterator<Item = &'a Offer>) -> Option<usize> {
    let mut best: Option<(usize, &Offer)> = None;
    for (index, offer) in offers.into_iter().enumerate() {
        if best.is_none_or(|(_, leader)| compare(offer, leader) == Ordering::Less) {
            best = Some((index, offer));
        }
    }
    best.map(|(index, _)| index)
}

/// A smaller file, then another option, is what a client can try; that others do other work helps nobody.
fn helpfulness(reason: &NotSold) -> (u8, u64) {
    match reason {
        NotSold::Size { limit, .. } => (2, *limit),
        NotSold::Option { .. } => (1, 0),
        NotSold::Operation { .. } => (0, 0),
    }
}

/// By dollars: assets are dollar-pegged and differ in decimals only.
fn compare(one: &Offer, other: &Offer) -> Ordering {
    let places = one.asset.decimals.max(other.asset.decimals);
    let scaled = |offer: &Offer| scale(offer.cost, places - offer.asset.decimals);
    match (scaled(one), scaled(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        // What does not fit 128 bits is dearer than what does.
        (one, other) => one.is_none().cmp(&other.is_none()),
    }
}

fn scale(amount: Amount, places: u8) -> Option<u128> {
    amount.units().checked_mul(10u128.checked_pow(u32::from(places))?)
}
