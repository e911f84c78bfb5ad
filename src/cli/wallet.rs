//! `galaksio wallet`: stop the wallet that pays providers, and see what it may do.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::store::{self, Closed};
use super::{ConfigFile, Exit};
use crate::clock::{Clock, rfc3339};
use crate::config::resolved::Config;
use crate::guard::{Frozen, SPACE, SwitchError};
use crate::jobs::{StoreError, ValueStore};
use crate::money::Amount;
use crate::wallet::Payees;
use crate::x402::Address;

/// The arguments of `galaksio wallet`.
#[derive(Debug, Args)]
pub(super) struct Wallet {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Stop every payment to providers, on every gateway of this store, within seconds
    ///
    /// Brokered routes then answer 503; the app's own routes, free and priced, go on. Work whose provider is paid
    /// already is finished.
    Freeze {
        /// Why, for whoever looks
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Let providers be paid again
    Unfreeze(ConfigFile),
    /// Say whether the wallet is frozen, and what its limits have left
    Status(ConfigFile),
    /// List the addresses that providers are paid at
    Payees(ConfigFile),
    /// Pay a provider at another address from now on
    Pin {
        /// The provider's name, as in the list of payees
        provider: String,
        /// The address
        address: Address,
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Closed(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Switch(#[from] SwitchError),
    #[error("no address of {0} is pinned; `galaksio wallet payees` lists those that are")]
    Unknown(String),
}

impl From<Closed> for Error {
    fn from(closed: Closed) -> Self {
        Error::Closed(closed.reason().to_owned())
    }
}

pub(super) fn run(arguments: &Wallet) -> Exit {
    let file: &PathBuf = match &arguments.action {
        Action::Freeze { file, .. } | Action::Pin { file, .. } => &file.config,
        Action::Unfreeze(file) | Action::Status(file) | Action::Payees(file) => &file.config,
    };
    let (config, runtime) =
        match store::configuration(file).and_then(|config| Ok((config, store::runtime()?))) {
            Ok(both) => both,
            Err(exit) => return exit,
        };
    match runtime.block_on(act(&arguments.action, &config)) {
        Ok(said) => {
            print!("{said}");
            Exit::Ok
        }
        Err(error) => {
            eprintln!("galaksio: {error}");
            Exit::Failed
        }
    }
}

/// Does it; the answer for a person.
async fn act(action: &Action, config: &Config) -> Result<String, Error> {
    match action {
        Action::Freeze { reason, .. } => {
            let frozen =
                Frozen { reason: reason.clone(), by: "operator".to_owned(), since: Clock::system().now() };
            store::switch(config).await?.throw(&frozen).await?;
            Ok("frozen: every gateway of this store stops paying providers within seconds\n".to_owned())
        }
        Action::Unfreeze(_) => {
            let switch = store::switch(config).await?;
            let before = switch.look().await?;
            switch.release().await?;
            Ok(match before {
                Some(_) => "unfrozen: providers are paid again within seconds\n",
                None => "it was not frozen\n",
            }
            .to_owned())
        }
        Action::Status(_) => status(config).await,
        Action::Payees(_) => {
            let store = store::open(config).await?;
            let pinned = Payees::list(&*store).await?;
            let lines = pinned.iter().map(|(token, payee)| format!("{payee}  {token}\n"));
            let named = config.wallet.iter().flat_map(|wallet| &wallet.payees);
            let named = named.map(|payee| format!("{payee}  wallet.payees\n"));
            Ok(named.chain(lines).collect())
        }
        Action::Pin { provider, address, .. } => {
            let store = store::open(config).await?;
            match Payees::pin(&*store, provider, *address).await? {
                0 => Err(Error::Unknown(provider.clone())),
                _ => Ok(format!("{provider} is paid at {address} from now on\n")),
            }
        }
    }
}

async fn status(config: &Config) -> Result<String, Error> {
    let mut said = match store::switch(config).await?.look().await? {
        Some(Frozen { reason, by, since }) => {
            format!("frozen by the {by} since {}: {reason}\n", rfc3339(since.saturating_mul(1000)))
        }
        None => "not frozen\n".to_owned(),
    };
    match store::open(config).await {
        Ok(store) => said += &limits(&*store, config).await?,
        Err(Closed::InUse(_)) => {
            said +=
                "the gateway that has the store open knows the rest: see /ready and /metrics of [admin]\n";
        }
        Err(Closed::Failed(reason)) => said += &format!("{reason}\n"),
    }
    Ok(said)
}

/// What is drawn of each limit: gateways that run have some in hand that is not spent.
async fn limits(store: &dyn ValueStore, config: &Config) -> Result<String, Error> {
    let limits = &config.limits;
    let mut said = String::new();
    for (name, key, limit) in [
        ("spent in the last hour", "spend", limits.spend_per_hour),
        ("out for unsettled payments", "exposure", limits.exposure),
        ("lost in the last hour", "loss", limits.loss_per_hour),
        ("lost on old quotes in the last hour", "quote_loss", limits.quote_loss_per_hour),
    ] {
        let dollars = |micros: u64| Amount::new(micros.into()).to_decimal(6);
        let drawn = store.drawn(SPACE, key).await?;
        said += &format!("{name:<36} at most ${} of ${}\n", dollars(drawn), dollars(limit));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_text};
    use crate::guard::Switch;

    fn config(folder: &std::path::Path) -> Config {
        let store = folder.join("jobs.redb");
        let text = format!("[app]\nurl = \"http://127.0.0.1:3000\"\n[store]\npath = {store:?}\n");
        load_text("t.toml", &text, &Environment::new()).unwrap().config
    }

    fn file() -> ConfigFile {
        ConfigFile { config: "t.toml".into() }
    }

    #[tokio::test]
    async fn a_wallet_is_frozen_and_unfrozen_while_a_gateway_has_the_store_open() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let said = act(&Action::Status(file()), &config).await.unwrap();
        assert!(said.contains("not frozen") && said.contains("no job store"), "{said}");

        let path = folder.path().join("jobs.redb");
        let gateway = crate::jobs::Embedded::open(&path, config.paid.retention, Clock::system()).unwrap();
        let freeze = Action::Freeze { reason: "a key leaked".into(), file: file() };
        act(&freeze, &config).await.unwrap();
        let seen = Switch::beside(&path).look().await.unwrap().unwrap();
        assert_eq!((seen.reason.as_str(), seen.by.as_str()), ("a key leaked", "operator"));
        let said = act(&Action::Status(file()), &config).await.unwrap();
        assert!(said.contains("frozen by the operator since 2") && said.contains("a key leaked"), "{said}");
        assert!(said.contains("/metrics"), "{said}");
        assert!(matches!(act(&Action::Payees(file()), &config).await, Err(Error::Closed(_))));
        drop(gateway);

        let said = act(&Action::Status(file()), &config).await.unwrap();
        assert!(said.contains("spent in the last hour               at most $0 of $20"), "{said}");
        assert!(act(&Action::Unfreeze(file()), &config).await.unwrap().starts_with("unfrozen"));
        assert!(act(&Action::Unfreeze(file()), &config).await.unwrap().contains("was not frozen"));
        assert!(act(&Action::Status(file()), &config).await.unwrap().starts_with("not frozen"));
    }

    #[tokio::test]
    async fn a_provider_that_moved_is_paid_where_the_operator_says() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let path = folder.path().join("jobs.redb");
        let store = crate::jobs::Embedded::open(&path, config.paid.retention, Clock::system()).unwrap();
        let old = Address::repeat_byte(1).to_string();
        store.put("payees", "merit/eip155:1/0x01", old.as_bytes(), None).await.unwrap();
        drop(store);
        let pin = |provider: &str| Action::Pin {
            provider: provider.into(),
            address: Address::repeat_byte(2),
            file: file(),
        };
        assert!(matches!(act(&pin("meri"), &config).await, Err(Error::Unknown(_))));
        act(&pin("merit"), &config).await.unwrap();
        let said = act(&Action::Payees(file()), &config).await.unwrap();
        assert_eq!(said, format!("{}  merit/eip155:1/0x01\n", Address::repeat_byte(2)));
    }
}
