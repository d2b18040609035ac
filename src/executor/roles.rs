//! What the pool, the timer and the requests ask of the core.

use std::sync::Arc;

use super::core::Core;
use super::schedule::Due;
use crate::error::Result;
use crate::panics;
use crate::pool::{Crew, Pool, Summons};
use crate::request::{self, Ended, Head, Host, Job, Lap, NO_TICKET, Status};
use crate::sync::Ordering;
use crate::timer::{Clockwork, Timer};

impl Crew for Core {
    type Job = Arc<dyn Job>;
    type Desk = Lap;

    fn pool(&self) -> &Pool<Arc<dyn Job>> {
        &self.pool
    }

    fn shared(&self) -> Arc<Core> {
        self.me.upgrade().expect("whoever calls a method holds the core")
    }

    fn work(&self, job: Arc<dyn Job>, lap: &mut Lap) {
        // The operation's own panic is its result. This one is for destructors: of the job, if this is its last handle.
        panics::contain(|| {
            job.run(self, lap);
        });
    }

    fn is_live(job: &Arc<dyn Job>) -> bool {
        job.head().status() == Status::Queued
    }

    fn sit_down(&self, index: Option<usize>) -> Lap {
        if index.is_some() {
            // A wait in a hook is a wait on this thread.
            let _scope = request::enter_host(self);
            self.hooks.start();
        }
        Lap::new(index.unwrap_or(0), index.is_some())
    }

    fn is_brisk(&self, lap: &Lap) -> bool {
        lap.is_brisk()
    }

    fn rest(&self, lap: &mut Lap) {
        lap.rest();
    }

    fn stand_up(&self, lap: Lap) {
        if lap.seated {
            let _scope = request::enter_host(self);
            self.hooks.stop();
        }
    }
}

impl Clockwork for Core {
    type Entry = Due;

    fn timer(&self) -> &Timer<Due> {
        &self.timer
    }

    fn shared(&self) -> Arc<Core> {
        Crew::shared(self)
    }

    fn fire(&self, due: Vec<Due>) {
        let mut requests = Vec::new();
        for due in due {
            match due {
                Due::Request { job, lane } => requests.push((lane, job)),
                Due::Run(series) => {
                    self.release_due(std::mem::take(&mut requests));
                    let core = Crew::shared(self);
                    panics::contain(|| series.begin(&core));
                }
                Due::Alarm(alarmed) => panics::contain(|| alarmed.ring()),
            }
        }
        self.release_due(requests);
    }

    fn wound_down(&self) {
        self.pool.nudge();
    }
}

impl Host for Core {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn started(&self, lap: &Lap) {
        if !lap.seated {
            self.outside.fetch_add(1, Ordering::Relaxed);
        }
        self.ran.count_start(lap.stripe);
        self.offer_space();
    }

    fn ended(&self, head: &Head, how: Ended, lap: &Lap, show: &mut dyn FnMut()) {
        // Before the end is seen, so that a waiter that returns finds it counted.
        self.ran.count_end(lap.stripe, how);
        if head.ticket() == NO_TICKET {
            return show();
        }
        let mut order = self.order.lock();
        // Under the lock that whoever follows on its key has to pass, to be submitted or to be started: who is seen to
        // have ended has left its lane, and who starts finds all those ended that it waited for.
        show();
        let summons = self.leave(&mut order, head);
        drop(order);
        self.pool.act(self, summons);
    }

    fn settled(&self, lap: &Lap) {
        if !lap.seated {
            // Release: pairs with the load in `wait_for_end`.
            self.outside.fetch_sub(1, Ordering::Release);
            self.pool.nudge();
        }
    }

    fn cancel(&self, job: &Arc<dyn Job>) -> bool {
        let mut order = self.order.lock();
        // Only under this lock does a deferred request become queued.
        let deferred = job.head().status() == Status::Deferred;
        let Some(remains) = job.cancel(self.clock.now()) else {
            return false;
        };
        if deferred {
            order.cancelled_deferred += 1
        } else {
            order.cancelled_queued += 1
        }
        let summons = match job.head().ticket() {
            NO_TICKET => Summons::None,
            _ => self.leave(&mut order, job.head()),
        };
        let closed = order.closed.is_some();
        drop(order);
        self.pool.act(self, summons);
        if let Some(alarm) = remains.alarm() {
            drop(self.timer.remove(alarm));
        }
        remains.settle();
        self.offer_space();
        if !deferred {
            self.pool.note_stale::<Core>();
        }
        if closed {
            self.pool.nudge();
        }
        true
    }

    fn run_now(&self, job: &Arc<dyn Job>) {
        // A lap of its own: the outer request's time goes on.
        let mut lap = Lap::new(0, false);
        let job = job.clone();
        let mut ran = false;
        panics::contain(|| ran = job.run(self, &mut lap));
        if ran {
            self.pool.note_stale::<Core>();
        }
    }

    fn obstacle(&self, job: &dyn Job) -> Option<Arc<dyn Job>> {
        let order = self.order.lock();
        if job.head().status() != Status::Deferred || job.head().ticket() == NO_TICKET {
            return None;
        }
        // Those that run are no more than the threads, and those that ended have left: this is no long search.
        let mut running = None;
        for ahead in order.lanes.admitted(job.head().ticket()) {
            if ahead.head().status() == Status::Queued {
                return Some(ahead.clone());
            }
            running = running.or(Some(ahead));
        }
        running.cloned()
    }

    fn lane(&self, job: &dyn Job) -> Option<u32> {
        let order = self.order.lock();
        let deferred = job.head().status() == Status::Deferred && job.head().ticket() != NO_TICKET;
        deferred.then(|| order.lanes.lane(job.head().ticket()))
    }

    fn running_ahead(&self, job: &dyn Job) -> Vec<Arc<dyn Job>> {
        let order = self.order.lock();
        if job.head().status() != Status::Deferred || job.head().ticket() == NO_TICKET {
            return Vec::new();
        }
        let admitted = order.lanes.admitted(job.head().ticket());
        admitted.filter(|ahead| ahead.head().status() == Status::Running).cloned().collect()
    }

    fn accept_follower(&self) -> Result<(u64, u64)> {
        self.accept_deferred()?;
        Ok((self.new_id(), self.clock.now()))
    }

    fn release(&self, job: Arc<dyn Job>) {
        let mut order = self.order.lock();
        let summons = self.queue_released(&mut order, vec![job]);
        drop(order);
        self.pool.act(self, summons);
    }
}
