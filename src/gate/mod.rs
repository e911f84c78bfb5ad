//! The gate: from a request and its quotes to one decision, without I/O.
