//! One of the back-ends that jobs are run on: how much room it has, and what its job list said last.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Connection, Pace};
use super::description::{JobDescription, JobStatus};
use crate::backoff::Backoff;
use crate::client::http::HttpErrorKind;
use crate::sync::Mutex;
use crate::trace::event;

/// How many looks at the list stand for one at each job, at most.
pub(super) const LOOKS: u32 = 5;

/// How many times as often it is looked at when a job can be expected to end, as far as others that ended tell.
const KEEN: u32 = 2;

/// So many jobs are made at once on a back-end, or a quarter of those that it runs. More at once would all be made later.
const CREATIONS: usize = 4;

/// For how long a back-end that doesn't answer is passed over, at first and at most.
const DOWN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

/// So many requests can be saved for later.
const SAVED: f64 = 25.0;

/// When reading the list takes longer than that, jobs that are due are asked about alone meanwhile. Nor does anything wait for a
/// creation or a start that takes longer.
const SLOW: Duration = Duration::from_secs(1);

/// So many times a list that doesn't tell of our jobs is read, before it is given up on.
const TRIES: u32 = 3;

/// A back-end to run jobs on, and how many at once.
#[derive(Clone, Debug)]
#[must_use = "a back-end is for `run_jobs`"]
pub struct BackEnd {
    pub(super) connection: Connection,
    pub(super) name: String,
    pub(super) parallel_jobs: usize,
    pub(super) queue_limit: usize,
}

impl BackEnd {
    /// A back-end that runs 2 jobs at once and queues 10, as the Python client's job manager has it.
    pub fn new(connection: &Connection) -> BackEnd {
        let name = connection.shared.name.clone();
        BackEnd { connection: connection.clone(), name, parallel_jobs: 2, queue_limit: 10 }
    }

    /// What it is called in reports. Defaults to its title.
    pub fn name(mut self, name: &str) -> BackEnd {
        self.name = name.to_owned();
        self
    }

    /// How many of these jobs it is given at once: created, queued and running ones. Defaults to 2. A back-end that says that
    /// it has too many is left alone for a while, whatever this says.
    pub fn parallel_jobs(mut self, jobs: usize) -> BackEnd {
        self.parallel_jobs = jobs;
        self
    }

    /// With how many of them in its queue it gets no more. Defaults to 10.
    pub fn queue_limit(mut self, jobs: usize) -> BackEnd {
        self.queue_limit = jobs;
        self
    }
}

/// A back-end at work.
pub(super) struct Site {
    pub(super) back_end: BackEnd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Places with a job that is started, or about to be.
    taken: usize,
    /// Jobs that wait for a place.
    waiting: usize,
    /// Those of them that are made, so that they could start at once.
    made: usize,
    /// Since when jobs are being made, and started.
    creating: Vec<Instant>,
    starting: Vec<Instant>,
    /// Until when others are preferred, because it doesn't answer; and how often in a row it did not.
    down_until: Option<Instant>,
    failures: u32,
    queued: HashSet<String>,
    full_until: Option<Instant>,
    /// What the last list said, and when it was asked for.
    listed: HashMap<String, JobDescription>,
    listed_at: Option<Instant>,
    /// Since when somebody reads the list.
    reading: Option<Instant>,
    /// How many lists in a row didn't tell of our jobs.
    useless: u32,
    /// Jobs that were started here, and when.
    watched: HashMap<String, Instant>,
    /// How long the quickest job took from its start to its end.
    quickest: Option<Duration>,
    /// Requests that were not made, and since when that is counted.
    saved: f64,
    counted_at: Option<Instant>,
    /// When a job alone was last asked about.
    asked_at: Option<Instant>,
}

impl State {
    /// Counts what the jobs were good for since the last time.
    fn save(&mut self, jobs: usize, interval: Duration, now: Instant) {
        let since = self.counted_at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let share = since.as_secs_f64() / interval.as_secs_f64().max(1e-3);
        self.saved = (self.saved + jobs as f64 * share).min(SAVED);
    }

    fn is_down(&self, now: Instant) -> bool {
        self.down_until.is_some_and(|until| now < until)
    }

    /// Whether a job may end by now, as far as is known; `None` if nothing is.
    fn expects_an_end(&self, now: Instant) -> Option<bool> {
        let soonest = self.quickest?.mul_f64(0.9);
        Some(self.watched.values().any(|started| now.saturating_duration_since(*started) >= soonest))
    }
}

