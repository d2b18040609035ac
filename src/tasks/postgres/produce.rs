//! What producers do: enqueue tasks, cancel them, delete them, and bound the queue.
//!
//! An *enqueuing* is the tasks of one call, which are inserted all or none. `Batch` is what is
//! known of them together; it has nothing to do with batches of remote jobs.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::engine::TaskRef;
use super::super::error::TaskError;
use super::super::look::Statuses;
use super::super::names::sql;
use super::super::new_task::{Checked, Start};
use super::super::stats;
use super::super::status::TaskStatus;
use super::super::unique::Accepted;
use super::connection::Connection;
use super::error::PgError;
use super::fault::Fault;
use super::sql::{locks, then};
use super::value::Param;
use super::{families, lanes, millis, not_found, reap, steer, unique};

/// The largest input that is kept in the task's own row, in bytes.
pub(super) const SMALL: i64 = 256;

/// The most tasks, and about the most bytes, of one statement.
const MOST_TASKS: usize = 2_000;
const MOST_BYTES: usize = 32 << 20;

pub(super) fn set_capacity(db: &mut Connection, capacity: Option<u64>) -> Result<(), Fault> {
    let capacity = capacity.map(|tasks| tasks.to_string());
    db.execute(
        "INSERT INTO fulmar_setting (name, value) VALUES ('capacity', $1::text)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        &[capacity.as_deref().into()],
    )?;
    Ok(())
}

fn capacity(db: &mut Connection) -> Result<Option<u64>, Fault> {
    Ok(stored_capacity(db)?.ok_or_else(stats::senseless_capacity)?)
}

/// `None` for one that makes no sense.
pub(super) fn stored_capacity(db: &mut Connection) -> Result<Option<Option<u64>>, Fault> {
    let rows = db.query("SELECT value FROM fulmar_setting WHERE name = 'capacity'", &[])?;
    let value: Option<Cow<'_, str>> = rows.first().map_or(Ok(None), |row| row.get(0))?;
    Ok(value.map(|tasks| tasks.parse().ok()).map_or(Some(None), |tasks| tasks.map(Some)))
}

/// Inserts all tasks or none; `mark` is found in the log of each.
pub(super) fn enqueue(db: &mut Connection, tasks: &[Checked], mark: i64) -> Result<Vec<Accepted>, Fault> {
    let inserted = try_enqueue(db, tasks, mark);
    match inserted {
        Err(Fault::Pg(error)) if error.sqlstate() == Some("23505") => Err(duplicate(db, tasks)?),
        inserted => inserted,
    }
}

fn try_enqueue(db: &mut Connection, tasks: &[Checked], mark: i64) -> Result<Vec<Accepted>, Fault> {
    let batch = Batch::new(tasks);
    if let ([all], false, false) = (&*pieces(tasks), batch.is_ordered, batch.is_unique || batch.has_context) {
        let ids = insert(db, &batch, tasks, all.clone(), mark, false)?;
        if !ids.is_empty() {
            return Ok(ids.into_iter().map(Accepted::new).collect());
        }
        // A type is unknown, or the queue has a capacity.
    }
    let mut tx = db.begin()?;
    let accepted = insert_all(&mut tx, &batch, tasks, mark, true)?;
    tx.commit()?;
    Ok(accepted)
}

/// Inserts all tasks in a transaction of the engine's own.
pub(super) fn insert_in(tx: &mut Connection, tasks: &[Checked]) -> Result<Vec<Accepted>, Fault> {
    insert_all(tx, &Batch::new(tasks), tasks, 0, true)
}

/// As [`enqueue`], in a transaction that is open already, and that is as before if it fails. What
/// doesn't need room may be more than the capacity.
pub(super) fn enqueue_within(db: &mut Connection, tasks: &[Checked], needs_room: bool) -> Result<Vec<Accepted>, Fault> {
    db.script("SAVEPOINT fulmar_enqueue")?;
    let inserted = insert_within(db, tasks, needs_room);
    if inserted.is_err() && db.is_good() {
        db.script("ROLLBACK TO fulmar_enqueue")?;
    }
    let inserted = match inserted {
        Err(Fault::Pg(error)) if error.sqlstate() == Some("23505") => Err(duplicate(db, tasks)?),
        inserted => inserted,
    };
    if db.is_good() {
        db.script("RELEASE fulmar_enqueue")?;
    }
    inserted
}

