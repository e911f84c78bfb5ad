//! Telemetry: metrics and the access log.
