//! `PriceStore`: a small store of price series, versioned, in one SQLite file.
//!
//! Ordinary blocking code that can be called from several threads at once: reads go side by side,
//! each on a connection of its own, and writes take turns on one connection. A write never changes
//! a series: it adds a version, and older ones can still be read.
//!
//! The store keeps no order between callers, as no database does: whether a read sees a write
//! that was sent just before it is left to fulmar.
//!
//! To stand for a database far away, every operation first waits for [`PriceStore::set_latency`].

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fulmar::{BoxError, Store};
use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde_json::{Map, Value, json};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS versions (
        id      INTEGER PRIMARY KEY,
        symbol  TEXT    NOT NULL,
        version INTEGER NOT NULL,
        UNIQUE (symbol, version)
    );
    CREATE TABLE IF NOT EXISTS points (
        series  INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
        time    INTEGER NOT NULL,
        price   REAL    NOT NULL,
        volume  INTEGER,
        PRIMARY KEY (series, time)
    ) WITHOUT ROWID;";

const OPERATIONS: &str = "delete, has_symbol, list_symbols, read, read_metadata, write";

/// What can go wrong in the store. A caller of fulmar gets it back whole, inside `Error::Operation`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store has no symbol `{0}`")]
    UnknownSymbol(String),
    #[error("symbol `{symbol}` has no version {version}")]
    UnknownVersion { symbol: String, version: u32 },
    #[error("the store has no operation `{0}`; it has {OPERATIONS}")]
    UnknownOperation(String),
    #[error("operation `{operation}`: {reason}")]
    BadArguments { operation: String, reason: String },
    #[error("{path}: {action} failed", path = path.display())]
    Database { action: &'static str, path: PathBuf, source: rusqlite::Error },
}

/// A versioned store of price series. See the head of this file.
pub(crate) struct PriceStore {
    path: PathBuf,
    latency_micros: AtomicU64,
    /// SQLite has one writer at a time. A lock here is fairer than its busy handler, which sleeps and tries again.
    writer: Mutex<Connection>,
    /// Connections that no read uses at the moment. Grows to the number of reads that ran at once.
    readers: Mutex<Vec<Connection>>,
}

impl PriceStore {
    /// Opens the store in the file `path`, which is made if need be. Its latency is zero.
    pub(crate) fn open(path: impl Into<PathBuf>) -> Result<PriceStore, StoreError> {
        let path = path.into();
        let writer = connect(&path)?;
        writer
            // A write-ahead log, so that readers never wait for the writer.
            .pragma_update(None, "journal_mode", "WAL")
            .and_then(|()| writer.execute_batch(SCHEMA))
            .map_err(|source| StoreError::Database { action: "preparing the tables", path: path.clone(), source })?;
        Ok(PriceStore {
            path,
            latency_micros: AtomicU64::new(0),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
        })
    }

