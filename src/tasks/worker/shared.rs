//! What the parts of a worker share: its settings, and its state under one lock.
//!
//! A task's way through it, and the file that takes it there:
//!
//! ```text
//! claim.rs: claimed -> buffer, held --> handlers.rs: at_work --> its end is written, forgotten
//!                         |                             |
//!           stop.rs: given back      leases.rs: lost if a heartbeat's answer misses it
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::error::TaskError;
use super::super::handler::{Handler, TaskContext};
use super::super::queue::TaskQueue;
use super::super::worker_id::WorkerId;
use super::{Listener, WorkerBuilder, WorkerStats};
use crate::executor::Executor;
use crate::sync::{Condvar, Mutex};
use crate::trace::event;

/// The longest pause between two tries of what a worker has to do.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A task by number and fence: a new claim of the same task is another one.
pub(super) type Fenced = (i64, i64);

pub(super) struct Shared {
    pub(super) queue: TaskQueue,
    pub(super) id: WorkerId,
    pub(super) handlers: HashMap<String, Arc<dyn Handler>>,
    /// The names of the handlers' types, sorted.
    pub(super) types: Vec<String>,
    /// Where handlers run.
    pub(super) executor: Executor,
    pub(super) max_concurrent: usize,
    /// How many threads that hang may be replaced.
    pub(super) replaceable: usize,
    /// How many tasks to prefetch; `None` is as many as the threads get to soon.
    pub(super) batch: Option<usize>,
    pub(super) start_together: usize,
    pub(super) lease: Duration,
    pub(super) listener: Option<Listener>,
    pub(super) state: Mutex<State>,
    /// The buffer has room, a runner has ended, or the worker stops.
    pub(super) changed: Condvar,
}

pub(super) struct State {
    /// Claimed, not started.
    pub(super) buffer: VecDeque<Arc<TaskContext>>,
    /// All tasks whose leases the worker keeps, by number.
    pub(super) held: HashMap<i64, Arc<TaskContext>>,
    /// The tasks whose handlers have not returned, lost or not.
    pub(super) at_work: HashMap<Fenced, Arc<TaskContext>>,
    /// Of those, the ones that had lost their task when it was looked last.
    pub(super) lost: HashSet<Fenced>,
    /// Of those, the ones that had lost it the time before, too: their threads hang.
    pub(super) stuck: HashSet<Fenced>,
    /// Threads of the executor that run handlers, or are about to.
    pub(super) runners: usize,
    /// The claim loop has not ended.
    pub(super) claiming: bool,
    pub(super) draining: bool,
    /// Handlers at work are told to stop.
    pub(super) cancelling: bool,
    /// The worker was dropped: no caller waits for its handlers.
    pub(super) abandoned: bool,
    pub(super) stats: WorkerStats,
    /// How long an attempt takes, in seconds: a moving average. `None` before the first has ended.
    pub(super) mean_attempt: Option<f64>,
    /// When the heartbeat was sent that the database answered last.
    pub(super) last_heartbeat: Instant,
    /// The log has it that a newer program has changed the schema.
    pub(super) told_of_newer_schema: bool,
    /// The types of which the log has it that their limits make no sense.
    pub(super) told_of_limits: Vec<String>,
    /// An answer of the database was lost, so this worker may hold tasks that it doesn't know of.
    pub(super) in_doubt: bool,
    /// The tasks that the last heartbeat found to be this worker's, and that are not in `held`.
    pub(super) orphans: HashSet<Fenced>,
    /// The tasks that this worker gave up because it could not write their state: when, and why.
    pub(super) given_up: HashMap<Fenced, (Instant, String)>,
}

impl Shared {
    /// What a worker shares before its first claim: no tasks, no runners, and a claim loop that
    /// counts as running. Starts no thread. `executor` runs the handlers, at most `max_concurrent`
    /// at once.
    pub(super) fn new(builder: WorkerBuilder, executor: Executor, max_concurrent: usize) -> Shared {
        // The threads of an executor that was given are others' to count.
        let replaceable = if builder.executor.is_none() { max_concurrent } else { 0 };
        let WorkerBuilder { queue, handlers, batch, start_together, lease, id, listener, .. } = builder;
        let mut types: Vec<String> = handlers.keys().cloned().collect();
        types.sort_unstable();
        let state = State {
            buffer: VecDeque::new(),
            held: HashMap::new(),
            at_work: HashMap::new(),
            lost: HashSet::new(),
            stuck: HashSet::new(),
            runners: 0,
            claiming: true,
            draining: false,
            cancelling: false,
            abandoned: false,
            stats: WorkerStats::default(),
            mean_attempt: None,
            last_heartbeat: Instant::now(),
            told_of_newer_schema: false,
            told_of_limits: Vec::new(),
            in_doubt: false,
            orphans: HashSet::new(),
            given_up: HashMap::new(),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Shared {
            queue,
            id,
            handlers,
            types,
            executor,
            max_concurrent,
            replaceable,
            batch,
            start_together,
            lease,
            listener,
            state,
            changed,
        }
    }

    pub(super) fn stats(&self) -> WorkerStats {
        let state = self.state.lock();
        let stuck = state.at_work.values().filter(|task| task.is_lost()).count() as u64;
        WorkerStats { stuck, ..state.stats }
    }

    /// Counts and logs a call of the database that failed while the worker was `doing` something.
    pub(super) fn note_error(&self, doing: &str, error: &TaskError) {
        event!(WARN, "a worker's call failed", worker = self.id.to_string(), doing = doing, error = error.to_string());
        let mut state = self.state.lock();
        state.stats.errors += 1;
        state.in_doubt = true;
    }
}

impl State {
    /// Ends the worker's interest in a task, unless it has claimed the task anew meanwhile.
    pub(super) fn forget(&mut self, task: &TaskContext) {
        if self.held.get(&task.id()).is_some_and(|held| held.fence() == task.fence()) {
            self.held.remove(&task.id());
        }
    }
}
