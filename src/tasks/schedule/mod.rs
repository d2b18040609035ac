//! Schedules: tasks that are enqueued again and again, at times that a rule gives.
//!
//! A schedule is a row in the database, with the time at which it fires next. Each worker looks
//! once a second for those whose time has come. The process that moves that time on, in the
//! transaction that enqueues the tasks, is the one that fired it: so it fires once, however many
//! processes look, and not at all if the transaction fails. What a fired task is called says when
//! it was due, and the database refuses the same name twice.
//!
//! The rule is looked at by programs and not by the database, which knows numbers alone.

mod rule;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use self::rule::Rule;
use super::error::{Result, TaskError};
use super::new_task::{Checked, NewTask, Start};
use super::queue::TaskQueue;
use super::task_type::check_name;
use super::unique::{CheckedUnique, Unique};
use crate::trace::event;

/// A task that is enqueued again and again, at times by the database's clock.
///
/// Each run is a task of its own. Its identifier is that of the task given here, an `@`, and the
/// time for which it was scheduled, in UTC: `nightly@2026-03-29T01:00:00Z`. Types without
/// [retention](super::TaskType::retention) keep them all.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use fulmar::tasks::{NewTask, Schedule, TaskError, TaskQueue, TaskType};
/// use std::time::Duration;
///
/// # let folder = std::env::temp_dir().join(format!("fulmar-schedule-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
/// let queue = TaskQueue::open(folder.join("queue.db"))?;
/// queue.register(TaskType::new("cleanup").retention(Duration::from_secs(86_400)))?;
/// // Each program says so when it starts; the database has it once.
/// queue.put_schedule(Schedule::every("cleanup", Duration::from_secs(600), NewTask::new("cleanup", "old")))?;
/// assert_eq!(queue.schedules()?[0].name, "cleanup");
/// # std::fs::remove_dir_all(&folder).ok();
/// # }
/// # Ok::<(), fulmar::tasks::TaskError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a schedule does nothing until it is put into a queue"]
pub struct Schedule {
    name: String,
    rule: String,
    zone: String,
    missed: Missed,
    task: NewTask,
}

/// What becomes of times at which no worker was there to fire a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// However many were missed, one task is enqueued, for the last of them. The default.
    #[default]
    Once,
    /// Times that were missed by more than a minute are left out.
    Skip,
    /// Each has its task, oldest first. However many there are, other schedules fire beside them.
    Each,
}

impl Schedule {
    /// Fires at the times of a cron expression: five fields (minute, hour, day, month, day of the
    /// week), or six with seconds before them, or `@hourly`, `@daily`, `@weekly`, `@monthly`,
    /// `@yearly`. If both days are restricted, either will do. The times are meant in UTC unless a
    /// [`zone`](Schedule::zone) is given.
    ///
    /// `task` is what is enqueued; its time to start is the schedule's.
    #[cfg(feature = "cron")]
    pub fn cron(name: impl Into<String>, expression: impl Into<String>, task: NewTask) -> Schedule {
        Schedule::new(name.into(), expression.into(), task)
    }

    /// Fires every `period`, of which whole milliseconds count, at least one second; for the first
    /// time when one has passed since it was put.
    pub fn every(name: impl Into<String>, period: Duration, task: NewTask) -> Schedule {
        Schedule::new(name.into(), rule::every(period), task)
    }

    fn new(name: String, rule: String, task: NewTask) -> Schedule {
        Schedule { name, rule, zone: "UTC".into(), missed: Missed::default(), task }
    }

    /// The zone of a cron expression's times, by its name in the IANA database, such as
    /// `Europe/Vienna`. The machine's own database is asked, and where it has none, one that is
    /// compiled in. Defaults to `UTC`.
    ///
    /// When clocks are set, a fixed time of the day (no `*` and no `/` in hours and minutes) still
    /// fires once a day: if the clocks skip it, right after the gap, and if they show it twice, the
    /// first time. Other expressions go by the clock: none fires in a gap, and an hour that comes
    /// twice has its runs twice.
    #[cfg(feature = "cron")]
    pub fn zone(mut self, name: impl Into<String>) -> Schedule {
        self.zone = name.into();
        self
    }

    /// What becomes of times that were missed, because no worker ran. Defaults to [`Missed::Once`].
    pub fn missed(mut self, policy: Missed) -> Schedule {
        self.missed = policy;
        self
    }
}

