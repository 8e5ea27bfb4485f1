//! `rookeeper log dump|check|cut`: transaction logs, one file or all of a folder. Called by `cli::log`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::ids::Zxid;
use crate::inspect::{FOUND, Failure, GOOD, Outcome, RECORD_BYTES_MAX, log_text, progress};
use crate::storage::logdir::{Ending, LogError, LogFile, follows, select, show};
use crate::storage::names;
use crate::storage::recover::Behind;
use crate::storage::repeats::Seen;
use crate::storage::tail::Tail;
use crate::storage::txnlog::HEADER_BYTES;
use crate::sys::files::{self, Dir, Files};

/// Which transactions are shown, and how.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// JSON, one object a line.
    pub json: bool,
    /// Data of znodes in readable lines too.
    pub data: bool,
    /// None before this one.
    pub from: Option<Zxid>,
    /// None behind this one.
    pub to: Option<Zxid>,
    /// Only those that touch this node or one below it.
    pub path: Option<String>,
}

impl Dump {
    fn wants(&self, txn: &crate::txn::Txn) -> bool {
        let zxid = txn.header.zxid;
        let in_range = self.from.is_none_or(|from| zxid >= from) && self.to.is_none_or(|to| zxid <= to);
        in_range
            && self
                .path
                .as_deref()
                .is_none_or(|top| log_text::paths(&txn.body).into_iter().any(|path| is_below(path, top)))
    }
}

