//! The state's maps: cheap to clone, with a digest that costs little to read, and with a memory of what an entry has
//! changed so far, so that a refused one leaves no trace and no other one pays for a copy of the state.
//!
//! A digest is the exclusive-or of the rows' hashes. A change takes the old row's out; the new one's is put in when a
//! thousand changes have come together, or reckoned when somebody asks: a machine's row changes with every booking.

use crate::digest::hash_of;
use crate::planted::{Bug, planted};
use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::ops::RangeBounds;

/// Changes after which rows get their hashes. Few in this crate's own tests, so that sequences of some entries meet it.
const UNHASHED_MAX: usize = if cfg!(test) { 4 } else { 1024 };
/// Rows for which the memory of one change keeps its room for the next.
const ROOM_MAX: usize = 1024;

/// What can be changed, and changed back.
pub(crate) trait Undo {
    /// What has changed since the last call stays.
    fn keep(&mut self);

    /// What has changed since the last [`Undo::keep`] becomes again what it was.
    fn undo(&mut self);
}

/// An ordered map with a running digest.
#[derive(Clone)]
pub struct Table<K, V> {
    rows: imbl::OrdMap<K, Row<V>>,
    /// The exclusive-or of the hashes that the rows have.
    digest: u64,
    /// Every row without a hash is named here, perhaps twice; others may be, too.
    unhashed: imbl::Vector<K>,
    /// The number of the change that is being made.
    change: u64,
    /// Rows as this change has found them, in order.
    found: Vec<(K, Option<Row<V>>)>,
    /// How many of these were found before the last [`Table::mark`].
    marked: usize,
}

