//! What the fuzz targets share: choices, the trial of the pipeline. The code itself is in `tests/support`, where ordinary
//! tests use it too.

#[path = "../../tests/support/trial/mod.rs"]
pub mod trial;

use rookeeper::state::State;
use rookeeper::state::digest::{self, Prefix};

/// Cuts bytes into pieces, each behind its length in two bytes; the last one may be shorter than it says.
pub fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        bytes = rest;
        Some(piece)
    })
}

/// Splits an input into a stream and the pieces it comes in: the first byte says how many lengths follow, which are used
/// over and over.
pub fn cut(bytes: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let Some((&cuts, rest)) = bytes.split_first() else { return (bytes, Vec::new()) };
    let (lengths, stream) = rest.split_at(usize::from(cuts % 8).min(rest.len()));
    let mut lengths = lengths.iter().cycle();
    let (mut left, mut pieces) = (stream, Vec::new());
    while !left.is_empty() {
        let length = usize::from(*lengths.next().unwrap_or(&1)).clamp(1, left.len());
        let (piece, rest) = left.split_at(length);
        pieces.push(piece);
        left = rest;
    }
    (stream, pieces)
}

/// The digest is that of the nodes, every node is found by its path, and none has a path that cannot be.
pub fn check_state(state: &State) {
    let (mut digest, mut nodes) = (0u64, 0);
    state.for_each_node(|path, node, _, _| {
        if digest::counts(path) {
            digest = digest.wrapping_add(Prefix::of(path, node.data()).node_digest(node.stat()));
        }
        nodes += 1;
        assert!(path != "/", "a path that no snapshot can hold");
        let found = state.tree().lookup(path).map(|id| state.tree().path(id));
        assert_eq!(found.as_deref(), Some(path));
    });
    assert_eq!(digest, state.tree_digest());
    assert_eq!(nodes, state.tree().len());
}
