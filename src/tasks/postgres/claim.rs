//! Claiming tasks for a worker, and renewing the leases of those that it holds.
//!
//! A claim's statement lists the numbers of the tasks that it takes, locks their rows, and skips
//! rows that other sessions have locked. The list is a subquery (`= ANY(ARRAY(..))`), which the
//! server runs once: it could run a join again and again.
//!
//! While a foreign transaction keeps the server from cleaning up, each claim walks past the index
//! entries of all tasks taken since. So a slow claim of one type without limits leaves a *mark*:
//! the place of the first task that it found. For a second, the next claims of only that type begin
//! there. In that second a task that was given back may be overtaken by others of its priority.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::engine::{Claimed, Held};
use super::super::limits::Searches;
use super::super::names::sql;
use super::super::worker_id::WorkerId;
use super::connection::{Connection, Row, Rows};
use super::error::PgError;
use super::fault::Fault;
use super::sql::{now, then, trail};
use super::value::Param;
use super::{lanes, limits, millis, reap, trail, types};
use crate::sync::Mutex;

/// The most tasks whose time has come that one statement moves to those that are ready.
const MOST_DUE: i64 = 1_000;

/// The largest input that comes along with its task, in bytes.
pub(super) const ALONG: i64 = 64 << 10;

/// The most lists of types that are remembered.
const MOST_LISTS: usize = 16;

/// Up to so many types are asked one by one.
const FEW: usize = 8;

/// A claim that takes longer has walked past many dead rows.
const SLOW: Duration = Duration::from_millis(20);

/// How long claims begin where a slow one found something.
const MARKED: Duration = Duration::from_secs(1);

/// How long a heartbeat waits for rows that others have locked, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How long a busy worker may go without a look for tasks whose time has come; an idle one looks
/// each time.
const TIMERS: Duration = Duration::from_millis(50);

/// What claims of this process remember. All of it may be out of date: the statements check.
pub(super) struct Claims(Mutex<Memory>, Searches);

struct Memory {
    /// Types that were seen to have a limit at once.
    limited: HashSet<String>,
    /// Types that were seen to have other limits.
    governed: HashSet<String>,
    /// The lists of types for which that was looked at: one for each worker, which may have
    /// thousands.
    asked: Vec<Vec<String>>,
    timers: Option<Instant>,
    marks: HashMap<String, Mark>,
    /// How long the slowest of the last claims took, and when.
    slowest: Option<(Instant, Duration)>,
}

#[derive(Clone, Copy)]
struct Mark {
    rank: i64,
    id: i64,
    until: Instant,
}

/// A worker's request for tasks: how many, for how long a lease, and its message for their log.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) worker: &'a WorkerId,
    pub(super) limit: usize,
    pub(super) lease: Duration,
    pub(super) message: &'a str,
}

impl Wish<'_> {
    /// How many are still to be taken.
    fn missing(self, taken: &[(i64, Claimed)]) -> i64 {
        i64::try_from(self.limit.saturating_sub(taken.len())).unwrap_or(i64::MAX)
    }
}

impl Claims {
    pub(super) fn new() -> Claims {
        let (limited, governed, asked, marks) = (HashSet::new(), HashSet::new(), Vec::new(), HashMap::new());
        let memory = Memory { limited, governed, asked, timers: None, marks, slowest: None };
        Claims(Mutex::new(memory), Searches::default())
    }

    /// Types have changed.
    pub(super) fn forget_types(&self) {
        let mut memory = self.0.lock();
        memory.limited.clear();
        memory.governed.clear();
        memory.asked.clear();
        drop(memory);
        self.forget_searches();
    }

    /// The clock of a test has moved on.
    pub(super) fn forget_searches(&self) {
        self.1.forget();
    }

    /// Whether a type that this process claims has limits, as far as it knows.
    pub(super) fn know_a_limit(&self) -> bool {
        let memory = self.0.lock();
        !memory.limited.is_empty() || !memory.governed.is_empty()
    }

    /// In the last minute claims were slow.
    pub(super) fn warning(&self) -> Option<String> {
        let slowest = self.0.lock().slowest;
        let (_, took) = slowest.filter(|(when, took)| when.elapsed() < Duration::from_secs(60) && *took > 2 * SLOW)?;
        Some(format!(
            "a claim took {took:?}: does a long transaction, a replication slot or a disabled autovacuum keep PostgreSQL \
             from cleaning up?"
        ))
    }

