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
