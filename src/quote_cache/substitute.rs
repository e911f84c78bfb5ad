//! Who does the work instead of one that was to do it and cannot, and what becomes of orders.

use std::sync::Arc;

use super::cache::{PATIENCE, QuoteCache};
use super::key::QuoteKey;
use super::price::Dollars;
use crate::intake::Ask;
use crate::providers::{Fault, Offer, Operation, Provider};

/// Somebody who sells some work, and for how much.
#[derive(Clone)]
pub struct Substitute {
    /// Who.
    pub provider: Arc<dyn Provider>,
    /// As what.
    pub operation: Operation,
    /// On which terms: fresh enough to be paid by.
    pub offer: Offer,
}

/// An order on its way. Dropped without an end, it took too long.
pub struct Attempted<'a> {
    quotes: &'a QuoteCache,
    provider: &'a str,
    fault: Option<Fault>,
}

impl QuoteCache {
    /// The cheapest who sells this very ask for no more than `limit` in all, without those named; its offer is for one file. Terms are asked for anew
    /// where they are older than `pricing.terms_max_age`.
    pub async fn substitute(&self, ask: &Ask, without: &[&str], limit: Dollars) -> Option<Substitute> {
        let key = QuoteKey::of(ask, &self.buckets).ok()?.into_owned();
        let mut sellers = self.prober.sellers(ask).ok()?;
        sellers.retain(|seller| !without.contains(&self.prober.name(*seller)));
        let age = u64::try_from(self.terms_max_age.as_millis()).unwrap_or(u64::MAX);
        let since = self.clock.now_millis().saturating_sub(age);
        let bid = self.prober.cheapest(&sellers, &key, since, PATIENCE).await?;
        let cost = bid.cost().times(ask.files)?;
        let provider = Arc::clone(self.prober.provider(bid.seller));
        cost.compare(limit).is_le().then_some(Substitute {
            provider,
            operation: bid.seller.operation,
            offer: bid.offer,
        })
    }

    /// An order of this provider begins. Its end decides whether further ones are given to it.
    pub fn attempting<'a>(&'a self, provider: &'a str) -> Attempted<'a> {
        Attempted { quotes: self, provider, fault: Some(Fault::Timeout) }
    }
}

impl Attempted<'_> {
    /// It ended so.
    pub fn ended(mut self, fault: Option<Fault>) {
        self.fault = fault;
    }
}

impl Drop for Attempted<'_> {
    fn drop(&mut self) {
        self.quotes.prober.performed(self.provider, self.fault);
    }
}

#[cfg(test)]
mod tests;
