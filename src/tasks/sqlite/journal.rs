//! The steps of durable functions.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::durable::{
    Carried, Child, Entry, Event, Holder, Journal, Kept, Kind, Past, Standing, State, Taken, place,
};
use super::super::engine::TaskRef;
use super::super::error::{Result, TaskError};
use super::super::names::sql;
use super::super::new_task::Checked;
use super::super::signal::News;
use super::super::status::{Response, TaskStatus};
use super::connection::{self, failed};
use super::{SqliteEngine, millis, not_found, produce, steps as task_steps, types};
use crate::sync::{AtomicUsize, Ordering};
use crate::trace::event;

const DOING: &str = "writing the steps of a function";
const READING: &str = "reading the steps of a function";
const IN_STEP: &str = "working in a transaction of a step's";

/// A transaction of so many milliseconds or more makes up to leases for the time in which they
/// could not be renewed. No lease is so short that a shorter one matters to it.
const LONG: i64 = 5;

impl Journal for SqliteEngine {
    fn steps(&self, task: i64) -> Result<(i64, Vec<Entry>)> {
        self.read(|db, now| Ok((now, steps(db, task)?)))
    }

    fn keep(&self, holder: &Holder, entry: &Entry) -> Result<Kept> {
        let (holder, entry) = (holder.clone(), entry.clone());
        self.write(DOING, move |db, now| keep(db, now, &holder, &entry))
    }

    fn take_event(&self, holder: &Holder, entry: &Entry, limit: Option<Duration>) -> Result<Taken> {
        let (holder, entry) = (holder.clone(), entry.clone());
        self.write(DOING, move |db, now| take_event(db, now, &holder, &entry, limit))
    }

    fn send_event(&self, task: &TaskRef, name: &str, key: Option<&str>, body: &[u8]) -> Result<bool> {
        let (task, name, key, body) = (task.clone(), name.to_owned(), key.map(str::to_owned), body.to_owned());
        let sent =
            self.write("sending an event", move |db, now| send_event(db, now, &task, &name, key.as_deref(), &body))?;
        self.signal.ring(News::Work);
        Ok(sent)
    }

    fn spawn(&self, holder: &Holder, entry: &Entry, children: &[Checked], fail_fast: bool) -> Result<Kept> {
        let (holder, entry, children) = (holder.clone(), entry.clone(), children.to_vec());
        let kept =
            self.write("enqueuing children", move |db, now| spawn(db, now, &holder, &entry, &children, fail_fast))?;
        self.signal.ring(News::Work);
        Ok(kept)
    }

    fn standing(&self, ids: &[i64]) -> Result<Vec<Standing>> {
        self.read(|db, _| ids.iter().filter_map(|id| standing(db, *id).transpose()).collect())
    }

    fn children(&self, ids: &[i64]) -> Result<Vec<Child>> {
        self.read(|db, _| ids.iter().filter_map(|id| child(db, *id).transpose()).collect())
    }

    fn orphans(&self, parent: Option<i64>, limit: usize) -> Result<Vec<i64>> {
        self.read(|db, _| orphans(db, parent, limit))
    }

