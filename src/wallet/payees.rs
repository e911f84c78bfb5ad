//! Whom the wallet pays. A provider's address is what an attacker of it changes first, so it is not taken from the
//! provider's word of the day: it is one the operator named, or the one that was first seen.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::jobs::{StoreError, ValueStore};
use crate::x402::{Address, Asset};

/// The store's space: by provider and token, the address.
const PAYEES: &str = "payees";

/// The addresses that may be paid.
pub struct Payees {
    store: Arc<dyn ValueStore>,
    /// What the operator named. Then nothing else is paid.
    named: Vec<Address>,
    seen: RwLock<HashMap<String, Address>>,
}

/// Why an address is not paid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayeeError {
    /// The provider was paid elsewhere before.
    #[error(
        "{provider} asks to be paid at {found}, and was pinned to {pinned}; if that is right, run `galaksio wallet pin {provider} {found}`"
    )]
    Changed {
        /// Who.
        provider: String,
        /// Where it asks to be paid.
        found: Address,
        /// Where it is paid.
        pinned: Address,
    },
    /// The operator did not name it.
    #[error("{provider} asks to be paid at {found}, which is not in wallet.payees")]
    NotNamed {
        /// Who.
        provider: String,
        /// Where it asks to be paid.
        found: Address,
    },
    /// The store does not say.
    #[error("whether {provider} may be paid is not known: {reason}")]
    Away {
        /// Who.
        provider: String,
        /// Why not.
        reason: String,
    },
}

impl Payees {
    /// Those of `named`, or if it is empty, those first seen, in `store`.
    pub fn new(store: Arc<dyn ValueStore>, named: Vec<Address>) -> Payees {
        Payees { store, named, seen: RwLock::default() }
    }

    /// Whether `provider` may be paid at `payee` in this token. What is seen for the first time is written down.
    pub async fn check(&self, provider: &str, asset: &Asset, payee: Address) -> Result<(), PayeeError> {
        if !self.named.is_empty() {
            let known = self.named.contains(&payee);
            let error = || PayeeError::NotNamed { provider: provider.to_owned(), found: payee };
            return if known { Ok(()) } else { Err(error()) };
        }
        let key = key(provider, asset);
        if self.seen.read().get(&key) == Some(&payee) {
            return Ok(());
        }
        let away = |reason: String| PayeeError::Away { provider: provider.to_owned(), reason };
        let written = self.store.put_new(PAYEES, &key, format!("{payee:#x}").as_bytes(), None).await;
        let pinned = match written.map_err(|error| away(error.to_string()))? {
            None => {
                tracing::info!(provider, %payee, network = %asset.network, "a provider's address is pinned");
                payee
            }
            Some(pinned) => parse(&pinned).ok_or_else(|| away("what is stored is no address".to_owned()))?,
        };
        self.seen.write().insert(key, pinned);
        if pinned == payee {
            return Ok(());
        }
        Err(PayeeError::Changed { provider: provider.to_owned(), found: payee, pinned })
    }

    /// What is pinned: provider and token, and the address.
    pub async fn list(store: &dyn ValueStore) -> Result<Vec<(String, Address)>, StoreError> {
        let mut pinned: Vec<_> = store.list(PAYEES).await?.into_iter().collect();
        pinned.sort();
        Ok(pinned.into_iter().filter_map(|(key, value)| Some((key, parse(&value)?))).collect())
    }

    /// Pins every token of `provider` that is pinned to `payee` from now on. How many.
    pub async fn pin(store: &dyn ValueStore, provider: &str, payee: Address) -> Result<usize, StoreError> {
        let mut changed = 0;
        for (key, _) in Payees::list(store).await? {
            if key.strip_prefix(provider).is_some_and(|rest| rest.starts_with('/')) {
                store.put(PAYEES, &key, format!("{payee:#x}").as_bytes(), None).await?;
                changed += 1;
            }
        }
        Ok(changed)
    }
}

fn key(provider: &str, asset: &Asset) -> String {
    format!("{provider}/{}/{:#x}", asset.network, asset.address)
}

fn parse(value: &[u8]) -> Option<Address> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::jobs::memory::MemoryStore;
    use crate::x402::fixtures::usdc;

    const A: Address = Address::repeat_byte(0xaa);
    const B: Address = Address::repeat_byte(0xbb);

    #[tokio::test]
    async fn the_first_address_seen_is_the_one_that_is_paid() {
        let store = MemoryStore::new(Clock::manual(0));
        let first = Payees::new(store.clone(), Vec::new());
        let second = Payees::new(store.clone(), Vec::new());
        assert_eq!(first.check("merit", &usdc(), A).await, Ok(()));
        let changed = PayeeError::Changed { provider: "merit".into(), found: B, pinned: A };
        // By the one that pinned it, by another process, and after a restart.
        for _ in 0..2 {
            for payees in [&first, &second, &Payees::new(store.clone(), Vec::new())] {
                assert_eq!(payees.check("merit", &usdc(), B).await, Err(changed.clone()));
                assert_eq!(payees.check("merit", &usdc(), A).await, Ok(()));
            }
        }
        // Another provider's is another's, and so is that of another token.
        assert_eq!(second.check("merit-2", &usdc(), B).await, Ok(()));
        let other = Asset { address: B, ..usdc() };
        assert_eq!(second.check("merit", &other, B).await, Ok(()));
    }

    #[tokio::test]
    async fn an_operator_may_say_that_a_change_is_right() {
        let store = MemoryStore::new(Clock::manual(0));
        let payees = Payees::new(store.clone(), Vec::new());
        payees.check("merit", &usdc(), A).await.unwrap();
        payees.check("merit-2", &usdc(), A).await.unwrap();
        assert_eq!(Payees::pin(&*store, "merit", B).await.unwrap(), 1);
        assert_eq!(payees.check("merit", &usdc(), B).await, Ok(()));
        assert!(payees.check("merit", &usdc(), A).await.is_err(), "what was right before is not any more");
        assert!(payees.check("merit-2", &usdc(), B).await.is_err());
        assert_eq!(Payees::pin(&*store, "nobody", B).await.unwrap(), 0);
        let pinned = Payees::list(&*store).await.unwrap();
        assert_eq!(pinned.iter().map(|(_, payee)| *payee).collect::<Vec<_>>(), [A, B]);
    }

    #[tokio::test]
    async fn named_addresses_are_the_only_ones() {
        let store = MemoryStore::new(Clock::manual(0));
        let payees = Payees::new(store.clone(), vec![B]);
        assert_eq!(payees.check("merit", &usdc(), B).await, Ok(()));
        let refused = payees.check("merit", &usdc(), A).await;
        assert_eq!(refused, Err(PayeeError::NotNamed { provider: "merit".into(), found: A }));
        assert_eq!(store.writes(), 0);
    }

    #[tokio::test]
    async fn nobody_new_is_paid_while_the_store_is_away() {
        let store = MemoryStore::new(Clock::manual(0));
        let payees = Payees::new(store.clone(), Vec::new());
        payees.check("merit", &usdc(), A).await.unwrap();
        store.fail(true);
        assert_eq!(payees.check("merit", &usdc(), A).await, Ok(()));
        for (provider, payee) in [("merit", B), ("other", A)] {
            let refused = payees.check(provider, &usdc(), payee).await;
            assert!(matches!(refused, Err(PayeeError::Away { .. })), "{refused:?}");
        }
        store.fail(false);
        store.set(PAYEES, &key("odd", &usdc()), b"no address".to_vec());
        assert!(matches!(payees.check("odd", &usdc(), A).await, Err(PayeeError::Away { .. })));
    }
}
