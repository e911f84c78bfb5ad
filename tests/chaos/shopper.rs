//! A client that wants its answer: presents one payment until somebody gives a final one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use galaksio::x402::Version;
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::{Answer, Purchase};
use super::plan::{self, Conduct, Dice};
use super::site::Site;

/// How long a client goes on asking. Longer than any payment here is good for.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a price is asked for: a payment for stock that a kill left open lapses after two minutes, and until then none is
/// bought and nothing sold from it.
const OFFERED: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(150);

/// What came of one purchase, as its client saw it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) purchase: Purchase,
    /// It read every answer for as long as there was somebody to give it.
    pub(crate) reads: bool,
    /// Bodies of all answers that were the thing bought.
    pub(crate) bought: Vec<Bytes>,
    /// A fresh challenge, after the payment was presented: the client is told to pay anew.
    pub(crate) asked_again: bool,
    /// An answer said that the payment was charged for nothing.
    pub(crate) charged_for_nothing: bool,
    /// It asked for as long as a client may ask, and never heard how it ended.
    pub(crate) gave_up: bool,
    /// Answers, for the report of a run that went wrong.
    pub(crate) history: Vec<String>,
}

impl Site {
    /// Buys as planned. `None` where no challenge could be had at all: nothing was offered.
    pub(crate) async fn shop(&self, job: &plan::Purchase, seed: u64) -> Option<Outcome> {
        let mut dice = Dice::new(seed);
        let purchase = self.sign(job, &mut dice).await?;
        let mut outcome = Outcome {
            purchase: purchase.clone(),
            reads: matches!(job.conduct, Conduct::Patient | Conduct::Many(_)),
            bought: Vec::new(),
            asked_again: false,
            charged_for_nothing: false,
            gave_up: false,
            history: Vec::new(),
        };
        match job.conduct {
            Conduct::Patient => self.insist(&mut outcome, &mut dice).await,
            Conduct::Many(count) => {
                let presented = (0..count).map(|_| {
                    let edge = self.edge(dice.below(2));
                    let client = self.client.clone();
                    let purchase = purchase.clone();
                    tokio::spawn(async move { client.present(edge, &purchase).await })
                });
                let presented: Vec<_> = presented.collect();
                for each in presented {
                    if let Ok(answer) = each.await.unwrap() {
                        outcome.heard(&answer);
                    }
                }
                self.insist(&mut outcome, &mut dice).await;
            }
            Conduct::HangsUp => {
                self.send_and_hang_up(&purchase, &mut dice).await;
                self.insist(&mut outcome, &mut dice).await;
            }
            Conduct::Leaves => self.send_and_hang_up(&purchase, &mut dice).await,
        }
        Some(outcome)
    }

    async fn sign(&self, job: &plan::Purchase, dice: &mut Dice) -> Option<Purchase> {
        let give_up = Instant::now() + OFFERED;
        let mut heard = BTreeMap::<String, usize>::new();
        while Instant::now() < give_up {
            let edge = self.edge(dice.below(2));
            let said = match self.client.ask(edge, job.order).await {
                Ok(answer) if answer.status == StatusCode::PAYMENT_REQUIRED => {
                    return Some(self.client.accept(&answer, job.order, job.version));
                }
                Ok(answer) => format!("{} {}", answer.status, answer.json()["code"]),
                Err(cut) => format!("{cut:?}"),
            };
            *heard.entry(said).or_default() += 1;
            tokio::time::sleep(PAUSE).await;
        }
        println!("{:?} was never offered: {heard:?}", job.order);
        None
    }

    /// Presents the payment until there is an answer that presenting it again would not change.
    async fn insist(&self, outcome: &mut Outcome, dice: &mut Dice) {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            let edge = self.edge(dice.below(2));
            match self.client.present(edge, &outcome.purchase).await {
                Ok(answer) => {
                    if outcome.heard(&answer) {
                        return;
                    }
                }
                Err(cut) => outcome.history.push(format!("{cut:?}")),
            }
            tokio::time::sleep(PAUSE).await;
        }
        outcome.gave_up = true;
    }

    async fn send_and_hang_up(&self, purchase: &Purchase, dice: &mut Dice) {
        let raw = self.client.raw(purchase);
        if let Ok(mut stream) = TcpStream::connect(self.edge(dice.below(2))).await {
            // Part of it or all of it; the gateway may be dead already.
            let length = if dice.below(3) == 0 { dice.below(raw.len()) } else { raw.len() };
            let _ = stream.write_all(&raw[..length]).await;
        }
    }
}

impl Outcome {
    /// Takes note of an answer; whether it is final.
    fn heard(&mut self, answer: &Answer) -> bool {
        let json = answer.json();
        let (code, charged, retry) = (&json["code"], &json["charged"], &json["retry"]);
        self.history.push(format!("{} {code} charged {charged} retry {retry}", answer.status));
        if answer.status.is_success() {
            self.bought.push(answer.body.clone());
            return true;
        }
        if answer.status == StatusCode::PAYMENT_REQUIRED
            || (retry == "new_payment" && code != "payment_reused")
        {
            assert_ne!(charged, "yes", "told to pay anew, who was charged: {json}");
            self.asked_again = true;
            return true;
        }
        self.charged_for_nothing |= charged == "yes";
        retry != "same_payment"
    }

    /// Whether it was told to come back for its answer: until it does, that is with one gateway alone.
    pub(crate) fn was_sent_away(&self) -> bool {
        let away = ["store_away", "settlement_unknown"];
        self.history.iter().any(|said| away.iter().any(|code| said.contains(code)))
    }

    /// What a failed expectation is shown with.
    pub(crate) fn story(&self) -> String {
        let version = match self.purchase.version {
            Version::V1 => 1,
            Version::V2 => 2,
        };
        format!(
            "{:?}, version {version}, claim {}\n  {}",
            self.purchase.order,
            self.purchase.claim.as_str(),
            self.history.join("\n  ")
        )
    }
}