    /// Takes up to `wish.limit` ready tasks of the types `names`: by priority and age, as far as
    /// the limits allow. Each taken row is `Scheduled` then, with a new token and a lease. Each
    /// take is a transaction of its own. If a later one fails, it warns, and returns what the
    /// earlier ones took.
    pub(super) fn claim(&self, db: &mut Connection, wish: Wish<'_>, names: &[String]) -> Result<Vec<Claimed>, Fault> {
        if names.is_empty() || wish.limit == 0 {
            return Ok(Vec::new());
        }
        let names = possible(names);
        let opened = self.timers_are_due();
        if opened {
            open_timers(db)?;
        }
        let mut taken = Vec::new();
        let mut complete = self.take_all(db, wish, &names, opened, &mut taken);
        if matches!(&complete, Err(Fault::Pg(error)) if error.is_of_row()) && set_aside_senseless(db)? {
            complete = self.take_all(db, wish, &names, opened, &mut taken);
        }
        if complete.is_ok() && !wish.message.is_empty() && !taken.is_empty() {
            let tasks: Vec<i64> = taken.iter().map(|(_, claimed)| claimed.id).collect();
            complete = trail::say(db, &tasks, wish.message).map_err(Fault::from);
        }
        if let Err(fault) = complete {
            // What was taken before is ours, and no other worker would know of it.
            if taken.is_empty() {
                return Err(fault);
            }
            crate::trace::event!(WARN, "a claim ended early", error = format!("{fault:?}"));
        }
        taken.sort_by_key(|(rank, claimed)| (*rank, claimed.id));
        Ok(taken.into_iter().map(|(_, claimed)| claimed).collect())
    }

    /// Adds ready tasks to `taken` until it has as many as `wish` asks for, or until there are no
    /// more. If there are too few, it tries twice more: after it has moved tasks whose time has
    /// come to the ready ones, unless the caller has `opened` them, and after it has looked for new
    /// limits. The worker holds the tasks in `taken` even if this returns an error.
    fn take_all(
        &self,
        db: &mut Connection,
        wish: Wish<'_>,
        names: &[&str],
        opened: bool,
        taken: &mut Vec<(i64, Claimed)>,
    ) -> Result<(), Fault> {
        // Without this, types with a limit would wait until those without one have no task left.
        if self.know_not_all(names) {
            self.look_at_types(db, names)?;
        }
        self.take(db, wish, names, taken)?;
        if taken.len() < wish.limit && !opened && open_timers(db)? > 0 {
            self.take(db, wish, names, taken)?;
        }
        // A type may have got a limit that this process has not heard of, which its claims leave to
        // the careful ones.
        if taken.len() < wish.limit && self.look_at_types(db, names)? {
            self.take(db, wish, names, taken)?;
        }
        Ok(())
    }

    fn timers_are_due(&self) -> bool {
        let mut memory = self.0.lock();
        let due = memory.timers.is_none_or(|last| last.elapsed() >= TIMERS);
        if due {
            memory.timers = Some(Instant::now());
        }
        due
    }

    fn know_not_all(&self, names: &[&str]) -> bool {
        !self.0.lock().asked.iter().any(|asked| asked == names)
    }