fn insert_within(db: &mut Connection, tasks: &[Checked], needs_room: bool) -> Result<Vec<Accepted>, Fault> {
    let batch = Batch::new(tasks);
    if batch.is_ordered || batch.is_unique || capacity(db)?.is_some() {
        lanes::demand_read_committed(db)?;
    }
    insert_all(db, &batch, tasks, 0, needs_room)
}

/// Takes the locks that the tasks need, of their types, the capacity and their lanes, and inserts
/// the tasks, all or none. For a unique task that another one stands for, none is inserted. The
/// locks last until the end of the caller's transaction.
fn insert_all(
    db: &mut Connection,
    batch: &Batch<'_>,
    tasks: &[Checked],
    mark: i64,
    needs_room: bool,
) -> Result<Vec<Accepted>, Fault> {
    let types = lock_types(db, batch)?;
    let is_limited = needs_room && lock_room(db)?;
    if batch.is_ordered {
        let ordered =
            tasks.iter().filter_map(|task| Some((types.get(&*task.task_type).copied()?, task.key.as_deref()?)));
        let (of_types, keys): (Vec<i64>, Vec<&str>) = ordered.unzip();
        lanes::lock(db, &of_types, &keys)?;
    }
    if !batch.is_unique {
        let ids = insert_pieces(db, batch, tasks, mark, is_limited)?;
        return Ok(ids.into_iter().map(Accepted::new).collect());
    }
    let standing = unique::find(db, &types, tasks)?;
    if standing.fresh.is_empty() {
        return Ok(standing.accepted(&[]));
    }
    let ids = insert_pieces(db, &Batch::new(&standing.fresh), &standing.fresh, mark, is_limited)?;
    unique::keep(db, &types, &standing.fresh, &ids)?;
    Ok(standing.accepted(&ids))
}

/// Inserts the tasks with their contexts, by as many statements as they need. Returns their
/// numbers, in their order. For a transaction that holds the locks that `insert_all` takes. With
/// `is_limited` it refuses all with `QueueFull` if there is not room for all. If there is a task of
/// one of their names, it fails with SQLSTATE 23505.
fn insert_pieces(
    db: &mut Connection,
    batch: &Batch<'_>,
    tasks: &[Checked],
    mark: i64,
    is_limited: bool,
) -> Result<Vec<i64>, Fault> {
    if is_limited {
        check_room(db, tasks.len())?;
    }
    let mut ids = Vec::with_capacity(tasks.len());
    for piece in pieces(tasks) {
        ids.extend(insert(db, batch, tasks, piece, mark, true)?);
    }
    if batch.has_context {
        let with = tasks.iter().zip(&ids).filter_map(|(task, &id)| Some((id, task.context.as_deref()?)));
        let (ids, contexts): (Vec<i64>, Vec<&str>) = with.unzip();
        db.execute(
            "INSERT INTO fulmar_task_context (task_id, context) SELECT * FROM unnest($1::int8[], $2::text[])",
            &[Param::Ints(&ids), Param::Texts(&contexts)],
        )?;
    }
    Ok(ids)
}

/// The numbers of the batch's types, which no session can remove before the end of the transaction.
fn lock_types<'a>(db: &mut Connection, batch: &Batch<'a>) -> Result<HashMap<&'a str, i64>, Fault> {
    let sql = "SELECT name, id FROM fulmar_task_type WHERE name = ANY($1::text[]) FOR KEY SHARE";
    let rows = db.query(sql, &[Param::Texts(&batch.types)])?;
    let mut found: HashMap<String, i64> = HashMap::new();
    for row in rows.iter() {
        found.insert(row.get(0)?, row.get(1)?);
    }
    let id = |name: &&'a str| match found.get(*name) {
        Some(id) => Ok((*name, *id)),
        None => Err(TaskError::UnknownType((*name).to_owned()).into()),
    };
    batch.types.iter().map(id).collect()
}

