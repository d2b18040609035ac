//! Limits of a type that all machines share: at once by key, rates, turns of keys, and priority
//! that ages.
//!
//! What may be taken is decided here, on plain data: an engine gives the [candidates](Candidate)
//! and what is known of them, and stores what a claim has [spent](Governed::spent). Engines see to
//! it that one claim of a type at a time decides.
//!
//! Source: rates are token buckets in the form of the generic cell rate algorithm, ITU-T I.371,
//! Annex A: one time for each bucket.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::error::{Result, TaskError};
use super::queue::TaskQueue;
use super::task_type::check_name;
use crate::sync::Mutex;

/// A rate of starts: so many in a period, by a token bucket.
///
/// Tokens come one by one, evenly over the period, and as many as [`burst`](Rate::burst) are kept.
/// So `Rate::new(60, MINUTE)` is one start a second, and never more than 60 in any minute. With a
/// burst of `b` there may be `b` at once after a rest, and up to `starts + b - 1` in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a rate limits nothing until it is part of `Limits`"]
pub struct Rate {
    pub(super) starts: u32,
    pub(super) period: Duration,
    pub(super) burst: u32,
}

impl Rate {
    /// At most `starts` in each `period`, one after the other. Whole milliseconds count.
    pub fn new(starts: u32, period: Duration) -> Rate {
        Rate { starts, period, burst: 1 }
    }

    /// How many may start at once after a rest. Defaults to 1.
    pub fn burst(mut self, starts: u32) -> Rate {
        self.burst = starts;
        self
    }

    fn check(self) -> Result<()> {
        let longest = Duration::from_secs(366 * 86_400);
        if self.starts == 0 || self.burst == 0 || self.period < Duration::from_millis(1) || self.period > longest {
            return Err(TaskError::Invalid(format!(
                "a rate of {} starts in {:?} with a burst of {} makes no sense: use 1 or more, and 1 ms to a year",
                self.starts, self.period, self.burst
            )));
        }
        Ok(())
    }

    /// How long it takes until there is another token, in microseconds.
    pub(super) fn interval(self) -> i64 {
        // Rounded up, so that no period has one more.
        let micros = self.period.as_micros().div_ceil(u128::from(self.starts.max(1))).max(1);
        i64::try_from(micros).unwrap_or(i64::MAX / 4)
    }

    /// How far a bucket's time may lie ahead so that there is a token still.
    pub(super) fn tolerance(self) -> i64 {
        self.interval().saturating_mul(i64::from(self.burst) - 1)
    }

    /// The furthest time that a bucket may have. One beyond that is of another limit, or of a clock
    /// that was set back: a claim shortens it.
    pub(super) fn furthest(self, now: i64) -> i64 {
        now.saturating_add(self.interval().saturating_mul(i64::from(self.burst)))
    }

    /// When the bucket has a token, if it has none now. One that has to be shortened is worth a
    /// claim, which does it.
    fn held_until(self, now: i64, bucket: i64) -> Option<i64> {
        let until = bucket.saturating_sub(self.tolerance());
        (until > now && bucket <= self.furthest(now)).then_some(until)
    }
}

/// Limits of one task type, for all machines together: [`TaskQueue::set_limits`].
///
/// ```
/// use fulmar::tasks::{Limits, Rate};
/// use std::time::Duration;
///
/// let limits = Limits::new()
///     .max_concurrent_by_key(3)
///     .rate(Rate::new(100, Duration::from_secs(1)).burst(10))
///     .rate_by_key(Rate::new(10, Duration::from_secs(60)))
///     .turns(true)
///     .ageing(Duration::from_secs(60));
/// assert_ne!(limits, Limits::new());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "limits hold nothing back until they are set"]
pub struct Limits {
    pub(super) key_at_once: Option<u32>,
    pub(super) rate: Option<Rate>,
    pub(super) key_rate: Option<Rate>,
    pub(super) turns: bool,
    pub(super) ageing: Option<Duration>,
}

impl Limits {
    /// None.
    pub fn new() -> Limits {
        Limits::default()
    }

