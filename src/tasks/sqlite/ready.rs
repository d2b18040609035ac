//! Which tasks may be claimed: the first of one type, or of any of thousands, at the same price.
//!
//! For few types each is asked for its first tasks. For many, the first tasks of all types are
//! walked in their order, and those of other types passed over. Where so many of those stand in
//! front that the walk finds too few, the types that have tasks are looked up, by one step in the
//! index each, and asked.

use std::cmp::Reverse;
use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use super::super::error::Result;
use super::super::names::sql;
use super::connection::failed;
use super::limits::{self, Limited};
use super::types;

/// A task that may be claimed.
pub(super) struct Ready {
    pub(super) id: i64,
    pub(super) priority: i64,
}

/// Up to so many types are asked one by one.
const FEW: usize = 8;

/// How many tasks a walk looks at for each that is wanted, and beyond that.
const SPARE: i64 = 4;
const MORE: i64 = 100;

/// The first tasks of these types, which are sorted by name, as many as they may have at once, and
/// as their limits let pass. The caller must claim all that this returns: it already counts against
/// the limits. Searches have `found` some of them; of the types in `cut` one may find more.
pub(super) fn first(
    db: &Connection,
    now: i64,
    names: &[String],
    limit: usize,
    found: &[i64],
    cut: &mut Vec<Limited>,
) -> Result<Vec<Ready>> {
    let limited = limits::of(db, names)?;
    if limited.is_empty() {
        return free(db, names, limit);
    }
    limits::first(db, now, limited, free(db, names, limit)?, limit, found, cut)
}

/// Those of types without limits, how many at once aside.
fn free(db: &Connection, names: &[String], limit: usize) -> Result<Vec<Ready>> {
    if names.len() > FEW {
        if let Some(ready) = walk(db, names, limit)? {
            return Ok(ready);
        }
    }
    let mut ready = Vec::new();
    for (type_id, at_once) in asked(db, names)? {
        ready.extend(of_type(db, type_id, room(db, type_id, at_once)?.min(count(limit)))?);
    }
    Ok(in_order(ready, limit))
}

