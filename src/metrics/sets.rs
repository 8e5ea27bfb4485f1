//! Metrics with one value per key: a top-level namespace of the tree, or a learner. Clients choose the keys, so their
//! number and length are bounded: what goes beyond is not recorded, and the log says so once.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::kinds::{Advanced, Counter, Summary};
use crate::limits::{METRIC_KEY_BYTES_MAX, METRIC_KEYS_MAX};

/// A metric per key. `V` is one of the kinds.
#[derive(Debug)]
pub struct Set<V: 'static> {
    values: Mutex<HashMap<Box<str>, V, FixedState>>,
    full: AtomicBool,
}

/// A counter per key.
pub type CounterSet = Set<Counter>;
/// A summary per key.
pub type SummarySet = Set<Summary>;
/// A summary with percentiles per key.
pub type AdvancedSet = Set<Advanced>;

impl<V: Default> Default for Set<V> {
    fn default() -> Set<V> {
        Set::new()
    }
}

impl<V: Default> Set<V> {
    /// No keys.
    pub const fn new() -> Set<V> {
        // A fixed seed costs nothing here: with so few keys, the worst collisions a client can plan do not show.
        Set { values: Mutex::new(HashMap::with_hasher(FixedState::with_seed(0))), full: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, V, FixedState>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, key: &str, act: impl FnOnce(&V)) {
        let mut values = self.lock();
        if let Some(value) = values.get(key) {
            return act(value);
        }
        if key.len() > METRIC_KEY_BYTES_MAX || values.len() >= METRIC_KEYS_MAX {
            if !self.full.swap(true, Relaxed) {
                log::warn!("{}", not_kept(key));
            }
            return;
        }
        act(values.entry(key.into()).or_default());
    }

    /// Shows every key and its value, keys in order.
    pub fn each(&self, mut see: impl FnMut(&str, &V)) {
        let values = self.lock();
        let mut sorted: Vec<_> = values.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        sorted.into_iter().for_each(|(key, value)| see(key, value));
    }
}

/// Said once: from then on keys are left out without a word.
fn not_kept(key: &str) -> String {
    let shown: String = key.chars().take(METRIC_KEY_BYTES_MAX).collect();
    format!(
        "figures are kept for {METRIC_KEYS_MAX} names of up to {METRIC_KEY_BYTES_MAX} bytes each, of nodes right below the \
         root as of learners: {shown} and others beyond that are served as ever, and are missing in mntr and on the metrics \
         port alone. There is nothing to do, unless clients are to put their nodes below fewer of those right below the root"
    )
}

impl CounterSet {
    /// Counts `n` more for the key.
    pub fn add(&self, key: &str, n: i64) {
        self.with(key, |counter| counter.add(n));
    }

    /// All keys back to zero.
    pub fn reset(&self) {
        self.lock().values().for_each(Counter::reset);
    }
}

impl SummarySet {
    /// Records one value for the key.
    pub fn record(&self, key: &str, value: i64) {
        self.with(key, |summary| summary.record(value));
    }

    /// Forgets the values of all keys.
    pub fn reset(&self) {
        self.lock().values().for_each(Summary::reset);
    }
}

impl AdvancedSet {
    /// Records one value for the key.
    pub fn record(&self, key: &str, value: i64) {
        self.with(key, |advanced| advanced.record(value));
    }

    /// Forgets the values of all keys.
    pub fn reset(&self) {
        self.lock().values().for_each(Advanced::reset);
    }
}

/// A gauge per key, published as a whole.
#[derive(Debug, Default)]
pub struct GaugeSet(Mutex<Vec<(String, i64)>>);

impl GaugeSet {
    /// No keys.
    pub const fn new() -> GaugeSet {
        GaugeSet(Mutex::new(Vec::new()))
    }

    /// Publishes these in the place of all before.
    pub fn replace(&self, values: Vec<(String, i64)>) {
        *self.lock() = values;
    }

    /// Shows every key and its value, as they were published.
    pub fn each(&self, mut see: impl FnMut(&str, i64)) {
        self.lock().iter().for_each(|(key, value)| see(key, *value));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key as text formats can carry it: what is not a letter, digit, `_`, `.` or `-` of ASCII becomes `_`. Apache prints
/// it raw, and one blank in a node's name then spoils all of `mntr` for Telegraf. Nor may a name begin with `.` or `-`.
/// Two keys may come to look alike.
pub fn printable_key(key: &str) -> Cow<'_, str> {
    let fits = |at: usize, c: char| c.is_ascii_alphanumeric() || c == '_' || at > 0 && (c == '.' || c == '-');
    if key.char_indices().all(|(at, c)| fits(at, c)) {
        return key.into();
    }
    key.char_indices().map(|(at, c)| if fits(at, c) { c } else { '_' }).collect()
}

/// The first element of a path, by which requests are told apart; `None` for the root (`PathUtils.getTopNamespace`).
pub fn top_namespace(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split('/').next().filter(|first| !first.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(set: &CounterSet) -> Vec<(String, i64)> {
        let mut all = Vec::new();
        set.each(|key, counter| all.push((key.to_owned(), counter.get())));
        all
    }

    #[test]
    fn keys_are_shown_in_order_and_survive_a_reset() {
        let set = CounterSet::new();
        set.add("b", 1);
        set.add("a", 2);
        set.add("b", 3);
        assert_eq!(keys(&set), [("a".into(), 2), ("b".into(), 4)]);
        set.reset();
        assert_eq!(keys(&set), [("a".into(), 0), ("b".into(), 0)]);
    }

    #[test]
    fn a_full_set_goes_on_counting_what_it_knows_and_takes_no_more() {
        let set = CounterSet::new();
        (0..METRIC_KEYS_MAX + 10).for_each(|n| set.add(&format!("{n:06}"), 1));
        set.add("000000", 1);
        assert_eq!(keys(&set).len(), METRIC_KEYS_MAX);
        assert_eq!(keys(&set)[0], ("000000".into(), 2));
    }

    #[test]
    fn a_key_too_long_is_not_kept() {
        let set = CounterSet::new();
        set.add(&"x".repeat(METRIC_KEY_BYTES_MAX + 1), 1);
        set.add(&"x".repeat(METRIC_KEY_BYTES_MAX), 1);
        assert_eq!(keys(&set).len(), 1);
    }

    #[test]
    fn a_namespace_is_the_first_element_of_a_path() {
        for (path, namespace) in
            [("/", None), ("/a", Some("a")), ("/a/b/c", Some("a")), ("", None), ("a/b", None), ("//x", None)]
        {
            assert_eq!(top_namespace(path), namespace, "{path}");
        }
    }

    #[test]
    fn odd_characters_of_a_key_become_underscores() {
        assert_eq!(printable_key("a.b-c_9"), "a.b-c_9");
        assert_eq!(printable_key("-."), "_.");
        assert_eq!(printable_key("my app\tx-é"), "my_app_x-_");
    }
}
