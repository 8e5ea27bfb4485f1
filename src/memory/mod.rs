//! One budget of memory, and the accounts that it is divided into. Whatever load can fill has an account here; the cores
//! get the bounds as values, and publish how full the accounts are. Beside them: where the budget comes from
//! ([`Budget`]), and when free memory goes back to the kernel ([`Returns`]). Pure.
//!
//! The state itself has no account: how large it is, is up to those who write. So the accounts together are a part of the
//! budget. From [`FULL_BUDGET_BYTES`] on they have all that makes a server faster; below, each shrinks in proportion, down
//! to what it needs to work at all. One request, reply or transaction that is larger than an account passes it alone.

mod budget;
mod returns;

pub use budget::{Budget, limit_files};
pub use returns::{Returns, Use};

use crate::limits;
use crate::metrics::Gauge;

/// The budget from which on every account has its full size.
pub const FULL_BUDGET_BYTES: u64 = 8 << 30;

/// A kind of bytes that wait for something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Account {
    /// Frames of clients, whole or not.
    Requests,
    /// Replies and notifications.
    Replies,
    /// Lists of children.
    Lists,
    /// Transactions that are proposed.
    Proposals,
    /// Records on their way to the disk.
    LogQueue,
    /// Transactions on their way to the state of a learner.
    Unapplied,
    /// Transactions that a learner knows no commit of.
    Uncommitted,
    /// Requests that a learner passed on.
    Forwarded,
    /// The window of committed transactions.
    CommittedLog,
    /// What is kept beyond the window.
    PinnedLog,
    /// What learners are sent.
    Links,
    /// Pieces of the state.
    SnapshotPieces,
}

/// What is to be known of an account.
#[derive(Debug)]
pub struct Row {
    /// Whose row it is.
    pub account: Account,
    /// As operators see it.
    pub name: &'static str,
    /// Its bound with a full budget, bytes.
    pub full: usize,
    /// What it has at least, bytes.
    pub least: usize,
    /// What is in it, and until when.
    pub what: &'static str,
    /// What keeps it from growing beyond its bound.
    pub holds: &'static str,
}

/// Every account, in the order of the enum.
pub static TABLE: [Row; 12] = [
    row(
        Account::Requests,
        "requests",
        64 << 20,
        4 << 20,
        "frames of clients, until they are answered",
        "clients stand in line, unread",
    ),
    row(
        Account::Replies,
        "replies",
        512 << 20,
        16 << 20,
        "answers and watch events, until sockets take them",
        "large answers wait; who takes less than 64 KiB a second is closed, the largest first",
    ),
    row(
        Account::Lists,
        "lists",
        128 << 20,
        4 << 20,
        "long lists of children, for whoever asks next",
        "those that nobody waits for go; of the others, the first one's are made",
    ),
    row(
        Account::Proposals,
        "proposals",
        32 << 20,
        2 << 20,
        "transactions, until they are committed",
        "writes wait in front of the leader",
    ),
    row(
        Account::LogQueue,
        "log_queue",
        32 << 20,
        4 << 20,
        "records, until this server's log has synced them",
        "writes wait in front of the leader; a learner does not read its leader",
    ),
    row(
        Account::Unapplied,
        "unapplied",
        32 << 20,
        4 << 20,
        "committed transactions, until a learner's state has them",
        "it does not read its leader",
    ),
    row(
        Account::Uncommitted,
        "uncommitted",
        64 << 20,
        4 << 20,
        "what a learner has logged and knows no commit of",
        "what the log has is read back from there",
    ),
    row(
        Account::Forwarded,
        "forwarded",
        512 << 20,
        16 << 20,
        "requests of one learner, until they are proposed",
        "the learner's account requests; beyond, requests are refused",
    ),
    row(
        Account::CommittedLog,
        "committed_log",
        32 << 20,
        4 << 20,
        "the last committed transactions, for learners",
        "the oldest goes",
    ),
    row(
        Account::PinnedLog,
        "pinned_log",
        512 << 20,
        32 << 20,
        "the same, for learners that are being synchronized",
        "the one that lags most begins again",
    ),
    row(
        Account::Links,
        "links",
        256 << 20,
        16 << 20,
        "what waits for learners; three times that for voters",
        "the one that lags most is closed and begins again",
    ),
    row(
        Account::SnapshotPieces,
        "snapshot_pieces",
        PIECES_BYTES,
        PIECES_BYTES,
        "pieces of the state for the disk or a learner",
        "the next is made when one is taken",
    ),
];

const PIECES_BYTES: usize = limits::SNAPSHOT_CHUNKS_IN_FLIGHT * limits::SNAPSHOT_CHUNK_BYTES;

const fn row(
    account: Account,
    name: &'static str,
    full: usize,
    least: usize,
    what: &'static str,
    holds: &'static str,
) -> Row {
    Row { account, name, full, least, what, holds }
}

static LEVELS: [Gauge; TABLE.len()] = [const { Gauge::new() }; TABLE.len()];
static BOUNDS: [Gauge; TABLE.len()] = [const { Gauge::new() }; TABLE.len()];
static BUDGET: Gauge = Gauge::new();

impl Account {
    /// What is to be known of it.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Publishes how many bytes are in it: for operators, nobody decides by it.
    pub fn publish(self, bytes: usize) {
        LEVELS[self as usize].set(signed(bytes as u64));
    }

