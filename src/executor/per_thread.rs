//! A store of which each thread has a value of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use crate::error::BoxError;
use crate::panics;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Mutex, thread_local};

/// A store that makes a value for each thread that works on it: a database connection each, a
/// parser each, whatever threads can't share or an operation has to change. Operations take `&T` or
/// `&mut T`.
///
/// A value is made by a thread's first operation on the store, and dropped when the thread ends, or
/// with the store. Making it may fail: then so does the operation, and the next one tries again. An
/// operation that panics costs its thread the value.
///
/// An operation that waits lends its place to another thread, so there may be more values for a
/// while than the executor has threads.
///
/// ```
/// use fulmar::{Executor, PerThread};
/// use std::collections::HashMap;
/// use std::sync::Arc;
///
/// /// Not to be shared: it changes.
/// #[derive(Default)]
/// struct Cache(HashMap<String, usize>);
///
/// impl Cache {
///     fn length(&mut self, text: &str) -> usize {
///         *self.0.entry(text.to_owned()).or_insert(text.len())
///     }
/// }
///
/// let executor = Executor::builder().threads(4).build()?;
/// let caches = Arc::new(PerThread::new(|| Ok::<_, std::io::Error>(Cache::default())));
/// let lengths: Vec<_> =
///     ["a", "bb", "a"].map(|text| executor.submit(&caches, Cache::length, false, text)).into_iter().collect::<Result<_, _>>()?;
/// assert_eq!(executor.wait_requests(&lengths, None)?, [1, 2, 1]);
/// # Ok::<(), fulmar::Error>(())
/// ```
pub struct PerThread<T> {
    make: Box<dyn Fn() -> Result<T, BoxError> + Send + Sync>,
    values: Arc<Values<T>>,
}

/// Those that are not in use.
struct Values<T>(Mutex<HashMap<ThreadId, T>>);

/// Drops what is a thread's, whatever its type.
trait Leave: Send + Sync {
    fn leave(&self, thread: ThreadId);
}

impl<T: Send> Leave for Values<T> {
    fn leave(&self, thread: ThreadId) {
        let value = self.0.lock().remove(&thread);
        panics::contain(move || drop(value));
    }
}

/// The stores of which a thread has values; dropped with the thread.
struct Stores {
    thread: ThreadId,
    stores: RefCell<Vec<Weak<dyn Leave>>>,
}

impl Drop for Stores {
    fn drop(&mut self) {
        for store in self.stores.take().into_iter().filter_map(|store| store.upgrade()) {
            store.leave(self.thread);
        }
    }
}

thread_local! {
    static STORES: Stores = Stores { thread: thread::current().id(), stores: RefCell::new(Vec::new()) };
}

/// Makes this thread drop its value of `store` when it ends. `false` if the thread is ending
/// already: then the caller must not keep the value, because nothing would drop it.
fn note(store: Weak<dyn Leave>) -> bool {
    let push = |noted: &Stores| {
        let mut stores = noted.stores.borrow_mut();
        // A long-lived thread that uses many short-lived stores must not keep a note of each.
        stores.retain(|store| store.strong_count() > 0);
        // The store is known already if this thread's last value was lost in a panic, and it makes
        // another.
        if !stores.iter().any(|known| known.ptr_eq(&store)) {
            stores.push(store);
        }
    };
    #[cfg(not(any(loom, shuttle)))]
    return STORES.try_with(push).is_ok();
    #[cfg(any(loom, shuttle))]
    {
        STORES.with(push);
        true
    }
}

impl<T: Send + 'static> PerThread<T> {
    /// Values that `make` makes, one for each thread, on that thread.
    pub fn new<E: Into<BoxError>>(make: impl Fn() -> Result<T, E> + Send + Sync + 'static) -> PerThread<T> {
        let values = Arc::new(Values(Mutex::new(HashMap::new())));
        PerThread { make: Box::new(move || make().map_err(Into::into)), values }
    }
}

impl<T: Send + 'static> PerThread<T> {
    /// Calls `f` with this thread's value. It is taken out meanwhile: an operation that runs
    /// another on the same thread, as a full queue with
    /// [`OnFull::CallerRuns`](crate::OnFull::CallerRuns) has it, makes a second one.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Result<R, BoxError> {
        let id = thread::current().id();
        let idle = self.values.0.lock().remove(&id);
        let (mut value, is_new) = match idle {
            Some(value) => (value, false),
            None => ((self.make)()?, true),
        };
        let outcome = f(&mut value);
        let values: Weak<Values<T>> = Arc::downgrade(&self.values);
        // A thread whose thread-locals are being destroyed leaves nothing behind.
        if !is_new || note(values) {
            let second = self.values.0.lock().insert(id, value);
            drop(second);
        }
        Ok(outcome)
    }
}

impl<T> fmt::Debug for PerThread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerThread").field("idle", &self.values.0.lock().len()).finish_non_exhaustive()
    }
}
