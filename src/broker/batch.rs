//! Several files as one piece of work: bought one after another, each with a payment of its own, and answered together.
//!
//! What is not stored is owed to the client, unless nothing is: then it is not charged. Buying ends at the first file that
//! was paid for and not stored, so that a provider that takes money and fails gets no more of it, and in time to settle.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tracing::warn;

use super::work::{Another, PassedOn, Product, ProviderWork, Work, WorkError};
use crate::intake::Content;
use crate::jobs::Job;
use crate::jobs::job::Shortfall;
use crate::money::Amount;
use crate::providers::{Fault, PaymentHeader, ProviderError, Purse, PurseError};
use crate::reason::Reason;
use crate::x402::Challenge;

/// The status of an answer where some files were stored and some were not.
const IN_PART: u16 = 207;

/// Of the time there is for the work, one part in so many is left for what follows the last file: if that took too long, all
/// that was stored would be lost.
const SPARE: u32 = 10;

/// Several files, stored by one provider.
pub struct BatchWork {
    /// Who does it, and on which terms for one file. Its own content is the first file's.
    pub work: ProviderWork,
    /// The files: more than one.
    pub files: Vec<Content>,
}

/// How far buying came.
#[derive(Default)]
struct Bought {
    /// The outcome of each file, in order: its result, or why it was not stored.
    outcomes: Vec<Result<Map<String, Value>, Reason>>,
    /// The steps of those that were not stored.
    failed: Vec<String>,
    /// Why the first of those was not.
    first: Option<ProviderError>,
    /// Why no more is bought.
    over: Option<Reason>,
}

#[async_trait]
impl Work for BatchWork {
    async fn perform(
        mut self: Box<Self>,
        job: &Job,
        purse: &dyn Purse,
        deadline: Duration,
    ) -> Result<Product, WorkError> {
        let ends = Instant::now() + deadline.saturating_sub(deadline / SPARE);
        let mut bought = Bought::default();
        for (part, file) in (1..).zip(&self.files) {
            match bought.over {
                Some(reason) => bought.outcomes.push(Err(reason)),
                None => self.buy(job, part, file, purse, ends, &mut bought).await,
            }
        }
        if bought.outcomes.iter().any(Result::is_ok) {
            return self.answer(job, bought);
        }
        let error = bought.first.unwrap_or_else(|| ProviderError::new(Fault::Internal, "no file was bought"));
        if error.fault.is_ours() {
            return Err(error.into());
        }
        self.work.failed_with(error.fault);
        Err(WorkError { undone: Some(self), ..error.into() })
    }

    fn payments(&self) -> u16 {
        u16::try_from(self.files.len()).unwrap_or(u16::MAX)
    }

    async fn by_another(self: Box<Self>) -> Option<Another> {
        let BatchWork { work, files } = *self;
        let work = work.with_another().await?;
        Some(work.another(|work| BatchWork { work, files }))
    }

    async fn passed_on(&mut self) -> Option<PassedOn> {
        self.work.passed_on().await
    }
}

impl BatchWork {
    /// Buys one file.
    async fn buy(
        &self,
        job: &Job,
        part: u16,
        file: &Content,
        purse: &dyn Purse,
        ends: Instant,
        bought: &mut Bought,
    ) {
        let purse = PartPurse { purse, part, steps: Mutex::default() };
        let left = ends.saturating_duration_since(Instant::now());
        let late = Err(ProviderError::new(Fault::Timeout, "too little time was left for this file"));
        let placed = match left.is_zero() {
            true => late,
            false => {
                let placed = self.work.place(job, part, file, &purse, left);
                tokio::time::timeout(left, placed).await.unwrap_or(late)
            }
        };
        let error = match placed {
            Ok(done) => match self.work.publish(done).await {
                Ok(result) => return bought.outcomes.push(Ok(result)),
                // It is there, and nobody will find it.
                Err(error) => ProviderError::new(Fault::Guarded(error.reason()), error.message),
            },
            Err(error) => error,
        };
        warn!(job = %job.id, part, %error, "a file of a batch was not stored");
        let steps = purse.steps.into_inner();
        // A payment that may be out; or what the next file would meet as well.
        let over = !steps.is_empty() || !matches!(error.fault, Fault::Refused | Fault::Broken);
        let reason = WorkError::from(error.clone()).reason();
        bought.outcomes.push(Err(reason));
        bought.failed.extend(steps);
        bought.first.get_or_insert(error);
        if over {
            bought.over = Some(reason);
        }
    }

