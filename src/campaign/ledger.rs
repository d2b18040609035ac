//! The campaign's memory: a SQLite file with a row for each job that is to be, and how far it has
//! come. What a call to a back-end could make or change is written before that call.
//!
//! ```text
//! new ──▶ intended ──▶ made ──▶ finished ──▶ done
//!  ▲         │ the reply was lost: the job list tells      finished: on the back-end
//!  │         ▼                                             done:     downloaded here
//!  └── a failed attempt, if another is allowed ──▶ failed
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::Value;

use super::error::CampaignError;
use super::owner::{self, Owner};
use crate::error::BoxError;
use crate::sync::Mutex;

const VERSION: i64 = 1;

/// How long a write waits for another process.
const BUSY: Duration = Duration::from_secs(30);

pub(super) type Result<T> = std::result::Result<T, CampaignError>;

pub(super) struct Ledger {
    path: PathBuf,
    /// What tells this campaign's jobs from all others on a back-end.
    name: String,
    owner: Owner,
    db: Mutex<Connection>,
}

/// How far a row has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    New,
    /// A request to make the job may have been sent.
    Intended,
    /// There is a job.
    Made,
    /// The job has finished on the back-end.
    Finished,
    /// Its results are here.
    Done,
    Failed,
}

const STATES: [(State, &str); 6] = [
    (State::New, "new"),
    (State::Intended, "intended"),
    (State::Made, "made"),
    (State::Finished, "finished"),
    (State::Done, "done"),
    (State::Failed, "failed"),
];

/// A row as it stands in the ledger.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) params: Value,
    pub(super) state: State,
    pub(super) attempt: u32,
    pub(super) back_end: Option<String>,
    /// When its job was asked for, by this machine's clock.
    pub(super) intended: Option<SystemTime>,
    pub(super) job: Option<String>,
    pub(super) cost: Option<f64>,
    pub(super) folder: Option<String>,
    pub(super) files: Vec<PathBuf>,
    pub(super) error: Option<String>,
}

/// How many rows stand how, what jobs have cost, and what those at work may still cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) done: usize,
    pub(super) failed: usize,
    pub(super) at_work: usize,
    pub(super) waiting: usize,
    pub(super) spent: f64,
    pub(super) reserved: f64,
}

/// What came of asking for a row.
pub(super) enum Claim {
    /// It is this process's.
    Ours(Box<Entry>),
    /// Another process is at work on it.
    Elsewhere,
    /// Nothing is left to do.
    Ended,
}

/// What came of asking for money.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reserve {
    Granted,
    /// Jobs are at work whose cost isn't known yet: ask again.
    Later,
    /// Jobs that no process looks after have money reserved: they come first.
    Orphans,
    /// No job is at work, and this one could pass the limit.
    Exceeded,
    /// The back-end doesn't tell what jobs cost, and no estimate was given.
    Untold,
}

/// Sums over all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) spent: f64,
    pub(super) reserved: f64,
}

