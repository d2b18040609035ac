//! The schema's versions, applied on open, under the writer's lock, so that one of many processes
//! does it.

use rusqlite::{Connection, OptionalExtension};

use super::super::error::{Result, TaskError};
use super::SqliteSettings;
use super::connection::{failed, patiently};
use crate::tasks::schema::SQLITE as MIGRATIONS;
use crate::tasks::worker_id;

/// Brings the schema up to date.
pub(super) fn migrate(db: &Connection, settings: &SqliteSettings) -> Result<()> {
    let doing = "bringing the schema up to date";
    // Mostly it is, and then no process has to wait for a lock.
    let newest = MIGRATIONS.len() as i64;
    let found = patiently(settings.busy_timeout, doing, || version(db))?;
    if !settings.access.migrates(found, newest, || settings.path.display().to_string())? {
        return Ok(());
    }
    patiently(settings.busy_timeout, doing, || db.execute_batch("BEGIN IMMEDIATE").map_err(failed(doing)))?;
    let applied = apply(db, newest);
    let end = if applied.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = db.execute_batch(end).map_err(failed(doing));
    applied.and(ended)
}

fn apply(db: &Connection, newest: i64) -> Result<()> {
    let doing = "bringing the schema up to date";
    let found = version(db)?;
    known(found, newest)?;
    for (number, sql) in (1..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        db.execute_batch(sql).map_err(failed(doing))?;
        let set = "INSERT INTO fulmar_setting (name, value) VALUES ('schema', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1";
        db.execute(set, [number]).map_err(failed(doing))?;
    }
    let set = "INSERT INTO fulmar_setting (name, value) VALUES ('database', ?1) ON CONFLICT (name) DO NOTHING";
    db.execute(set, [worker_id::random_name()]).map_err(failed(doing))?;
    Ok(())
}

fn known(found: i64, newest: i64) -> Result<()> {
    if found > newest { Err(TaskError::SchemaTooNew { found, known: newest }) } else { Ok(()) }
}

/// That of the database, and the newest that is known here.
pub(super) fn versions(db: &Connection) -> Result<(i64, i64)> {
    Ok((version(db)?, MIGRATIONS.len() as i64))
}

/// 0 without any schema.
fn version(db: &Connection) -> Result<i64> {
    let doing = "reading the schema's version";
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'fulmar_setting'", [], |row| {
            row.get(0)
        })
        .map_err(failed(doing))?;
    if tables == 0 {
        return Ok(0);
    }
    let found: Option<i64> = db
        .query_row("SELECT value FROM fulmar_setting WHERE name = 'schema'", [], |row| row.get(0))
        .optional()
        .map_err(failed(doing))?;
    Ok(found.unwrap_or(0))
}
