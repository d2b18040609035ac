//! Taking tasks, and keeping them.

use std::cmp::Reverse;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::super::engine::{Claimed, Held, SAYING, taken_by};
use super::super::error::Result;
use super::super::status::TaskStatus;
use super::super::worker_id::WorkerId;
use super::connection::failed;
use super::{millis, reap, steps, types};

/// The most tasks whose time has come that one claim moves to those that are ready.
const MOST_DUE: i64 = 1_000;

/// The largest input that comes along with its task, in bytes.
const ALONG: i64 = 64 << 10;

/// A task that may be claimed.
struct Ready {
    id: i64,
    priority: i64,
}

pub(super) fn claim(
    db: &Connection,
    now: i64,
    worker: &WorkerId,
    names: &[String],
    limit: usize,
    lease: Duration,
    message: &str,
) -> Result<Vec<Claimed>> {
    db.prepare_cached(
        "UPDATE fulmar_task SET gate = 0 WHERE id IN
             (SELECT id FROM fulmar_task WHERE gate = 1 AND run_at <= ?1 ORDER BY run_at LIMIT ?2)",
    )
    .and_then(|mut sql| sql.execute([now, MOST_DUE]))
    .map_err(failed("looking for tasks whose time has come"))?;

    let mut ready = Vec::new();
    for name in names {
        ready.extend(ready_of(db, name, limit)?);
    }
    ready.sort_by_key(|task| (Reverse(task.priority), task.id));
    ready.truncate(limit);
    let until = now.saturating_add(millis(lease));
    let saying = if message.is_empty() { "" } else { SAYING };
    let words = [&*taken_by(worker.as_str()), saying, message].concat();
    ready.iter().filter_map(|task| take(db, now, worker, task.id, until, &words).transpose()).collect()
}

