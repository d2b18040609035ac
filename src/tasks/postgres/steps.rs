//! What workers do to the tasks that they hold: one statement for many steps, each guarded by its
//! fence. A step is here a `Step` of the engine, one change of one task, and its token is the
//! number that the claim gave.
//!
//! Every entry that a step writes into a log bears the worker's token. So after a commit whose
//! answer was lost, a step that comes back as stale is looked up there: if its entry is found, this
//! worker has done it.

use std::collections::{HashMap, HashSet};

use super::super::durable::Entry;
use super::super::engine::{Action, Step, Stepped, Wait};
use super::super::error::Result as TaskResult;
use super::super::names::sql;
use super::super::status::TaskStatus;
use super::super::transition::{Change, Rule, rule as rule_columns, words};
use super::connection::{Connection, Transaction};
use super::fault::Fault;
use super::fence::fence;
use super::sql::{now, trail};
use super::value::Param;
use super::{families, lanes, millis, reap, trail};
use crate::sync::Mutex;

/// Steps whose outcome was not known when they were last tried, by task and token.
pub(super) struct UnansweredSteps(Mutex<HashSet<(i64, i64)>>);

/// About the most bytes of one statement: PostgreSQL takes no message of 1 GiB, and hangs up.
pub(super) const MOST_BYTES: usize = 64 << 20;

/// Beyond so many unanswered steps all of them are forgotten, so that the set doesn't grow for
/// ever.
const MOST_DOUBTS: usize = 100_000;

impl UnansweredSteps {
    pub(super) fn new() -> UnansweredSteps {
        UnansweredSteps(Mutex::new(HashSet::new()))
    }

    pub(super) fn settle(&self, steps: &[Step], result: &TaskResult<Vec<Stepped>>) {
        let mut doubts = self.0.lock();
        match result {
            Ok(_) if doubts.is_empty() => {}
            Ok(_) => doubts.retain(|doubt| !steps.iter().any(|step| *doubt == (step.task, step.token))),
            // Whatever the last try came to, an earlier one may have been done.
            Err(_) => {
                if doubts.len() > MOST_DOUBTS {
                    doubts.clear();
                }
                doubts.extend(steps.iter().map(|step| (step.task, step.token)));
            }
        }
    }

    fn holds(&self, step: &Step) -> bool {
        self.0.lock().contains(&(step.task, step.token))
    }
}

/// Where a step takes its task, which a user may have cancelled meanwhile.
macro_rules! becomes {
    () => {
        "CASE WHEN t.cancel_requested THEN s.if_cancelled ELSE s.status END"
    };
}

/// Changes the rows of `s`, each found by its number whatever the server knows of the table: so the
/// lane is a subquery, and no join. `$1` the worker, `$2` whether all locks are held. If they
/// aren't, nothing is done at all if a task that may end has a lane, or if it has a parent that
/// another of the tasks doesn't have. The children of one parent, as of a large fan-out, need no
/// transaction: the filter takes that parent's count before any row is changed, as [`families`]
/// wants it. Where a task goes is not decided here: see [`Rule`].
macro_rules! change {
    ($trail:expr, $run_at:expr) => {
        concat!(
            "UPDATE fulmar_task t SET status = ",
            becomes!(),
            ", gate = CASE WHEN ",
            becomes!(),
            " IN {waiting} THEN CASE WHEN t.woken AND s.status = {paused} THEN {gate_open} ELSE s.gate END END,
                 woken = t.woken AND s.status <> {paused},
                 run_at = CASE WHEN ",
            becomes!(),
            " NOT IN {waiting} THEN t.run_at WHEN s.delay IS NULL THEN least(t.run_at, ",
            now!(),
            ") ELSE ",
            $run_at,
            " END,
                 ended = CASE WHEN ",
            becomes!(),
            " IN {ended} THEN ",
            now!(),
            " END,
                 worker = CASE s.status WHEN {running} THEN t.worker END,
                 lease = CASE s.status WHEN {running} THEN t.lease END,
                 deadline = CASE WHEN s.charge = {charge_start} THEN ",
            now!(),
            " + (SELECT y.time_limit FROM fulmar_task_type y
                         WHERE y.id = t.type_id) WHEN s.status = {running} THEN t.deadline END,
                 starts = t.starts + (s.charge = {charge_start})::int4,
                 failures = CASE s.charge WHEN {charge_reset} THEN 0 ELSE t.failures + (s.charge = {charge_failure})::int4 END,
                 lost = CASE s.charge WHEN {charge_reset} THEN 0 ELSE t.lost + (s.charge = {charge_loss})::int4 END,
                 progress = CASE s.status WHEN {finished} THEN 1 ELSE coalesce(s.progress, t.progress) END,
                 entries = t.entries + 1,
                 trail = ",
            $trail,
            "
             FROM s WHERE t.id = s.id AND ",
            fence!(),
            "
                 AND ($2::bool OR NOT (SELECT coalesce(bool_or(o.may_end AND o.has_lane), false)
                         OR coalesce(bool_or(o.may_end AND o.parent <> 0) AND min(o.parent) <> max(o.parent), false) FROM o)
                     AND (SELECT count(*) FROM (SELECT 1 FROM fulmar_task_family f
                         WHERE f.task_id = (SELECT max(o.parent) FROM o WHERE o.may_end AND o.parent <> 0)
                         FOR NO KEY UPDATE) AS counts) >= 0)
             RETURNING s.ord, t.status, t.lane IS NOT NULL AS has_lane, t.parent IS NOT NULL AS has_parent"
        )
    };
}

