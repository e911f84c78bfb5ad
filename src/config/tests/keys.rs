//! The wallet's key: where it may come from, and that it is never shown.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::ExposeSecret;

use super::{KEY, KEY_ADDRESS, environment};
use crate::config::{Environment, Mistakes, check, key, load, load_text};

fn file(directory: &Path, name: &str, text: &str, mode: u32) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    set_mode(&path, mode);
    path.display().to_string()
}

pub(super) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn with_wallet(wallet: &str, environment: &Environment) -> Result<super::Loaded, Mistakes> {
    let text = format!("[app]\nurl = \"http://127.0.0.1:1\"\n[wallet]\n{wallet}\n");
    load_text("t.toml", &text, environment)
}

#[test]
fn a_private_file_is_read_and_others_are_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let none = environment(&[]);
    for mode in [0o600, 0o400] {
        let path = file(directory.path(), &format!("good{mode:o}"), &format!("{}\n", &KEY[2..]), mode);
        let loaded = with_wallet(&format!("key_file = {path:?}"), &none).unwrap();
        let wallet = loaded.config.wallet.unwrap();
        assert_eq!(wallet.key.expose_secret(), KEY);
        assert_eq!(key::address(&wallet.key).unwrap().to_checksum(None), KEY_ADDRESS);
    }
    for mode in [0o640, 0o604, 0o660, 0o644, 0o601] {
        let path = file(directory.path(), &format!("bad{mode:o}"), KEY, mode);
        let mistakes = with_wallet(&format!("key_file = {path:?}"), &none).unwrap_err().0;
        assert_eq!(mistakes[0].fix, format!("chmod 600 {path}"));
        assert!(mistakes[0].reason.contains(&format!("mode {mode:03o}")));
    }
}

#[test]
fn what_is_no_key_is_refused_and_never_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let order = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    for (index, bad) in ["", "secret-words", &KEY[..65], &format!("{KEY}0"), order].into_iter().enumerate() {
        let path = file(directory.path(), &index.to_string(), bad, 0o600);
        let shown = with_wallet(&format!("key_file = {path:?}"), &environment(&[])).unwrap_err().to_string();
        assert!(bad.is_empty() || !shown.contains(bad), "{shown}");
        let shown = with_wallet("key_env = \"K\"", &environment(&[("K", bad)])).unwrap_err().to_string();
        assert!(bad.is_empty() || !shown.contains(bad), "{shown}");
    }
    let loaded = with_wallet("key_env = \"K\"", &environment(&[("K", KEY)])).unwrap();
    assert!(!format!("{loaded:?}").contains(&KEY[10..]), "the key is in the debug form");
}

#[test]
fn the_key_is_named_exactly_once() {
    let environment = environment(&[("K", KEY)]);
    for bad in ["", "key_file = \"a\"\nkey_env = \"K\"", "key_env = \"\""] {
        let mistakes = with_wallet(bad, &environment).unwrap_err().0;
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].setting.starts_with("wallet.key_"), "{}", mistakes[0]);
    }
}

#[test]
fn a_file_can_be_checked_where_its_secrets_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let config = |wallet: &str| {
        let text = format!("[app]\nurl = \"http://127.0.0.1:1\"\n[wallet]\n{wallet}\n");
        std::path::PathBuf::from(file(directory.path(), "proxy.toml", &text, 0o644))
    };
    for wallet in ["key_env = \"K\"", "key_file = \"/nowhere/key\""] {
        let path = config(wallet);
        let loaded = check(&path, &environment(&[])).unwrap();
        assert!(loaded.config.wallet.is_none());
        assert_eq!(loaded.warnings.len(), 1);
        assert!(loaded.warnings[0].reason.contains("`serve` will not start"));
        assert_eq!(load(&path, &environment(&[])).unwrap_err().0.len(), 1);
    }
    // A key that is there and wrong is a mistake for both.
    let path = config("key_env = \"K\"");
    assert_eq!(check(&path, &environment(&[("K", "nonsense")])).unwrap_err().0.len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake() {
    let mistakes = load(Path::new("/nowhere/proxy.toml"), &environment(&[])).unwrap_err();
    assert!(mistakes.to_string().starts_with("/nowhere/proxy.toml: cannot be read"), "{mistakes}");
}
