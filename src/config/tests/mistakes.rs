//! Bad files, and every mistake each must be told.

use super::{KEY, KEY_ADDRESS, environment, load};
use crate::config::{Place, load_text};

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
fn money_needs_somebody_to_take_it_and_somebody_to_do_the_work() {
    expect_after(
        GOOD,
        "[[routes]]\npath = \"/a\"\nprice = \"$1\"\n[[routes]]\npath = \"/run\"\nwork = \"run\"\n",
        &[
            (3, 1, "routes[0].price", "what clients pay with", "[[accepts]]"),
            (6, 1, "routes[1].work", "what clients pay with", "[[accepts]]"),
            (6, 1, "routes[1].work", "no wallet", "[wallet]"),
            (6, 1, "routes[1].work", "no provider", "[providers.merit]"),
        ],
    );
}

#[test]
fn routes_that_cannot_be_meant() {
    expect_after(
        PAYABLE,
        r#"[[routes]]
path = "/run"
work = "run"
[[routes]]
path = "/store"
methods = ["PUT"]
work = "store"
description = "x"
[[routes]]
path = "/a//b"
methods = ["get"]
price = "$0"
[[routes]]
path = "/both"
work = "run"
price = "$1"
[[routes]]
path = "/free"
settle = "upfront"
[[routes]]
path = "/late"
price = "$1"
settle = "later"
[[routes]]
path = "/caf%C3%A9"
price = "$1"
"#,
        &[
            (6, 1, "routes[1].methods", "by POST", "[\"POST\"]"),
            (8, 1, "routes[1].description", "means nothing on a brokered", "remove"),
            (10, 8, "routes[2].path", "empty segment", "as clients send it"),
            (11, 12, "routes[2].methods", "case-sensitive", "\"GET\""),
            (12, 9, "routes[2].price", "asks nobody", "above $0"),
            (16, 1, "routes[3].price", "not both", "remove one"),
            (19, 1, "routes[4].settle", "means nothing on a free", "remove"),
            (23, 10, "routes[5].settle", "not a way to settle", "upfront"),
            (25, 1, "routes[6].path", "way around the price", "without them"),
        ],
    );
}

#[test]
fn routes_that_hide_one_another() {
    expect_after(
        PAYABLE,
        r#"[[routes]]
path = "/run"
work = "run"
[[routes]]
path = "/run"
methods = ["POST"]
price = "$0.01"
[[routes]]
path = "/premium/*"
[[routes]]
path = "/premium/report"
methods = ["GET"]
price = "$0.01"
[[routes]]
path = "/status/*"
price = "$0.01"
"#,
        &[
            (5, 1, "routes[1].path", "already routed above", "remove"),
            (11, 1, "routes[3].path", "never reached", "above"),
            (15, 1, "routes[4].path", "the gateway itself answers /status/{id}", "paid.status_path"),
        ],
    );
    // A prefix takes its base too, and a sold GET takes HEAD.
    let hidden = "[[routes]]\npath = \"/a/*\"\nmethods = [\"GET\"]\nprice = \"$1\"\n\
                  [[routes]]\npath = \"/a\"\nmethods = [\"HEAD\"]\n";
    expect_after(PAYABLE, hidden, &[(6, 1, "routes[1].path", "never reached", "above")]);
    load(&format!("{PAYABLE}{}", hidden.replace("\"/a\"", "\"/ab\""))).unwrap();
    // Other methods of the same path, and a switched-off endpoint, are no collisions.
    let fine = "[paid]\nstatus_path = \"\"\n[[routes]]\npath = \"/run\"\nwork = \"run\"\n\
                [[routes]]\npath = \"/run\"\nmethods = [\"GET\"]\nprice = \"$0.01\"\n[[routes]]\npath = \"/status/*\"\n";
    load(&format!("{PAYABLE}{fine}")).unwrap();
}

