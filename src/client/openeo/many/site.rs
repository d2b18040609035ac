//! The state of one back-end of a batch: its room for jobs, whether it answers, and its last job
//! list.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::client::creation::Likeness;
use crate::client::http::HttpError;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::jobs::new_job::NewJob;
use crate::sync::Mutex;
use crate::trace::event;

use super::back_end::BackEnd;
use super::looks::{ListRead, Look, Looks};

/// How many jobs are created at once on a back-end, or a quarter of those that it runs. With more
/// at once, each would take longer.
const CREATIONS: usize = 4;

/// For how long other back-ends are preferred to one that doesn't answer: at first, and at most.
const DOWN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

/// For how long a back-end that says that it has too many jobs gets none at most, whatever it asks
/// for.
const FULL: Duration = Duration::from_secs(24 * 3_600);

/// If a creation or a start takes longer than this, other calls don't wait for it any more.
const SLOW: Duration = Duration::from_secs(1);

/// One back-end of a batch, with its state.
pub(in crate::client::openeo) struct Site {
    pub(in crate::client::openeo) back_end: BackEnd,
    room: Mutex<Room>,
    looks: Mutex<Looks>,
    /// The findings of its validation, by process graph.
    warnings: Mutex<HashMap<Likeness, Vec<String>>>,
}

/// How many jobs have a place, how many wait for one, and whether the back-end takes more.
#[derive(Default)]
struct Room {
    /// Places of jobs that are started, or about to be.
    taken: usize,
    /// Jobs that wait for a place.
    waiting: usize,
    /// How many of the waiting jobs are created, so that they could start at once.
    made: usize,
    /// The calls that are creating jobs, and those that are starting jobs, each by when it began.
    creating: Vec<Instant>,
    starting: Vec<Instant>,
    /// Until when other back-ends are preferred because this one doesn't answer, and how many times
    /// in a row it didn't.
    down_until: Option<Instant>,
    failures: u32,
    /// As these two, because it refuses to start jobs, although it may make them.
    refuses_until: Option<Instant>,
    refusals: u32,
    queued: HashSet<String>,
    full_until: Option<Instant>,
}

impl Room {
    fn is_down(&self, now: Instant) -> bool {
        [self.down_until, self.refuses_until].into_iter().flatten().any(|until| now < until)
    }
}

/// The place of one job on a back-end, or its wait for a place. Dropping it gives the place back.
pub(in crate::client::openeo) struct JobPermit {
    pub(super) site: Arc<Site>,
    id: Option<String>,
    taken: bool,
    made: bool,
}

/// A running call that creates or starts a job. Dropping it ends it.
pub(super) struct Call {
    site: Arc<Site>,
    calls: fn(&mut Room) -> &mut Vec<Instant>,
    since: Instant,
}

impl Call {
    fn begin(site: &Arc<Site>, room: &mut Room, calls: fn(&mut Room) -> &mut Vec<Instant>, now: Instant) -> Call {
        calls(room).push(now);
        Call { site: Arc::clone(site), calls, since: now }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut room = self.site.room.lock();
        let calls = (self.calls)(&mut room);
        if let Some(at) = calls.iter().position(|since| *since == self.since) {
            calls.swap_remove(at);
        }
    }
}

/// How many of the calls began recently, so that it makes sense to wait for them: the others may
/// hang.
fn brisk(calls: &[Instant], now: Instant) -> usize {
    calls.iter().filter(|since| now.saturating_duration_since(**since) < SLOW).count()
}

fn down_for(failures: u32) -> Duration {
    Backoff::new(DOWN.0).cap(DOWN.1).delay(failures)
}

impl Site {
    pub(super) fn new(back_end: BackEnd) -> Arc<Site> {
        Arc::new(Site { back_end, room: Mutex::default(), looks: Mutex::default(), warnings: Mutex::default() })
    }