/// Whether a task of these types is ready, of those without limits. How many may be held at once is
/// not looked at.
pub(super) fn is_any(db: &Connection, names: &[String]) -> Result<bool> {
    let doing = "looking for the next task";
    if names.len() > FEW {
        let first = first_of_all(db, MORE)?;
        if first.iter().any(|task| !task.is_paused && is_among(names, &task.type_name)) {
            return Ok(true);
        }
        if count(first.len()) < MORE {
            return Ok(false);
        }
    }
    for (type_id, _) in asked(db, names)? {
        let is_ready = db
            .prepare_cached(sql!("SELECT 1 FROM fulmar_task WHERE gate = {gate_open} AND type_id = ?1 LIMIT 1"))
            .and_then(|mut sql| sql.exists([type_id]))
            .map_err(failed(doing))?;
        if is_ready {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first tasks of these types among the first of all; `None` if it can't be told without a look
/// at more.
fn walk(db: &Connection, names: &[String], limit: usize) -> Result<Option<Vec<Ready>>> {
    let most = count(limit).saturating_mul(SPARE).saturating_add(MORE);
    let first = first_of_all(db, most)?;
    let is_all = count(first.len()) < most;
    let mut rooms: HashMap<i64, i64> = HashMap::new();
    let mut ready = Vec::new();
    for task in first {
        if ready.len() >= limit {
            break;
        }
        if task.is_paused || !is_among(names, &task.type_name) {
            continue;
        }
        let room = match rooms.get(&task.type_id) {
            Some(room) => *room,
            None => room(db, task.type_id, task.at_once)?,
        };
        rooms.insert(task.type_id, room.saturating_sub(1));
        if room > 0 {
            ready.push(Ready { id: task.id, priority: task.priority });
        }
    }
    Ok((is_all || ready.len() >= limit).then(|| in_order(ready, limit)))
}

/// CROSS has SQLite go from the tasks, in the order of their index, to the types.
const FIRST: &str = sql!(
    "SELECT t.id, CAST(t.priority AS INTEGER), y.id, y.name, y.at_once, y.paused > 0
             FROM fulmar_task t CROSS JOIN fulmar_task_type y ON y.id = t.type_id
             WHERE t.gate = {gate_open} ORDER BY t.priority DESC, t.id LIMIT ?1"
);

/// The types with a task that is ready, by one step in their index each.
const WITH_TASKS: &str = sql!("WITH RECURSIVE ready (type_id) AS (
                 SELECT min(type_id) FROM fulmar_task WHERE gate = {gate_open}
                 UNION ALL SELECT (SELECT min(type_id) FROM fulmar_task WHERE gate = {gate_open} AND type_id > ready.type_id)
                 FROM ready WHERE type_id IS NOT NULL)
             SELECT y.name, y.id, y.at_once FROM ready CROSS JOIN fulmar_task_type y ON y.id = ready.type_id
             WHERE y.paused = 0");

struct First {
    id: i64,
    priority: i64,
    type_id: i64,
    type_name: String,
    at_once: Option<i64>,
    is_paused: bool,
}

/// The first tasks that are ready, of whatever type.
fn first_of_all(db: &Connection, most: i64) -> Result<Vec<First>> {
    let doing = "looking for tasks of many types";
    let mut sql = db.prepare_cached(FIRST).map_err(failed(doing))?;
    let first = sql.query_map([most], |row| {
        Ok(First {
            id: row.get(0)?,
            priority: row.get(1)?,
            type_id: row.get(2)?,
            type_name: types::name(row, 3)?,
            at_once: types::at_once(row, 4),
            is_paused: row.get(5)?,
        })
    });
    first.and_then(Iterator::collect).map_err(failed(doing))
}

/// The types of `names` that aren't paused, and how many tasks of each may be held at once. If
/// there are more than [`FEW`] names, only the types with a ready task, which one statement finds:
/// a worker may name thousands, most of them idle.
fn asked(db: &Connection, names: &[String]) -> Result<Vec<(i64, Option<i64>)>> {
    let doing = "looking for types to claim";
    if names.len() <= FEW {
        let mut sql = db
            .prepare_cached("SELECT id, at_once FROM fulmar_task_type WHERE name = ?1 AND paused = 0")
            .map_err(failed(doing))?;
        let found =
            names.iter().map(|name| sql.query_row([name], |row| Ok((row.get(0)?, types::at_once(row, 1)))).optional());
        return found.filter_map(|found| found.map_err(failed(doing)).transpose()).collect();
    }
    let mut sql = db.prepare_cached(WITH_TASKS).map_err(failed(doing))?;
    let found: Vec<(String, (i64, Option<i64>))> = sql
        .query_map([], |row| Ok((types::name(row, 0)?, (row.get(1)?, types::at_once(row, 2)))))
        .and_then(Iterator::collect)
        .map_err(failed(doing))?;
    Ok(found.into_iter().filter(|(name, _)| is_among(names, name)).map(|(_, of_type)| of_type).collect())
}

/// How many more of a type workers may hold.
pub(super) fn room(db: &Connection, type_id: i64, at_once: Option<i64>) -> Result<i64> {
    let Some(at_once) = at_once else {
        return Ok(i64::MAX);
    };
    // The plus keeps SQLite from the index of all tasks of the type, of which there may be millions
    // that have ended.
    let held: i64 = db
        .prepare_cached("SELECT count(*) FROM fulmar_task WHERE worker IS NOT NULL AND +type_id = ?1")
        .and_then(|mut sql| sql.query_row([type_id], |row| row.get(0)))
        .map_err(failed("counting tasks at work"))?;
    Ok(at_once.saturating_sub(held).max(0))
}

fn of_type(db: &Connection, type_id: i64, limit: i64) -> Result<Vec<Ready>> {
    let doing = "looking for tasks to claim";
    let mut sql = db
        .prepare_cached(sql!(
            "SELECT id, CAST(priority AS INTEGER) FROM fulmar_task WHERE gate = {gate_open} AND type_id = ?1
             ORDER BY priority DESC, id LIMIT ?2"
        ))
        .map_err(failed(doing))?;
    let ready = sql.query_map([type_id, limit], |row| Ok(Ready { id: row.get(0)?, priority: row.get(1)? }));
    ready.and_then(Iterator::collect).map_err(failed(doing))
}

fn in_order(mut ready: Vec<Ready>, limit: usize) -> Vec<Ready> {
    ready.sort_by_key(|task| (Reverse(task.priority), task.id));
    ready.truncate(limit);
    ready
}

pub(super) fn is_among(names: &[String], name: &str) -> bool {
    names.binary_search_by(|among| among.as_str().cmp(name)).is_ok()
}

pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::super::schema::SQLITE;
    use super::*;

    /// What SQLite says of how it does these statements.
    fn plans(db: &Connection) -> Vec<String> {
        let mut plans = Vec::new();
        db.set_prepared_statement_cache_capacity(16);
        let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        first(db, 0, &names, 5, &[], &mut Vec::new()).expect("sound SQL");
        for sql in [FIRST, WITH_TASKS] {
            let mut sql = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("sound SQL");
            let count = sql.parameter_count();
            let rows = sql.query_map(rusqlite::params_from_iter(vec![9; count]), |row| row.get::<_, String>(3));
            plans.extend(rows.expect("a plan").map(|row| row.expect("a line")));
        }
        plans
    }

    #[test]
    fn no_look_for_many_types_reads_or_sorts_all_tasks() {
        let db = Connection::open_in_memory().expect("memory");
        SQLITE.iter().for_each(|sql| db.execute_batch(sql).expect("sound SQL"));
        let plans = plans(&db);
        let of_tasks = |plan: &&String| plan.contains(" t ") || plan.contains("fulmar_task ");
        assert!(plans.iter().filter(of_tasks).all(|plan| plan.contains("INDEX fulmar_task_")), "{plans:#?}");
        assert!(plans.iter().any(|plan| plan.contains("INDEX fulmar_task_first")), "{plans:#?}");
        assert!(!plans.iter().any(|plan| plan.contains("TEMP B-TREE")), "{plans:#?}");
    }
}
