//! What can be asked about tasks.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::engine::{Part, TaskRef};
use super::super::error::TaskError;
use super::super::names::sql;
use super::super::stats::{QueueStats, SENSELESS_CAPACITY, TypeStats};
use super::super::status::{LogEntry, Response, TaskInfo, TaskStatus};
use super::connection::{Connection, Row};
use super::error::PgError;
use super::fault::Fault;
use super::look::{self, columns};
use super::sql::then;
use super::value::Param;
use super::{produce, steer, trail, types};

pub(super) fn to_time(millis: i64) -> SystemTime {
    UNIX_EPOCH + types::duration(millis)
}

pub(super) fn info(db: &mut Connection, task: &TaskRef) -> Result<Option<TaskInfo>, Fault> {
    let rows = db.query(
        sql!(
            "SELECT ",
            columns!(),
            " FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id
             WHERE t.type_id = (SELECT id FROM fulmar_task_type WHERE name = $1::text) AND t.identifier = $2::text"
        ),
        &[(&*task.task_type).into(), (&*task.identifier).into()],
    )?;
    rows.first().map(look::read).transpose()
}

/// The status of each of `tasks`, in their order, as its code in the database, even if that is none
/// of `TaskStatus`. `None`: there is no such task. One statement, which reads only.
pub(super) fn statuses(db: &mut Connection, tasks: &[TaskRef]) -> Result<Vec<Option<i64>>, Fault> {
    // PostgreSQL takes no text with a zero byte, so a task of such a name isn't there.
    let known = |task: &&TaskRef| !super::is_impossible(task);
    let asked = || tasks.iter().filter(known);
    let types: Vec<&str> = asked().map(|task| &*task.task_type).collect();
    let names: Vec<&str> = asked().map(|task| &*task.identifier).collect();
    // As a join it might be planned to read all tasks.
    let rows = db.query(
        "SELECT (SELECT t.status FROM fulmar_task t WHERE t.identifier = w.identifier
             AND t.type_id = (SELECT y.id FROM fulmar_task_type y WHERE y.name = w.type))
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (type, identifier, number) ORDER BY w.number",
        &[Param::Texts(&types), Param::Texts(&names)],
    )?;
    if rows.len() != types.len() {
        return Err(super::nonsense("looking where tasks stand", format!("{} of {} tasks", rows.len(), types.len())));
    }
    let mut codes = rows.iter().map(|row| row.get::<Option<i64>>(0));
    tasks
        .iter()
        .map(|task| if known(&task) { codes.next().transpose().map(Option::flatten) } else { Ok(None) })
        .map(|code| Ok(code?))
        .collect()
}

/// The log of a task, oldest entry first; `None` if there is no such task. It joins the entries in
/// the task's own row, its trail, with those in `fulmar_task_log`. Fails if an entry has an unknown
/// status.
pub(super) fn log(db: &mut Connection, task: &TaskRef) -> Result<Option<Vec<LogEntry>>, Fault> {
    // One statement, so that both halves are as of one moment.
    let rows = db.query(
        "SELECT t.trail, l.entry, l.time, l.status, l.message
         FROM fulmar_task t LEFT JOIN fulmar_task_log l ON l.task_id = t.id
         WHERE t.type_id = (SELECT id FROM fulmar_task_type WHERE name = $1::text) AND t.identifier = $2::text",
        &[(&*task.task_type).into(), (&*task.identifier).into()],
    )?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let mut entries = Vec::new();
    for entry in trail::entries(first.get(0)?) {
        entries.push((entry.number, entry.time, entry.status, entry.message));
    }
    for row in rows.iter() {
        if let Some(entry) = row.get::<Option<i64>>(1)? {
            entries.push((entry, row.get(2)?, row.get(3)?, row.get(4)?));
        }
    }
    entries.sort_by_key(|entry| entry.0);
    let (mut attempts, mut before) = (0, None);
    for (_, _, status, message) in &mut entries {
        // What follows a claim is the start of an attempt. Counted, it need not be stored.
        if *status == TaskStatus::Running.code() && before == Some(TaskStatus::Scheduled.code()) {
            attempts += 1;
            *message = format!("attempt {attempts}");
        }
        before = Some(*status);
    }
    let entry =
        |(_, time, code, message)| Ok(LogEntry { time: to_time(time), status: TaskStatus::from_code(code)?, message });
    entries.into_iter().map(entry).collect::<Result<_, Fault>>().map(Some)
}

pub(super) fn response(db: &mut Connection, task: &TaskRef) -> Result<Option<Option<Response>>, Fault> {
    let rows = db.query(
        "SELECT r.media_type, r.body FROM fulmar_task t LEFT JOIN fulmar_task_response r ON r.task_id = t.id
         WHERE t.type_id = (SELECT id FROM fulmar_task_type WHERE name = $1::text) AND t.identifier = $2::text",
        &[(&*task.task_type).into(), (&*task.identifier).into()],
    )?;
    let read = |row: Row<'_>| match row.get::<Option<String>>(0)? {
        Some(media_type) => Ok(Some(Response { media_type, body: row.get(1)? })),
        None => Ok(None),
    };
    rows.first().map(read).transpose()
}

pub(super) fn load(db: &mut Connection, task: i64, part: Part) -> Result<Option<Vec<u8>>, Fault> {
    let sql = match part {
        Part::Input => {
            "SELECT coalesce(t.input, (SELECT i.body FROM fulmar_task_input i WHERE i.task_id = t.id))
             FROM fulmar_task t WHERE t.id = $1::int8"
        }
        Part::Checkpoint => {
            "SELECT (SELECT c.body FROM fulmar_task_checkpoint c WHERE c.task_id = t.id)
             FROM fulmar_task t WHERE t.id = $1::int8"
        }
    };
    let rows = db.query(sql, &[task.into()])?;
    Ok(rows.first().ok_or(TaskError::Stale { task })?.get(0)?)
}