#[test]
fn assets_must_be_known_or_described_and_worth_a_dollar() {
    expect(
        r#"[app]
url = "http://127.0.0.1:3000"
[[accepts]]
network = "mainnet"
pay_to = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F"
[[accepts]]
network = "eip155:999999"
pay_to = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F"
[[accepts]]
network = "base"
pay_to = "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8f"
[[accepts]]
network = "base"
asset = "0x4200000000000000000000000000000000000006"
pay_to = "0x0000000000000000000000000000000000000000"
name = "Wrapped Ether"
version = "1"
[[accepts]]
network = "base"
pay_to = "0x066e4fbb1cb2fd7de4fb1432a7b1c1169b4c2c8f"
decimals = 18
[[accepts]]
network = "eip155:8453"
pay_to = "0x066e4fbb1cb2fd7de4fb1432a7b1c1169b4c2c8f"
"#,
        &[
            (4, 11, "accepts[0].network", "not a network", "base-sepolia"),
            (7, 1, "accepts[1].network", "no dollar token is known", "usd_pegged = true"),
            (11, 10, "accepts[2].pay_to", "checksum", "0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F"),
            (14, 1, "accepts[3].asset", "decimals is not written", "contract"),
            (14, 1, "accepts[3].asset", "not known to be worth a dollar", "usd_pegged = true"),
            (15, 10, "accepts[3].pay_to", "zero address", "of yours"),
            (21, 1, "accepts[4].decimals", "is known", "remove"),
            (23, 1, "accepts[5].network", "already accepted above", "remove"),
        ],
    );
}

#[test]
fn a_described_dollar_token_is_taken_and_prices_must_be_exact_in_it() {
    let token = |decimals: u8| {
        format!(
            "{GOOD}[[accepts]]\nnetwork = \"eip155:999999\"\nasset = \"0x4200000000000000000000000000000000000006\"\n\
             pay_to = \"0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F\"\nname = \"Dollar\"\nversion = \"1\"\n\
             decimals = {decimals}\nusd_pegged = true\n[[routes]]\npath = \"/a\"\nprice = \"$0.001\"\n"
        )
    };
    assert_eq!(load(&token(3)).unwrap().config.accepts[0].asset.name, "Dollar");
    let mistakes = load(&token(2)).unwrap_err().0;
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].reason.contains("more places than the 2 of Dollar"), "{}", mistakes[0]);
}

#[test]
fn income_and_spending_money_do_not_mix() {
    let text = PAYABLE.replace("0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F", KEY_ADDRESS);
    expect(&text, &[(6, 1, "accepts[0].pay_to", "the wallet that pays providers", "another address")]);
    let environment = environment(&[("KEY", KEY), ("BROKER_WALLET", KEY_ADDRESS)]);
    let mistakes = load_text("t.toml", PAYABLE, &environment).unwrap_err().0;
    assert_eq!(mistakes.len(), 1);
    assert_eq!(mistakes[0].place, Place::Environment("BROKER_WALLET"));
}

#[test]
fn plain_http_stays_on_the_machine() {
    expect_after(
        GOOD,
        r#"[facilitator]
url = "http://facilitator:4020"
[providers.xcache]
url = "http://10.0.0.7:80"
[providers.openx402]
url = "http://[::1]:80"
[providers.merit]
url = "http://localhost.example.com/execute?x=1"
"#,
        &[
            (2, 1, "facilitator.url", "not encrypted", "facilitator.allow_plain_http"),
            (4, 1, "providers.xcache.url", "not encrypted", "providers.allow_plain_http"),
            (8, 7, "providers.merit.url", "has a query", ""),
        ],
    );
    load(&format!(
        "{GOOD}[facilitator]\nurl = \"http://facilitator:4020\"\nallow_plain_http = true\n\
         [providers]\nallow_plain_http = true\n[providers.xcache]\nurl = \"http://10.0.0.7\"\n"
    ))
    .unwrap();
}

