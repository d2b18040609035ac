//! What the parts of a worker share: what it holds, and what keeps the house.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::bell::News;
use super::super::engine::{Action, Held, Step, Stepped};
use super::super::error::TaskError;
use super::super::handler::{Handler, TaskContext, chain};
use super::super::new_task::clean;
use super::super::queue::TaskQueue;
use super::super::status::TaskStatus;
use super::super::worker_id::WorkerId;
use super::{WorkerBuilder, WorkerStats, runner};
use crate::error::Error;
use crate::executor::Executor;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::time::Deadline;
use crate::trace::event;

pub(super) struct Crew {
    pub(super) queue: TaskQueue,
    pub(super) id: WorkerId,
    handlers: HashMap<String, Arc<dyn Handler>>,
    types: Vec<String>,
    hands: Executor,
    at_once: usize,
    /// How many to have ready; `None` is as many as the hands get to soon.
    batch: Option<usize>,
    together: usize,
    lease: Duration,
    state: Mutex<State>,
    /// The buffer has room, a runner has ended, or the phase has changed.
    changed: Condvar,
}

struct State {
    /// Claimed, not started.
    buffer: VecDeque<Arc<TaskContext>>,
    /// All that is held, by number.
    held: HashMap<i64, Arc<TaskContext>>,
    /// Whose handlers have not returned, lost or not, by number and fence.
    at_work: HashMap<(i64, i64), Arc<TaskContext>>,
    runners: usize,
    /// The claim loop is there.
    claiming: bool,
    draining: bool,
    /// Handlers at work are told to stop.
    stopping: bool,
    /// Nobody waits for them any more.
    abandoned: bool,
    stats: WorkerStats,
    /// How long an attempt takes, in seconds: a moving average. `None` before the first has ended.
    pace: Option<f64>,
    /// The last time when the database said what is held.
    heard: Instant,
    /// Some answer was lost, so that there may be tasks that are ours without our knowing.
    in_doubt: bool,
    /// What the last heartbeat found to be ours without our knowing, with its fence.
    strays: HashSet<(i64, i64)>,
    /// Since when and why we have lost sight of them, where we know.
    given_up: HashMap<(i64, i64), (Instant, String)>,
}

