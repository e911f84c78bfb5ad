//! Mistakes in `[[routes]]`.

use super::*;

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
[[routes]]
path = "/prepared"
work = "store"
settle = "after"
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
            (30, 1, "routes[7].settle", "may never be", "\"upfront\""),
        ],
    );
}

#[test]
fn what_is_answered_first_must_fit_what_may_be_out() {
    let dear = "[[routes]]\npath = \"/dear\"\nprice = \"$0.100001\"\nsettle = \"after\"\n";
    let fix = "raise limits.payer_unsettled";
    expect_after(PAYABLE, dear, &[(4, 1, "routes[0].settle", "more than limits.payer_unsettled", fix)]);
    let limits = "[limits]\nunsettled = \"$0.05\"\n";
    let reason = "payer_unsettled is more than unsettled";
    expect_after(
        PAYABLE,
        limits,
        &[(2, 1, "limits.unsettled", reason, "write payer_unsettled of unsettled")],
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
    let twice = "[paid]\njobs_path = \"/job\"\n";
    expect_after(PAYABLE, twice, &[(2, 1, "paid.jobs_path", "already another endpoint's", "another")]);
    let host = "[paid]\nwebhook_hosts = [\"*.example.com\", \"https://a\"]\n";
    expect_after(PAYABLE, host, &[(2, 35, "paid.webhook_hosts", "not a host", "without scheme")]);
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
