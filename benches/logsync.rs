//! What it costs to make a small append durable, for each way to do it, and how the way of the server holds up under
//! load: `cargo bench --bench logsync -- [folder] [records]`. Absolute values move with the machine and the hour, the
//! order does not; ways take turns, so that a bad minute hits all of them.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rookeeper::ids::Zxid;
use rookeeper::mail::LogRecord;
use rookeeper::storage::writer::LogWriter;
use rookeeper::sys::clock::mono_us;
use rookeeper::sys::mapped_log::{MappedLog, PAGE_BYTES, Zeros, allocate, open_direct};
use rookeeper::threads::txnlog::MappedFiles;

const FILE_BYTES: usize = 64 << 20;
const TURNS: usize = 10;

/// One way to append.
trait Way {
    /// What a helper would do meanwhile; not measured.
    fn prepare(&mut self, _to: usize) {}
    fn append(&mut self, at: usize, bytes: &[u8]) -> io::Result<()>;
}

struct Pwrite {
    file: File,
    /// The descriptor syncs by itself (`O_DSYNC`, the same as `RWF_DSYNC` a call).
    dsync: bool,
}

impl Way for Pwrite {
    fn append(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at as u64)?;
        if self.dsync { Ok(()) } else { self.file.sync_data() }
    }
}

/// Whole pages past the page cache: what a log with a format of its own could do.
struct Direct {
    file: File,
    pages: Zeros,
    dsync: bool,
}

impl Way for Direct {
    fn append(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let from = at - at % PAGE_BYTES;
        let to = (at + bytes.len()).next_multiple_of(PAGE_BYTES);
        self.file.write_all_at(&self.pages.get()[..to - from], from as u64)?;
        if self.dsync { Ok(()) } else { self.file.sync_data() }
    }
}

struct Mapped {
    log: MappedLog,
    loaded: Option<usize>,
    /// Stored through the mapping, else written into its pages.
    through: bool,
}

impl Way for Mapped {
    fn prepare(&mut self, to: usize) {
        if let Some(from) = self.loaded.filter(|from| *from < to) {
            self.log.pages().load(from, to + (1 << 20));
            self.loaded = Some(to + (1 << 20));
        }
    }

    fn append(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        if self.through {
            self.log.store(at, bytes);
        } else {
            self.log.write(at, bytes)?;
        }
        self.log.sync()
    }
}

/// How a file is made ready.
#[derive(Clone, Copy, PartialEq)]
enum Made {
    Growing,
    Allocated,
    ZeroedDirect,
    ZeroedCached { at_once: usize },
}

fn make(path: &Path, made: Made) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    match made {
        Made::Growing => return Ok(file),
        Made::Allocated => allocate(&file, FILE_BYTES)?,
        Made::ZeroedDirect => {
            allocate(&file, FILE_BYTES)?;
            let direct = open_direct(path)?.unwrap_or(file.try_clone()?);
            let zeros = Zeros::new(1 << 20);
            (0..FILE_BYTES >> 20).try_for_each(|i| direct.write_all_at(zeros.get(), (i << 20) as u64))?;
        }
        Made::ZeroedCached { at_once } => {
            let zeros = vec![0; at_once];
            (0..FILE_BYTES / at_once).try_for_each(|i| file.write_all_at(&zeros, (i * at_once) as u64))?;
        }
    }
    file.sync_all()?;
    Ok(file)
}

fn reopened(path: &Path, flags: i32) -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(flags).open(path)
}

/// Makes a way out of a file that is ready.
type MakeWay = dyn Fn(File, &Path) -> io::Result<Box<dyn Way>>;
type Ways = Vec<(&'static str, Box<dyn Way>)>;

fn ways(dir: &Path) -> io::Result<Ways> {
    let mut ways: Ways = Vec::new();
    let mut add = |name: &'static str, made: Made, way: &MakeWay| {
        let path = dir.join(format!("logsync-{}.tmp", ways.len()));
        let file = make(&path, made)?;
        ways.push((name, way(file, &path)?));
        io::Result::Ok(())
    };
    let pwrite = |file, _: &Path| Ok(Box::new(Pwrite { file, dsync: false }) as Box<dyn Way>);
    add("growing file, pwrite + fdatasync", Made::Growing, &pwrite)?;
    add("fallocate, pwrite + fdatasync", Made::Allocated, &pwrite)?;
    add("zeroed O_DIRECT, pwrite + fdatasync", Made::ZeroedDirect, &pwrite)?;
    add("zeroed O_DIRECT, pwrite O_DSYNC", Made::ZeroedDirect, &|_, path| {
        Ok(Box::new(Pwrite { file: reopened(path, libc::O_DSYNC)?, dsync: true }))
    })?;
    let mapped = |random: bool, loaded: bool, through: bool| {
        move |file: File, path: &Path| {
            let log = MappedLog::map(file, path, FILE_BYTES, random)?;
            Ok(Box::new(Mapped { log, loaded: loaded.then_some(0), through }) as Box<dyn Way>)
        }
    };
    add("zeroed cached 1 MiB, mmap + fdatasync", Made::ZeroedCached { at_once: 1 << 20 }, &mapped(false, false, true))?;
    add(
        "zeroed cached 4 KiB, mmap + fdatasync",
        Made::ZeroedCached { at_once: PAGE_BYTES },
        &mapped(true, false, true),
    )?;
    add("zeroed O_DIRECT, mmap, no MADV_RANDOM", Made::ZeroedDirect, &mapped(false, false, true))?;
    add("zeroed O_DIRECT, mmap random", Made::ZeroedDirect, &mapped(true, false, true))?;
    add("the same, loaded ahead (txnLogStore=mmap)", Made::ZeroedDirect, &mapped(true, true, true))?;
    add("the same, pwritten (the server's)", Made::ZeroedDirect, &mapped(true, true, false))?;
    for (name, dsync) in [("O_DIRECT pages, O_DSYNC (the floor)", true), ("O_DIRECT pages + fdatasync", false)] {
        add(name, Made::ZeroedDirect, &move |_, path| {
            let flags = libc::O_DIRECT | if dsync { libc::O_DSYNC } else { 0 };
            Ok(Box::new(Direct { file: reopened(path, flags)?, pages: Zeros::new(1 << 20), dsync }))
        })?;
    }
    Ok(ways)
}

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
    let mut ways = ways(dir)?;
    let mut took: Vec<Vec<i64>> = vec![Vec::new(); ways.len()];
    let data = vec![7; bytes];
    for turn in 0..TURNS {
        for (i, (_, way)) in ways.iter_mut().enumerate() {
            for n in 0..records / TURNS {
                let at = (turn * (records / TURNS) + n) * bytes;
                way.prepare(at + bytes);
                let begun = mono_us();
                way.append(at, &data)?;
                took[i].push(mono_us() - begun);
            }
        }
    }
    for ((name, _), us) in ways.iter().zip(took) {
        println!("{name:<40} {}", quantiles(us));
    }
    for i in 0..ways.len() {
        fs::remove_file(dir.join(format!("logsync-{i}.tmp")))?;
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
