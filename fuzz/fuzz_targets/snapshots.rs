//! Bytes as a snapshot: plain, gzip or snappy, as they are or with right seals behind them. What can be loaded is a
//! sound state, whose own snapshot loads into the same.
//!
//! Input: options, the stream.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use rookeeper::config::Compression;
use rookeeper::ids::Zxid;
use rookeeper::records::{Acl, OwnerRules, Stat};
use rookeeper::state::{Loader, State, StateRules};
use rookeeper::storage::snapshot::{SnapshotWriter, load};
use rookeeper_fuzz::check_state;

const ZXID: Zxid = Zxid(77);
const IN_MEMORY: &str = "memory can be written";

fn loaded(bytes: Vec<u8>, method: Compression, rules: StateRules) -> Option<State> {
    let mut loader = Loader::new(rules);
    load(method.reader(Cursor::new(bytes)), &mut loader).ok()?;
    Some(loader.finish(ZXID))
}

/// The same with its seals.
fn sealed(body: &[u8], method: Compression, options: u8) -> Vec<u8> {
    let mut writer = SnapshotWriter::new(method, Vec::new()).expect(IN_MEMORY);
    writer.write(body).expect(IN_MEMORY);
    let digest = (options & 16 != 0).then_some(5);
    writer.finish(ZXID, digest, options & 32 != 0).expect(IN_MEMORY)
}

type Node = (String, Option<Vec<u8>>, Option<Vec<Acl>>, Stat);

/// The nodes. How much of a quota is used is counted anew by each load, and may count itself.
fn nodes(state: &State) -> Vec<Node> {
    let mut nodes = Vec::new();
    state.for_each_node(|path, node, acl, stat| {
        let is_usage = path.ends_with("/zookeeper_stats");
        let data = node.data().filter(|_| !is_usage).map(<[u8]>::to_vec);
        let stat = if is_usage { Stat { data_length: 0, ..stat } } else { stat };
        nodes.push((path.to_owned(), data, acl.map(|list| list.to_vec()), stat));
    });
    nodes.sort_by(|a, b| a.0.cmp(&b.0));
    nodes
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&options, stream)) = bytes.split_first() else { return };
    let method =
        [Compression::None, Compression::None, Compression::Gzip, Compression::Snappy][usize::from(options % 4)];
    let owners = OwnerRules { extended_types: options & 64 != 0, emulate_353: options & 128 != 0 };
    let rules = StateRules::new(owners, true);
    let file = if options & 8 != 0 { sealed(stream, method, options) } else { stream.to_vec() };
    let Some(mut state) = loaded(file, method, rules) else { return };
    check_state(&state);
    let mut body = state.begin_cut();
    loop {
        let (slice, done) = state.cut_slice(64);
        body.extend(slice);
        if done {
            break;
        }
    }
    let again = loaded(sealed(&body, method, options), method, rules).expect("what is written can be read");
    check_state(&again);
    assert_eq!(nodes(&again), nodes(&state));
    assert_eq!(again.session_count(), state.session_count());
});
