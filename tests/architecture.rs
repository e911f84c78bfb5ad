//! Holds the arrows and fences of ARCHITECTURE.md: reads the `use` lines of the source tree.

#![expect(clippy::unwrap_used, reason = "a failed expectation is what ends a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each module may use only modules of a lower rank.
const RANKS: &[(&str, u32)] = &[
    ("money", 0),
    ("ids", 0),
    ("clock", 0),
    ("reason", 1),
    ("spool", 1),
    ("by_runtime", 1),
    ("x402", 2),
    ("config", 3),
    ("jobs", 3),
    ("outgoing", 3),
    ("listener", 3),
    ("chain", 4),
    ("intake", 4),
    ("providers", 5),
    ("facilitator", 5),
    ("sandbox", 5),
    ("telemetry", 6),
    ("wallet", 6),
    ("ledger", 6),
    ("quote_cache", 7),
    ("guard", 7),
    ("gate", 8),
    ("broker", 9),
    ("admin", 9),
    ("refunds", 9),
    ("proxy", 10),
    ("app", 11),
    ("cli", 12),
];

/// An external crate, and the only places that may name it.
const FENCES: &[(&str, &[&str])] = &[
    ("pingora_core", &["proxy/", "app.rs", "app/"]),
    ("redis", &["jobs/redis"]),
    ("redb", &["jobs/embedded"]),
    ("alloy", &["x402/", "wallet/", "chain/", "facilitator/local"]),
    ("alloy_primitives", &["x402/", "wallet/", "chain/", "facilitator/local"]),
    ("prometheus", &["telemetry/", "admin/"]),
    ("jsonwebtoken", &["facilitator/http"]),
    ("clap", &["cli/", "main.rs"]),
];

/// Pure by design: no runtime in here.
const WITHOUT_TOKIO: &[&str] = &["gate/", "intake/", "x402/", "providers/encode"];

#[test]
fn arrows_point_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(from) = rank_of_file(&path) else { continue };
        for (line, used) in crate_uses(&text) {
            let Some(to) = rank(&used) else { continue };
            if module_of(&path) != used && to >= from {
                wrong.push(format!("{}:{line} uses crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_rank() {
    let lib = fs::read_to_string(root().join("lib.rs")).unwrap();
    for line in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let name = line.trim_end_matches(';');
        assert!(rank(name).is_some(), "{name} has no rank in tests/architecture.rs");
    }
}

#[test]
fn the_map_is_true() {
    let map = fs::read_to_string(root().join("../ARCHITECTURE.md")).unwrap();
    let mut wrong = Vec::new();
    let places = map.split('`').skip(1).step_by(2).filter(|text| {
        text.ends_with('/') || [".rs", ".md", ".toml", ".lua"].iter().any(|end| text.ends_with(end))
    });
    for place in places {
        if !root().join(place).exists() && !root().join("..").join(place).exists() {
            wrong.push(format!("there is no {place}"));
        }
    }
    let table = map.split_once("## Modules").and_then(|(_, rest)| rest.split_once("## ")).unwrap().0;
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    let mut named = Vec::new();
    for (modules, _) in rows {
        let modules: Vec<&str> = modules.split(['`', ' ']).filter(|name| !name.is_empty()).collect();
        let ranks: Vec<_> = modules.iter().map(|module| rank(module)).collect();
        if ranks.iter().any(|rank| *rank != ranks[0] || rank.is_none()) {
            wrong.push(format!("{modules:?} are not of one rank"));
        }
        named.extend(modules.iter().map(|module| (rank(module), module.to_string())));
    }
    if !named.is_sorted_by_key(|(rank, _)| *rank) {
        wrong.push("the modules are not in the order of their ranks".to_owned());
    }
    for (module, _) in RANKS {
        if !named.iter().any(|(_, name)| name == module) {
            wrong.push(format!("{module} is not in the table of modules"));
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn fenced_crates_stay_behind_their_fence() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let relative = path.to_string_lossy().replace('\\', "/");
        for (number, line) in code_lines(&text) {
            for (krate, places) in FENCES {
                if names_crate(line, krate) && !places.iter().any(|place| relative.starts_with(place)) {
                    wrong.push(format!("{relative}:{number} names {krate}"));
                }
            }
            if names_crate(line, "tokio") && WITHOUT_TOKIO.iter().any(|place| relative.starts_with(place)) {
                wrong.push(format!("{relative}:{number} names tokio"));
            }
        }
    }
    assert!(wrong.is_empty(), "crates outside their fence:\n{}", wrong.join("\n"));
}

#[test]
fn every_promise_names_tests_that_exist() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(crate_root.join("docs/properties.md")).unwrap();
    let named = text.split('`').filter_map(|name| name.split_once("::"));
    let missing: Vec<_> = named
        .filter(|(path, test)| {
            let file = fs::read_to_string(crate_root.join(path)).unwrap_or_default();
            !file.contains(&format!("fn {test}("))
        })
        .collect();
    assert!(missing.is_empty(), "docs/properties.md names tests that are not there: {missing:?}");
    let promises = text.lines().filter(|line| line.starts_with("| ") && line.contains("::")).count();
    assert_eq!(promises, 10);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file with its path below `src/`, cut off where tests of its own begin.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
                && !path.components().any(|part| part.as_os_str() == "tests")
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), code));
            }
        }
    }
    assert!(found.len() > 20, "the source tree was not found");
    found
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim_start()))
        .filter(|(_, line)| !line.starts_with("//"))
}

fn names_crate(line: &str, krate: &str) -> bool {
    line.match_indices(krate).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let path_start = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        path_start && line[at + krate.len()..].starts_with("::")
    })
}

fn crate_uses(text: &str) -> Vec<(usize, String)> {
    let mut uses = Vec::new();
    for (number, line) in code_lines(text) {
        for (at, _) in line.match_indices("crate::") {
            if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let name: String =
                line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            uses.push((number, name));
        }
    }
    uses
}

fn module_of(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn rank_of_file(path: &Path) -> Option<u32> {
    rank(&module_of(path))
}

fn rank(module: &str) -> Option<u32> {
    RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}
