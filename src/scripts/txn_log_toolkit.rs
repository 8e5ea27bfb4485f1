//! `zkTxnLogToolkit.sh` (`TxnLogToolkit`, `LogChopper`): prints a log, repairs its checksums into a new file, or chops it.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::arguments::{Args, Opt, opt, parse};
use crate::ids::Zxid;
use crate::inspect::{Failure, GOOD, Outcome, RECORD_BYTES_MAX};
use crate::records::Acl;
use crate::scripts::java::{decode_long, short_date, zone};
use crate::scripts::{UNEXPECTED, invalid, unexpected};
use crate::storage::logdir::{Ending, Entry, LogError, LogFile};
use crate::storage::txnlog::{self, Damage, END_BYTE, HEADER_BYTES, Tear};
use crate::sys::files::Files;
use crate::txn::{CreateOwner, Txn, TxnBody, kind_name};

static OPTIONS: [Opt; 7] = [
    opt("h", "help", false),
    opt("r", "recover", false),
    opt("v", "verbose", false),
    opt("d", "dump", false),
    opt("y", "yes", false),
    opt("c", "chop", false),
    opt("z", "zxid", true),
];

const HELP: &str = "\
usage: TxnLogToolkit [-dhrvc] <txn_log_file_name> (-z <zxid>)
 -c,--chop         Chop mode. Chop txn file to a zxid.
 -d,--dump         Dump mode. Dump all entries of the log file with printing the content of a nodepath (default)
 -h,--help         Print help message
 -r,--recover      Recovery mode. Re-calculate CRC for broken entries.
 -v,--verbose      Be verbose in recovery mode: print all entries, not just fixed ones.
 -y,--yes          Non-interactive mode: repair all CRC errors without asking
 -z,--zxid <arg>   Used with chop. Zxid to which to chop.
";

/// The tool. `answers` is asked what to do about each wrong checksum.
pub fn txn_log_toolkit(args: &[String], answers: &mut dyn BufRead, out: &mut dyn Write) -> Outcome {
    let given = match parse(&OPTIONS, args) {
        Ok(given) => given,
        Err((_, message)) => {
            out.write_all(HELP.as_bytes())?;
            return Err(unexpected(format!("{message}\n")));
        }
    };
    let Some(name) = given.words.first().filter(|_| !given.has("h")) else {
        out.write_all(HELP.as_bytes())?;
        return Ok(if given.has("h") { GOOD } else { UNEXPECTED });
    };
    let path = PathBuf::from(name);
    if File::open(&path).is_err() {
        return Err(unexpected(format!("File doesn't exist or not readable: {name}")));
    }
    match given.value("z").filter(|_| given.has("c")) {
        Some(zxid) => {
            let wanted = decode_long(zxid).filter(|zxid| *zxid >= 0);
            let zxid = wanted.ok_or_else(|| unexpected(format!("-z {zxid}: expected a zxid, as 0x1f or 31")))?;
            chop(&path, Zxid(zxid), out)
        }
        None => dump(&path, &given, answers, out),
    }
}

/// Opens a log and prints its first line.
fn open(path: &Path, out: &mut dyn Write) -> Result<(LogFile, [u8; HEADER_BYTES]), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let log = LogFile::open(&Files::host(), path.to_owned(), RECORD_BYTES_MAX).map_err(|error| match error {
        LogError::Damaged { damage: Damage::BadMagic, .. } => invalid(format!("Invalid magic number for {name}")),
        other => unexpected(other),
    })?;
    let mut header = [0; HEADER_BYTES];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut header, 0));
    read.map_err(|error| unexpected(format!("{}: {error}", path.display())))?;
    let (version, dbid) = txnlog::header_says(&header);
    writeln!(out, "ZooKeeper Transactional Log File with dbid {dbid} txnlog format version {version}")?;
    Ok((log, header))
}

/// A copy in the making.
struct Copy {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Copy {
    fn begin(path: PathBuf, header: &[u8]) -> Result<Copy, Failure> {
        let made = File::create(&path).and_then(|file| {
            let mut file = BufWriter::new(file);
            file.write_all(header)?;
            Ok(file)
        });
        match made {
            Ok(file) => Ok(Copy { path, file }),
            Err(error) => Err(unexpected(format!("{}: {error}", path.display()))),
        }
    }

    fn put(&mut self, prefix: &[u8], payload: &[u8]) -> Result<(), Failure> {
        let parts = [prefix, payload, &[END_BYTE]];
        let written = parts.iter().try_for_each(|part| self.file.write_all(part));
        written.map_err(|error| unexpected(format!("{}: {error}", self.path.display())))
    }

