//! Limits of types: which of their tasks may be taken.
//!
//! A claim of a type with limits takes the lock of that type and holds it until it commits; a claim
//! of a type that only has a limit at once takes the same lock. So until the commit no other claim
//! adds to the tasks that this one has counted. Then it chooses from candidates, which two
//! functions of the schema find. `fulmar_first` gives a bounded number of the type's first tasks.
//! `fulmar_by_key` goes from key to key, and reads no tasks of a key that a limit holds back. If
//! these give too few, a [search](search) without a lock goes through all keys, and the claim is
//! made once more with what it found.
//!
//! No key is read from the server: one that isn't UTF-8 could not be read, so a hash stands for
//! each key.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::super::engine::Claimed;
use super::super::error::TaskError;
use super::super::limits::{
    self, Candidate, Governed, Limits, MOST_FOUND, MOST_KEYS, MOST_OF_KEY, MOST_PRIORITIES, Pick, Plan, Rate, Searches,
    Stored,
};
use super::super::names::sql;
use super::claim::{ALONG, Wish, read as read_claimed, take, taken};
use super::connection::{Connection, Row};
use super::error::PgError;
use super::fault::Fault;
use super::sql::{now, then, trail};
use super::value::Param;
use super::{lanes, millis, types};

/// Gives the type `name` these limits in place of others; `None` takes them away. Returns whether
/// it had some. A transaction of its own. It also sets or clears bit 4 of the type's `paused`: if
/// set, only claims that look at limits take its tasks. `UnknownType`.
pub(super) fn put(db: &mut Connection, name: &str, limits: Option<Limits>) -> Result<bool, Fault> {
    let mut tx = db.begin()?;
    let sql = "SELECT id FROM fulmar_task_type WHERE name = $1::text FOR NO KEY UPDATE";
    let rows = tx.query(sql, &[name.into()])?;
    let of_type: i64 = rows.first().ok_or_else(|| TaskError::UnknownType(name.to_owned()))?.get(0)?;
    let rows = tx.query("SELECT EXISTS (SELECT 1 FROM fulmar_limit WHERE type_id = $1::int8)", &[of_type.into()])?;
    let had = rows.only()?.get(0)?;
    let Some(limits) = limits else {
        remove(&mut tx, of_type)?;
        tx.commit()?;
        return Ok(had);
    };
    let parts = |rate: Option<Rate>| {
        let of = |part: fn(Rate) -> i64| Param::from(rate.map(part));
        [of(|rate| i64::from(rate.starts)), of(|rate| millis(rate.period)), of(|rate| i64::from(rate.burst))]
    };
    let ([starts, period, burst], [key_starts, key_period, key_burst]) = (parts(limits.rate), parts(limits.key_rate));
    tx.execute(
        "INSERT INTO fulmar_limit (type_id, key_at_once, starts, period, burst, key_starts, key_period, key_burst, turns, ageing)
         VALUES ($1::int8, $2::int8, $3::int8, $4::int8, $5::int8, $6::int8, $7::int8, $8::int8, $9::bool, $10::int8)
         ON CONFLICT (type_id) DO UPDATE SET key_at_once = excluded.key_at_once, starts = excluded.starts,
             period = excluded.period, burst = excluded.burst, key_starts = excluded.key_starts,
             key_period = excluded.key_period, key_burst = excluded.key_burst, turns = excluded.turns, ageing = excluded.ageing",
        &[
            of_type.into(),
            limits.key_at_once.map(i64::from).into(),
            starts,
            period,
            burst,
            key_starts,
            key_period,
            key_burst,
            limits.turns.into(),
            limits.ageing.map(millis).into(),
        ],
    )?;
    let sql = "UPDATE fulmar_task_type SET paused = paused | 4 WHERE id = $1::int8
         RETURNING floor(date_part('epoch', clock_timestamp()) * 1000000)::int8";
    let now = tx.query(sql, &[of_type.into()])?.only()?.get(0)?;
    // Buckets that a slower rate has moved far ahead would hold tasks back for longer than the new
    // rate does.
    shorten(&mut tx, now, of_type, &limits)?;
    tx.commit()?;
    Ok(had)
}