/// Takes the lock of the capacity, if the queue has one, until the transaction ends: between the
/// look and the insert no other session inserts. Returns whether it has one.
pub(super) fn lock_room(db: &mut Connection) -> Result<bool, Fault> {
    let is_limited = capacity(db)?.is_some();
    if is_limited {
        db.query(sql!("SELECT pg_advisory_xact_lock(", locks!(), ", 1)"), &[])?;
    }
    Ok(is_limited)
}

/// Refuses `wanted` new tasks, all of them, with `QueueFull` if more tasks than the capacity would
/// wait with them. Changes nothing. For the transaction that inserts the tasks afterwards, and that
/// holds the lock of the capacity.
fn check_room(db: &mut Connection, wanted: usize) -> Result<(), Fault> {
    let Some(capacity) = capacity(db)? else {
        return Ok(());
    };
    // These tasks wait: those that may be claimed, those that wait for their time or for the order
    // of their key, and those that a worker has claimed and not started. One that a limit of its
    // type holds back is among the first; a paused one doesn't count.
    let most = i64::try_from(capacity).unwrap_or(i64::MAX);
    let rows = db.query(
        sql!(
            "SELECT count(*) FROM (SELECT 1 FROM (
             SELECT 1 FROM fulmar_task WHERE gate = {gate_open} AND status = {accepted}
             UNION ALL SELECT 1 FROM fulmar_task WHERE gate = {gate_time} AND status = {accepted}
             UNION ALL SELECT 1 FROM fulmar_task WHERE gate = {gate_order} AND status = {accepted}
             UNION ALL SELECT 1 FROM fulmar_task WHERE worker IS NOT NULL AND status = {scheduled}
         ) AS waiting LIMIT $1::int8) AS counted"
        ),
        &[most.into()],
    )?;
    let waiting: i64 = rows.only()?.get(0)?;
    if u64::try_from(waiting).unwrap_or(0).saturating_add(wanted as u64) > capacity {
        return Err(TaskError::QueueFull { capacity }.into());
    }
    Ok(())
}

/// What the tasks of one enqueuing tell of themselves, for the statements that insert them.
struct Batch<'a> {
    /// The names of their types, sorted, each once.
    types: Vec<&'a str>,
    /// Whether one of them has a key.
    is_ordered: bool,
    /// Whether one of them is unique.
    is_unique: bool,
    /// Whether one of them has a context.
    has_context: bool,
    /// The places in the slice of those tasks that have to wait for earlier ones of the slice.
    behind: HashSet<usize>,
}