    /// How loaded the back-end is, to choose the best: the number of its jobs, waiting ones
    /// included, for each that it may run; whether it takes one more now; and whether it is down.
    fn load(&self, now: Instant) -> (f64, bool, bool) {
        let room = self.room.lock();
        let load = (room.taken + room.waiting) as f64 / self.back_end.parallel_jobs as f64;
        (load, self.is_open(&room, now), room.is_down(now))
    }

    /// Notes that the back-end doesn't answer: for a while other back-ends are preferred, longer
    /// each time.
    pub(super) fn mark_down(&self, now: Instant) {
        let mut room = self.room.lock();
        // Calls that ran at the same time count as one failure.
        if !room.is_down(now) {
            room.down_until = now.checked_add(down_for(room.failures));
            room.failures = room.failures.saturating_add(1);
        }
    }

    /// Notes that the back-end refuses to make or start our jobs. Otherwise it would be the one
    /// with the most room, and get every job.
    pub(super) fn mark_refusing(&self, now: Instant) {
        let mut room = self.room.lock();
        if !room.is_down(now) {
            room.refuses_until = now.checked_add(down_for(room.refusals));
            room.refusals = room.refusals.saturating_add(1);
        }
    }

    pub(super) fn mark_starting(&self) {
        let mut room = self.room.lock();
        (room.refuses_until, room.refusals) = (None, 0);
    }

    pub(super) fn mark_up(&self) {
        let mut room = self.room.lock();
        (room.down_until, room.failures) = (None, 0);
    }

    /// Whether at least one of these back-ends isn't down.
    pub(super) fn any_is_up(sites: &[Arc<Site>], now: Instant) -> bool {
        sites.iter().any(|site| !site.room.lock().is_down(now))
    }

    /// Whether jobs are being started here, or could be. Other requests wait for that, because an
    /// empty place wastes the back-end's time.
    pub(super) fn has_starts(&self, now: Instant) -> bool {
        let room = self.room.lock();
        brisk(&room.starting, now) > 0 || (room.made > 0 && self.is_open(&room, now))
    }

    fn is_open(&self, room: &Room, now: Instant) -> bool {
        room.taken < self.back_end.parallel_jobs
            && room.queued.len() < self.back_end.queue_limit
            && room.full_until.is_none_or(|until| now >= until)
    }

    /// A place on the back-end with the most room. If none has room, a wait for one there.
    pub(super) fn place(sites: &[Arc<Site>], now: Instant) -> Option<JobPermit> {
        let loads = sites.iter().map(|site| (site, site.load(now)));
        // Prefer back-ends that answer, then those that take one more job, then the least loaded.
        let best = loads.min_by(|(_, (a, a_open, a_down)), (_, (b, b_open, b_down))| {
            a_down.cmp(b_down).then(b_open.cmp(a_open)).then(a.total_cmp(b))
        });
        let site = Arc::clone(best?.0);
        site.room.lock().waiting += 1;
        let mut place = JobPermit { site, id: None, taken: false, made: false };
        place.take(now);
        Some(place)
    }

    /// The place of a job that another process has started. It takes one even if there is no room,
    /// because the job runs already.
    #[cfg(feature = "sqlite")]
    pub(in crate::client::openeo) fn adopt(site: &Arc<Site>) -> JobPermit {
        site.room.lock().taken += 1;
        JobPermit { site: Arc::clone(site), id: None, taken: true, made: false }
    }

    pub(in crate::client::openeo) fn connection(&self) -> &Connection {
        &self.back_end.connection
    }

    /// What to do about job `id` now: see `Looks::look`.
    pub(super) fn look(&self, id: &str, interval: Duration, due: bool, now: Instant) -> Look {
        self.looks.lock().look(id, interval, due, now)
    }

    /// Reads the job list, by one request, and stores it. An error doesn't fail a job: for a while
    /// each job is then asked about alone.
    pub(super) fn read_list(&self, now: Instant) {
        let jobs = self.looks.lock().watched();
        let read = match self.connection().once().first_page(jobs * 2, None) {
            Ok(list) => ListRead::Read(list),
            Err(error) => {
                event!(
                    DEBUG,
                    "the job list could not be read",
                    back_end = self.back_end.name,
                    error = error.to_string()
                );
                let hung = error.http().is_some_and(HttpError::is_hung);
                if hung || !error.is_retryable() { ListRead::Useless } else { ListRead::Failed }
            }
        };
        self.looks.lock().take_list(now, read);
    }

