//! Sets over all rows of a slice, small for each row.

use std::collections::HashSet;
use std::hash::BuildHasher as _;

use foldhash::quality::RandomState;
use roaring::RoaringTreemap;

use crate::map::HashMap;

/// Rows by their coordinates.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Offsets by partition. They lie close together, so that a million take a fraction of a MB.
    offsets: HashMap<i32, RoaringTreemap>,
}

impl Places {
    pub fn insert(&mut self, (partition, offset): (i32, i64)) {
        self.offsets.entry(partition).or_default().insert(offset.cast_unsigned());
    }

    pub fn remove(&mut self, (partition, offset): (i32, i64)) {
        if let Some(offsets) = self.offsets.get_mut(&partition) {
            offsets.remove(offset.cast_unsigned());
        }
    }

    pub fn contains(&self, (partition, offset): (i32, i64)) -> bool {
        self.offsets.get(&partition).is_some_and(|offsets| offsets.contains(offset.cast_unsigned()))
    }

    pub fn len(&self) -> usize {
        self.offsets.values().map(|offsets| usize::try_from(offsets.len()).unwrap_or(usize::MAX)).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.values().all(RoaringTreemap::is_empty)
    }
}

/// Which ids may occur more than once. An id is known by a hash of 64 bits: two ids with one hash are looked at more closely
/// for nothing, and none that occurs twice is missed.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    hasher: RandomState,
    seen: HashSet<u64, RandomState>,
    repeated: HashSet<u64, RandomState>,
}

impl Repeats {
    /// Takes note of an id.
    pub fn see(&mut self, id: &str) {
        let hash = self.hasher.hash_one(id);
        if !self.seen.insert(hash) {
            self.repeated.insert(hash);
        }
    }

    /// Counts an id among those that occur more than once, for it may have done so before.
    pub fn suspect(&mut self, id: &str) {
        self.repeated.insert(self.hasher.hash_one(id));
    }

    pub fn contains(&self, id: &str) -> bool {
        self.repeated.contains(&self.hasher.hash_one(id))
    }

    pub fn is_empty(&self) -> bool {
        self.repeated.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let mut places = Places::default();
        for place in [(0, 5), (1, 5), (0, i64::MAX), (0, 5)] {
            places.insert(place);
        }
        assert!(places.contains((1, 5)) && !places.contains((1, 6)) && !places.contains((2, 5)));
        assert_eq!(places.len(), 3);
        places.remove((0, 5));
        places.remove((7, 7));
        assert!(!places.contains((0, 5)) && places.contains((0, i64::MAX)) && places.len() == 2);
        for place in [(1, 5), (0, i64::MAX)] {
            places.remove(place);
        }
        assert!(places.is_empty());
    }

    #[test]
    fn what_occurs_twice_or_is_suspected_is_repeated() {
        let mut repeats = Repeats::default();
        for id in ["a", "b", "c"] {
            repeats.see(id);
        }
        assert!(repeats.is_empty());
        repeats.see("b");
        repeats.suspect("d");
        let repeated: Vec<&str> = ["a", "b", "c", "d"].into_iter().filter(|id| repeats.contains(id)).collect();
        assert_eq!(repeated, ["b", "d"]);
    }
}
