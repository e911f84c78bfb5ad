//! The walk: two stores, a run, a priced route of the app, and a free request, each printed and checked.

use std::path::Path;

use anyhow::Context;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::books::Books;
use super::buyer::{Buyer, Price, Purchase};
use super::screen::Screen;
use super::stage::Stage;
use crate::cli::pay::http::Answer;
use crate::cli::pay::order::Order;
use crate::sandbox::ledger::OPENING_BALANCE;

const NOTE: &str = "Stored by a gateway that was paid for it, and that pays for it.\n";
const PROGRAM: &str = "print(6 * 7)";

struct Walk<'a> {
    stage: &'a Stage,
    screen: &'a Screen,
    buyer: &'a Buyer<'a>,
    books: Books<'a>,
}

/// Makes all requests. An error is one that left no sense in going on; what else failed is on the screen.
pub(super) async fn walk(stage: &Stage, screen: &Screen) -> anyhow::Result<()> {
    let buyer = Buyer::new(stage)?;
    let walk = Walk { stage, screen, buyer: &buyer, books: Books::new(stage, &buyer, screen)? };
    walk.introduce();
    walk.store_file(&stage.write("note.txt", NOTE)?).await.context("storing a file")?;
    walk.store_json().await.context("storing JSON")?;
    walk.run().await.context("running a program")?;
    walk.report().await.context("the app's priced route")?;
    walk.hello().await.context("the app's free route")
}

