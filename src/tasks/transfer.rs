//! Tasks that wait, as lines of JSON: to another file, another server, the other engine.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::durable::{Carried, Entry, Event, Kind, State};
use super::engine::Part;
use super::error::{Result, TaskError};
use super::look::TaskFilter;
use super::new_task::NewTask;
use super::queue::TaskQueue;
use super::status::{TaskInfo, TaskStatus};

/// How many tasks are enqueued in one step, and from how many bytes of lines on.
const MOST_TASKS: usize = 1_000;
const MOST_BYTES: usize = 8 << 20;

/// What came of an [import](TaskQueue::import).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Tasks that were enqueued.
    pub enqueued: u64,
    /// Tasks that were there already, by type and identifier.
    pub existing: u64,
}

impl TaskQueue {
    /// Writes what waits of what a filter fits, one line of JSON for each task, oldest first: type, identifier, input, message,
    /// priority, time to start, and order. Returns how many. Those are the tasks that are `Accepted`, for a retry, too; what
    /// workers hold, what is paused in the middle of its work, and what has ended stays out of it. It reads page by page, not
    /// all of one moment: [pause](TaskQueue::pause) the queue and let its workers drain first.
    ///
    /// Together with [`import`](TaskQueue::import) it moves what waits to another queue, of either engine. Keys of
    /// [uniqueness](NewTask::unique), contexts, logs and counts of failures stay behind. A [durable function](super::durable) takes
    /// its stored steps and its events along; where it is one of a family of parent and children that has not ended, it can't
    /// be moved. Delete what was moved afterwards with [`delete_all`](TaskQueue::delete_all).
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{NewTask, TaskFilter, TaskQueue, TaskType};
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-export-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// let old = TaskQueue::open(folder.join("old.db"))?;
    /// old.register(TaskType::new("mail"))?;
    /// old.enqueue(NewTask::new("mail", "order-1").input("thank you"))?;
    /// let mut lines = Vec::new(); // or a file
    /// old.export(&TaskFilter::new(), &mut lines)?;
    ///
    /// let new = TaskQueue::open(folder.join("new.db"))?; // or `connect`
    /// new.register(TaskType::new("mail"))?;
    /// assert_eq!(new.import(&*lines)?.enqueued, 1);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of the database; [`TaskError::Transfer`] for those of `to`, and for a task that waits for children or is waited for by
    /// its parent.
    pub fn export(&self, filter: &TaskFilter, mut to: impl Write) -> Result<u64> {
        let waiting =
            TaskFilter { newest_first: false, ..filter.among(super::look::Statuses::of([TaskStatus::Accepted])) };
        let mut count = 0;
        for task in self.list_all(&waiting) {
            let task = task?;
            // Deleted, or taken and ended, since it was listed.
            let Some(input) = self.input_of(&task)? else { continue };
            let carried = self.engine().journal().carried(task.id)?;
            check_movable(&task, &carried)?;
            writeln!(to, "{}", to_line(&task, &input, &carried)).map_err(|error| failed("writing tasks", error))?;
            count += 1;
        }
        to.flush().map_err(|error| failed("writing tasks", error))?;
        Ok(count)
    }

    fn input_of(&self, task: &TaskInfo) -> Result<Option<Vec<u8>>> {
        match self.engine().load(task.id, Part::Input) {
            Err(TaskError::NotFound { .. } | TaskError::Stale { .. }) => Ok(None),
            input => input,
        }
    }

    /// Enqueues the tasks that [`export`](TaskQueue::export) has written, in batches of a thousand. Those of which the queue has one of that
    /// type and identifier are left out and counted: so an import that broke off can be done again.
    ///
    /// # Errors
    /// [`TaskError::Transfer`] for a line that is none of `export`'s, with its number, and for those of `from`; those of
    /// [`enqueue_many`](TaskQueue::enqueue_many). Earlier batches stay.
    pub fn import(&self, from: impl BufRead) -> Result<Imported> {
        let mut imported = Imported::default();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (number, line) in (1_u64..).zip(from.lines()) {
            let line = line.map_err(|error| failed("reading tasks", error))?;
            if line.trim().is_empty() {
                continue;
            }
            let (task, carried) = from_line(&line).ok_or_else(|| {
                failed("reading tasks", format!("line {number} is no task: use what `export` has written"))
            })?;
            if carried != Carried::default() {
                // In its turn: an order by key goes by who was enqueued first.
                self.import_batch(std::mem::take(&mut batch), &mut imported)?;
                bytes = 0;
                self.import_function(task, &carried, &mut imported)?;
                continue;
            }
            bytes += line.len();
            batch.push(task);
            if batch.len() >= MOST_TASKS || bytes >= MOST_BYTES {
                self.import_batch(std::mem::take(&mut batch), &mut imported)?;
                bytes = 0;
            }
        }
        self.import_batch(batch, &mut imported)?;
        Ok(imported)
    }

