//! The steps of durable functions.
//!
//! Who writes a step locks its task's row against those who would take it away; who takes or sends
//! an event, and who notes children, locks it against the other. So what wakes a function sees it
//! waiting, or it sees what would have woken it.

use std::sync::Arc;
use std::time::Duration;

use super::super::durable::{Carried, Child, Entry, Event, Holder, Journal, Kept, Kind, Past, Standing, State, Taken};
use super::super::engine::TaskRef;
use super::super::error::{Result, TaskError};
use super::super::names::sql;
use super::super::new_task::Checked;
use super::super::signal::News;
use super::super::status::{Response, TaskStatus};
use super::super::worker_id::random_number;
use super::connection::Connection;
use super::fault::Fault;
use super::keep::Keep;
use super::sql::now;
use super::value::Param;
use super::{PostgresEngine, has_zero, is_impossible, millis, not_found, produce};

pub(super) const DOING: &str = "writing the steps of a function";
const READING: &str = "reading the steps of a function";

impl Journal for PostgresEngine {
    fn steps(&self, task: i64) -> Result<(i64, Vec<Entry>)> {
        self.core.patiently(READING, |db, _| steps(db, task))
    }

    fn keep(&self, holder: &Holder, entry: &Entry) -> Result<Kept> {
        self.keeps.run(&self.core, Keep { holder: holder.clone(), entry: entry.clone() })
    }

    fn take_event(&self, holder: &Holder, entry: &Entry, limit: Option<Duration>) -> Result<Taken> {
        self.core.patiently(DOING, |db, in_doubt| match take_event(db, holder, entry, limit, in_doubt)? {
            // An earlier call may have taken it, whose commit had no answer.
            Taken::Stale if !in_doubt => take_event(db, holder, entry, limit, true),
            taken => Ok(taken),
        })
    }

    fn send_event(&self, task: &TaskRef, name: &str, key: Option<&str>, body: &[u8]) -> Result<bool> {
        if is_impossible(task) {
            return Err(not_found(task));
        }
        if has_zero(name) || key.is_some_and(has_zero) {
            return Err(TaskError::Invalid("PostgreSQL takes no zero byte in a name".into()));
        }
        // By it we know our own, if the answer to the commit is lost. No key of a user's begins
        // with that character.
        let own = || format!("\u{1}{:016x}{:016x}", random_number(), random_number());
        let mark = key.map_or_else(own, str::to_owned);
        // The transaction that last stored it, and whose commit may have had no answer.
        let mut own = None;
        let sent = self.core.patiently("sending an event", |db, _| {
            let before = own;
            match send_event(db, task, name, &mark, body, &mut own) {
                Ok(true) => Ok(true),
                // The task may have ended meanwhile, because of that event.
                other => match before.filter(|_| own == before) {
                    Some(before) if is_committed(db, before)? => Ok(true),
                    _ => other,
                },
            }
        })?;
        self.tell(News::Work);
        // Without a key the mark is this call's own: if it is there already, an earlier try has
        // stored the event.
        Ok(sent || key.is_none())
    }

    fn spawn(&self, holder: &Holder, entry: &Entry, children: &[Checked], fail_fast: bool) -> Result<Kept> {
        let kept = self.core.patiently("enqueuing children", |db, _| spawn(db, holder, entry, children, fail_fast))?;
        self.tell(News::Work);
        Ok(kept)
    }

    fn standing(&self, ids: &[i64]) -> Result<Vec<Standing>> {
        self.core.patiently(READING, |db, _| standing(db, ids))
    }

    fn children(&self, ids: &[i64]) -> Result<Vec<Child>> {
        self.core.patiently(READING, |db, _| children(db, ids))
    }

