//! A hash map in shards. A map that grows moves all that is in it, and of a million entries that takes a tenth of a second;
//! here none is ever large enough for its growth to hold up a request. For maps that clients fill, with keys that they choose.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

const SHARDS: usize = 64;

/// The map.
#[derive(Debug)]
pub struct ShardedMap<K, V> {
    shards: Vec<HashMap<K, V, RandomState>>,
    /// Seeded, and the same in all shards.
    hasher: RandomState,
}

impl<K, V> Default for ShardedMap<K, V> {
    fn default() -> ShardedMap<K, V> {
        let hasher = RandomState::default();
        ShardedMap { shards: (0..SHARDS).map(|_| HashMap::with_hasher(hasher.clone())).collect(), hasher }
    }
}

impl<K: Hash + Eq, V> ShardedMap<K, V> {
    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // Bits that no shard looks at while it is small, as all are.
        (self.hasher.hash_one(key) >> 40) as usize % SHARDS
    }

    /// The value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[self.shard(key)].get(key)
    }

    /// The same, with the key as it is kept.
    pub fn get_key_value<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.shards[self.shard(key)].get_key_value(key)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let shard = self.shard(key);
        self.shards[shard].get_mut(key)
    }

    /// The value of a key, made if there is none.
    pub fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let shard = self.shard(&key);
        self.shards[shard].entry(key).or_default()
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shard = self.shard(&key);
        self.shards[shard].insert(key, value)
    }

    /// Takes a key out.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = self.shard(key);
        self.shards[shard].remove(key)
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_their_shards_and_no_shard_has_much_more_than_others() {
        let mut map: ShardedMap<String, usize> = ShardedMap::default();
        for n in 0..64_000 {
            *map.get_or_default(n.to_string()) = n;
        }
        assert!(map.shards.iter().all(|shard| (500..2000).contains(&shard.len())));
        for n in 0..64_000 {
            let key = n.to_string();
            assert_eq!(map.get_mut(key.as_str()).copied(), Some(n));
            assert_eq!(map.get_key_value(key.as_str()), Some((&key, &n)));
            if n % 2 == 0 {
                assert_eq!(map.remove(key.as_str()), Some(n));
            }
        }
        assert_eq!(map.insert("1".into(), 7), Some(1));
        assert_eq!((map.get("1"), map.get("2"), map.iter().count()), (Some(&7), None, 32_000));
    }
}
