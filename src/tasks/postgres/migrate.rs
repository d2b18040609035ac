//! The schema's versions, applied on open, under an advisory lock, so that one of many processes
//! does it.

use super::super::access::Access;
use super::super::error::TaskError;
use super::super::names::sql;
use super::super::schema::POSTGRES as MIGRATIONS;
use super::super::worker_id::random_name;
use super::connection::Connection;
use super::fault::Fault;
use super::sql::locks;
use super::target::identifier;

/// Which schema the queue is in, which is made if it was `named` and isn't there. By itself it is
/// the first of the session's path, and stays that.
pub(super) fn find_schema(db: &mut Connection, named: Option<&str>, access: Access) -> Result<String, Fault> {
    let Some(name) = named else {
        let rows = db.query_once(
            "SELECT current_schema()::text, n.nspname::text FROM (SELECT to_regclass('fulmar_setting') AS found) AS f
             LEFT JOIN pg_catalog.pg_class c ON c.oid = f.found LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
            &[],
        )?;
        let (first, found): (Option<String>, Option<String>) = (rows.only()?.get(0)?, rows.only()?.get(1)?);
        return match (first, found) {
            (None, _) => {
                Err(invalid("no schema of the session's search_path exists: create one, or name one with `schema`"))
            }
            (Some(first), Some(found)) if found != first => Err(invalid(format!(
                "the session's search_path begins with `{first}`, and there is a queue in `{found}` behind it: \
                 say which of them is meant, with `schema`"
            ))),
            (Some(first), _) => Ok(first),
        };
    };
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        return Err(invalid("a schema's name has 1 to 63 bytes, none of them zero"));
    }
    let known = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1::text)";
    if !db.query_once(known, &[name.into()])?.only()?.get::<bool>(0)? {
        if access != Access::Create {
            return Err(TaskError::NoQueue { place: name.to_owned() }.into());
        }
        match db.script(&format!("CREATE SCHEMA IF NOT EXISTS {}", identifier(name))) {
            // Another process was faster.
            Err(error) if matches!(error.sqlstate(), Some("42P06" | "23505")) => {}
            result => result?,
        }
    }
    Ok(name.to_owned())
}

fn invalid(words: impl Into<String>) -> Fault {
    TaskError::Invalid(words.into()).into()
}

/// Brings the schema up to date. A newer one than is known here is refused, and nothing is changed.
pub(super) fn migrate(db: &mut Connection, access: Access) -> Result<(), Fault> {
    let newest = MIGRATIONS.len() as i64;
    // Mostly it is, and then no process has to wait for a lock.
    let found = version(db)?;
    let schema = db.schema().to_owned();
    if !access.migrates(found, newest, || schema)? {
        return Ok(());
    }
    let mut tx = db.begin()?;
    tx.query(sql!("SELECT pg_advisory_xact_lock(", locks!(), ", 0)"), &[])?;
    // The session may remember that a table isn't there which the lock's last holder has made. The
    // server takes note of such news when a table is locked.
    tx.script("LOCK TABLE pg_catalog.pg_class IN ACCESS SHARE MODE")?;
    let found = version(&mut tx)?;
    known(found, newest)?;
    // The migrations name no schema, and the functions that they make keep this path: the queue's
    // own schema and nothing else.
    let path = format!("SET LOCAL search_path = {}, pg_temp", tx.schema());
    tx.script(&path)?;
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

/// That of the database, and the newest that is known here.
pub(super) fn versions(db: &mut Connection) -> Result<(i64, i64), Fault> {
    Ok((version(db)?, MIGRATIONS.len() as i64))
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
