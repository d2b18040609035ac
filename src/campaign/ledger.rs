//! The campaign's memory: a database with a row for each job that is to be, and how far it has
//! come. What a call to a back-end could make or change is written before that call.
//!
//! ```text
//! new ──▶ intended ──▶ made ──▶ finished ──▶ done
//!  ▲         │ the reply was lost: the job list tells      finished: on the back-end
//!  │         ▼                                             done:     downloaded here
//!  └── a failed attempt, if another is allowed ──▶ failed
//! ```

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::error::CampaignError;
use super::sqlite::SqliteStore;
use super::store::{Cell, Outcome, Statements, Store};
use crate::sync::Mutex;

pub(super) const VERSION: i64 = 1;

pub(super) type Result<T> = std::result::Result<T, CampaignError>;

pub(super) struct Ledger {
    /// Its file, or the place of its database.
    path: PathBuf,
    /// What tells this campaign's jobs from all others on a back-end.
    name: String,
    store: Box<dyn Store>,
    /// The rows that runs of this ledger are at work on: the database knows only the process.
    held: Mutex<HashSet<i64>>,
}

/// A row that a run is at work on, until this is dropped: another run on the same [`Ledger`] leaves
/// it alone.
pub(super) struct Hold {
    ledger: Arc<Ledger>,
    id: i64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.ledger.held.lock().remove(&self.id);
    }
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
        let store = SqliteStore::open(&path).map_err(|error| failed(&path, "opening it", error))?;
        Ledger::with(path, Box::new(store))
    }

    #[cfg(feature = "postgres")]
    pub(super) fn connect(conninfo: &str, schema: &str) -> Result<Ledger> {
        let store = super::postgres::PostgresStore::open(conninfo, schema);
        let store = store.map_err(|error| failed(Path::new("PostgreSQL"), "opening it", error))?;
        let path = PathBuf::from(format!("{}, schema {schema}", store.place()));
        Ledger::with(path, Box::new(store))
    }

    fn with(path: PathBuf, store: Box<dyn Store>) -> Result<Ledger> {
        let mut ledger = Ledger { path, name: String::new(), store, held: Mutex::default() };
        let rows = ledger.read("opening it", |db| db.rows("SELECT version, name FROM campaign", &[]))?;
        let version = rows.first().and_then(|row| row.first()).and_then(Cell::int).unwrap_or(0);
        if version != VERSION {
            return Err(CampaignError::Invalid(format!(
                "the ledger {} has version {version}, and this program knows {VERSION}: use the version of fulmar that made it",
                ledger.path.display()
            )));
        }
        ledger.name = rows.first().and_then(|row| row.get(1)).and_then(Cell::text).unwrap_or_default();
        Ok(ledger)
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
            let sql = "INSERT INTO campaign_row (key, params) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            rows.iter().try_fold(0, |sum, (key, params)| {
                Ok(sum + tx.execute(sql, &[key.as_str().into(), params.as_str().into()])?)
            })
        })
    }

    /// Lets failed rows be tried again, and says how many there are.
    pub(super) fn retry_failed(&self) -> Result<usize> {
        self.write("letting rows be tried again", |tx| {
            tx.execute(
                "INSERT INTO campaign_attempt (row_id, attempt, back_end, job, cost, error)
                 SELECT id, attempt, back_end, job, cost, error FROM campaign_row WHERE state = 'failed'
                 ON CONFLICT (row_id, attempt) DO NOTHING",
                &[],
            )?;
            tx.execute(
                "UPDATE campaign_row SET state = 'new', attempt = attempt + 1, owner = NULL, back_end = NULL, job = NULL,
                    intended = NULL, reserved = NULL, cost = NULL
                 WHERE state = 'failed'",
                &[],
            )
        })
    }

    /// Rows that haven't ended: those with a job first, so that what is paid for is looked after.
    pub(super) fn open_rows(&self) -> Result<Vec<i64>> {
        self.read("listing rows", |db| {
            let sql = "SELECT id FROM campaign_row WHERE state NOT IN ('done', 'failed') ORDER BY state = 'new', id";
            Ok(db.rows(sql, &[])?.iter().filter_map(|row| row.first()?.int()).collect())
        })
    }

    /// Takes a row for a run of this process, unless another run has it.
    pub(super) fn hold(self: &Arc<Ledger>, id: i64) -> Option<Hold> {
        self.held.lock().insert(id).then(|| Hold { ledger: Arc::clone(self), id })
    }

    /// Takes a row that this run holds, unless another process is at work on it.
    pub(super) fn claim(&self, id: i64) -> Result<Claim> {
        let own = self.store.owner();
        loop {
            let entry = self.entry(id)?;
            let Some((entry, owner)) = entry else { return Ok(Claim::Ended) };
            if matches!(entry.state, State::Done | State::Failed) {
                return Ok(Claim::Ended);
            }
            let other = owner.filter(|owner| owner != own);
            if other.as_ref().is_some_and(|other| self.store.is_alive(other)) {
                return Ok(Claim::Elsewhere);
            }
            let taken = self.write("taking a row", |tx| {
                tx.execute(
                    "UPDATE campaign_row SET owner = $1
                     WHERE id = $2 AND (owner IS NOT DISTINCT FROM $3 OR owner = $1)",
                    &[own.into(), id.into(), other.clone().into()],
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
             WHERE id = $1 AND owner = $2";
        let values = [id.into(), self.store.owner().into()];
        self.write("giving a row back", |tx| tx.execute(sql, &values)).map(drop)
    }

    /// Reserves money for a row whose job isn't made, or was [set aside](Ledger::set_aside): what a
    /// job was `estimated` to cost, what the dearest has cost, or what the back-end has said of the
    /// row's `own` job, whichever is most. Where nothing is known, one job runs alone, and tells.
    pub(super) fn reserve(&self, id: i64, limit: f64, estimated: Option<f64>, own: Option<f64>) -> Result<Reserve> {
        let owners = self.write("reserving money", |tx| {
            let dear = dearest(tx, estimated)?;
            if let Some(dear) = dear {
                // Jobs whose run had no limit, or knew no cost, may cost as much as others.
                tx.execute(
                    "UPDATE campaign_row SET reserved = $1
                     WHERE reserved IS NULL AND cost IS NULL AND state IN ('intended', 'made', 'finished')",
                    &[dear.into()],
                )?;
            }
            let (of_others, owners) = others_at_work(tx, id, dear)?;
            let (spent, cost) = (spent(tx)?, dearer(dear, own));
            let fits = match cost {
                // Without `dear` it isn't known what the others may cost.
                Some(cost) => spent + of_others + cost <= limit && (dear.is_some() || owners.is_empty()),
                None => owners.is_empty() && spent < limit,
            };
            if dear.is_none() {
                let sql = "SELECT count(*) FROM campaign_row WHERE state = 'done' AND cost IS NULL";
                if tx.one(sql, &[])?.and_then(|count| count.int()).unwrap_or(0) > 0 {
                    return Ok(Err(Reserve::Untold));
                }
            }
            if !fits {
                return Ok(Ok(owners));
            }
            let reserve = "UPDATE campaign_row SET reserved = $1, cost = NULL WHERE id = $2";
            tx.execute(reserve, &[cost.unwrap_or(0.0).into(), id.into()])?;
            Ok(Err(Reserve::Granted))
        })?;
        let owners = match owners {
            Ok(owners) => owners,
            Err(reserve) => return Ok(reserve),
        };
        let own = self.store.owner();
        let is_alive =
            |owner: &Option<String>| owner.as_ref().is_some_and(|owner| owner == own || self.store.is_alive(owner));
        Ok(match owners.iter().any(is_alive) {
            true => Reserve::Later,
            false if owners.is_empty() => Reserve::Exceeded,
            false => Reserve::Orphans,
        })
    }

    /// Whether the row's job, which is made and not started, may cost that much. If so, that much
    /// is reserved for it from now on.
    pub(super) fn may_cost(&self, id: i64, cost: f64, limit: f64, estimated: Option<f64>) -> Result<bool> {
        self.write("reserving more money", |tx| {
            let own = self.store.owner();
            let sql = "SELECT reserved FROM campaign_row WHERE id = $1 AND owner = $2";
            let reserved = tx.one(sql, &[id.into(), own.into()])?;
            if reserved.and_then(|reserved| reserved.real()).is_some_and(|reserved| cost <= reserved) {
                return Ok(true);
            }
            let dear = dearest(tx, estimated)?;
            let (of_others, _) = others_at_work(tx, id, dear)?;
            if spent(tx)? + of_others + cost > limit {
                return Ok(false);
            }
            let reserve = "UPDATE campaign_row SET reserved = $1 WHERE id = $2 AND owner = $3";
            // Not if another process has taken the row over.
            Ok(tx.execute(reserve, &[cost.into(), id.into(), own.into()])? == 1)
        })
    }

    /// The row's job, which isn't started, is about to be deleted. If this process dies on the way,
    /// the next one looks whether the job is still there.
    pub(super) fn will_delete(&self, id: i64) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET state = 'intended', job = NULL, intended = $1 WHERE id = $2 AND owner = $3",
            &[now().into(), id.into(), self.store.owner().into()],
        )
    }

    /// The row's job was deleted before it was started, and has cost nothing.
    pub(super) fn unmade(&self, id: i64) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET state = 'new', back_end = NULL, job = NULL, intended = NULL, reserved = NULL
             WHERE id = $1 AND owner = $2",
            &[id.into(), self.store.owner().into()],
        )
    }

    /// A request to make the row's job is about to be sent.
    pub(super) fn intend(&self, id: i64, back_end: &str) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET state = 'intended', back_end = $1, intended = $2, job = NULL, error = NULL
             WHERE id = $3 AND owner = $4",
            &[back_end.into(), now().into(), id.into(), self.store.owner().into()],
        )
    }

    /// No job came of the intention, surely.
    pub(super) fn not_made(&self, id: i64) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET state = 'new', back_end = NULL, intended = NULL WHERE id = $1 AND owner = $2",
            &[id.into(), self.store.owner().into()],
        )
    }

    pub(super) fn made(&self, id: i64, back_end: &str, job: &str) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET state = 'made', back_end = $1, job = $2, intended = NULL WHERE id = $3 AND owner = $4",
            &[back_end.into(), job.into(), id.into(), self.store.owner().into()],
        )
    }

    /// The row's job is made and surely not started, because the service refused to start it. What
    /// was reserved for it is free for others: the cost of 0 says that it isn't at work.
    pub(super) fn set_aside(&self, id: i64) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET reserved = NULL, cost = 0 WHERE id = $1 AND owner = $2 AND state = 'made'",
            &[id.into(), self.store.owner().into()],
        )
    }

    /// A job that was set aside is about to be started: it counts among those at work again.
    pub(super) fn take_up(&self, id: i64) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET cost = NULL WHERE id = $1 AND owner = $2",
            &[id.into(), self.store.owner().into()],
        )
    }

    pub(super) fn finished(&self, id: i64, cost: Option<f64>) -> Result<()> {
        self.set(
            "UPDATE campaign_row SET state = 'finished', cost = coalesce($1, cost) WHERE id = $2 AND owner = $3",
            &[cost.into(), id.into(), self.store.owner().into()],
        )
    }

    pub(super) fn done(&self, id: i64, cost: Option<f64>, files: &[PathBuf]) -> Result<()> {
        let files: Vec<String> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
        // A job whose cost the back-end doesn't tell has cost what was reserved, as far as the
        // limit goes.
        self.end(
            id,
            "UPDATE campaign_row SET state = 'done', cost = coalesce($1, cost, nullif(reserved, 0)), files = $2,
                error = NULL, owner = NULL WHERE id = $3 AND owner = $4",
            &[cost.into(), Value::from(files).to_string().into(), id.into(), self.store.owner().into()],
        )
    }

    /// The row's job has failed on the back-end, at that attempt; `again` if there is to be
    /// another.
    pub(super) fn attempt_failed(
        &self,
        id: i64,
        attempt: u32,
        cost: Option<f64>,
        error: &str,
        again: bool,
    ) -> Result<()> {
        if !again {
            return self.failed(id, cost, error);
        }
        let own = self.store.owner();
        let count = self.write("noting a failed attempt", |tx| {
            // The database's reply to an earlier call may have been lost.
            let noted = "SELECT 1 FROM campaign_attempt WHERE row_id = $1 AND attempt = $2";
            if tx.one(noted, &[id.into(), i64::from(attempt).into()])?.is_some() {
                return Ok(1);
            }
            tx.execute(
                "INSERT INTO campaign_attempt (row_id, attempt, back_end, job, cost, error)
                 SELECT id, attempt, back_end, job, coalesce($1, cost, nullif(reserved, 0)), $2 FROM campaign_row
                 WHERE id = $3 AND owner = $4
                 ON CONFLICT (row_id, attempt) DO NOTHING",
                &[cost.into(), error.into(), id.into(), own.into()],
            )?;
            tx.execute(
                "UPDATE campaign_row SET state = 'new', attempt = attempt + 1, back_end = NULL, job = NULL, reserved = NULL,
                    cost = NULL, error = $1 WHERE id = $2 AND owner = $3",
                &[error.into(), id.into(), own.into()],
            )
        })?;
        self.expect_one(count)
    }

    /// The row has failed for good.
    pub(super) fn failed(&self, id: i64, cost: Option<f64>, error: &str) -> Result<()> {
        self.end(
            id,
            "UPDATE campaign_row SET state = 'failed', error = $1, owner = NULL,
                cost = CASE WHEN job IS NULL THEN NULL ELSE coalesce($2, cost, nullif(reserved, 0)) END, reserved = NULL
             WHERE id = $3 AND owner = $4",
            &[error.into(), cost.into(), id.into(), self.store.owner().into()],
        )
    }

    /// What went wrong, of a row that goes on with the next run.
    pub(super) fn note(&self, id: i64, error: &str) -> Result<()> {
        let sql = "UPDATE campaign_row SET error = $1 WHERE id = $2 AND state NOT IN ('done', 'failed')";
        self.write("noting what went wrong", |tx| tx.execute(sql, &[error.into(), id.into()])).map(drop)
    }

    /// The folder of a row's results: the one that it has, or `wanted`, or `wanted` with a number
    /// behind it if another row has that. The row keeps it from then on.
    pub(super) fn folder(&self, id: i64, wanted: &str) -> Result<String> {
        self.write("choosing a folder", |tx| {
            let own = tx.one("SELECT folder FROM campaign_row WHERE id = $1", &[id.into()])?;
            if let Some(own) = own.and_then(|own| own.text()) {
                return Ok(own);
            }
            let mut number = 1;
            loop {
                let name = if number == 1 { wanted.to_owned() } else { format!("{wanted}-{number}") };
                // Some file systems don't tell capitals from small letters.
                let sql = "SELECT 1 FROM campaign_row WHERE lower(folder) = lower($1)";
                if tx.one(sql, &[name.as_str().into()])?.is_none() {
                    tx.execute(
                        "UPDATE campaign_row SET folder = $1 WHERE id = $2",
                        &[name.as_str().into(), id.into()],
                    )?;
                    return Ok(name);
                }
                number += 1;
            }
        })
    }

    /// Every row, in the order in which they were added.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        self.read("reading rows", |db| {
            let rows = db.rows(&format!("SELECT {COLUMNS} FROM campaign_row ORDER BY id"), &[])?;
            rows.iter().map(|row| Ok(entry(row)?.0)).collect()
        })
    }

    pub(super) fn totals(&self) -> Result<Totals> {
        self.read("adding up", |db| {
            let sql = "SELECT sum(reserved) FROM campaign_row WHERE cost IS NULL AND state NOT IN ('done', 'failed')";
            let reserved = db.one(sql, &[])?.and_then(|sum| sum.real()).unwrap_or(0.0);
            Ok(Totals { spent: spent(db)?, reserved })
        })
    }

    /// How many rows stand how, and the sums.
    pub(super) fn counts(&self) -> Result<Counts> {
        let Totals { spent, reserved } = self.totals()?;
        self.read("counting rows", |db| {
            let mut counts = Counts { spent, reserved, ..Counts::default() };
            for row in db.rows("SELECT state, count(*) FROM campaign_row GROUP BY state", &[])? {
                let count = row.get(1).and_then(Cell::int).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
                match row.first().and_then(Cell::text).unwrap_or_default().as_str() {
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
            let rows = db.rows(
                "SELECT id, state, reserved FROM campaign_row
                 WHERE cost IS NULL AND (reserved IS NOT NULL OR state = 'made') AND state NOT IN ('done', 'failed')
                 ORDER BY state = 'made', id",
                &[],
            )?;
            let mut beyond = Vec::new();
            for row in rows {
                let [id, state, reserved] = row.as_slice() else { continue };
                let cost = reserved.real().unwrap_or(0.0).max(dear);
                match id.int() {
                    Some(id) if state.text().as_deref() == Some("made") && sum + cost > limit => beyond.push(id),
                    _ => sum += cost,
                }
            }
            Ok(beyond)
        })
    }

    fn entry(&self, id: i64) -> Result<Option<(Entry, Option<String>)>> {
        self.read("reading a row", |db| {
            let rows = db.rows(&format!("SELECT {COLUMNS} FROM campaign_row WHERE id = $1"), &[id.into()])?;
            rows.first().map(|row| entry(row)).transpose()
        })
    }

    /// Jobs that have ended and whose cost no back-end has told have cost what a job may cost, as
    /// far as that is known by now: their runs had no limit, or no estimate.
    pub(super) fn count_untold(&self, estimated: Option<f64>) -> Result<()> {
        self.write("adding up jobs of unknown cost", |tx| {
            let Some(dear) = dearest(tx, estimated)? else { return Ok(()) };
            tx.execute(
                "UPDATE campaign_row SET cost = $1
                 WHERE cost IS NULL AND (state = 'done' OR state = 'failed' AND job IS NOT NULL)",
                &[dear.into()],
            )?;
            let attempts = "UPDATE campaign_attempt SET cost = $1 WHERE cost IS NULL AND job IS NOT NULL";
            tx.execute(attempts, &[dear.into()]).map(drop)
        })
    }

    /// Ends the row, which must be this process's or have ended: the database's reply to an earlier
    /// call may have been lost.
    fn end(&self, id: i64, sql: &'static str, values: &[Cell]) -> Result<()> {
        let count = self.write("noting that a row has ended", |tx| {
            let count = tx.execute(sql, values)?;
            let ended = "SELECT 1 FROM campaign_row WHERE id = $1 AND state IN ('done', 'failed')";
            Ok(if count == 0 && tx.one(ended, &[id.into()])?.is_some() { 1 } else { count })
        })?;
        self.expect_one(count)
    }

    /// Changes the row, which must be this process's.
    fn set(&self, sql: &'static str, values: &[Cell]) -> Result<()> {
        let count = self.write("noting how far a row has come", |tx| tx.execute(sql, values))?;
        self.expect_one(count)
    }

    /// Fails if an update changed no row: then another process has the row.
    fn expect_one(&self, count: usize) -> Result<()> {
        if count == 1 {
            return Ok(());
        }
        let text = "another process has taken the row over: this one was thought to have ended";
        Err(failed(&self.path, "noting how far a row has come", text))
    }

    fn write<T>(&self, doing: &'static str, mut work: impl FnMut(&mut dyn Statements) -> Outcome<T>) -> Result<T> {
        let mut value = None;
        let outcome = self.store.write(&mut |tx| {
            value = Some(work(tx)?);
            Ok(())
        });
        self.told(doing, outcome, value)
    }

    fn read<T>(&self, doing: &'static str, mut work: impl FnMut(&mut dyn Statements) -> Outcome<T>) -> Result<T> {
        let mut value = None;
        let outcome = self.store.read(&mut |tx| {
            value = Some(work(tx)?);
            Ok(())
        });
        self.told(doing, outcome, value)
    }

    fn told<T>(&self, doing: &'static str, outcome: Outcome<()>, value: Option<T>) -> Result<T> {
        outcome
            .and_then(|()| value.ok_or_else(|| "the database ran no statement".into()))
            .map_err(|error| failed(&self.path, doing, error))
    }
}

const COLUMNS: &str = "params, state, attempt, back_end, intended, job, cost, folder, files, error, owner";

/// A row, and who is at work on it.
fn entry(row: &[Cell]) -> Outcome<(Entry, Option<String>)> {
    let [params, state, attempt, back_end, intended, job, cost, folder, files, error, owner] = row else {
        return Err(
            "a row of the ledger has other columns than this program reads: use the fulmar that wrote it".into()
        );
    };
    let name = state.text().unwrap_or_default();
    let state = STATES.iter().find(|(_, known)| *known == name);
    let state = state.ok_or_else(|| format!("a row has the state {name:?}, which this program doesn't know"))?.0;
    let json = |cell: &Cell| cell.text().map_or(Ok(Value::Null), |text| serde_json::from_str(&text));
    let files: Value = json(files)?;
    let since_epoch = |millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let entry = Entry {
        params: json(params)?,
        state,
        attempt: attempt.int().and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(1),
        back_end: back_end.text(),
        intended: intended.int().and_then(|millis| UNIX_EPOCH.checked_add(since_epoch(millis))),
        job: job.text(),
        cost: cost.real(),
        folder: folder.text(),
        files: files.as_array().into_iter().flatten().filter_map(Value::as_str).map(PathBuf::from).collect(),
        error: error.text(),
    };
    Ok((entry, owner.text()))
}

/// What a job may cost: what was estimated, or what the dearest has cost, if that is more. A job
/// that cost nothing because it was never started tells nothing.
fn dearest(db: &mut dyn Statements, estimated: Option<f64>) -> Outcome<Option<f64>> {
    let sql = "SELECT max(cost) FROM (
            SELECT cost FROM campaign_row WHERE cost > 0 OR state IN ('finished', 'done')
            UNION ALL SELECT cost FROM campaign_attempt WHERE cost > 0
        ) AS all_jobs";
    let known = db.one(sql, &[])?.and_then(|cost| cost.real());
    Ok(dearer(estimated, known))
}

