//! What an order to pay refunds would pay, before any of it is signed.

use futures_util::{StreamExt, stream};

use super::{Owed, Payer, Unpayable, owed};
use crate::ids::JobId;
use crate::jobs::StoreError;
use crate::money::Amount;
use crate::x402::Asset;

/// Refunds examined at once.
const TOGETHER: usize = 8;

/// An order.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// These jobs; empty: all that are owed.
    pub jobs: Vec<JobId>,
    /// No more than this in all, in millionths of a dollar; what has been due the longest first.
    pub max: Option<u64>,
}

/// What an order comes to.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Will be paid, in this order.
    pub pay: Vec<Owed>,
    /// Will not.
    pub left: Vec<Left>,
    /// The sums of what will be paid.
    pub totals: Vec<Total>,
}

/// A refund that is not paid.
#[derive(Clone, Debug)]
pub struct Left {
    /// Which job's.
    pub job: JobId,
    /// Why not.
    pub why: Why,
}

/// Why a refund is not paid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It must not be.
    #[error(transparent)]
    Unpayable(#[from] Unpayable),
    /// The order stops before it.
    #[error("it would be more than --max in all")]
    Max,
    /// The order names a job that owes nothing.
    #[error("nothing is owed for it")]
    NotOwed,
}

/// A sum in one token.
#[derive(Clone, Debug)]
pub struct Total {
    /// The token.
    pub asset: Asset,
    /// The sum.
    pub amount: Amount,
    /// What the wallet has; `None` if nobody says.
    pub has: Option<Amount>,
}

impl Total {
    /// Whether the wallet has too little, as far as anybody knows.
    pub fn lacks(&self) -> bool {
        self.has.is_some_and(|has| has < self.amount)
    }
}

impl Payer {
    /// What `wanted` comes to. Reads only.
    pub async fn plan(&self, wanted: &Wanted) -> Result<Plan, StoreError> {
        let mut all = owed(&*self.jobs).await?;
        let mut plan = Plan::default();
        if !wanted.jobs.is_empty() {
            let missing = wanted.jobs.iter().filter(|id| !all.iter().any(|owed| owed.job.id == **id));
            plan.left.extend(missing.map(|job| Left { job: *job, why: Why::NotOwed }));
            all.retain(|owed| wanted.jobs.contains(&owed.job.id));
        }
        let mut examined = stream::iter(all)
            .map(|owed| async move {
                let outcome = self.examine(&owed.job).await;
                (owed, outcome)
            })
            .buffered(TOGETHER);
        let mut micros = 0u64;
        while let Some((owed, outcome)) = examined.next().await {
            let requirement = &owed.job.client.requirement;
            let job = owed.job.id;
            if let Err(why) = outcome {
                plan.left.push(Left { job, why: why.into() });
                continue;
            }
            let worth = owed.job.owed().micros(requirement.asset.decimals).unwrap_or(u64::MAX);
            let sum = micros.saturating_add(worth);
            if wanted.max.is_some_and(|max| sum > max) {
                plan.left.push(Left { job, why: Why::Max });
                continue;
            }
            micros = sum;
            plan.add(&requirement.asset, owed.job.owed());
            plan.pay.push(owed);
        }
        drop(examined);
        for total in &mut plan.totals {
            let said = self.balances.balance(&total.asset, self.wallet.address()).await;
            total.has = said.and_then(Result::ok);
        }
        Ok(plan)
    }
}

impl Plan {
    fn add(&mut self, asset: &Asset, amount: Amount) {
        match self.totals.iter_mut().find(|total| total.asset == *asset) {
            // The sum in millionths was counted: it cannot be more than 128 bits of units.
            Some(total) => total.amount = Amount::new(total.amount.units().saturating_add(amount.units())),
            None => self.totals.push(Total { asset: asset.clone(), amount, has: None }),
        }
    }
}
