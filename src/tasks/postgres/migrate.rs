//! The schema's versions, applied on open, under an advisory lock, so that one of many processes does it.

use super::super::error::TaskError;
use super::super::schema::POSTGRES as MIGRATIONS;
use super::super::worker_id::random_name;
use super::connection::Connection;
use super::fault::Fault;
use super::lanes::FULMAR;

const NO_SCHEMA: &str = "no schema of the session's search_path exists: create one, or name one";

/// Brings the schema up to date. A newer one than is known here is refused, and nothing is changed.
pub(super) fn migrate(db: &mut Connection) -> Result<(), Fault> {
    let newest = MIGRATIONS.len() as i64;
    // Mostly it is, and then nobody has to wait for a lock.
    let found = version(db)?;
    if found >= newest {
        return known(found, newest);
    }
    let mut tx = db.begin()?;
    tx.query("SELECT pg_advisory_xact_lock($1::int8::int4, 0)", &[FULMAR.into()])?;
    // The session may remember that a table isn't there which the lock's last holder has made. The server takes note of such
    // news when a table is locked.
    tx.script("LOCK TABLE pg_catalog.pg_class IN ACCESS SHARE MODE")?;
    let found = version(&mut tx)?;
    known(found, newest)?;
    // The migrations name no schema, and the functions that they make keep this path: the queue's own schema and nothing else.
    let schema: Option<String> = tx.query("SELECT quote_ident(current_schema())", &[])?.only()?.get(0)?;
    let schema = schema.ok_or_else(|| TaskError::Invalid(NO_SCHEMA.into()))?;
    tx.script(&format!("SET LOCAL search_path = {schema}, pg_temp"))?;
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
