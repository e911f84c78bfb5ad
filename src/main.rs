//! The `galaksio` program.

fn main() {}