    /// From now on every operation first waits this long, the way to a far database and back.
    pub(crate) fn set_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.store(micros, Ordering::Relaxed); // a lone number, nothing is read after it
    }

    /// Writes `series` as the next version of `symbol`, and returns its number. The first one is 1.
    pub(crate) fn write(&self, (symbol, series): (impl AsRef<str>, Series)) -> Result<u32, StoreError> {
        self.travel();
        let symbol = symbol.as_ref();
        let mut writer = lock(&self.writer);
        let mut write = || {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version = transaction
                .prepare_cached("SELECT coalesce(max(version), 0) + 1 FROM versions WHERE symbol = ?1")?
                .query_row([symbol], |row| row.get::<_, u32>(0))?;
            transaction
                .prepare_cached("INSERT INTO versions (symbol, version) VALUES (?1, ?2)")?
                .execute(params![symbol, version])?;
            let id = transaction.last_insert_rowid();
            {
                let mut insert = transaction
                    .prepare_cached("INSERT INTO points (series, time, price, volume) VALUES (?1, ?2, ?3, ?4)")?;
                for point in series.points() {
                    insert.execute(params![id, point.time, point.price, point.volume])?;
                }
            }
            transaction.commit()?;
            Ok(version)
        };
        write().map_err(|source| self.database("a write", source))
    }

    /// Reads the latest version of `symbol`.
    pub(crate) fn read(&self, symbol: impl AsRef<str>) -> Result<Versioned, StoreError> {
        self.fetch(symbol.as_ref(), None, ALWAYS)
    }

    /// Reads one version of `symbol`.
    pub(crate) fn read_version(&self, (symbol, version): (impl AsRef<str>, u32)) -> Result<Versioned, StoreError> {
        self.fetch(symbol.as_ref(), Some(version), ALWAYS)
    }

    /// Reads what the latest version of `symbol` has between two times, both included.
    pub(crate) fn read_between(
        &self,
        (symbol, times): (impl AsRef<str>, RangeInclusive<Time>),
    ) -> Result<Versioned, StoreError> {
        self.fetch(symbol.as_ref(), None, times)
    }

    /// Tells about the latest version of `symbol` without reading its prices.
    pub(crate) fn read_metadata(&self, symbol: impl AsRef<str>) -> Result<Metadata, StoreError> {
        self.travel();
        let symbol = symbol.as_ref();
        self.with_reader("reading metadata", |reader| {
            reader
                .prepare_cached(
                    "SELECT version, count(time), min(time), max(time)
                     FROM versions LEFT JOIN points ON series = id
                     WHERE symbol = ?1 GROUP BY id ORDER BY version DESC LIMIT 1",
                )?
                .query_row([symbol], |row| {
                    Ok(Metadata { version: row.get(0)?, rows: row.get(1)?, first: row.get(2)?, last: row.get(3)? })
                })
                .optional()
        })?
        .ok_or_else(|| StoreError::UnknownSymbol(symbol.to_owned()))
    }

    /// All symbols, sorted.
    pub(crate) fn list_symbols(&self, (): ()) -> Result<Vec<String>, StoreError> {
        self.travel();
        self.with_reader("listing the symbols", |reader| {
            reader
                .prepare_cached("SELECT DISTINCT symbol FROM versions ORDER BY symbol")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }

    /// Whether there is a version of `symbol`.
    pub(crate) fn has_symbol(&self, symbol: impl AsRef<str>) -> Result<bool, StoreError> {
        self.travel();
        self.with_reader("looking for a symbol", |reader| {
            reader
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM versions WHERE symbol = ?1)")?
                .query_row([symbol.as_ref()], |row| row.get(0))
        })
    }

    /// Deletes all versions of `symbol`, and returns how many there were.
    pub(crate) fn delete(&self, symbol: impl AsRef<str>) -> Result<usize, StoreError> {
        self.travel();
        lock(&self.writer)
            .execute("DELETE FROM versions WHERE symbol = ?1", [symbol.as_ref()])
            .map_err(|source| self.database("a delete", source))
    }

    /// The one sleep of this example: the way to a database far away.
    fn travel(&self) {
        let micros = self.latency_micros.load(Ordering::Relaxed);
        if micros > 0 {
            thread::sleep(Duration::from_micros(micros));
        }
    }

    fn fetch(&self, symbol: &str, version: Option<u32>, times: RangeInclusive<Time>) -> Result<Versioned, StoreError> {
        self.travel();
        let found = self.with_reader("a read", |reader| {
            // Both queries see one state of the file, whatever is written or deleted meanwhile.
            let snapshot = reader.unchecked_transaction()?;
            let found = snapshot
                .prepare_cached(
                    "SELECT id, version FROM versions
                     WHERE symbol = ?1 AND (?2 IS NULL OR version = ?2)
                     ORDER BY version DESC LIMIT 1",
                )?
                .query_row(params![symbol, version], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
                .optional()?;
            let Some((id, version)) = found else {
                return Ok(None);
            };
            let mut points = snapshot
                .prepare_cached(
                    "SELECT time, price, volume FROM points
                     WHERE series = ?1 AND time BETWEEN ?2 AND ?3 ORDER BY time",
                )?
                .query_map(params![id, times.start(), times.end()], Point::from_row)?
                .collect::<Result<Vec<_>, _>>()?;
            points.shrink_to_fit();
            Ok(Some(Versioned { symbol: symbol.to_owned(), version, series: Series { points } }))
        })?;
        found.ok_or_else(|| match version {
            Some(version) => StoreError::UnknownVersion { symbol: symbol.to_owned(), version },
            None => StoreError::UnknownSymbol(symbol.to_owned()),
        })
    }

    fn with_reader<T>(
        &self,
        action: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // Taken out of the list, not borrowed from it: the lock must not be held during the query.
        let idle = lock(&self.readers).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => connect(&self.path)?,
        };
        let answer = query(&reader).map_err(|source| self.database(action, source));
        lock(&self.readers).push(reader);
        answer
    }

    fn database(&self, action: &'static str, source: rusqlite::Error) -> StoreError {
        StoreError::Database { action, path: self.path.clone(), source }
    }
}