/// Behind the list of steps: true of each, and the server takes it for true of few. So it expects
/// one step, and looks the task of each up by its number; if it expected more than there are tasks,
/// it would read all tasks and compare.
macro_rules! few {
    () => {
        " WHERE ord & 0 = 0"
    };
}

/// What has to be known of the tasks of the list before any of them is changed.
macro_rules! of_tasks {
    () => {
        "o AS MATERIALIZED (
         SELECT o.* FROM s x CROSS JOIN LATERAL (
             SELECT x.status IN {ended} OR x.if_cancelled IN {ended} AS may_end, o.lane IS NOT NULL AS has_lane,
                 coalesce(o.parent, 0) AS parent
             FROM fulmar_task o WHERE o.id = x.id OFFSET 0) AS o)"
    };
}

/// When a task that is delayed may start.
macro_rules! after_delay {
    () => {
        concat!(now!(), " + s.delay")
    };
}

/// The entry that a step adds to the trail, under the status that the task has from then on.
macro_rules! step_trail {
    () => {
        trail!(becomes!(), "s.token")
    };
}

/// Steps without words or anything else to store.
const PLAIN: &str = sql!(
    "WITH s AS MATERIALIZED (
         SELECT id, token, delay, progress, ord, ",
    rule_columns!(),
    " FROM unnest($3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::float8[]) WITH ORDINALITY
             AS s (id, token, rule, delay, progress, ord)",
    few!(),
    "), ",
    of_tasks!(),
    " ",
    change!(step_trail!(), after_delay!())
);