/// For a transaction: takes the limits of a type away.
pub(super) fn remove(db: &mut Connection, of_type: i64) -> Result<(), PgError> {
    for sql in [
        "DELETE FROM fulmar_limit WHERE type_id = $1::int8",
        "DELETE FROM fulmar_limit_key WHERE type_id = $1::int8",
        "UPDATE fulmar_task_type SET paused = paused & ~4 WHERE id = $1::int8",
    ] {
        db.execute(sql, &[of_type.into()])?;
    }
    Ok(())
}

/// `l` the limits, `y` the type.
macro_rules! limits {
    () => {
        "l.key_at_once, l.starts, l.period, l.burst, l.key_starts, l.key_period, l.key_burst, l.turns, l.ageing"
    };
}

pub(super) fn all(db: &mut Connection) -> Result<Vec<(String, Option<Limits>)>, Fault> {
    let rows = db.query(
        sql!(
            "SELECT ",
            limits!(),
            ", y.name FROM fulmar_limit l JOIN fulmar_task_type y ON y.id = l.type_id ORDER BY y.name COLLATE \"C\""
        ),
        &[],
    )?;
    rows.iter().map(|row| Ok((row.get::<Cow<'_, str>>(9)?.into_owned(), read(row)?))).collect()
}

/// The columns of [`limits!`]: empty limits for a type that has no row of them, and `None` for a
/// row that makes no sense.
fn read(row: Row<'_>) -> Result<Option<Limits>, Fault> {
    let number = |column| row.get::<Option<i64>>(column);
    let rate = |first: usize| Ok::<_, PgError>([number(first)?, number(first + 1)?, number(first + 2)?]);
    let turns = row.get::<Option<bool>>(7)?.unwrap_or(false);
    let stored = Stored { key_at_once: number(0)?, rate: rate(1)?, key_rate: rate(4)?, turns, ageing: number(8)? };
    Ok(stored.limits())
}

/// What a claim knows of the types with limits that it may take tasks of: read by `know`.
struct Known {
    /// The server's clock, in microseconds since 1970; 0 if there is no such type.
    now: i64,
    /// The types: their limits, how many more tasks workers may hold, and the bucket of the rate.
    limited: Vec<Governed>,
    /// How many tasks workers hold: by the number of the type, then by the hash of the key.
    held: HashMap<i64, HashMap<i64, i64>>,
}

/// Claims tasks of the types `names`, at least one of which has limits, until `taken` has as many
/// as `wish` asks for. If it finds too few of a type, it claims what a search past all that the
/// limits hold back has found (`Searches`). The worker holds the tasks in `taken` even if this
/// returns an error.
pub(super) fn take(
    db: &mut Connection,
    wish: Wish<'_>,
    names: &[&str],
    searches: &Searches,
    taken: &mut Vec<(i64, Claimed)>,
) -> Result<(), Fault> {
    for one in take_found(db, wish, names, &[], taken)? {
        let wanted = wish.limit.saturating_sub(taken.len());
        let found = searches.take(one.type_id, wanted, || search(db, &one))?;
        if !found.is_empty() {
            let before = taken.len();
            take_found(db, wish, names, &found, taken)?;
            if taken.len() >= wish.limit {
                let is_left = |id: &i64| !taken[before..].iter().any(|(_, claimed)| claimed.id == *id);
                searches.put_back(one.type_id, found.into_iter().filter(is_left));
            }
        }
    }
    Ok(())
}

/// Claims tasks of the types `names` in one transaction, and adds them to `taken`. It chooses among
/// the first tasks of each type and the tasks `found`, which a search has given. The number beside
/// a task is its place in that choice. Returns the types of which it chose too few and hasn't seen
/// all ready tasks: there a search may find more.
fn take_found(
    db: &mut Connection,
    wish: Wish<'_>,
    names: &[&str],
    found: &[i64],
    taken: &mut Vec<(i64, Claimed)>,
) -> Result<Vec<Governed>, Fault> {
    let limit = wish.limit.saturating_sub(taken.len());
    let mut tx = db.begin()?;
    let sql =
        "SELECT id FROM fulmar_task_type WHERE name = ANY($1::text[]) AND (at_once IS NOT NULL OR paused & 4 <> 0)";
    let rows = tx.query(sql, &[Param::Texts(names)])?;
    let locked: Vec<i64> = rows.iter().map(|row| row.get(0)).collect::<Result<_, PgError>>()?;
    lanes::lock_types(&mut tx, &locked)?;
    let mut known = know(&mut tx, names, Some(&locked))?;
    for one in &mut known.limited {
        shorten(&mut tx, known.now, one.type_id, &one.limits)?;
        one.bucket = one.limits.rate.map_or(one.bucket, |rate| rate.furthest(known.now).min(one.bucket));
    }
    let mut sequences = vec![free(&mut tx, names, limit)?];
    let mut cut = Vec::new();
    for (at, one) in known.limited.iter().enumerate() {
        let plan = plan(&mut tx, &known, one, limit, found)?;
        cut.extend(plan.is_cut.then_some(*one));
        sequences.push(plan.picks.into_iter().map(|pick| (Some(at), pick)).collect());
    }
    let chosen = limits::merge(sequences, limit, |(_, pick)| (Reverse(pick.priority), pick.id));
    let ids: Vec<i64> = chosen.iter().map(|(_, pick)| pick.id).collect();
    if ids.is_empty() {
        tx.commit()?;
        return Ok(cut);
    }
    let rows = tx.query(
        sql!(
            take!(),
            "(ARRAY(SELECT id FROM fulmar_task WHERE gate = {gate_open} AND id = ANY($5::int8[])
                 ORDER BY rank, id LIMIT $4::int8 FOR UPDATE SKIP LOCKED))",
            taken!()
        ),
        &[
            wish.worker.as_str().into(),
            millis(wish.lease).into(),
            ALONG.into(),
            i64::try_from(limit).unwrap_or(i64::MAX).into(),
            Param::Ints(&ids),
        ],
    )?;
    let got: HashSet<i64> = rows.iter().map(|row| row.get(1)).collect::<Result<_, PgError>>()?;
    for (at, one) in known.limited.iter().enumerate() {
        let of_type = chosen.iter().filter(|(of, pick)| *of == Some(at) && got.contains(&pick.id));
        spend(&mut tx, known.now, one, &of_type.map(|(_, pick)| pick).collect::<Vec<_>>())?;
    }
    tx.commit()?;
    let before = taken.len();
    read_claimed(db, &rows, taken)?;
    // The caller sorts by rank and number: what is chosen here has an order of its own.
    let place: HashMap<i64, i64> =
        (i64::try_from(before).unwrap_or(0)..).zip(&ids).map(|(place, id)| (*id, place)).collect();
    for (rank, claimed) in &mut taken[before..] {
        *rank = place.get(&claimed.id).copied().unwrap_or(*rank);
    }
    Ok(cut)
}

/// Reads what a claim has to know of those types of `names` that have limits: the limits, how many
/// more of their tasks workers may hold, the bucket of the rate, and how many tasks of each key
/// workers hold. Types that are unknown or paused, and those whose limits make no sense, are left
/// out, and the caller takes none of their tasks. Only reads.
///
/// `locked` are the numbers of the types whose locks the caller's transaction holds: other types
/// are left out, too, and no other claim takes tasks of these before that transaction ends. With
/// `None` all are read, and the answer may be out of date at once.
fn know(db: &mut Connection, names: &[&str], locked: Option<&[i64]>) -> Result<Known, Fault> {
    let rows = db.query(
        sql!(
            "SELECT ",
            limits!(),
            ", y.id, y.at_once, coalesce(l.next_at, 0), floor(date_part('epoch', clock_timestamp()) * 1000000)::int8
             FROM fulmar_task_type y LEFT JOIN fulmar_limit l ON l.type_id = y.id
             WHERE y.name = ANY($1::text[]) AND y.paused & 3 = 0 AND (y.at_once IS NOT NULL OR y.paused & 4 <> 0)
                 AND ($2::int8[] IS NULL OR y.id = ANY($2::int8[])) ORDER BY y.id"
        ),
        &[Param::Texts(names), locked.map_or(Param::Null, Param::Ints)],
    )?;
    let (mut limited, mut now) = (Vec::new(), 0);
    for row in rows.iter() {
        now = row.get(12)?;
        // No claim takes tasks of a type whose limits make no sense, as it isn't among `limited`:
        // `stats` warns of it.
        let Some(limits) = read(row)? else { continue };
        let room = row.get::<Option<i64>>(10)?.unwrap_or(i64::MAX);
        limited.push(Governed { type_id: row.get(9)?, limits, room, bucket: row.get(11)? });
    }
    let ids: Vec<i64> = limited.iter().map(|one| one.type_id).collect();
    let rows = db.query(
        "SELECT type_id, hashtextextended(lane, 0), count(*) FROM fulmar_task
         WHERE worker IS NOT NULL AND type_id = ANY($1::int8[]) GROUP BY 1, 2",
        &[Param::Ints(&ids)],
    )?;
    let mut held: HashMap<i64, HashMap<i64, i64>> = HashMap::new();
    for row in rows.iter() {
        let (of_type, key, count): (i64, Option<i64>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        limited
            .iter_mut()
            .filter(|one| one.type_id == of_type && one.room < i64::MAX)
            .for_each(|one| one.room -= count);
        if let Some(key) = key {
            held.entry(of_type).or_default().insert(key, count);
        }
    }
    Ok(Known { now, limited, held })
}

/// A task that is chosen, and of which of the types with limits it is.
type Chosen = (Option<usize>, Pick<i64>);

/// Lists the first ready tasks of those types of `names` that have no limits and aren't paused, by
/// priority and age: four times as many as `limit`, and 16. Locks none of them.
fn free(db: &mut Connection, names: &[&str], limit: usize) -> Result<Vec<Chosen>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = db.query(
        sql!("SELECT c.id, -c.rank::int8 FROM fulmar_task_type f CROSS JOIN LATERAL (
             SELECT id, rank FROM fulmar_task WHERE gate = {gate_open} AND type_id = f.id ORDER BY rank, id LIMIT $2::int8) AS c
         WHERE f.name = ANY($1::text[]) AND f.at_once IS NULL AND f.paused = 0 ORDER BY c.rank, c.id LIMIT $2::int8"),
        &[Param::Texts(names), limit.saturating_mul(4).saturating_add(16).into()],
    )?;
    let pick = |row: Row<'_>| Ok((None, Pick { id: row.get(0)?, priority: row.get(1)?, key: None, key_bucket: 0 }));
    rows.iter().map(pick).collect()
}

/// Shortens buckets whose times lie too far ahead.
fn shorten(db: &mut Connection, now: i64, of_type: i64, limits: &Limits) -> Result<(), PgError> {
    if let Some(rate) = limits.rate {
        let sql = "UPDATE fulmar_limit SET next_at = $2::int8 WHERE type_id = $1::int8 AND next_at > $2::int8";
        db.execute(sql, &[of_type.into(), rate.furthest(now).into()])?;
    }
    if let Some(rate) = limits.key_rate {
        let sql = "UPDATE fulmar_limit_key SET next_at = $2::int8 WHERE type_id = $1::int8 AND next_at > $2::int8";
        db.execute(sql, &[of_type.into(), rate.furthest(now).into()])?;
    }
    Ok(())
}

/// Counts the tasks `picks`, which a claim has taken, against the limits of their type: moves on
/// the buckets of the type and of their keys, and notes the key that had the last turn. Deletes
/// buckets of keys that are full again. `now` is in microseconds. For the claim's transaction,
/// which holds the type's lock.
fn spend(db: &mut Connection, now: i64, one: &Governed, picks: &[&Pick<i64>]) -> Result<(), PgError> {
    if picks.is_empty() || one.limits == Limits::new() {
        return Ok(());
    }
    let turn = picks.iter().rev().find(|pick| pick.key.is_some()).map(|pick| pick.id);
    db.execute(
        "UPDATE fulmar_limit SET next_at = $2::int8,
             turn = coalesce((SELECT lane FROM fulmar_task WHERE id = $3::int8), turn) WHERE type_id = $1::int8",
        &[one.type_id.into(), one.spent(now, picks.len()).into(), turn.into()],
    )?;
    if one.limits.key_rate.is_none() {
        return Ok(());
    }
    // Of the picks of one key the last one's bucket counts them all.
    let last: HashMap<i64, &Pick<i64>> = picks.iter().filter_map(|pick| Some((pick.key?, *pick))).collect();
    let (ids, buckets): (Vec<i64>, Vec<i64>) = last.values().map(|pick| (pick.id, pick.key_bucket)).unzip();
    db.execute(
        "INSERT INTO fulmar_limit_key (type_id, key, next_at)
         SELECT t.type_id, t.lane, n.next_at FROM unnest($1::int8[], $2::int8[]) AS n (id, next_at)
         JOIN fulmar_task t ON t.id = n.id WHERE t.lane IS NOT NULL
         ON CONFLICT (type_id, key) DO UPDATE SET next_at = excluded.next_at",
        &[Param::Ints(&ids), Param::Ints(&buckets)],
    )?;
    // Delete more buckets that are full again than were written now, so that the table doesn't
    // grow. Keep those of keys with ready tasks: a look for keys that are free again begins with
    // them.
    db.execute(
        sql!("DELETE FROM fulmar_limit_key d WHERE d.type_id = $1::int8 AND d.key = ANY(ARRAY(
             SELECT k.key FROM fulmar_limit_key k WHERE k.type_id = $1::int8 AND k.next_at <= $2::int8
                 AND (SELECT true FROM fulmar_task t WHERE t.gate = {gate_open} AND t.type_id = $1::int8 AND t.lane = k.key
                     AND t.lane IS NOT NULL LIMIT 1) IS NULL
             ORDER BY k.next_at LIMIT $3::int8))"),
        &[one.type_id.into(), now.into(), i64::try_from(2 * picks.len() + 10).unwrap_or(i64::MAX).into()],
    )?;
    Ok(())
}

