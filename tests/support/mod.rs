//! What several tests of the storage need: directories made from vectors, states as comparable values.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world fails")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use rookeeper::config::Compression;
use rookeeper::ids::{SessionId, Zxid};
use rookeeper::records::{Acl, OwnerRules, Stat, StatPersisted};
use rookeeper::state::{State, StateRules};
use rookeeper::storage::dirs::DataDirs;
use rookeeper::storage::names::snapshot_name;
use rookeeper::storage::recover::{RecoverError, RecoverOptions, Recovered, recover};
use rookeeper::storage::snapshot::SnapshotWriter;
use rookeeper::storage::txnlog::{self, END_BYTE};
use rookeeper::sys::files::Dir;
use rookeeper::txn::{CreateOwner, CreateTxn, Txn, TxnBody, TxnHeader};

/// A folder of tests/vectors.
pub fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// What the vectors are to be opened with.
pub fn options() -> RecoverOptions {
    let owners = OwnerRules { extended_types: true, emulate_353: false };
    RecoverOptions {
        rules: StateRules::new(owners, true),
        datadir_autocreate: true,
        db_autocreate: true,
        trust_empty: false,
        record_bytes_max: 2 * 1_048_575,
        recent_max: 0,
        as_of: None,
        force_sync: true,
        repairable: false,
    }
}

/// A data directory of its own, removed with the value.
pub struct DataDir {
    dir: tempfile::TempDir,
}

impl DataDir {
    /// An empty one.
    pub fn new() -> DataDir {
        // In memory where that is possible: thousands of images are synced.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = DataDir { dir: dir.unwrap() };
        fs::create_dir(dir.version_2()).unwrap();
        dir
    }

    /// A copy of a vector's version-2.
    pub fn of_vector(name: &str) -> DataDir {
        let dir = DataDir::new();
        for entry in fs::read_dir(vector(name).join("version-2")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.file(entry.file_name().to_str().unwrap())).unwrap();
        }
        dir
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn version_2(&self) -> Dir {
        Dir::of_host(self.dir.path().join("version-2"))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.version_2().join(name)
    }

    pub fn dirs(&self) -> DataDirs {
        DataDirs::new(self.dir.path(), None)
    }

    pub fn recover(&self) -> Result<Recovered, RecoverError> {
        recover(&self.dirs(), &options())
    }

    /// Names and contents.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
        let entries = fs::read_dir(self.version_2()).unwrap().map(Result::unwrap);
        // A file may go while its neighbours are read.
        entries.filter_map(|entry| Some((name(&entry), fs::read(entry.path()).ok()?))).collect()
    }
}

/// A node as a comparable value.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeView {
    pub data: Option<Vec<u8>>,
    pub shown: Stat,
    pub stored: StatPersisted,
    pub acl: Option<Vec<Acl>>,
}

/// All of a state that a client can see, and what is stored of it.
#[derive(Clone, PartialEq, Debug)]
pub struct StateView {
    pub nodes: BTreeMap<String, NodeView>,
    pub sessions: BTreeMap<SessionId, i32>,
}

/// Looks at a state as a server shows it after its start.
pub fn view(state: &State) -> StateView {
    let mut nodes = BTreeMap::new();
    state.for_each_node(|path, node, acl, shown| {
        let path = if path.is_empty() { "/" } else { path };
        let data = node.data().map(<[u8]>::to_vec);
        let acl = acl.map(|list| list.to_vec());
        nodes.insert(path.to_owned(), NodeView { data, shown, stored: *node.stat(), acl });
    });
    StateView { nodes, sessions: state.sessions().collect() }
}

/// A transaction that leaves a node named by its zxid, with this much data.
pub fn txn(zxid: i64, data_bytes: usize) -> Txn {
    let header = TxnHeader { client_id: SessionId(1), cxid: 1, zxid: Zxid(zxid), time_ms: 1_700_000_000_000 };
    let create = CreateTxn {
        path: format!("/n{zxid:x}"),
        data: Some(vec![0xee; data_bytes]),
        acl: Acl::open(),
        owner: CreateOwner::None,
        with_stat: false,
        parent_cversion: -1,
    };
    Txn { header, body: TxnBody::Create(create), digest: None }
}

/// A record of a log.
pub fn record(txn: &Txn) -> Vec<u8> {
    let payload = txn.to_bytes();
    let mut bytes = txnlog::prefix(&payload).to_vec();
    bytes.extend_from_slice(&payload);
    bytes.push(END_BYTE);
    bytes
}

/// A log and the offsets at which its records end; the first is the header's end.
pub fn log(zxids: RangeInclusive<i64>, data_bytes: impl Fn(i64) -> usize) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = txnlog::header().to_vec();
    let mut ends = vec![bytes.len()];
    for zxid in zxids {
        bytes.extend(record(&txn(zxid, data_bytes(zxid))));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// A directory that was empty once, with these logs.
pub fn dir_with(logs: &[(&str, &[u8])]) -> DataDir {
    let dir = DataDir::new();
    dir.recover().unwrap();
    logs.iter().for_each(|(name, bytes)| fs::write(dir.file(name), bytes).unwrap());
    dir
}

/// Writes a snapshot of a state under its name.
pub fn write_snapshot(dir: &DataDir, state: &mut State) {
    let mut writer = SnapshotWriter::new(Compression::None, Vec::new()).unwrap();
    writer.write(&state.begin_cut()).unwrap();
    let mut done = false;
    while !done {
        let (bytes, last) = state.cut_slice(usize::MAX);
        writer.write(&bytes).unwrap();
        done = last;
    }
    let zxid = state.last_zxid();
    let bytes = writer.finish(zxid, Some(state.tree_digest()), true).unwrap();
    // As a server does it: one of that name that was there is another file.
    fs::write(dir.file("unfinished-snapshot"), bytes).unwrap();
    fs::rename(dir.file("unfinished-snapshot"), dir.file(&snapshot_name(zxid, Compression::None))).unwrap();
}