/// Steps of every kind. How many attempts were lost decides where a lost one leads: while the fence
/// holds, no other worker changes the count. `$arrays` and `$names` are more columns of the list,
/// `$columns` the same as they are handed on, `$run_at` is when a task may start that is delayed,
/// `$returns` what the change gives besides, and `$stores` what is stored of that.
macro_rules! full {
    ($arrays:expr, $names:expr, $columns:expr, $run_at:expr, $returns:expr, $stores:expr) => { sql!(
    "WITH s AS MATERIALIZED (
         SELECT p.id, p.token, p.leaves, CASE WHEN f.is_spent THEN p.if_spent ELSE p.status END AS status, p.if_cancelled,
             p.gate, p.charge, p.gives_up, p.delay, p.progress, p.message || coalesce(f.words, '') AS message,
             p.media_type, p.body, p.checkpoint, p.ord", $columns, "
         FROM (SELECT *, ",
    rule_columns!(),
    " FROM unnest($3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::float8[], $8::text[],
             $9::text[], $10::bytea[], $11::bytea[]", $arrays, ") WITH ORDINALITY
             AS n (id, token, rule, delay, progress, message, media_type, body, checkpoint", $names, ", ord)",
    few!(),
    ") AS p
         LEFT JOIN LATERAL (
             SELECT o.lost >= y.restart_limit AS is_spent,
                 CASE WHEN o.cancel_requested THEN '' WHEN o.lost >= y.restart_limit THEN '",
    words!(limit),
    "' || y.restart_limit || '",
    words!(reached),
    "' ELSE '",
    words!(restart),
    "' || o.lost + 1 || '",
    words!(of),
    "' || y.restart_limit END AS words
             FROM fulmar_task o JOIN fulmar_task_type y ON y.id = o.type_id
             WHERE o.id = p.id AND p.charge = {charge_loss} OFFSET 0) AS f ON true), ",
    of_tasks!(),
    ",
     u AS (",
    // A note has a row of the log whatever it says: a trail that grew with each would be copied
    // with each.
    change!(
        concat!("CASE WHEN s.message = '' AND s.status <> s.leaves THEN ", step_trail!(), " ELSE t.trail END"),
        $run_at
    ),
    ", t.id, t.entries, s.token, s.status = s.leaves AS stays, s.message, s.media_type, s.body, s.checkpoint", $returns, "),
     l AS (
         INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
         SELECT u.id, u.entries, ",
    now!(),
    ", u.status, u.token, u.message FROM u WHERE u.message <> '' OR u.stays),
     r AS (
         INSERT INTO fulmar_task_response (task_id, media_type, body)
         SELECT u.id, u.media_type, u.body FROM u WHERE u.media_type IS NOT NULL
         ON CONFLICT (task_id) DO UPDATE SET media_type = excluded.media_type, body = excluded.body),
     c AS (
         INSERT INTO fulmar_task_checkpoint (task_id, body)
         SELECT u.id, u.checkpoint FROM u WHERE u.checkpoint IS NOT NULL AND u.status = {paused}
         ON CONFLICT (task_id) DO UPDATE SET body = excluded.body)", $stores, "
     SELECT ord, status, has_lane, has_parent FROM u"
)};
}

const FULL: &str = full!("", "", "", after_delay!(), "", "");

/// As [`FULL`], with the waits of durable functions: until when they last, and the entry of the
/// journal that is stored with each. One that lasts as long as the pause is said to end when the
/// task may start, and not at a second look at the clock.
const WAITS: &str = full!(
    ", $12::int8[], $13::text[], $14::int8[], $15::int8[], $16::int8[], $17::int8[], $18::int8[], $19::int8[], $20::int8[],
             $21::bytea[]",
    ", until, step, number, step_ord, kind, state, attempts, is_timed, is_json, step_body",
    ", p.until, p.step, p.number, p.step_ord, p.kind, p.state, p.attempts, p.is_timed, p.is_json, p.step_body",
    concat!("coalesce(s.until, ", after_delay!(), ")"),
    ", t.run_at, s.step, s.number, s.step_ord, s.kind, s.state, s.attempts, s.is_timed, s.is_json, s.step_body",
    ",
     e AS (
         INSERT INTO fulmar_task_step AS x
             (task_id, name, number, ord, kind, state, attempts, until, token, is_json, body)
         SELECT u.id, u.step, u.number, u.step_ord, u.kind::int2, u.state::int2, u.attempts,
             CASE WHEN u.is_timed = 1 THEN u.run_at END, u.token, u.is_json = 1, u.step_body
         FROM u WHERE u.step IS NOT NULL AND u.status = {paused}
         ON CONFLICT (task_id, name, number) DO UPDATE SET kind = excluded.kind, state = excluded.state,
             attempts = excluded.attempts, until = excluded.until, token = excluded.token, is_json = excluded.is_json,
             body = excluded.body WHERE x.state = 0)"
);

/// What steps came to.
pub(super) struct Outcome {
    pub(super) stepped: Vec<Stepped>,
    /// Others are ready now.
    pub(super) opened: bool,
    /// Some task has ended.
    pub(super) ended: bool,
}

/// Does all steps, in their order. With `in_doubt` an earlier try may have been done.
pub(super) fn step(
    db: &mut Connection,
    steps: &[Step],
    doubts: &UnansweredSteps,
    in_doubt: bool,
) -> Result<Outcome, Fault> {
    let mut stepped = vec![Stepped::Stale; steps.len()];
    let rounds = rounds(steps);
    let mut has_bad = false;
    let mut opened = match together(db, steps, &rounds, &mut stepped) {
        // The data of one row made the statement fail for all: try each step by itself.
        Err(Fault::Pg(error)) if error.is_of_row() => {
            has_bad = true;
            stepped.fill(Stepped::Stale);
            one_by_one(db, steps, &rounds, &mut stepped)?
        }
        result => result?,
    };
    for (step, stepped) in steps.iter().zip(&mut stepped) {
        if *stepped == Stepped::Stale && step.finished_in {
            if let Some(status) = find_finished(db, step)? {
                *stepped = Stepped::Done(status);
                opened = true;
            }
        }
        if *stepped == Stepped::Stale && (in_doubt || doubts.holds(step)) {
            if let Some(status) = find_own(db, step)? {
                *stepped = Stepped::Done(status);
                opened = true;
            }
        }
    }
    opened |= stepped.iter().any(|stepped| matches!(stepped, Stepped::Done(TaskStatus::Accepted | TaskStatus::Paused)));
    let ended = |stepped: &Stepped| matches!(stepped, Stepped::Done(status) if status.is_ended());
    let ended = has_bad || stepped.iter().any(ended);
    Ok(Outcome { stepped, opened, ended })
}

/// As [`step`], for one of them, in a transaction of the user's.
pub(super) fn step_within(tx: &mut Transaction<'_>, step: &Step) -> Result<Stepped, Fault> {
    let steps = std::slice::from_ref(step);
    let (ordered, has_children) = in_lanes(tx, steps)?;
    if !ordered.is_empty() {
        lanes::demand_read_committed(tx)?;
        lanes::lock_those(tx, &ordered)?;
    }
    if has_children {
        lock_families(tx, steps)?;
    }
    let mut stepped = [Stepped::Stale];
    all(tx, steps, &rounds(steps), &mut stepped)?;
    Ok(stepped[0])
}

/// Does the rounds in one transaction, or in one statement if that is enough. Whether a task left a
/// lane.
fn together(db: &mut Connection, steps: &[Step], rounds: &[Round<'_>], stepped: &mut [Stepped]) -> Result<bool, Fault> {
    if let [round] = rounds {
        let changed = change(db, steps, round, false, stepped)?;
        if changed.any {
            return Ok(changed.may_wake);
        }
    }
    let (ordered, has_children) = in_lanes(db, steps.iter().filter(|step| rule(&step.action).may_end()))?;
    if rounds.len() == 1 && ordered.is_empty() && !has_children {
        return Ok(false);
    }
    let mut tx = begin_with(db, &ordered)?;
    if has_children {
        lock_families(&mut tx, steps)?;
    }
    let left = all(&mut tx, steps, rounds, stepped)?;
    tx.commit()?;
    Ok(left)
}

/// Does each step in a savepoint of its own. A row that makes no sense is set aside, and so lost to
/// its worker.
fn one_by_one(
    db: &mut Connection,
    steps: &[Step],
    rounds: &[Round<'_>],
    stepped: &mut [Stepped],
) -> Result<bool, Fault> {
    // Of all of them, because whatever is set aside ends.
    let (ordered, has_children) = in_lanes(db, steps)?;
    let mut tx = begin_with(db, &ordered)?;
    if has_children {
        lock_families(&mut tx, steps)?;
    }
    let mut left = false;
    for (worker, at) in rounds.iter().flat_map(|round| round.steps.iter().map(|&at| (round.worker, at))) {
        tx.script("SAVEPOINT fulmar_step")?;
        match all(&mut tx, steps, &[Round { worker, steps: vec![at], bytes: 0 }], stepped) {
            Ok(one) => left |= one,
            Err(Fault::Pg(error)) if error.is_of_row() => {
                let task = steps[at].task;
                crate::trace::event!(WARN, "a task can't be changed", task = task, error = error.to_string());
                tx.script("ROLLBACK TO fulmar_step")?;
                reap::set_aside_within(&mut tx, task)?;
                left = true;
            }
            Err(fault) => return Err(fault),
        }
        tx.script("RELEASE fulmar_step")?;
    }
    tx.commit()?;
    Ok(left)
}

/// A transaction that holds the locks of the lanes of these tasks.
fn begin_with<'a>(db: &'a mut Connection, ordered: &[i64]) -> Result<Transaction<'a>, Fault> {
    let mut tx = db.begin()?;
    if !ordered.is_empty() {
        lanes::lock_those(&mut tx, ordered)?;
    }
    Ok(tx)
}

/// Whether a task left a lane.
fn all(tx: &mut Transaction<'_>, steps: &[Step], rounds: &[Round<'_>], stepped: &mut [Stepped]) -> Result<bool, Fault> {
    let mut left = false;
    for round in rounds {
        let changed = change(tx, steps, round, true, stepped)?;
        lanes::follow_those(tx, &changed.left)?;
        left |= changed.may_wake || !changed.left.is_empty();
    }
    Ok(left)
}

