//! The sandbox: stand-ins for providers, facilitator, chain and app, as they behave on the wire.
