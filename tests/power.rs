//! What is there when the power comes back: everything that anybody was told of, whatever the process was doing, and
//! whatever of its unsynced work reached the disk. The real code of `storage` and of the snapshot thread runs on a disk that
//! forgets ([`volatile`]), which lets the process die at each of its changes.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

#[path = "simulation/random.rs"]
#[allow(dead_code, reason = "the simulation's part")]
mod random;
mod support;
#[path = "support/volatile.rs"]
mod volatile;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crossbeam_channel::unbounded;
use random::Random;
use rookeeper::config::Compression;
use rookeeper::ids::Zxid;
use rookeeper::mail::{Dropped, LogRecord, ToSnapshot};
use rookeeper::quorum::Epochs;
use rookeeper::state::State;
use rookeeper::storage::dirs::DataDirs;
use rookeeper::storage::epochs::{self, EpochFiles};
use rookeeper::storage::names;
use rookeeper::storage::purge::{Removals, prove_newest};
use rookeeper::storage::recover::{RecoverError, RecoverOptions, recover};
use rookeeper::storage::truncate::{finish_install, prepare_install, truncate};
use rookeeper::storage::writer::{LogFile, LogFiles, LogWriter};
use rookeeper::sys::file_system::OpenFile;
use rookeeper::sys::files::Files;
use rookeeper::threads::snapshot::{self, SnapshotConfig};
use support::{options, txn, view};
use volatile::{Fault, VolatileDisk};

const RECORD_BYTES_MAX: usize = 1 << 20;
/// Losses of power that are tried at each place: which of what was not synced is there differs.
const LOSSES: u64 = 6;
/// Room of a log file: a few records.
const LOG_BYTES: usize = 1000;

/// Logs of a fixed size, as the host's are, without what makes those fast.
struct Logs {
    dirs: DataDirs,
    made: u64,
}

struct Log {
    files: Files,
    file: Box<dyn OpenFile>,
    path: PathBuf,
    bytes: usize,
}

impl LogFile for Log {
    fn capacity(&self) -> usize {
        self.bytes
    }

