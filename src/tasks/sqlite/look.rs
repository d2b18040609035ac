//! Pages of tasks, by number.

use rusqlite::{Connection, OptionalExtension, Row};

use super::super::error::Result;
use super::super::look::{MOST_ROWS, Source, Statuses, TaskFilter, TaskPage};
use super::super::names::sql;
use super::super::status::{TaskInfo, TaskStatus};
use super::connection::{failed, to_time};
use super::millis;

const DOING: &str = "listing tasks";

/// The columns that `TaskInfo` needs, of the task `t` and its type `y`.
pub(super) const COLUMNS: &str =
    "t.id, t.status, t.priority, t.starts, t.failures, t.lost, t.progress, t.cancel_requested,
    t.lane, t.is_modifier, t.created, t.run_at, t.ended, y.name, t.identifier,
    CASE WHEN t.worker IS NULL THEN (SELECT nullif(l.message, '') FROM fulmar_task_log l WHERE l.task_id = t.id
        ORDER BY l.entry DESC LIMIT 1) END";

/// A task, and the code of its status, which may make no sense.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<(i64, TaskInfo)> {
    let info = TaskInfo {
        id: row.get(0)?,
        task_type: row.get(13)?,
        identifier: row.get(14)?,
        status: TaskStatus::Accepted,
        priority: row.get(2)?,
        starts: row.get(3)?,
        failures: row.get(4)?,
        lost: row.get(5)?,
        progress: row.get(6)?,
        cancel_requested: row.get(7)?,
        key: row.get(8)?,
        is_modifier: row.get(9)?,
        created: to_time(row.get(10)?),
        run_at: to_time(row.get(11)?),
        ended: row.get::<_, Option<i64>>(12)?.map(to_time),
        message: row.get(15)?,
    };
    Ok((row.get(1)?, info))
}

pub(super) fn with_status((code, info): (i64, TaskInfo)) -> Result<TaskInfo> {
    Ok(TaskInfo { status: TaskStatus::from_code(code)?, ..info })
}

pub(super) fn list(db: &Connection, now: i64, filter: &TaskFilter, limit: usize) -> Result<TaskPage> {
    let mut tasks = Vec::new();
    let next = walk(db, now, filter, limit, COLUMNS, |row| match read(row) {
        Ok(found) => match with_status(found) {
            Ok(info) => tasks.push(info),
            Err(error) => passed_over(row, &error.to_string()),
        },
        Err(error) => passed_over(row, &error.to_string()),
    })?;
    Ok(TaskPage { tasks, next })
}

fn passed_over(row: &Row<'_>, error: &str) {
    let task = row.get::<_, i64>(0).unwrap_or(-1);
    crate::trace::event!(WARN, "a task can't be listed", task = task, error = error);
}

pub(super) fn find(db: &Connection, now: i64, filter: &TaskFilter, limit: usize) -> Result<(Vec<i64>, Option<i64>)> {
    let mut tasks = Vec::new();
    let next = walk(db, now, filter, limit, "t.id", |row| tasks.extend(row.get::<_, i64>(0)))?;
    Ok((tasks, next))
}

pub(super) fn count(db: &Connection, now: i64, filter: &TaskFilter) -> Result<u64> {
    let everything = TaskFilter { after: None, newest_first: false, ..filter.clone() };
    let from = from(source(filter), "t.id > ?1 AND t.id <= ?2");
    db.prepare_cached(&format!("SELECT count(*) {from} LIMIT ?8"))
        .and_then(|mut sql| sql.query_row(values(&everything, now, i64::MAX, 1), |row| row.get(0)))
        .map_err(failed("counting tasks"))
}

/// Hands each row to `see`, at most `limit`, and says behind which the next page begins.
fn walk(
    db: &Connection,
    now: i64,
    filter: &TaskFilter,
    limit: usize,
    columns: &str,
    mut see: impl FnMut(&Row<'_>),
) -> Result<Option<i64>> {
    let (index, predicate) = source(filter);
    let (behind, up_to, order) = if filter.newest_first { ("<", ">=", "DESC") } else { (">", "<=", "ASC") };
    let start = start(filter);
    // The last row that this page may read.
    let sql = format!(
        "SELECT t.id FROM fulmar_task t {index} WHERE {predicate} AND t.id {behind} ?1 ORDER BY t.id {order} LIMIT 1 OFFSET ?2"
    );
    let last: Option<i64> = db
        .prepare_cached(&sql)
        .and_then(|mut sql| sql.query_row([start, MOST_ROWS - 1], |row| row.get(0)).optional())
        .map_err(failed(DOING))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let from = from((index, predicate), &format!("t.id {behind} ?1 AND t.id {up_to} ?2"));
    let mut sql =
        db.prepare_cached(&format!("SELECT {columns} {from} ORDER BY t.id {order} LIMIT ?8")).map_err(failed(DOING))?;
    let end = last.unwrap_or(if filter.newest_first { i64::MIN } else { i64::MAX });
    let mut rows = sql.query(values(filter, now, end, limit)).map_err(failed(DOING))?;
    let (mut seen, mut behind) = (0, None);
    while let Some(row) = rows.next().map_err(failed(DOING))? {
        behind = Some(row.get(0).map_err(failed(DOING))?);
        seen += 1;
        see(row);
    }
    Ok(if seen == limit { behind } else { last })
}

fn start(filter: &TaskFilter) -> i64 {
    filter.after.unwrap_or(if filter.newest_first { i64::MAX } else { i64::MIN })
}

/// The table by the index that leads to the tasks, whose predicate it repeats word by word.
fn source(filter: &TaskFilter) -> (&'static str, &'static str) {
    match filter.source() {
        Source::All => ("NOT INDEXED", "true"),
        Source::Failed => ("INDEXED BY fulmar_task_failed", sql!("t.status IN {wrong}")),
        Source::Held => ("INDEXED BY fulmar_task_held", "t.worker IS NOT NULL"),
    }
}

fn from((index, source): (&str, &str), range: &str) -> String {
    format!(
        "FROM fulmar_task t {index} CROSS JOIN fulmar_task_type y ON y.id = t.type_id
         WHERE {source} AND {range} AND (?3 >> t.status) & 1
             AND (?4 IS NULL OR y.name = ?4) AND (?5 IS NULL OR t.lane = ?5) AND t.created <= ?6 AND t.created > ?7
             AND (?9 IS NULL OR EXISTS (SELECT 1 FROM fulmar_task_log l WHERE l.task_id = t.id AND instr(l.message, ?9) > 0
                 AND l.entry = (SELECT max(entry) FROM fulmar_task_log m WHERE m.task_id = t.id)))"
    )
}

fn values(filter: &TaskFilter, now: i64, end: i64, limit: i64) -> impl rusqlite::Params {
    let older = filter.older.map_or(i64::MAX, |age| now.saturating_sub(millis(age)));
    let younger = filter.younger.map_or(i64::MIN, |age| now.saturating_sub(millis(age)));
    let statuses = filter.statuses.unwrap_or(Statuses::ANY).0;
    let (of_type, key, text) = (filter.task_type.clone(), filter.key.clone(), filter.text.clone());
    (start(filter), end, statuses, of_type, key, older, younger, limit, text)
}
