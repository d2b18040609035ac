//! An executor whose operations may borrow, for as long as a closure runs.
//!
//! Its threads are those of `std::thread::scope`, and all else is the executor itself: order, waits
//! and cancels are the same. A request lives as long as its executor does and so can't hold what
//! borrows. It holds a number; the operation of that number lies with the scope, where only the
//! scope's threads reach it. So the lifetimes are checked by the compiler, and there is no
//! `unsafe`.
//!
//! Threads that borrow can only be started by what borrows, too: a thread of the scope that does
//! nothing else (`keep`), so that a thread that needs one, deep in a wait, asks for it by a
//! channel. It is asked as well to drop the operations of requests that were cancelled.
//!
//! Sources: `std::thread::scope`; rayon's `scope` for the order in which it ends. Rayon runs the
//! closure on a thread of the pool, where it must not block (its issue 835); here it stays where it
//! is.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};

use super::args::Args;
use super::core::{Core, Errand, OrderBy};
use super::front::Ending;
use super::handle::{self, AsyncRequest};
use super::hooks::Hooks;
use super::on_cancel;
use super::operation::Operation;
use super::pool::{Pool, Seat, Started};
use super::request::{Call, Head, Host, Kind, Status, Terms};
use super::threads;
use super::wait::completed::{Awaitable, ends_of};
use super::waits::{Node, Wait};
use super::worker::{Operations, live};
use crate::error::{Error, Result};
use crate::panics;
use crate::sync::{Mutex, Ordering, thread};
use crate::time::Deadline;

/// Calls `f` with a [`Scope`], whose operations run on up to `threads` threads and may borrow
/// whatever outlives this call: a store that is no `Arc`, arguments, places for results. Returns
/// when `f` has returned and everything that was accepted has ended, and its threads with it.
///
/// Order by key, waits, cancels and time limits are those of an [`Executor`](crate::Executor). The
/// threads start when they are needed, but for the first one and a second one that starts the
/// others and sleeps; one more drops the operations of requests that are cancelled. `f` runs on the
/// thread that calls this, and may block there.
///
/// Inside an operation, what `f` and the scope's operations submit belongs to that one's group and
/// time limit ([`Group`](crate::Group)), and ends with it.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::RwLock;
///
/// type Table = RwLock<HashMap<String, usize>>;
///
/// fn write(table: &Table, symbol: &str) -> usize {
///     let mut table = table.write().expect("no thread panics under it");
///     table.insert(symbol.into(), symbol.len()).unwrap_or(0)
/// }
/// fn read(table: &Table, symbol: &str) -> Option<usize> {
///     table.read().expect("no thread panics under it").get(symbol).copied()
/// }
///
/// let (table, text) = (Table::default(), String::from("AAPL IBM"));
/// let mut lengths = vec![0; 2];
/// fulmar::scope(4, |s| {
///     for (symbol, length) in text.split(' ').zip(&mut lengths) {
///         s.submit_write(&table, write, symbol)?;
///         // Behind the write, because it has the same key.
///         let known = s.submit_read(&table, read, symbol)?;
///         s.spawn(move || *length = known.wait(None).ok().flatten().unwrap_or(0))?;
///     }
///     Ok::<_, fulmar::Error>(())
/// })??;
/// assert_eq!(lengths, [4, 3]);
/// # Ok::<(), fulmar::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] for no threads, or more than 65,536; [`Error::Spawn`] if the first ones can't
/// be started. `f` was not called then.
/// # Panics
/// If `f` does: then what has not started is cancelled, what runs is told
/// ([`is_cancelled`](crate::is_cancelled)), and the panic goes on when that has ended. A panic of
/// an operation is the result of its request, as elsewhere.
pub fn scope<'env, F, T>(threads: usize, f: F) -> Result<T>
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let pool = Pool::new(threads::checked(threads)?, "fulmar-scope".into(), None, None);
    let (keeper, errands) = unbounded();
    on_cancel::serve_lower_floors();
    let core = Core::of_threads(pool, None, Hooks::default(), None, Some(keeper.clone()));
    let scope = Scope { core, operations: ManuallyDrop::default(), scope: PhantomData, env: PhantomData };
    let outcome = thread::scope(|threads| {
        let _end = EndOfKeeper(keeper);
        // Here, so that what is accepted later has a thread whatever the system refuses then.
        if let Some(seat) = scope.core.pool.first_thread() {
            scope.start(threads, seat)?;
        }
        let name = scope.core.pool.name_of("keeper");
        let keep = || {
            let mut dropper = None;
            while let Ok(errand) = errands.recv() {
                match errand {
                    Errand::Start(seat) => {
                        if scope.start(threads, seat).is_err() {
                            scope.core.retry_thread();
                        }
                    }
                    Errand::Drop(number) => scope.forget_aside(threads, &mut dropper, number),
                    Errand::End => break,
                }
            }
        };
        let kept = thread::spawn_scoped(threads, name, keep, || ()).map_err(Error::Spawn);
        let outcome = kept.map(|()| panics::catch_payload(|| f(&scope)));
        let accepted_below = scope.core.close();
        if !matches!(outcome, Ok(Ok(_))) {
            scope.core.cancel_all(accepted_below);
        }
        let forever = Deadline::start(None);
        // In an operation of another executor, whose thread is lent meanwhile. There is no way out
        // of this wait: what was accepted may borrow.
        let _ending = Ending::begin(&scope.core, Wait::End(scope.core.clone()), forever);
        scope.core.wait_for_end(forever, || false)?;
        outcome
    });
    // Those whose requests no thread of the scope could run.
    let left = mem::take(&mut *scope.operations.lock());
    left.into_values().for_each(|operation| panics::contain(|| drop(operation)));
    match outcome? {
        Ok(made) => Ok(made),
        Err(mut payload) => match payload.take() {
            Some(payload) => resume_unwind(payload),
            None => unreachable!("a payload is taken once"),
        },
    }
}