/// The first tasks of a type, as many as it may have at once.
fn ready_of(db: &Connection, name: &str, limit: usize) -> Result<Vec<Ready>> {
    let doing = "looking for tasks to claim";
    let of_type: Option<(i64, Option<i64>)> = db
        .prepare_cached("SELECT id, at_once FROM fulmar_task_type WHERE name = ?1 AND paused = 0")
        .and_then(|mut sql| sql.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(failed(doing))?;
    let Some((type_id, at_once)) = of_type else {
        return Ok(Vec::new());
    };
    let mut limit = i64::try_from(limit).unwrap_or(i64::MAX);
    if let Some(at_once) = at_once {
        // The plus keeps SQLite from the index of all tasks of the type, of which there may be millions that have ended.
        let held: i64 = db
            .prepare_cached("SELECT count(*) FROM fulmar_task WHERE worker IS NOT NULL AND +type_id = ?1")
            .and_then(|mut sql| sql.query_row([type_id], |row| row.get(0)))
            .map_err(failed(doing))?;
        limit = limit.min(at_once.saturating_sub(held)).max(0);
    }
    let mut sql = db
        .prepare_cached(
            "SELECT id, CAST(priority AS INTEGER) FROM fulmar_task WHERE gate = 0 AND type_id = ?1 ORDER BY priority DESC, id LIMIT ?2",
        )
        .map_err(failed(doing))?;
    let ready = sql
        .query_map([type_id, limit], |row| Ok(Ready { id: row.get(0)?, priority: row.get(1)? }))
        .and_then(Iterator::collect);
    ready.map_err(failed(doing))
}

/// Takes one task. A row that makes no sense is set aside, so that it keeps nobody from being claimed.
fn take(db: &Connection, now: i64, worker: &WorkerId, id: i64, until: i64, words: &str) -> Result<Option<Claimed>> {
    let doing = "claiming a task";
    // Read first: whatever is wrong with a row shows before anything was written.
    let read = db
        .prepare_cached(
            "SELECT t.token + 1, y.name, t.identifier, t.starts, t.failures,
                 y.retry_limit, y.retry_first, y.retry_factor, y.retry_cap, y.retry_jitter,
                 (SELECT CASE WHEN length(body) <= ?2 THEN body END FROM fulmar_task_input WHERE task_id = t.id),
                 t.starts > 0 AND EXISTS (SELECT 1 FROM fulmar_task_checkpoint WHERE task_id = t.id), t.entries + 1,
                 (SELECT context FROM fulmar_task_context WHERE task_id = t.id), ?3 - max(t.run_at, 0)
             FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id WHERE t.id = ?1",
        )
        .and_then(|mut sql| {
            sql.query_row([id, ALONG, now], |row| {
                let claimed = Claimed {
                    id,
                    token: row.get(0)?,
                    task_type: row.get(1)?,
                    identifier: row.get(2)?,
                    starts: row.get(3)?,
                    failures: row.get(4)?,
                    retry: types::policy(row, 5)?,
                    input: row.get(10)?,
                    has_checkpoint: row.get(11)?,
                    context: row.get(13)?,
                    waited: types::duration(row.get(14)?),
                };
                Ok((claimed, row.get(12)?))
            })
        });
    let (claimed, entry) = match read {
        Ok(read) => read,
        Err(error) if error.sqlite_error_code().is_none() => {
            crate::trace::event!(WARN, "a task can't be claimed", task = id, error = error.to_string());
            reap::set_aside(db, now, id)?;
            return Ok(None);
        }
        Err(error) => return Err(failed(doing)(error)),
    };
    db.prepare_cached(
        "UPDATE fulmar_task SET status = 1, gate = NULL, token = token + 1, worker = ?2, lease = ?3, entries = entries + 1
         WHERE id = ?1",
    )
    .and_then(|mut sql| sql.execute(params![id, worker.as_str(), until]))
    .map_err(failed(doing))?;
    steps::log(db, id, entry, now, TaskStatus::Scheduled, words)?;
    Ok(Some(claimed))
}

pub(super) fn heartbeat(db: &Connection, now: i64, worker: &WorkerId, lease: Duration) -> Result<Vec<Held>> {
    let doing = "renewing leases";
    let mut sql = db
        .prepare_cached(
            "UPDATE fulmar_task SET lease = ?2
             WHERE worker = ?1 AND status IN (1, 2) AND lease > ?3 AND (deadline IS NULL OR deadline > ?3)
             RETURNING id, token, cancel_requested",
        )
        .map_err(failed(doing))?;
    let held = sql
        .query_map(params![worker.as_str(), now.saturating_add(millis(lease)), now], |row| {
            Ok(Held { id: row.get(0)?, token: row.get(1)?, cancel_requested: row.get(2)? })
        })
        .and_then(Iterator::collect);
    held.map_err(failed(doing))
}

pub(super) fn cancel_requests(db: &Connection, worker: &WorkerId) -> Result<Vec<Held>> {
    let doing = "looking for cancellations";
    let mut sql = db
        .prepare_cached("SELECT id, token FROM fulmar_task WHERE worker = ?1 AND cancel_requested = 1 AND status = 2")
        .map_err(failed(doing))?;
    let held = sql
        .query_map([worker.as_str()], |row| Ok(Held { id: row.get(0)?, token: row.get(1)?, cancel_requested: true }))
        .and_then(Iterator::collect);
    held.map_err(failed(doing))
}

pub(super) fn next_due(db: &Connection, now: i64, names: &[String]) -> Result<Option<Duration>> {
    let doing = "looking for the next task";
    for name in names {
        let Some(type_id) = types::find(db, name)? else {
            continue;
        };
        if types::is_paused(db, type_id)? {
            continue;
        }
        let is_ready = db
            .prepare_cached("SELECT 1 FROM fulmar_task WHERE gate = 0 AND type_id = ?1 LIMIT 1")
            .and_then(|mut sql| sql.exists([type_id]))
            .map_err(failed(doing))?;
        if is_ready {
            return Ok(Some(Duration::ZERO));
        }
    }
    // Of any type: whoever looks too early looks once more.
    let next: Option<i64> = db
        .prepare_cached("SELECT min(run_at) FROM fulmar_task WHERE gate = 1")
        .and_then(|mut sql| sql.query_row([], |row| row.get(0)))
        .map_err(failed(doing))?;
    Ok(next.map(|at| types::duration(at.saturating_sub(now))))
}