    fn depth(&self, task: i64, limit: usize) -> Result<usize> {
        self.read(|db, _| {
            let depth: i64 = db
                .prepare_cached(
                    "WITH RECURSIVE up (id, depth) AS (
                         SELECT parent, 0 FROM fulmar_task WHERE id = ?1
                         UNION ALL SELECT t.parent, depth + 1 FROM up JOIN fulmar_task t ON t.id = up.id WHERE depth < ?2)
                     SELECT coalesce(max(depth), 0) FROM up",
                )
                .and_then(|mut sql| sql.query_row(params![task, limit as i64], |row| row.get(0)))
                .map_err(failed(READING))?;
            Ok(usize::try_from(depth).unwrap_or(usize::MAX))
        })
    }

    fn copy(&self, from: i64, to: &Checked, before: i64) -> Result<i64> {
        let to = to.clone();
        let id = self.write("forking a function", move |db, now| {
            let accepted = produce::enqueue(db, now, std::slice::from_ref(&to))?;
            let id = accepted.first().map(|task| task.id).unwrap_or_default();
            db.prepare_cached(
                "INSERT INTO fulmar_task_step (task_id, name, number, ord, kind, state, attempts, until, token, is_json, body)
                 SELECT ?2, name, number, ord, kind, state, attempts, until, token, is_json, body FROM fulmar_task_step
                 WHERE task_id = ?1 AND ord < ?3",
            )
            .and_then(|mut sql| sql.execute([from, id, before]))
            .map_err(failed(DOING))?;
            Ok(id)
        })?;
        self.signal.ring(News::Work);
        Ok(id)
    }

    fn carried(&self, task: i64) -> Result<Carried> {
        self.read(|db, _| {
            let is_child = db
                .prepare_cached(
                    "SELECT 1 FROM fulmar_task t JOIN fulmar_task p ON p.id = t.parent WHERE t.id = ?1 AND p.ended IS NULL",
                )
                .and_then(|mut sql| sql.exists([task]))
                .map_err(failed(READING))?;
            Ok(Carried { is_child, past: None, steps: steps(db, task)?, events: events(db, task)? })
        })
    }

    fn restore(&self, to: &Checked, carried: &Carried) -> Result<()> {
        let (to, carried) = (to.clone(), carried.clone());
        self.write("importing a task", move |db, now| restore(db, now, &to, &carried))?;
        self.signal.ring(News::Work);
        Ok(())
    }

    fn disband(&self, task: i64) -> Result<()> {
        self.write(DOING, move |db, _| {
            db.prepare_cached("DELETE FROM fulmar_task_family WHERE task_id = ?1")
                .and_then(|mut sql| sql.execute([task]))
                .map_err(failed(DOING))?;
            Ok(())
        })
    }

    fn find(&self, task: &TaskRef) -> Result<Option<i64>> {
        self.read(|db, _| Ok(find(db, task)?.map(|(id, _)| id)))
    }

    fn family(&self, parent: i64, limit: usize) -> Result<Vec<(i64, TaskRef)>> {
        self.read(|db, _| {
            let mut sql = db
                .prepare_cached(
                    "SELECT t.id, y.name, t.identifier FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id
                     WHERE t.parent = ?1 AND t.parent IS NOT NULL ORDER BY t.id LIMIT ?2",
                )
                .map_err(failed(READING))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let found = sql.query_map([parent, limit], |row| {
                Ok((row.get(0)?, TaskRef { task_type: row.get(1)?, identifier: row.get(2)? }))
            });
            found.and_then(Iterator::collect).map_err(failed(READING))
        })
    }
}

impl SqliteEngine {
    /// Runs `work` in a transaction on a connection of its own, which commits if that says so. It
    /// may take longer than any lease: nothing can take a task away meanwhile, and no lease can be
    /// renewed.
    pub(in crate::tasks) fn transaction<R>(
        &self,
        holder: &Holder,
        work: impl FnOnce(&Connection) -> Result<R>,
    ) -> Result<R> {
        let run = |db: &Connection, sql: &str| db.execute_batch(sql).map_err(failed(IN_STEP));
        self.files.check()?;
        let db = connection::open_writer(&self.settings)?;
        connection::patiently(self.settings.busy_timeout, IN_STEP, || run(&db, "BEGIN IMMEDIATE"))?;
        let _at_work = AtWork::begin(&self.transactions);
        let begun = self.settings.clock.now();
        if !holds(&db, begun, holder)? {
            return Err(TaskError::Stale { task: holder.task });
        }
        // Dropped without a commit, the connection rolls back what is open.
        let done = match work(&db) {
            Ok(done) => done,
            Err(error) => {
                if self.settings.clock.now().saturating_sub(begun) >= LONG && !db.is_autocommit() {
                    let kept = run(&db, "ROLLBACK")
                        .and_then(|()| run(&db, "BEGIN IMMEDIATE"))
                        .and_then(|()| self.lengthen(&db, begun))
                        .and_then(|()| run(&db, "COMMIT"));
                    if let Err(error) = kept {
                        event!(WARN, "leases could not be kept beside a long step", error = error.to_string());
                    }
                }
                return Err(error);
            }
        };
        self.lengthen(&db, begun)?;
        place();
        self.files.check()?;
        run(&db, "COMMIT")?;
        place();
        self.signal.ring(News::Work);
        Ok(done)
    }