/// Where operations are submitted that may borrow: see [`scope`].
///
/// Operations may submit as well: a reference to it may be sent to them.
pub struct Scope<'scope, 'env: 'scope> {
    core: Arc<Core>,
    /// The operations of the requests that have not started, by their numbers. `ManuallyDrop`
    /// because it borrows for as long as it is borrowed itself, which the compiler allows only for
    /// what has no destructor; `scope` leaves it empty, and then it has no memory to give back.
    operations: ManuallyDrop<Mutex<HashMap<u64, BoxedOperation<'scope>>>>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

type BoxedOperation<'scope> = Box<dyn FnOnce() -> Result<()> + Send + 'scope>;

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Submits `op` on `store`: [`Executor::submit`](crate::Executor::submit), but borrowed. A
    /// store is known by its address.
    ///
    /// # Errors
    /// [`Error::Spawn`], and [`Error::ShutDown`] in a destructor that runs after the scope's
    /// closure.
    pub fn submit<S, A, O, M>(
        &'scope self,
        store: &'scope S,
        op: O,
        is_modifier: bool,
        args: A,
    ) -> Result<ScopedRequest<'scope, O::Output>>
    where
        S: ?Sized + Sync,
        A: Args + Send + 'scope,
        O: Operation<S, A, M> + Send + 'scope,
        O::Output: Send + 'scope,
    {
        let address = std::ptr::from_ref(store).cast::<()>().addr();
        let lane = Some(self.core.order.key(address, args.key()));
        let order_by = OrderBy { lane, terms: Terms::plain(Kind::of(is_modifier)) };
        self.accept(order_by, move || op.call(store, args).map_err(Error::Operation))
    }

    /// [`submit`](Scope::submit) of an operation that only reads: it shares its key with others
    /// that do.
    ///
    /// # Errors
    /// Those of [`submit`](Scope::submit).
    pub fn submit_read<S, A, O, M>(
        &'scope self,
        store: &'scope S,
        op: O,
        args: A,
    ) -> Result<ScopedRequest<'scope, O::Output>>
    where
        S: ?Sized + Sync,
        A: Args + Send + 'scope,
        O: Operation<S, A, M> + Send + 'scope,
        O::Output: Send + 'scope,
    {
        self.submit(store, op, false, args)
    }

    /// [`submit`](Scope::submit) of an operation that changes something: it has its key for itself.
    ///
    /// # Errors
    /// Those of [`submit`](Scope::submit).
    pub fn submit_write<S, A, O, M>(
        &'scope self,
        store: &'scope S,
        op: O,
        args: A,
    ) -> Result<ScopedRequest<'scope, O::Output>>
    where
        S: ?Sized + Sync,
        A: Args + Send + 'scope,
        O: Operation<S, A, M> + Send + 'scope,
        O::Output: Send + 'scope,
    {
        self.submit(store, op, true, args)
    }

    /// Submits a closure that is ordered with nothing. What it returns is the result, an `Err` too.
    ///
    /// # Errors
    /// Those of [`submit`](Scope::submit).
    pub fn spawn<T, F>(&'scope self, f: F) -> Result<ScopedRequest<'scope, T>>
    where
        T: Send + 'scope,
        F: FnOnce() -> T + Send + 'scope,
    {
        self.accept(OrderBy::FREE, move || Ok(f()))
    }

    /// Waits until all of `requests` have ended, and takes their values in the same order, all or
    /// nothing: [`Executor::wait_requests`](crate::Executor::wait_requests).
    ///
    /// # Errors
    /// Those of [`Executor::wait_requests`](crate::Executor::wait_requests).
    pub fn wait_requests<T>(
        &self,
        requests: &[ScopedRequest<'_, T>],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Vec<T>> {
        drop(handle::wait_all(&shares(requests), timeout)?);
        requests.iter().map(ScopedRequest::take).collect()
    }

    /// Waits until one of `requests` has ended, and returns its index:
    /// [`Executor::wait_any_request`](crate::Executor::wait_any_request).
    ///
    /// # Errors
    /// Those of [`Executor::wait_any_request`](crate::Executor::wait_any_request).
    pub fn wait_any_request<T>(
        &self,
        requests: &[ScopedRequest<'_, T>],
        timeout: impl Into<Option<Duration>>,
    ) -> Result<usize> {
        handle::wait_any(&shares(requests), timeout)
    }

    /// Hands out the results of `requests` as they come, each with its index:
    /// [`as_completed`](crate::as_completed).
    pub fn as_completed<T>(
        &self,
        requests: &[ScopedRequest<'_, T>],
        timeout: impl Into<Option<Duration>>,
    ) -> impl Iterator<Item = (usize, Result<T>)> {
        let take = |index: usize| requests[index].try_take().unwrap_or(Err(Error::ResultTaken));
        ends_of(requests, timeout.into()).map(move |(index, ended)| (index, ended.and_then(|()| take(index))))
    }

    /// Submits an operation that may borrow. The scope keeps it under a number, and the executor
    /// gets only the number. The operation puts its value into the handle. If the executor refuses,
    /// the operation is dropped.
    fn accept<T: Send + 'scope>(
        &'scope self,
        order_by: OrderBy,
        operation: impl FnOnce() -> Result<T> + Send + 'scope,
    ) -> Result<ScopedRequest<'scope, T>> {
        let value = Arc::new(Mutex::new(None));
        let made = value.clone();
        let boxed = Box::new(move || {
            let value = operation()?;
            *made.lock() = Some(value);
            Ok(())
        });
        let number = self.core.next_number();
        self.operations.lock().insert(number, boxed);
        match self.core.admit_borrowed(order_by, Borrowed { number, keeper: self.core.keeper.clone() }) {
            Ok(request) => Ok(ScopedRequest { scope: self, number, request, value }),
            Err(refused) => {
                self.forget(number);
                Err(refused)
            }
        }
    }

    /// Drops the operation of a request that will not start.
    fn forget(&self, number: u64) {
        let operation = self.operations.lock().remove(&number);
        panics::contain(|| drop(operation));
    }

    /// Drops an operation as `forget` does, but on a thread of its own, which the first such drop
    /// starts. The keeper must not run a destructor of the user's: it may wait for an operation
    /// that needs another thread, and only the keeper starts threads.
    fn forget_aside<'threads>(
        &'threads self,
        threads: &'threads thread::Scope<'threads, '_>,
        dropper: &mut Option<Sender<u64>>,
        number: u64,
    ) {
        let start = || {
            let (dropper, numbers) = unbounded::<u64>();
            let forget_all = move || numbers.iter().for_each(|number| self.forget(number));
            let _ = thread::spawn_scoped(threads, self.core.pool.name_of("drops"), forget_all, || ());
            dropper
        };
        if dropper.get_or_insert_with(start).send(number).is_err() {
            // The system refused the thread.
            *dropper = None;
            self.forget(number);
        }
    }

    /// Starts the thread of `seat`, as a thread of the scope.
    ///
    /// # Errors
    /// [`Error::Spawn`] if the system refuses the thread; the pool has then freed the seat.
    fn start<'threads>(&'threads self, threads: &'threads thread::Scope<'threads, '_>, seat: Arc<Seat>) -> Result<()> {
        let (core, pool) = (self.core.clone(), &self.core.pool);
        let (own_seat, last_core, last_seat) = (seat.clone(), core.clone(), seat.clone());
        let body = move || live(core, own_seat, Some(self));
        // Runs after the thread's thread-locals are destroyed, whose destructors are the user's.
        let last = move || last_core.pool.gone(&last_seat);
        match thread::spawn_scoped(threads, pool.name_of(seat.index), body, last) {
            Ok(()) => {
                pool.started(&seat, Started::Scoped);
                // The system gives threads again, so the next refusal waits the shortest pause.
                self.core.refusals.store(0, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                pool.started(&seat, Started::Refused);
                Err(Error::Spawn(error))
            }
        }
    }
}