/// Chooses which ready tasks of the type `one` a claim may take now, at most `limit`: among its
/// first tasks, the first tasks of key after key, and `more`, the numbers of tasks that a search
/// has found. `is_cut` in the plan says that these are too few, and that not all ready tasks were
/// seen. Only reads.
fn plan(db: &mut Connection, known: &Known, one: &Governed, limit: usize, more: &[i64]) -> Result<Plan<i64>, Fault> {
    let none = HashMap::new();
    let held = known.held.get(&one.type_id).unwrap_or(&none);
    let want = one.most(known.now, limit);
    if want == 0 {
        return Ok(one.plan(known.now, Vec::new(), held, 0));
    }
    let most = i64::try_from(want).unwrap_or(i64::MAX);
    let (mut found, mut is_all) = (Vec::new(), false);
    if !one.limits.turns {
        is_all = first(db, known, one, most, &mut found)?;
        let plan = one.plan(known.now, found.clone(), held, want);
        if plan.picks.len() >= want || !one.limits.is_by_key() || is_all {
            return Ok(plan);
        }
    }
    by_key(db, known, one, most, &mut found)?;
    by_id(db, known, one, more, &mut found)?;
    if one.limits.turns {
        is_all = first(db, known, one, most, &mut found)?;
    }
    let mut plan = one.plan(known.now, found, held, want);
    plan.is_cut = !is_all && plan.picks.len() < want;
    Ok(plan)
}