/// Steps of one worker, no two of them on one task, nor too much for one statement: places in the
/// whole, by the number of the task.
struct Round<'a> {
    worker: &'a str,
    steps: Vec<usize>,
    bytes: usize,
}

/// As few rounds as there may be so that the steps on each task keep their order.
fn rounds(steps: &[Step]) -> Vec<Round<'_>> {
    let mut rounds: Vec<Round<'_>> = Vec::new();
    // The first round that is still open to a task.
    let mut next: HashMap<i64, usize> = HashMap::new();
    for (at, step) in steps.iter().enumerate() {
        let from = next.get(&step.task).copied().unwrap_or(0);
        let (worker, bytes) = (step.worker.as_str(), step.size());
        let has_room = |round: &Round<'_>| round.worker == worker && round.bytes + bytes <= MOST_BYTES;
        let fits = rounds.iter().skip(from).position(has_room).map(|offset| from + offset);
        let round = fits.unwrap_or_else(|| {
            rounds.push(Round { worker, steps: Vec::new(), bytes: 0 });
            rounds.len() - 1
        });
        rounds[round].steps.push(at);
        rounds[round].bytes += bytes;
        next.insert(step.task, round + 1);
    }
    // Rows are locked in this order, everywhere.
    rounds.iter_mut().for_each(|round| round.steps.sort_by_key(|&at| steps[at].task));
    rounds
}

