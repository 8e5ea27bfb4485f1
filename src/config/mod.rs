//! Configuration: zoo.cfg, `-D` properties and JVM flags of the environment into one `Config`, built before any thread starts.
//! `main` calls `read`; tests and tools call `Config::load`. Everything but `read` is free of I/O, time and globals.
//!
//! ```text
//! flags, zoo.cfg -> syntax -> load (table of keys) -> check (rules between keys, members, myid) -> Config
//! ```

mod check;
mod dynamic;
pub mod ensemble;
mod error;
pub mod keys;
mod kinds;
mod load;
mod read;
pub mod reconfig;
pub mod secret;
mod settings;
mod syntax;
#[cfg(test)]
mod tests;
pub mod voters;

pub use dynamic::{member_file, point_to};
pub use ensemble::{EnsembleConfig, MemberRules, Members};
pub use error::{ConfigError, Origin, Warning};
pub use kinds::{Home, Key, Verdict};
pub use load::{World, defaults};
pub use read::{environment_properties, read};
pub use settings::{
    Access, Admin, AuthProvider, Clients, Compression, Config, ConnectionThrottle, DigestAlg, EnforceAuth, Features,
    FourLetterWords, Listen, MetricsExport, MetricsProvider, Mode, Properties, Storage, Throttle,
};
pub use syntax::{Entry, data_dirs, entries, properties_from_flags, property};

/// The logger of `audit.enable`, by the name that configurations of Apache's logging know it by: the target of its lines,
/// which the log shows instead of a thread.
pub const AUDIT_LOGGER: &str = "audit.Slf4jAuditLogger";
