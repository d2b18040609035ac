//! What workers do to the tasks that they hold. Each change is guarded by the fence.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::durable::Entry;
use super::super::engine::{Step, Stepped, Wait};
use super::super::error::Result;
use super::super::names::sql;
use super::super::status::{Response, TaskStatus};
use super::super::transition::{Change, Charge, Facts, Gate, Transition, Words, transition};
use super::connection::{failed, in_savepoint, is_of_row};
use super::fence::FENCE;
use super::{journal, lanes, millis, reap};

pub(super) fn step(db: &Connection, now: i64, steps: &[Step]) -> Result<Vec<Stepped>> {
    steps.iter().map(|step| one(db, now, step)).collect()
}

/// As [`step`], but each in a savepoint of its own. A row that makes no sense is set aside, and so
/// lost to its worker.
pub(super) fn step_by_step(db: &Connection, now: i64, steps: &[Step]) -> Result<Vec<Stepped>> {
    let each = |step: &Step| match in_savepoint(db, || one(db, now, step)) {
        Err(error) if is_of_row(&error) => {
            crate::trace::event!(WARN, "a task can't be changed", task = step.task, error = error.to_string());
            reap::set_aside(db, now, step.task)?;
            Ok(Stepped::Stale)
        }
        other => other,
    };
    steps.iter().map(each).collect()
}

/// Does one step: changes the task's row as `transition` says, adds an entry to its log, and stores
/// the response, the checkpoint or the journal's entry that comes with the step. Returns the new
/// status, or `Stale`, with nothing written, if the fence doesn't hold. With `finished_in` it is
/// also done if a transaction of the handler's has ended the task. For a write transaction.
fn one(db: &Connection, now: i64, step: &Step) -> Result<Stepped> {
    let Some(task) = holds(db, now, step)? else {
        let finished = if step.finished_in { find_finished(db, step)? } else { None };
        return Ok(finished.map_or(Stepped::Stale, Stepped::Done));
    };
    let (id, change) = (step.task, Change::of(&step.action));
    let losses = match change {
        Change::Lose => Some(reap::losses(db, id)?),
        _ => None,
    };
    let mut facts = Facts::at(change.leaves());
    facts.cancel_requested = task.cancel_requested;
    facts.is_spent = losses.is_some_and(|losses| losses.is_spent());
    facts.is_delayed = step.action.is_delayed();
    let Some(next) = transition(change, facts) else {
        return Ok(Stepped::Stale);
    };
    respond(db, id, step.action.response())?;
    if next.status == TaskStatus::Paused {
        keep(db, id, step.action.checkpoint())?;
    }
    let words = match losses {
        Some(losses) => losses.words(next, step.action.words()),
        None => next.words.text(step.action.words(), task.starts.saturating_add(1), 0),
    };
    if next.status.is_ended() {
        end(db, now, id, next, &words, &task)?;
    } else if next.gate.is_some() {
        // Without a delay it waits as before it was taken. Its time had come once: a clock that was
        // set back does not matter.
        let run_at = match (step.action.wait().and_then(|wait| wait.until), step.action.delay()) {
            (Some(until), _) => until,
            (None, Some(delay)) => now.saturating_add(millis(delay)),
            (None, None) => run_at(db, id)?.min(now),
        };
        wait(db, now, id, next, run_at, &words)?;
        if let Some(Wait { entry: Some(entry), is_timed, .. }) = step.action.wait() {
            let until = if *is_timed { Some(run_at) } else { entry.until };
            journal::insert(db, id, step.token, &Entry { until, ..entry.clone() })?;
        }
    } else {
        hold(db, now, id, next, step.action.progress(), &words, &task)?;
    }
    Ok(Stepped::Done(next.status))
}

/// What a change has to know of a task. Read before, because an `UPDATE .. RETURNING` takes longer
/// than both.
pub(super) struct Task {
    pub(super) cancel_requested: bool,
    entries: i64,
    starts: i64,
    type_id: i64,
    lane: Option<String>,
    is_child: bool,
}

