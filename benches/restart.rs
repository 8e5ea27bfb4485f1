//! How long a restart takes with a million znodes, and what a snapshot of them does to the syncs of a steady write load:
//! `cargo bench --bench restart -- [folder] [nodes]`.
#![allow(clippy::unwrap_used, reason = "a failed step ends the measurement where it stands")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::unbounded;
use rookeeper::config::Compression;
use rookeeper::engine::snapshots::{RETRY_MS_MIN, SnapshotConfig};
use rookeeper::ids::{SessionId, Zxid};
use rookeeper::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNKS_IN_FLIGHT};
use rookeeper::mail::{LogRecord, ToSnapshot};
use rookeeper::records::Acl;
use rookeeper::state::{State, StateRules};
use rookeeper::storage::dirs::DataDirs;
use rookeeper::storage::recover::{RecoverOptions, recover};
use rookeeper::storage::writer::LogWriter;
use rookeeper::sys::clock::mono_us;
use rookeeper::threads::snapshot;
use rookeeper::threads::txnlog::MappedFiles;
use rookeeper::txn::{CreateOwner, CreateTxn, Txn, TxnBody, TxnHeader};

const DATA_BYTES: usize = 100;
/// Children of one parent.
const SIBLINGS: i64 = 1000;

fn rules() -> StateRules {
    StateRules { digest_enabled: true, ..StateRules::default() }
}

fn create(zxid: i64) -> Txn {
    let n = zxid - 1;
    let (parent, child) = (n / (SIBLINGS + 1), n % (SIBLINGS + 1));
    let path = if child == 0 { format!("/p{parent:05}") } else { format!("/p{parent:05}/node-{child:05}") };
    let header = TxnHeader { client_id: SessionId(1), cxid: 1, zxid: Zxid(zxid), time_ms: 1_700_000_000_000 };
    let create = CreateTxn {
        path,
        data: Some(vec![b'x'; DATA_BYTES]),
        acl: Acl::open(),
        owner: CreateOwner::None,
        with_stat: false,
        parent_cversion: -1,
    };
    Txn { header, body: TxnBody::Create(create), digest: None }
}

/// Hands snapshots over as the pipeline does, a few chunks ahead of the disk, one after the other for as long as it is
/// wanted, and at least one.
fn write_snapshots(state: &mut State, config: &SnapshotConfig, mut more: impl FnMut() -> bool) {
    let (to, from) = unbounded();
    let (written, acknowledged) = unbounded();
    let mut zxid = state.last_zxid();
    thread::scope(|scope| {
        let writer = scope.spawn(move || snapshot::run(config, &from, |mail| written.send(mail.len()).unwrap()));
        loop {
            to.send(ToSnapshot::Begin { zxid }).unwrap();
            to.send(ToSnapshot::Chunk(state.begin_cut())).unwrap();
            let (mut done, mut in_flight) = (false, 1);
            while !done {
                if in_flight == SNAPSHOT_CHUNKS_IN_FLIGHT {
                    in_flight -= acknowledged.recv().unwrap();
                }
                let (bytes, last) = state.cut_slice(SNAPSHOT_CHUNK_BYTES);
                to.send(ToSnapshot::Chunk(bytes)).unwrap();
                in_flight += 1;
                done = last;
            }
            to.send(ToSnapshot::Finish { digest: Some(state.tree_digest()) }).unwrap();
            // One answer a chunk, and one more.
            for _ in 0..=in_flight {
                acknowledged.recv().unwrap();
            }
            if !more() {
                break;
            }
            zxid = zxid.next();
        }
        drop(to);
        writer.join().unwrap();
    });
}

fn ms_since(begun_us: i64) -> i64 {
    (mono_us() - begun_us) / 1000
}

fn time_recovery(dirs: &DataDirs, what: &str) -> io::Result<State> {
    let options = RecoverOptions {
        rules: rules(),
        datadir_autocreate: true,
        db_autocreate: true,
        trust_empty: false,
        record_bytes_max: 2 << 20,
        recent_max: 0,
        as_of: None,
        force_sync: true,
        repairable: false,
    };
    let begun = mono_us();
    let recovered = recover(dirs, &options).map_err(|error| io::Error::other(error.to_string()))?;
    println!(
        "{what:<34} {:>6} ms ({} nodes from the snapshot, {} transactions replayed)",
        ms_since(begun),
        recovered.snapshot_nodes,
        recovered.replayed
    );
    assert_eq!(recovered.state.digest_mismatches(), 0);
    Ok(recovered.state)
}

