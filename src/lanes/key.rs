//! What a lane is known by: 128 bits of keyed hash of its store and its key.
//!
//! The key itself is not kept, so that a lane has the same size whatever the length of its key, needs no allocation, and
//! is looked up without hashing under a lock. Two keys share a lane, and wait for each other needlessly, if both hashes
//! agree: with a million keys active at once that has a probability of 10^-27, and the hashes are seeded at random for
//! each executor (`RandomState`, SipHash), so that nobody who picks keys can bring it about.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LaneKey(u64, u64);

/// Makes lane keys.
pub(crate) struct Keys(RandomState, RandomState);

impl Keys {
    pub(crate) fn new() -> Keys {
        Keys(RandomState::new(), RandomState::new())
    }

    /// `store` is any number that is the store's own as long as a request refers to it.
    pub(crate) fn key(&self, store: usize, key: Option<&str>) -> LaneKey {
        LaneKey(self.0.hash_one((store, key)), self.1.hash_one((store, key)))
    }
}

/// From lane key to lane.
#[derive(Default)]
pub(super) struct LaneMap(HashMap<LaneKey, u32, BuildHasherDefault<AlreadyHashed>>);

/// Below this the memory is kept for the next burst.
const KEEP: usize = 64;

impl LaneMap {
    pub(super) fn get(&self, key: LaneKey) -> Option<u32> {
        self.0.get(&key).copied()
    }

    pub(super) fn insert(&mut self, key: LaneKey, lane: u32) {
        self.0.insert(key, lane);
    }

    pub(super) fn remove(&mut self, key: LaneKey) {
        self.0.remove(&key);
        // A quarter and a half: as many removals or insertions as are moved lie between two moves.
        if self.0.capacity() > KEEP && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl std::hash::Hash for LaneKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Lets a hash through as it is.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("a lane key writes one u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
