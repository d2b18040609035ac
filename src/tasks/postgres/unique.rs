//! Tasks of which one is enough.
//!
//! The session that enqueues one holds a lock of its key from before the look until the commit, and
//! locks the row of the task that is in the way: so no worker takes that while it is changed.

use std::collections::HashMap;

use super::super::names::sql;
use super::super::new_task::{Checked, Start};
use super::super::unique::{Accepted, CheckedUnique, Conflict};
use super::connection::Connection;
use super::error::PgError;
use super::fault::Fault;
use super::millis;
use super::produce::{self, SMALL};
use super::sql::{locks, now, then};
use super::value::Param;

/// What stands for each task of an enqueuing.
pub(super) struct Standing {
    /// Those that are to be inserted, with what later ones of the same enqueuing made of them.
    pub(super) fresh: Vec<Checked>,
    places: Vec<Placement>,
}

enum Placement {
    /// Which of `fresh` it is.
    Fresh(usize),
    /// An earlier one of the same enqueuing, which of `fresh` that is.
    Earlier(usize),
    Existing(Accepted),
}

impl Standing {
    /// What is answered, once the fresh ones have their numbers.
    pub(super) fn accepted(self, ids: &[i64]) -> Vec<Accepted> {
        let accepted = |place| match place {
            Placement::Fresh(at) => ids.get(at).map(|&id| Accepted::new(id)),
            Placement::Earlier(at) => {
                let existing = self.fresh.get(at).map(|task| task.identifier.clone());
                ids.get(at).map(|&id| Accepted { id, existing })
            }
            Placement::Existing(accepted) => Some(accepted),
        };
        self.places.into_iter().filter_map(accepted).collect()
    }
}

/// Looks for what is in the way of each task, and changes it as that asks for. For a transaction.
pub(super) fn find(db: &mut Connection, types: &HashMap<&str, i64>, tasks: &[Checked]) -> Result<Standing, Fault> {
    let mut found = look(db, types, tasks)?;
    let (mut fresh, mut places) = (Vec::<Checked>::new(), Vec::with_capacity(tasks.len()));
    let mut earlier: HashMap<(&str, &str), usize> = HashMap::new();
    for (ord, task) in (1..).zip(tasks) {
        let place = match (&task.unique, found.remove(&ord)) {
            (None, _) => None,
            (Some(unique), Some((accepted, waits))) => {
                if waits {
                    change(db, accepted.id, task, unique)?;
                }
                Some(Placement::Existing(accepted))
            }
            (Some(unique), None) => match earlier.get(&(&*task.task_type, &*unique.key)) {
                Some(&at) => {
                    replace(&mut fresh[at], task, unique.conflict);
                    Some(Placement::Earlier(at))
                }
                None => {
                    earlier.insert((&task.task_type, &unique.key), fresh.len());
                    None
                }
            },
        };
        places.push(place.unwrap_or(Placement::Fresh(fresh.len())));
        if let Some(Placement::Fresh(_)) = places.last() {
            fresh.push(task.clone());
        }
    }
    Ok(Standing { fresh, places })
}

/// Finds the task in the database that stands for each unique task of `tasks`: of its type and
/// unique key, in a status and of an age that `task.unique` names. The map's key is the place in
/// `tasks`, counted from 1. The `bool`: the task found waits and has never started, so it may be
/// changed, because no handler has read its input. For a transaction: the unique keys, and the rows
/// found, are locked until it ends.
fn look(
    db: &mut Connection,
    types: &HashMap<&str, i64>,
    tasks: &[Checked],
) -> Result<HashMap<i64, (Accepted, bool)>, Fault> {
    let (mut ords, mut of_types, mut keys) = (vec![], vec![], vec![]);
    let (mut statuses, mut periods, mut fresh) = (vec![], vec![], vec![]);
    for (ord, task) in (1..).zip(tasks) {
        let (Some(unique), Some(&of_type)) = (&task.unique, types.get(&*task.task_type)) else { continue };
        ords.push(ord);
        of_types.push(of_type);
        keys.push(&*unique.key);
        statuses.push(unique.statuses().0);
        periods.push(unique.period().map(millis));
        fresh.push(i64::from(unique.is_of_fresh()));
    }
    db.query(
        sql!(
            "SELECT pg_advisory_xact_lock(",
            locks!(),
            " + 3, number) FROM (
             SELECT DISTINCT (hashtextextended(key, type_id) & 1023)::int4 AS number
             FROM unnest($1::int8[], $2::text[]) AS k (type_id, key) ORDER BY number OFFSET 0) AS numbers"
        ),
        &[Param::Ints(&of_types), Param::Texts(&keys)],
    )?;
    // If a worker takes the task while this statement waits for the lock of its row, the server
    // compares the changed row once more. It may not fit any longer, and then the new task is
    // inserted.
    let rows = db.query(
        sql!(
            "SELECT n.ord, t.id, t.identifier, t.status = {accepted} AND t.starts = 0
             FROM unnest($1::int8[], $2::int8[], $3::text[], $4::int8[], $5::int8[], $6::int8[])
                 AS n (ord, type_id, key, statuses, period, is_of_fresh)
             CROSS JOIN LATERAL (
                 SELECT t.id, t.identifier, t.status, t.starts FROM fulmar_task_unique u JOIN fulmar_task t ON t.id = u.task_id
                 WHERE u.type_id = n.type_id AND u.key = n.key AND (n.statuses >> t.status::int4) & 1 = 1
                     AND (n.period IS NULL OR t.created > ",
            then!(),
            " - n.period) AND (n.is_of_fresh = 0 OR t.starts = 0)
                 ORDER BY t.status <> {accepted} OR t.starts > 0, t.id DESC LIMIT 1 FOR UPDATE OF t) AS t"
        ),
        &[
            Param::Ints(&ords),
            Param::Ints(&of_types),
            Param::Texts(&keys),
            Param::Ints(&statuses),
            Param::MaybeInts(&periods),
            Param::Ints(&fresh),
        ],
    )?;
    let mut found = HashMap::new();
    for row in rows.iter() {
        let accepted = Accepted { id: row.get(1)?, existing: Some(row.get(2)?) };
        found.insert(row.get(0)?, (accepted, row.get(3)?));
    }
    Ok(found)
}

