//! What is there when the power comes back: everything that anybody was told of, whatever the process was doing, and
//! whatever of its unsynced work reached the disk. The real code of `storage` and of the snapshot thread runs on a disk that
//! forgets ([`volatile`]), which lets the process die at each of its changes.
//!
//! And each sync is proved: a disk that passes over one of them must lose something ([`Course::needs_every_sync`]), or the
//! sync is named here, with the reason why it is there all the same.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

#[path = "support/plain_logs.rs"]
mod plain_logs;
#[path = "simulation/random.rs"]
#[allow(dead_code, reason = "the simulation's part")]
mod random;
mod support;
#[path = "support/volatile.rs"]
#[allow(dead_code, reason = "the simulation has its part")]
mod volatile;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crossbeam_channel::unbounded;
use plain_logs::PlainLogs;
use random::Random;
use rookeeper::config::voters::Configs;
use rookeeper::config::{Compression, Members};
use rookeeper::engine::snapshots::{RETRY_MS_MIN, SnapshotConfig};
use rookeeper::ids::{ServerId, Zxid};
use rookeeper::mail::{Dropped, LogRecord, Mail, ToPipeline, ToSnapshot};
use rookeeper::quorum::Epochs;
use rookeeper::state::State;
use rookeeper::storage::config_files::ConfigFiles;
use rookeeper::storage::dirs::DataDirs;
use rookeeper::storage::epochs::{self, EpochError, EpochFiles};
use rookeeper::storage::logdir;
use rookeeper::storage::purge::{Removals, verify_newest};
use rookeeper::storage::recover::{RecoverError, RecoverOptions, recover};
use rookeeper::storage::truncate::{finish_install, prepare_install, truncate};
use rookeeper::storage::writer::LogWriter;
use rookeeper::threads::snapshot;
use support::{options, txn, view};
use volatile::{Fault, SYNC, SYNC_NAMES, VolatileDisk};

const RECORD_BYTES_MAX: usize = 1 << 20;
/// Losses of power that are tried at each place: which of what was not synced is there differs.
const LOSSES: u64 = 6;
/// Room of a log file: a few records.
const LOG_BYTES: usize = 1000;

fn dirs(disk: &VolatileDisk) -> DataDirs {
    DataDirs::within(&disk.files(), Path::new("/data"), None)
}

/// A server's disk that was never written.
fn empty() -> VolatileDisk {
    VolatileDisk::new(&["/data"])
}

fn append(writer: &mut LogWriter<PlainLogs>, zxid: i64) -> io::Result<()> {
    writer.append(&LogRecord { zxid: Zxid(zxid), payload: txn(zxid, 100).to_bytes() })
}

