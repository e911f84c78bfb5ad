//! The sandbox: stand-ins for providers, facilitator, chain and app, as they behave on the wire.

pub mod ledger;
#[cfg(test)]
mod testing;

use crate::x402::B256;

/// SHA-256 of the parts, one after the other: hashes of blocks and transactions, made-up addresses.
fn hash(parts: &[&[u8]]) -> B256 {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    B256::from_slice(context.finish().as_ref())
}
