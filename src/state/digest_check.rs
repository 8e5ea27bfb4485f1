//! Whether the data is what was written: the digests that come with transactions and snapshots, held against the tree's
//! own. Every comparison, count and alarm is here; [`super::State`] says what it has applied.
//!
//! A snapshot of Apache's holds more than its zxid says: writes go on while it is made. Up to some later transaction its
//! digests mean nothing. A file tells that point in its trailer, with the digest there. A stream behind SNAP does not: the
//! state is exact once a digest is the tree's, and at the latest where the leader's synchronization ends.
//!
//! Where a leader's history is joined to this one and the leader said nothing of what is before the joint, the first digest
//! behind it tells whether the two are one. It proves that only of a tree that was right before: exact, and with a digest
//! last that was its own.

use std::collections::VecDeque;
use std::fmt;

use crate::ids::Zxid;
use crate::txn::{DIGEST_VERSION, TxnDigest};

/// An entry of the digest log is kept every this many transactions (`DataTree.DIGEST_LOG_INTERVAL`).
const LOG_INTERVAL: i64 = 128;
/// Entries of the digest log (`DataTree.DIGEST_LOG_LIMIT`).
const LOG_LIMIT: usize = 1024;
/// Digests that may differ behind the point from which a state is exact before that is an alarm.
const DIFFERING_MAX: u64 = 100;
/// The same while that point is not known: more than are written while one snapshot is made.
const DIFFERING_UNTOLD_MAX: u64 = 100_000;

/// How the state stands to what was written.
#[derive(Clone, Copy, Debug)]
enum Trust {
    /// It is that of its last transaction.
    Exact,
    /// It is at this transaction, and has this digest then.
    ExactAt { zxid: Zxid, digest: TxnDigest },
    /// It may hold a part of later transactions.
    Doubtful {
        /// It is exact from here on, once that is known.
        exact_from: Option<Zxid>,
        /// Digests that were not the tree's: all of them, or those behind that point.
        differing: u64,
    },
}

/// What the digests say of a joint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JointVerdict {
    /// The first digest behind it is the tree's: the two histories are one.
    Right,
    /// It is not, and that tells nothing: the tree was not known to be right before.
    Open,
    /// It is not, and the histories are two.
    Wrong(WrongJoint),
}

/// Two histories were joined that are not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongJoint {
    /// The last transaction before the joint: both have one of this zxid.
    pub joint: Zxid,
    /// The first one behind it with a digest, which was not the tree's.
    pub seen: Zxid,
}

impl fmt::Display for WrongJoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WrongJoint { joint, seen } = self;
        write!(
            f,
            "its history up to {joint} is another one than that of the leader which it followed from there: the data digest \
             of {seen} does not fit"
        )
    }
}

/// A point up to which nothing is known of the leader's history.
#[derive(Clone, Copy, Debug)]
struct Joint {
    /// The last transaction before it.
    at: Zxid,
    /// The tree was right before: a digest behind the joint that is not the tree's proves that the histories are two. One
    /// that is the tree's proves in any case that they are one.
    refutable: bool,
    /// A digest was not the tree's, and that was said.
    open: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct DigestCheck {
    trust: Trust,
    mismatches: u64,
    /// Digests differ now, and have since this transaction.
    differs_since: Option<Zxid>,
    /// The last digest was the tree's.
    proven: bool,
    /// The first joint of which no digest has told yet.
    joint: Option<Joint>,
    /// One has.
    verdict: Option<JointVerdict>,
    /// And the two histories are not one.
    of_two: bool,
    log: VecDeque<(Zxid, u64)>,
}

impl DigestCheck {
    /// Of a state that is exact.
    pub fn new() -> DigestCheck {
        DigestCheck {
            trust: Trust::Exact,
            mismatches: 0,
            differs_since: None,
            proven: false,
            joint: None,
            verdict: None,
            of_two: false,
            log: VecDeque::new(),
        }
    }

    /// How many digests were not the tree's.
    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Zxid and digest of every 128th transaction, oldest first.
    pub fn log(&self) -> impl Iterator<Item = (Zxid, u64)> + '_ {
        self.log.iter().copied()
    }

    /// Whether the tree is that of its last transaction.
    pub fn is_exact(&self) -> bool {
        matches!(self.trust, Trust::Exact)
    }

