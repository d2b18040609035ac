//! The state machine of one request, and the memory that first holds its operation and then its
//! outcome.
//!
//! ```text
//! Deferred -> Queued -> Running -> Completed | Failed | Panicked
//!     |          |         |
//!     +----------+---------+-> Cancelled
//! ```
//!
//! `Running -> Cancelled` is for a request whose group or time limit had ended before the thread
//! that started it could call its operation ([`Host::refuse`]). It is never called then.
//!
//! # Why there is `unsafe` here, and nowhere else in the executor
//!
//! A lock around the memory costs two atomic operations each time the operation begins, ends and
//! has its result taken, and 8 bytes a request. The phase alone says who owns the memory, so the
//! lock protects nothing that the phase doesn't. `benches/README.md` has the measured gain.
//!
//! # Who owns the memory
//!
//! Each change of the phase that hands the memory over is one atomic read-modify-write that
//! exactly one thread wins, so there is one owner at a time:
//!
//! | phase | the memory holds | owner |
//! |---|---|---|
//! | `Deferred`, `Queued` | the operation | none: only the winner of the next transition touches it |
//! | `Running` | nothing, then the outcome | the winner of `Queued -> Running` ([`Head::begin`]), until [`Head::publish`] |
//! | `Completed` | the value, if `claim` is `FREE` | the winner of `FREE -> HELD` |
//! | `Failed`, `Panicked` | the failure, always | the winner of `FREE -> HELD` or `TAKEN -> HELD` |
//! | `Cancelled` | the operation, if `claim` is `FREE` | the winner of `FREE -> HELD` |
//!
//! A request that is cancelled while it is `Running` holds nothing: its `claim` is `TAKEN` before
//! the end is shown.
//!
//! A transition that gives the memory up is a release, the one that takes it is an acquire, both on
//! the same atomic, so each owner sees all that the one before it wrote. The models of
//! `tests/model.rs` run over this file with loom's `UnsafeCell`, which fails on two accesses at
//! once; miri runs the unit tests below.

#![allow(unsafe_code)]

use std::any::Any;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::status::{Kind, Status};
use super::trace::Trace;
use crate::error::{Error, Result};
use crate::panics::{self, Payload};
use crate::sync::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, UnsafeCell};

/// The ticket of a request that is on no lane.
pub(crate) const NO_TICKET: u32 = u32::MAX;

/// The low bits of the phase: the status.
const STATUS: u8 = 0b0000_0111;
/// It was cancelled because a time limit has passed.
const EXPIRED: u8 = 0b0000_1000;
/// Something waits to be told of the end: the executor's table has an entry for this request.
const OBSERVED: u8 = 0b0001_0000;

const DEFERRED: u8 = Status::Deferred as u8;
const QUEUED: u8 = Status::Queued as u8;
const RUNNING: u8 = Status::Running as u8;
const COMPLETED: u8 = Status::Completed as u8;
const FAILED: u8 = Status::Failed as u8;
const PANICKED: u8 = Status::Panicked as u8;
const CANCELLED: u8 = Status::Cancelled as u8;

/// The outcome lies in the memory, and its taker has not come.
const FREE: u8 = 0;
/// A thread reads or writes the memory.
const HELD: u8 = 1;
/// The outcome is gone.
const TAKEN: u8 = 2;

/// The part of a request that doesn't depend on the operation's types.
pub(crate) struct Head {
    id: u64,
    /// Nanoseconds on the executor's clock: the submission, and from the start on the delay until
    /// then.
    stamp: AtomicU64,
    /// Nanoseconds that the operation took; for a cancelled request, its total time.
    duration: AtomicU64,
    /// The request's place on its lane.
    ticket: AtomicU32,
    phase: AtomicU8,
    claim: AtomicU8,
    kind: Kind,
    kept: bool,
    limited: bool,
    has_head_start: bool,
    /// How much later than it was submitted it counts as queued: the bits of an `f32`, in seconds,
    /// because four bytes of a request are free.
    shift: AtomicU32,
    cancel_requested: AtomicBool,
    /// A continuation owns the result (`then`), so the handle doesn't give it out.
    reserved: AtomicBool,
    pub(crate) trace: Trace,
}

