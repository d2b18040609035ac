//! Locks, condition variables, atomics and threads: every other file in `src` takes them from here.
//!
//! Normally they are those of `parking_lot` and `std`. With `--cfg loom` they are loom's, so that
//! the model checks in `tests/model.rs` run the code that ships. With `--cfg shuttle` they are
//! shuttle's, for `tests/random_schedules.rs`.

pub(crate) mod blocking;
pub(crate) mod interrupt;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use real::*;

#[cfg(any(loom, shuttle))]
pub(crate) use model::*;

#[cfg(not(any(loom, shuttle)))]
mod real {
    pub(crate) use super::cell::UnsafeCell;
    pub(crate) use concurrent_queue::{ConcurrentQueue, PopError, PushError};
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::thread_local;

    /// How many times a waiting thread looks and yields before it sleeps. A turn takes a quarter of
    /// a microsecond, so all of them together cost less than a sleep and a wake-up.
    pub(crate) fn spin_turns() -> u32 {
        static TURNS: OnceLock<u32> = OnceLock::new();
        // On a single core, the thread that we wait for can't run while we spin.
        *TURNS.get_or_init(|| if thread::cores() > 1 { 25 } else { 0 })
    }

    /// Spins for one turn, and then yields the core, because the thread that we wait for may need
    /// it.
    pub(crate) fn spin_turn() {
        pause(5);
        std::thread::yield_now();
    }

    /// Spins `times` times for a few nanoseconds.
    pub(crate) fn pause(times: u32) {
        for _ in 0..times {
            std::hint::spin_loop();
        }
    }

    pub(crate) mod thread {
        use std::time::Instant;

        use std::cell::RefCell;

        pub(crate) use std::thread::{JoinHandle, Scope, Thread, ThreadId, current, park, scope};

        /// Calls a closure when the thread's thread-locals are destroyed.
        struct AtEnd(Option<Box<dyn FnOnce()>>);

        impl Drop for AtEnd {
            fn drop(&mut self) {
                if let Some(last) = self.0.take() {
                    last();
                }
            }
        }

        std::thread_local! {
            static AT_END: RefCell<AtEnd> = const { RefCell::new(AtEnd(None)) };
        }

        pub(crate) fn cores() -> usize {
            std::thread::available_parallelism().map_or(1, usize::from)
        }

        /// Whether a panic runs the destructors of this thread's values.
        pub(crate) fn is_unwinding() -> bool {
            std::thread::panicking()
        }

        /// Parks until unparked, or until `deadline`, or spuriously: the caller loops on its
        /// predicate.
        pub(crate) fn park_until(deadline: Option<Instant>) {
            match deadline {
                None => park(),
                Some(at) => std::thread::park_timeout(at.saturating_duration_since(Instant::now())),
            }
        }

        /// Starts a detached thread.
        pub(crate) fn spawn(
            name: String,
            stack_size: Option<usize>,
            body: impl FnOnce() + Send + 'static,
        ) -> std::io::Result<()> {
            spawn_joinable(name, stack_size, body, || ()).map(drop)
        }

        /// Starts a thread that runs `body`. When the thread ends, it calls `last` after all other
        /// destructors of its thread-locals, so that `last` can report that no code of the thread
        /// runs any more.
        ///
        /// This relies on the order in which the standard library destroys thread-locals: the first
        /// one used goes last. On a platform with another order `last` comes too early, but a join
        /// still waits for all destructors.
        pub(crate) fn spawn_joinable(
            name: String,
            stack_size: Option<usize>,
            body: impl FnOnce() + Send + 'static,
            last: impl FnOnce() + Send + 'static,
        ) -> std::io::Result<JoinHandle<()>> {
            let mut builder = std::thread::Builder::new().name(name);
            if let Some(bytes) = stack_size {
                builder = builder.stack_size(bytes);
            }
            builder.spawn(move || {
                // Before `body`: the thread-local that is used first is destroyed last.
                AT_END.with(|at_end| at_end.borrow_mut().0 = Some(Box::new(last)));
                body();
            })
        }

        /// As `spawn_joinable`, of a thread that may borrow what `scope` outlives, and is joined by
        /// that.
        pub(crate) fn spawn_scoped<'scope>(
            scope: &'scope Scope<'scope, '_>,
            name: String,
            body: impl FnOnce() + Send + 'scope,
            last: impl FnOnce() + Send + 'static,
        ) -> std::io::Result<()> {
            let body = move || {
                AT_END.with(|at_end| at_end.borrow_mut().0 = Some(Box::new(last)));
                body();
            };
            std::thread::Builder::new().name(name).spawn_scoped(scope, body).map(drop)
        }
    }
}

#[cfg(not(loom))]
mod cell {
    /// Memory that threads share without a lock. Loom's type of this name has the same two methods,
    /// and fails a model in which two threads access it at once.
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer, through which the caller may write if it alone owns the
        /// memory.
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// The same names for the two model checkers: loom tries every order of a few steps, shuttle tries
/// random orders of many steps.
#[cfg(any(loom, shuttle))]
mod model {
    #[cfg(loom)]
    use loom as checker;
    #[cfg(shuttle)]
    use shuttle as checker;