    fn orphans(&self, parent: Option<i64>, limit: usize) -> Result<Vec<i64>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.core.patiently(READING, |db, _| {
            let rows = match parent {
                Some(parent) => db.query(
                    "SELECT id FROM fulmar_task WHERE parent = $1::int8 AND parent IS NOT NULL AND ended IS NULL
                         AND NOT cancel_requested LIMIT $2::int8",
                    &[parent.into(), limit.into()],
                )?,
                None => db.query(
                    // The list of parents is made first, so that no plan begins with all children
                    // there are. Status 5 is `Failed`, 6 is `Cancelled`.
                    "SELECT id FROM fulmar_task WHERE parent = ANY(ARRAY(
                         SELECT f.task_id FROM fulmar_task_family f WHERE f.pending > 0
                             AND (SELECT p.status FROM fulmar_task p WHERE p.id = f.task_id) IN (5, 6)))
                         AND parent IS NOT NULL AND ended IS NULL AND NOT cancel_requested LIMIT $1::int8",
                    &[limit.into()],
                )?,
            };
            rows.iter().map(|row| Ok(row.get(0)?)).collect()
        })
    }

    fn depth(&self, task: i64, limit: usize) -> Result<usize> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.core.patiently(READING, |db, _| {
            let rows = db.query(
                "WITH RECURSIVE up (id, depth) AS (
                     SELECT parent, 0::int8 FROM fulmar_task WHERE id = $1::int8
                     UNION ALL SELECT t.parent, depth + 1 FROM up JOIN fulmar_task t ON t.id = up.id WHERE depth < $2::int8)
                 SELECT coalesce(max(depth), 0) FROM up",
                &[task.into(), limit.into()],
            )?;
            let depth: i64 = rows.only()?.get(0)?;
            Ok(usize::try_from(depth).unwrap_or(usize::MAX))
        })
    }

    fn copy(&self, from: i64, to: &Checked, before: i64) -> Result<i64> {
        // The number of a task whose commit may have had no answer. No other task gets it.
        let mut own = None;
        let id = self.core.patiently("forking a function", |db, _| {
            let mut tx = db.begin()?;
            let accepted = match produce::enqueue_within(&mut tx, std::slice::from_ref(to), true) {
                Err(Fault::Task(error @ (TaskError::Duplicate { .. } | TaskError::QueueFull { .. }))) => {
                    drop(tx);
                    return match find(db, &to.name())? {
                        Some((id, _)) if own == Some(id) => Ok(id),
                        _ => Err(error.into()),
                    };
                }
                accepted => accepted?,
            };
            let id = accepted.first().map(|task| task.id).unwrap_or_default();
            own = Some(id);
            tx.execute(
                "INSERT INTO fulmar_task_step (task_id, name, number, ord, kind, state, attempts, until, token, is_json, body)
                 SELECT $2::int8, name, number, ord, kind, state, attempts, until, token, is_json, body FROM fulmar_task_step
                 WHERE task_id = $1::int8 AND ord < $3::int8",
                &[from.into(), id.into(), before.into()],
            )?;
            tx.commit()?;
            Ok(id)
        })?;
        self.tell(News::Work);
        Ok(id)
    }

    fn carried(&self, task: i64) -> Result<Carried> {
        self.core.patiently(READING, |db, _| {
            let rows = db.query(
                "SELECT EXISTS (SELECT FROM fulmar_task t JOIN fulmar_task p ON p.id = t.parent WHERE t.id = $1::int8
                         AND p.ended IS NULL),
                     EXISTS (SELECT FROM fulmar_task_step WHERE task_id = $1::int8),
                     EXISTS (SELECT FROM fulmar_task_event WHERE task_id = $1::int8)",
                &[task.into()],
            )?;
            let row = rows.only()?;
            let (is_child, has_steps, has_events): (bool, bool, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            drop(rows);
            let steps = if has_steps { steps(db, task)?.1 } else { Vec::new() };
            Ok(Carried { is_child, past: None, steps, events: if has_events { events(db, task)? } else { Vec::new() } })
        })
    }

    fn restore(&self, to: &Checked, carried: &Carried) -> Result<()> {
        self.core.patiently("importing a task", |db, _| restore(db, to, carried))?;
        self.tell(News::Work);
        Ok(())
    }

    fn disband(&self, task: i64) -> Result<()> {
        self.core.patiently(DOING, |db, _| {
            db.execute("DELETE FROM fulmar_task_family WHERE task_id = $1::int8", &[task.into()])?;
            Ok(())
        })
    }

    fn find(&self, task: &TaskRef) -> Result<Option<i64>> {
        if is_impossible(task) {
            return Ok(None);
        }
        self.core.patiently(READING, |db, _| Ok(find(db, task)?.map(|(id, _)| id)))
    }

    fn family(&self, parent: i64, limit: usize) -> Result<Vec<(i64, TaskRef)>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.core.patiently(READING, |db, _| {
            let rows = db.query(
                "SELECT t.id, y.name, t.identifier FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id
                 WHERE t.parent = $1::int8 AND t.parent IS NOT NULL ORDER BY t.id LIMIT $2::int8",
                &[parent.into(), limit.into()],
            )?;
            rows.iter()
                .map(|row| Ok((row.get(0)?, TaskRef { task_type: row.get(1)?, identifier: row.get(2)? })))
                .collect()
        })
    }
}

