//! The entries of a task's log that are kept in its own row: three numbers each, and who has taken
//! the task if that is what happened.
//!
//! A row for each entry would cost as much as the task. But each change of a task writes its whole
//! row anew, so that a trail that has grown long, as that of a task that pauses again and again, is
//! turned into rows of the log.

use super::super::engine::{SAYING, taken_by};
use super::super::names::sql;
use super::super::status::TaskStatus;
use super::connection::Connection;
use super::error::PgError;
use super::value::Param;

/// From how many bytes on a trail is long: after some forty entries.
pub(super) const LONG: i64 = 1_024;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: i64,
    pub(super) time: i64,
    pub(super) status: i64,
    pub(super) token: i64,
    pub(super) message: String,
}

/// Decodes the log entries in a task's row. If the bytes end within an entry, that part is ignored.
pub(super) fn entries(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((numbers, rest)) = bytes.split_first_chunk::<24>() {
        let number = |at: usize| numbers[at..at + 8].iter().fold(0_i64, |number, &byte| number << 8 | i64::from(byte));
        let status = number(8) & 7;
        bytes = rest;
        let mut message = String::new();
        if status == TaskStatus::Scheduled.code() {
            let Some((worker, rest)) = bytes.split_first_chunk::<8>() else { break };
            message = taken_by(String::from_utf8_lossy(worker).trim_end());
            bytes = rest;
        }
        entries.push(Entry { number: number(0), time: number(8) >> 3, status, token: number(16), message });
    }
    entries
}

/// Turns the trails of these tasks into rows of the log, where readers of the log look as well.
pub(super) fn unroll(db: &mut Connection, tasks: &[i64]) -> Result<(), PgError> {
    let mut tx = db.begin()?;
    unroll_within(&mut tx, tasks)?;
    tx.commit()
}

/// Adds a message to the entry of the claim of each of these tasks, if it is the last one. Few
/// claims have one, so that it may cost a transaction of its own.
pub(super) fn say(db: &mut Connection, tasks: &[i64], message: &str) -> Result<(), PgError> {
    let mut tx = db.begin()?;
    unroll_within(&mut tx, tasks)?;
    tx.execute(
        sql!(
            "UPDATE fulmar_task_log l SET message = l.message || $2::text || $3::text FROM fulmar_task t
         WHERE t.id = ANY($1::int8[]) AND t.status = {scheduled} AND l.task_id = t.id AND l.entry = t.entries
             AND l.status = {scheduled}"
        ),
        &[Param::Ints(tasks), SAYING.into(), message.into()],
    )?;
    tx.commit()
}

/// Moves the trails of these tasks into the log, within a transaction. It locks the rows in the
/// order of their numbers, so that two processes that do the same can't deadlock.
fn unroll_within(tx: &mut Connection, tasks: &[i64]) -> Result<(), PgError> {
    let sql = "SELECT id, trail FROM fulmar_task WHERE id = ANY($1::int8[]) ORDER BY id FOR UPDATE";
    let rows = tx.query(sql, &[Param::Ints(tasks)])?;
    let mut all: Vec<(i64, Entry)> = Vec::new();
    for row in rows.iter() {
        let id = row.get(0)?;
        all.extend(entries(row.get(1)?).into_iter().map(|entry| (id, entry)));
    }
    let column = |of: fn(&(i64, Entry)) -> i64| all.iter().map(of).collect::<Vec<i64>>();
    let messages: Vec<&str> = all.iter().map(|(_, entry)| &*entry.message).collect();
    // In a damaged row a number may come twice. Its other entries are worth more than an error.
    tx.execute(
        "INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
         SELECT n.id, n.entry, n.time, n.status::int2, n.token, n.message
         FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::text[])
             AS n (id, entry, time, status, token, message)
         ON CONFLICT DO NOTHING",
        &[
            Param::Ints(&column(|(id, _)| *id)),
            Param::Ints(&column(|(_, entry)| entry.number)),
            Param::Ints(&column(|(_, entry)| entry.time)),
            Param::Ints(&column(|(_, entry)| entry.status)),
            Param::Ints(&column(|(_, entry)| entry.token)),
            Param::Texts(&messages),
        ],
    )?;
    tx.execute("UPDATE fulmar_task SET trail = '' WHERE id = ANY($1::int8[])", &[Param::Ints(tasks)])?;
    Ok(())
}