    /// The answer about all files, of which one was stored at least.
    fn answer(&self, job: &Job, bought: Bought) -> Result<Product, WorkError> {
        let mut results = Vec::with_capacity(self.files.len());
        for (file, outcome) in self.files.iter().zip(&bought.outcomes) {
            let mut result = match outcome {
                Ok(result) => result.clone(),
                Err(reason) => {
                    let mut failed = Map::new();
                    failed.insert("success".into(), false.into());
                    failed.insert("code".into(), reason.code().into());
                    failed.insert("error".into(), reason.text().into());
                    failed
                }
            };
            result.insert("filename".into(), json!(file.filename));
            result.entry("size").or_insert_with(|| file.data.size().into());
            results.push(Value::Object(result));
        }
        let stored = bought.outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let missing = self.files.len() - stored;
        let mut result = Map::new();
        result.insert("success".into(), (missing == 0).into());
        result.insert("files".into(), self.files.len().into());
        result.insert("stored".into(), stored.into());
        result.insert("size".into(), self.files.iter().map(|file| file.data.size()).sum::<u64>().into());
        let shortfall = match missing {
            0 => None,
            _ => {
                let owed =
                    share(job.client.requirement.amount, missing, self.files.len()).ok_or_else(|| {
                        WorkError::new(Reason::Internal, "the share of a price cannot be counted")
                    })?;
                let amount = owed.to_decimal(job.client.requirement.asset.decimals);
                let amount = amount.parse::<serde_json::Number>().ok();
                result.insert("refund".into(), json!({ "state": "due", "amountUsd": amount }));
                // Something that costs nothing leaves nothing owed.
                (owed > Amount::ZERO).then_some(Shortfall { owed, steps: bought.failed })
            }
        };
        result.insert("results".into(), results.into());
        let status = if missing == 0 { 200 } else { IN_PART };
        Ok(self.work.product(job, status, result, shortfall))
    }
}

/// The share of `missing` files in the price of `files`: exact, since the price is that of one as many times. Else rounded down,
/// so that it is never all of it.
fn share(price: Amount, missing: usize, files: usize) -> Option<Amount> {
    let (missing, files) = (u128::try_from(missing).ok()?, u128::try_from(files).ok()?);
    let all = price.units().checked_mul(missing)?;
    (files > 0).then(|| Amount::new(all / files))
}

/// The purse of one file: its steps are its own, and so are their nonces.
struct PartPurse<'a> {
    purse: &'a dyn Purse,
    part: u16,
    /// Every step that a payment was asked for; it may be on record, and with the provider.
    steps: Mutex<Vec<String>>,
}

#[async_trait]
impl Purse for PartPurse<'_> {
    async fn pay(&self, step: &str, challenge: &Challenge) -> Result<PaymentHeader, PurseError> {
        let step = format!("{step}/{}", self.part);
        self.steps.lock().push(step.clone());
        self.purse.pay(&step, challenge).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_exact_for_a_price_of_equal_parts_and_never_all_of_it() {
        let share = |price, missing, files| share(Amount::new(price), missing, files).map(Amount::units);
        assert_eq!(share(36_000, 1, 3), Some(12_000));
        assert_eq!(share(36_000, 2, 3), Some(24_000));
        assert_eq!(share(1, 2, 3), Some(0));
        assert_eq!(share(u128::MAX, 2, 3), None);
        assert_eq!(share(1, 0, 0), None);
    }
}