    /// The leases that were good when a transaction had `begun` last longer by the time for which
    /// it kept workers from renewing them.
    fn lengthen(&self, db: &Connection, begun: i64) -> Result<()> {
        let took = self.settings.clock.now().saturating_sub(begun);
        if took < LONG {
            return Ok(());
        }
        db.execute("UPDATE fulmar_task SET lease = lease + ?1 WHERE lease IS NOT NULL AND lease > ?2", [took, begun])
            .map_err(failed(IN_STEP))?;
        Ok(())
    }
}

/// Counts a transaction of a step for as long as it lives.
struct AtWork<'a>(&'a AtomicUsize);

impl AtWork<'_> {
    fn begin(count: &AtomicUsize) -> AtWork<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        AtWork(count)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn steps(db: &Connection, task: i64) -> Result<Vec<Entry>> {
    let mut sql = db
        .prepare_cached(
            "SELECT name, number, ord, kind, state, attempts, until, is_json, body FROM fulmar_task_step
             WHERE task_id = ?1 ORDER BY ord",
        )
        .map_err(failed(READING))?;
    let mut rows = sql.query([task]).map_err(failed(READING))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().map_err(failed(READING))? {
        entries.push(read(row).map_err(failed(READING))??);
    }
    Ok(entries)
}

/// An entry of the journal. The outer error is SQLite's; the inner one is ours, for a kind or state
/// that this program doesn't know.
fn read(row: &Row<'_>) -> rusqlite::Result<Result<Entry>> {
    let (kind, state) = match Entry::decode(row.get(3)?, row.get(4)?) {
        Ok(decoded) => decoded,
        Err(error) => return Ok(Err(error)),
    };
    let body: Option<Vec<u8>> = row.get(8)?;
    Ok(Ok(Entry {
        name: row.get(0)?,
        number: row.get(1)?,
        ord: row.get(2)?,
        kind,
        state,
        attempts: row.get(5)?,
        until: row.get(6)?,
        is_json: row.get(7)?,
        body: body.map(Arc::from),
    }))
}

/// Whether the holder still holds its task, which runs.
fn holds(db: &Connection, now: i64, holder: &Holder) -> Result<bool> {
    db.prepare_cached(sql!(
        "SELECT 1 FROM fulmar_task WHERE id = ?1 AND token = ?2 AND worker = ?3 AND lease > ?4 AND status = {running}"
    ))
    .and_then(|mut sql| sql.exists(params![holder.task, holder.token, holder.worker.as_str(), now]))
    .map_err(failed("looking at a task's fence"))
}

pub(super) fn keep(db: &Connection, now: i64, holder: &Holder, entry: &Entry) -> Result<Kept> {
    if !holds(db, now, holder)? {
        return Ok(Kept::Stale);
    }
    store(db, holder, entry)
}

/// The fence holds.
fn store(db: &Connection, holder: &Holder, entry: &Entry) -> Result<Kept> {
    let stored = insert(db, holder.task, holder.token, entry)?;
    Ok(if stored == 0 { Kept::Stale } else { Kept::Done })
}

