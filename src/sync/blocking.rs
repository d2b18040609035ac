//! How a wait on a low floor tells the executor that it is about to block the thread.
//!
//! A room below the executor, such as the queue, can't name it. So the executor leaves a function
//! with each of its threads, and a wait there asks for a [`Lent`] before it parks. Without it an
//! operation that puts into a full queue keeps its thread from the very operation that would make room.
//!
//! Left to others: who works in the place of the blocked thread (`executor::wait::block`).

// Loom's thread-locals know no `const`.
#![allow(clippy::missing_const_for_thread_local)]

use std::cell::Cell;
use std::sync::Arc;

use super::thread_local;

/// The place of a thread at work, which another thread may take while this one is blocked.
pub(crate) trait Lent: Send + Sync {
    /// The thread is about to park: it no longer counts as at work.
    fn lend(&self);
    /// The wait is over: the thread counts as at work again. Calling it again changes nothing.
    fn come_back(&self);
}

/// This thread's place is lent for as long as this lives.
pub(crate) struct Lending(Option<Arc<dyn Lent>>);

impl Lending {
    /// Under no lock, because it takes the executor's.
    pub(crate) fn begin() -> Lending {
        let place = place();
        if let Some(place) = &place {
            place.lend();
        }
        Lending(place)
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        if let Some(place) = &self.0 {
            place.come_back();
        }
    }
}

type Lender = fn() -> Option<Arc<dyn Lent>>;

thread_local! {
    static LENDER: Cell<Option<Lender>> = Cell::new(None);
}

/// Has `lender` asked in each blocking wait of this thread.
pub(crate) fn set_lender(lender: Option<Lender>) {
    // Its type has no destructor, so it is there until the thread has ended.
    LENDER.with(|own| own.set(lender));
}

/// The place of this thread, if it is at work for an executor.
pub(crate) fn place() -> Option<Arc<dyn Lent>> {
    LENDER.with(Cell::get).and_then(|lender| lender())
}