/// Whether a path is this node or below it.
pub fn is_below(path: &str, top: &str) -> bool {
    let rest = path.strip_prefix(top.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The logs that a path means: itself, or those of a folder (with or without `version-2`) in their order.
fn logs_of(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let inner = path.join("version-2");
    let dir = &Dir::of_host(if inner.is_dir() { &inner } else { path });
    let logs = names::list_logs(dir).map_err(Failure::at(dir))?;
    if logs.is_empty() {
        return Err(Failure::unable(format!("{}: no log (log.<hex zxid>) is there", dir.display())));
    }
    Ok(select(logs, Zxid::ZERO).into_iter().map(|log| log.path).collect())
}

/// Prints every transaction wanted. Stops at the first thing that cannot be read, and says so.
pub fn dump(path: &Path, how: &Dump, out: &mut dyn Write) -> Outcome {
    for log in logs_of(path)? {
        let mut file = LogFile::open(&Files::host(), log.clone(), RECORD_BYTES_MAX).map_err(Failure::unable)?;
        while let Some(entry) = next(&mut file, out)? {
            if !how.wants(&entry.txn) {
                continue;
            }
            if how.json {
                writeln!(out, "{}", log_text::object(&entry.txn))?;
            } else {
                writeln!(out, "{}", log_text::line(&entry.txn, how.data))?;
            }
        }
        if let Some(Ending::Torn(tear)) = file.ending() {
            out.flush()?;
            eprintln!("{}: ends at offset {}: {tear}", log.display(), file.offset());
        }
    }
    Ok(GOOD)
}

/// The next entry, with what was printed before out of the way of an error.
fn next(file: &mut LogFile, out: &mut dyn Write) -> Result<Option<crate::storage::logdir::Entry>, Failure> {
    match file.next_entry() {
        Ok(entry) => Ok(entry),
        Err(error) => {
            out.flush()?;
            Err(Failure { code: FOUND, message: error.to_string() })
        }
    }
}

/// How bad something is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Weight {
    /// A crash leaves it; a start deals with it.
    Note,
    /// Transactions are lost, or a server refuses to start.
    Error,
}

/// What a check says about one file.
#[derive(Debug)]
struct Report {
    path: PathBuf,
    records: u64,
    first: Option<Zxid>,
    last: Option<Zxid>,
    used_bytes: u64,
    length: u64,
    remarks: Vec<(Weight, String)>,
}

impl Report {
    fn add(&mut self, weight: Weight, what: impl ToString) {
        self.remarks.push((weight, what.to_string()));
    }

    fn is_bad(&self) -> bool {
        self.remarks.iter().any(|(weight, _)| *weight == Weight::Error)
    }

    fn json(&self) -> Value {
        let texts = |wanted: Weight| -> Vec<&str> {
            self.remarks.iter().filter(|(weight, _)| *weight == wanted).map(|(_, text)| text.as_str()).collect()
        };
        json!({
            "file": self.path.display().to_string(),
            "records": self.records,
            "first_zxid": self.first.map(|zxid| zxid.to_string()),
            "last_zxid": self.last.map(|zxid| zxid.to_string()),
            "used_bytes": self.used_bytes,
            "length_bytes": self.length,
            "errors": texts(Weight::Error),
            "notes": texts(Weight::Note),
        })
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let (first, last) = (show(self.first), show(self.last));
        writeln!(
            out,
            "{}: {} records, {first} to {last}, {} of {} bytes used",
            self.path.display(),
            self.records,
            self.used_bytes,
            self.length
        )?;
        for (weight, text) in &self.remarks {
            let label = if *weight == Weight::Error { "error" } else { "note" };
            writeln!(out, "  {label}: {text}")?;
        }
        Ok(())
    }
}

/// Reads one file to its end; `last` and `seen` run on over all files.
fn check_file(path: &Path, is_last: bool, last: &mut Option<Zxid>, seen: &mut Seen) -> Result<Report, Failure> {
    let length = fs::metadata(path).map_err(Failure::at(path))?.len();
    let mut report = Report {
        path: path.to_owned(),
        records: 0,
        first: None,
        last: None,
        used_bytes: 0,
        length,
        remarks: Vec::new(),
    };
    let mut file = match LogFile::open(&Files::host(), path.to_owned(), RECORD_BYTES_MAX) {
        Ok(file) => file,
        Err(LogError::Io { path, source }) => return Err(Failure::at(&path)(source)),
        Err(error) => {
            report.add(Weight::Error, error);
            return Ok(report);
        }
    };
    let bar = progress::bytes(&path.file_name().unwrap_or_default().to_string_lossy(), length);
    let (mut repeats, mut broken) = (0_u64, None);
    loop {
        let entry = match file.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) if is_about_content(&error) => {
                broken = Some(error);
                break;
            }
            Err(error) => return Err(Failure::unable(error)),
        };
        let zxid = entry.txn.header.zxid;
        report.records += 1;
        report.first.get_or_insert(zxid);
        report.last = Some(zxid);
        bar.set_position(file.offset());
        if seen.is_repeat(&entry.txn, file.payload()) {
            repeats += 1;
            continue;
        }
        if let Some(before) = last.filter(|before| !follows(*before, zxid)) {
            let what = if zxid <= before { "an older transaction comes back" } else { "transactions are missing" };
            report.add(Weight::Error, format!("{what}: {zxid} at offset {} right behind {before}", entry.offset));
        }
        *last = Some(zxid);
    }
    bar.finish_and_clear();
    if repeats > 0 {
        report.add(
            Weight::Note,
            format!("{repeats} records say again what was logged before; every server passes them over"),
        );
    }
    report.used_bytes = file.offset();
    judge_end(&mut report, file, broken, is_last)?;
    Ok(report)
}

/// Says what a start would say of the place where the reading ended.
fn judge_end(report: &mut Report, mut file: LogFile, broken: Option<LogError>, is_last: bool) -> Result<(), Failure> {
    if let Some(error @ LogError::NotATxn { .. }) = &broken {
        report.add(Weight::Error, error);
        return Ok(());
    }
    let offset = file.offset();
    let how = match (&broken, file.ending()) {
        (Some(error), _) => error.what(),
        (None, Some(Ending::Torn(tear))) => tear.to_string(),
        (None, _) => "bytes that are no record".into(),
    };
    match file.judge_tail(true).map_err(Failure::unable)? {
        Tail::Damaged { .. } => {
            let behind = count_behind(&mut file)?;
            report.add(Weight::Error, format!("it is damaged at offset {offset}: {how}; behind that {behind}"));
        }
        Tail::Unsynced { .. } => {
            let then = if is_last { "the next start cuts it" } else { "fine if the next log goes on without a gap" };
            report.add(Weight::Note, format!("a write was never finished at offset {offset}: {how}; {then}"));
        }
        Tail::Nothing | Tail::Zeros if file.ending() == Some(Ending::Unfinished) => {
            report.add(Weight::Note, "it was never begun; the next start removes it");
        }
        Tail::Nothing | Tail::Zeros => {}
    }
    Ok(())
}

