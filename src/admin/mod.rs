//! What operators ask: four-letter words. May read every core's figures; nothing reads `admin`.

mod connections;
pub mod java;
mod mntr;
mod server;
mod settings;
mod state;
#[cfg(test)]
mod tests;
pub mod version;
pub mod view;
pub mod words;