/// Logs these transactions, some in each sync; gives the last that was synced.
fn log(dirs: &DataDirs, zxids: std::ops::RangeInclusive<i64>) -> (i64, io::Result<()>) {
    let mut writer = LogWriter::new(PlainLogs::new(dirs, LOG_BYTES), true, None);
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

/// What a start finds: its last transaction. Every one up to there is in the state, and nothing else.
fn start(disk: &VolatileDisk) -> Result<i64, String> {
    let recovered = recover(&dirs(disk), &options()).map_err(|error| error.to_string())?;
    let (last, nodes) = (recovered.state.last_zxid().0, view(&recovered.state).nodes);
    let made = nodes.keys().filter(|path| path.starts_with("/n")).count() as i64;
    let lacking = (1..=last).find(|zxid| !nodes.contains_key(&format!("/n{zxid:x}")));
    match lacking {
        None if made == last => Ok(last),
        _ => Err(format!("{made} nodes of {last} are there, {lacking:?} is not")),
    }
}

/// The server goes on: what it logs from here on is found, too.
fn go_on(disk: &VolatileDisk) -> Result<(), String> {
    let found = start(disk)?;
    log(&dirs(disk), found + 1..=found + 2).1.map_err(|error| error.to_string())?;
    ensure(start(disk)? == found + 2, || format!("what was logged behind {found} is not found"))
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

type Work<T> = Box<dyn Fn(&VolatileDisk) -> T>;
type Check<T> = Box<dyn Fn(&VolatileDisk, &T) -> Result<(), String>>;

/// Something that a server does, and what must be true wherever it ends.
struct Course<T> {
    disk: VolatileDisk,
    /// Gives what somebody was told of.
    work: Work<T>,
    check: Check<T>,
}

impl<T> Course<T> {
    /// Lets the process die at each change that it makes, or at its end, and the power go, in several ways. The first thing
    /// that is wrong then. Before the process begins, `lie` may prepare the disk for it.
    fn violation(&self, lie: &dyn Fn(&VolatileDisk)) -> Option<String> {
        for n in 1.. {
            let dying = self.disk.fork();
            dying.at_change(n, Fault::Dies);
            lie(&dying);
            let told = (self.work)(&dying);
            let is_end = (dying.changes().len() as u64) < self.disk.changes().len() as u64 + n;
            let at = dying.changes().pop();
            for loss in 0..=LOSSES {
                let left = dying.fork();
                match loss {
                    LOSSES => left.restart(),
                    _ => left.lose_power(&mut Random::new(n * LOSSES + loss)),
                }
                if let Err(why) = (self.check)(&left, &told) {
                    return Some(format!("it ends in change {n} ({at:?}), loss {loss}: {why}"));
                }
            }
            if is_end {
                return None;
            }
        }
        None
    }

    #[track_caller]
    fn holds(&self) {
        assert_eq!(self.violation(&|_| ()), None);
    }

    /// A disk that never syncs files, or never the names in folders, loses something.
    #[track_caller]
    fn needs_syncs(&self) {
        for what in [SYNC, SYNC_NAMES] {
            let found = self.violation(&|disk| disk.lie_about(what));
            assert!(found.is_some(), "nothing is lost where no {what} is done");
        }
    }

    /// A disk that passes over any one of its syncs loses something; but for these, of which each has another reason.
    #[track_caller]
    fn needs_every_sync(&self, but: &[&str]) {
        let all = self.disk.fork();
        let before = all.changes().len();
        (self.work)(&all);
        let changes = all.changes().split_off(before);
        let syncs = changes.iter().enumerate().filter(|(_, change)| change.is_sync());
        let unneeded: Vec<String> = syncs
            .filter(|(at, _)| self.violation(&|disk| disk.at_change(*at as u64 + 1, Fault::Lied)).is_none())
            .map(|(at, change)| format!("{at}: {} {}", change.what, change.path.display()))
            .collect();
        assert_eq!(unneeded, but);
    }
}

/// A server logs transactions, three in each sync, over several files.
fn logging() -> Course<i64> {
    Course {
        disk: with_log(0),
        work: Box::new(|disk| log(&dirs(disk), 1..=14).0),
        check: Box::new(|disk, synced| {
            let found = start(disk)?;
            ensure((*synced..=14).contains(&found), || format!("{found} is found, {synced} was synced"))?;
            // A client has read it.
            for seed in 0..LOSSES {
                let again = disk.fork();
                again.lose_power(&mut Random::new(seed));
                let after = start(&again)?;
                ensure(after == found, || format!("{found} was found, and {after} after another loss"))?;
            }
            go_on(disk)
        }),
    }
}

#[test]
fn what_was_synced_is_there_and_what_a_start_found_stays() {
    logging().holds();
    logging().needs_every_sync(&[]);
}

/// A server starts, after the sync of its last batch failed.
fn starting() -> Course<Option<i64>> {
    let (disk, all) = (with_log(0), with_log(0));
    let before = all.changes().len();
    log(&dirs(&all), 1..=14).1.unwrap();
    let last = all.changes().iter().rposition(|change| change.what == SYNC).unwrap();
    disk.at_change((last + 1 - before) as u64, Fault::Fails(libc::EIO));
    let (synced, written) = log(&dirs(&disk), 1..=14);
    assert!(written.is_err() && synced > 0, "{synced}");
    disk.restart();
    Course {
        disk,
        work: Box::new(|disk| recover(&dirs(disk), &options()).map(|recovered| recovered.state.last_zxid().0).ok()),
        check: Box::new(move |disk, served| {
            let (found, least) = (start(disk)?, served.unwrap_or(synced));
            ensure(found >= least, || format!("{found} is found, and {least} was before"))?;
            go_on(disk)
        }),
    }
}

#[test]
fn a_start_that_dies_takes_nothing_from_the_next_one() {
    starting().holds();
    starting().needs_every_sync(&[
        // A server of Apache may have left them unsynced.
        "0: sync /data/version-2/snapshot.0",
        "1: sync names in /data/version-2",
        // Its padding; what is read again is cut again.
        "3: sync /data/version-2/log.b",
        // The sync that failed was for the newest log alone, which need not be so.
        "5: sync /data/version-2/log.1",
        "7: sync /data/version-2/log.6",
        // This server gives no log a name that is not durable; Apache's may.
        "10: sync names in /data/version-2",
    ]);
}

#[test]
fn an_empty_database_is_begun_wherever_its_first_start_dies() {
    let course = Course {
        disk: empty(),
        work: Box::new(|disk| recover(&dirs(disk), &options()).is_ok()),
        check: Box::new(|disk, _| {
            let found = start(disk)?;
            ensure(found == 0, || format!("{found} is found"))?;
            go_on(disk)
        }),
    };
    course.holds();
}

#[test]
fn after_a_sync_that_failed_nothing_is_served_that_the_disk_does_not_have() {
    let fresh = with_log(0);
    for n in 1.. {
        let disk = fresh.fork();
        disk.at_change(n, Fault::Fails(libc::EIO));
        let (synced, written) = log(&dirs(&disk), 1..=14);
        if (disk.changes().len() as u64) < fresh.changes().len() as u64 + n {
            assert!(n > 10, "{n}");
            return;
        }
        if written.is_ok() {
            // Of a file that is full it is passed over if its padding stays.
            assert_eq!(synced, 14);
        }
        // The process ends; what the failed sync was for is still read.
        disk.restart();
        let found = start(&disk).unwrap_or_else(|error| panic!("change {n} failed: {error}"));
        assert!(found >= synced, "change {n}: {found} of {synced}");
        log(&dirs(&disk), found + 1..=found + 4).1.unwrap();
        for seed in 0..LOSSES {
            let left = disk.fork();
            left.lose_power(&mut Random::new(seed));
            assert_eq!(start(&left), Ok(found + 4), "change {n} failed, loss {seed}");
        }
    }
}

/// What a start settles, since a server of Apache may have left it unsynced; here it is not.
const EPOCHS_SETTLED: [&str; 4] = [
    "0: sync /data/version-2/acceptedEpoch",
    "1: sync names in /data/version-2",
    "2: sync /data/version-2/currentEpoch",
    "3: sync names in /data/version-2",
];

/// A server joins leaders of later and later epochs.
fn promising() -> Course<Epochs> {
    let begin = Epochs { accepted: 3, current: 3 };
    let disk = with_log(0);
    epochs::write_new(&dirs(&disk).snapshots, begin).unwrap();
    let open = |disk: &VolatileDisk| EpochFiles::open(&dirs(disk).snapshots, Zxid::ZERO);
    Course {
        disk,
        work: Box::new(move |disk| {
            let mut promised = begin;
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
        }),
        check: Box::new(move |disk, promised| {
            let found = open(disk).map_err(|error| error.to_string())?.epochs();
            let keeps = found.accepted >= promised.accepted && found.current >= promised.current;
            ensure(keeps && found.accepted <= 6 && found.current <= found.accepted, || {
                format!("{found:?} is found, and {promised:?} was promised")
            })
        }),
    }
}

#[test]
fn a_promise_to_a_leader_is_kept() {
    promising().holds();
    promising().needs_every_sync(&EPOCHS_SETTLED);
}

/// A learner logs the first transaction of its leader's epoch, and only then may say that it has joined that. Its first
/// leader is gone before it could. Gives the epochs of the last transaction that was synced, and of the one joined last.
fn joining() -> Course<(u32, u32)> {
    let dirs = |disk: &VolatileDisk| DataDirs::within(&disk.files(), Path::new("/data"), Some(Path::new("/logs")));
    let join = move |disk: &VolatileDisk, told: &mut (u32, u32)| -> Result<(), String> {
        let text = |error: EpochError| error.to_string();
        let mut files = EpochFiles::open(&dirs(disk).snapshots, Zxid::ZERO).map_err(text)?;
        for epoch in 1..=2 {
            let first = i64::from(epoch) << 32 | 1;
            files.announce(Zxid(first)).map_err(text)?;
            let mut writer = LogWriter::new(PlainLogs::new(&dirs(disk), LOG_BYTES), true, None);
            append(&mut writer, first).and_then(|()| writer.sync()).map_err(|error| error.to_string())?;
            told.0 = epoch;
        }
        files.set_current(2).map_err(text)?;
        told.1 = 2;
        Ok(())
    };
    let disk = VolatileDisk::new(&["/data", "/logs"]);
    recover(&dirs(&disk), &options()).unwrap();
    epochs::write_new(&dirs(&disk).snapshots, Epochs { accepted: 2, current: 0 }).unwrap();
    Course {
        disk,
        work: Box::new(move |disk| {
            let mut told = (0, 0);
            // It dies, and says no more.
            let _ = join(disk, &mut told);
            told
        }),
        check: Box::new(move |disk, (logged, joined)| {
            let last = recover(&dirs(disk), &options()).map_err(|error| error.to_string())?.state.last_zxid();
            let found = EpochFiles::open(&dirs(disk).snapshots, last).map_err(|error| error.to_string())?.epochs();
            let keeps = last.epoch() >= *logged && found.current >= last.epoch().max(*joined);
            ensure(keeps, || format!("{last} and {found:?} are found, {logged} was logged, {joined} joined"))
        }),
    }
}

#[test]
fn a_learner_may_die_between_the_records_of_an_epoch_and_the_epoch() {
    joining().holds();
    let [accepted, its_name, current, name_of_that] = EPOCHS_SETTLED;
    joining().needs_every_sync(&[
        accepted,
        its_name,
        current,
        name_of_that,
        // That it is there says enough, as where a server of Apache made it.
        "6: sync /data/version-2/unfinished-epoch",
        // What was announced and logged says as much.
        "27: sync names in /data/version-2",
    ]);
}

/// What the snapshot thread is told to write a state.
fn snapshot_mail(state: &mut State) -> Vec<ToSnapshot> {
    let (zxid, digest) = (state.last_zxid(), state.promised_digest());
    let mut mail = vec![ToSnapshot::Begin { zxid }, ToSnapshot::Chunk(state.begin_cut())];
    let mut is_last = false;
    while !is_last {
        let (bytes, last) = state.cut_slice(usize::MAX);
        mail.push(ToSnapshot::Chunk(bytes));
        is_last = last;
    }
    mail.push(ToSnapshot::Finish { digest });
    mail
}

/// Writes a snapshot as the thread does; whether it said that it is there.
fn write_snapshot(disk: &VolatileDisk, state: &mut State) -> bool {
    let (to, from) = unbounded();
    snapshot_mail(state).into_iter().for_each(|mail| to.send(mail).unwrap());
    drop(to);
    let config = SnapshotConfig {
        dirs: dirs(disk),
        method: Compression::None,
        last_section: true,
        purge_every_ms: None,
        retain: 3,
        retry_ms_min: RETRY_MS_MIN,
        damaged: false,
    };
    let mut said = Vec::new();
    snapshot::run(&config, &from, |mail| said.extend(mail));
    said.iter().any(|mail| matches!(mail, Mail::Pipeline(ToPipeline::SnapshotDone { .. })))
}

fn state_of(disk: &VolatileDisk) -> State {
    recover(&dirs(&disk.fork()), &options()).unwrap().state
}

#[test]
fn a_snapshot_that_is_being_written_takes_nothing_away() {
    let disk = with_log(10);
    // One of the same transaction is there, too, the second time.
    for _ in 0..2 {
        let course = Course {
            disk: disk.fork(),
            work: Box::new(|disk| write_snapshot(disk, &mut state_of(&with_log(10)))),
            check: Box::new(|disk, done| {
                let is_there = disk.contents().contains_key(Path::new("/data/version-2/snapshot.a"));
                ensure(!done || is_there, || "it is not there".to_owned())?;
                let found = start(disk)?;
                ensure(found == 10, || format!("{found} is found"))
            }),
        };
        course.holds();
        assert!(write_snapshot(&disk, &mut state_of(&disk)));
    }
}

/// A learner's history is replaced by a state as of another leader's transaction 20.
fn installing(dropped: Dropped) -> Course<bool> {
    let leader = with_log(20);
    Course {
        disk: with_log(10),
        work: Box::new(move |disk| {
            prepare_install(&dirs(disk), Zxid(20), dropped, RECORD_BYTES_MAX).is_ok()
                && write_snapshot(disk, &mut state_of(&leader))
                && finish_install(&dirs(disk), Zxid(20)).is_ok()
        }),
        check: Box::new(|disk, done| {
            let found = start(disk)?;
            ensure(found == 20 || (found == 10 && !done), || format!("{found} is found"))?;
            go_on(disk)
        }),
    }
}

#[test]
fn a_state_that_is_installed_is_the_old_one_or_the_new_one() {
    [Dropped::Contained, Dropped::Unproven].into_iter().for_each(|dropped| installing(dropped).holds());
    installing(Dropped::Contained).needs_syncs();
}

fn truncating(to: i64, dropped: Dropped) -> Course<bool> {
    Course {
        disk: with_log(14),
        work: Box::new(move |disk| truncate(&dirs(disk), Zxid(to), dropped, RECORD_BYTES_MAX).is_ok()),
        check: Box::new(move |disk, done| {
            let found = start(disk)?;
            ensure((to..=14).contains(&found) && (!done || found == to), || format!("{found} is found"))?;
            go_on(disk)
        }),
    }
}

#[test]
fn a_history_that_is_truncated_is_a_beginning_of_it_with_what_was_to_stay() {
    for to in [0, 5, 7, 13] {
        [Dropped::Contained, Dropped::Tail].into_iter().for_each(|dropped| truncating(to, dropped).holds());
    }
    truncating(7, Dropped::Tail).needs_syncs();
}

/// The transactions that the files of a folder hold, and those that were set aside from it.
fn readable(disk: &VolatileDisk) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    for path in disk.contents().into_keys().filter(|path| path.to_string_lossy().contains("/log.")) {
        let Ok(mut log) = logdir::LogFile::open(&disk.files(), path, RECORD_BYTES_MAX) else { continue };
        while let Ok(Some(entry)) = log.next_entry() {
            found.insert(entry.txn.header.zxid.0);
        }
    }
    found
}

#[test]
fn what_is_set_aside_is_in_one_of_the_two_places() {
    for (to, dropped) in [(0, Dropped::Tail), (7, Dropped::Tail), (9, Dropped::Unproven)] {
        let course = Course {
            check: Box::new(|disk, _| {
                let lacking: Vec<i64> = (1..=14).filter(|zxid| !readable(disk).contains(zxid)).collect();
                ensure(lacking.is_empty(), || format!("{lacking:?} are nowhere"))
            }),
            ..truncating(to, dropped)
        };
        course.holds();
        // Files that are only moved were durable before; the rest of one that is cut is copied.
        assert!(to != 7 || course.violation(&|disk| disk.lie_about(SYNC)).is_some());
    }
}

#[test]
fn purging_takes_nothing_that_a_start_needs() {
    let disk = with_log(0);
    for last in [4, 8, 12, 16, 20] {
        log(&dirs(&disk), last - 3..=last).1.unwrap();
        assert!(write_snapshot(&disk, &mut state_of(&disk)));
    }
    let purge = |disk: &VolatileDisk| -> io::Result<usize> {
        let dirs = dirs(disk);
        let mut removals = Removals::new(dirs.files());
        let gone = removals.purge(&dirs, 3, &verify_newest(&dirs, 3)?)?;
        while !removals.is_empty() {
            removals.step()?;
        }
        Ok(gone)
    };
    let course = Course {
        disk,
        work: Box::new(purge),
        check: Box::new(|disk, gone| {
            ensure(gone.as_ref().map_or(true, |gone| *gone > 2), || format!("{gone:?} have gone"))?;
            let found = start(disk)?;
            ensure(found == 20, || format!("{found} is found"))?;
            // The newest snapshot may rot later: those that stay suffice.
            disk.rot(Path::new("/data/version-2/snapshot.14"), |bytes| bytes[20] ^= 1);
            let found = start(disk)?;
            ensure(found == 20, || format!("{found} is found without the newest snapshot"))
        }),
    };
    course.holds();
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
        if let Err(error) = recover(&dirs(&disk), &options()) {
            assert!(matches!(error, RecoverError::Io { .. } | RecoverError::Dir { .. }), "{room}: {error}");
        }
        disk.set_capacity(None);
        disk.lose_power(&mut Random::new(room));
        let found = start(&disk).unwrap_or_else(|error| panic!("{room} bytes of room: {error}"));
        assert!(found >= synced, "{room} bytes of room: {found} of {synced}");
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn what_rots_behind_a_sync_is_told_and_not_passed_over() {
    let disk = with_log(14);
    let path = Path::new("/data/version-2/log.1");
    for at in (20..disk.contents()[path].len() - 20).step_by(37) {
        let rotten = disk.fork();
        rotten.rot(path, |bytes| bytes[at] ^= 0x10);
        let error = recover(&dirs(&rotten), &options()).map(|found| found.state.last_zxid()).unwrap_err();
        assert!(error.to_string().contains("log.1"), "{at}: {error}");
        let repairable = RecoverOptions { repairable: true, ..options() };
        let found = recover(&dirs(&rotten), &repairable).unwrap();
        assert!(found.damage.is_some() && found.state.last_zxid() < Zxid(14), "{at}");
    }
}

/// A log whose tail holds readable records is copied before it is cut, and what says that something is to be done goes once it
/// is done: neither may be said to be done before it is durable.
#[test]
fn what_was_copied_or_removed_is_so_after_the_power_went() {
    let (from, to) = (Path::new("/data/log.1"), Path::new("/data/uncut-log.1"));
    let bytes: Vec<u8> = (0..3000_u32).map(|at| at as u8 | 1).collect();
    let disk = empty();
    disk.files().write_durably(from, &bytes).unwrap();
    disk.files().sync_dir(Path::new("/data")).unwrap();
    let copying = Course {
        disk: disk.fork(),
        work: Box::new(|disk| disk.files().copy_durably(from, to).is_ok()),
        check: Box::new(move |disk, done| {
            let found = disk.contents();
            ensure(found.get(from) == Some(&bytes), || "what was copied has changed".to_owned())?;
            ensure(!done || found.get(to) == Some(&bytes), || "the copy is not what was copied".to_owned())
        }),
    };
    copying.holds();
    copying.needs_every_sync(&[]);
    let removing = Course {
        disk,
        work: Box::new(|disk| disk.files().remove_durably(from).is_ok()),
        check: Box::new(|disk, done| {
            let is_there = disk.contents().contains_key(from);
            ensure(!done || !is_there, || "what was removed is there again".to_owned())
        }),
    };
    removing.holds();
    removing.needs_every_sync(&[]);
}

/// Who wrote the files of the members may have ended before they were durable.
#[test]
fn a_list_of_members_is_durable_before_a_server_takes_part_by_it() {
    let members = |version: &str| {
        let list = format!("server.1=a:1:2;7\nserver.2=b:1:2\nserver.3=c:1:2\nversion={version}");
        Members::parse_text(list.as_bytes()).unwrap()
    };
    let zoo_cfg = Path::new("/conf/zoo.cfg");
    let configs = |version| Configs { committed: members(version), last_seen: None, reconfig_enabled: true };
    let config_files = |disk: &VolatileDisk, version| {
        let own = members(version).servers[&1].clone();
        ConfigFiles::new(&disk.files(), zoo_cfg, ServerId(1), own, configs(version))
    };
    for lie in [SYNC, SYNC_NAMES] {
        let disk = VolatileDisk::new(&["/conf"]);
        disk.files()
            .write_durably(zoo_cfg, b"dataDir=/data\nserver.1=a:1:2;7\nserver.2=b:1:2\nserver.3=c:1:2\n")
            .unwrap();
        disk.files().sync_dir(Path::new("/conf")).unwrap();
        disk.lie_about(lie);
        config_files(&disk, "100000000").save(&configs("100000001")).unwrap();
        disk.restart();
        let said = |disk: &VolatileDisk| {
            let read = |name: &str| disk.files().read(&Path::new("/conf").join(name)).ok();
            [read("zoo.cfg"), read("zoo.cfg.dynamic.100000001")]
        };
        let before = said(&disk);
        assert!(before.iter().all(Option::is_some));
        let is_lost = |disk: &VolatileDisk, seed| {
            let left = disk.fork();
            left.lose_power(&mut Random::new(seed));
            said(&left) != before
        };
        assert!((0..LOSSES).any(|seed| is_lost(&disk, seed)), "{lie}: there is something to be made durable");
        config_files(&disk, "100000001").make_durable().unwrap();
        assert!(!(0..LOSSES).any(|seed| is_lost(&disk, seed)), "{lie}");
    }
}

/// A server that took part by a list which the disk then loses would vote by another one the next time.
#[test]
fn a_list_of_members_that_cannot_be_made_durable_is_not_taken() {
    let members = |version: &str| {
        let list = format!("server.1=a:1:2;7\nserver.2=b:1:2\nversion={version}");
        Members::parse_text(list.as_bytes()).unwrap()
    };
    let (zoo_cfg, committed) = (Path::new("/conf/zoo.cfg"), members("100000000"));
    let own = committed.servers[&1].clone();
    let configs = Configs { committed, last_seen: Some(members("100000001")), reconfig_enabled: true };
    let disk = VolatileDisk::new(&["/conf"]);
    for name in ["zoo.cfg", "zoo.cfg.dynamic.100000000", "zoo.cfg.dynamic.next"] {
        disk.files().write_durably(&Path::new("/conf").join(name), b"a list").unwrap();
    }
    let settle = |n: u64, number: i32| {
        let disk = disk.fork();
        disk.at_change(n, Fault::Fails(number));
        ConfigFiles::new(&disk.files(), zoo_cfg, ServerId(1), own.clone(), configs.clone()).make_durable()
    };
    // Each of the three files, and its name.
    for n in 1..=6 {
        let error = settle(n, libc::EIO).expect_err("a sync failed").to_string();
        assert!(error.starts_with("/conf/zoo.cfg") && error.contains("dmesg"), "{n}: {error}");
        // Where this server may not write, somebody else wrote them.
        settle(n, libc::EROFS).unwrap();
    }
    settle(7, libc::EIO).expect("there is no seventh");
}