impl<'a> Batch<'a> {
    /// Finds out from the tasks alone, without the database, which types they have, whether any has
    /// a key, a context or is unique, and which have to wait for earlier ones of the slice. A
    /// modifier waits for each earlier task of its type and key, an accessor for each earlier
    /// modifier, and a task without a key for none. `insert` looks at the tasks that the queue has
    /// already.
    fn new(tasks: &'a [Checked]) -> Batch<'a> {
        let mut types: Vec<&str> = tasks.iter().map(|task| &*task.task_type).collect();
        types.sort_unstable();
        types.dedup();
        let mut behind = HashSet::new();
        // By type and key: whether a modifier was among the tasks so far.
        let mut lanes: HashMap<(&str, &str), bool> = HashMap::new();
        for (at, task) in tasks.iter().enumerate() {
            let Some(key) = task.key.as_deref() else { continue };
            let lane = lanes.get(&(&*task.task_type, key)).copied();
            if lane.is_some_and(|has_modifier| has_modifier || task.is_modifier) {
                behind.insert(at);
            }
            lanes.insert((&task.task_type, key), lane.unwrap_or(false) || task.is_modifier);
        }
        let is_unique = tasks.iter().any(|task| task.unique.is_some());
        let has_context = tasks.iter().any(|task| task.context.is_some());
        Batch { types, is_ordered: !lanes.is_empty(), is_unique, has_context, behind }
    }
}

/// Ranges of tasks, each small enough for one statement.
fn pieces(tasks: &[Checked]) -> Vec<std::ops::Range<usize>> {
    let (mut pieces, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, task) in tasks.iter().enumerate() {
        bytes += task.input.len() + task.message.len() + task.identifier.len();
        if at + 1 - start >= MOST_TASKS || bytes >= MOST_BYTES {
            pieces.push(start..at + 1);
            (start, bytes) = (at + 1, 0);
        }
    }
    if start < tasks.len() {
        pieces.push(start..tasks.len());
    }
    pieces
}

/// Inserts the tasks of `range` by one statement, with their inputs and the first entries of their
/// logs. Returns their numbers, in their order. Inserts none, and returns none, if a type is
/// unknown, or if the queue has a capacity and the caller hasn't `checked` it.
fn insert(
    db: &mut Connection,
    batch: &Batch<'_>,
    tasks: &[Checked],
    range: std::ops::Range<usize>,
    mark: i64,
    checked: bool,
) -> Result<Vec<i64>, Fault> {
    let first = range.start;
    let tasks = &tasks[range];
    let types: Vec<&str> = tasks.iter().map(|task| &*task.task_type).collect();
    let identifiers: Vec<&str> = tasks.iter().map(|task| &*task.identifier).collect();
    let inputs: Vec<&[u8]> = tasks.iter().map(|task| &*task.input).collect();
    let messages: Vec<&str> = tasks.iter().map(|task| &*task.message).collect();
    let ranks: Vec<i64> = tasks.iter().map(|task| -i64::from(task.priority)).collect();
    let after = |start: &Start| if let Start::After(delay) = start { Some(millis(*delay)) } else { None };
    let at = |start: &Start| if let Start::At(time) = start { Some(at(*time)) } else { None };
    let delays: Vec<Option<i64>> = tasks.iter().map(|task| after(&task.start)).collect();
    let times: Vec<Option<i64>> = tasks.iter().map(|task| at(&task.start)).collect();
    let keys: Vec<Option<&str>> = tasks.iter().map(|task| task.key.as_deref()).collect();
    let behind = |at: usize| i64::from(batch.behind.contains(&(first + at)));
    let flags: Vec<i64> =
        tasks.iter().enumerate().map(|(at, task)| i64::from(task.is_modifier) + 2 * behind(at)).collect();
    let rows = db.query(
        sql!(
            "WITH y AS (SELECT id, name FROM fulmar_task_type WHERE name = ANY($1::text[]) FOR KEY SHARE),
             s AS MATERIALIZED (
                 SELECT nextval('fulmar_task_number') AS id, n.* FROM (
                     SELECT y.id AS type_id, n.identifier, n.input, n.message, n.rank::int4 AS rank, n.lane, n.ord,
                         coalesce(n.at, ", then!(), " + n.delay) AS run_at, n.flags & 1 = 1 AS is_modifier,
                         n.flags & 2 = 2 AS is_behind
                     FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::int8[], $7::int8[], $8::int8[],
                         $9::text[], $10::int8[]) WITH ORDINALITY
                         AS n (type, identifier, input, message, rank, delay, at, lane, flags, ord)
                     JOIN y ON y.name = n.type ORDER BY n.ord) AS n
                 WHERE (SELECT count(*) FROM y) = $12::int8 AND ($13::bool OR NOT EXISTS (
                     SELECT 1 FROM fulmar_setting WHERE name = 'capacity' AND value IS NOT NULL))),
             t AS (
                 INSERT INTO fulmar_task (id, type_id, identifier, status, gate, rank, run_at, created, lane, is_modifier,
                     input, trail)
                 SELECT s.id, s.type_id, s.identifier, {accepted},
                     CASE WHEN s.lane IS NOT NULL AND (s.is_behind OR CASE WHEN s.is_modifier
                         THEN (SELECT true FROM fulmar_task o WHERE o.type_id = s.type_id AND o.lane = s.lane
                             AND o.lane IS NOT NULL AND o.ended IS NULL LIMIT 1)
                         ELSE (SELECT true FROM fulmar_task o WHERE o.type_id = s.type_id AND o.lane = s.lane
                             AND o.is_modifier AND o.lane IS NOT NULL AND o.ended IS NULL LIMIT 1) END)
                     THEN {gate_order} WHEN s.run_at > ", then!(), " THEN {gate_time} ELSE {gate_open} END,
                     s.rank, s.run_at, ", then!(), ", s.lane, s.is_modifier,
                     CASE WHEN octet_length(s.input) <= $14::int8 THEN s.input END,
                     CASE WHEN s.message = '' THEN int8send(1) || int8send(", then!(), " * 8) || int8send($11::int8)
                         ELSE '' END
                 FROM s),
             i AS (
                 INSERT INTO fulmar_task_input (task_id, body) SELECT s.id, s.input FROM s
                 WHERE octet_length(s.input) > $14::int8),
             l AS (
                 INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
                 SELECT s.id, 1, ", then!(), ", 0, $11::int8, s.message FROM s WHERE s.message <> '')
             SELECT id FROM s ORDER BY ord"
        ),
        &[
            Param::Texts(&batch.types),
            Param::Texts(&types),
            Param::Texts(&identifiers),
            Param::ByteArrays(&inputs),
            Param::Texts(&messages),
            Param::Ints(&ranks),
            Param::MaybeInts(&delays),
            Param::MaybeInts(&times),
            Param::MaybeTexts(&keys),
            Param::Ints(&flags),
            mark.into(),
            i64::try_from(batch.types.len()).unwrap_or(0).into(),
            checked.into(),
            SMALL.into(),
        ],
    )?;
    rows.iter().map(|row| Ok(row.get(0)?)).collect()
}