#[test]
fn fallbacks_are_facilitators_of_their_own() {
    expect_after(
        GOOD,
        r#"[facilitator]
url = "https://f.example/x402"
hedge_after = "0s"
[[facilitator.fallback]]
url = "http://10.0.0.7"
[[facilitator.fallback]]
url = "https://f.example/x402/"
[[facilitator.fallback]]
timeout = "1s"
"#,
        &[
            (3, 15, "facilitator.hedge_after", "a time of nothing", ""),
            (5, 1, "facilitator.fallback[0].url", "not encrypted", "facilitator.allow_plain_http"),
            (8, 1, "facilitator.fallback[2]", "`url` is missing", ""),
            (9, 1, "facilitator.fallback[2].timeout", "is not a setting", ""),
        ],
    );
    expect_after(
        GOOD,
        "[[facilitator.fallback]]\nurl = \"https://x402.org/facilitator/\"\n",
        &[(2, 1, "facilitator.fallback[0].url", "already asked", "remove one")],
    );
    let loaded = load(&format!(
        "{GOOD}[facilitator]\nurl = \"https://f.example\"\n\
         [[facilitator.fallback]]\nurl = \"https://a.example\"\n[[facilitator.fallback]]\nurl = \"https://b.example\"\n"
    ));
    let facilitator = loaded.unwrap().config.facilitator;
    let urls: Vec<String> = facilitator.endpoints().map(|(url, _)| url.to_string()).collect();
    assert_eq!(urls, ["https://f.example/", "https://a.example/", "https://b.example/"]);
}

#[test]
fn deadlines_and_sizes_that_contradict_one_another() {
    expect_after(
        GOOD,
        r#"[pricing]
buckets = ["1MB", "10MB", "10MB"]
quote_ttl = "30s"
refresh_before = "30s"
[paid]
max_timeout = "60s"
work_timeout = "40s"
settle_margin = "20s"
result_max = "32MiB"
max_raw_body = "64MiB"
max_document = "1GiB"
retention = "10s"
lease = "10ms"
max_payment_header = "64KiB"
"#,
        &[
            (2, 1, "pricing.buckets", "not in ascending order", "sort"),
            (4, 1, "pricing.refresh_before", "less than quote_ttl", "tenth"),
            (7, 1, "paid.work_timeout", "less than max_timeout (60s)", "raise max_timeout"),
            (9, 1, "paid.result_max", "16MiB", "410"),
            (10, 1, "paid.max_raw_body", "have no price", "add a bucket"),
            (11, 1, "paid.max_document", "max_body_memory", "raise"),
            (12, 1, "paid.retention", "forgotten", "max_timeout"),
            (13, 1, "paid.lease", "taken over", "15s"),
            (14, 1, "paid.max_payment_header", "max_header_bytes", "raise"),
        ],
    );
}