/// Syncs of a steady load, 1 KiB every 500 microseconds, until told to stop.
fn steady(dir: &Path, from_zxid: i64, stop: &AtomicBool) -> io::Result<Vec<i64>> {
    let mut writer = LogWriter::new(MappedFiles::start(dir, 64 << 20, false)?, true, None);
    let mut took = Vec::new();
    let begun = mono_us();
    while !stop.load(Ordering::Relaxed) {
        let due = begun + took.len() as i64 * 500;
        thread::sleep(Duration::from_micros((due - mono_us()).max(0) as u64));
        let zxid = from_zxid + took.len() as i64;
        let mut payload = create(zxid).to_bytes();
        payload.resize(1024, 0);
        let at = mono_us();
        writer.append(&LogRecord { zxid: Zxid(zxid), payload })?;
        writer.sync()?;
        took.push(mono_us() - at);
    }
    Ok(took)
}

fn show(what: &str, mut us: Vec<i64>) {
    us.sort_unstable();
    let at = |q: f64| us[((us.len() - 1) as f64 * q) as usize];
    println!(
        "{what:<34} {:>6} syncs: p50 {} p99 {} p99.9 {} max {} microseconds",
        us.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        us[us.len() - 1]
    );
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let dir = args.first().map_or_else(std::env::temp_dir, PathBuf::from).join("restart-bench");
    let nodes: i64 = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let _ = fs::remove_dir_all(&dir);
    let dirs = DataDirs::new(&dir, None);
    dirs.prepare(true).map_err(|error| io::Error::other(error.to_string()))?;

    let mut state = State::fresh(rules());
    let begun = mono_us();
    (1..=nodes).for_each(|zxid| state.replay(&create(zxid)));
    println!("{nodes} creates applied               {:>6} ms", ms_since(begun));
    for method in [Compression::None, Compression::Snappy, Compression::Gzip] {
        let config = SnapshotConfig {
            dirs: dirs.clone(),
            method,
            last_section: true,
            purge_every_ms: None,
            retain: 3,
            retry_ms_min: RETRY_MS_MIN,
            damaged: false,
        };
        let begun = mono_us();
        write_snapshots(&mut state, &config, || false);
        println!("snapshot written, {method:<8?}         {:>6} ms", ms_since(begun));
        let file = dirs.snapshots.join(rookeeper::storage::names::snapshot_name(Zxid(nodes), method));
        time_recovery(&dirs, &format!("recovered, {method:?}"))?;
        if method != Compression::None {
            fs::remove_file(file)?;
        } else {
            // The plain one stays aside for the end.
            fs::rename(file, dir.join("plain"))?;
        }
    }
    fs::rename(dir.join("plain"), dirs.snapshots.join(format!("snapshot.{nodes:x}")))?;

    let mut writer = LogWriter::new(MappedFiles::start(&dirs.logs, 64 << 20, false)?, true, None);
    for zxid in nodes + 1..=nodes + 100_000 {
        writer.append(&LogRecord { zxid: Zxid(zxid), payload: create(zxid).to_bytes() })?;
    }
    writer.roll()?;
    drop(writer);
    time_recovery(&dirs, "recovered, and 100000 of the log")?;

    let quiet_dir = dir.join("quiet");
    fs::create_dir_all(&quiet_dir)?;
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        let took = thread::scope(|scope| {
            let load = scope.spawn(|| steady(&quiet_dir, 1 + (round << 32), &stop));
            thread::sleep(Duration::from_secs(3));
            stop.store(true, Ordering::Relaxed);
            load.join().expect("the load does not panic")
        })?;
        show("steady load alone", took);
        let config = SnapshotConfig {
            dirs: dirs.clone(),
            method: Compression::None,
            last_section: true,
            purge_every_ms: Some(1000),
            retain: 3,
            retry_ms_min: RETRY_MS_MIN,
            damaged: false,
        };
        let stop = AtomicBool::new(false);
        let took = thread::scope(|scope| {
            let load = scope.spawn(|| steady(&quiet_dir, 1 + (round << 32) + (1 << 31), &stop));
            let begun = mono_us();
            write_snapshots(&mut state, &config, || {
                // The pauses are for the removal of old ones, as in a server.
                thread::sleep(Duration::from_millis(500));
                ms_since(begun) < 6000
            });
            stop.store(true, Ordering::Relaxed);
            load.join().expect("the load does not panic")
        })?;
        show("while snapshots are written", took);
        // The next round's purge finds the same names.
        for entry in fs::read_dir(&dirs.snapshots)? {
            fs::remove_file(entry?.path())?;
        }
    }
    fs::remove_dir_all(&dir)
}