/// If one enqueuing has two tasks of which one is enough, changes the first as the second asks.
fn replace(fresh: &mut Checked, task: &Checked, conflict: Conflict) {
    if conflict != Conflict::Keep {
        fresh.input.clone_from(&task.input);
        fresh.priority = task.priority;
    }
    if conflict == Conflict::PushBack {
        fresh.start = task.start;
    }
}

/// Changes the task `id`, which stands for the new `task`, as `unique.conflict` says. `Keep`: not
/// at all. `Replace`: its input and its priority. `PushBack`: its time to start as well. A change
/// is an entry of its log. For the transaction of the enqueuing, which has locked the task's row.
fn change(db: &mut Connection, id: i64, task: &Checked, unique: &CheckedUnique) -> Result<(), PgError> {
    let (delay, at) = match (unique.conflict, task.start) {
        (Conflict::Keep, _) => return Ok(()),
        (Conflict::Replace, _) => (None, None),
        (Conflict::PushBack, Start::After(delay)) => (Some(millis(delay)), None),
        (Conflict::PushBack, Start::At(time)) => (None, Some(produce::at(time))),
    };
    db.query(
        sql!(
            "WITH s AS MATERIALIZED (SELECT ",
            then!(),
            " AS now, coalesce($4::int8, ",
            then!(),
            " + $3::int8) AS run_at),
             u AS (
                 UPDATE fulmar_task t SET rank = $2::int8::int4, entries = t.entries + 1,
                     run_at = coalesce(s.run_at, t.run_at),
                     gate = CASE WHEN t.gate = {gate_order} OR s.run_at IS NULL THEN t.gate WHEN s.run_at > s.now THEN {gate_time} ELSE {gate_open} END,
                     input = CASE WHEN octet_length($5::bytea) <= $6::int8 THEN $5::bytea END
                 FROM s WHERE t.id = $1::int8 RETURNING t.id, t.entries),
             d AS (DELETE FROM fulmar_task_input i USING u WHERE i.task_id = u.id AND octet_length($5::bytea) <= $6::int8),
             i AS (
                 INSERT INTO fulmar_task_input (task_id, body) SELECT u.id, $5::bytea FROM u
                 WHERE octet_length($5::bytea) > $6::int8 ON CONFLICT (task_id) DO UPDATE SET body = excluded.body),
             l AS (
                 INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
                 SELECT u.id, u.entries, ",
            now!(),
            ", 0, 0, $7::text FROM u)
             SELECT count(*) FROM u"
        ),
        &[
            id.into(),
            (-i64::from(task.priority)).into(),
            delay.into(),
            at.into(),
            Param::Bytes(&task.input),
            SMALL.into(),
            (&*unique.words(&task.message)).into(),
        ],
    )
    .map(drop)
}

/// Notes the keys of new tasks, whose numbers are `ids`.
pub(super) fn keep(
    db: &mut Connection,
    types: &HashMap<&str, i64>,
    tasks: &[Checked],
    ids: &[i64],
) -> Result<(), PgError> {
    let (mut of_types, mut keys, mut numbers) = (vec![], vec![], vec![]);
    for (task, &id) in tasks.iter().zip(ids) {
        let (Some(unique), Some(&of_type)) = (&task.unique, types.get(&*task.task_type)) else { continue };
        of_types.push(of_type);
        keys.push(&*unique.key);
        numbers.push(id);
    }
    db.execute(
        "INSERT INTO fulmar_task_unique (type_id, key, task_id) SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[])",
        &[Param::Ints(&of_types), Param::Texts(&keys), Param::Ints(&numbers)],
    )
    .map(drop)
}
