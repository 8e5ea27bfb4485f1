//! Quotas (`StatsTrack`, `PathTrie`, the quota parts of `DataTree`): which paths have limits, the text that limits and
//! usage are kept as, and who is over. Pure; `state::apply` adjusts the counts, `pipeline::prepare` enforces.

use std::collections::BTreeSet;

/// Where quotas are kept, by path.
pub const ROOT: &str = "/zookeeper/quota";
/// The node that holds the limits of a path.
pub const LIMITS: &str = "zookeeper_limits";
/// The node that holds the usage of a path.
pub const STATS: &str = "zookeeper_stats";

/// What a limits or stats node says; -1 is "not said".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatsTrack {
    /// Nodes, the path itself included.
    pub count: i64,
    /// Bytes of data.
    pub bytes: i64,
    /// Enforced number of nodes.
    pub count_hard: i64,
    /// Enforced bytes of data.
    pub bytes_hard: i64,
}

impl StatsTrack {
    /// Reads the text of a limits or stats node; what is missing or not a number is -1.
    pub fn parse(data: Option<&[u8]>) -> StatsTrack {
        let mut track = StatsTrack { count: -1, bytes: -1, count_hard: -1, bytes_hard: -1 };
        let text = String::from_utf8_lossy(data.unwrap_or_default());
        for (key, value) in text.split([',', ';']).filter_map(|part| part.split_once('=')) {
            let value = value.trim().parse().unwrap_or(-1);
            match key {
                "count" => track.count = value,
                "bytes" => track.bytes = value,
                "countHardLimit" => track.count_hard = value,
                "byteHardLimit" => track.bytes_hard = value,
                _ => {}
            }
        }
        track
    }

    /// The text of a limits node as Apache's shell writes it; the odd `=` hides the rest from readers before 3.7.
    pub fn text(&self) -> String {
        let StatsTrack { count, bytes, count_hard, bytes_hard } = self;
        format!("count={count},bytes={bytes}=;byteHardLimit={bytes_hard};countHardLimit={count_hard}")
    }

    /// The text of a stats node.
    pub fn usage_text(count: i64, bytes: i64) -> String {
        format!("count={count},bytes={bytes}")
    }
}

/// The paths that have a limits node.
#[derive(Debug, Default)]
pub struct QuotaPaths {
    paths: BTreeSet<String>,
}

impl QuotaPaths {
    /// The path got limits.
    pub fn add(&mut self, path: &str) {
        self.paths.insert(path.to_owned());
    }

    /// The path lost its limits.
    pub fn remove(&mut self, path: &str) {
        self.paths.remove(path);
    }

    /// The deepest path with limits that is this one or above it. What lies below /zookeeper has none.
    pub fn covering(&self, path: &str) -> Option<&str> {
        if self.paths.is_empty() || path == "/zookeeper" || path.starts_with("/zookeeper/") {
            return None;
        }
        let mut at = path;
        while !at.is_empty() {
            if let Some(found) = self.paths.get(at) {
                return Some(found);
            }
            at = at.rsplit_once('/')?.0;
        }
        None
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Every path with limits.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }
}

/// The path that a node below [`ROOT`] is about, when its name is `leaf`.
pub fn subject<'a>(path: &'a str, leaf: &str) -> Option<&'a str> {
    let subject = path.strip_prefix(ROOT)?.strip_suffix(leaf)?.strip_suffix('/')?;
    // The root has none; what merely begins like the root is something else.
    subject.starts_with('/').then_some(subject)
}

/// The limits node of a path.
pub fn limits_path(subject: &str) -> String {
    format!("{ROOT}{subject}/{LIMITS}")
}

/// The stats node of a path.
pub fn stats_path(subject: &str) -> String {
    format!("{ROOT}{subject}/{STATS}")
}

/// A quota that a change would exceed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exceeded {
    /// The path that has the quota.
    pub subject: String,
    /// `count` or `bytes`.
    pub what: &'static str,
    /// The limit.
    pub limit: i64,
    /// What it would become.
    pub wanted: i64,
    /// Whether it may refuse the change.
    pub hard: bool,
}

/// Checks a change of `count_diff` nodes and `bytes_diff` bytes (`ZooKeeperServer.checkQuota`). A hard limit, where there
/// is one, hides the soft one.
pub fn check(
    subject: &str,
    limits: StatsTrack,
    usage: StatsTrack,
    count_diff: i64,
    bytes_diff: i64,
) -> Option<Exceeded> {
    let over = |what, hard_limit: i64, soft_limit: i64, wanted: i64| {
        let (limit, hard) = if hard_limit > -1 { (hard_limit, true) } else { (soft_limit, false) };
        (limit > -1 && wanted > limit).then(|| Exceeded { subject: subject.to_owned(), what, limit, wanted, hard })
    };
    let count = (count_diff > 0)
        .then(|| over("count", limits.count_hard, limits.count, usage.count.max(0).saturating_add(count_diff)))
        .flatten();
    count.or_else(|| {
        (bytes_diff != 0)
            .then(|| over("bytes", limits.bytes_hard, limits.bytes, usage.bytes.max(0).saturating_add(bytes_diff)))
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_the_odd_separator() {
        let text = "count=10,bytes=-1=;byteHardLimit=1000;countHardLimit=20";
        assert_eq!(StatsTrack::parse(Some(text.as_bytes())).text(), text);
        let track = StatsTrack::parse(Some(b"count=10,bytes=100=;byteHardLimit=1000;countHardLimit=20"));
        assert_eq!((track.count, track.count_hard, track.bytes_hard), (10, 20, 1000));
        assert_eq!(StatsTrack::parse(Some(b"count=3,bytes=4")).bytes, 4);
        assert_eq!(StatsTrack::parse(None).count, -1);
    }

    #[test]
    fn the_deepest_path_with_limits_covers() {
        let mut paths = QuotaPaths::default();
        paths.add("/a");
        paths.add("/a/b");
        assert_eq!(paths.covering("/a/b/c"), Some("/a/b"));
        assert_eq!(paths.covering("/a/bc"), Some("/a"));
        assert_eq!(paths.covering("/b"), None);
        assert_eq!(subject("/zookeeper/quota/a/b/zookeeper_limits", LIMITS), Some("/a/b"));
        assert_eq!(subject("/zookeeper/quota/zookeeper_limits", LIMITS), None);
        assert_eq!(subject("/zookeeper/quota1/zookeeper_limits", LIMITS), None);
    }

    #[test]
    fn reaching_a_limit_is_allowed_and_a_hard_one_hides_the_soft_one() {
        let limits = StatsTrack { count: 1, bytes: -1, count_hard: 3, bytes_hard: -1 };
        let usage = StatsTrack { count: 2, bytes: 0, count_hard: -1, bytes_hard: -1 };
        assert_eq!(check("/q", limits, usage, 1, 0), None);
        assert!(check("/q", limits, usage, 2, 0).is_some_and(|e| e.hard && e.wanted == 4));
    }
}
