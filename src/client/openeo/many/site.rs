//! One of the back-ends at work: how much room it has for jobs, whether it answers, and what its
//! job list said last.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::client::creation::Likeness;
use crate::client::http::HttpErrorKind;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::jobs::new_job::NewJob;
use crate::sync::Mutex;
use crate::trace::event;

use super::back_end::BackEnd;
use super::looks::{ListRead, Look, Looks};

/// So many jobs are made at once on a back-end, or a quarter of those that it runs. More at once
/// would all be made later.
const CREATIONS: usize = 4;

/// For how long a back-end that doesn't answer is passed over, at first and at most.
const DOWN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

/// Nothing waits for a creation or a start that takes longer than that.
const SLOW: Duration = Duration::from_secs(1);

/// A back-end at work.
pub(in crate::client::openeo) struct Site {
    pub(in crate::client::openeo) back_end: BackEnd,
    room: Mutex<Room>,
    looks: Mutex<Looks>,
    /// What its validation said about process graphs.
    warnings: Mutex<HashMap<Likeness, Vec<String>>>,
}

/// How many jobs have a place, how many wait for one, and whether there is any to be had.
#[derive(Default)]
struct Room {
    /// Places with a job that is started, or about to be.
    taken: usize,
    /// Jobs that wait for a place.
    waiting: usize,
    /// Those of them that are made, so that they could start at once.
    made: usize,
    /// Since when jobs are being made, and started.
    creating: Vec<Instant>,
    starting: Vec<Instant>,
    /// Until when others are preferred, because it doesn't answer; and how often in a row it did
    /// not.
    down_until: Option<Instant>,
    failures: u32,
    queued: HashSet<String>,
    full_until: Option<Instant>,
}

impl Room {
    fn is_down(&self, now: Instant) -> bool {
        self.down_until.is_some_and(|until| now < until)
    }
}

/// A place for one job on a site, or the wait for one; given back when dropped.
pub(in crate::client::openeo) struct Place {
    pub(super) site: Arc<Site>,
    id: Option<String>,
    taken: bool,
    made: bool,
}

/// A creation or a start on its way; over when dropped.
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

/// How many calls there are that others may wait for: not those that hang.
fn brisk(calls: &[Instant], now: Instant) -> usize {
    calls.iter().filter(|since| now.saturating_duration_since(**since) < SLOW).count()
}

impl Site {
    pub(super) fn new(back_end: BackEnd) -> Arc<Site> {
        Arc::new(Site { back_end, room: Mutex::default(), looks: Mutex::default(), warnings: Mutex::default() })
    }

    /// How many jobs it has or is to have, for each that it runs; whether it takes one more now;
    /// and whether it is down.
    fn load(&self, now: Instant) -> (f64, bool, bool) {
        let room = self.room.lock();
        let load = (room.taken + room.waiting) as f64 / self.back_end.parallel_jobs as f64;
        (load, self.is_open(&room, now), room.is_down(now))
    }

    /// It doesn't answer, or not to us: for a while others are preferred, longer each time.
    pub(super) fn mark_down(&self, now: Instant) {
        let mut room = self.room.lock();
        // Those that were on their way together tell one thing.
        if !room.is_down(now) {
            let pause = Backoff::new(DOWN.0).cap(DOWN.1).delay(room.failures);
            room.failures = room.failures.saturating_add(1);
            room.down_until = now.checked_add(pause);
        }
    }

    pub(super) fn mark_up(&self) {
        let mut room = self.room.lock();
        (room.down_until, room.failures) = (None, 0);
    }

    /// Whether one that isn't down is among these.
    pub(super) fn any_is_up(sites: &[Arc<Site>], now: Instant) -> bool {
        sites.iter().any(|site| !site.room.lock().is_down(now))
    }

    /// Whether jobs are started here just now, or could be. A place that stands empty is lost for
    /// good, so whatever else there is to ask gives way.
    pub(super) fn has_starts(&self, now: Instant) -> bool {
        let room = self.room.lock();
        brisk(&room.starting, now) > 0 || (room.made > 0 && self.is_open(&room, now))
    }

