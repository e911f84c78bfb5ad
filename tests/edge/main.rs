//! The edge over real sockets: what clients send, what the app receives, what clients get.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod drain;
mod early;
mod framing;
mod gateway;
mod http2;
mod limits;
mod origin;
mod passthrough;
mod upgrade;
mod wire;
