//! Task types.

use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::error::{Result, TaskError};
use super::super::task_type::TaskType;
use super::connection::failed;
use super::{limits, millis};
use crate::backoff::RetryPolicy;

/// Inserts a task type. If there is one of its name, that gets these settings with `replace`, and
/// stays as it is without. A new type is paused if the whole queue is. For a write transaction.
pub(super) fn put(db: &Connection, of_type: &TaskType, replace: bool) -> Result<()> {
    let RetryPolicy { retries, backoff } = of_type.retry;
    db.prepare_cached(
        "INSERT INTO fulmar_task_type (name, time_limit, retention, restart_limit, at_once, retry_limit, retry_first,
             retry_factor, retry_cap, retry_jitter, paused)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,
             EXISTS (SELECT 1 FROM fulmar_setting WHERE name = 'paused' AND value = 1) * 2)
         ON CONFLICT (name) DO UPDATE SET time_limit = ?2, retention = ?3, restart_limit = ?4, at_once = ?5,
             retry_limit = ?6, retry_first = ?7, retry_factor = ?8, retry_cap = ?9, retry_jitter = ?10
         WHERE ?11",
    )
    .and_then(|mut sql| {
        sql.execute(params![
            of_type.name,
            of_type.time_limit.map(millis),
            of_type.retention.map(millis),
            of_type.restart_limit,
            of_type.max_concurrent,
            retries,
            millis(backoff.first),
            backoff.factor,
            millis(backoff.cap),
            backoff.jitter,
            replace,
        ])
    })
    .map_err(failed("registering a task type"))?;
    Ok(())
}

/// Deletes a type and its limits. With `force` it deletes all tasks of the type, too, those that
/// workers hold included. Without, it is `InUse` if there is any task, ended or not. `UnknownType`.
/// For a write transaction.
pub(super) fn remove(db: &Connection, name: &str, force: bool) -> Result<()> {
    let doing = "unregistering a task type";
    let of_type = find(db, name)?.ok_or_else(|| TaskError::UnknownType(name.to_owned()))?;
    if !force {
        let count = "SELECT count(*) FROM fulmar_task WHERE type_id = ?1";
        let tasks: i64 = db.query_row(count, [of_type], |row| row.get(0)).map_err(failed(doing))?;
        if tasks > 0 {
            return Err(TaskError::InUse {
                task_type: name.to_owned(),
                tasks: u64::try_from(tasks).unwrap_or(u64::MAX),
            });
        }
    }
    for part in ["input", "checkpoint", "response", "log", "unique", "context", "step", "event", "family"] {
        let sql =
            format!("DELETE FROM fulmar_task_{part} WHERE task_id IN (SELECT id FROM fulmar_task WHERE type_id = ?1)");
        db.execute(&sql, [of_type]).map_err(failed(doing))?;
    }
    limits::remove(db, of_type)?;
    for sql in ["DELETE FROM fulmar_task WHERE type_id = ?1", "DELETE FROM fulmar_task_type WHERE id = ?1"] {
        db.execute(sql, [of_type]).map_err(failed(doing))?;
    }
    Ok(())
}

pub(super) fn all(db: &Connection) -> Result<Vec<TaskType>> {
    let doing = "reading the task types";
    let mut sql = db
        .prepare_cached(
            "SELECT name, time_limit, retention, restart_limit, at_once, retry_limit, retry_first, retry_factor, retry_cap,
                 retry_jitter FROM fulmar_task_type ORDER BY name",
        )
        .map_err(failed(doing))?;
    // A row that makes no sense is passed over: to register the type again mends it.
    let types = sql.query_map([], |row| Ok(read(row).ok())).map_err(failed(doing))?;
    types.filter_map(rusqlite::Result::transpose).collect::<rusqlite::Result<_>>().map_err(failed(doing))
}

/// The names of all types, in order.
pub(super) fn names(db: &Connection) -> Result<Vec<String>> {
    let doing = "reading the task types";
    let mut sql = db.prepare_cached("SELECT name FROM fulmar_task_type ORDER BY name").map_err(failed(doing))?;
    let names = sql.query_map([], |row| name(row, 0)).and_then(Iterator::collect);
    names.map_err(failed(doing))
}

/// A type's name in a row of many. One that isn't UTF-8 is no name that a program asks for.
pub(super) fn name(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(row.get_ref(column)?.as_bytes().map(String::from_utf8_lossy).unwrap_or_default().into_owned())
}

/// A number in a row of many, whatever stands there; `None` for what is none.
pub(super) fn number(row: &Row<'_>, column: usize) -> Option<i64> {
    match row.get_ref(column).ok()? {
        ValueRef::Integer(number) => Some(number),
        // Rounded down; one beyond the range becomes its end.
        ValueRef::Real(number) => Some(number.floor() as i64),
        _ => None,
    }
}

/// How many of a type at once, in a row of many: none if it makes no sense.
pub(super) fn at_once(row: &Row<'_>, column: usize) -> Option<i64> {
    row.get(column).unwrap_or(Some(0))
}

pub(super) fn find(db: &Connection, name: &str) -> Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM fulmar_task_type WHERE name = ?1")
        .and_then(|mut sql| sql.query_row([name], |row| row.get(0)).optional())
        .map_err(failed("looking for a task type"))
}

/// Whether no task of the type is to be claimed, whatever the reason.
pub(super) fn is_paused(db: &Connection, type_id: i64) -> Result<bool> {
    db.prepare_cached("SELECT paused & 3 > 0 FROM fulmar_task_type WHERE id = ?1")
        .and_then(|mut sql| sql.query_row([type_id], |row| row.get(0)))
        .map_err(failed("looking whether a type is paused"))
}

fn read(row: &Row<'_>) -> rusqlite::Result<TaskType> {
    Ok(TaskType {
        name: row.get(0)?,
        time_limit: row.get::<_, Option<i64>>(1)?.map(duration),
        retention: row.get::<_, Option<i64>>(2)?.map(duration),
        restart_limit: row.get(3)?,
        max_concurrent: row.get(4)?,
        retry: policy(row, 5)?,
    })
}

/// The five columns of a retry policy, from `first` on.
pub(super) fn policy(row: &Row<'_>, first: usize) -> rusqlite::Result<RetryPolicy> {
    Ok(RetryPolicy::times(row.get(first)?)
        .first(duration(row.get(first + 1)?))
        .factor(row.get(first + 2)?)
        .cap(duration(row.get(first + 3)?))
        .jitter(row.get(first + 4)?))
}

pub(super) fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
