//! The memory that this process may take. Called by `threads::start`.

use std::fs;

use crate::memory::{Budget, limit_files};
use crate::sys::host::kib_field;

/// What the service manager, a container and the host give, whichever is least.
pub fn budget() -> Budget {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let files = limit_files(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let texts = files.into_iter().filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text)));
    Budget::smallest(texts, kib_field(&read("/proc/meminfo"), "MemTotal:") << 10)
}