/// What a request was submitted as.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) kind: Kind,
    /// Whether a shutdown leaves it alone.
    pub(crate) kept: bool,
    /// Whether it waits for its turn before it is queued.
    pub(crate) limited: bool,
    /// How much earlier than it was queued it counts as queued, in seconds.
    pub(crate) head_start: f32,
}

impl Terms {
    pub(crate) const fn plain(kind: Kind) -> Terms {
        Terms { kind, kept: false, limited: false, head_start: 0.0 }
    }
}

/// Proof that this thread moved a request from `Queued` to `Running`. There is one for each
/// request.
#[must_use = "the request stays `Running` until its operation is called"]
pub(crate) struct Begun {
    /// The address of the request's head.
    head: usize,
}

impl Head {
    /// The head of the request number `id`, which is on no lane yet. `status` is `Deferred` or
    /// `Queued`; `submitted` is the time on the executor's clock, in nanoseconds.
    fn new(id: u64, terms: Terms, status: Status, submitted: u64) -> Head {
        Head {
            id,
            stamp: AtomicU64::new(submitted),
            duration: AtomicU64::new(0),
            ticket: AtomicU32::new(NO_TICKET),
            phase: AtomicU8::new(status as u8),
            claim: AtomicU8::new(FREE),
            kind: terms.kind,
            kept: terms.kept,
            limited: terms.limited,
            has_head_start: terms.head_start != 0.0,
            shift: AtomicU32::new((-terms.head_start).to_bits()),
            cancel_requested: AtomicBool::new(false),
            reserved: AtomicBool::new(false),
            trace: Trace::new(id, terms.kind),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.limited
    }

    pub(crate) fn has_head_start(&self) -> bool {
        self.has_head_start
    }

    /// When it counts as queued, in nanoseconds on the executor's clock. Only for a request that is
    /// queued and has not started: of others it says nothing.
    pub(crate) fn rank(&self) -> i64 {
        // Relaxed: written before it was queued, under the lock of the queue. One that has started
        // meanwhile is left out by the thread that takes it from there.
        let submitted = i64::try_from(self.stamp.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        // Saturates: 292 years are as good as for ever.
        submitted.saturating_add((f64::from(self.shift()) * 1e9) as i64)
    }

    fn shift(&self) -> f32 {
        f32::from_bits(self.shift.load(Ordering::Relaxed))
    }

    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(crate) fn status(&self) -> Status {
        // Acquire: pairs with the store in `publish`, so a reader of the end also sees what the
        // operation did.
        status_of(self.phase.load(Ordering::Acquire))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.status().is_final()
    }

    /// Marks a new request as held back, before another thread can see it.
    pub(crate) fn defer(&self) {
        self.phase.store(DEFERRED, Ordering::Relaxed);
        self.trace.defer();
    }

    /// `Deferred -> Queued`, before another thread may run or cancel the request.
    pub(crate) fn undo_defer(&self) {
        self.phase.store(QUEUED, Ordering::Relaxed);
        self.trace.undo_defer();
    }

    /// `Deferred -> Queued`, now. Returns whether it is queued now, and whether it is observed.
    pub(crate) fn queue(&self, now: u64) -> (bool, bool) {
        // Before it can start: then the stamp is no longer its submission. There is one thread that
        // releases it, so no other writes.
        let held_back = now.saturating_sub(self.stamp.load(Ordering::Relaxed));
        self.shift.store((self.shift() + held_back as f32 / 1e9).to_bits(), Ordering::Relaxed);
        let queued = self.change(|phase| (phase & STATUS == DEFERRED).then_some(phase & OBSERVED | QUEUED));
        let phase = queued.unwrap_or_else(|phase| phase);
        (queued.is_ok() || status_of(phase) == Status::Queued, phase & OBSERVED != 0)
    }

    /// `Queued -> Running`. The winner has to call the operation.
    pub(crate) fn begin(&self) -> Option<Begun> {
        let begun = self.change(|phase| (phase & STATUS == QUEUED).then_some(phase & OBSERVED | RUNNING));
        begun.ok().map(|_| Begun { head: self.address() })
    }

    /// Shows the written outcome to all threads. Returns whether the request is observed.
    pub(crate) fn publish(&self, ended: Ended) -> bool {
        assert_eq!(ended.head, self.address(), "the proof is that of another request");
        // `ended` is proof that the phase is `Running` and the outcome written. The only other
        // change of a running request is `observe`, which leaves the status.
        // AcqRel: gives the memory up, see the table above.
        let expired = if ended.is_expired { EXPIRED } else { 0 };
        let before = self.phase.fetch_xor(RUNNING ^ ended.status as u8 ^ expired, Ordering::AcqRel);
        debug_assert_eq!(before & STATUS, RUNNING, "only the owner ends a running request");
        before & OBSERVED != 0
    }

    /// Leaves word for the operation, should it run.
    pub(crate) fn request_cancel(&self) {
        // Relaxed: a question that is asked again and again, and protects nothing.
        self.cancel_requested.store(true, Ordering::Relaxed);
    }

    /// `Deferred | Queued -> Cancelled`, because a time limit has passed if it is `expired`.
    /// Returns the status before, and whether the request is observed, if it is cancelled now.
    pub(crate) fn cancel(&self, now: u64, expired: bool) -> Option<(Status, bool)> {
        let waits = |phase: u8| matches!(phase & STATUS, DEFERRED | QUEUED);
        let end = if expired { CANCELLED | EXPIRED } else { CANCELLED };
        let phase = self.change(|phase| waits(phase).then_some(phase & OBSERVED | end)).ok()?;
        let total = now.saturating_sub(self.stamp.load(Ordering::Relaxed));
        self.duration.store(total, Ordering::Relaxed);
        Some((status_of(phase), phase & OBSERVED != 0))
    }

    /// Has the end looked up in the executor's table. Returns `false` if the request has ended.
    pub(crate) fn observe(&self) -> bool {
        self.change(|phase| (!status_of(phase).is_final()).then_some(phase | OBSERVED)).is_ok()
    }

    pub(crate) fn ticket(&self) -> u32 {
        // Relaxed: written under the lock of the lane that gave it. Read under the same lock, or by
        // the thread that runs the request, which got it from the queue after that.
        self.ticket.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ticket(&self, ticket: u32) {
        self.ticket.store(ticket, Ordering::Relaxed);
    }

    /// Whether it was cancelled because a time limit has passed.
    pub(crate) fn is_expired(&self) -> bool {
        self.phase.load(Ordering::Acquire) & EXPIRED != 0
    }

    pub(crate) fn is_cancel_requested(&self) -> bool {
        self.cancel_requested.load(Ordering::Relaxed)
    }

    fn why_cancelled(&self) -> Error {
        if self.is_expired() { Error::Expired } else { Error::Cancelled }
    }

    /// Whether there is a value for the handle to take.
    pub(crate) fn has_value(&self) -> bool {
        // Relaxed: another thread may take it a moment later in any case.
        self.status() == Status::Completed && self.claim.load(Ordering::Relaxed) == FREE && !self.is_reserved()
    }

    /// Gives the result to a continuation, or back to the handle. Returns whether a continuation
    /// had it before.
    pub(crate) fn reserve(&self, reserved: bool) -> bool {
        self.reserved.swap(reserved, Ordering::AcqRel)
    }

    fn is_reserved(&self) -> bool {
        // Acquire: pairs with `reserve`, so the handle gives out nothing after `then` has returned.
        self.reserved.load(Ordering::Acquire)
    }

    pub(crate) fn times(&self) -> Times {
        let nanos = |counter: &AtomicU64| std::time::Duration::from_nanos(counter.load(Ordering::Relaxed));
        match self.status() {
            Status::Deferred | Status::Queued => Times::default(),
            Status::Running => Times { delay: Some(nanos(&self.stamp)), ..Times::default() },
            Status::Cancelled => Times { total: Some(nanos(&self.duration)), ..Times::default() },
            Status::Completed | Status::Failed | Status::Panicked => {
                let (delay, duration) = (nanos(&self.stamp), nanos(&self.duration));
                Times { delay: Some(delay), duration: Some(duration), total: delay.checked_add(duration) }
            }
        }
    }

    /// Changes the phase as `next` says. Returns the phase before, or the one that `next` refused.
    fn change(&self, next: impl Fn(u8) -> Option<u8>) -> Result<u8, u8> {
        // AcqRel: the winner owns the memory now, or has given it up: see the table above.
        self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
    }

    /// Claims the memory if the claim is one of `from`.
    fn claim(&self, from: &[u8]) -> Option<u8> {
        from.iter()
            .copied()
            .find(|claim| self.claim.compare_exchange(*claim, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok())
    }
}

fn status_of(phase: u8) -> Status {
    match phase & STATUS {
        DEFERRED => Status::Deferred,
        QUEUED => Status::Queued,
        RUNNING => Status::Running,
        COMPLETED => Status::Completed,
        FAILED => Status::Failed,
        PANICKED => Status::Panicked,
        _ => Status::Cancelled,
    }
}

/// How and when an operation ended: proof that its outcome is written. There is one for each
/// request.
#[must_use = "the request stays `Running` until it is published"]
pub(crate) struct Ended {
    /// The address of the request's head.
    head: usize,
    pub(crate) status: Status,
    /// Whether it is cancelled because a time limit has passed.
    is_expired: bool,
    /// On the clock of the host that `Job::call` was given.
    pub(crate) at: u64,
}

/// A request's times as far as they are known.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) delay: Option<std::time::Duration>,
    pub(crate) duration: Option<std::time::Duration>,
    pub(crate) total: Option<std::time::Duration>,
}

/// The thread that runs a request, as the operation meets it.
pub(crate) trait Host {
    /// The time on the executor's clock.
    fn now(&self) -> u64;
    /// Calls the operation with this number that lies with the scope whose thread this is; `None`
    /// if it is no scope's.
    #[cfg_attr(any(loom, shuttle), allow(dead_code, reason = "models have no scopes"))]
    fn call_borrowed(&self, number: u64) -> Option<Result<()>>;
    /// The operation won't be called: what the request belongs to has ended, because a time limit
    /// has passed if it `is_expired`.
    fn refuse(&self, is_expired: bool);
    /// Whether it was refused, and then whether because a time limit has passed.
    fn refused(&self) -> Option<bool>;
}

/// What a request holds until it starts.
pub(crate) trait Call<T> {
    /// Whether `call` may refuse to call the operation. The others don't pay for the question.
    const MAY_REFUSE: bool = false;

    /// Calls the operation. With `MAY_REFUSE` it may call `Host::refuse` instead, and then the
    /// request counts as cancelled, whatever this returns.
    fn call(self, host: &dyn Host) -> Result<T>;
}

impl<T, F: FnOnce() -> Result<T>> Call<T> for F {
    fn call(self, _host: &dyn Host) -> Result<T> {
        self()
    }
}

/// A request whose operation and result types are forgotten: what queues and threads see.
pub(crate) trait Job: Send + Sync {
    fn head(&self) -> &Head;
    /// Calls the operation, which has started at `started`, and writes its outcome, which
    /// [`Head::publish`] shows. `host` is asked for the time of the end.
    fn call(&self, begun: Begun, started: u64, host: &dyn Host) -> Ended;
    /// Drops the operation of a cancelled request, whose destructor is the user's code.
    fn discard(&self);
    /// Takes the error of a request that has failed, unless it was taken before.
    fn take_error(&self) -> Option<Error>;
}

/// A request whose operation is forgotten: what the handle sees.
pub(crate) trait Outcome<T>: Job {
    /// The same request without its result type, for the executor's queues and waits.
    fn as_job(self: Arc<Self>) -> Arc<dyn Job>;
    /// Takes the result out; `None` while there is none. If a continuation has reserved the
    /// result, this gives [`Error::ResultTaken`] once the request has ended: the value is the
    /// continuation's.
    fn take(&self) -> Option<Result<T>>;
    /// Takes the result out for the continuation that has reserved it; `None` while there is none.
    fn take_reserved(&self) -> Option<Result<T>>;
    /// Puts a value back that `take` gave and that the caller can't use after all.
    fn restore(&self, value: T);
    /// Takes what the operation panicked with.
    fn panic_payload(&self) -> Option<Box<dyn Any + Send>>;
}

/// One request: the single allocation behind a handle.
pub(crate) struct Request<F, T> {
    head: Head,
    memory: UnsafeCell<Memory<F, T>>,
}

/// Without a tag: the phase says which field is there.
union Memory<F, T> {
    operation: ManuallyDrop<F>,
    value: ManuallyDrop<T>,
    failure: ManuallyDrop<Box<Failure>>,
    nothing: (),
}

struct Failure {
    error: Error,
    /// What a panicking operation panicked with.
    payload: Option<Payload>,
}

// SAFETY: the memory has one owner at a time (see the table), so the operation and the value are
// moved between threads but never shared: `Send` is enough.
unsafe impl<F: Send, T: Send> Sync for Request<F, T> {}

// SAFETY: as above.
unsafe impl<F: Send, T: Send> Send for Request<F, T> {}

impl<F, T> Request<F, T> {
    /// A request that holds its operation and is on no lane yet. The arguments are those of
    /// `Head::new`.
    pub(crate) fn new(id: u64, terms: Terms, status: Status, submitted: u64, operation: F) -> Request<F, T> {
        Request {
            head: Head::new(id, terms, status, submitted),
            memory: UnsafeCell::new(Memory { operation: ManuallyDrop::new(operation) }),
        }
    }

    /// Moves the operation out.
    fn operation(&self, begun: &Begun) -> F {
        assert_eq!(begun.head, self.head.address(), "the proof is that of another request");
        // SAFETY: `begun` is proof of the one transition to `Running`, and its only user is `call`,
        // which takes it by value. So this thread owns the memory, and the operation is still
        // there.
        self.memory.with_mut(|memory| unsafe {
            let operation = ManuallyDrop::take(&mut (*memory).operation);
            memory.write(Memory { nothing: () });
            operation
        })
    }

    /// Writes the outcome, which [`Head::publish`] shows.
    fn write(&self, outcome: Result<T, Failure>, at: u64) -> Ended {
        let (memory, status) = match outcome {
            Ok(value) => (Memory { value: ManuallyDrop::new(value) }, Status::Completed),
            Err(failure) => {
                let status = if failure.payload.is_some() { Status::Panicked } else { Status::Failed };
                (Memory { failure: ManuallyDrop::new(Box::new(failure)) }, status)
            }
        };
        // SAFETY: called by `call` alone, behind `operation`: this thread still owns the memory,
        // and nothing is in it that would have to be dropped.
        self.memory.with_mut(|place| unsafe { place.write(memory) });
        Ended { head: self.head.address(), status, is_expired: false, at }
    }

    /// The operation was dropped instead of called.
    fn write_refused(&self, is_expired: bool, at: u64) -> Ended {
        // Relaxed: `publish`, which comes after it on this thread, is the release.
        self.head.claim.store(TAKEN, Ordering::Relaxed);
        Ended { head: self.head.address(), status: Status::Cancelled, is_expired, at }
    }

    /// Takes the outcome, whether or not a continuation owns it.
    fn take_any(&self) -> Option<Result<T>> {
        let status = self.head.status();
        match status {
            Status::Deferred | Status::Queued | Status::Running => None,
            Status::Cancelled => Some(Err(self.head.why_cancelled())),
            _ if self.head.claim(&[FREE]).is_none() => Some(Err(Error::ResultTaken)),
            Status::Completed => {
                // SAFETY: the phase is `Completed` and this thread won the claim: it owns the
                // memory, which holds the value.
                let value = self.memory.with_mut(|memory| unsafe { ManuallyDrop::take(&mut (*memory).value) });
                self.head.claim.store(TAKEN, Ordering::Release);
                Some(Ok(value))
            }
            Status::Failed | Status::Panicked => {
                let error = self.with_failure(|failure| std::mem::replace(&mut failure.error, Error::ResultTaken));
                self.head.claim.store(TAKEN, Ordering::Release);
                Some(Err(error))
            }
        }
    }

    /// Only for the winner of the claim of a failed request.
    fn with_failure<R>(&self, see: impl FnOnce(&mut Failure) -> R) -> R {
        // SAFETY: the caller holds the claim of a request that failed or panicked: it owns the
        // memory, which holds the failure until the request is dropped.
        self.memory.with_mut(|memory| see(unsafe { &mut (*memory).failure }))
    }

    /// Puts a value back into a request whose value was taken.
    fn put_back(&self, value: T) {
        if self.head.status() != Status::Completed || self.head.claim(&[TAKEN]).is_none() {
            return;
        }
        // SAFETY: this thread won the claim of a request whose value is gone.
        self.memory.with_mut(|memory| unsafe { memory.write(Memory { value: ManuallyDrop::new(value) }) });
        self.head.claim.store(FREE, Ordering::Release);
    }

    /// Moves the operation of a cancelled request out, once.
    fn cancelled_operation(&self) -> Option<F> {
        if self.head.status() != Status::Cancelled || self.head.claim(&[FREE]).is_none() {
            return None;
        }
        // SAFETY: the phase went from `Deferred` or `Queued` to `Cancelled`, so the operation was
        // not moved out, and this thread won the claim.
        let operation = self.memory.with_mut(|memory| unsafe { ManuallyDrop::take(&mut (*memory).operation) });
        self.head.claim.store(TAKEN, Ordering::Release);
        Some(operation)
    }
}

/// The state that was written by the last thread that released the request. The count of the
/// request's `Arc` orders that write before this drop; loom doesn't see the count, so there it
/// takes a read-modify-write.
fn last(atomic: &AtomicU8) -> u8 {
    if cfg!(loom) { atomic.fetch_or(0, Ordering::AcqRel) } else { atomic.load(Ordering::Acquire) }
}

impl<F, T> Drop for Request<F, T> {
    fn drop(&mut self) {
        // Nothing else refers to the request any more, so the phase and the claim stay as they are.
        let phase = last(&self.head.phase);
        let free = last(&self.head.claim) == FREE;
        // The destructors of the user's values run on the thread that drops the last reference: a
        // panic of theirs ends here. Plain values have none, and pay nothing. SAFETY: by the table,
        // the field that is dropped is the one that is there.
        self.memory.with_mut(|memory| unsafe {
            match phase & STATUS {
                DEFERRED | QUEUED => panics::contain(|| ManuallyDrop::drop(&mut (*memory).operation)),
                CANCELLED if free => panics::contain(|| ManuallyDrop::drop(&mut (*memory).operation)),
                COMPLETED if free && std::mem::needs_drop::<T>() => {
                    panics::contain(|| ManuallyDrop::drop(&mut (*memory).value));
                }
                FAILED | PANICKED => panics::contain(|| ManuallyDrop::drop(&mut (*memory).failure)),
                // Nothing is left in it.
                _ => {}
            }
        });
    }
}

impl<F, T> Job for Request<F, T>
where
    F: Call<T> + Send + 'static,
    T: Send + 'static,
{
    fn head(&self) -> &Head {
        &self.head
    }

    fn call(&self, begun: Begun, started: u64, host: &dyn Host) -> Ended {
        let operation = self.operation(&begun);
        let submitted = self.head.stamp.load(Ordering::Relaxed);
        // The thread may have looked at the clock before the submission.
        let started = started.max(submitted);
        self.head.stamp.store(started - submitted, Ordering::Relaxed);
        let outcome = self.head.trace.run(|| panics::catch_payload(|| operation.call(host)));
        let at = host.now();
        // The operation was dropped and never called: there is no outcome to write.
        if let Some(is_expired) = if F::MAY_REFUSE { host.refused() } else { None } {
            self.head.duration.store(at.saturating_sub(submitted), Ordering::Relaxed);
            return self.write_refused(is_expired, at);
        }
        self.head.duration.store(at.saturating_sub(started), Ordering::Relaxed);
        let outcome = match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Failure { error, payload: None }),
            Err(payload) => Err(Failure { error: Error::Panicked(payload.message()), payload: Some(payload) }),
        };
        self.write(outcome, at)
    }

    fn take_error(&self) -> Option<Error> {
        match self.head.status() {
            Status::Cancelled => Some(self.head.why_cancelled()),
            Status::Failed | Status::Panicked => {
                self.take_any()?.err().filter(|error| !matches!(error, Error::ResultTaken))
            }
            _ => None,
        }
    }

    fn discard(&self) {
        let operation = self.cancelled_operation();
        panics::contain(|| drop(operation));
    }
}

impl<F, T> Outcome<T> for Request<F, T>
where
    F: Call<T> + Send + 'static,
    T: Send + 'static,
{
    fn as_job(self: Arc<Self>) -> Arc<dyn Job> {
        self
    }

    fn take(&self) -> Option<Result<T>> {
        if self.head.is_reserved() {
            return self.head.is_done().then_some(Err(Error::ResultTaken));
        }
        self.take_any()
    }

    fn take_reserved(&self) -> Option<Result<T>> {
        self.take_any()
    }

    fn restore(&self, value: T) {
        self.put_back(value);
    }

    fn panic_payload(&self) -> Option<Box<dyn Any + Send>> {
        if self.head.status() != Status::Panicked {
            return None;
        }
        let before = self.head.claim(&[FREE, TAKEN])?;
        let payload = self.with_failure(|failure| failure.payload.as_mut().and_then(Payload::take));
        self.head.claim.store(before, Ordering::Release);
        payload
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    type Plain = Request<Box<dyn FnOnce() -> Result<String> + Send>, String>;

    fn request(status: Status, operation: impl FnOnce() -> Result<String> + Send + 'static) -> Plain {
        Request::new(1, Terms::plain(Kind::Accessor), status, 5, Box::new(operation))
    }

    struct At(u64);

    impl Host for At {
        fn now(&self) -> u64 {
            self.0
        }

        fn call_borrowed(&self, _number: u64) -> Option<Result<()>> {
            None
        }

        fn refuse(&self, _is_expired: bool) {}

        fn refused(&self) -> Option<bool> {
            None
        }
    }

    fn run(request: &Plain) -> Ended {
        let begun = request.head.begin().expect("it is queued");
        request.call(begun, 7, &At(10))
    }

    #[test]
    fn an_outcome_is_seen_when_it_is_published_and_taken_once() {
        let request = request(Status::Queued, || Ok("value".into()));
        assert!(request.take().is_none(), "not before it ran");
        let ended = run(&request);
        assert_eq!(request.head.status(), Status::Running, "written and not shown");
        assert!(request.take().is_none());
        assert_eq!(ended.status, Status::Completed);
        assert!(!request.head.publish(ended), "observed");
        assert_eq!(request.take().expect("an end").expect("a value"), "value");
        assert!(matches!(request.take(), Some(Err(Error::ResultTaken))));
        request.restore("again".into());
        assert_eq!(request.take().expect("an end").expect("put back"), "again");
        let times = request.head.times();
        let nanos = |nanos| Some(std::time::Duration::from_nanos(nanos));
        assert_eq!((times.delay, times.duration, times.total), (nanos(2), nanos(3), nanos(5)));
    }

    #[test]
    fn each_field_is_dropped_once_in_every_phase() {
        let count = Arc::new(());
        let held = || {
            let captured = count.clone();
            move || Ok::<_, Error>(format!("{:?}", captured))
        };
        drop(request(Status::Deferred, held()));
        let cancelled = request(Status::Queued, held());
        assert_eq!(cancelled.head.cancel(9, false), Some((Status::Queued, false)));
        assert!(cancelled.head.begin().is_none(), "it never starts");
        cancelled.discard();
        assert_eq!(Arc::strong_count(&count), 1, "gone while the handle stays");
        cancelled.discard();
        assert!(matches!(cancelled.take(), Some(Err(Error::Cancelled))));
        let undiscarded = request(Status::Deferred, held());
        undiscarded.head.cancel(9, false);
        drop(undiscarded);
        let untaken = request(Status::Queued, held());
        untaken.head.publish(run(&untaken));
        drop(untaken);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn a_payload_outlives_the_error_and_is_taken_once() {
        let request = request(Status::Queued, || std::panic::panic_any(7_u8));
        request.head.publish(run(&request));
        assert!(matches!(request.take(), Some(Err(Error::Panicked(_)))));
        assert_eq!(request.panic_payload().and_then(|payload| payload.downcast::<u8>().ok()), Some(Box::new(7)));
        assert!(request.panic_payload().is_none());
        assert!(matches!(request.take(), Some(Err(Error::ResultTaken))));
    }

    #[test]
    fn a_reserved_result_is_the_continuations() {
        let request = request(Status::Queued, || Ok("value".into()));
        request.head.reserve(true);
        request.head.publish(run(&request));
        assert!(matches!(request.take(), Some(Err(Error::ResultTaken))));
        assert!(!request.head.has_value());
        assert_eq!(request.take_reserved().expect("an end").expect("a value"), "value");
    }
}