    /// What is applied from here on is of a leader that said nothing of what it has up to here. Of a joint before this one
    /// may be nothing known yet: then that one counts, unless nothing will ever tell of it.
    pub fn join(&mut self, at: Zxid) {
        let refutable = self.is_exact() && self.proven;
        if self.joint.is_none_or(|joint| joint.open) {
            self.joint = Some(Joint { at, refutable, open: false });
        }
    }

    /// What is applied from here on is this server's own: nobody is left to be held against.
    pub fn leave_joint(&mut self) {
        (self.joint, self.verdict, self.of_two) = (None, None, false);
    }

    /// Whether a joint turned out to be wrong.
    pub fn is_of_two_histories(&self) -> bool {
        self.of_two
    }

    /// What was found of the joint; once.
    pub fn take_joint_verdict(&mut self) -> Option<JointVerdict> {
        self.verdict.take()
    }

    /// The state is that of a snapshot which does not say whether it holds more than its zxid.
    pub fn doubt(&mut self) {
        self.trust = Trust::Doubtful { exact_from: None, differing: 0 };
    }

    /// However it was made, the state is exact from this transaction on.
    pub fn exact_from(&mut self, zxid: Zxid) {
        if let Trust::Doubtful { exact_from: exact_from @ None, differing } = &mut self.trust {
            (*exact_from, *differing) = (Some(zxid), 0);
        }
    }

    /// The digest of the tree as of its last transaction, `at`, or of a later one.
    pub fn expect(&mut self, zxid: Zxid, digest: TxnDigest, at: Zxid, tree_digest: u64) {
        if zxid == at {
            self.compare(zxid, digest, tree_digest);
        } else if zxid > at {
            self.trust = Trust::ExactAt { zxid, digest };
        }
    }

    /// A transaction was applied; `digest` came with it.
    pub fn on_applied(&mut self, zxid: Zxid, digest: Option<TxnDigest>, tree_digest: u64) {
        match self.trust {
            Trust::Exact => {
                if let Some(digest) = digest {
                    self.compare(zxid, digest, tree_digest);
                }
            }
            Trust::ExactAt { zxid: at, .. } if zxid < at => return,
            Trust::ExactAt { zxid: at, digest: promised } => {
                self.trust = Trust::Exact;
                if let Some(digest) = Some(promised).filter(|_| zxid == at).or(digest) {
                    self.compare(zxid, digest, tree_digest);
                }
            }
            Trust::Doubtful { .. } => {
                if let Some(digest) = digest.filter(|digest| digest.version == DIGEST_VERSION) {
                    self.compare_doubtful(zxid, digest, tree_digest);
                }
                if !self.is_exact() {
                    return;
                }
            }
        }
        if zxid.0 % LOG_INTERVAL == 0 {
            if self.log.len() == LOG_LIMIT {
                self.log.pop_front();
            }
            self.log.push_back((zxid, tree_digest));
        }
    }

    fn compare_doubtful(&mut self, zxid: Zxid, digest: TxnDigest, tree_digest: u64) {
        let Trust::Doubtful { exact_from, differing } = &mut self.trust else { return };
        if digest.tree_digest == tree_digest {
            if *differing > 0 || exact_from.is_some_and(|from| zxid <= from) {
                log::info!("the data digest is right from {zxid} on: the snapshot held a part of what came after it");
            }
            self.trust = Trust::Exact;
            self.prove();
            return;
        }
        let max = match exact_from {
            Some(from) if zxid <= *from => return,
            Some(_) => DIFFERING_MAX,
            None => DIFFERING_UNTOLD_MAX,
        };
        *differing += 1;
        if *differing > max {
            self.trust = Trust::Exact;
            self.compare(zxid, digest, tree_digest);
        }
    }

    /// A digest is the tree's, and so is all that came before.
    fn prove(&mut self) {
        self.proven = true;
        if self.joint.take().is_some() {
            self.verdict = Some(JointVerdict::Right);
        }
    }