/// Adds the first ready tasks of the type to `found`; if priority ages, the first of each priority.
/// `true` if it got fewer than it asked for, so that these are all.
fn first(
    db: &mut Connection,
    known: &Known,
    one: &Governed,
    most: i64,
    found: &mut Vec<Candidate<i64>>,
) -> Result<bool, Fault> {
    let is_by_age = one.limits.ageing.is_some();
    let most = if is_by_age && !one.limits.is_by_key() { most } else { limits::front(most) };
    let rows = db.query(
        "SELECT id, -rank::int8, hashtextextended(key, 0), $5::int8 - greatest(waiting_since, 0), bucket
         FROM fulmar_first($1::int8, $2::int8, $3::bool, $4::int8)",
        &[one.type_id.into(), most.into(), is_by_age.into(), MOST_PRIORITIES.into(), (known.now / 1_000).into()],
    )?;
    rows.iter().try_for_each(|row| candidate(row).map(|candidate| found.push(candidate)))?;
    Ok(i64::try_from(rows.len()).is_ok_and(|rows| rows < most))
}

/// Adds the first ready tasks of one key after the other to `found`, beginning behind the key that
/// had the last turn. It passes over a key of which workers hold as many tasks as they may, and one
/// whose rate lets no task start now. It looks at a bounded number of keys.
fn by_key(
    db: &mut Connection,
    known: &Known,
    one: &Governed,
    most: i64,
    found: &mut Vec<Candidate<i64>>,
) -> Result<(), Fault> {
    let free_until = one.limits.key_rate.map(|rate| known.now.saturating_add(rate.tolerance()));
    let rows = db.query(
        "SELECT id, -rank::int8, hashtextextended(key, 0), $10::int8 - greatest(waiting_since, 0), bucket
         FROM fulmar_by_key($1::int8, $2::int8, $3::int8, $4::int8, $5::int8, $6::bool, $7::int8, $8::int8, $9::int8,
             (SELECT turn FROM fulmar_limit WHERE type_id = $1::int8))",
        &[
            one.type_id.into(),
            most.into(),
            MOST_KEYS.into(),
            most.min(MOST_OF_KEY).into(),
            limits::front(most).into(),
            one.limits.ageing.is_some().into(),
            MOST_PRIORITIES.into(),
            one.limits.key_at_once.map(i64::from).into(),
            free_until.into(),
            (known.now / 1_000).into(),
        ],
    )?;
    rows.iter().try_for_each(|row| candidate(row).map(|candidate| found.push(candidate)))
}

