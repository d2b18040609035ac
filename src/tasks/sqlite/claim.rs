//! Taking tasks, and keeping them.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::super::engine::{Claimed, Held, SAYING, taken_by};
use super::super::error::Result;
use super::super::limits::Searches;
use super::super::names::sql;
use super::super::status::TaskStatus;
use super::super::transition::{Change, Facts, transition};
use super::super::worker_id::WorkerId;
use super::connection::{failed, is_of_row};
use super::limits::Limited;
use super::{limits, millis, ready, reap, steps, types};

/// The most tasks whose time has come that one claim moves to those that are ready.
const MOST_DUE: i64 = 1_000;

/// The largest input that comes along with its task, in bytes.
const ALONG: i64 = 64 << 10;

/// Who wants how many, of which types and for how long, and what it says.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) worker: WorkerId,
    pub(super) types: Arc<[String]>,
    pub(super) limit: usize,
    pub(super) lease: Duration,
    pub(super) message: String,
}

/// Takes tasks, some of which searches have `found`. Of the types that are given besides, a search
/// may find more.
pub(super) fn claim(db: &Connection, now: i64, wish: &Wish, found: &[i64]) -> Result<(Vec<Claimed>, Vec<Limited>)> {
    let Wish { worker, types, limit, lease, message } = wish;
    db.prepare_cached(sql!(
        "UPDATE fulmar_task SET gate = {gate_open} WHERE id IN
             (SELECT id FROM fulmar_task WHERE gate = {gate_time} AND run_at <= ?1 ORDER BY run_at LIMIT ?2)"
    ))
    .and_then(|mut sql| sql.execute([now, MOST_DUE]))
    .map_err(failed("looking for tasks whose time has come"))?;

    let mut cut = Vec::new();
    let ready = ready::first(db, now, types, *limit, found, &mut cut)?;
    let until = now.saturating_add(millis(*lease));
    let saying = if message.is_empty() { "" } else { SAYING };
    let words = [&*taken_by(worker.as_str()), saying, message].concat();
    let taken = ready.iter().filter_map(|task| take(db, now, worker, task.id, until, &words).transpose());
    Ok((taken.collect::<Result<_>>()?, cut))
}

/// Takes one task. A row that can't be read is set aside and gives `None`, so that the others can
/// still be claimed.
fn take(db: &Connection, now: i64, worker: &WorkerId, id: i64, until: i64, words: &str) -> Result<Option<Claimed>> {
    let doing = "claiming a task";
    // Read first: whatever is wrong with a row shows before anything was written.
    let read = db
        .prepare_cached(
            "SELECT t.token + 1, y.name, t.identifier, t.starts, t.failures,
                 y.retry_limit, y.retry_first, y.retry_factor, y.retry_cap, y.retry_jitter,
                 (SELECT CASE WHEN length(body) <= ?2 THEN body END FROM fulmar_task_input WHERE task_id = t.id),
                 t.starts > 0 AND EXISTS (SELECT 1 FROM fulmar_task_checkpoint WHERE task_id = t.id), t.entries + 1,
                 (SELECT context FROM fulmar_task_context WHERE task_id = t.id), ?3 - max(t.run_at, 0), t.status
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
                Ok((claimed, row.get(12)?, row.get(15)?))
            })
        });
    let (claimed, entry, status): (_, i64, i64) = match read {
        Ok(read) => read,
        // Without a code the error isn't SQLite's: a column's value isn't of our type.
        Err(error) if error.sqlite_error_code().is_none() => {
            crate::trace::event!(WARN, "a task can't be claimed", task = id, error = error.to_string());
            reap::set_aside(db, now, id)?;
            return Ok(None);
        }
        Err(error) => return Err(failed(doing)(error)),
    };
    let waiting = TaskStatus::from_code(status).ok();
    let Some(next) = waiting.and_then(|status| transition(Change::Claim, Facts::at(status))) else {
        crate::trace::event!(WARN, "a task that is ready does not wait", task = id, status = status);
        reap::set_aside(db, now, id)?;
        return Ok(None);
    };
    db.prepare_cached(
        "UPDATE fulmar_task SET status = ?4, gate = NULL, token = token + 1, worker = ?2, lease = ?3, entries = entries + 1
         WHERE id = ?1",
    )
    .and_then(|mut sql| sql.execute(params![id, worker.as_str(), until, next.status.code()]))
    .map_err(failed(doing))?;
    match steps::log(db, id, entry, now, next.status, &next.words.text(words, 0, 0)) {
        // That entry is there already.
        Err(error) if is_of_row(&error) => {
            crate::trace::event!(WARN, "a task can't be claimed", task = id, error = error.to_string());
            reap::set_aside(db, now, id)?;
            Ok(None)
        }
        logged => logged.map(|()| Some(claimed)),
    }
}

