//! The state machine of one request, and the one writer of each transition.
//!
//! ```text
//! Deferred -> Queued -> Running -> Completed | Failed | Panicked
//!     |          |
//!     +----------+----> Cancelled
//! ```
//!
//! The status is written under the cell's lock and read anywhere; a final status never changes again. Operation, result
//! and times share the cell, one after the other, so that a pending request is one allocation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::current;
use super::host::{Ended, Host, Lap, NO_TICKET};
use super::observe::{self, Extras};
use super::trace::Trace;
use crate::error::{Error, Result};
use crate::panics;
use crate::sync::{AtomicBool, AtomicU8, AtomicU32, Mutex, Ordering};

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Accepted, and held back by an earlier request on its key, by the one that it follows, or by its time.
    Deferred,
    /// Waiting for a thread.
    Queued,
    /// A thread is at it.
    Running,
    /// Ended well.
    Completed,
    /// The operation returned an error.
    Failed,
    /// The operation panicked.
    Panicked,
    /// Taken out before it started.
    Cancelled,
}

impl Status {
    /// Whether it never changes again.
    pub fn is_final(self) -> bool {
        !matches!(self, Status::Deferred | Status::Queued | Status::Running)
    }
}

/// Whether an operation changes what it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Reads: shares its key with other accessors.
    Accessor,
    /// Writes: runs alone on its key.
    Modifier,
}

/// What everybody may read without a lock.
pub(crate) struct Head {
    id: u64,
    /// The request's place in its lane.
    ticket: AtomicU32,
    status: AtomicU8,
    kind: Kind,
    cancel_requested: AtomicBool,
    /// Whether the result is gone from the cell.
    taken: AtomicBool,
    trace: Trace,
}