/// What a request holds in place of an operation that borrows.
pub(super) struct Borrowed {
    number: u64,
    /// Until the operation was called.
    keeper: Option<Sender<Errand>>,
}

impl Call<()> for Borrowed {
    fn call(mut self, host: &dyn Host) -> Result<()> {
        let Some(outcome) = host.call_borrowed(self.number) else {
            // Only a scope's threads can reach it. Others run its requests if the system refuses
            // all of those.
            let refused = "no thread of the scope could be started";
            return Err(Error::Spawn(std::io::Error::other(refused)));
        };
        self.keeper = None;
        outcome
    }
}

impl Drop for Borrowed {
    /// If the request was cancelled, in whatever way: others may wait for what the operation owns.
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.send(Errand::Drop(self.number));
        }
    }
}

impl Operations for Scope<'_, '_> {
    fn call(&self, number: u64) -> Result<()> {
        let operation = self.operations.lock().remove(&number);
        operation.map_or(Err(Error::Cancelled), |operation| operation())
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("stats", &self.core.stats()).finish_non_exhaustive()
    }
}

fn shares<T>(requests: &[ScopedRequest<'_, T>]) -> Vec<AsyncRequest<()>> {
    requests.iter().map(|request| request.request.share()).collect()
}

/// Ends the thread that starts the others.
struct EndOfKeeper(Sender<Errand>);

impl Drop for EndOfKeeper {
    fn drop(&mut self) {
        let _ = self.0.send(Errand::End);
    }
}

/// The handle of a request of a [`Scope`]: [`AsyncRequest`], but for results that may borrow.
///
/// Dropping it does not cancel the request.
#[must_use = "a failure is only seen by who waits for it; to let a request go on unseen, `drop` its handle"]
pub struct ScopedRequest<'scope, T> {
    scope: &'scope dyn Forget,
    /// Of its operation.
    number: u64,
    request: AsyncRequest<()>,
    value: Arc<Mutex<Option<T>>>,
}