    fn store(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at as u64)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl LogFiles for Logs {
    type File = Log;

    fn next(&mut self, bytes_min: usize) -> io::Result<Log> {
        let path = self.dirs.logs.join(format!("{}{}", names::NEXT_LOG_PREFIX, self.made));
        self.made += 1;
        let (files, bytes) = (self.dirs.files().clone(), LOG_BYTES.max(bytes_min));
        let file = files.create(&path)?;
        file.allocate(bytes)?;
        file.sync_all()?;
        Ok(Log { files, file, path, bytes })
    }

    fn publish(&mut self, file: &mut Log, first: Zxid) -> io::Result<()> {
        let path = self.dirs.logs.join(names::log_name(first));
        file.files.rename_new_durably(&file.path, &path)?;
        file.path = path;
        Ok(())
    }

    fn flushed(&mut self, _end: usize) {}

    fn retire(&mut self, file: Log, end: usize) {
        // Padding that stays is passed over.
        let _ = file.file.set_length(end as u64);
    }
}

fn dirs(disk: &VolatileDisk) -> DataDirs {
    DataDirs::within(&disk.files(), Path::new("/data"), None)
}

/// A server's disk that was never written.
fn empty() -> VolatileDisk {
    VolatileDisk::new(&["/data"])
}

fn append(writer: &mut LogWriter<Logs>, zxid: i64) -> io::Result<()> {
    writer.append(&LogRecord { zxid: Zxid(zxid), payload: txn(zxid, 100).to_bytes() })
}

/// Logs these transactions, some in each sync; gives the last that was synced.
fn log(dirs: &DataDirs, zxids: std::ops::RangeInclusive<i64>) -> (i64, io::Result<()>) {
    let mut writer = LogWriter::new(Logs { dirs: dirs.clone(), made: 0 }, true, None);
    let mut synced = zxids.start() - 1;
    for zxid in zxids.clone() {
        let done = append(&mut writer, zxid).and_then(|()| {
            if zxid % 3 == 0 || zxid == *zxids.end() {
                writer.sync()?;
                synced = zxid;
            }
            Ok(())
        });
        if done.is_err() {
            return (synced, done);
        }
    }
    (synced, Ok(()))
}

/// A disk with these transactions logged, after a start.
fn with_log(last: i64) -> VolatileDisk {
    let disk = empty();
    recover(&dirs(&disk), &options()).unwrap();
    log(&dirs(&disk), 1..=last).1.unwrap();
    disk
}

/// What a start finds: its last transaction. Every one up to there is in the state.
#[track_caller]
fn start(disk: &VolatileDisk, what: &str) -> i64 {
    let recovered = recover(&dirs(disk), &options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    whole(&recovered.state, what)
}

#[track_caller]
fn whole(state: &State, what: &str) -> i64 {
    let (last, nodes) = (state.last_zxid().0, view(state).nodes);
    let made = nodes.keys().filter(|path| path.starts_with("/n")).count() as i64;
    (1..=last).for_each(|zxid| assert!(nodes.contains_key(&format!("/n{zxid:x}")), "{what}: {zxid} of {last}"));
    assert_eq!(made, last, "{what}");
    last
}

/// Lets a process die at each change that its work makes to the disk, or at its end, and the power go, in several ways;
/// gives each disk that is left, with what the work came to.
fn at_each_change<T>(disk: &VolatileDisk, work: impl Fn(&VolatileDisk) -> T, check: impl Fn(&VolatileDisk, &T, &str)) {
    for n in 1.. {
        let dying = disk.fork();
        dying.at_change(n, Fault::Dies);
        let done = work(&dying);
        for seed in 0..LOSSES {
            let left = dying.fork();
            left.lose_power(&mut Random::new(n * LOSSES + seed));
            check(&left, &done, &format!("change {n}, loss {seed}"));
        }
        let left = dying.fork();
        left.restart();
        check(&left, &done, &format!("change {n}, the process alone"));
        if !dying.is_dead() {
            assert!(n > 1, "it changes something");
            return;
        }
    }
}

#[test]
fn what_was_synced_is_there_and_what_a_start_found_stays() {
    let fresh = with_log(0);
    at_each_change(
        &fresh,
        |disk| log(&dirs(disk), 1..=14).0,
        |disk, synced, what| {
            let left = disk.fork();
            let found = start(&left, what);
            assert!((*synced..=14).contains(&found), "{what}: {found}, {synced} were synced");
            // A client has read it.
            for seed in 0..LOSSES {
                let again = left.fork();
                again.lose_power(&mut Random::new(seed));
                assert_eq!(start(&again, what), found, "{what}: after another loss");
            }
        },
    );
}

#[test]
fn a_start_that_dies_takes_nothing_from_the_next_one() {
    let fresh = with_log(0);
    // It died in the midst of its last batch.
    let all = fresh.fork();
    log(&dirs(&all), 1..=14).1.unwrap();
    fresh.at_change(all.changes() - fresh.changes() - 1, Fault::Dies);
    let (synced, _) = log(&dirs(&fresh), 1..=14);
    assert!(fresh.is_dead() && synced > 0, "{synced}");
    fresh.restart();
    at_each_change(
        &fresh,
        |disk| recover(&dirs(disk), &options()).map(|recovered| recovered.state.last_zxid().0).ok(),
        |disk, found, what| {
            let again = start(&disk.fork(), what);
            assert!(again >= found.unwrap_or(synced), "{what}: {again}, and before {found:?}");
        },
    );
}

#[test]
fn an_empty_database_is_begun_wherever_its_first_start_dies() {
    at_each_change(
        &empty(),
        |disk| recover(&dirs(disk), &options()).map(drop).ok(),
        |disk, _, what| {
            assert_eq!(start(disk, what), 0);
            log(&dirs(disk), 1..=3).1.unwrap();
            assert_eq!(start(disk, what), 3);
        },
    );
}

#[test]
fn after_a_sync_that_failed_nothing_is_served_that_the_disk_does_not_have() {
    let fresh = with_log(0);
    for n in 1.. {
        let disk = fresh.fork();
        disk.at_change(n, Fault::Fails(libc::EIO));
        let (synced, written) = log(&dirs(&disk), 1..=14);
        if disk.changes() < fresh.changes() + n {
            assert!(n > 10, "{n}");
            return;
        }
        if written.is_ok() {
            // Of a file that is full it is passed over if its padding stays.
            assert_eq!(synced, 14);
        }
        // The process ends; what the failed sync was for is still read.
        disk.restart();
        let found = start(&disk, &format!("change {n} failed"));
        assert!(found >= synced, "change {n}: {found} of {synced}");
        let more = log(&dirs(&disk), found + 1..=found + 4);
        more.1.unwrap();
        for seed in 0..LOSSES {
            let left = disk.fork();
            left.lose_power(&mut Random::new(seed));
            assert_eq!(start(&left, &format!("change {n} failed, loss {seed}")), found + 4);
        }
    }
}

#[test]
fn a_promise_to_a_leader_is_kept() {
    let disk = with_log(0);
    let open = |disk: &VolatileDisk| EpochFiles::open(&dirs(disk).snapshots, Zxid::ZERO);
    epochs::write_new(&dirs(&disk).snapshots, Epochs { accepted: 3, current: 3 }).unwrap();
    let work = |disk: &VolatileDisk| {
        let mut promised = Epochs { accepted: 3, current: 3 };
        let Ok(mut files) = open(disk) else { return promised };
        for epoch in 4..=6 {
            if files.set_accepted(epoch).is_err() {
                return promised;
            }
            promised.accepted = epoch;
            if files.set_current(epoch).is_err() {
                return promised;
            }
            promised.current = epoch;
        }
        promised
    };
    at_each_change(&disk, work, |disk, promised, what| {
        let found = open(disk).unwrap_or_else(|error| panic!("{what}: {error}")).epochs();
        assert!(found.accepted >= promised.accepted && found.current >= promised.current, "{what}: {found:?}");
        assert!(found.accepted <= 6 && found.current <= found.accepted, "{what}: {found:?}");
    });
}

#[test]
fn a_learner_may_die_between_the_records_of_an_epoch_and_the_epoch() {
    let disk = with_log(0);
    epochs::write_new(&dirs(&disk).snapshots, Epochs { accepted: 1, current: 0 }).unwrap();
    let first = 1 << 32 | 1;
    let work = |disk: &VolatileDisk| {
        let mut files = EpochFiles::open(&dirs(disk).snapshots, Zxid::ZERO)?;
        files.announce(Zxid(first))?;
        let mut writer = LogWriter::new(Logs { dirs: dirs(disk), made: 0 }, true, None);
        if append(&mut writer, first).and_then(|()| writer.sync()).is_ok() {
            files.set_current(1)?;
        }
        Ok::<(), epochs::EpochError>(())
    };
    at_each_change(&disk, work, |disk, _, what| {
        let recovered = recover(&dirs(disk), &options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let last = recovered.state.last_zxid();
        let found = EpochFiles::open(&dirs(disk).snapshots, last).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(found.epochs().current >= last.epoch(), "{what}");
    });
}

/// What the snapshot thread is told to write a state.
fn snapshot_mail(state: &mut State) -> Vec<ToSnapshot> {
    let (zxid, digest) = (state.last_zxid(), state.promised_digest());
    let mut mail = vec![ToSnapshot::Begin { zxid }, ToSnapshot::Chunk(state.begin_cut().into())];
    let mut is_last = false;
    while !is_last {
        let (bytes, last) = state.cut_slice(usize::MAX);
        mail.push(ToSnapshot::Chunk(bytes.into()));
        is_last = last;
    }
    mail.extend([ToSnapshot::Finish { digest }, ToSnapshot::Stop]);
    mail
}

/// Writes a snapshot as the thread does; whether it said that it is there.
fn write_snapshot(disk: &VolatileDisk, state: &mut State) -> bool {
    let (to, from) = unbounded();
    snapshot_mail(state).into_iter().for_each(|mail| to.send(mail).unwrap());
    let config = SnapshotConfig {
        dirs: dirs(disk),
        method: Compression::None,
        last_section: true,
        purge_every_ms: None,
        retain: 3,
        damaged: false,
    };
    let mut said = Vec::new();
    snapshot::run(&config, &from, |mail| said.extend(mail));
    said.iter().any(|mail| format!("{mail:?}").contains("SnapshotDone"))
}

fn state_of(disk: &VolatileDisk) -> State {
    recover(&dirs(&disk.fork()), &options()).unwrap().state
}

#[test]
fn a_snapshot_that_is_being_written_takes_nothing_away() {
    let disk = with_log(10);
    // One of the same transaction is there, too, the second time.
    for _ in 0..2 {
        at_each_change(
            &disk,
            |disk| write_snapshot(disk, &mut state_of(&with_log(10))),
            |disk, done, what| {
                let names: Vec<PathBuf> = disk.contents().into_keys().collect();
                assert!(!done || names.contains(&PathBuf::from("/data/version-2/snapshot.a")), "{what}: {names:?}");
                assert_eq!(start(disk, what), 10);
            },
        );
        assert!(write_snapshot(&disk, &mut state_of(&disk)));
    }
}

#[test]
fn a_state_that_is_installed_is_the_old_one_or_the_new_one() {
    // The leader's: another history, that ends with 20.
    let leader = with_log(20);
    for dropped in [Dropped::Contained, Dropped::Unproven] {
        let work = |disk: &VolatileDisk| {
            prepare_install(&dirs(disk), Zxid(20), dropped, RECORD_BYTES_MAX).ok()?;
            if !write_snapshot(disk, &mut state_of(&leader)) {
                return None;
            }
            finish_install(&dirs(disk), Zxid(20)).ok()
        };
        at_each_change(&with_log(10), work, |disk, done, what| {
            let found = start(disk, what);
            assert!(found == 20 || (found == 10 && done.is_none()), "{what}: {found}");
            // And it goes on from there.
            log(&dirs(disk), found + 1..=found + 2).1.unwrap();
            assert_eq!(start(disk, what), found + 2);
        });
    }
}

#[test]
fn a_history_that_is_truncated_is_a_beginning_of_it_with_what_was_to_stay() {
    let disk = with_log(14);
    for (to, dropped) in [(0, Dropped::Contained), (5, Dropped::Tail), (9, Dropped::Contained), (13, Dropped::Tail)] {
        let work = |disk: &VolatileDisk| truncate(&dirs(disk), Zxid(to), dropped, RECORD_BYTES_MAX).ok();
        at_each_change(&disk, work, |disk, done, what| {
            let found = start(disk, what);
            assert!((to..=14).contains(&found) && (done.is_none() || found == to), "to {to}, {what}: {found}");
            log(&dirs(disk), found + 1..=found + 2).1.unwrap();
            assert_eq!(start(disk, what), found + 2);
        });
    }
}

#[test]
fn purging_takes_nothing_that_a_start_needs() {
    let disk = with_log(0);
    for last in [4, 8, 12, 16, 20] {
        log(&dirs(&disk), last - 3..=last).1.unwrap();
        assert!(write_snapshot(&disk, &mut state_of(&disk)));
    }
    let names = |disk: &VolatileDisk| disk.contents().into_keys().collect::<Vec<_>>();
    let work = |disk: &VolatileDisk| -> io::Result<usize> {
        let dirs = dirs(disk);
        let mut removals = Removals::new(dirs.files());
        let gone = removals.purge(&dirs, 3, &prove_newest(&dirs, 3)?)?;
        while !removals.is_empty() {
            removals.step()?;
        }
        Ok(gone)
    };
    at_each_change(&disk, work, |disk, gone, what| {
        assert!(gone.as_ref().map_or(true, |gone| *gone > 2), "{what}: {gone:?}");
        assert_eq!(start(disk, what), 20);
        // The newest snapshots may rot later: those that stay suffice.
        let newest = names(disk).into_iter().filter(|path| path.ends_with("snapshot.14")).collect::<Vec<_>>();
        newest.iter().for_each(|path| disk.rot(path, |bytes| bytes[20] ^= 1));
        assert_eq!(start(disk, what), 20);
    });
}

#[test]
fn a_disk_that_is_full_loses_nothing_that_was_synced() {
    let fresh = with_log(0);
    let bytes: u64 = fresh.contents().values().map(|content| content.len() as u64).sum();
    let mut refused = 0;
    for room in (0..6000).step_by(97) {
        let disk = fresh.fork();
        disk.set_capacity(Some(bytes + room));
        let (synced, written) = log(&dirs(&disk), 1..=14);
        refused += u64::from(written.is_err());
        disk.restart();
        let found = recover(&dirs(&disk), &options());
        if let Err(error) = &found {
            assert!(matches!(error, RecoverError::Io { .. } | RecoverError::Dir { .. }), "{room}: {error}");
        }
        disk.set_capacity(None);
        disk.lose_power(&mut Random::new(room));
        assert!(start(&disk, &format!("{room} bytes of room")) >= synced);
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn what_rots_behind_a_sync_is_told_and_not_passed_over() {
    let disk = with_log(14);
    let logs: BTreeMap<PathBuf, Vec<u8>> =
        disk.contents().into_iter().filter(|(path, _)| path.to_string_lossy().contains("/log.")).collect();
    let (path, content) = logs.first_key_value().unwrap();
    for at in (20..content.len() - 20).step_by(37) {
        let rotten = disk.fork();
        rotten.rot(path, |bytes| bytes[at] ^= 0x10);
        let error = recover(&dirs(&rotten), &options()).map(|found| found.state.last_zxid()).unwrap_err();
        assert!(error.to_string().contains("log.1"), "{at}: {error}");
        let repairable = RecoverOptions { repairable: true, ..options() };
        let found = recover(&dirs(&rotten), &repairable).unwrap();
        assert!(found.damage.is_some() && found.state.last_zxid() < Zxid(14), "{at}");
    }
}