/// The same operations by name, with JSON for arguments and results:
/// `async_submit(&store, "read", false, json!({"symbol": "AAPL"}))`.
impl Store for PriceStore {
    fn name(&self) -> &str {
        "prices"
    }

    fn call(&self, operation: &str, args: Value) -> Result<Value, BoxError> {
        let mut args = Arguments::new(operation, args)?;
        let answer = match operation {
            "delete" => json!({ "versions": self.delete(args.only_symbol()?)? }),
            "has_symbol" => json!(self.has_symbol(args.only_symbol()?)?),
            "list_symbols" => {
                args.no_more()?;
                json!(self.list_symbols(())?)
            }
            "read" => {
                let symbol = args.symbol()?;
                let version = args
                    .optional("version", "a version number such as 1", |value| u32::try_from(value.as_u64()?).ok())?;
                let from = args.optional("from", DATE, json_to_time)?;
                let to = args.optional("to", DATE, json_to_time)?;
                args.no_more()?;
                let times = from.unwrap_or(*ALWAYS.start())..=to.unwrap_or(*ALWAYS.end());
                self.fetch(&symbol, version, times)?.to_json()
            }
            "read_metadata" => self.read_metadata(args.only_symbol()?)?.to_json(),
            "write" => {
                let symbol = args.symbol()?;
                let points = args.optional("points", POINTS, json_to_points)?;
                let points = points.ok_or_else(|| args.missing("points", POINTS))?;
                args.no_more()?;
                json!({ "version": self.write((symbol, Series::new(points)))? })
            }
            unknown => return Err(StoreError::UnknownOperation(unknown.to_owned()).into()),
        };
        Ok(answer)
    }
}

const DATE: &str = "a date such as \"2000-01-31\"";
const POINTS: &str = "a list such as [[\"2000-01-31\", 25.94]]";

/// The JSON arguments of one call. Each is taken out once, so that what's left at the end is a mistake of the caller.
struct Arguments {
    operation: String,
    fields: Map<String, Value>,
}

impl Arguments {
    fn new(operation: &str, args: Value) -> Result<Arguments, StoreError> {
        let operation = operation.to_owned();
        match args {
            Value::Object(fields) => Ok(Arguments { operation, fields }),
            other => Err(StoreError::BadArguments {
                operation,
                reason: format!("the arguments must be a JSON object, not {other}"),
            }),
        }
    }

    fn bad(&self, reason: String) -> StoreError {
        StoreError::BadArguments { operation: self.operation.clone(), reason }
    }

    fn missing(&self, name: &str, wanted: &str) -> StoreError {
        self.bad(format!("`{name}` is missing; it must be {wanted}"))
    }

    fn optional<T>(
        &mut self,
        name: &str,
        wanted: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let Some(value) = self.fields.remove(name) else {
            return Ok(None);
        };
        match convert(&value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(self.bad(format!("`{name}` must be {wanted}, not {value}"))),
        }
    }

    fn symbol(&mut self) -> Result<String, StoreError> {
        let wanted = "a string such as \"AAPL\"";
        self.optional("symbol", wanted, |value| value.as_str().map(str::to_owned))?
            .ok_or_else(|| self.missing("symbol", wanted))
    }

