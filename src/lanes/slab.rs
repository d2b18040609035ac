//! A vector with holes: entries keep their index, and a freed index is used again.
//!
//! It comes in chunks, so that a few entries that stay keep no more memory than the chunks that they are in, and none
//! has to move. Every call is O(1), amortised over the chunk where memory comes or goes.

use std::ops::{Index, IndexMut};

pub(super) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// The chunks with free slots; each one is in it once.
    open: Vec<u32>,
    /// An empty chunk's memory, for the next one: an entry that comes and goes is not to allocate each time.
    spare: Vec<Slot<T>>,
    len: usize,
}

struct Chunk<T> {
    /// No memory while all are free.
    slots: Vec<Slot<T>>,
    /// The head of the list of free slots.
    free: Option<u32>,
    taken: usize,
}

enum Slot<T> {
    Free { next: Option<u32> },
    Taken(T),
}

/// Slots a chunk.
const CHUNK: usize = 64;

/// The most entries: an owner of several slabs has five bits of the index for the number of the slab.
const LIMIT: u32 = 1 << 27;

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { chunks: Vec::new(), open: Vec::new(), spare: Vec::new(), len: 0 }
    }

    /// Gives `value` back if there are `LIMIT` entries.
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
            // Empty is the one moment when no index has to be kept.
            *self = Slab::new();
        }
        value
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