    /// How many tasks of one [key](super::NewTask::ordered) workers may hold at once. Tasks without
    /// a key are not limited by it; a modifier is alone in any case.
    /// [`TaskType::max_concurrent`](super::TaskType::max_concurrent) is for all keys together.
    /// Defaults to no limit.
    pub fn max_concurrent_by_key(mut self, tasks: impl Into<Option<u32>>) -> Limits {
        self.key_at_once = tasks.into();
        self
    }

    /// How many tasks of the type start in a period. Counted when a worker takes a task: each
    /// attempt counts, one after a pause and one that is given back, too. Defaults to no limit.
    pub fn rate(mut self, rate: impl Into<Option<Rate>>) -> Limits {
        self.rate = rate.into();
        self
    }

    /// As [`rate`](Limits::rate), for each key by itself. Tasks without a key are not limited by
    /// it. Defaults to no limit.
    ///
    /// Where there is any limit by key, a claim looks at the first tasks of the type, four times as
    /// many as it wants and a hundred, and then goes from key to key, past 1,000 of them. If that
    /// gives it too few, it searches all keys and all tasks without a key, past everything that is
    /// held back. A search locks nothing, but it takes time for each key that has waiting tasks. So
    /// after each of its searches, a process waits ten times as long as the search took before it
    /// does the next one.
    pub fn rate_by_key(mut self, rate: impl Into<Option<Rate>>) -> Limits {
        self.key_rate = rate.into();
        self
    }

    /// Whether keys take turns: one task of each key that waits, then the next of each, whatever
    /// their age and priority, which count among tasks of one key. Tasks without a key have no turn
    /// of their own: they take part while they are among the first of the type. Defaults to no.
    pub fn turns(mut self, turns: bool) -> Limits {
        self.turns = turns;
        self
    }

    /// How long a task waits until it counts as one of the next higher priority: after ten times as
    /// long it is before a new task of a priority that is nine higher. It counts from when the task
    /// could start. It costs a claim one look for each different priority that waits; of more than
    /// 1,000 the lowest are left out. Defaults to never.
    pub fn ageing(mut self, time: impl Into<Option<Duration>>) -> Limits {
        self.ageing = time.into();
        self
    }

    fn check(&self) -> Result<()> {
        if self.key_at_once == Some(0) {
            return Err(TaskError::Invalid(
                "a limit of 0 tasks of a key at once lets none of them run: use 1 or more".into(),
            ));
        }
        if self.ageing.is_some_and(|time| time < Duration::from_millis(1)) {
            return Err(TaskError::Invalid(
                "a waiting task can't gain a priority in less than 1 ms: use a longer time for `ageing`".into(),
            ));
        }
        self.rate.map_or(Ok(()), Rate::check)?;
        self.key_rate.map_or(Ok(()), Rate::check)
    }

    /// Whether keys matter.
    pub(super) fn is_by_key(&self) -> bool {
        self.turns || self.key_at_once.is_some() || self.key_rate.is_some()
    }
}

impl TaskQueue {
    /// Sets all limits of a type, for all machines; limits that are empty are none. They hold for
    /// what waits already, from the next claim on; what workers hold stays with them.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{Limits, TaskError, TaskQueue, TaskType};
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-limits-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
    /// let queue = TaskQueue::open(folder.join("queue.db"))?;
    /// queue.register(TaskType::new("mail"))?;
    /// queue.set_limits("mail", Limits::new().max_concurrent_by_key(2).turns(true))?;
    /// let expected = Limits::new().max_concurrent_by_key(2).turns(true);
    /// assert_eq!(queue.limits()?, [("mail".to_owned(), expected)]);
    /// assert!(queue.remove_limits("mail")?);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), fulmar::tasks::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// [`TaskError::UnknownType`]; [`TaskError::Invalid`] for limits that nothing could pass.
    pub fn set_limits(&self, task_type: &str, limits: Limits) -> Result<()> {
        check_name("the name of a task type", task_type)?;
        limits.check()?;
        self.engine().put_limits(task_type, Some(limits).filter(|limits| *limits != Limits::new())).map(drop)
    }