impl Crew {
    pub(super) fn new(builder: WorkerBuilder, hands: Executor, at_once: usize) -> Crew {
        let WorkerBuilder { queue, handlers, batch, together, lease, id, .. } = builder;
        let types = handlers.keys().cloned().collect();
        let state = State {
            buffer: VecDeque::new(),
            held: HashMap::new(),
            at_work: HashMap::new(),
            runners: 0,
            claiming: true,
            draining: false,
            stopping: false,
            abandoned: false,
            stats: WorkerStats::default(),
            pace: None,
            heard: Instant::now(),
            in_doubt: false,
            strays: HashSet::new(),
            given_up: HashMap::new(),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Crew { queue, id, handlers, types, hands, at_once, batch, together, lease, state, changed }
    }

    pub(super) fn stats(&self) -> WorkerStats {
        let state = self.state.lock();
        let stuck = state.at_work.values().filter(|task| task.is_lost()).count() as u64;
        WorkerStats { stuck, ..state.stats }
    }

    pub(super) fn handler(&self, task: &TaskContext) -> Option<&dyn Handler> {
        self.handlers.get(task.task_type()).map(|handler| &**handler)
    }

    // Claiming.

    /// Fills the buffer until the worker drains.
    pub(super) fn claim_loop(self: Arc<Crew>) {
        let bell = self.queue.engine().bell();
        loop {
            let seen = bell.count(News::Work);
            let Some(wanted) = self.wait_for_room() else {
                break;
            };
            let idle = match self.queue.engine().claim(&self.id, &self.types, wanted, self.lease, "") {
                Ok(claimed) => {
                    let all = claimed.len() < wanted;
                    let claimed = claimed
                        .into_iter()
                        .map(|claimed| Arc::new(TaskContext::new(self.queue.clone(), self.id.clone(), claimed)));
                    if !self.take_in(claimed) {
                        self.rest();
                    }
                    all
                }
                Err(error) => {
                    self.note_error("claiming", &error);
                    true
                }
            };
            if idle {
                self.wait_for_work(seen);
            }
        }
        let mut state = self.state.lock();
        state.claiming = false;
        drop(state);
        self.changed.notify_all();
    }

    /// How many to claim; `None` when the worker drains.
    fn wait_for_room(&self) -> Option<usize> {
        let mut state = self.state.lock();
        loop {
            if state.draining {
                return None;
            }
            let wanted = self.room(&state);
            if wanted > 0 {
                return Some(wanted);
            }
            self.changed.wait(&mut state);
        }
    }

    /// How many to claim now; none while there are enough.
    fn room(&self, state: &State) -> usize {
        // As many as there are idle hands; and while all are at work, a few to have ready for them.
        let idle = self.at_once.saturating_sub(state.runners);
        let ahead = self.batch.unwrap_or_else(|| self.soon(state));
        let worth_it = state.buffer.len() * 2 <= ahead || idle > state.buffer.len();
        if worth_it { ahead.max(idle).saturating_sub(state.buffer.len()) } else { 0 }
    }

    /// How many tasks the hands will get to soon. Those of others may be idle: what would wait here for long is left to them.
    fn soon(&self, state: &State) -> usize {
        let rounds = SOON.as_secs_f64() / state.pace.unwrap_or(f64::INFINITY).max(1e-9);
        if rounds >= 1.0 { self.at_once } else { (rounds * self.at_once as f64) as usize }
    }

    /// Sleeps until there may be work again, of which nobody told since `seen`.
    fn wait_for_work(&self, mut seen: u64) {
        let engine = self.queue.engine();
        let next_due = || {
            engine.next_due(&self.types).unwrap_or_else(|error| {
                self.note_error("looking for work", &error);
                None
            })
        };
        // What is due and was not claimed is kept by a limit at once, of which nobody may tell: the poll finds out.
        let mut wait = next_due().filter(|due| !due.is_zero());
        loop {
            let pause = wait.map_or(self.queue.poll(), |wait| wait.min(self.queue.poll()));
            engine.bell().wait(News::Work, seen, Instant::now() + pause);
            // Before all looks: the ring that tells of a drain must not fall between.
            seen = engine.bell().count(News::Work);
            if self.state.lock().draining {
                return;
            }
            // Looked at before the writer's lock is taken: an idle queue costs a read, and so does what is others' work.
            wait = next_due();
            if wait.is_some_and(|due| due.is_zero()) {
                return;
            }
        }
    }

    /// Hands the claimed tasks to runners. Says whether there are any: the executor may refuse them.
    fn take_in(self: &Arc<Crew>, claimed: impl Iterator<Item = Arc<TaskContext>>) -> bool {
        let mut state = self.state.lock();
        for task in claimed {
            state.stats.claimed += 1;
            if let Some(before) = state.held.insert(task.id(), task.clone()) {
                // It was lost and is ours anew before a heartbeat could say so.
                before.set_lost();
            }
            state.buffer.push_back(task);
        }
        if state.draining {
            self.give_back(state);
            return true;
        }
        let wanted = (self.at_once - state.runners.min(self.at_once)).min(state.buffer.len());
        state.runners += wanted;
        drop(state);
        for spawned in 0..wanted {
            let crew = self.clone();
            if let Err(error) = self.hands.spawn(move || runner::run(&crew)) {
                self.refused(wanted - spawned, error);
                return false;
            }
        }
        true
    }

    /// The executor takes no more runners. If there are none at all, the tasks are left to others.
    fn refused(&self, runners: usize, error: Error) {
        let mut state = self.state.lock();
        state.runners -= runners;
        // It would refuse the next ones, too.
        state.draining |= matches!(error, Error::ShutDown);
        if state.runners == 0 || state.draining {
            self.give_back(state);
        } else {
            drop(state);
        }
        self.changed.notify_all();
        self.note_error("handing tasks to the executor", &error.into());
    }

    /// Waits before the next claim, because nobody here can work on one now.
    fn rest(&self) {
        let (mut state, until) = (self.state.lock(), Instant::now() + LONGEST_PAUSE);
        while !state.draining && !self.changed.wait_until(&mut state, until).timed_out() {}
    }

    // For runners.

    /// The next tasks to start together; if there is none, the runner is counted out, unless it still `owes` a step.
    pub(super) fn next(&self, owes: bool) -> Vec<Arc<TaskContext>> {
        let mut state = self.state.lock();
        let mut next: Vec<Arc<TaskContext>> = state.buffer.pop_front().into_iter().collect();
        // One that was started before may be what killed its worker: it takes nobody along.
        let is_fresh = |task: &Arc<TaskContext>| task.attempt() == 1;
        if next.iter().all(is_fresh) {
            // What other hands could start now is left to them.
            let share = state.buffer.len() / self.at_once.max(1);
            while next.len() < self.together.min(share + 1) && state.buffer.front().is_some_and(is_fresh) {
                next.extend(state.buffer.pop_front());
            }
        }
        let ends = next.is_empty() && !owes;
        state.runners -= usize::from(ends);
        let matters = ends || self.room(&state) > 0;
        drop(state);
        if matters {
            self.changed.notify_all();
        }
        next
    }

    /// What became of the start of a task. Says whether to run it.
    pub(super) fn started(&self, task: &Arc<TaskContext>, stepped: Stepped) -> bool {
        let mut state = self.state.lock();
        if stepped == Stepped::Stale {
            task.set_lost();
            forget(&mut state, task);
            return false;
        }
        state.stats.started += 1;
        state.stats.running += 1;
        state.at_work.insert((task.id(), task.fence()), task.clone());
        if state.draining {
            task.set_stopping();
        }
        if state.stopping {
            task.set_called_off();
        }
        true
    }

    /// What became of the end of an attempt.
    pub(super) fn ended(&self, task: &TaskContext, took: Duration, stepped: Stepped) {
        let mut state = self.state.lock();
        forget(&mut state, task);
        state.at_work.remove(&(task.id(), task.fence()));
        let pace = state.pace.unwrap_or(took.as_secs_f64());
        state.pace = Some(pace + (took.as_secs_f64() - pace) / 8.0);
        let stats = &mut state.stats;
        stats.running -= 1;
        match stepped {
            Stepped::Done(TaskStatus::Finished) => stats.finished += 1,
            Stepped::Done(TaskStatus::Failed) => stats.failed += 1,
            Stepped::Done(TaskStatus::Paused) => stats.paused += 1,
            Stepped::Done(TaskStatus::Cancelled) => stats.cancelled += 1,
            Stepped::Done(_) => stats.retried += 1,
            Stepped::Stale => stats.stale += 1,
        }
        drop(state);
        if stepped == Stepped::Stale {
            task.set_lost();
            event!(WARN, "a lost task's outcome was discarded", task = task.id(), worker = self.id.to_string());
        }
    }

    /// A call failed that is worth another try: waits a little, and says whether to try. A worker that drains does, however
    /// long: what a handler has done is not to be done again.
    pub(super) fn may_retry(&self, error: &TaskError, pause: Duration) -> bool {
        self.note_error("writing what tasks came to", error);
        let mut state = self.state.lock();
        let until = Instant::now() + pause;
        while !state.abandoned && Instant::now() < until {
            self.changed.wait_until(&mut state, until);
        }
        !state.abandoned
    }

    /// Gives up on a task whose state can't be written, and why. The heartbeat will find that it is still ours.
    pub(super) fn give_up(&self, task: &TaskContext, was_running: bool, why: &TaskError) {
        let mut state = self.state.lock();
        forget(&mut state, task);
        state.in_doubt = true;
        let what = if was_running { "what it came to" } else { "its start" };
        let why = format!("{what} could not be written: {}", chain(why));
        state.given_up.insert((task.id(), task.fence()), (Instant::now(), why));
        if was_running {
            state.at_work.remove(&(task.id(), task.fence()));
            state.stats.running -= 1;
            state.stats.stale += 1;
        }
    }

    pub(super) fn note_error(&self, doing: &str, error: &TaskError) {
        event!(WARN, "a worker's call failed", worker = self.id.to_string(), doing = doing, error = error.to_string());
        let mut state = self.state.lock();
        state.stats.errors += 1;
        state.in_doubt = true;
    }

    // Rounds.

    /// Renews the leases, and finds out what is lost.
    pub(super) fn beat(&self) {
        let before: Vec<Arc<TaskContext>> = {
            let mut state = self.state.lock();
            if state.held.is_empty() && !state.in_doubt {
                // There was nothing to hear.
                state.heard = Instant::now();
                return;
            }
            // What becomes doubtful from here on may be missing in the answer.
            state.in_doubt = false;
            state.held.values().cloned().collect()
        };
        let asked = Instant::now();
        match self.queue.engine().heartbeat(&self.id, self.lease) {
            Ok(held) => self.heard(&before, &held, asked),
            Err(error) => {
                self.note_error("renewing leases", &error);
                let state = self.state.lock();
                if state.heard.elapsed() >= self.lease {
                    // Nobody may have taken them; but somebody may.
                    before.iter().for_each(|task| task.set_lost());
                }
            }
        }
    }

    fn heard(&self, before: &[Arc<TaskContext>], held: &[Held], asked: Instant) {
        let ours: HashMap<(i64, i64), bool> =
            held.iter().map(|held| ((held.id, held.token), held.cancel_requested)).collect();
        let mut state = self.state.lock();
        state.heard = asked;
        for task in before {
            match ours.get(&(task.id(), task.fence())) {
                Some(true) => task.set_cancelled(),
                Some(false) => {}
                None => {
                    task.set_lost();
                    // One that has not started is nobody's business any more; one at work is its runner's.
                    let waiting = state.buffer.len();
                    state.buffer.retain(|waiting| !Arc::ptr_eq(waiting, task));
                    if state.buffer.len() < waiting {
                        forget(&mut state, task);
                    }
                }
            }
        }
        let is_known = |id: &i64, token: &i64| state.held.get(id).is_some_and(|task| task.fence() == *token);
        let strays: HashSet<(i64, i64)> = ours.into_keys().filter(|(id, token)| !is_known(id, token)).collect();
        // Found twice, it is not one whose claim is just being answered.
        let certain: Vec<(i64, i64)> = strays.intersection(&state.strays).copied().collect();
        state.in_doubt |= !strays.is_empty();
        // What was given up since we asked is a matter for the next answer.
        state.given_up.retain(|fence, (since, _)| strays.contains(fence) || *since >= asked);
        state.strays = strays;
        let known: Vec<Option<(Instant, String)>> =
            certain.iter().map(|fence| state.given_up.get(fence).cloned()).collect();
        drop(state);
        for ((id, token), known) in certain.into_iter().zip(known) {
            let why = known.map_or("its worker lost sight of it".to_owned(), |(_, why)| why);
            self.give_up_stray(id, token, &why);
        }
    }

    /// A task that is ours, and that nobody here works on: an answer was lost, or its outcome could not be written.
    fn give_up_stray(&self, id: i64, token: i64, why: &str) {
        let reason = clean(why);
        let step = |action| Step { task: id, token, worker: self.id.clone(), action, finished_in: false };
        let back = step(Action::GiveBack { reason: reason.clone() });
        let lose = step(Action::Lose { reason });
        // One of them fits, or neither.
        if let Err(error) = self.queue.engine().step(vec![back, lose]) {
            self.note_error("giving a stray task back", &error);
        }
    }

    /// Finds out sooner than by the heartbeat that a task at work is to be cancelled.
    pub(super) fn look_for_cancellations(&self) {
        if self.state.lock().stats.running == 0 {
            return;
        }
        match self.queue.engine().cancel_requests(&self.id) {
            Ok(requests) => {
                let state = self.state.lock();
                for request in requests {
                    let task = state.held.get(&request.id).filter(|task| task.fence() == request.token);
                    if let Some(task) = task {
                        task.set_cancelled();
                    }
                }
            }
            Err(error) => self.note_error("looking for cancellations", &error),
        }
    }

    /// Rescues and deletes, of all workers.
    pub(super) fn tidy(&self) {
        self.look_for_types();
        match self.queue.tidy() {
            Ok(tidied) if tidied != Default::default() => event!(INFO, "tidied", tidied = tidied),
            Ok(_) => {}
            Err(error) => self.note_error("tidying", &error),
        }
    }

    /// Enqueues what is scheduled for now, of all types: another worker may have the handlers.
    pub(super) fn fire_schedules(&self) {
        if self.state.lock().draining {
            return;
        }
        if let Err(error) = self.queue.fire_schedules() {
            self.note_error("firing schedules", &error);
        }
    }

    /// A handler of a type that nobody registered gets nothing to do: said, because it may be a slip of the pen.
    fn look_for_types(&self) {
        let known = match self.queue.engine().types() {
            Ok(known) => known,
            Err(error) => return self.note_error("looking for types", &error),
        };
        let unknown: Vec<&str> = (self.types.iter().map(|name| &**name))
            .filter(|name| known.iter().all(|known| known.name() != *name))
            .collect();
        let count = unknown.len() as u64;
        let before = std::mem::replace(&mut self.state.lock().stats.unregistered, count);
        if count > before {
            let (worker, types) = (self.id.to_string(), unknown.join(", "));
            event!(
                WARN,
                "a worker has handlers of types that nobody has registered: register them",
                worker = worker,
                types = types
            );
        }
    }

    // The end.

    /// Claims no more, and puts back what has not started.
    pub(super) fn stop_claiming(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        state.held.values().for_each(|task| task.set_stopping());
        self.give_back(state);
        self.changed.notify_all();
        // The claim loop may be waiting for work.
        self.queue.engine().bell().ring(News::Work);
    }

    pub(super) fn tell_all_to_stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        state.held.values().for_each(|task| task.set_called_off());
        drop(state);
        self.changed.notify_all();
    }

