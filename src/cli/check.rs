//! `galaksio check`: the mistakes of a configuration, or what would be served, for what price, to whose benefit.

use std::fmt::{self, Display, Write};
use std::path::Path;

use super::Exit;
use crate::chain::Chains;
use crate::clock::Clock;
use crate::config::resolved::{Accept, Action, BrokeredWork, Config, Providers, Settle, Store};
use crate::config::{self, Loaded};
use crate::money::Amount;
use crate::wallet::Wallet;
use crate::x402::{Network, PaymentFlow};

pub(super) fn run(path: &Path, online: bool) -> Exit {
    match config::check(path, &config::process_environment()) {
        Ok(loaded) => {
            print!("{}", Summary { path, loaded: &loaded });
            if !online {
                return Exit::Ok;
            }
            match ask_chains(&loaded.config) {
                Exit::Ok => settling(&loaded.config),
                asked @ (Exit::Failed | Exit::Config) => asked,
            }
        }
        Err(mistakes) => {
            eprintln!("{mistakes}");
            Exit::Config
        }
    }
}

/// Whether the chains are what the configuration says; what is not goes to standard error.
fn ask_chains(config: &Config) -> Exit {
    if config.chains.is_empty() {
        eprintln!("galaksio: there is no [[chains]] table, so there is nobody to ask");
        return Exit::Failed;
    }
    let asked = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string());
    let asked = asked.and_then(|runtime| {
        let chains = Chains::new(&config.chains, &Clock::system()).map_err(|error| error.to_string())?;
        Ok(runtime.block_on(chains.check(&config.assets())))
    });
    let (misfits, unknown) = match asked {
        Ok(found) => found,
        Err(why) => {
            eprintln!("galaksio: {why}");
            return Exit::Failed;
        }
    };
    misfits.iter().for_each(|misfit| eprintln!("{misfit}"));
    unknown.iter().for_each(|why| eprintln!("{why}"));
    match (misfits.is_empty(), unknown.is_empty()) {
        (false, _) => Exit::Config,
        (true, false) => Exit::Failed,
        (true, true) => Exit::Ok,
    }
}

/// Whether the gateway's own facilitator could settle now, if it is to.
fn settling(config: &Config) -> Exit {
    if config.facilitator.local.is_none() {
        return Exit::Ok;
    }
    let problems = match super::facilitator::problems(config) {
        Ok(problems) => problems,
        Err(error) => vec![format!("{error:#}")],
    };
    if problems.is_empty() {
        println!("\nthe chain answers, and the gas account has gas");
        return Exit::Ok;
    }
    for problem in problems {
        eprintln!("galaksio: payments could not be settled: {problem}");
    }
    Exit::Failed
}

/// What a configuration amounts to, for a person.
struct Summary<'a> {
    path: &'a Path,
    loaded: &'a Loaded,
}

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.loaded.config;
        writeln!(f, "{}: no mistakes\n", self.path.display())?;
        let listen: Vec<String> = config.edge.listen.iter().map(ToString::to_string).collect();
        let tls = if config.edge.tls.is_some() { "with TLS" } else { "without TLS" };
        line(f, "clients at", &format!("{}, {tls}", listen.join(", ")))?;
        line(f, "app", &config.app.url)?;
        for accept in &config.accepts {
            line(f, "paid in", &format!("{} to {}", token(accept), accept.pay_to.to_checksum(None)))?;
        }
        if !config.accepts.is_empty() {
            line(f, "facilitator", &facilitator(self.loaded))?;
        }
        let unknown_wallet =
            self.loaded.warnings.iter().any(|warning| warning.setting.starts_with("wallet."));
        line(f, "wallet", &if unknown_wallet { "see the warning below".to_owned() } else { wallet(config) })?;
        for chain in &config.chains {
            let plural = if chain.rpc.len() == 1 { "endpoint" } else { "endpoints" };
            line(f, "chain", &format!("{}, {} {plural}", network(chain.network), chain.rpc.len()))?;
        }
        line(f, "jobs in", &store(&config.store))?;
        match config.admin.listen {
            Some(address) => line(f, "admin at", &address)?,
            None => line(f, "admin at", &"nowhere")?,
        }
        routes(f, config)?;
        section(f, "from the environment", self.loaded.overrides.iter(), |(variable, setting)| {
            format!("{setting} = ${variable}")
        })?;
        section(f, "warnings", self.loaded.warnings.iter(), |warning| {
            warning.to_string().replace('\n', "\n  ")
        })
    }
}

fn facilitator(loaded: &Loaded) -> String {
    let settings = &loaded.config.facilitator;
    match &settings.local {
        Some(local) => format!(
            "the gateway itself, on {} chain(s), {} confirmation(s)",
            loaded.config.chains.len(),
            local.confirmations
        ),
        None if loaded.warnings.iter().any(|warning| warning.setting.starts_with("facilitator.gas_key")) => {
            "the gateway itself; see the warning below".to_owned()
        }
        None => {
            let urls: Vec<String> = settings.endpoints().map(|(url, _)| url.to_string()).collect();
            urls.join(", then ")
        }
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, value: &dyn Display) -> fmt::Result {
    writeln!(f, "{name:<12} {value}")
}

fn section<T>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    items: impl ExactSizeIterator<Item = T>,
    show: impl Fn(T) -> String,
) -> fmt::Result {
    if items.len() > 0 {
        writeln!(f, "\n{title}")?;
    }
    for item in items {
        writeln!(f, "  {}", show(item))?;
    }
    Ok(())
}

