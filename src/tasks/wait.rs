//! Waits for the ends of tasks: one look at the database for all threads of the process that wait.
//!
//! A thread looks once by itself, and then puts the names that are left into a list. One of the
//! threads in the list leads: when the signal tells of an end, or the poll interval is over, it
//! looks for all names in one statement, and wakes the threads that have what they wait for. A
//! leader that leaves hands the lead on. So an end costs one look, however many threads wait.
//!
//! A look for thousands of names takes its time. So the leader pauses after it, nine times as long
//! as it took: looks never take more than a tenth of a thread's time, or of the server's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::TaskRef;
use super::error::{Result, TaskError};
use super::handle::TaskHandle;
use super::queue::TaskQueue;
use super::signal::{News, Signal};
use super::status::TaskStatus;
use crate::sync::interrupt::{self, Interrupt};
use crate::sync::{Condvar, Mutex};
use crate::time::Deadline;

/// The most names of one statement.
const MOST_NAMES: usize = 1_000;

/// A look that takes less needs no pause.
const LIGHT: Duration = Duration::from_millis(1);

/// A status's code as the database has it; `None` if there is no such task.
type Code = Option<i64>;

impl TaskQueue {
    /// Waits until a task has ended, in whatever way, and says in which. However many threads of
    /// this process wait, the end of a task costs them one look at the database.
    ///
    /// # Errors
    /// [`TaskError::Timeout`]; [`TaskError::NotFound`], also if it is deleted meanwhile;
    /// [`TaskError::Interrupted`], if the operation that calls this is cancelled.
    pub fn wait(&self, task_type: &str, identifier: &str, timeout: impl Into<Option<Duration>>) -> Result<TaskStatus> {
        let name = TaskRef { task_type: task_type.to_owned(), identifier: identifier.to_owned() };
        let ends = self.wait_for(vec![name], Need::All, Deadline::start(timeout))?;
        let end = ends.into_iter().flatten().next();
        end.ok_or_else(|| TaskError::Invalid("a wait for one task gave no status".into()))
    }

    /// Waits until all of `tasks` have ended, in whatever way, and says of each in which, in their
    /// order. They are looked for by name in this queue, in one statement.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, Worker};
    /// use std::time::Duration;
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-wait-all-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
    /// let queue = TaskQueue::open(folder.join("queue.db"))?;
    /// queue.register(TaskType::new("mail"))?;
    /// let worker = Worker::builder(&queue).handle("mail", |_: &TaskContext| Ok::<_, TaskError>(())).start()?;
    ///
    /// let mails = queue.enqueue_many((0..3).map(|n| NewTask::new("mail", n.to_string())))?;
    /// assert_eq!(queue.wait_all(&mails, Duration::from_secs(60))?, [TaskStatus::Finished; 3]);
    /// worker.drain(None)?;
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), fulmar::tasks::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// [`TaskError::Timeout`] with how many are `left`: nothing was cancelled, wait again.
    /// [`TaskError::NotFound`] for the first that isn't there, also if it is deleted before it was
    /// seen to end. [`TaskError::Interrupted`], if the operation that calls this is cancelled.
    pub fn wait_all(&self, tasks: &[TaskHandle], timeout: impl Into<Option<Duration>>) -> Result<Vec<TaskStatus>> {
        let ends = self.wait_for(names(tasks), Need::All, Deadline::start(timeout))?;
        Ok(ends.into_iter().flatten().collect())
    }

    /// Waits until one of `tasks` has ended, in whatever way, and says which, by its index: the
    /// first in their order, if more than one has. They are looked for by name in this queue, in
    /// one statement.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{NewTask, TaskError, TaskQueue, TaskStatus, TaskType};
    /// use std::time::Duration;
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-wait-any-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
    /// let queue = TaskQueue::open(folder.join("queue.db"))?;
    /// queue.register(TaskType::new("mail"))?;
    /// let mails = queue.enqueue_many((0..3).map(|n| NewTask::new("mail", n.to_string())))?;
    /// mails[1].cancel()?;
    /// assert_eq!(queue.wait_any(&mails, Duration::from_secs(60))?, 1);
    /// assert_eq!(mails[1].status()?, TaskStatus::Cancelled);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), fulmar::tasks::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`wait_all`](TaskQueue::wait_all); [`TaskError::Invalid`] without tasks, because
    /// none could end.
    pub fn wait_any(&self, tasks: &[TaskHandle], timeout: impl Into<Option<Duration>>) -> Result<usize> {
        let nothing = || TaskError::Invalid("a wait for any of 0 tasks would never end: name at least one".into());
        if tasks.is_empty() {
            return Err(nothing());
        }
        let ends = self.wait_for(names(tasks), Need::Any, Deadline::start(timeout))?;
        ends.iter().position(Option::is_some).ok_or_else(nothing)
    }

    fn wait_for(&self, tasks: Vec<TaskRef>, need: Need, deadline: Deadline) -> Result<Vec<Option<TaskStatus>>> {
        let engine = self.engine();
        let look = |tasks: &[TaskRef]| engine.statuses(tasks);
        let interruptible = |number| {
            let queue = self.clone();
            interrupt::on_cancel(move || queue.waiters().interrupt(number, queue.engine().signal()))
        };
        self.waiters().wait(&look, engine.signal(), &interruptible, self.poll(), (tasks, need), deadline)
    }
}