/// Hides the second lifetime of a scope.
trait Forget: Sync {
    fn forget(&self, number: u64);
}

impl Forget for Scope<'_, '_> {
    fn forget(&self, number: u64) {
        Scope::forget(self, number);
    }
}

impl<T> ScopedRequest<'_, T> {
    /// Where it stands now.
    pub fn status(&self) -> Status {
        self.request.status()
    }

    /// Whether it has ended, in whatever way.
    pub fn is_done(&self) -> bool {
        self.request.is_done()
    }

    /// Takes the request out for good if it has not started, and says whether it did; one that runs
    /// is told: [`AsyncRequest::cancel`].
    pub fn cancel(&self) -> bool {
        let cancelled = self.request.cancel();
        if cancelled {
            self.scope.forget(self.number);
        }
        cancelled
    }

    /// Waits until the request has ended, for at most `timeout`, and takes the result:
    /// [`AsyncRequest::wait`].
    ///
    /// # Errors
    /// Those of [`AsyncRequest::wait`].
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<T> {
        self.request.wait(timeout).and_then(|()| self.take())
    }

    /// Takes the result if there is one by now, with the errors of [`wait`](ScopedRequest::wait).
    pub fn try_take(&self) -> Option<Result<T>> {
        Some(self.request.try_take()?.and_then(|()| self.take()))
    }

    /// What the operation panicked with, once: [`AsyncRequest::panic_payload`].
    pub fn panic_payload(&self) -> Option<Box<dyn Any + Send>> {
        self.request.panic_payload()
    }

    fn take(&self) -> Result<T> {
        self.value.lock().take().ok_or(Error::ResultTaken)
    }
}

impl<T> Awaitable for ScopedRequest<'_, T> {
    fn core(&self) -> &Arc<Core> {
        self.request.core()
    }

    fn head(&self) -> &Head {
        self.request.head()
    }

    fn node(&self) -> Node {
        self.request.node()
    }
}

impl<T> fmt::Debug for ScopedRequest<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedRequest").field("status", &self.status()).finish_non_exhaustive()
    }
}
