//! The system allocator, which on request counts what is live on the heap.
//!
//! A package of its own because the trait is unsafe to implement and fulmar forbids unsafe code in
//! all its targets. Counting is off but for the few milliseconds that the memory workload takes:
//! a switched-off counter costs one relaxed load of a line that nobody writes, so that the timings
//! in the same binary stay those of the system allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

/// To be installed as the `#[global_allocator]`.
pub struct CountingAlloc;

static COUNTING: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);
static BLOCKS: AtomicI64 = AtomicI64::new(0);

/// What a piece of code left on the heap, all threads together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Bytes asked for and not freed, without the allocator's own headers and rounding.
    pub bytes: i64,
    /// Blocks allocated and not freed.
    pub blocks: i64,
}

/// Runs `code` and tells what it left allocated. One measurement at a time: the counters are global.
pub fn live_after<T>(code: impl FnOnce() -> T) -> (T, Live) {
    let before = (BYTES.load(Relaxed), BLOCKS.load(Relaxed));
    COUNTING.store(true, Relaxed);
    let value = code();
    COUNTING.store(false, Relaxed);
    let live = Live { bytes: BYTES.load(Relaxed) - before.0, blocks: BLOCKS.load(Relaxed) - before.1 };
    (value, live)
}

fn count(bytes: usize, blocks: i64, sign: i64) {
    if COUNTING.load(Relaxed) {
        BYTES.fetch_add(sign * bytes as i64, Relaxed);
        BLOCKS.fetch_add(blocks, Relaxed);
    }
}

// SAFETY: every call is handed to `System` unchanged; the counters touch no memory of the caller's.
unsafe impl GlobalAlloc for CountingAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1, 1);
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1, 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1, -1);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), 0, -1);
        count(size, 0, 1);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}
