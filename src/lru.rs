//! A map of bounded size: what was used longest ago leaves it.

use std::convert::Infallible;
use std::fmt;
use std::hash::Hash;
use std::sync::Mutex;

use lru::LruCache;

use crate::lock::lock;

/// A map of bounded size. Its lock is held while a value is made, so concurrent callers make one value.
pub(crate) struct LruMap<K, V> {
    capacity: usize,
    weight_of: fn(&K, &V) -> usize,
    entries: Mutex<Entries<K, V>>,
}

struct Entries<K, V> {
    /// Each value with its weight.
    cache: LruCache<K, (V, usize)>,
    /// The sum of all weights.
    weight: usize,
}

// === impl LruMap ===

impl<K: Clone + Eq + Hash, V: Clone> LruMap<K, V> {
    /// Creates a map with this number of entries at most.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::weighing(capacity, |_, _| 1)
    }

    /// Creates a map whose entries together weigh this much at most.
    pub(crate) fn weighing(capacity: usize, weight_of: fn(&K, &V) -> usize) -> Self {
        Self {
            capacity,
            weight_of,
            entries: Mutex::new(Entries {
                cache: LruCache::unbounded(),
                weight: 0,
            }),
        }
    }

    /// Returns the value of a key. If there is none, it is made.
    pub(crate) fn get_or_make(&self, key: &K, make: impl FnOnce() -> V) -> V {
        let made = self.get_or_try_make(key, |_| true, || Ok::<_, Infallible>(make()));
        made.unwrap_or_else(|never| match never {})
    }

    /// Returns the value of a key. If there is none, or not a good one, it is made.
    pub(crate) fn get_or_try_make<E>(
        &self,
        key: &K,
        is_good: impl FnOnce(&V) -> bool,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let mut entries = lock(&self.entries);
        if let Some(value) = entries.get(key, is_good) {
            return Ok(value);
        }
        let value = make()?;
        let weight = (self.weight_of)(key, &value);
        let gone = entries.insert(key.clone(), value.clone(), weight, self.capacity);
        // The values are dropped without the lock.
        drop(entries);
        drop(gone);
        Ok(value)
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        lock(&self.entries).cache.len()
    }

    /// Returns whether there is an entry of this key. This is not a use of it.
    #[cfg(test)]
    pub(crate) fn contains(&self, key: &K) -> bool {
        lock(&self.entries).cache.contains(key)
    }
}

impl<K: Clone + Eq + Hash, V: Clone> fmt::Debug for LruMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LruMap")
            .field("capacity", &self.capacity)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

// === impl Entries ===

impl<K: Eq + Hash, V: Clone> Entries<K, V> {
    fn get(&mut self, key: &K, is_good: impl FnOnce(&V) -> bool) -> Option<V> {
        let (value, _) = self.cache.get(key)?;
        is_good(value).then(|| value.clone())
    }

    /// Inserts an entry, and returns the values that left the map.
    fn insert(&mut self, key: K, value: V, weight: usize, capacity: usize) -> Vec<V> {
        let mut gone = Vec::new();
        self.weight = self.weight.saturating_add(weight);
        if let Some((_, (value, weight))) = self.cache.push(key, (value, weight)) {
            self.weight -= weight;
            gone.push(value);
        }
        while self.weight > capacity
            && let Some((_, (value, weight))) = self.cache.pop_lru()
        {
            self.weight -= weight;
            gone.push(value);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_was_used_longest_ago_leaves_the_map() {
        let map = LruMap::new(3);
        for number in [1, 2, 3, 1, 4, 2] {
            assert_eq!(map.get_or_make(&number, || number), number);
        }
        let kept: Vec<i32> = (1..=4).filter(|number| map.contains(number)).collect();
        assert_eq!(kept, [1, 2, 4]);
    }

    #[test]
    fn a_value_that_is_not_good_is_replaced_and_an_error_keeps_it() {
        let map = LruMap::new(3);
        map.get_or_make(&"key", || 1);
        let failed = map.get_or_try_make(&"key", |value| *value > 1, || Err("no value"));
        assert_eq!(failed, Err("no value"));
        assert_eq!(map.get_or_make(&"key", || 9), 1);
        let made = map.get_or_try_make(&"key", |value| *value > 1, || Ok::<_, ()>(2));
        assert_eq!(made, Ok(2));
        assert_eq!((map.get_or_make(&"key", || 9), map.len()), (2, 1));
    }

    #[test]
    fn the_weight_is_bounded() {
        let map = LruMap::weighing(10, |_, text: &Arc<str>| text.len());
        for number in 0..100 {
            map.get_or_make(&number, || "x".repeat(number % 9).into());
            let entries = lock(&map.entries);
            let weight: usize = entries
                .cache
                .iter()
                .map(|(_, (value, _))| value.len())
                .sum();
            assert_eq!(entries.weight, weight);
            assert!(weight <= 10);
        }
        map.get_or_make(&100, || "more than there is room for".into());
        assert!(!map.contains(&100));
    }

    #[test]
    fn concurrent_callers_make_one_value() {
        let map = LruMap::new(3);
        let made = Mutex::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| map.get_or_make(&"key", || *lock(&made) += 1));
            }
        });
        assert_eq!(*lock(&made), 1);
    }
}
