//! Bytes as the payload of a log record, or of several. What can be decoded is encoded and decoded again, and comes out
//! the same; a state takes whatever comes, and its digest stays that of its nodes.
//!
//! Input: payloads, each behind its length in two bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rookeeper::ids::Zxid;
use rookeeper::records::OwnerRules;
use rookeeper::state::{State, StateRules};
use rookeeper::txn::{DIGEST_VERSION, Txn, TxnBody};
use rookeeper_fuzz::{check_state, pieces};

fn has_empty_paths(txn: &Txn) -> bool {
    matches!(&txn.body, TxnBody::CloseSession { paths: Some(paths) } if paths.iter().all(String::is_empty))
}

fuzz_target!(|bytes: &[u8]| {
    let owners = OwnerRules { extended_types: bytes.len() % 2 == 1, emulate_353: false };
    let mut state = State::fresh(StateRules::new(owners, true));
    for payload in pieces(bytes) {
        let Ok(txn) = Txn::from_bytes(payload) else { continue };
        // Some bytes are both a digest and a list of paths, though none that anybody writes.
        if txn.digest.is_none_or(|digest| digest.version == DIGEST_VERSION) && !has_empty_paths(&txn) {
            assert_eq!(Txn::from_bytes(&txn.to_bytes()).as_ref(), Ok(&txn));
        }
        let last = state.last_zxid();
        state.apply(&txn, Some(&mut Vec::new()));
        assert_eq!(state.last_zxid(), last.max(txn.header.zxid));
        check_state(&state);
    }
    assert!(state.last_zxid() >= Zxid::ZERO);
});
