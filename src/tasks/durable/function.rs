//! A run of a function: what it asks for, held against what is stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::journal::{Entry, Journal, Kept, Kind, State, Taken};
use crate::error::BoxError;
use crate::sync::Mutex;
use crate::tasks::engine::Wait;
use crate::tasks::error::{Result, TaskError};
use crate::tasks::handler::{Handler, TaskContext};
use crate::tasks::task_type::check_name;
use crate::trace::event;

/// As good as never, and still a time that every database can show.
pub(super) const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The handler that runs `work` as a durable function: its input is the task's, read from JSON, and
/// what it returns is stored as the task's response.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use fulmar::tasks::durable::{Durable, function};
/// use fulmar::tasks::{NewTask, TaskError, TaskQueue, TaskType, Worker};
///
/// fn greet(cx: &Durable<'_>, name: String) -> Result<String, TaskError> {
///     let greeting: String = cx.step("greet", || Ok::<_, TaskError>(format!("hello {name}")))?;
///     Ok(greeting)
/// }
///
/// # let folder = std::env::temp_dir().join(format!("fulmar-function-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
/// let queue = TaskQueue::open(folder.join("queue.db"))?;
/// queue.register(TaskType::new("greet"))?;
/// let task = queue.enqueue(NewTask::new("greet", "one").input("you"))?;
/// let worker = Worker::builder(&queue).handle("greet", function(greet)).start()?;
/// task.wait(None)?;
/// assert_eq!(task.response()?.expect("a greeting").json::<String>()?, "hello you");
/// # worker.drain(None)?;
/// # std::fs::remove_dir_all(&folder).ok();
/// # }
/// # Ok::<(), fulmar::tasks::TaskError>(())
/// ```
pub fn function<I, R, E, F>(work: F) -> impl Handler
where
    F: Fn(&Durable<'_>, I) -> Result<R, E> + Send + Sync + 'static,
    I: DeserializeOwned,
    R: Serialize,
    E: Into<BoxError>,
{
    move |task: &TaskContext| -> Result<(), BoxError> {
        let input = task.outlast(|| task.input())?;
        let run = Durable::new(task);
        let returned = work(&run, input);
        run.end(returned)
    }
}

/// What a durable function may ask for. Each call is known by its name and by how often the
/// function has used that name.
pub struct Durable<'a> {
    task: &'a TaskContext,
    state: Mutex<Run>,
}

#[derive(Default)]
struct Run {
    stored: Option<Stored>,
    /// How often a name was used.
    used: HashMap<String, i64>,
    /// Patches that this run goes without.
    unpatched: HashSet<String>,
    /// The function waits for that: no call of it gets further.
    waits: Option<String>,
    /// A call came after that.
    has_swallowed: bool,
    changed: Option<(String, String)>,
    /// The step whose closure runs.
    inside: Option<String>,
}

struct Stored {
    entries: HashMap<(String, i64), Entry>,
    /// Those of them that this run has not asked for, patches aside, by their order.
    unasked: BTreeMap<i64, (String, i64)>,
    next: i64,
    /// The database's time, and ours then.
    now: i64,
    at: Instant,
}

