//! Processes other than this one: starting a daemon, asking whether one is alive, ending it. Called by `compat`.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

/// The process will lead a session of its own: no terminal that closes, and no key pressed there, reaches it.
pub fn detach(command: &mut Command) {
    let body = || setsid().map(drop).map_err(std::io::Error::from);
    // SAFETY: runs between fork and exec, where only a system call is allowed; setsid is one, and nothing is allocated.
    unsafe { command.pre_exec(body) };
}

/// Whether a process with this id lives and is a ZooKeeper server, ours or Apache's. An id from an old file may belong to
/// a stranger by now, who must not be ended in its stead.
pub fn is_server(pid: i32) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = line.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    program.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(b"rookeeper"))
        || words.any(|word| word.ends_with(b"QuorumPeerMain") || word.ends_with(b"ZooKeeperServerMain"))
}

/// SIGTERM; false: it could not be sent.
pub fn terminate(pid: i32) -> bool {
    kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok()
}