    /// Looks which of the types have limits. True: more of them than were known.
    fn look_at_types(&self, db: &mut Connection, names: &[&str]) -> Result<bool, Fault> {
        let sql =
            "SELECT name, at_once IS NOT NULL, paused & 4 <> 0 FROM fulmar_task_type WHERE name = ANY($1::text[])";
        let rows = db.query(sql, &[Param::Texts(names)])?;
        let mut memory = self.0.lock();
        let mut more = false;
        if !memory.asked.iter().any(|asked| asked == names) {
            if memory.asked.len() >= MOST_LISTS {
                memory.asked.clear();
            }
            memory.asked.push(names.iter().map(|name| (*name).to_owned()).collect());
        }
        for row in rows.iter() {
            let (name, limited, governed): (&str, bool, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            for (set, is_so) in [(0, limited), (1, governed)] {
                let set = if set == 0 { &mut memory.limited } else { &mut memory.governed };
                if is_so {
                    more |= set.insert(name.to_owned());
                } else {
                    set.remove(name);
                }
            }
        }
        Ok(more)
    }

    /// Adds ready tasks of the types `names` to `taken`, at most as many as `wish` still misses.
    /// What this process remembers of the types' limits decides by which statement. That may be out
    /// of date, so the statements look at the limits anew.
    fn take(
        &self,
        db: &mut Connection,
        wish: Wish<'_>,
        names: &[&str],
        taken: &mut Vec<(i64, Claimed)>,
    ) -> Result<(), Fault> {
        let (is_limited, is_governed) = {
            let memory = self.0.lock();
            let any = |of: &HashSet<String>| !of.is_empty() && names.iter().any(|name| of.contains(*name));
            (any(&memory.limited), any(&memory.governed))
        };
        match names {
            _ if is_governed => limits::take(db, wish, names, &self.1, taken),
            _ if is_limited => take_carefully(db, wish, names, taken),
            [name] => self.take_of_one(db, wish, name, taken),
            names => {
                if names.len() > FEW && take_of_first(db, wish, names, taken)? {
                    return Ok(());
                }
                take_of_many(db, wish, names, 4, taken)?;
                // Too few: other workers may have locked most of those that it looked at.
                if taken.len() < wish.limit {
                    take_of_many(db, wish, names, 64, taken)?;
                }
                Ok(())
            }
        }
    }

    /// Takes the first ready tasks of the type `name`, by priority and age. If claims of the type
    /// have a mark, it looks at higher priorities, then from the mark on, and only then from the
    /// start. It takes none if the type has limits or is paused.
    fn take_of_one(
        &self,
        db: &mut Connection,
        wish: Wish<'_>,
        name: &str,
        taken: &mut Vec<(i64, Claimed)>,
    ) -> Result<(), Fault> {
        let mark = self.0.lock().marks.get(name).copied().filter(|mark| Instant::now() < mark.until);
        let Some(mark) = mark else {
            return self.take_between(db, wish, name, (FIRST, LAST), None, taken);
        };
        // A mark skips tasks of its own priority only: those of a higher one are looked for first.
        self.take_between(db, wish, name, (FIRST, mark.rank - 1), None, taken)?;
        if taken.len() < wish.limit {
            self.take_between(db, wish, name, ((mark.rank, mark.id), LAST), Some(mark), taken)?;
        }
        if taken.len() < wish.limit {
            // Too few from the mark on. Tasks that workers gave back may lie before it. They must
            // not wait until the mark runs out.
            self.0.lock().marks.remove(name);
            self.take_between(db, wish, name, (FIRST, LAST), None, taken)?;
        }
        Ok(())
    }

    /// Takes the first tasks of the type `name` from rank and number `from` up to rank `to`. A
    /// search that was slow leaves a mark, at which the next claims begin.
    fn take_between(
        &self,
        db: &mut Connection,
        wish: Wish<'_>,
        name: &str,
        (from, to): ((i64, i64), i64),
        mark: Option<Mark>,
        taken: &mut Vec<(i64, Claimed)>,
    ) -> Result<(), Fault> {
        let before = taken.len();
        let start = Instant::now();
        // The type is looked up here once more because what this process remembers may be old: if
        // the type was paused or has got a limit since, the subquery is null and finds no task.
        let rows = db.query(
            sql!(
                take!(),
                "(ARRAY(SELECT id FROM fulmar_task
                     WHERE gate = {gate_open} AND type_id = (SELECT id FROM fulmar_task_type WHERE name = $5::text AND at_once IS NULL AND paused = 0)
                         AND (rank, id) >= ($6::int8::int4, $7::int8) AND rank <= $8::int8::int4
                     ORDER BY rank, id LIMIT $4::int8 FOR UPDATE SKIP LOCKED))",
                taken!()
            ),
            &[
                wish.worker.as_str().into(),
                millis(wish.lease).into(),
                ALONG.into(),
                wish.missing(taken).into(),
                name.into(),
                from.0.into(),
                from.1.into(),
                to.into(),
            ],
        )?;
        let took = start.elapsed();
        read(db, &rows, taken)?;
        let taken = &taken[before..];
        // A search that stops at the mark's rank walks few dead rows, so its time says nothing.
        if to == LAST && took > SLOW {
            self.note_slow(name, took, taken, mark);
        }
        Ok(())
    }

    /// Remembers for `warning` how long the claim took, and where it found its first task: there
    /// the next claims of the type begin.
    fn note_slow(&self, name: &str, took: Duration, taken: &[(i64, Claimed)], mark: Option<Mark>) {
        let now = Instant::now();
        let mut memory = self.0.lock();
        if memory.slowest.is_none_or(|(when, slowest)| slowest <= took || when.elapsed() > Duration::from_secs(60)) {
            memory.slowest = Some((now, took));
        }
        if let Some((rank, claimed)) = taken.first() {
            // A mark that moves on keeps its end: each mark runs out after `MARKED`, so that a task
            // before it is overlooked for that long at most.
            let until = mark.map_or(now + MARKED, |mark| mark.until);
            memory.marks.insert(name.to_owned(), Mark { rank: *rank, id: claimed.id, until });
        }
    }
}

