//! Histories that are cut or replaced, as a learner's are when its leader says so: wherever a crash strikes, the server
//! comes back with a history that was one once, and never with records of an old one on top of a new one.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test where it stands")]

mod support;

use std::fs;
use std::ops::RangeInclusive;

use rookeeper::ids::{ServerId, Zxid};
use rookeeper::mail::{Dropped, LogRecord};
use rookeeper::quorum::{Epochs, Foreign, JoinStage, LogPart, WrongJoin};
use rookeeper::state::State;
use rookeeper::storage::epochs::{self, EpochFiles};
use rookeeper::storage::foreign;
use rookeeper::storage::logdir::{LogFile, ReadBack, read_part};
use rookeeper::storage::names;
use rookeeper::storage::recover::{RecoverError, RecoverOptions, Recovered, recover};
use rookeeper::storage::replaced;
use rookeeper::storage::truncate::{
    Step, TruncateError, finish_install, plan_finish_install, plan_prepare_install, plan_truncate, prepare_install,
    truncate,
};
use rookeeper::storage::txnlog;
use rookeeper::storage::writer::LogWriter;
use rookeeper::storage::wrong_join;
use rookeeper::sys::files::Files;
use rookeeper::threads::txnlog::MappedFiles;
use rookeeper::txn::{DIGEST_VERSION, Txn, TxnDigest};

use support::{DataDir, dir_with, log, options, record, txn, view, write_snapshot};

const RECORD_BYTES_MAX: usize = 1 << 20;
/// The last transaction of the history that is cut.
const LAST: i64 = 12;
/// The first transaction of the next epoch.
const NEXT_EPOCH: i64 = 1 << 32 | 1;

/// Transactions 1 to 12 in three logs, the last with padding, and snapshots as of 0, 6 and 10.
fn history() -> DataDir {
    let dir = dir_with(&[]);
    for (first, last, snapshot) in [(1, 4, None), (5, 8, Some(6)), (9, LAST, Some(10))] {
        if let Some(zxid) = snapshot {
            // As of then: with a log that ends there.
            let log_until = log(first..=zxid, |_| 20).0;
            let name = dir.file(&format!("log.{first:x}"));
            fs::write(&name, log_until).unwrap();
            write_snapshot(&dir, &mut dir.recover().unwrap().state);
        }
        let mut bytes = log(first..=last, |_| 20).0;
        bytes.resize(bytes.len() + if last == LAST { 4096 } else { 0 }, 0);
        fs::write(dir.file(&format!("log.{first:x}")), bytes).unwrap();
    }
    dir
}

fn as_of(dir: &DataDir, zxid: i64) -> Result<Recovered, RecoverError> {
    recover(&dir.dirs(), &RecoverOptions { as_of: Some(Zxid(zxid)), ..options() })
}

/// The first `n` steps, and then a crash.
fn take(steps: &[Step], n: usize) {
    steps[..n].iter().for_each(|step| step.take(&Files::host()).unwrap());
}

/// Checks that a state has the nodes of the old history up to its last transaction, and gives that.
#[track_caller]
fn beginning(state: &State) -> i64 {
    let last = state.last_zxid().0;
    let nodes = view(state).nodes;
    for zxid in 1..=LAST {
        assert_eq!(nodes.contains_key(&format!("/n{zxid:x}")), zxid <= last, "{zxid} of {last}");
    }
    last
}