/// Adds to `found` those of the tasks `ids`, which a search has found, that are of this type and
/// still ready.
fn by_id(
    db: &mut Connection,
    known: &Known,
    one: &Governed,
    ids: &[i64],
    found: &mut Vec<Candidate<i64>>,
) -> Result<(), Fault> {
    if ids.is_empty() {
        return Ok(());
    }
    let rows = db.query(
        sql!(
            "SELECT t.id, -t.rank::int8, hashtextextended(t.lane, 0), $3::int8 - greatest(t.run_at, 0),
             (SELECT k.next_at FROM fulmar_limit_key k WHERE k.type_id = t.type_id AND k.key = t.lane)
             FROM fulmar_task t
             WHERE t.gate IS NOT DISTINCT FROM {gate_open} AND t.type_id + 0 = $1::int8 AND t.id = ANY($2::int8[])"
        ),
        &[one.type_id.into(), Param::Ints(ids), (known.now / 1_000).into()],
    )?;
    rows.iter().try_for_each(|row| candidate(row).map(|candidate| found.push(candidate)))
}

/// Lists up to `MOST_FOUND` ready tasks of the type past all that limits by key hold back: the
/// first tasks without a key, then the first task of each key that no such limit holds back. It
/// begins behind the key that had the last turn, and goes through all keys that have ready tasks
/// until it has enough. It takes no lock.
fn search(db: &mut Connection, one: &Governed) -> Result<Vec<i64>, Fault> {
    let mut tx = db.begin()?;
    // There may be no statistics yet, and a plan that sorts would read all for each key.
    tx.query(
        "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
             set_config('enable_sort', 'off', true)",
        &[],
    )?;
    let rows = tx.query(
        sql!(
            "SELECT id FROM fulmar_task WHERE gate = {gate_open} AND type_id = $1::int8 AND lane IS NULL
             ORDER BY type_id, rank, id LIMIT $2::int8"
        ),
        &[one.type_id.into(), MOST_FOUND.into()],
    )?;
    let mut found: Vec<i64> = rows.iter().map(|row| row.get(0)).collect::<Result<_, PgError>>()?;
    let tolerance = one.limits.key_rate.map(Rate::tolerance);
    for is_behind_turn in [true, false] {
        let missing = MOST_FOUND - i64::try_from(found.len()).unwrap_or(MOST_FOUND);
        let rows = tx.query(
            sql!(
                "WITH RECURSIVE held AS MATERIALIZED (
                     SELECT lane FROM fulmar_task WHERE worker IS NOT NULL AND type_id + 0 = $1::int8 AND lane IS NOT NULL
                     GROUP BY lane HAVING count(*) >= $2::int8),
                 keys AS (
                     (SELECT lane FROM fulmar_task WHERE gate = {gate_open} AND lane IS NOT NULL AND type_id = $1::int8
                         AND lane > (SELECT turn FROM fulmar_limit WHERE type_id = $1::int8) AND $5::bool
                     ORDER BY type_id, lane LIMIT 1)
                     UNION ALL
                     (SELECT lane FROM fulmar_task WHERE gate = {gate_open} AND lane IS NOT NULL AND type_id = $1::int8
                         AND NOT $5::bool ORDER BY type_id, lane LIMIT 1)
                     UNION ALL
                     SELECT (SELECT t.lane FROM fulmar_task t WHERE t.gate = {gate_open} AND t.lane IS NOT NULL
                         AND t.type_id = $1::int8 AND t.lane > k.lane ORDER BY t.type_id, t.lane LIMIT 1)
                     FROM keys k WHERE k.lane IS NOT NULL)
                 SELECT (SELECT t.id FROM fulmar_task t WHERE t.gate = {gate_open} AND t.lane IS NOT NULL
                         AND t.type_id = $1::int8 AND t.lane = k.lane ORDER BY t.type_id, t.lane, t.rank, t.id LIMIT 1)
                 FROM keys k WHERE k.lane IS NOT NULL AND ($2::int8 IS NULL OR k.lane NOT IN (SELECT lane FROM held))
                     AND ($3::int8 IS NULL OR NOT coalesce((SELECT b.next_at - $3::int8 >
                         floor(date_part('epoch', statement_timestamp()) * 1000000)::int8
                         FROM fulmar_limit_key b WHERE b.type_id = $1::int8 AND b.key = k.lane), false))
                 LIMIT $4::int8"
            ),
            &[
                one.type_id.into(),
                one.limits.key_at_once.map(i64::from).into(),
                tolerance.into(),
                missing.max(0).into(),
                is_behind_turn.into(),
            ],
        )?;
        for row in rows.iter() {
            found.extend(row.get::<Option<i64>>(0)?);
        }
    }
    tx.commit()?;
    Ok(found)
}