    fn is_open(&self, room: &Room, now: Instant) -> bool {
        room.taken < self.back_end.parallel_jobs
            && room.queued.len() < self.back_end.queue_limit
            && room.full_until.is_none_or(|until| now >= until)
    }

    /// A place on the site that has the most room; if none has any, one to wait at.
    pub(super) fn place(sites: &[Arc<Site>], now: Instant) -> Option<Place> {
        let loads = sites.iter().map(|site| (site, site.load(now)));
        // Those that answer come first, and of them those that take one more.
        let best = loads.min_by(|(_, (a, a_open, a_down)), (_, (b, b_open, b_down))| {
            a_down.cmp(b_down).then(b_open.cmp(a_open)).then(a.total_cmp(b))
        });
        let site = Arc::clone(best?.0);
        site.room.lock().waiting += 1;
        let mut place = Place { site, id: None, taken: false, made: false };
        place.take(now);
        Some(place)
    }

    /// The place of a job that another process has started, whether there is room for it or not.
    #[cfg(feature = "sqlite")]
    pub(in crate::client::openeo) fn adopt(site: &Arc<Site>) -> Place {
        site.room.lock().taken += 1;
        Place { site: Arc::clone(site), id: None, taken: true, made: false }
    }

    pub(in crate::client::openeo) fn connection(&self) -> &Connection {
        &self.back_end.connection
    }

    /// What to do about job `id`, which is asked about every `interval`, and is `due` to be asked
    /// about itself or not.
    pub(super) fn look(&self, id: &str, interval: Duration, due: bool, now: Instant) -> Look {
        self.looks.lock().look(id, interval, due, now)
    }

    /// Reads the list, by one request, and puts down what it says. An error fails no job: for a
    /// while each job is asked about alone.
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
                let hung = error.http().is_some_and(|http| http.kind() == HttpErrorKind::Timeout);
                if hung || !error.is_retryable() { ListRead::Useless } else { ListRead::Failed }
            }
        };
        self.looks.lock().take_list(now, read);
    }

    /// What its validation says about a job's process graph. One that many jobs share is asked
    /// about once.
    pub(super) fn warnings_of(&self, job: &NewJob) -> Vec<String> {
        if let Some(known) = self.warnings.lock().get(&job.graph_likeness()) {
            return known.clone();
        }
        let found = self.connection().once().warnings_of(job);
        self.warnings.lock().insert(job.graph_likeness(), found.clone());
        found
    }
}

impl Place {
    /// Whether the job may be started: it has its place, or gets it now. Those that are made come
    /// before those that are not.
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

    /// Leave to make the job now. Not too many at once: and those that are made ahead of their time
    /// give way to starts.
    pub(super) fn may_create(&mut self, now: Instant) -> Option<Call> {
        let may_start = self.take(now);
        if !may_start && self.site.has_starts(now) {
            return None;
        }
        let mut room = self.site.room.lock();
        let most = CREATIONS.max(self.site.back_end.parallel_jobs / 4);
        (brisk(&room.creating, now) < most).then(|| Call::begin(&self.site, &mut room, |room| &mut room.creating, now))
    }

    /// The job is made, and could start.
    pub(super) fn mark_made(&mut self) {
        if !self.taken && !self.made {
            self.made = true;
            self.site.room.lock().made += 1;
        }
    }

    /// A start is on its way, until what comes back is dropped.
    pub(super) fn begin_start(&self, now: Instant) -> Call {
        Call::begin(&self.site, &mut self.site.room.lock(), |room| &mut room.starting, now)
    }

    /// The site has too many jobs until then: this one waits.
    pub(super) fn mark_full(&mut self, until: Option<Instant>) {
        let mut room = self.site.room.lock();
        room.full_until = until;
        if self.taken {
            room.taken -= 1;
            room.waiting += 1;
            self.taken = false;
            // It was to be started, or it would have lost its place altogether.
            self.made = true;
            room.made += 1;
        }
    }

    /// The job here is started, and is asked about from now on.
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

    /// The job has finished.
    pub(super) fn note_end(&self, now: Instant) {
        if let Some(id) = &self.id {
            self.site.looks.lock().note_end(id, now);
        }
    }
}

impl Drop for Place {
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
        second.mark_full(now.checked_add(Duration::from_secs(9)));
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