    /// The limits of all types that have some, by name. Limits that make no sense, because another
    /// program wrote them, are left out: no worker takes tasks of their type, and the warnings of
    /// [`stats`](TaskQueue::stats) name it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn limits(&self) -> Result<Vec<(String, Limits)>> {
        let all = self.engine().limits()?;
        Ok(all.into_iter().filter_map(|(name, limits)| Some((name, limits?))).collect())
    }

    /// The types whose limits make no sense.
    pub(super) fn senseless_limits(&self) -> Result<Vec<String>> {
        let all = self.engine().limits()?;
        Ok(all.into_iter().filter_map(|(name, limits)| limits.is_none().then_some(name)).collect())
    }

    /// Takes all limits of a type away; false if it had none.
    ///
    /// # Errors
    /// [`TaskError::UnknownType`].
    pub fn remove_limits(&self, task_type: &str) -> Result<bool> {
        check_name("the name of a task type", task_type)?;
        self.engine().put_limits(task_type, None)
    }
}

/// A row of limits as the database has it, where another program may have written it.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) key_at_once: Option<i64>,
    /// Starts, period in milliseconds, burst.
    pub(super) rate: [Option<i64>; 3],
    pub(super) key_rate: [Option<i64>; 3],
    pub(super) turns: bool,
    pub(super) ageing: Option<i64>,
}

impl Stored {
    /// `None` if the row makes no sense. What was meant can't be known, so that no task of the type
    /// may be taken: a limit may be all that protects what the tasks work on.
    pub(super) fn limits(&self) -> Option<Limits> {
        let small = |number: Option<i64>| number.map(u32::try_from).transpose().ok();
        let time = |number: Option<i64>| number.map(u64::try_from).transpose().ok();
        let rate = |[starts, period, burst]: [Option<i64>; 3]| {
            let (starts, period, burst) = (small(starts)?, time(period)?, small(burst)?);
            match (starts, period, burst) {
                (None, None, None) => Some(None),
                (Some(starts), Some(period), Some(burst)) => {
                    Some(Some(Rate { starts, period: Duration::from_millis(period), burst }))
                }
                _ => None,
            }
        };
        let limits = Limits {
            key_at_once: small(self.key_at_once)?,
            rate: rate(self.rate)?,
            key_rate: rate(self.key_rate)?,
            turns: self.turns,
            ageing: time(self.ageing)?.map(Duration::from_millis),
        };
        limits.check().is_ok().then_some(limits)
    }
}

/// What to say of a type whose limits make no sense.
pub(super) fn warning(task_type: &str) -> String {
    format!(
        "the limits of type `{task_type}` make no sense in the database, so that no worker takes its tasks: set them \
         anew, or remove them"
    )
}

/// The most different priorities that a claim looks at where priority ages.
pub(super) const MOST_PRIORITIES: i64 = 1_000;

/// The most keys that a claim walks past.
pub(super) const MOST_KEYS: i64 = 1_000;

/// The most tasks of one key that a claim looks at.
pub(super) const MOST_OF_KEY: i64 = 32;

/// How many of the first tasks of a type a claim looks at.
pub(super) fn front(want: i64) -> i64 {
    want.saturating_mul(4).saturating_add(100)
}

/// A task that may be taken if no limit holds it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate<K> {
    pub(super) id: i64,
    pub(super) priority: i64,
    pub(super) key: Option<K>,
    /// How long it could have started, in milliseconds.
    pub(super) waited: i64,
    /// The time of its key's bucket, in microseconds; 0 without one.
    pub(super) bucket: i64,
}

/// A type with limits, and how it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Governed {
    pub(super) type_id: i64,
    pub(super) limits: Limits,
    /// How many more of the type workers may hold.
    pub(super) room: i64,
    /// The time of the type's bucket, in microseconds.
    pub(super) bucket: i64,
}

/// A task that a claim may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pick<K> {
    pub(super) id: i64,
    /// By which it is compared with tasks of other types, higher ones first.
    pub(super) priority: i64,
    pub(super) key: Option<K>,
    /// The time of its key's bucket when it is taken.
    pub(super) key_bucket: i64,
}

/// What may be taken now, in this order, and when a rate lets the next one pass, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan<K> {
    pub(super) picks: Vec<Pick<K>>,
    pub(super) next: Option<i64>,
    /// The engine looked at a part of what waits, found too little there, and there may be more
    /// behind it.
    pub(super) is_cut: bool,
}

/// The most tasks that a search gives.
pub(super) const MOST_FOUND: i64 = 1_000;

/// How many times as long as a search took the process waits before the next one of the type.
const REST: u32 = 10;

