//! `galaksio refunds`: what clients are owed, and paying it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::Instant;

use super::store::{self, Closed};
use super::{ConfigFile, Exit};
use crate::app;
use crate::clock::rfc3339;
use crate::config::resolved::Config;
use crate::config::{self, Loaded};
use crate::ids::JobId;
use crate::jobs::{Job, JobStore};
use crate::money::Amount;
use crate::refunds::{Outcome, Owed, Payer, Plan, RefundError, Wanted, owed};

/// How long refunds that are in a block are waited for to be final.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// The arguments of `galaksio refunds`.
#[derive(Debug, Args)]
pub(super) struct Refunds {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what is owed: job, payer, token, amount, since when, and whether a refund is on its way
    List(ConfigFile),
    /// Pay it: each client what it paid, at the address that it paid from
    ///
    /// Says what it will pay, and asks. Before that, the chain must show that the client did pay, at one of the
    /// configured addresses. Exits with 1 unless all of it is paid, in blocks that are final.
    Pay(Pay),
}

#[derive(Debug, Args)]
struct Pay {
    /// Say exactly what would be paid, and pay nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Only this job; may be repeated
    #[arg(long, value_name = "ID")]
    job: Vec<JobId>,
    /// No more than this in all, what has been due the longest first
    #[arg(long, value_name = "DOLLARS", value_parser = micros)]
    max: Option<u64>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    file: ConfigFile,
}

fn micros(text: &str) -> Result<u64, String> {
    let amount = Amount::from_decimal(text, 6).and_then(|amount| u64::try_from(amount.units()).ok());
    amount.ok_or_else(|| "write dollars, such as $2.50".to_owned())
}

pub(super) fn run(arguments: &Refunds) -> Exit {
    let (config, runtime) = match configuration(arguments).and_then(|read| Ok((read, store::runtime()?))) {
        Ok(both) => both,
        Err(exit) => return exit,
    };
    let done = match &arguments.action {
        Action::List(_) => runtime.block_on(list(&config)).map(|()| Exit::Ok),
        Action::Pay(order) => runtime.block_on(pay(&config, order)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("galaksio: {error:#}");
        Exit::Failed
    })
}

/// To look, no key is needed.
fn configuration(arguments: &Refunds) -> Result<Config, Exit> {
    let file = match &arguments.action {
        Action::List(file) => return store::configuration(&file.config),
        Action::Pay(order) => &order.file.config,
    };
    match config::load(file, &config::process_environment()) {
        Ok(Loaded { config, .. }) => Ok(config),
        Err(mistakes) => {
            eprintln!("{mistakes}");
            Err(Exit::Config)
        }
    }
}

async fn open(config: &Config) -> anyhow::Result<std::sync::Arc<dyn JobStore>> {
    store::open(config).await.map_err(|closed| match closed {
        Closed::InUse(reason) => anyhow::anyhow!("{reason}; end that gateway first, or keep jobs in Redis"),
        Closed::Failed(reason) => anyhow::anyhow!(reason),
    })
}

async fn list(config: &Config) -> anyhow::Result<()> {
    let store = open(config).await?;
    let owed = owed(&*store).await?;
    print!("{}", listed(&owed));
    Ok(())
}

/// One line for each.
fn listed(all: &[Owed]) -> String {
    if all.is_empty() {
        return "nothing is owed\n".to_owned();
    }
    let line = |Owed { job, since }: &Owed| {
        let standing = match (job.open_refund(), job.refunds.len()) {
            (Some(refund), _) => {
                format!("refund {} is signed, until {}", refund.attempt, refund.valid_before)
            }
            (None, 0) => "open".to_owned(),
            (None, lapsed) => format!("open, {lapsed} lapsed"),
        };
        format!("{}  since {}  {standing}\n", transfer(job), rfc3339(*since))
    };
    all.iter().map(line).collect()
}

/// What is to be paid for a job.
fn transfer(job: &Job) -> String {
    let requirement = &job.client.requirement;
    let asset = &requirement.asset;
    format!(
        "{}  {} {} ({:#x}) on {} to {}",
        job.id,
        job.owed().to_decimal(asset.decimals),
        asset.name,
        asset.address,
        asset.network,
        job.requester
    )
}

