//! CDP's API keys: both sorts, where they may come from, and that they are never shown.

use base64_simd::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::environment;
use crate::config::resolved::{Cdp, CdpKey};
use crate::config::{Environment, Loaded, Mistakes, check, load_text};

/// A P-256 key that pays for nothing, as OpenSSL writes it (SEC 1).
const EC: &str = "MHcCAQEEIHP4ttu0DI0wzncUfonmjgcqxM7wMwbztzd/j257uH3qoAoGCCqGSM49\n\
                  AwEHoUQDQgAE+PIUM3J38sclhKJNb+dkmmDUYTeiJ1gpO32b85n7ndXFWIhv1mJP\n\
                  Bnuo/UkIyBkK4FSxb5cIkQPjGpD1dXRXJw==";
/// The same in PKCS #8.
const PKCS8: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgc/i227QMjTDOdxR+\n\
                     ieaOByrEzvAzBvO3N3+Pbnu4feqhRANCAAT48hQzcnfyxyWEok1v52SaYNRhN6In\n\
                     WCk7fZvzmfud1cVYiG/WYk8Ge6j9SQjIGQrgVLFvlwiRA+MakPV1dFcn";

fn pem(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn ed25519() -> String {
    let seed = [7; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    STANDARD.encode_to_string([&seed, pair.public_key().as_ref()].concat())
}

fn with(settings: &str, environment: &Environment) -> Result<Loaded, Mistakes> {
    let text = format!("[app]\nurl = \"http://127.0.0.1:1\"\n[facilitator.cdp]\n{settings}\n");
    load_text("t.toml", &text, environment)
}

fn cdp(loaded: Loaded) -> Cdp {
    loaded.config.facilitator.cdp.unwrap()
}

#[test]
fn both_sorts_of_key_are_read_in_every_spelling() {
    let ed = ed25519();
    let (sec1, pkcs8) = (pem("EC PRIVATE KEY", EC), pem("PRIVATE KEY", PKCS8));
    let escaped = sec1.replace('\n', "\\n");
    for (secret, is_ed) in [(&ed, true), (&sec1, false), (&pkcs8, false), (&escaped, false)] {
        let environment = environment(&[("CDP_API_KEY_ID", " id-1\n"), ("CDP_API_KEY_SECRET", secret)]);
        let loaded = with("", &environment).unwrap();
        assert_eq!(loaded.config.facilitator.url, "https://api.cdp.coinbase.com/platform/v2/x402");
        let shown = format!("{loaded:?}");
        assert!(!shown.contains(&secret[40..60]) && !shown.contains("7, 7, 7"), "{shown}");
        let cdp = cdp(loaded);
        assert_eq!(cdp.key_id, "id-1");
        assert_eq!(matches!(cdp.key, CdpKey::Ed25519(_)), is_ed);
    }
}

#[test]
fn the_file_and_the_names_can_be_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cdp.key");
    std::fs::write(&path, ed25519()).unwrap();
    let settings = format!("key_id = \"mine\"\nsecret_file = {path:?}");
    super::keys::set_mode(&path, 0o644);
    let mistakes = with(&settings, &environment(&[])).unwrap_err().0;
    assert_eq!(mistakes[0].fix, format!("chmod 600 {}", path.display()));
    super::keys::set_mode(&path, 0o600);
    assert_eq!(cdp(with(&settings, &environment(&[])).unwrap()).key_id, "mine");

    let named = environment(&[("ID", "other"), ("SECRET", &ed25519())]);
    let loaded = with("key_id_env = \"ID\"\nsecret_env = \"SECRET\"", &named).unwrap();
    assert_eq!(cdp(loaded).key_id, "other");
    // Without the table nothing is read.
    let loaded = load_text("t.toml", "[app]\nurl = \"http://127.0.0.1:1\"\n", &named).unwrap();
    assert!(loaded.config.facilitator.cdp.is_none());
    assert_eq!(loaded.config.facilitator.url, "https://x402.org/facilitator");
}

#[test]
fn what_is_no_key_is_refused_and_never_repeated() {
    let mut halves = STANDARD.decode_to_vec(ed25519()).unwrap();
    halves[40] ^= 1;
    let table = [
        "secret-words".to_owned(),
        STANDARD.encode_to_string([7; 32]),
        STANDARD.encode_to_string(halves),
        pem("EC PRIVATE KEY", &EC[..60]),
        pem("PRIVATE KEY", EC),
        pem("CERTIFICATE", PKCS8),
        pem("RSA PRIVATE KEY", EC),
    ];
    for bad in table {
        let environment = environment(&[("CDP_API_KEY_ID", "id"), ("CDP_API_KEY_SECRET", &bad)]);
        let mistakes = with("", &environment).unwrap_err();
        assert_eq!(mistakes.0[0].setting, "facilitator.cdp.secret_env", "{mistakes}");
        assert!(!mistakes.to_string().contains(&bad), "{mistakes}");
        let body = bad.lines().nth(1).unwrap_or(&bad);
        assert!(!mistakes.to_string().contains(body), "{mistakes}");
    }
}

#[test]
fn what_is_missing_or_said_twice() {
    let none = environment(&[]);
    let only_id = environment(&[("CDP_API_KEY_ID", "id")]);
    let table = [
        ("", &none, "facilitator.cdp.key_id"),
        ("", &only_id, "facilitator.cdp.secret_env"),
        ("secret_file = \"/nowhere/cdp.key\"", &only_id, "facilitator.cdp.secret_file"),
        ("key_id = \"a\"\nkey_id_env = \"B\"", &none, "facilitator.cdp.key_id_env"),
        ("secret_file = \"a\"\nsecret_env = \"B\"", &only_id, "facilitator.cdp.secret_env"),
        ("secret = \"a\"", &only_id, "facilitator.cdp.secret"),
    ];
    for (settings, environment, setting) in table {
        let mistakes = with(settings, environment).unwrap_err();
        assert!(mistakes.0.iter().any(|mistake| mistake.setting == setting), "{settings}: {mistakes}");
    }
    // A look at a file where its secrets are not.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, "[app]\nurl = \"http://127.0.0.1:1\"\n[facilitator.cdp]\nkey_id = \"a\"\n")
        .unwrap();
    let loaded = check(&path, &none).unwrap();
    assert_eq!(loaded.warnings[0].setting, "facilitator.cdp.secret_env");
}
