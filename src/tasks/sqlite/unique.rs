//! Unique tasks: of those with the same type and unique key one is enough. One process writes at a
//! time, so that the look for it and what follows are one step.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::Result;
use super::super::names::sql;
use super::super::new_task::Checked;
use super::super::status::TaskStatus;
use super::super::transition::Gate;
use super::super::unique::{Accepted, CheckedUnique, Conflict};
use super::connection::failed;
use super::{millis, produce, steps};

const DOING: &str = "enqueuing";

/// Looks for a task that makes `task` needless: of the same unique key, accepted within the period
/// before `now`, and in one of the statuses that `task` names. If that hasn't started yet, it gets
/// the new input or time, as `task` asks. `None`: the caller inserts `task`.
pub(super) fn find(db: &Connection, now: i64, type_id: i64, task: &Checked) -> Result<Option<Accepted>> {
    let Some(unique) = &task.unique else {
        return Ok(None);
    };
    let since = unique.period().map_or(i64::MIN, |period| now.saturating_sub(millis(period)));
    // Only a fresh one may be changed: a task that has started may have read its input already, and
    // stored steps that depend on it.
    let found: Option<(i64, String, bool)> = db
        .prepare_cached(sql!(
            "SELECT t.id, t.identifier, t.status = {accepted} AND t.starts = 0 AS is_fresh
             FROM fulmar_task_unique u JOIN fulmar_task t ON t.id = u.task_id
             WHERE u.type_id = ?1 AND u.key = ?2 AND (?3 >> t.status) & 1 AND t.created > ?4 AND (is_fresh OR NOT ?5)
             ORDER BY is_fresh DESC, t.id DESC LIMIT 1"
        ))
        .and_then(|mut sql| {
            let params = params![type_id, unique.key, unique.statuses().0, since, unique.is_of_fresh()];
            sql.query_row(params, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(failed(DOING))?;
    let Some((id, identifier, is_fresh)) = found else {
        return Ok(None);
    };
    if is_fresh {
        change(db, now, id, task, unique)?;
    }
    Ok(Some(Accepted { id, existing: Some(identifier) }))
}

/// Changes the task `id`, which stands for the new `task`, as `unique.conflict` says. `Keep`: not
/// at all. `Replace`: its input and its priority. `PushBack`: its time to start as well. A change
/// is an entry of its log. For a write transaction.
fn change(db: &Connection, now: i64, id: i64, task: &Checked, unique: &CheckedUnique) -> Result<()> {
    if unique.conflict == Conflict::Keep {
        return Ok(());
    }
    let run = |sql: &str, params: &dyn Fn(&mut rusqlite::Statement<'_>) -> rusqlite::Result<usize>| {
        db.prepare_cached(sql).and_then(|mut sql| params(&mut sql)).map_err(failed(DOING))
    };
    run("UPDATE fulmar_task SET priority = ?2 WHERE id = ?1", &|sql| sql.execute(params![id, task.priority]))?;
    run("UPDATE fulmar_task_input SET body = ?2 WHERE task_id = ?1", &|sql| sql.execute(params![id, task.input]))?;
    if unique.conflict == Conflict::PushBack {
        let run_at = produce::run_at(task.start, now);
        let open = sql!(
            "UPDATE fulmar_task SET run_at = ?2, gate = CASE WHEN gate = {gate_order} THEN gate ELSE ?3 END WHERE id = ?1"
        );
        run(open, &|sql| sql.execute([id, run_at, Gate::by_time(run_at > now).code()]))?;
    }
    steps::note(db, id, now, TaskStatus::Accepted, &unique.words(&task.message))
}

/// Notes the key of a new task.
pub(super) fn keep(db: &Connection, type_id: i64, id: i64, task: &Checked) -> Result<()> {
    if let Some(unique) = &task.unique {
        db.prepare_cached("INSERT INTO fulmar_task_unique (type_id, key, task_id) VALUES (?1, ?2, ?3)")
            .and_then(|mut sql| sql.execute(params![type_id, unique.key, id]))
            .map_err(failed(DOING))?;
    }
    Ok(())
}
