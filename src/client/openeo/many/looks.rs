//! Decides when to ask a back-end about its jobs, and whether by the job list or one by one. Pure:
//! no clock, no request.
//!
//! Each job is worth one request per interval. A job list answers for all jobs with one request.
//! The requests that this saves are used to look up to [`LOOKS`] times as often, also later, when
//! few jobs are left. So in all there are never more requests than if each job was asked about once
//! per interval.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::client::openeo::documents::job::{JobDescription, JobStatus};

/// How often the list is read per interval at most.
pub(super) const LOOKS: u32 = 5;

/// How many times more often the list is read when a job may end soon, judged by how long others
/// took.
const KEEN: u32 = 2;

/// The most requests that can be saved for later.
const SAVED: f64 = 25.0;

/// If reading the list takes longer than this, jobs whose time has come are asked about one by one
/// meanwhile.
const SLOW: Duration = Duration::from_secs(1);

/// How many times in a row the list may lack our jobs before it isn't read any more.
const TRIES: u32 = 3;

/// What to do about a job now.
pub(super) enum Look {
    /// The last list has the job: this is its entry.
    Listed(JobDescription),
    /// Read the list, for all jobs.
    ReadList,
    /// Ask about this job alone.
    Describe,
    /// Nothing: it is too early, or another thread is reading the list.
    Nothing,
}

/// The outcome of reading the list.
pub(super) enum ListRead {
    /// The entries of the list.
    Read(Vec<JobDescription>),
    /// The list could not be read this time.
    Failed,
    /// The list could not be read because it took too long or was refused, so another attempt would
    /// hardly succeed.
    Useless,
}

/// The started jobs of one back-end, and its last job list.
#[derive(Default)]
pub(super) struct Looks {
    /// The entries of the last list by job, and when it was asked for.
    listed: HashMap<String, JobDescription>,
    listed_at: Option<Instant>,
    /// When a thread began to read the list, if one is reading it.
    reading: Option<Instant>,
    /// How many lists in a row had none of our jobs.
    useless: u32,
    /// The jobs to ask about, and when they were started.
    watched: HashMap<String, Instant>,
    /// How long the quickest job took from its start to its end.
    quickest: Option<Duration>,
    /// How many requests have been saved, and up to when they are counted.
    saved: f64,
    counted_at: Option<Instant>,
    /// When a single job was last asked about.
    asked_at: Option<Instant>,
}

impl Looks {
    /// Adds a job that was started, to ask about it from now on.
    pub(super) fn watch(&mut self, id: &str, now: Instant) {
        self.watched.insert(id.to_owned(), now);
    }

