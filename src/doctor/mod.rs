//! `rookeeper doctor`: what will hurt on this host, before it does. Probes measure and read ([`probe`], and the modules it
//! calls); [`findings::examine`] judges the facts, purely; [`report`] prints. Called by `cli::doctor`.

mod disk;
mod facts;
mod findings;
mod folders;
mod host;
mod network;
mod probe;
mod report;
mod rules_data;
mod rules_ensemble;
mod rules_host;
mod running;
mod service;
pub mod sync_ways;

pub use facts::Facts;
pub use findings::{Finding, Severity, examine};
pub use probe::probe;
pub use report::{exit_code, print_json, print_text};
