//! Payments, sent to a facilitator, and what the chain says became of them.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use alloy::primitives::hex;
use futures_util::stream::{self, StreamExt};
use galaksio::outgoing::{Call, Outgoing};
use galaksio::x402::{Address, Asset, Authorization, B256};
use http::Method;
use serde_json::{Value, json};

use crate::anvil::{Chain, new_key, number};
use crate::token::{authorization, sign};

/// An official facilitator that missed a block answers after three minutes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);

/// Payers share the payments of a run.
const PAYERS: u64 = 20;

/// Somebody who sends payments.
pub(crate) struct Load<'a> {
    pub(crate) chain: &'a Chain,
    pub(crate) outgoing: Outgoing,
}

/// A run of settlements.
pub(crate) struct Settled {
    /// From the first request to the last answer.
    pub(crate) wall: Duration,
    /// Blocks made in that time.
    pub(crate) blocks: u64,
    /// How long each took.
    pub(crate) latencies: Vec<Duration>,
    /// Payments.
    pub(crate) asked: u64,
    /// Of those, how many the facilitator called settled.
    pub(crate) answered: u64,
    /// How many moved no money.
    pub(crate) lost: u64,
    /// Transfers beyond one for each payment, or of another amount.
    pub(crate) wrong: u64,
    /// Transactions they were in.
    pub(crate) transactions: u64,
    /// Gas of those, for each payment.
    pub(crate) gas: u64,
}

impl Load<'_> {
    /// Settles so many payments, so many at once, and looks for each on the chain.
    pub(crate) async fn settle(&self, facilitator: &str, count: u64, at_once: u64) -> Settled {
        let (_, payee) = new_key();
        let payments = self.payments(payee, count).await;
        let first = self.chain.head().await.number + 1;
        let start = Instant::now();
        let answers = self.send(&format!("{facilitator}/settle"), &payments, at_once).await;
        let wall = start.elapsed();
        let blocks = self.chain.head().await.number + 1 - first;

        while self.chain.waiting().await > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut moved: HashMap<(Address, u128), u64> = HashMap::new();
        let mut transactions = BTreeSet::new();
        for transfer in self.chain.transfers_since(first).await {
            assert_eq!(transfer.to, payee, "a payment of another run");
            *moved.entry((transfer.from, transfer.value.units())).or_default() += 1;
            transactions.insert(transfer.transaction);
        }
        let transfers: u64 = moved.values().sum();
        let payable = |payment: &Payment| (payment.authorization.from, payment.authorization.value.units());
        let lost = payments.iter().filter(|payment| !moved.contains_key(&payable(payment))).count() as u64;
        let sum: u128 = moved.iter().map(|((_, units), times)| units * u128::from(*times)).sum();
        assert_eq!(
            u128::from(self.chain.balance(payee).await),
            sum,
            "the balance is not what the logs come to"
        );
        let answered = answers.iter().filter(|(_, answer)| answer["success"] == true).count() as u64;
        for (_, answer) in answers.iter().filter(|(_, answer)| answer["success"] != true).take(3) {
            println!("  not settled: {answer}");
        }
        Settled {
            wall,
            blocks,
            latencies: answers.into_iter().map(|(took, _)| took).collect(),
            asked: count,
            answered,
            lost,
            wrong: transfers - (count - lost),
            transactions: transactions.len() as u64,
            gas: self.gas(&transactions).await / count,
        }
    }

    /// Has so many payments verified, so many at once. How long all took, and each.
    pub(crate) async fn verify(
        &self,
        facilitator: &str,
        count: u64,
        at_once: u64,
    ) -> (Duration, Vec<Duration>) {
        let (_, payee) = new_key();
        let payments = self.payments(payee, count).await;
        let start = Instant::now();
        let answers = self.send(&format!("{facilitator}/verify"), &payments, at_once).await;
        let wall = start.elapsed();
        for (_, answer) in &answers {
            assert_eq!(answer["isValid"], true, "{answer}");
        }
        (wall, answers.into_iter().map(|(took, _)| took).collect())
    }

    /// Payments of distinct amounts from payers who have exactly what theirs come to.
    async fn payments(&self, payee: Address, count: u64) -> Vec<Payment> {
        let asset = self.chain.asset();
        let mut payments = Vec::new();
        for payer in 0..PAYERS.min(count) {
            let amounts: Vec<u64> = (1..=count).filter(|units| units % PAYERS.min(count) == payer).collect();
            let (key, address) = self.chain.payer(amounts.iter().sum()).await;
            let of = |units: u64| Payment::new(&asset, &key, authorization(address, payee, units));
            payments.extend(amounts.into_iter().map(of));
        }
        payments
    }

    async fn send(&self, url: &str, payments: &[Payment], at_once: u64) -> Vec<(Duration, Value)> {
        stream::iter(payments)
            .map(|payment| async {
                let call = Call::json(Method::POST, url.parse().unwrap(), payment.request.clone());
                let start = Instant::now();
                let answer = self.outgoing.send(call, DEADLINE).await;
                let took = start.elapsed();
                let answer = match answer {
                    Ok(answer) => serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
                    Err(error) => json!({ "error": error.to_string() }),
                };
                (took, answer)
            })
            .buffer_unordered(usize::try_from(at_once).unwrap())
            .collect()
            .await
    }

    async fn gas(&self, transactions: &BTreeSet<B256>) -> u64 {
        let mut gas = 0;
        for transaction in transactions {
            gas += number(&self.chain.receipt(*transaction).await.unwrap()["gasUsed"]);
        }
        gas
    }
}

/// A payment of version 2, and the request a server would make of it.
struct Payment {
    authorization: Authorization,
    request: String,
}

impl Payment {
    fn new(asset: &Asset, key: &str, authorization: Authorization) -> Payment {
        let requirement = json!({
            "scheme": "exact",
            "network": asset.network,
            "amount": authorization.value,
            "asset": asset.address.to_string(),
            "payTo": authorization.to.to_string(),
            "maxTimeoutSeconds": 600,
            "extra": { "name": asset.name, "version": asset.version },
        });
        let signature = hex::encode_prefixed(sign(asset, key, &authorization));
        let payload = json!({
            "x402Version": 2,
            "payload": { "authorization": authorization, "signature": signature },
            "accepted": requirement,
        });
        let request =
            json!({ "x402Version": 2, "paymentPayload": payload, "paymentRequirements": requirement });
        Payment { authorization, request: request.to_string() }
    }
}
