//! Hands the time of the build to `src/admin/version.rs`. `SOURCE_DATE_EPOCH` wins, for builds that repeat to the byte.
//! Runs again only when the sources change, so that a second `cargo build` finds nothing to do.
#![allow(clippy::disallowed_methods, reason = "a build has no other clock")]

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    for path in ["build.rs", "Cargo.toml", "src"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rustc-env=ROOKEEPER_BUILT_S={}", built_s());
}

/// Seconds since 1970.
fn built_s() -> u64 {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        match text.parse() {
            Ok(seconds) => return seconds,
            Err(_) => println!("cargo:warning=SOURCE_DATE_EPOCH={text} is not a number of seconds: not used"),
        }
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
