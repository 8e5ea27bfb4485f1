//! Power cuts under a real kernel: the built server on ext4, xfs and btrfs, on a disk of our own that loses, tears and
//! reorders what was not flushed, fails, stalls and fills up. After each cut everything that any client was told is there.
//! `make power-cuts` runs seeds for as long as it is let.
//!
//! | file | what |
//! |---|---|
//! | `disk` | the disk: what is written, what is flushed, what a power cut leaves |
//! | `volume` | a file system of the kernel's on it |
//! | `server` | a server on such volumes |
//! | `writers` | its clients, and what they check |
//! | `trial` | a course of events from a seed |
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
mod volume;
mod writers;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use trial::{KINDS, Outcome};
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
#[ignore = "each run has other seeds: `make power-cuts`"]
fn nothing_that_was_acknowledged_is_lost_at_a_power_cut() {
    if let Some(why) = why_not() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "power cuts cannot be tested, and this is CI: {why}");
        // Past the capture of what tests print: nobody must think that they took place.
        let _ = writeln!(std::io::stderr(), "left out: power cuts: {why}");
        return;
    }
    // Whatever ends this test ends them all, since each is killed with the one before.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "in_namespaces_of_their_own_all_seeds_pass"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "what was found is told above");
}

#[test]
#[ignore = "run as a child by nothing_that_was_acknowledged_is_lost_at_a_power_cut"]
fn in_namespaces_of_their_own_all_seeds_pass() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    run("ip", &["link", "set", "lo", "up"], &[]).unwrap();
    run("mount", &["-t", "tmpfs", "rookeeper-power-cuts"], &[folder]).unwrap();
    let lanes = std::thread::available_parallelism().map_or(1, usize::from).min(LANES_MAX);
    let seeds = Seeds::new();
    let bound = seeds.limit + OVERTIME;
    std::thread::spawn(move || {
        std::thread::sleep(bound);
        println!("power cuts: not at an end after {} s, so something hangs", bound.as_secs());
        std::process::exit(1);
    });
    std::thread::scope(|scope| {
        for lane in 0..lanes {
            let (seeds, folder) = (&seeds, folder.join(format!("lane-{lane}")));
            scope.spawn(move || seeds.run(&folder, PORTS.0 + lane as u16 * PORTS.1));
        }
    });
    seeds.tell();
}

/// Which seeds are run, and what came of them.
struct Seeds {
    begun: Instant,
    limit: Duration,
    /// It, and no other.
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

    /// The next, until the time is over; but one of each kind, however slow this machine is. None after one that failed.
    fn next(&self) -> Option<u64> {
        let mut results = self.results.lock().unwrap();
        let is_over = match self.one {
            Some(_) => results.taken > 0,
            None => results.taken >= KINDS && self.begun.elapsed() >= self.limit,
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
    }
}