/// A point in time in milliseconds, rounded up.
pub(super) fn at(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// The error of an enqueuing that failed because a name is taken: `Duplicate`, for the first of the
/// tasks whose name the queue has already or that comes twice in `tasks`. If the other task has
/// been deleted meanwhile, it is an error that has the caller try again.
fn duplicate(db: &mut Connection, tasks: &[Checked]) -> Result<Fault, Fault> {
    let types: Vec<&str> = tasks.iter().map(|task| &*task.task_type).collect();
    let identifiers: Vec<&str> = tasks.iter().map(|task| &*task.identifier).collect();
    let rows = db.query(
        "SELECT n.type, n.identifier FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (type, identifier, ord)
         JOIN fulmar_task_type y ON y.name = n.type
         JOIN fulmar_task t ON t.type_id = y.id AND t.identifier = n.identifier ORDER BY n.ord LIMIT 1",
        &[Param::Texts(&types), Param::Texts(&identifiers)],
    )?;
    let duplicate = |task_type: &str, identifier: &str| TaskError::Duplicate {
        task_type: task_type.to_owned(),
        identifier: identifier.to_owned(),
    };
    if let Some(row) = rows.first() {
        return Ok(duplicate(row.get(0)?, row.get(1)?).into());
    }
    let mut seen = HashSet::new();
    let twice = tasks.iter().find(|task| !seen.insert((&*task.task_type, &*task.identifier)));
    Ok(match twice {
        Some(task) => duplicate(&task.task_type, &task.identifier).into(),
        // It was, and has been deleted meanwhile: try again.
        None => {
            PgError::Refused { sqlstate: "40001".into(), message: "another task of that name came and went".into() }
                .into()
        }
    })
}

/// The numbers of the tasks, if the enqueuing that wrote `mark` into their logs inserted them all;
/// otherwise `None`. For an enqueuing whose answer was lost.
pub(super) fn find_marked(db: &mut Connection, tasks: &[Checked], mark: i64) -> Result<Option<Vec<Accepted>>, Fault> {
    let types: Vec<&str> = tasks.iter().map(|task| &*task.task_type).collect();
    let identifiers: Vec<&str> = tasks.iter().map(|task| &*task.identifier).collect();
    let rows = db.query(
        "SELECT t.id FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (type, identifier, ord)
         JOIN fulmar_task_type y ON y.name = n.type
         JOIN fulmar_task t ON t.type_id = y.id AND t.identifier = n.identifier
         WHERE substring(t.trail FROM 17 FOR 8) = int8send($3::int8)
             OR EXISTS (SELECT 1 FROM fulmar_task_log l WHERE l.task_id = t.id AND l.entry = 1 AND l.token = $3::int8)
         ORDER BY n.ord",
        &[Param::Texts(&types), Param::Texts(&identifiers), mark.into()],
    )?;
    if rows.len() != tasks.len() {
        return Ok(None);
    }
    rows.iter().map(|row| Ok(Accepted::new(row.get(0)?))).collect::<Result<_, Fault>>().map(Some)
}

/// A task as those see it who cancel it or delete it.
struct Found {
    id: i64,
    status: TaskStatus,
    type_id: i64,
    lane: Option<String>,
}

fn find(db: &mut Connection, task: &TaskRef) -> Result<Found, Fault> {
    let rows = db.query(
        "SELECT t.id, t.status, t.type_id, t.lane FROM fulmar_task t
         WHERE t.type_id = (SELECT id FROM fulmar_task_type WHERE name = $1::text) AND t.identifier = $2::text",
        &[(&*task.task_type).into(), (&*task.identifier).into()],
    )?;
    let row = rows.first().ok_or_else(|| not_found(task))?;
    let status = TaskStatus::from_code(row.get(1)?)?;
    Ok(Found { id: row.get(0)?, status, type_id: row.get(2)?, lane: row.get(3)? })
}

/// Cancels a task in a transaction of its own, and returns its status afterwards: `Cancelled` if no
/// handler runs it; `Running` if one does, which is asked to stop. A task that has ended keeps its
/// status. `NotFound`.
pub(super) fn cancel(db: &mut Connection, task: &TaskRef, reason: &str) -> Result<TaskStatus, Fault> {
    let found = find(db, task)?;
    if found.status.is_ended() {
        return Ok(found.status);
    }
    let mut tx = db.begin()?;
    let lane = found.lane.as_deref();
    if let Some(lane) = lane {
        lanes::lock(&mut tx, &[found.type_id], &[lane])?;
    }
    families::lock(&mut tx, &[found.id])?;
    let from = Statuses::of(TaskStatus::ALL.into_iter().filter(|status| !status.is_ended()));
    let cancelled = steer::cancel_within(&mut tx, &[found.id], from, reason)?;
    let Some(&status) = cancelled.first() else {
        // It ended, or was deleted, since we looked.
        drop(tx);
        return Ok(find(db, task)?.status);
    };
    tx.commit()?;
    Ok(status)
}

/// Deletes a task with all that belongs to it, in a transaction of its own. If it had not ended,
/// the next tasks of its key may run. `NotFound`; `Held` if a worker has it.
pub(super) fn delete(db: &mut Connection, task: &TaskRef) -> Result<(), Fault> {
    let found = find(db, task)?;
    let mut tx = db.begin()?;
    let lane = found.lane.as_deref();
    if let Some(lane) = lane {
        lanes::lock(&mut tx, &[found.type_id], &[lane])?;
    }
    families::lock(&mut tx, &[found.id])?;
    let rows = tx.query("SELECT status FROM fulmar_task WHERE id = $1::int8 FOR UPDATE", &[found.id.into()])?;
    let row = rows.first().ok_or_else(|| not_found(task))?;
    let status = TaskStatus::from_code(row.get(0)?)?;
    if matches!(status, TaskStatus::Scheduled | TaskStatus::Running) {
        let (task_type, identifier) = (task.task_type.clone(), task.identifier.clone());
        return Err(TaskError::Held { task_type, identifier }.into());
    }
    reap::erase(&mut tx, &[found.id])?;
    if let Some(lane) = lane.filter(|_| !status.is_ended()) {
        lanes::follow(&mut tx, &[found.type_id], &[lane])?;
    }
    tx.commit()?;
    Ok(())
}
