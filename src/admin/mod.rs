//! What operators ask: four-letter words, and the commands, the metrics and the page of the admin server. May read every
//! core's figures; nothing reads `admin`.

pub mod commands;
mod connections;
pub mod java;
pub mod json;
mod listed;
pub mod mntr;
mod node;
pub mod prometheus;
mod server;
mod settings;
mod stages;
mod state;
#[cfg(test)]
mod tests;
pub mod version;
pub mod view;
pub mod words;
