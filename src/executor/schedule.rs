//! Requests that start at a time: once after a delay, or again in each period, as a *series*.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::alarm::Alarmed;
use super::args::Args;
use super::core::{Core, Due, OrderBy, Way};
use super::current;
use super::front::Executor;
use super::group::cancel_scope::{CancelScope, Guest};
use super::handle::AsyncRequest;
use super::lifecycle::Outside;
use super::operation::Operation;
use super::request::Status;
use crate::error::{Error, Result};
use crate::panics;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::Schedule;
use crate::timer::Alarm;

impl Executor {
    /// Submits `op` once `delay` has passed, and returns at once. Until then the request is
    /// deferred, holds no thread, and is taken out for good by [`cancel`](AsyncRequest::cancel). It
    /// is ordered as if submitted when its time has come.
    ///
    /// A shutdown, and dropping the last handle of the executor, still wait for it: it was
    /// accepted. It is never refused for a full queue. Timing is that of the monotonic clock, and
    /// the request starts no earlier.
    ///
    /// # Errors
    /// [`Error::ShutDown`]; [`Error::Spawn`] if the timer's thread can't be started;
    /// [`Error::Invalid`] for a delay beyond the clock's range. In each case nothing was accepted.
    /// # Examples
    /// ```
    /// use fulmar::{Executor, Status};
    /// use std::sync::Arc;
    /// use std::time::Duration;
    ///
    /// let executor = Executor::builder().threads(1).build()?;
    /// let greet = |_: &(), name: &str| Ok::<_, fulmar::Error>(format!("hello {name}"));
    /// let soon = executor.submit_after(Duration::from_millis(1), &Arc::new(()), greet, false, "soon")?;
    /// let late = executor.submit_after(Duration::from_secs(3_600), &Arc::new(()), greet, false, "late")?;
    /// assert_eq!(soon.wait(None)?, "hello soon");
    /// assert_eq!(late.status(), Status::Deferred);
    /// assert!(late.cancel());
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn submit_after<S, A, O, M>(
        &self,
        delay: Duration,
        store: &Arc<S>,
        op: O,
        is_modifier: bool,
        args: A,
    ) -> Result<AsyncRequest<O::Output>>
    where
        S: ?Sized + Send + Sync + 'static,
        A: Args + Send + 'static,
        O: Operation<S, A, M> + Send + 'static,
        O::Output: Send + 'static,
    {
        let at = later(Instant::now(), delay)?;
        let order_by = self.order_by(store, is_modifier, &args);
        let store = store.clone();
        self.admit(Way::At(at, order_by), move || op.call(&store, args).map_err(Error::Operation))
    }

    /// Submits `op` every `period`, the first time one period from now, until it is cancelled or
    /// the executor shuts down.
    ///
    /// Runs keep to a fixed schedule, without drift, and never overlap: a run that takes longer
    /// than the period has the times skipped that it missed, which are counted. Each run is a
    /// request of its own, with its place in the order and in the counters; operation and arguments
    /// are cloned for it on the pool. An error or a panic is counted and doesn't end the series,
    /// and so is a run that could not be submitted because no thread could be started. A reset
    /// without a shutdown doesn't end it either.
    ///
    /// Inside an operation of a [group](crate::Group), or with a time limit, the runs belong to it,
    /// and the series ends with it: when the group is cancelled or dropped, when its policy ends
    /// it, and when the limit passes. A wait for the group waits for a run that is on, but not for
    /// the series, which has no end of its own.
    ///
    /// An operation or arguments that hold a handle of this executor keep it open, and the series
    /// going, until it is cancelled or the executor is shut down: dropping all other handles ends
    /// neither.
    ///
    /// # Errors
    /// Those of [`submit_after`](Executor::submit_after), and [`Error::Invalid`] for a period of
    /// zero.
    /// # Examples
    /// ```
    /// use fulmar::Executor;
    /// use std::sync::{Arc, mpsc};
    /// use std::time::Duration;
    ///
    /// let executor = Executor::builder().threads(1).build()?;
    /// let (tick, ticks) = mpsc::channel();
    /// let send = move |_: &(), n: u32| tick.send(n);
    /// let series = executor.submit_every(Duration::from_millis(1), &Arc::new(()), send, false, 7)?;
    /// assert_eq!([ticks.recv()?, ticks.recv()?], [7, 7]);
    /// assert!(series.cancel());
    /// assert!(series.is_done());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_every<S, A, O, M>(
        &self,
        period: Duration,
        store: &Arc<S>,
        op: O,
        is_modifier: bool,
        args: A,
    ) -> Result<Periodic>
    where
        S: ?Sized + Send + Sync + 'static,
        A: Args + Clone + Send + 'static,
        O: Operation<S, A, M> + Clone + Send + 'static,
        O::Output: Send + 'static,
    {
        if period.is_zero() {
            return Err(Error::Invalid("a period of zero leaves no time between two runs: use a longer one".into()));
        }
        let order_by = self.order_by(store, is_modifier, &args);
        let store = store.clone();
        let run = move || {
            let (op, store, args) = (op.clone(), store.clone(), args.clone());
            // The value is dropped on the thread that made it.
            Box::new(move || op.call(&store, args).map(drop).map_err(Error::Operation)) as Run
        };
        let session = self.core().timer.session();
        let first = later(Instant::now(), period)?;
        let series = Arc::new(Series {
            core: Arc::downgrade(self.core()),
            order_by,
            run: Mutex::new(Some(Box::new(run))),
            session,
            period,
            runs: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            state: Mutex::new(State { done: false, due: first, alarm: None, running: None }),
            scope: current::scope(),
        });
        let guest: Weak<dyn Guest> = Arc::downgrade(&(series.clone() as Arc<dyn Guest>));
        if series.scope.as_ref().is_some_and(|scope| !scope.admit_guest(&guest)) {
            series.end();
        } else if let Err(refused) = series.arm(self.core(), first) {
            series.end();
            return Err(refused);
        }
        Ok(Periodic { series })
    }
}

