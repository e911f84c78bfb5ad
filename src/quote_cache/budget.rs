//! Providers with which no more may be spent just now: they are offered only where nobody else sells the same.

use super::cache::QuoteCache;
use super::price::Dollars;
use super::probe::{Bid, Prober, Seller};
use super::quote::Quote;

/// Whether work that costs this much may not be paid to this provider just now. From memory.
pub(super) type Spent = Box<dyn Fn(&str, Dollars) -> bool + Send + Sync>;

impl QuoteCache {
    /// With an eye on what may be spent with each provider.
    pub fn within(mut self, spent: impl Fn(&str, Dollars) -> bool + Send + Sync + 'static) -> Self {
        self.prober.spent = Some(Box::new(spent));
        self
    }

    /// Whether another provider than this quote's is to be looked for.
    pub(super) fn is_spent(&self, quote: &Quote) -> bool {
        quote.seller.is_some_and(|seller| self.prober.is_spent(seller, quote.terms.cost))
    }

    /// Whether there is one of them who may be paid as much. If not, it is no use to ask.
    pub(super) fn others_sell(&self, quote: &Quote, sellers: &[Seller]) -> bool {
        sellers.iter().any(|seller| !self.prober.is_spent(*seller, quote.terms.cost))
    }
}

impl Prober {
    fn is_spent(&self, seller: Seller, cost: Dollars) -> bool {
        self.spent.as_ref().is_some_and(|spent| spent(self.name(seller), cost))
    }

    /// Those who may be paid for so many files; all, if nobody may.
    pub(super) fn affordable(&self, mut bids: Vec<Bid>, files: u16) -> Vec<Bid> {
        let cost = |bid: &Bid| bid.cost().times(files);
        let may = |bid: &Bid| cost(bid).is_some_and(|cost| !self.is_spent(bid.seller, cost));
        if bids.iter().any(may) {
            bids.retain(may);
        }
        bids
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::super::testing::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn who_may_not_be_paid_is_offered_only_where_nobody_else_sells_the_same() {
        let clock = Clock::manual(NOW);
        let (a, b) = (FakeProvider::new("a", 100), FakeProvider::new("b", 300));
        let budgets = Arc::new(Mutex::new(HashSet::new()));
        let seen = Arc::clone(&budgets);
        let cache = cache(&[&a, &b], &MemoryStore::new(clock.clone()), &clock).await;
        let cache = Arc::into_inner(cache).unwrap().within(move |provider, _| seen.lock().contains(provider));
        let ask = store_ask(10);
        let sold_by = async || cache.fetch(&ask).await.unwrap().terms.provider.clone();
        let shown = || cache.lookup(&ask, clock.now_millis()).map(|quote| quote.terms.provider.clone());
        assert_eq!((sold_by().await.as_str(), shown().as_deref()), ("a", Some("a")));

        budgets.lock().insert("a".to_owned());
        assert_eq!(shown(), None);
        clock.advance(1_000);
        let probes = (a.probes(), b.probes());
        assert_eq!((sold_by().await.as_str(), shown().as_deref()), ("b", Some("b")));
        assert_eq!((a.probes(), b.probes()), probes, "terms that are fresh are not asked for again");

        // With nobody left one of them is named, of whom it is said why he is not sold; and nobody is asked all the time.
        budgets.lock().insert("b".to_owned());
        for _ in 0..5 {
            clock.advance(1_000);
            assert_eq!((sold_by().await.as_str(), shown()), ("b", None));
        }
        assert_eq!((a.probes(), b.probes()), probes);
        budgets.lock().remove("a");
        assert_eq!((sold_by().await.as_str(), shown().as_deref()), ("a", Some("a")));
    }
}