struct Changed {
    any: bool,
    /// Tasks that left their lanes.
    left: Vec<i64>,
    /// A child has ended, which its parent may have waited for.
    may_wake: bool,
}

/// Does the steps of a round by one statement, and writes into `stepped`, at each step's place in
/// `steps`, the status that its task has then. A step whose fence does not hold changes nothing,
/// and leaves its place as it is. `locked` says whether the transaction holds the locks of lanes
/// and families. If it doesn't, and one of the steps needs them, the statement changes no row.
fn change(
    db: &mut Connection,
    steps: &[Step],
    round: &Round<'_>,
    locked: bool,
    stepped: &mut [Stepped],
) -> Result<Changed, Fault> {
    let actions: Vec<&Action> = round.steps.iter().map(|&at| &steps[at].action).collect();
    let ids: Vec<i64> = round.steps.iter().map(|&at| steps[at].task).collect();
    let tokens: Vec<i64> = round.steps.iter().map(|&at| steps[at].token).collect();
    let rules: Vec<i64> = actions.iter().map(|action| rule(action).0).collect();
    let delays: Vec<Option<i64>> = actions.iter().map(|action| action.delay().map(millis)).collect();
    let progress: Vec<Option<f64>> = actions.iter().map(|action| action.progress().map(f64::from)).collect();
    let mut params = vec![
        round.worker.into(),
        locked.into(),
        Param::Ints(&ids),
        Param::Ints(&tokens),
        Param::Ints(&rules),
        Param::MaybeInts(&delays),
        Param::MaybeFloats(&progress),
    ];
    let messages: Vec<&str> = actions.iter().map(|action| action.words()).collect();
    let media_types: Vec<Option<&str>> =
        actions.iter().map(|action| action.response().map(|response| &*response.media_type)).collect();
    let bodies: Vec<Option<&[u8]>> =
        actions.iter().map(|action| action.response().map(|response| &*response.body)).collect();
    let checkpoints: Vec<Option<&[u8]>> = actions.iter().map(|action| action.checkpoint()).collect();
    let waits = Waits::new(&actions);
    let found = if actions.iter().all(|action| is_plain(action)) {
        db.query(PLAIN, &params)?
    } else {
        params.extend([
            Param::Texts(&messages),
            Param::MaybeTexts(&media_types),
            Param::MaybeByteArrays(&bodies),
            Param::MaybeByteArrays(&checkpoints),
        ]);
        match &waits {
            None => db.query(FULL, &params)?,
            Some(waits) => {
                waits.add_to(&mut params);
                db.query(WAITS, &params)?
            }
        }
    };
    let mut changed = Changed { any: found.len() > 0, left: Vec::new(), may_wake: false };
    for row in found.iter() {
        let (ord, code): (i64, i64) = (row.get(0)?, row.get(1)?);
        let status = TaskStatus::from_code(code)?;
        let at = usize::try_from(ord - 1).ok().and_then(|at| round.steps.get(at));
        if let Some(&at) = at {
            stepped[at] = Stepped::Done(status);
            if status.is_ended() && row.get(2)? {
                changed.left.push(steps[at].task);
            }
            changed.may_wake |= status.is_ended() && row.get::<bool>(3)?;
        }
    }
    Ok(changed)
}

