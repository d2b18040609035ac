//! A vector with holes: entries keep their index, and a freed index is used again.

use std::ops::{Index, IndexMut};

pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// The head of the list of free slots.
    free: Option<u32>,
    len: usize,
}

enum Slot<T> {
    Free { next: Option<u32> },
    Taken(T),
}

/// Below this the memory is kept for the next burst.
const KEEP: usize = 64;

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: None, len: 0 }
    }

    /// # Panics
    /// With 2^32 entries at once, which would take more than 128 GiB.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        match self.free {
            Some(index) => {
                let slot = std::mem::replace(&mut self.slots[index as usize], Slot::Taken(value));
                let Slot::Free { next } = slot else { unreachable!("slot {index} is on the free list") };
                self.free = next;
                index
            }
            None => {
                let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 entries at once");
                self.slots.push(Slot::Taken(value));
                index
            }
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> T {
        let slot = std::mem::replace(&mut self.slots[index as usize], Slot::Free { next: self.free });
        let Slot::Taken(value) = slot else { unreachable!("slot {index} is taken") };
        self.free = Some(index);
        self.len -= 1;
        if self.len == 0 && self.slots.capacity() > KEEP {
            // Empty is the one moment when no index has to be kept.
            *self = Slab::new();
        }
        value
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        match &self.slots[index as usize] {
            Slot::Taken(value) => value,
            Slot::Free { .. } => unreachable!("slot {index} is taken"),
        }
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        match &mut self.slots[index as usize] {
            Slot::Taken(value) => value,
            Slot::Free { .. } => unreachable!("slot {index} is taken"),
        }
    }
}
