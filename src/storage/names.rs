//! Names in the data directories: `log.<hex zxid>`, `snapshot.<hex zxid>[.gz|.snappy]`, and the working names of files
//! that are not finished yet. Pure; used by all of `storage` and by `sys::mapped_log`.
//!
//! Apache takes every name that *begins* so for the real thing (`Util.getZxidFromName` ignores what follows the second
//! part), `log.5.bak` included. Here a name is exact, or it is a stray: strays are read only where no exact name says
//! the same, and never purged.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::Compression;
use crate::ids::Zxid;
use crate::sys::file_system::DirEntry;
use crate::sys::files::Dir;
pub use crate::sys::log_ahead::NEXT_LOG_PREFIX;

/// The snapshot being written; its name says that no reader may take it for one.
pub const UNFINISHED_SNAPSHOT: &str = "unfinished-snapshot";
/// An epoch being written, which is not in the place of any before it is whole.
pub const UNFINISHED_EPOCH: &str = "unfinished-epoch";
/// The file that says that a leader with another history was followed, see `wrong_join`.
pub const WRONG_JOIN: &str = "wrong-join";
/// The file that names servers whose histories are others, see `foreign`.
pub const FOREIGN: &str = "foreign-histories";
/// The same in the making.
pub const FOREIGN_TMP: &str = "foreign-histories.tmp";
/// [`WRONG_JOIN`] in the making.
pub const WRONG_JOIN_TMP: &str = "wrong-join.tmp";

/// Prefix of the copy of a log as it was before its tail was cut; nobody reads it.
pub const UNCUT_PREFIX: &str = "uncut-";

/// Prefix of a file that is not needed any more and is being removed.
pub const REMOVED_PREFIX: &str = "removed-";

/// Prefix of a folder with what a leader's history is not known to hold, whose files were replaced by that:
/// `replaced-<first>-<last zxid>`, hexadecimal.
pub const REPLACED_PREFIX: &str = "replaced-";

/// Prefix of a folder with the end of a history that an election passed over, or with what a leader with another history had
/// sent: `cut-<first>-<last zxid>`.
pub const CUT_PREFIX: &str = "cut-";

/// Folders that stay until an operator removes them.
pub const KEPT_PREFIXES: [&str; 2] = [REPLACED_PREFIX, CUT_PREFIX];

/// Prefix of the file that says that a state is being installed: `installing-snapshot.<hex>`.
const INSTALLING_PREFIX: &str = "installing-snapshot.";

/// What the name of a snapshot gets in its midst while one as of the same transaction is being installed:
/// `snapshot.5.before.gz`. Readers take it for what it is, a snapshot; and the exact name is free for the new one.
const BEFORE: &str = "before";

/// One log or snapshot found in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// From the name: a log's first record, the last transaction a snapshot surely holds.
    pub zxid: Zxid,
    /// The file name.
    pub name: String,
    /// Whether the name is what a server writes, not `log.5.bak`.
    pub exact: bool,
    /// The folder and the name.
    pub path: PathBuf,
}

/// `log.<hex>`.
pub fn log_name(first: Zxid) -> String {
    format!("log.{:x}", first.0)
}

/// `snapshot.<hex>`, with the suffix of the compression.
pub fn snapshot_name(last: Zxid, method: Compression) -> String {
    format!("snapshot.{:x}{}", last.0, method.suffix())
}

/// The zxid of a log's name, and whether the name is exact. `None`: not a log for Apache either.
pub fn parse_log(name: &str) -> Option<(Zxid, bool)> {
    let zxid = parse_loose(name, "log")?;
    Some((zxid, name == log_name(zxid)))
}

/// The zxid of a snapshot's name, and whether the name is exact.
pub fn parse_snapshot(name: &str) -> Option<(Zxid, bool)> {
    let zxid = parse_loose(name, "snapshot")?;
    let exact =
        [Compression::None, Compression::Gzip, Compression::Snappy].iter().any(|m| name == snapshot_name(zxid, *m));
    Some((zxid, exact))
}

/// The name that says that a state as of this zxid is being installed.
pub fn installing_name(zxid: Zxid) -> String {
    format!("{INSTALLING_PREFIX}{:x}", zxid.0)
}

/// The name of a snapshot with a word in it, which makes it a stray, and leaves it the compression that its name tells of.
pub fn snapshot_beside(name: &str, word: &str) -> String {
    let zxid_end = name.match_indices('.').nth(1).map_or(name.len(), |(at, _)| at);
    format!("{}.{word}{}", &name[..zxid_end], &name[zxid_end..])
}

/// The name of a snapshot while one as of the same transaction is being installed.
pub fn before_name(name: &str) -> String {
    snapshot_beside(name, BEFORE)
}

/// The name that such a snapshot had; any other name is what it was.
pub fn name_before(name: &str) -> String {
    let zxid_and_rest = name.strip_prefix("snapshot.").and_then(|rest| rest.split_once('.'));
    match zxid_and_rest.and_then(|(zxid, rest)| Some((zxid, rest.strip_prefix(BEFORE)?))) {
        Some((zxid, suffix)) if before_name(&format!("snapshot.{zxid}{suffix}")) == name => {
            format!("snapshot.{zxid}{suffix}")
        }
        _ => name.to_owned(),
    }
}

/// The first and the last transaction that a folder of this kind ([`KEPT_PREFIXES`]) keeps, by its name.
pub fn parse_kept(name: &str, prefix: &str) -> Option<(Zxid, Zxid)> {
    let (first, rest) = name.strip_prefix(prefix)?.split_once('-')?;
    let last = rest.split('.').next()?;
    let zxid = |hex: &str| i64::from_str_radix(hex, 16).ok().map(Zxid);
    Some((zxid(first)?, zxid(last)?))
}

