//! A running batch: carries out the window's actions on an executor.
//!
//! One lock guards all state. A thread that holds it only reads and writes that state. It releases
//! the lock before it runs a user's code (steps, callbacks, destructors, the printing of errors) or
//! calls the executor. Each step is a request of the executor, and an alarm of the executor's timer
//! wakes the window at its next time. A thread that has ended a step, or that an alarm woke, also
//! starts what comes next, so that no thread has to watch the batch.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::event::{BatchStats, Event, EventKind};
use super::job::{JobError, Poll, RemoteJob, Stage, Submitted};
use super::report::{Attempts, BatchReport, JobFailure, JobReport, StopReason};
use super::window::{Action, Ending, Input, Rules, StepEnd, Window};
use crate::error::{Error, Result};
use crate::executor::{Alarmed, AsyncRequest, Blocked, Executor, Interruptible, Status, Told};
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

/// A handle to a batch that was started. Dropping it doesn't stop the batch.
#[must_use = "what becomes of the jobs is told by `wait`"]
pub struct Batch<T> {
    run: Arc<dyn Running<T>>,
}

impl<T> Batch<T> {
    pub(super) fn start<J: RemoteJob<Output = T>>(
        executor: Executor,
        jobs: Vec<J>,
        began: Instant,
        rules: Rules,
        listeners: Vec<Arc<Tell>>,
    ) -> Batch<T> {
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
        Batch { run: Arc::new(run) }
    }

    /// Waits for the end, which comes soon if the operation that calls this is cancelled: so is the
    /// batch, then.
    pub(crate) fn finish(&self) -> Result<BatchReport<T>>
    where
        T: 'static,
    {
        let run = self.run.clone();
        let _hook = interrupt::on_cancel(move || run.cancel());
        self.wait_through()
    }

    /// Waits for the end, also in an operation that is cancelled.
    pub(crate) fn wait_through(&self) -> Result<BatchReport<T>> {
        self.run.wait(Deadline::start(None), false)
    }

    /// Waits until every job has ended and the listeners have got all events, for at most
    /// `timeout`, and takes the report. After a timeout the batch goes on, and the handle is still
    /// good. If an operation of an executor calls this, another thread works in its place
    /// meanwhile.
    ///
    /// # Errors
    /// - [`Error::Timeout`] if `timeout` passes first; `left` jobs have not ended.
    /// - [`Error::Interrupted`] if that operation is cancelled; the batch goes on.
    /// - [`Error::ResultTaken`] if an earlier wait took the report.
    /// - [`Error::WouldDeadlock`] if a step or a callback of this batch calls this.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<BatchReport<T>> {
        self.run.wait(Deadline::start(timeout), true)
    }

    /// The counters of the batch.
    pub fn stats(&self) -> BatchStats {
        self.run.stats()
    }

    /// Whether every job has ended, and the listeners have got all events.
    pub fn is_done(&self) -> bool {
        self.run.is_done()
    }

    /// Starts no more jobs, and cancels those in flight, if the service can do that. Steps at work
    /// are interrupted: their HTTP calls end, and their [`sleep`](crate::sleep)s and
    /// [`on_cancel`](crate::on_cancel) hooks are called. The job's
    /// [`cancel`](super::RemoteJob::cancel) follows, and isn't interrupted itself. Returns at once:
    /// [`wait`](Batch::wait) waits for the end, and other threads call the callbacks. Has no effect
    /// on a batch that has ended.
    pub fn cancel(&self) {
        self.run.cancel();
    }
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A run, without the type of its jobs: for [`Batch`].
trait Running<T>: Send + Sync {
    fn wait(&self, deadline: Deadline, is_interruptible: bool) -> Result<BatchReport<T>>;
    fn stats(&self) -> BatchStats;
    fn is_done(&self) -> bool;
    fn cancel(&self);
}