/// How many rows that were: none if it is there and done.
pub(super) fn insert(db: &Connection, task: i64, token: i64, entry: &Entry) -> Result<usize> {
    let stored = db
        .prepare_cached(
            "INSERT INTO fulmar_task_step (task_id, name, number, ord, kind, state, attempts, until, token, is_json, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (task_id, name, number) DO UPDATE SET kind = ?5, state = ?6, attempts = ?7, until = ?8, token = ?9,
                 is_json = ?10, body = ?11 WHERE state = 0",
        )
        .and_then(|mut sql| {
            let (kind, state) = (entry.kind as i64, entry.state as i64);
            let Entry { name, number, ord, attempts, until, is_json, body, .. } = entry;
            sql.execute(params![task, name, number, ord, kind, state, attempts, until, token, is_json, body.as_deref()])
        });
    stored.map_err(failed(DOING))
}

fn events(db: &Connection, task: i64) -> Result<Vec<Event>> {
    let mut sql = db
        .prepare_cached(
            "SELECT number, name, key, body, taken FROM fulmar_task_event WHERE task_id = ?1 ORDER BY number",
        )
        .map_err(failed(READING))?;
    let found = sql.query_map([task], |row| {
        let body: Option<Vec<u8>> = row.get(3)?;
        let (number, name, key, body) = (row.get(0)?, row.get(1)?, row.get(2)?, body.map(Arc::from));
        Ok(Event { number, name, key, body, taken: row.get(4)? })
    });
    found.and_then(Iterator::collect).map_err(failed(READING))
}

