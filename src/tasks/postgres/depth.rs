//! Counts of what has not ended.
//!
//! Each part reads a partial index whole, and what has ended is in none of them.

use std::borrow::Cow;

use super::super::depth::{QueueDepth, TypeDepth};
use super::super::names::sql;
use super::connection::{Connection, Row};
use super::fault::Fault;
use super::sql::then;
use super::types;

/// Counts, for each registered type, the tasks that have not ended: ready, delayed, blocked,
/// claimed and running ones. One statement, so all counts are of one moment. Reads only.
pub(super) fn depth(db: &mut Connection) -> Result<QueueDepth, Fault> {
    let rows = db.query(
        sql!(
            "SELECT y.name, y.paused & 3 > 0, d.ready, d.delayed, d.blocked, d.claimed, d.running, ",
            then!(),
            " - CASE WHEN d.oldest < 0 THEN 0 ELSE d.oldest END
             FROM fulmar_task_type y LEFT JOIN (
                 SELECT type_id, sum(ready)::int8 AS ready, sum(delayed)::int8 AS delayed, sum(blocked)::int8 AS blocked,
                     sum(claimed)::int8 AS claimed, sum(running)::int8 AS running, min(oldest) AS oldest
                 FROM (
                     SELECT type_id, count(*) AS ready, 0 AS delayed, 0 AS blocked, 0 AS claimed, 0 AS running,
                         min(run_at) AS oldest
                     FROM fulmar_task WHERE gate = {gate_open} GROUP BY type_id
                     UNION ALL SELECT type_id, count(*) FILTER (WHERE run_at <= ",
            then!(),
            "), count(*) FILTER (WHERE run_at > ",
            then!(),
            "), 0, 0, 0, min(run_at) FILTER (WHERE run_at <= ",
            then!(),
            ")
                     FROM fulmar_task WHERE gate = {gate_time} GROUP BY type_id
                     UNION ALL SELECT type_id, 0, 0, count(*), 0, 0, NULL
                     FROM fulmar_task WHERE gate = {gate_order} GROUP BY type_id
                     UNION ALL SELECT type_id, 0, 0, 0, count(*) FILTER (WHERE status <> {running}),
                         count(*) FILTER (WHERE status = {running}), NULL
                     FROM fulmar_task WHERE worker IS NOT NULL GROUP BY type_id
                 ) AS parts GROUP BY type_id) AS d ON d.type_id = y.id
             ORDER BY y.name COLLATE \"C\""
        ),
        &[],
    )?;
    let read = |row: Row<'_>| {
        let count = |column| {
            let count = row.get::<Option<i64>>(column)?.unwrap_or(0);
            Ok::<_, Fault>(u64::try_from(count).unwrap_or(0))
        };
        Ok(TypeDepth {
            name: row.get::<Cow<'_, str>>(0)?.into_owned(),
            paused: row.get(1)?,
            ready: count(2)?,
            delayed: count(3)?,
            blocked: count(4)?,
            claimed: count(5)?,
            running: count(6)?,
            oldest_ready: row.get::<Option<i64>>(7)?.map(types::duration),
        })
    };
    let types = rows.iter().map(read).collect::<Result<_, Fault>>()?;
    Ok(QueueDepth { types })
}