struct Run<J: RemoteJob> {
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

/// The alarm that steps the window at its next time.
#[derive(Default)]
struct Wake {
    /// When it rings. An alarm for another time may still ring if it could not be called off in
    /// time: that does no harm.
    at: Option<Instant>,
    /// Counts the alarms, so that one that is out of date can be told apart.
    generation: u64,
    alarm: Option<Alarm>,
}

struct Entry<J: RemoteJob> {
    /// `None` while a step runs, and after the job's end.
    job: Option<J>,
    id: Option<Arc<str>>,
    state: Option<Cow<'static, str>>,
    progress: Option<f32>,
    /// How many bytes of its result are in the batch's counter.
    counted: u64,
    started: Option<Duration>,
    submitted: Option<Duration>,
    ended: Duration,
    attempts: Attempts,
    notes: Vec<String>,
    /// The text of the last failure of a step, for a note if a stop or a time limit ends the job.
    trouble: Option<Box<str>>,
    /// Whether `submit` was interrupted, so that the job may exist.
    in_doubt: bool,
    // In a box, so that a waiting job doesn't take the memory of its result.
    outcome: Option<Box<Outcome<J>>>,
}

type Outcome<J> = Result<<J as RemoteJob>::Output, JobFailure>;

/// The outcome of a step, if it may be the job's outcome: its result, or how it failed.
type Last<J> = Result<<J as RemoteJob>::Output, LastWord>;

enum LastWord {
    Error(JobError),
    Panic(String),
}

/// What a step has returned, for each kind of step.
enum Answer<T> {
    Submitted(Submitted),
    Poll(Poll),
    Fetched(T),
    Cancelled,
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

    /// Sets an alarm for the window's next time. If the executor refuses it, stops the batch.
    fn arm(self: &Arc<Self>, at: Instant, generation: u64, inputs: &mut VecDeque<Input>) {
        let ring = Arc::new(Ring { run: self.clone(), generation });
        match self.executor.alarm_at(at, ring) {
            Ok(alarm) => {
                let mut state = self.state.lock();
                if state.wake.generation == generation {
                    state.wake.alarm = Some(alarm);
                } else {
                    // Another thread has set a newer alarm meanwhile, or this one has rung.
                    drop(state);
                    self.executor.call_off(alarm);
                }
            }
            Err(refused) => {
                event!(WARN, "batch has no timer any more", error = refused);
                inputs.push_back(Input::Stop(reason_of(&refused)));
            }
        }
    }

    /// Runs one step of one job, on a thread of the executor, and then what follows from it.
    fn perform(self: &Arc<Self>, order: StepOrder) {
        let StepOrder { job: index, stage, attempt, first, deadline, call } = order;
        let _inside = Inside::enter(self);
        let mut net = StepGuard { run: self, index, is_needed: true };
        let (job, id, counted) = {
            let mut state = self.state.lock();
            let is_too_late = state.window.is_too_late(Instant::now(), index);
            let entry = &mut state.entries[index];
            if is_too_late {
                // The step would only be cut short. The window decides what comes instead.
                drop(state);
                net.is_needed = false;
                return self.advance(Input::Stepped { job: index, end: StepEnd::NotRun }, None);
            }
            entry.attempts.count(stage);
            if first {
                entry.started = Some(self.began.elapsed());
            }
            let taken = (entry.job.take(), entry.id.clone(), entry.counted);
            state.stats.polls += u64::from(stage == Stage::Poll);
            taken
        };
        let Some(mut job) = job else { return };
        if first {
            self.tell(index, None, EventKind::Started);
        }
        let mut context = Context {
            attempt,
            // `cancel` is called because of the stop, and must not give up because of it.
            stopped: (stage != Stage::Cancel).then_some(&self.stopped),
            deadline,
            downloaded: &self.bytes,
            emit: &|kind| self.tell(index, id.as_deref(), kind),
            notes: Vec::new(),
            counted,
            last: None,
            told: None,
        };
        // Only the job's own code is interrupted: a listener has to do with other things.
        let answer = call.run(|| {
            panics::catch(|| match stage {
                Stage::Submit => job.submit(&mut context).map(Answer::Submitted),
                Stage::Poll => job.poll(&mut context).map(Answer::Poll),
                Stage::Fetch => job.fetch(&mut context).map(Answer::Fetched),
                Stage::Cancel => job.cancel(&mut context).map(|()| Answer::Cancelled),
            })
        });
        context.tell_last_bytes();
        let (notes, counted) = (context.notes, context.counted);
        {
            let mut state = self.state.lock();
            let entry = &mut state.entries[index];
            entry.notes.extend(notes);
            entry.counted = counted;
            entry.job = Some(job);
            if stage == Stage::Submit {
                // A step that waits for its turn has sent nothing, or told of it by itself.
                let may_be_made =
                    !matches!(&answer, Ok(Ok(_))) && !matches!(&answer, Ok(Err(error)) if error.is_wait());
                entry.in_doubt = may_be_made && call.is_told();
            }
        }
        let answer = match answer {
            Ok(answer) => answer.map_err(LastWord::Error),
            Err(message) => Err(LastWord::Panic(message)),
        };
        let (end, last) = self.take_in(index, stage, attempt, answer);
        let orders = self.drive(Input::Stepped { job: index, end }, last);
        net.is_needed = false;
        let ended = self.carry_out(orders);
        self.tell_ends(ended);
    }