/// Before all ranks and numbers, and the last rank.
const FIRST: (i64, i64) = (i32::MIN as i64, 0);
const LAST: i64 = i32::MAX as i64;

/// `gate IS NOT DISTINCT FROM 0` is for rows that are found by their numbers: `gate = 0` would let
/// the server read a whole index of what is ready in place of some numbers.
///
/// `$1` worker, `$2` lease, `$3` the largest input that comes along, `$4` how many; then whatever
/// chooses them.
macro_rules! take {
    () => {
        concat!(
            "UPDATE fulmar_task t SET status = {scheduled}, gate = NULL, token = t.token + 1, worker = $1::text,
                 lease = ",
            now!(),
            " + $2::int8, entries = t.entries + 1, trail = ",
            trail!("{scheduled}", "t.token + 1"),
            " || convert_to(rpad(left($1::text, 8), 8), 'UTF8')
             FROM fulmar_task_type y WHERE y.id = t.type_id AND t.id = ANY "
        )
    };
}

/// What comes from another table is a scalar subquery: of an `EXISTS` the server may make a hash of
/// that whole table.
macro_rules! taken {
    () => {
        concat!(
            " RETURNING t.rank, t.id, t.token, y.name, t.identifier, t.starts, t.failures, y.retry_limit, y.retry_first,
             y.retry_factor, y.retry_cap, y.retry_jitter,
             coalesce(t.input, (SELECT CASE WHEN octet_length(i.body) <= $3::int8 THEN i.body END
                 FROM fulmar_task_input i WHERE i.task_id = t.id)),
             t.starts > 0 AND (SELECT true FROM fulmar_task_checkpoint c WHERE c.task_id = t.id) IS NOT NULL,
             octet_length(t.trail)::int8, (SELECT x.context FROM fulmar_task_context x WHERE x.task_id = t.id),
             ", then!(), " - greatest(t.run_at, 0)"
        )
    };
}

pub(super) use {take, taken};

/// Takes the first tasks of several types. It looks at `spare` times as many of each type as are
/// missing, because other workers may have locked the first ones at this moment. It locks only the
/// tasks that it takes.
fn take_of_many(
    db: &mut Connection,
    wish: Wish<'_>,
    names: &[&str],
    spare: i64,
    taken: &mut Vec<(i64, Claimed)>,
) -> Result<(), Fault> {
    let limit = wish.missing(taken);
    let rows = db.query(
        sql!(
            take!(),
            "(ARRAY(SELECT id FROM fulmar_task WHERE gate IS NOT DISTINCT FROM {gate_open} AND id = ANY(ARRAY(
                     SELECT c.id FROM fulmar_task_type f CROSS JOIN LATERAL (
                         SELECT id, rank FROM fulmar_task WHERE gate = {gate_open} AND type_id = f.id
                         ORDER BY rank, id LIMIT $6::int8) AS c
                     WHERE f.name = ANY($5::text[]) AND f.at_once IS NULL AND f.paused = 0 ORDER BY c.rank, c.id LIMIT $6::int8))
                 ORDER BY rank, id LIMIT $4::int8 FOR UPDATE SKIP LOCKED))",
            taken!()
        ),
        &[
            wish.worker.as_str().into(),
            millis(wish.lease).into(),
            ALONG.into(),
            limit.into(),
            Param::Texts(names),
            limit.saturating_mul(spare).saturating_add(16).into(),
        ],
    )?;
    read(db, &rows, taken)
}