/// The steps that a task has stored, in the order of their first use, and before them the server's
/// time in milliseconds since 1970. No steps if there is no such task. Fails if the kind or the
/// state of a step is none that this program knows.
fn steps(db: &mut Connection, task: i64) -> Result<(i64, Vec<Entry>), Fault> {
    let rows = db.query(
        concat!(
            "SELECT ",
            now!(),
            ", s.name, s.number, s.ord, s.kind, s.state, s.attempts, s.until, s.is_json, s.body
             FROM (SELECT 1) AS one LEFT JOIN fulmar_task_step s ON s.task_id = $1::int8 ORDER BY s.ord"
        ),
        &[task.into()],
    )?;
    let now = rows.only()?.get(0)?;
    let mut entries = Vec::new();
    for row in rows.iter() {
        let Some(name) = row.get::<Option<String>>(1)? else { break };
        let (kind, state) = Entry::decode(row.get(4)?, row.get(5)?)?;
        entries.push(Entry {
            name,
            number: row.get(2)?,
            ord: row.get(3)?,
            kind,
            state,
            attempts: row.get(6)?,
            until: row.get(7)?,
            is_json: row.get(8)?,
            body: row.get::<Option<Vec<u8>>>(9)?.map(Arc::from),
        });
    }
    Ok((now, entries))
}

fn events(db: &mut Connection, task: i64) -> Result<Vec<Event>, Fault> {
    let rows = db.query(
        "SELECT number, name, key, body, taken = 1 FROM fulmar_task_event WHERE task_id = $1::int8 ORDER BY number",
        &[task.into()],
    )?;
    rows.iter()
        .map(|row| {
            let body = row.get::<Option<Vec<u8>>>(3)?.map(Arc::from);
            Ok(Event { number: row.get(0)?, name: row.get(1)?, key: row.get(2)?, body, taken: row.get(4)? })
        })
        .collect()
}

/// Enqueues `to`, and stores for it what became of it in another queue, its steps and its events,
/// in a transaction of its own. The steps get token 0, which is no worker's. `Duplicate`;
/// `QueueFull`, but only for a task that is `Accepted`; `UnknownType`.
fn restore(db: &mut Connection, to: &Checked, carried: &Carried) -> Result<(), Fault> {
    let mut tx = db.begin()?;
    // Only tasks that are `Accepted` count for the capacity.
    let needs_room = carried.past.as_ref().is_none_or(|past| past.status == TaskStatus::Accepted);
    let accepted = produce::enqueue_within(&mut tx, std::slice::from_ref(to), needs_room)?;
    let id = accepted.first().map(|task| task.id).unwrap_or_default();
    if let Some(past) = &carried.past {
        restore_past(&mut tx, id, past)?;
    }
    for Entry { name, number, ord, kind, state, attempts, until, is_json, body } in &carried.steps {
        tx.execute(
            "INSERT INTO fulmar_task_step (task_id, name, number, ord, kind, state, attempts, until, token, is_json, body)
             VALUES ($1::int8, $2::text, $3::int8, $4::int8, ($5::int8)::int2, ($6::int8)::int2, $7::int8, $8::int8, 0,
                 $9::bool, $10::bytea)",
            &[
                id.into(),
                (&**name).into(),
                (*number).into(),
                (*ord).into(),
                (*kind as i64).into(),
                (*state as i64).into(),
                (*attempts).into(),
                until.map_or(Param::Null, Param::Int),
                (*is_json).into(),
                body.as_deref().map_or(Param::Null, Param::Bytes),
            ],
        )?;
    }
    for Event { number, name, key, body, taken } in &carried.events {
        tx.execute(
            "INSERT INTO fulmar_task_event (task_id, number, name, key, body, taken)
             VALUES ($1::int8, $2::int8, $3::text, $4::text, $5::bytea, ($6::int8)::int2)",
            &[
                id.into(),
                (*number).into(),
                (&**name).into(),
                key.as_deref().into(),
                body.as_deref().map_or(Param::Null, Param::Bytes),
                i64::from(*taken).into(),
            ],
        )?;
    }
    tx.commit()?;
    Ok(())
}