impl Head {
    /// The request was accepted, and is what its status says.
    pub(crate) fn accepted(&self) {
        self.trace.stage(self.status());
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn status(&self) -> Status {
        // Acquire: pairs with the store in `set_status`, so that whoever sees an end sees what the operation did.
        match self.status.load(Ordering::Acquire) {
            0 => Status::Deferred,
            1 => Status::Queued,
            2 => Status::Running,
            3 => Status::Completed,
            4 => Status::Failed,
            5 => Status::Panicked,
            _ => Status::Cancelled,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.status().is_final()
    }

    /// Holds a new request back, before anybody else can see it.
    pub(crate) fn defer(&self) {
        self.set_status(Status::Deferred);
    }

    /// Under the cell's lock.
    fn set_status(&self, status: Status) {
        self.status.store(status as u8, Ordering::Release);
    }

    pub(crate) fn ticket(&self) -> u32 {
        // Relaxed: written under the lock of the lanes that gave it, and read there, or by the thread that runs the request:
        // that got it after it was queued, which was after, and takes it out of its lane itself.
        self.ticket.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ticket(&self, ticket: u32) {
        self.ticket.store(ticket, Ordering::Relaxed);
    }

    /// Whether the value is there to be taken.
    pub(crate) fn has_value(&self) -> bool {
        // Relaxed: somebody may take it a moment later in any case.
        self.status() == Status::Completed && !self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn is_cancel_requested(&self) -> bool {
        // Relaxed: a question asked again and again, that protects nothing.
        self.cancel_requested.load(Ordering::Relaxed)
    }
}

/// A request whose operation and result types are forgotten: what queues and threads see.
pub(crate) trait Job: Send + Sync {
    fn head(&self) -> &Head;
    /// Runs the operation on this thread, unless it was cancelled or somebody else has it. Says whether it ran.
    fn run(self: Arc<Self>, host: &dyn Host, lap: &mut Lap) -> bool;
    /// `Deferred -> Queued`, unless it was cancelled. Says whether it is queued now.
    fn queue(&self) -> bool;
    /// Takes it out if it has not started, else leaves word for the operation.
    fn cancel(&self, now: u64) -> Option<Remains>;
    fn times(&self) -> Times;
    /// Gives access to what few requests have, under the cell's lock.
    fn with_extras(&self, see: &mut dyn FnMut(&mut Option<Box<Extras>>));
}

/// A request whose operation is forgotten: what the handle sees.
pub(crate) trait Outcome<T>: Job {
    fn job(&self) -> &(dyn Job + 'static);
    fn as_job(self: Arc<Self>) -> Arc<dyn Job>;
    /// Takes the result out; `None` while there is none.
    fn take(&self) -> Option<Result<T>>;
    /// Puts a value back that `take` gave.
    fn restore(&self, value: T);
}

/// What a cancelled request leaves, for the canceller to deal with once it holds no lock: both run code of users.
pub(crate) struct Remains {
    operation: Box<dyn Send>,
    extras: Option<Box<Extras>>,
}

impl Remains {
    /// Its entry in the timer, if it was waiting for its time.
    pub(crate) fn alarm(&self) -> Option<(Instant, u64)> {
        self.extras.as_ref().and_then(|extras| extras.alarm())
    }

    pub(crate) fn settle(self) {
        let callbacks = observe::wake(self.extras, Status::Cancelled);
        // A destructor of the operation's captured values may panic; a canceller is not to pay for that.
        panics::contain(|| drop(self.operation));
        callbacks.into_iter().for_each(|callback| callback.tell(Status::Cancelled));
    }
}

/// The request's times as far as they are known.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) delay: Option<Duration>,
    pub(crate) duration: Option<Duration>,
    pub(crate) total: Option<Duration>,
}

/// One request: the single allocation behind a handle.
pub(crate) struct Request<F, T> {
    head: Head,
    cell: Mutex<Cell<F, T>>,
}

struct Cell<F, T> {
    stage: Stage<F, T>,
    extras: Option<Box<Extras>>,
}

/// What the cell holds by and by. Times are nanoseconds on the host's clock, or between two points on it.
enum Stage<F, T> {
    Pending { operation: F, submitted: u64 },
    Running { delay: u64 },
    Completed { value: T, delay: u64, duration: u64 },
    Failed { error: Box<Error>, delay: u64, duration: u64 },
    Taken { delay: u64, duration: u64 },
    Cancelled { total: u64 },
}

impl<F, T> Stage<F, T> {
    /// Moves the stage out; the caller puts the next one in under the same lock.
    fn replace(&mut self) -> Stage<F, T> {
        std::mem::replace(self, Stage::Cancelled { total: 0 })
    }
}

impl<F, T> Request<F, T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    pub(crate) fn new(id: u64, kind: Kind, status: Status, submitted: u64, operation: F) -> Request<F, T> {
        Request {
            head: Head {
                id,
                ticket: AtomicU32::new(NO_TICKET),
                status: AtomicU8::new(status as u8),
                kind,
                cancel_requested: AtomicBool::new(false),
                taken: AtomicBool::new(false),
                trace: Trace::new(id, kind),
            },
            cell: Mutex::new(Cell { stage: Stage::Pending { operation, submitted }, extras: None }),
        }
    }

    /// `Queued -> Running`: whoever gets the operation runs it. Gives the time of the start, and the delay until then.
    fn begin(&self, started: u64) -> Option<(F, u64, u64)> {
        let mut cell = self.cell.lock();
        if self.head.status() != Status::Queued {
            return None;
        }
        match cell.stage.replace() {
            Stage::Pending { operation, submitted } => {
                // A lap may have begun before the submission.
                let started = started.max(submitted);
                let delay = started - submitted;
                cell.stage = Stage::Running { delay };
                self.head.set_status(Status::Running);
                Some((operation, started, delay))
            }
            other => {
                cell.stage = other;
                None
            }
        }
    }

    /// `Running -> Completed | Failed | Panicked`: the one place where a result is written. Drops nothing of users'.
    fn finish(&self, status: Status, ended: Stage<F, T>) -> Option<Box<Extras>> {
        let mut cell = self.cell.lock();
        cell.stage = ended;
        self.head.set_status(status);
        // Taken under the lock in which the status became final: who registers later sees the end instead.
        cell.extras.take()
    }
}

impl<F, T> Job for Request<F, T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    fn head(&self) -> &Head {
        &self.head
    }

    fn run(self: Arc<Self>, host: &dyn Host, lap: &mut Lap) -> bool {
        let Some((operation, started, delay)) = self.begin(lap.start(host)) else {
            return false;
        };
        host.started(lap);
        // Until the end, callbacks and destructors included: a wait in one of them is a wait on this thread.
        let scope = current::enter(self.clone(), host);
        let outcome = {
            let _running = self.head.trace.run();
            panics::catch(operation)
        };
        let duration = lap.stamp(host).saturating_sub(started);
        lap.note(duration);
        let failed = |error| Stage::Failed { error: Box::new(error), delay, duration };
        let (status, how, ended) = match outcome {
            Ok(Ok(value)) => (Status::Completed, Ended::Completed, Stage::Completed { value, delay, duration }),
            Ok(Err(error)) => (Status::Failed, Ended::Failed, failed(error)),
            Err(message) => (Status::Panicked, Ended::Panicked, failed(Error::Panicked(message))),
        };
        self.head.trace.end(status);
        let (mut ended, mut extras) = (Some(ended), None);
        host.ended(&self.head, how, lap, &mut || extras = ended.take().and_then(|ended| self.finish(status, ended)));
        if extras.is_some() {
            observe::wake(extras, status).into_iter().for_each(|callback| callback.tell(status));
            lap.rest();
        }
        host.settled(lap);
        scope.leave_request();
        if let Some(unclaimed) = Arc::into_inner(self) {
            // Nobody can take the result any more. Its destructor's time is not the next request's.
            lap.rest();
            drop(unclaimed);
        }
        drop(scope);
        true
    }

    fn queue(&self) -> bool {
        let cell = self.cell.lock();
        if self.head.status() == Status::Deferred {
            self.head.set_status(Status::Queued);
            self.head.trace.stage(Status::Queued);
            if let Some(extras) = &cell.extras {
                extras.wake_helpers();
            }
        }
        self.head.status() == Status::Queued
    }

    fn cancel(&self, now: u64) -> Option<Remains> {
        let mut cell = self.cell.lock();
        self.head.cancel_requested.store(true, Ordering::Relaxed);
        if !matches!(self.head.status(), Status::Deferred | Status::Queued) {
            return None;
        }
        match cell.stage.replace() {
            Stage::Pending { operation, submitted } => {
                cell.stage = Stage::Cancelled { total: now.saturating_sub(submitted) };
                self.head.set_status(Status::Cancelled);
                self.head.trace.end(Status::Cancelled);
                Some(Remains { operation: Box::new(operation), extras: cell.extras.take() })
            }
            other => {
                cell.stage = other;
                None
            }
        }
    }

    fn times(&self) -> Times {
        let nanos = |nanos| Some(Duration::from_nanos(nanos));
        match self.cell.lock().stage {
            Stage::Pending { .. } => Times::default(),
            Stage::Running { delay } => Times { delay: nanos(delay), ..Times::default() },
            Stage::Completed { delay, duration, .. }
            | Stage::Failed { delay, duration, .. }
            | Stage::Taken { delay, duration } => {
                Times { delay: nanos(delay), duration: nanos(duration), total: nanos(delay.saturating_add(duration)) }
            }
            Stage::Cancelled { total } => Times { total: nanos(total), ..Times::default() },
        }
    }

    fn with_extras(&self, see: &mut dyn FnMut(&mut Option<Box<Extras>>)) {
        see(&mut self.cell.lock().extras);
    }
}

impl<F, T> Outcome<T> for Request<F, T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    fn job(&self) -> &(dyn Job + 'static) {
        self
    }

    fn as_job(self: Arc<Self>) -> Arc<dyn Job> {
        self
    }

    fn take(&self) -> Option<Result<T>> {
        if !self.head.is_done() {
            return None;
        }
        let mut cell = self.cell.lock();
        let (taken, next) = match cell.stage.replace() {
            Stage::Completed { value, delay, duration } => (Ok(value), Stage::Taken { delay, duration }),
            Stage::Failed { error, delay, duration } => (Err(*error), Stage::Taken { delay, duration }),
            Stage::Cancelled { total } => (Err(Error::Cancelled), Stage::Cancelled { total }),
            other => (Err(Error::ResultTaken), other),
        };
        cell.stage = next;
        self.head.taken.store(true, Ordering::Relaxed);
        Some(taken)
    }

    fn restore(&self, value: T) {
        let mut cell = self.cell.lock();
        if let Stage::Taken { delay, duration } = cell.stage {
            cell.stage = Stage::Completed { value, delay, duration };
            self.head.taken.store(false, Ordering::Relaxed);
        }
    }
}
