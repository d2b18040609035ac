//! Schedules, and their firing.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::error::Result;
use super::super::schedule::{Firing, Stored};
use super::connection::failed;
use super::produce;

/// The time of schedules, which tests may let [pass](super::steer::pass_time).
pub(super) fn time(db: &Connection, now: i64) -> Result<i64> {
    let passed: Option<i64> = db
        .prepare_cached("SELECT value FROM fulmar_setting WHERE name = 'passed'")
        .and_then(|mut sql| sql.query_row([], |row| row.get(0)).optional())
        .map_err(failed("asking for the time"))?;
    Ok(now.saturating_add(passed.unwrap_or(0)))
}

pub(super) fn put(db: &Connection, schedule: &Stored) -> Result<()> {
    let Stored { name, rule, zone, missed, task, input, next, .. } = schedule;
    db.execute(
        "INSERT INTO fulmar_schedule (name, rule, zone, missed, task, input, next_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (name) DO UPDATE SET rule = ?2, zone = ?3, missed = ?4, task = ?5, input = ?6,
             next_at = CASE WHEN rule = ?2 AND zone = ?3 THEN next_at ELSE ?7 END",
        params![name, rule, zone, missed, task, input, next],
    )
    .map_err(failed("putting a schedule"))?;
    Ok(())
}

pub(super) fn remove(db: &Connection, name: &str) -> Result<bool> {
    let removed = db.execute("DELETE FROM fulmar_schedule WHERE name = ?1", [name]);
    Ok(removed.map_err(failed("removing a schedule"))? > 0)
}

/// All, or those that are due `by` a time.
pub(super) fn all(db: &Connection, by: Option<i64>) -> Result<Vec<Stored>> {
    let doing = "reading schedules";
    const COLUMNS: &str = "SELECT name, rule, zone, missed, task, input, next_at, last_at, paused FROM fulmar_schedule";
    let sql = match by {
        Some(_) => format!("{COLUMNS} WHERE paused = 0 AND next_at <= ?1 ORDER BY name"),
        None => format!("{COLUMNS} WHERE ?1 IS NULL ORDER BY name"),
    };
    let mut sql = db.prepare_cached(&sql).map_err(failed(doing))?;
    let mut rows = sql.query([by]).map_err(failed(doing))?;
    let mut schedules = Vec::new();
    while let Some(row) = rows.next().map_err(failed(doing))? {
        match read(row) {
            Ok(schedule) => schedules.push(schedule),
            Err(error) => crate::trace::event!(WARN, "a schedule can't be read", error = error.to_string()),
        }
    }
    Ok(schedules)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        name: row.get(0)?,
        rule: row.get(1)?,
        zone: row.get(2)?,
        missed: row.get(3)?,
        task: row.get(4)?,
        input: row.get(5)?,
        next: row.get(6)?,
        last: row.get(7)?,
        paused: row.get(8)?,
    })
}

pub(super) fn pause(db: &Connection, name: &str, next: Option<i64>) -> Result<bool> {
    let sql = "UPDATE fulmar_schedule SET paused = ?2 IS NULL, next_at = coalesce(?2, next_at) WHERE name = ?1";
    Ok(db.execute(sql, params![name, next]).map_err(failed("pausing a schedule"))? > 0)
}

/// One process writes at a time, so that the one that finds the time unchanged fires.
pub(super) fn fire(db: &Connection, now: i64, firing: &Firing) -> Result<Option<u64>> {
    let Firing { name, due, next, last, tasks } = firing;
    let moved = db
        .execute(
            "UPDATE fulmar_schedule SET next_at = ?3, last_at = coalesce(?4, last_at)
             WHERE name = ?1 AND next_at = ?2 AND paused = 0",
            params![name, due, next, last],
        )
        .map_err(failed("firing a schedule"))?;
    if moved == 0 {
        return Ok(None);
    }
    let mut missing = Vec::new();
    for task in tasks {
        let there = db
            .query_row(
                "SELECT 1 FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id
                 WHERE y.name = ?1 AND t.identifier = ?2",
                [&task.task_type, &task.identifier],
                |_| Ok(()),
            )
            .optional();
        if there.map_err(failed("firing a schedule"))?.is_none() {
            missing.push(task.clone());
        }
    }
    if missing.is_empty() {
        return Ok(Some(0));
    }
    let accepted = produce::enqueue(db, now, &missing)?;
    Ok(Some(accepted.iter().filter(|task| task.existing.is_none()).count() as u64))
}
