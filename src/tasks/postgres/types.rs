//! Task types.

use std::borrow::Cow;
use std::time::Duration;

use super::super::error::TaskError;
use super::super::task_type::TaskType;
use super::connection::{Connection, Row};
use super::fault::Fault;
use super::value::Param;
use super::{limits, millis, nonsense, reap};
use crate::backoff::RetryPolicy;

/// Inserts a task type. If there is one of its name, that gets these settings with `replace`, and
/// stays as it is without. A new type is paused if the whole queue is.
pub(super) fn put(db: &mut Connection, of_type: &TaskType, replace: bool) -> Result<(), Fault> {
    let RetryPolicy { retries, backoff } = of_type.retry;
    db.execute(
        "INSERT INTO fulmar_task_type (name, time_limit, retention, restart_limit, at_once, retry_limit, retry_first,
             retry_factor, retry_cap, retry_jitter, paused)
         VALUES ($1::text, $2::int8, $3::int8, $4::int8, $5::int8, $6::int8, $7::int8, $8::float8, $9::int8, $10::float8,
             CASE WHEN EXISTS (SELECT 1 FROM fulmar_setting WHERE name = 'paused' AND value = 'true') THEN 2 ELSE 0 END)
         ON CONFLICT (name) DO UPDATE SET time_limit = excluded.time_limit, retention = excluded.retention,
             restart_limit = excluded.restart_limit, at_once = excluded.at_once, retry_limit = excluded.retry_limit,
             retry_first = excluded.retry_first, retry_factor = excluded.retry_factor, retry_cap = excluded.retry_cap,
             retry_jitter = excluded.retry_jitter WHERE $11::bool",
        &[
            of_type.name().into(),
            of_type.time_limit.map(millis).into(),
            of_type.retention.map(millis).into(),
            i64::from(of_type.restart_limit).into(),
            of_type.max_concurrent.map(i64::from).into(),
            i64::from(retries).into(),
            millis(backoff.first).into(),
            Param::Float(backoff.factor),
            millis(backoff.cap).into(),
            Param::Float(backoff.jitter),
            replace.into(),
        ],
    )?;
    Ok(())
}

/// Deletes a type and its limits, in a transaction of its own. With `force` it deletes all tasks of
/// the type, too, those that workers hold included. Without, it is `InUse` if there is any task,
/// ended or not. `UnknownType`.
pub(super) fn remove(db: &mut Connection, name: &str, force: bool) -> Result<(), Fault> {
    let mut tx = db.begin()?;
    // A session that inserts a task holds a lock on its type until it has committed.
    let rows = tx.query("SELECT id FROM fulmar_task_type WHERE name = $1::text FOR UPDATE", &[name.into()])?;
    let id: i64 = rows.first().ok_or_else(|| TaskError::UnknownType(name.to_owned()))?.get(0)?;
    if !force {
        let rows = tx.query("SELECT count(*) FROM fulmar_task WHERE type_id = $1::int8", &[id.into()])?;
        let tasks: i64 = rows.only()?.get(0)?;
        if tasks > 0 {
            let tasks = u64::try_from(tasks).unwrap_or(u64::MAX);
            return Err(TaskError::InUse { task_type: name.to_owned(), tasks }.into());
        }
    }
    reap::erase_type(&mut tx, id)?;
    limits::remove(&mut tx, id)?;
    tx.execute("DELETE FROM fulmar_task_type WHERE id = $1::int8", &[id.into()])?;
    tx.commit()?;
    Ok(())
}

/// All registered types with their settings, by name. Leaves out a row that makes no sense.
pub(super) fn all(db: &mut Connection) -> Result<Vec<TaskType>, Fault> {
    let rows = db.query(
        "SELECT name, time_limit, retention, restart_limit, at_once, retry_limit, retry_first, retry_factor, retry_cap,
             retry_jitter FROM fulmar_task_type ORDER BY name COLLATE \"C\"",
        &[],
    )?;
    let read = |row: Row<'_>| {
        Ok::<_, Fault>(TaskType {
            name: row.get::<Cow<'_, str>>(0)?.into_owned(),
            time_limit: row.get::<Option<i64>>(1)?.map(duration),
            retention: row.get::<Option<i64>>(2)?.map(duration),
            restart_limit: small(row.get(3)?)?,
            max_concurrent: row.get::<Option<i64>>(4)?.map(small).transpose()?,
            retry: policy(row, 5)?,
        })
    };
    // A row that makes no sense is passed over: to register the type again mends it.
    Ok(rows.iter().filter_map(|row| read(row).ok()).collect())
}

/// The five columns of a retry policy, from `first` on.
pub(super) fn policy(row: Row<'_>, first: usize) -> Result<RetryPolicy, Fault> {
    Ok(RetryPolicy::times(small(row.get(first)?)?)
        .first(duration(row.get(first + 1)?))
        .factor(row.get(first + 2)?)
        .cap(duration(row.get(first + 3)?))
        .jitter(row.get(first + 4)?))
}

pub(super) fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

pub(super) fn small(number: i64) -> Result<u32, Fault> {
    u32::try_from(number).map_err(|_| nonsense("reading a number", format!("{number} isn't a small number")))
}