    #[cfg(shuttle)]
    pub(crate) use super::cell::UnsafeCell;
    pub(crate) use checker::sync::atomic::{
        AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    pub(crate) use checker::thread_local;
    #[cfg(loom)]
    pub(crate) use loom::cell::UnsafeCell;
    use std::collections::VecDeque;
    use std::ops::{Deref, DerefMut};
    // The real one will do: it holds the global executor, and no model uses that.
    pub(crate) use std::sync::OnceLock;
    use std::time::Instant;

    /// None: a model checker tries every order anyway, and each turn would only add states.
    pub(crate) fn spin_turns() -> u32 {
        0
    }

    pub(crate) fn spin_turn() {}

    pub(crate) fn pause(_times: u32) {}

    /// Stands in for the ring of `concurrent-queue` in a model: each call happens at one moment,
    /// because it holds a lock.
    ///
    /// A `pop` from a ring of capacity 1 is the exception. In the real ring it takes two steps, and
    /// a `push` between them is refused as if the ring were full. Here the `pop` refuses at most
    /// one such `push`: if it refused each, a thread that tries again would never end the model.
    pub(crate) struct ConcurrentQueue<T> {
        ring: Mutex<Ring<T>>,
        capacity: usize,
    }

    struct Ring<T> {
        values: VecDeque<T>,
        /// A `pop` from a ring of capacity 1 is between its two steps.
        halfway: bool,
        closed: bool,
    }

    pub(crate) enum PushError<T> {
        Full(T),
        Closed(T),
    }

    pub(crate) enum PopError {
        Empty,
        Closed,
    }

    impl<T> ConcurrentQueue<T> {
        pub(crate) fn bounded(capacity: usize) -> ConcurrentQueue<T> {
            ConcurrentQueue {
                ring: Mutex::new(Ring { values: VecDeque::new(), halfway: false, closed: false }),
                capacity,
            }
        }

        pub(crate) fn push(&self, value: T) -> Result<(), PushError<T>> {
            let mut ring = self.ring.lock();
            if ring.closed {
                return Err(PushError::Closed(value));
            }
            // `take`, so that only the first push between the two steps of a `pop` is refused.
            if std::mem::take(&mut ring.halfway) || ring.values.len() == self.capacity {
                return Err(PushError::Full(value));
            }
            ring.values.push_back(value);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Result<T, PopError> {
            let mut ring = self.ring.lock();
            let empty = if ring.closed { PopError::Closed } else { PopError::Empty };
            let value = ring.values.pop_front().ok_or(empty)?;
            if self.capacity == 1 {
                // The checker may run another thread here, between the two locks.
                ring.halfway = true;
                drop(ring);
                self.ring.lock().halfway = false;
            }
            Ok(value)
        }

        pub(crate) fn close(&self) {
            self.ring.lock().closed = true;
        }

        pub(crate) fn is_closed(&self) -> bool {
            self.ring.lock().closed
        }

        pub(crate) fn len(&self) -> usize {
            self.ring.lock().values.len()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len() == 0
        }

        pub(crate) fn is_full(&self) -> bool {
            self.len() == self.capacity
        }
    }

    /// The checker's mutex with the signatures of `parking_lot`.
    pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

    /// Holds an `Option` because the checker's condition variable takes the guard by value.
    pub(crate) struct MutexGuard<'a, T>(Option<checker::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(checker::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("the guard is only empty inside Condvar::wait")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("the guard is only empty inside Condvar::wait")
        }
    }

    pub(crate) struct Condvar(checker::sync::Condvar);

    pub(crate) struct WaitTimeoutResult;

    impl Condvar {
        pub(crate) fn new() -> Condvar {
            Condvar(checker::sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let inner = guard.0.take().expect("the guard is only empty inside Condvar::wait");
            guard.0 = Some(self.0.wait(inner).unwrap_or_else(|poisoned| poisoned.into_inner()));
        }

        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _at: Instant) -> WaitTimeoutResult {
            self.wait(guard);
            WaitTimeoutResult
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    pub(crate) mod thread {
        use std::sync::Arc;
        use std::time::Instant;

        use super::{Condvar, Mutex};

        /// A thread's handle. It has a token of its own, because loom loses an `unpark` of a thread
        /// that is blocked on a mutex.
        #[derive(Clone)]
        pub(crate) struct Thread(Arc<(Mutex<bool>, Condvar)>);

        super::checker::thread_local! {
            static CURRENT: Thread = Thread(Arc::new((Mutex::new(false), Condvar::new())));
        }

        pub(crate) type ThreadId = usize;

        impl Thread {
            pub(crate) fn id(&self) -> ThreadId {
                Arc::as_ptr(&self.0).addr()
            }

            pub(crate) fn unpark(&self) {
                *self.0.0.lock() = true;
                self.0.1.notify_all();
            }
        }

        pub(crate) fn current() -> Thread {
            CURRENT.with(Clone::clone)
        }

        pub(crate) fn park() {
            let Thread(token) = current();
            let mut unparked = token.0.lock();
            while !*unparked {
                token.1.wait(&mut unparked);
            }
            *unparked = false;
        }

        pub(crate) fn cores() -> usize {
            2
        }

        /// Time stands still in a model: only a deadline that has passed already ends the wait.
        pub(crate) fn park_until(deadline: Option<Instant>) {
            if deadline.is_none_or(|at| Instant::now() < at) {
                park();
            }
        }

        pub(crate) fn is_unwinding() -> bool {
            std::thread::panicking()
        }

        pub(crate) use super::checker::thread::JoinHandle;

        pub(crate) fn spawn(
            name: String,
            stack_size: Option<usize>,
            body: impl FnOnce() + Send + 'static,
        ) -> std::io::Result<()> {
            spawn_joinable(name, stack_size, body, || ()).map(drop)
        }

        pub(crate) fn spawn_joinable(
            _name: String,
            _stack_size: Option<usize>,
            body: impl FnOnce() + Send + 'static,
            last: impl FnOnce() + Send + 'static,
        ) -> std::io::Result<JoinHandle<()>> {
            Ok(super::checker::thread::spawn(move || {
                body();
                last();
            }))
        }
    }
}