/// A schedule as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleInfo {
    /// Its name.
    pub name: String,
    /// The cron expression, or `every 600000ms`.
    pub rule: String,
    /// The zone of a cron expression's times.
    pub zone: String,
    /// What becomes of times that were missed.
    pub missed: Missed,
    /// The type of its tasks; empty if what is stored makes no sense.
    pub task_type: String,
    /// When it fires next; `None` if never again.
    pub next: Option<SystemTime>,
    /// For which time it has fired last.
    pub last: Option<SystemTime>,
    /// Whether it is [paused](TaskQueue::pause_schedule).
    pub paused: bool,
}

/// What an engine keeps of a schedule. Times are milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) rule: String,
    pub(super) zone: String,
    pub(super) missed: i64,
    /// The task but for its input, as JSON.
    pub(super) task: String,
    pub(super) input: Vec<u8>,
    /// [`NEVER`] if it doesn't fire any more.
    pub(super) next: i64,
    pub(super) last: Option<i64>,
    pub(super) paused: bool,
}

/// A firing: a schedule's time moves from `due` to `next`, and the tasks are enqueued that the
/// database does not have.
#[derive(Clone)]
pub(super) struct Firing {
    pub(super) name: String,
    pub(super) due: i64,
    pub(super) next: i64,
    /// The last time that it fires for.
    pub(super) last: Option<i64>,
    pub(super) tasks: Vec<Checked>,
}

/// Later than any clock shows.
const NEVER: i64 = i64::MAX / 4;

/// How late a time may be fired that is not to be made up for.
const GRACE: i64 = 60_000;

/// The most tasks of one schedule that are enqueued in one step.
const MOST_AT_ONCE: usize = 100;

/// What a time adds to an identifier, at most.
const LONGEST_TIME: usize = 32;

impl TaskQueue {
    /// Puts a schedule into the database, or gives the one of that name these settings. If its rule
    /// and zone are as they were, its times go on as they were, those included that were missed
    /// meanwhile; else they begin anew. So programs may put their schedules each time they start.
    /// Any [`Worker`](super::Worker) on the queue fires it, whichever types it handles.
    ///
    /// # Errors
    /// [`TaskError::Invalid`] for an expression, a zone or a period that makes no sense, for one
    /// that never fires, for a name beyond 512 bytes, or a task's identifier beyond 480;
    /// [`TaskError::UnknownType`]; [`TaskError::TooLarge`].
    pub fn put_schedule(&self, schedule: Schedule) -> Result<()> {
        let Schedule { name, rule, zone, missed, task } = schedule;
        check_name("the name of a schedule", &name)?;
        let parsed = Rule::parse(&rule, &zone)?;
        let task = task.checked()?;
        if task.identifier.len() + LONGEST_TIME > 512 {
            return Err(TaskError::Invalid(
                "each firing adds its time to the task's identifier, which may have 480 bytes at most: shorten it"
                    .into(),
            ));
        }
        if self.engine().types()?.iter().all(|known| known.name() != task.task_type) {
            return Err(TaskError::UnknownType(task.task_type));
        }
        let now = self.engine().now()?;
        let next = parsed.next(now, now).ok_or_else(|| {
            TaskError::Invalid(format!(
                "the schedule `{rule}` never fires: change its rule to one that some future time fits"
            ))
        })?;
        let (task, input) = to_template(task);
        self.engine().put_schedule(Stored {
            name,
            rule,
            zone,
            missed: missed.code(),
            task,
            input,
            next,
            last: None,
            paused: false,
        })
    }

