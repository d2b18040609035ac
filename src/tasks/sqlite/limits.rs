//! Limits of types: which of their tasks may be taken. Only one writes at a time, so what is
//! counted here is so until it is taken.
//!
//! A claim never walks past what is held back: it looks at the first tasks of a type, and then goes
//! from key to key, by one step in an index each, from the key that had the last turn. Where that
//! gives too few, a reader [searches](search) all that waits, and the claim is made once more with
//! what it found.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::error::{Result, TaskError};
use super::super::limits::{
    self, Candidate, Governed, Limits, MOST_FOUND, MOST_KEYS, MOST_OF_KEY, MOST_PRIORITIES, Pick, Plan, Rate, Searches,
    Stored,
};
use super::super::names::sql;
use super::connection::failed;
use super::ready::{self, Ready};
use super::{millis, types};

/// A key as the database has it: one that isn't UTF-8 is a key, too.
type LaneKey = Vec<u8>;

const DOING: &str = "looking at limits";

/// Gives the type `name` these limits in place of others; `None` takes them away. Returns whether
/// it had some. It also sets or clears bit 4 of the type's `paused`: if set, only claims that look
/// at limits take its tasks. `UnknownType`. For a write transaction.
pub(super) fn put(db: &Connection, now: i64, name: &str, limits: Option<Limits>) -> Result<bool> {
    let doing = "setting limits";
    let of_type = types::find(db, name)?.ok_or_else(|| TaskError::UnknownType(name.to_owned()))?;
    let had = db
        .prepare_cached("SELECT 1 FROM fulmar_limit WHERE type_id = ?1")
        .and_then(|mut sql| sql.exists([of_type]))
        .map_err(failed(doing))?;
    let Some(limits) = limits else {
        remove(db, of_type)?;
        return Ok(had);
    };
    let parts = |rate: Option<Rate>| {
        (rate.map(|rate| rate.starts), rate.map(|rate| millis(rate.period)), rate.map(|rate| rate.burst))
    };
    let ((starts, period, burst), (key_starts, key_period, key_burst)) = (parts(limits.rate), parts(limits.key_rate));
    db.execute(
        "INSERT INTO fulmar_limit (type_id, key_at_once, starts, period, burst, key_starts, key_period, key_burst, turns, ageing)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (type_id) DO UPDATE SET key_at_once = ?2, starts = ?3, period = ?4, burst = ?5, key_starts = ?6,
             key_period = ?7, key_burst = ?8, turns = ?9, ageing = ?10",
        params![
            of_type,
            limits.key_at_once,
            starts,
            period,
            burst,
            key_starts,
            key_period,
            key_burst,
            limits.turns,
            limits.ageing.map(millis)
        ],
    )
    .and_then(|_| db.execute("UPDATE fulmar_task_type SET paused = paused | 4 WHERE id = ?1", [of_type]))
    .map_err(failed(doing))?;
    // Buckets that a slower rate has moved far ahead would hold tasks back for longer than the new
    // rate does.
    shorten(db, now, of_type, &limits)?;
    Ok(had)
}

/// Takes the limits of a type away.
pub(super) fn remove(db: &Connection, of_type: i64) -> Result<()> {
    for sql in [
        "DELETE FROM fulmar_limit WHERE type_id = ?1",
        "DELETE FROM fulmar_limit_key WHERE type_id = ?1",
        "UPDATE fulmar_task_type SET paused = paused & ~4 WHERE id = ?1",
    ] {
        db.execute(sql, [of_type]).map_err(failed("removing limits"))?;
    }
    Ok(())
}

const LIMITS: &str =
    "l.key_at_once, l.starts, l.period, l.burst, l.key_starts, l.key_period, l.key_burst, l.turns, l.ageing";