/// A place for one job on a site, or the wait for one; given back when dropped.
pub(super) struct Place {
    pub(super) site: Arc<Site>,
    id: Option<String>,
    taken: bool,
    made: bool,
}

/// A creation or a start on its way; over when dropped.
pub(super) struct Call {
    site: Arc<Site>,
    calls: fn(&mut State) -> &mut Vec<Instant>,
    since: Instant,
}

impl Call {
    fn begin(site: &Arc<Site>, state: &mut State, calls: fn(&mut State) -> &mut Vec<Instant>, now: Instant) -> Call {
        calls(state).push(now);
        Call { site: Arc::clone(site), calls, since: now }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.site.state.lock();
        let calls = (self.calls)(&mut state);
        if let Some(at) = calls.iter().position(|since| *since == self.since) {
            calls.swap_remove(at);
        }
    }
}

/// How many calls there are that others may wait for: not those that hang.
fn brisk(calls: &[Instant], now: Instant) -> usize {
    calls.iter().filter(|since| now.saturating_duration_since(**since) < SLOW).count()
}

/// What to do about a job now.
pub(super) enum Look {
    /// The list has told: here it is.
    Listed(JobDescription),
    /// Read the list, for all.
    ReadList,
    /// Ask about this job alone.
    Describe,
    /// Nothing: it is too early, or somebody is at it.
    Nothing,
}

impl Site {
    pub(super) fn new(back_end: BackEnd) -> Arc<Site> {
        Arc::new(Site { back_end, state: Mutex::new(State::default()) })
    }

    /// How many jobs it has or is to have, for each that it runs; whether it takes one more now; and whether it is down.
    fn load(&self, now: Instant) -> (f64, bool, bool) {
        let state = self.state.lock();
        let load = (state.taken + state.waiting) as f64 / self.back_end.parallel_jobs as f64;
        (load, self.is_open(&state, now), state.is_down(now))
    }

    /// It doesn't answer, or not to us: for a while others are preferred, longer each time.
    pub(super) fn is_down(&self, now: Instant) {
        let mut state = self.state.lock();
        // Those that were on their way together tell one thing.
        if !state.is_down(now) {
            let pause = Backoff::new(DOWN.0).cap(DOWN.1).delay(state.failures);
            state.failures = state.failures.saturating_add(1);
            state.down_until = now.checked_add(pause);
        }
    }

    pub(super) fn is_up(&self) {
        let mut state = self.state.lock();
        (state.down_until, state.failures) = (None, 0);
    }

    /// Whether one that isn't down is among these.
    pub(super) fn any_is_up(sites: &[Arc<Site>], now: Instant) -> bool {
        sites.iter().any(|site| !site.state.lock().is_down(now))
    }

    /// Whether jobs are started here just now, or could be. A place that stands empty is lost for good, so whatever else there
    /// is to ask gives way.
    pub(super) fn has_starts(&self, now: Instant) -> bool {
        let state = self.state.lock();
        brisk(&state.starting, now) > 0 || (state.made > 0 && self.is_open(&state, now))
    }

    fn is_open(&self, state: &State, now: Instant) -> bool {
        state.taken < self.back_end.parallel_jobs
            && state.queued.len() < self.back_end.queue_limit
            && state.full_until.is_none_or(|until| now >= until)
    }

    /// A place on the site that has the most room; if none has any, one to wait at.
    pub(super) fn place(sites: &[Arc<Site>], now: Instant) -> Option<Place> {
        let loads = sites.iter().map(|site| (site, site.load(now)));
        // Those that answer come first, and of them those that take one more.
        let best = loads.min_by(|(_, (a, a_open, a_down)), (_, (b, b_open, b_down))| {
            a_down.cmp(b_down).then(b_open.cmp(a_open)).then(a.total_cmp(b))
        });
        let site = Arc::clone(best?.0);
        site.state.lock().waiting += 1;
        let mut place = Place { site, id: None, taken: false, made: false };
        place.take(now);
        Some(place)
    }

