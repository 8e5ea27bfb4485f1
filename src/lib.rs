//! Rookeeper.