/// Gives a task that was just enqueued what became of it elsewhere.
fn restore_past(db: &mut Connection, id: i64, past: &Past) -> Result<(), Fault> {
    let Past { status, starts, failures, lost, progress, created, ended, checkpoint, response, log } = past;
    let entries = i64::try_from(log.len()).unwrap_or(i64::MAX);
    db.execute(
        "UPDATE fulmar_task SET status = ($2::int8)::int2, gate = CASE WHEN $3::int8 IS NULL THEN gate END, ended = $3::int8,
             starts = $4::int8, failures = $5::int8, lost = $6::int8, progress = $7::float8, created = $8::int8,
             entries = $9::int8, trail = '' WHERE id = $1::int8",
        &[
            id.into(),
            status.code().into(),
            ended.map_or(Param::Null, Param::Int),
            i64::from(*starts).into(),
            i64::from(*failures).into(),
            i64::from(*lost).into(),
            Param::Float(f64::from(*progress)),
            (*created).into(),
            entries.into(),
        ],
    )?;
    db.execute("DELETE FROM fulmar_task_log WHERE task_id = $1::int8", &[id.into()])?;
    let (mut times, mut statuses, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    for (time, status, message) in log {
        times.push(*time);
        statuses.push(status.code());
        messages.push(&**message);
    }
    db.execute(
        "INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
         SELECT $1::int8, l.entry, l.time, l.status::int2, 0, l.message
         FROM unnest($2::int8[], $3::int8[], $4::text[]) WITH ORDINALITY AS l (time, status, message, entry)",
        &[id.into(), Param::Ints(&times), Param::Ints(&statuses), Param::Texts(&messages)],
    )?;
    if let Some(body) = checkpoint {
        let sql = "INSERT INTO fulmar_task_checkpoint (task_id, body) VALUES ($1::int8, $2::bytea)";
        db.execute(sql, &[id.into(), Param::Bytes(body)])?;
    }
    if let Some(Response { media_type, body }) = response {
        let sql = "INSERT INTO fulmar_task_response (task_id, media_type, body) VALUES ($1::int8, $2::text, $3::bytea)";
        db.execute(sql, &[id.into(), (&**media_type).into(), Param::Bytes(body)])?;
    }
    Ok(())
}

/// Stores `entry` as a step of the holder's task, and locks the task's row, so that no session
/// takes the task away before the transaction ends. An entry that is only begun is replaced.
/// `Stale`, with nothing written: the holder has lost the task, or the entry is done or failed
/// already. With `in_doubt` an earlier try may have stored it: then it is `Done` if `find_own`
/// finds it.
pub(super) fn keep(db: &mut Connection, holder: &Holder, entry: &Entry, in_doubt: bool) -> Result<Kept, Fault> {
    let stored = db.execute(
        sql!(
            "WITH t AS MATERIALIZED (
                 SELECT id FROM fulmar_task WHERE id = $1::int8 AND token = $2::int8
                     AND worker IS NOT DISTINCT FROM $3::text AND status = {running} AND lease > ",
            now!(),
            " FOR SHARE)
             INSERT INTO fulmar_task_step AS s
                 (task_id, name, number, ord, kind, state, attempts, until, token, is_json, body)
             SELECT t.id, $4::text, $5::int8, $6::int8, ($7::int8)::int2, ($8::int8)::int2, $9::int8, $10::int8, $2::int8,
                 $11::bool, $12::bytea FROM t
             ON CONFLICT (task_id, name, number) DO UPDATE SET kind = excluded.kind, state = excluded.state,
                 attempts = excluded.attempts, until = excluded.until, token = excluded.token, is_json = excluded.is_json,
                 body = excluded.body WHERE s.state = 0"
        ),
        &[
            holder.task.into(),
            holder.token.into(),
            holder.worker.as_str().into(),
            (&*entry.name).into(),
            entry.number.into(),
            entry.ord.into(),
            (entry.kind as i64).into(),
            (entry.state as i64).into(),
            entry.attempts.into(),
            entry.until.map_or(Param::Null, Param::Int),
            entry.is_json.into(),
            entry.body.as_deref().map_or(Param::Null, Param::Bytes),
        ],
    )?;
    match stored {
        0 if in_doubt => find_own(db, holder, entry),
        0 => Ok(Kept::Stale),
        _ => Ok(Kept::Done),
    }
}

/// Whether an entry was stored whose commit had no answer. `Done` if the holder's own token stands
/// on it, otherwise `Stale`.
///
/// State and body are compared, too: one holder writes an entry twice, when the step begins and
/// when it ends, and the first of the two must not pass for the second.
pub(super) fn find_own(db: &mut Connection, holder: &Holder, entry: &Entry) -> Result<Kept, Fault> {
    let rows = db.query(
        "SELECT 1 FROM fulmar_task_step WHERE task_id = $1::int8 AND name = $2::text AND number = $3::int8
             AND token = $4::int8 AND state = ($5::int8)::int2 AND ($6::bytea IS NULL OR body = $6::bytea)",
        &[
            holder.task.into(),
            (&*entry.name).into(),
            entry.number.into(),
            holder.token.into(),
            (entry.state as i64).into(),
            entry.body.as_deref().map_or(Param::Null, Param::Bytes),
        ],
    )?;
    Ok(if rows.first().is_some() { Kept::Done } else { Kept::Stale })
}

/// Locks the holder's task, if it still holds it; the time.
fn lock(db: &mut Connection, holder: &Holder) -> Result<Option<i64>, Fault> {
    let rows = db.query(
        sql!(
            "SELECT ",
            now!(),
            " FROM fulmar_task WHERE id = $1::int8 AND token = $2::int8 AND worker IS NOT DISTINCT FROM $3::text
                 AND status = {running} AND lease > ",
            now!(),
            " FOR NO KEY UPDATE"
        ),
        &[holder.task.into(), holder.token.into(), holder.worker.as_str().into()],
    )?;
    Ok(rows.first().map(|row| row.get(0)).transpose()?)
}

/// Takes the next event of the entry's name and stores it as the step's result, in one transaction:
/// if the process dies, the event isn't lost. Without an event, stores until when the step waits.
fn take_event(
    db: &mut Connection,
    holder: &Holder,
    entry: &Entry,
    limit: Option<Duration>,
    in_doubt: bool,
) -> Result<Taken, Fault> {
    let mut tx = db.begin()?;
    let Some(now) = lock(&mut tx, holder)? else {
        return Ok(Taken::Stale);
    };
    let mut entry = entry.clone();
    if in_doubt {
        // The answer to an earlier try's commit was lost. If it was committed, its result holds: to
        // take another event would lose the first, and a new limit would wait longer than asked.
        let rows = tx.query(
            "SELECT state, body, until FROM fulmar_task_step WHERE task_id = $1::int8 AND name = $2::text AND number = $3::int8",
            &[holder.task.into(), (&*entry.name).into(), entry.number.into()],
        )?;
        if let Some(row) = rows.first() {
            let state: i64 = row.get(0)?;
            if state == State::Done as i64 {
                return Ok(Taken::Event(row.get::<Option<Vec<u8>>>(1)?.unwrap_or_default().into()));
            }
            if state == State::Failed as i64 {
                return Ok(Taken::TimedOut);
            }
            entry.until = row.get(2)?;
        }
    }
    let rows = tx.query(
        "UPDATE fulmar_task_event SET taken = 1 WHERE task_id = $1::int8 AND number = (
             SELECT number FROM fulmar_task_event WHERE task_id = $1::int8 AND name = $2::text AND taken = 0
             ORDER BY number LIMIT 1) RETURNING body",
        &[holder.task.into(), (&*entry.name).into()],
    )?;
    if let Some(row) = rows.first() {
        let body: Arc<[u8]> = row.get::<Option<Vec<u8>>>(0)?.unwrap_or_default().into();
        (entry.state, entry.body) = (State::Done, Some(Arc::clone(&body)));
        return Ok(match keep(&mut tx, holder, &entry, false)? {
            Kept::Done => {
                tx.commit()?;
                Taken::Event(body)
            }
            Kept::Stale => Taken::Stale,
        });
    }
    entry.until = entry.until.or(limit.map(|limit| now.saturating_add(millis(limit))));
    let is_over = entry.until.is_some_and(|until| until <= now);
    entry.state = if is_over { State::Failed } else { State::Begun };
    if keep(&mut tx, holder, &entry, false)? == Kept::Stale {
        return Ok(Taken::Stale);
    }
    tx.commit()?;
    Ok(if is_over { Taken::TimedOut } else { Taken::Wait(entry.until) })
}

