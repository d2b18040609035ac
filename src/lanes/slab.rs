//! A vector with holes: an entry keeps its index until it is removed, and then the index is used
//! again.
//!
//! It allocates in chunks, and frees a chunk without entries. So a few long-lived entries keep only
//! their own chunks in memory, and no entry has to move. Every call is O(1), amortised where it
//! allocates or frees a chunk.

use std::ops::{Index, IndexMut};

pub(super) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// The numbers of the chunks with free slots, each once.
    open: Vec<u32>,
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

/// The most entries: an owner of several slabs uses the upper five bits of an index for the number
/// of the slab.
const LIMIT: u32 = 1 << 27;

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { chunks: Vec::new(), open: Vec::new(), spare: Vec::new(), len: 0 }
    }

    /// Stores `value` and returns its index. Returns `value` as the error if there are `LIMIT`
    /// entries.
    pub(super) fn insert(&mut self, value: T) -> Result<u32, T> {
        let number = match self.open.last() {
            Some(number) => *number,
            None => {
                let Some(number) =
                    u32::try_from(self.chunks.len()).ok().filter(|number| *number < LIMIT / CHUNK as u32)
                else {
                    return Err(value);
                };
                self.chunks.push(Chunk { slots: Vec::new(), free: None, taken: 0 });
                self.open.push(number);
                number
            }
        };
        let chunk = &mut self.chunks[number as usize];
        if chunk.slots.capacity() == 0 {
            chunk.slots = std::mem::take(&mut self.spare);
            chunk.slots.reserve_exact(CHUNK);
        }
        let slot = chunk.insert(value);
        if chunk.taken == CHUNK {
            self.open.pop();
        }
        self.len += 1;
        Ok(number * CHUNK as u32 + slot)
    }

    pub(super) fn remove(&mut self, index: u32) -> T {
        let number = index / CHUNK as u32;
        let chunk = &mut self.chunks[number as usize];
        if chunk.taken == CHUNK {
            self.open.push(number);
        }
        let value = chunk.remove(index % CHUNK as u32);
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