/// The folders of this kind, from the oldest history to the newest.
pub fn list_kept(dir: &Dir, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for DirEntry { name, path } in dir.list()? {
        if let Some(kept) = parse_kept(&name, prefix)
            && dir.files.is_dir(&path)
        {
            found.push((kept, name, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// Whether this is a log prepared by an earlier run and never used.
pub fn is_next_log(name: &str) -> bool {
    name.strip_prefix(NEXT_LOG_PREFIX).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether an earlier run left this file behind, unfinished or half removed: nobody needs it.
pub fn is_leftover(name: &str) -> bool {
    let removed = name.strip_prefix(REMOVED_PREFIX);
    [UNFINISHED_SNAPSHOT, UNFINISHED_EPOCH, WRONG_JOIN_TMP, FOREIGN_TMP].contains(&name)
        || is_next_log(name)
        || removed.is_some_and(|name| name == UNFINISHED_SNAPSHOT || is_exact(name))
}

fn is_exact(name: &str) -> bool {
    [parse_log(name), parse_snapshot(name)].iter().flatten().any(|(_, exact)| *exact)
}

fn parse_loose(name: &str, prefix: &str) -> Option<Zxid> {
    let mut parts = name.split('.');
    if parts.next() != Some(prefix) {
        return None;
    }
    let zxid = i64::from_str_radix(parts.next()?, 16).ok()?;
    (zxid >= 0).then_some(Zxid(zxid))
}

/// All logs of a folder, ascending by zxid, an exact name before its strays.
pub fn list_logs(dir: &Dir) -> io::Result<Vec<Found>> {
    list(dir, parse_log)
}

/// All snapshots of a folder, ascending by zxid, an exact name before its strays.
pub fn list_snapshots(dir: &Dir) -> io::Result<Vec<Found>> {
    list(dir, parse_snapshot)
}

/// The snapshot with the greatest zxid in its name, in a folder of this host.
pub fn newest_snapshot(dir: &Path) -> Option<(Zxid, PathBuf)> {
    let found = list_snapshots(&Dir::of_host(dir)).ok()?;
    found.into_iter().rev().find(|found| found.exact).map(|found| (found.zxid, found.path))
}

/// Installations that were begun and not finished: one at most, unless somebody put more there.
pub fn list_installing(dir: &Dir) -> io::Result<Vec<Found>> {
    list(dir, |name| {
        let zxid = Zxid(i64::from_str_radix(name.strip_prefix(INSTALLING_PREFIX)?, 16).ok()?);
        (name == installing_name(zxid)).then_some((zxid, true))
    })
}

fn list(dir: &Dir, parse: fn(&str) -> Option<(Zxid, bool)>) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for DirEntry { name, path } in dir.list()? {
        let Some((zxid, exact)) = parse(&name) else { continue };
        if dir.files.stat(&path).is_ok_and(|stat| stat.is_file) {
            found.push(Found { zxid, exact, path, name });
        }
    }
    found.sort_by(|a, b| (a.zxid, !a.exact, &a.name).cmp(&(b.zxid, !b.exact, &b.name)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_servers_write_are_exact() {
        assert_eq!(parse_log("log.17c"), Some((Zxid(0x17c), true)));
        assert_eq!(parse_log("log.17c.bak"), Some((Zxid(0x17c), false)));
        assert_eq!(parse_log("log.017c"), Some((Zxid(0x17c), false)));
        assert_eq!(parse_log("log.17C"), Some((Zxid(0x17c), false)));
        assert_eq!(parse_snapshot("snapshot.5"), Some((Zxid(5), true)));
        assert_eq!(parse_snapshot("snapshot.5.gz"), Some((Zxid(5), true)));
        assert_eq!(parse_snapshot("snapshot.5.snappy"), Some((Zxid(5), true)));
        assert_eq!(parse_snapshot("snapshot.5.tmp"), Some((Zxid(5), false)));
    }

    #[test]
    fn a_snapshot_that_makes_room_for_another_is_still_read_as_what_it_is() {
        for name in ["snapshot.5", "snapshot.17c.gz", "snapshot.0.snappy"] {
            let before = before_name(name);
            let (zxid, exact) = parse_snapshot(name).unwrap();
            assert!(exact && parse_snapshot(&before) == Some((zxid, false)), "{before}");
            assert_eq!(Compression::of_name(&before), Compression::of_name(name));
            assert_eq!(name_before(&before), name);
        }
        for other in ["snapshot.5", "snapshot.5.gz", "snapshot.5.bak", "snapshot.5.beforehand", "log.5.before"] {
            assert_eq!(name_before(other), other);
        }
    }

    #[test]
    fn names_that_hold_no_zxid_are_neither() {
        for name in ["log", "log.", "log.junk", "logx.5", "log.ffffffffffffffff", "log.-1", UNFINISHED_SNAPSHOT] {
            assert_eq!(parse_log(name), None, "{name}");
            assert_eq!(parse_snapshot(name), None, "{name}");
        }
        assert_eq!(parse_snapshot("snapshot.ffffffffffffffff"), None);
        assert!(is_leftover("removed-log.12") && is_leftover("removed-snapshot.1.gz"));
        assert!(is_leftover(WRONG_JOIN_TMP) && !is_leftover(WRONG_JOIN));
        assert!(!is_leftover("removed-log.12.bak") && !is_leftover("log.12") && !is_leftover("removed-"));
        assert!(is_next_log("next-log.12") && !is_next_log("next-log.") && !is_next_log("next-log.1x"));
    }
}