pub(super) fn all(db: &Connection) -> Result<Vec<(String, Option<Limits>)>> {
    let mut sql = db
        .prepare_cached(&format!(
            "SELECT {LIMITS}, y.name FROM fulmar_limit l JOIN fulmar_task_type y ON y.id = l.type_id ORDER BY y.name"
        ))
        .map_err(failed(DOING))?;
    let rows = sql.query_map([], |row| Ok((types::name(row, 9)?, read(row))));
    rows.and_then(Iterator::collect).map_err(failed(DOING))
}

/// The columns of [`LIMITS`]; `None` if they make no sense.
fn read(row: &Row<'_>) -> Option<Limits> {
    let number = |column: usize| row.get::<_, Option<i64>>(column).ok();
    let rate = |first: usize| Some([number(first)?, number(first + 1)?, number(first + 2)?]);
    let turns = row.get(7).ok()?;
    let stored = Stored { key_at_once: number(0)?, rate: rate(1)?, key_rate: rate(4)?, turns, ageing: number(8)? };
    stored.limits()
}

/// A type with limits, and the key that had the last turn.
#[derive(Clone)]
pub(super) struct Limited {
    governed: Governed,
    turn: Option<LaneKey>,
}

impl Limited {
    pub(super) fn type_id(&self) -> i64 {
        self.governed.type_id
    }
}

/// Those of the types in `names`, which are sorted, that have limits and are not paused.
pub(super) fn of(db: &Connection, names: &[String]) -> Result<Vec<Limited>> {
    // CROSS JOIN: SQLite then reads the limits first and looks their types up, never the reverse.
    // Mostly no type has limits, and each claim would read all types for nothing.
    let mut sql = db
        .prepare_cached(&format!(
            "SELECT {LIMITS}, y.id, y.name, y.at_once, l.next_at, l.turn
             FROM fulmar_limit l CROSS JOIN fulmar_task_type y ON y.id = l.type_id WHERE y.paused & 3 = 0"
        ))
        .map_err(failed(DOING))?;
    let rows = sql.query_map([], |row| {
        // Nothing of a type whose limits make no sense is taken: `stats` tells of it.
        let Some(limits) = read(row) else { return Ok(None) };
        // A claim shortens a bucket that is no number, as one that lies too far ahead.
        let bucket = row.get(12).unwrap_or(i64::MAX);
        // `room` comes below, for those types alone that the caller asked for.
        let governed = Governed { type_id: row.get(9)?, limits, room: i64::MAX, bucket };
        let limited = Limited { governed, turn: key(row.get_ref(13)?) };
        Ok(Some((types::name(row, 10)?, types::at_once(row, 11), limited)))
    });
    let found: Vec<_> = rows.and_then(|rows| rows.filter_map(Result::transpose).collect()).map_err(failed(DOING))?;
    let mut limited = Vec::new();
    for (name, at_once, mut one) in found {
        if ready::is_among(names, &name) {
            one.governed.room = ready::room(db, one.governed.type_id, at_once)?;
            limited.push(one);
        }
    }
    Ok(limited)
}

fn micros(now: i64) -> i64 {
    now.saturating_mul(1_000)
}

/// A task that is chosen. If its type has limits: the place of that type in the list, and what the
/// task spends of them.
type Chosen = (Ready, Option<(usize, Pick<LaneKey>)>);

