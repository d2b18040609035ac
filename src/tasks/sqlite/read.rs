//! What can be asked about tasks.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::engine::{Part, TaskRef};
use super::super::error::{Result, TaskError};
use super::super::names::sql;
use super::super::stats::{QueueStats, SENSELESS_CAPACITY, TypeStats};
use super::super::status::{LogEntry, Response, TaskInfo, TaskStatus};
use super::connection::{failed, to_time};
use super::{look, produce, steer, types};

const FIND: &str = "type_id = (SELECT id FROM fulmar_task_type WHERE name = ?1) AND identifier = ?2";

fn id(db: &Connection, task: &TaskRef) -> Result<Option<i64>> {
    db.prepare_cached(&format!("SELECT id FROM fulmar_task WHERE {FIND}"))
        .and_then(|mut sql| sql.query_row([&task.task_type, &task.identifier], |row| row.get(0)).optional())
        .map_err(failed("looking for a task"))
}

pub(super) fn info(db: &Connection, task: &TaskRef) -> Result<Option<TaskInfo>> {
    let sql = format!(
        "SELECT {} FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id WHERE y.name = ?1 AND t.identifier = ?2",
        look::COLUMNS
    );
    db.prepare_cached(&sql)
        .and_then(|mut sql| sql.query_row([&task.task_type, &task.identifier], look::read).optional())
        .map_err(failed("reading a task"))?
        .map(look::with_status)
        .transpose()
}

pub(super) fn statuses(db: &Connection, tasks: &[TaskRef]) -> Result<Vec<Option<i64>>> {
    let doing = "looking where tasks stand";
    let mut sql = db
        .prepare_cached(&format!("SELECT CAST(status AS INTEGER) FROM fulmar_task WHERE {FIND}"))
        .map_err(failed(doing))?;
    let mut status = |task: &TaskRef| sql.query_row([&task.task_type, &task.identifier], |row| row.get(0)).optional();
    tasks.iter().map(|task| status(task).map_err(failed(doing))).collect()
}

pub(super) fn log(db: &Connection, task: &TaskRef) -> Result<Option<Vec<LogEntry>>> {
    let doing = "reading a log";
    let Some(id) = id(db, task)? else {
        return Ok(None);
    };
    let mut sql = db
        .prepare_cached("SELECT time, status, message FROM fulmar_task_log WHERE task_id = ?1 ORDER BY entry")
        .map_err(failed(doing))?;
    let rows: Vec<(i64, i64, String)> = sql
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .and_then(Iterator::collect)
        .map_err(failed(doing))?;
    let entry =
        |(time, code, message)| Ok(LogEntry { time: to_time(time), status: TaskStatus::from_code(code)?, message });
    rows.into_iter().map(entry).collect::<Result<_>>().map(Some)
}

pub(super) fn response(db: &Connection, task: &TaskRef) -> Result<Option<Option<Response>>> {
    let Some(id) = id(db, task)? else {
        return Ok(None);
    };
    db.prepare_cached("SELECT media_type, body FROM fulmar_task_response WHERE task_id = ?1")
        .and_then(|mut sql| {
            sql.query_row([id], |row| Ok(Response { media_type: row.get(0)?, body: row.get(1)? })).optional()
        })
        .map(Some)
        .map_err(failed("reading a response"))
}

pub(super) fn load(db: &Connection, task: i64, part: Part) -> Result<Option<Vec<u8>>> {
    let doing = "reading what a task carries";
    let exists = db
        .prepare_cached("SELECT 1 FROM fulmar_task WHERE id = ?1")
        .and_then(|mut sql| sql.exists([task]))
        .map_err(failed(doing))?;
    if !exists {
        return Err(TaskError::Stale { task });
    }
    let table = match part {
        Part::Input => "fulmar_task_input",
        Part::Checkpoint => "fulmar_task_checkpoint",
    };
    db.prepare_cached(&format!("SELECT body FROM {table} WHERE task_id = ?1"))
        .and_then(|mut sql| sql.query_row([task], |row| row.get(0)).optional())
        .map_err(failed(doing))
}

/// A minute, over which throughput is counted.
const MINUTE: i64 = 60_000;

pub(super) fn stats(db: &Connection, now: i64) -> Result<QueueStats> {
    let types = types::names(db)?.iter().map(|name| stats_of(db, now, name)).collect::<Result<_>>()?;
    let capacity = produce::stored_capacity(db)?;
    let warnings = capacity.is_none().then(|| SENSELESS_CAPACITY.to_owned()).into_iter().collect();
    Ok(QueueStats { types, capacity: capacity.flatten(), paused: steer::is_paused(db)?, warnings })
}

/// Counts the tasks of the type `name` by status and those that ended in the last minute, and tells
/// how long the oldest ready one has waited. All is zero if no type is found by that name, such as
/// one that isn't UTF-8.
fn stats_of(db: &Connection, now: i64, name: &str) -> Result<TypeStats> {
    let doing = "counting tasks";
    let mut stats = TypeStats { name: name.to_owned(), ..TypeStats::default() };
    let Some(type_id) = types::find(db, name)? else {
        return Ok(stats);
    };
    stats.paused = types::is_paused(db, type_id)?;
    // The pluses keep SQLite from the index of all tasks of the type, of which there may be
    // millions that have ended.
    let mut sql = db
        .prepare_cached(sql!(
            "SELECT status, count(*) FROM (
                 SELECT status FROM fulmar_task WHERE gate = {gate_open} AND type_id = ?1
                 UNION ALL SELECT status FROM fulmar_task WHERE gate = {gate_time} AND +type_id = ?1
                 UNION ALL SELECT status FROM fulmar_task WHERE gate = {gate_order} AND type_id = ?1
                 UNION ALL SELECT status FROM fulmar_task WHERE worker IS NOT NULL AND +type_id = ?1
                 UNION ALL SELECT status FROM fulmar_task WHERE ended IS NOT NULL AND type_id = ?1) GROUP BY status"
        ))
        .map_err(failed(doing))?;
    let counts: Vec<(i64, u64)> = sql
        .query_map([type_id], |row| Ok((types::number(row, 0).unwrap_or(-1), row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(failed(doing))?;
    for (code, count) in counts {
        // A row that makes no sense is the reaper's business.
        if let Ok(status) = TaskStatus::from_code(code) {
            stats.counts[status as usize] = count;
        }
    }
    let oldest: Option<i64> = db
        .prepare_cached(sql!(
            "SELECT min(run_at) FROM (
                 SELECT run_at FROM fulmar_task WHERE gate = {gate_open} AND type_id = ?1
                 UNION ALL SELECT run_at FROM fulmar_task WHERE gate = {gate_time} AND run_at <= ?2 AND +type_id = ?1)"
        ))
        .and_then(|mut sql| sql.query_row([type_id, now], |row| Ok(types::number(row, 0))))
        .map_err(failed(doing))?;
    stats.oldest_ready = oldest.map(|at| types::duration(now.saturating_sub(at)));
    stats.ended_last_minute = db
        .prepare_cached("SELECT count(*) FROM fulmar_task WHERE type_id = ?1 AND ended IS NOT NULL AND ended > ?2")
        .and_then(|mut sql| sql.query_row(params![type_id, now - MINUTE], |row| row.get(0)))
        .map_err(failed(doing))?;
    Ok(stats)
}