/// What searches past all that limits hold back have found, by type, and when the next one may be.
#[derive(Default)]
pub(super) struct Searches(Mutex<HashMap<i64, Search>>);

struct Search {
    /// Tasks that may be taken, unless they have been taken since.
    found: VecDeque<i64>,
    rests_until: Instant,
    /// A claim wanted to search, and could not yet.
    is_wanted: bool,
}

impl Searches {
    /// Tasks of a type that a search has found, a few more than are `wanted`, because some may have
    /// been taken since; `search` gives up to [`MOST_FOUND`] if there is none left and it is time
    /// for another.
    pub(super) fn take<E>(
        &self,
        type_id: i64,
        wanted: usize,
        search: impl FnOnce() -> std::result::Result<Vec<i64>, E>,
    ) -> std::result::Result<Vec<i64>, E> {
        let start = Instant::now();
        let some = |found: &mut VecDeque<i64>| {
            let most = wanted.saturating_mul(2).saturating_add(16).min(found.len());
            found.drain(..most).collect()
        };
        if let Some(last) = self.0.lock().get_mut(&type_id) {
            if !last.found.is_empty() {
                return Ok(some(&mut last.found));
            }
            if start < last.rests_until {
                last.is_wanted = true;
                return Ok(Vec::new());
            }
        }
        // Two threads may search at once: they find the same, and each task is still taken once.
        let mut found = VecDeque::from(search()?);
        let first = some(&mut found);
        let rests_until = Instant::now() + start.elapsed() * REST;
        self.0.lock().insert(type_id, Search { found, rests_until, is_wanted: false });
        Ok(first)
    }

    /// The limits have changed, or the clock of a test has: the next search needs no rest.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    /// Tasks that a claim had no room for.
    pub(super) fn put_back(&self, type_id: i64, tasks: impl Iterator<Item = i64>) {
        if let Some(last) = self.0.lock().get_mut(&type_id) {
            last.found.extend(tasks);
        }
    }

    /// How long it is until a claim finds by a search what it has not found without; `None` if it
    /// has searched.
    pub(super) fn next(&self, type_id: i64) -> Option<Duration> {
        let searches = self.0.lock();
        let last = searches.get(&type_id)?;
        if !last.found.is_empty() {
            return Some(Duration::ZERO);
        }
        last.is_wanted.then(|| last.rests_until.saturating_duration_since(Instant::now()))
    }
}

impl Governed {
    /// When the type's rate lets the next task pass, if it is not now, in microseconds.
    fn held_until(&self, now: i64) -> Option<i64> {
        self.limits.rate.and_then(|rate| rate.held_until(now, self.bucket))
    }

    /// How many tasks the type's rate lets pass now, at most `want`.
    fn tokens(&self, now: i64, want: usize) -> usize {
        let Some(rate) = self.limits.rate else {
            return want;
        };
        if rate.held_until(now, self.bucket).is_some() {
            return 0;
        }
        let left = rate.tolerance().saturating_sub(self.bucket.max(now) - now).max(0);
        want.min(usize::try_from(left / rate.interval() + 1).unwrap_or(usize::MAX))
    }

    /// The time of the type's bucket after so many starts.
    pub(super) fn spent(&self, now: i64, starts: usize) -> i64 {
        let Some(rate) = self.limits.rate else {
            return self.bucket;
        };
        let starts = i64::try_from(starts).unwrap_or(i64::MAX);
        self.bucket.max(now).saturating_add(rate.interval().saturating_mul(starts))
    }

