//! The broker: the paid flow.
