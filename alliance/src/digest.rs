//! State hashes that cost nothing to read: every map keeps the exclusive-or of its entries' hashes, and
//! each change takes the old entry's hash out and puts the new one's in.

use crate::planted::{Bug, planted};
use std::hash::{Hash, Hasher};

/// FNV-1a over 64 bits, with a final mix: no seed, so the same on every node. It hashes what `derive(Hash)`
/// feeds it, which is the same on every 64-bit little-endian machine.
#[derive(Clone, Copy)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

/// The hash of one value.
pub fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = Fnv::default();
    value.hash(&mut hasher);
    hasher.finish()
}

/// An ordered map with a cheap clone and a running digest.
#[derive(Clone)]
pub struct Table<K, V> {
    rows: imbl::OrdMap<K, V>,
    digest: u64,
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Default for Table<K, V> {
    fn default() -> Self {
        Table { rows: imbl::OrdMap::new(), digest: 0 }
    }
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Table<K, V> {
    /// The value at `key`. O(log n).
    pub fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    /// Puts `value` at `key`. O(log n).
    pub fn put(&mut self, key: K, value: V) {
        let fresh = hash_of(&(&key, &value));
        let stale = self.rows.get(&key).map_or(0, |old| hash_of(&(&key, old)));
        self.digest ^= fresh ^ stale;
        self.rows.insert(key, value);
    }

    /// Takes the value at `key` out. O(log n).
    pub fn take(&mut self, key: &K) -> Option<V> {
        let old = self.rows.remove(key)?;
        if !planted(Bug::DigestKeepsTaken) {
            self.digest ^= hash_of(&(key, &old));
        }
        Some(old)
    }

    /// Entries in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.rows.iter().map(|(_, value)| value)
    }

    /// Entries from `key` on.
    pub fn from(&self, key: K) -> impl Iterator<Item = (&K, &V)> {
        self.rows.range(key..)
    }

    /// The first entry.
    pub fn first(&self) -> Option<(&K, &V)> {
        self.rows.get_min().map(|row| (&row.0, &row.1))
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The exclusive-or of all entries' hashes. O(1).
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The digest computed anew. O(n).
    pub fn digest_anew(&self) -> u64 {
        self.rows.iter().fold(0, |sum, (key, value)| sum ^ hash_of(&(key, value)))
    }
}