pub(super) fn heartbeat(db: &Connection, now: i64, worker: &WorkerId, lease: Duration) -> Result<Vec<Held>> {
    let doing = "renewing leases";
    let mut sql = db
        .prepare_cached(sql!(
            "UPDATE fulmar_task SET lease = ?2
             WHERE worker = ?1 AND status IN {held} AND lease > ?3 AND (deadline IS NULL OR deadline > ?3)
                 AND typeof(token) = 'integer' AND typeof(cancel_requested) = 'integer'
             RETURNING id, token, cancel_requested"
        ))
        .map_err(failed(doing))?;
    let held =
        sql.query_map(params![worker.as_str(), now.saturating_add(millis(lease)), now], read_held).and_then(readable);
    held.map_err(failed(doing))
}

fn read_held(row: &Row<'_>) -> rusqlite::Result<Option<Held>> {
    let read = || Ok::<_, rusqlite::Error>(Held { id: row.get(0)?, token: row.get(1)?, cancel_requested: row.get(2)? });
    Ok(read().ok())
}

/// Without the rows that can't be read: their worker has lost them, and keeps the others. Their
/// leases aren't renewed, so that they are rescued in time.
fn readable(rows: impl Iterator<Item = rusqlite::Result<Option<Held>>>) -> rusqlite::Result<Vec<Held>> {
    rows.filter_map(Result::transpose).collect()
}

/// What the worker holds, with its leases as they are.
pub(super) fn held(db: &Connection, worker: &WorkerId) -> Result<Vec<Held>> {
    let doing = "looking at what a worker holds";
    let mut sql = db
        .prepare_cached(sql!(
            "SELECT id, token, cancel_requested FROM fulmar_task WHERE worker = ?1 AND status IN {held}"
        ))
        .map_err(failed(doing))?;
    let held = sql.query_map([worker.as_str()], read_held).and_then(readable);
    held.map_err(failed(doing))
}

pub(super) fn cancel_requests(db: &Connection, worker: &WorkerId) -> Result<Vec<Held>> {
    let doing = "looking for cancellations";
    let mut sql = db
        .prepare_cached(sql!(
            "SELECT id, token, cancel_requested FROM fulmar_task WHERE worker = ?1 AND cancel_requested = 1 AND status = {running}"
        ))
        .map_err(failed(doing))?;
    let held = sql.query_map([worker.as_str()], read_held).and_then(readable);
    held.map_err(failed(doing))
}

pub(super) fn next_due(db: &Connection, now: i64, names: &[String], searches: &Searches) -> Result<Option<Duration>> {
    let doing = "looking for the next task";
    if ready::is_any(db, names)? {
        return Ok(Some(Duration::ZERO));
    }
    let passes = limits::next(db, now, names, searches)?;
    // Of any type: a worker that looks too early looks once more.
    let next: Option<i64> = db
        .prepare_cached(sql!("SELECT min(run_at) FROM fulmar_task WHERE gate = {gate_time}"))
        .and_then(|mut sql| sql.query_row([], |row| Ok(types::number(row, 0))))
        .map_err(failed(doing))?;
    Ok(next.into_iter().chain(passes).min().map(|at| types::duration(at.saturating_sub(now))))
}