/// What is still readable in a file behind the place where its reading ended.
fn count_behind(file: &mut LogFile) -> Result<Behind, Failure> {
    let mut behind = Behind { records: 0, last: None };
    while file.find_next().map_err(Failure::unable)? {
        while let Ok(Some(entry)) = file.next_entry() {
            behind.records += 1;
            behind.last = behind.last.max(Some(entry.txn.header.zxid));
        }
    }
    Ok(behind)
}

/// Reads everything, checks every checksum, and that the transactions are all there, one after the other.
pub fn check(path: &Path, as_json: bool, out: &mut dyn Write) -> Outcome {
    let (mut last, mut seen, mut reports) = (None, Seen::default(), Vec::new());
    let logs = logs_of(path)?;
    for (at, log) in logs.iter().enumerate() {
        reports.push(check_file(log, at + 1 == logs.len(), &mut last, &mut seen)?);
    }
    let bad = reports.iter().any(Report::is_bad);
    if as_json {
        let files: Vec<Value> = reports.iter().map(Report::json).collect();
        writeln!(out, "{}", json!({ "good": !bad, "last_zxid": last.map(|zxid| zxid.to_string()), "files": files }))?;
    } else {
        reports.iter().try_for_each(|report| report.print(out))?;
        writeln!(out, "{}", if bad { "damaged" } else { "good" })?;
    }
    Ok(if bad { FOUND } else { GOOD })
}

/// Where the cut log goes.
#[derive(Clone, Debug)]
pub enum CutTo {
    /// A new file.
    File(PathBuf),
    /// The log itself; a copy of it as it was stays beside it as `uncut-log.X`.
    InPlace,
}

/// Keeps the records up to `to`, which must be there, or without it all that are readable; what follows goes, padding too.
pub fn cut(log: &Path, to: Option<Zxid>, target: &CutTo, out: &mut dyn Write) -> Outcome {
    let mut file = LogFile::open(&Files::host(), log.to_owned(), RECORD_BYTES_MAX).map_err(Failure::unable)?;
    let (mut end, mut last, mut records) = (HEADER_BYTES as u64, None, 0_u64);
    loop {
        match file.next_entry() {
            Ok(Some(entry)) if to.is_some_and(|to| entry.txn.header.zxid > to) => break,
            Ok(Some(entry)) => (end, last, records) = (file.offset(), Some(entry.txn.header.zxid), records + 1),
            Ok(None) => break,
            // What is to be cut away may be damaged.
            Err(error) if is_about_content(&error) && (to.is_none() || last == to) => break,
            Err(error) => return Err(Failure::unable(error)),
        }
    }
    if file.ending() == Some(Ending::Unfinished) {
        return Err(Failure::unable(format!("{}: it was never begun, there is nothing to keep", log.display())));
    }
    if let Some(to) = to.filter(|to| last != Some(*to)) {
        return Err(Failure::unable(format!(
            "{}: it does not hold {to}; the last record up to there is {}",
            log.display(),
            show(last)
        )));
    }
    let whole = fs::metadata(log).map_err(Failure::at(log))?.len();
    let kept = match target {
        CutTo::File(new) => {
            copy_beginning(log, new, end).map_err(Failure::at(new))?;
            new.clone()
        }
        CutTo::InPlace => {
            cut_in_place(log, end, last.unwrap_or(Zxid::ZERO))?;
            log.to_owned()
        }
    };
    writeln!(
        out,
        "{}: {records} records up to {}, {end} bytes; {} bytes of {} are left out",
        kept.display(),
        show(last),
        whole.saturating_sub(end),
        log.display()
    )?;
    Ok(GOOD)
}

