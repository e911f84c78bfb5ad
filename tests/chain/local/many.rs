//! Many settlements from one gas account: none lost, none doubled.
