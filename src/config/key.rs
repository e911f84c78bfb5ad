//! Private keys: read from a file only its owner can read, or from an environment variable; never printed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::document::Environment;
use super::parse::{Parsed, Wrong};
use crate::x402::{self, Address};

/// More bytes than any spelling of a key has.
const LARGEST: u64 = 1024;

/// The key in `path`.
pub(super) fn from_file(path: &Path) -> Parsed<SecretString> {
    checked(&read_private(path)?, &format!("the key file {}", path.display()))
}

/// The text in `path`. Refused if anyone but the owner could read it: whoever can has the money.
pub(super) fn read_private(path: &Path) -> Parsed<Zeroizing<String>> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let fix = "correct the path, or make the file readable to the user that runs the gateway";
        Wrong::new(format!("the key file {shown} cannot be read: {error}"), fix)
    };
    // The file that is read is the file that was looked at, whatever its name points to by then.
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Wrong::new(format!("{shown} is not a file"), "name the key file itself"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let reason = format!("the key file {shown} has mode {mode:03o}: others than its owner can use it");
        return Err(Wrong::new(reason, format!("chmod 600 {shown}")));
    }
    let mut text = Zeroizing::new(String::with_capacity(LARGEST as usize));
    file.take(LARGEST).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// The key in the environment variable `name`.
pub(super) fn from_environment(name: &str, environment: &Environment) -> Parsed<SecretString> {
    match environment.get(name).filter(|text| !text.trim().is_empty()) {
        Some(text) => checked(text, &format!("the environment variable {name}")),
        None => Err(Wrong::new(
            format!("the environment variable {name} is not set"),
            format!("export {name}=0x… before the gateway starts, or set key_file instead"),
        )),
    }
}

/// The address that signs with `key`, which is as [`checked`] left it.
pub(super) fn address(key: &SecretString) -> Option<Address> {
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(key.expose_secret().strip_prefix("0x")?, bytes.as_mut_slice()).ok()?;
    x402::address_of(&bytes)
}

/// `key` as `0x` and 64 hex digits, if it is a usable one. What is wrong never quotes it.
fn checked(key: &str, source: &str) -> Parsed<SecretString> {
    let digits = key.trim();
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let fix = "put the wallet's private key there: 64 hex digits, with or without 0x";
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        let reason = format!("{source} does not hold a private key of 64 hex digits");
        return Err(Wrong::new(reason, fix));
    }
    let key = SecretString::from(format!("0x{digits}"));
    match address(&key) {
        Some(_) => Ok(key),
        None => {
            let reason = format!("{source} holds 64 hex digits that are no key of the secp256k1 curve");
            Err(Wrong::new(reason, fix))
        }
    }
}