impl Ledger {
    pub(super) fn open(path: &Path) -> Result<Ledger> {
        let path = std::path::absolute(path).map_err(|error| failed(path, "finding it", error))?;
        let doing = "opening it";
        let mut db = Connection::open(&path).map_err(|error| failed(&path, doing, error))?;
        // A name for this process, or for the campaign, that nothing else has.
        let random = |db: &Connection| db.query_row("SELECT lower(hex(randomblob(8)))", [], |row| row.get(0));
        let own = random(&db).map_err(|error| failed(&path, doing, error))?;
        let owner = Owner::new(&path, own).map_err(|error| failed(&path, "locking a file beside it", error))?;
        let name = (|| {
            db.busy_timeout(BUSY)?;
            db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            // A row is on the disk before the request that it speaks of.
            db.pragma_update(None, "synchronous", "FULL")?;
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(include_str!("schema.sql"))?;
            let name: String = random(&tx)?;
            tx.execute("INSERT OR IGNORE INTO campaign (one, version, name) VALUES (1, ?, ?)", params![VERSION, name])?;
            let (version, name): (i64, String) =
                tx.query_row("SELECT version, name FROM campaign", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            tx.commit()?;
            Ok((version, name))
        })();
        let (version, name) = name.map_err(|error: rusqlite::Error| failed(&path, doing, error))?;
        if version != VERSION {
            return Err(CampaignError::Invalid(format!(
                "the ledger {} has version {version}, and this program knows {VERSION}: use the version of fulmar that made it",
                path.display()
            )));
        }
        Ok(Ledger { path, name, owner, db: Mutex::new(db) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What stands in the title of a row's job, and in no other.
    pub(super) fn token(&self, row: i64, attempt: u32) -> String {
        format!("fulmar-{}-{row}.{attempt}", self.name)
    }

    /// Adds the rows whose keys are new, and says how many those are.
    pub(super) fn add(&self, rows: &[(String, String)]) -> Result<usize> {
        self.write("adding rows", |tx| {
            let mut insert = tx.prepare("INSERT OR IGNORE INTO campaign_row (key, params) VALUES (?, ?)")?;
            rows.iter().try_fold(0, |sum, (key, params)| Ok(sum + insert.execute(params![key, params])?))
        })
    }

    /// Lets failed rows be tried again, and says how many there are.
    pub(super) fn retry_failed(&self) -> Result<usize> {
        self.write("letting rows be tried again", |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO campaign_attempt (row_id, attempt, back_end, job, cost, error)
                 SELECT id, attempt, back_end, job, cost, error FROM campaign_row WHERE state = 'failed'",
                [],
            )?;
            tx.execute(
                "UPDATE campaign_row SET state = 'new', attempt = attempt + 1, owner = NULL, back_end = NULL, job = NULL,
                    intended = NULL, reserved = NULL, cost = NULL
                 WHERE state = 'failed'",
                [],
            )
        })
    }

    /// Rows that haven't ended: those with a job first, so that what is paid for is looked after.
    pub(super) fn open_rows(&self) -> Result<Vec<i64>> {
        self.read("listing rows", |db| {
            let mut statement = db.prepare(
                "SELECT id FROM campaign_row WHERE state NOT IN ('done', 'failed') ORDER BY state = 'new', id",
            )?;
            statement.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Takes a row, unless another process is at work on it.
    pub(super) fn claim(&self, id: i64) -> Result<Claim> {
        loop {
            let entry = self.entry(id)?;
            let Some((entry, owner)) = entry else { return Ok(Claim::Ended) };
            if matches!(entry.state, State::Done | State::Failed) {
                return Ok(Claim::Ended);
            }
            let other = owner.filter(|owner| owner != self.owner.name());
            if other.as_ref().is_some_and(|other| owner::is_alive(&self.path, other)) {
                return Ok(Claim::Elsewhere);
            }
            let taken = self.write("taking a row", |tx| {
                tx.execute(
                    "UPDATE campaign_row SET owner = ?1 WHERE id = ?2 AND (owner IS ?3 OR owner = ?1)",
                    params![self.owner.name(), id, other],
                )
            })?;
            if taken == 1 {
                // What it says now: another process may have been at it until a moment ago.
                if let Some((entry, _)) = self.entry(id)? {
                    let is_ended = matches!(entry.state, State::Done | State::Failed);
                    return Ok(if is_ended { Claim::Ended } else { Claim::Ours(Box::new(entry)) });
                }
            }
        }
    }

    /// Gives a row back that this process has taken. What was reserved for a job that wasn't asked
    /// for is free again.
    pub(super) fn release(&self, id: i64) -> Result<()> {
        let sql = "UPDATE campaign_row SET owner = NULL, reserved = CASE state WHEN 'new' THEN NULL ELSE reserved END
             WHERE id = ? AND owner = ?";
        self.write("giving a row back", |tx| tx.execute(sql, params![id, self.owner.name()])).map(drop)
    }

    /// Reserves money for a row that has no job yet: what was `estimated`, or else what the dearest
    /// has cost. Where nothing is known, one job runs alone, and tells.
    pub(super) fn reserve(&self, id: i64, limit: f64, estimated: Option<f64>) -> Result<Reserve> {
        let owners = self.write("reserving money", |tx| {
            let dear = dearest(tx, estimated)?;
            let of_others: f64 = tx.query_row(
                "SELECT coalesce(sum(max(reserved, coalesce(?2, 0))), 0) FROM campaign_row
                 WHERE reserved IS NOT NULL AND cost IS NULL AND state NOT IN ('done', 'failed') AND id <> ?1",
                params![id, dear],
                |row| row.get(0),
            )?;
            let mut at_work = tx.prepare(
                "SELECT DISTINCT owner FROM campaign_row
                 WHERE reserved IS NOT NULL AND cost IS NULL AND state NOT IN ('done', 'failed') AND id <> ?",
            )?;
            let owners: Vec<Option<String>> = at_work.query_map([id], |row| row.get(0))?.collect::<Outcome<_>>()?;
            let spent = spent(tx)?;
            let fits = match dear {
                Some(dear) => spent + of_others + dear <= limit,
                None => owners.is_empty() && spent < limit,
            };
            let untold = || {
                let sql = "SELECT count(*) FROM campaign_row WHERE state = 'done' AND cost IS NULL";
                tx.query_row(sql, [], |row| Ok(row.get::<_, i64>(0)? > 0))
            };
            if dear.is_none() && untold()? {
                return Ok(Err(Reserve::Untold));
            }
            if !fits {
                return Ok(Ok(owners));
            }
            let reserve = "UPDATE campaign_row SET reserved = ? WHERE id = ?";
            tx.execute(reserve, params![dear.unwrap_or(0.0), id])?;
            Ok(Err(Reserve::Granted))
        })?;
        let owners = match owners {
            Ok(owners) => owners,
            Err(reserve) => return Ok(reserve),
        };
        let is_alive = |owner: &Option<String>| {
            owner.as_ref().is_some_and(|owner| owner == self.owner.name() || owner::is_alive(&self.path, owner))
        };
        Ok(match owners.iter().any(is_alive) {
            true => Reserve::Later,
            false if owners.is_empty() => Reserve::Exceeded,
            false => Reserve::Orphans,
        })
    }

    /// A request to make the row's job is about to be sent.
    pub(super) fn intend(&self, id: i64, back_end: &str) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        self.set(
            "UPDATE campaign_row SET state = 'intended', back_end = ?, intended = ?, job = NULL, error = NULL WHERE id = ?",
            params![back_end, now, id],
        )
    }

    /// No job came of the intention, surely.
    pub(super) fn not_made(&self, id: i64) -> Result<()> {
        self.set("UPDATE campaign_row SET state = 'new', back_end = NULL, intended = NULL WHERE id = ?", params![id])
    }

    pub(super) fn made(&self, id: i64, back_end: &str, job: &str) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET state = 'made', back_end = ?, job = ?, intended = NULL WHERE id = ?",
            params![back_end, job, id],
        )
    }

    pub(super) fn finished(&self, id: i64, cost: Option<f64>) -> Result<()> {
        self.set("UPDATE campaign_row SET state = 'finished', cost = coalesce(?, cost) WHERE id = ?", params![cost, id])
    }

    pub(super) fn done(&self, id: i64, cost: Option<f64>, files: &[PathBuf]) -> Result<()> {
        let files: Vec<String> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
        // A job whose cost the back-end doesn't tell has cost what was reserved, as far as the limit goes.
        self.set(
            "UPDATE campaign_row SET state = 'done', cost = coalesce(?, cost, nullif(reserved, 0)), files = ?, error = NULL,
                owner = NULL WHERE id = ?",
            params![cost, Value::from(files).to_string(), id],
        )
    }

    /// The row's job has failed on the back-end; `again` if there is to be another attempt.
    pub(super) fn attempt_failed(&self, id: i64, cost: Option<f64>, error: &str, again: bool) -> Result<()> {
        if !again {
            return self.failed(id, cost, error);
        }
        self.write("noting a failed attempt", |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO campaign_attempt (row_id, attempt, back_end, job, cost, error)
                 SELECT id, attempt, back_end, job, coalesce(?, cost, nullif(reserved, 0)), ? FROM campaign_row WHERE id = ?",
                params![cost, error, id],
            )?;
            tx.execute(
                "UPDATE campaign_row SET state = 'new', attempt = attempt + 1, back_end = NULL, job = NULL, reserved = NULL,
                    cost = NULL, error = ? WHERE id = ?",
                params![error, id],
            )
        })
        .map(drop)
    }

