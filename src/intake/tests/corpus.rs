//! The fuzzer's corpus as an ordinary test: what it once found stays found.

#[path = "../../../fuzz/fuzz_targets/body/invariants.rs"]
mod invariants;

use crate::config::resolved::BrokeredWork;
use crate::intake;
use crate::reason::Problem;

#[test]
fn the_corpus_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/body");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        invariants::check(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 20, "the corpus is gone: {inputs} inputs in {corpus}");
}
