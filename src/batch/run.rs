//! A batch at work: the window's actions carried out on an executor.
//!
//! All state is behind one lock. Under it nothing is done but to look and to put down: the code of users (steps, callbacks,
//! destructors, what their errors say) and that of the executor run outside of it. Each step is a request of the executor;
//! an alarm of its timer wakes the window at its next time. Whichever ends goes on with what is due then, so no thread has to
//! watch.

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
use crate::executor::{Alarmed, AsyncRequest, Blocked, Executor, Status};
use crate::panics;
use crate::sync::{
    AtomicBool, AtomicU64, Condvar, Mutex, Ordering,
    thread::{self, ThreadId},
};
use crate::time::Deadline;
use crate::timer::Alarm;
use crate::trace::event;

/// Told of events.
pub(super) type Tell = dyn Fn(&Event<'_>) + Send + Sync;

/// A batch that was started. Dropping it doesn't stop the batch.
#[must_use = "what becomes of the jobs is told by `wait`"]
pub struct Batch<T> {
    run: Box<dyn Running<T>>,
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
        Batch { run: Box::new(run) }
    }

    /// Waits until every job has ended and all events were told, for at most `timeout`, and takes the report. After a
    /// timeout the batch goes on, and this is still good. In an operation, another thread works meanwhile in its place.
    ///
    /// # Errors
    /// [`Error::Timeout`]: `left` jobs have not ended. [`Error::ResultTaken`]: the report was taken before.
    /// [`Error::WouldDeadlock`] in a step or a callback of this very batch.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<BatchReport<T>> {
        self.run.wait(Deadline::start(timeout))
    }

    /// How it stands.
    pub fn stats(&self) -> BatchStats {
        self.run.stats()
    }

    /// Whether every job has ended, and was told of.
    pub fn is_done(&self) -> bool {
        self.run.is_done()
    }

    /// Starts no more jobs, and cancels those in flight where the service can; their steps at work
    /// [are told](Context::is_cancelled). Returns at once; [`wait`](Batch::wait) waits for the end, and callbacks are called
    /// on other threads. Does nothing to a batch that has ended.
    pub fn cancel(&self) {
        self.run.cancel();
    }
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A run, whatever its jobs are.
trait Running<T>: Send + Sync {
    fn wait(&self, deadline: Deadline) -> Result<BatchReport<T>>;
    fn stats(&self) -> BatchStats;
    fn is_done(&self) -> bool;
    fn cancel(&self);
}

struct Run<J: RemoteJob> {
    executor: Executor,
    total: usize,
    began: Instant,
    /// None any more once all was told: one that holds the batch would keep it, and itself, for ever.
    listeners: Mutex<Arc<[Arc<Tell>]>>,
    /// Whether steps at work had better end.
    stopped: AtomicBool,
    bytes: AtomicU64,
    /// Threads that are in a step or a callback of this batch, once for each: they would wait for themselves.
    inside: Mutex<Vec<ThreadId>>,
    state: Mutex<State<J>>,
    /// The last job's end was told, or there are ends to be told.
    changed: Condvar,
}

struct State<J: RemoteJob> {
    window: Window,
    entries: Vec<Entry<J>>,
    /// What the window doesn't count itself.
    stats: BatchStats,
    /// Jobs whose end was told.
    told: usize,
    /// The steps sent and not ended, by their jobs, and the requests of those that were seen waiting for a thread.
    steps: HashMap<usize, Option<AsyncRequest<()>>>,
    wake: Wake,
    /// The ends that a cancel brought, for a waiting thread or one of the executor to tell.
    untold: Vec<Ended<J>>,
    taken: bool,
}

/// Who steps the window at its next time.
#[derive(Default)]
struct Wake {
    /// When. An alarm for another time, late to be called off, does no harm.
    at: Option<Instant>,
    /// Tells alarms apart.
    generation: u64,
    alarm: Option<Alarm>,
}

struct Entry<J: RemoteJob> {
    /// Not here while a step is at work, and after its end.
    job: Option<J>,
    id: Option<Arc<str>>,
    state: Option<Cow<'static, str>>,
    progress: Option<f32>,
    /// Bytes of its result that have been counted.
    counted: u64,
    started: Option<Duration>,
    submitted: Option<Duration>,
    ended: Duration,
    attempts: Attempts,
    notes: Vec<String>,
    /// What the last step that didn't succeed had to say.
    trouble: Option<Box<str>>,
    // In a box: a job that waits is not to take the room of its result.
    outcome: Option<Box<Outcome<J>>>,
}

type Outcome<J> = Result<<J as RemoteJob>::Output, JobFailure>;

/// What a step has left that may be the job's end: its result, or how it ended badly.
type Last<J> = Result<<J as RemoteJob>::Output, LastWord>;

enum LastWord {
    Error(JobError),
    Panic(String),
}

/// What a step has returned, whichever it was.
enum Answer<T> {
    Submitted(Submitted),
    Poll(Poll),
    Fetched(T),
    Cancelled,
}

