//! What operators do to tasks and types: a statement for many tasks, after the locks of their
//! lanes.

use std::time::Duration;

use super::super::error::TaskError;
use super::super::look::Statuses;
use super::super::names::sql;
use super::super::new_task::Start;
use super::super::status::TaskStatus;
use super::super::steer::Steering;
use super::super::transition::words;
use super::connection::{Connection, Rows};
use super::error::PgError;
use super::fault::Fault;
use super::sql::now;
use super::value::Param;
use super::{families, lanes, limits, millis, produce, reap};

/// Does `steering` to those of `tasks` whose status is in `from`, in one transaction, and returns
/// how many it changed. It passes over the others. A retry, a cancel and a delete let those tasks
/// run that are next in the order of their keys.
///
/// If a row among them makes no sense, so that the statement for all fails, each task gets a
/// transaction of its own.
pub(super) fn steer(db: &mut Connection, tasks: &[i64], from: Statuses, steering: &Steering) -> Result<u64, Fault> {
    match steer_together(db, tasks, from, steering) {
        Err(Fault::Pg(error)) if error.is_of_row() => {
            let mut done = 0;
            for task in tasks {
                done += match steer_together(db, &[*task], from, steering) {
                    Err(Fault::Pg(error)) if error.is_of_row() => bad(db, *task, steering, &error)?,
                    one => one?,
                };
            }
            Ok(done)
        }
        done => done,
    }
}

/// A task whose row makes no sense: a cancel ends it as [`reap::set_aside`] does, and anything else
/// passes over it.
fn bad(db: &mut Connection, task: i64, steering: &Steering, error: &PgError) -> Result<u64, Fault> {
    crate::trace::event!(WARN, "a task can't be steered", task = task, error = error.to_string());
    if !matches!(steering, Steering::Cancel { .. }) {
        return Ok(0);
    }
    reap::set_aside(db, task)?;
    Ok(1)
}

/// Changes those of `tasks` whose status is in `from`, all in one transaction: each is retried,
/// cancelled, deleted, or given another priority or start. Gives how many it has changed. A row
/// that makes no sense fails it, and then none has changed.
fn steer_together(db: &mut Connection, tasks: &[i64], from: Statuses, steering: &Steering) -> Result<u64, Fault> {
    let mut tx = db.begin()?;
    // Neither a priority nor a time changes an order.
    let moves = !matches!(steering, Steering::Priority(_) | Steering::Start(_));
    if moves {
        lanes::lock_those(&mut tx, tasks)?;
        families::lock(&mut tx, tasks)?;
    }
    let words = steering.words();
    let done = match steering {
        Steering::Retry { reason } => {
            // A statement of its own: in one with the next a child would be changed twice, for its
            // parent's sake and for its own, of which the server does one.
            let renumbered = tx.query(RENUMBER, &[Param::Ints(tasks), from.0.into()])?;
            let mut tasks = tasks.to_vec();
            for row in renumbered.iter() {
                let (old, new): (i64, i64) = (row.get(0)?, row.get(1)?);
                tasks.iter_mut().filter(|task| **task == old).for_each(|task| *task = new);
            }
            let retried = tx.query(RETRY, &[Param::Ints(&tasks), from.0.into(), (&**reason).into()])?;
            follow(&mut tx, &retried)?;
            retried.len() as u64
        }
        Steering::Cancel { reason } => cancel_within(&mut tx, tasks, from, reason)?.len() as u64,
        Steering::Delete => {
            let sql = "SELECT id FROM fulmar_task WHERE id = ANY($1::int8[]) AND ($2::int8 >> status::int4) & 1 = 1
                ORDER BY id FOR UPDATE";
            let rows = tx.query(sql, &[Param::Ints(tasks), from.0.into()])?;
            let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect::<Result<_, PgError>>()?;
            let ordered = lanes_of(&mut tx, &ids)?;
            let (types, keys): (Vec<i64>, Vec<&str>) =
                ordered.iter().map(|(of_type, lane)| (*of_type, &**lane)).unzip();
            let deleted = reap::erase(&mut tx, &ids)?;
            lanes::follow(&mut tx, &types, &keys)?;
            deleted
        }
        Steering::Priority(priority) => {
            let rank = -i64::from(*priority);
            tx.query(PRIORITY, &[Param::Ints(tasks), from.0.into(), (&*words).into(), rank.into()])?.len() as u64
        }
        Steering::Start(start) => {
            let (delay, at) = match start {
                Start::After(delay) => (Some(millis(*delay)), None),
                Start::At(time) => (None, Some(produce::at(*time))),
            };
            let params = [Param::Ints(tasks), from.0.into(), (&*words).into(), delay.into(), at.into()];
            tx.query(START, &params)?.len() as u64
        }
    };
    tx.commit()?;
    Ok(done)
}