/// Counts, for each registered type, its tasks by status and those that ended in the last minute,
/// and tells how long the oldest ready one has waited. Warns of transactions that have been open
/// for longer than `old_snapshot`. It reads all tasks, by several statements, so not all is of one
/// moment.
pub(super) fn stats(db: &mut Connection, old_snapshot: Duration) -> Result<QueueStats, Fault> {
    let rows = db.query(
        sql!(
            "SELECT y.name, s.status, s.count, o.oldest, e.ended, y.paused & 3 > 0
             FROM fulmar_task_type y
             LEFT JOIN (SELECT type_id, status, count(*) AS count FROM fulmar_task GROUP BY type_id, status) AS s
                 ON s.type_id = y.id
             CROSS JOIN LATERAL (SELECT ",
            then!(),
            " - CASE WHEN min(run_at) < 0 THEN 0 ELSE min(run_at) END AS oldest FROM fulmar_task t
                 WHERE t.type_id = y.id AND t.run_at <= ",
            then!(),
            " AND t.gate IN ({gate_open}, {gate_time})) AS o
             CROSS JOIN LATERAL (SELECT count(*) AS ended FROM fulmar_task t
                 WHERE t.type_id = y.id AND t.ended IS NOT NULL AND t.ended > ",
            then!(),
            " - 60000) AS e
             ORDER BY y.name COLLATE \"C\""
        ),
        &[],
    )?;
    let mut types: Vec<TypeStats> = Vec::new();
    for row in rows.iter() {
        let name: Cow<'_, str> = row.get(0)?;
        if types.last().is_none_or(|last| last.name != name) {
            let oldest_ready = row.get::<Option<i64>>(3)?.map(types::duration);
            let ended_last_minute = u64::try_from(row.get::<i64>(4)?).unwrap_or(0);
            let (name, paused) = (name.into_owned(), row.get(5)?);
            types.push(TypeStats { name, oldest_ready, ended_last_minute, paused, ..TypeStats::default() });
        }
        if let (Some(last), Some(code)) = (types.last_mut(), row.get::<Option<i64>>(1)?) {
            // A row that makes no sense is the reaper's business.
            if let Ok(status) = TaskStatus::from_code(code) {
                last.counts[status as usize] = u64::try_from(row.get::<i64>(2)?).unwrap_or(0);
            }
        }
    }
    let (capacity, paused) = (produce::stored_capacity(db)?, steer::is_paused(db)?);
    let mut warnings = old_transactions(db, old_snapshot)?;
    warnings.extend(capacity.is_none().then(|| SENSELESS_CAPACITY.to_owned()));
    Ok(QueueStats { types, capacity: capacity.flatten(), paused, warnings })
}

/// How many transactions of the server count as one second of a snapshot's age: a guess, for a
/// server that is neither idle nor at its limit.
const A_SECOND: f64 = 100.0;

/// A warning for each of the three oldest transactions that have been open for longer than `limit`:
/// of sessions, prepared ones, and those of replicas that a replication slot stands for. As long as
/// they are open, vacuum can't remove the dead rows of tasks, and every claim has to walk past
/// them.
///
/// The server hides the start time of other roles' sessions from a role without the right to
/// monitor, and knows none for a slot. Of these it tells how many transactions have begun since, of
/// which [`A_SECOND`] count as one second.
fn old_transactions(db: &mut Connection, limit: Duration) -> Result<Vec<String>, PgError> {
    let rows = db.query(
        "SELECT who, words FROM (
             SELECT 'session ' || pid || ' (' || coalesce(nullif(application_name, ''), 'without a name') || ', '
                     || coalesce(state, 'hidden') || ')' AS who,
                 coalesce(extract(epoch FROM clock_timestamp() - xact_start)::float8,
                     age(coalesce(backend_xmin, backend_xid)) / $2::float8) AS age,
                 coalesce(round(extract(epoch FROM clock_timestamp() - xact_start)) || ' s',
                     age(coalesce(backend_xmin, backend_xid)) || ' transactions of others') AS words
             FROM pg_stat_activity
             WHERE (datname = current_database() OR datname IS NULL) AND pid <> pg_backend_pid()
                 AND coalesce(backend_xmin, backend_xid) IS NOT NULL
             UNION ALL SELECT 'prepared transaction ' || gid, extract(epoch FROM clock_timestamp() - prepared)::float8,
                 round(extract(epoch FROM clock_timestamp() - prepared)) || ' s'
             FROM pg_prepared_xacts WHERE database = current_database()
             UNION ALL SELECT 'replication slot ' || slot_name, age(xmin) / $2::float8, age(xmin) || ' transactions of others'
             FROM pg_replication_slots WHERE xmin IS NOT NULL) AS old
         WHERE age >= $1::float8 ORDER BY age DESC LIMIT 3",
        &[super::value::Param::Float(limit.as_secs_f64()), super::value::Param::Float(A_SECOND)],
    )?;
    let warn = |row: Row<'_>| {
        let (who, age): (Cow<'_, str>, Cow<'_, str>) = (row.get(0)?, row.get(1)?);
        Ok(format!(
            "the {who} has had a transaction open for {age}: until it ends, PostgreSQL can't clean up after tasks, and \
             claims get slower"
        ))
    };
    rows.iter().map(warn).collect()
}
