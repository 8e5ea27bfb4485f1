//! Bytes as the log files of a data directory, with right checksums or as they are, and some damage. Recovery gives a
//! sound state or refuses; what it gave once it gives again.
//!
//! Input: options, two bytes of damage, then records, each behind its length in two bytes; length 0 begins a new file.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rookeeper::ids::Zxid;
use rookeeper::records::OwnerRules;
use rookeeper::state::StateRules;
use rookeeper::storage::dirs::DataDirs;
use rookeeper::storage::names::log_name;
use rookeeper::storage::recover::{RecoverOptions, Recovered, recover};
use rookeeper::storage::txnlog::{END_BYTE, header, prefix};
use rookeeper_fuzz::{check_state, pieces};

/// A directory of this process, on a disk in memory if run.sh found one.
fn data_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| std::env::temp_dir().join(format!("rookeeper-fuzz-logs-{}", std::process::id())))
}

struct File {
    name: String,
    bytes: Vec<u8>,
}

/// The zxid in the header of a payload; it names a file that begins with it.
fn zxid_of(payload: &[u8]) -> Zxid {
    payload.get(12..20).map_or(Zxid::ZERO, |field| Zxid(i64::from_be_bytes(field.try_into().expect("8 bytes"))))
}

fn files(records: &[u8], checksums: bool) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    let mut begin = true;
    for payload in pieces(records).take(64) {
        if payload.is_empty() {
            begin = true;
            continue;
        }
        if begin {
            files.push(File { name: log_name(zxid_of(payload)), bytes: header().to_vec() });
            begin = false;
        }
        let bytes = &mut files.last_mut().expect("one is begun").bytes;
        match checksums {
            true => {
                bytes.extend(prefix(payload));
                bytes.extend(payload);
                bytes.push(END_BYTE);
            }
            false => bytes.extend(payload),
        }
    }
    files
}

fn damage(files: &mut [File], options: u8, cut: u8, flip: u8) {
    let Some(last) = files.last_mut() else { return };
    let length = last.bytes.len().saturating_sub(usize::from(cut));
    last.bytes.truncate(length);
    if options & 2 != 0 && length > 0 {
        last.bytes[usize::from(flip) * 7 % length] ^= 0x41;
    }
    if options & 4 != 0 {
        last.bytes.resize(length + 600, 0);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [options, cut, flip, records @ ..] = bytes else { return };
    let mut files = files(records, options & 1 == 0);
    damage(&mut files, *options, *cut, *flip);
    let dirs = DataDirs::new(data_dir(), None);
    // Nothing is there before the first run.
    let _ = fs::remove_dir_all(&dirs.logs);
    fs::create_dir_all(&dirs.logs).expect("a directory for the log");
    for file in &files {
        fs::write(dirs.logs.join(&file.name), &file.bytes).expect("a log file");
    }
    let owners = OwnerRules { extended_types: options & 8 == 0, emulate_353: false };
    let options = RecoverOptions {
        rules: StateRules::new(owners, true),
        datadir_autocreate: true,
        db_autocreate: true,
        trust_empty: true,
        record_bytes_max: 1 << 21,
        recent_max: 0,
        as_of: None,
        force_sync: true,
        repairable: false,
    };
    let Ok(Recovered { state, replayed, .. }) = recover(&dirs, &options) else { return };
    check_state(&state);
    let again = recover(&dirs, &options).expect("what could be recovered can be recovered again");
    assert_eq!((again.state.last_zxid(), again.replayed), (state.last_zxid(), replayed));
    assert_eq!(again.state.tree_digest(), state.tree_digest());
});
