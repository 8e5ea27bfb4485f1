//! What several tests of the storage need: directories made from vectors, states as comparable values.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rookeeper::ids::SessionId;
use rookeeper::records::{Acl, OwnerRules, Stat, StatPersisted};
use rookeeper::state::{State, StateRules};
use rookeeper::storage::dirs::DataDirs;
use rookeeper::storage::recover::{RecoverError, RecoverOptions, Recovered, recover};

/// A folder of tests/vectors.
pub fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// What the vectors are to be opened with.
pub fn options() -> RecoverOptions {
    let owners = OwnerRules { extended_types: true, emulate_353: false };
    RecoverOptions {
        rules: StateRules { owners, digest_enabled: true },
        datadir_autocreate: true,
        db_autocreate: true,
        trust_empty: false,
        record_bytes_max: 2 * 1_048_575,
        recent_max: 0,
        as_of: None,
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

    pub fn version_2(&self) -> PathBuf {
        self.dir.path().join("version-2")
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
