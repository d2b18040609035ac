//! What producers do: enqueue, cancel, delete, bound.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::super::engine::TaskRef;
use super::super::error::{Result, TaskError};
use super::super::names::sql;
use super::super::new_task::{Checked, Start};
use super::super::stats;
use super::super::status::TaskStatus;
use super::super::transition::{Change, Facts, Gate, transition};
use super::super::unique::Accepted;
use super::connection::failed;
use super::{lanes, millis, not_found, steps, types, unique};

pub(super) fn set_capacity(db: &Connection, capacity: Option<u64>) -> Result<()> {
    let capacity = capacity.map(|tasks| i64::try_from(tasks).unwrap_or(i64::MAX));
    db.execute(
        "INSERT INTO fulmar_setting (name, value) VALUES ('capacity', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
        [capacity],
    )
    .map_err(failed("setting the capacity"))?;
    Ok(())
}

fn capacity(db: &Connection) -> Result<Option<u64>> {
    stored_capacity(db)?.ok_or_else(stats::senseless_capacity)
}

/// `None` for one that makes no sense.
pub(super) fn stored_capacity(db: &Connection) -> Result<Option<Option<u64>>> {
    let found: Option<Option<Option<u64>>> = db
        .prepare_cached("SELECT value FROM fulmar_setting WHERE name = 'capacity'")
        .and_then(|mut sql| sql.query_row([], |row| Ok(row.get::<_, Option<u64>>(0).ok())).optional())
        .map_err(failed("reading the capacity"))?;
    Ok(found.unwrap_or(Some(None)))
}

/// Inserts all tasks; with an error, the caller takes back what was inserted.
pub(super) fn enqueue(db: &Connection, now: i64, tasks: &[Checked]) -> Result<Vec<Accepted>> {
    // What others stand for needs no room.
    let is_unique = tasks.iter().any(|task| task.unique.is_some());
    if !is_unique {
        check_room(db, tasks.len() as u64)?;
    }
    let mut accepted = Vec::with_capacity(tasks.len());
    let mut of_type: Option<(&str, i64)> = None;
    for task in tasks {
        let type_id = match of_type {
            Some((name, id)) if name == task.task_type => id,
            _ => types::find(db, &task.task_type)?.ok_or_else(|| TaskError::UnknownType(task.task_type.clone()))?,
        };
        of_type = Some((&task.task_type, type_id));
        if let Some(existing) = unique::find(db, now, type_id, task)? {
            accepted.push(existing);
            continue;
        }
        if is_unique {
            check_room(db, 1)?;
        }
        let id = insert(db, now, type_id, task)?;
        unique::keep(db, type_id, id, task)?;
        accepted.push(Accepted::new(id));
    }
    Ok(accepted)
}

/// Refuses `wanted` new tasks, all of them, with `QueueFull` if more tasks than the capacity would
/// wait with them. A row of `fulmar_setting` holds the capacity; without it there is no limit.
/// Changes nothing. For the transaction that inserts the tasks afterwards.
fn check_room(db: &Connection, wanted: u64) -> Result<()> {
    let Some(capacity) = capacity(db)? else {
        return Ok(());
    };
    // These tasks wait: those that may be claimed, those that wait for their time or for the order
    // of their key, and those that a worker has claimed and not started. One that a limit of its
    // type holds back is among the first; a paused one doesn't count.
    let most = i64::try_from(capacity).unwrap_or(i64::MAX);
    let waiting: i64 = db
        .prepare_cached(sql!(
            "SELECT count(*) FROM (SELECT 1 FROM (
                 SELECT 1 FROM fulmar_task WHERE gate = {gate_open} AND status = {accepted}
                 UNION ALL SELECT 1 FROM fulmar_task WHERE gate = {gate_time} AND status = {accepted}
                 UNION ALL SELECT 1 FROM fulmar_task WHERE gate = {gate_order} AND status = {accepted}
                 UNION ALL SELECT 1 FROM fulmar_task WHERE worker IS NOT NULL AND status = {scheduled}) LIMIT ?1)"
        ))
        .and_then(|mut sql| sql.query_row([most], |row| row.get(0)))
        .map_err(failed("counting what waits"))?;
    if u64::try_from(waiting).unwrap_or(0).saturating_add(wanted) > capacity {
        return Err(TaskError::QueueFull { capacity });
    }
    Ok(())
}

