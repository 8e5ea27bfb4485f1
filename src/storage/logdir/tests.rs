//! What of a log is read behind a snapshot, and which files are none of it.

use super::*;

fn found(name: &str) -> Found {
    let (zxid, exact) = names::parse_log(name).unwrap();
    Found { zxid, exact, name: name.into(), path: name.into() }
}

fn selected(list: &[&str], from: i64) -> Vec<String> {
    select(list.iter().map(|n| found(n)).collect(), Zxid(from)).into_iter().map(|f| f.name).collect()
}

#[test]
fn the_log_that_reaches_below_is_read_too() {
    let logs = ["log.1", "log.70", "log.ec", "log.17c"];
    assert_eq!(selected(&logs, 0x168), ["log.ec", "log.17c"]);
    assert_eq!(selected(&logs, 0xec), ["log.70", "log.ec", "log.17c"]);
    assert_eq!(selected(&logs, 0x1000), ["log.17c"]);
    assert_eq!(selected(&logs, 1), logs);
}

#[test]
fn a_copy_beside_the_log_itself_is_not_read() {
    assert_eq!(selected(&["log.ec", "log.ec.bak", "log.17c.old"], 1), ["log.ec", "log.17c.old"]);
}

#[test]
fn more_log_than_a_part_of_the_snapshot_is_not_worth_reading() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(dir.path(), None);
    std::fs::create_dir_all(&dirs.logs).unwrap();
    for (name, bytes) in [("log.1", 900), ("log.70", 30), ("log.ec", 10), ("snapshot.6f", 100)] {
        std::fs::write(dirs.logs.join(name), vec![0; bytes]).unwrap();
    }
    // What counts is behind the log that holds the learner's last transaction.
    assert!(is_worth_reading(&dirs, Zxid(0x5), 0.4));
    assert!(!is_worth_reading(&dirs, Zxid(0x5), 0.33));
    assert!(is_worth_reading(&dirs, Zxid(0x80), 0.33));
    assert!(is_worth_reading(&dirs, Zxid(0x5), 0.0), "without bound");
}
