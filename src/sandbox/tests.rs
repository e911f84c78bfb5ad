//! Every service over real sockets.

mod app;
mod facilitator;
mod faults;
mod merit;
mod openx402;
mod rpc;
mod xcache;
