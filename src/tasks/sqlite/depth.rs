//! Counts of what has not ended.
//!
//! Each part reads a partial index whole, and what has ended is in none of them. The indexes are
//! named because SQLite would rather read the one of all identifiers, which has the tasks by type.

use rusqlite::{Connection, Row, named_params};

use super::super::depth::{QueueDepth, TypeDepth};
use super::super::error::Result;
use super::super::names::sql;
use super::connection::failed;
use super::types;

const COUNT: &str = sql!(
    "SELECT y.name, y.paused & 3 > 0, d.ready, d.delayed, d.blocked, d.claimed, d.running, :now - max(d.oldest, 0)
     FROM fulmar_task_type y LEFT JOIN (
         SELECT type_id, sum(ready) AS ready, sum(delayed) AS delayed, sum(blocked) AS blocked, sum(claimed) AS claimed,
             sum(running) AS running, min(oldest) AS oldest
         FROM (
             SELECT type_id, count(*) AS ready, 0 AS delayed, 0 AS blocked, 0 AS claimed, 0 AS running, min(run_at) AS oldest
             FROM fulmar_task INDEXED BY fulmar_task_ready WHERE gate = {gate_open} GROUP BY type_id
             UNION ALL SELECT type_id, sum(run_at <= :now), sum(run_at > :now), 0, 0, 0,
                 min(CASE WHEN run_at <= :now THEN run_at END)
             FROM fulmar_task INDEXED BY fulmar_task_timed WHERE gate = {gate_time} GROUP BY type_id
             UNION ALL SELECT type_id, 0, 0, count(*), 0, 0, NULL
             FROM fulmar_task INDEXED BY fulmar_task_gated WHERE gate = {gate_order} GROUP BY type_id
             UNION ALL SELECT type_id, 0, 0, 0, sum(status <> {running}), sum(status = {running}), NULL
             FROM fulmar_task INDEXED BY fulmar_task_held WHERE worker IS NOT NULL GROUP BY type_id
         ) GROUP BY type_id) AS d ON d.type_id = y.id
     ORDER BY y.name"
);

pub(super) fn depth(db: &Connection, now: i64) -> Result<QueueDepth> {
    let doing = "counting tasks";
    let mut sql = db.prepare_cached(COUNT).map_err(failed(doing))?;
    let types = sql.query_map(named_params! { ":now": now }, read).and_then(Iterator::collect);
    Ok(QueueDepth { types: types.map_err(failed(doing))? })
}

fn read(row: &Row<'_>) -> rusqlite::Result<TypeDepth> {
    let count = |column| Ok::<u64, rusqlite::Error>(row.get::<_, Option<u64>>(column)?.unwrap_or(0));
    Ok(TypeDepth {
        name: types::name(row, 0)?,
        paused: row.get(1)?,
        ready: count(2)?,
        delayed: count(3)?,
        blocked: count(4)?,
        claimed: count(5)?,
        running: count(6)?,
        oldest_ready: types::number(row, 7).map(types::duration),
    })
}
