//! What words say about the machine: sizes of the store, file descriptors, memory, names. The pipeline's shell holds one
//! and lends it to `admin`. Nothing here fails: what cannot be read is 0 or `<NA>`, as in Apache.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeVal;
use nix::sys::utsname::uname;
use nix::unistd::{Uid, User};

use crate::admin::view::{Environment, Host, Memory, Process, SnapshotOnDisk, StoreBytes};
use crate::ids::Zxid;
use crate::sys::clock;

/// The machine this process runs on.
#[derive(Clone, Debug)]
pub struct ThisHost {
    data_dir: PathBuf,
    log_dir: PathBuf,
    /// The newest snapshot of a folder, which `storage` knows by its name.
    newest_snapshot: fn(&Path) -> Option<(Zxid, PathBuf)>,
    environment: Environment,
    /// When this was made, which is when the process began.
    start_wall_ms: i64,
}

impl ThisHost {
    /// Looks up what stays the same (the user's name may be asked of the network, so not later). Directories are those
    /// with `version-2` at their end.
    pub fn new(data_dir: PathBuf, log_dir: PathBuf, newest_snapshot: fn(&Path) -> Option<(Zxid, PathBuf)>) -> ThisHost {
        ThisHost { data_dir, log_dir, newest_snapshot, environment: environment(), start_wall_ms: clock::wall_ms() }
    }

    /// The snapshot with the greatest zxid in its name.
    pub fn newest_snapshot(&self) -> Option<(Zxid, PathBuf)> {
        (self.newest_snapshot)(&self.data_dir)
    }
}

impl Host for ThisHost {
    fn store_bytes(&self) -> StoreBytes {
        StoreBytes { data_dir: tree_bytes(&self.data_dir), log_dir: tree_bytes(&self.log_dir) }
    }

    fn file_descriptors(&self) -> (i64, i64) {
        let max = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        (open_files(), i64::try_from(max).unwrap_or(i64::MAX))
    }

    fn environment(&self) -> &Environment {
        &self.environment
    }

    fn memory(&self) -> Memory {
        let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Memory {
            resident: kib_field(&own, "VmRSS:") << 10,
            available: kib_field(&machine, "MemAvailable:") << 10,
            machine: kib_field(&machine, "MemTotal:") << 10,
        }
    }

    fn process(&self) -> Process {
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let usage = getrusage(UsageWho::RUSAGE_SELF);
        let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Process {
            cpu_s: usage.map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time())),
            start_wall_s: self.start_wall_ms as f64 / 1e3,
            virtual_bytes: kib_field(&own, "VmSize:") << 10,
        }
    }

    fn last_snapshot(&self) -> Option<SnapshotOnDisk> {
        let (zxid, path) = self.newest_snapshot()?;
        let written = fs::metadata(path).ok()?.modified().ok()?;
        let written_s = written.duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Some(SnapshotOnDisk { zxid, written_wall_s: i64::try_from(written_s).unwrap_or(i64::MAX) })
    }

    fn time_zone(&self) -> TimeZone {
        // A host that names no zone is on UTC, as Java has it; jiff's own fallback prints `Unknown`.
        TimeZone::try_system().unwrap_or(TimeZone::UTC)
    }
}

/// Apparent sizes of the files below a directory, added up; files that vanish meanwhile count as nothing.
pub fn tree_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => tree_bytes(&entry.path()),
        Ok(_) => fs::metadata(entry.path()).map_or(0, |data| if data.is_file() { data.len() } else { 0 }),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// Since Linux 6.2 the size of this directory is the number of descriptors; before, with ten thousand connections,
/// counting them takes milliseconds.
fn open_files() -> i64 {
    let size = fs::metadata("/proc/self/fd").map_or(0, |data| data.len());
    if size > 0 {
        return i64::try_from(size).unwrap_or(i64::MAX);
    }
    // One of them is the directory being read.
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as i64)
}

/// A line of `/proc/meminfo` or the like, in KiB; 0 if it is not there.
pub fn kib_field(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Who runs this process.
pub fn user_name() -> String {
    let user = User::from_uid(Uid::current()).ok().flatten();
    user.map_or_else(|| Uid::current().to_string(), |user| user.name)
}

fn environment() -> Environment {
    let names = uname().ok();
    let name_of = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        names.as_ref().map_or("<NA>".to_owned(), |names| part(names).to_string_lossy().into_owned())
    };
    let path = |path: std::io::Result<PathBuf>| path.map_or("<NA>".to_owned(), |path| path.display().to_string());
    let user = User::from_uid(Uid::current()).ok().flatten();
    Environment {
        host_name: name_of(|names| names.nodename()),
        program: path(std::env::current_exe()),
        temp_dir: std::env::temp_dir().display().to_string(),
        os_arch: java_arch(std::env::consts::ARCH).to_owned(),
        os_version: name_of(|names| names.release()),
        user_name: user_name(),
        user_home: user.map_or("<NA>".to_owned(), |user| user.dir.display().to_string()),
        user_dir: path(std::env::current_dir()),
    }
}

/// Java's name of an architecture.
fn java_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "x86" => "i386",
        "powerpc64" => "ppc64",
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_directory_is_that_of_all_files_below() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("sub")).expect("a directory");
        fs::write(dir.path().join("a"), [0; 10]).expect("a file");
        fs::write(dir.path().join("sub/b"), [0; 7]).expect("a file");
        assert_eq!(tree_bytes(dir.path()), 17);
        assert_eq!(tree_bytes(&dir.path().join("absent")), 0);
    }

    #[test]
    fn the_machine_says_something_about_itself() {
        let host = ThisHost::new("/".into(), "/".into(), |_| None);
        let memory = host.memory();
        assert!(memory.resident > 0 && memory.available > 0 && memory.machine > memory.available);
        let (open, max) = host.file_descriptors();
        assert!(open >= 3 && max >= open, "{open} of {max}");
        let environment = host.environment();
        assert!(!environment.host_name.is_empty() && !environment.user_name.is_empty());
        assert!(!environment.os_version.is_empty() && environment.user_dir.starts_with('/'));
    }

    #[test]
    fn a_field_of_proc_is_found_by_its_name() {
        let text = "MemTotal:       24683956 kB\nMemFree:  5 kB\n";
        assert_eq!((kib_field(text, "MemTotal:"), kib_field(text, "MemAvailable:")), (24_683_956, 0));
    }
}
