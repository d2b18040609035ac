//! Order by key: which tasks may run, and which wait behind them.
//!
//! A task that must wait for earlier ones of its key is inserted with its gate set to that of its
//! key, so that claims skip it. When a task leaves the lane, the same transaction opens the gates
//! of the tasks that may run next. Both happen in write transactions, and SQLite runs one of these
//! at a time: so no task joins a lane while another one leaves it unseen.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::error::Result;
use super::super::names::sql;
use super::connection::failed;

/// Whether a task that comes last in its lane has to wait for those before it.
pub(super) fn is_blocked(db: &Connection, of_type: i64, lane: &str, is_modifier: bool) -> Result<bool> {
    // A modifier clashes with all others, an accessor only with modifiers.
    let clashes = if is_modifier { "" } else { "AND is_modifier = 1" };
    let sql = format!(
        "SELECT 1 FROM fulmar_task WHERE type_id = ?1 AND lane = ?2 AND lane IS NOT NULL AND ended IS NULL {clashes} LIMIT 1"
    );
    db.prepare_cached(&sql)
        .and_then(|mut sql| sql.exists(params![of_type, lane]))
        .map_err(failed("looking at a task's order"))
}

/// The first accessor or the first modifier of a lane: its number, and whether its gate is that of
/// its key.
type First = (i64, bool);

/// Opens the gates of the tasks of a lane that may run now that a task has left it, or has gone to
/// its end. Of those that haven't ended, these are the first one, and if that is an accessor, all
/// accessors before the next modifier. Their gate becomes that of the time if their time comes
/// after `now`, which is in milliseconds since 1970, and open otherwise. A task whose gate isn't
/// that of its key stays as it is. `of_type` is the type's number. For a write transaction, in
/// which the task that left has ended or is deleted already.
pub(super) fn follow(db: &Connection, now: i64, of_type: i64, lane: &str) -> Result<()> {
    let doing = "opening a task's order";
    let first = |is_modifier: bool| -> Result<Option<First>> {
        db.prepare_cached(sql!(
            "SELECT id, gate IS {gate_order} FROM fulmar_task
             WHERE type_id = ?1 AND lane = ?2 AND is_modifier = ?3 AND lane IS NOT NULL AND ended IS NULL
             ORDER BY id LIMIT 1"
        ))
        .and_then(|mut sql| {
            sql.query_row(params![of_type, lane, is_modifier], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(failed(doing))
    };
    let (accessor, modifier) = (first(false)?, first(true)?);
    let accessor_is_ahead = |modifier: i64| accessor.is_some_and(|(accessor, _)| accessor < modifier);
    match modifier {
        Some((id, is_held)) if !accessor_is_ahead(id) => {
            if is_held {
                db.prepare_cached(sql!("UPDATE fulmar_task SET gate = CASE WHEN run_at > ?2 THEN {gate_time} ELSE {gate_open} END WHERE id = ?1"))
                    .and_then(|mut sql| sql.execute([id, now]))
                    .map_err(failed(doing))?;
            }
        }
        _ => {
            // All accessors before the next modifier: they may run beside each other.
            let until = modifier.map_or(i64::MAX, |(id, _)| id);
            db.prepare_cached(sql!(
                "UPDATE fulmar_task SET gate = CASE WHEN run_at > ?4 THEN {gate_time} ELSE {gate_open} END
                 WHERE type_id = ?1 AND lane = ?2 AND is_modifier = 0 AND id < ?3 AND gate = {gate_order}"
            ))
            .and_then(|mut sql| sql.execute(params![of_type, lane, until, now]))
            .map_err(failed(doing))?;
        }
    }
    Ok(())
}
