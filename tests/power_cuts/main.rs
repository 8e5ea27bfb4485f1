//! Power cuts under a real kernel: the built server on ext4, xfs and btrfs, on a disk of our own that loses, tears and
//! reorders what was not flushed, fails, stalls and fills up. After each cut everything that any client was told is there.
//! `make test` runs seeds for half a minute, and until enough has happened; `make power-cuts`, for as long as it is told to.
//!
//! | file | what |
//! |---|---|
//! | `disk` | the disk: what is written, what is flushed, what a power cut leaves |
//! | `volume` | a file system of the kernel's on it |
//! | `server` | a server on such volumes |
//! | `writers` | its clients, and what they check |
//! | `trial` | a course of events from a seed |
//! | `unwritten` | one that is told: a record that the disk refused |
//!
//! Everything happens in namespaces of its own (mounts, processes, network), which end with the test, however it ends:
//! no mount, loop device, process or file stays behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world fails")]

#[path = "../support/acknowledged.rs"]
mod acknowledged;
mod disk;
#[path = "../simulation/random.rs"]
#[allow(dead_code, reason = "the simulation's part")]
mod random;
mod server;
mod trial;
mod unwritten;
mod volume;
mod writers;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use trial::{KINDS, Outcome};
use unwritten::Told;
use volume::{FileSystem, run};

/// Set in the process that is in the namespaces.
const INSIDE: &str = "POWER_CUTS_INSIDE";
const SECONDS: u64 = 30;
/// Ports of the first lane, and of each.
const PORTS: (u16, u16) = (20_000, 10);
/// Trials at the same time.
const LANES_MAX: usize = 4;
/// How much longer than the time it was given a run may take: then something hangs.
const OVERTIME: Duration = Duration::from_secs(300);

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// Why there can be no such disk here.
fn why_not() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("only root can mount: run it as root".into());
    }
    let device = ["/dev/fuse", "/dev/loop-control"].into_iter().find(|device| !Path::new(device).exists());
    if let Some(device) = device {
        return Some(format!("there is no {device}: load its kernel module, or let the container have it"));
    }
    let programs = FileSystem::programs().chain(["mount", "unshare", "setpriv", "ip"]);
    let lacking = programs.into_iter().find(|program| Command::new(program).arg("--version").output().is_err());
    lacking.map(|program| format!("there is no {program}: `make test-deps` installs it"))
}

#[test]
fn nothing_that_was_acknowledged_is_lost_at_a_power_cut() {
    in_namespaces_of_its_own("all_seeds_pass");
}

#[test]
fn a_record_that_the_disk_refused_is_written_again_before_anybody_is_told_of_it() {
    in_namespaces_of_its_own("refused_records");
}

/// Runs that test of this binary there. Whatever ends this process ends them all, since each is killed with the one before.
fn in_namespaces_of_its_own(test: &str) {
    if setting("POWER_CUTS_SECONDS") == Some(0) {
        // Past the capture of what tests print: nobody must think that they took place.
        let _ = writeln!(std::io::stderr(), "left out, for POWER_CUTS_SECONDS is 0: {test} in tests/power_cuts");
        return;
    }
    if let Some(why) = why_not() {
        panic!("power cuts cannot be tested: {why}. POWER_CUTS_SECONDS=0 leaves them out");
    }
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "what was found is told above");
}

/// A folder in memory, in the namespaces of this process; none if it is in none of its own.
fn folder() -> Option<&'static Path> {
    std::env::var_os(INSIDE)?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    run("ip", &["link", "set", "lo", "up"], &[]).unwrap();
    run("mount", &["-t", "tmpfs", "rookeeper-power-cuts"], &[folder]).unwrap();
    Some(folder)
}

