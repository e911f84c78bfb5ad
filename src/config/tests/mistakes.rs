//! Bad files, and every mistake each must be told: what any table can have here, the rest table by table.

use super::{KEY, KEY_ADDRESS, environment, load};
use crate::config::{Place, load_text};

mod chains;
mod declared;
mod facilitators;
mod money;
mod paid;
mod routes;

/// A small file that is right; the cases below append to it or stand alone.
const GOOD: &str = r#"
[app]
url = "http://127.0.0.1:3000"
"#;

pub(super) const PAYABLE: &str = r#"
[app]
url = "http://127.0.0.1:3000"
[[accepts]]
network = "base"
pay_to = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F"
[wallet]
key_env = "KEY"
[providers.merit]
[providers.xcache]
"#;

/// What a mistake must say: line, column, setting, a part of the reason, a part of the fix.
type Expected = (usize, usize, &'static str, &'static str, &'static str);

#[track_caller]
fn expect(text: &str, expected: &[Expected]) {
    let mistakes = load(text).expect_err("the file must be refused").0;
    let shown = mistakes.iter().map(|m| format!("{m}\n")).collect::<String>();
    assert_eq!(mistakes.len(), expected.len(), "{shown}");
    for (mistake, (line, column, setting, reason, fix)) in mistakes.iter().zip(expected) {
        assert_eq!(mistake.place, Place::File { line: *line, column: *column }, "{shown}");
        assert_eq!(mistake.setting, *setting, "{shown}");
        assert!(mistake.reason.contains(reason), "{reason:?} not in: {shown}");
        assert!(mistake.fix.contains(fix), "{fix:?} not in: {shown}");
    }
}

#[track_caller]
fn expect_after(good: &str, bad: &str, expected: &[Expected]) {
    load(good).unwrap();
    let offset = good.lines().count();
    let shifted: Vec<Expected> =
        expected.iter().map(|(line, column, a, b, c)| (line + offset, *column, *a, *b, *c)).collect();
    expect(&format!("{good}{bad}"), &shifted);
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    expect(
        r#"[edge]
listen = ["0.0.0.0:8080", "localhost"]
idle_timout = "75s"
max_connections = "many"
threads = 0
[app]
url = "127.0.0.1:3000"
[colour]
"#,
        &[
            (2, 27, "edge.listen", "not an address", "127.0.0.1:8080"),
            (3, 1, "edge.idle_timout", "not a setting", "did you mean `idle_timeout`?"),
            (4, 19, "edge.max_connections", "expected a number, found a text", "without quotes"),
            (5, 11, "edge.threads", "0 is not a count", "above 0"),
            (7, 7, "app.url", "http:// or https://", "scheme"),
            (8, 2, "colour", "not a setting", "remove it"),
        ],
    );
}

#[test]
fn syntax_errors_have_their_place() {
    expect("[app]\nurl = \"http://127.0.0.1:3000\"\nmax_idle = = 3\n", &[(3, 12, "", "", "TOML syntax")]);
    expect("[app]\nurl = \"http://127.0.0.1:3000\"\n[app]\n", &[(3, 2, "", "duplicate", "TOML syntax")]);
}

#[test]
fn a_missing_app_is_one_mistake() {
    let mistakes = load("").unwrap_err().0;
    assert_eq!(mistakes.len(), 1);
    assert_eq!((mistakes[0].setting.as_str(), &mistakes[0].place), ("app", &Place::WholeFile));
    assert!(mistakes[0].reason.contains("`url` is missing"));
}

#[test]
fn values_of_the_wrong_form() {
    expect_after(
        GOOD,
        r#"[edge]
public_url = "https://api.example.com/base"
trusted_peers = ["10.0.0.1/8", "all"]
header_timeout = 10
body_timeout = "1 minute"
max_header_bytes = "64 kilobytes"
drain_timeout = "0s"
[pricing]
markup = "20"
fee = 0.01
"#,
        &[
            (2, 14, "edge.public_url", "has a path", "host and port only"),
            (3, 18, "edge.trusted_peers", "bits after its prefix", "10.0.0.0/8"),
            (3, 32, "edge.trusted_peers", "not an address block", ""),
            (4, 18, "edge.header_timeout", "expected a time, found a number", "30s"),
            (5, 16, "edge.body_timeout", "not a time", "5m"),
            (6, 20, "edge.max_header_bytes", "not a size", "64KiB"),
            (7, 17, "edge.drain_timeout", "nothing", ""),
            (9, 10, "pricing.markup", "not a percentage", "20%"),
            (10, 7, "pricing.fee", "expected dollars, found a float", "$0.01"),
        ],
    );
}

#[test]
fn tables_and_lists_are_told_apart() {
    expect_after(
        GOOD,
        "routes = 3\n[[pricing]]\nmarkup = \"1%\"\n",
        &[
            (1, 1, "app.routes", "not a setting", "remove"),
            (2, 1, "pricing", "expected a table, found a list", "[pricing]"),
        ],
    );
}