    /// What to do about job `id`, which is asked about every `interval`, and is `due` to be asked about itself or not.
    ///
    /// Each job is good for one request an interval. A list tells about all of them, which saves requests; what was saved goes
    /// into looking up to [`LOOKS`] times as often, also when few jobs are left. So there are never more requests in all.
    pub(super) fn look(&self, id: &str, interval: Duration, due: bool, now: Instant) -> Look {
        let mut state = self.state.lock();
        let jobs = state.watched.len();
        state.save(jobs, interval, now);
        let quick = match state.expects_an_end(now) {
            Some(true) => interval.mul_f64(0.9) / LOOKS / KEEN,
            Some(false) => interval.mul_f64(0.9) / LOOKS * KEEN,
            None => interval.mul_f64(0.9) / LOOKS,
        };
        let is_quiet = |at: Option<Instant>| at.is_none_or(|at| now.saturating_duration_since(at) >= quick);
        let alone = if due { Look::Describe } else { Look::Nothing };
        if jobs < 2 || state.useless >= TRIES {
            if due || (state.saved >= 1.0 && is_quiet(state.asked_at)) {
                state.saved = (state.saved - 1.0).max(0.0);
                state.asked_at = Some(now);
                return Look::Describe;
            }
            return Look::Nothing;
        }
        let share = u32::try_from(jobs).unwrap_or(u32::MAX).min(LOOKS);
        let fresh = if state.saved >= 1.0 { quick } else { interval.mul_f64(0.9) / share };
        if state.listed_at.is_some_and(|at| now.saturating_duration_since(at) < fresh) {
            return state.listed.get(id).map_or(alone, |found| Look::Listed(found.clone()));
        }
        if let Some(since) = state.reading {
            return if now.saturating_duration_since(since) < SLOW { Look::Nothing } else { alone };
        }
        state.saved = (state.saved - 1.0).max(0.0);
        state.reading = Some(now);
        Look::ReadList
    }

    /// Reads the list, by one request, and puts down what it says. An error is nobody's: for a while each job is asked about
    /// alone.
    pub(super) fn read_list(&self, now: Instant) {
        let jobs = self.state.lock().watched.len();
        let list = self.back_end.connection.first_page(jobs * 2, Pace::Step, None);
        let mut state = self.state.lock();
        let is_latest = state.reading == Some(now);
        if is_latest {
            state.reading = None;
        }
        let list_is_there = list.is_ok();
        let list = list.unwrap_or_else(|error| {
            event!(DEBUG, "the job list could not be read", back_end = self.back_end.name, error = error.to_string());
            let hung = error.http().is_some_and(|http| http.kind() == HttpErrorKind::Timeout);
            state.useless += u32::from(hung || !error.is_retryable());
            Vec::new()
        });
        if !is_latest {
            return;
        }
        state.listed = HashMap::new();
        for entry in list {
            if state.watched.contains_key(entry.id()) && !matches!(entry.status(), JobStatus::Other(_)) {
                state.listed.insert(entry.id().to_owned(), entry);
            }
        }
        if list_is_there {
            let is_useful = state.listed.len() * 2 >= state.watched.len();
            state.useless = if is_useful { 0 } else { state.useless + 1 };
        }
        state.listed_at = Some(now);
    }
}

impl Place {
    /// Whether the job may be started: it has its place, or gets it now. Those that are made come before those that are not.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let mut state = self.site.state.lock();
        if !self.taken && self.site.is_open(&state, now) && (self.made || state.made == 0) {
            state.waiting -= 1;
            state.taken += 1;
            self.taken = true;
            state.made -= usize::from(std::mem::take(&mut self.made));
        }
        self.taken
    }

    /// Leave to make the job now. Not too many at once: and those that are made ahead of their time give way to starts.
    pub(super) fn may_create(&mut self, now: Instant) -> Option<Call> {
        let may_start = self.take(now);
        if !may_start && self.site.has_starts(now) {
            return None;
        }
        let mut state = self.site.state.lock();
        let most = CREATIONS.max(self.site.back_end.parallel_jobs / 4);
        (brisk(&state.creating, now) < most)
            .then(|| Call::begin(&self.site, &mut state, |state| &mut state.creating, now))
    }

    /// The job is made, and could start.
    pub(super) fn is_made(&mut self) {
        if !self.taken && !self.made {
            self.made = true;
            self.site.state.lock().made += 1;
        }
    }

    /// A start is on its way, until what comes back is dropped.
    pub(super) fn starting(&self, now: Instant) -> Call {
        Call::begin(&self.site, &mut self.site.state.lock(), |state| &mut state.starting, now)
    }

    /// The site has too many jobs until then: this one waits.
    pub(super) fn is_full(&mut self, until: Option<Instant>) {
        let mut state = self.site.state.lock();
        state.full_until = until;
        if self.taken {
            state.taken -= 1;
            state.waiting += 1;
            self.taken = false;
            // It was to be started, or it would have lost its place altogether.
            self.made = true;
            state.made += 1;
        }
    }

    /// The job here is started, and is asked about from now on.
    pub(super) fn watch(&mut self, id: &str, now: Instant) {
        let mut state = self.site.state.lock();
        state.watched.insert(id.to_owned(), now);
        state.queued.insert(id.to_owned());
        drop(state);
        self.id = Some(id.to_owned());
    }

    pub(super) fn left_the_queue(&self) {
        if let Some(id) = &self.id {
            self.site.state.lock().queued.remove(id);
        }
    }
}