fn lanes_of(db: &mut Connection, tasks: &[i64]) -> Result<Vec<(i64, String)>, Fault> {
    let sql = "SELECT DISTINCT type_id, lane FROM fulmar_task WHERE id = ANY($1::int8[]) AND lane IS NOT NULL";
    let rows = db.query(sql, &[Param::Ints(tasks)])?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Those of the tasks `$1` that stand at one of `$2`, locked, by number.
macro_rules! those {
    () => {
        concat!(
            "WITH c AS MATERIALIZED (
             SELECT id, lane, status = {running} AS runs FROM fulmar_task
             WHERE id = ANY($1::int8[]) AND ($2::int8 >> status::int4) & 1 = 1
             ORDER BY id FOR UPDATE)"
        )
    };
}

/// What the log says of the tasks in `u`: `$3`.
macro_rules! logged {
    () => {
        concat!(
            "l AS (INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
                 SELECT u.id, u.entries, ",
            now!(),
            ", u.status, 0, $3::text FROM u)"
        )
    };
}

/// An order goes by numbers, and those of it that run are always before those that wait: so a task
/// with a key gets a new number before it is retried. No child has a key.
const RENUMBER: &str = sql!(
    those!(),
    ", n AS MATERIALIZED (
         SELECT id, nextval('fulmar_task_number') AS number
         FROM (SELECT * FROM c WHERE lane IS NOT NULL ORDER BY id) AS c),
     u AS (UPDATE fulmar_task t SET id = n.number FROM n WHERE t.id = n.id RETURNING t.id, n.id AS old),
     r AS (UPDATE fulmar_task_response d SET task_id = u.id FROM u WHERE d.task_id = u.old),
     i AS (UPDATE fulmar_task_input d SET task_id = u.id FROM u WHERE d.task_id = u.old),
     k AS (UPDATE fulmar_task_checkpoint d SET task_id = u.id FROM u WHERE d.task_id = u.old),
     q AS (UPDATE fulmar_task_unique d SET task_id = u.id FROM u WHERE d.task_id = u.old),
     x AS (UPDATE fulmar_task_context d SET task_id = u.id FROM u WHERE d.task_id = u.old),
     s AS (UPDATE fulmar_task_step d SET task_id = u.id FROM u WHERE d.task_id = u.old),
     e AS (UPDATE fulmar_task_event d SET task_id = u.id FROM u WHERE d.task_id = u.old),
     f AS (UPDATE fulmar_task_family d SET task_id = u.id FROM u WHERE d.task_id = u.old),
     p AS (UPDATE fulmar_task d SET parent = u.id FROM u WHERE d.parent = u.old),
     o AS (UPDATE fulmar_task_log d SET task_id = u.id FROM u WHERE d.task_id = u.old)
     SELECT old, id FROM u"
);

/// A task with a key waits for [`lanes::follow`].
const RETRY: &str = sql!(
    those!(),
    ", u AS (
         UPDATE fulmar_task t SET status = {accepted},
             gate = CASE WHEN t.lane IS NULL THEN {gate_open} ELSE {gate_order} END, run_at = ",
    now!(),
    ", ended = NULL, failures = 0, lost = 0, progress = 0, cancel_requested = false, entries = t.entries + 1
         FROM c WHERE t.id = c.id RETURNING t.id, t.entries, t.status),
     r AS (DELETE FROM fulmar_task_response d USING u WHERE d.task_id = u.id), ",
    logged!(),
    " SELECT status, id FROM u"
);

/// Asks the handlers of running tasks to stop, and ends all other tasks.
const CANCEL: &str = sql!(
    those!(),
    ", u AS (
         UPDATE fulmar_task t SET status = CASE WHEN c.runs THEN t.status ELSE {cancelled} END,
             cancel_requested = t.cancel_requested OR c.runs, gate = NULL,
             ended = CASE WHEN NOT c.runs THEN ",
    now!(),
    " END,
             worker = CASE WHEN c.runs THEN t.worker END, lease = CASE WHEN c.runs THEN t.lease END,
             deadline = CASE WHEN c.runs THEN t.deadline END, entries = t.entries + 1
         FROM c WHERE t.id = c.id RETURNING t.id, t.entries, t.status, c.runs),
     l AS (
         INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
         SELECT u.id, u.entries, ",
    now!(),
    ", u.status, 0, CASE WHEN u.runs THEN '",
    words!(request),
    "' ELSE '' END || $3::text FROM u)
     SELECT status, id FROM u"
);