/// The first tasks, in one order, of the types whose limits let them pass, and of `free`, the tasks
/// of types without limits. What it returns is spent: the limits count those tasks as taken. Types
/// whose short look found too few go into `cut`, for a [`search`].
pub(super) fn first(
    db: &Connection,
    now: i64,
    mut limited: Vec<Limited>,
    free: Vec<Ready>,
    limit: usize,
    found: &[i64],
    cut: &mut Vec<Limited>,
) -> Result<Vec<Ready>> {
    let mut sequences: Vec<Vec<Chosen>> = Vec::new();
    for (at, one) in limited.iter_mut().enumerate() {
        let Governed { type_id, limits, bucket, .. } = &mut one.governed;
        shorten(db, now, *type_id, limits)?;
        *bucket = limits.rate.map_or(*bucket, |rate| rate.furthest(micros(now)).min(*bucket));
        let plan = plan(db, now, one, limit, found)?;
        if plan.is_cut {
            cut.push(one.clone());
        }
        let picks = plan.picks;
        let ready = |pick: Pick<LaneKey>| (Ready { id: pick.id, priority: pick.priority }, Some((at, pick)));
        sequences.push(picks.into_iter().map(ready).collect());
    }
    sequences.push(free.into_iter().map(|ready| (ready, None)).collect());
    let merged = limits::merge(sequences, limit, |(ready, _)| (Reverse(ready.priority), ready.id));
    for (at, one) in limited.iter().enumerate() {
        let picks: Vec<&Pick<LaneKey>> = merged
            .iter()
            .filter_map(|(_, pick)| pick.as_ref())
            .filter(|(of, _)| *of == at)
            .map(|(_, pick)| pick)
            .collect();
        spend(db, now, one, &picks)?;
    }
    Ok(merged.into_iter().map(|(ready, _)| ready).collect())
}

/// Shortens buckets whose times lie too far ahead.
fn shorten(db: &Connection, now: i64, of_type: i64, limits: &Limits) -> Result<()> {
    for (table, rate) in [("fulmar_limit", limits.rate), ("fulmar_limit_key", limits.key_rate)] {
        let Some(rate) = rate else { continue };
        db.prepare_cached(&format!("UPDATE {table} SET next_at = ?2 WHERE type_id = ?1 AND next_at > ?2"))
            .and_then(|mut sql| sql.execute([of_type, rate.furthest(micros(now))]))
            .map_err(failed(DOING))?;
    }
    Ok(())
}

/// Counts the tasks `picks`, which a claim takes, against the limits of their type: moves on the
/// buckets of the type and of their keys, and notes the key that had the last turn. Deletes buckets
/// of keys that are full again. `now` is in milliseconds. For the claim's transaction.
fn spend(db: &Connection, now: i64, one: &Limited, picks: &[&Pick<LaneKey>]) -> Result<()> {
    if picks.is_empty() {
        return Ok(());
    }
    let Governed { type_id, limits, .. } = one.governed;
    let turn = picks.iter().rev().find_map(|pick| pick.key.as_ref());
    db.prepare_cached(
        "UPDATE fulmar_limit SET next_at = ?2, turn = coalesce(CAST(?3 AS TEXT), turn) WHERE type_id = ?1",
    )
    .and_then(|mut sql| sql.execute(params![type_id, one.governed.spent(micros(now), picks.len()), turn]))
    .map_err(failed(DOING))?;
    if limits.key_rate.is_none() {
        return Ok(());
    }
    for pick in picks {
        let Some(key) = &pick.key else { continue };
        db.prepare_cached(
            "INSERT INTO fulmar_limit_key (type_id, key, next_at) VALUES (?1, CAST(?2 AS TEXT), ?3)
             ON CONFLICT (type_id, key) DO UPDATE SET next_at = ?3",
        )
        .and_then(|mut sql| sql.execute(params![type_id, key, pick.key_bucket]))
        .map_err(failed(DOING))?;
    }
    // Delete more buckets that are full again than were written now, so that the table doesn't
    // grow. Keep those of keys with ready tasks: a look for keys that are free again begins with
    // them.
    db.prepare_cached(
        sql!("DELETE FROM fulmar_limit_key WHERE type_id = ?1 AND key IN (
             SELECT k.key FROM fulmar_limit_key k WHERE k.type_id = ?1 AND k.next_at <= ?2
                 AND NOT EXISTS (SELECT 1 FROM fulmar_task t WHERE t.gate = {gate_open} AND t.type_id = ?1 AND t.lane = k.key AND t.lane IS NOT NULL)
             ORDER BY k.next_at LIMIT ?3)"),
    )
    .and_then(|mut sql| sql.execute(params![type_id, micros(now), 2 * picks.len() + 10]))
    .map_err(failed(DOING))?;
    Ok(())
}