    /// Removes a job, which isn't asked about any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.watched.remove(id);
        self.listed.remove(id);
    }

    /// Notes that a job has finished: how long it took shows when others may end.
    pub(super) fn note_end(&mut self, id: &str, now: Instant) {
        if let Some(took) = self.watched.get(id).map(|started| now.saturating_duration_since(*started)) {
            self.quickest = Some(self.quickest.map_or(took, |known| known.min(took)));
        }
    }

    /// How many jobs are asked about.
    pub(super) fn watched(&self) -> usize {
        self.watched.len()
    }

    /// What to do about job `id` now. Each job may be asked about once per `interval`; `due` says
    /// whether the time has come to ask about this one by itself.
    pub(super) fn look(&mut self, id: &str, interval: Duration, due: bool, now: Instant) -> Look {
        let jobs = self.watched.len();
        self.save(jobs, interval, now);
        let quick = match self.expects_an_end(now) {
            Some(true) => interval.mul_f64(0.9) / LOOKS / KEEN,
            Some(false) => interval.mul_f64(0.9) / LOOKS * KEEN,
            None => interval.mul_f64(0.9) / LOOKS,
        };
        let is_quiet = |at: Option<Instant>| at.is_none_or(|at| now.saturating_duration_since(at) >= quick);
        let alone = if due { Look::Describe } else { Look::Nothing };
        if jobs < 2 || self.useless >= TRIES {
            if due || (self.saved >= 1.0 && is_quiet(self.asked_at)) {
                self.saved = (self.saved - 1.0).max(0.0);
                self.asked_at = Some(now);
                return Look::Describe;
            }
            return Look::Nothing;
        }
        let share = u32::try_from(jobs).unwrap_or(u32::MAX).min(LOOKS);
        let fresh = if self.saved >= 1.0 { quick } else { interval.mul_f64(0.9) / share };
        if self.listed_at.is_some_and(|at| now.saturating_duration_since(at) < fresh) {
            return self.listed.get(id).map_or(alone, |found| Look::Listed(found.clone()));
        }
        if let Some(since) = self.reading {
            return if now.saturating_duration_since(since) < SLOW { Look::Nothing } else { alone };
        }
        self.saved = (self.saved - 1.0).max(0.0);
        self.reading = Some(now);
        Look::ReadList
    }

    /// Stores the outcome of the reading that began at `began`, unless a later one is stored
    /// already.
    pub(super) fn take_list(&mut self, began: Instant, read: ListRead) {
        self.useless += u32::from(matches!(read, ListRead::Useless));
        if self.reading != Some(began) {
            return;
        }
        self.reading = None;
        self.listed_at = Some(began);
        self.listed = HashMap::new();
        let ListRead::Read(list) = read else { return };
        for entry in list {
            if self.watched.contains_key(entry.id()) && !matches!(entry.status(), JobStatus::Other(_)) {
                self.listed.insert(entry.id().to_owned(), entry);
            }
        }
        let is_useful = self.listed.len() * 2 >= self.watched.len();
        self.useless = if is_useful { 0 } else { self.useless + 1 };
    }

    /// Adds the requests that the jobs were worth since the last call to the saved ones.
    fn save(&mut self, jobs: usize, interval: Duration, now: Instant) {
        let since = self.counted_at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let share = since.as_secs_f64() / interval.as_secs_f64().max(1e-3);
        self.saved = (self.saved + jobs as f64 * share).min(SAVED);
    }

    /// Whether a job may end about now, judged by the quickest one; `None` if none has ended yet.
    fn expects_an_end(&self, now: Instant) -> Option<bool> {
        let soonest = self.quickest?.mul_f64(0.9);
        Some(self.watched.values().any(|started| now.saturating_duration_since(*started) >= soonest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn watching(ids: &[&str], since: Instant) -> Looks {
        let mut looks = Looks::default();
        for id in ids {
            looks.watch(id, since);
        }
        looks
    }

    #[test]
    fn the_list_is_read_often_when_a_job_can_be_expected_to_end() {
        let (start, interval, second) = (Instant::now(), Duration::from_secs(10), Duration::from_secs(1));
        let mut looks = watching(&["a", "b", "c"], start);
        let reads_after = |looks: &mut Looks, read: Duration, wait: Duration| {
            (looks.reading, looks.saved, looks.listed_at, looks.counted_at) = (None, 9.0, Some(start + read), None);
            matches!(looks.look("a", interval, false, start + read + wait), Look::ReadList)
        };
        assert!(reads_after(&mut looks, second, 2 * second), "nothing is known");
        looks.note_end("c", start + 100 * second);
        looks.forget("c");
        assert!(!reads_after(&mut looks, second, 2 * second), "none ends before 90 s");
        assert!(reads_after(&mut looks, second, 4 * second));
        assert!(reads_after(&mut looks, 95 * second, second), "any may end now");
    }

    #[test]
    fn there_are_never_more_requests_than_one_a_job_and_interval() {
        let (start, interval) = (Instant::now(), Duration::from_secs(1));
        let mut jobs: Vec<String> = (0..10).map(|job| job.to_string()).collect();
        let mut looks = watching(&jobs.iter().map(String::as_str).collect::<Vec<_>>(), start);
        let (mut requests, mut due, mut good_for) = (0, start + interval, 0.0);
        for step in 1..4_000u32 {
            let now = start + Duration::from_millis(10) * step;
            good_for += jobs.len() as f64 * 0.01;
            if step % 300 == 0 && jobs.len() > 1 {
                looks.forget(&jobs.pop().expect("a job"));
            }
            for job in &jobs {
                match looks.look(job, interval, jobs.len() == 1 && now >= due, now) {
                    Look::ReadList => {
                        requests += 1;
                        (looks.reading, looks.listed_at) = (None, Some(now));
                    }
                    Look::Describe => {
                        requests += 1;
                        due = now + interval;
                    }
                    Look::Listed(_) | Look::Nothing => {}
                }
            }
        }
        assert!(f64::from(requests) <= good_for, "{requests} requests where {good_for:.0} were good");
        assert!(f64::from(requests) > 4.0 * 27.0, "{requests}: they were looked at often while there were several");
    }

    #[test]
    fn one_list_is_read_for_all_and_not_too_often() {
        let (now, interval) = (Instant::now(), Duration::from_secs(10));
        let mut looks = watching(&["a"], now);
        assert!(matches!(looks.look("a", interval, true, now), Look::Describe), "alone");
        assert!(matches!(looks.look("a", interval, false, now), Look::Nothing), "not due");
        looks.watch("b", now);
        looks.watch("c", now);
        assert!(matches!(looks.look("a", interval, false, now), Look::ReadList));
        assert!(matches!(looks.look("b", interval, true, now), Look::Nothing), "it is being read");
        let listed = |id: &str| JobDescription::new(json!({"id": id, "status": "running"}));
        looks.take_list(now, ListRead::Read(vec![listed("a"), listed("of others")]));
        assert!(matches!(looks.look("a", interval, false, now), Look::Listed(found) if found.id() == "a"));
        assert!(matches!(looks.look("b", interval, true, now), Look::Describe), "not in the list");
        let after = |seconds: f64| now + Duration::from_secs_f64(seconds);
        assert!(
            matches!(looks.look("a", interval, false, after(2.0)), Look::Listed(_)),
            "three jobs: each 3.3 s, less a tenth"
        );
        assert!(matches!(looks.look("a", interval, false, after(3.1)), Look::ReadList));
        let hung = looks.look("a", interval, true, after(60.0));
        assert!(matches!(hung, Look::Describe), "a list that hangs leaves each to itself");
    }

    #[test]
    fn a_list_that_is_no_use_is_given_up_on() {
        let (now, interval) = (Instant::now(), Duration::from_secs(10));
        let mut looks = watching(&["a", "b"], now);
        for round in 0..TRIES {
            let now = now + interval * (round + 1);
            assert!(matches!(looks.look("a", interval, false, now), Look::ReadList), "{round}");
            looks.take_list(now, if round == 0 { ListRead::Read(Vec::new()) } else { ListRead::Useless });
        }
        assert!(matches!(looks.look("a", interval, true, now + interval * 9), Look::Describe));
    }
}