    /// The findings of the back-end's validation for the job's process graph. A graph that many
    /// jobs share is validated once.
    pub(super) fn warnings_of(&self, job: &NewJob) -> Vec<String> {
        if let Some(known) = self.warnings.lock().get(&job.graph_likeness()) {
            return known.clone();
        }
        let found = self.connection().once().warnings_of(job);
        self.warnings.lock().insert(job.graph_likeness(), found.clone());
        found
    }
}

impl JobPermit {
    /// Takes a place for the job, if it has none and there is room. Returns whether it has one, so
    /// that it may be started. Jobs that are created come before those that aren't.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let mut room = self.site.room.lock();
        if !self.taken && self.site.is_open(&room, now) && (self.made || room.made == 0) {
            room.waiting -= 1;
            room.taken += 1;
            self.taken = true;
            room.made -= usize::from(std::mem::take(&mut self.made));
        }
        self.taken
    }

    /// Permission to create the job now, if there aren't too many creations at once. A job that is
    /// created before there is room for it waits for the starts of others.
    pub(super) fn may_create(&mut self, now: Instant) -> Option<Call> {
        let may_start = self.take(now);
        if !may_start && self.site.has_starts(now) {
            return None;
        }
        let mut room = self.site.room.lock();
        let most = CREATIONS.max(self.site.back_end.parallel_jobs / 4);
        (brisk(&room.creating, now) < most).then(|| Call::begin(&self.site, &mut room, |room| &mut room.creating, now))
    }

    /// Notes that the job is created, and could start.
    pub(super) fn mark_made(&mut self) {
        if !self.taken && !self.made {
            self.made = true;
            self.site.room.lock().made += 1;
        }
    }

    /// Notes that a start is running, until the returned value is dropped.
    pub(super) fn begin_start(&self, now: Instant) -> Call {
        Call::begin(&self.site, &mut self.site.room.lock(), |room| &mut room.starting, now)
    }

    /// Notes that the back-end has too many jobs for the time of `after`. This job waits.
    pub(super) fn mark_full(&mut self, now: Instant, after: Duration) {
        let mut room = self.site.room.lock();
        room.full_until = now.checked_add(after.min(FULL));
        if self.taken {
            room.taken -= 1;
            room.waiting += 1;
            self.taken = false;
            // The job exists, and was about to be started. If it doesn't exist, `make_room` drops
            // this place next.
            self.made = true;
            room.made += 1;
        }
    }

    /// Notes that the job is started, to ask about it from now on.
    pub(super) fn watch(&mut self, id: &str, now: Instant) {
        self.site.looks.lock().watch(id, now);
        self.site.room.lock().queued.insert(id.to_owned());
        self.id = Some(id.to_owned());
    }

    pub(super) fn leave_queue(&self) {
        if let Some(id) = &self.id {
            self.site.room.lock().queued.remove(id);
        }
    }

    /// Notes that the job has finished.
    pub(super) fn note_end(&self, now: Instant) {
        if let Some(id) = &self.id {
            self.site.looks.lock().note_end(id, now);
        }
    }
}

