//! `galaksio pay`: a real x402 client of `/store` and `/run`.
//!
//! One call signs at most one payment. Whatever happens after the signature, only that same payment is sent
//! again, so no failure here can be charged twice.

mod form;
pub(super) mod http;
pub(super) mod order;
pub(super) mod payment;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use ::http::{StatusCode, Uri};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use secrecy::SecretString;
use serde_json::Value;

use super::Exit;
use crate::clock::Clock;
use crate::config::{self, KeySource};
use crate::x402::{Challenge, Receipt};

use self::http::{Answer, Client};
use self::order::Order;
use self::payment::{Dollars, Payment};

/// How often the same payment is presented before its outcome is called unknown.
const MAX_ATTEMPTS: u32 = 10;

/// The longest wait between two of them, whatever the gateway asks for.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The arguments of `galaksio pay`.
#[derive(Debug, Args)]
pub(super) struct Pay {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Store a file, or several by one payment
    Store {
        /// The file, or files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// For good: only a permanent store (IPFS) will do
        #[arg(long, conflicts_with = "ttl")]
        permanent: bool,
        /// How many seconds it must be kept, at least
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
        /// The name it is stored under, if not its own; for one file
        #[arg(long, value_name = "NAME")]
        filename: Option<String>,
        #[command(flatten)]
        payer: Payer,
    },
    /// Run a program
    Run {
        /// The file with its source
        file: PathBuf,
        /// The language it is in
        #[arg(long, value_name = "NAME", default_value = "python")]
        language: String,
        #[command(flatten)]
        payer: Payer,
    },
}

/// Where to buy, and who pays how much.
#[derive(Debug, Args)]
struct Payer {
    /// The gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: Uri,
    #[command(flatten)]
    key: Key,
    /// Pay no more than this, in dollars
    #[arg(long, value_name = "DOLLARS", default_value = "1", value_parser = payment::parse_dollars)]
    max_price: Dollars,
    /// Allow http:// to another machine, where the payment can be read and the price changed on the way
    #[arg(long)]
    allow_plain_http: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Key {
    /// File with the private key that pays, in hex; only its owner may read it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Environment variable with that key
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
}

/// Buys what `arguments` say; the result is printed to standard output.
pub(super) fn run(arguments: &Pay) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("galaksio: {error}");
            return Exit::Failed;
        }
    };
    match runtime.block_on(buy(arguments)) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("galaksio: {error:#}");
            Exit::Failed
        }
    }
}

async fn buy(arguments: &Pay) -> anyhow::Result<()> {
    let (payer, order) = match &arguments.work {
        Work::Store { files, permanent, ttl, filename, payer } => {
            let order = match (files.as_slice(), filename) {
                ([file], name) => Order::store(&payer.url, file, *permanent, *ttl, name.as_deref()),
                (files, None) => Order::store_all(&payer.url, files, *permanent, *ttl),
                (_, Some(_)) => bail!("--filename is for one file; several are stored under their own names"),
            };
            (payer, order?)
        }
        Work::Run { file, language, payer } => (payer, Order::run(&payer.url, file, language)?),
    };
    if !payer.allow_plain_http && !config::is_private(&payer.url) {
        bail!("{} is not encrypted; use https://, or --allow-plain-http if the network is yours", payer.url);
    }
    let key = payer.key.read()?;
    let client = Client::new(true)?;
    let answer = purchase(&client, &order, key, &payer.max_price, &Clock::system()).await?;
    report(&answer)
}

impl Key {
    fn read(&self) -> anyhow::Result<SecretString> {
        let source = match (&self.key_file, &self.key_env) {
            (Some(path), _) => KeySource::File(path),
            (None, Some(name)) => KeySource::Variable(name),
            (None, None) => bail!("one of --key-file and --key-env is needed"),
        };
        config::private_key(source).map_err(anyhow::Error::msg)
    }
}

/// Asks for the price, pays it if it is within `max_price`, and returns the final answer.
async fn purchase(
    client: &Client,
    order: &Order,
    key: SecretString,
    max_price: &Dollars,
    clock: &Clock,
) -> anyhow::Result<Answer> {
    let answer = client.send(order, None, "asking the price").await?;
    if answer.status != StatusCode::PAYMENT_REQUIRED {
        return Ok(answer);
    }
    let challenge = Challenge::from_response(&answer.headers, &answer.body)
        .context("the gateway asks for a payment, but not in a form known here")?;
    let payment = Payment::sign(&challenge, key, max_price, clock)?;
    eprintln!("{payment}");
    present(client, order, &payment, clock).await
}

/// Sends the paid request, and the identical one again while the gateway says that its outcome is still to come.
pub(super) async fn present(
    client: &Client,
    order: &Order,
    payment: &Payment,
    clock: &Clock,
) -> anyhow::Result<Answer> {
    let (mut last, mut uncharged) = (String::new(), None);
    for attempt in 1..=MAX_ATTEMPTS {
        let wait = match client.send(order, Some(payment.header()), "sending, paid").await {
            Ok(answer) if answer.wants_same_payment() => {
                last = answer.error();
                let wait = answer.retry_after();
                uncharged = answer.says_uncharged().then_some(answer);
                wait
            }
            Ok(answer) => return Ok(answer),
            // Nobody knows whether it arrived: the same payment finds out.
            Err(error) => {
                (last, uncharged) = (format!("{error:#}"), None);
                None
            }
        };
        let wait = wait.unwrap_or(Duration::from_secs(u64::from(attempt))).min(MAX_WAIT);
        if attempt == MAX_ATTEMPTS || clock.now() + wait.as_secs() >= payment.valid_before() {
            break;
        }
        eprintln!("{last}; sending the same payment again in {} s", wait.as_secs());
        tokio::time::sleep(wait).await;
    }
    if let Some(answer) = uncharged {
        return Ok(answer);
    }
    bail!(
        "{last}; it is not known whether {} was charged. The payment lapses at {} (unix time); nonce {}",
        payment.price(),
        payment.valid_before(),
        payment.nonce()
    )
}

/// The result to standard output, the receipt to standard error.
fn report(answer: &Answer) -> anyhow::Result<()> {
    if let Some(receipt) = Receipt::from_headers(&answer.headers) {
        let outcome = if receipt.success { "settled" } else { "not settled" };
        eprintln!("{outcome} on {}, transaction {}", receipt.network, receipt.transaction);
    }
    if !answer.status.is_success() {
        bail!("{}: {}", answer.status, answer.error());
    }
    let mut output = std::io::stdout().lock();
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(result) => writeln!(output, "{result:#}")?,
        Err(_) => {
            output.write_all(&answer.body)?;
            if output.is_terminal() {
                writeln!(output)?;
            }
        }
    }
    if answer.status == StatusCode::MULTI_STATUS {
        bail!("some of the files were not stored; their share of the price is owed by the gateway");
    }
    Ok(())
}