#[derive(Clone)]
struct Row<V> {
    /// Of key and value; None since the value has changed.
    hash: Option<u64>,
    /// The last change that has touched it.
    change: u64,
    value: V,
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Default for Table<K, V> {
    fn default() -> Self {
        Table {
            rows: imbl::OrdMap::new(),
            digest: 0,
            unhashed: imbl::Vector::new(),
            change: 0,
            found: Vec::new(),
            marked: 0,
        }
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

    /// [`Table::was`] speaks of now, until the next call, or the end of the change that is being made.
    pub(crate) fn mark(&mut self) {
        self.marked = self.found.len();
        self.change += 1;
    }

    /// The value at `key` as it was at the last [`Table::mark`]. O(rows that have changed since).
    pub(crate) fn was(&self, key: &K) -> Option<&V> {
        match self.found[self.marked..].iter().find(|(changed, _)| changed == key) {
            Some((_, row)) => row.as_ref().map(|row| &row.value),
            None => self.get(key),
        }
    }

    /// The value at `key`, to be changed. O(log n).
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let row = self.rows.get_mut(key)?;
        if row.change != self.change {
            self.found.push((key.clone(), Some(row.clone())));
            row.change = self.change;
        }
        if let Some(hash) = row.hash.take() {
            self.digest ^= hash;
            self.unhashed.push_back(key.clone());
        }
        Some(&mut row.value)
    }

    /// Puts `value` at `key`. O(log n).
    pub fn put(&mut self, key: K, value: V) {
        let old = self.rows.insert(key.clone(), Row { hash: None, change: self.change, value });
        match old.as_ref().map(|row| row.hash) {
            Some(None) => {}
            Some(Some(hash)) => {
                self.digest ^= hash;
                self.unhashed.push_back(key.clone());
            }
            None => self.unhashed.push_back(key.clone()),
        }
        self.note(key, old);
    }

    /// Takes the value at `key` out. O(log n).
    pub fn take(&mut self, key: &K) -> Option<V> {
        let old = self.rows.remove(key)?;
        if let Some(hash) = old.hash.filter(|_| !planted(Bug::DigestKeepsTaken)) {
            self.digest ^= hash;
        }
        let value = old.value.clone();
        self.note(key.clone(), Some(old));
        Some(value)
    }

    /// Remembers a row as it was found, unless this change has made it so itself.
    fn note(&mut self, key: K, found: Option<Row<V>>) {
        if found.as_ref().is_none_or(|row| row.change != self.change) {
            self.found.push((key, found));
        }
    }

    /// Gives every changed row its hash. Once over the changed values.
    fn rehash(&mut self) {
        for key in std::mem::take(&mut self.unhashed) {
            // Asked first: a row that is shared with a clone would be copied for nothing.
            if self.rows.get(&key).is_some_and(|row| row.hash.is_none())
                && let Some(row) = self.rows.get_mut(&key)
            {
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

    /// The exclusive-or of all entries' hashes. O(rows that have no hash yet).
    pub fn digest(&self) -> u64 {
        let named: BTreeSet<&K> = self.unhashed.iter().collect();
        let rows = named.into_iter().filter_map(|key| Some((key, self.rows.get(key)?)));
        let rows = rows.filter(|(_, row)| row.hash.is_none());
        rows.fold(self.digest, |sum, (key, row)| sum ^ hash_of(&(key, &row.value)))
    }

    /// The digest computed anew. O(n).
    pub fn digest_anew(&self) -> u64 {
        self.iter().fold(0, |sum, (key, value)| sum ^ hash_of(&(key, value)))
    }
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Undo for Table<K, V> {
    fn keep(&mut self) {
        forget(&mut self.found);
        self.marked = 0;
        self.change += 1;
        if self.unhashed.len() > UNHASHED_MAX {
            self.rehash();
        }
    }

    fn undo(&mut self) {
        if planted(Bug::RefusalKeepsRows) {
            return self.keep();
        }
        while let Some((key, found)) = self.found.pop() {
            let now = match found {
                Some(row) => {
                    match row.hash {
                        Some(hash) => self.digest ^= hash,
                        None => self.unhashed.push_back(key.clone()),
                    }
                    self.rows.insert(key, row)
                }
                None => self.rows.remove(&key),
            };
            self.digest ^= now.and_then(|row| row.hash).unwrap_or(0);
        }
        self.keep();
    }
}

/// Empties the memory of a change; of a great one no room is kept.
fn forget<T>(found: &mut Vec<T>) {
    found.clear();
    found.shrink_to(ROOM_MAX);
}

/// An ordered map, or a set, that is derived from tables and has no digest.
#[derive(Clone)]
pub(crate) struct Index<K, V = ()> {
    rows: imbl::OrdMap<K, V>,
    /// What the change that is being made has found, in order.
    found: Vec<(K, Option<V>)>,
}

impl<K: Ord + Clone, V: Clone> Default for Index<K, V> {
    fn default() -> Self {
        Index { rows: imbl::OrdMap::new(), found: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone> Index<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        let old = self.rows.insert(key.clone(), value);
        self.found.push((key, old));
    }

    pub(crate) fn take(&mut self, key: &K) {
        if let Some(old) = self.rows.remove(key) {
            self.found.push((key.clone(), Some(old)));
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.rows.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.rows.values()
    }

    pub(crate) fn range(&self, keys: impl RangeBounds<K>) -> impl Iterator<Item = &K> {
        self.rows.range(keys).map(|(key, _)| key)
    }

    /// The first key.
    pub(crate) fn first(&self) -> Option<&K> {
        self.rows.get_min().map(|(key, _)| key)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// As they are, however they came to be so.
impl<K: Ord, V: PartialEq> PartialEq for Index<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl<K: Ord + Clone> Index<K> {
    pub(crate) fn add(&mut self, key: K) {
        self.put(key, ());
    }
}

impl<K: Ord + Clone, V: Clone> Undo for Index<K, V> {
    fn keep(&mut self) {
        forget(&mut self.found);
    }

    fn undo(&mut self) {
        if planted(Bug::RefusalKeepsIndexes) {
            return self.keep();
        }
        while let Some((key, found)) = self.found.pop() {
            match found {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::build::*;
    use crate::{Command, Entry, PlantId};
    use proptest::prelude::*;

    #[test]
    fn what_is_only_ever_attempted_is_hashed_now_and_then_too() {
        let mut state = Alliance::mills(&["m1"]).state;
        let plant = PlantId::trusted("ya-1");
        for n in state.revision() + 1..5000 {
            let (plant, agent, outbox) = (plant.clone(), "a".into(), n.to_string());
            let command = Command::AttachAgent { plant, agent, outbox };
            let entry = Entry { at: state.now(), caller: operator(), request: None, command };
            state.attempt(n, &entry).expect("attached");
            // And one that is refused after it has changed something.
            let id = state.plants.first().map(|(id, _)| id.clone()).expect("a plant");
            state.silences.put(id, n as i64);
            state.silences.undo();
            for unhashed in [state.agents.unhashed.len(), state.silences.unhashed.len()] {
                assert!(unhashed <= UNHASHED_MAX, "at {n}");
            }
            assert!(state.agents.found.is_empty());
        }
        assert_eq!(state.agents.digest(), state.agents.digest_anew());
        assert!(state.silences.is_empty());
    }

    type Both = (Table<u8, u16>, Index<u8, u16>);

    fn rows(both: &Both) -> Vec<(u8, u16)> {
        let rows: Vec<_> = both.0.iter().map(|(key, value)| (*key, *value)).collect();
        assert_eq!(rows, both.1.rows.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>());
        assert_eq!(both.0.digest(), both.0.digest_anew());
        rows
    }

    fn change(both: &mut Both, key: u8, value: u16, how: u8) {
        match how {
            0 => {
                let known = both.0.get_mut(&key).map(|known| *known = value).is_some();
                if known {
                    both.1.put(key, value);
                }
            }
            1 | 2 => {
                both.0.put(key, value);
                both.1.put(key, value);
            }
            3 => {
                both.0.take(&key);
                both.1.take(&key);
            }
            4 => both.0.rehash(),
            _ => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn what_is_undone_is_as_it_was_found_and_the_digest_is_right_at_any_time(
            entries in prop::collection::vec(
                (prop::collection::vec((0..12u8, any::<u16>(), 0..6u8), 0..12), any::<bool>(), any::<bool>()),
                0..20,
            ),
        ) {
            let mut both = Both::default();
            for (changes, stays, rehashed) in entries {
                let before = rows(&both);
                let mut marked = before.clone();
                for (key, value, how) in changes {
                    if how == 5 {
                        both.0.mark();
                        marked = rows(&both);
                    }
                    change(&mut both, key, value, how);
                    let was = marked.iter().find(|(known, _)| *known == key).map(|(_, value)| value);
                    prop_assert_eq!(both.0.was(&key), was);
                }
                match stays {
                    true => [&mut both.0 as &mut dyn Undo, &mut both.1].into_iter().for_each(Undo::keep),
                    false => {
                        [&mut both.0 as &mut dyn Undo, &mut both.1].into_iter().for_each(Undo::undo);
                        prop_assert_eq!(rows(&both), before);
                    }
                }
                if rehashed {
                    both.0.rehash();
                    prop_assert!(both.0.unhashed.is_empty());
                }
                rows(&both);
            }
        }
    }
}