fn candidate(row: Row<'_>) -> Result<Candidate<i64>, Fault> {
    Ok(Candidate {
        id: row.get(0)?,
        priority: row.get(1)?,
        key: row.get(2)?,
        waited: row.get(3)?,
        bucket: row.get::<Option<i64>>(4)?.unwrap_or(0),
    })
}

/// How long it is until the limits let a ready task of the types `names` pass: zero if one may be
/// taken now, `None` if no such time is known. Types that only have a limit at once are left out.
/// Takes no lock, and changes nothing.
pub(super) fn next_due(db: &mut Connection, names: &[&str], searches: &Searches) -> Result<Option<Duration>, Fault> {
    let known = know(db, names, None)?;
    let mut next = None;
    for one in known.limited.iter().filter(|one| one.limits != Limits::new()) {
        let plan = plan(db, &known, one, 1, &[])?;
        let wait = match plan.picks.first() {
            Some(_) => Some(0),
            // Rounded up: a look that comes too early finds nothing.
            None => plan.next.map(|at| (at - known.now).max(0).saturating_add(999) / 1_000),
        };
        next = next.into_iter().chain(wait).min();
        if plan.is_cut && plan.picks.is_empty() {
            let search = searches.next(one.type_id).map(millis);
            next = next.into_iter().chain(search).chain(next_free(db, known.now, one)?).min();
        }
    }
    Ok(next.map(types::duration))
}

