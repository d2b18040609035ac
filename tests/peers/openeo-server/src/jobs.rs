//! Jobs: what was asked for, and what state the time has brought them to.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::Config;

/// A job, as a test wants to see it.
#[derive(Clone, Debug)]
pub struct JobAccount {
    /// The server's id.
    pub id: String,
    /// The title, empty if it has none.
    pub title: String,
    /// `created`, `queued`, ..; `deleted`.
    pub status: &'static str,
    /// How often it was started.
    pub starts: u32,
    /// Whose it is.
    pub user: String,
}

pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) user: String,
    fields: Map<String, Value>,
    created: SystemTime,
    started: Option<(Instant, Instant)>,
    starts: u32,
    fixed: Option<&'static str>,
    deleted: bool,
}

pub(crate) struct Jobs {
    jobs: Vec<Job>,
    /// When each slot is free.
    slots: Vec<Instant>,
    /// How many seconds the clock that dates jobs is ahead.
    clock: i64,
    /// What the signatures of links are good for.
    pub(crate) links: u64,
}

impl Jobs {
    pub(crate) fn new(slots: usize, clock: i64) -> Jobs {
        Jobs { jobs: Vec::new(), slots: vec![Instant::now(); slots.max(1)], clock, links: 1 }
    }

    pub(crate) fn create(&mut self, user: &str, fields: Map<String, Value>) -> String {
        let id = format!("j-{:06}", self.jobs.len() + 1);
        let ahead = Duration::from_secs(self.clock.unsigned_abs());
        let now = SystemTime::now();
        let created = if self.clock < 0 { now - ahead } else { now + ahead };
        let (user, started, starts) = (user.to_owned(), None, 0);
        self.jobs.push(Job { id: id.clone(), user, fields, created, started, starts, fixed: None, deleted: false });
        id
    }

    pub(crate) fn get(&self, id: &str, user: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == id && job.user == user && !job.deleted)
    }

    fn get_mut(&mut self, id: &str) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.id == id)
    }

    pub(crate) fn of(&self, user: &str) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(move |job| job.user == user && !job.deleted)
    }

    /// Starts a job, unless it is queued or running.
    pub(crate) fn start(&mut self, id: &str, config: &Config) {
        let earliest = Instant::now() + config.queue;
        let Some(slot) = (0..self.slots.len()).min_by_key(|slot| self.slots[*slot]) else { return };
        let begins = earliest.max(self.slots[slot]);
        let Some(job) = self.get_mut(id) else { return };
        if matches!(job.status(), "queued" | "running") {
            return;
        }
        let run = if job.title().contains("slow") { config.slow } else { config.run };
        job.started = Some((begins, begins + run));
        job.starts += 1;
        job.fixed = None;
        self.slots[slot] = begins + run;
    }

    pub(crate) fn stop(&mut self, id: &str) {
        if let Some(job) = self.get_mut(id).filter(|job| matches!(job.status(), "queued" | "running")) {
            job.fixed = Some("canceled");
        }
    }

    /// What is null goes.
    pub(crate) fn change(&mut self, id: &str, changes: Value) {
        let (Some(job), Value::Object(changes)) = (self.get_mut(id), changes) else { return };
        job.fields.extend(changes);
        job.fields.retain(|_, value| !value.is_null());
    }

    pub(crate) fn delete(&mut self, id: &str) {
        if let Some(job) = self.get_mut(id) {
            job.deleted = true;
        }
    }

    pub(crate) fn set_status(&mut self, id: &str, status: &'static str) {
        if let Some(job) = self.get_mut(id) {
            job.fixed = Some(status);
        }
    }

    pub(crate) fn backdate(&mut self, id: &str, by: Duration) {
        if let Some(job) = self.get_mut(id) {
            job.created -= by;
        }
    }

    pub(crate) fn expire_links(&mut self) {
        self.links += 1;
    }

    pub(crate) fn accounts(&self) -> Vec<JobAccount> {
        let account = |job: &Job| JobAccount {
            id: job.id.clone(),
            title: job.title().to_owned(),
            status: if job.deleted { "deleted" } else { job.status() },
            starts: job.starts,
            user: job.user.clone(),
        };
        self.jobs.iter().map(account).collect()
    }
}

impl Job {
    pub(crate) fn title(&self) -> &str {
        self.fields.get("title").and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> &'static str {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let now = Instant::now();
        match self.started {
            None => "created",
            Some((begins, _)) if now < begins => "queued",
            Some((_, ends)) if now < ends => "running",
            Some(_) if self.title().contains("fail") => "error",
            Some(_) => "finished",
        }
    }

    /// As the list has it.
    pub(crate) fn listed(&self) -> Value {
        let mut shown = Map::new();
        for name in ["title", "description", "plan", "budget"] {
            if let Some(value) = self.fields.get(name) {
                shown.insert(name.to_owned(), value.clone());
            }
        }
        let seconds = self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        shown.insert("id".to_owned(), json!(self.id));
        shown.insert("status".to_owned(), json!(self.status()));
        shown.insert("created".to_owned(), json!(rfc3339(seconds)));
        Value::Object(shown)
    }

    pub(crate) fn details(&self) -> Value {
        let mut shown = self.listed();
        shown["process"] = self.fields.get("process").cloned().unwrap_or_default();
        if let Some((begins, ends)) = self.started {
            let now = Instant::now();
            let share = now.saturating_duration_since(begins).as_secs_f64() / (ends - begins).as_secs_f64().max(1e-9);
            shown["progress"] = json!((share * 100.0).min(100.0).floor());
        }
        if self.status() == "finished" {
            shown["costs"] = json!(4.0);
            shown["usage"] = json!({"cpu": {"value": 12.5, "unit": "cpu-seconds"}});
        }
        shown
    }

    pub(crate) fn logs(&self) -> Vec<Value> {
        let Some((begins, ends)) = self.started else { return Vec::new() };
        let mut logs = Vec::new();
        let mut log = |at: Instant, level: &str, message: &str| {
            let id = logs.len().to_string();
            logs.push(json!({"id": id, "level": level, "message": message, "time": wall_clock(at)}));
        };
        log(begins, "info", "Job started with 4 workers");
        log(begins, "debug", "Loading 5x3x6 tiles");
        match self.status() {
            "error" => log(ends, "error", "Failed to load data cube: corrupt data for tile 'J9A7K2'."),
            "finished" => log(ends, "info", "finished"),
            _ => {}
        }
        logs
    }
}

/// The bytes of an asset: a TIFF's first bytes, then what follows from its names.
pub(crate) fn content(id: &str, key: &str, size: usize) -> Vec<u8> {
    if key.ends_with(".json") {
        return json!({"job": id, "pad": "x".repeat(size)}).to_string().into_bytes();
    }
    let mut seed =
        id.bytes().chain(key.bytes()).fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    while bytes.len() < size {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&seed.to_be_bytes()[..4]);
    }
    bytes.truncate(size);
    bytes
}

/// When it was, of a moment that is past.
fn wall_clock(at: Instant) -> String {
    let then =
        SystemTime::now().checked_sub(at.elapsed()).and_then(|then| then.duration_since(SystemTime::UNIX_EPOCH).ok());
    rfc3339(then.unwrap_or_default().as_secs())
}

/// `2026-11-21T23:00:31Z`.
fn rfc3339(seconds: u64) -> String {
    // Days to a date: Hinnant, "chrono-compatible low-level date algorithms".
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}