    fn import_function(&self, task: NewTask, carried: &Carried, imported: &mut Imported) -> Result<()> {
        self.engine().may_write()?;
        for task in self.checked([task])? {
            match self.engine().journal().restore(&task, carried) {
                Ok(()) => imported.enqueued += 1,
                Err(TaskError::Duplicate { .. }) => imported.existing += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn import_batch(&self, batch: Vec<NewTask>, imported: &mut Imported) -> Result<()> {
        match self.enqueue_many(batch.iter().cloned()) {
            Err(TaskError::Duplicate { .. }) => {}
            enqueued => {
                imported.enqueued += enqueued?.len() as u64;
                return Ok(());
            }
        }
        // Some are there already: seldom, so one by one will do.
        for task in batch {
            match self.enqueue(task) {
                Ok(_) => imported.enqueued += 1,
                Err(TaskError::Duplicate { .. }) => imported.existing += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn failed(doing: &'static str, source: impl Into<crate::error::BoxError>) -> TaskError {
    TaskError::Transfer { doing, source: source.into() }
}

/// Parents and children know each other by numbers, which mean nothing in another database.
fn check_movable(task: &TaskInfo, carried: &Carried) -> Result<()> {
    let TaskInfo { task_type, identifier, .. } = task;
    let waits = |entry: &Entry| entry.kind == Kind::Children && entry.state == State::Begun && entry.body.is_some();
    let why = match carried {
        Carried { is_child: true, .. } => "its parent waits for it",
        Carried { steps, .. } if steps.iter().any(waits) => "it waits for children",
        _ => return Ok(()),
    };
    let advice = "leave it out by a filter, or let the family end first";
    Err(failed(
        "writing tasks",
        format!("the task `{identifier}` of type `{task_type}` can't be moved, because {why}: {advice}"),
    ))
}

/// Bytes that are UTF-8 are readable; others are in hexadecimal digits.
fn put_bytes(line: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => line[name] = text.into(),
        Err(_) => {
            line[format!("{name}_hex")] = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        }
    }
}

/// `None` within for bytes that are missing.
fn take_bytes(line: &Value, name: &str) -> Option<Option<Vec<u8>>> {
    match (&line[name], &line[format!("{name}_hex")]) {
        (Value::String(text), Value::Null) => Some(Some(text.clone().into_bytes())),
        (Value::Null, Value::String(digits)) => from_hex(digits).map(Some),
        (Value::Null, Value::Null) => Some(None),
        _ => None,
    }
}

fn step_to_value(entry: &Entry) -> Value {
    let Entry { name, number, ord, kind, state, attempts, until, is_json, body } = entry;
    let mut value = json!({
        "name": name, "number": number, "ord": ord, "kind": kind.word(), "state": state.word(), "attempts": attempts,
        "until": until, "is_json": is_json,
    });
    body.iter().for_each(|body| put_bytes(&mut value, "body", body));
    value
}

fn step_from_value(value: &Value) -> Option<Entry> {
    Some(Entry {
        name: value["name"].as_str()?.to_owned(),
        number: value["number"].as_i64()?,
        ord: value["ord"].as_i64()?,
        kind: Kind::ALL.into_iter().find(|kind| value["kind"] == kind.word())?,
        state: State::ALL.into_iter().find(|state| value["state"] == state.word())?,
        attempts: value["attempts"].as_i64()?,
        until: value["until"].as_i64(),
        is_json: value["is_json"].as_bool()?,
        body: take_bytes(value, "body")?.map(Arc::from),
    })
}

fn event_to_value(event: &Event) -> Value {
    let Event { number, name, key, body, taken } = event;
    let mut value = json!({"number": number, "name": name, "key": key, "taken": taken});
    body.iter().for_each(|body| put_bytes(&mut value, "body", body));
    value
}

fn event_from_value(value: &Value) -> Option<Event> {
    Some(Event {
        number: value["number"].as_i64()?,
        name: value["name"].as_str()?.to_owned(),
        key: value["key"].as_str().map(str::to_owned),
        body: take_bytes(value, "body")?.map(Arc::from),
        taken: value["taken"].as_bool()?,
    })
}

fn to_line(task: &TaskInfo, input: &[u8], carried: &Carried) -> Value {
    let mut line = json!({
        "type": task.task_type,
        "identifier": task.identifier,
        "priority": task.priority,
        "run_at": millis(task.run_at),
        "key": task.key,
        "is_modifier": task.is_modifier,
        "message": task.message,
    });
    put_bytes(&mut line, "input", input);
    if !carried.steps.is_empty() {
        line["steps"] = carried.steps.iter().map(step_to_value).collect();
    }
    if !carried.events.is_empty() {
        line["events"] = carried.events.iter().map(event_to_value).collect();
    }
    line
}

fn from_line(line: &str) -> Option<(NewTask, Carried)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let input = take_bytes(&line, "input")??;
    let list = |name: &str| match &line[name] {
        Value::Null => Some(Vec::new()),
        list => list.as_array().cloned(),
    };
    let steps = list("steps")?.iter().map(step_from_value).collect::<Option<_>>()?;
    let events = list("events")?.iter().map(event_from_value).collect::<Option<_>>()?;
    let mut task = NewTask::new(line["type"].as_str()?, line["identifier"].as_str()?).input_bytes(input);
    task.priority = line["priority"].as_i64()?.try_into().ok()?;
    task.key = line["key"].as_str().map(str::to_owned);
    task.is_modifier = line["is_modifier"].as_bool()?;
    let run_at = UNIX_EPOCH.checked_add(Duration::from_millis(line["run_at"].as_u64()?))?;
    let task = task.run_at(run_at).message(line["message"].as_str().unwrap_or_default());
    Some((task, Carried { is_child: false, steps, events }))
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if digits.len() % 2 != 0 || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}
