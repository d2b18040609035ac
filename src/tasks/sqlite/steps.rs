//! What workers do to the tasks that they hold. Each change is guarded by the fence.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::engine::{Action, Step, Stepped};
use super::super::error::Result;
use super::super::status::{Response, TaskStatus};
use super::connection::{failed, in_savepoint, is_of_row};
use super::fence::FENCE;
use super::{gate, lanes, millis, reap};

pub(super) fn step(db: &Connection, now: i64, steps: &[Step]) -> Result<Vec<Stepped>> {
    steps.iter().map(|step| one(db, now, step)).collect()
}

/// As [`step`], but each in a savepoint of its own. A row that makes no sense is set aside, and so lost to its worker.
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

fn one(db: &Connection, now: i64, step: &Step) -> Result<Stepped> {
    let Some(held) = holds(db, now, step)? else {
        let finished = if step.finished_in { find_finished(db, step)? } else { None };
        return Ok(finished.map_or(Stepped::Stale, Stepped::Done));
    };
    let (id, cancel_requested) = (step.task, held.cancel_requested);
    let status = match &step.action {
        Action::Start => {
            start(db, now, id, &held)?;
            TaskStatus::Running
        }
        Action::Finish { message, response } => {
            respond(db, id, response.as_deref())?;
            end_as(db, now, id, TaskStatus::Finished, message, &held)?;
            TaskStatus::Finished
        }
        Action::Fail { reason, retry, response } => {
            respond(db, id, response.as_deref())?;
            fail(db, id)?;
            match retry {
                _ if cancel_requested => {
                    end_as(db, now, id, TaskStatus::Cancelled, reason, &held)?;
                    TaskStatus::Cancelled
                }
                Some(delay) => {
                    let until = now.saturating_add(millis(*delay));
                    wait(db, now, id, TaskStatus::Accepted, until, reason)?;
                    TaskStatus::Accepted
                }
                None => {
                    end_as(db, now, id, TaskStatus::Failed, reason, &held)?;
                    TaskStatus::Failed
                }
            }
        }
        Action::Pause { message, after, checkpoint, response } => {
            respond(db, id, response.as_deref())?;
            if cancel_requested {
                end_as(db, now, id, TaskStatus::Cancelled, message, &held)?;
                TaskStatus::Cancelled
            } else {
                keep(db, id, checkpoint.as_deref())?;
                wait(db, now, id, TaskStatus::Paused, now.saturating_add(millis(*after)), message)?;
                TaskStatus::Paused
            }
        }
        Action::Lose { reason } => reap::lose(db, now, id, reason)?,
        Action::GiveBack { reason } => {
            put_back(db, now, id, reason)?;
            TaskStatus::Accepted
        }
        Action::Note { progress, message } => {
            db.prepare_cached("UPDATE fulmar_task SET progress = coalesce(?2, progress) WHERE id = ?1")
                .and_then(|mut sql| sql.execute(params![id, progress.map(f64::from)]))
                .map_err(failed("noting progress"))?;
            note(db, id, now, TaskStatus::Running, message)?;
            TaskStatus::Running
        }
    };
    Ok(Stepped::Done(status))
}

/// What a change has to know of a task. Read before, because an `UPDATE .. RETURNING` takes longer than both.
struct Held {
    cancel_requested: bool,
    entries: i64,
    starts: i64,
    type_id: i64,
    lane: Option<String>,
}

const HELD: &str = "SELECT cancel_requested, entries, starts, type_id, lane FROM fulmar_task";

impl Held {
    fn read(row: &Row<'_>) -> rusqlite::Result<Held> {
        Ok(Held {
            cancel_requested: row.get(0)?,
            entries: row.get(1)?,
            starts: row.get(2)?,
            type_id: row.get(3)?,
            lane: row.get(4)?,
        })
    }
}

/// The task, if the worker holds it in a state that the action may leave.
fn holds(db: &Connection, now: i64, step: &Step) -> Result<Option<Held>> {
    let state = match step.action {
        Action::Start | Action::GiveBack { .. } => TaskStatus::Scheduled,
        _ => TaskStatus::Running,
    };
    let sql = format!("{HELD} WHERE {FENCE}");
    db.prepare_cached(&sql)
        .and_then(|mut sql| {
            sql.query_row(
                params![step.task, step.token, step.worker.as_str(), now, step.action.gives_up(), state.code()],
                Held::read,
            )
            .optional()
        })
        .map_err(failed("looking at a task's fence"))
}