/// How long it is, in milliseconds, until the rate by key lets a task pass of the first key that it
/// holds back now. `None` if the type has no such rate, or if it holds no key back.
fn next_free(db: &mut Connection, now: i64, one: &Governed) -> Result<Option<i64>, Fault> {
    let Some(rate) = one.limits.key_rate else { return Ok(None) };
    let rows = db.query(
        "SELECT next_at FROM fulmar_limit_key WHERE type_id = $1::int8 AND next_at > $2::int8
         ORDER BY type_id, next_at LIMIT 1",
        &[one.type_id.into(), now.saturating_add(rate.tolerance()).into()],
    )?;
    let next = rows.first().map(|row| row.get::<i64>(0)).transpose()?;
    Ok(next.map(|at| (at.saturating_sub(rate.tolerance()) - now).max(0).saturating_add(999) / 1_000))
}

/// Moves buckets back: for tests.
pub(super) fn pass_time(db: &mut Connection, time: Duration) -> Result<(), PgError> {
    let micros = millis(time).saturating_mul(1_000);
    db.execute("UPDATE fulmar_limit SET next_at = next_at - $1::int8", &[micros.into()])?;
    db.execute("UPDATE fulmar_limit_key SET next_at = next_at - $1::int8", &[micros.into()]).map(drop)
}