    /// Removes a schedule. What it has enqueued stays. False: there was none of that name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn remove_schedule(&self, name: &str) -> Result<bool> {
        self.engine().remove_schedule(name)
    }

    /// All schedules, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn schedules(&self) -> Result<Vec<ScheduleInfo>> {
        let (_, stored) = self.engine().schedules(false)?;
        Ok(stored.into_iter().map(Stored::info).collect())
    }

    /// Has a schedule fire no more until it is [resumed](TaskQueue::resume_schedule). It outlives
    /// restarts of everything.
    ///
    /// # Errors
    /// [`TaskError::UnknownSchedule`].
    pub fn pause_schedule(&self, name: &str) -> Result<()> {
        self.set_schedule(name, None)
    }

    /// Ends [`pause_schedule`](TaskQueue::pause_schedule). Times that have passed meanwhile are not
    /// made up for.
    ///
    /// # Errors
    /// [`TaskError::UnknownSchedule`].
    pub fn resume_schedule(&self, name: &str) -> Result<()> {
        let (now, stored) = self.engine().schedules(false)?;
        let stored = stored.into_iter().find(|stored| stored.name == name);
        let stored = stored.ok_or_else(|| TaskError::UnknownSchedule(name.to_owned()))?;
        let rule = Rule::parse(&stored.rule, &stored.zone)?;
        let next = if stored.next > now { Some(stored.next) } else { rule.next(stored.next, now) };
        self.set_schedule(name, Some(next.unwrap_or(NEVER)))
    }

    fn set_schedule(&self, name: &str, next: Option<i64>) -> Result<()> {
        match self.engine().pause_schedule(name, next)? {
            true => Ok(()),
            false => Err(TaskError::UnknownSchedule(name.to_owned())),
        }
    }

    /// Enqueues the tasks of all schedules whose time has come; returns how many. A
    /// [`Worker`](super::Worker) does it once a second; this is for programs without one, and for
    /// tests.
    ///
    /// # Errors
    /// The first, when all were tried: of a type that is not registered any more, a queue that is
    /// full, or the database. The times of a schedule that could not be fired stay as they are, so
    /// that it is tried again; of many that were missed, so many are fired as there is room for.
    pub fn fire_schedules(&self) -> Result<u64> {
        self.fire_schedules_while(|| true)
    }

    /// As [`fire_schedules`](TaskQueue::fire_schedules), for as long as `goes_on` says so. What is
    /// left is fired by the next who looks.
    pub(super) fn fire_schedules_while(&self, goes_on: impl Fn() -> bool) -> Result<u64> {
        let (now, mut due) = self.engine().schedules(true)?;
        let (mut enqueued, mut failed) = (0, None);
        // They take turns: one that has a year to make up for holds up no other.
        while !due.is_empty() && goes_on() {
            due.retain_mut(|stored| match goes_on().then(|| self.fire(now, stored)) {
                Some(Ok(tasks)) => {
                    enqueued += tasks.unwrap_or(0);
                    tasks.is_some() && stored.next <= now
                }
                Some(Err(error)) => {
                    event!(WARN, "a schedule can't be fired", schedule = stored.name, error = error.to_string());
                    failed.get_or_insert(error);
                    false
                }
                None => false,
            });
        }
        failed.map_or(Ok(enqueued), Err)
    }

    /// Fires a schedule for as many times as one step may have, and moves it on. `None` if another
    /// process was faster, or the schedule was changed.
    fn fire(&self, now: i64, stored: &mut Stored) -> Result<Option<u64>> {
        let rule = Rule::parse(&stored.rule, &stored.zone)?;
        let template = from_template(stored)?;
        let (due, mut most) = (stored.next, MOST_AT_ONCE);
        loop {
            let Plan { mut times, mut next } = plan(&rule, stored.missed()?, due, now);
            if let Some(&later) = times.get(most) {
                times.truncate(most);
                next = later;
            }
            let tasks = times.iter().map(|&time| run_of(&template, time).checked()).collect::<Result<Vec<_>>>()?;
            let last = times.last().copied();
            match self.engine().fire(Firing { name: stored.name.clone(), due, next, last, tasks }) {
                // There may be room for some of them: all together might never have it.
                Err(TaskError::QueueFull { .. }) if times.len() > 1 => most = times.len() / 2,
                fired => {
                    stored.next = next;
                    return fired;
                }
            }
        }
    }
}

/// What to fire now, and when to look again.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    times: Vec<i64>,
    next: i64,
}

fn plan(rule: &Rule, missed: Missed, due: i64, now: i64) -> Plan {
    if missed == Missed::Each {
        let (mut times, mut next) = (Vec::new(), due);
        while next <= now && times.len() < MOST_AT_ONCE {
            times.push(next);
            next = rule.next(next, next).unwrap_or(NEVER);
        }
        return Plan { times, next };
    }
    let latest = rule.latest(due, now);
    let is_over = missed == Missed::Skip && now.saturating_sub(latest) > GRACE;
    let times = if is_over { Vec::new() } else { vec![latest] };
    Plan { times, next: rule.next(latest, now).unwrap_or(NEVER) }
}

/// The task for one time.
fn run_of(template: &NewTask, time: i64) -> NewTask {
    let mut task = template.clone();
    task.identifier = format!("{}@{}", task.identifier, utc(time));
    task
}

