//! Schedules, and their firing.

use std::collections::HashSet;

use super::super::names::sql;
use super::super::schedule::{Firing, Stored};
use super::connection::{Connection, Row};
use super::error::PgError;
use super::fault::Fault;
use super::produce;
use super::sql::then;
use super::value::Param;

/// The time of schedules, which tests may let [pass](super::steer::pass_time).
pub(super) fn now(db: &mut Connection) -> Result<i64, Fault> {
    let sql =
        sql!("SELECT ", then!(), " + coalesce((SELECT value::int8 FROM fulmar_setting WHERE name = 'passed'), 0)");
    Ok(db.query(sql, &[])?.only()?.get(0)?)
}

/// Inserts a schedule, or changes the one of its name. That one stays paused if it was, keeps the
/// time of its last firing, and keeps its next time if rule and zone are the same.
pub(super) fn put(db: &mut Connection, schedule: &Stored) -> Result<(), Fault> {
    let Stored { name, rule, zone, missed, task, input, next, .. } = schedule;
    db.execute(
        "INSERT INTO fulmar_schedule AS s (name, rule, zone, missed, task, input, next_at)
         VALUES ($1::text, $2::text, $3::text, $4::int8, $5::text, $6::bytea, $7::int8)
         ON CONFLICT (name) DO UPDATE SET rule = excluded.rule, zone = excluded.zone, missed = excluded.missed,
             task = excluded.task, input = excluded.input,
             next_at = CASE WHEN s.rule = excluded.rule AND s.zone = excluded.zone THEN s.next_at ELSE excluded.next_at END",
        &[
            (&**name).into(),
            (&**rule).into(),
            (&**zone).into(),
            (*missed).into(),
            (&**task).into(),
            Param::Bytes(input),
            (*next).into(),
        ],
    )?;
    Ok(())
}

pub(super) fn remove(db: &mut Connection, name: &str) -> Result<bool, Fault> {
    Ok(db.execute("DELETE FROM fulmar_schedule WHERE name = $1::text", &[name.into()])? > 0)
}

/// All, or those that are due, and the time.
pub(super) fn all(db: &mut Connection, due: bool) -> Result<(i64, Vec<Stored>), Fault> {
    let now = now(db)?;
    let rows = db.query(
        "SELECT name, rule, zone, missed, task, input, next_at, last_at, paused FROM fulmar_schedule
         WHERE NOT $1::bool OR (NOT paused AND next_at <= $2::int8) ORDER BY name COLLATE \"C\"",
        &[due.into(), now.into()],
    )?;
    let mut schedules = Vec::with_capacity(rows.len());
    for row in rows.iter() {
        match read(row) {
            Ok(schedule) => schedules.push(schedule),
            Err(error) => crate::trace::event!(WARN, "a schedule can't be read", error = error.to_string()),
        }
    }
    Ok((now, schedules))
}

fn read(row: Row<'_>) -> Result<Stored, PgError> {
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

pub(super) fn pause(db: &mut Connection, name: &str, next: Option<i64>) -> Result<bool, Fault> {
    let sql = "UPDATE fulmar_schedule SET paused = $2::int8 IS NULL, next_at = coalesce($2::int8, next_at)
         WHERE name = $1::text";
    Ok(db.execute(sql, &[name.into(), next.into()])? > 0)
}

/// The row's lock lets one process fire; the others find that its time has moved on.
pub(super) fn fire(db: &mut Connection, firing: &Firing) -> Result<Option<u64>, Fault> {
    let Firing { name, due, next, last, tasks } = firing;
    let mut tx = db.begin()?;
    let moved = tx.execute(
        "UPDATE fulmar_schedule SET next_at = $3::int8, last_at = coalesce($4::int8, last_at)
         WHERE name = $1::text AND next_at = $2::int8 AND NOT paused",
        &[(&**name).into(), (*due).into(), (*next).into(), (*last).into()],
    )?;
    if moved == 0 {
        return Ok(None);
    }
    let types: Vec<&str> = tasks.iter().map(|task| &*task.task_type).collect();
    let identifiers: Vec<&str> = tasks.iter().map(|task| &*task.identifier).collect();
    let rows = tx.query(
        "SELECT n.ord FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (type, identifier, ord)
         JOIN fulmar_task_type y ON y.name = n.type
         JOIN fulmar_task t ON t.type_id = y.id AND t.identifier = n.identifier",
        &[Param::Texts(&types), Param::Texts(&identifiers)],
    )?;
    let there: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect::<Result<_, PgError>>()?;
    let missing = (1..).zip(tasks).filter(|(ord, _)| !there.contains(ord)).map(|(_, task)| task.clone());
    let missing: Vec<_> = missing.collect();
    let accepted = if missing.is_empty() { Vec::new() } else { produce::insert_in(&mut tx, &missing)? };
    tx.commit()?;
    Ok(Some(accepted.iter().filter(|task| task.existing.is_none()).count() as u64))
}