/// Enqueues `to`, and stores for it what became of it in another queue, its steps and its events.
/// The steps get token 0, which is no worker's. `Duplicate`; `QueueFull`, but only for a task that
/// is `Accepted`; `UnknownType`. For a write transaction.
fn restore(db: &Connection, now: i64, to: &Checked, carried: &Carried) -> Result<()> {
    // Only tasks that are `Accepted` count for the capacity, which `enqueue` checks.
    let id = match &carried.past {
        Some(past) if past.status != TaskStatus::Accepted => {
            let of_type =
                types::find(db, &to.task_type)?.ok_or_else(|| TaskError::UnknownType(to.task_type.clone()))?;
            produce::insert(db, now, of_type, to)?
        }
        _ => produce::enqueue(db, now, std::slice::from_ref(to))?.first().map(|task| task.id).unwrap_or_default(),
    };
    if let Some(past) = &carried.past {
        restore_past(db, id, past)?;
    }
    for entry in &carried.steps {
        insert(db, id, 0, entry)?;
    }
    for Event { number, name, key, body, taken } in &carried.events {
        db.prepare_cached(
            "INSERT INTO fulmar_task_event (task_id, number, name, key, body, taken) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut sql| sql.execute(params![id, number, name, key, body.as_deref(), taken]))
        .map_err(failed(DOING))?;
    }
    Ok(())
}

/// Gives a task that was just enqueued what became of it elsewhere.
fn restore_past(db: &Connection, id: i64, past: &Past) -> Result<()> {
    let doing = "importing a task";
    db.prepare_cached(
        "UPDATE fulmar_task SET status = ?2, gate = CASE WHEN ?3 IS NULL THEN gate END, ended = ?3, starts = ?4,
             failures = ?5, lost = ?6, progress = ?7, created = ?8, entries = ?9, parent = parent WHERE id = ?1",
    )
    .and_then(|mut sql| {
        let entries = i64::try_from(past.log.len()).unwrap_or(i64::MAX);
        let Past { status, starts, failures, lost, progress, created, ended, .. } = past;
        sql.execute(params![id, status.code(), ended, starts, failures, lost, progress, created, entries])
    })
    .and_then(|_| db.execute("DELETE FROM fulmar_task_log WHERE task_id = ?1", [id]))
    .map_err(failed(doing))?;
    for (entry, (time, status, message)) in (1..).zip(&past.log) {
        task_steps::log(db, id, entry, *time, *status, message)?;
    }
    if let Some(body) = &past.checkpoint {
        db.execute("INSERT INTO fulmar_task_checkpoint (task_id, body) VALUES (?1, ?2)", params![id, body])
            .map_err(failed(doing))?;
    }
    if let Some(Response { media_type, body }) = &past.response {
        db.execute(
            "INSERT INTO fulmar_task_response (task_id, media_type, body) VALUES (?1, ?2, ?3)",
            params![id, media_type, body],
        )
        .map_err(failed(doing))?;
    }
    Ok(())
}

/// Takes the oldest event of the entry's name that was not taken yet, and stores it as the step's
/// result. Without one it stores until when the step waits, at most `limit` from the first call on,
/// or that this time is over (`TimedOut`). `Stale` if the holder has lost the task. For a write
/// transaction.
fn take_event(db: &Connection, now: i64, holder: &Holder, entry: &Entry, limit: Option<Duration>) -> Result<Taken> {
    if !holds(db, now, holder)? {
        return Ok(Taken::Stale);
    }
    let next: Option<(i64, Option<Vec<u8>>)> = db
        .prepare_cached(
            "SELECT number, body FROM fulmar_task_event WHERE task_id = ?1 AND name = ?2 AND taken = 0 ORDER BY number LIMIT 1",
        )
        .and_then(|mut sql| {
            sql.query_row(params![holder.task, entry.name], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(failed(DOING))?;
    let mut entry = entry.clone();
    if let Some((number, body)) = next {
        db.prepare_cached("UPDATE fulmar_task_event SET taken = 1, body = NULL WHERE task_id = ?1 AND number = ?2")
            .and_then(|mut sql| sql.execute([holder.task, number]))
            .map_err(failed(DOING))?;
        place();
        let body: Arc<[u8]> = body.unwrap_or_default().into();
        (entry.state, entry.body) = (State::Done, Some(Arc::clone(&body)));
        return Ok(match store(db, holder, &entry)? {
            Kept::Done => Taken::Event(body),
            Kept::Stale => Taken::Stale,
        });
    }
    entry.until = entry.until.or(limit.map(|limit| now.saturating_add(millis(limit))));
    let is_over = entry.until.is_some_and(|until| until <= now);
    entry.state = if is_over { State::Failed } else { State::Begun };
    Ok(match store(db, holder, &entry)? {
        Kept::Stale => Taken::Stale,
        Kept::Done if is_over => Taken::TimedOut,
        Kept::Done => Taken::Wait(entry.until),
    })
}

/// Stores an event for a task that has not ended. If the task waits for an event of this name, it
/// may be claimed at once; if it isn't paused yet, its pause ends as soon as it begins. `false`:
/// the task has had an event of this name and `key`, and nothing was changed. For a write
/// transaction.
fn send_event(db: &Connection, now: i64, task: &TaskRef, name: &str, key: Option<&str>, body: &[u8]) -> Result<bool> {
    let doing = "sending an event";
    let (id, status) = find(db, task)?.ok_or_else(|| not_found(task))?;
    let status = TaskStatus::from_code(status)?;
    if status.is_ended() {
        let (task_type, identifier) = (task.task_type.clone(), task.identifier.clone());
        return Err(TaskError::WrongStatus { task_type, identifier, status, what: "sent an event" });
    }
    let sent = db
        .prepare_cached(
            "INSERT INTO fulmar_task_event (task_id, number, name, key, body)
             SELECT ?1, coalesce((SELECT max(number) FROM fulmar_task_event WHERE task_id = ?1), 0) + 1, ?2, ?3, ?4
             WHERE NOT EXISTS (SELECT 1 FROM fulmar_task_event WHERE task_id = ?1 AND name = ?2 AND key = ?3)",
        )
        .and_then(|mut sql| sql.execute(params![id, name, key, body]))
        .map_err(failed(doing))?;
    if sent == 0 {
        return Ok(false);
    }
    db.prepare_cached(sql!(
        "UPDATE fulmar_task SET woken = NOT (gate IS {gate_time} AND status = {paused}),
             run_at = CASE WHEN gate IS {gate_time} AND status = {paused} THEN min(run_at, ?3) ELSE run_at END,
             gate = CASE WHEN gate IS {gate_time} AND status = {paused} THEN {gate_open} ELSE gate END
         WHERE id = ?1 AND EXISTS (
             SELECT 1 FROM fulmar_task_step WHERE task_id = ?1 AND name = ?2 AND kind = ?4 AND state = 0)"
    ))
    .and_then(|mut sql| sql.execute(params![id, name, now, Kind::Event as i64]))
    .map_err(failed(doing))?;
    Ok(true)
}

/// Enqueues `children`, makes the holder's task their parent, notes how many of its children have
/// not ended, and stores `entry` with the children's numbers as its body. `Stale` if the holder has
/// lost its task. Otherwise it fails as an enqueuing does. For a write transaction.
fn spawn(
    db: &Connection,
    now: i64,
    holder: &Holder,
    entry: &Entry,
    children: &[Checked],
    fail_fast: bool,
) -> Result<Kept> {
    if !holds(db, now, holder)? {
        return Ok(Kept::Stale);
    }
    let accepted = produce::enqueue(db, now, children)?;
    place();
    let ids: Vec<i64> = accepted.iter().map(|task| task.id).collect();
    for id in &ids {
        db.prepare_cached("UPDATE fulmar_task SET parent = ?2 WHERE id = ?1")
            .and_then(|mut sql| sql.execute([*id, holder.task]))
            .map_err(failed(DOING))?;
    }
    db.prepare_cached(
        "INSERT INTO fulmar_task_family (task_id, pending, fail_fast)
         SELECT ?1, count(*), ?2 FROM fulmar_task WHERE parent = ?1 AND parent IS NOT NULL AND ended IS NULL
         ON CONFLICT (task_id) DO UPDATE SET pending = excluded.pending, fail_fast = excluded.fail_fast",
    )
    .and_then(|mut sql| sql.execute(params![holder.task, fail_fast]))
    .map_err(failed(DOING))?;
    let entry = Entry { body: Some(Entry::ids(&ids)), ..entry.clone() };
    store(db, holder, &entry)
}

fn standing(db: &Connection, id: i64) -> Result<Option<Standing>> {
    db.prepare_cached(
        "SELECT status, coalesce((SELECT length(body) FROM fulmar_task_response WHERE task_id = ?1), 0) FROM fulmar_task
         WHERE id = ?1",
    )
    .and_then(|mut sql| {
        sql.query_row([id], |row| Ok(Standing { status: row.get(0)?, bytes: row.get(1)? })).optional()
    })
    .map_err(failed(READING))
}

fn child(db: &Connection, id: i64) -> Result<Option<Child>> {
    db.prepare_cached(sql!(
        "SELECT y.name, t.identifier, t.status, (SELECT body FROM fulmar_task_response WHERE task_id = t.id),
             CASE WHEN t.status IN {wrong} THEN
                 (SELECT message FROM fulmar_task_log l WHERE l.task_id = t.id ORDER BY entry DESC LIMIT 1) END
         FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id WHERE t.id = ?1"
    ))
    .and_then(|mut sql| {
        sql.query_row([id], |row| {
            let name = TaskRef { task_type: row.get(0)?, identifier: row.get(1)? };
            Ok(Child { id, name, status: row.get(2)?, body: row.get(3)?, message: row.get(4)? })
        })
        .optional()
    })
    .map_err(failed(READING))
}

/// The numbers of up to `limit` children that have not ended and were not asked to stop: those of
/// `parent`, or with `None` those of all tasks that failed or were cancelled. Reads only.
fn orphans(db: &Connection, parent: Option<i64>, limit: usize) -> Result<Vec<i64>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = match parent {
        Some(_) => {
            "SELECT id FROM fulmar_task WHERE parent = ?1 AND parent IS NOT NULL AND ended IS NULL AND cancel_requested = 0 LIMIT ?2"
        }
        // The tasks that wait for children are few, so the search begins with them. `?1 IS NULL` is
        // always true here: it gives both statements the same parameters.
        None => {
            sql!(
                "SELECT c.id FROM fulmar_task_family f CROSS JOIN fulmar_task p ON p.id = f.task_id
             CROSS JOIN fulmar_task c ON c.parent = p.id
             WHERE p.status IN {wrong} AND f.pending > 0 AND c.parent IS NOT NULL AND c.ended IS NULL
                 AND c.cancel_requested = 0 AND ?1 IS NULL LIMIT ?2"
            )
        }
    };
    let mut sql = db.prepare_cached(sql).map_err(failed(READING))?;
    let found = sql.query_map(params![parent, limit], |row| row.get(0)).and_then(Iterator::collect);
    found.map_err(failed(READING))
}

fn find(db: &Connection, task: &TaskRef) -> Result<Option<(i64, i64)>> {
    db.prepare_cached(
        "SELECT id, status FROM fulmar_task
         WHERE type_id = (SELECT id FROM fulmar_task_type WHERE name = ?1) AND identifier = ?2",
    )
    .and_then(|mut sql| {
        sql.query_row([&task.task_type, &task.identifier], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    })
    .map_err(failed("looking for a task"))
}

#[cfg(test)]
mod tests {
    use super::super::super::durable::{Durable, function};
    use super::super::super::new_task::NewTask;
    use super::super::super::queue::TaskQueue;
    use super::super::super::task_type::TaskType;
    use super::super::super::worker_id::WorkerId;
    use super::*;

    const LEASE: Duration = Duration::from_secs(600);

    /// Runs a step that takes ten leases, and ends as that says, beside another worker's task.
    fn beside_a_long_step(ends_well: bool) -> TaskStatus {
        let folder = std::env::temp_dir().join(format!("fulmar-long-step-{}", WorkerId::new()));
        std::fs::create_dir(&folder).expect("a folder of its own");
        let queue =
            TaskQueue::builder().busy_timeout(Duration::from_millis(1)).open(folder.join("queue.db")).expect("opened");
        queue.register(TaskType::new("t").restart_limit(0)).expect("registered");
        queue.enqueue_many(["long", "beside"].map(|name| NewTask::new("t", name).input(&()))).expect("accepted");
        let take = || queue.dequeue(&WorkerId::new(), &["t"], 1, LEASE).expect("claimed").pop().expect("ready");
        let (long, beside) = (take(), std::sync::Arc::new(take()));
        beside.start().expect("ours");
        let (inside, other) = (queue.clone(), beside.clone());
        let ended = long.run(&function(move |cx: &Durable<'_>, ()| {
            cx.step_in("long", |_| {
                let engine = inside.engine().as_any().downcast_ref::<SqliteEngine>().expect("of this engine");
                engine.settings.clock.set(10 * millis(LEASE));
                other.renew(LEASE).expect("it can't be taken away");
                if ends_well { Ok(()) } else { Err(TaskError::Invalid("no".into())) }
            })
        }));
        assert_eq!(queue.tidy().expect("tidied"), Default::default(), "no lease was lost");
        beside.renew(LEASE).expect("ours");
        assert_eq!(beside.finish().expect("ours"), TaskStatus::Finished);
        let _ = std::fs::remove_dir_all(&folder);
        ended.expect("ours")
    }

    #[test]
    fn a_step_longer_than_a_lease_costs_none() {
        assert_eq!(beside_a_long_step(true), TaskStatus::Finished);
        assert_eq!(beside_a_long_step(false), TaskStatus::Failed);
    }
}
