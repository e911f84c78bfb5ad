//! Tests of the intake: the JSON form, the head, fingerprints, properties, and the fuzzer's corpus.

mod corpus;
mod fingerprint;
mod form;
mod head;
mod json;
mod property;
mod scan;

use bytes::Bytes;
use proptest::test_runner::Config as ProptestConfig;

use super::{Ask, Content, measure_json, price_json};
use crate::config::resolved::BrokeredWork;
use crate::reason::Problem;

/// So many cases, or as many as `PROPTEST_CASES` says.
fn cases(least: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { least };
    ProptestConfig { cases, ..config }
}

fn store(body: &str) -> Result<(Ask, Content), Problem> {
    measured(body, BrokeredWork::Store)
}

fn run(body: &str) -> Result<(Ask, Content), Problem> {
    measured(body, BrokeredWork::Run)
}

/// As a paid request is measured; an unpaid one is priced the same, or refused for the same reason.
fn measured(body: &str, work: BrokeredWork) -> Result<(Ask, Content), Problem> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let (priced, measured) = (price_json(&body, work), measure_json(&body, work));
    let asks = |ask: &Ask| (ask.wanted.clone(), ask.kind, ask.size);
    assert_eq!(
        priced.as_ref().map(asks).map_err(|problem| problem.reason),
        measured.as_ref().map(|(ask, _)| asks(ask)).map_err(|problem| problem.reason)
    );
    measured
}

/// What the content is, as text that a failed assertion can show.
fn text(content: &Content) -> String {
    String::from_utf8_lossy(content.data.memory().unwrap()).into_owned()
}
