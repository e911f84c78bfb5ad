//! The wallet: signs provider payments, within caps, with derived nonces.
