//! Mistakes in `[facilitator]`, and who is called without encryption.

use super::*;

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
