//! Takes tasks away from workers that are lost, and deletes ended tasks whose retention is over:
//! the time for which their type keeps them.

use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::super::engine::Reaped;
use super::super::error::{Result, TaskError};
use super::super::status::TaskStatus;
use super::super::transition::{Change, Charge, Facts, Transition, transition};
use super::connection::{failed, in_savepoint, is_of_row};
use super::{lanes, produce, steps};

/// Tasks whose lease or time limit is over.
const LOST: &str = "SELECT id FROM fulmar_task WHERE lease IS NOT NULL AND lease <= ?1
    UNION SELECT id FROM fulmar_task WHERE deadline IS NOT NULL AND deadline <= ?1";

/// Ended tasks whose retention is over, but for children whose parent has yet to read what they
/// gave. A retention that makes no sense deletes nothing. CROSS has SQLite go from the types to the
/// tasks: the other way it reads all of them.
const RETIRED: &str = "SELECT t.id FROM fulmar_task_type y CROSS JOIN fulmar_task t ON t.type_id = y.id
    WHERE typeof(y.retention) = 'integer' AND y.retention >= 0 AND t.ended IS NOT NULL AND t.ended <= ?1 - y.retention
        AND (t.parent IS NULL OR NOT EXISTS (SELECT 1 FROM fulmar_task_family f CROSS JOIN fulmar_task p ON p.id = f.task_id
            WHERE f.task_id = t.parent AND p.ended IS NULL))";

pub(super) fn is_due(db: &Connection, now: i64) -> Result<bool> {
    exists(db, LOST, now)
}

pub(super) fn is_retired(db: &Connection, now: i64) -> Result<bool> {
    exists(db, RETIRED, now)
}

fn exists(db: &Connection, what: &str, now: i64) -> Result<bool> {
    db.prepare_cached(&format!("{what} LIMIT 1"))
        .and_then(|mut sql| sql.exists([now]))
        .map_err(failed("looking for what is over"))
}

fn ids(db: &Connection, what: &str, now: i64, limit: usize) -> Result<Vec<i64>> {
    let doing = "looking for what is over";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut sql = db.prepare_cached(&format!("{what} LIMIT ?2")).map_err(failed(doing))?;
    let ids = sql.query_map([now, limit], |row| row.get(0)).and_then(Iterator::collect);
    ids.map_err(failed(doing))
}

pub(super) fn reap(db: &Connection, now: i64, limit: usize) -> Result<Reaped> {
    let mut reaped = Reaped::default();
    for id in ids(db, LOST, now, limit)? {
        match in_savepoint(db, || rescue(db, now, id)) {
            Ok(TaskStatus::Failed) => reaped.failed += 1,
            Ok(TaskStatus::Cancelled) => reaped.cancelled += 1,
            Ok(_) => reaped.returned += 1,
            Err(error) if !is_of_row(&error) => return Err(error),
            Err(error) => {
                crate::trace::event!(WARN, "a lost task can't be rescued", task = id, error = error.to_string());
                set_aside(db, now, id)?;
                reaped.bad += 1;
            }
        }
    }
    Ok(reaped)
}

/// Takes a task whose lease or time limit is over from its worker, and returns its new status. One
/// that had not started becomes `Accepted`. One that ran becomes `Cancelled` if that was asked for,
/// `Failed` beyond its restart limit, and `Accepted` otherwise. `Database` if its row makes no
/// sense, because no worker could hold it, or its type is gone. For a write transaction.
fn rescue(db: &Connection, now: i64, id: i64) -> Result<TaskStatus> {
    let (status, late): (i64, bool) = db
        .prepare_cached("SELECT status, coalesce(deadline <= ?2, 0) FROM fulmar_task WHERE id = ?1")
        .and_then(|mut sql| sql.query_row([id, now], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(failed("rescuing a task"))?;
    let (task, losses) = (steps::find(db, id)?, losses(db, id)?);
    let mut facts = Facts::at(TaskStatus::from_code(status)?);
    facts.cancel_requested = task.cancel_requested;
    facts.is_spent = losses.is_spent();
    let Some(next) = transition(Change::Expire, facts) else {
        let text = format!("a task with a lease is {}", facts.status);
        return Err(TaskError::Database { doing: "rescuing a task", source: text.into() });
    };
    let words = losses.words(next, if late { "its time limit passed" } else { "its worker was lost" });
    if next.status.is_ended() {
        steps::end(db, now, id, next, &words, &task)?;
    } else {
        // What has not started waits as before; its time had come once.
        let run_at = if next.charge == Charge::Loss { now } else { steps::run_at(db, id)?.min(now) };
        steps::wait(db, now, id, next, run_at, &words)?;
    }
    Ok(next.status)
}

/// How many attempts of a task were lost, and how many may be.
#[derive(Clone, Copy)]
pub(super) struct Losses {
    lost: i64,
    limit: i64,
}

pub(super) fn losses(db: &Connection, id: i64) -> Result<Losses> {
    db.prepare_cached(
        "SELECT t.lost, y.restart_limit FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id WHERE t.id = ?1",
    )
    .and_then(|mut sql| sql.query_row([id], |row| Ok(Losses { lost: row.get(0)?, limit: row.get(1)? })))
    .map_err(failed("looking at a lost task"))
}

impl Losses {
    pub(super) fn is_spent(self) -> bool {
        self.lost >= self.limit
    }

    pub(super) fn words(self, next: Transition, why: &str) -> String {
        next.words.text(why, self.lost.saturating_add(1), self.limit)
    }
}

/// A row that makes no sense must not block others: it has failed, and those who waited for it in
/// its order follow.
pub(super) fn set_aside(db: &Connection, now: i64, id: i64) -> Result<()> {
    let doing = "setting a bad task aside";
    // Whatever its status says.
    let failed_now =
        transition(Change::SetAside, Facts::at(TaskStatus::Accepted)).map_or(TaskStatus::Failed, |next| next.status);
    // Neither its order nor its count of entries need make sense.
    let (type_id, lane): (i64, Value) = db
        .prepare_cached(
            "UPDATE fulmar_task SET status = ?3, gate = NULL, ended = ?2, worker = NULL, lease = NULL, deadline = NULL,
                 parent = parent, entries = coalesce((SELECT max(entry) FROM fulmar_task_log WHERE task_id = ?1), 0) + 1
             WHERE id = ?1 RETURNING type_id, lane",
        )
        .and_then(|mut sql| sql.query_row(params![id, now, failed_now.code()], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(failed(doing))?;
    db.prepare_cached(
        "INSERT INTO fulmar_task_log (task_id, entry, time, status, message)
         SELECT id, entries, ?2, status, ?3 FROM fulmar_task WHERE id = ?1",
    )
    .and_then(|mut sql| sql.execute(params![id, now, "its row in the database makes no sense"]))
    .map_err(failed(doing))?;
    match lane {
        Value::Text(lane) => lanes::follow(db, now, type_id, &lane),
        _ => Ok(()),
    }
}

pub(super) fn prune(db: &Connection, now: i64, limit: usize) -> Result<u64> {
    let retired = ids(db, RETIRED, now, limit)?;
    for &id in &retired {
        produce::erase(db, id)?;
    }
    Ok(retired.len() as u64)
}