/// Inserts a task with its input, its context and the first entry of its log, and returns its
/// number. Its gate says whether it waits for its time or for others of its key. The caller has
/// checked the capacity, and that no other task stands for a unique one. `Duplicate`. For a write
/// transaction.
pub(super) fn insert(db: &Connection, now: i64, type_id: i64, task: &Checked) -> Result<i64> {
    let doing = "enqueuing";
    let run_at = run_at(task.start, now);
    let blocked = match &task.key {
        Some(lane) => lanes::is_blocked(db, type_id, lane, task.is_modifier)?,
        None => false,
    };
    let gate = if blocked { Gate::Order } else { Gate::by_time(run_at > now) }.code();
    db.prepare_cached(
        "INSERT INTO fulmar_task (type_id, identifier, status, gate, priority, run_at, created, lane, is_modifier)
         VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .and_then(|mut sql| {
        sql.execute(params![type_id, task.identifier, gate, task.priority, run_at, now, task.key, task.is_modifier])
    })
    .map_err(|error| match error.sqlite_error_code() {
        // A trigger of the file's owner may forbid it, too.
        Some(ErrorCode::ConstraintViolation) if find(db, &task.name()).is_ok() => {
            TaskError::Duplicate { task_type: task.task_type.clone(), identifier: task.identifier.clone() }
        }
        _ => failed(doing)(error),
    })?;
    let id = db.last_insert_rowid();
    db.prepare_cached("INSERT INTO fulmar_task_input (task_id, body) VALUES (?1, ?2)")
        .and_then(|mut sql| sql.execute(params![id, task.input]))
        .map_err(failed(doing))?;
    if let Some(context) = &task.context {
        db.prepare_cached("INSERT INTO fulmar_task_context (task_id, context) VALUES (?1, ?2)")
            .and_then(|mut sql| sql.execute(params![id, context]))
            .map_err(failed(doing))?;
    }
    steps::log(db, id, 0, now, TaskStatus::Accepted, &task.message)?;
    Ok(id)
}

pub(super) fn run_at(start: Start, now: i64) -> i64 {
    match start {
        Start::After(delay) => now.saturating_add(millis(delay)),
        Start::At(time) => at(time),
    }
}

/// A point in time in milliseconds, rounded up.
fn at(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, millis)
}

pub(super) fn cancel(db: &Connection, now: i64, task: &TaskRef, reason: &str) -> Result<TaskStatus> {
    let (id, status) = find(db, task)?;
    cancel_one(db, now, id, status, reason)
}

/// Says where the task stands then; one that has ended stays.
pub(super) fn cancel_one(db: &Connection, now: i64, id: i64, status: TaskStatus, reason: &str) -> Result<TaskStatus> {
    let Some(next) = transition(Change::Cancel, Facts::at(status)) else {
        return Ok(status);
    };
    let (task, words) = (steps::find(db, id)?, next.words.text(reason, 0, 0));
    if next.status.is_ended() {
        steps::end(db, now, id, next, &words, &task)?;
    } else {
        steps::hold(db, now, id, next, None, &words, &task)?;
    }
    Ok(next.status)
}

pub(super) fn delete(db: &Connection, now: i64, task: &TaskRef) -> Result<()> {
    let (id, status) = find(db, task)?;
    if matches!(status, TaskStatus::Scheduled | TaskStatus::Running) {
        return Err(TaskError::Held { task_type: task.task_type.clone(), identifier: task.identifier.clone() });
    }
    delete_one(db, now, id, status)
}

/// Deletes a task that no worker holds, and those who waited for it in its order follow.
pub(super) fn delete_one(db: &Connection, now: i64, id: i64, status: TaskStatus) -> Result<()> {
    let lane: (i64, Option<String>) = db
        .prepare_cached("SELECT type_id, lane FROM fulmar_task WHERE id = ?1")
        .and_then(|mut sql| sql.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(failed("deleting a task"))?;
    erase(db, id)?;
    match lane {
        (type_id, Some(lane)) if !status.is_ended() => lanes::follow(db, now, type_id, &lane),
        _ => Ok(()),
    }
}

fn find(db: &Connection, task: &TaskRef) -> Result<(i64, TaskStatus)> {
    let found: Option<(i64, i64)> = db
        .prepare_cached(
            "SELECT id, status FROM fulmar_task
             WHERE type_id = (SELECT id FROM fulmar_task_type WHERE name = ?1) AND identifier = ?2",
        )
        .and_then(|mut sql| {
            sql.query_row([&task.task_type, &task.identifier], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(failed("looking for a task"))?;
    let (id, status) = found.ok_or_else(|| not_found(task))?;
    Ok((id, TaskStatus::from_code(status)?))
}

/// Deletes a task with all that belongs to it.
pub(super) fn erase(db: &Connection, id: i64) -> Result<()> {
    for sql in [
        "DELETE FROM fulmar_task WHERE id = ?1",
        "DELETE FROM fulmar_task_input WHERE task_id = ?1",
        "DELETE FROM fulmar_task_checkpoint WHERE task_id = ?1",
        "DELETE FROM fulmar_task_unique WHERE task_id = ?1",
        "DELETE FROM fulmar_task_context WHERE task_id = ?1",
        "DELETE FROM fulmar_task_response WHERE task_id = ?1",
        "DELETE FROM fulmar_task_log WHERE task_id = ?1",
        "DELETE FROM fulmar_task_step WHERE task_id = ?1",
        "DELETE FROM fulmar_task_event WHERE task_id = ?1",
        "DELETE FROM fulmar_task_family WHERE task_id = ?1",
    ] {
        db.prepare_cached(sql).and_then(|mut sql| sql.execute([id])).map_err(failed("deleting a task"))?;
    }
    Ok(())
}