/// What [`WAITS`] takes more than [`FULL`]: an array for each column.
struct Waits<'a> {
    untils: Vec<Option<i64>>,
    names: Vec<Option<&'a str>>,
    /// Number, order, kind, state, attempts, whether it lasts as long as the pause, whether it is
    /// JSON.
    numbers: [Vec<i64>; 7],
    bodies: Vec<Option<&'a [u8]>>,
}

impl<'a> Waits<'a> {
    /// `None` if [`FULL`] will do.
    fn new(actions: &[&'a Action]) -> Option<Waits<'a>> {
        let waits: Vec<Option<&Wait>> = actions.iter().map(|action| action.wait()).collect();
        if waits.iter().flatten().all(|wait| wait.until.is_none() && wait.entry.is_none()) {
            return None;
        }
        let entries: Vec<Option<&Entry>> = waits.iter().map(|wait| wait.and_then(|wait| wait.entry.as_ref())).collect();
        let number = |of: fn(&Entry) -> i64| entries.iter().map(|entry| entry.map_or(0, of)).collect();
        Some(Waits {
            untils: waits.iter().map(|wait| wait.and_then(|wait| wait.until)).collect(),
            names: entries.iter().map(|entry| entry.map(|entry| &*entry.name)).collect(),
            numbers: [
                number(|entry| entry.number),
                number(|entry| entry.ord),
                number(|entry| entry.kind as i64),
                number(|entry| entry.state as i64),
                number(|entry| entry.attempts),
                waits.iter().map(|wait| i64::from(wait.is_some_and(|wait| wait.is_timed))).collect(),
                number(|entry| i64::from(entry.is_json)),
            ],
            bodies: entries.iter().map(|entry| entry.and_then(|entry| entry.body.as_deref())).collect(),
        })
    }

    fn add_to<'b>(&'b self, params: &mut Vec<Param<'b>>) {
        params.extend([Param::MaybeInts(&self.untils), Param::MaybeTexts(&self.names)]);
        params.extend(self.numbers.iter().map(|numbers| Param::Ints(numbers)));
        params.push(Param::MaybeByteArrays(&self.bodies));
    }
}

fn rule(action: &Action) -> Rule {
    Rule::new(Change::of(action), action.is_delayed())
}

/// It leaves the task's log with an entry without words, and stores nothing.
fn is_plain(action: &Action) -> bool {
    let has_words =
        !action.words().is_empty() || matches!(action, Action::Lose { .. } | Action::Note { .. } | Action::Wait { .. });
    !has_words && action.response().is_none() && action.checkpoint().is_none()
}

/// Those of the tasks that are in lanes, and whether any is a child.
fn in_lanes<'a>(db: &mut Connection, steps: impl IntoIterator<Item = &'a Step>) -> Result<(Vec<i64>, bool), Fault> {
    let ids: Vec<i64> = steps.into_iter().map(|step| step.task).collect();
    if ids.is_empty() {
        return Ok((Vec::new(), false));
    }
    let sql = "SELECT id, lane IS NOT NULL, parent IS NOT NULL FROM fulmar_task
         WHERE id = ANY($1::int8[]) AND (lane IS NOT NULL OR parent IS NOT NULL)";
    let rows = db.query(sql, &[Param::Ints(&ids)])?;
    let (mut ordered, mut has_children) = (Vec::new(), false);
    for row in rows.iter() {
        if row.get(1)? {
            ordered.push(row.get(0)?);
        }
        has_children |= row.get::<bool>(2)?;
    }
    Ok((ordered, has_children))
}

