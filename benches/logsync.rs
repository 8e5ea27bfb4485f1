//! What it costs to make a small append durable, for each way to do it, and how the way of the server holds up under
//! load: `cargo bench --bench logsync -- [folder] [records]`. Absolute values move with the machine and the hour, the
//! order does not; ways take turns, so that a bad minute hits all of them.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rookeeper::doctor::sync_ways::ALL;
use rookeeper::ids::Zxid;
use rookeeper::mail::LogRecord;
use rookeeper::storage::writer::LogWriter;
use rookeeper::sys::clock::mono_us;
use rookeeper::threads::txnlog::MappedFiles;

const FILE_BYTES: usize = 64 << 20;
const TURNS: usize = 10;

fn quantiles(mut us: Vec<i64>) -> String {
    us.sort_unstable();
    let at = |q: f64| us[((us.len() - 1) as f64 * q) as usize];
    format!("p50 {:>5}  p90 {:>5}  p99 {:>5}  p99.9 {:>6}", at(0.5), at(0.9), at(0.99), at(0.999))
}

/// Runs beside a thread that is awake all the time, as the server's poller and pipeline are while a client writes: what
/// changes the process's memory map then has to interrupt the other core.
fn beside_a_thread_awake(body: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        });
        let result = body();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// Every way, `bytes` at a time.
fn table(dir: &Path, bytes: usize, records: usize) -> io::Result<()> {
    println!("\nappend {bytes} bytes and make them durable, {records} times a way, microseconds");
    let mut trials = Vec::new();
    for (i, way) in ALL.iter().enumerate() {
        trials.push((way.name, way.begin(&dir.join(format!("logsync-{i}.tmp")), FILE_BYTES)?));
    }
    let mut took: Vec<Vec<i64>> = vec![Vec::new(); trials.len()];
    let data = vec![7; bytes];
    for turn in 0..TURNS {
        for (i, (_, trial)) in trials.iter_mut().enumerate() {
            for n in 0..records / TURNS {
                let at = (turn * (records / TURNS) + n) * bytes;
                trial.prepare(at + bytes);
                let begun = mono_us();
                trial.append(at, &data)?;
                took[i].push(mono_us() - begun);
            }
        }
    }
    for ((name, _), us) in trials.iter().zip(took) {
        println!("{name:<60} {}", quantiles(us));
    }
    Ok(())
}

/// The server's writer and its helper, as a whole: batches at a steady pace, over several files.
fn steady(dir: &Path, batch_bytes: usize, bytes_a_second: usize, seconds: usize) -> io::Result<()> {
    let log_dir = dir.join("logsync-logs");
    fs::create_dir_all(&log_dir)?;
    let mut writer = LogWriter::new(MappedFiles::start(&log_dir, FILE_BYTES, false)?, true, None);
    let batches = (bytes_a_second * seconds / batch_bytes).max(1);
    let gap_us = (batch_bytes as f64 / bytes_a_second as f64 * 1e6) as i64;
    let mut took = Vec::with_capacity(batches);
    let mut stored = Vec::with_capacity(batches);
    let begun = mono_us();
    for n in 0..batches {
        let due = begun + n as i64 * gap_us;
        let early = due - mono_us();
        if early > 0 {
            thread::sleep(Duration::from_micros(early as u64));
        }
        let records = batch_bytes / 1100;
        let at = mono_us();
        for i in 0..records.max(1) {
            let zxid = Zxid((n * records.max(1) + i + 1) as i64);
            writer.append(&LogRecord { zxid, payload: vec![7; 1087] })?;
        }
        stored.push(mono_us() - at);
        writer.sync()?;
        took.push(mono_us() - at);
    }
    let reached = (batches * batch_bytes) as f64 / (mono_us() - begun) as f64;
    let kib = batch_bytes >> 10;
    println!(
        "{kib:>5} KiB batches at {:>4} MB/s: {}  reached {reached:.0} MB/s; the stores alone: {}",
        bytes_a_second / 1_000_000,
        quantiles(took),
        quantiles(stored)
    );
    drop(writer);
    fs::remove_dir_all(&log_dir)
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    // `0` records: only the steady part.
    let dir = args.first().map_or_else(std::env::temp_dir, PathBuf::from);
    let records: usize = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(2000);
    if records > 0 {
        table(&dir, 1100, records)?;
        println!("\nbeside a thread that is awake:");
        beside_a_thread_awake(|| table(&dir, 1100, records))?;
        table(&dir, 32 << 10, (records / 2).min(1900))?;
    }
    println!("\nthe server's writer, batches at a steady pace, microseconds a batch");
    for (batch_bytes, bytes_a_second) in
        [(1100, 2_000_000), (16 << 10, 20_000_000), (128 << 10, 130_000_000), (512 << 10, 130_000_000)]
    {
        steady(&dir, batch_bytes, bytes_a_second, 5)?;
    }
    Ok(())
}