const TASK: &str = "SELECT cancel_requested, entries, starts, type_id, lane, parent IS NOT NULL FROM fulmar_task";

impl Task {
    fn read(row: &Row<'_>) -> rusqlite::Result<Task> {
        Ok(Task {
            cancel_requested: row.get(0)?,
            entries: row.get(1)?,
            starts: row.get(2)?,
            type_id: row.get(3)?,
            lane: row.get(4)?,
            is_child: row.get(5)?,
        })
    }
}

/// The task, if the fence holds.
fn holds(db: &Connection, now: i64, step: &Step) -> Result<Option<Task>> {
    let change = Change::of(&step.action);
    let (gives_up, leaves) = (change.gives_up(), change.leaves().code());
    db.prepare_cached(&format!("{TASK} WHERE {FENCE}"))
        .and_then(|mut sql| {
            let fence = params![step.task, step.token, step.worker.as_str(), now, gives_up, leaves];
            sql.query_row(fence, Task::read).optional()
        })
        .map_err(failed("looking at a task's fence"))
}

/// A task that its worker does not hold, or need not.
pub(super) fn find(db: &Connection, id: i64) -> Result<Task> {
    db.prepare_cached(&format!("{TASK} WHERE id = ?1"))
        .and_then(|mut sql| sql.query_row([id], Task::read))
        .map_err(failed("looking at a task"))
}

/// Where the task stands, if it has ended under the step's token and hasn't been retried since.
fn find_finished(db: &Connection, step: &Step) -> Result<Option<TaskStatus>> {
    let code: Option<i64> = db
        .prepare_cached("SELECT status FROM fulmar_task WHERE id = ?1 AND token = ?2 AND ended IS NOT NULL")
        .and_then(|mut sql| sql.query_row([step.task, step.token], |row| row.get(0)).optional())
        .map_err(failed("looking whether a task was finished"))?;
    code.map(TaskStatus::from_code).transpose()
}

fn respond(db: &Connection, id: i64, response: Option<&Response>) -> Result<()> {
    if let Some(response) = response {
        db.prepare_cached(
            "INSERT INTO fulmar_task_response (task_id, media_type, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (task_id) DO UPDATE SET media_type = ?2, body = ?3",
        )
        .and_then(|mut sql| sql.execute(params![id, response.media_type, response.body]))
        .map_err(failed("storing a response"))?;
    }
    Ok(())
}

fn keep(db: &Connection, id: i64, checkpoint: Option<&[u8]>) -> Result<()> {
    if let Some(checkpoint) = checkpoint {
        db.prepare_cached(
            "INSERT INTO fulmar_task_checkpoint (task_id, body) VALUES (?1, ?2)
             ON CONFLICT (task_id) DO UPDATE SET body = ?2",
        )
        .and_then(|mut sql| sql.execute(params![id, checkpoint]))
        .map_err(failed("storing a checkpoint"))?;
    }
    Ok(())
}

/// A task stays with its worker, or is started by it.
pub(super) fn hold(
    db: &Connection,
    now: i64,
    id: i64,
    next: Transition,
    progress: Option<f32>,
    words: &str,
    task: &Task,
) -> Result<()> {
    let starts = next.charge == Charge::Start;
    db.prepare_cached(
        "UPDATE fulmar_task SET status = ?2, starts = starts + ?3, progress = coalesce(?4, progress), entries = entries + 1,
             deadline = CASE WHEN ?3 THEN ?5 + (SELECT time_limit FROM fulmar_task_type y WHERE y.id = type_id)
                 ELSE deadline END,
             cancel_requested = cancel_requested OR ?6 WHERE id = ?1",
    )
    .and_then(|mut sql| {
        let requested = next.words == Words::Request;
        sql.execute(params![id, next.status.code(), starts, progress.map(f64::from), now, requested])
    })
    .map_err(failed("changing a task at work"))?;
    log(db, id, task.entries.saturating_add(1), now, next.status, words)
}