    /// Which of `candidates` may be taken, at most `want`. Where keys take turns, those come in the
    /// order in which their keys are seen first. `held` is how many tasks of a key workers hold.
    pub(super) fn plan<K: Hash + Eq + Clone>(
        &self,
        now: i64,
        candidates: Vec<Candidate<K>>,
        held: &HashMap<K, i64>,
        want: usize,
    ) -> Plan<K> {
        let most = self.most(now, want);
        let mut next = None;
        let mut keys: HashMap<Option<K>, Key> = HashMap::new();
        let mut picks = Vec::new();
        for candidate in self.in_order(candidates) {
            let of_key = keys.len();
            let key = keys.entry(candidate.key.clone()).or_insert_with(|| {
                let held = candidate.key.as_ref().and_then(|key| held.get(key)).copied().unwrap_or(0);
                Key { seen: of_key, taken: 0, held, bucket: candidate.bucket }
            });
            let passes = candidate.key.is_none() || key.passes(&self.limits, now, &mut next);
            if passes {
                key.take(&self.limits, now);
                let (id, priority) = (candidate.id, self.effective(&candidate));
                picks.push((key.taken, key.seen, Pick { id, priority, key: candidate.key, key_bucket: key.bucket }));
            }
        }
        if self.limits.turns {
            // One of each key, then the second of each.
            picks.sort_by_key(|(round, seen, _)| (*round, *seen));
        }
        picks.truncate(most);
        // No key is let pass before its type is.
        let next = self.held_until(now).or(next);
        Plan { picks: picks.into_iter().map(|(_, _, pick)| pick).collect(), next, is_cut: false }
    }

    /// How many tasks of the type may be taken now at most, whatever their keys.
    pub(super) fn most(&self, now: i64, want: usize) -> usize {
        let room = usize::try_from(self.room.max(0)).unwrap_or(usize::MAX);
        self.tokens(now, want.min(room))
    }

    /// Each once; by priority and age, unless keys take turns: then keys keep the order in which
    /// they are seen, and the tasks of each are in theirs.
    fn in_order<K: Hash + Eq + Clone>(&self, mut candidates: Vec<Candidate<K>>) -> Vec<Candidate<K>> {
        let mut ids = HashSet::new();
        candidates.retain(|candidate| ids.insert(candidate.id));
        if !self.limits.turns {
            candidates.sort_by_key(|candidate| (Reverse(self.effective(candidate)), candidate.id));
            return candidates;
        }
        let mut seen: HashMap<Option<K>, usize> = HashMap::new();
        for candidate in &candidates {
            let number = seen.len();
            seen.entry(candidate.key.clone()).or_insert(number);
        }
        candidates.sort_by_key(|candidate| {
            (seen.get(&candidate.key).copied(), Reverse(self.effective(candidate)), candidate.id)
        });
        candidates
    }

    fn effective<K>(&self, candidate: &Candidate<K>) -> i64 {
        let Some(time) = self.limits.ageing else {
            return candidate.priority;
        };
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX).max(1);
        candidate.priority.saturating_add(candidate.waited.max(0) / time)
    }
}

/// How a key stands while a claim is planned.
struct Key {
    seen: usize,
    taken: i64,
    held: i64,
    bucket: i64,
}

impl Key {
    fn passes(&self, limits: &Limits, now: i64, next: &mut Option<i64>) -> bool {
        if limits.key_at_once.is_some_and(|most| self.held + self.taken >= i64::from(most)) {
            return false;
        }
        let until = limits.key_rate.and_then(|rate| rate.held_until(now, self.bucket));
        *next = (*next).into_iter().chain(until).min();
        until.is_none()
    }

    fn take(&mut self, limits: &Limits, now: i64) {
        self.taken += 1;
        if let Some(rate) = limits.key_rate {
            self.bucket = self.bucket.max(now).saturating_add(rate.interval());
        }
    }
}

