//! The whole ensemble on one thread, from one seed: simulated network, clocks, processes and clients around the real cores,
//! and the real `storage` on disks that forget, fail and fill up, with checks after every step. A failing seed says its number
//! and the end of its trace; the same seed makes the same trace. `make simulate` runs seeds until it is stopped.
//!
//! | file | what |
//! |---|---|
//! | `world` | time, the course of a run, faults |
//! | `server`, `poller`, `quorum` | one server: the threads' work, and what is around what they drive |
//! | `net`, `client` | what is simulated: sockets and what is under way between them; clients |
//! | `disk` | the real files of a server, on a disk in memory (`volatile`) |
//! | `requests` | what clients ask for |
//! | `check` | what must hold of servers and their history |
//! | `model` | what must hold of answers and events: a tree of its own |
//! | `reconfigurations` | servers that stopped in the midst of a change of their members |
//! | `breakage` | deliberate wrongs that must be caught |
//! | `scenarios`, `members` | courses of events that are told, not drawn |

#![allow(clippy::unwrap_used, reason = "tests")]

mod breakage;
mod check;
mod client;
mod disk;
#[path = "../support/trial/frames.rs"]
#[allow(dead_code, reason = "the trial's part")]
mod frames;
mod members;
mod model;
mod net;
#[path = "../support/plain_logs.rs"]
mod plain_logs;
mod poller;
mod quorum;
mod random;
mod reconfigurations;
mod requests;
mod scenarios;
mod server;
mod trace;
#[path = "../support/volatile.rs"]
#[allow(dead_code, reason = "tests/power has its part")]
mod volatile;
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use breakage::Breakage;
use world::{FAULTS, Fault, Outcome, run};

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// Runs a seed; if something does not hold, again with its trace, which is the end of the test.
fn must_hold(seed: u64) -> Outcome {
    let outcome = run(seed, None, false);
    if let Some(violation) = &outcome.violation {
        let again = run(seed, None, true);
        eprintln!("{}", again.tail);
        panic!(
            "seed {seed}: {violation}\nagain: SIMULATION_SEED={seed} cargo test --features breakages --test simulation \
             one_seed -- --ignored --nocapture"
        );
    }
    outcome
}

/// Seeds that are run however slow this machine is: so many meet every kind of fault.
const SEEDS_MIN: u64 = 100;

/// What came of many seeds.
#[derive(Default, Debug)]
struct Sum {
    seeds: u64,
    events: u64,
    txns: usize,
    epochs: u64,
    simulated_us: u64,
    faults: BTreeMap<Fault, u64>,
}

impl Sum {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.txns += outcome.txns;
        self.epochs += u64::from(outcome.epochs);
        self.simulated_us += outcome.simulated_us;
        for (fault, count) in outcome.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }

    fn tell(&self, first: u64) {
        let Sum { seeds, events, txns, epochs, simulated_us, faults } = self;
        let hours = *simulated_us as f64 / 3.6e9;
        println!(
            "{seeds} seeds from {first}: {events} events, {txns} transactions, {epochs} epochs, {hours:.1} hours simulated; \
             faults: {faults:?}"
        );
    }
}

/// Seeds for as long as `SIMULATION_SECONDS` says, or `SIMULATION_SEEDS` of them.
#[test]
#[allow(clippy::disallowed_methods, reason = "how long the test may take is no matter of the simulation")]
fn whatever_happens_the_promises_hold() {
    let begun = Instant::now();
    let limit = Duration::from_secs(setting("SIMULATION_SECONDS").unwrap_or(20));
    let first = setting("SIMULATION_FIRST").unwrap_or(1);
    let wanted = setting("SIMULATION_SEEDS");
    let mut sum = Sum::default();
    while wanted.map_or(begun.elapsed() < limit || sum.seeds < SEEDS_MIN, |wanted| sum.seeds < wanted) {
        sum.add(must_hold(first + sum.seeds));
        if sum.seeds % 1000 == 0 {
            sum.tell(first);
        }
    }
    sum.tell(first);
    if sum.seeds >= SEEDS_MIN {
        let missing: Vec<_> = FAULTS.iter().filter(|fault| !sum.faults.contains_key(fault)).collect();
        assert!(missing.is_empty(), "no seed met {missing:?}");
        assert!(
            sum.txns as u64 > sum.seeds * 100,
            "little was written: {} transactions in {} seeds",
            sum.txns,
            sum.seeds
        );
    }
}

/// Seeds that nobody has run before, for as long as `SIMULATION_FRESH_SECONDS` says: one that fails is named, and fails again.
#[test]
#[allow(clippy::disallowed_methods, reason = "what is drawn here is no matter of the simulation")]
fn seeds_of_the_day_hold_too() {
    let begun = Instant::now();
    let limit = Duration::from_secs(setting("SIMULATION_FRESH_SECONDS").unwrap_or(10));
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    let first = since_epoch.as_millis() as u64 * 1000;
    println!("seeds from {first}");
    let mut sum = Sum::default();
    while begun.elapsed() < limit {
        sum.add(must_hold(first + sum.seeds));
    }
    sum.tell(first);
}

/// `SIMULATION_SEED`, with its trace.
#[test]
#[ignore = "runs the seed that SIMULATION_SEED names"]
fn one_seed() {
    let seed = setting("SIMULATION_SEED").expect("SIMULATION_SEED=n says which seed");
    let outcome = run(seed, None, true);
    println!("{}", outcome.tail);
    assert_eq!(outcome.violation, None, "seed {seed}");
}

#[test]
fn a_seed_makes_the_same_trace_again() {
    for seed in 1..=5 {
        let (one, other) = (run(seed, None, false), run(seed, None, true));
        assert_eq!((one.hash, one.events), (other.hash, other.events), "seed {seed}");
    }
}

/// For each deliberate wrong there is a seed that catches it, and that holds without it: `breakage` says where to look first,
/// `BREAKAGE_SEEDS` how far.
#[test]
fn every_breakage_is_caught() {
    let mut missed = Vec::new();
    for (breakage, hint) in Breakage::ALL {
        let seeds = (*hint..*hint + 20).chain(1..=setting("BREAKAGE_SEEDS").unwrap_or(600));
        let catches = |seed| {
            let what = run(seed, Some(*breakage), false).violation?;
            run(seed, None, false).violation.is_none().then_some((seed, what))
        };
        match seeds.into_iter().find_map(catches) {
            Some((seed, what)) => println!("{breakage:?}: seed {seed}: {what}"),
            None => missed.push(breakage),
        }
    }
    assert!(missed.is_empty(), "nothing catches {missed:?}");
}
