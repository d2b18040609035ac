//! A running batch: carries out the window's actions on an executor.
//!
//! One lock guards all state. A thread that holds it only reads and writes that state. It releases
//! the lock before it runs a user's code (steps, callbacks, destructors, the printing of errors) or
//! calls the executor. Each step is a request of the executor, and an alarm of the executor's timer
//! wakes the window at its next time. A thread that has ended a step, or that an alarm woke, also
//! starts what comes next, so that no thread has to watch the batch.

mod alarm;
mod entry;
mod step;

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use self::alarm::Wake;
use self::entry::{Entry, Last, LastWord};
use super::event::{BatchStats, Event, EventKind};
use super::job::{RemoteJob, Stage};
use super::report::{BatchReport, JobFailure, StopReason};
use super::window::{Action, Ending, Input, Rules, StepEnd, Window};
use crate::error::{Error, Result};
use crate::executor::{AsyncRequest, Blocked, Executor, Interruptible, Status, Told};
use crate::panics;
use crate::sync::{
    AtomicBool, AtomicU64, Condvar, Mutex, Ordering, interrupt,
    thread::{self, ThreadId},
};
use crate::time::Deadline;
use crate::timer::Alarm;
use crate::trace::event;

/// A listener, which is called with every event.
pub(super) type Tell = dyn Fn(&Event<'_>) + Send + Sync;

/// A run, without the type of its jobs: for [`Batch`](super::Batch).
pub(super) trait Running<T>: Send + Sync {
    fn wait(&self, deadline: Deadline, is_interruptible: bool) -> Result<BatchReport<T>>;
    fn stats(&self) -> BatchStats;
    fn is_done(&self) -> bool;
    fn cancel(&self);
}

pub(super) struct Run<J: RemoteJob> {
    executor: Executor,
    total: usize,
    began: Instant,
    /// Emptied after the last event: a listener that holds the `Batch` would otherwise keep the
    /// batch and itself alive for ever.
    listeners: Mutex<Arc<[Arc<Tell>]>>,
    /// Whether running steps should return early.
    stopped: AtomicBool,
    bytes: AtomicU64,
    /// The threads that are in a step or a callback of this batch, once for each call. If one of
    /// them waits for the batch, it waits for itself.
    inside: Mutex<Vec<ThreadId>>,
    state: Mutex<State<J>>,
    /// Notified when the listeners have got the last job's end, and when `untold` gets more.
    changed: Condvar,
}

struct State<J: RemoteJob> {
    window: Window,
    entries: Vec<Entry<J>>,
    /// Counters that the window doesn't keep.
    stats: BatchStats,
    /// How many jobs' ends the listeners have got.
    told: usize,
    /// The steps that were sent to the executor and have not ended, by job.
    steps: HashMap<usize, Step>,
    wake: Wake,
    /// The jobs that `cancel` has ended and that the listeners don't know of: a thread in `wait` or
    /// one of the executor tells them.
    untold: Vec<Ended<J>>,
    taken: bool,
}

struct Step {
    /// The call of the user's code, which a stop or a time limit interrupts.
    call: Arc<Interruptible>,
    /// If it still waited for a thread when it was sent: a stop takes it out.
    request: Option<AsyncRequest<()>>,
}

/// What a thread has to do after it has released the lock.
struct Orders<J: RemoteJob> {
    interrupted: Vec<Told>,
    steps: Vec<StepOrder>,
    /// An alarm to set, and one to call off.
    alarm: Option<(Instant, u64)>,
    retired: Option<Alarm>,
    /// Steps that have not started, and should not any more.
    called_off: Vec<(usize, AsyncRequest<()>)>,
    ended: Vec<Ended<J>>,
    /// A user's value that is no longer needed: dropped outside of the lock.
    leftover: Option<Last<J>>,
}

struct StepOrder {
    job: usize,
    stage: Stage,
    attempt: u32,
    first: bool,
    deadline: Option<Instant>,
    call: Arc<Interruptible>,
}

/// A job that has ended, for the listeners.
struct Ended<J> {
    index: usize,
    id: Option<Arc<str>>,
    /// The user's value, dropped outside of the lock.
    _job: Option<J>,
}

impl<J: RemoteJob> Run<J> {
    /// Starts `jobs`, as far as the window lets them.
    pub(super) fn start(
        executor: Executor,
        jobs: Vec<J>,
        began: Instant,
        rules: Rules,
        listeners: Vec<Arc<Tell>>,
    ) -> Arc<Run<J>> {
        let total = jobs.len();
        let state = State {
            window: Window::new(total, rules),
            entries: jobs.into_iter().map(Entry::new).collect(),
            stats: BatchStats::default(),
            told: 0,
            steps: HashMap::new(),
            wake: Wake::default(),
            untold: Vec::new(),
            taken: false,
        };
        let run = Arc::new(Run {
            executor,
            total,
            began,
            listeners: Mutex::new(listeners.into()),
            stopped: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            inside: Mutex::new(Vec::new()),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        event!(INFO, "batch started", jobs = total);
        run.advance(Input::Woken, None);
        run
    }

    /// Takes in what has happened, carries out the window's actions, and tells the listeners which
    /// jobs have ended. `last` is the outcome of the step, if one has ended.
    fn advance(self: &Arc<Self>, input: Input, last: Option<Last<J>>) {
        let orders = self.drive(input, last);
        let ended = self.carry_out(orders);
        self.tell_ends(ended);
    }

    /// Steps the window under the lock, and returns what has to be done without it: `carry_out`
    /// calls the executor and users' code, which take locks of their own.
    fn drive(&self, input: Input, mut last: Option<Last<J>>) -> Orders<J> {
        let now = Instant::now();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (mut actions, mut ended, mut steps, mut interrupted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let was_cut_short = state.window.cuts_short();
        if let Input::Stepped { job, .. } = input {
            state.steps.remove(&job);
        }
        state.window.step(now, input, &mut actions);
        for action in actions {
            match action {
                Action::Run { job, stage, attempt, first, deadline } => {
                    let call = Interruptible::new();
                    state.steps.insert(job, Step { call: call.clone(), request: None });
                    steps.push(StepOrder { job, stage, attempt, first, deadline, call });
                }
                Action::Interrupt { job } => interrupted.extend(state.tell(job)),
                Action::End { job, ending } => {
                    // `last` belongs to the job whose step has ended. A stop may end others with
                    // it.
                    let own = matches!(input, Input::Stepped { job: stepped, .. } if stepped == job);
                    let last = if own { &mut last } else { &mut None };
                    ended.push(self.end(state, now, job, ending, last));
                }
            }
        }
        let mut called_off = Vec::new();
        if state.window.cuts_short() {
            // Relaxed: a hint that protects no data.
            self.stopped.store(true, Ordering::Relaxed);
            if !was_cut_short {
                // Just now stopped: take the steps that still wait for a thread out of the
                // executor's queue.
                let steps = state.steps.iter();
                let waiting = steps.filter_map(|(job, step)| Some((*job, step.request.as_ref()?.share())));
                called_off.extend(waiting.filter(|(_, step)| step.status() == Status::Queued));
            }
        }
        let (alarm, retired) = state.wake.aim(state.window.next_due());
        Orders { interrupted, steps, alarm, retired, called_off, ended, leftover: last }
    }

    /// Carries out `orders`, and all that follows from steps that the executor refuses. Returns the
    /// jobs that have ended.
    fn carry_out(self: &Arc<Self>, orders: Orders<J>) -> Vec<Ended<J>> {
        // A loop, not recursion: each step that the executor refuses may lead to more orders.
        let (mut inputs, mut all_ended) = (VecDeque::new(), Vec::new());
        let mut next = Some(orders);
        while let Some(orders) = next {
            let Orders { interrupted, steps, alarm, retired, called_off, ended, leftover } = orders;
            interrupted.iter().for_each(Told::interrupt);
            panics::contain(|| drop(leftover));
            if let Some(alarm) = retired {
                self.executor.call_off(alarm);
            }
            for (job, step) in called_off {
                if step.take_out() {
                    inputs.push_back(Input::Stepped { job, end: StepEnd::NotRun });
                }
            }
            for step in steps {
                self.send(step, &mut inputs);
            }
            if let Some((at, generation)) = alarm {
                self.arm(at, generation, &mut inputs);
            }
            all_ended.extend(ended);
            next = inputs.pop_front().map(|input| self.drive(input, None));
        }
        all_ended
    }

    /// Hands a step to the executor. If that refuses it, stops the batch.
    fn send(self: &Arc<Self>, order: StepOrder, inputs: &mut VecDeque<Input>) {
        let (run, job) = (self.clone(), order.job);
        match self.executor.spawn_accepted(move || run.perform(order)) {
            Ok(request) => {
                let mut state = self.state.lock();
                // The step may have run by now, and even the job's next one may be here. Keep the
                // request only if it still waits: then it is this job's only one, and a cancel can
                // take it out.
                if let (Status::Queued, Some(step)) = (request.status(), state.steps.get_mut(&job)) {
                    step.request = Some(request);
                }
            }
            Err(refused) => {
                event!(WARN, "batch can run no more steps", error = refused);
                inputs.push_back(Input::Stop(reason_of(&refused)));
                inputs.push_back(Input::Stepped { job, end: StepEnd::NotRun });
            }
        }
    }

    /// Stores how a job has ended. Takes the outcome out of `last` if the job ends with it;
    /// otherwise leaves it there, to be dropped without the lock.
    fn end(
        &self,
        state: &mut State<J>,
        now: Instant,
        index: usize,
        ending: Ending,
        last: &mut Option<Last<J>>,
    ) -> Ended<J> {
        let may_still_run = state.window.may_still_run(index);
        let entry = &mut state.entries[index];
        entry.ended = now.saturating_duration_since(self.began);
        // Unless the service said that the job has failed, it may still run: our last attempt may
        // not even have reached the service.
        let gave_up = !matches!(&last, Some(Err(LastWord::Error(error))) if error.is_fatal());
        let outcome = match (ending, last.take()) {
            (Ending::TimedOut { limit }, unneeded) => {
                *last = unneeded;
                Err(JobFailure::TimedOut { limit })
            }
            (Ending::Stopped(reason), unneeded) => {
                *last = unneeded;
                Err(JobFailure::Stopped(reason))
            }
            (Ending::Done, Some(Ok(output))) => Ok(output),
            (Ending::Failed { stage, attempt }, Some(Err(LastWord::Error(error)))) => {
                Err(JobFailure::Failed { stage, attempt, source: error.source })
            }
            (Ending::Panicked { stage }, Some(Err(LastWord::Panic(message)))) => {
                Err(JobFailure::Panicked { stage, message })
            }
            // From `StepGuard`: the step panicked outside of the user's code, and has no answer.
            (ending, unneeded) => {
                *last = unneeded;
                let stage = if let Ending::Panicked { stage } = ending { stage } else { Stage::Fetch };
                Err(JobFailure::Panicked { stage, message: "something around the step panicked".into() })
            }
        };
        entry.remark(ending, may_still_run, gave_up);
        match &outcome {
            Ok(_) => state.stats.succeeded += 1,
            Err(JobFailure::Stopped(_)) => state.stats.cancelled += 1,
            Err(_) => state.stats.failed += 1,
        }
        entry.outcome = Some(Box::new(outcome));
        Ended { index, id: entry.id.clone(), _job: entry.job.take() }
    }

    /// Tells the listeners which jobs have ended. After the last one, drops the listeners and wakes
    /// the threads in `wait`.
    fn tell_ends(&self, ended: Vec<Ended<J>>) {
        if ended.is_empty() {
            return;
        }
        let _inside = Inside::enter(self);
        let count = ended.len();
        for ended in ended {
            // Take the outcome out, so that a listener can read it without our lock. No other
            // thread looks at it before all ends were told.
            let outcome = self.state.lock().entries[ended.index].outcome.take();
            match outcome.as_deref() {
                Some(Err(failure)) => self.tell(ended.index, ended.id.as_deref(), EventKind::Failed { failure }),
                _ => self.tell(ended.index, ended.id.as_deref(), EventKind::Done),
            }
            self.state.lock().entries[ended.index].outcome = outcome;
            panics::contain(|| drop(ended));
        }
        let mut state = self.state.lock();
        state.told += count;
        let over = (state.told == self.total).then(|| self.stats_of(&state));
        drop(state);
        if let Some(_stats) = over {
            let listeners = mem::replace(&mut *self.listeners.lock(), Arc::new([]));
            panics::contain(|| drop(listeners));
            self.changed.notify_all();
            event!(INFO, "batch ended", stats = _stats);
        }
    }

    fn tell(&self, index: usize, id: Option<&str>, kind: EventKind<'_>) {
        panics::contain(|| log(index, id, &kind));
        let event = Event { index, id, kind };
        let listeners = self.listeners.lock().clone();
        for listener in &*listeners {
            panics::contain(|| listener(&event));
        }
    }

    fn stats(&self) -> BatchStats {
        self.stats_of(&self.state.lock())
    }

    fn stats_of(&self, state: &State<J>) -> BatchStats {
        BatchStats {
            total: self.total,
            waiting: state.window.waiting(),
            active: state.window.active(),
            // Relaxed: a counter that protects no data.
            bytes: self.bytes.load(Ordering::Relaxed),
            ..state.stats
        }
    }

    /// Takes the report, if the listeners have got all ends; `None` before.
    fn take_report(&self) -> Option<Result<BatchReport<J::Output>>> {
        let mut state = self.state.lock();
        if state.told < self.total {
            return None;
        }
        if mem::replace(&mut state.taken, true) {
            return Some(Err(Error::ResultTaken));
        }
        let (stats, stopped) = (self.stats_of(&state), state.window.stop_reason());
        let entries = mem::take(&mut state.entries);
        drop(state);
        let elapsed = entries.iter().map(|entry| entry.ended).max().unwrap_or_default();
        let jobs = entries.into_iter().enumerate();
        let jobs = jobs.filter_map(|(index, entry)| entry.into_report(index)).collect();
        Some(Ok(BatchReport { jobs, stats, elapsed, stopped }))
    }

    /// Tells the listeners about the jobs that `cancel` has ended.
    fn tell_untold(self: &Arc<Self>) {
        let untold = mem::take(&mut self.state.lock().untold);
        self.tell_ends(untold);
    }

    /// Sleeps until there are ends to tell, or the report is complete, or `deadline` passes.
    fn sleep(&self, deadline: Deadline, is_interrupted: impl Fn() -> bool) {
        let mut state = self.state.lock();
        while state.untold.is_empty() && state.told < self.total && !deadline.is_past() && !is_interrupted() {
            match deadline.at() {
                None => self.changed.wait(&mut state),
                Some(at) => drop(self.changed.wait_until(&mut state, at)),
            }
        }
    }
}

impl<J: RemoteJob> State<J> {
    /// Tells a job's step to stop. The caller has to call its hooks, without the lock.
    fn tell(&self, job: usize) -> Option<Told> {
        self.steps.get(&job).map(|step| step.call.tell()).filter(|told| !told.is_empty())
    }
}

impl<J: RemoteJob> Running<J::Output> for Arc<Run<J>> {
    fn wait(&self, deadline: Deadline, is_interruptible: bool) -> Result<BatchReport<J::Output>> {
        let (mut blocked, mut hook) = (None, None);
        let is_interrupted = || is_interruptible && interrupt::is_cancelled();
        loop {
            if let Some(report) = self.take_report() {
                return report;
            }
            if self.inside.lock().contains(&thread::current().id()) {
                return Err(Error::WouldDeadlock);
            }
            if deadline.is_past() {
                let left = self.total - self.state.lock().told;
                return Err(Error::Timeout { limit: deadline.limit(), left: left as u64 });
            }
            if is_interrupted() {
                return Err(Error::Interrupted);
            }
            if is_interruptible && hook.is_none() {
                let run = self.clone();
                hook = Some(interrupt::on_cancel(move || {
                    // Between the waiting thread's look and its sleep this waits for the lock.
                    drop(run.state.lock());
                    run.changed.notify_all();
                }));
            }
            blocked = blocked.or_else(Blocked::enter_any);
            self.sleep(deadline, is_interrupted);
            // `cancel` has asked the executor to do this, too, but other operations may hold all of
            // its threads.
            self.tell_untold();
        }
    }

    fn stats(&self) -> BatchStats {
        Run::stats(self)
    }

    fn is_done(&self) -> bool {
        self.state.lock().told == self.total
    }

    fn cancel(&self) {
        let orders = self.drive(Input::Stop(StopReason::Cancelled), None);
        let ended = self.carry_out(orders);
        if ended.is_empty() {
            return;
        }
        // Don't call the listeners here: one may be slow, or may need a lock that the caller of
        // `cancel` holds.
        self.state.lock().untold.extend(ended);
        self.changed.notify_all();
        let run = self.clone();
        if self.executor.spawn_accepted(move || run.tell_untold()).is_err() {
            self.tell_untold();
        }
    }
}

impl<J: RemoteJob> Drop for Run<J> {
    fn drop(&mut self) {
        // Drop the results that no wait took, one by one: if the destructors of two panicked in a
        // single drop, the process would abort.
        for entry in mem::take(&mut self.state.lock().entries) {
            panics::contain(|| drop(entry));
        }
    }
}

/// Marks this thread as being in a step or a callback of the batch, as long as it lives.
struct Inside<'a> {
    threads: &'a Mutex<Vec<ThreadId>>,
}

impl<'a> Inside<'a> {
    fn enter<J: RemoteJob>(run: &'a Run<J>) -> Inside<'a> {
        run.inside.lock().push(thread::current().id());
        Inside { threads: &run.inside }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let me = thread::current().id();
        let mut threads = self.threads.lock();
        if let Some(place) = threads.iter().rposition(|thread| *thread == me) {
            threads.swap_remove(place);
        }
    }
}

fn reason_of(refused: &Error) -> StopReason {
    if let Error::Spawn(_) = refused { StopReason::NoThread } else { StopReason::ShutDown }
}

fn log(_index: usize, _id: Option<&str>, kind: &EventKind<'_>) {
    match kind {
        EventKind::Failed { failure: _failure } => {
            event!(WARN, "remote job failed", job = _index, id = _id, failure = _failure.to_string());
        }
        EventKind::Retrying { stage: _stage, error: _error, .. } => {
            event!(DEBUG, "remote job is retried", job = _index, id = _id, stage = _stage, error = _error.to_string());
        }
        EventKind::Downloading { .. } | EventKind::Progress { .. } => {}
        _kind => event!(TRACE, "remote job", job = _index, id = _id, what = _kind),
    }
}
