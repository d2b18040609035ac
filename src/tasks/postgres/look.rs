//! Pages of tasks, by number.

use super::super::look::{MOST_ROWS, Source, Statuses, TaskFilter, TaskPage};
use super::super::names::sql;
use super::super::status::{TaskInfo, TaskStatus};
use super::connection::{Connection, Row, Rows};
use super::error::PgError;
use super::fault::Fault;
use super::read::to_time;
use super::sql::then;
use super::value::Param;
use super::{millis, nonsense, types};

/// The columns that `TaskInfo` needs, of the task `t` and its type `y`.
macro_rules! columns {
    () => {
        "t.id, t.status, -t.rank::int8, t.starts, t.failures, t.lost, t.progress, t.cancel_requested, t.lane, t.is_modifier,
         t.created, t.run_at, t.ended, y.name, t.identifier, CASE WHEN t.worker IS NULL THEN
             (SELECT nullif(l.message, '') FROM fulmar_task_log l WHERE l.task_id = t.id AND l.entry = t.entries) END"
    };
}

pub(super) use columns;

/// A task, from a row with the columns of `columns!`. Fails if a status, a count or the priority is
/// out of range, or if a text is not UTF-8.
pub(super) fn read(row: Row<'_>) -> Result<TaskInfo, Fault> {
    let priority: i64 = row.get(2)?;
    Ok(TaskInfo {
        id: row.get(0)?,
        task_type: row.get(13)?,
        identifier: row.get(14)?,
        status: TaskStatus::from_code(row.get(1)?)?,
        priority: i16::try_from(priority).map_err(|_| nonsense("reading a task", format!("priority {priority}")))?,
        starts: types::small(row.get(3)?)?,
        failures: types::small(row.get(4)?)?,
        lost: types::small(row.get(5)?)?,
        progress: row.get::<f64>(6)? as f32,
        cancel_requested: row.get(7)?,
        key: row.get(8)?,
        is_modifier: row.get(9)?,
        created: to_time(row.get(10)?),
        run_at: to_time(row.get(11)?),
        ended: row.get::<Option<i64>>(12)?.map(to_time),
        message: row.get(15)?,
    })
}

/// The tasks `t` that the filter fits, with their types `y`, which the index behind `$source` leads
/// to.
macro_rules! from {
    ($source:expr, $range:expr) => {
        concat!(
            " FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id WHERE ",
            $source,
            " AND ",
            $range,
            " AND ($3::int8 >> t.status::int4) & 1 = 1 AND ($4::text IS NULL OR y.name = $4::text)
              AND ($5::text IS NULL OR t.lane = $5::text)
              AND ($6::int8 IS NULL OR t.created <= ",
            then!(),
            " - $6::int8) AND ($7::int8 IS NULL OR t.created > ",
            then!(),
            " - $7::int8) AND ($9::text IS NULL OR EXISTS (SELECT 1 FROM fulmar_task_log l
                  WHERE l.task_id = t.id AND l.entry = t.entries AND strpos(l.message, $9::text) > 0))"
        )
    };
}

/// A page from `$1` to `$2`, at most `$8`; and the last row that it may read.
macro_rules! page {
    ($columns:expr, $source:expr, $behind:literal, $up_to:literal, $order:literal) => {
        concat!(
            "SELECT ",
            $columns,
            from!($source, concat!("t.id ", $behind, " $1::int8 AND t.id ", $up_to, " $2::int8")),
            " ORDER BY t.id ",
            $order,
            " LIMIT $8::int8"
        )
    };
}

macro_rules! last {
    ($source:expr, $behind:literal, $order:literal) => {
        concat!(
            "SELECT t.id FROM fulmar_task t WHERE ",
            $source,
            " AND t.id ",
            $behind,
            " $1::int8 ORDER BY t.id ",
            $order,
            " LIMIT 1 OFFSET $2::int8"
        )
    };
}