    fn only_symbol(mut self) -> Result<String, StoreError> {
        let symbol = self.symbol()?;
        self.no_more()?;
        Ok(symbol)
    }

    fn no_more(&self) -> Result<(), StoreError> {
        match self.fields.keys().next() {
            Some(name) => Err(self.bad(format!("it takes no argument `{name}`"))),
            None => Ok(()),
        }
    }
}

fn json_to_time(value: &Value) -> Option<Time> {
    value.as_str()?.parse().ok()
}

fn json_to_points(value: &Value) -> Option<Vec<Point>> {
    let point = |row: &Value| match row.as_array()?.as_slice() {
        [time, price] => Some(Point { time: json_to_time(time)?, price: price.as_f64()?, volume: None }),
        _ => None,
    };
    value.as_array()?.iter().map(point).collect()
}

/// What a read gives: the series, and which version of which symbol it is.
#[derive(Debug)]
pub(crate) struct Versioned {
    pub(crate) symbol: String,
    pub(crate) version: u32,
    pub(crate) series: Series,
}

impl Versioned {
    fn to_json(&self) -> Value {
        let points = self.series.points().iter();
        let points: Vec<_> = points.map(|point| json!([point.time.to_string(), point.price])).collect();
        json!({ "symbol": self.symbol, "version": self.version, "points": points })
    }
}

/// What the store knows of a series without reading it. An empty one has no first and no last time.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) version: u32,
    pub(crate) rows: usize,
    pub(crate) first: Option<Time>,
    pub(crate) last: Option<Time>,
}

impl Metadata {
    fn to_json(&self) -> Value {
        let text = |time: Option<Time>| time.map(|time| time.to_string());
        json!({
            "version": self.version, "rows": self.rows,
            "first": text(self.first), "last": text(self.last),
        })
    }
}

/// Prices in order of time. The store refuses a series with two prices at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series {
    points: Vec<Point>,
}

impl Series {
    pub(crate) fn new(mut points: Vec<Point>) -> Series {
        points.sort_by_key(|point| point.time);
        Series { points }
    }

    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    /// Bytes on the heap.
    pub(crate) fn memory(&self) -> usize {
        self.points.capacity() * size_of::<Point>()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) time: Time,
    pub(crate) price: f64,
    pub(crate) volume: Option<u32>,
}

impl Point {
    fn from_row(row: &Row) -> rusqlite::Result<Point> {
        Ok(Point { time: row.get(0)?, price: row.get(1)?, volume: row.get(2)? })
    }
}

/// A minute, counted from 1970-01-01 00:00 UTC. As text it is `2000-01-31` at midnight, else `2000-01-31 09:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(i64);

const ALWAYS: RangeInclusive<Time> = Time(i64::MIN)..=Time(i64::MAX);
const MINUTES_A_DAY: i64 = 24 * 60;

impl Time {
    pub(crate) const EPOCH: Time = Time(0);

    /// The start of a day in years 1 to 9999, or `None` if there is no such day.
    pub(crate) fn from_date(year: i64, month: u32, day: u32) -> Option<Time> {
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) {
            return None;
        }
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if !(1..=length).contains(&day) {
            return None;
        }
        // Years that start in March put the leap day last, and then the months' lengths repeat every five:
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let day_of_year = i64::from((153 * month + 2) / 5 + day - 1);
        let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
        Some(Time(days * MINUTES_A_DAY))
    }

    pub(crate) fn plus_minutes(self, minutes: i64) -> Time {
        Time(self.0.saturating_add(minutes))
    }

    /// Year, month and day: the inverse of [`Time::from_date`].
    pub(crate) fn date(self) -> (i64, u32, u32) {
        let days = self.0.div_euclid(MINUTES_A_DAY) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        (era * 400 + year_of_era + next_year, month as u32, day as u32)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let minute = self.0.rem_euclid(MINUTES_A_DAY);
        let mut text = format!("{year:04}-{month:02}-{day:02}");
        if minute != 0 {
            text += &format!(" {:02}:{:02}", minute / 60, minute % 60);
        }
        f.pad(&text) // so that a table can give it a width
    }
}

impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Time, NotATime> {
        let (date, clock) = match text.split_once([' ', 'T']) {
            Some((date, clock)) => (date, Some(clock)),
            None => (text, None),
        };
        let numbers = |text: &str, separator, lengths: &[usize]| -> Option<Vec<u32>> {
            let parts: Vec<_> = text.split(separator).collect();
            let right = parts.iter().map(|part| part.len()).eq(lengths.iter().copied())
                && text.bytes().all(|byte| byte.is_ascii_digit() || byte == separator as u8);
            right.then(|| parts.iter().filter_map(|part| part.parse().ok()).collect())
        };
        let parse = || {
            let date = numbers(date, '-', &[4, 2, 2])?;
            let midnight = Time::from_date(date[0].into(), date[1], date[2])?;
            let Some(clock) = clock else {
                return Some(midnight);
            };
            let clock = numbers(clock, ':', &[2, 2])?;
            let (hour, minute) = (i64::from(clock[0]), i64::from(clock[1]));
            (hour < 24 && minute < 60).then(|| midnight.plus_minutes(hour * 60 + minute))
        };
        parse().ok_or(NotATime)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not a date such as 2000-01-31")]
pub(crate) struct NotATime;

impl ToSql for Time {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for Time {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Time> {
        i64::column_result(value).map(Time)
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // With a write-ahead log this is safe against a crash of the program, and much faster.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(connection)
    };
    open().map_err(|source| StoreError::Database { action: "opening the database", path: path.to_owned(), source })
}

/// A panic in a query leaves nothing half done in what these locks hold, so a poisoned one is as good as new.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TempFolder;

    fn in_a_new_store(test: impl FnOnce(&PriceStore) -> Result<(), BoxError>) -> Result<(), BoxError> {
        let folder = TempFolder::create()?;
        let store = PriceStore::open(folder.path().join("prices.sqlite"))?;
        test(&store)?;
        drop(store);
        folder.remove()
    }

    fn series(prices: &[f64]) -> Series {
        let point = |(day, &price): (i64, &f64)| Point {
            time: Time::EPOCH.plus_minutes(day * MINUTES_A_DAY),
            price,
            volume: Some(7),
        };
        Series::new((0..).zip(prices).map(point).collect())
    }

    #[test]
    fn a_write_adds_a_version_and_changes_none() -> Result<(), BoxError> {
        in_a_new_store(|store| {
            let (old, new) = (series(&[1.0]), series(&[1.0, 2.0]));
            assert_eq!(store.write(("A", old.clone()))?, 1);
            assert_eq!(store.write(("A", new.clone()))?, 2);
            assert_eq!(store.read("A")?.series, new);
            assert_eq!(store.read_version(("A", 1))?.series, old);
            let (first, last) = (Time::EPOCH, Time::EPOCH.plus_minutes(MINUTES_A_DAY));
            assert_eq!(store.read_between(("A", last..=last))?.series.points(), &new.points()[1..]);
            let metadata = store.read_metadata("A")?;
            assert_eq!((metadata.version, metadata.rows), (2, 2));
            assert_eq!((metadata.first, metadata.last), (Some(first), Some(last)));
            assert_eq!(store.delete("A")?, 2);
            assert!(!store.has_symbol("A")? && store.list_symbols(())?.is_empty());
            Ok(())
        })
    }

    #[test]
    fn what_is_not_there_is_a_typed_error() -> Result<(), BoxError> {
        in_a_new_store(|store| {
            store.write(("A", Series::default()))?;
            assert!(matches!(store.read("B"), Err(StoreError::UnknownSymbol(name)) if name == "B"));
            assert!(matches!(store.read_metadata("B"), Err(StoreError::UnknownSymbol(_))));
            assert!(matches!(store.read_version(("A", 2)), Err(StoreError::UnknownVersion { version: 2, .. })));
            Ok(())
        })
    }

    #[test]
    fn a_refused_write_leaves_nothing_behind() -> Result<(), BoxError> {
        in_a_new_store(|store| {
            let twice = [series(&[1.0]).points(), series(&[2.0]).points()].concat();
            let refused = store.write(("A", Series::new(twice)));
            assert!(matches!(refused, Err(StoreError::Database { .. })));
            assert!(!store.has_symbol("A")?);
            Ok(())
        })
    }

    #[test]
    fn named_operations_take_and_give_json() -> Result<(), BoxError> {
        in_a_new_store(|store| {
            let points = json!([["2000-01-01", 1.5], ["2000-01-02 09:30", 2.0]]);
            let write = json!({"symbol": "A", "points": points});
            assert_eq!(store.call("write", write)?, json!({"version": 1}));
            let read = store.call("read", json!({"symbol": "A"}))?;
            assert_eq!(read, json!({"symbol": "A", "version": 1, "points": points}));
            let read = store.call("read", json!({"symbol": "A", "version": 1, "to": "2000-01-01"}))?;
            assert_eq!(read["points"], json!([["2000-01-01", 1.5]]));
            assert_eq!(store.call("list_symbols", json!({}))?, json!(["A"]));
            assert_eq!(store.call("has_symbol", json!({"symbol": "B"}))?, json!(false));
            assert_eq!(store.call("read_metadata", json!({"symbol": "A"}))?["last"], json!("2000-01-02 09:30"));
            assert_eq!(store.call("delete", json!({"symbol": "A"}))?, json!({"versions": 1}));
            Ok(())
        })
    }

    #[test]
    fn wrong_names_and_arguments_are_named() -> Result<(), BoxError> {
        in_a_new_store(|store| {
            for (operation, args, message) in [
                ("raed", json!({}), "no operation `raed`; it has delete, has_symbol"),
                ("read", json!("A"), "must be a JSON object, not \"A\""),
                ("read", json!({}), "`symbol` is missing"),
                ("read", json!({"symbol": 7}), "`symbol` must be a string such as \"AAPL\", not 7"),
                ("read", json!({"symbol": "A", "version": -1}), "`version` must be a version number"),
                ("read", json!({"symbol": "A", "from": "Jan 1"}), "`from` must be a date"),
                ("read", json!({"symbol": "A", "form": "2000-01-01"}), "it takes no argument `form`"),
                ("list_symbols", json!({"symbol": "A"}), "it takes no argument `symbol`"),
                ("write", json!({"symbol": "A", "points": [["2000-01-01"]]}), "`points` must be a list"),
            ] {
                let error = store.call(operation, args).expect_err(message).to_string();
                assert!(error.contains(message), "{error}");
            }
            Ok(())
        })
    }

    #[test]
    fn days_of_four_centuries_come_back() {
        let mut time = Time::from_date(1899, 12, 31);
        for _ in 0..146_097 {
            let next = time.map(|time| time.plus_minutes(MINUTES_A_DAY));
            let date = next.map(Time::date);
            assert_eq!(date.and_then(|(year, month, day)| Time::from_date(year, month, day)), next);
            time = next;
        }
        assert_eq!(time.map(|time| time.to_string()), Some("2299-12-31".to_owned()));
        assert_eq!(Time::from_date(1970, 1, 1), Some(Time::EPOCH));
    }

    #[test]
    fn only_real_days_and_minutes_are_times() {
        for text in ["2000-02-29", "1999-12-31 23:59", "0001-01-01"] {
            assert_eq!(text.parse::<Time>().map(|time| time.to_string()).ok().as_deref(), Some(text));
        }
        for text in [
            "",
            "2000",
            "2001-02-29",
            "2000-13-01",
            "2000-00-01",
            "2000-01-00",
            "0000-01-01",
            "2000-1-1",
            "+200-01-01",
            "2000-01-01 24:00",
            "2000-01-01 09:60",
            "2000-01-01 9:30",
            "2000-01-01 ",
            "2000-01-01-01",
            "２000-01-01",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }
}
