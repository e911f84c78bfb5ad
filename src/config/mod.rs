//! Configuration: `proxy.toml`, read with all its mistakes at once, as typed settings ([`resolved`]).
//!
//! [`load`] is for serving, [`check`] for looking at a file where its secrets are not. Nothing here opens a
//! socket; the only files read are the configuration, keys, and the metadata of certificates.

mod cdp;
mod document;
mod key;
mod mistake;
mod node;
mod parse;
mod read;
pub mod resolved;
#[cfg(test)]
mod tests;

use std::path::Path;

use secrecy::SecretString;

pub use document::Environment;
pub use mistake::{Mistake, Mistakes, Place};
pub use resolved::Config;

use document::Document;
pub(crate) use parse::is_private;

/// A configuration without mistakes, and what is worth telling about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Environment variables in effect, each with the setting it replaced.
    pub overrides: Vec<(String, String)>,
    /// What is worth saying though nothing is wrong: variables without effect and, from [`check`], secrets that are
    /// not on this machine. Without its key, `config.wallet` is `None`.
    pub warnings: Vec<Mistake>,
}

/// Whether a secret that the file points to may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Secrets {
    Required,
    MayBeAbsent,
}

/// The process's environment; variables that are not UTF-8 are left out.
pub fn process_environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads and checks the file at `path`, with the overrides of `environment`, for serving by it.
pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, Mistakes> {
    from_file(path, environment, Secrets::Required)
}

/// As [`load`], but a missing key file or key variable is a warning: the file itself may be right.
pub fn check(path: &Path, environment: &Environment) -> Result<Loaded, Mistakes> {
    from_file(path, environment, Secrets::MayBeAbsent)
}

/// As [`load`], for a document that is already in memory; `name` stands for the file in mistakes.
pub fn load_text(name: &str, text: &str, environment: &Environment) -> Result<Loaded, Mistakes> {
    from_text(name, text, environment, Secrets::Required)
}

/// The private key in a file that only its owner can read, or in an environment variable. The error says what to
/// do, and never quotes the key.
pub(crate) fn private_key(source: KeySource<'_>) -> Result<SecretString, String> {
    let found = match source {
        KeySource::File(path) => key::from_file(path),
        KeySource::Variable(name) => key::from_environment(name, &process_environment()),
    };
    found.map_err(|wrong| format!("{}\n    fix: {}", wrong.reason, wrong.fix))
}

/// Where a private key is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeySource<'a> {
    /// A file.
    File(&'a Path),
    /// An environment variable.
    Variable(&'a str),
}

fn from_file(path: &Path, environment: &Environment, secrets: Secrets) -> Result<Loaded, Mistakes> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => from_text(&name, &text, environment, secrets),
        Err(error) => Err(Mistakes(vec![Mistake {
            file: name,
            place: Place::WholeFile,
            setting: String::new(),
            reason: format!("cannot be read: {error}"),
            fix: "name the configuration with --config".to_owned(),
        }])),
    }
}

fn from_text(
    name: &str,
    text: &str,
    environment: &Environment,
    secrets: Secrets,
) -> Result<Loaded, Mistakes> {
    let (document, root) = Document::parse(name, text, environment);
    let config = if document.is_clean() { read::config(&document, &root, secrets) } else { None };
    let findings = document.findings();
    match config {
        Some(config) => Ok(Loaded {
            config,
            overrides: findings.overrides.into_iter().map(|(name, path)| (name.to_owned(), path)).collect(),
            warnings: findings.warnings,
        }),
        None => Err(Mistakes(findings.mistakes)),
    }
}
