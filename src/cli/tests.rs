//! The command line: its commands, defaults and refusals.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::{Cli, Command, Exit};

fn parse(arguments: &[&str]) -> Result<Command, ErrorKind> {
    let arguments = std::iter::once("galaksio").chain(arguments.iter().copied());
    Cli::try_parse_from(arguments).map(|cli| cli.command).map_err(|error| error.kind())
}

#[test]
fn the_definition_is_consistent_and_has_these_commands() {
    let command = Cli::command();
    command.clone().debug_assert();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(
        names,
        ["serve", "check", "trust", "pay", "facilitator", "wallet", "ledger", "refunds", "demo", "version"]
    );
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("Exit codes: 0 done, 1 failed, 2 wrong arguments, 78"), "{help}");
}

#[test]
fn every_argument_has_a_help_text() {
    fn visit(command: &clap::Command) {
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
        for subcommand in command.get_subcommands() {
            assert!(subcommand.get_about().is_some(), "{}", subcommand.get_name());
            visit(subcommand);
        }
    }
    visit(&Cli::command());
}

#[test]
fn defaults() {
    let Ok(Command::Serve(serve)) = parse(&["serve"]) else { panic!() };
    assert_eq!(serve.file.config.to_str(), Some("proxy.toml"));
    let Ok(Command::Demo(demo)) = parse(&["demo"]) else { panic!() };
    assert_eq!((demo.listen.to_string().as_str(), demo.once, demo.quiet), ("127.0.0.1:8080", false, false));
    let Ok(Command::Demo(demo)) = parse(&["demo", "--once", "--listen", "127.0.0.1:0"]) else { panic!() };
    assert!(demo.once && demo.listen.port() == 0);
}

#[test]
fn pay_needs_one_key_and_a_price_in_dollars() {
    assert!(parse(&["pay", "store", "f", "--key-file", "k", "--permanent", "--max-price", "$0.25"]).is_ok());
    assert!(parse(&["pay", "run", "f", "--key-env", "K", "--language", "python"]).is_ok());
    assert_eq!(parse(&["pay", "run", "f"]).unwrap_err(), ErrorKind::MissingRequiredArgument);
    let both = parse(&["pay", "run", "f", "--key-file", "k", "--key-env", "K"]);
    assert_eq!(both.unwrap_err(), ErrorKind::ArgumentConflict);
    let price = parse(&["pay", "run", "f", "--key-file", "k", "--max-price", "-1"]);
    assert!(price.is_err());
    let kept = parse(&["pay", "store", "f", "--key-file", "k", "--permanent", "--ttl", "9"]);
    assert_eq!(kept.unwrap_err(), ErrorKind::ArgumentConflict);
    assert_eq!(parse(&["demo", "--once", "--quiet"]).unwrap_err(), ErrorKind::ArgumentConflict);
}

#[test]
fn refunds_are_paid_by_an_order_that_says_which_and_how_much() {
    let id = uuid::Uuid::now_v7().to_string();
    assert!(parse(&["refunds", "list"]).is_ok());
    assert!(parse(&["refunds", "pay", "--dry-run", "--max", "$0.25", "--job", &id, "--job", &id]).is_ok());
    assert!(parse(&["refunds", "pay", "--max", "-1"]).is_err());
    assert!(parse(&["refunds", "pay", "--job", "all"]).is_err());
    let both = parse(&["refunds", "pay", "--dry-run", "--yes"]);
    assert_eq!(both.unwrap_err(), ErrorKind::ArgumentConflict);
}

#[test]
fn exit_codes_are_those_in_the_help() {
    let code = |exit: Exit| format!("{:?}", std::process::ExitCode::from(exit));
    assert_eq!(code(Exit::Ok), format!("{:?}", std::process::ExitCode::SUCCESS));
    assert_eq!(code(Exit::Config), format!("{:?}", std::process::ExitCode::from(78)));
}