impl Drop for JobPermit {
    fn drop(&mut self) {
        let mut room = self.site.room.lock();
        room.made -= usize::from(self.made);
        room.taken -= usize::from(self.taken);
        room.waiting -= usize::from(!self.taken);
        if let Some(id) = &self.id {
            room.queued.remove(id);
            self.site.looks.lock().forget(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(parallel_jobs: usize, queue_limit: usize) -> Arc<Site> {
        let connection = Connection::offline("http://127.0.0.1:9/openeo");
        Site::new(BackEnd::new(&connection).parallel_jobs(parallel_jobs).queue_limit(queue_limit))
    }

    fn place(sites: &[Arc<Site>]) -> JobPermit {
        Site::place(sites, Instant::now()).expect("a site")
    }

    #[test]
    fn places_are_shared_out_and_given_back() {
        let sites = [site(2, 9), site(1, 9)];
        let mut places: Vec<JobPermit> = (0..3).map(|_| place(&sites)).collect();
        assert!(places.iter().all(|place| place.taken));
        assert_eq!(places.iter().filter(|place| Arc::ptr_eq(&place.site, &sites[0])).count(), 2);
        let mut waiting = place(&sites);
        assert!(!waiting.take(Instant::now()), "all are taken");
        places.retain(|place| !Arc::ptr_eq(&place.site, &waiting.site));
        assert!(waiting.take(Instant::now()), "one was given back");
        drop((places, waiting));
        for site in &sites {
            let room = site.room.lock();
            assert_eq!((room.taken, room.waiting), (0, 0));
        }
    }

    #[test]
    fn a_full_queue_and_a_back_end_that_has_too_many_get_no_more() {
        let sites = [site(5, 1)];
        let mut first = place(&sites);
        first.watch("a", Instant::now());
        assert!(!place(&sites).taken, "one is in the queue already");
        first.leave_queue();
        let mut second = place(&sites);
        assert!(second.taken);
        let now = Instant::now();
        second.mark_full(now, Duration::from_secs(9));
        assert!(!second.take(now) && !place(&sites).taken);
        assert!(second.take(now + Duration::from_secs(10)), "later");
        second.mark_full(now, Duration::MAX);
        assert!(!second.take(now + Duration::from_secs(3_600)), "a very long time isn't none");
        assert!(second.take(now + FULL), "but not for ever");
    }

    #[test]
    fn few_jobs_are_made_at_once_and_none_ahead_of_its_time_while_others_could_start() {
        let sites = [site(6, 9)];
        let now = Instant::now();
        let mut places: Vec<JobPermit> = (0..9).map(|_| place(&sites)).collect();
        let mut on_their_way: Vec<Call> = places.iter_mut().filter_map(|place| place.may_create(now)).collect();
        assert_eq!(on_their_way.len(), CREATIONS);
        assert!(places[5].may_create(now + SLOW).is_some(), "those that hang are in no other's way");
        on_their_way.pop();
        assert!(places[5].may_create(now).is_some());
        drop(on_their_way);
        assert!(places[8].may_create(now).is_some(), "ahead of its time");
        let start = places[0].begin_start(now);
        assert!(places[8].may_create(now).is_none() && places[1].may_create(now).is_some(), "starts come first");
        assert!(places[8].may_create(now + SLOW).is_some(), "but none that hangs");
        drop(start);
        places[7].mark_made();
        assert!(!sites[0].has_starts(now), "no place for it");
        drop(places.remove(0));
        assert!(sites[0].has_starts(now) && places[7].may_create(now).is_none(), "a place for the one that is made");
        assert!(!place(&sites).taken, "and for no newcomer");
        assert!(places[6].take(now) && !sites[0].has_starts(now));
        drop(places);
        let room = sites[0].room.lock();
        assert_eq!((room.taken, room.waiting, room.made), (0, 0, 0));
        assert!(room.creating.is_empty() && room.starting.is_empty());
    }

    #[test]
    fn a_back_end_that_is_down_gets_no_job_before_others_until_its_time_has_passed() {
        let sites = [site(9, 9), site(1, 1)];
        let now = Instant::now();
        sites[0].mark_down(now);
        sites[0].mark_down(now);
        let chosen = |now| Site::place(&sites, now).map(|place| Arc::ptr_eq(&place.site, &sites[0]));
        assert_eq!(chosen(now), Some(false));
        let _taken = Site::place(&sites, now);
        assert_eq!(chosen(now), Some(false), "better wait for the one than be lost at the other");
        assert_eq!(chosen(now + DOWN.0), Some(true), "and then it is tried again");
        sites[0].mark_down(now + DOWN.0);
        assert_eq!(chosen(now + DOWN.0 * 2), Some(false), "twice as long");
        sites[0].mark_up();
        assert_eq!(chosen(now), Some(true));
    }
}
