//! The order in which the rows of parents and children are taken.
//!
//! The end of a child fires a trigger, which changes the count of its parent, and then, if it was
//! the last one, the parent. So would its retry and its deletion. A transaction that does that to
//! tasks takes the counts of their parents first, by number, and then the tasks together with their
//! parents, by number. Otherwise two transactions with children of the same parents, or one with a
//! parent and one with its child, would wait for each other until the server aborts one, a second
//! later.

use super::connection::Connection;
use super::error::PgError;
use super::value::Param;

/// For a transaction, after the locks of lanes: takes the rows that a change of these tasks may
/// change, those of the tasks included if any of them has a parent, or is one.
pub(super) fn lock(db: &mut Connection, tasks: &[i64]) -> Result<(), PgError> {
    if lock_counts(db, tasks)? {
        db.query(
            "SELECT 1 FROM fulmar_task WHERE id = ANY(ARRAY(
                 SELECT unnest($1::int8[]) UNION SELECT parent FROM fulmar_task WHERE id = ANY($1::int8[]) AND parent IS NOT NULL))
             ORDER BY id FOR NO KEY UPDATE",
            &[Param::Ints(tasks)],
        )?;
    }
    Ok(())
}

/// As [`lock`], but for the tasks themselves: the caller passes over those that others have locked,
/// and so waits for none of them.
pub(super) fn lock_parents(db: &mut Connection, tasks: &[i64]) -> Result<(), PgError> {
    if lock_counts(db, tasks)? {
        db.query(
            "SELECT 1 FROM fulmar_task WHERE id = ANY(ARRAY(
                 SELECT parent FROM fulmar_task WHERE id = ANY($1::int8[]) AND parent IS NOT NULL))
             ORDER BY id FOR NO KEY UPDATE",
            &[Param::Ints(tasks)],
        )?;
    }
    Ok(())
}

/// Whether there are any. A retry may give a parent another number, so that its own count is taken,
/// too.
fn lock_counts(db: &mut Connection, tasks: &[i64]) -> Result<bool, PgError> {
    let rows = db.query(
        "SELECT 1 FROM fulmar_task_family WHERE task_id = ANY(ARRAY(
             SELECT unnest($1::int8[]) UNION SELECT parent FROM fulmar_task WHERE id = ANY($1::int8[]) AND parent IS NOT NULL))
         ORDER BY task_id FOR NO KEY UPDATE",
        &[Param::Ints(tasks)],
    )?;
    Ok(rows.len() > 0)
}

/// As [`lock`], for all tasks of a type that have not ended: the counts of their parents, and their
/// own, and then the tasks and their parents.
pub(super) fn lock_type(db: &mut Connection, type_id: i64) -> Result<(), PgError> {
    db.query(
        "SELECT count(*) FROM (
             SELECT 1 FROM fulmar_task_family WHERE task_id = ANY(ARRAY(
                 SELECT parent FROM fulmar_task WHERE type_id = $1::int8 AND ended IS NULL AND parent IS NOT NULL
                 UNION SELECT own.task_id FROM fulmar_task_family own JOIN fulmar_task t ON t.id = own.task_id
                     WHERE t.type_id = $1::int8 AND t.ended IS NULL))
             ORDER BY task_id FOR NO KEY UPDATE) AS f",
        &[type_id.into()],
    )?;
    db.query(
        "SELECT count(*) FROM (
             SELECT 1 FROM fulmar_task WHERE id = ANY(ARRAY(
                 SELECT id FROM fulmar_task WHERE type_id = $1::int8 AND ended IS NULL
                 UNION SELECT parent FROM fulmar_task WHERE type_id = $1::int8 AND ended IS NULL AND parent IS NOT NULL))
             ORDER BY id FOR UPDATE) AS t",
        &[type_id.into()],
    )?;
    Ok(())
}
