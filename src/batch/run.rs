//! A batch at work: the window's actions carried out on an executor.
//!
//! All state is behind one lock; steps, callbacks and destructors of users run outside of it. Each step is a request of the
//! executor, and so is the one that wakes the window at its next time. Whichever ends goes on with what is due then, so
//! nobody has to watch.

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::event::{BatchStats, Event, EventKind};
use super::job::{JobError, Poll, RemoteJob, Stage, Submitted, Then};
use super::report::{Attempts, BatchReport, JobFailure, JobReport, StopReason};
use super::window::{Action, Ending, Input, Rules, StepEnd, Window};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::panics;
use crate::request::AsyncRequest;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, Ordering};
use crate::time::Deadline;
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
            steps: Vec::new(),
            wake: None,
            taken: false,
        };
        let run = Arc::new(Run {
            executor,
            total,
            began,
            listeners,
            stopped: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        event!(INFO, "batch started", jobs = total);
        run.advance(Input::Woken);
        Batch { run: Box::new(run) }
    }

    /// Waits until every job has ended and all events were told, for at most `timeout`, and takes the report. After a
    /// timeout the batch goes on, and this is still good. In an operation of the same executor the wait lends its thread to
    /// the steps.
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

    /// Whether every job has ended.
    pub fn is_done(&self) -> bool {
        self.run.is_done()
    }

    /// Starts no more jobs, and cancels those in flight where the service can; their steps at work
    /// [are told](Context::is_cancelled). Returns at once; [`wait`](Batch::wait) waits for the end. Does nothing to a batch
    /// that has ended.
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
    listeners: Vec<Arc<Tell>>,
    /// Whether steps at work had better end.
    stopped: AtomicBool,
    bytes: AtomicU64,
    state: Mutex<State<J>>,
    /// The last job's end was told.
    changed: Condvar,
}

struct State<J: RemoteJob> {
    window: Window,
    entries: Vec<Entry<J>>,
    /// What the window doesn't count itself.
    stats: BatchStats,
    /// Jobs whose end was told.
    told: usize,
    /// Steps on the executor, and some that have ended.
    steps: Vec<AsyncRequest<()>>,
    wake: Option<(Instant, AsyncRequest<()>)>,
    taken: bool,
}

struct Entry<J: RemoteJob> {
    /// Not here while a step is at work, and after its end.
    job: Option<J>,
    id: Option<Arc<str>>,
    state: Option<Cow<'static, str>>,
    progress: Option<f32>,
    started: Option<Duration>,
    submitted: Option<Duration>,
    ended: Duration,
    attempts: Attempts,
    notes: Vec<String>,
    /// What the last step returned or left, if that is to be its end.
    last: Option<Result<J::Output, LastWord>>,
    outcome: Option<Result<J::Output, JobFailure>>,
}

/// How a step ended badly.
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

/// The end of a job, to be told.
struct Ended<J> {
    index: usize,
    id: Option<Arc<str>>,
    /// Dropped outside of the lock.
    _job: Option<J>,
}

impl<J: RemoteJob> Run<J> {
    /// Takes in what has happened, and sees to what follows.
    fn advance(self: &Arc<Self>, input: Input) {
        let mut state = self.state.lock();
        let ended = self.drive(&mut state, input);
        drop(state);
        self.tell_ends(ended);
    }

    /// Has the window make its step, and carries out its actions. Returns the jobs that have ended.
    fn drive(self: &Arc<Self>, state: &mut State<J>, input: Input) -> Vec<Ended<J>> {
        let now = Instant::now();
        let (mut actions, mut ended) = (Vec::new(), Vec::new());
        state.window.step(now, input, &mut actions);
        loop {
            for action in mem::take(&mut actions) {
                match action {
                    Action::End { job, ending } => ended.push(self.end(state, now, job, ending)),
                    Action::Run { job, stage, attempt, first, deadline } => {
                        let run = self.clone();
                        let step = move || run.perform(job, stage, attempt, first, deadline);
                        match self.executor.spawn_accepted(step) {
                            Ok(step) => {
                                state.steps.retain(|step| !step.is_done());
                                state.steps.push(step);
                            }
                            Err(_refused) => {
                                event!(WARN, "batch can run no more steps", error = _refused);
                                let undone = StepEnd::NotDone(Then::Wait { at_least: Duration::ZERO });
                                state.window.step(now, Input::Stop(StopReason::ShutDown), &mut actions);
                                state.window.step(now, Input::Stepped { job, end: undone }, &mut actions);
                            }
                        }
                    }
                }
            }
            if self.arm(state).is_err() {
                state.window.step(now, Input::Stop(StopReason::ShutDown), &mut actions);
            }
            if actions.is_empty() {
                break;
            }
        }
        if state.window.cuts_short() {
            // Relaxed: a hint that protects nothing.
            self.stopped.store(true, Ordering::Relaxed);
        }
        ended
    }

