//! The edge: connections, routing, forwarding to the app.
