//! Folders with what a leader's history replaced (`replaced-…`, `cut-…`, see `truncate`). Only an operator removes them, since
//! each may hold the only copy of something; so he is told how many there are, at each start and when another one comes.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use log::warn;

use crate::storage::dirs::DataDirs;
use crate::storage::names;
use crate::sys::files::Files;

/// Those of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// How many: one that is in both folders is one.
    pub count: usize,
    /// The sizes of their files.
    pub bytes: u64,
    /// The name of the one with the oldest history.
    pub oldest: String,
    /// And with the newest.
    pub newest: String,
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replaced { count, oldest, newest, .. } = self;
        let mib = self.bytes.div_ceil(1 << 20);
        match count {
            1 => write!(f, "1 folder, {oldest}, with {mib} MiB"),
            _ => write!(f, "{count} folders, {oldest} up to {newest}, with {mib} MiB in all"),
        }
    }
}

/// What is there; `None` if nothing is.
pub fn find(dirs: &DataDirs) -> io::Result<Option<Replaced>> {
    let (mut found, mut bytes) = (BTreeSet::new(), 0);
    let snapshots = Some(&dirs.snapshots).filter(|snapshots| **snapshots != dirs.logs);
    for parent in std::iter::once(&dirs.logs).chain(snapshots) {
        for prefix in names::KEPT_PREFIXES {
            for folder in names::list_kept(parent, prefix)? {
                bytes += size(dirs.files(), &folder)?;
                let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                found.insert((names::parse_kept(&name, prefix), name));
            }
        }
    }
    let (Some((_, oldest)), Some((_, newest))) = (found.first(), found.last()) else { return Ok(None) };
    Ok(Some(Replaced { count: found.len(), bytes, oldest: oldest.clone(), newest: newest.clone() }))
}

fn size(files: &Files, folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in files.list(folder)? {
        bytes += files.stat(&entry.path)?.length;
    }
    Ok(bytes)
}

/// Tells of them at a start.
pub fn warn_of_all(dirs: &DataDirs) {
    match find(dirs) {
        Ok(None) => {}
        Ok(Some(replaced)) => warn!(
            "what leaders replaced of this server's history, or took off its end, or what was taken out of its log since it came from a leader with another history, is kept in {}: {replaced}. They stay until somebody removes \
             them: look into each for what is missed, then remove it",
            dirs.logs.display()
        ),
        Err(error) => warn!("the folders with what was replaced of this server's history cannot be counted: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn folders_of_both_places_are_counted_once_each_and_their_files_summed() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = DataDirs::new(&dir.path().join("data"), Some(&dir.path().join("logs")));
        let keep = |parent: &Path, name: &str, bytes: usize| {
            fs::create_dir_all(parent.join(name)).unwrap();
            fs::write(parent.join(name).join(format!("file{bytes}")), vec![1; bytes]).unwrap();
        };
        for parent in [&dirs.logs, &dirs.snapshots] {
            fs::create_dir_all(parent).unwrap();
        }
        assert_eq!(find(&dirs).unwrap(), None);
        keep(&dirs.logs, "replaced-100000001-200000005", 1000);
        keep(&dirs.snapshots, "replaced-100000001-200000005", 24);
        let one = find(&dirs).unwrap().unwrap();
        assert_eq!((one.count, one.bytes), (1, 1024));
        assert_eq!(one.to_string(), "1 folder, replaced-100000001-200000005, with 1 MiB");
        keep(&dirs.logs, "replaced-5-1f", 3 << 20);
        keep(&dirs.logs, "cut-6-1e", 1000);
        keep(&dirs.logs, "replaced-by-somebody", 1000);
        let all = find(&dirs).unwrap().unwrap();
        assert_eq!((all.count, all.bytes), (3, 2024 + (3 << 20)));
        let text = "3 folders, replaced-5-1f up to replaced-100000001-200000005, with 4 MiB in all";
        assert_eq!(all.to_string(), text);
        // One folder for both.
        let same = DataDirs::new(&dir.path().join("logs"), None);
        assert_eq!(find(&same).unwrap().unwrap().bytes, 2000 + (3 << 20));
    }
}