#[test]
#[ignore = "run as a child by nothing_that_was_acknowledged_is_lost_at_a_power_cut"]
fn all_seeds_pass() {
    let Some(folder) = folder() else { return };
    let lanes = std::thread::available_parallelism().map_or(1, usize::from).min(LANES_MAX);
    let seeds = Seeds::new();
    end_after(seeds.limit + OVERTIME);
    std::thread::scope(|scope| {
        for lane in 0..lanes {
            let (seeds, folder) = (&seeds, folder.join(format!("lane-{lane}")));
            scope.spawn(move || seeds.run(&folder, PORTS.0 + lane as u16 * PORTS.1));
        }
    });
    seeds.tell();
}

#[test]
#[ignore = "run as a child by a_record_that_the_disk_refused_is_written_again_before_anybody_is_told_of_it"]
fn refused_records() {
    let Some(folder) = folder() else { return };
    end_after(OVERTIME);
    let mut were_told = 0;
    for file_system in FileSystem::ALL {
        for is_mapped in [false, true] {
            let within = folder.join(format!("{}-{is_mapped}", file_system.name()));
            let told =
                unwritten::run(file_system, is_mapped, &within, PORTS.0).unwrap_or_else(|wrong| panic!("{wrong}"));
            println!("power cuts: a refused record, {}, mapped: {is_mapped}: told {told:?}", file_system.name());
            were_told += u32::from(told == Told::OfIt);
        }
    }
    assert!(were_told > 0, "nobody was told of a record that the disk had refused, so this has shown nothing");
}

/// Something hangs if this process still runs then.
fn end_after(bound: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(bound);
        println!("power cuts: not at an end after {} s, so something hangs", bound.as_secs());
        std::process::exit(1);
    });
}

/// Which seeds are run, and what came of them.
struct Seeds {
    begun: Instant,
    limit: Duration,
    /// That one, and no other.
    one: Option<u64>,
    first: u64,
    results: Mutex<Results>,
}

#[derive(Default)]
struct Results {
    taken: u64,
    sum: Outcome,
    failed: Vec<u64>,
}

impl Seeds {
    #[allow(
        clippy::disallowed_methods,
        reason = "how long a test takes is no matter of the product; each run has other seeds"
    )]
    fn new() -> Seeds {
        let today = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() * KINDS;
        Seeds {
            begun: Instant::now(),
            limit: Duration::from_secs(setting("POWER_CUTS_SECONDS").unwrap_or(SECONDS)),
            one: setting("POWER_CUTS_SEED"),
            first: setting("POWER_CUTS_SEED").or_else(|| setting("POWER_CUTS_FIRST")).unwrap_or_else(today),
            results: Mutex::default(),
        }
    }

    /// The next, until the time is over; but enough of each kind, however slow this machine is. None after one that failed.
    fn next(&self) -> Option<u64> {
        let mut results = self.results.lock().unwrap();
        let is_over = match self.one {
            Some(_) => results.taken > 0,
            None => results.taken >= KINDS && results.sum.lacks().is_empty() && self.begun.elapsed() >= self.limit,
        };
        if is_over || !results.failed.is_empty() {
            return None;
        }
        results.taken += 1;
        Some(self.first + results.taken - 1)
    }

    fn run(&self, folder: &Path, port: u16) {
        while let Some(seed) = self.next() {
            let within = folder.join(seed.to_string());
            let outcome = trial::run(seed, &within, port);
            let mut results = self.results.lock().unwrap();
            match outcome {
                Ok(outcome) => results.sum.add(&outcome),
                Err(wrong) => {
                    results.failed.push(seed);
                    let seconds = self.begun.elapsed().as_secs();
                    println!("seed {seed}, after {seconds} s: {wrong}\nagain: make power-cuts POWER_CUTS_SEED={seed}");
                }
            }
        }
    }

    fn tell(&self) {
        let Results { taken, sum, failed } = &*self.results.lock().unwrap();
        println!("power cuts: {taken} seeds from {}: {sum:?}", self.first);
        assert!(failed.is_empty(), "something was lost: seeds {failed:?}");
        let lacks = sum.lacks();
        assert!(self.one.is_some() || lacks.is_empty(), "not often enough: {lacks:?}");
    }
}
