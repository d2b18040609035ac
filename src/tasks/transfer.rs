//! Tasks that wait, as lines of JSON: to another file, another server, the other engine.

use std::io::{BufRead, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

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
    /// [uniqueness](NewTask::unique), contexts, logs and counts of failures stay behind. Delete what was moved afterwards
    /// with [`delete_all`](TaskQueue::delete_all).
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
    /// Those of the database; [`TaskError::Transfer`] for those of `to`.
    pub fn export(&self, filter: &TaskFilter, mut to: impl Write) -> Result<u64> {
        let waiting =
            TaskFilter { newest_first: false, ..filter.among(super::look::Statuses::of([TaskStatus::Accepted])) };
        let mut count = 0;
        for task in self.list_all(&waiting) {
            let task = task?;
            // Deleted, or taken and ended, since it was listed.
            let Some(input) = self.input_of(&task)? else { continue };
            writeln!(to, "{}", to_line(&task, &input)).map_err(|error| failed("writing tasks", error))?;
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
            let task = from_line(&line).ok_or_else(|| {
                failed("reading tasks", format!("line {number} is no task: use what `export` has written"))
            })?;
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

/// An input that is UTF-8 is readable; others are in hexadecimal digits.
fn to_line(task: &TaskInfo, input: &[u8]) -> Value {
    let mut line = json!({
        "type": task.task_type,
        "identifier": task.identifier,
        "priority": task.priority,
        "run_at": millis(task.run_at),
        "key": task.key,
        "is_modifier": task.is_modifier,
        "message": task.message,
    });
    match std::str::from_utf8(input) {
        Ok(text) => line["input"] = text.into(),
        Err(_) => line["input_hex"] = input.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
    line
}

fn from_line(line: &str) -> Option<NewTask> {
    let line: Value = serde_json::from_str(line).ok()?;
    let input = match (&line["input"], &line["input_hex"]) {
        (Value::String(text), Value::Null) => text.clone().into_bytes(),
        (Value::Null, Value::String(digits)) => from_hex(digits)?,
        _ => return None,
    };
    let mut task = NewTask::new(line["type"].as_str()?, line["identifier"].as_str()?).input_bytes(input);
    task.priority = line["priority"].as_i64()?.try_into().ok()?;
    task.key = line["key"].as_str().map(str::to_owned);
    task.is_modifier = line["is_modifier"].as_bool()?;
    let run_at = UNIX_EPOCH.checked_add(Duration::from_millis(line["run_at"].as_u64()?))?;
    Some(task.run_at(run_at).message(line["message"].as_str().unwrap_or_default()))
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
