//! A vector with holes: an entry keeps its index until it is removed, and then the index is used
//! again.
//!
//! It allocates in chunks, and frees a chunk without entries. So a few long-lived entries keep only
//! their own chunks in memory, and no entry has to move. Every call is O(1), amortised where it
//! allocates or frees a chunk.
//!
//! One thread may insert while another one removes, taking turns at the owner's lock. So that they
//! seldom write to the same cache lines, a chunk that was full takes no new entries until half of
//! it is free.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

pub(super) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// The number of the chunk that takes new entries until it is full.
    current: Option<u32>,
    /// The numbers of the other chunks of which half or more is free, each once. The first to
    /// become so is used first, because it has the most free slots by then.
    open: VecDeque<u32>,
    /// The memory of the last chunk that became empty, for the next chunk: otherwise a single entry
    /// that comes and goes would allocate each time.
    spare: Vec<Slot<T>>,
    len: usize,
}

struct Chunk<T> {
    /// Without memory while the chunk has no entries.
    slots: Vec<Slot<T>>,
    /// The head of the list of free slots.
    free: Option<u32>,
    taken: usize,
}

enum Slot<T> {
    Free { next: Option<u32> },
    Taken(T),
}

/// The number of slots in a chunk.
const CHUNK: usize = 64;

/// How many entries are left in a full chunk when it takes new ones again. If it took one as soon
/// as a slot is free, each insertion would write to the slot of the removal before it.
const REOPENS: usize = CHUNK / 2;

/// The most slots: an owner of several slabs uses the upper five bits of an index for the number of
/// the slab.
const LIMIT: u32 = 1 << 27;

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { chunks: Vec::new(), current: None, open: VecDeque::new(), spare: Vec::new(), len: 0 }
    }

    /// Stores `value` and returns its index. Returns `value` as the error if there are `LIMIT`
    /// slots, and no chunk that takes new entries.
    pub(super) fn insert(&mut self, value: T) -> Result<u32, T> {
        let Some(number) = self.current.or_else(|| self.open.pop_front()).or_else(|| self.add_chunk()) else {
            return Err(value);
        };
        let chunk = &mut self.chunks[number as usize];
        if chunk.slots.capacity() == 0 {
            chunk.slots = std::mem::take(&mut self.spare);
            chunk.slots.reserve_exact(CHUNK);
        }
        let slot = chunk.insert(value);
        self.current = (chunk.taken < CHUNK).then_some(number);
        self.len += 1;
        Ok(number * CHUNK as u32 + slot)
    }

    /// Removes the entry at `index` and returns it; a later `insert` may give the index out again.
    /// Panics if there is no such entry.
    pub(super) fn remove(&mut self, index: u32) -> T {
        let number = index / CHUNK as u32;
        let chunk = &mut self.chunks[number as usize];
        let value = chunk.remove(index % CHUNK as u32);
        if chunk.taken == REOPENS && self.current != Some(number) {
            self.open.push_back(number);
        }
        if chunk.taken == 0 {
            chunk.free = None;
            let mut slots = std::mem::take(&mut chunk.slots);
            slots.clear();
            self.spare = slots;
        }
        self.len -= 1;
        if self.len == 0 && self.chunks.len() > 1 {
            // Free the list of chunks, too: only an empty slab has no index to keep.
            *self = Slab::new();
        }
        value
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| &chunk.slots).filter_map(|slot| match slot {
            Slot::Taken(value) => Some(value),
            Slot::Free { .. } => None,
        })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Slots that memory is held for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.spare.capacity() + self.chunks.iter().map(|chunk| chunk.slots.capacity()).sum::<usize>()
    }

    fn add_chunk(&mut self) -> Option<u32> {
        let number = u32::try_from(self.chunks.len()).ok().filter(|number| *number < LIMIT / CHUNK as u32)?;
        self.chunks.push(Chunk { slots: Vec::new(), free: None, taken: 0 });
        Some(number)
    }
}

impl<T> Chunk<T> {
    fn insert(&mut self, value: T) -> u32 {
        self.taken += 1;
        match self.free {
            Some(index) => {
                let slot = std::mem::replace(&mut self.slots[index as usize], Slot::Taken(value));
                let Slot::Free { next } = slot else { unreachable!("slot {index} is on the free list") };
                self.free = next;
                index
            }
            None => {
                self.slots.push(Slot::Taken(value));
                self.slots.len() as u32 - 1
            }
        }
    }

    fn remove(&mut self, index: u32) -> T {
        let slot = std::mem::replace(&mut self.slots[index as usize], Slot::Free { next: self.free });
        let Slot::Taken(value) = slot else { unreachable!("slot {index} is taken") };
        self.free = Some(index);
        self.taken -= 1;
        value
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        match &self.chunks[index as usize / CHUNK].slots[index as usize % CHUNK] {
            Slot::Taken(value) => value,
            Slot::Free { .. } => unreachable!("slot {index} is taken"),
        }
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        match &mut self.chunks[index as usize / CHUNK].slots[index as usize % CHUNK] {
            Slot::Taken(value) => value,
            Slot::Free { .. } => unreachable!("slot {index} is taken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_full_chunk_takes_new_entries_once_half_of_it_is_free() {
        let mut slab = Slab::new();
        let insert = |slab: &mut Slab<()>| slab.insert(()).expect("fewer than 2^27 entries");
        let chunk = CHUNK as u32;
        assert!((0..2 * chunk).all(|index| insert(&mut slab) == index));
        (0..chunk / 2 - 1).for_each(|index| slab.remove(index));
        assert_eq!(insert(&mut slab), 2 * chunk, "more than half of the first chunk is taken");
        slab.remove(chunk / 2 - 1);
        assert!((1..chunk).all(|n| insert(&mut slab) == 2 * chunk + n), "the chunk in use is filled first");
        assert!((0..chunk / 2).all(|_| insert(&mut slab) < chunk / 2), "then the first one again");
        assert_eq!(insert(&mut slab), 3 * chunk);
    }

    #[test]
    fn entries_keep_their_indices_and_at_least_half_of_the_memory_is_used_at_the_peak() {
        let mut random = crate::lanes::tests::random();
        let (mut slab, mut entries, mut taken, mut peak) = (Slab::new(), Vec::new(), HashSet::new(), 0);
        for value in 0..50_000_usize {
            // It grows and shrinks in turn.
            let grows = if value / 5_000 % 2 == 0 { 70 } else { 30 };
            if entries.is_empty() || random(100) < grows {
                let index = slab.insert(value).expect("fewer than 2^27 entries");
                assert!(taken.insert(index), "index {index} is taken");
                entries.push((index, value));
            } else {
                let (index, value) = entries.swap_remove(random(entries.len()));
                assert_eq!(slab.remove(index), value, "index {index}");
                taken.remove(&index);
            }
            peak = peak.max(entries.len());
            assert!(slab.capacity() <= 2 * peak + 2 * CHUNK, "{} slots for {peak} entries", slab.capacity());
            if let Some((index, value)) = entries.last() {
                assert_eq!(slab[*index], *value, "index {index}");
            }
        }
        for (index, value) in entries {
            assert_eq!(slab.remove(index), value, "index {index}");
        }
        assert!(slab.is_empty());
    }
}