/// What is to be done once the lock is released.
struct Orders<J: RemoteJob> {
    steps: Vec<StepOrder>,
    /// An alarm to be set, and one to be called off.
    alarm: Option<(Instant, u64)>,
    retired: Option<Alarm>,
    /// Steps that have not started and are not to.
    called_off: Vec<(usize, AsyncRequest<()>)>,
    ended: Vec<Ended<J>>,
    /// Values of users that are needed no more.
    leftover: Option<Last<J>>,
}

struct StepOrder {
    job: usize,
    stage: Stage,
    attempt: u32,
    first: bool,
    deadline: Option<Instant>,
}

/// The end of a job, to be told.
struct Ended<J> {
    index: usize,
    id: Option<Arc<str>>,
    /// Dropped outside of the lock.
    _job: Option<J>,
}

impl<J: RemoteJob> Run<J> {
    /// Takes in what has happened, and sees to what follows.
    fn advance(self: &Arc<Self>, input: Input, last: Option<Last<J>>) {
        let orders = self.drive(input, last);
        let ended = self.carry_out(orders);
        self.tell_ends(ended);
    }

    /// Has the window make its step. What follows is for `carry_out`, because neither other people's locks nor their code
    /// have a place under ours.
    fn drive(&self, input: Input, mut last: Option<Last<J>>) -> Orders<J> {
        let now = Instant::now();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (mut actions, mut ended, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        let was_cut_short = state.window.cuts_short();
        if let Input::Stepped { job, .. } = input {
            state.steps.remove(&job);
        }
        state.window.step(now, input, &mut actions);
        for action in actions {
            match action {
                Action::Run { job, stage, attempt, first, deadline } => {
                    state.steps.insert(job, None);
                    steps.push(StepOrder { job, stage, attempt, first, deadline });
                }
                Action::End { job, ending } => {
                    let own = matches!(input, Input::Stepped { job: stepped, .. } if stepped == job);
                    let last = if own { &mut last } else { &mut None };
                    ended.push(self.end(state, now, job, ending, last));
                }
            }
        }
        let mut called_off = Vec::new();
        if state.window.cuts_short() {
            // Relaxed: a hint that protects nothing.
            self.stopped.store(true, Ordering::Relaxed);
            if !was_cut_short {
                let steps = state.steps.iter();
                let waiting = steps.filter_map(|(job, step)| step.as_ref().map(|step| (*job, step.share())));
                called_off.extend(waiting.filter(|(_, step)| step.status() == Status::Queued));
            }
        }
        let (alarm, retired) = state.wake.aim(state.window.next_due());
        Orders { steps, alarm, retired, called_off, ended, leftover: last }
    }

    /// Returns the jobs that have ended, for their ends to be told.
    fn carry_out(self: &Arc<Self>, orders: Orders<J>) -> Vec<Ended<J>> {
        // Not by recursion: who is refused gives rise to more.
        let (mut inputs, mut all_ended) = (VecDeque::new(), Vec::new());
        let mut next = Some(orders);
        while let Some(orders) = next {
            let Orders { steps, alarm, retired, called_off, ended, leftover } = orders;
            panics::contain(|| drop(leftover));
            if let Some(alarm) = retired {
                self.executor.call_off(alarm);
            }
            for (job, step) in called_off {
                if step.cancel() {
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

    /// Hands a step to the executor.
    fn send(self: &Arc<Self>, order: StepOrder, inputs: &mut VecDeque<Input>) {
        let (run, job) = (self.clone(), order.job);
        match self.executor.spawn_accepted(move || run.perform(order)) {
            Ok(request) => {
                let mut state = self.state.lock();
                // It may have begun or ended by now, and the next one be on its way. Only one that waits is of use.
                if request.status() == Status::Queued {
                    state.steps.insert(job, Some(request));
                }
            }
            Err(refused) => {
                event!(WARN, "batch can run no more steps", error = refused);
                inputs.push_back(Input::Stop(reason_of(&refused)));
                inputs.push_back(Input::Stepped { job, end: StepEnd::NotRun });
            }
        }
    }

    fn arm(self: &Arc<Self>, at: Instant, generation: u64, inputs: &mut VecDeque<Input>) {
        let ring = Arc::new(Ring { run: self.clone(), generation });
        match self.executor.alarm_at(at, ring) {
            Ok(alarm) => {
                let mut state = self.state.lock();
                if state.wake.generation == generation {
                    state.wake.alarm = Some(alarm);
                } else {
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

    /// One step of one job, on a thread of the executor.
    fn perform(self: &Arc<Self>, order: StepOrder) {
        let StepOrder { job: index, stage, attempt, first, deadline } = order;
        let _inside = Inside::enter(self);
        let mut net = Net { run: self, index, is_needed: true };
        let (job, id, counted) = {
            let mut state = self.state.lock();
            let is_too_late = state.window.is_too_late(Instant::now(), index);
            let entry = &mut state.entries[index];
            if is_too_late {
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
            // A step that cancels is not to stop because of what it is called for.
            stopped: (stage != Stage::Cancel).then_some(&self.stopped),
            deadline,
            downloaded: &self.bytes,
            emit: &|kind| self.tell(index, id.as_deref(), kind),
            notes: Vec::new(),
            counted,
            last: None,
            told: None,
        };
        let answer = panics::catch(|| match stage {
            Stage::Submit => job.submit(&mut context).map(Answer::Submitted),
            Stage::Poll => job.poll(&mut context).map(Answer::Poll),
            Stage::Fetch => job.fetch(&mut context).map(Answer::Fetched),
            Stage::Cancel => job.cancel(&mut context).map(|()| Answer::Cancelled),
        });
        context.tell_last_bytes();
        let (notes, counted) = (context.notes, context.counted);
        {
            let mut state = self.state.lock();
            let entry = &mut state.entries[index];
            entry.notes.extend(notes);
            entry.counted = counted;
            entry.job = Some(job);
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

    /// Puts down and tells a step's answer, before the window goes on, so that no later step overtakes the news.
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

    fn pending(&self, index: usize, new_state: Cow<'static, str>, progress: Option<f32>) {
        let (id, new_state, progress) = {
            let mut state = self.state.lock();
            let entry = &mut state.entries[index];
            entry.trouble = None;
            let changed = entry.state.as_ref() != Some(&new_state);
            if changed {
                entry.state = Some(new_state.clone());
            }
            // A service may round up; a share that is none says nothing.
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

    /// Puts down how a job has ended. Takes its last word if that is what it ends with.
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
        // After the last of many attempts it may be that the service never heard us.
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
            // What the net caught: a step that never came to its answer.
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

    fn tell_ends(&self, ended: Vec<Ended<J>>) {
        if ended.is_empty() {
            return;
        }
        let _inside = Inside::enter(self);
        let count = ended.len();
        for ended in ended {
            // Taken out while it is told, so that no lock is held meanwhile; no other thread looks before all were told.
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
            // Relaxed: a counter that protects nothing.
            bytes: self.bytes.load(Ordering::Relaxed),
            ..state.stats
        }
    }

    /// The report, once all was told.
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

    fn tell_untold(self: &Arc<Self>) {
        let untold = mem::take(&mut self.state.lock().untold);
        self.tell_ends(untold);
    }

    /// Sleeps until there is something to tell, or the report is there, or time has run out.
    fn sleep(&self, deadline: Deadline) {
        let mut state = self.state.lock();
        while state.untold.is_empty() && state.told < self.total && !deadline.is_past() {
            match deadline.at() {
                None => self.changed.wait(&mut state),
                Some(at) => drop(self.changed.wait_until(&mut state, at)),
            }
        }
    }
}

impl<J: RemoteJob> Running<J::Output> for Arc<Run<J>> {
    fn wait(&self, deadline: Deadline) -> Result<BatchReport<J::Output>> {
        let mut blocked = None;
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
            blocked = blocked.or_else(Blocked::enter_any);
            self.sleep(deadline);
            // Here as well as there, because all threads of the executor may be held by strangers.
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
        // A callback may be slow, or want a lock that the caller holds.
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
        // Results that were not taken. One by one: a second panic in the middle of the first would end the process.
        for entry in mem::take(&mut self.state.lock().entries) {
            panics::contain(|| drop(entry));
        }
    }
}

/// The window's next time has come, or never will.
struct Ring<J: RemoteJob> {
    run: Arc<Run<J>>,
    generation: u64,
}

impl<J: RemoteJob> Alarmed for Ring<J> {
    fn ring(self: Arc<Self>) {
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
            // The timer's thread is not for what callbacks may do.
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
    /// Says what alarm is to be set now, and which one to be called off.
    fn aim(&mut self, due: Option<Instant>) -> (Option<(Instant, u64)>, Option<Alarm>) {
        if self.at == due {
            return (None, None);
        }
        let retired = self.alarm.take();
        self.forget();
        self.at = due;
        (due.map(|at| (at, self.generation)), retired)
    }

    /// It has rung, or is not to.
    fn forget(&mut self) {
        self.at = None;
        self.alarm = None;
        self.generation += 1;
    }
}

/// A thread is in a step or a callback.
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

/// Catches what falls between a step and the window: without its end no thread would ever call the job again.
struct Net<'a, J: RemoteJob> {
    run: &'a Arc<Run<J>>,
    index: usize,
    is_needed: bool,
}

impl<J: RemoteJob> Drop for Net<'_, J> {
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
            outcome: None,
        }
    }

    /// Says what the outcome doesn't: the trouble that a limit cut short, and that the remote job may go on.
    fn remark(&mut self, ending: Ending, may_still_run: bool, gave_up: bool) {
        let was_cancelled = self.attempts.cancel > 0;
        let trouble = self.trouble.take();
        let was_left = match ending {
            Ending::TimedOut { .. } | Ending::Stopped(_) => {
                match trouble {
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

/// What an error of users says, whose `Display` may panic.
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