/// Whether that transaction was committed. It has ended: its locks are gone.
fn is_committed(db: &mut Connection, transaction: i64) -> Result<bool, Fault> {
    // By the names that PostgreSQL 12 knows as well.
    let rows = db.query("SELECT coalesce(txid_status($1::int8) = 'committed', false)", &[transaction.into()])?;
    Ok(rows.only()?.get(0)?)
}

/// Sets `own` to the transaction's number once the event is stored in it.
fn send_event(
    db: &mut Connection,
    task: &TaskRef,
    name: &str,
    key: &str,
    body: &[u8],
    own: &mut Option<i64>,
) -> Result<bool, Fault> {
    let (id, _) = find(db, task)?.ok_or_else(|| not_found(task))?;
    let mut tx = db.begin()?;
    let rows = tx.query("SELECT status FROM fulmar_task WHERE id = $1::int8 FOR NO KEY UPDATE", &[id.into()])?;
    let row = rows.first().ok_or_else(|| not_found(task))?;
    let status = TaskStatus::from_code(row.get(0)?)?;
    if status.is_ended() {
        let (task_type, identifier) = (task.task_type.clone(), task.identifier.clone());
        return Err(TaskError::WrongStatus { task_type, identifier, status, what: "sent an event" }.into());
    }
    let sent = tx.query(
        "INSERT INTO fulmar_task_event (task_id, number, name, key, body)
         SELECT $1::int8, coalesce((SELECT max(number) FROM fulmar_task_event WHERE task_id = $1::int8), 0) + 1, $2::text,
             $3::text, $4::bytea
         WHERE NOT EXISTS (SELECT 1 FROM fulmar_task_event WHERE task_id = $1::int8 AND name = $2::text AND key = $3::text)
         RETURNING txid_current()",
        &[id.into(), name.into(), key.into(), Param::Bytes(body)],
    )?;
    let Some(sent) = sent.first() else { return Ok(false) };
    *own = Some(sent.get(0)?);
    tx.execute(
        sql!(
            "UPDATE fulmar_task t SET woken = NOT (t.gate IS NOT DISTINCT FROM {gate_time} AND t.status = {paused}),
                 run_at = CASE WHEN t.gate = {gate_time} AND t.status = {paused} THEN least(t.run_at, ",
            now!(),
            ") ELSE t.run_at END,
                 gate = CASE WHEN t.gate = {gate_time} AND t.status = {paused} THEN {gate_open} ELSE t.gate END
             WHERE t.id = $1::int8 AND EXISTS (SELECT 1 FROM fulmar_task_step s WHERE s.task_id = $1::int8
                 AND s.name = $2::text AND s.kind = ($3::int8)::int2 AND s.state = 0)"
        ),
        &[id.into(), name.into(), (Kind::Event as i64).into()],
    )?;
    tx.commit()?;
    Ok(true)
}

/// Enqueues `children`, makes the holder's task their parent, notes how many of its children have
/// not ended, and stores `entry` with the children's numbers as its body: all in a transaction of
/// its own. `Done` also if an earlier try did it. `Stale`, with nothing written, if the holder has
/// lost its task. Otherwise it fails as an enqueuing does.
fn spawn(
    db: &mut Connection,
    holder: &Holder,
    entry: &Entry,
    children: &[Checked],
    fail_fast: bool,
) -> Result<Kept, Fault> {
    let mut tx = db.begin()?;
    // The lock of the capacity comes before that of a row, as everywhere.
    produce::lock_room(&mut tx)?;
    // Earlier children that were retried: none may end between the count below and the commit, or
    // it would be waited for for ever. Before the lock of their parent, which their end takes last.
    tx.query(
        "SELECT id FROM fulmar_task WHERE parent = $1::int8 AND parent IS NOT NULL AND ended IS NULL ORDER BY id FOR SHARE",
        &[holder.task.into()],
    )?;
    if lock(&mut tx, holder)?.is_none() {
        return Ok(Kept::Stale);
    }
    // By an earlier try, or an earlier call, whose commit had no answer.
    if find_own(&mut tx, holder, entry)? == Kept::Done {
        return Ok(Kept::Done);
    }
    let accepted = produce::enqueue_within(&mut tx, children, true)?;
    let ids: Vec<i64> = accepted.iter().map(|task| task.id).collect();
    tx.execute(
        "UPDATE fulmar_task SET parent = $2::int8 WHERE id = ANY($1::int8[])",
        &[Param::Ints(&ids), holder.task.into()],
    )?;
    tx.execute(
        "INSERT INTO fulmar_task_family (task_id, pending, fail_fast)
         SELECT $1::int8, count(*), ($2::int8)::int2 FROM fulmar_task
         WHERE parent = $1::int8 AND parent IS NOT NULL AND ended IS NULL
         ON CONFLICT (task_id) DO UPDATE SET pending = excluded.pending, fail_fast = excluded.fail_fast",
        &[holder.task.into(), i64::from(fail_fast).into()],
    )?;
    let entry = Entry { body: Some(Entry::ids(&ids)), ..entry.clone() };
    let kept = keep(&mut tx, holder, &entry, false)?;
    if kept != Kept::Stale {
        tx.commit()?;
    }
    Ok(kept)
}

fn standing(db: &mut Connection, ids: &[i64]) -> Result<Vec<Standing>, Fault> {
    let rows = db.query(
        "SELECT t.status, coalesce(octet_length(r.body), 0) FROM unnest($1::int8[]) AS n (id)
         JOIN fulmar_task t ON t.id = n.id LEFT JOIN fulmar_task_response r ON r.task_id = t.id",
        &[Param::Ints(ids)],
    )?;
    rows.iter().map(|row| Ok(Standing { status: row.get(0)?, bytes: row.get(1)? })).collect()
}

fn children(db: &mut Connection, ids: &[i64]) -> Result<Vec<Child>, Fault> {
    let rows = db.query(
        sql!("SELECT t.id, y.name, t.identifier, t.status, r.body, CASE WHEN t.status IN {wrong} THEN
             (SELECT l.message FROM fulmar_task_log l WHERE l.task_id = t.id ORDER BY l.entry DESC LIMIT 1) END
         FROM unnest($1::int8[]) WITH ORDINALITY AS n (id, ord) JOIN fulmar_task t ON t.id = n.id
         JOIN fulmar_task_type y ON y.id = t.type_id LEFT JOIN fulmar_task_response r ON r.task_id = t.id ORDER BY n.ord"),
        &[Param::Ints(ids)],
    )?;
    rows.iter()
        .map(|row| {
            let name = TaskRef { task_type: row.get(1)?, identifier: row.get(2)? };
            Ok(Child { id: row.get(0)?, name, status: row.get(3)?, body: row.get(4)?, message: row.get(5)? })
        })
        .collect()
}

fn find(db: &mut Connection, task: &TaskRef) -> Result<Option<(i64, i64)>, Fault> {
    let rows = db.query(
        "SELECT t.id, t.status FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id
         WHERE y.name = $1::text AND t.identifier = $2::text",
        &[(&*task.task_type).into(), (&*task.identifier).into()],
    )?;
    rows.first().map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}
