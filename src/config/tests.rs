//! Tests of the configuration as a whole: mistakes with their places, `proxy.toml` against the code, overrides, keys.

mod cdp;
mod documented;
mod keys;
mod mistakes;
mod overrides;
mod values;

use super::{Environment, Loaded, Mistakes, load_text};

/// A key of no value: its address is 0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf.
pub(super) const KEY: &str = "0x0000000000000000000000000000000000000000000000000000000000000001";
pub(super) const KEY_ADDRESS: &str = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf";

pub(super) fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn load(text: &str) -> Result<Loaded, Mistakes> {
    load_text("t.toml", text, &environment(&[("KEY", KEY)]))
}
