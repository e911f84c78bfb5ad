//! The client of the walk: asks prices, pays them, and keeps what it was told and what it saw.

use std::time::Duration;

use anyhow::{Context, bail};
use http::{StatusCode, Uri};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::screen::Screen;
use super::stage::{Stage, random_key};
use crate::cli::pay::http::{Answer, Client};
use crate::cli::pay::order::Order;
use crate::cli::pay::payment::{Dollars, Payment, parse_dollars};
use crate::cli::pay::present;
use crate::clock::Clock;
use crate::ids::JobId;
use crate::money::Amount;
use crate::sandbox::ledger::Transfer;
use crate::wallet::Wallet;
use crate::x402::{Address, Asset, Challenge, Receipt};

/// Pays no more than this for any one thing, in dollars.
const MAX_PRICE: &str = "0.05";

/// How often a price is asked for again that nobody has named yet, and after how long.
const PRICE_TRIES: u32 = 10;
const PRICE_PAUSE: Duration = Duration::from_millis(500);

/// A client with a key and an address of its own.
pub(super) struct Buyer<'a> {
    stage: &'a Stage,
    client: Client,
    clock: Clock,
    key: SecretString,
    max_price: Dollars,
    /// Who pays.
    pub(super) address: Address,
    /// The gateway.
    pub(super) gateway: Uri,
}

/// What a 402 says.
pub(super) struct Price {
    /// Who would do the work.
    pub(super) provider: String,
    /// In atomic units.
    pub(super) amount: Amount,
    pub(super) job: JobId,
    challenge: Challenge,
}

/// A request that was paid for.
pub(super) struct Purchase {
    pub(super) price: Price,
    pub(super) answer: Answer,
    pub(super) receipt: Receipt,
    /// The payer's balance before and after.
    pub(super) balance: (Amount, Amount),
    /// All that moved on the ledger meanwhile.
    pub(super) transfers: Vec<Transfer>,
}

/// The part of a 402's body that is for people.
#[derive(Deserialize)]
struct Told<'a> {
    provider: String,
    #[serde(rename = "jobId")]
    job: JobId,
    /// Compared as text: a float is no place for money.
    #[serde(borrow)]
    price_usd: &'a RawValue,
}

impl<'a> Buyer<'a> {
    pub(super) fn new(stage: &'a Stage) -> anyhow::Result<Buyer<'a>> {
        let key = SecretString::from(random_key()?);
        Ok(Buyer {
            stage,
            client: Client::new(false)?,
            clock: Clock::system(),
            max_price: parse_dollars(MAX_PRICE).map_err(anyhow::Error::msg)?,
            address: Wallet::new(key.clone(), "0", Vec::new())?.address(),
            key,
            gateway: stage.url()?,
        })
    }

    /// Dollars, exactly: `$0.00012`.
    pub(super) fn dollars(&self, amount: Amount) -> String {
        format!("${}", amount.to_decimal(self.asset().decimals))
    }

    pub(super) fn asset(&self) -> &Asset {
        self.stage.sandbox.ledger.asset()
    }

    /// An address at the gateway.
    pub(super) fn at(&self, path: &str) -> anyhow::Result<Uri> {
        Ok(format!("{}{path}", self.gateway.to_string().trim_end_matches('/')).parse()?)
    }

    /// Gets what needs no payment.
    pub(super) async fn get(&self, url: Uri) -> anyhow::Result<Answer> {
        self.client.send(&Order::get(url), None, "reading").await
    }

    /// Sends `order` without a payment, to be told the price; again, where nobody has named one yet.
    pub(super) async fn price(&self, order: &Order, screen: &Screen) -> anyhow::Result<Price> {
        let mut answer = self.client.send(order, None, "asking the price").await?;
        for _ in 0..PRICE_TRIES {
            if answer.status != StatusCode::SERVICE_UNAVAILABLE {
                break;
            }
            tokio::time::sleep(PRICE_PAUSE).await;
            answer = self.client.send(order, None, "asking the price").await?;
        }
        if answer.status != StatusCode::PAYMENT_REQUIRED {
            bail!("expected 402 with a price, found {}: {}", answer.status, answer.error());
        }
        let challenge = Challenge::from_response(&answer.headers, &answer.body)?;
        let offered = challenge.accepts.first().context("the 402 offers no way to pay")?;
        let (amount, asset) = (offered.amount, offered.asset);
        let told: Told<'_> = serde_json::from_slice(&answer.body).context("the body of the 402")?;
        screen.check("the token asked for", asset, self.asset().address);
        screen.check("price_usd", told.price_usd.get(), &amount.to_decimal(self.asset().decimals));
        Ok(Price { provider: told.provider, amount, job: told.job, challenge })
    }

    /// Sends `order` again, with the payment that `price` asks for.
    pub(super) async fn pay(&self, order: &Order, price: Price, screen: &Screen) -> anyhow::Result<Purchase> {
        let ledger = &self.stage.sandbox.ledger;
        let (mark, before) = (ledger.transfers().len(), ledger.balance(self.address));
        let payment = Payment::sign(&price.challenge, self.key.clone(), &self.max_price, &self.clock)?;
        screen.check("what is signed for", payment.authorization().value, price.amount);
        let answer = present(&self.client, order, &payment, &self.clock).await?;
        if !answer.status.is_success() {
            bail!("expected the work to be done, found {}: {}", answer.status, answer.error());
        }
        let receipt = Receipt::from_headers(&answer.headers).context("the paid answer has no receipt")?;
        let transfers = ledger.transfers().split_off(mark);
        let balance = (before, ledger.balance(self.address));
        Ok(Purchase { price, answer, receipt, balance, transfers })
    }
}
