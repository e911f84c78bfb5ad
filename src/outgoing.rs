//! The HTTP client for outgoing calls, with a deadline for everything.
