//! A snapshot that the disk does not give just now.

use super::*;
use crate::ids::SessionId;
use crate::records::OwnerRules;
use crate::storage::txnlog::{END_BYTE, header, prefix};
use crate::txn::{Txn, TxnBody, TxnHeader};
use std::fs;

const OPTIONS: RecoverOptions = RecoverOptions {
    rules: StateRules::new(OwnerRules { extended_types: false, emulate_353: false }, true),
    datadir_autocreate: true,
    db_autocreate: true,
    trust_empty: false,
    record_bytes_max: 1 << 20,
    recent_max: 0,
    as_of: None,
    force_sync: true,
    repairable: true,
};

fn write_log(dirs: &DataDirs, zxids: std::ops::RangeInclusive<i64>) {
    let mut bytes = header().to_vec();
    for zxid in zxids.clone() {
        let header = TxnHeader { client_id: SessionId(1), cxid: 0, zxid: Zxid(zxid), time_ms: 0 };
        let payload = Txn { header, body: TxnBody::Error(-1), digest: None }.to_bytes();
        bytes.extend([&prefix(&payload)[..], &payload, &[END_BYTE]].concat());
    }
    fs::write(dirs.logs.join(names::log_name(Zxid(*zxids.start()))), bytes).unwrap();
}

/// A member whose newest snapshot, as of 5, fails with this error; its logs hold these transactions.
fn with_unread(
    error: fn() -> SnapshotError,
    logs: &[std::ops::RangeInclusive<i64>],
) -> Result<Recovered, RecoverError> {
    let dir = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(dir.path(), None);
    recover(&dirs, &OPTIONS).unwrap();
    let copy = |zxid| dirs.snapshots.join(names::snapshot_name(Zxid(zxid), Compression::None));
    fs::copy(copy(0), copy(5)).unwrap();
    logs.iter().for_each(|zxids| write_log(&dirs, zxids.clone()));
    let on_read = Arc::new(|_: usize| ()) as OnRead;
    let load = |found: &Found| {
        if found.zxid == Zxid(5) { Err(error()) } else { load(dirs.files(), found, &OPTIONS, &on_read) }
    };
    recover_with(&dirs, &OPTIONS, &on_read, &load)
}

#[test]
fn a_snapshot_that_cannot_be_read_now_is_not_called_damaged() {
    let busy: fn() -> SnapshotError = || io::Error::from_raw_os_error(libc::EMFILE).into();
    let damaged: fn() -> SnapshotError = || SnapshotError::BadSeal("the seal");
    // The older one and the logs reach as far.
    for error in [busy, damaged] {
        let recovered = with_unread(error, &[1..=7]).unwrap();
        assert!(recovered.damage.is_none() && recovered.state.last_zxid() == Zxid(7));
    }
    // They do not: what the disk changed is repaired from the others, the rest is for a person.
    for logs in [&[1..=4][..], &[6..=7], &[1..=2, 6..=7]] {
        assert!(with_unread(damaged, logs).unwrap().damage.is_some());
        let error = with_unread(busy, logs).unwrap_err();
        assert!(matches!(error, RecoverError::Unread { .. }), "{error}");
        assert!(error.to_string().contains("snapshot.5 cannot be read"), "{error}");
    }
}