impl Place {
    /// The job has finished: how long that takes is good to know for the others.
    pub(super) fn finished(&self, now: Instant) {
        let mut state = self.site.state.lock();
        let started = self.id.as_ref().and_then(|id| state.watched.get(id).copied());
        if let Some(took) = started.map(|started| now.saturating_duration_since(started)) {
            state.quickest = Some(state.quickest.map_or(took, |known| known.min(took)));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.site.state.lock();
        state.made -= usize::from(self.made);
        state.taken -= usize::from(self.taken);
        state.waiting -= usize::from(!self.taken);
        if let Some(id) = &self.id {
            state.queued.remove(id);
            state.watched.remove(id);
            state.listed.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn site(parallel_jobs: usize, queue_limit: usize) -> Arc<Site> {
        let connection = Connection::offline("http://127.0.0.1:9/openeo");
        Site::new(BackEnd::new(&connection).parallel_jobs(parallel_jobs).queue_limit(queue_limit))
    }

    fn place(sites: &[Arc<Site>]) -> Place {
        Site::place(sites, Instant::now()).expect("a site")
    }

    #[test]
    fn places_are_shared_out_and_given_back() {
        let sites = [site(2, 9), site(1, 9)];
        let mut places: Vec<Place> = (0..3).map(|_| place(&sites)).collect();
        assert!(places.iter().all(|place| place.taken));
        assert_eq!(places.iter().filter(|place| Arc::ptr_eq(&place.site, &sites[0])).count(), 2);
        let mut waiting = place(&sites);
        assert!(!waiting.take(Instant::now()), "all are taken");
        places.retain(|place| !Arc::ptr_eq(&place.site, &waiting.site));
        assert!(waiting.take(Instant::now()), "one was given back");
        drop((places, waiting));
        for site in &sites {
            let state = site.state.lock();
            assert_eq!((state.taken, state.waiting), (0, 0));
        }
    }

    #[test]
    fn a_full_queue_and_a_back_end_that_has_too_many_get_no_more() {
        let sites = [site(5, 1)];
        let mut first = place(&sites);
        first.watch("a", Instant::now());
        assert!(!place(&sites).taken, "one is in the queue already");
        first.left_the_queue();
        let mut second = place(&sites);
        assert!(second.taken);
        let now = Instant::now();
        second.is_full(now.checked_add(Duration::from_secs(9)));
        assert!(!second.take(now) && !place(&sites).taken);
        assert!(second.take(now + Duration::from_secs(10)), "later");
    }

    #[test]
    fn few_jobs_are_made_at_once_and_none_ahead_of_its_time_while_others_could_start() {
        let sites = [site(6, 9)];
        let now = Instant::now();
        let mut places: Vec<Place> = (0..9).map(|_| place(&sites)).collect();
        let mut on_their_way: Vec<Call> = places.iter_mut().filter_map(|place| place.may_create(now)).collect();
        assert_eq!(on_their_way.len(), CREATIONS);
        assert!(places[5].may_create(now + SLOW).is_some(), "those that hang are in nobody's way");
        on_their_way.pop();
        assert!(places[5].may_create(now).is_some());
        drop(on_their_way);
        assert!(places[8].may_create(now).is_some(), "ahead of its time");
        let start = places[0].starting(now);
        assert!(places[8].may_create(now).is_none() && places[1].may_create(now).is_some(), "starts come first");
        assert!(places[8].may_create(now + SLOW).is_some(), "but none that hangs");
        drop(start);
        places[7].is_made();
        assert!(!sites[0].has_starts(now), "no place for it");
        drop(places.remove(0));
        assert!(sites[0].has_starts(now) && places[7].may_create(now).is_none(), "a place for the one that is made");
        assert!(!place(&sites).taken, "and for no newcomer");
        assert!(places[6].take(now) && !sites[0].has_starts(now));
        drop(places);
        let state = sites[0].state.lock();
        assert_eq!((state.taken, state.waiting, state.made), (0, 0, 0));
        assert!(state.creating.is_empty() && state.starting.is_empty());
    }

    #[test]
    fn a_back_end_that_is_down_is_preferred_by_nobody_until_its_time_has_passed() {
        let sites = [site(9, 9), site(1, 1)];
        let now = Instant::now();
        sites[0].is_down(now);
        sites[0].is_down(now);
        let chosen = |now| Site::place(&sites, now).map(|place| Arc::ptr_eq(&place.site, &sites[0]));
        assert_eq!(chosen(now), Some(false));
        let _taken = Site::place(&sites, now);
        assert_eq!(chosen(now), Some(false), "better wait for the one than be lost at the other");
        assert_eq!(chosen(now + DOWN.0), Some(true), "and then it is tried again");
        sites[0].is_down(now + DOWN.0);
        assert_eq!(chosen(now + DOWN.0 * 2), Some(false), "twice as long");
        sites[0].is_up();
        assert_eq!(chosen(now), Some(true));
    }

    #[test]
    fn the_list_is_read_often_when_a_job_can_be_expected_to_end() {
        let (site, interval) = (site(9, 9), Duration::from_secs(10));
        let sites = [Arc::clone(&site)];
        let start = Instant::now();
        let mut places: Vec<Place> = (0..3).map(|_| place(&sites)).collect();
        for (place, id) in places.iter_mut().zip(["a", "b", "c"]) {
            place.watch(id, start);
        }
        let reads_after = |read: Duration, wait: Duration| {
            let mut state = site.state.lock();
            (state.reading, state.saved, state.listed_at, state.counted_at) = (None, 9.0, Some(start + read), None);
            drop(state);
            matches!(site.look("a", interval, false, start + read + wait), Look::ReadList)
        };
        let second = Duration::from_secs(1);
        assert!(reads_after(second, 2 * second), "nothing is known");
        let later = start + 100 * second;
        places[2].watch("c", later - 100 * second);
        places.pop().expect("c").finished(later);
        assert!(!reads_after(second, 2 * second), "none ends before 90 s");
        assert!(reads_after(second, 4 * second));
        assert!(reads_after(95 * second, second), "any may end now");
    }

    #[test]
    fn there_are_never_more_requests_than_one_a_job_and_interval() {
        let site = site(20, 20);
        let sites = [Arc::clone(&site)];
        let (start, interval) = (Instant::now(), Duration::from_secs(1));
        let mut places: Vec<(usize, Place)> = (0..10).map(|job| (job, place(&sites))).collect();
        for (job, place) in &mut places {
            place.watch(&job.to_string(), start);
        }
        let (mut requests, mut due, mut good_for) = (0, start + interval, 0.0);
        for step in 1..4_000u32 {
            let now = start + Duration::from_millis(10) * step;
            good_for += places.len() as f64 * 0.01;
            if step % 300 == 0 && places.len() > 1 {
                places.pop();
            }
            for (job, _) in &places {
                match site.look(&job.to_string(), interval, places.len() == 1 && now >= due, now) {
                    Look::ReadList => {
                        requests += 1;
                        let mut state = site.state.lock();
                        (state.reading, state.listed_at) = (None, Some(now));
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
        let site = site(9, 9);
        let sites = [Arc::clone(&site)];
        let (now, interval) = (Instant::now(), Duration::from_secs(10));
        let mut places: Vec<Place> = (0..3).map(|_| place(&sites)).collect();
        places[0].watch("a", now);
        assert!(matches!(site.look("a", interval, true, now), Look::Describe), "alone");
        assert!(matches!(site.look("a", interval, false, now), Look::Nothing), "not due");
        places[1].watch("b", now);
        places[2].watch("c", now);
        assert!(matches!(site.look("a", interval, false, now), Look::ReadList));
        assert!(matches!(site.look("b", interval, true, now), Look::Nothing), "somebody is at it");
        {
            let mut state = site.state.lock();
            state.reading = None;
            state.listed_at = Some(now);
            state.listed.insert("a".into(), JobDescription::new(json!({"id": "a", "status": "running"})));
        }
        assert!(matches!(site.look("a", interval, false, now), Look::Listed(found) if found.id() == "a"));
        assert!(matches!(site.look("b", interval, true, now), Look::Describe), "not in the list");
        let a_third = now + Duration::from_secs(2);
        assert!(
            matches!(site.look("a", interval, false, a_third), Look::Listed(_)),
            "three jobs: each 3.3 s, less a tenth"
        );
        assert!(matches!(site.look("a", interval, false, now + Duration::from_millis(3_100)), Look::ReadList));
        let hung = now + Duration::from_secs(60);
        assert!(
            matches!(site.look("a", interval, true, hung), Look::Describe),
            "a list that hangs leaves each to itself"
        );
    }
}