const PRIORITY: &str = sql!(
    those!(),
    ", u AS (
         UPDATE fulmar_task t SET rank = $4::int8::int4, entries = t.entries + 1
         FROM c WHERE t.id = c.id RETURNING t.id, t.entries, t.status), ",
    logged!(),
    " SELECT status FROM u"
);

/// `$4` from now, or at `$5`.
const START: &str = sql!(
    those!(),
    ", u AS (
         UPDATE fulmar_task t SET run_at = s.run_at, entries = t.entries + 1,
             gate = CASE WHEN t.gate = {gate_order} THEN t.gate WHEN s.run_at > s.now THEN {gate_time} ELSE {gate_open} END
         FROM c CROSS JOIN (SELECT coalesce($5::int8, ",
    now!(),
    " + $4::int8) AS run_at, ",
    now!(),
    " AS now OFFSET 0) AS s
         WHERE t.id = c.id RETURNING t.id, t.entries, t.status), ",
    logged!(),
    " SELECT status FROM u"
);

/// Cancels those of the tasks that stand at one of `from`, and says where they stand then. The
/// locks of their lanes are held.
pub(super) fn cancel_within(
    db: &mut Connection,
    tasks: &[i64],
    from: Statuses,
    reason: &str,
) -> Result<Vec<TaskStatus>, Fault> {
    let rows = db.query(CANCEL, &[Param::Ints(tasks), from.0.into(), reason.into()])?;
    follow(db, &rows)?;
    rows.iter().map(|row| Ok(TaskStatus::from_code(row.get(0)?)?)).collect()
}

/// Opens the lanes of what changed, of which a row has a status and a number.
fn follow(db: &mut Connection, changed: &Rows) -> Result<(), PgError> {
    let tasks: Vec<i64> = changed.iter().map(|row| row.get(1)).collect::<Result<_, PgError>>()?;
    lanes::follow_those(db, &tasks)
}

/// Pauses the claims of a type's tasks, or lets them go on if not `paused`. `None` means all types,
/// those included that are registered later; a type that is paused by itself stays so. A
/// transaction of its own. `UnknownType`.
pub(super) fn set_paused(db: &mut Connection, task_type: Option<&str>, paused: bool) -> Result<(), Fault> {
    let mut tx = db.begin()?;
    if task_type.is_none() {
        tx.execute(
            "INSERT INTO fulmar_setting (name, value) VALUES ('paused', ($1::bool)::text)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            &[paused.into()],
        )?;
    }
    // Bits: 1 by itself, 2 with all others.
    let changed = tx.execute(
        "UPDATE fulmar_task_type SET paused = CASE WHEN $2::bool THEN paused | b.bit ELSE paused & ~b.bit END
         FROM (SELECT CASE WHEN $1::text IS NULL THEN 2 ELSE 1 END AS bit) AS b WHERE $1::text IS NULL OR name = $1::text",
        &[task_type.into(), paused.into()],
    )?;
    match task_type {
        Some(name) if changed == 0 => Err(TaskError::UnknownType(name.to_owned()).into()),
        _ => Ok(tx.commit()?),
    }
}

pub(super) fn is_paused(db: &mut Connection) -> Result<bool, Fault> {
    let sql = "SELECT EXISTS (SELECT 1 FROM fulmar_setting WHERE name = 'paused' AND value = 'true')";
    Ok(db.query(sql, &[])?.only()?.get(0)?)
}

pub(super) fn pass_time(db: &mut Connection, time: Duration) -> Result<(), Fault> {
    let sql =
        "UPDATE fulmar_task SET run_at = run_at - $1::int8, created = created - $1::int8, lease = lease - $1::int8,
         deadline = deadline - $1::int8, ended = ended - $1::int8";
    let mut tx = db.begin()?;
    tx.execute(sql, &[millis(time).into()])?;
    let steps = "UPDATE fulmar_task_step SET until = until - $1::int8 WHERE until IS NOT NULL";
    tx.execute(steps, &[millis(time).into()])?;
    // A schedule's times stay, because its tasks are called by them: there it is the time itself
    // that moves on.
    let moved = "INSERT INTO fulmar_setting AS s (name, value) VALUES ('passed', ($1::int8)::text)
         ON CONFLICT (name) DO UPDATE SET value = (s.value::int8 + $1::int8)::text";
    tx.execute(moved, &[millis(time).into()])?;
    limits::pass_time(&mut tx, time)?;
    Ok(tx.commit()?)
}
