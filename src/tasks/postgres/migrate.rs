//! The schema's versions, applied on open, under an advisory lock, so that one of many processes does it.

use super::super::error::TaskError;
use super::super::schema::POSTGRES as MIGRATIONS;
use super::super::worker_id::random_name;
use super::connection::Connection;
use super::fault::Fault;
use super::lanes::FULMAR;

/// Brings the schema up to date. A newer one than is known here is refused, and nothing is changed.
pub(super) fn migrate(db: &mut Connection) -> Result<(), Fault> {
    let newest = MIGRATIONS.len() as i64;
    // Mostly it is, and then nobody has to wait for a lock.
    let found = version(db)?;
    if found >= newest {
        return known(found, newest);
    }
    // Before the transaction begins: one that waited inside would know the tables as they were when it began.
    db.query("SELECT pg_advisory_lock($1::int8::int4, 0)", &[FULMAR.into()])?;
    let applied = apply(db, newest);
    db.query("SELECT pg_advisory_unlock($1::int8::int4, 0)", &[FULMAR.into()])?;
    applied
}

fn apply(db: &mut Connection, newest: i64) -> Result<(), Fault> {
    let mut tx = db.begin()?;
    let found = version(&mut tx)?;
    known(found, newest)?;
    for (number, sql) in (1_i64..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        tx.script(sql)?;
        let set = "INSERT INTO fulmar_setting (name, value) VALUES ('schema', $1::text)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        tx.query(set, &[(&*number.to_string()).into()])?;
    }
    let set = "INSERT INTO fulmar_setting (name, value) VALUES ('database', $1::text) ON CONFLICT (name) DO NOTHING";
    tx.query(set, &[(&*random_name()).into()])?;
    tx.commit()?;
    Ok(())
}

fn known(found: i64, newest: i64) -> Result<(), Fault> {
    if found > newest { Err(TaskError::SchemaTooNew { found, known: newest }.into()) } else { Ok(()) }
}

/// 0 without any schema.
fn version(db: &mut Connection) -> Result<i64, Fault> {
    let exists: bool = db.query("SELECT to_regclass('fulmar_setting') IS NOT NULL", &[])?.only()?.get(0)?;
    if !exists {
        return Ok(0);
    }
    // Not prepared: the table may be of another version than this program knows.
    let rows = db.query_once("SELECT value::int8 FROM fulmar_setting WHERE name = 'schema'", &[])?;
    Ok(rows.first().map_or(Ok(0), |row| row.get(0))?)
}
