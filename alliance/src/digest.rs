//! State hashes that cost nothing to read: every map keeps the exclusive-or of its entries' hashes. A change
//! takes the old entry's hash out; [`Table::rehash`] puts the new one's in, once an entry of the log, however
//! often that has changed a row.

use crate::planted::{Bug, planted};
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// Folded multiplication (as in wyhash, <https://github.com/wangyi-fudan/wyhash>): a word at a time, no seed,
/// so the same on every node. It hashes what `derive(Hash)` feeds it, which is the same on every 64-bit
/// little-endian machine.
#[derive(Clone, Copy)]
pub struct Fold(u64);

impl Default for Fold {
    fn default() -> Self {
        Fold(0xa076_1d64_78bd_642f)
    }
}

impl Fold {
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0xe703_7ed1_a0b4_28db_u128;
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(0x5895_66a5_3b1c_9ae5);
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, i: u8) {
        self.word(i.into());
    }

    fn write_u32(&mut self, i: u32) {
        self.word(i.into());
    }

    fn write_u64(&mut self, i: u64) {
        self.word(i);
    }

    fn write_usize(&mut self, i: usize) {
        self.word(i as u64);
    }

    fn finish(&self) -> u64 {
        let mut last = *self;
        last.word(0);
        last.0
    }
}

/// The hash of one value.
pub fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = Fold::default();
    value.hash(&mut hasher);
    hasher.finish()
}

/// An ordered map with a cheap clone and a running digest.
#[derive(Clone)]
pub struct Table<K, V> {
    rows: imbl::OrdMap<K, Row<V>>,
    /// The exclusive-or of the hashes that the rows have.
    digest: u64,
    /// The rows without a hash.
    changed: Vec<K>,
}

#[derive(Clone)]
struct Row<V> {
    /// Of key and value; None since the value has changed.
    hash: Option<u64>,
    value: V,
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Default for Table<K, V> {
    fn default() -> Self {
        Table { rows: imbl::OrdMap::new(), digest: 0, changed: Vec::new() }
    }
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Table<K, V> {
    /// The value at `key`. O(log n).
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key).map(|row| &row.value)
    }

    /// The value at `key`, to be changed. O(log n).
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let row = self.rows.get_mut(key)?;
        if let Some(hash) = row.hash.take() {
            self.digest ^= hash;
            self.changed.push(key.clone());
        }
        Some(&mut row.value)
    }

    /// Puts `value` at `key`. O(log n).
    pub fn put(&mut self, key: K, value: V) {
        match self.rows.insert(key.clone(), Row { hash: None, value }) {
            Some(Row { hash: None, .. }) => {}
            Some(Row { hash: Some(hash), .. }) => {
                self.digest ^= hash;
                self.changed.push(key);
            }
            None => self.changed.push(key),
        }
    }

    /// Takes the value at `key` out. O(log n).
    pub fn take(&mut self, key: &K) -> Option<V> {
        let old = self.rows.remove(key)?;
        match old.hash {
            Some(hash) if !planted(Bug::DigestKeepsTaken) => self.digest ^= hash,
            Some(_) => {}
            None => self.changed.retain(|changed| changed != key),
        }
        Some(old.value)
    }

    /// Brings the digest up to what has changed. Once over the changed values.
    pub fn rehash(&mut self) {
        for key in std::mem::take(&mut self.changed) {
            if let Some(row) = self.rows.get_mut(&key) {
                let hash = hash_of(&(&key, &row.value));
                row.hash = Some(hash);
                self.digest ^= hash;
            }
        }
    }

    /// Entries in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter().map(|(key, row)| (key, &row.value))
    }

    /// Values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.rows.iter().map(|(_, row)| &row.value)
    }

    /// Entries from `key` on.
    pub fn from(&self, key: K) -> impl Iterator<Item = (&K, &V)> {
        self.rows.range(key..).map(|(key, row)| (key, &row.value))
    }

    /// The first entry.
    pub fn first(&self) -> Option<(&K, &V)> {
        self.rows.get_min().map(|(key, row)| (key, &row.value))
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The exclusive-or of all entries' hashes, as of the last [`Table::rehash`]. O(1).
    pub fn digest(&self) -> u64 {
        debug_assert!(self.changed.is_empty(), "the digest is behind");
        self.digest
    }

    /// The digest computed anew. O(n).
    pub fn digest_anew(&self) -> u64 {
        self.iter().fold(0, |sum, (key, value)| sum ^ hash_of(&(key, value)))
    }
}
