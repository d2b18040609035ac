//! Tasks that no worker holds, as lines of JSON: to another file, another server, the other engine.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::durable::{Carried, Entry, Event, Kind, Past, State};
use super::engine::{Part, TaskRef};
use super::error::{Result, TaskError};
use super::look::{Statuses, TaskFilter};
use super::new_task::NewTask;
use super::queue::TaskQueue;
use super::status::{Response, TaskInfo, TaskStatus};

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
    /// Writes the tasks that a filter fits and that no worker holds, one line of JSON for each,
    /// oldest first. Returns how many.
    ///
    /// Those are the tasks that have not ended: `Accepted`, for a retry, too, and `Paused`. If the
    /// filter names [statuses](TaskFilter::status), those that have ended come along where it names
    /// theirs. Tasks that workers hold stay out of it. It reads page by page, not all of one
    /// moment: [pause](TaskQueue::pause) the queue and let its workers drain first.
    ///
    /// A line has type, identifier, input, message, priority, time to start, and order; of a task
    /// that has been at work, also where it stands, its counts, its checkpoint, response and log.
    /// Together with [`import`](TaskQueue::import) it moves tasks to another queue, of either
    /// engine, where they go on, or are retried, as they would have been here. Keys of
    /// [uniqueness](NewTask::unique) and contexts stay behind. A [durable function](super::durable)
    /// takes its stored steps and its events along; where it is one of a family of parent and
    /// children that has not ended, it can't be moved. Delete what was moved afterwards with
    /// [`delete_all`](TaskQueue::delete_all).
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
    /// Those of the database; [`TaskError::Transfer`] for those of `to`, and for a task that waits
    /// for children or is waited for by its parent.
    pub fn export(&self, filter: &TaskFilter, mut to: impl Write) -> Result<u64> {
        use TaskStatus::{Accepted, Cancelled, Failed, Finished, Paused};
        let statuses = match filter.statuses {
            None => Statuses::of([Accepted, Paused]),
            Some(_) => Statuses::of([Accepted, Paused, Finished, Failed, Cancelled]),
        };
        let mut count = 0;
        for task in self.list_all(&TaskFilter { newest_first: false, ..filter.among(statuses) }) {
            let task = task?;
            let Some((input, carried)) = self.carried(&task)? else { continue };
            check_movable(&task, &carried)?;
            writeln!(to, "{}", to_line(&task, &input, &carried)).map_err(|error| failed("writing tasks", error))?;
            count += 1;
        }
        to.flush().map_err(|error| failed("writing tasks", error))?;
        Ok(count)
    }

    /// A task's input and what else goes with it; `None` if it was deleted since it was listed.
    fn carried(&self, task: &TaskInfo) -> Result<Option<(Vec<u8>, Carried)>> {
        let load = |part| match self.engine().load(task.id, part) {
            Err(TaskError::NotFound { .. } | TaskError::Stale { .. }) => Ok(None),
            loaded => loaded,
        };
        let Some(input) = load(Part::Input)? else { return Ok(None) };
        let mut carried = self.engine().journal().carried(task.id)?;
        if task.status == TaskStatus::Accepted && task.starts == 0 {
            return Ok(Some((input, carried)));
        }
        let name = TaskRef { task_type: task.task_type.clone(), identifier: task.identifier.clone() };
        let (Some(log), Some(response)) = (self.engine().log(&name)?, self.engine().response(&name)?) else {
            return Ok(None);
        };
        carried.past = Some(Past {
            status: task.status,
            starts: task.starts,
            failures: task.failures,
            lost: task.lost,
            progress: task.progress,
            created: millis(task.created),
            ended: task.ended.map(millis),
            checkpoint: load(Part::Checkpoint)?,
            response,
            log: log.into_iter().map(|entry| (millis(entry.time), entry.status, entry.message)).collect(),
        });
        Ok(Some((input, carried)))
    }

    /// Enqueues the tasks that [`export`](TaskQueue::export) has written, in batches of a thousand;
    /// those that have been at work come one by one, as they were. Those of which the queue has one
    /// of that type and identifier are left out and counted: so an import that broke off can be
    /// done again. What is paused or has ended may go beyond the
    /// [capacity](TaskQueue::set_capacity).
    ///
    /// # Errors
    /// [`TaskError::Transfer`] for a line that is none of `export`'s, with its number, and for
    /// those of `from`; those of [`enqueue_many`](TaskQueue::enqueue_many). What came before it
    /// stays.
    pub fn import(&self, from: impl BufRead) -> Result<Imported> {
        let mut imported = Imported::default();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (number, line) in (1_u64..).zip(from.lines()) {
            let line = line.map_err(|error| failed("reading tasks", error))?;
            if line.trim().is_empty() {
                continue;
            }
            let (task, carried) = from_line(&line).ok_or_else(|| {
                failed("reading tasks", format!("line {number} isn't a task: use what `export` has written"))
            })?;
            if carried != Carried::default() {
                // In its turn: an order by key goes by who was enqueued first.
                self.import_batch(std::mem::take(&mut batch), &mut imported)?;
                bytes = 0;
                self.import_one(task, &carried, &mut imported)?;
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

    fn import_one(&self, task: NewTask, carried: &Carried, imported: &mut Imported) -> Result<()> {
        self.engine().may_write()?;
        for task in self.checked([task])? {
            let name = (task.task_type.clone(), task.identifier.clone());
            self.note_import(&name, self.engine().journal().restore(&task, carried), imported)?;
        }
        Ok(())
    }

    fn import_batch(&self, batch: Vec<NewTask>, imported: &mut Imported) -> Result<()> {
        match self.enqueue_many(batch.iter().cloned()) {
            // Some may be there already: seldom, so one by one will do.
            Err(TaskError::Duplicate { .. } | TaskError::QueueFull { .. }) => {}
            enqueued => {
                imported.enqueued += enqueued?.len() as u64;
                return Ok(());
            }
        }
        for task in batch {
            let name = (task.task_type.clone(), task.identifier.clone());
            self.note_import(&name, self.enqueue(task).map(drop), imported)?;
        }
        Ok(())
    }

    /// Counts a task as enqueued, or as one that the queue had.
    fn note_import(&self, name: &(String, String), outcome: Result<()>, imported: &mut Imported) -> Result<()> {
        match outcome {
            Ok(()) => imported.enqueued += 1,
            Err(TaskError::Duplicate { .. }) => imported.existing += 1,
            // What is there already needs no room.
            Err(full @ TaskError::QueueFull { .. }) => match self.status(&name.0, &name.1) {
                Ok(_) => imported.existing += 1,
                Err(TaskError::NotFound { .. }) => return Err(full),
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
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

fn past_to_value(past: &Past) -> Value {
    let Past { status, starts, failures, lost, progress, created, ended, checkpoint, response, log } = past;
    let entry = |(time, status, message): &(i64, TaskStatus, String)| json!([time, status.to_string(), message]);
    let mut value = json!({
        "status": status.to_string(), "starts": starts, "failures": failures, "lost": lost, "progress": progress,
        "created": created, "ended": ended, "log": log.iter().map(entry).collect::<Value>(),
    });
    checkpoint.iter().for_each(|body| put_bytes(&mut value, "checkpoint", body));
    if let Some(response) = response {
        value["response"] = json!({"media_type": response.media_type});
        put_bytes(&mut value["response"], "body", &response.body);
    }
    value
}

/// Reads what `past_to_value` wrote. `None` if a part is missing or of another kind, if the status
/// is one of a task that a worker holds, or if the task has ended without a time of its end, or the
/// reverse.
fn past_from_value(value: &Value) -> Option<Past> {
    let status =
        |value: &Value| TaskStatus::ALL.into_iter().find(|status| value.as_str() == Some(&*status.to_string()));
    let count = |name: &str| value[name].as_u64().and_then(|count| u32::try_from(count).ok());
    let entry = |entry: &Value| Some((entry[0].as_i64()?, status(&entry[1])?, entry[2].as_str()?.to_owned()));
    let response = match &value["response"] {
        Value::Null => None,
        response => Some(Response {
            media_type: response["media_type"].as_str()?.to_owned(),
            body: take_bytes(response, "body")??,
        }),
    };
    let past = Past {
        status: status(&value["status"])?,
        starts: count("starts")?,
        failures: count("failures")?,
        lost: count("lost")?,
        progress: value["progress"].as_f64()? as f32,
        created: value["created"].as_i64()?,
        ended: value["ended"].as_i64(),
        checkpoint: take_bytes(value, "checkpoint")?,
        response,
        log: value["log"].as_array()?.iter().map(entry).collect::<Option<_>>()?,
    };
    // No worker has what is moved, and what has ended has done so at a time.
    let is_held = matches!(past.status, TaskStatus::Scheduled | TaskStatus::Running);
    (!is_held && past.status.is_ended() == past.ended.is_some()).then_some(past)
}

/// A task as one line of `export`, for `from_line`: what it was enqueued with, its last message,
/// and, if it has them, what became of it so far, its steps and its events.
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
    if let Some(past) = &carried.past {
        line["past"] = past_to_value(past);
    }
    if !carried.steps.is_empty() {
        line["steps"] = carried.steps.iter().map(step_to_value).collect();
    }
    if !carried.events.is_empty() {
        line["events"] = carried.events.iter().map(event_to_value).collect();
    }
    line
}

/// Reads a line that `to_line` wrote: the task to enqueue, and what else is to be restored with it.
/// `None` if the line is not JSON, or a part is missing or makes no sense.
fn from_line(line: &str) -> Option<(NewTask, Carried)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let input = take_bytes(&line, "input")??;
    let list = |name: &str| match &line[name] {
        Value::Null => Some(Vec::new()),
        list => list.as_array().cloned(),
    };
    let steps = list("steps")?.iter().map(step_from_value).collect::<Option<_>>()?;
    let events = list("events")?.iter().map(event_from_value).collect::<Option<_>>()?;
    let past = match &line["past"] {
        Value::Null => None,
        past => Some(past_from_value(past)?),
    };
    let mut task = NewTask::new(line["type"].as_str()?, line["identifier"].as_str()?).input_bytes(input);
    task.priority = line["priority"].as_i64()?.try_into().ok()?;
    task.key = line["key"].as_str().map(str::to_owned);
    task.is_modifier = line["is_modifier"].as_bool()?;
    let run_at = UNIX_EPOCH.checked_add(Duration::from_millis(line["run_at"].as_i64()?.try_into().ok()?))?;
    let task = task.run_at(run_at).message(line["message"].as_str().unwrap_or_default());
    Some((task, Carried { is_child: false, past, steps, events }))
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if digits.len() % 2 != 0 || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}
