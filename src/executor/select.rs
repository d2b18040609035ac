//! Requests whose results come out of a channel, for loops that wait for other things as well.
//!
//! Promises: each request that was added gives one message, after its end; no thread more, however
//! many there are; more may be added at any time, also while another thread receives. Left to
//! others: the end of one request ([`AsyncRequest::done`]), and the channels themselves
//! (`crossbeam-channel`, whose `select!` takes no other receivers).
//!
//! Source: `ExecutorCompletionService` of java.util.concurrent.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::handle::AsyncRequest;
use crate::error::{Error, Result};
use crate::sync::Mutex;

/// An open set of requests: add one at any time, with a key of yours, and its result comes out of
/// the set's [receiver](Self::receiver) with that key once it has ended.
///
/// The receiver is crossbeam's own, so that `crossbeam_channel::select!` takes it beside ticks,
/// signals and whatever else a main loop waits for. Results come in the order in which the requests
/// end. They wait in the set, without a bound, until they are received: if that matters, add more
/// only while [`len`](Self::len) is small.
///
/// Dropping the set cancels nothing: the requests go on, and their results are dropped. Not to be
/// used as the only wait inside of an operation, where it keeps the thread of the pool: see
/// [`AsyncRequest::done`]. A cancel of that operation doesn't end a `select!`, which knows nothing
/// of it: select a channel as well that a hook ends
/// (`on_cancel(move || drop(sender))`, see [`on_cancel`](crate::on_cancel)).
///
/// ```
/// use fulmar::{Executor, RequestSet};
///
/// let executor = Executor::builder().threads(2).build()?;
/// let set = RequestSet::new();
/// set.add("first", executor.spawn(|| 1)?);
/// let mut sum = 0;
/// while !set.is_empty() {
///     let (key, result) = set.receiver().recv()?;
///     sum += result?;
///     if key == "first" {
///         set.add("second", executor.spawn(|| 2)?); // While others are at work.
///     }
/// }
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RequestSet<K, T> {
    shared: Arc<Shared<K, T>>,
    results: Receiver<(K, Result<T>)>,
}

struct Shared<K, T> {
    sender: Sender<(K, Result<T>)>,
    open: Mutex<Open<T>>,
}

/// The requests whose results were not sent yet.
struct Open<T> {
    next: u64,
    requests: HashMap<u64, Arc<AsyncRequest<T>>>,
}

impl<K: Send + 'static, T: Send + 'static> RequestSet<K, T> {
    /// A set without requests.
    pub fn new() -> RequestSet<K, T> {
        let (sender, results) = unbounded();
        let open = Mutex::new(Open { next: 0, requests: HashMap::new() });
        RequestSet { shared: Arc::new(Shared { sender, open }), results }
    }

    /// Adds `request`, which may have ended already. Its result comes out of the receiver with
    /// `key`: what [`AsyncRequest::wait`] would return.
    ///
    /// Keys needn't be unique. A set of requests of one executor that needs no other key may take
    /// [`AsyncRequest::id`].
    pub fn add(&self, key: K, request: AsyncRequest<T>) {
        let request = Arc::new(request);
        let number = {
            let mut open = self.shared.open.lock();
            open.next += 1;
            let number = open.next;
            open.requests.insert(number, request.clone());
            number
        };
        // Weak: the results of a set that was dropped are not kept, and neither are its requests.
        let shared = Arc::downgrade(&self.shared);
        drop(request.on_complete(move |_| {
            let Some(shared) = shared.upgrade() else { return };
            let Some(request) = shared.open.lock().requests.get(&number).cloned() else { return };
            let result = request.try_take().unwrap_or(Err(Error::ResultTaken));
            let mut open = shared.open.lock();
            // Together, under the lock: `is_empty` that finds the request has to find a result to
            // come.
            let left = open.requests.remove(&number);
            let refused = shared.sender.send((key, result));
            drop(open);
            // Outside of it: a value of the user's, if the set was dropped just now.
            drop((left, refused));
        }));
    }

    /// Cancels what has not ended, as [`AsyncRequest::cancel`] does, and says for how many that
    /// took them out for good. Each still gives its result.
    pub fn cancel_all(&self) -> usize {
        // A request that is cancelled leaves the set on this very thread: not under the lock.
        let requests: Vec<_> = self.shared.open.lock().requests.values().cloned().collect();
        requests.iter().filter(|request| request.cancel()).count()
    }
}

impl<K, T> RequestSet<K, T> {
    /// Where the results come out. It never disconnects while the set lives, because more may be
    /// added.
    pub fn receiver(&self) -> &Receiver<(K, Result<T>)> {
        &self.results
    }

    /// How many requests are in the set: those that have not ended, and those whose results were
    /// not received.
    pub fn len(&self) -> usize {
        let open = self.shared.open.lock();
        open.requests.len() + self.results.len()
    }

    /// Whether there is nothing to wait for: each request that was added has ended, and its result
    /// was received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Send + 'static, T: Send + 'static> Default for RequestSet<K, T> {
    fn default() -> RequestSet<K, T> {
        RequestSet::new()
    }
}

impl<K, T> fmt::Debug for RequestSet<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSet").field("len", &self.len()).finish_non_exhaustive()
    }
}