    /// The worker is gone: what can't be written at once is left to the leases.
    pub(super) fn abandon(&self) {
        self.state.lock().abandoned = true;
        self.tell_all_to_stop();
    }

    /// Waits until no handler is at work and no claim on its way; returns how many handlers are.
    pub(super) fn wait_for_end(&self, deadline: Deadline) -> usize {
        let mut state = self.state.lock();
        while (state.runners > 0 || state.claiming) && !deadline.is_past() {
            match deadline.at() {
                None => self.changed.wait(&mut state),
                Some(at) => drop(self.changed.wait_until(&mut state, at)),
            }
        }
        state.runners.max(usize::from(state.claiming))
    }

    /// Puts the buffer back, in one step.
    fn give_back(&self, mut state: MutexGuard<'_, State>) {
        let tasks = std::mem::take(&mut state.buffer);
        for task in &tasks {
            forget(&mut state, task);
        }
        state.stats.given_back += tasks.len() as u64;
        drop(state);
        if tasks.is_empty() {
            return;
        }
        let action = || Action::GiveBack { reason: "given back: its worker stops".into() };
        let steps = tasks.iter().map(|task| task.step(action())).collect();
        if let Err(error) = self.queue.engine().step(steps) {
            // They go back when their leases are over, uncharged.
            self.note_error("giving tasks back", &error);
        }
    }
}