    /// The row has failed for good.
    pub(super) fn failed(&self, id: i64, cost: Option<f64>, error: &str) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET state = 'failed', error = ?, owner = NULL,
                cost = CASE WHEN job IS NULL THEN NULL ELSE coalesce(?, cost, nullif(reserved, 0)) END, reserved = NULL
             WHERE id = ?",
            params![error, cost, id],
        )
    }

    /// What went wrong, of a row that goes on with the next run.
    pub(super) fn note(&self, id: i64, error: &str) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET error = ? WHERE id = ? AND state NOT IN ('done', 'failed')",
            params![error, id],
        )
    }

    /// The folder of a row's results: the one that it has, or `wanted`, or that with a number behind
    /// it if another row has it.
    pub(super) fn folder(&self, id: i64, wanted: &str) -> Result<String> {
        self.write("choosing a folder", |tx| {
            let own: Option<String> =
                tx.query_row("SELECT folder FROM campaign_row WHERE id = ?", [id], |row| row.get(0))?;
            if let Some(own) = own {
                return Ok(own);
            }
            let mut number = 1;
            loop {
                let name = if number == 1 { wanted.to_owned() } else { format!("{wanted}-{number}") };
                // Some file systems don't tell capitals from small letters.
                let taken: Option<i64> = tx
                    .query_row("SELECT 1 FROM campaign_row WHERE lower(folder) = lower(?)", [&name], |row| row.get(0))
                    .optional()?;
                if taken.is_none() {
                    tx.execute("UPDATE campaign_row SET folder = ? WHERE id = ?", params![name, id])?;
                    return Ok(name);
                }
                number += 1;
            }
        })
    }

    /// Every row, in the order in which they were added.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        self.read("reading rows", |db| {
            let mut statement = db.prepare(&format!("SELECT {COLUMNS} FROM campaign_row ORDER BY id"))?;
            statement.query_map([], |row| Ok(entry(row)?.0))?.collect()
        })
    }

    pub(super) fn totals(&self) -> Result<Totals> {
        self.read("adding up", |db| {
            let sql = "SELECT coalesce(sum(reserved), 0.0) FROM campaign_row
                 WHERE cost IS NULL AND state NOT IN ('done', 'failed')";
            Ok(Totals { spent: spent(db)?, reserved: db.query_row(sql, [], |row| row.get(0))? })
        })
    }

    /// How many rows stand how, and the sums.
    pub(super) fn counts(&self) -> Result<Counts> {
        let Totals { spent, reserved } = self.totals()?;
        self.read("counting rows", |db| {
            let mut counts = Counts { spent, reserved, ..Counts::default() };
            let mut statement = db.prepare_cached("SELECT state, count(*) FROM campaign_row GROUP BY state")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (state, count): (String, i64) = (row.get(0)?, row.get(1)?);
                let count = usize::try_from(count).unwrap_or(0);
                match state.as_str() {
                    "new" => counts.waiting += count,
                    "done" => counts.done += count,
                    "failed" => counts.failed += count,
                    _ => counts.at_work += count,
                }
            }
            Ok(counts)
        })
    }

    /// Rows whose jobs are to be stopped so that what was spent and what the others may still cost
    /// is no more than the limit. The oldest go on.
    pub(super) fn beyond(&self, limit: f64, estimated: Option<f64>) -> Result<Vec<i64>> {
        self.read("looking for jobs beyond the limit", |db| {
            let dear = dearest(db, estimated)?.unwrap_or(0.0);
            let mut sum = spent(db)?;
            let mut statement = db.prepare_cached(
                "SELECT id, state, reserved FROM campaign_row
                 WHERE cost IS NULL AND (reserved IS NOT NULL OR state = 'made') AND state NOT IN ('done', 'failed')
                 ORDER BY state = 'made', id",
            )?;
            let mut rows = statement.query([])?;
            let mut beyond = Vec::new();
            while let Some(row) = rows.next()? {
                let (id, state, reserved): (i64, String, Option<f64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let cost = reserved.unwrap_or(0.0).max(dear);
                if state == "made" && sum + cost > limit {
                    beyond.push(id);
                } else {
                    sum += cost;
                }
            }
            Ok(beyond)
        })
    }

    fn entry(&self, id: i64) -> Result<Option<(Entry, Option<String>)>> {
        self.read("reading a row", |db| {
            let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM campaign_row WHERE id = ?"))?;
            statement.query_row([id], entry).optional()
        })
    }

    fn set(&self, sql: &'static str, values: &[&dyn rusqlite::ToSql]) -> Result<()> {
        self.write("noting how far a row has come", |tx| tx.prepare_cached(sql)?.execute(values)).map(drop)
    }

    fn write<T>(&self, doing: &'static str, write: impl FnOnce(&Transaction<'_>) -> Outcome<T>) -> Result<T> {
        let mut db = self.db.lock();
        let outcome = db.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|tx| {
            let value = write(&tx)?;
            tx.commit()?;
            Ok(value)
        });
        outcome.map_err(|error| failed(&self.path, doing, error))
    }

    fn read<T>(&self, doing: &'static str, read: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T> {
        read(&self.db.lock()).map_err(|error| failed(&self.path, doing, error))
    }
}

