//! The command line: arguments, and which part of the program each command is.
//!
//! Results go to standard output, everything said on the way to standard error.

mod check;
mod demo;
mod facilitator;
mod ledger;
mod pay;
mod refunds;
mod serve;
mod store;
#[cfg(test)]
mod tests;
mod trust;
mod wallet;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// How a command ended, as the exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what it was asked.
    Ok,
    /// 1: it could not.
    Failed,
    /// 78: the configuration has mistakes (`EX_CONFIG` of sysexits.h). Wrong arguments are 2, by clap.
    Config,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Config => 78,
        })
    }
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong arguments, 78 mistakes in the configuration.

Try it: `galaksio demo`, then, in another terminal, one of the lines it prints.";

/// Sells an HTTP service, or a provider's, for x402 payments.
///
/// Galaksio stands in front of an app and passes everything through, except the routes it was told to sell: those it
/// answers with `402 Payment Required`, takes the payment, and has the work done by the app or by a provider that it
/// pays itself.
#[derive(Debug, Parser)]
#[command(name = "galaksio", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(Serve),
    /// Say every mistake in a configuration, or what would be served by it
    ///
    /// A wallet key that is not on this machine is a warning here and a mistake for `serve`, so that a file can be
    /// checked where its secrets are not. Nothing outside of this machine is asked, unless by --online.
    Check(Check),
    /// Say which facilitators are used, or use one again that was dropped for a settlement that is not on the chain
    ///
    /// Gateways that run notice within fifteen seconds. An embedded store is open in one process only: end the gateway
    /// first.
    Trust(Trust),
    /// Buy work from a gateway, as any x402 client would
    Pay(Box<pay::Pay>),
    /// Verify and settle payments for others, by the configuration's own facilitator
    ///
    /// Serves POST /verify, POST /settle and GET /supported, for version 1 and 2. Whoever reaches it can make it spend
    /// gas, so it belongs on loopback or a network of yours.
    Facilitator(Settle),
    /// Stop the wallet that pays providers, and see what it may do
    Wallet(wallet::Wallet),
    /// Add up what came in, what went out, what is owed and what was lost
    ///
    /// Asks the gateway for it where that has the store to itself.
    Ledger(ledger::Ledger),
    /// Pay clients back whose work failed after they had paid
    ///
    /// A refund is an ordinary payment of the wallet that pays providers, put on the chain by the configured
    /// facilitator, and it is paid once: what the chain proves, by [[chains]], decides. Killed, or run twice at once, it
    /// goes on where it was. An embedded store is open in one process only: end the gateway first.
    Refunds(refunds::Refunds),
    /// Run the gateway against stand-ins for every outside service, and make paid requests of it
    Demo(Demo),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Also ask the endpoints in [[chains]] whether they are of the right chain, and whether the tokens there are those
    /// that payments are signed for
    #[arg(long)]
    online: bool,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// Take the listeners of the gateway that runs now, over edge.upgrade_socket; then send that one QUIT
    #[arg(long)]
    upgrade: bool,
}

#[derive(Debug, Args)]
struct Trust {
    #[command(flatten)]
    file: ConfigFile,
    /// Use this one again, by the name it is listed by
    #[arg(value_name = "NAME")]
    again: Option<String>,
}

#[derive(Debug, Args)]
struct Settle {
    #[command(flatten)]
    file: ConfigFile,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4020")]
    listen: SocketAddr,
    /// Tell a success again to whoever repeats a settlement. Only for gateways of this program: official servers
    /// deliver for every success they are told, and so would deliver one payment many times
    #[arg(long)]
    repeat_success: bool,
}

/// The arguments of `galaksio demo`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Demo {
    /// Exit after the paid requests; not with 0 if anything in them failed
    #[arg(long, conflicts_with = "quiet")]
    pub once: bool,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Make no requests: only serve, and print one line that says where
    #[arg(long)]
    pub quiet: bool,
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> Exit {
        match self.command {
            Command::Serve(arguments) => serve::run(&arguments.file.config, arguments.upgrade),
            Command::Check(arguments) => check::run(&arguments.file.config, arguments.online),
            Command::Trust(arguments) => trust::run(&arguments.file.config, arguments.again.as_deref()),
            Command::Pay(arguments) => pay::run(&arguments),
            Command::Facilitator(arguments) => facilitator::run(&arguments),
            Command::Wallet(arguments) => wallet::run(&arguments),
            Command::Ledger(arguments) => ledger::run(&arguments),
            Command::Refunds(arguments) => refunds::run(&arguments),
            Command::Demo(arguments) => demo::run(arguments),
            Command::Version => {
                println!("galaksio {}", env!("CARGO_PKG_VERSION"));
                Exit::Ok
            }
        }
    }
}