fn lock_families(tx: &mut Transaction<'_>, steps: &[Step]) -> Result<(), Fault> {
    let tasks: Vec<i64> = steps.iter().map(|step| step.task).collect();
    Ok(families::lock(tx, &tasks)?)
}

/// Where the task stands, if it has ended under the step's token and hasn't been retried since.
fn find_finished(db: &mut Connection, step: &Step) -> Result<Option<TaskStatus>, Fault> {
    let sql = "SELECT status FROM fulmar_task WHERE id = $1::int8 AND token = $2::int8 AND ended IS NOT NULL";
    let rows = db.query(sql, &[step.task.into(), step.token.into()])?;
    rows.first().map(|row| Ok(TaskStatus::from_code(row.get(0)?)?)).transpose()
}

/// Whether an earlier try has done the step: then its entry stands in the task's log, with the
/// token of the step, and a status to which its action leads. Returns that status. `None`: there is
/// no such entry, so the worker has lost the task, or the task is deleted. Reads only.
pub(super) fn find_own(db: &mut Connection, step: &Step) -> Result<Option<TaskStatus>, Fault> {
    let rows = db.query(
        "SELECT t.trail, l.status FROM fulmar_task t LEFT JOIN fulmar_task_log l ON l.task_id = t.id AND l.token = $2::int8
         WHERE t.id = $1::int8",
        &[step.task.into(), step.token.into()],
    )?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let is_its_work = |status: TaskStatus| match step.action {
        Action::Start => status == TaskStatus::Running,
        Action::Finish { .. } => status == TaskStatus::Finished,
        Action::Fail { .. } | Action::Lose { .. } => {
            matches!(status, TaskStatus::Accepted | TaskStatus::Failed | TaskStatus::Cancelled)
        }
        Action::Pause { .. } | Action::Wait { .. } => matches!(status, TaskStatus::Paused | TaskStatus::Cancelled),
        Action::GiveBack { .. } => status == TaskStatus::Accepted,
        Action::Note { .. } => false,
    };
    let trail = trail::entries(first.get(0)?).into_iter().filter(|entry| entry.token == step.token);
    let mut codes: Vec<i64> = trail.map(|entry| entry.status).collect();
    for row in rows.iter() {
        codes.extend(row.get::<Option<i64>>(1)?);
    }
    for code in codes {
        let status = TaskStatus::from_code(code)?;
        if is_its_work(status) {
            return Ok(Some(status));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::super::status::Response;
    use super::super::super::worker_id::WorkerId;
    use super::*;

    #[test]
    fn a_statement_holds_no_task_twice_no_second_worker_and_no_more_than_the_server_takes() {
        let large = std::sync::Arc::new(Response { media_type: "x/y".into(), body: vec![0; MOST_BYTES / 4] });
        let (one, two) = (WorkerId::new(), WorkerId::new());
        let finish = |task, worker: &WorkerId| Step {
            task,
            token: 1,
            worker: worker.clone(),
            action: Action::Finish { message: String::new(), response: Some(large.clone()) },
            finished_in: false,
        };
        let mut steps: Vec<Step> = (0..10).map(|task| finish(task, &one)).collect();
        steps.push(Step { action: Action::Start, ..finish(10, &one) });
        steps.push(finish(11, &two));
        steps.push(Step { action: Action::Start, ..finish(0, &one) });
        let rounds: Vec<_> = rounds(&steps).into_iter().map(|round| round.steps).collect();
        // The start of the eleventh fits with the first four, and the second step on the first task
        // with what follows.
        assert_eq!(rounds, [vec![0, 1, 2, 3, 10], vec![12, 4, 5, 6, 7], vec![8, 9], vec![11]]);
        // One alone may be larger: its response and its state have 64 MiB each.
        let huge = std::sync::Arc::<[u8]>::from(vec![0; MOST_BYTES + 1]);
        let (message, after, response) = (String::new(), std::time::Duration::ZERO, None);
        let action = Action::Pause { message, after, checkpoint: Some(huge), response };
        let alone = Step { action, ..finish(1, &one) };
        assert_eq!(super::rounds(&[alone]).len(), 1);
    }
}
