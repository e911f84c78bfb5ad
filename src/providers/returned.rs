//! What providers sent back to the wallet, as it is kept in the store: for each token one value, with the sums and the block that
//! they go up to. Both are written in one step, so no transfer is counted twice or left out, whoever dies in between: the
//! sums are a function of the blocks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::jobs::{StoreError, ValueStore};
use crate::money::Amount;
use crate::x402::{Address, Asset};

/// The store's space: by wallet and token, a [`Returned`].
const SPACE: &str = "returned";

/// What came back in one token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// The token.
    pub asset: Asset,
    /// The wallet it came to.
    pub wallet: Address,
    /// What is in later blocks than this one ...
    pub after: u64,
    /// ... up to this one is counted, all of it final.
    pub upto: u64,
    /// By sender.
    pub senders: BTreeMap<Address, Sum>,
}

/// What one sender sent back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How much.
    pub amount: Amount,
    /// In how many transfers.
    pub transfers: u64,
}

impl Returned {
    /// Nothing so far: counted from `block` on.
    pub fn since(asset: Asset, wallet: Address, block: u64) -> Self {
        Returned { asset, wallet, after: block, upto: block, senders: BTreeMap::new() }
    }

    /// All of it.
    pub fn total(&self) -> Amount {
        let sum = self.senders.values().fold(0u128, |sum, one| sum.saturating_add(one.amount.units()));
        Amount::new(sum)
    }

    /// What is kept of this token; `None` before the first look.
    pub async fn read(
        store: &dyn ValueStore,
        asset: &Asset,
        wallet: Address,
    ) -> Result<Option<Returned>, StoreError> {
        store.get(SPACE, &key(asset, wallet)).await?.map(|value| decode(&value)).transpose()
    }

    /// Keeps it.
    pub async fn write(&self, store: &dyn ValueStore) -> Result<(), StoreError> {
        store.put(SPACE, &key(&self.asset, self.wallet), &encode(self)?, None).await
    }

    /// Keeps it, unless somebody was faster: then what he kept.
    pub async fn begin(self, store: &dyn ValueStore) -> Result<Returned, StoreError> {
        let before = store.put_new(SPACE, &key(&self.asset, self.wallet), &encode(&self)?, None).await?;
        before.map_or(Ok(self), |value| decode(&value))
    }
}

/// What providers sent back, in every token.
pub async fn returned(store: &dyn ValueStore) -> Result<Vec<Returned>, StoreError> {
    store.list(SPACE).await?.iter().map(|(_, value)| decode(value)).collect()
}

fn key(asset: &Asset, wallet: Address) -> String {
    format!("{}/{:#x}/{wallet:#x}", asset.network, asset.address)
}

fn encode(returned: &Returned) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(returned).map_err(|error| StoreError::Unreadable(error.to_string()))
}

fn decode(value: &[u8]) -> Result<Returned, StoreError> {
    let odd = |_| StoreError::Unreadable("what providers sent back is damaged".to_owned());
    serde_json::from_slice(value).map_err(odd)
}