impl<'a> Durable<'a> {
    fn new(task: &'a TaskContext) -> Durable<'a> {
        Durable { task, state: Mutex::new(Run::default()) }
    }

    /// The task that the function is.
    pub fn task(&self) -> &TaskContext {
        self.task
    }

    /// Waits for `time` from the end of the run in which it is first called: the pause and its time
    /// are stored in one commit. The thread goes back, and no crash begins the time anew then.
    ///
    /// # Errors
    /// [`TaskError::Paused`], for `?`; those of [`step`](Durable::step) but the step's own.
    pub fn sleep(&self, name: &str, time: Duration) -> Result<()> {
        let entry = self.ask(name, Kind::Sleep)?;
        let what = format!("sleeps: `{name}`");
        match (entry.state, entry.until) {
            // Our time is never ahead of the database's. If it is behind, because a busy machine
            // has read an answer late, the database still ends the pause at the time that it has
            // stored.
            (State::Done, Some(until)) if until > self.now() => {
                Err(self.wait(&what, Wait { until: Some(until), ..Wait::default() }))
            }
            (State::Done, _) => Ok(()),
            _ if time.is_zero() => self.keep(Entry { state: State::Done, ..entry }),
            _ => {
                let entry = Some(Entry { state: State::Done, ..entry });
                Err(self.wait(&what, Wait { after: time, until: None, entry, is_timed: true }))
            }
        }
    }

    /// The next event of this name that was [sent](crate::tasks::TaskQueue::send_event) to the
    /// task: one that came before, or one that comes within `limit` of the first time that this is
    /// called. Meanwhile it holds nothing.
    ///
    /// # Errors
    /// [`TaskError::Timeout`] if none came in time, which is stored, too; those of
    /// [`sleep`](Durable::sleep).
    pub fn event<T: DeserializeOwned>(&self, name: &str, limit: impl Into<Option<Duration>>) -> Result<T> {
        let limit = limit.into();
        let timeout = TaskError::Timeout { limit: limit.unwrap_or_default(), left: 1 };
        let entry = self.ask(name, Kind::Event)?;
        let (name, number) = (entry.name.clone(), entry.number);
        let body = match (entry.state, &entry.body) {
            (State::Done, Some(body)) => Arc::clone(body),
            (State::Failed, _) => return Err(timeout),
            _ => match self.journal(|journal| journal.take_event(&self.task.holder(), &entry, limit))? {
                Taken::Event(body) => body,
                Taken::TimedOut => return Err(timeout),
                Taken::Wait(until) => {
                    let wait = Wait { after: FOR_EVER, until, ..Wait::default() };
                    return Err(self.wait(&format!("waits for the event `{name}`"), wait));
                }
                Taken::Stale => return Err(self.stale()),
            },
        };
        self.read(&name, number, &body)
    }

    /// Whether to run code that was added later. A run that was there before, and has gone past
    /// this place, gets false each time; all others get true. To leave code out, call the old code
    /// if this says false.
    ///
    /// # Errors
    /// Those of [`step`](Durable::step) but the step's own.
    pub fn patch(&self, name: &str) -> Result<bool> {
        check_name("the name of a patch", name)?;
        let entry = {
            let mut state = self.ready()?;
            if state.unpatched.contains(name) {
                return Ok(false);
            }
            let stored = state.stored(self)?;
            let key = (name.to_owned(), 0);
            match stored.entries.get(&key) {
                Some(entry) if entry.kind == Kind::Patch => return Ok(true),
                Some(entry) => {
                    let before = describe(entry);
                    return Err(state.change(before, format!("the code asks for a patch `{name}`")));
                }
                None if !stored.unasked.is_empty() => {
                    state.unpatched.insert(name.to_owned());
                    return Ok(false);
                }
                None => {
                    let entry = stored.new_entry(key, Kind::Patch);
                    stored.entries.insert((entry.name.clone(), 0), entry.clone());
                    entry
                }
            }
        };
        self.keep(Entry { state: State::Done, ..entry })?;
        Ok(true)
    }

    /// What is stored of the next use of a name, or an entry to be stored.
    pub(super) fn ask(&self, name: &str, kind: Kind) -> Result<Entry> {
        check_name("the name of a step", name)?;
        let mut state = self.ready()?;
        let number = *state.used.get(name).unwrap_or(&0);
        let key = (name.to_owned(), number);
        let stored = state.stored(self)?;
        let entry = match stored.entries.get(&key) {
            Some(entry) if entry.kind != kind => {
                let before = describe(entry);
                return Err(state.change(before, format!("the code asks for a {} of that name", kind.word())));
            }
            Some(entry) => {
                let entry = entry.clone();
                stored.unasked.remove(&entry.ord);
                entry
            }
            None => {
                let unasked = stored.unasked.values().next().and_then(|key| stored.entries.get(key));
                if let Some(before) = unasked.map(describe) {
                    let asked = format!("the code asks for the {} {} before it", kind.word(), numbered(name, number));
                    return Err(state.change(before, asked));
                }
                stored.new_entry(key, kind)
            }
        };
        state.used.insert(name.to_owned(), number + 1);
        Ok(entry)
    }

    /// The run, if it may go on.
    fn ready(&self) -> Result<crate::sync::MutexGuard<'_, Run>> {
        let mut state = self.state.lock();
        if let Some((stored, asked)) = &state.changed {
            return Err(TaskError::CodeChanged { stored: stored.clone(), asked: asked.clone() });
        }
        if state.waits.is_some() {
            state.has_swallowed = true;
            return Err(TaskError::Paused);
        }
        if let Some(step) = &state.inside {
            let text = format!("the step `{step}` is at work: a step has no steps, make it a child or a function");
            return Err(TaskError::Invalid(text));
        }
        if self.task.is_lost() {
            return Err(TaskError::Stale { task: self.task.id() });
        }
        if self.task.is_cancelled() {
            return Err(TaskError::Cancelled);
        }
        Ok(state)
    }