fn later(now: Instant, delay: Duration) -> Result<Instant> {
    now.checked_add(delay)
        .ok_or_else(|| Error::Invalid(format!("{delay:?} from now is beyond the clock's range: use a shorter time")))
}

/// The handle of periodic work. Dropping it does not end the series.
#[derive(Clone)]
pub struct Periodic {
    series: Arc<Series>,
}

impl Periodic {
    /// Ends the series for good, and says whether it was still going on. A run that waits is taken
    /// out; one that is at work is told ([`is_cancelled`](crate::is_cancelled)) and ends by itself.
    pub fn cancel(&self) -> bool {
        self.series.cancel()
    }

    /// Whether no run will start any more: it was cancelled, or the executor was shut down.
    pub fn is_done(&self) -> bool {
        self.series.state.lock().done
    }

    /// How many runs have ended, in whatever way.
    pub fn runs(&self) -> u64 {
        self.series.runs.load(Ordering::Relaxed)
    }

    /// How many of them ended with an error or a panic.
    pub fn failed(&self) -> u64 {
        self.series.failed.load(Ordering::Relaxed)
    }

    /// How many times were skipped because the run before took too long.
    pub fn missed(&self) -> u64 {
        self.series.missed.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Periodic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Periodic")
            .field("period", &self.series.period)
            .field("runs", &self.runs())
            .field("failed", &self.failed())
            .field("missed", &self.missed())
            .field("is_done", &self.is_done())
            .finish()
    }
}

type Run = Box<dyn FnOnce() -> Result<()> + Send>;

/// Periodic work. While it waits for its next run it has an alarm at the timer (`State::alarm`).
/// From the submission of a run to its end it has that request (`State::running`). In between it
/// has neither for a moment: `begin` is submitting a run, or `end_of_run` has yet to set the alarm.
struct Series {
    core: Weak<Core>,
    order_by: OrderBy,
    /// Makes a run; `None` once there will be none. A run locks it for the user's `clone`, and the
    /// thread that ends the series locks it to take it away: no other thread does.
    run: Mutex<Option<Box<dyn Fn() -> Run + Send>>>,
    /// The timer's session in which it was submitted.
    session: u64,
    period: Duration,
    runs: AtomicU64,
    failed: AtomicU64,
    missed: AtomicU64,
    state: Mutex<State>,
    /// What its runs belong to, and it ends with.
    scope: Option<Arc<CancelScope>>,
}

struct State {
    done: bool,
    /// The time of the run that is to come, or is on.
    due: Instant,
    alarm: Option<Alarm>,
    running: Option<AsyncRequest<()>>,
}

impl Series {
    /// Ends the series for good. `false` if it had ended before, by a cancel or by itself: then
    /// this changes nothing. The alarm of the next run is taken back. A run that is submitted and
    /// hasn't started is taken out. A run at work is told to stop, and this doesn't wait for it.
    ///
    /// Drops the operation, too, unless a run is at work, or `begin` or `end_of_run` is between
    /// alarm and run. In these cases `end_of_run` or `arm` drops it when it sees that the series
    /// has ended.
    fn cancel(&self) -> bool {
        let (alarm, running) = {
            let mut state = self.state.lock();
            if std::mem::replace(&mut state.done, true) {
                return false;
            }
            (state.alarm.take(), state.running.take())
        };
        if let (Some(alarm), Some(core)) = (alarm, self.core.upgrade()) {
            drop(core.timer.remove(alarm));
        }
        let waited = alarm.is_some() || running.is_some_and(|running| running.cancel());
        // Otherwise leave the operation to `end_of_run` or `arm`, and don't wait for the lock of
        // `run`: a run holds it while it clones the operation. That is users' code, which may take
        // long or cancel this very series.
        if waited {
            self.forget_run();
        }
        true
    }