    fn finish(self) -> Result<PathBuf, Failure> {
        let done = self.file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        done.map_err(|error| unexpected(format!("{}: {error}", self.path.display())))?;
        Ok(self.path)
    }
}

/// What stands next in a log.
enum Next {
    Good(Box<Entry>),
    /// Its checksum is wrong.
    Wrong(Vec<u8>),
    End,
}

fn next(log: &mut LogFile) -> Result<Next, Failure> {
    let error = match log.next_entry() {
        Ok(Some(entry)) => return Ok(Next::Good(Box::new(entry))),
        Ok(None) if log.ending() == Some(Ending::Torn(Tear::EndByte)) => {
            return Err(unexpected("Last transaction was partial."));
        }
        Ok(None) => return Ok(Next::End),
        Err(error) => error,
    };
    match log.pass_over() {
        Some(payload) => Ok(Next::Wrong(payload.to_vec())),
        None => Err(unexpected(error)),
    }
}

fn dump(path: &Path, given: &Args, answers: &mut dyn BufRead, out: &mut dyn Write) -> Outcome {
    let recovering = given.has("r");
    let fixed_path = PathBuf::from(format!("{}.fixed", path.display()));
    if recovering && fixed_path.exists() {
        let what = format!("Recovery file {} already exists or not writable", fixed_path.display());
        return Err(unexpected(what));
    }
    let (mut log, header) = open(path, out)?;
    let mut copy = recovering.then(|| Copy::begin(fixed_path, &header)).transpose()?;
    let zone = zone();
    let (mut count, mut fixed) = (0_u64, 0_u64);
    loop {
        let at = log.offset();
        let (payload, prefix) = match next(&mut log)? {
            Next::End => break,
            Next::Good(_) => (log.payload().to_vec(), txnlog::prefix(log.payload())),
            Next::Wrong(payload) => {
                let mut prefix = txnlog::prefix(&payload);
                let line = line(&payload, &zone)?;
                if recovering && given.has("y") {
                    write!(out, "CRC FIXED - {line}")?;
                    fixed += 1;
                } else {
                    write!(out, "CRC ERROR - {line}")?;
                    if recovering && ask(answers, out)? {
                        fixed += 1;
                    } else {
                        let read = File::open(path).and_then(|file| file.read_exact_at(&mut prefix, at));
                        read.map_err(|error| unexpected(format!("{}: {error}", path.display())))?;
                    }
                }
                (payload, prefix)
            }
        };
        if !recovering || given.has("v") {
            out.write_all(line(&payload, &zone)?.as_bytes())?;
        }
        if let Some(copy) = &mut copy {
            copy.put(&prefix, &payload)?;
        }
        count += 1;
    }
    writeln!(out, "EOF reached after {count} txns.")?;
    if let Some(copy) = copy {
        let path = copy.finish()?;
        writeln!(out, "Recovery file {} has been written with {fixed} fixed CRC error(s)", path.display())?;
    }
    Ok(GOOD)
}

fn ask(answers: &mut dyn BufRead, out: &mut dyn Write) -> Result<bool, Failure> {
    loop {
        write!(out, "Would you like to fix it (Yes/No/Abort) ? ")?;
        out.flush()?;
        let mut answer = String::new();
        if answers.read_line(&mut answer).map_err(unexpected)? == 0 {
            return Err(unexpected("nobody answers; use -y to repair every checksum without asking"));
        }
        match answer.trim_start().chars().next().map(|first| first.to_ascii_uppercase()) {
            Some('Y') => return Ok(true),
            Some('N') => return Ok(false),
            Some('A') => return Err(Failure { code: GOOD, message: "Recovery aborted.".into() }),
            _ => {}
        }
    }
}

/// `TxnLogToolkit.printTxn`; ends its line.
fn line(payload: &[u8], zone: &jiff::tz::TimeZone) -> Result<String, Failure> {
    let txn = Txn::from_bytes(payload).map_err(unexpected)?;
    let header = &txn.header;
    let mut line = format!(
        "{} session {} cxid {:#x} zxid {} {} {}",
        short_date(header.time_ms, zone),
        header.client_id,
        header.cxid,
        header.zxid,
        name(txn.body.kind()),
        body(&txn.body, payload)?
    );
    if !line.ends_with('\n') {
        line.push('\n');
    }
    Ok(line)
}

fn name(kind: i32) -> String {
    kind_name(kind).map_or_else(|| format!("unknown {kind}"), str::to_owned)
}

/// `getFormattedTxnStr`. Records that it does not know print themselves, and end in a line end.
fn body(body: &TxnBody, payload: &[u8]) -> Result<String, Failure> {
    let text = |data: &Option<Vec<u8>>| String::from_utf8_lossy(data.as_deref().unwrap_or_default()).into_owned();
    Ok(match body {
        TxnBody::Create(create) => {
            let acls: Vec<String> = create.acl.iter().map(|acl| format!("{}\n", acl_record(acl, false))).collect();
            let begin = format!("{},{},[{}]", create.path, text(&create.data), acls.join(", "));
            match create.owner {
                CreateOwner::None => format!("{begin},false,{}", create.parent_cversion),
                CreateOwner::Session => format!("{begin},true,{}", create.parent_cversion),
                CreateOwner::Container => format!("{begin},{}", create.parent_cversion),
                CreateOwner::Ttl { ttl_ms } => format!("{begin},{},{ttl_ms}", create.parent_cversion),
            }
        }
        TxnBody::SetData(set) | TxnBody::Reconfig(set) => format!("{},{},{}", set.path, text(&set.data), set.version),
        TxnBody::Multi(_) => {
            let parts = Txn::multi_parts(payload).map_err(unexpected)?;
            let parts = parts.iter().map(|(kind, bytes)| format!("{}:{}", name(*kind), String::from_utf8_lossy(bytes)));
            parts.collect::<Vec<_>>().join(";")
        }
        TxnBody::SetAcl(set) => {
            let acls: Vec<String> = set.acl.iter().map(|acl| acl_record(acl, true)).collect();
            format!("{},v{{{}}},{}\n", escaped(&set.path), acls.join(","), set.version)
        }
        TxnBody::Delete { path, .. } => format!("{}\n", escaped(path)),
        TxnBody::Check(check) => format!("{},{}\n", escaped(&check.path), check.version),
        TxnBody::CloseSession { paths: None } | TxnBody::Unknown { .. } => String::new(),
        TxnBody::CloseSession { paths: Some(paths) } => {
            format!("v{{{}}}\n", paths.iter().map(|path| escaped(path)).collect::<Vec<_>>().join(","))
        }
        TxnBody::CreateSession { timeout_ms: number } | TxnBody::Error(number) => format!("{number}\n"),
    })
}

/// A jute record as `ToStringOutputArchive` prints it.
fn acl_record(acl: &Acl, nested: bool) -> String {
    let field = |text: &Option<String>| text.as_deref().map_or_else(String::new, escaped);
    let inner = format!("{},s{{{},{}}}", acl.perms, field(&acl.scheme), field(&acl.id));
    if nested { format!("s{{{inner}}}") } else { inner }
}

fn escaped(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\0' | '\n' | '\r' | ',' | '}' | '%' => out.push_str(&format!("%{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Copies the records up to `zxid`. Whatever goes wrong is said on standard output, and the exit code is 0, as in Apache.
fn chop(path: &Path, zxid: Zxid, out: &mut dyn Write) -> Outcome {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match chop_records(path, zxid, out) {
        Ok(true) => {}
        Ok(false) => writeln!(out, "Got exception: Failed to chop {name}")?,
        Err(failure) if failure.message.is_empty() => return Err(failure),
        Err(failure) => writeln!(out, "Got exception: {}", failure.message)?,
    }
    Ok(GOOD)
}

/// Whether something was cut off.
fn chop_records(path: &Path, zxid: Zxid, out: &mut dyn Write) -> Result<bool, Failure> {
    let (mut log, header) = open(path, out)?;
    let mut copy = Copy::begin(PathBuf::from(format!("{}.chopped{}", path.display(), zxid.0)), &header)?;
    let (mut count, mut has_zxid, mut previous) = (0_u64, false, None);
    loop {
        let entry = match next(&mut log)? {
            Next::Good(entry) => entry,
            Next::Wrong(payload) => {
                let found = simd_adler32::adler32(&payload.as_slice());
                return Err(unexpected(format!("CRC doesn't match at offset {}: found {found}", log.offset())));
            }
            Next::End => {
                writeln!(out, "EOF reached after {count} txns.")?;
                copy.finish()?;
                return Ok(false);
            }
        };
        let found = entry.txn.header.zxid;
        has_zxid |= found == zxid;
        say_gap(previous, found, out)?;
        previous = Some(found);
        if found > zxid {
            copy.finish()?;
            if count == 0 || !has_zxid {
                writeln!(out, "This log does not contain zxid {:x}", zxid.0)?;
                return Ok(false);
            }
            writeln!(out, "Chopping at {:x} new log has {count} records", zxid.0)?;
            return Ok(true);
        }
        copy.put(&txnlog::prefix(log.payload()), log.payload())?;
        count += 1;
    }
}

fn say_gap(previous: Option<Zxid>, found: Zxid, out: &mut dyn Write) -> io::Result<()> {
    let Some(previous) = previous.filter(|previous| found != previous.next()) else { return Ok(()) };
    let (a, b) = (previous.0, found.0);
    if previous.epoch() == found.epoch() {
        writeln!(out, "There is intra-epoch gap between {a:x} and {b:x}")
    } else if found.counter() != 1 {
        writeln!(out, "There is inter-epoch gap between {a:x} and {b:x}")
    } else {
        Ok(())
    }
}
