//! What goes wrong on a chain and with its endpoints, and what is right all the same.