/// Which tasks of a type may be taken now; with those that a search has found.
fn plan(db: &Connection, now: i64, one: &Limited, limit: usize, found: &[i64]) -> Result<Plan<LaneKey>> {
    let Governed { type_id, limits, .. } = one.governed;
    let want = one.governed.most(micros(now), limit);
    if want == 0 {
        return Ok(one.governed.plan(micros(now), Vec::new(), &HashMap::new(), 0));
    }
    let held = if limits.is_by_key() { held(db, type_id)? } else { HashMap::new() };
    let mut look = Look { db, now, governed: &one.governed, held: &held, want, found: Vec::new() };
    let mut is_all = false;
    if !limits.turns {
        is_all = look.at_first()?;
        let plan = one.governed.plan(micros(now), look.found.clone(), &held, want);
        if plan.picks.len() >= want || !limits.is_by_key() || is_all {
            return Ok(plan);
        }
    }
    look.go_from_key_to_key(one.turn.as_deref())?;
    look.at_keys_that_are_free_again()?;
    look.at_found(found)?;
    if limits.turns {
        is_all = look.at_first()?;
    }
    let mut plan = one.governed.plan(micros(now), look.found, &held, want);
    plan.is_cut = !is_all && plan.picks.len() < want;
    Ok(plan)
}

/// When a task of these types may pass, in milliseconds: now, or when a rate lets it.
pub(super) fn next(db: &Connection, now: i64, names: &[String], searches: &Searches) -> Result<Option<i64>> {
    let mut next = None;
    for one in of(db, names)? {
        let plan = plan(db, now, &one, 1, &[])?;
        let at = match plan.picks.first() {
            Some(_) => Some(now),
            // Rounded up: a look that comes too early finds nothing.
            None => plan.next.map(|at| at.saturating_add(999) / 1_000),
        };
        next = next.into_iter().chain(at).min();
        if plan.is_cut && plan.picks.is_empty() {
            let search = searches.next(one.governed.type_id).map(|wait| now.saturating_add(millis(wait)));
            next = next.into_iter().chain(search).chain(next_free(db, now, &one.governed)?).min();
        }
    }
    Ok(next)
}

/// When the first of the keys that wait for their rate has a token again, in milliseconds; `None`
/// without such a key.
fn next_free(db: &Connection, now: i64, one: &Governed) -> Result<Option<i64>> {
    let Some(rate) = one.limits.key_rate else { return Ok(None) };
    let free_until = micros(now).saturating_add(rate.tolerance());
    let next = db
        .prepare_cached("SELECT min(next_at) FROM fulmar_limit_key WHERE type_id = ?1 AND next_at > ?2")
        .and_then(|mut sql| sql.query_row([one.type_id, free_until], |row| Ok(row.get(0).unwrap_or(None))))
        .map_err(failed(DOING))?;
    Ok(next.map(|at: i64| at.saturating_sub(rate.tolerance()).saturating_add(999) / 1_000))
}

/// Finds tasks that a claim's short look misses, because too many tasks that are held back stand in
/// front: the first tasks without a key, and the first task of each key that nothing holds back.
/// The keys begin behind the one that had the last turn.
///
/// This may read every waiting task of the type, so it runs on a reading connection: the writing
/// one would be blocked meanwhile.
pub(super) fn search(db: &Connection, now: i64, one: &Limited) -> Result<Vec<i64>> {
    let Governed { type_id, limits, .. } = one.governed;
    let mut sql = db
        .prepare_cached(sql!(
            "SELECT id FROM fulmar_task WHERE gate = {gate_open} AND type_id = ?1 AND lane IS NULL
             ORDER BY priority DESC, id LIMIT ?2"
        ))
        .map_err(failed(DOING))?;
    let rows = sql.query_map([type_id, MOST_FOUND], |row| row.get(0));
    let mut found: Vec<i64> = rows.and_then(Iterator::collect).map_err(failed(DOING))?;
    let until = limits.key_rate.map(|rate| micros(now).saturating_add(rate.tolerance()));
    let mut sql = db.prepare_cached(FREE_KEYS).map_err(failed(DOING))?;
    for (from, place) in [(one.turn.as_deref(), 1), (None, 0)] {
        // No key has had a turn yet: the pass from the first key on is all there is.
        if place == 1 && from.is_none() {
            continue;
        }
        let missing = MOST_FOUND - ready::count(found.len());
        let rows = sql.query_map(params![type_id, limits.key_at_once, from, until, missing.max(0)], |row| {
            row.get::<_, Option<i64>>(0)
        });
        for id in rows.map_err(failed(DOING))? {
            found.extend(id.map_err(failed(DOING))?);
        }
    }
    Ok(found)
}