#[test]
fn store_settings_belong_to_their_kind() {
    expect_after(GOOD, "[store]\nkind = \"redis\"\n", &[(2, 1, "store.kind", "needs `url`", "redis://")]);
    expect_after(
        GOOD,
        "[store]\nurl = \"redis://h\"\n",
        &[(2, 1, "store.url", "means nothing to the embedded store", "kind = \"redis\"")],
    );
    let secret = "[store]\nkind = \"redis\"\nurl = \"http://:hunter2@h\"\n";
    let mistakes = load(&format!("{GOOD}{secret}")).unwrap_err();
    assert!(!mistakes.to_string().contains("hunter2"));
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

#[test]
fn chains_and_their_endpoints() {
    let good = "[[chains]]\nnetwork = \"base\"\nrpc = [\"https://rpc.example/v2/hunter2\", \"http://127.0.0.1:8545\"]\n";
    load(&format!("{GOOD}{good}")).unwrap();
    let bad = r#"[[chains]]
network = "base"
rpc = ["https://rpc.example/v2/hunter2", "http://rpc.example/hunter2"]
[[chains]]
network = "eip155:8453"
rpc = "https://rpc.example/hunter2"
final_blocks = 0
log_range = "2000"
[[chains]]
network = "base-sepolia"
rpc = ["https://hunter2@rpc.example"]
[[chains]]
network = "base-sepolia"
rpc = []
[[chains]]
rpc = ["wss://rpc.example/hunter2"]
"#;
    expect_after(
        GOOD,
        bad,
        &[
            (3, 1, "chains[0].rpc", "without encryption", "https://"),
            (6, 7, "chains[1].rpc", "expected a list", "write a list of URLs"),
            (7, 16, "chains[1].final_blocks", "not a count", "above 0"),
            (8, 13, "chains[1].log_range", "expected a number", "without quotes"),
            (11, 7, "chains[2].rpc", "user name", "whole URL"),
            (14, 7, "chains[3].rpc", "nobody to ask", "write a list"),
            (15, 1, "chains[4]", "`network` is missing", "network"),
            (16, 7, "chains[4].rpc", "http:// or https://", "https://rpc.example.com"),
        ],
    );
    let twice = format!("{good}[[chains]]\nnetwork = \"eip155:8453\"\nrpc = [\"https://rpc.example\"]\n");
    expect_after(GOOD, &twice, &[(5, 1, "chains[1].network", "a table above", "one `rpc`")]);
    let shown = load(&format!("{GOOD}{bad}")).unwrap_err().to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// A provider that is right, without its kind.
const DECLARED: &str = "[[provider]]\nname = \"acme\"\nurl = \"https://acme.example/run\"\n";

#[test]
fn a_declared_provider_is_told_what_it_lacks() {
    expect_after(
        GOOD,
        "[[provider]]\nname = \"Acme\"\nkind = \"compute\"\nurl = \"acme.example\"\nmethod = \"GET\"\ntimout = \"5s\"\n",
        &[
            (1, 1, "provider[0]", "`body` is missing", "add `body"),
            (2, 8, "provider[0].name", "not a provider's name", "lower-case"),
            (3, 8, "provider[0].kind", "not something a provider can do", "store-json"),
            (4, 7, "provider[0].url", "http:// or https://", "scheme"),
            (5, 10, "provider[0].method", "carries no content", "POST"),
            (6, 1, "provider[0].timout", "not a setting", "`timeout`"),
        ],
    );
    expect_after(
        GOOD,
        &format!(
            "{DECLARED}kind = \"run\"\nbody = \"raw\"\nresume = \"by_id\"\nmax_ttl = \"1h\"\nsuccess = {{ equals = 1.5 }}\nresult = {{ out = \"/o\", stdout = \"o\", cid = \"/c\", text = \"/~2\" }}\n"
        ),
        &[
            (1, 1, "provider[0].languages", "nothing says what it runs", "languages ="),
            (6, 10, "provider[0].resume", "not a way to go on", "idempotent"),
            (7, 1, "provider[0].max_ttl", "means nothing for what is run", "remove"),
            (8, 11, "provider[0].success", "`at` is missing", "add `at"),
            (8, 22, "provider[0].success.equals", "found a float", "good answer"),
            (9, 12, "provider[0].result.out", "not a setting", "stdout"),
            (9, 33, "provider[0].result.stdout", "does not start with a slash", "/result/stdout"),
            (9, 57, "provider[0].result.text", "~ is written ~0", "/result/stdout"),
        ],
    );
}

#[test]
fn a_declared_provider_is_asked_in_a_way_that_can_work() {
    let run = |languages: &str, body: &str| {
        format!(
            "{DECLARED}kind = \"run\"\nlanguages = {languages}\nresult = {{ stdout = \"/o\" }}\nbody = {body}\n"
        )
    };
    let store = |kind: &str, more: &str, body: &str| {
        format!("{DECLARED}kind = \"{kind}\"\n{more}\nresult = {{ cid = \"/c\" }}\nbody = {body}\n")
    };
    let body = |text: &str, reason: &'static str, fix: &'static str| {
        expect_after(GOOD, text, &[(7, 1, "provider[0].body", reason, fix)]);
    };
    body(&run("[\"python\"]", "'{\"a\": 1}'"), "no place in it", "{text}");
    body(&run("[\"python\"]", "'{\"a\": \"{json}\"}'"), "no JSON document", "{text}");
    body(&run("[\"python\"]", "'{\"a\": \"{text}\", \"t\": \"{ttl}\"}'"), "not kept", "remove");
    body(&run("[\"a\", \"b\"]", "'{\"a\": \"{text}\"}'"), "which of the languages", "{language}");
    body(&run("[\"a\", \"b\"]", "\"raw\""), "which of the languages", "{language}");
    body(&store("store-file", "", "'{\"a\": \"{text}\"}'"), "any bytes", "{base64}");
    body(
        &store("store-file", "", "'{\"a\": \"{base64}\", \"t\": \"{ttl}\"}'"),
        "without `max_ttl`",
        "remove",
    );
    body(&store("store-file", "", "'{\"a\": \"{base64}\", \"l\": \"{language}\"}'"), "no language", "remove");
    body(&store("store-json", "max_ttl = \"1h\"", "'{\"a\": \"{json}\"}'"), "how long", "{ttl}");
    body(&store("store-json", "max_ttl = \"1h\"", "\"raw\""), "how long", "{ttl}");
    // The template's own mistakes are at its value.
    let text = run("[\"python\"]", "'{\"a\": \"{txt}\"}'");
    expect_after(
        GOOD,
        &text,
        &[(7, 8, "provider[0].body", "{txt} at \"/a\" is not a placeholder", "{text}")],
    );

    let one = |line: &str, expected: Expected| {
        expect_after(GOOD, &store("store-json", line, "'{\"a\": \"{json}\"}'"), &[expected]);
    };
    one("permanent = true\nmax_ttl = \"1h\"", (6, 1, "provider[0].max_ttl", "for good", "not both"));
    one(
        "languages = [\"python\"]",
        (5, 1, "provider[0].languages", "means nothing for what is stored", "remove"),
    );
    one("sample = \"{\"", (5, 1, "provider[0].sample", "not a JSON document", "{}"));
    one(
        "headers = { host = \"x\" }",
        (5, 11, "provider[0].headers", "sent by the gateway itself", "remove host"),
    );
    one("headers = { X-Payment = \"x\" }", (5, 11, "provider[0].headers", "sent by the gateway", "remove"));
    one("headers = { Authorization = \"x\" }", (5, 11, "provider[0].headers", "is a secret", "remove"));
    one("headers = { a = \"x\\ny\" }", (5, 11, "provider[0].headers", "cannot be sent", "x-version"));
    one("headers = \"x\"", (5, 11, "provider[0].headers", "expected a table", "headers = {"));
    let short = store("store-json", "max_ttl = \"30m\"", "'{\"a\": \"{json}\", \"t\": \"{ttl}\"}'");
    expect_after(GOOD, &short, &[(5, 1, "provider[0].max_ttl", "asked for one hour", "1h")]);
}

#[test]
fn declared_providers_have_names_of_their_own_and_encrypted_lines() {
    let one = "kind = \"run\"\nlanguages = [\"python\"]\nbody = \"raw\"\nresult = { stdout = \"/o\" }\n";
    let named = |name: &str, url: &str| format!("[[provider]]\nname = \"{name}\"\nurl = \"{url}\"\n{one}");
    let text = named("a", "https://a.example")
        + &named("a", "http://a.example")
        + &named("xcache", "https://x.example");
    expect_after(
        GOOD,
        &text,
        &[
            (9, 1, "provider[1].name", "declared above", "another name"),
            (10, 1, "provider[1].url", "not encrypted", "providers.allow_plain_http"),
            (16, 8, "provider[2].name", "a built-in one", "another name"),
        ],
    );
    // One of them is enough to sell a route.
    let sold = PAYABLE.replace("[providers.merit]\n", "") + "[[routes]]\npath = \"/run\"\nwork = \"run\"\n";
    assert!(load(&sold).is_err());
    let loaded = load(&format!("{sold}{}", named("a", "https://a.example"))).unwrap();
    assert_eq!(loaded.config.providers.declared[0].name, "a");
}

#[test]
fn the_price_above_which_work_is_charged_upfront_is_money() {
    for (value, reason) in [("5", "expected dollars"), ("\"a lot\"", "not an amount of dollars")] {
        let text = format!("[paid]\nupfront_above = {value}\n");
        expect_after(PAYABLE, &text, &[(2, 17, "paid.upfront_above", reason, "such as")]);
    }
}

#[test]
fn limits_are_held_against_each_other_and_the_cap() {
    expect_after(
        PAYABLE,
        r#"[limits]
spend_per_hour = "$0"
exposure = 5
loss_per_hour = "$9007199255"
quote_loss_per_hour = "a lot"
profit_floor = "-$1"
"#,
        &[
            (2, 18, "limits.spend_per_hour", "a limit of nothing", "more than $0"),
            (3, 12, "limits.exposure", "expected dollars", "such as \"$0.01\""),
            (4, 17, "limits.loss_per_hour", "more than can be counted", "a smaller limit"),
            (5, 23, "limits.quote_loss_per_hour", "not an amount of dollars", "such as"),
            (6, 16, "limits.profit_floor", "not an amount of dollars", "such as"),
        ],
    );
    expect_after(
        PAYABLE,
        r#"[limits]
spend_per_hour = "$3"
exposure = "$2"
payer_exposure = "$2.000001"
"#,
        &[
            (
                2,
                1,
                "limits.spend_per_hour",
                "provider_spend_per_hour is more than spend_per_hour",
                "write provider_spend_per_hour",
            ),
            (
                4,
                1,
                "limits.payer_exposure",
                "payer_exposure is more than exposure",
                "write payer_exposure of exposure",
            ),
        ],
    );
    expect_after(
        PAYABLE,
        r#"[limits]
payer_exposure = "$0.5"
"#,
        &[(2, 1, "limits.payer_exposure", "wallet.max_payment ($1) would never", "lower wallet.max_payment")],
    );
}

#[test]
fn a_facilitator_of_our_own_has_a_key_and_a_chain_and_nothing_of_the_others() {
    let chains = "[[chains]]\nnetwork = \"base\"\nrpc = [\"https://rpc.example\"]\n";
    let local = "[facilitator]\nkind = \"local\"\ngas_key_env = \"KEY\"\n";
    let payable = PAYABLE.replace("[wallet]\nkey_env = \"KEY\"\n", "");
    let loaded = load(&format!("{payable}{chains}{local}max_fee = \"0.05gwei\"\n")).unwrap();
    let settings = loaded.config.facilitator.local.unwrap();
    assert_eq!((settings.max_fee, settings.confirmations, settings.max_batch), (50_000_000, 1, 32));

    expect_after(
        &payable,
        "[facilitator]\nkind = \"lokal\"\nmax_fee = \"5\"\nconfirmations = 0\nwallet_factories = [\"0x1\"]\n",
        &[
            (2, 8, "facilitator.kind", "not a facilitator", "\"local\""),
            (3, 11, "facilitator.max_fee", "not a price of gas", "5gwei"),
            (4, 17, "facilitator.confirmations", "not a count", "above 0"),
            (5, 21, "facilitator.wallet_factories", "", ""),
        ],
    );
    expect_after(
        &payable,
        &format!("{local}max_fee = \"0gwei\"\n"),
        &[(4, 11, "facilitator.max_fee", "for nothing", "gwei")],
    );
    expect_after(
        &payable,
        "[facilitator]\nmax_batch = 1\nurl = \"https://f.example\"\n",
        &[(2, 1, "facilitator.max_batch", "means nothing to a facilitator under a URL", "remove")],
    );
    expect_after(
        &payable,
        "[facilitator]\nkind = \"local\"\nurl = \"https://f.example\"\n",
        &[
            (2, 1, "facilitator.kind", "no key to pay for it", "gas_key_file"),
            (3, 1, "facilitator.url", "means nothing to the gateway's own", "remove"),
        ],
    );
    expect_after(
        &payable,
        &format!("{local}gas_key_file = \"/k\"\n"),
        &[(3, 1, "facilitator.gas_key_env", "named twice", "not both")],
    );
    expect_after(
        &payable,
        local,
        &[(2, 1, "facilitator.kind", "no endpoint of that chain", "network = \"eip155:8453\"")],
    );
    let paid_there = payable.replace("0x066e4FBb1Cb2fd7dE4fb1432a7B1C1169B4c2C8F", KEY_ADDRESS);
    expect(
        &format!("{paid_there}{chains}{local}"),
        &[(6, 1, "accepts[0].pay_to", "pays for gas", "another address")],
    );
}
