//! Advisory locks, and order by key: who may run, and who follows.
//!
//! A task that must wait for earlier ones of its key has its gate set, so that claims skip it. The
//! task that leaves the lane opens the gates of those that may run next. To miss none, all who join
//! or leave a lane hold its lock from before their first look until their commit. A statement sees
//! what was committed before it began, so the lock is taken by a statement of its own.
//!
//! Locks are taken in one order everywhere, against deadlocks: the capacity's, then limits at once,
//! then lanes, each by number, and then rows, those of [families](super::families) first. Where two
//! are at one anyhow, the server aborts one, and it is tried again.

use super::super::error::TaskError;
use super::super::names::sql;
use super::connection::Connection;
use super::error::PgError;
use super::fault::Fault;
use super::sql::{locks, now};
use super::value::Param;

/// For a transaction of the caller's: refuses an isolation level at which a look after a lock sees
/// what was there before it. There two tasks that exclude each other could both be let through, and
/// a full queue could take more.
pub(super) fn demand_read_committed(db: &mut Connection) -> Result<(), Fault> {
    let rows = db.query("SELECT current_setting('transaction_isolation')", &[])?;
    match rows.only()?.get(0)? {
        "read committed" | "read uncommitted" => Ok(()),
        level => Err(TaskError::Invalid(format!(
            "a task with a key, one that is unique, or one for a queue with a capacity can't be enqueued at isolation level {}, which hides what \
             others have enqueued meanwhile: begin the transaction at READ COMMITTED",
            level.to_uppercase()
        ))
        .into()),
    }
}

/// For a transaction: takes the locks of lanes, which stand beside each other in the two slices. So
/// many share a lock that one transaction never holds more than a thousand: the server has room for
/// some thousands in all.
pub(super) fn lock(db: &mut Connection, types: &[i64], lanes: &[&str]) -> Result<(), PgError> {
    db.query(
        sql!(
            "SELECT pg_advisory_xact_lock(",
            locks!(),
            " + 2, number) FROM (
             SELECT DISTINCT (hashtextextended(lane, type_id) & 1023)::int4 AS number
             FROM unnest($1::int8[], $2::text[]) AS l (type_id, lane) ORDER BY number OFFSET 0) AS numbers"
        ),
        &[Param::Ints(types), Param::Texts(lanes)],
    )
    .map(drop)
}

/// For a transaction: takes the locks of types with a limit at once.
pub(super) fn lock_types(db: &mut Connection, types: &[i64]) -> Result<(), PgError> {
    db.query(
        sql!(
            "SELECT pg_advisory_xact_lock(",
            locks!(),
            " + 1, number) FROM (
             SELECT DISTINCT (type_id & 2147483647)::int4 AS number FROM unnest($1::int8[]) AS t (type_id)
             ORDER BY number OFFSET 0) AS numbers"
        ),
        &[Param::Ints(types)],
    )
    .map(drop)
}

/// Opens the lanes that the query `$lanes` gives: finds the tasks by their numbers, whatever the
/// server knows of the table. For those who may run now that another has left: the first modifier,
/// or all accessors up to it.
macro_rules! follow {
    ($lanes:expr) => {
        concat!(
            "UPDATE fulmar_task t SET gate = CASE WHEN t.run_at > ", now!(), " THEN {gate_time} ELSE {gate_open} END
             WHERE t.gate IS NOT DISTINCT FROM {gate_order} AND t.id = ANY(ARRAY(SELECT next.id FROM ", $lanes, " AS l
             CROSS JOIN LATERAL (
                 SELECT (SELECT id FROM fulmar_task a WHERE a.type_id = l.type_id AND a.lane = l.lane AND NOT a.is_modifier
                             AND a.lane IS NOT NULL AND a.ended IS NULL ORDER BY a.is_modifier, a.id LIMIT 1) AS accessor,
                     (SELECT id FROM fulmar_task m WHERE m.type_id = l.type_id AND m.lane = l.lane AND m.is_modifier
                             AND m.lane IS NOT NULL AND m.ended IS NULL ORDER BY m.is_modifier, m.id LIMIT 1) AS modifier
             ) AS first
             CROSS JOIN LATERAL unnest(CASE
                 WHEN first.modifier IS NOT NULL AND (first.accessor IS NULL OR first.modifier < first.accessor)
                 THEN ARRAY[first.modifier]
                 ELSE ARRAY(SELECT w.id FROM fulmar_task w WHERE w.gate = {gate_order} AND w.type_id = l.type_id AND w.lane = l.lane
                     AND NOT w.is_modifier AND w.id < coalesce(first.modifier, 9223372036854775807))
                 END) AS next (id)))"
        )
    };
}

/// Opens lanes for the tasks that may run now that others left them.
pub(super) fn follow(db: &mut Connection, types: &[i64], lanes: &[&str]) -> Result<(), PgError> {
    if types.is_empty() {
        return Ok(());
    }
    let sql = sql!(follow!("(SELECT DISTINCT type_id, lane FROM unnest($1::int8[], $2::text[]) AS l (type_id, lane))"));
    db.execute(sql, &[Param::Ints(types), Param::Texts(lanes)]).map(drop)
}

/// As [`follow`], of the lanes of these tasks. No name comes here, where one that isn't UTF-8 could
/// not be read.
pub(super) fn follow_those(db: &mut Connection, tasks: &[i64]) -> Result<(), PgError> {
    if tasks.is_empty() {
        return Ok(());
    }
    let sql = sql!(follow!(
        "(SELECT DISTINCT type_id, lane FROM fulmar_task WHERE id = ANY($1::int8[]) AND lane IS NOT NULL)"
    ));
    db.execute(sql, &[Param::Ints(tasks)]).map(drop)
}

/// As [`lock`], of the lanes of these tasks, which never change.
pub(super) fn lock_those(db: &mut Connection, tasks: &[i64]) -> Result<(), PgError> {
    db.query(
        sql!(
            "SELECT pg_advisory_xact_lock(",
            locks!(),
            " + 2, number) FROM (
             SELECT DISTINCT (hashtextextended(lane, type_id) & 1023)::int4 AS number
             FROM fulmar_task WHERE id = ANY($1::int8[]) AND lane IS NOT NULL ORDER BY number OFFSET 0) AS numbers"
        ),
        &[Param::Ints(tasks)],
    )
    .map(drop)
}
