//! Results of steps of durable functions: those of many threads in one statement, and one commit.
//!
//! They have a [`Combiner`] of their own beside that of the tasks' steps. Together with those they
//! would need a transaction of several statements, which costs two more messages to the server than
//! it saves a commit: the server writes the log for commits that come at the same time at once.
//!
//! [`Combiner`]: crate::combine::Combiner

use std::collections::HashSet;

use super::super::durable::{Entry, Holder, Kept};
use super::super::error::TaskError;
use super::super::names::sql;
use super::Core;
use super::combine::{self, MOST_STEPS};
use super::connection::Connection;
use super::fault::Fault;
use super::journal::{DOING, find_own, keep};
use super::sql::now;
use super::steps::MOST_BYTES;
use super::value::Param;
use crate::combine::{Outcomes, Taken, Transaction};

/// What one thread wants stored.
pub(super) struct Keep {
    pub(super) holder: Holder,
    pub(super) entry: Entry,
}

impl Transaction for Core {
    type Work = Keep;
    type Outcome = Kept;
    type Error = TaskError;
    /// The right to one statement. Its connection is one of the pool's.
    type Place = ();

    fn fits(&self, taken: &Taken, keep: &Keep) -> bool {
        taken.pieces < MOST_STEPS && taken.bytes + self.size(keep).1 <= MOST_BYTES
    }

    fn size(&self, keep: &Keep) -> (usize, usize) {
        (1, keep.entry.size())
    }

    fn commit(&self, (): &mut (), works: &mut [Keep]) -> Outcomes<Core> {
        let works = &*works;
        // In doubt even at the first try: an earlier call's commit may have had no answer.
        let kept = self.patiently(DOING, |db, _| match works {
            [one] => Ok(vec![keep(db, &one.holder, &one.entry, true)?]),
            many => together(db, many),
        })?;
        Ok(kept.into_iter().map(Ok).collect())
    }

    fn of_all(&self, error: &TaskError) -> Option<TaskError> {
        combine::of_all(error)
    }

    fn panicked(&self, message: &str) -> TaskError {
        TaskError::Database { doing: DOING, source: format!("a panic: {message}").into() }
    }
}

/// As [`keep`], for many. The rows of the tasks are locked in the order of their numbers, as
/// everywhere. `at & 0 = 0` is true of each, and the server takes it for true of few, so that it
/// looks each task up by its number.
const TOGETHER: &str = sql!(
    "WITH n AS MATERIALIZED (
         SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
             $9::int8[], $10::int8[], $11::int8[], $12::bytea[]) WITH ORDINALITY
             AS n (id, token, worker, name, number, ord, kind, state, attempts, until, is_json, body, at)
         WHERE at & 0 = 0),
     t AS MATERIALIZED (
         SELECT n.* FROM n JOIN fulmar_task t ON t.id = n.id
         WHERE t.token = n.token AND t.worker IS NOT DISTINCT FROM n.worker AND t.status = {running} AND t.lease > ",
    now!(),
    " ORDER BY t.id FOR SHARE OF t)
     INSERT INTO fulmar_task_step AS s
         (task_id, name, number, ord, kind, state, attempts, until, token, is_json, body)
     SELECT id, name, number, ord, kind::int2, state::int2, attempts, until, token, is_json = 1, body FROM t
     ON CONFLICT (task_id, name, number) DO UPDATE SET kind = excluded.kind, state = excluded.state,
         attempts = excluded.attempts, until = excluded.until, token = excluded.token, is_json = excluded.is_json,
         body = excluded.body WHERE s.state = 0
     RETURNING s.task_id, s.name, s.number, s.token"
);

/// As `keep`, for the entries of many threads in one statement. Says of each, in their order, what
/// became of it. `Done` also for an entry that an earlier try has stored under the holder's token.
fn together(db: &mut Connection, keeps: &[Keep]) -> Result<Vec<Kept>, Fault> {
    let ints = |of: fn(&Keep) -> i64| -> Vec<i64> { keeps.iter().map(of).collect() };
    let untils: Vec<Option<i64>> = keeps.iter().map(|keep| keep.entry.until).collect();
    let workers: Vec<&str> = keeps.iter().map(|keep| keep.holder.worker.as_str()).collect();
    let names: Vec<&str> = keeps.iter().map(|keep| &*keep.entry.name).collect();
    let bodies: Vec<Option<&[u8]>> = keeps.iter().map(|keep| keep.entry.body.as_deref()).collect();
    let rows = db.query(
        TOGETHER,
        &[
            Param::Ints(&ints(|keep| keep.holder.task)),
            Param::Ints(&ints(|keep| keep.holder.token)),
            Param::Texts(&workers),
            Param::Texts(&names),
            Param::Ints(&ints(|keep| keep.entry.number)),
            Param::Ints(&ints(|keep| keep.entry.ord)),
            Param::Ints(&ints(|keep| keep.entry.kind as i64)),
            Param::Ints(&ints(|keep| keep.entry.state as i64)),
            Param::Ints(&ints(|keep| keep.entry.attempts)),
            Param::MaybeInts(&untils),
            Param::Ints(&ints(|keep| i64::from(keep.entry.is_json))),
            Param::MaybeByteArrays(&bodies),
        ],
    )?;
    let mut stored: HashSet<(i64, String, i64, i64)> = HashSet::new();
    for row in rows.iter() {
        stored.insert((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    }
    drop(rows);
    let outcomes = keeps.iter().map(|keep| {
        let Keep { holder, entry } = keep;
        // Two attempts at one task may store the same step: the one that lost the task has not.
        match stored.contains(&(holder.task, entry.name.clone(), entry.number, holder.token)) {
            true => Ok(Kept::Done),
            false => find_own(db, holder, entry),
        }
    });
    outcomes.collect()
}
