//! Rookeeper.
pub mod config;