async fn pay(config: &Config, order: &Pay) -> anyhow::Result<Exit> {
    let store = open(config).await?;
    let payer = app::refunds(config, store).await?;
    let payer = payer.ok_or_else(|| anyhow::anyhow!("there is no [wallet] to pay from"))?;
    let plan = payer.plan(&Wanted { jobs: order.job.clone(), max: order.max }).await?;
    print!("{}", planned(&plan, &payer));
    if order.dry_run {
        return Ok(Exit::Ok);
    }
    let left = if plan.left.is_empty() { Exit::Ok } else { Exit::Failed };
    if plan.pay.is_empty() {
        return Ok(left);
    }
    if plan.totals.iter().any(|total| total.lacks()) {
        anyhow::bail!("the wallet has too little: send it some, or pay less of it with --max");
    }
    if !order.yes && !confirmed()? {
        anyhow::bail!("nothing was paid");
    }
    let jobs: Vec<JobId> = plan.pay.iter().map(|owed| owed.job.id).collect();
    let all_paid = pay_all(&payer, jobs).await;
    Ok(if all_paid { left } else { Exit::Failed })
}

/// Pays each, and waits a while for those that are in a block to be final. Whether all are.
async fn pay_all(payer: &Payer, mut jobs: Vec<JobId>) -> bool {
    let mut all_paid = true;
    let mut give_up = None;
    loop {
        let mut mined = Vec::new();
        for id in std::mem::take(&mut jobs) {
            match payer.pay(id).await {
                Ok(Outcome::Refunded(transaction)) => println!("{id}  refunded by {transaction}"),
                Ok(Outcome::Mined(transaction)) => mined.push((id, transaction)),
                Ok(Outcome::Sent { said }) => {
                    all_paid = false;
                    println!("{id}  signed and not yet paid: {said}");
                }
                Err(error) => {
                    all_paid = false;
                    println!("{id}  {error}");
                    if matches!(error, RefundError::Frozen { .. } | RefundError::Store(_)) {
                        return false;
                    }
                }
            }
        }
        // Counted from when all are sent.
        let give_up = *give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
        if mined.is_empty() {
            return all_paid;
        }
        if Instant::now() >= give_up {
            for (id, transaction) in mined {
                println!("{id}  paid by {transaction}, which is not final yet");
            }
            println!("a gateway that runs notices when it is final; so does this command, run again");
            return false;
        }
        jobs = mined.into_iter().map(|(id, _)| id).collect();
        tokio::time::sleep(PAUSE).await;
    }
}

/// The plan, for a person.
fn planned(plan: &Plan, payer: &Payer) -> String {
    let mut said = String::new();
    for owed in &plan.pay {
        let again = if owed.job.open_refund().is_some() { "  (signed before: the same again)" } else { "" };
        let _ = writeln!(said, "pay   {}{again}", transfer(&owed.job));
    }
    for left in &plan.left {
        let _ = writeln!(said, "leave {}  {}", left.job, left.why);
    }
    for total in &plan.totals {
        let decimals = total.asset.decimals;
        let has = total.has.map_or("an unknown sum".to_owned(), |has| has.to_decimal(decimals));
        let _ = writeln!(
            said,
            "total {} {} on {} from {}, which has {has}",
            total.amount.to_decimal(decimals),
            total.asset.name,
            total.asset.network,
            payer.wallet.address()
        );
    }
    if plan.pay.is_empty() {
        said.push_str("nothing is to be paid\n");
    }
    said
}

/// Asks whoever sits there.
fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("nobody is there to be asked; add --yes");
    }
    print!("Pay this? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{Event, sample};

    #[test]
    fn the_list_says_what_is_owed_to_whom_and_since_when() {
        assert_eq!(listed(&[]), "nothing is owed\n");
        let failed = Event::WorkFailed { failure: sample::failure() };
        let events = [Event::SettleFirst, Event::Settled { receipt: sample::receipt() }, failed];
        let job = events.iter().fold(sample::job(1), |job, event| job.apply(event, job.updated).unwrap());
        let said = |job: Job| listed(&[Owed { job, since: 1_700_000_000_000 }]);
        let open = said(job.clone());
        assert!(open.contains("0.012 USDC (0xaaaa") && open.contains("on eip155:84532 to 0x"), "{open}");
        assert!(open.ends_with("since 2023-11-14T22:13:20.000Z  open\n"), "{open}");
        let refund = Event::RefundSigned { refund: sample::refund(1, 1) };
        let signed = job.apply(&refund, 1).unwrap();
        assert!(said(signed.clone()).contains("refund 1 is signed, until 1700000900"));
        let lapsed = signed.apply(&Event::RefundLapsed, 1).unwrap();
        assert!(said(lapsed).ends_with("open, 1 lapsed\n"));
    }

    #[test]
    fn a_limit_is_in_dollars() {
        assert_eq!(micros("$2.50"), Ok(2_500_000));
        assert_eq!(micros("0.000001"), Ok(1));
        for wrong in ["", "-1", "1e3", "0.0000001", "2,5"] {
            assert!(micros(wrong).is_err(), "{wrong}");
        }
    }
}
