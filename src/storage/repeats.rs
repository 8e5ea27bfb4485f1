//! Transactions that a log holds more than once. A follower of Apache logs what its leader sends between NEWLEADER and
//! UPTODATE; if it loses the leader there, it forgets that it did, gets the same transactions again and logs them again, a
//! run of up to some thousand records. Apache's replay applies both, which changes nothing: a transaction says the outcome.
//! `logdir` passes the second one over.
//!
//! Only the same transaction is a repeat. A different one with the same zxid is of another history, and one that cannot be
//! compared any more may be; both are left to the reader's caller, who refuses them.
//! It cannot be compared when more than [`RECORDS_MAX`] records came between, or when a snapshot within the run spares the
//! log that holds it first.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use crate::ids::Zxid;
use crate::txn::{Txn, TxnBody, kind};

/// How far back a transaction is still known.
pub const RECORDS_MAX: usize = 1 << 16;

/// Bytes in front of the sub-transactions of a multi: the header of the transaction, and their number.
const BEFORE_SUBS_BYTES: usize = 36;

/// The last records of a sequence: zxids, ascending, and a checksum of 64 bits of what each of them says.
#[derive(Debug, Default)]
pub struct Seen {
    records: VecDeque<(Zxid, u64)>,
}

impl Seen {
    /// Whether the next record, which reads `txn`, is one of the last [`RECORDS_MAX`] again. One with a higher zxid than
    /// any before is remembered.
    pub fn is_repeat(&mut self, txn: &Txn, payload: &[u8]) -> bool {
        let (zxid, sum) = (txn.header.zxid, checksum(txn, payload));
        if self.records.back().is_some_and(|(last, _)| zxid <= *last) {
            return self.records.binary_search_by_key(&zxid, |known| known.0).is_ok_and(|at| self.records[at].1 == sum);
        }
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back((zxid, sum));
        false
    }
}

fn checksum(txn: &Txn, payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&comparable(txn, payload));
    hasher.finish()
}

/// The record, the same for the same transaction. Apache marks every sub-transaction of a failed multi as an error when it
/// applies it, in the very object that it logs, before or after: the types differ then, and nothing else.
fn comparable<'a>(txn: &Txn, payload: &'a [u8]) -> Cow<'a, [u8]> {
    let TxnBody::Multi(subs) = &txn.body else { return Cow::Borrowed(payload) };
    if !subs.iter().any(TxnBody::is_error) {
        return Cow::Borrowed(payload);
    }
    let mut bytes = payload.to_vec();
    let mut at = BEFORE_SUBS_BYTES;
    for _ in subs {
        // The record was read: type, length and body of each are there.
        let Some((sub_kind, rest)) = bytes.get_mut(at..).and_then(<[u8]>::split_first_chunk_mut) else { break };
        *sub_kind = kind::ERROR.to_be_bytes();
        let Some(length) = rest.first_chunk() else { break };
        at += 8 + usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::txn::TxnHeader;

    fn with_body(zxid: i64, body: TxnBody) -> Txn {
        let header = TxnHeader { client_id: SessionId(1), cxid: 1, zxid: Zxid(zxid), time_ms: 1 };
        Txn { header, body, digest: None }
    }

    fn error(zxid: i64, code: i32) -> Txn {
        with_body(zxid, TxnBody::Error(code))
    }

    fn repeats(seen: &mut Seen, txn: &Txn) -> bool {
        seen.is_repeat(txn, &txn.to_bytes())
    }

    #[test]
    fn only_the_same_transaction_is_a_repeat() {
        let mut seen = Seen::default();
        for zxid in [5, 6, 7, 1 << 32 | 1] {
            assert!(!repeats(&mut seen, &error(zxid, -1)));
        }
        for zxid in [6, 6, 5, 7, 1 << 32 | 1] {
            assert!(repeats(&mut seen, &error(zxid, -1)), "{zxid}");
        }
        assert!(!repeats(&mut seen, &error(6, -2)));
        assert!(!repeats(&mut seen, &error(4, -1)), "never read");
        assert!(!repeats(&mut seen, &error(8, -1)), "a hole is none");
    }

    #[test]
    fn what_was_read_long_ago_is_not_known_any_more() {
        let mut seen = Seen::default();
        for zxid in 1..=RECORDS_MAX as i64 + 1 {
            assert!(!repeats(&mut seen, &error(zxid, -1)));
        }
        assert!(!repeats(&mut seen, &error(1, -1)));
        assert!(repeats(&mut seen, &error(2, -1)));
    }

    /// The record of a multi whose second part failed, as it is logged before and after it is applied.
    fn failed_multi(path: &str, first_kind: i32) -> (Txn, Vec<u8>) {
        let delete = TxnBody::Delete { path: path.into(), container: false };
        let txn = with_body(1, TxnBody::Multi(vec![delete, TxnBody::Error(-103)]));
        let mut payload = txn.to_bytes();
        payload[BEFORE_SUBS_BYTES..][..4].copy_from_slice(&first_kind.to_be_bytes());
        (Txn::from_bytes(&payload).unwrap(), payload)
    }

    #[test]
    fn a_failed_multi_is_the_same_before_and_after_it_was_applied() {
        for (first, second) in [(kind::DELETE, kind::ERROR), (kind::ERROR, kind::DELETE)] {
            let mut seen = Seen::default();
            let ((txn, payload), (again, other_bytes)) = (failed_multi("/a", first), failed_multi("/a", second));
            assert!(payload != other_bytes && !seen.is_repeat(&txn, &payload));
            assert!(seen.is_repeat(&again, &other_bytes));
            let (other, payload) = failed_multi("/b", second);
            assert!(!seen.is_repeat(&other, &payload));
        }
    }
}
