//! Quotes: live provider prices, kept by size bucket and options.