fn names(tasks: &[TaskHandle]) -> Vec<TaskRef> {
    tasks.iter().map(|task| task.name().clone()).collect()
}

/// How many of the tasks of a wait have to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    All,
    Any,
}

/// The threads that wait for tasks of one queue.
#[derive(Default)]
pub(super) struct Waiters(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    leader: Option<u64>,
}

/// A thread that waits.
struct Waiting {
    tasks: Vec<TaskRef>,
    need: Need,
    /// How each has ended, as far as was seen: what ended is not looked for again, because it may
    /// be deleted then.
    ends: Vec<Option<TaskStatus>>,
    failed: Option<TaskError>,
    /// The operation that the thread runs was cancelled.
    is_interrupted: bool,
    /// It has what it waits for, leads now, or was interrupted.
    changed: Arc<Condvar>,
}

impl Waiting {
    fn pending(&self) -> impl Iterator<Item = &TaskRef> {
        self.tasks.iter().zip(&self.ends).filter(|(_, end)| end.is_none()).map(|(task, _)| task)
    }

    /// Takes what a look has found of each task; `None` if it was not looked for.
    fn note(&mut self, found: impl Fn(usize, &TaskRef) -> Option<Code>) {
        for (index, (task, end)) in self.tasks.iter().zip(&mut self.ends).enumerate() {
            let Some(code) = found(index, task).filter(|_| end.is_none()) else {
                continue;
            };
            match code.map(TaskStatus::from_code) {
                Some(Ok(status)) => *end = status.is_ended().then_some(status),
                Some(Err(error)) => {
                    self.failed.get_or_insert(error);
                }
                None => {
                    let TaskRef { task_type, identifier } = task.clone();
                    self.failed.get_or_insert(TaskError::NotFound { task_type, identifier });
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.failed.is_some()
            || match self.need {
                Need::All => self.ends.iter().all(Option::is_some),
                Need::Any => self.ends.iter().any(Option::is_some),
            }
    }

    fn result(&mut self) -> Option<Result<Vec<Option<TaskStatus>>>> {
        match (self.need, self.failed.take()) {
            // One that has ended is what was asked for, whatever is wrong with the others.
            (Need::Any, _) if self.ends.iter().any(Option::is_some) => Some(Ok(self.ends.clone())),
            (_, Some(error)) => Some(Err(error)),
            (_, None) => self.is_over().then(|| Ok(self.ends.clone())),
        }
    }
}

/// The look at the database.
type Look<'a> = dyn Fn(&[TaskRef]) -> Result<Vec<Code>> + 'a;

/// Has the thread of this number interrupted if its operation is cancelled.
type Interruptible<'a> = dyn Fn(u64) -> Interrupt + 'a;

impl Waiters {
    /// Waits until the tasks have ended that `need` asks for: all of them, or any. Returns the
    /// status with which each has ended, in their order; `None` for one that was not seen to end.
    /// `look` reads statuses from the database, and `poll` is how long the leader sleeps if no ring
    /// wakes it.
    ///
    /// # Errors
    /// `Timeout` with how many are left; `NotFound` for one that is not there; `Interrupted`; and
    /// what a look fails with.
    fn wait(
        &self,
        look: &Look<'_>,
        signal: &Signal,
        interruptible: &Interruptible<'_>,
        poll: Duration,
        (tasks, need): (Vec<TaskRef>, Need),
        deadline: Deadline,
    ) -> Result<Vec<Option<TaskStatus>>> {
        // In the list before the first look: an end after that look is then found by the leader.
        let seat = self.sit(tasks, need);
        seat.look(look)?;
        let _hook = interruptible(seat.number);
        let mut is_last = deadline.is_zero();
        loop {
            // Counted before the look: an end that the look just misses then ends the wait below.
            let seen = signal.count(News::End);
            let leads = self.leads(seat.number);
            if leads {
                let took = self.look_for_all(look);
                if took > LIGHT {
                    self.pause(&seat, (took * 9).min(poll), deadline);
                }
            }
            let mut state = self.0.lock();
            let Some(waiting) = state.waiting.get_mut(&seat.number) else {
                return Err(TaskError::Invalid("a thread that waits is not in the list".into()));
            };
            if let Some(result) = waiting.result() {
                return result;
            }
            if waiting.is_interrupted {
                return Err(TaskError::Interrupted);
            }
            if is_last {
                let left = waiting.pending().count() as u64;
                return Err(TaskError::Timeout { limit: deadline.limit(), left });
            }
            if deadline.is_past() {
                // The leader's last look may be as old as the poll interval.
                is_last = true;
                drop(state);
                seat.look(look)?;
                continue;
            }
            if *state.leader.get_or_insert(seat.number) == seat.number {
                drop(state);
                // A new leader looks first: no thread may have looked since the last ring.
                if leads {
                    let until = Instant::now() + poll;
                    signal.wait(News::End, seen, deadline.at().map_or(until, |at| at.min(until)));
                }
                continue;
            }
            match deadline.at() {
                None => seat.changed.wait(&mut state),
                Some(at) => drop(seat.changed.wait_until(&mut state, at)),
            }
        }
    }

    fn sit(&self, tasks: Vec<TaskRef>, need: Need) -> Seat<'_> {
        let changed = Arc::new(Condvar::new());
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        let ends = vec![None; tasks.len()];
        state.waiting.insert(
            number,
            Waiting { tasks, need, ends, failed: None, is_interrupted: false, changed: Arc::clone(&changed) },
        );
        Seat { waiters: self, number, changed }
    }

    /// Ends a thread's wait, unless it has what it waits for.
    fn interrupt(&self, number: u64, signal: &Signal) {
        if let Some(waiting) = self.0.lock().waiting.get_mut(&number) {
            waiting.is_interrupted = true;
            waiting.changed.notify_one();
        }
        // For a leader. Others may look for nothing, once.
        signal.ring(News::End);
    }

    fn leads(&self, number: u64) -> bool {
        self.0.lock().leader == Some(number)
    }

    /// Looks for what all threads wait for, tells them, and says how long it took.
    fn look_for_all(&self, look: &Look<'_>) -> Duration {
        let start = Instant::now();
        let mut names: HashMap<TaskRef, Code> = HashMap::new();
        for waiting in self.0.lock().waiting.values() {
            names.extend(waiting.pending().map(|task| (task.clone(), None)));
        }
        let tasks: Vec<TaskRef> = names.keys().cloned().collect();
        for some in tasks.chunks(MOST_NAMES) {
            let found = look(some);
            let mut state = self.0.lock();
            match found {
                Ok(codes) => {
                    let codes: HashMap<&TaskRef, Code> = some.iter().zip(codes).collect();
                    state.tell(|waiting| waiting.note(|_, task| codes.get(task).copied()));
                }
                // Each of them would be told the same, one after the other, if it looked itself.
                Err(error) => state.tell(|waiting| {
                    if waiting.pending().any(|task| names.contains_key(task)) {
                        waiting.failed.get_or_insert_with(|| again(&error));
                    }
                }),
            }
        }
        start.elapsed()
    }

    /// The leader sleeps until its own task has ended, until it is interrupted, or until `pause` or
    /// `deadline` is over.
    fn pause(&self, seat: &Seat<'_>, pause: Duration, deadline: Deadline) {
        let until = Instant::now() + pause;
        let until = deadline.at().map_or(until, |at| at.min(until));
        let mut state = self.0.lock();
        let sleeps = |waiting: &Waiting| !waiting.is_over() && !waiting.is_interrupted;
        while state.waiting.get(&seat.number).is_some_and(sleeps) {
            if seat.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}

impl State {
    fn tell(&mut self, mut what: impl FnMut(&mut Waiting)) {
        for waiting in self.waiting.values_mut() {
            what(waiting);
            if waiting.is_over() {
                waiting.changed.notify_one();
            }
        }
    }
}

/// A thread's place in the list. It hands the lead on when it goes, in whatever way.
struct Seat<'a> {
    waiters: &'a Waiters,
    number: u64,
    changed: Arc<Condvar>,
}

impl Seat<'_> {
    /// Looks for what this thread waits for.
    fn look(&self, look: &Look<'_>) -> Result<()> {
        let tasks: Vec<TaskRef> =
            self.waiters.0.lock().waiting.get(&self.number).map(|waiting| waiting.tasks.clone()).unwrap_or_default();
        let mut codes = Vec::new();
        for some in tasks.chunks(MOST_NAMES) {
            codes.extend(look(some)?);
        }
        if let Some(waiting) = self.waiters.0.lock().waiting.get_mut(&self.number) {
            waiting.note(|index, _| codes.get(index).copied());
        }
        Ok(())
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.waiters.0.lock();
        state.waiting.remove(&self.number);
        if state.leader == Some(self.number) {
            let next = state.waiting.iter().find(|(_, waiting)| !waiting.is_over());
            let next = next.map(|(number, waiting)| (*number, Arc::clone(&waiting.changed)));
            state.leader = next.as_ref().map(|(number, _)| *number);
            if let Some((_, changed)) = next {
                changed.notify_one();
            }
        }
    }
}

/// The same error for another thread. The source keeps its text, not its type.
fn again(error: &TaskError) -> TaskError {
    match error {
        TaskError::Busy { waited } => TaskError::Busy { waited: *waited },
        TaskError::FileReplaced { path } => TaskError::FileReplaced { path: path.clone() },
        TaskError::Unreachable { doing, source } => TaskError::Unreachable { doing, source: source.to_string().into() },
        TaskError::Database { doing, source } => TaskError::Database { doing, source: source.to_string().into() },
        other => TaskError::Database { doing: "waiting for tasks", source: other.to_string().into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{AsyncRequest, Executor};
    use crate::sync::{AtomicUsize, Ordering, spin_turn};

    const THREADS: usize = 50;

    /// What a look finds, with nothing but the signal to tell of it.
    #[derive(Clone, Copy)]
    enum Found {
        NoEnd,
        All,
        One(usize),
        NoServer,
    }

    struct Database {
        waiters: Waiters,
        signal: Signal,
        looks: AtomicUsize,
        found: Mutex<Found>,
    }

    impl Database {
        fn new() -> Arc<Database> {
            let (waiters, signal, looks) = (Waiters::default(), Signal::new(), AtomicUsize::new(0));
            Arc::new(Database { waiters, signal, looks, found: Mutex::new(Found::NoEnd) })
        }

        fn look(&self, tasks: &[TaskRef]) -> Result<Vec<Code>> {
            let found = *self.found.lock();
            self.looks.fetch_add(1, Ordering::SeqCst);
            let is_ended = |task: &TaskRef| match found {
                Found::NoServer => {
                    Err(TaskError::Unreachable { doing: "looking", source: "there is no server".into() })
                }
                Found::NoEnd => Ok(false),
                Found::All => Ok(true),
                Found::One(n) => Ok(task.identifier == n.to_string()),
            };
            let code = |ended| if ended { TaskStatus::Finished } else { TaskStatus::Running }.code();
            tasks.iter().map(|task| Ok(Some(code(is_ended(task)?)))).collect()
        }

        fn wait_for(self: &Arc<Database>, n: usize, executor: &Executor) -> AsyncRequest<Result<()>> {
            let database = Arc::clone(self);
            let wait = move || {
                let task = TaskRef { task_type: "t".into(), identifier: n.to_string() };
                let look = |tasks: &[TaskRef]| database.look(tasks);
                let (day, never) = (Duration::from_secs(86_400), Deadline::start(None));
                let interruptible = |number| {
                    let database = Arc::clone(&database);
                    interrupt::on_cancel(move || database.waiters.interrupt(number, &database.signal))
                };
                let tasks = (vec![task], Need::All);
                let ends = database.waiters.wait(&look, &database.signal, &interruptible, day, tasks, never)?;
                assert_eq!(ends, [Some(TaskStatus::Finished)]);
                Ok(())
            };
            executor.spawn(wait).expect("accepted")
        }

        fn tell(&self, found: Found) {
            *self.found.lock() = found;
            self.signal.ring(News::End);
        }

        /// Each has looked once, and the leader once more, when it began to lead.
        fn until_all_wait(&self, threads: usize) {
            let all_wait = || {
                let state = self.waiters.0.lock();
                state.waiting.len() == threads && state.leader.is_some()
            };
            let start = Instant::now();
            while !all_wait() || self.looks.load(Ordering::SeqCst) <= threads {
                assert!(start.elapsed() < Duration::from_secs(60), "they never wait");
                spin_turn();
            }
        }
    }

    fn threads(count: usize) -> Executor {
        Executor::builder().threads(count).build().expect("threads")
    }

    #[test]
    fn the_ends_of_all_tasks_cost_all_waiters_one_look() {
        let (database, executor) = (Database::new(), threads(THREADS));
        let waits: Vec<_> = (0..THREADS).map(|n| database.wait_for(n, &executor)).collect();
        database.until_all_wait(THREADS);
        database.tell(Found::All);
        for wait in waits {
            wait.wait(None).expect("no panic").expect("it ended");
        }
        assert_eq!(database.looks.load(Ordering::SeqCst), THREADS + 2);
    }

    #[test]
    fn what_a_leaders_look_fails_with_is_told_to_all_at_once() {
        let (database, executor) = (Database::new(), threads(THREADS));
        let waits: Vec<_> = (0..THREADS).map(|n| database.wait_for(n, &executor)).collect();
        database.until_all_wait(THREADS);
        database.tell(Found::NoServer);
        for wait in waits {
            let error = wait.wait(None).expect("no panic").expect_err("there is no server");
            assert!(matches!(error, TaskError::Unreachable { .. }), "{error:?}");
        }
        assert_eq!(database.looks.load(Ordering::SeqCst), THREADS + 2);
    }

    #[test]
    fn a_cancel_ends_the_wait_of_a_leader_and_of_a_follower() {
        for cancelled in [0, 1] {
            let (database, executor) = (Database::new(), threads(2));
            let mut waits = vec![database.wait_for(0, &executor)];
            database.until_all_wait(1);
            waits.push(database.wait_for(1, &executor));
            database.until_all_wait(2);
            let (ended, goes_on) = (waits.remove(cancelled), waits.remove(0));
            assert!(!ended.cancel(), "it runs");
            let error = ended.wait(None).expect("no panic").expect_err("it was cancelled");
            assert!(matches!(error, TaskError::Interrupted), "{error:?}");
            database.tell(Found::All);
            goes_on.wait(None).expect("no panic").expect("it ended");
        }
    }

    #[test]
    fn a_leader_that_leaves_hands_the_lead_on() {
        let (database, executor) = (Database::new(), threads(2));
        let first = database.wait_for(0, &executor);
        database.until_all_wait(1);
        let second = database.wait_for(1, &executor);
        database.until_all_wait(2);
        for (n, wait) in [first, second].into_iter().enumerate() {
            database.tell(Found::One(n));
            wait.wait(None).expect("no panic").expect("it ended");
        }
        let state = database.waiters.0.lock();
        assert!(state.leader.is_none() && state.waiting.is_empty());
    }
}