    /// Stores a step's answer and sends its events, before the window moves on: otherwise the
    /// events of the job's next step could come first.
    fn take_in(
        &self,
        index: usize,
        stage: Stage,
        attempt: u32,
        answer: Result<Answer<J::Output>, LastWord>,
    ) -> (StepEnd, Option<Last<J>>) {
        match answer {
            Ok(Answer::Submitted(Submitted::Accepted { id })) => {
                self.created(index, &id);
                (StepEnd::Accepted, None)
            }
            Ok(Answer::Submitted(Submitted::Ready { id })) => {
                self.created(index, &id);
                (StepEnd::Ready, None)
            }
            Ok(Answer::Poll(Poll::Ready)) => (StepEnd::Ready, None),
            Ok(Answer::Poll(Poll::Pending { state, progress, retry_after })) => {
                self.pending(index, state, progress);
                (StepEnd::Pending { retry_after }, None)
            }
            Ok(Answer::Cancelled) => {
                self.state.lock().entries[index].trouble = None;
                (StepEnd::Complete, None)
            }
            Ok(Answer::Fetched(output)) => (StepEnd::Complete, Some(Ok(output))),
            Err(LastWord::Error(error)) => {
                let then = error.then;
                self.not_done(index, stage, attempt, &error);
                (StepEnd::NotDone(then), Some(Err(LastWord::Error(error))))
            }
            Err(LastWord::Panic(message)) => {
                self.state.lock().entries[index].trouble = Some(format!("a panic: {message}").into());
                (StepEnd::Panicked, Some(Err(LastWord::Panic(message))))
            }
        }
    }

    fn created(&self, index: usize, id: &str) {
        let id: Arc<str> = id.into();
        {
            let mut state = self.state.lock();
            state.stats.submitted += 1;
            let entry = &mut state.entries[index];
            entry.submitted = Some(self.began.elapsed());
            entry.id = Some(id.clone());
            entry.trouble = None;
        }
        self.tell(index, Some(&id), EventKind::Submitted);
    }

    /// A poll of the job `index` has said that it isn't ready: stores its state and progress, and
    /// tells the callbacks what has changed.
    fn pending(&self, index: usize, new_state: Cow<'static, str>, progress: Option<f32>) {
        let (id, new_state, progress) = {
            let mut state = self.state.lock();
            let entry = &mut state.entries[index];
            entry.trouble = None;
            let changed = entry.state.as_ref() != Some(&new_state);
            if changed {
                entry.state = Some(new_state.clone());
            }
            // A service may round up to more than 1: that counts as 1. A share that is negative or
            // not a number is ignored.
            let progress = progress.filter(|share| *share >= 0.0 && share.is_finite()).map(|share| share.min(1.0));
            let progress = progress.filter(|share| entry.progress != Some(*share));
            entry.progress = progress.or(entry.progress);
            (entry.id.clone(), changed.then_some(new_state), progress)
        };
        if let Some(state) = new_state {
            self.tell(index, id.as_deref(), EventKind::StateChanged { state: &state });
        }
        if let Some(share) = progress {
            self.tell(index, id.as_deref(), EventKind::Progress { share });
        }
    }