fn routes(f: &mut fmt::Formatter<'_>, config: &Config) -> fmt::Result {
    writeln!(f, "\nroutes")?;
    let width = config.routes.iter().map(|route| route.path.len()).max().unwrap_or(0).max(15);
    for route in &config.routes {
        let methods: Vec<&str> = route.methods.iter().map(|method| method.as_str()).collect();
        let methods = if methods.is_empty() { "any".to_owned() } else { methods.join(",") };
        writeln!(f, "  {methods:<8} {:<width$}  {}", route.path, terms(&route.action, config))?;
    }
    writeln!(f, "  {:<8} {:<width$}  free, by the app", "any", "everything else")
}

fn terms(action: &Action, config: &Config) -> String {
    match action {
        Action::Free => "free, by the app".to_owned(),
        Action::Priced { price, settle, .. } => {
            let when = match settle {
                Settle::After => "charged after the answer",
                Settle::Success | Settle::Upfront => when(settle.flow()),
            };
            format!("${price}, by the app, {when}")
        }
        Action::Brokered { work, settle } => {
            let hundredths = config.pricing.markup_bps;
            let mut price = format!("the provider's price + {}", hundredths / 100);
            if !hundredths.is_multiple_of(100) {
                let _ = write!(price, ".{:02}", hundredths % 100);
            }
            price.push('%');
            if config.pricing.fee != "0" {
                let _ = write!(price, " + ${}", config.pricing.fee);
            }
            let when = match config.paid.upfront_above.filter(|_| *settle == PaymentFlow::Authorization) {
                Some(micros) => {
                    let limit = Amount::new(micros.into()).to_decimal(6);
                    format!("{}, above ${limit} upfront", when(*settle))
                }
                None => when(*settle).to_owned(),
            };
            format!("{price}, by {}, {when}", sellers(*work, &config.providers))
        }
    }
}

fn when(flow: PaymentFlow) -> &'static str {
    match flow {
        PaymentFlow::Authorization => "charged when it succeeded",
        PaymentFlow::Upfront => "charged upfront",
    }
}

fn sellers(work: BrokeredWork, providers: &Providers) -> String {
    let known = [
        (BrokeredWork::Store, "xcache", providers.xcache.is_some()),
        (BrokeredWork::Store, "openx402", providers.openx402.is_some()),
        (BrokeredWork::Run, "merit", providers.merit.is_some()),
    ];
    let built_in = known.iter().filter(|(does, _, on)| *does == work && *on).map(|(_, name, _)| *name);
    let declared = providers.declared.iter().filter(|declared| declared.kind.work() == work);
    let names: Vec<&str> = built_in.chain(declared.map(|declared| declared.name.as_str())).collect();
    names.join(" or ")
}

fn token(accept: &Accept) -> String {
    let asset = &accept.asset;
    format!("{} on {} ({})", asset.name, network(asset.network), asset.address.to_checksum(None))
}

fn network(network: Network) -> String {
    network.v1_name().map_or_else(|| network.to_string(), str::to_owned)
}

fn wallet(config: &Config) -> String {
    let Some(wallet) = &config.wallet else { return "none".to_owned() };
    let networks: Vec<String> = wallet.assets.iter().map(|asset| network(asset.network)).collect();
    let address = Wallet::new(wallet.key.clone(), &wallet.max_payment, Vec::new())
        .map_or_else(|error| error.to_string(), |wallet| wallet.address().to_checksum(None));
    format!("pays providers from {address} on {}, up to ${} at once", networks.join(", "), wallet.max_payment)
}

fn store(store: &Store) -> String {
    match store {
        Store::Embedded { path } => format!("the file {}", path.display()),
        // The URL may hold a password.
        Store::Redis { prefix, .. } => format!("Redis, under {prefix:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn the_summary_says_who_is_paid_what_and_hides_secrets() {
        let key = "0x0000000000000000000000000000000000000000000000000000000000000001";
        let environment = Environment::from([
            ("K".to_owned(), key.to_owned()),
            ("MERIT_SYSTEMS_URL".to_owned(), "https://m.example/run".to_owned()),
        ]);
        let text = r#"
[app]
url = "http://127.0.0.1:3000"
[[routes]]
path = "/run"
work = "run"
[[routes]]
path = "/premium/*"
methods = ["GET", "POST"]
price = "$0.0010"
settle = "upfront"
[[accepts]]
network = "base"
pay_to = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F"
[pricing]
markup = "2.05%"
fee = "$0.001"
[providers.merit]
[[provider]]
name = "acme"
kind = "run"
url = "https://acme.example/run"
body = "raw"
languages = ["python"]
result = { stdout = "/out" }
[wallet]
key_env = "K"
[paid]
upfront_above = "$0.50"
[store]
kind = "redis"
url = "redis://:hunter2@localhost"
"#;
        let loaded = config::load_text("t.toml", text, &environment).unwrap();
        let shown = Summary { path: Path::new("t.toml"), loaded: &loaded }.to_string();
        for expected in [
            "t.toml: no mistakes",
            "paid in      USD Coin on base (0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913) to 0x066e4FBb",
            "wallet       pays providers from 0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf on base, up to $1 at once",
            "  POST     /run             the provider's price + 2.05% + $0.001, by merit or acme, charged when it succeeded, above $0.5 upfront",
            "  GET,POST /premium/*       $0.001, by the app, charged upfront",
            "  any      everything else  free, by the app",
            "  providers.merit.url = $MERIT_SYSTEMS_URL",
        ] {
            assert!(shown.contains(expected), "{expected:?} not in:\n{shown}");
        }
        assert!(!shown.contains("hunter2") && !shown.contains(&key[2..]), "{shown}");
    }
}
