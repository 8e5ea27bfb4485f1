//! One budget of memory, and the accounts that it is divided into. Whatever load can fill has an account here; the cores
//! get the bounds as values, and publish how full the accounts are. Also where the budget comes from: the smallest of what
//! the service manager, a container and the host give. Pure; `sys::memory` reads the files.
//!
//! The state itself has no account: how large it is, is up to those who write. So the accounts together are a part of the
//! budget. From [`FULL_BUDGET_BYTES`] on they have all that makes a server faster; below, each shrinks in proportion, down
//! to what it needs to work at all. One request, reply or transaction that is larger than an account passes it alone.

use std::path::{Path, PathBuf};

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
pub static TABLE: [Row; 11] = [
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

/// What the process has of the kernel's memory, and what of it is in use, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// What it has, files aside.
    pub resident: u64,
    /// What is in use, or was given and never touched.
    pub used: u64,
}

/// Decides when free memory goes back to the kernel: when much of it is free, at two looks in a row, so that it is not
/// taken again at once; and not again and again for what lies between what is in use.
#[derive(Debug, Default)]
pub struct Returns {
    /// Free, at the last look.
    free: u64,
    /// What could not be given back the last time.
    kept: Option<u64>,
    gave_back: bool,
}

/// Bytes that are worth it.
const FREE_BYTES_MUCH: u64 = 32 << 20;

impl Returns {
    /// A look. True: free memory is to be given back now.
    pub fn look(&mut self, now: Use) -> bool {
        let free = now.resident.saturating_sub(now.used);
        let before = std::mem::replace(&mut self.free, free);
        if std::mem::take(&mut self.gave_back) {
            self.kept = Some(free);
            return false;
        }
        // Less is kept than was: more can be given back than it seemed.
        self.kept = self.kept.map(|kept| kept.min(free));
        let much = FREE_BYTES_MUCH.max(now.used / 8) + self.kept.unwrap_or(0);
        self.gave_back = before.min(free) > much;
        self.gave_back
    }
}

/// What bounds the memory of the process, and where that stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Bytes.
    pub bytes: u64,
    /// A key, a file, or the host.
    pub source: String,
}

impl Budget {
    /// The smallest of what is set: of the files of control groups with what they say, and the memory of the host.
    pub fn smallest(files: impl IntoIterator<Item = (PathBuf, String)>, host: u64) -> Budget {
        let host = Budget { bytes: host, source: "the memory of this host".to_owned() };
        let limit = |(path, text): (PathBuf, String)| {
            let bytes = text.trim().parse().ok()?;
            Some(Budget { bytes, source: path.display().to_string() })
        };
        files
            .into_iter()
            .filter_map(limit)
            .fold(host, |least, next| if next.bytes < least.bytes { next } else { least })
    }
}

/// Where the limits of a process stand, from its own group up to the root of what it sees: by `/proc/self/cgroup` and
/// `/proc/self/mountinfo`. systemd's `MemoryMax`, `docker run --memory` and the limit of a Kubernetes container are there.
pub fn limit_files(cgroup: &str, mountinfo: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (kind, file) = match controllers {
            "" => ("cgroup2", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => ("cgroup", "memory.limit_in_bytes"),
            _ => continue,
        };
        for (root, mount) in mountinfo.lines().filter_map(|line| mount_of(line, kind)) {
            // A container may see only its own part of the tree, by the name that the host has for it.
            let inside = Path::new(path).strip_prefix(root).or_else(|_| Path::new(path).strip_prefix("/"));
            let Ok(inside) = inside else { continue };
            files.extend(inside.ancestors().map(|group| Path::new(mount).join(group).join(file)));
        }
    }
    files
}

/// Root and place of a mount of control groups of this kind, with the memory controller if it is one of several.
fn mount_of<'a>(line: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let (found, options) = (right.next()?, right.nth(1)?);
    let has_memory = kind == "cgroup2" || options.split(',').any(|option| option == "memory");
    let mut left = left.split(' ').skip(3);
    let place = (left.next()?, left.next()?);
    (found == kind && has_memory).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    fn paths(files: Vec<PathBuf>) -> Vec<String> {
        files.into_iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn limits_are_looked_for_from_the_own_group_up_to_the_root() {
        let mounts = "24 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(
            paths(limit_files("0::/system.slice/rookeeper.service\n", mounts)),
            [
                "/sys/fs/cgroup/system.slice/rookeeper.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            paths(limit_files("9:name=systemd:/\n4:memory:/a/b\n3:cpuset:/\n0::/\n", V1)),
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/unified/memory.max"
            ]
        );
        assert_eq!(paths(limit_files("no such thing", "nor this\n- \n 1 2 - x")), [""; 0]);
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        assert_eq!(paths(limit_files("4:memory:/docker/abc", mounts)), ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    }

    #[test]
    fn the_smallest_limit_is_the_budget() {
        let files = |texts: &[&str]| {
            let named = |(n, text): (usize, &&str)| (PathBuf::from(format!("/{n}")), (*text).to_owned());
            texts.iter().enumerate().map(named).collect::<Vec<_>>()
        };
        let budget = Budget::smallest(files(&["max\n", "2040109465\n", "9223372036854771712"]), 24 << 30);
        assert_eq!(budget, Budget { bytes: 2_040_109_465, source: "/1".to_owned() });
        let host = Budget::smallest(files(&["max", "", "9223372036854771712"]), 24 << 30);
        assert_eq!((host.bytes, host.source.as_str()), (24 << 30, "the memory of this host"));
    }

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
                + 3 * bound(Account::Proposals)
                + bound(Account::LogQueue)
                + bound(Account::CommittedLog)
                + bound(Account::PinnedLog)
                + bound(Account::Links);
            assert!(all <= budget / part, "{all} of {budget}");
        }
    }

    #[test]
    fn free_memory_goes_back_when_it_stays_free_and_not_again_for_what_cannot_go() {
        let mut returns = Returns::default();
        let mut look = |resident: u64, used: u64| returns.look(Use { resident: resident << 20, used: used << 20 });
        assert!(!look(50, 40) && !look(1420, 1400), "it is in use");
        assert!(!look(1420, 40) && !look(1420, 1400) && !look(1420, 40), "it was used again");
        assert!(look(1420, 40));
        assert!(!look(100, 40), "60 MB could not go");
        assert!(!look(100, 40) && !look(130, 40), "so they are not tried again");
        assert!(!look(400, 40) && look(400, 40));
        assert!(!look(60, 40) && !look(80, 40) && !look(80, 40));
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
