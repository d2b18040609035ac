//! Takes tasks away from workers that are lost, and deletes ended tasks whose retention is over:
//! the time for which their type keeps them.

use super::super::engine::Reaped;
use super::super::names::sql;
use super::super::status::TaskStatus;
use super::super::transition::{Change, Facts, transition, words};
use super::connection::Connection;
use super::error::PgError;
use super::fault::Fault;
use super::sql::{now, then};
use super::value::Param;
use super::{families, lanes};

/// Takes up to `limit` tasks whose lease or time limit is over from their workers, and counts what
/// became of them. One that had not started becomes `Accepted`. One that ran becomes `Cancelled` if
/// that was asked for, `Failed` beyond its restart limit, and `Accepted` otherwise. It is one
/// transaction, or one for each task if a row makes no sense: that row becomes `Failed`, and counts
/// as `bad`. A task that another session has locked is left for the next call.
pub(super) fn reap(db: &mut Connection, limit: usize) -> Result<Reaped, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // A look without locks comes first, because mostly there is nothing: `rescue` checks again. It
    // sorts outside of the subquery, or the server might read all tasks in the order of numbers.
    let rows = db.query(
        sql!(
            "SELECT id, has_lane FROM (
                 SELECT id, lane IS NOT NULL AS has_lane FROM fulmar_task
                 WHERE worker IS NOT NULL AND (lease <= ",
            then!(),
            " OR deadline <= ",
            then!(),
            ") OFFSET 0) AS lost ORDER BY id LIMIT $1::int8"
        ),
        &[limit.into()],
    )?;
    let (mut ids, mut ordered) = (Vec::new(), Vec::new());
    for row in rows.iter() {
        let (id, has_lane): (i64, bool) = (row.get(0)?, row.get(1)?);
        ids.push(id);
        ordered.extend(has_lane.then_some(id));
    }
    if ids.is_empty() {
        return Ok(Reaped::default());
    }
    match rescue(db, &ids, &ordered) {
        // The data of one row made the statement fail for all: try each task by itself.
        Err(Fault::Pg(error)) if error.is_of_row() => {
            let mut reaped = Reaped::default();
            for id in ids {
                match rescue(db, &[id], &[id]) {
                    Ok(one) => add(&mut reaped, one),
                    Err(Fault::Pg(error)) if error.is_of_row() => {
                        crate::trace::event!(
                            WARN,
                            "a lost task can't be rescued",
                            task = id,
                            error = error.to_string()
                        );
                        set_aside(db, id)?;
                        reaped.bad += 1;
                    }
                    Err(fault) => return Err(fault),
                }
            }
            Ok(reaped)
        }
        result => result,
    }
}

fn add(sum: &mut Reaped, one: Reaped) {
    sum.returned += one.returned;
    sum.failed += one.failed;
    sum.cancelled += one.cancelled;
    sum.bad += one.bad;
}