    /// Makes sure that somebody steps the window at its next time.
    fn arm(self: &Arc<Self>, state: &mut State<J>) -> Result<()> {
        let due = state.window.next_due();
        if state.wake.as_ref().map(|(at, _)| *at) == due {
            return Ok(());
        }
        if let Some((_, wake)) = state.wake.take() {
            wake.cancel();
        }
        if let Some(at) = due {
            let run = self.clone();
            let wake = self.executor.spawn_at(at, move || run.woken(at))?;
            state.wake = Some((at, wake));
        }
        Ok(())
    }

    fn woken(self: &Arc<Self>, at: Instant) {
        let mut state = self.state.lock();
        let ours = state.wake.take_if(|(armed, _)| *armed == at);
        let ended = self.drive(&mut state, Input::Woken);
        drop(state);
        drop(ours);
        self.tell_ends(ended);
    }

    /// One step of one job, on a thread of the executor.
    fn perform(self: &Arc<Self>, index: usize, stage: Stage, attempt: u32, first: bool, deadline: Option<Instant>) {
        let (job, id) = {
            let mut state = self.state.lock();
            let entry = &mut state.entries[index];
            entry.attempts.count(stage);
            if first {
                entry.started = Some(self.began.elapsed());
            }
            let taken = (entry.job.take(), entry.id.clone());
            state.stats.polls += u64::from(stage == Stage::Poll);
            taken
        };
        let Some(mut job) = job else { return };
        if first {
            self.tell(index, None, EventKind::Started);
        }
        let mut context = Context {
            attempt,
            stopped: &self.stopped,
            deadline,
            downloaded: &self.bytes,
            emit: &|kind| self.tell(index, id.as_deref(), kind),
            notes: Vec::new(),
            counted: 0,
            told: 0,
        };
        let answer = panics::catch(|| match stage {
            Stage::Submit => job.submit(&mut context).map(Answer::Submitted),
            Stage::Poll => job.poll(&mut context).map(Answer::Poll),
            Stage::Fetch => job.fetch(&mut context).map(Answer::Fetched),
            Stage::Cancel => job.cancel(&mut context).map(|()| Answer::Cancelled),
        });
        let notes = context.notes;
        let answer = match answer {
            Ok(answer) => answer.map_err(LastWord::Error),
            Err(message) => Err(LastWord::Panic(message)),
        };
        self.take_in(index, stage, attempt, job, notes, answer);
    }

    /// Tells of a step's answer, then has the window go on. In this order, so that no later step overtakes the news.
    fn take_in(
        self: &Arc<Self>,
        index: usize,
        stage: Stage,
        attempt: u32,
        job: J,
        notes: Vec<String>,
        answer: Result<Answer<J::Output>, LastWord>,
    ) {
        let mut last = None;
        let end = match answer {
            Ok(Answer::Submitted(Submitted::Accepted { id })) => self.created(index, &id, StepEnd::Accepted),
            Ok(Answer::Submitted(Submitted::Ready { id })) => self.created(index, &id, StepEnd::Ready),
            Ok(Answer::Poll(Poll::Ready)) => StepEnd::Ready,
            Ok(Answer::Poll(Poll::Pending { state, progress, retry_after })) => {
                self.pending(index, state, progress);
                StepEnd::Pending { retry_after }
            }
            Ok(Answer::Cancelled) => StepEnd::Complete,
            Ok(Answer::Fetched(output)) => {
                last = Some(Ok(output));
                StepEnd::Complete
            }
            Err(LastWord::Error(error)) => {
                let then = error.then;
                self.retried(index, stage, attempt, &error);
                last = Some(Err(LastWord::Error(error)));
                StepEnd::NotDone(then)
            }
            Err(LastWord::Panic(message)) => {
                last = Some(Err(LastWord::Panic(message)));
                StepEnd::Panicked
            }
        };
        let mut state = self.state.lock();
        let entry = &mut state.entries[index];
        entry.job = Some(job);
        entry.notes.extend(notes);
        if let (Stage::Cancel, Some(Err(last))) = (stage, &last) {
            entry.notes.push(format!("the remote job may still run, because it could not be cancelled: {last}"));
        }
        entry.last = last;
        let ended = self.drive(&mut state, Input::Stepped { job: index, end });
        // An error that is followed by another attempt was told; it, too, is dropped outside.
        let last = state.entries[index].last.take();
        drop(state);
        panics::contain(|| drop(last));
        self.tell_ends(ended);
    }