/// Where the task stands, if it has ended under the step's token and nobody has retried it since.
fn find_finished(db: &Connection, step: &Step) -> Result<Option<TaskStatus>> {
    let code: Option<i64> = db
        .prepare_cached("SELECT status FROM fulmar_task WHERE id = ?1 AND token = ?2 AND ended IS NOT NULL")
        .and_then(|mut sql| sql.query_row([step.task, step.token], |row| row.get(0)).optional())
        .map_err(failed("looking whether a task was finished"))?;
    code.map(TaskStatus::from_code).transpose()
}

fn start(db: &Connection, now: i64, id: i64, held: &Held) -> Result<()> {
    db.prepare_cached(
        "UPDATE fulmar_task SET status = 2, starts = starts + 1, entries = entries + 1,
             deadline = ?2 + (SELECT time_limit FROM fulmar_task_type y WHERE y.id = type_id) WHERE id = ?1",
    )
    .and_then(|mut sql| sql.execute([id, now]))
    .map_err(failed("starting a task"))?;
    log(db, id, held.entries + 1, now, TaskStatus::Running, &format!("attempt {}", held.starts + 1))
}

fn fail(db: &Connection, id: i64) -> Result<()> {
    db.prepare_cached("UPDATE fulmar_task SET failures = failures + 1 WHERE id = ?1")
        .and_then(|mut sql| sql.execute([id]))
        .map_err(failed("counting a failure"))?;
    Ok(())
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

/// A task leaves its worker and waits until `run_at`. It keeps its place in its order: whoever has run was let in.
pub(super) fn wait(db: &Connection, now: i64, id: i64, to: TaskStatus, run_at: i64, why: &str) -> Result<()> {
    let entry: i64 = db
        .prepare_cached(
            "UPDATE fulmar_task SET status = ?2, gate = ?3, run_at = ?4, worker = NULL, lease = NULL, deadline = NULL,
                 entries = entries + 1 WHERE id = ?1 RETURNING entries",
        )
        .and_then(|mut sql| sql.query_row([id, to.code(), gate::of(run_at, now), run_at], |row| row.get(0)))
        .map_err(failed("putting a task back"))?;
    log(db, id, entry, now, to, why)
}

/// A task that has not started waits as before.
pub(super) fn put_back(db: &Connection, now: i64, id: i64, why: &str) -> Result<()> {
    let run_at: i64 = db
        .prepare_cached("SELECT run_at FROM fulmar_task WHERE id = ?1")
        .and_then(|mut sql| sql.query_row([id], |row| row.get(0)))
        .map_err(failed("putting a task back"))?;
    // Its time had come once; a clock that was set back does not matter.
    wait(db, now, id, TaskStatus::Accepted, run_at.min(now), why)
}

/// A task ends, and those who wait for it in its order follow.
pub(super) fn end(db: &Connection, now: i64, id: i64, to: TaskStatus, why: &str) -> Result<()> {
    let held = db
        .prepare_cached(&format!("{HELD} WHERE id = ?1"))
        .and_then(|mut sql| sql.query_row([id], Held::read))
        .map_err(failed(ENDING))?;
    end_as(db, now, id, to, why, &held)
}

const ENDING: &str = "ending a task";

fn end_as(db: &Connection, now: i64, id: i64, to: TaskStatus, why: &str, held: &Held) -> Result<()> {
    db.prepare_cached(
        "UPDATE fulmar_task SET status = ?2, gate = NULL, ended = ?3, worker = NULL, lease = NULL, deadline = NULL,
             entries = entries + 1, progress = CASE WHEN ?2 = 4 THEN 1 ELSE progress END WHERE id = ?1",
    )
    .and_then(|mut sql| sql.execute([id, to.code(), now]))
    .map_err(failed(ENDING))?;
    log(db, id, held.entries + 1, now, to, why)?;
    match &held.lane {
        Some(lane) => lanes::follow(db, now, held.type_id, lane),
        None => Ok(()),
    }
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