#[test]
fn a_crash_in_a_truncation_leaves_a_beginning_that_holds_what_was_to_stay() {
    for to in 0..=LAST {
        let mut steps = 0;
        for crash in 0.. {
            let dir = history();
            let plan = plan_truncate(&dir.dirs(), Zxid(to), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
            take(&plan, crash);
            let last = beginning(&dir.recover().unwrap().state);
            assert!((to..=LAST).contains(&last), "to {to}, {crash} steps: {last}");
            // The leader says it again.
            truncate(&dir.dirs(), Zxid(to), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
            assert_eq!(beginning(&as_of(&dir, to).unwrap().state), to);
            let (next, _) = log(NEXT_EPOCH..=NEXT_EPOCH + 1, |_| 5);
            fs::write(dir.file(&format!("log.{NEXT_EPOCH:x}")), next).unwrap();
            let nodes = view(&dir.recover().unwrap().state).nodes;
            assert_eq!(nodes.keys().filter(|path| path.starts_with("/n")).count() as i64, to + 2);
            assert!(dir.files().keys().all(|name| !name.starts_with("removed-")));
            steps = plan.len();
            if crash == steps {
                break;
            }
        }
        assert!(steps > 0);
    }
}

#[test]
fn what_is_read_back_behind_a_truncation_is_what_was_logged_there_after_it() {
    let dir = history();
    let mut read_back = ReadBack::default();
    let mut read = |from, to, forgets: bool| {
        if forgets {
            read_back.forget();
        }
        let read = read_back.read(&dir.dirs().logs, Zxid(from), Zxid(to), RECORD_BYTES_MAX).unwrap();
        read.map(|records| records.into_iter().map(|record| record.payload).collect::<Vec<_>>())
    };
    let payloads = |zxids: RangeInclusive<i64>, bytes| Some(zxids.map(|zxid| txn(zxid, bytes).to_bytes()).collect());
    assert_eq!(read(3, 5, false), payloads(3..=5, 20));
    assert_eq!(read(6, 10, false), payloads(6..=10, 20), "it goes on where it was");
    truncate(&dir.dirs(), Zxid(10), Dropped::Tail, RECORD_BYTES_MAX).unwrap();
    fs::write(dir.file("log.b"), log(11..=LAST, |_| 7).0).unwrap();
    assert_eq!(read(11, LAST, true), payloads(11..=LAST, 7));
    assert_eq!(read(LAST, LAST + 1, false), None);
}

/// A snapshot has what they held: the server runs, whatever becomes of them.
#[test]
fn what_is_read_back_needs_no_file_in_front_of_the_one_that_begins_with_it() {
    let dir = history();
    fs::write(dir.file("log.5"), b"no log").unwrap();
    let read = |from, to| ReadBack::default().read(&dir.dirs().logs, Zxid(from), Zxid(to), RECORD_BYTES_MAX);
    let zxids = |records: Vec<LogRecord>| records.iter().map(|record| record.zxid.0).collect::<Vec<_>>();
    assert_eq!(read(9, 11).unwrap().map(zxids), Some(vec![9, 10, 11]));
    assert_eq!(read(10, 11).unwrap().map(zxids), Some(vec![10, 11]));
    assert!(read(8, 9).is_err(), "that one is needed");
}

/// The transactions of the old history that can be had with the files of these folders: those that are there, and those
/// that were moved.
fn reachable(dir: &DataDir) -> Vec<i64> {
    let whole = dir_with(&[]);
    let mut folders = vec![dir.version_2().to_path_buf()];
    for prefix in names::KEPT_PREFIXES {
        folders.extend(names::list_kept(&dir.version_2(), prefix).unwrap());
    }
    for folder in folders {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            // What was copied and then not cut is there twice, one of the two cut short.
            let to = whole.file(entry.file_name().to_str().unwrap());
            if fs::metadata(&to).map_or(0, |file| file.len()) < entry.metadata().unwrap().len() {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let mut zxids = Vec::new();
    for log in names::list_logs(&whole.version_2()).unwrap() {
        let mut file = LogFile::open(&Files::host(), log.path, RECORD_BYTES_MAX).unwrap();
        while let Some(entry) = file.next_entry().unwrap() {
            zxids.push(entry.txn.header.zxid.0);
        }
    }
    zxids.sort_unstable();
    zxids.dedup();
    zxids
}

#[test]
fn what_is_not_proven_to_be_elsewhere_is_always_in_one_of_two_places() {
    let all: Vec<i64> = (1..=LAST).collect();
    for (dropped, folder) in [(Dropped::Tail, "cut-8-c"), (Dropped::Unproven, "replaced-8-c")] {
        for crash in 0.. {
            let dir = history();
            let plan = plan_truncate(&dir.dirs(), Zxid(7), dropped, RECORD_BYTES_MAX).unwrap();
            take(&plan, crash);
            assert_eq!(reachable(&dir), all, "{crash} steps");
            // The leader says it again.
            truncate(&dir.dirs(), Zxid(7), dropped, RECORD_BYTES_MAX).unwrap();
            assert_eq!(reachable(&dir), all, "{crash} steps, and again");
            assert_eq!(beginning(&dir.recover().unwrap().state), 7);
            if crash == plan.len() {
                assert!(dir.file(folder).is_dir());
                let rest = fs::read(dir.file(folder).join("log.8.rest-of-log.5")).unwrap();
                assert_eq!(rest, log(8..=8, |_| 20).0);
                let moved: Vec<_> = fs::read_dir(dir.file(folder)).unwrap().map(|e| e.unwrap().file_name()).collect();
                assert_eq!(moved.len(), 3, "{moved:?}");
                assert!(fs::read(dir.file(folder).join("log.9")).unwrap().starts_with(&log(9..=LAST, |_| 20).0));
                assert!(dir.file(folder).join("snapshot.a").exists());
                break;
            }
        }
    }
}

#[test]
fn a_replaced_history_is_kept_whole_wherever_a_crash_strikes() {
    let all: Vec<i64> = (1..=LAST).collect();
    for zxid in [3, 6, 8, 10, LAST, NEXT_EPOCH + 8] {
        for crash in 0.. {
            let dir = history();
            fs::write(&dir.dirs().give_up, b"").unwrap();
            let Installed { has_snapshot, is_complete } = install_until(crash, &dir, zxid, Dropped::Unproven);
            assert_eq!(reachable(&dir), all, "{zxid}, {crash} steps");
            let state = dir.recover().unwrap().state;
            assert_eq!(reachable(&dir), all, "{zxid}, {crash} steps, and a start");
            if has_snapshot {
                assert_eq!(state.last_zxid(), Zxid(zxid));
                assert_eq!(dir.files().keys().collect::<Vec<_>>(), [&format!("snapshot.{zxid:x}")], "{crash} steps");
                assert!(!dir.dirs().give_up.exists(), "a consent is for one history");
            } else {
                assert_old_history(&state, zxid);
                assert!(dir.dirs().give_up.exists());
            }
            if is_complete {
                let folders = names::list_kept(&dir.version_2(), names::REPLACED_PREFIX).unwrap();
                assert_eq!(folders, [dir.file("replaced-1-c")]);
                // Put back, the files are what they were.
                let names = ["log.1", "log.5", "log.9", "snapshot.0", "snapshot.6", "snapshot.a"];
                names.iter().for_each(|name| assert!(folders[0].join(name).exists(), "{zxid}: {name}"));
                break;
            }
        }
    }
}

/// Before a state as of `zxid` is durable, the old history is as it was.
#[track_caller]
fn assert_old_history(state: &State, zxid: i64) {
    assert_eq!(beginning(state), LAST, "{zxid}");
}

/// The first transactions of it are this server's own, in epoch 0; from 9 on a leader with another history sent them, up to
/// the next epoch.
fn joined_to_another(last: i64) -> (DataDir, WrongJoin) {
    let dir = history();
    fs::write(dir.file(&format!("log.{NEXT_EPOCH:x}")), log(NEXT_EPOCH..=NEXT_EPOCH + 1, |_| 5).0).unwrap();
    epochs::write_new(&dir.version_2(), Epochs { accepted: 1, current: 1 }).unwrap();
    fs::write(dir.dirs().give_up, b"").unwrap();
    let (joint, agreed, leader) = (Zxid(8), Zxid::ZERO, ServerId(3));
    (dir, WrongJoin { joint, epoch: 0, last: Zxid(last), agreed, leader, stage: JoinStage::Joined })
}

#[test]
fn what_a_leader_with_another_history_sent_is_taken_back_wherever_a_crash_strikes() {
    for (last, left) in [(8, None), (10, Some(JoinStage::Short))] {
        // The file; the steps of the truncation; the epoch; the file again.
        for crash in 1.. {
            let (dir, wrong) = joined_to_another(last);
            let plan = plan_truncate(&dir.dirs(), wrong.joint, Dropped::Foreign, RECORD_BYTES_MAX).unwrap();
            assert!(plan.len() > 3);
            let folder = dir.version_2();
            wrong_join::write(&folder, Some(&wrong)).unwrap();
            take(&plan, plan.len().min(crash - 1));
            if crash > plan.len() + 1 {
                epochs::set_back(&folder, wrong.epoch).unwrap();
            }
            if crash > plan.len() + 2 {
                wrong_join::write(&folder, wrong.taken_back().as_ref()).unwrap();
            }
            for start in 1..=2 {
                let what = format!("{crash} steps, start {start}");
                let recovered = dir.recover().unwrap();
                assert_eq!(beginning(&recovered.state), wrong.joint.0, "{what}");
                assert!(view(&recovered.state).nodes.keys().all(|path| *path != format!("/n{NEXT_EPOCH:x}")), "{what}");
                assert_eq!(recovered.wrong_join.map(|wrong| wrong.stage), left, "{what}");
                assert_eq!(wrong_join::read(&folder).unwrap(), recovered.wrong_join, "{what}");
                let epochs = EpochFiles::open(&folder, recovered.state.last_zxid()).unwrap().epochs();
                assert_eq!(epochs, Epochs { accepted: 1, current: 0 }, "{what}");
            }
            let all: Vec<i64> = (1..=LAST).chain(NEXT_EPOCH..=NEXT_EPOCH + 1).collect();
            assert_eq!(reachable(&dir), all, "{crash} steps: a copy of it is kept");
            assert!(dir.dirs().give_up.exists(), "an operator's consent was for something else");
            if crash == plan.len() + 3 {
                break;
            }
        }
    }
}

#[test]
fn a_start_finds_out_by_the_first_digest_behind_a_joint_of_which_nothing_was_known() {
    const RIGHT: u64 = 1;
    // Whether the newest snapshot is one behind the joint; what the first transaction of the next epoch says of the tree,
    // beside what is right; what the file says then, and where the history ends.
    for snapshot_behind in [false, true] {
        for (digest, stage, last) in
            [(Some(RIGHT), None, NEXT_EPOCH), (Some(RIGHT + 1), None, 8), (None, Some(JoinStage::Unproven), NEXT_EPOCH)]
        {
            let (dir, wrong) = joined_to_another(8);
            let wrong = WrongJoin { stage: JoinStage::Unproven, ..wrong };
            let log = dir.file(&format!("log.{NEXT_EPOCH:x}"));
            fs::write(&log, support::log(NEXT_EPOCH..=NEXT_EPOCH, |_| 5).0).unwrap();
            let tree = dir.recover().unwrap().state.tree_digest();
            let digest =
                digest.map(|off| TxnDigest { version: DIGEST_VERSION, tree_digest: tree.wrapping_add(off - RIGHT) });
            let joined = record(&Txn { digest, ..txn(NEXT_EPOCH, 5) });
            fs::write(&log, [&txnlog::header()[..], &joined].concat()).unwrap();
            if !snapshot_behind {
                fs::remove_file(dir.file("snapshot.a")).unwrap();
            }
            let folder = dir.version_2();
            wrong_join::write(&folder, Some(&wrong)).unwrap();
            if last == 8 {
                // Whose history is another one stands on disk before anything is taken back.
                let in_the_way = folder.join(names::FOREIGN);
                fs::create_dir(&in_the_way).unwrap();
                assert!(matches!(dir.recover(), Err(RecoverError::Io { .. })));
                assert_eq!(wrong_join::read(&folder).unwrap(), Some(wrong));
                fs::remove_dir(&in_the_way).unwrap();
            }
            for start in 1..=2 {
                let what = format!("{digest:?}, snapshot: {snapshot_behind}, start {start}");
                let recovered = dir.recover().unwrap();
                assert_eq!(recovered.state.last_zxid(), Zxid(last), "{what}");
                assert_eq!(recovered.wrong_join.map(|wrong| wrong.stage), stage, "{what}");
                assert_eq!(wrong_join::read(&folder).unwrap(), recovered.wrong_join, "{what}");
                let current = if last == 8 { 0 } else { 1 };
                let epochs = EpochFiles::open(&folder, recovered.state.last_zxid()).unwrap().epochs();
                assert_eq!(epochs, Epochs { accepted: 1, current }, "{what}");
                let strange = format!(
                    "its history up to 0x8 is another one than that of the leader which it followed from there: the data \
                     digest of {} does not fit",
                    Zxid(NEXT_EPOCH)
                );
                let found = Foreign { ends: (Zxid(9)..=Zxid(0x1_ffff_ffff)).into(), strange: Some(strange) };
                let known = (last == 8).then_some((ServerId(3), found));
                assert_eq!(foreign::read(&folder), known.into_iter().collect(), "{what}");
            }
            let all: Vec<i64> = (1..=LAST).chain([NEXT_EPOCH]).collect();
            assert_eq!(reachable(&dir), all, "a copy of it is kept");
        }
    }
}

#[test]
fn what_was_found_out_before_a_crash_is_taken_back_though_the_transaction_that_told_is_lost() {
    let seen = || Some("it was seen".to_owned());
    for (leader, strange, from, is_known) in
        [(3, seen(), 9, true), (4, seen(), 9, false), (3, seen(), 8, false), (3, None, 9, false)]
    {
        let (dir, wrong) = joined_to_another(8);
        let wrong = WrongJoin { stage: JoinStage::Unproven, ..wrong };
        let log = dir.file(&format!("log.{NEXT_EPOCH:x}"));
        fs::write(&log, [&txnlog::header()[..], &record(&Txn { digest: None, ..txn(NEXT_EPOCH, 5) })].concat())
            .unwrap();
        fs::remove_file(dir.file("snapshot.a")).unwrap();
        let folder = dir.version_2();
        wrong_join::write(&folder, Some(&wrong)).unwrap();
        let found = Foreign { ends: (Zxid(from)..=Zxid(0x1_ffff_ffff)).into(), strange };
        foreign::write(&folder, &[(ServerId(leader), found)].into_iter().collect()).unwrap();
        let recovered = dir.recover().unwrap();
        assert_eq!(recovered.state.last_zxid(), Zxid(if is_known { 8 } else { NEXT_EPOCH }));
        assert_eq!(recovered.wrong_join, Some(wrong).filter(|_| !is_known));
    }
}

#[test]
fn a_joint_behind_which_nothing_is_logged_is_forgotten() {
    for (joint, last, left) in [(LAST, LAST, false), (LAST, LAST + 2, true), (LAST + 1, LAST + 1, false)] {
        let dir = history();
        let (joint, last, agreed, leader) = (Zxid(joint), Zxid(last), Zxid::ZERO, ServerId(3));
        let wrong = WrongJoin { joint, epoch: 0, last, agreed, leader, stage: JoinStage::Unproven };
        wrong_join::write(&dir.version_2(), Some(&wrong)).unwrap();
        let recovered = dir.recover().unwrap();
        assert_eq!(recovered.wrong_join, Some(wrong).filter(|_| left), "what was cut off for it is not");
        assert_eq!(wrong_join::read(&dir.version_2()).unwrap(), recovered.wrong_join);
    }
}

#[test]
fn a_server_that_cannot_take_back_what_was_sent_starts_and_knows_it() {
    let (dir, wrong) = joined_to_another(8);
    ["snapshot.0", "snapshot.6"].iter().for_each(|name| fs::remove_file(dir.file(name)).unwrap());
    let folder = dir.version_2();
    wrong_join::write(&folder, Some(&wrong)).unwrap();
    for _ in 0..2 {
        let recovered = dir.recover().unwrap();
        assert_eq!(recovered.state.last_zxid(), Zxid(NEXT_EPOCH + 1));
        assert_eq!(recovered.wrong_join, Some(wrong.not_taken_back()));
        let epochs = EpochFiles::open(&folder, recovered.state.last_zxid()).unwrap().epochs();
        assert_eq!(epochs, Epochs { accepted: 1, current: 1 });
    }
    // Where nothing of it is there, nothing has to be taken out.
    for (joint, last, left) in [(LAST + 1, LAST + 1, None), (LAST + 1, LAST + 2, Some(JoinStage::Short))] {
        let dir = history();
        let wrong = WrongJoin { joint: Zxid(joint), last: Zxid(last), ..wrong };
        wrong_join::write(&dir.version_2(), Some(&wrong)).unwrap();
        let recovered = dir.recover().unwrap();
        assert_eq!(recovered.state.last_zxid(), Zxid(LAST));
        assert_eq!(recovered.wrong_join.map(|wrong| wrong.stage), left);
    }
    // A file that says nothing does not begin a start that may find both histories.
    fs::write(dir.file(names::WRONG_JOIN), b"joint 8\n").unwrap();
    let error = dir.recover().unwrap_err();
    assert!(error.to_string().contains("wrong-join cannot be understood"), "{error}");
}

const DAMAGES: [&str; 6] = [
    "the newest snapshot is cut short",
    "all snapshots are cut short",
    "nothing but a snapshot cut short",
    "a bit in the newest log",
    "a bit in a log in the middle",
    "a log is missing",
];

/// A history to which the disk did this, so that something that was acknowledged cannot be read.
fn damaged(what: &str) -> DataDir {
    let dir = history();
    let remove = |name: &str| fs::remove_file(dir.file(name)).unwrap();
    let cut_short = |name: &str| fs::write(dir.file(name), b"cut short").unwrap();
    // In the last of these records of a log.
    let spoil = |name: &str, records: std::ops::RangeInclusive<i64>| {
        let mut bytes = fs::read(dir.file(name)).unwrap();
        bytes[log(records, |_| 20).0.len() - 10] ^= 1;
        fs::write(dir.file(name), bytes).unwrap();
    };
    match DAMAGES.iter().position(|damage| *damage == what) {
        Some(0) => cut_short("snapshot.e"),
        Some(1) => ["snapshot.0", "snapshot.6", "snapshot.a"].into_iter().for_each(cut_short),
        Some(2) => {
            ["log.1", "log.5", "log.9", "snapshot.0", "snapshot.6"].into_iter().for_each(remove);
            cut_short("snapshot.a");
        }
        Some(3) => spoil("log.9", 9..=11),
        Some(4) => {
            remove("snapshot.a");
            spoil("log.5", 5..=7);
        }
        _ => ["snapshot.a", "log.5"].into_iter().for_each(remove),
    }
    dir
}

#[test]
fn a_damaged_server_knows_that_it_is_until_a_state_of_the_leader_is_durable() {
    let as_member = |dir: &DataDir| recover(&dir.dirs(), &RecoverOptions { repairable: true, ..options() }).unwrap();
    for what in DAMAGES {
        for dropped in [Dropped::Contained, Dropped::Tail, Dropped::Unproven] {
            // Where a snapshot is too, whole or not, and where none is.
            for zxid in [3, 6, 10, 11, LAST + 2, NEXT_EPOCH + 8] {
                for crash in 0.. {
                    let dir = damaged(what);
                    assert!(as_member(&dir).damage.is_some(), "{what}");
                    let Installed { has_snapshot, is_complete } = install_until(crash, &dir, zxid, dropped);
                    // What the first start does must not hide it from the second one.
                    for start in 1..=2 {
                        let recovered = as_member(&dir);
                        let is_received = view(&recovered.state).nodes.contains_key("/received");
                        assert_eq!(is_received, has_snapshot, "{what}, {dropped:?}, {zxid}, {crash} steps");
                        assert_eq!(recovered.damage.is_some(), !has_snapshot, "{what}, {zxid}, {crash}, start {start}");
                    }
                    if is_complete {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn files_that_cannot_be_read_are_kept_as_they_are() {
    let dir = history();
    let mut damaged = fs::read(dir.file("log.5")).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(dir.file("log.5"), &damaged).unwrap();
    fs::write(dir.file("snapshot.a"), b"half of it").unwrap();
    prepare_install(&dir.dirs(), Zxid(LAST + 8), Dropped::Unproven, RECORD_BYTES_MAX).unwrap();
    write_snapshot(&dir, &mut received(LAST + 8));
    finish_install(&dir.dirs(), Zxid(LAST + 8)).unwrap();
    assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(LAST + 8));
    // As far as anything tells of transactions: a record, or a name.
    let folder = dir.file("replaced-1-c");
    assert!(fs::read(folder.join("log.5")).unwrap() == damaged);
    assert_eq!(fs::read(folder.join("snapshot.a")).unwrap(), b"half of it");
}

#[test]
fn an_operators_consent_is_used_up_where_a_leaders_history_takes_the_place_of_this_one() {
    let cases =
        [(Dropped::Tail, true), (Dropped::Unproven, true), (Dropped::Contained, false), (Dropped::Foreign, false)];
    for (dropped, is_used) in cases {
        let dir = history();
        fs::write(&dir.dirs().give_up, b"").unwrap();
        truncate(&dir.dirs(), Zxid(7), dropped, RECORD_BYTES_MAX).unwrap();
        assert_eq!(dir.dirs().give_up.exists(), !is_used, "{dropped:?}");
    }
}

#[test]
fn what_was_set_aside_stays_however_much_of_it_there_is() {
    let dir = history();
    for n in 0..20 {
        for prefix in names::KEPT_PREFIXES {
            fs::create_dir(dir.file(&format!("{prefix}{:x}-{:x}", 0x100 * n, 0x100 * n + 5))).unwrap();
        }
    }
    truncate(&dir.dirs(), Zxid(7), Dropped::Tail, RECORD_BYTES_MAX).unwrap();
    let kept = |prefix| names::list_kept(&dir.version_2(), prefix).unwrap().len();
    assert_eq!(names::KEPT_PREFIXES.map(kept), [20, 21]);
    assert_eq!(replaced::find(&dir.dirs()).unwrap().unwrap().count, 41);
    // Said again, there is nothing to set aside.
    truncate(&dir.dirs(), Zxid(7), Dropped::Tail, RECORD_BYTES_MAX).unwrap();
    assert_eq!(names::KEPT_PREFIXES.map(kept), [20, 21]);
}

#[test]
fn a_snapshot_cut_short_is_no_obstacle_to_a_truncation_that_crashes() {
    for crash in 0.. {
        let dir = history();
        fs::write(dir.file("snapshot.9"), b"cut short").unwrap();
        let plan = plan_truncate(&dir.dirs(), Zxid(7), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
        take(&plan, crash);
        assert!((7..=LAST).contains(&beginning(&dir.recover().unwrap().state)), "{crash} steps");
        if crash == plan.len() {
            break;
        }
    }
}

#[test]
fn a_copy_of_a_log_does_not_bring_back_what_was_cut() {
    let dir = history();
    for name in ["log.9", "log.5", "snapshot.a"] {
        fs::copy(dir.file(name), dir.file(&format!("{name}.bak"))).unwrap();
    }
    truncate(&dir.dirs(), Zxid(7), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
    assert_eq!(beginning(&dir.recover().unwrap().state), 7);
    // What somebody else put there is not removed, only out of the way.
    assert!(dir.file("removed-log.9.bak").exists() && dir.file("removed-snapshot.a.bak").exists());
}

#[test]
fn a_tear_of_an_earlier_crash_is_cut_with_what_followed_it() {
    let (first, ends) = log(1..=4, |_| 900);
    let (second, _) = log(3..=6, |_| 10);
    let mut torn = first;
    torn[ends[2] + 100] = 0xff;
    torn[ends[3] - 1] = 0;
    let dir = dir_with(&[("log.1", &torn), ("log.3", &second)]);
    assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(6));
    truncate(&dir.dirs(), Zxid(2), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
    assert_eq!(fs::read(dir.file("log.1")).unwrap().len(), ends[2]);
    assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(2));
}

#[test]
fn a_truncation_without_a_way_back_changes_nothing() {
    let old_epoch_end = history();
    let (next, _) = log(NEXT_EPOCH..=NEXT_EPOCH + 4, |_| 5);
    fs::write(old_epoch_end.file(&format!("log.{NEXT_EPOCH:x}")), next).unwrap();
    let without_old_snapshots = history();
    ["snapshot.0", "snapshot.6"].iter().for_each(|name| fs::remove_file(without_old_snapshots.file(name)).unwrap());
    let with_a_hole = history();
    fs::remove_file(with_a_hole.file("snapshot.6")).unwrap();
    fs::remove_file(with_a_hole.file("log.5")).unwrap();
    let past_the_end = history();
    for (dir, to) in [(old_epoch_end, LAST + 3), (without_old_snapshots, 9), (with_a_hole, 9), (past_the_end, LAST + 1)]
    {
        let before = dir.files();
        let error = truncate(&dir.dirs(), Zxid(to), Dropped::Contained, RECORD_BYTES_MAX).unwrap_err();
        assert!(matches!(error, TruncateError::Impossible { .. }), "{error}");
        assert!(dir.files() == before, "{error}");
    }
}

/// A state from the leader, which has none of the old nodes.
fn received(zxid: i64) -> State {
    let mut txn = txn(zxid, 3);
    if let rookeeper::txn::TxnBody::Create(create) = &mut txn.body {
        create.path = "/received".into();
    }
    let mut state = State::fresh(options().rules);
    state.replay(&txn);
    state
}

/// How far an installation came.
struct Installed {
    has_snapshot: bool,
    is_complete: bool,
}

/// Installs a state as of `zxid`, and crashes after so many steps; that its snapshot is durable is one of them.
fn install_until(crash: usize, dir: &DataDir, zxid: i64, dropped: Dropped) -> Installed {
    let prepare = plan_prepare_install(&dir.dirs(), Zxid(zxid), dropped, RECORD_BYTES_MAX).unwrap();
    take(&prepare, crash.min(prepare.len()));
    let Some(left) = crash.checked_sub(prepare.len() + 1) else {
        return Installed { has_snapshot: false, is_complete: false };
    };
    write_snapshot(dir, &mut received(zxid));
    let finish = plan_finish_install(&dir.dirs(), Zxid(zxid)).unwrap();
    take(&finish, left);
    Installed { has_snapshot: true, is_complete: left == finish.len() }
}

#[test]
fn a_crash_while_a_state_is_installed_leaves_the_old_history_or_the_new_one_never_both() {
    // Below, at and between the snapshots and logs that are there, and behind all of them.
    for zxid in [1, 3, 4, 6, 7, 8, 10, 11, LAST, LAST + 1, NEXT_EPOCH - 1, NEXT_EPOCH + 8] {
        for crash in 0.. {
            let dir = history();
            let Installed { has_snapshot, is_complete } = install_until(crash, &dir, zxid, Dropped::Contained);
            let state = dir.recover().unwrap().state;
            if has_snapshot {
                assert!(view(&state).nodes.contains_key("/received"), "{zxid}, {crash} steps");
                assert_eq!(state.last_zxid(), Zxid(zxid), "{crash} steps");
                assert!(!view(&state).nodes.keys().any(|path| path.starts_with("/n")), "{zxid}, {crash} steps");
                assert_eq!(dir.files().keys().collect::<Vec<_>>(), [&format!("snapshot.{zxid:x}")], "{crash} steps");
            } else {
                assert_old_history(&state, zxid);
                assert!(!dir.files().keys().any(|name| name.starts_with("installing")), "{zxid}, {crash} steps");
            }
            // The leader sends it again, and the records behind it.
            prepare_install(&dir.dirs(), Zxid(zxid), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
            write_snapshot(&dir, &mut received(zxid));
            finish_install(&dir.dirs(), Zxid(zxid)).unwrap();
            let name = format!("log.{:x}", zxid + 1);
            fs::write(dir.file(&name), log(zxid + 1..=zxid + 2, |_| 3).0).unwrap();
            let state = dir.recover().unwrap().state;
            assert_eq!(state.last_zxid(), Zxid(zxid + 2));
            assert_eq!(view(&state).nodes.keys().filter(|path| path.starts_with("/n")).count(), 2);
            assert_eq!(dir.files().keys().collect::<Vec<_>>(), [&name, &format!("snapshot.{zxid:x}")]);
            if is_complete {
                break;
            }
        }
    }
}

/// The folder as somebody copied it: the same names and bytes in other files.
fn copy(dir: &DataDir) -> DataDir {
    let copied = DataDir::new();
    dir.files().iter().for_each(|(name, bytes)| fs::write(copied.file(name), bytes).unwrap());
    copied
}

#[test]
fn an_interrupted_installation_is_told_from_the_old_history_in_a_copy_of_the_folder_too() {
    // Where there is a snapshot as of the same transaction already, good or bad, compressed or not.
    for (zxid, what) in [(6, "as it was"), (10, "as it was"), (10, "damaged"), (10, "of another name")] {
        for crash in 0.. {
            let dir = history();
            match what {
                "damaged" => fs::write(dir.file("snapshot.a"), b"cut short").unwrap(),
                "of another name" => fs::copy(dir.file("snapshot.a"), dir.file("snapshot.a.bak")).map(drop).unwrap(),
                _ => {}
            }
            let before = dir.files();
            let prepare = plan_prepare_install(&dir.dirs(), Zxid(zxid), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
            take(&prepare, crash.min(prepare.len()));
            let mut finish = Vec::new();
            if crash > prepare.len() {
                write_snapshot(&dir, &mut received(zxid));
                finish = plan_finish_install(&dir.dirs(), Zxid(zxid)).unwrap();
                take(&finish, crash - prepare.len() - 1);
            }
            let copied = copy(&dir);
            let state = recover(&copied.dirs(), &RecoverOptions { repairable: true, ..options() }).unwrap().state;
            if crash > prepare.len() {
                assert!(view(&state).nodes.contains_key("/received"), "{zxid} {what}, {crash} steps");
                assert_eq!(state.last_zxid(), Zxid(zxid), "{zxid} {what}, {crash} steps");
            } else {
                assert_old_history(&state, zxid);
                assert!(copied.files().keys().eq(before.keys()), "{zxid} {what}, {crash} steps");
            }
            if crash == prepare.len() + 1 + finish.len() {
                break;
            }
        }
    }
}

#[test]
fn what_is_logged_after_an_interrupted_installation_never_follows_the_old_history() {
    let dir = history();
    prepare_install(&dir.dirs(), Zxid(LAST + 8), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
    write_snapshot(&dir, &mut received(LAST + 8));
    // The process ends; so bad is an old log that nobody could read it.
    fs::write(dir.file("log.5"), b"damaged").unwrap();
    assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(LAST + 8));
    let (next, _) = log(NEXT_EPOCH..=NEXT_EPOCH + 1, |_| 5);
    fs::write(dir.file(&format!("log.{NEXT_EPOCH:x}")), next).unwrap();
    assert_eq!(dir.recover().unwrap().state.last_zxid(), Zxid(NEXT_EPOCH + 1));
    // Without the state that was installed nothing tells of the transactions before it.
    fs::write(dir.file(&format!("snapshot.{:x}", LAST + 8)), b"cut short").unwrap();
    assert!(dir.recover().is_err());
}

#[test]
fn nothing_is_removed_for_a_snapshot_that_is_not_there() {
    let dir = history();
    let before = dir.files();
    assert!(finish_install(&dir.dirs(), Zxid(LAST)).is_err());
    assert!(dir.files() == before);
}

#[test]
fn recovery_beside_running_threads_leaves_their_files_alone_and_the_cut_snapshots_unread() {
    let dir = history();
    truncate(&dir.dirs(), Zxid(8), Dropped::Contained, RECORD_BYTES_MAX).unwrap();
    // What the snapshot thread had under way, one of them of the old history.
    write_snapshot(&dir, &mut history().recover().unwrap().state);
    fs::write(dir.file("unfinished-snapshot"), b"under way").unwrap();
    fs::write(dir.file("removed-log.1"), b"being cut").unwrap();
    assert_eq!(beginning(&as_of(&dir, 8).unwrap().state), 8);
    assert!(dir.file("unfinished-snapshot").exists() && dir.file("removed-log.1").exists());
    assert!(matches!(as_of(&dir, 7).unwrap_err(), RecoverError::NotAsOf { reached: Zxid(8), .. }));
}

/// A log of transactions 1 up to `last`, each with the digest of the tree after it; and a snapshot as of 10.
fn log_with_digests(last: i64, spoilt: Option<i64>) -> DataDir {
    let dir = DataDir::new();
    let mut state = dir.recover().unwrap().state;
    let mut log = txnlog::header().to_vec();
    for zxid in 1..=10 {
        let mut txn = txn(zxid, 20);
        state.replay(&txn);
        let tree_digest = if spoilt == Some(zxid) { 5 } else { state.tree_digest() };
        txn.digest = Some(TxnDigest { version: DIGEST_VERSION, tree_digest });
        if zxid <= last {
            log.extend(record(&txn));
        }
    }
    write_snapshot(&dir, &mut state);
    fs::write(dir.file("log.1"), log).unwrap();
    dir
}

#[test]
fn records_in_front_of_the_snapshot_are_kept_if_they_lead_to_it() {
    let recent = |dir: &DataDir, recent_max| {
        let recovered = recover(&dir.dirs(), &RecoverOptions { recent_max, ..options() }).unwrap();
        assert_eq!((recovered.state.last_zxid(), recovered.replayed), (Zxid(10), 0));
        recovered.recent.iter().map(|record| record.zxid.0).collect::<Vec<i64>>()
    };
    let whole = log_with_digests(10, None);
    assert_eq!(recent(&whole, 500), (1..=10).collect::<Vec<i64>>());
    assert_eq!(recent(&whole, 3), [8, 9, 10]);
    // The log of another history, and one that ends before the snapshot.
    assert_eq!(recent(&log_with_digests(10, Some(10)), 500), [0_i64; 0]);
    assert_eq!(recent(&log_with_digests(9, None), 500), [0_i64; 0]);
}

#[test]
fn the_last_records_replayed_are_kept_as_they_were_logged() {
    let dir = history();
    let recent = |recent_max| recover(&dir.dirs(), &RecoverOptions { recent_max, ..options() }).unwrap().recent;
    assert!(recent(0).is_empty());
    let last: Vec<LogRecord> =
        (LAST - 1..=LAST).map(|zxid| LogRecord { zxid: Zxid(zxid), payload: txn(zxid, 20).to_bytes() }).collect();
    // The snapshot is as of 10.
    assert_eq!(recent(500), last);
    assert_eq!(recent(1), last[1..]);
}

fn range(dir: &DataDir, from: i64, to: i64) -> Option<Vec<i64>> {
    let part = read_part(&dir.dirs(), Zxid(from), Zxid(to), 1 << 20, RECORD_BYTES_MAX).unwrap();
    part.records.map(|records| records.iter().map(|record| record.zxid.0).collect())
}

#[test]
fn a_learner_gets_the_records_behind_its_last_one() {
    let dir = history();
    assert_eq!(range(&dir, 3, 10), Some((4..=10).collect()));
    assert_eq!(range(&dir, 8, LAST), Some((9..=LAST).collect()));
    assert_eq!(range(&dir, 0, 2), Some(vec![1, 2]));
    assert_eq!(range(&dir, 5, 5), Some(vec![]));
    assert_eq!(range(&dir, 5, 4), None);
    let LogPart { joint, records, .. } = read_part(&dir.dirs(), Zxid(8), Zxid(9), 1 << 20, RECORD_BYTES_MAX).unwrap();
    let records = records.unwrap();
    assert_eq!(joint, Some(LogRecord { zxid: Zxid(8), payload: txn(8, 20).to_bytes() }));
    assert_eq!(records, [LogRecord { zxid: Zxid(9), payload: txn(9, 20).to_bytes() }]);
    let all = read_part(&dir.dirs(), Zxid(8), Zxid(9), records[0].payload.len() - 1, RECORD_BYTES_MAX).unwrap();
    assert_eq!(
        all,
        LogPart { joint, ..LogPart::default() },
        "what is too much to be sent tells all the same that they fit"
    );
}

#[test]
fn a_learner_gets_no_records_from_a_log_with_a_hole_in_front_or_between() {
    let dir = history();
    assert_eq!(range(&dir, 3, LAST + 1), None);
    fs::remove_file(dir.file("log.1")).unwrap();
    assert_eq!(range(&dir, 3, 10), None);
    // Only an epoch's own numbers prove that nothing is missing.
    assert_eq!(range(&dir, 4, 10), Some((5..=10).collect()));
    fs::remove_file(dir.file("log.5")).unwrap();
    fs::copy(history().file("log.1"), dir.file("log.1")).unwrap();
    assert_eq!(range(&dir, 3, 10), None);
}

#[test]
fn the_next_epoch_follows_unless_a_snapshot_shows_what_is_missing() {
    let (old, next) = (log(1..=4, |_| 5).0, log(NEXT_EPOCH..=NEXT_EPOCH + 1, |_| 5).0);
    let dir = dir_with(&[("log.1", &old), (&format!("log.{NEXT_EPOCH:x}"), &next)]);
    assert_eq!(range(&dir, 3, NEXT_EPOCH + 1), Some(vec![4, NEXT_EPOCH, NEXT_EPOCH + 1]));
    // A last transaction that this history may never have had.
    assert_eq!(range(&dir, 5, NEXT_EPOCH), None);
    write_snapshot(&dir, &mut received(9));
    assert_eq!(range(&dir, 3, NEXT_EPOCH + 1), None);
}

#[test]
fn the_log_that_is_appended_to_can_be_read() {
    for through_mapping in [false, true] {
        let dir = dir_with(&[]);
        let mut writer =
            LogWriter::new(MappedFiles::start(&dir.version_2(), 1 << 20, through_mapping).unwrap(), true, None);
        for zxid in 1..=200 {
            writer.append(&LogRecord { zxid: Zxid(zxid), payload: txn(zxid, 10_000).to_bytes() }).unwrap();
            writer.sync().unwrap();
            assert_eq!(range(&dir, (zxid - 3).max(0), zxid), Some(((zxid - 2).max(1)..=zxid).collect()));
        }
    }
}