/// The last row, the tasks, their numbers: upwards, and downwards.
macro_rules! statements {
    ($source:expr) => {
        [
            [
                last!($source, ">", "ASC"),
                page!(columns!(), $source, ">", "<=", "ASC"),
                page!("t.id", $source, ">", "<=", "ASC"),
            ],
            [
                last!($source, "<", "DESC"),
                page!(columns!(), $source, "<", ">=", "DESC"),
                page!("t.id", $source, "<", ">=", "DESC"),
            ],
        ]
    };
}

const ALL: [[&str; 3]; 2] = statements!("true");
const FAILED: [[&str; 3]; 2] = statements!("t.went_wrong");
const HELD: [[&str; 3]; 2] = statements!("t.worker IS NOT NULL");

#[derive(Clone, Copy)]
enum Columns {
    Info = 1,
    Number = 2,
}

pub(super) fn list(db: &mut Connection, filter: &TaskFilter, limit: usize) -> Result<TaskPage, Fault> {
    let (rows, next) = walk(db, filter, limit, Columns::Info)?;
    let mut tasks = Vec::with_capacity(rows.len());
    for row in rows.iter() {
        match read(row) {
            Ok(info) => tasks.push(info),
            Err(fault) => {
                let id: i64 = row.get(0)?;
                crate::trace::event!(WARN, "a task can't be listed", task = id, error = format!("{fault:?}"));
            }
        }
    }
    Ok(TaskPage { tasks, next })
}

pub(super) fn find(db: &mut Connection, filter: &TaskFilter, limit: usize) -> Result<(Vec<i64>, Option<i64>), Fault> {
    let (rows, next) = walk(db, filter, limit, Columns::Number)?;
    let tasks = rows.iter().map(|row| row.get(0)).collect::<Result<_, PgError>>()?;
    Ok((tasks, next))
}

pub(super) fn count(db: &mut Connection, filter: &TaskFilter) -> Result<u64, Fault> {
    macro_rules! count {
        ($source:expr) => {
            sql!("SELECT count(*)", from!($source, "t.id > $1::int8 AND t.id <= $2::int8"), " LIMIT $8::int8")
        };
    }
    let sql = match filter.source() {
        Source::All => count!("true"),
        Source::Failed => count!("t.went_wrong"),
        Source::Held => count!("t.worker IS NOT NULL"),
    };
    let rows = db.query(sql, &values(filter, i64::MIN, i64::MAX, 1))?;
    let count: i64 = rows.only()?.get(0)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The rows of a page, and behind which the next one begins.
fn walk(
    db: &mut Connection,
    filter: &TaskFilter,
    limit: usize,
    columns: Columns,
) -> Result<(Rows, Option<i64>), Fault> {
    let statements = match filter.source() {
        Source::All => &ALL,
        Source::Failed => &FAILED,
        Source::Held => &HELD,
    };
    let statements = &statements[usize::from(filter.newest_first)];
    let (first, end) = if filter.newest_first { (i64::MAX, i64::MIN) } else { (i64::MIN, i64::MAX) };
    let start = filter.after.unwrap_or(first);
    let rows = db.query(statements[0], &[start.into(), (MOST_ROWS - 1).into()])?;
    let last: Option<i64> = rows.first().map(|row| row.get(0)).transpose()?;
    let rows = db.query(statements[columns as usize], &values(filter, start, last.unwrap_or(end), as_int(limit)))?;
    let next = if rows.len() == limit { rows.iter().last().map(|row| row.get(0)).transpose()? } else { last };
    Ok((rows, next))
}

fn values(filter: &TaskFilter, start: i64, end: i64, limit: i64) -> [Param<'_>; 9] {
    [
        start.into(),
        end.into(),
        filter.statuses.unwrap_or(Statuses::ANY).0.into(),
        filter.task_type.as_deref().into(),
        filter.key.as_deref().into(),
        filter.older.map(millis).into(),
        filter.younger.map(millis).into(),
        limit.into(),
        filter.text.as_deref().into(),
    ]
}

fn as_int(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