/// Those of the tasks that are still lost, and that no other session has locked.
fn rescue(db: &mut Connection, ids: &[i64], ordered: &[i64]) -> Result<Reaped, Fault> {
    let mut tx = db.begin()?;
    if !ordered.is_empty() {
        lanes::lock_those(&mut tx, ordered)?;
    }
    families::lock_parents(&mut tx, ids)?;
    let running = Facts::at(TaskStatus::Running);
    let expired = |facts: Facts| transition(Change::Expire, facts).map_or(facts.status, |next| next.status).code();
    let rows = tx.query(
        sql!(
            "WITH c AS MATERIALIZED (
                 SELECT id, status AS was, coalesce(deadline <= ", then!(), ", false) AS late FROM fulmar_task
                 WHERE id = ANY($1::int8[]) AND worker IS NOT NULL
                     AND (lease <= ", then!(), " OR deadline <= ", then!(), ") ORDER BY id FOR UPDATE SKIP LOCKED),
             j AS MATERIALIZED (
                 SELECT c.id, c.was, CASE WHEN c.late THEN 'its time limit passed' ELSE 'its worker was lost' END AS why,
                     y.restart_limit,
                     CASE WHEN c.was = {scheduled} THEN $2::int8
                         WHEN c.was <> {running} OR y.id IS NULL THEN {failed}
                         WHEN t.cancel_requested THEN $3::int8 WHEN t.lost >= y.restart_limit THEN $4::int8
                         ELSE $5::int8 END AS status
                 FROM c JOIN fulmar_task t ON t.id = c.id LEFT JOIN fulmar_task_type y ON y.id = t.type_id),
             u AS (
                 UPDATE fulmar_task t SET status = j.status, gate = CASE j.status WHEN {accepted} THEN {gate_open} END,
                     run_at = CASE WHEN j.was = {scheduled} THEN least(t.run_at, ", now!(), ")
                         WHEN j.status = {accepted} THEN ", now!(), " ELSE t.run_at END,
                     ended = CASE j.status WHEN {accepted} THEN NULL ELSE ", now!(), " END, worker = NULL, lease = NULL,
                     deadline = NULL, lost = t.lost + (j.was = {running})::int4, entries = t.entries + 1
                 FROM j WHERE t.id = j.id
                 RETURNING t.id, t.entries, t.status, t.lost, t.lane, j.was, j.why, j.restart_limit),
             l AS (
                 INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
                 SELECT u.id, u.entries, ", now!(), ", u.status, 0, CASE
                     WHEN u.was = {scheduled} THEN u.why || '", words!(not_started), "'
                     WHEN u.was <> {running} THEN 'it was held, and not at work, which makes no sense'
                     WHEN u.restart_limit IS NULL THEN 'its type is gone'
                     WHEN u.status = {cancelled} THEN u.why
                     WHEN u.status = {failed} THEN u.why || '", words!(limit), "' || u.restart_limit || '",
                         words!(reached), "'
                     ELSE u.why || '", words!(restart), "' || u.lost || '", words!(of), "' || u.restart_limit END
                 FROM u)
             SELECT was, status, id, lane IS NOT NULL, restart_limit IS NULL FROM u"
        ),
        &[
            Param::Ints(ids),
            expired(Facts::at(TaskStatus::Scheduled)).into(),
            expired(Facts { cancel_requested: true, ..running }).into(),
            expired(Facts { is_spent: true, ..running }).into(),
            expired(running).into(),
        ],
    )?;
    let mut reaped = Reaped::default();
    let mut left = Vec::new();
    for row in rows.iter() {
        let (was, status) = (TaskStatus::from_code(row.get(0)?), TaskStatus::from_code(row.get(1)?)?);
        let was_held = was.is_ok_and(|was| transition(Change::Expire, Facts::at(was)).is_some());
        match status {
            _ if !was_held || row.get(4)? => reaped.bad += 1,
            TaskStatus::Cancelled => reaped.cancelled += 1,
            TaskStatus::Failed => reaped.failed += 1,
            _ => reaped.returned += 1,
        }
        if status.is_ended() && row.get(3)? {
            left.push(row.get(2)?);
        }
    }
    lanes::follow_those(&mut tx, &left)?;
    tx.commit()?;
    Ok(reaped)
}

/// A row that makes no sense must not block others: it has failed, and those who waited for it in
/// its order follow.
pub(super) fn set_aside(db: &mut Connection, id: i64) -> Result<(), PgError> {
    let mut tx = db.begin()?;
    lanes::lock_those(&mut tx, &[id])?;
    families::lock(&mut tx, &[id])?;
    set_aside_within(&mut tx, id)?;
    tx.commit()
}

/// As [`set_aside`], for a transaction that holds the lock of the task's lane.
pub(super) fn set_aside_within(db: &mut Connection, id: i64) -> Result<(), PgError> {
    // Its count of entries need not make sense: its log does, and no entry of it has a number
    // beyond this one's.
    let rows = db.query(
        sql!(
            "WITH u AS (
                 UPDATE fulmar_task t SET status = {failed}, gate = NULL, ended = ",
            now!(),
            ", worker = NULL, lease = NULL, deadline = NULL, entries = 1 + (
                     SELECT greatest(coalesce(max(l.entry), 0), octet_length(t.trail) / 24 + count(*))
                     FROM fulmar_task_log l WHERE l.task_id = t.id AND l.entry < 1 << 30)
                 WHERE t.id = $1::int8 AND (t.ended IS NULL OR t.worker IS NOT NULL)
                 RETURNING t.id, t.entries, t.status, t.lane),
             l AS (
                 INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
                 SELECT u.id, u.entries, ",
            now!(),
            ", u.status, 0, 'its row in the database makes no sense' FROM u)
             SELECT id FROM u WHERE lane IS NOT NULL"
        ),
        &[id.into()],
    )?;
    let left: Vec<i64> = rows.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
    lanes::follow_those(db, &left)
}

/// Deletes what has retired, but for children whose parent has yet to read what they gave.
pub(super) fn prune(db: &mut Connection, limit: usize) -> Result<u64, Fault> {
    let ids = retired(db, limit)?;
    Ok(if ids.is_empty() { 0 } else { erase_retired(db, &ids)? })
}

