//! What operators do to tasks and types.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::super::error::{Result, TaskError};
use super::super::look::Statuses;
use super::super::names::sql;
use super::super::status::TaskStatus;
use super::super::steer::Steering;
use super::super::transition::{Change, Facts, Gate, transition};
use super::connection::{failed, in_savepoint, is_of_row};
use super::{lanes, limits, millis, produce, reap, steps};

const DOING: &str = "steering tasks";

/// Does `steering` to those of `tasks` whose status is in `from`, and returns how many it changed.
/// It passes over the others. A retry, a cancel and a delete let those tasks run that are next in
/// the order of their keys. For a write transaction.
pub(super) fn steer(db: &Connection, now: i64, tasks: &[i64], from: Statuses, steering: &Steering) -> Result<u64> {
    let each = || tasks.iter().map(|&id| Ok(u64::from(steer_one(db, now, id, from, steering)?))).sum();
    match in_savepoint(db, each) {
        Err(error) if is_of_row(&error) => {}
        done => return done,
    }
    // One row is to blame: each by itself, then.
    let mut done = 0;
    for &id in tasks {
        match in_savepoint(db, || steer_one(db, now, id, from, steering)) {
            Ok(one) => done += u64::from(one),
            Err(error) if is_of_row(&error) => {
                crate::trace::event!(WARN, "a task can't be steered", task = id, error = error.to_string());
                // What is to end ends as one that is set aside; otherwise it is passed over.
                if matches!(steering, Steering::Cancel { .. }) {
                    reap::set_aside(db, now, id)?;
                    done += 1;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Retries, cancels or deletes a task, or gives it another priority or start, if its status is in
/// `from`. `false` if it isn't, or if there is no such task: then nothing has changed. For a write
/// transaction.
fn steer_one(db: &Connection, now: i64, id: i64, from: Statuses, steering: &Steering) -> Result<bool> {
    let Some(status) = status(db, id)?.filter(|status| from.has(*status)) else {
        return Ok(false);
    };
    let words = steering.words();
    match steering {
        Steering::Retry { reason } => return retry(db, now, id, status, reason),
        Steering::Cancel { reason } => produce::cancel_one(db, now, id, status, reason).map(drop)?,
        Steering::Delete => produce::delete_one(db, now, id, status)?,
        Steering::Priority(priority) => {
            change(db, "UPDATE fulmar_task SET priority = ?2 WHERE id = ?1", id, i64::from(*priority))?;
            steps::note(db, id, now, status, &words)?;
        }
        Steering::Start(start) => {
            let run_at = produce::run_at(*start, now);
            change(db, "UPDATE fulmar_task SET run_at = ?2 WHERE id = ?1", id, run_at)?;
            let open = sql!("UPDATE fulmar_task SET gate = ?2 WHERE id = ?1 AND gate IN ({gate_open}, {gate_time})");
            change(db, open, id, Gate::by_time(run_at > now).code())?;
            steps::note(db, id, now, status, &words)?;
        }
    }
    Ok(true)
}

/// `None` if there is no such task, or if its status makes no sense.
fn status(db: &Connection, id: i64) -> Result<Option<TaskStatus>> {
    let mut sql = db.prepare_cached("SELECT status FROM fulmar_task WHERE id = ?1").map_err(failed(DOING))?;
    let mut rows = sql.query([id]).map_err(failed(DOING))?;
    let row = rows.next().map_err(failed(DOING))?;
    Ok(row.and_then(|row| TaskStatus::from_code(row.get(0).ok()?).ok()))
}

fn change(db: &Connection, sql: &str, id: i64, value: i64) -> Result<()> {
    db.prepare_cached(sql).and_then(|mut sql| sql.execute([id, value])).map_err(failed(DOING))?;
    Ok(())
}

/// Lets a task that failed or was cancelled wait again; one with a key waits behind all others of
/// that key. `false` if its status doesn't allow that: then nothing has changed.
fn retry(db: &Connection, now: i64, id: i64, status: TaskStatus, why: &str) -> Result<bool> {
    let (type_id, lane): (i64, Option<String>) = db
        .prepare_cached("SELECT type_id, lane FROM fulmar_task WHERE id = ?1")
        .and_then(|mut sql| sql.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(failed(DOING))?;
    let mut facts = Facts::at(status);
    facts.has_key = lane.is_some();
    let Some(next) = transition(Change::Retry, facts) else {
        return Ok(false);
    };
    // The tasks of a key run in the order of their numbers, and later ones may have run since.
    // A new number puts this task behind all of them, so that none that waits comes before one
    // that runs.
    let id = if lane.is_some() { renumber(db, id)? } else { id };
    db.prepare_cached("DELETE FROM fulmar_task_response WHERE task_id = ?1")
        .and_then(|mut sql| sql.execute([id]))
        .map_err(failed(DOING))?;
    db.prepare_cached(
        "UPDATE fulmar_task SET status = ?4, gate = ?2, run_at = ?3, ended = NULL, failures = 0, lost = 0, progress = 0,
             cancel_requested = 0, parent = parent WHERE id = ?1",
    )
    .and_then(|mut sql| sql.execute(params![id, next.gate.map(Gate::code), now, next.status.code()]))
    .map_err(failed(DOING))?;
    steps::note(db, id, now, next.status, &next.words.text(why, 0, 0))?;
    if let Some(lane) = lane {
        lanes::follow(db, now, type_id, &lane)?;
    }
    Ok(true)
}

/// Gives a task the next number that no task ever had, in every table that names it. Returns it.
fn renumber(db: &Connection, id: i64) -> Result<i64> {
    let number: i64 = db
        .prepare_cached("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'fulmar_task' RETURNING seq")
        .and_then(|mut sql| sql.query_row([], |row| row.get(0)))
        .map_err(failed(DOING))?;
    for sql in [
        "UPDATE fulmar_task SET id = ?2 WHERE id = ?1",
        "UPDATE fulmar_task_input SET task_id = ?2 WHERE task_id = ?1",
        "UPDATE fulmar_task_checkpoint SET task_id = ?2 WHERE task_id = ?1",
        "UPDATE fulmar_task_unique SET task_id = ?2 WHERE task_id = ?1",
        "UPDATE fulmar_task_context SET task_id = ?2 WHERE task_id = ?1",
        "UPDATE fulmar_task_response SET task_id = ?2 WHERE task_id = ?1",
        "UPDATE fulmar_task_log SET task_id = ?2 WHERE task_id = ?1",
        "UPDATE fulmar_task_step SET task_id = ?2 WHERE task_id = ?1",
        "UPDATE fulmar_task_event SET task_id = ?2 WHERE task_id = ?1",
        "UPDATE fulmar_task_family SET task_id = ?2 WHERE task_id = ?1",
        "UPDATE fulmar_task SET parent = ?2 WHERE parent = ?1",
    ] {
        change(db, sql, id, number)?;
    }
    Ok(number)
}

/// That a type is paused by itself, and that all are.
const TYPE: i64 = 1;
const ALL: i64 = 2;

/// Pauses the claims of a type's tasks, or lets them go on if not `paused`. `None` means all types,
/// those included that are registered later; a type that is paused by itself stays so.
/// `UnknownType`. For a write transaction.
pub(super) fn set_paused(db: &Connection, task_type: Option<&str>, paused: bool) -> Result<()> {
    let doing = "pausing";
    if task_type.is_none() {
        db.execute(
            "INSERT INTO fulmar_setting (name, value) VALUES ('paused', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1",
            [paused],
        )
        .map_err(failed(doing))?;
    }
    let bit = if task_type.is_some() { TYPE } else { ALL };
    let changed = db
        .execute(
            "UPDATE fulmar_task_type SET paused = CASE WHEN ?2 THEN paused | ?3 ELSE paused & ~?3 END
             WHERE ?1 IS NULL OR name = ?1",
            params![task_type, paused, bit],
        )
        .map_err(failed(doing))?;
    match task_type {
        Some(name) if changed == 0 => Err(TaskError::UnknownType(name.to_owned())),
        _ => Ok(()),
    }
}

pub(super) fn is_paused(db: &Connection) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM fulmar_setting WHERE name = 'paused' AND value = 1")
        .and_then(|mut sql| sql.exists([]))
        .map_err(failed("looking whether the queue is paused"))
}

pub(super) fn pass_time(db: &Connection, time: Duration) -> Result<()> {
    let sql = "UPDATE fulmar_task SET run_at = run_at - ?1, created = created - ?1, lease = lease - ?1,
         deadline = deadline - ?1, ended = ended - ?1";
    // A schedule's times stay, because its tasks are called by them: there it is the time itself
    // that moves on.
    let moved = "INSERT INTO fulmar_setting (name, value) VALUES ('passed', ?1)
         ON CONFLICT (name) DO UPDATE SET value = value + ?1";
    let steps = "UPDATE fulmar_task_step SET until = until - ?1 WHERE until IS NOT NULL";
    for sql in [sql, steps, moved] {
        db.execute(sql, [millis(time)]).map_err(failed("letting time pass"))?;
    }
    limits::pass_time(db, time)
}