/// Claims those of the queue's first ready tasks, by priority and age, that are of the types
/// `names`, which are sorted, and adds them to `taken`, each with its rank. It reads the first
/// tasks of all types, twice as many as are missing and 32, so that it costs the same for thousands
/// of types as for one. It passes over tasks that others have locked, and those of types that are
/// paused or have limits.
///
/// `true` if `taken` has as many as `wish` asks for, or if these were all ready tasks of the queue.
/// With `false`, what was added is claimed all the same, and the caller takes the rest by type.
fn take_of_first(
    db: &mut Connection,
    wish: Wish<'_>,
    names: &[&str],
    taken: &mut Vec<(i64, Claimed)>,
) -> Result<bool, Fault> {
    let limit = wish.missing(taken);
    let most = limit.saturating_mul(2).saturating_add(32);
    let rows = db.query(
        sql!("SELECT c.id, y.name, y.at_once IS NULL AND y.paused = 0
         FROM (SELECT id, type_id, rank FROM fulmar_task WHERE gate = {gate_open} ORDER BY rank + 0, id LIMIT $1::int8) AS c
         LEFT JOIN fulmar_task_type y ON y.id = c.type_id ORDER BY c.rank, c.id"),
        &[most.into()],
    )?;
    let mut ours = Vec::new();
    for row in rows.iter() {
        let (name, is_free): (Option<Cow<'_, str>>, Option<bool>) = (row.get(1)?, row.get(2)?);
        let is_ours = |name: Cow<'_, str>| names.binary_search(&&*name).is_ok();
        if is_free == Some(true) && name.is_some_and(is_ours) {
            ours.push(row.get(0)?);
        }
    }
    let is_all = i64::try_from(rows.len()).is_ok_and(|rows| rows < most);
    if !ours.is_empty() {
        let rows = db.query(
            sql!(
                take!(),
                "(ARRAY(SELECT id FROM fulmar_task WHERE gate IS NOT DISTINCT FROM {gate_open} AND id = ANY($5::int8[])
                     ORDER BY rank, id LIMIT $4::int8 FOR UPDATE SKIP LOCKED))",
                taken!()
            ),
            &[wish.worker.as_str().into(), millis(wish.lease).into(), ALONG.into(), limit.into(), Param::Ints(&ours)],
        )?;
        read(db, &rows, taken)?;
    }
    Ok(is_all || taken.len() >= wish.limit)
}

/// Takes ready tasks of the types `names`, some of which have a limit at once, and adds them to
/// `taken`. In one transaction it locks the types with that limit, counts how many of their tasks
/// workers hold, and takes no more than the limit leaves. The lock lasts until the commit, so that
/// no other claim takes tasks of them between the count and the commit. Types with other limits are
/// left out.
fn take_carefully(
    db: &mut Connection,
    wish: Wish<'_>,
    names: &[&str],
    taken: &mut Vec<(i64, Claimed)>,
) -> Result<(), Fault> {
    let limit = wish.missing(taken);
    let mut tx = db.begin()?;
    let sql = "SELECT id FROM fulmar_task_type WHERE name = ANY($1::text[]) AND at_once IS NOT NULL";
    let rows = tx.query(sql, &[Param::Texts(names)])?;
    let limited: Vec<i64> = rows.iter().map(|row| row.get(0)).collect::<Result<_, PgError>>()?;
    lanes::lock_types(&mut tx, &limited)?;
    let rows = tx.query(
        sql!(
            take!(),
            "(ARRAY(SELECT id FROM fulmar_task WHERE gate IS NOT DISTINCT FROM {gate_open} AND id = ANY(ARRAY(
                     SELECT c.id FROM (
                         SELECT id, CASE WHEN at_once IS NULL THEN $7::int8
                             ELSE least($7::int8, greatest(0, at_once - (SELECT count(*) FROM fulmar_task h
                                 WHERE h.worker IS NOT NULL AND h.type_id + 0 = f.id))) END AS room
                         FROM fulmar_task_type f
                         WHERE name = ANY($5::text[]) AND paused = 0 AND (at_once IS NULL OR id = ANY($6::int8[]))) AS f
                     CROSS JOIN LATERAL (
                         SELECT id, rank FROM fulmar_task WHERE gate = {gate_open} AND type_id = f.id
                         ORDER BY rank, id LIMIT f.room) AS c
                     ORDER BY c.rank, c.id LIMIT $7::int8))
                 ORDER BY rank, id LIMIT $4::int8 FOR UPDATE SKIP LOCKED))",
            taken!()
        ),
        &[
            wish.worker.as_str().into(),
            millis(wish.lease).into(),
            ALONG.into(),
            limit.into(),
            Param::Texts(names),
            Param::Ints(&limited),
            limit.saturating_mul(4).saturating_add(16).into(),
        ],
    )?;
    tx.commit()?;
    read(db, &rows, taken)
}