type Outcome<T> = rusqlite::Result<T>;

const COLUMNS: &str = "params, state, attempt, back_end, intended, job, cost, folder, files, error, owner";

/// A row, and who is at work on it.
fn entry(row: &rusqlite::Row<'_>) -> Outcome<(Entry, Option<String>)> {
    let state: String = row.get("state")?;
    let unknown = || rusqlite::Error::InvalidColumnType(1, "state".to_owned(), rusqlite::types::Type::Text);
    let state = STATES.iter().find(|(_, name)| *name == state).ok_or_else(unknown)?.0;
    let json = |text: Option<String>| {
        let broken = |error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error));
        text.map_or(Ok(Value::Null), |text| serde_json::from_str(&text).map_err(broken))
    };
    let files = json(row.get("files")?)?;
    let intended: Option<i64> = row.get("intended")?;
    let since_epoch = |millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let entry = Entry {
        params: json(row.get("params")?)?,
        state,
        attempt: row.get("attempt")?,
        back_end: row.get("back_end")?,
        intended: intended.and_then(|millis| UNIX_EPOCH.checked_add(since_epoch(millis))),
        job: row.get("job")?,
        cost: row.get("cost")?,
        folder: row.get("folder")?,
        files: files.as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from).collect(),
        error: row.get("error")?,
    };
    Ok((entry, row.get("owner")?))
}

/// What a job may cost: what was estimated, or what the dearest has cost, if that is more.
fn dearest(db: &Connection, estimated: Option<f64>) -> Outcome<Option<f64>> {
    let known: Option<f64> = db.query_row(
        "SELECT max(cost) FROM (SELECT cost FROM campaign_row UNION ALL SELECT cost FROM campaign_attempt)",
        [],
        |row| row.get(0),
    )?;
    Ok(match (estimated, known) {
        (Some(estimated), Some(known)) => Some(estimated.max(known)),
        (estimated, known) => estimated.or(known),
    })
}

/// What all jobs have cost so far.
fn spent(db: &Connection) -> Outcome<f64> {
    db.query_row(
        "SELECT (SELECT coalesce(sum(cost), 0.0) FROM campaign_row)
              + (SELECT coalesce(sum(cost), 0.0) FROM campaign_attempt)",
        [],
        |row| row.get(0),
    )
}

fn failed(path: &Path, doing: &'static str, error: impl Into<BoxError>) -> CampaignError {
    CampaignError::Ledger { path: path.to_owned(), doing, source: error.into() }
}
