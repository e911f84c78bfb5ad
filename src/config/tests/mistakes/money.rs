//! Mistakes in `[[accepts]]`, `[wallet]` and `[limits]`.

use super::*;

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
