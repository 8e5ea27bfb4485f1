//! Processes: starting a daemon, asking whether one is alive, ending it; and which signals this one is deaf to. Called by
//! `scripts` and `main`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

/// Whether this process was started with a signal ignored, as `nohup` does with SIGHUP.
pub fn is_ignored(signal: Signal) -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| is_ignored_by(&status, signal))
}

fn is_ignored_by(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as u32 - 1) & 1 == 1)
}

/// The process will lead a session of its own: no terminal that closes, and no key pressed there, reaches it.
pub fn detach(command: &mut Command) {
    let body = || setsid().map(drop).map_err(std::io::Error::from);
    // SAFETY: runs between fork and exec, where only a system call is allowed; setsid is one, and nothing is allocated.
    unsafe { command.pre_exec(body) };
}

/// Who has an id that stands in a file, which may be old.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// A server, ours or Apache's, that runs with the configuration file asked for.
    Server,
    /// A server with another configuration file, which is somebody else's.
    OtherServer,
    /// Nobody, or a process that is no server.
    NoServer,
}

/// Looks at the command line of a process. An id may belong to a stranger by now, who must not be ended in its stead.
pub fn holder(pid: i32, config: &Path) -> Holder {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return Holder::NoServer };
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    holder_of(&line, &cwd, config)
}

fn holder_of(line: &[u8], cwd: &Path, config: &Path) -> Holder {
    let mut words = line.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    let is_ours = program.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(b"rookeeper"));
    let mut behind = words.skip_while(|word| {
        let begins = if is_ours {
            *word == b"run"
        } else {
            word.ends_with(b"QuorumPeerMain") || word.ends_with(b"ZooKeeperServerMain")
        };
        !begins
    });
    if behind.next().is_none() {
        return Holder::NoServer;
    }
    let whole = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let wanted = whole(config);
    let is_config = |word: &[u8]| {
        let path = Path::new(OsStr::from_bytes(word));
        !word.is_empty() && (path == config || whole(&cwd.join(path)) == wanted)
    };
    if behind.any(is_config) { Holder::Server } else { Holder::OtherServer }
}

/// SIGTERM. EPERM: the process is another user's.
pub fn terminate(pid: i32) -> io::Result<()> {
    kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_was_ignored_at_start_is_known() {
        let status = "Name:\tx\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored_by(status, Signal::SIGHUP) && is_ignored_by(status, Signal::SIGPIPE));
        assert!(!is_ignored_by(status, Signal::SIGINT) && !is_ignored_by("", Signal::SIGHUP));
    }

    #[test]
    fn only_a_server_with_this_configuration_is_the_server() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.cfg"), "").unwrap();
        fs::write(dir.path().join("b.cfg"), "").unwrap();
        let (config, here) = (dir.path().join("a.cfg"), dir.path().display().to_string());
        let of = |line: &str| holder_of(line.replace(' ', "\0").replace("DIR", &here).as_bytes(), dir.path(), &config);
        for (line, expected) in [
            ("/usr/bin/rookeeper run -Da=b DIR/a.cfg ", Holder::Server),
            ("rookeeper-0.1 run ./a.cfg ", Holder::Server),
            ("java -cp x org.apache.zookeeper.server.quorum.QuorumPeerMain DIR/a.cfg ", Holder::Server),
            ("rookeeper run DIR/b.cfg ", Holder::OtherServer),
            ("java org.apache.zookeeper.server.quorum.QuorumPeerMain DIR/b.cfg ", Holder::OtherServer),
            ("rookeeper doctor DIR/a.cfg ", Holder::NoServer),
            ("vi run DIR/a.cfg ", Holder::NoServer),
            ("", Holder::NoServer),
        ] {
            assert_eq!(of(line), expected, "{line}");
        }
    }
}