/// `?1` the type, `?2` how many of a key at once, `?3` the key behind which it begins, `?4` the
/// bucket's time up to which a key has a token, `?5` how many. SQLite stops at the limit.
const FREE_KEYS: &str = sql!(
    "WITH RECURSIVE
     held (lane) AS MATERIALIZED (
         SELECT lane FROM fulmar_task WHERE worker IS NOT NULL AND +type_id = ?1 AND lane IS NOT NULL
         GROUP BY lane HAVING count(*) >= ?2),
     keys (lane) AS (
         SELECT coalesce((SELECT lane FROM fulmar_task WHERE gate = {gate_open} AND lane IS NOT NULL AND type_id = ?1
             AND ?3 IS NOT NULL AND lane > CAST(?3 AS TEXT) ORDER BY lane LIMIT 1),
             (SELECT lane FROM fulmar_task WHERE gate = {gate_open} AND lane IS NOT NULL AND type_id = ?1 AND ?3 IS NULL
             ORDER BY lane LIMIT 1))
         UNION ALL SELECT (SELECT t.lane FROM fulmar_task t WHERE t.gate = {gate_open} AND t.lane IS NOT NULL AND t.type_id = ?1
             AND t.lane > keys.lane ORDER BY t.lane LIMIT 1) FROM keys WHERE keys.lane IS NOT NULL)
     SELECT (SELECT t.id FROM fulmar_task t WHERE t.gate = {gate_open} AND t.lane IS NOT NULL AND t.type_id = ?1
             AND t.lane = keys.lane ORDER BY t.priority DESC, t.id LIMIT 1)
     FROM keys WHERE keys.lane IS NOT NULL AND (?2 IS NULL OR keys.lane NOT IN held)
         AND (?4 IS NULL OR NOT EXISTS (SELECT 1 FROM fulmar_limit_key k
             WHERE k.type_id = ?1 AND k.key = keys.lane AND k.next_at > ?4))
     LIMIT ?5"
);

/// How many tasks of each key workers hold.
fn held(db: &Connection, type_id: i64) -> Result<HashMap<LaneKey, i64>> {
    let mut sql = db
        .prepare_cached(
            "SELECT lane, count(*) FROM fulmar_task WHERE worker IS NOT NULL AND +type_id = ?1 AND lane IS NOT NULL GROUP BY lane",
        )
        .map_err(failed(DOING))?;
    let rows = sql.query_map([type_id], |row| Ok((key(row.get_ref(0)?).unwrap_or_default(), row.get(1)?)));
    rows.and_then(Iterator::collect).map_err(failed(DOING))
}

fn key(value: ValueRef<'_>) -> Option<LaneKey> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}

/// What a claim finds of one type.
struct Look<'a> {
    db: &'a Connection,
    now: i64,
    governed: &'a Governed,
    held: &'a HashMap<LaneKey, i64>,
    want: usize,
    found: Vec<Candidate<LaneKey>>,
}

/// `?1` the type, `?2` now; then what chooses them.
macro_rules! candidates {
    ($which:literal) => {
        sql!(
            "SELECT t.id, CAST(t.priority AS INTEGER), t.lane, ?2 - max(CAST(t.run_at AS INTEGER), 0),
                 (SELECT k.next_at FROM fulmar_limit_key k WHERE k.type_id = ?1 AND k.key = t.lane)
             FROM fulmar_task t WHERE t.gate = {gate_open} AND t.type_id = ?1 AND ",
            $which
        )
    };
}