/// Adds the tasks of `rows`, which a claim has returned, to `taken`, each with its rank. A task
/// whose row makes no sense is set aside, so that the others can still be claimed. For after the
/// claim's own transaction, because setting aside locks a lane, and locks of lanes come before
/// those of rows.
pub(super) fn read(db: &mut Connection, rows: &Rows, taken: &mut Vec<(i64, Claimed)>) -> Result<(), Fault> {
    let read = |row: Row<'_>| {
        let claimed = Claimed {
            id: row.get(1)?,
            token: row.get(2)?,
            task_type: row.get(3)?,
            identifier: row.get(4)?,
            starts: types::small(row.get(5)?)?,
            failures: types::small(row.get(6)?)?,
            retry: types::policy(row, 7)?,
            input: row.get(12)?,
            has_checkpoint: row.get(13)?,
            context: row.get(15)?,
            waited: types::duration(row.get(16)?),
        };
        Ok::<_, Fault>((row.get(0)?, claimed, row.get::<i64>(14)?))
    };
    let (mut bad, mut long) = (Vec::new(), Vec::new());
    for row in rows.iter() {
        match read(row) {
            Ok((rank, claimed, trail)) => {
                long.extend((trail >= trail::LONG).then_some(claimed.id));
                taken.push((rank, claimed));
            }
            Err(fault) => {
                let id: i64 = row.get(1)?;
                crate::trace::event!(WARN, "a task can't be claimed", task = id, error = format!("{fault:?}"));
                bad.push(id);
            }
        }
    }
    for id in bad {
        reap::set_aside(db, id)?;
    }
    if !long.is_empty() {
        trail::unroll(db, &long)?;
    }
    Ok(())
}

/// Sets aside those that are ready and whose counts leave no room for another claim: each statement
/// that takes such a row fails, and takes none of the others. Says whether there was any.
fn set_aside_senseless(db: &mut Connection) -> Result<bool, Fault> {
    const MOST: i64 = i64::MAX - 1;
    let rows = db.query(
        sql!("SELECT id FROM fulmar_task WHERE gate = {gate_open} AND (token > $1::int8 OR entries > $1::int8) ORDER BY id"),
        &[MOST.into()],
    )?;
    let bad: Vec<i64> = rows.iter().map(|row| row.get(0)).collect::<Result<_, PgError>>()?;
    for &id in &bad {
        crate::trace::event!(WARN, "a task can't be claimed", task = id);
        reap::set_aside(db, id)?;
    }
    Ok(!bad.is_empty())
}

/// Without the names that PostgreSQL can't hold, and that no type has.
fn possible(names: &[String]) -> Vec<&str> {
    names.iter().map(|name| &**name).filter(|name| !super::has_zero(name)).collect()
}

/// Moves tasks whose time has come to those that are ready; returns how many.
fn open_timers(db: &mut Connection) -> Result<u64, PgError> {
    db.execute(
        sql!(
            "UPDATE fulmar_task SET gate = {gate_open} WHERE id = ANY(ARRAY(
                 SELECT id FROM fulmar_task WHERE gate = {gate_time} AND run_at <= ",
            then!(),
            "
                 ORDER BY run_at LIMIT $1::int8 FOR UPDATE SKIP LOCKED))"
        ),
        &[MOST_DUE.into()],
    )
}

/// The tasks of the worker `$1` whose lease and time limit are not over.
macro_rules! kept {
    () => {
        concat!(
            "worker = $1::text AND worker IS NOT NULL AND status IN {held} AND lease > ",
            now!(),
            " AND (deadline IS NULL OR deadline > ",
            then!(),
            ")"
        )
    };
}