    fn created(&self, index: usize, id: &str, end: StepEnd) -> StepEnd {
        let id: Arc<str> = id.into();
        {
            let mut state = self.state.lock();
            state.stats.submitted += 1;
            let entry = &mut state.entries[index];
            entry.submitted = Some(self.began.elapsed());
            entry.id = Some(id.clone());
        }
        self.tell(index, Some(&id), EventKind::Submitted);
        end
    }

    fn pending(&self, index: usize, new_state: Cow<'static, str>, progress: Option<f32>) {
        let (id, new_state, progress) = {
            let mut state = self.state.lock();
            let entry = &mut state.entries[index];
            let changed = entry.state.as_ref() != Some(&new_state);
            if changed {
                entry.state = Some(new_state.clone());
            }
            let progress = progress.filter(|share| (0.0..=1.0).contains(share) && entry.progress != Some(*share));
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

    fn retried(&self, index: usize, stage: Stage, attempt: u32, error: &JobError) {
        let Then::Retry { .. } = error.then else { return };
        let (id, delay) = {
            let mut state = self.state.lock();
            let Some(delay) = state.window.delay_after(index, error.then) else { return };
            state.stats.retries += 1;
            (state.entries[index].id.clone(), delay)
        };
        self.tell(index, id.as_deref(), EventKind::Retrying { stage, attempt, delay, error });
    }

    /// Puts down how a job has ended.
    fn end(&self, state: &mut State<J>, now: Instant, index: usize, ending: Ending) -> Ended<J> {
        let entry = &mut state.entries[index];
        entry.ended = now.saturating_duration_since(self.began);
        let outcome = match (ending, entry.last.take()) {
            (Ending::Done, Some(Ok(output))) => Ok(output),
            (Ending::Failed { stage, attempt }, Some(Err(LastWord::Error(error)))) => {
                Err(JobFailure::Failed { stage, attempt, source: error.source })
            }
            (Ending::Panicked { stage }, Some(Err(LastWord::Panic(message)))) => {
                Err(JobFailure::Panicked { stage, message })
            }
            (Ending::TimedOut { limit }, _) => Err(JobFailure::TimedOut { limit }),
            (Ending::Stopped(reason), _) => Err(JobFailure::Stopped(reason)),
            // The window ends a job like this only with the step that says so.
            (Ending::Done | Ending::Failed { .. } | Ending::Panicked { .. }, _) => {
                unreachable!("job {index} ended as {ending:?} without its last word")
            }
        };
        match &outcome {
            Ok(_) => state.stats.succeeded += 1,
            Err(JobFailure::Stopped(_)) => state.stats.cancelled += 1,
            Err(_) => state.stats.failed += 1,
        }
        entry.outcome = Some(outcome);
        Ended { index, id: entry.id.clone(), _job: entry.job.take() }
    }

    fn tell_ends(&self, ended: Vec<Ended<J>>) {
        if ended.is_empty() {
            return;
        }
        let count = ended.len();
        for ended in ended {
            // Taken out while it is told, so that no lock is held meanwhile; nobody else looks before all were told.
            let outcome = self.state.lock().entries[ended.index].outcome.take();
            match &outcome {
                Some(Err(failure)) => self.tell(ended.index, ended.id.as_deref(), EventKind::Failed { failure }),
                _ => self.tell(ended.index, ended.id.as_deref(), EventKind::Done),
            }
            self.state.lock().entries[ended.index].outcome = outcome;
            panics::contain(|| drop(ended));
        }
        let mut state = self.state.lock();
        state.told += count;
        if state.told == state.entries.len() {
            event!(INFO, "batch ended", stats = self.stats_of(&state));
            self.changed.notify_all();
        }
    }

    fn tell(&self, job: usize, id: Option<&str>, kind: EventKind<'_>) {
        match &kind {
            EventKind::Failed { failure: _failure } => {
                event!(WARN, "remote job failed", job = job, id = id, failure = _failure.to_string());
            }
            EventKind::Retrying { stage: _stage, error: _error, .. } => {
                event!(DEBUG, "remote job is retried", job = job, id = id, stage = _stage, error = _error.to_string());
            }
            EventKind::Downloading { .. } | EventKind::Progress { .. } => {}
            _kind => event!(TRACE, "remote job", job = job, id = id, what = _kind),
        }
        let event = Event { job, id, kind };
        for listener in &self.listeners {
            panics::contain(|| listener(&event));
        }
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
    fn take_report(&self, state: &mut State<J>) -> Option<Result<BatchReport<J::Output>>> {
        if state.told < state.entries.len() {
            return None;
        }
        if mem::replace(&mut state.taken, true) {
            return Some(Err(Error::ResultTaken));
        }
        let stats = self.stats_of(state);
        let entries = mem::take(&mut state.entries);
        state.told = 0;
        let elapsed = entries.iter().map(|entry| entry.ended).max().unwrap_or_default();
        let jobs = entries.into_iter().enumerate();
        let jobs = jobs.filter_map(|(index, entry)| entry.into_report(index)).collect();
        Some(Ok(BatchReport { jobs, stats, elapsed, stopped: state.window.stop_reason() }))
    }
}

impl<J: RemoteJob> Running<J::Output> for Arc<Run<J>> {
    fn wait(&self, deadline: Deadline) -> Result<BatchReport<J::Output>> {
        let lends_thread = self.executor.is_here();
        loop {
            let mut state = self.state.lock();
            if let Some(report) = self.take_report(&mut state) {
                return report;
            }
            if deadline.is_past() {
                return Err(Error::Timeout {
                    limit: deadline.limit(),
                    left: (state.entries.len() - state.told) as u64,
                });
            }
            if lends_thread {
                // Waits for whatever ends next, running it if it still is queued.
                let wake = state.wake.iter().map(|(_, wake)| wake.share());
                let all: Vec<_> = state.steps.iter().map(AsyncRequest::share).chain(wake).collect();
                let open: Vec<_> = all.into_iter().filter(|request| !request.is_done()).collect();
                if !open.is_empty() {
                    drop(state);
                    let limit = deadline.at().map(|at| at.saturating_duration_since(Instant::now()));
                    match self.executor.wait_any_request(&open, limit) {
                        Ok(_) | Err(Error::Timeout { .. }) => continue,
                        Err(error) => return Err(error),
                    }
                }
            }
            match deadline.at() {
                None => self.changed.wait(&mut state),
                Some(at) => drop(self.changed.wait_until(&mut state, at)),
            }
        }
    }

    fn stats(&self) -> BatchStats {
        self.as_ref().stats()
    }

    fn is_done(&self) -> bool {
        let state = self.state.lock();
        state.taken || state.told == state.entries.len()
    }

    fn cancel(&self) {
        if !Running::is_done(self) {
            self.advance(Input::Stop(StopReason::Cancelled));
        }
    }
}

impl<J: RemoteJob> Run<J> {
    fn stats(&self) -> BatchStats {
        self.stats_of(&self.state.lock())
    }
}

impl<J: RemoteJob> Entry<J> {
    fn new(job: J) -> Entry<J> {
        Entry {
            job: Some(job),
            id: None,
            state: None,
            progress: None,
            started: None,
            submitted: None,
            ended: Duration::ZERO,
            attempts: Attempts::default(),
            notes: Vec::new(),
            last: None,
            outcome: None,
        }
    }

    fn into_report(self, index: usize) -> Option<JobReport<J::Output>> {
        Some(JobReport {
            index,
            id: self.id.map(|id| id.to_string()),
            outcome: self.outcome?,
            started: self.started,
            submitted: self.submitted,
            ended: self.ended,
            attempts: self.attempts,
            notes: self.notes,
        })
    }
}

impl fmt::Display for LastWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LastWord::Error(error) => write!(f, "{error}"),
            LastWord::Panic(message) => write!(f, "panicked: {message}"),
        }
    }
}
