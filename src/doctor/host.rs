//! What /proc and /sys say about memory, limits and clocks. What cannot be read stays unknown.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use crate::doctor::facts::{Clock, Host};
use crate::sys::clock;
use crate::sys::host::kib_field;

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Memory and limits.
pub fn probe() -> Host {
    let memory = read("/proc/meminfo").unwrap_or_default();
    let bytes = |name| kib_field(&memory, name) << 10;
    let swap_bytes = bytes("SwapTotal:");
    Host {
        swap_bytes,
        swap_used_bytes: swap_bytes.saturating_sub(bytes("SwapFree:")),
        swappiness: read("/proc/sys/vm/swappiness").and_then(|text| text.parse().ok()),
        huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled").as_deref().and_then(chosen),
        open_files_max: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard),
        memory_bytes: bytes("MemTotal:"),
    }
}

/// The word in brackets.
fn chosen(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// The clocks; `begun` is what both of them said when the check began.
pub fn probe_clock(begun: crate::ids::Now) -> Clock {
    const DIR: &str = "/sys/devices/system/clocksource/clocksource0";
    let current = read(&format!("{DIR}/current_clocksource"));
    let available = read(&format!("{DIR}/available_clocksource")).unwrap_or_default();
    let now = clock::now();
    Clock {
        source: current.map(|current| (current, available.split_whitespace().map(str::to_owned).collect())),
        synchronised: clock::discipline().map(|found| (found.synchronised, found.error_max_us)),
        step_ms: (now.wall_ms - begun.wall_ms) - (now.mono_ms - begun.mono_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_of_a_list_in_sys_is_in_brackets() {
        assert_eq!(chosen("always [madvise] never"), Some("madvise".into()));
        assert_eq!(chosen("always"), None);
    }
}
