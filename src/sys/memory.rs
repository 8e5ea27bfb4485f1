//! The memory that this process may take, and what it gives back of what it has. Called by `threads::start`,
//! `threads::memory` and, where much is freed that is wanted at once, `threads::pipeline`.

use std::fs;

use crate::memory::{Budget, Use, limit_files};
use crate::sys::host::kib_field;

/// What the service manager, a container and the host give, whichever is least.
pub fn budget() -> Budget {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let files = limit_files(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let texts = files.into_iter().filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text)));
    Budget::smallest(texts, kib_field(&read("/proc/meminfo"), "MemTotal:") << 10)
}

/// Gives free memory back to the kernel: the allocator keeps it, in the middle of what is in use, for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers; the allocator locks its own arenas.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the process has, and what of it is in use; `None` where the allocator does not tell.
pub fn in_use() -> Option<Use> {
    #[cfg(target_env = "gnu")]
    {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // SAFETY: takes no pointers, and gives a plain value.
        let info = unsafe { libc::mallinfo2() };
        Some(Use { resident: kib_field(&status, "RssAnon:") << 10, used: (info.uordblks + info.hblkhd) as u64 })
    }
    #[cfg(not(target_env = "gnu"))]
    None
}