impl Walk<'_> {
    fn introduce(&self) {
        let (screen, buyer) = (self.screen, self.buyer);
        screen.plain("The gateway, with a sandbox of providers, facilitator and chain behind it. The");
        screen.plain("requests, signatures and checks are real; the money is the sandbox's.\n");
        screen.line("gateway", buyer.gateway.to_string().trim_end_matches('/'));
        let opening = buyer.dollars(OPENING_BALANCE);
        screen.line("payer", &format!("{}, a new address with {opening}", buyer.address));
        screen.line("income", &format!("{}, paid by clients", self.books.income()));
        screen.line("wallet", &format!("{}, pays providers", self.stage.wallet));
    }

    async fn store_file(&self, file: &Path) -> anyhow::Result<()> {
        let (screen, gateway) = (self.screen, &self.buyer.gateway);
        screen.heading("1. A file, stored wherever that is cheapest");
        let order = Order::store(gateway, file, false, None, None)?;
        screen
            .line("request", &format!("POST /store?filename=note.txt ({} bytes of text/plain)", NOTE.len()));
        let price = self.price(&order).await?;
        // What each kind of store asks for the same file: such a request can be sold by that kind only.
        let for_a_time =
            self.buyer.price(&Order::store(gateway, file, false, Some(3600), None)?, screen).await?;
        let for_good = self.buyer.price(&Order::store(gateway, file, true, None, None)?, screen).await?;
        screen.line(
            "offers",
            &format!(
                "{} to keep it for a time; {} to keep it for good",
                self.offer(&for_a_time),
                self.offer(&for_good)
            ),
        );
        let cheapest = if for_good.amount < for_a_time.amount { &for_good } else { &for_a_time };
        screen.check("the provider", &price.provider, &cheapest.provider);
        screen.check("the price", price.amount, cheapest.amount);
        screen.line("chosen", &format!("{}, the cheaper: the request asks for neither", price.provider));
        let purchase = self.pay(&order, price).await?;
        let result = result(&purchase)?;
        let url = text(&result, "url")?;
        screen.line("result", url);
        let read = self.buyer.get(url.parse()?).await?;
        self.same_bytes(&read, NOTE.as_bytes());
        Ok(())
    }

    async fn store_json(&self) -> anyhow::Result<()> {
        let screen = self.screen;
        screen.heading("2. JSON, stored for good");
        let data = json!({ "order": 7, "paid": true }).to_string();
        let document = format!(r#"{{"data":{data},"options":{{"permanent":true}}}}"#);
        screen.line("request", &format!("POST /store {document}"));
        let order = Order::json(self.buyer.at("/store")?, document)?;
        let price = self.price(&order).await?;
        screen.check("the provider", price.provider.as_str(), "openx402");
        let chosen = format!("{}, which stores on IPFS: \"permanent\" rules a cache out", price.provider);
        screen.line("chosen", &chosen);
        let purchase = self.pay(&order, price).await?;
        let result = result(&purchase)?;
        screen.line("result", &format!("cid {}", text(&result, "cid")?));
        let read = self.buyer.get(text(&result, "url")?.parse()?).await?;
        self.same_bytes(&read, data.as_bytes());
        Ok(())
    }

    async fn run(&self) -> anyhow::Result<()> {
        let screen = self.screen;
        screen.heading("3. A program, run");
        let document = json!({ "code": PROGRAM, "language": "python" }).to_string();
        screen.line("request", &format!("POST /run {document}"));
        let order = Order::json(self.buyer.at("/run")?, document)?;
        let price = self.price(&order).await?;
        screen.check("the provider", price.provider.as_str(), "merit-systems");
        screen.line(
            "chosen",
            &format!("{}, the one provider in proxy.toml that runs programs", price.provider),
        );
        let purchase = self.pay(&order, price).await?;
        let result = result(&purchase)?;
        screen.check("the exit code", &result["exitCode"], &json!(0));
        let stdout = text(&result, "stdout")?;
        screen.check("the program in the echo", stdout.contains(PROGRAM), true);
        screen.line("result", "exit code 0; the sandbox echoes programs and runs none:");
        for line in stdout.trim_end().lines() {
            screen.line("", line);
        }
        Ok(())
    }

    async fn report(&self) -> anyhow::Result<()> {
        let screen = self.screen;
        screen.heading("4. A route of the app that has a price");
        screen.line("request", "GET /premium/report");
        let order = Order::get(self.buyer.at("/premium/report")?);
        let price = self.price(&order).await?;
        screen.check("the provider", price.provider.as_str(), "app");
        let purchase = self.pay(&order, price).await?;
        let report: Value = serde_json::from_slice(&purchase.answer.body).context("the report")?;
        screen.line("result", &format!("\"{}\", as the app made it", text(&report, "title")?));
        Ok(())
    }

    async fn hello(&self) -> anyhow::Result<()> {
        let screen = self.screen;
        screen.heading("5. Everything else passes through");
        screen.line("request", "GET /hello");
        let ledger = &self.stage.sandbox.ledger;
        let before = ledger.balance(self.buyer.address);
        let through = self.buyer.get(self.buyer.at("/hello")?).await?;
        let direct = self.buyer.get(format!("{}/hello", self.stage.sandbox.urls.app).parse()?).await?;
        screen.check("the status", through.status.as_u16(), 200);
        screen.check("the content type", content_type(&through), content_type(&direct));
        screen.check("the bytes", through.body == direct.body, true);
        let after = ledger.balance(self.buyer.address);
        screen.check("the payer's balance", self.buyer.dollars(after), self.buyer.dollars(before));
        let body = String::from_utf8_lossy(&through.body);
        screen.line(through.status.as_str(), &format!("\"{}\", as the app says it; free", body.trim_end()));
        Ok(())
    }

    /// Asks the price, and says it.
    async fn price(&self, order: &Order) -> anyhow::Result<Price> {
        let price = self.buyer.price(order, self.screen).await?;
        let (amount, token) = (self.buyer.dollars(price.amount), &self.buyer.asset().name);
        let text = match price.provider.as_str() {
            "app" => format!("{amount} in {token}, the price in proxy.toml"),
            provider => format!("{amount} in {token}, as quoted by {provider}"),
        };
        self.screen.line("402", &text);
        Ok(price)
    }

    /// Pays the price; says and checks who got what.
    async fn pay(&self, order: &Order, price: Price) -> anyhow::Result<Purchase> {
        let screen = self.screen;
        let (amount, payer) = (self.buyer.dollars(price.amount), self.buyer.address);
        screen.line("payer", &format!("{payer} signs for {amount}"));
        let purchase = self.buyer.pay(order, price, screen).await?;
        let status = purchase.answer.status;
        screen.line(status.as_str(), &format!("done, as job {}", purchase.price.job));
        self.books.audit(&purchase)?;
        let state = self.buyer.get(self.buyer.at(&format!("/status/{}", purchase.price.job))?).await?;
        let state: Value = serde_json::from_slice(&state.body).context("the job's status")?;
        screen.check("the job's status", text(&state, "status")?, "completed");
        Ok(purchase)
    }

    fn offer(&self, price: &Price) -> String {
        format!("{} {}", price.provider, self.buyer.dollars(price.amount))
    }

    fn same_bytes(&self, read: &Answer, stored: &[u8]) {
        self.screen.check("the status of reading it", read.status.as_u16(), 200);
        let (found, expected) = (String::from_utf8_lossy(&read.body), String::from_utf8_lossy(stored));
        if self.screen.check("what is read back", found, expected) {
            self.screen.line("read back", &format!("{} bytes, the same that were stored", read.body.len()));
        }
    }
}

fn result(purchase: &Purchase) -> anyhow::Result<Value> {
    let mut answer: Value = serde_json::from_slice(&purchase.answer.body).context("the answer")?;
    Ok(answer["result"].take())
}

fn text<'a>(value: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    value[field].as_str().with_context(|| format!("no {field} in {value}"))
}

fn content_type(answer: &Answer) -> String {
    format!("{:?}", answer.headers.get(CONTENT_TYPE))
}