/// The numbers of up to `limit` ended tasks whose retention is over, in ascending order. Leaves out
/// children whose parent has not ended and may still read their results. Reads only, and takes no
/// locks.
pub(super) fn retired(db: &mut Connection, limit: usize) -> Result<Vec<i64>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut tx = db.begin()?;
    // A retention that makes no sense deletes nothing.
    //
    // A server that takes the table for small would rather sort all tasks of a type than read the
    // index of those that have ended.
    tx.script("SET LOCAL enable_sort = off")?;
    let rows = tx.query(
        sql!(
            "SELECT t.id FROM fulmar_task_type y CROSS JOIN LATERAL (
                 SELECT id FROM fulmar_task t WHERE t.type_id = y.id AND t.ended IS NOT NULL
                     AND t.ended <= ",
            then!(),
            " - y.retention
                     AND (t.parent IS NULL OR (SELECT (SELECT p.ended IS NULL FROM fulmar_task p WHERE p.id = f.task_id)
                         FROM fulmar_task_family f WHERE f.task_id = t.parent) IS NOT TRUE)
                     ORDER BY t.ended LIMIT $1::int8) AS t
             WHERE y.retention >= 0 LIMIT $1::int8"
        ),
        &[limit.into()],
    )?;
    let mut ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect::<Result<_, PgError>>()?;
    tx.commit()?;
    ids.sort_unstable();
    Ok(ids)
}

/// Deletes what has retired still: an operator may have had it done again since the look.
pub(super) fn erase_retired(db: &mut Connection, ids: &[i64]) -> Result<u64, Fault> {
    erase_if(db, ids, true).map_err(Fault::from)
}

/// Deletes tasks with all that belongs to them, found by their numbers whatever the server knows of
/// the tables, but for those that another transaction has locked.
pub(super) fn erase(db: &mut Connection, ids: &[i64]) -> Result<u64, PgError> {
    erase_if(db, ids, false)
}

/// Deletes the tasks `ids` with their rows in all tables, by one statement, and returns how many.
/// With `retired` it deletes only those whose retention is over. A task that another transaction
/// has locked stays.
fn erase_if(db: &mut Connection, ids: &[i64], retired: bool) -> Result<u64, PgError> {
    let rows = db.query(
        concat!(
            "WITH t AS (DELETE FROM fulmar_task WHERE id = ANY(ARRAY(
                 SELECT id FROM fulmar_task d WHERE id = ANY($1::int8[]) AND (NOT $2::bool OR d.ended <= ",
            then!(),
            " - (SELECT y.retention FROM fulmar_task_type y WHERE y.id = d.type_id))
                 ORDER BY id FOR UPDATE SKIP LOCKED)) RETURNING id),
             i AS (DELETE FROM fulmar_task_input WHERE task_id = ANY(ARRAY(SELECT id FROM t))),
             c AS (DELETE FROM fulmar_task_checkpoint WHERE task_id = ANY(ARRAY(SELECT id FROM t))),
             q AS (DELETE FROM fulmar_task_unique WHERE task_id = ANY(ARRAY(SELECT id FROM t))),
             x AS (DELETE FROM fulmar_task_context WHERE task_id = ANY(ARRAY(SELECT id FROM t))),
             r AS (DELETE FROM fulmar_task_response WHERE task_id = ANY(ARRAY(SELECT id FROM t))),
             l AS (DELETE FROM fulmar_task_log WHERE task_id = ANY(ARRAY(SELECT id FROM t))),
             s AS (DELETE FROM fulmar_task_step WHERE task_id = ANY(ARRAY(SELECT id FROM t))),
             e AS (DELETE FROM fulmar_task_event WHERE task_id = ANY(ARRAY(SELECT id FROM t))),
             f AS (DELETE FROM fulmar_task_family WHERE task_id = ANY(ARRAY(SELECT id FROM t)))
         SELECT count(*) FROM t"
        ),
        &[Param::Ints(ids), retired.into()],
    )?;
    let count: i64 = rows.only()?.get(0)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Deletes all tasks of a type, also those that workers hold. For a transaction.
pub(super) fn erase_type(db: &mut Connection, type_id: i64) -> Result<(), PgError> {
    // A statement of its own, before the one that deletes: a step or an event that another
    // transaction stores for such a task meanwhile would be hidden from that one, and stay.
    families::lock_type(db, type_id)?;
    db.query(
        "WITH t AS (DELETE FROM fulmar_task WHERE type_id = $1::int8 RETURNING id),
             i AS (DELETE FROM fulmar_task_input d USING t WHERE d.task_id = t.id),
             c AS (DELETE FROM fulmar_task_checkpoint d USING t WHERE d.task_id = t.id),
             q AS (DELETE FROM fulmar_task_unique d USING t WHERE d.task_id = t.id),
             x AS (DELETE FROM fulmar_task_context d USING t WHERE d.task_id = t.id),
             r AS (DELETE FROM fulmar_task_response d USING t WHERE d.task_id = t.id),
             l AS (DELETE FROM fulmar_task_log d USING t WHERE d.task_id = t.id),
             s AS (DELETE FROM fulmar_task_step d USING t WHERE d.task_id = t.id),
             e AS (DELETE FROM fulmar_task_event d USING t WHERE d.task_id = t.id),
             f AS (DELETE FROM fulmar_task_family d USING t WHERE d.task_id = t.id)
         SELECT count(*) FROM t",
        &[type_id.into()],
    )
    .map(drop)
}
