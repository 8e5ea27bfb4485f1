//! What each thread of this process does, as the kernel sees it: for `kill -3`, as of a Java server. Called by `main`.

use std::fs;
use std::path::Path;

/// What a thread that sleeps in a system call waits for.
const CALLS: [(libc::c_long, &str); 19] = [
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "sockets or mail"),
    #[cfg(not(target_arch = "x86_64"))]
    (libc::SYS_epoll_pwait2, "sockets or mail"),
    (libc::SYS_epoll_pwait, "sockets or mail"),
    (libc::SYS_ppoll, "a socket"),
    (libc::SYS_futex, "mail or another thread"),
    (libc::SYS_fdatasync, "a sync (fdatasync)"),
    (libc::SYS_fsync, "a sync (fsync)"),
    (libc::SYS_msync, "a sync (msync)"),
    (libc::SYS_pwrite64, "a write to a file"),
    (libc::SYS_write, "a write"),
    (libc::SYS_read, "a read"),
    (libc::SYS_pread64, "a read of a file"),
    (libc::SYS_recvfrom, "data of a connection"),
    (libc::SYS_sendto, "the other side of a connection"),
    (libc::SYS_accept4, "a connection"),
    (libc::SYS_rt_sigtimedwait, "a signal"),
    (libc::SYS_clock_nanosleep, "time to pass"),
    (libc::SYS_nanosleep, "time to pass"),
    (libc::SYS_fallocate, "room in a file"),
    (libc::SYS_unlinkat, "the removal of a file"),
];

/// A line for each thread.
pub fn report() -> Vec<String> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let mut ids: Vec<u32> = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids.iter().filter_map(|id| describe(*id)).collect()
}

/// None if it has ended.
fn describe(id: u32) -> Option<String> {
    let folder = format!("/proc/self/task/{id}");
    let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).ok();
    let stat = read("stat")?;
    let wchan = read("wchan").unwrap_or_default();
    Some(line(id, &stat, read("syscall").unwrap_or_default().trim(), wchan.trim()))
}

fn line(id: u32, stat: &str, call: &str, wchan: &str) -> String {
    let (name, rest) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).unwrap_or(("?", ""));
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let number = call.split(' ').next().and_then(|number| number.parse::<libc::c_long>().ok());
    let known = CALLS.iter().find(|(call, _)| Some(*call) == number).map(|(_, what)| (*what).to_owned());
    let waits = known.or(number.map(|number| format!("system call {number}")));
    let does = match (fields.first().copied().unwrap_or("?"), waits) {
        ("R", _) => "runs".to_owned(),
        ("T" | "t", _) => "is stopped".to_owned(),
        ("D", Some(what)) => format!("waits for {what}, uninterruptibly"),
        (_, Some(what)) => format!("waits for {what}"),
        (state, None) => format!("is in state {state}"),
    };
    let place = if wchan.is_empty() || wchan == "0" { String::new() } else { format!(" ({wchan})") };
    format!("thread {name} ({id}): {does}{place}; {}.{:02} s of processor time", ticks / 100, ticks % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn what_a_thread_does_is_said_in_words() {
        let stat = |state: &str| format!("77 (tx) n log) {state} 1 77 77 0 -1 0 0 0 0 0 1203 4 0 0 20 0 9 0");
        let sync = format!("{} 0x7 0x0", libc::SYS_fdatasync);
        assert_eq!(
            line(77, &stat("D"), &sync, "jbd2_log_wait_commit"),
            "thread tx) n log (77): waits for a sync (fdatasync), uninterruptibly (jbd2_log_wait_commit); 12.07 s of \
             processor time"
        );
        assert_eq!(line(77, &stat("R"), "running", "0"), "thread tx) n log (77): runs; 12.07 s of processor time");
        assert!(line(77, &stat("S"), "9999 0x0", "0").contains("waits for system call 9999;"));
        assert!(line(77, "", "", "").starts_with("thread ? (77): is in state ?"));
    }

    #[test]
    fn every_thread_has_a_line() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("idle-one".into()).spawn(move || wait.recv()).unwrap();
        let until_us = clock::mono_us() + 60_000_000;
        while !report().iter().any(|line| line.starts_with("thread idle-one (") && line.contains("waits for")) {
            assert!(clock::mono_us() < until_us);
            std::thread::yield_now();
        }
        drop(go);
        let _ = thread.join().unwrap();
    }
}