    fn compare(&mut self, zxid: Zxid, digest: TxnDigest, tree_digest: u64) {
        let TxnDigest { version, tree_digest: expected } = digest;
        if version != DIGEST_VERSION {
            return;
        }
        if expected == tree_digest {
            self.prove();
            if let Some(since) = self.differs_since.take() {
                log::warn!("data digests are right again from {zxid} on; they were not since {since}");
            }
            return;
        }
        self.proven = false;
        if let Some(Joint { at: joint, .. }) = self.joint.take_if(|joint| joint.refutable) {
            self.verdict = Some(JointVerdict::Wrong(WrongJoint { joint, seen: zxid }));
            self.of_two = true;
        }
        if let Some(joint) = self.joint.as_mut().filter(|joint| !joint.open) {
            joint.open = true;
            self.verdict = Some(JointVerdict::Open);
        }
        self.mismatches += 1;
        crate::metrics::DIGEST_MISMATCHES_COUNT.add(1);
        if self.differs_since.is_none() {
            self.differs_since = Some(zxid);
            log::error!(
                "data digest at {zxid} is {tree_digest:x}, expected {expected:x}: this copy of the data differs from the \
                 one that was written; further mismatches are only counted (zk_digest_mismatches_count)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: u64 = 7;

    fn digest(tree_digest: u64) -> TxnDigest {
        TxnDigest { version: DIGEST_VERSION, tree_digest }
    }

    /// Transactions of these zxids are applied, with digests that are the tree's or not.
    fn apply(check: &mut DigestCheck, zxids: std::ops::RangeInclusive<i64>, right: bool) {
        zxids.for_each(|n| check.on_applied(Zxid(n), Some(digest(if right { RIGHT } else { RIGHT + 1 })), RIGHT));
    }

    fn doubtful() -> DigestCheck {
        let mut check = DigestCheck::new();
        check.doubt();
        check
    }

    #[test]
    fn an_exact_state_is_held_against_every_digest_and_says_when_they_are_right_again() {
        let mut check = DigestCheck::new();
        apply(&mut check, 1..=10, true);
        apply(&mut check, 11..=13, false);
        assert_eq!((check.mismatches(), check.differs_since), (3, Some(Zxid(11))));
        apply(&mut check, 14..=14, true);
        assert_eq!((check.mismatches(), check.differs_since), (3, None));
        check.on_applied(Zxid(15), Some(TxnDigest { version: DIGEST_VERSION + 1, tree_digest: 0 }), RIGHT);
        check.on_applied(Zxid(16), None, RIGHT);
        assert_eq!(check.mismatches(), 3);
    }

    #[test]
    fn a_fuzzy_snapshot_is_no_alarm_until_the_first_digest_that_is_right() {
        let mut check = doubtful();
        apply(&mut check, 1..=73, false);
        check.exact_from(Zxid(200));
        apply(&mut check, 74..=150, false);
        assert!(!check.is_exact());
        apply(&mut check, 151..=151, true);
        assert!(check.is_exact() && check.mismatches() == 0);
        // From then on it is exact, whatever was said of a later point.
        apply(&mut check, 152..=152, false);
        assert_eq!(check.mismatches(), 1);
    }

    #[test]
    fn digests_that_stay_wrong_behind_the_end_of_the_synchronization_are_an_alarm() {
        let mut check = doubtful();
        apply(&mut check, 1..=1000, false);
        check.exact_from(Zxid(2000));
        check.exact_from(Zxid(9000));
        apply(&mut check, 1001..=2000 + DIFFERING_MAX as i64, false);
        assert_eq!(check.mismatches(), 0);
        apply(&mut check, 3000..=3001, false);
        assert_eq!(check.mismatches(), 2);
    }

    #[test]
    fn a_snapshot_that_tells_nothing_is_not_trusted_for_ever() {
        let mut check = doubtful();
        apply(&mut check, 1..=DIFFERING_UNTOLD_MAX as i64, false);
        assert_eq!(check.mismatches(), 0);
        apply(&mut check, 200_000..=200_000, false);
        assert_eq!(check.mismatches(), 1);
    }

    #[test]
    fn a_trailer_is_held_against_the_tree_at_its_zxid_and_not_before() {
        for (promised, mismatches) in [(RIGHT, 0), (RIGHT + 1, 1)] {
            let mut check = DigestCheck::new();
            check.expect(Zxid(20), digest(promised), Zxid(10), RIGHT);
            apply(&mut check, 11..=19, false);
            assert!(check.mismatches() == 0 && !check.is_exact());
            check.on_applied(Zxid(20), None, RIGHT);
            assert_eq!((check.mismatches(), check.is_exact()), (mismatches, true));
        }
        // A trailer for the snapshot itself, and one whose transaction there is not.
        let mut check = DigestCheck::new();
        check.expect(Zxid(10), digest(RIGHT + 1), Zxid(10), RIGHT);
        assert_eq!(check.mismatches(), 1);
        check.expect(Zxid(20), digest(RIGHT), Zxid(10), RIGHT);
        apply(&mut check, 21..=21, false);
        assert_eq!(check.mismatches(), 2);
    }

    #[test]
    fn the_first_digest_behind_a_joint_tells_whether_the_two_histories_are_one() {
        let joined = |before: fn(&mut DigestCheck), right_after: bool| {
            let mut check = DigestCheck::new();
            before(&mut check);
            check.join(Zxid(10));
            // Neither of these can be compared.
            check.on_applied(Zxid(11), None, RIGHT);
            check.on_applied(Zxid(12), Some(TxnDigest { version: DIGEST_VERSION + 1, tree_digest: 0 }), RIGHT);
            assert_eq!(check.take_joint_verdict(), None);
            apply(&mut check, 13..=13, right_after);
            let verdict = check.take_joint_verdict();
            apply(&mut check, 14..=15, false);
            assert_eq!(check.take_joint_verdict(), None, "what differs later has another cause");
            verdict
        };
        let right: fn(&mut DigestCheck) = |check| apply(check, 1..=10, true);
        let wrong = Some(JointVerdict::Wrong(WrongJoint { joint: Zxid(10), seen: Zxid(13) }));
        assert_eq!(joined(right, false), wrong);
        assert_eq!(joined(right, true), Some(JointVerdict::Right));
        // A tree of which nothing is known, one that was wrong before, and that of a fuzzy snapshot prove nothing, unless
        // they turn out to be right.
        let unknown: [fn(&mut DigestCheck); 2] = [|_| (), |check| apply(check, 9..=10, false)];
        for before in unknown {
            let verdicts = (joined(before, false), joined(before, true));
            assert_eq!(verdicts, (Some(JointVerdict::Open), Some(JointVerdict::Right)));
        }
        let fuzzy: fn(&mut DigestCheck) = |check| (apply(check, 1..=9, true), check.doubt()).1;
        assert_eq!((joined(fuzzy, false), joined(fuzzy, true)), (None, Some(JointVerdict::Right)));
    }

    #[test]
    fn a_joint_counts_until_a_digest_has_told_of_it() {
        let mut check = DigestCheck::new();
        apply(&mut check, 1..=10, true);
        check.join(Zxid(10));
        check.on_applied(Zxid(11), None, RIGHT);
        check.join(Zxid(11));
        apply(&mut check, 12..=13, false);
        let wrong = WrongJoint { joint: Zxid(10), seen: Zxid(12) };
        assert_eq!(check.take_joint_verdict(), Some(JointVerdict::Wrong(wrong)), "what was sent since may be foreign");
        check.join(Zxid(13));
        apply(&mut check, 14..=14, false);
        assert_eq!(check.take_joint_verdict(), Some(JointVerdict::Open), "it was wrong before");
        check.join(Zxid(14));
        apply(&mut check, 15..=15, false);
        assert_eq!(check.take_joint_verdict(), Some(JointVerdict::Open), "so it was before that one");
        apply(&mut check, 15..=15, true);
        assert_eq!(check.take_joint_verdict(), Some(JointVerdict::Right));
        check.join(Zxid(15));
        apply(&mut check, 16..=16, false);
        let wrong = WrongJoint { joint: Zxid(15), seen: Zxid(16) };
        assert_eq!(check.take_joint_verdict(), Some(JointVerdict::Wrong(wrong)));
    }

    #[test]
    fn a_leaders_own_digests_tell_nothing_of_a_joint_before() {
        let mut check = DigestCheck::new();
        apply(&mut check, 1..=10, true);
        check.join(Zxid(10));
        check.leave_joint();
        apply(&mut check, 11..=20, true);
        assert_eq!(check.take_joint_verdict(), None);
        check.join(Zxid(20));
        apply(&mut check, 21..=21, false);
        let wrong = WrongJoint { joint: Zxid(20), seen: Zxid(21) };
        assert_eq!(check.take_joint_verdict(), Some(JointVerdict::Wrong(wrong)));
    }

    #[test]
    fn the_log_holds_every_128th_digest_of_an_exact_state() {
        let mut check = doubtful();
        apply(&mut check, 1..=200, false);
        apply(&mut check, 201..=400, true);
        let at: Vec<i64> = check.log().map(|(zxid, _)| zxid.0).collect();
        assert_eq!(at, [256, 384]);
    }
}
