//! The list of jobs in one state: `GET /jobs?state=held`. What an operator needs to look for the money on the chain.
//!
//! Never a result, a signature or a quote id: whoever reads this learns who paid whom, and can collect nothing.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::jobs::{Job, ProviderPayment, State, StoreError};

/// Jobs in a list without `limit`, and with the largest.
const USUAL: usize = 100;
const MOST: usize = 1000;

/// Finds jobs: those in a state, at most so many, in no order.
pub type FindJobs =
    Box<dyn Fn(State, usize) -> BoxFuture<'static, Result<Vec<Job>, StoreError>> + Send + Sync>;

/// What is asked for: `state=held`, `limit=20`, or both.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    state: State,
    limit: usize,
}

impl Query {
    /// Reads a query, or says in words what is wrong with it.
    pub(super) fn parse(query: &str) -> Result<Query, String> {
        let (mut state, mut limit) = (None, USUAL);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("state", name)) => {
                    let known = State::ALL.into_iter().find(|state| state.name() == name);
                    state = Some(known.ok_or_else(|| format!("there is no such state; {}", states()))?);
                }
                Some(("limit", number)) => {
                    let number = number.parse().ok().filter(|number| (1..=MOST).contains(number));
                    limit = number.ok_or_else(|| format!("limit is a number from 1 to {MOST}"))?;
                }
                _ => return Err("there is ?state= and &limit=".to_owned()),
            }
        }
        let state = state.ok_or_else(|| format!("say which, by ?state=; {}", states()))?;
        Ok(Query { state, limit })
    }

    /// The list.
    pub(super) async fn answer(&self, find: &FindJobs) -> Result<Value, StoreError> {
        // One more than is shown tells whether there are more.
        let found = find(self.state, self.limit + 1).await?;
        let shown: Vec<Value> = found.iter().take(self.limit).map(describe).collect();
        Ok(json!({ "state": self.state.name(), "jobs": shown, "more": found.len() > self.limit }))
    }
}

fn states() -> String {
    let names: Vec<&str> = State::ALL.iter().map(|state| state.name()).collect();
    format!("the states are {}", names.join(", "))
}

fn describe(job: &Job) -> Value {
    let requirement = &job.client.requirement;
    json!({
        "jobId": job.id,
        "state": job.state.name(),
        "kind": job.kind,
        "attempt": job.attempt,
        "createdAt": rfc3339(job.created),
        "updatedAt": rfc3339(job.updated),
        "client": {
            "payer": job.requester,
            "payTo": requirement.pay_to,
            "network": requirement.asset.network.to_string(),
            "asset": requirement.asset.address,
            "amount": requirement.amount,
            "nonce": nonce(job),
            "validBefore": job.client.valid_before,
            "transaction": job.receipt.as_ref().map(|receipt| &receipt.transaction),
        },
        "owed": job.shortfall.as_ref().map(|shortfall| shortfall.owed),
        "provider": job.provider.iter().map(payment).collect::<Vec<_>>(),
        "failure": job.failure.as_ref().map(|failure| &failure.code),
    })
}

/// The last part of the claim's key.
fn nonce(job: &Job) -> Option<&str> {
    job.claim.as_str().rsplit('/').next()
}

fn payment(payment: &ProviderPayment) -> Value {
    json!({
        "name": payment.provider,
        "step": payment.step,
        "attempt": payment.attempt,
        "payTo": payment.pay_to,
        "network": payment.asset.network.to_string(),
        "asset": payment.asset.address,
        "amount": payment.amount,
        "nonce": payment.nonce,
        "validBefore": payment.valid_before,
        "fate": payment.fate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_state_and_nothing_unknown() {
        let query = |text: &str| Query::parse(text);
        assert_eq!(query("state=held"), Ok(Query { state: State::Held, limit: USUAL }));
        assert_eq!(query("limit=2&state=settling_upfront").unwrap().limit, 2);
        for state in State::ALL {
            assert_eq!(query(&format!("state={}", state.name())).unwrap().state, state);
        }
        for wrong in ["", "state=", "state=lost", "state", "limit=5", "state=held&limit=0", "state=held&x=1"]
        {
            assert!(query(wrong).is_err(), "{wrong}");
        }
        assert!(query("state=held&limit=1001").is_err());
    }
}