/// The first of several sequences, each of which keeps its order: which of them is next, again and
/// again.
pub(super) fn merge<T>(sequences: Vec<Vec<T>>, limit: usize, order: impl Fn(&T) -> (Reverse<i64>, i64)) -> Vec<T> {
    let mut sequences: Vec<VecDeque<T>> = sequences.into_iter().map(VecDeque::from).collect();
    let mut merged = Vec::new();
    while merged.len() < limit {
        let first = sequences.iter_mut().filter(|sequence| !sequence.is_empty());
        let Some(first) = first.min_by_key(|sequence| sequence.front().map(&order)) else { break };
        merged.extend(first.pop_front());
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn of(limits: Limits) -> Governed {
        Governed { type_id: 1, limits, room: i64::MAX, bucket: 0 }
    }

    fn task(id: i64, key: Option<&'static str>) -> Candidate<&'static str> {
        Candidate { id, priority: 0, key, waited: 0, bucket: 0 }
    }

    fn ids<K>(plan: &Plan<K>) -> Vec<i64> {
        plan.picks.iter().map(|pick| pick.id).collect()
    }

    /// A second after the other, for all of five minutes: never more in a period than the rate and
    /// its burst allow.
    #[test]
    fn no_period_has_more_starts_than_the_rate_and_its_burst_allow() {
        for (starts, burst) in [(1, 1), (7, 1), (7, 3), (60, 60), (100, 1)] {
            let period = 60 * SECOND;
            let mut governed = of(Limits::new().rate(Rate::new(starts, Duration::from_secs(60)).burst(burst)));
            let mut started = Vec::new();
            for now in (1_000 * SECOND..1_300 * SECOND).step_by(250_000) {
                let waiting = (0..5).map(|id| task(id, None)).collect();
                let plan = governed.plan(now, waiting, &HashMap::new(), 5);
                governed.bucket = governed.spent(now, plan.picks.len());
                started.extend(plan.picks.iter().map(|_| now));
            }
            let most =
                started.iter().map(|from| started.iter().filter(|at| (*from..from + period).contains(at)).count());
            let most = most.max().unwrap_or(0);
            let allowed = usize::try_from(starts + burst - 1).expect("small");
            assert!(most <= allowed, "{most} of {allowed} with a burst of {burst}");
            // No token is lost, either, but for those that don't fall on a step of the test's
            // clock.
            assert!(started.len() + 5 >= usize::try_from(starts).expect("small") * 4, "{}", started.len());
        }
    }

    #[test]
    fn a_key_holds_back_its_own_alone() {
        let governed = of(Limits::new().max_concurrent_by_key(2));
        let held = HashMap::from([("a", 2), ("b", 1)]);
        let waiting = vec![task(1, Some("a")), task(2, Some("b")), task(3, Some("b")), task(4, None), task(5, None)];
        assert_eq!(ids(&governed.plan(0, waiting, &held, 9)), [2, 4, 5]);
        // More are held than are allowed since the limit was lowered.
        let waiting = vec![task(1, Some("a")), task(2, Some("b"))];
        assert_eq!(ids(&of(Limits::new().max_concurrent_by_key(1)).plan(0, waiting, &held, 9)), [0; 0]);
    }

    #[test]
    fn keys_take_turns_in_the_order_in_which_they_are_seen() {
        let governed = of(Limits::new().turns(true));
        let waiting =
            vec![task(9, Some("b")), task(1, Some("a")), task(2, Some("a")), task(3, Some("a")), task(10, Some("b"))];
        assert_eq!(ids(&governed.plan(0, waiting, &HashMap::new(), 4)), [9, 1, 10, 2]);
    }

    #[test]
    fn a_task_that_waited_long_enough_is_before_one_of_a_higher_priority() {
        let governed = of(Limits::new().ageing(Duration::from_secs(1)));
        let task = |id, priority, waited| Candidate { id, priority, key: None::<()>, waited, bucket: 0 };
        let waiting = vec![task(1, 0, 3_999), task(2, 3, 0), task(3, 9, 0), task(4, 3, 1_000)];
        assert_eq!(ids(&governed.plan(0, waiting, &HashMap::new(), 9)), [3, 4, 1, 2]);
    }

    #[test]
    fn the_next_start_is_told() {
        let rate = Rate::new(1, Duration::from_secs(10));
        let mut governed = of(Limits::new().rate(rate));
        governed.bucket = governed.spent(100 * SECOND, 1);
        let plan = governed.plan(101 * SECOND, vec![task(1, None)], &HashMap::new(), 1);
        assert_eq!((ids(&plan), plan.next), (vec![], Some(110 * SECOND)));
        let by_key = of(Limits::new().rate_by_key(rate));
        let waiting =
            vec![Candidate { bucket: 105 * SECOND, ..task(1, Some("a")) }, task(2, Some("a")), task(3, Some("b"))];
        let plan = by_key.plan(101 * SECOND, waiting, &HashMap::new(), 9);
        assert_eq!((ids(&plan), plan.next), (vec![3], Some(105 * SECOND)));
    }

    #[test]
    fn sequences_keep_their_order_when_they_are_merged() {
        let merged =
            merge(vec![vec![(0, 9), (5, 1)], vec![(3, 2), (0, 3)]], 3, |(priority, id)| (Reverse(*priority), *id));
        assert_eq!(merged, [(3, 2), (0, 3), (0, 9)]);
    }
}
