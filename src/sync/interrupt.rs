//! How a wait on a low floor ends when the operation that it is part of is cancelled.
//!
//! A room below the executor, such as the queue or the HTTP client, can't name it. So the first
//! executor leaves its functions here. A wait that parks enters its thread for as long as it does,
//! a call that blocks in another way a hook.
//!
//! Left to others: when a hook is called, and that it is called once (`executor::interrupts`).

use std::sync::Arc;

use super::OnceLock;
use super::blocking::Lent;

type Hook = Box<dyn FnOnce() + Send>;

/// What the executor knows of the operation that a thread runs.
pub(crate) struct Operations {
    /// Whether the thread runs one that may be cancelled.
    pub(crate) is_inside: fn() -> bool,
    pub(crate) is_cancelled: fn() -> bool,
    pub(crate) on_cancel: fn(Hook) -> Box<dyn Entered>,
    /// Has the thread unparked when its operation is cancelled. Says whether it runs one.
    pub(crate) enter_wait: fn(Option<Arc<dyn Lent>>) -> bool,
    /// Takes back the latest `enter_wait` that returned true.
    pub(crate) leave_wait: fn(),
}

/// A wait of this thread, which parks: it is unparked when the operation that it runs is cancelled.
///
/// Cheaper than a hook: in most cases it allocates nothing.
pub(crate) struct InterruptibleWait(Option<&'static Operations>);

impl InterruptibleWait {
    /// Begins it. `place` counts as at work again from the moment of the cancel on.
    ///
    /// Look at [`is_interrupted`](Self::is_interrupted) before each park: the cancel may come
    /// before this. Call it under no lock.
    pub(crate) fn begin(place: Option<Arc<dyn Lent>>) -> InterruptibleWait {
        InterruptibleWait(OPERATIONS.get().filter(|operations| (operations.enter_wait)(place)))
    }

    /// Whether the operation that waits was cancelled. Never true outside of an operation.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.0.is_some_and(|operations| (operations.is_cancelled)())
    }
}

impl Drop for InterruptibleWait {
    fn drop(&mut self) {
        if let Some(operations) = self.0 {
            (operations.leave_wait)();
        }
    }
}

/// A hook in its place.
pub(crate) trait Entered: Send {
    /// Has it never called from now on; if another thread is calling it, after that.
    fn take_back(&self);
}

static OPERATIONS: OnceLock<Operations> = OnceLock::new();

/// The functions of the executor. Each gives the same ones, so that the first may win.
pub(crate) fn set_operations(operations: Operations) {
    OPERATIONS.get_or_init(|| operations);
}

/// Whether this thread runs an operation that may be cancelled.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub(crate) fn is_inside() -> bool {
    OPERATIONS.get().is_some_and(|operations| (operations.is_inside)())
}

/// Whether the operation that this thread runs was cancelled.
pub(crate) fn is_cancelled() -> bool {
    OPERATIONS.get().is_some_and(|operations| (operations.is_cancelled)())
}

/// Has `hook` called, once, if the operation that this thread runs is cancelled while the returned
/// value lives; at once, on this thread, if it was before. Outside of an operation it is dropped.
///
/// Under no lock that the hook takes.
pub(crate) fn on_cancel(hook: impl FnOnce() + Send + 'static) -> Interrupt {
    let operations = OPERATIONS.get().filter(|operations| (operations.is_inside)());
    Interrupt(operations.map(|operations| (operations.on_cancel)(Box::new(hook))))
}

/// A hook, until it is dropped.
#[must_use = "the hook is taken back when this is dropped"]
pub(crate) struct Interrupt(Option<Box<dyn Entered>>);

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(entered) = &self.0 {
            entered.take_back();
        }
    }
}
