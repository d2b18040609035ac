//! A lane's key: a keyed hash, of 122 bits, of a store and the text of a key.
//!
//! The text itself is not kept. So every lane has the same size, it needs no allocation, and a
//! thread that looks a lane up under a lock hashes nothing there.
//!
//! The hash reads store and key as the coefficients of a polynomial over the integers modulo 2^61 -
//! 1, and evaluates it at two secret points, drawn at random for each executor. Two polynomials of
//! degree m agree at m points at most, so two different keys share a lane, and wait for each other
//! needlessly, with a probability of (m / 2^61)^2: with a million keys of 50 bytes in use at once,
//! 10^-23 for any two of them. Because the points are secret, keys can't be chosen to collide.
//!
//! Source: Carter, Wegman, "Universal Classes of Hash Functions", JCSS 18(2), 1979; the modulus as
//! in Thorup, "High Speed Hashing for Integers and Strings", 2015, section 3.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LaneKey(u64, u64);

impl LaneKey {
    /// The number of the shard that this key belongs to, below `shards`, which is a power of two.
    pub(crate) fn shard(self, shards: usize) -> usize {
        // The hashes of similar keys, such as `SYM1` and `SYM2`, differ by a constant. Without this
        // mixing they would crowd into a few shards.
        ((self.1 ^ self.1 >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as usize & (shards - 1)
    }
}

/// The modulus, a Mersenne prime: what exceeds 61 bits is added at the bottom.
const PRIME: u64 = (1 << 61) - 1;

/// Bytes of a key in one coefficient, which has to be less than the modulus.
const CHUNK: usize = 7;

/// Makes lane keys, with two secret points that are drawn at random.
pub(crate) struct KeyHasher {
    points: [u64; 2],
}

impl KeyHasher {
    pub(crate) fn new() -> KeyHasher {
        // `RandomState` is the standard library's source of random seeds.
        KeyHasher { points: [0, 1].map(|which: u8| RandomState::new().hash_one(which) % PRIME) }
    }

    /// The lane key of `key`, or of no key, in `store`: a number that no other store has as long as
    /// a request refers to this one.
    pub(crate) fn key(&self, store: usize, key: Option<&str>) -> LaneKey {
        let text = key.unwrap_or_default().as_bytes();
        let store = store as u64;
        // Include the length and whether there is a key, so that no two inputs give the same
        // coefficients.
        let shape = (text.len() as u64) << 9 | u64::from(key.is_some()) << 8 | store >> 56;
        let mut sums = [store & (u64::MAX >> 8); 2];
        self.step(&mut sums, shape);
        for chunk in text.chunks(CHUNK) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.step(&mut sums, u64::from_le_bytes(bytes));
        }
        LaneKey(sums[0], sums[1])
    }

    /// Horner's rule, at both points.
    fn step(&self, sums: &mut [u64; 2], coefficient: u64) {
        for (sum, point) in sums.iter_mut().zip(self.points) {
            let product = u128::from(*sum) * u128::from(point) + u128::from(coefficient);
            let folded = (product as u64 & PRIME) + (product >> 61) as u64;
            *sum = if folded >= PRIME { folded - PRIME } else { folded };
        }
    }
}

/// Finds a lane's number by its key.
#[derive(Default)]
pub(super) struct LaneMap(HashMap<LaneKey, u32, BuildHasherDefault<AlreadyHashed>>);

/// A map with at most this capacity is never shrunk: the next burst of keys needs it again.
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
        // Shrink at a quarter full to half full: then at least as many removals or insertions lie
        // between two shrinks or growths as entries are moved, so that the cost stays O(1)
        // amortised.
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
        // The hashes of similar keys differ only where their texts do, and the table looks at the
        // lowest bits and the highest seven: without this mixing a hundred thousand keys that are
        // numbers would start their search at some hundreds of places.
        let product = u128::from(self.0 ^ self.1 << 3) * 0x9E37_79B9_7F4A_7C15;
        state.write_u64(product as u64 ^ (product >> 64) as u64);
    }
}

/// A hasher for keys that are hashes already: it returns the number that it gets.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_look_alike_are_told_apart() {
        let keys = KeyHasher::new();
        let names =
            ["", "\0", "\0\0", "a", "a\0", "aaaaaaa", "aaaaaaaa", "aaaaaaab", "aaaaaaaaaaaaaa", "aaaaaaaaaaaaab"];
        let stores = [0, 1, 1 << 56, usize::MAX];
        let all: Vec<LaneKey> = stores
            .iter()
            .flat_map(|store| names.iter().map(|name| keys.key(*store, Some(name))).chain([keys.key(*store, None)]))
            .collect();
        for (index, key) in all.iter().enumerate() {
            assert!(key.0 < PRIME && key.1 < PRIME);
            assert!(!all[..index].contains(key), "number {index}");
        }
        assert_eq!(keys.key(7, Some("AAPL")), keys.key(7, Some("AAPL")));
        assert_ne!(
            KeyHasher::new().key(7, Some("AAPL")),
            keys.key(7, Some("AAPL")),
            "each executor has points of its own"
        );
    }

    #[test]
    fn a_hundred_thousand_keys_spread_over_the_shards_and_never_meet() {
        let keys = KeyHasher::new();
        let mut seen = std::collections::HashSet::new();
        let mut shards = [0_u32; 32];
        for n in 0..100_000 {
            let key = keys.key(4096, Some(&format!("SYM{n}")));
            assert!(seen.insert((key.0, key.1)), "SYM{n}");
            shards[key.shard(32)] += 1;
        }
        // 3,125 each on average; ten standard deviations are 550.
        assert!(shards.iter().all(|count| (2_500..3_800).contains(count)), "{shards:?}");
    }

    #[test]
    fn keys_that_look_alike_lie_all_over_a_table() {
        let (keys, hash) = (KeyHasher::new(), BuildHasherDefault::<AlreadyHashed>::default());
        // A table takes the place from the lowest bits, and tells neighbours apart by the highest.
        let (mut places, mut tags) = ([0_u32; 1 << 10], [0_u32; 1 << 7]);
        for n in 0..100_000 {
            let hash = hash.hash_one(keys.key(4096, Some(&n.to_string())));
            places[hash as usize % places.len()] += 1;
            tags[(hash >> 57) as usize] += 1;
        }
        // 98 each on average, and 781; ten standard deviations are 99 and 280.
        assert!(places.iter().all(|count| *count < 200), "{places:?}");
        assert!(tags.iter().all(|count| (500..1_062).contains(count)), "{tags:?}");
    }
}