/// Renews the leases of all tasks that `worker` holds, to `lease` from now, and returns these
/// tasks. What the worker believes to hold and isn't among them, it has lost.
pub(super) fn heartbeat(db: &mut Connection, worker: &WorkerId, lease: Duration) -> Result<Vec<Held>, Fault> {
    // Skip rows that are locked, by an outcome that is just being stored or by a person's
    // transaction: the others must be renewed in time, and no worker can take a locked row away.
    // `wait_for` renews what was skipped the time before, too.
    db.execute(
        sql!(
            "UPDATE fulmar_task SET lease = ",
            now!(),
            " + $2::int8 WHERE id = ANY(ARRAY(SELECT id FROM fulmar_task WHERE ",
            kept!(),
            " FOR UPDATE SKIP LOCKED))"
        ),
        &[worker.as_str().into(), millis(lease).into()],
    )?;
    // A statement of its own: it sees what was taken away while the first one looked.
    let rows = db.query(
        sql!("SELECT id, token, cancel_requested, lease < ", now!(), " + $2::int8 FROM fulmar_task WHERE ", kept!()),
        &[worker.as_str().into(), (millis(lease) / 2).into()],
    )?;
    let (held, skipped) = (held(&rows)?, rows.iter().map(|row| Ok((row.get(0)?, row.get(3)?))));
    let skipped: Vec<(i64, bool)> = skipped.collect::<Result<_, PgError>>()?;
    let again: Vec<i64> = skipped.into_iter().filter(|(_, is_short)| *is_short).map(|(id, _)| id).collect();
    wait_for(db, worker, lease, &again)?;
    Ok(held)
}

/// Renews the leases of tasks that were skipped the time before, too, so that half of the lease is
/// over: a handler whose steps follow each other quickly has its row locked most of the time, and
/// would be skipped until the lease is lost. One that is locked for longer than the wait is left
/// alone.
fn wait_for(db: &mut Connection, worker: &WorkerId, lease: Duration, tasks: &[i64]) -> Result<(), Fault> {
    let until = Instant::now() + (lease / 6).min(LONGEST_WAIT);
    for &task in tasks {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let mut tx = db.begin()?;
        tx.script(&format!("SET LOCAL lock_timeout = {}", left.as_millis().max(1)))?;
        let renewed = tx.execute(
            sql!("UPDATE fulmar_task SET lease = ", now!(), " + $2::int8 WHERE id = $3::int8 AND ", kept!()),
            &[worker.as_str().into(), millis(lease).into(), task.into()],
        );
        match renewed {
            Ok(_) => tx.commit()?,
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) fn cancel_requests(db: &mut Connection, worker: &WorkerId) -> Result<Vec<Held>, Fault> {
    let rows = db.query(
        sql!(
            "SELECT id, token, cancel_requested FROM fulmar_task
         WHERE cancel_requested AND worker IS NOT NULL AND worker IS NOT DISTINCT FROM $1::text AND status = {running}"
        ),
        &[worker.as_str().into()],
    )?;
    held(&rows)
}

fn held(rows: &Rows) -> Result<Vec<Held>, Fault> {
    let read = |row: Row<'_>| Ok(Held { id: row.get(0)?, token: row.get(1)?, cancel_requested: row.get(2)? });
    rows.iter().map(read).collect()
}

/// How long it is until a task of the types `names` may be claimed: zero if one may be now, `None`
/// if none waits. Reads only. It may be too short, because it looks at the delayed tasks of all
/// types, and ignores how many of a type may run at once.
pub(super) fn next_due(db: &mut Connection, names: &[String], claims: &Claims) -> Result<Option<Duration>, Fault> {
    let names = possible(names);
    // The next time is of any type: a worker that looks too early looks once more.
    let rows = db.query(
        sql!(
            "SELECT CASE WHEN (SELECT true FROM fulmar_task WHERE gate = {gate_open} ORDER BY rank + 0, id LIMIT 1)
                 AND (SELECT true FROM fulmar_task_type y CROSS JOIN LATERAL (
                     SELECT FROM fulmar_task WHERE gate = {gate_open} AND type_id = y.id ORDER BY rank, id LIMIT 1) AS t
                 WHERE y.name = ANY($1::text[]) AND y.paused = 0 LIMIT 1) THEN 0
             ELSE (SELECT greatest(run_at, 0) - ",
            then!(),
            " FROM fulmar_task WHERE gate = {gate_time} ORDER BY run_at LIMIT 1) END,
             EXISTS (SELECT 1 FROM fulmar_task_type y WHERE y.name = ANY($1::text[]) AND y.paused & 4 <> 0)"
        ),
        &[Param::Texts(&names)],
    )?;
    let next = rows.only()?.get::<Option<i64>>(0)?.map(types::duration);
    let has_limits: bool = rows.only()?.get(1)?;
    if !has_limits || next.is_some_and(|next| next.is_zero()) {
        return Ok(next);
    }
    Ok(next.into_iter().chain(limits::next_due(db, &names, &claims.1)?).min())
}
