//! `galaksio ledger`: the books of all that a store has.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use http::Uri;

use super::store::{self, Closed};
use super::{ConfigFile, Exit};
use crate::config::resolved::Config;
use crate::ledger::{self, Report};
use crate::outgoing::{Call, Outgoing, Settings};

/// The longest a gateway may take to make its books.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of a list of discrepancies, at most.
const LONGEST: usize = 16 << 20;

/// What a gateway says of books that are as they must be begins so.
const WELL: &str = "\nthe books balance";

/// The arguments of `galaksio ledger`.
#[derive(Debug, Args)]
pub(super) struct Ledger {
    /// Prove that the books balance and are what the jobs' records say; exit with 1 if not
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: &Ledger) -> Exit {
    let opened = store::configuration(&arguments.file.config);
    let (config, runtime) = match opened.and_then(|config| Ok((config, store::runtime()?))) {
        Ok(both) => both,
        Err(exit) => return exit,
    };
    match runtime.block_on(books(&config, arguments.check)) {
        Ok(text) => {
            print!("{text}");
            if arguments.check && !text.contains(WELL) { Exit::Failed } else { Exit::Ok }
        }
        Err(error) => {
            eprintln!("galaksio: {error}");
            Exit::Failed
        }
    }
}

/// The books, made here; where a gateway has the store to itself, by that gateway.
async fn books(config: &Config, check: bool) -> Result<String, String> {
    let store = match store::open(config).await {
        Ok(store) => store,
        Err(Closed::Failed(reason)) => return Err(reason),
        Err(Closed::InUse(reason)) => {
            return match config.admin.listen.filter(|address| address.ip().is_loopback()) {
                Some(address) => ask(address, check).await,
                None => Err(format!("{reason}; it would be asked for its books if [admin] were on loopback")),
            };
        }
    };
    let books = ledger::collect(&*store, config.archive()).await.map_err(|error| error.to_string())?;
    let found = check.then(|| books.check());
    Ok(Report::new(&books, found.as_deref()).to_string())
}

async fn ask(address: SocketAddr, check: bool) -> Result<String, String> {
    let failed = |why: String| format!("the gateway at {address} does not say: {why}");
    let query = if check { "?check" } else { "" };
    let url: Uri = format!("http://{address}/ledger{query}").parse().map_err(|_| failed("no URL".into()))?;
    let settings = Settings { connect_timeout: Duration::from_secs(3), allow_plain_http: false };
    let outgoing = Outgoing::new(settings).map_err(|error| failed(error.to_string()))?;
    let answer = outgoing.send(Call::get(url).max_answer(LONGEST), PATIENCE).await;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status.is_success() { Ok(text) } else { Err(failed(text.trim().to_owned())) }
}
