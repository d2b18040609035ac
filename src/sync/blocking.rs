//! How a wait in a module below the executor tells the executor that it is about to block the
//! thread.
//!
//! A module below the executor, such as the queue, can't name it. So the executor sets a function
//! for each of its threads ([`set_lender`]), and a wait asks that function for a [`Lent`] before it
//! parks. Without this, an operation that waits for room in a full queue would hold the thread that
//! the consumer's operation needs to make room.
//!
//! Left to `executor::wait::block`: which thread works in the place of the blocked one.

// Loom's thread-locals have no `const` form.
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
    /// Lends this thread's place, if it has one. Call it without holding a lock, because it takes
    /// one of the executor's.
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

/// From now on each blocking wait of this thread asks `lender` for the place to lend.
pub(crate) fn set_lender(lender: Option<Lender>) {
    // The type has no destructor, so the thread-local can be used until the thread has ended.
    LENDER.with(|own| own.set(lender));
}

/// The place of this thread, if it is at work for an executor.
pub(crate) fn place() -> Option<Arc<dyn Lent>> {
    LENDER.with(Cell::get).and_then(|lender| lender())
}