    /// As last published: how many bytes are in it, and its bound.
    pub fn published(self) -> (i64, i64) {
        (LEVELS[self as usize].get(), BOUNDS[self as usize].get())
    }
}

/// The budget as last published, bytes.
pub fn published_budget() -> i64 {
    BUDGET.get()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The bound of each account, by a budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    budget: u64,
}

impl Default for Bounds {
    /// With a full budget.
    fn default() -> Bounds {
        Bounds::of(FULL_BUDGET_BYTES)
    }
}

impl Bounds {
    /// By this budget, bytes.
    pub fn of(budget: u64) -> Bounds {
        Bounds { budget }
    }

    /// Bytes that an account may have.
    pub fn get(self, account: Account) -> usize {
        let Row { full, least, .. } = *account.row();
        let share = full as u128 * u128::from(self.budget.min(FULL_BUDGET_BYTES)) / u128::from(FULL_BUDGET_BYTES);
        usize::try_from(share).unwrap_or(full).max(least)
    }

    /// Bytes of the disk's log that a learner is brought up to date with; more is told as a snapshot.
    pub fn log_part(self) -> usize {
        self.get(Account::Links) / 4
    }

    /// For operators.
    pub fn publish(self) {
        BUDGET.set(signed(self.budget));
        for row in &TABLE {
            BOUNDS[row.account as usize].set(signed(self.get(row.account) as u64));
        }
    }

    /// In a line of the log.
    pub fn text(self) -> String {
        let of = |row: &Row| format!("{} {}", row.name, megabytes(self.get(row.account) as u64));
        TABLE.iter().map(of).collect::<Vec<_>>().join(", ")
    }
}

/// Bytes as people read them.
pub fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_shrink_with_the_budget_and_keep_what_they_need() {
        let full = Bounds::default();
        for row in &TABLE {
            assert_eq!(TABLE[row.account as usize].name, row.name, "the table is in the order of the enum");
            assert_eq!((full.get(row.account), Bounds::of(64 << 30).get(row.account)), (row.full, row.full));
            assert_eq!(Bounds::of(0).get(row.account), row.least);
        }
        assert_eq!(Bounds::of(2 << 30).get(Account::Replies), 128 << 20);
        // What may be there at once, beside the state, on a leader: the transactions a few times, and what learners get.
        for (budget, part) in [(2u64 << 30, 3), (400 << 20, 2)] {
            let bound = |account| Bounds::of(budget).get(account) as u64;
            let all = bound(Account::Requests)
                + bound(Account::Replies)
                + bound(Account::Lists)
                + 3 * bound(Account::Proposals)
                + bound(Account::LogQueue)
                + bound(Account::CommittedLog)
                + bound(Account::PinnedLog)
                + bound(Account::Links);
            assert!(all <= budget / part, "{all} of {budget}");
        }
    }

    /// ARCHITECTURE.md, "What bounds the queues": each sum is of what the places before it let through, whatever
    /// `jute.maxbuffer` and the budget are.
    #[test]
    fn what_was_let_in_fits_wherever_it_goes() {
        for budget in [0, 100 << 20, 400 << 20, 1 << 30, 2 << 30, 3 << 30, 8 << 30, 24 << 30] {
            let bound = |account| Bounds::of(budget).get(account);
            for request_bytes_max in [1 << 20, 50 << 20, 1 << 30] {
                // Of one server's clients: everything unanswered, wherever it is.
                let door = bound(Account::Requests).max(request_bytes_max);
                // What a learner has read before it looks whether it wants more: one turn of reading.
                let (turn, packet) = (1 << 20, request_bytes_max + limits::TXN_FRAME_BYTES);
                let unsynced_before_last = bound(Account::LogQueue) + turn;
                assert!(unsynced_before_last <= 2 * bound(Account::LogQueue));
                // On the link to a learner that a quorum waits for: what it is brought up to date with, then what is proposed.
                let waited_for =
                    Bounds::of(budget).log_part() + bound(Account::CommittedLog) + bound(Account::Proposals);
                assert!(waited_for <= bound(Account::Links));
                assert!(
                    bound(Account::PinnedLog) + bound(Account::CommittedLog) + bound(Account::Proposals)
                        <= limits::VOTERS_TIMES * bound(Account::Links)
                );
                // The memory of a learner beside its tree is thus bounded: log, pipeline, uncommitted, one packet each.
                let uncommitted = bound(Account::Uncommitted) + unsynced_before_last;
                let learner = door + unsynced_before_last + bound(Account::Unapplied) + uncommitted + 3 * packet;
                let accounts = bound(Account::Uncommitted) + bound(Account::LogQueue);
                assert!(learner <= bound(Account::Requests) + 3 * accounts + 4 * packet);
            }
            assert!(limits::APPLIED_BYTES_AT_ONCE <= bound(Account::Unapplied) / 2);
            assert!(limits::LOGGED_BYTES_AT_ONCE <= bound(Account::LogQueue) / 2);
        }
        // Between servers with a full budget, nothing is read back: a leader has no more without a commit.
        assert!(Account::Proposals.row().full <= Account::Uncommitted.row().full / 2);
        // At a leader, of a follower and of seven observers behind it.
        assert!(8 * Account::Requests.row().full <= Account::Forwarded.row().full);
    }
}