    fn not_done(&self, index: usize, stage: Stage, attempt: u32, error: &JobError) {
        let text = words_of(error);
        let (id, delay) = {
            let mut state = self.state.lock();
            let delay = state.window.retry_after(Instant::now(), index, error.then);
            state.stats.retries += u64::from(delay.is_some());
            let entry = &mut state.entries[index];
            entry.trouble = Some(text.into());
            (entry.id.clone(), delay)
        };
        if let Some(delay) = delay {
            self.tell(index, id.as_deref(), EventKind::Retrying { stage, attempt, delay, error });
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

    /// Interrupts the steps at work whose time is over.
    fn interrupt_late(&self) {
        let mut actions = Vec::new();
        let told: Vec<Told> = {
            let state = &mut *self.state.lock();
            state.window.interrupt_late(Instant::now(), &mut actions);
            let late = actions.into_iter().filter_map(|action| match action {
                Action::Interrupt { job } => Some(job),
                _ => None,
            });
            late.filter_map(|job| state.tell(job)).collect()
        };
        if !told.is_empty() {
            // Not here: hooks are the user's, and may take their time.
            self.executor.call_foreign(move || told.iter().for_each(Told::interrupt));
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

/// The alarm for the window's next time.
struct Ring<J: RemoteJob> {
    run: Arc<Run<J>>,
    generation: u64,
}

impl<J: RemoteJob> Alarmed for Ring<J> {
    fn ring(self: Arc<Self>) {
        // Not by the request below: the steps that are to be interrupted may hold all threads.
        self.run.interrupt_late();
        let ring = self.clone();
        let woken = self.run.executor.spawn_accepted(move || {
            {
                let mut state = ring.run.state.lock();
                if state.wake.generation == ring.generation {
                    state.wake.forget();
                }
            }
            ring.run.advance(Input::Woken, None);
        });
        if let Err(refused) = woken {
            // Not on the timer's thread: this ends jobs, and callbacks may block.
            let run = self.run.clone();
            let stop = move || run.advance(Input::Stop(reason_of(&refused)), None);
            if thread::spawn("fulmar-batch".into(), None, stop).is_err() {
                self.run.advance(Input::Stop(StopReason::NoThread), None);
            }
        }
    }

    fn give_up(self: Arc<Self>) {
        self.run.advance(Input::Stop(StopReason::ShutDown), None);
    }
}

impl Wake {
    /// Changes the time to `due`. Returns the alarm to set for it, and the earlier one to call off.
    fn aim(&mut self, due: Option<Instant>) -> (Option<(Instant, u64)>, Option<Alarm>) {
        if self.at == due {
            return (None, None);
        }
        let retired = self.alarm.take();
        self.forget();
        self.at = due;
        (due.map(|at| (at, self.generation)), retired)
    }

    /// Forgets the alarm, because it has rung or is called off.
    fn forget(&mut self) {
        self.at = None;
        self.alarm = None;
        self.generation += 1;
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

/// Reports a step as panicked if its thread unwinds before the window knows of the step's end:
/// otherwise no thread would ever continue the job.
struct StepGuard<'a, J: RemoteJob> {
    run: &'a Arc<Run<J>>,
    index: usize,
    is_needed: bool,
}

impl<J: RemoteJob> Drop for StepGuard<'_, J> {
    fn drop(&mut self) {
        if self.is_needed {
            let fallen = Input::Stepped { job: self.index, end: StepEnd::Panicked };
            panics::contain(|| self.run.advance(fallen, None));
        }
    }
}

impl<J: RemoteJob> Entry<J> {
    fn new(job: J) -> Entry<J> {
        Entry {
            job: Some(job),
            id: None,
            state: None,
            progress: None,
            counted: 0,
            started: None,
            submitted: None,
            ended: Duration::ZERO,
            attempts: Attempts::default(),
            notes: Vec::new(),
            trouble: None,
            in_doubt: false,
            outcome: None,
        }
    }

    /// Adds notes for what the outcome doesn't say: the last failure before a stop or a time limit,
    /// and that the remote job may still run.
    fn remark(&mut self, ending: Ending, may_still_run: bool, gave_up: bool) {
        let was_cancelled = self.attempts.cancel > 0;
        let trouble = self.trouble.take();
        let was_left = match ending {
            Ending::TimedOut { .. } | Ending::Stopped(_) => {
                match trouble {
                    Some(trouble) if self.in_doubt => self
                        .notes
                        .push(format!("its creation was interrupted, so that the remote job may exist: {trouble}")),
                    Some(trouble) if was_cancelled => self
                        .notes
                        .push(format!("the remote job may still run, because it could not be cancelled: {trouble}")),
                    Some(trouble) => self.notes.push(format!("the last trouble before that: {trouble}")),
                    None => {}
                }
                !was_cancelled
            }
            Ending::Failed { .. } | Ending::Panicked { .. } => gave_up,
            Ending::Done => false,
        };
        if may_still_run && was_left {
            self.notes.push("the remote job may still run: it was not cancelled".into());
        }
    }

    fn into_report(self, index: usize) -> Option<JobReport<J::Output>> {
        Some(JobReport {
            index,
            id: self.id.map(|id| id.to_string()),
            outcome: *self.outcome?,
            started: self.started,
            submitted: self.submitted,
            ended: self.ended,
            attempts: self.attempts,
            notes: self.notes,
        })
    }
}

fn reason_of(refused: &Error) -> StopReason {
    if let Error::Spawn(_) = refused { StopReason::NoThread } else { StopReason::ShutDown }
}

/// The text of a user's error, whose `Display` may panic.
fn words_of(error: &JobError) -> String {
    panics::catch(|| error.to_string()).unwrap_or_else(|_| "an error that panics when it is printed".into())
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