/// Whether it says what became of a log, and not what is wrong with this program's surroundings.
fn is_about_content(error: &LogError) -> bool {
    !matches!(error, LogError::Io { source, .. } if !files::is_lost(source))
}

/// Copies all that the disk still reads; zeros stand for the rest.
fn copy_what_is_left(from: &Path, to: &Path) -> io::Result<()> {
    let from = File::open(from)?;
    let mut new = File::options().write(true).create_new(true).open(to)?;
    let (mut piece, length, mut at) = (vec![0; 1 << 20], from.metadata()?.len(), 0);
    while at < length {
        let bytes = piece.len().min((length - at) as usize);
        files::read_what_is_left(&from, &mut piece[..bytes], at)?;
        new.write_all(&piece[..bytes])?;
        at += bytes as u64;
    }
    new.sync_all()?;
    Files::host().sync_dir(files::parent(to))
}

fn copy_beginning(from: &Path, to: &Path, bytes: u64) -> io::Result<()> {
    let mut new = File::options().write(true).create_new(true).open(to)?;
    io::copy(&mut io::Read::take(File::open(from)?, bytes), &mut new)?;
    new.sync_all()?;
    Files::host().sync_dir(files::parent(to))
}

/// Insists that nothing in the log's folder goes on behind the cut: a server would find a hole there, or have from a
/// snapshot what its log says never was.
fn check_nothing_behind(log: &Path, dir: &Dir, last: Zxid) -> Result<(), Failure> {
    let mut found = names::list_logs(dir).map_err(Failure::at(dir))?;
    found.extend(names::list_snapshots(dir).map_err(Failure::at(dir))?);
    let behind = |found: &names::Found| found.zxid > last && Some(found.name.as_str().as_ref()) != log.file_name();
    let names: Vec<String> = found.into_iter().filter(behind).map(|found| found.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Failure::unable(format!(
        "{}: behind {last}, where the cut would be, {} goes on: {}; nothing was cut. If that must go too, move it away first",
        log.display(),
        dir.display(),
        names.join(", ")
    )))
}

/// `last`: the last transaction that is kept.
fn cut_in_place(log: &Path, bytes: u64, last: Zxid) -> Result<(), Failure> {
    let dir = &Dir::of_host(files::parent(log));
    let Some(_lock) = files::lock_dir(dir).map_err(Failure::at(dir))? else {
        return Err(Failure::unable(format!("{}: a server is running on it; stop it first", dir.display())));
    };
    check_nothing_behind(log, dir, last)?;
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let aside = log.with_file_name(format!("{}{name}", names::UNCUT_PREFIX));
    if aside.exists() {
        return Err(Failure::unable(format!("{}: an earlier copy is there; move it away first", aside.display())));
    }
    copy_what_is_left(log, &aside).map_err(Failure::at(&aside))?;
    dir.files.truncate_durably(log, bytes).map_err(Failure::at(log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_not_cut_in_place_before_what_goes_on_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/apache-3.8/version-2");
        let log = dir.path().join("log.1");
        fs::copy(vectors.join("log.1"), &log).unwrap();
        for (later, refused) in [("log.70", true), ("snapshot.8", true), ("snapshot.7", false)] {
            fs::write(dir.path().join(later), "").unwrap();
            let result = cut(&log, Some(Zxid(7)), &CutTo::InPlace, &mut Vec::new());
            if refused {
                let failure = result.unwrap_err();
                assert_eq!(failure.code, crate::inspect::UNABLE);
                assert!(failure.message.contains(later), "{}", failure.message);
                assert_eq!(fs::read(&log).unwrap(), fs::read(vectors.join("log.1")).unwrap());
            } else {
                assert_eq!(result.unwrap(), GOOD);
            }
            fs::remove_file(dir.path().join(later)).unwrap();
        }
    }
}
