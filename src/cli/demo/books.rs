//! Where the money of a purchase went, read from the ledger: the client's payment, the provider's, and what is left.

use anyhow::Context;

use super::buyer::{Buyer, Purchase};
use super::screen::Screen;
use super::stage::Stage;
use crate::money::{Amount, client_price};
use crate::sandbox::ledger::Transfer;
use crate::sandbox::{self, Service};
use crate::x402::Address;

/// The accounts of the demo.
pub(super) struct Books<'a> {
    stage: &'a Stage,
    buyer: &'a Buyer<'a>,
    screen: &'a Screen,
    /// Where clients' payments go.
    income: Address,
}

/// What the gateway spent on a purchase.
struct Spent {
    /// What the provider asked, of which the price was made.
    cost: Amount,
    /// What it kept in the end.
    kept: Amount,
}

impl<'a> Books<'a> {
    pub(super) fn new(stage: &'a Stage, buyer: &'a Buyer<'a>, screen: &'a Screen) -> anyhow::Result<Self> {
        let accept = stage.config.accepts.first().context("proxy.toml takes no payment")?;
        Ok(Books { stage, buyer, screen, income: accept.pay_to })
    }

    /// Where clients' payments go.
    pub(super) fn income(&self) -> Address {
        self.income
    }

    /// Prints and checks both legs of `purchase`.
    pub(super) fn audit(&self, purchase: &Purchase) -> anyhow::Result<()> {
        self.received(purchase)?;
        let price = purchase.price.amount;
        let spent = match purchase.price.provider.as_str() {
            "app" => {
                let from_wallet = purchase.transfers.iter().filter(|t| t.from == self.stage.wallet).count();
                self.screen.check("payments to providers", from_wallet, 0);
                self.screen.line("gateway", "paid nobody: the app did the work itself");
                self.screen.line("margin", &format!("all of it, {}", self.dollars(price)));
                return Ok(());
            }
            "xcache" => self.stock()?,
            "openx402" => self.paid(purchase, Service::OpenX402)?,
            "merit-systems" => self.paid(purchase, Service::Merit)?,
            other => anyhow::bail!("{other} is none of the sandbox's providers"),
        };
        let pricing = &self.stage.config.pricing;
        let fee = Amount::from_decimal(&pricing.fee, self.buyer.asset().decimals).context("pricing.fee")?;
        let expected = client_price(spent.cost, pricing.markup_bps, fee).context("a price")?;
        self.screen.check("the price, from the provider's", self.dollars(price), self.dollars(expected));
        let margin = price.checked_sub(spent.kept).context("the gateway lost money on this")?;
        let (price, kept) = (self.dollars(price), self.dollars(spent.kept));
        self.screen.line("margin", &format!("{}: {price} taken, {kept} spent", self.dollars(margin)));
        Ok(())
    }

    /// The client's payment: charged once, as the receipt says, and exactly the price.
    fn received(&self, purchase: &Purchase) -> anyhow::Result<()> {
        let (screen, receipt, price) = (self.screen, &purchase.receipt, purchase.price.amount);
        let network = self.buyer.asset().network;
        let name = network.v1_name().map(|name| format!(" ({name})")).unwrap_or_default();
        screen.line("receipt", &format!("settled on {network}{name}, transaction {}", receipt.transaction));
        screen.check("the receipt's success", receipt.success, true);
        screen.check("the receipt's network", &receipt.network, &network.to_string());
        let charges: Vec<&Transfer> =
            purchase.transfers.iter().filter(|t| t.from == self.buyer.address).collect();
        screen.check("charges on the ledger", charges.len(), 1);
        let charge = charges.first().context("the payer was not charged")?;
        screen.check("the charge", self.dollars(charge.value), self.dollars(price));
        screen.check("the payee", charge.to, self.income);
        screen.check("the receipt's transaction", &receipt.transaction, &charge.transaction.to_string());
        let (before, after) = purchase.balance;
        let expected = before.checked_sub(price).context("the price is more than the payer had")?;
        screen.check("the payer's balance", self.dollars(after), self.dollars(expected));
        let (before, after) = (self.dollars(before), self.dollars(after));
        screen.line("balance", &format!("the payer had {before} and has {after}"));
        Ok(())
    }

    /// A provider that was paid in the same request.
    fn paid(&self, purchase: &Purchase, service: Service) -> anyhow::Result<Spent> {
        let (wallet, payee) = (self.stage.wallet, sandbox::pay_to(service));
        let between = |from, to| purchase.transfers.iter().filter(move |t| t.from == from && t.to == to);
        let payments: Vec<&Transfer> = between(wallet, payee).collect();
        self.screen.check("payments to the provider", payments.len(), 1);
        let payment = payments.first().context("the provider was not paid")?;
        let (provider, cost) = (&purchase.price.provider, self.dollars(payment.value));
        let text = format!("paid {provider} {cost} from its wallet, transaction {}", payment.transaction);
        self.screen.line("gateway", &text);
        let mut kept = payment.value;
        for refund in between(payee, wallet) {
            kept = kept.checked_sub(refund.value).context("more came back than was paid")?;
            let refund = self.dollars(refund.value);
            self.screen.line("", &format!("{provider} sent back {refund}, which the program did not use"));
        }
        Ok(Spent { cost: payment.value, kept })
    }

    /// A provider whose operations were bought ahead.
    fn stock(&self) -> anyhow::Result<Spent> {
        let config = self.stage.config.providers.xcache.as_ref().context("xcache is not configured")?;
        let (part, whole) = (config.operations_per_store, config.operations_per_cache);
        let payee = sandbox::pay_to(Service::XCache);
        let transfers = self.stage.sandbox.ledger.transfers();
        let cache = transfers.iter().find(|t| t.from == self.stage.wallet && t.to == payee);
        let cache = cache.context("no cache was ever bought")?;
        let share = cache.value.units().checked_mul(u128::from(part)).context("the price of a cache")?;
        let cost = Amount::new(share.div_ceil(u128::from(whole.max(1))));
        let text = format!(
            "paid nothing now: it stores from stock, a cache of {whole} operations bought for {}. A store is charged \
             {part} of them, {}",
            self.dollars(cache.value),
            self.dollars(cost)
        );
        self.screen.line("gateway", &text);
        Ok(Spent { cost, kept: cost })
    }

    fn dollars(&self, amount: Amount) -> String {
        self.buyer.dollars(amount)
    }
}
