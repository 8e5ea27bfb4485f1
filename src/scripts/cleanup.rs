//! `zkCleanup.sh` (`PurgeTxnLog`): removes old snapshots and logs of the folders that zoo.cfg names.

use std::io::Write;
use std::path::{Path, PathBuf, absolute};

use crate::inspect::purge::{bar, plan, remove};
use crate::inspect::{FOUND, Failure, Folders, GOOD, Outcome};
use crate::scripts::java::{medium_date, zone};
use crate::scripts::{UNEXPECTED, unexpected};
use crate::storage::purge::RETAIN_MIN;

const USAGE: &str = "\
Usage:
PurgeTxnLog dataLogDir [snapDir] -n count
\tdataLogDir -- path to the txn log directory
\tsnapDir -- path to the snapshot directory
\tcount -- the number of old snaps/logs you want to keep, value should be greater than or equal to 3
";

/// The tool: its arguments follow the folders, as in Apache's script; without a configuration they name the folders.
pub fn clean_up(config: &Path, args: &[String], out: &mut dyn Write) -> Outcome {
    let mut all: Vec<String> = Vec::new();
    if config.exists() {
        let found = Folders::of_config(config).map_err(|failure| Failure { code: UNEXPECTED, ..failure })?;
        all.extend(found.logs.iter().chain([&found.data]).map(|folder| folder.display().to_string()));
    }
    all.extend_from_slice(args);
    let (folders, retain) = match understand(&all) {
        Ok(understood) => understood,
        Err(failure) => {
            out.write_all(USAGE.as_bytes())?;
            return Err(failure);
        }
    };
    let dirs = folders.dirs();
    if !dirs.snapshots.is_dir() || !dirs.logs.is_dir() {
        return Ok(GOOD);
    }
    let zone = zone();
    let plan = plan(&folders, retain).map_err(|failure| Failure { code: UNEXPECTED, ..failure })?;
    // Apache's looks at no snapshot, and ends with 0 also where it could not remove a file: who watches a timer would not
    // hear of it.
    let mut code = plan.exit_code();
    let bar = bar(&plan.old);
    for old in &plan.old {
        let changed = std::fs::metadata(&old.path).and_then(|file| file.modified());
        let changed = changed.ok().and_then(|time| jiff::Timestamp::try_from(time).ok()).unwrap_or_default();
        let changed = medium_date(changed.as_millisecond(), &zone);
        bar.suspend(|| writeln!(out, "Removing file: {changed}\t{}", old.path.display()))?;
        if remove(old, &bar).is_err() {
            bar.suspend(|| eprintln!("Failed to remove {}", old.path.display()));
            code = FOUND;
        }
    }
    bar.finish_and_clear();
    Ok(code)
}

/// `PurgeTxnLog.main`: one folder or two, `-n`, a count.
fn understand(args: &[String]) -> Result<(Folders, usize), Failure> {
    let (dirs, option, count) = match args {
        [log, option, count] => (vec![log], option, count),
        [log, data, option, count] => (vec![log, data], option, count),
        _ => return Err(unexpected("")),
    };
    for dir in &dirs {
        if !Path::new(dir).exists() {
            let shown = absolute(dir).unwrap_or_else(|_| PathBuf::from(dir));
            return Err(unexpected(format!("Path '{}' does not exist. ", shown.display())));
        }
    }
    let count: i32 = count.parse().map_err(|_| unexpected(format!("'{count}' can not be parsed to integer.")))?;
    let count = usize::try_from(count).ok().filter(|count| *count >= RETAIN_MIN);
    let count = count.ok_or_else(|| unexpected("count should be greater than or equal to 3"))?;
    if option != "-n" {
        return Err(unexpected(""));
    }
    let data = PathBuf::from(dirs[dirs.len() - 1]);
    let logs = (dirs.len() == 2).then(|| PathBuf::from(dirs[0]));
    Ok((Folders { data, logs }, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_configuration_the_arguments_name_the_folders() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("version-2")).unwrap();
        let folder = dir.path().display().to_string();
        let clean = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            let mut out = Vec::new();
            let outcome = clean_up(&dir.path().join("zoo.cfg"), &args, &mut out);
            (outcome.map_err(|failure| failure.code), String::from_utf8(out).unwrap())
        };
        assert_eq!(clean(&[&folder, &folder, "-n", "3"]), (Ok(GOOD), String::new()));
        assert_eq!(clean(&[&folder, "-n", "3"]), (Ok(GOOD), String::new()));
        assert_eq!(clean(&["-n", "3"]), (Err(UNEXPECTED), USAGE.to_owned()));
    }
}
