//! How long the disk of the logs takes to make an append durable, for the ways that a server has. Two seconds, a few MiB in
//! files that are removed again.

use std::fs;
use std::io;
use std::path::Path;

use crate::doctor::facts::{Disk, SyncWay};
use crate::doctor::sync_ways::{FLOOR, GROWING, SERVER, SERVER_MMAP, SERVER_PLAIN, Trial, Way};
use crate::sys::clock::mono_us;
use crate::sys::mapped_log::cannot_map;

/// Names of the files that are written.
pub const PROBE_PREFIX: &str = "doctor-probe-";
/// What is measured.
const WAYS: [Way; 5] = [SERVER, SERVER_MMAP, SERVER_PLAIN, GROWING, FLOOR];
/// Each file's.
const FILE_BYTES: usize = 1 << 20;
/// A small write, in the log.
const RECORD_BYTES: usize = 1100;
/// A turn of one way.
const RECORDS_A_TURN: usize = 10;
/// All of it, the files made.
const TIME_US: i64 = 1_800_000;

/// Measures in a folder that is there.
pub fn probe(dir: &Path) -> io::Result<Disk> {
    let begun_us = mono_us();
    let mut trials: Vec<(&'static str, Trial, Vec<i64>)> = Vec::new();
    for (n, way) in WAYS.iter().enumerate() {
        match way.begin(&dir.join(format!("{PROBE_PREFIX}{n}.tmp")), FILE_BYTES) {
            Ok(trial) => trials.push((way.name, trial, Vec::new())),
            // Not every file system can write past its cache, or map.
            Err(error) if cannot_map(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let data = vec![7; RECORD_BYTES];
    let turns = FILE_BYTES / RECORD_BYTES / RECORDS_A_TURN;
    'turns: for turn in 0..turns {
        for (_, trial, took) in &mut trials {
            for n in 0..RECORDS_A_TURN {
                let at = (turn * RECORDS_A_TURN + n) * RECORD_BYTES;
                trial.prepare(at + RECORD_BYTES);
                let at_us = mono_us();
                trial.append(at, &data)?;
                took.push(mono_us() - at_us);
                // Ways take turns: on a slow disk each has at least one record.
                if mono_us() - begun_us > TIME_US && turn > 0 {
                    break 'turns;
                }
            }
        }
    }
    let ways = trials.into_iter().filter_map(|(name, _, took)| quantiles(name, took)).collect();
    Ok(Disk { dir: dir.to_owned(), ways })
}

fn quantiles(name: &'static str, mut took_us: Vec<i64>) -> Option<SyncWay> {
    took_us.sort_unstable();
    let at = |hundredths: usize| took_us.get((took_us.len().checked_sub(1)?) * hundredths / 100).copied();
    Some(SyncWay { name, p50_us: at(50)?, p99_us: at(99)?, count: took_us.len() })
}

/// The folder, or the nearest one above it that is there.
pub fn nearest(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| fs::metadata(dir).is_ok_and(|found| found.is_dir()))
}