impl Look<'_> {
    /// The first tasks of the type; where priority ages, of each priority. True: those are all.
    fn at_first(&mut self) -> Result<bool> {
        let before = self.found.len();
        let front = limits::front(ready::count(self.want));
        if self.governed.limits.ageing.is_none() {
            self.add(candidates!("true ORDER BY t.priority DESC, t.id LIMIT ?3"), &[&front])?;
        } else {
            let each = if self.governed.limits.is_by_key() { front } else { ready::count(self.want) };
            for priority in self.priorities(None)? {
                self.add(candidates!("t.priority = ?3 ORDER BY t.id LIMIT ?4"), &[&priority, &each])?;
            }
        }
        Ok(ready::count(self.found.len() - before) < front)
    }

    /// Those of the tasks that a search has found that are still ready.
    fn at_found(&mut self, found: &[i64]) -> Result<()> {
        found.iter().try_for_each(|id| self.add(candidates!("t.id = ?3"), &[id]))
    }

    /// The keys behind the one that had the last turn, and then those before it: as many as are
    /// wanted and not held back.
    fn go_from_key_to_key(&mut self, turn: Option<&[u8]>) -> Result<()> {
        let (mut at, mut has_wrapped, mut free) = (turn.map(<[u8]>::to_vec), turn.is_none(), 0);
        for _ in 0..MOST_KEYS {
            let Some(next) = self.key_behind(at.as_deref())? else {
                if has_wrapped {
                    return Ok(());
                }
                (at, has_wrapped) = (None, true);
                continue;
            };
            if has_wrapped && turn.is_some_and(|turn| next.as_slice() > turn) {
                return Ok(());
            }
            free += usize::from(self.look_at_key(&next)?);
            if free >= self.want {
                return Ok(());
            }
            at = Some(next);
        }
        Ok(())
    }

    /// The next key in the order of keys that has a ready task; the first of all without
    /// `key_before`.
    fn key_behind(&self, key_before: Option<&[u8]>) -> Result<Option<LaneKey>> {
        let sql = match key_before {
            // `?2 IS NULL` is always true here: it gives both statements the same parameters.
            None => {
                sql!("SELECT lane FROM fulmar_task WHERE gate = {gate_open} AND lane IS NOT NULL AND type_id = ?1 AND ?2 IS NULL
                     ORDER BY lane LIMIT 1")
            }
            // The key is bound as bytes, for it may not be UTF-8. Without the cast SQLite compares
            // by type first, where each text is less than each blob.
            Some(_) => {
                sql!("SELECT lane FROM fulmar_task WHERE gate = {gate_open} AND lane IS NOT NULL AND type_id = ?1 AND lane > CAST(?2 AS TEXT)
                     ORDER BY lane LIMIT 1")
            }
        };
        let mut sql = self.db.prepare_cached(sql).map_err(failed(DOING))?;
        let found = sql.query_row(params![self.governed.type_id, key_before], |row| Ok(key(row.get_ref(0)?)));
        Ok(found.optional().map_err(failed(DOING))?.flatten())
    }

    /// Keys of which the rate lets tasks pass again, those first that wait the longest.
    fn at_keys_that_are_free_again(&mut self) -> Result<()> {
        let Some(rate) = self.governed.limits.key_rate else { return Ok(()) };
        let mut sql = self
            .db
            .prepare_cached(
                "SELECT key FROM fulmar_limit_key WHERE type_id = ?1 AND next_at <= ?2 ORDER BY next_at LIMIT ?3",
            )
            .map_err(failed(DOING))?;
        let until = micros(self.now).saturating_add(rate.tolerance());
        let most = limits::front(ready::count(self.want));
        let keys = sql.query_map([self.governed.type_id, until, most], |row| Ok(key(row.get_ref(0)?)));
        let keys: Vec<_> = keys.and_then(Iterator::collect).map_err(failed(DOING))?;
        for key in keys.into_iter().flatten() {
            self.look_at_key(&key)?;
        }
        Ok(())
    }

    /// Whether a task of the key may pass.
    fn look_at_key(&mut self, key: &LaneKey) -> Result<bool> {
        let limits = self.governed.limits;
        let held = self.held.get(key).copied().unwrap_or(0);
        if limits.key_at_once.is_some_and(|most| held >= i64::from(most)) {
            return Ok(false);
        }
        let most = ready::count(self.want).min(MOST_OF_KEY);
        let before = self.found.len();
        if limits.ageing.is_none() {
            let sql =
                candidates!("t.lane = CAST(?3 AS TEXT) AND t.lane IS NOT NULL ORDER BY t.priority DESC, t.id LIMIT ?4");
            self.add(sql, &[key, &most])?;
        } else {
            for priority in self.priorities(Some(key))? {
                let sql = candidates!(
                    "t.lane = CAST(?3 AS TEXT) AND t.lane IS NOT NULL AND t.priority = ?4 ORDER BY t.id LIMIT ?5"
                );
                self.add(sql, &[key, &priority, &most])?;
            }
        }
        let until = micros(self.now).saturating_add(limits.key_rate.map_or(0, Rate::tolerance));
        Ok(self.found.get(before).is_some_and(|first| first.bucket <= until))
    }

    /// The different priorities of what waits, of the type or of one key, from the highest on.
    fn priorities(&self, key: Option<&LaneKey>) -> Result<Vec<i64>> {
        let sql = match key {
            None => sql!(
                "SELECT max(priority) FROM fulmar_task WHERE gate = {gate_open} AND type_id = ?1 AND priority < ?2"
            ),
            Some(_) => {
                sql!("SELECT max(priority) FROM fulmar_task WHERE gate = {gate_open} AND type_id = ?1 AND lane = CAST(?3 AS TEXT)
                     AND lane IS NOT NULL AND priority < ?2")
            }
        };
        let (mut found, mut last) = (Vec::new(), i64::MAX);
        let mut sql = self.db.prepare_cached(sql).map_err(failed(DOING))?;
        while ready::count(found.len()) < MOST_PRIORITIES {
            let next: Option<i64> = match key {
                None => sql.query_row([self.governed.type_id, last], |row| Ok(types::number(row, 0))),
                Some(key) => sql.query_row(params![self.governed.type_id, last, key], |row| Ok(types::number(row, 0))),
            }
            .map_err(failed(DOING))?;
            let Some(next) = next else { break };
            found.push(next);
            last = next;
        }
        Ok(found)
    }

    /// Adds the tasks that a statement of `candidates!` gives to those found. `more` are its
    /// parameters from `?3` on.
    fn add(&mut self, sql: &str, more: &[&dyn rusqlite::ToSql]) -> Result<()> {
        let mut sql = self.db.prepare_cached(sql).map_err(failed(DOING))?;
        let (type_id, now) = (self.governed.type_id, self.now);
        let mut all: Vec<&dyn rusqlite::ToSql> = vec![&type_id, &now];
        all.extend_from_slice(more);
        let rows = sql.query_map(&*all, |row| {
            Ok(Candidate {
                id: row.get(0)?,
                priority: row.get(1)?,
                key: key(row.get_ref(2)?),
                waited: row.get(3)?,
                bucket: row.get::<_, Option<i64>>(4).unwrap_or_default().unwrap_or(0),
            })
        });
        for row in rows.map_err(failed(DOING))? {
            self.found.push(row.map_err(failed(DOING))?);
        }
        Ok(())
    }
}

/// Moves buckets back: for tests.
pub(super) fn pass_time(db: &Connection, time: Duration) -> Result<()> {
    for table in ["fulmar_limit", "fulmar_limit_key"] {
        db.execute(&format!("UPDATE {table} SET next_at = next_at - ?1"), [micros(millis(time))])
            .map_err(failed("letting time pass"))?;
    }
    Ok(())
}