    /// Stores an entry.
    pub(super) fn keep(&self, entry: Entry) -> Result<()> {
        match self.journal(|journal| journal.keep(&self.task.holder(), &entry))? {
            Kept::Done => Ok(()),
            Kept::Stale => Err(self.stale()),
        }
    }

    pub(super) fn stale(&self) -> TaskError {
        self.task.set_lost().interrupt();
        TaskError::Stale { task: self.task.id() }
    }

    /// Has the task wait, and the function return.
    pub(super) fn wait(&self, what: &str, wait: Wait) -> TaskError {
        self.task.wait(Wait { after: wait.after.min(FOR_EVER), ..wait });
        self.task.last_message(what);
        self.state.lock().waits = Some(what.to_owned());
        TaskError::Paused
    }

    pub(super) fn set_inside(&self, step: Option<&str>) {
        self.state.lock().inside = step.map(str::to_owned);
    }

    /// A stored value.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str, number: i64, body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).map_err(|error| {
            let stored = format!("of {} a value is stored that no longer fits", numbered(name, number));
            let asked = format!("the code asks for `{}`: {error}", std::any::type_name::<T>());
            self.state.lock().change(stored, asked)
        })
    }

    /// A call of the journal, which outlasts an outage of the database.
    pub(super) fn journal<R>(&self, call: impl Fn(&dyn Journal) -> Result<R>) -> Result<R> {
        self.task.outlast(|| call(self.task.queue().engine().journal()))
    }

    /// The database's time, or a little before it: its answer may have been read late.
    fn now(&self) -> i64 {
        let state = self.state.lock();
        state.stored.as_ref().map_or(0, |stored| {
            stored.now.saturating_add(i64::try_from(stored.at.elapsed().as_millis()).unwrap_or(i64::MAX))
        })
    }

    /// Ends the run.
    fn end<R: Serialize, E: Into<BoxError>>(&self, returned: Result<R, E>) -> Result<(), BoxError> {
        let state = self.state.lock();
        if let Some(what) = &state.waits {
            if state.has_swallowed || returned.is_ok() {
                event!(WARN, "a function swallowed the error that pauses it", task = self.task.id());
                self.task.last_message(&format!("{what}; the function swallowed the error that says so"));
            }
            return Ok(());
        }
        if let Some((stored, asked)) = &state.changed {
            return Err(TaskError::CodeChanged { stored: stored.clone(), asked: asked.clone() }.into());
        }
        let value = returned.map_err(Into::into)?;
        if let Some(stored) = &state.stored {
            if let Some(before) = stored.unasked.values().next().and_then(|key| stored.entries.get(key)) {
                let asked = "the code came to its end without it".to_owned();
                return Err(TaskError::CodeChanged { stored: describe(before), asked }.into());
            }
        }
        Ok(self.task.store_json(&value)?)
    }
}

impl Run {
    /// What is stored, which is read once.
    fn stored(&mut self, run: &Durable<'_>) -> Result<&mut Stored> {
        if self.stored.is_none() {
            let (now, entries) = run.journal(|journal| journal.steps(run.task.id()))?;
            let steps = entries.iter().filter(|entry| entry.kind != Kind::Patch);
            let unasked = steps.map(|entry| (entry.ord, (entry.name.clone(), entry.number))).collect();
            let next = entries.last().map_or(0, |entry| entry.ord + 1);
            let entries = entries.into_iter().map(|entry| ((entry.name.clone(), entry.number), entry)).collect();
            self.stored = Some(Stored { entries, unasked, next, now, at: Instant::now() });
        }
        self.stored.as_mut().ok_or(TaskError::Paused)
    }

    fn change(&mut self, stored: String, asked: String) -> TaskError {
        self.changed.get_or_insert((stored.clone(), asked.clone()));
        TaskError::CodeChanged { stored, asked }
    }
}

impl Stored {
    fn new_entry(&mut self, (name, number): (String, i64), kind: Kind) -> Entry {
        let ord = self.next;
        self.next += 1;
        let (state, attempts, until, is_json, body) = (State::Begun, 0, None, true, None);
        Entry { name, number, ord, kind, state, attempts, until, is_json, body }
    }
}

fn describe(entry: &Entry) -> String {
    format!("the {} {} is stored", entry.kind.word(), numbered(&entry.name, entry.number))
}

/// A name, and which use of it is meant if it isn't the first.
pub(super) fn numbered(name: &str, number: i64) -> String {
    if number == 0 { format!("`{name}`") } else { format!("`{name}` (use {})", number + 1) }
}

impl fmt::Debug for Durable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable").field("task", self.task).finish_non_exhaustive()
    }
}
