//! Tests of the intake: the JSON form, the head, fingerprints, properties, and the fuzzer's corpus.

mod corpus;
mod fingerprint;
mod form;
mod head;
mod json;
mod property;
mod scan;

use bytes::Bytes;

use super::{Ask, Content, measure_json};
use crate::config::resolved::BrokeredWork;
use crate::reason::Problem;

fn store(body: &str) -> Result<(Ask, Content), Problem> {
    measure_json(&Bytes::copy_from_slice(body.as_bytes()), BrokeredWork::Store)
}

fn run(body: &str) -> Result<(Ask, Content), Problem> {
    measure_json(&Bytes::copy_from_slice(body.as_bytes()), BrokeredWork::Run)
}

/// What the content is, as text that a failed assertion can show.
fn text(content: &Content) -> String {
    String::from_utf8_lossy(content.data.memory().unwrap()).into_owned()
}