/// A time as ISO 8601 writes it.
fn utc(millis: i64) -> String {
    let (seconds, rest) = (millis.div_euclid(1_000), millis.rem_euclid(1_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = crate::time::civil_from_days(days);
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:03}") };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// What is enqueued, as it is stored: all but the input as JSON, and the input.
fn to_template(task: Checked) -> (String, Vec<u8>) {
    let template = json!({
        "type": task.task_type,
        "identifier": task.identifier,
        "message": task.message,
        "priority": task.priority,
        "key": task.key,
        "is_modifier": task.is_modifier,
        "unique": task.unique.as_ref().map(CheckedUnique::to_json),
    });
    (template.to_string(), task.input)
}

/// The task that a schedule enqueues, read from what `to_template` stored. Its identifier is
/// without the time of a run, which `run_of` adds, and it starts at once. `Database` if the stored
/// text is not such a task.
fn from_template(stored: &Stored) -> Result<NewTask> {
    let nonsense = || TaskError::Database {
        doing: "reading a schedule",
        source: format!("the task of schedule `{}` makes no sense", stored.name).into(),
    };
    let template: Value = serde_json::from_str(&stored.task).map_err(|_| nonsense())?;
    let text = |member: &str| template[member].as_str().ok_or_else(nonsense);
    let mut task = NewTask::new(text("type")?, text("identifier")?).input_bytes(stored.input.clone());
    task.message = text("message")?.to_owned();
    task.priority = template["priority"].as_i64().and_then(|priority| priority.try_into().ok()).ok_or_else(nonsense)?;
    task.key = template["key"].as_str().map(str::to_owned);
    task.is_modifier = template["is_modifier"].as_bool().ok_or_else(nonsense)?;
    task.unique = match &template["unique"] {
        Value::Null => None,
        unique => Some(Unique::from_json(unique).ok_or_else(nonsense)?),
    };
    task.start = Start::After(Duration::ZERO);
    Ok(task)
}

impl Stored {
    fn missed(&self) -> Result<Missed> {
        Missed::from_code(self.missed).ok_or_else(|| TaskError::Database {
            doing: "reading a schedule",
            source: format!("schedule `{}` has a policy {} that is none", self.name, self.missed).into(),
        })
    }

    fn info(self) -> ScheduleInfo {
        let time = |millis: i64| UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        let task_type = from_template(&self).map_or(String::new(), |task| task.task_type);
        ScheduleInfo {
            missed: Missed::from_code(self.missed).unwrap_or_default(),
            task_type,
            next: (self.next < NEVER).then(|| time(self.next)),
            last: self.last.filter(|&last| last < NEVER).map(time),
            name: self.name,
            rule: self.rule,
            zone: self.zone,
            paused: self.paused,
        }
    }
}

impl Missed {
    fn code(self) -> i64 {
        match self {
            Missed::Once => 0,
            Missed::Skip => 1,
            Missed::Each => 2,
        }
    }

    fn from_code(code: i64) -> Option<Missed> {
        [Missed::Once, Missed::Skip, Missed::Each].into_iter().find(|missed| missed.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_ten() -> Rule {
        Rule::parse(&rule::every(Duration::from_secs(10)), "UTC").expect("sound")
    }

    #[test]
    fn what_was_missed_is_made_up_for_as_the_policy_says() {
        let rule = every_ten();
        let plan = |missed, now| plan(&rule, missed, 10_000, now);
        for missed in [Missed::Once, Missed::Skip, Missed::Each] {
            assert_eq!(plan(missed, 10_500), Plan { times: vec![10_000], next: 20_000 }, "{missed:?}: in time");
        }
        assert_eq!(plan(Missed::Once, 99_000), Plan { times: vec![90_000], next: 100_000 });
        assert_eq!(
            plan(Missed::Skip, 99_000),
            Plan { times: vec![90_000], next: 100_000 },
            "the last is not a minute late"
        );
        assert_eq!(plan(Missed::Each, 39_000), Plan { times: vec![10_000, 20_000, 30_000], next: 40_000 });
        let many = plan(Missed::Each, 10_000_000);
        assert_eq!((many.times.len(), many.next), (MOST_AT_ONCE, 1_010_000), "the rest is the next step's");
    }

    #[test]
    fn who_is_more_than_a_minute_late_leaves_it_out() {
        let rule = Rule::parse(&rule::every(Duration::from_secs(3_600)), "UTC").expect("sound");
        assert_eq!(plan(&rule, Missed::Skip, 0, 60_001), Plan { times: vec![], next: 3_600_000 });
        assert_eq!(plan(&rule, Missed::Skip, 0, 60_000), Plan { times: vec![0], next: 3_600_000 });
    }

    #[test]
    fn times_are_written_in_utc() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_774_746_000_000, "2026-03-29T01:00:00Z"),
            (1_774_746_000_250, "2026-03-29T01:00:00.250Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59Z"),
            (-1_000, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(millis), expected);
        }
    }
}