fn forget(state: &mut State, task: &TaskContext) {
    if state.held.get(&task.id()).is_some_and(|held| held.fence() == task.fence()) {
        state.held.remove(&task.id());
    }
}

/// What the hands get to within this is taken in advance.
const SOON: Duration = Duration::from_millis(100);

/// The longest pause between two tries to write something.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(all(test, feature = "tracing", feature = "sqlite"))]
mod tests {
    use super::super::super::engine::Claimed;
    use super::super::super::retry::RetryPolicy;
    use super::super::Worker;
    use super::*;
    use crate::error::BoxError;
    use crate::sync::{AtomicUsize, Ordering};
    use crate::trace::tests::Listener;

    #[test]
    fn whoever_hears_of_a_discarded_outcome_may_ask_for_the_counters() {
        let folder = std::env::temp_dir().join(format!("fulmar-crew-{}", WorkerId::new()));
        std::fs::create_dir(&folder).expect("a folder of its own");
        let queue = TaskQueue::open(folder.join("queue.db")).expect("the queue opens");
        let builder = Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<(), BoxError>(()));
        let hands = Executor::builder().threads(1).build().expect("a thread");
        let crew = Arc::new(Crew::new(builder, hands, 1));
        let claimed = Claimed {
            id: 1,
            token: 1,
            task_type: "t".into(),
            identifier: "a".into(),
            starts: 0,
            failures: 0,
            retry: RetryPolicy::default(),
            input: None,
            has_checkpoint: false,
        };
        let task = Arc::new(TaskContext::new(queue, crew.id.clone(), claimed));
        assert!(crew.started(&task, Stepped::Done(TaskStatus::Running)));
        let heard = Arc::new(AtomicUsize::new(0));
        // The counters could be asked for.
        let asks = {
            let (crew, heard) = (crew.clone(), heard.clone());
            Listener(move || {
                heard.fetch_add(usize::from(crew.state.try_lock().is_some()), Ordering::Relaxed);
            })
        };
        tracing::subscriber::with_default(asks, || {
            crew.ended(&task, Duration::ZERO, Stepped::Stale);
        });
        assert_eq!((crew.stats().stale, heard.load(Ordering::Relaxed)), (1, 1));
        let _ = std::fs::remove_dir_all(&folder);
    }
}