    /// Sets the alarm of the next run, at `at`, or at the scope's time limit if that comes first.
    /// If the series has ended, sets none and drops the operation. Fails if the executor is shut
    /// down, or if the system refuses the timer's thread.
    fn arm(self: &Arc<Series>, core: &Core, at: Instant) -> Result<()> {
        let limit = self.scope.as_ref().and_then(|scope| scope.deadline());
        let mut state = self.state.lock();
        if state.done {
            // A cancel since the last run found neither an alarm nor a run to take away, and left
            // this to us.
            drop(state);
            self.forget_run();
            return Ok(());
        }
        state.due = at;
        // Under the series' lock, so that a cancel finds the alarm; the timer takes no lock of
        // ours.
        let at = limit.map_or(at, |limit| limit.min(at));
        state.alarm = Some(core.set_alarm(at, Due::Alarm(self.clone()), Some(self.session))?);
        Ok(())
    }

    /// Submits the run whose time has come; called by the timer. Does nothing if the series was
    /// cancelled. Ends the series if its scope is over or the executor is shut down. Any other
    /// refusal counts as a failed run, and the series goes on.
    fn begin(self: Arc<Series>, core: &Arc<Core>) {
        {
            let mut state = self.state.lock();
            state.alarm = None;
            if state.done {
                return;
            }
        }
        if self.scope.as_ref().is_some_and(|scope| scope.is_over()) {
            return self.end();
        }
        let series = self.clone();
        let operation = move || {
            // A cancel may have come before this request was known as the one that runs.
            if series.state.lock().done {
                return Err(Error::Cancelled);
            }
            let run = series.run.lock().as_ref().map(|make| make());
            run.map_or(Err(Error::Cancelled), |run| run())
        };
        let run = match core.admit_to(self.scope.clone(), Way::Accepted(self.order_by), operation) {
            Ok(run) => run,
            Err(Error::ShutDown) => return self.end(),
            Err(_) => return self.end_of_run(Status::Failed),
        };
        let cancelled = {
            let mut state = self.state.lock();
            state.running = Some(run.share());
            state.done
        };
        if cancelled {
            run.cancel();
        }
        run.on_complete(move |status| self.end_of_run(status));
    }

    /// Counts a run that has ended with `status`, and sets the alarm for the next time of the
    /// schedule that is still to come. Ends the series if its scope is over, if there is no next
    /// time, or if no alarm can be set. After a cancel, it drops the operation instead.
    fn end_of_run(self: Arc<Series>, status: Status) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if matches!(status, Status::Failed | Status::Panicked) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        let due = {
            let mut state = self.state.lock();
            state.running = None;
            state.due
        };
        if self.state.lock().done {
            return self.forget_run();
        }
        if self.scope.as_ref().is_some_and(|scope| scope.is_over()) {
            return self.end();
        }
        let (next, missed) = next_time(due, self.period, Instant::now());
        self.missed.fetch_add(missed, Ordering::Relaxed);
        let armed = match (self.core.upgrade(), next) {
            (Some(core), Some(next)) => self.arm(&core, next).is_ok(),
            _ => false,
        };
        if !armed {
            self.end();
        }
    }

    /// Ends the series when no run of it is at work or submitted. Drops the operation now, not with
    /// the last handle.
    fn end(&self) {
        self.state.lock().done = true;
        self.forget_run();
    }

    fn forget_run(&self) {
        let run = self.run.lock().take();
        if let Some(scope) = &self.scope {
            scope.dismiss_guest(std::ptr::from_ref(self).addr());
        }
        match self.core.upgrade() {
            Some(core) if run.is_some() => {
                core.call_foreign(Outside::enter(&core), move || panics::contain(|| drop(run)));
            }
            _ => panics::contain(|| drop(run)),
        }
    }
}

impl Guest for Series {
    fn end(&self) {
        self.cancel();
    }
}

impl Alarmed for Series {
    fn ring(self: Arc<Series>) {
        if let Some(core) = self.core.upgrade() {
            self.begin(&core);
        }
    }

    fn give_up(self: Arc<Series>) {
        self.end();
    }
}

/// The first time on the schedule of `due` that is still to come, and how many were missed before
/// it.
fn next_time(due: Instant, period: Duration, now: Instant) -> (Option<Instant>, u64) {
    let schedule = Schedule { start: due, period };
    let missed = schedule.last(now);
    (schedule.at(missed + 1), u64::try_from(missed).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_fixed_and_skips_what_was_missed() {
        let (due, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(next_time(due, second, due), (Some(due + second), 0));
        assert_eq!(next_time(due, second, due + second / 2), (Some(due + second), 0), "no drift");
        assert_eq!(next_time(due, second, due + second * 7 / 2), (Some(due + second * 4), 3));
        assert_eq!(next_time(due, second, due + second), (Some(due + second * 2), 1), "a time that has come is missed");
        assert_eq!(next_time(due + second, second, due), (Some(due + second * 2), 0), "a clock that lags");
        assert_eq!(next_time(due, Duration::MAX, due), (None, 0), "beyond the clock's range there is no next time");
    }
}