/// A task leaves its worker and waits until `run_at`. It keeps its place in its order: a task that
/// has run was let in.
pub(super) fn wait(db: &Connection, now: i64, id: i64, next: Transition, run_at: i64, words: &str) -> Result<()> {
    let entry: i64 = db
        .prepare_cached(
            sql!(
                "UPDATE fulmar_task SET status = ?2, run_at = ?4, worker = NULL, lease = NULL, deadline = NULL,
                     gate = CASE WHEN ?2 = {paused} AND woken THEN {gate_open} ELSE ?3 END, woken = woken AND ?2 <> {paused},
                     failures = CASE WHEN ?7 THEN 0 ELSE failures + ?5 END, lost = CASE WHEN ?7 THEN 0 ELSE lost + ?6 END,
                     entries = entries + 1
                 WHERE id = ?1 RETURNING entries"
            ),
        )
        .and_then(|mut sql| {
            let gate = next.gate.map(Gate::code);
            let (failed, lost) = charges(next);
            let is_reset = next.charge == Charge::Reset;
            sql.query_row(params![id, next.status.code(), gate, run_at, failed, lost, is_reset], |row| row.get(0))
        })
        .map_err(failed("putting a task back"))?;
    log(db, id, entry, now, next.status, words)
}

pub(super) fn run_at(db: &Connection, id: i64) -> Result<i64> {
    db.prepare_cached("SELECT run_at FROM fulmar_task WHERE id = ?1")
        .and_then(|mut sql| sql.query_row([id], |row| row.get(0)))
        .map_err(failed("putting a task back"))
}

/// A task ends, and those that wait for it in its order follow.
pub(super) fn end(db: &Connection, now: i64, id: i64, next: Transition, words: &str, task: &Task) -> Result<()> {
    // A statement that names the parent has the triggers count the children that have ended.
    let counted = if task.is_child { ", parent = parent" } else { "" };
    db.prepare_cached(&format!(
        "UPDATE fulmar_task SET status = ?2, gate = NULL, ended = ?3, worker = NULL, lease = NULL, deadline = NULL,
             failures = CASE WHEN ?7 THEN 0 ELSE failures + ?4 END, lost = CASE WHEN ?7 THEN 0 ELSE lost + ?5 END,
             entries = entries + 1,
             progress = CASE WHEN ?6 THEN 1 ELSE progress END{counted} WHERE id = ?1",
    ))
    .and_then(|mut sql| {
        let (failed, lost) = charges(next);
        let is_finished = next.status == TaskStatus::Finished;
        let is_reset = next.charge == Charge::Reset;
        sql.execute(params![id, next.status.code(), now, failed, lost, is_finished, is_reset])
    })
    .map_err(failed("ending a task"))?;
    log(db, id, task.entries.saturating_add(1), now, next.status, words)?;
    match &task.lane {
        Some(lane) => lanes::follow(db, now, task.type_id, lane),
        None => Ok(()),
    }
}

/// How many failures and losses to add.
fn charges(next: Transition) -> (bool, bool) {
    (next.charge == Charge::Failure, next.charge == Charge::Loss)
}

/// The next entry of a task's log.
pub(super) fn note(db: &Connection, id: i64, now: i64, status: TaskStatus, message: &str) -> Result<()> {
    let entry: i64 = db
        .prepare_cached("UPDATE fulmar_task SET entries = entries + 1 WHERE id = ?1 RETURNING entries")
        .and_then(|mut sql| sql.query_row([id], |row| row.get(0)))
        .map_err(failed("writing a log"))?;
    log(db, id, entry, now, status, message)
}

pub(super) fn log(db: &Connection, id: i64, entry: i64, now: i64, status: TaskStatus, message: &str) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO fulmar_task_log (task_id, entry, time, status, message) VALUES (?1, ?2, ?3, ?4, ?5)",
    )
    .and_then(|mut sql| sql.execute(params![id, entry, now, status.code(), message]))
    .map_err(failed("writing a log"))?;
    Ok(())
}
