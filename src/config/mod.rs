//! Configuration: `proxy.toml` as typed ([`resolved`]).

pub mod resolved;

pub use resolved::Config;