/// Milliseconds since 1970, by this machine's clock.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The higher of two costs, as far as they are known.
fn dearer(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

/// What the jobs of other rows may still cost together, if one of which nothing is known costs as
/// much as the dearest, and the processes that look after them.
fn others_at_work(db: &mut dyn Statements, id: i64, dear: Option<f64>) -> Outcome<(f64, Vec<Option<String>>)> {
    let at_work = db.rows(
        "SELECT reserved, owner FROM campaign_row
         WHERE (reserved IS NOT NULL OR state <> 'new') AND cost IS NULL AND state NOT IN ('done', 'failed')
            AND id <> $1",
        &[id.into()],
    )?;
    let mut of_others = 0.0;
    let mut owners: Vec<Option<String>> = Vec::new();
    for row in &at_work {
        of_others += row.first().and_then(Cell::real).unwrap_or(0.0).max(dear.unwrap_or(0.0));
        let owner = row.get(1).and_then(Cell::text);
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    Ok((of_others, owners))
}

/// What all jobs have cost so far.
fn spent(db: &mut dyn Statements) -> Outcome<f64> {
    let sql =
        "SELECT sum(cost) FROM (SELECT cost FROM campaign_row UNION ALL SELECT cost FROM campaign_attempt) AS all_jobs";
    Ok(db.one(sql, &[])?.and_then(|sum| sum.real()).unwrap_or(0.0))
}

fn failed(path: &Path, doing: &'static str, error: impl Into<crate::error::BoxError>) -> CampaignError {
    CampaignError::Ledger { path: path.to_owned(), doing, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_came_to_may_be_written_again_because_a_reply_was_lost() {
        let folder = std::env::temp_dir().join(format!("fulmar-ledger-again-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let ledger = Ledger::open(&folder.join("c.db")).expect("a ledger");
        let rows = ["a", "b"].map(|key| (key.to_owned(), "{}".to_owned()));
        ledger.add(&rows).expect("added");
        for id in [1, 2] {
            assert!(matches!(ledger.claim(id).expect("read"), Claim::Ours(_)));
            ledger.intend(id, "one").expect("its own");
            for _ in 0..2 {
                ledger.made(id, "one", "j").expect("written");
            }
        }
        for _ in 0..2 {
            ledger.attempt_failed(1, 1, Some(3.0), "no", true).expect("written");
        }
        for _ in 0..2 {
            ledger.done(2, Some(4.0), &[]).expect("written");
        }
        let entries = ledger.entries().expect("read");
        assert_eq!((entries[0].state, entries[0].attempt), (State::New, 2));
        assert_eq!((entries[1].state, ledger.totals().expect("read").spent), (State::Done, 7.0));
        ledger.intend(1, "one").expect("its own");
        for _ in 0..2 {
            ledger.failed(1, None, "no").expect("written");
        }
        assert_eq!(ledger.entries().expect("read")[0].state, State::Failed);
        drop(ledger);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn jobs_at_work_count_for_a_limit_that_their_run_did_not_have() {
        for (estimate, granted) in [(None, 0), (Some(4.0), 1)] {
            let folder = std::env::temp_dir().join(format!("fulmar-ledger-limit-{granted}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder");
            let ledger = Ledger::open(&folder.join("c.db")).expect("a ledger");
            let rows = ["a", "b", "c", "d"].map(|key| (key.to_owned(), "{}".to_owned()));
            ledger.add(&rows).expect("added");
            for id in 1..=4 {
                assert!(matches!(ledger.claim(id).expect("read"), Claim::Ours(_)));
            }
            // Of a run without a limit: one may be made, and one is.
            ledger.intend(1, "one").expect("its own");
            ledger.intend(2, "one").expect("its own");
            ledger.made(2, "one", "j").expect("its own");
            // Of one with a limit of three jobs.
            let reserved = [3, 4].map(|id| ledger.reserve(id, 13.0, estimate, None).expect("read"));
            let count = reserved.iter().filter(|outcome| **outcome == Reserve::Granted).count();
            assert_eq!(count, granted, "{estimate:?}: {reserved:?}");
            assert!(reserved.contains(&Reserve::Later), "{estimate:?}: {reserved:?}");
            // A job whose cost no back-end tells has cost what is reserved for it.
            ledger.done(2, None, &[]).expect("its own");
            assert_eq!(ledger.totals().expect("read").spent, estimate.unwrap_or(0.0), "{estimate:?}");
            drop(ledger);
            std::fs::remove_dir_all(&folder).expect("removed");
        }
    }

    #[test]
    fn a_process_whose_row_was_taken_over_writes_nothing_more_about_it() {
        let folder = std::env::temp_dir().join(format!("fulmar-ledger-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let ledger = Ledger::open(&folder.join("c.db")).expect("a ledger");
        ledger.add(&[("key".to_owned(), "{}".to_owned())]).expect("added");
        assert!(matches!(ledger.claim(1).expect("read"), Claim::Ours(_)));
        ledger.intend(1, "one").expect("its own");
        let taken = ledger.write("taking it over", |tx| tx.execute("UPDATE campaign_row SET owner = 'other'", &[]));
        assert_eq!(taken.expect("written"), 1);
        for outcome in
            [ledger.intend(1, "two"), ledger.made(1, "two", "j"), ledger.attempt_failed(1, 1, None, "no", true)]
        {
            let error = outcome.expect_err("another's");
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(source.contains("taken the row over"), "{error}: {source}");
        }
        let entry = ledger.entries().expect("read").remove(0);
        assert_eq!((entry.state, entry.attempt, entry.back_end.as_deref()), (State::Intended, 1, Some("one")));
        drop(ledger);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
