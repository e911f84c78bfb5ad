//! `docs/metrics.md` and `docs/errors.md` hold tables made from the code. These tests fail when one is out of date;
//! run with `GALAKSIO_WRITE_DOCS=1` they bring it up to date.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::reason::{Reason, Retry};
use crate::telemetry::Metrics;

const BEGIN: &str = "<!-- made from the code, below: see src/telemetry/tests/docs.rs -->\n";
const END: &str = "<!-- made from the code, above -->\n";

fn check(name: &str, table: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the mark before the table");
    let (found, after) = rest.split_once(END).expect("the mark after the table");
    if std::env::var_os("GALAKSIO_WRITE_DOCS").is_some() {
        return std::fs::write(&path, [before, BEGIN, table, END, after].concat()).unwrap();
    }
    assert!(
        found == table,
        "docs/{name} is out of date; bring it up to date with\n  GALAKSIO_WRITE_DOCS=1 cargo test --lib telemetry::tests::docs\nit should have\n{table}"
    );
}

#[test]
fn metrics_are_documented() {
    let mut table = "\n| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in Metrics::new().described() {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{}` | {} | {} | {} |", metric.name, metric.kind, labels.join(", "), metric.help)
            .unwrap();
    }
    check("metrics.md", &(table + "\n"));
}

#[test]
fn reasons_are_documented() {
    let mut table = "\n| code | status | retry | meaning |\n|---|---|---|---|\n".to_owned();
    for reason in Reason::ALL {
        let retry = match reason.retry() {
            Retry::SamePayment => "`same_payment`",
            Retry::NewPayment => "`new_payment`",
            Retry::Never => "`never`",
        };
        let meaning = reason.text().replace('|', "\\|");
        writeln!(table, "| `{}` | {} | {retry} | {meaning} |", reason.code(), reason.status()).unwrap();
    }
    check("errors.md", &(table + "\n"));
}
