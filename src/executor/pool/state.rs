//! What the pool's lock protects, and each decision that is made under it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::queue::Queue;
use super::ranked::Ranked;
use super::{ASLEEP, Awaited, Idle, Seat, Started, Task, Wakeup};
use crate::sync::thread::JoinHandle;
use crate::sync::{AtomicBool, AtomicU8, Ordering};

/// What each push reads, and what it writes, lies in the first two cache lines, with the lock: they
/// go from core to core whenever a worker has taken what was pushed.
#[repr(C)]
pub(super) struct State {
    /// Whether one worker is looking for work, or is on its way: starting, woken, or spinning.
    /// There is at most one, and as long as there is, a push wakes no other.
    pub(super) searching: bool,
    /// Whether new jobs are taken.
    pub(super) open: bool,
    /// The threads that may take work: all but those told to leave.
    pub(super) live: usize,
    /// The live threads that are blocked in a wait, and so don't count as at work.
    pub(super) waiting: usize,
    /// The number of threads that may be at work.
    pub(super) target: usize,
    /// The live threads that run the user's start hook and are not blocked in a wait: each of these
    /// takes a job when its hook returns.
    pub(super) starting: usize,
    /// Jobs ever queued, and how many of them were held back before.
    pub(super) pushed: u64,
    pub(super) released: u64,
    /// What was pushed since a worker last exchanged this queue for the emptied front.
    pub(super) back: Queue<Task>,
    /// The sleepers, the latest last: it is woken first, because its memory is warm.
    pub(super) idle: Vec<Idle>,
    /// What blocked operations wait for, for the threads that stand in for them.
    pub(super) awaited: VecDeque<Arc<Awaited>>,
    /// What was pushed with a head start, or the opposite.
    pub(super) ranked: Ranked,
    /// The live threads that run the user's start hook, those of `starting` among them.
    pub(super) in_hooks: usize,
    /// Threads that were started beyond `target`, because others waited. Some of them stay for the
    /// next time.
    spares: usize,
    /// Counts the resets.
    pub(super) epoch: u64,
    /// Counts what threads that wait for the end wait for.
    pub(super) events: u64,
    /// All threads that have not been joined, but for those that a thread is joining this moment.
    threads: Vec<Thread>,
    pub(super) joining: usize,
    /// The numbers that were given out and that no thread has now.
    free: BTreeSet<usize>,
}

/// An OS thread, from the decision to start it until it is joined.
struct Thread {
    seat: Arc<Seat>,
    /// `None` until the system has started it.
    started: Option<Started>,
    /// Its thread-locals are destroyed.
    gone: bool,
}

impl State {
    /// An open pool without threads and jobs, in which `target` threads may be at work at once.
    pub(super) fn new(target: usize) -> State {
        State {
            back: Queue::new(),
            ranked: Ranked::new(),
            awaited: VecDeque::new(),
            live: 0,
            waiting: 0,
            idle: Vec::new(),
            searching: false,
            in_hooks: 0,
            starting: 0,
            target,
            spares: 0,
            open: true,
            pushed: 0,
            released: 0,
            epoch: 0,
            events: 0,
            threads: Vec::new(),
            joining: 0,
            free: BTreeSet::new(),
        }
    }

    pub(super) fn queue(&mut self, job: Task) {
        if job.head().has_head_start() {
            self.ranked.push(self.pushed, job);
        } else {
            self.back.push_back(job);
        }
        self.pushed += 1;
    }

    /// The threads that run operations, look for work, or are on their way to it.
    pub(super) fn at_work(&self) -> usize {
        self.live - self.waiting - self.idle.len()
    }

    /// Whether too many threads are at work, because one that waited has come back, or the pool has
    /// shrunk.
    pub(super) fn has_surplus(&self) -> bool {
        self.at_work() > self.target
    }

    /// Whether a surplus thread is to end. If not, it sleeps until the next one waits: an executor
    /// whose operations wait for others again and again is not to start a thread each time.
    pub(super) fn dismisses_surplus(&mut self) -> bool {
        let surplus = (self.live - self.waiting).saturating_sub(self.target);
        let ends = surplus > self.spares.min(self.target);
        if ends {
            self.spares = self.spares.saturating_sub(1);
        }
        ends
    }

    /// Picks the thread that is to look for work, if work waits, a thread is missing, and none is
    /// looking. `front` is how many jobs the front holds; where no thread is in its start hook, it
    /// may be 0 instead, if its jobs were seen to before.
    pub(super) fn wake_for_work(&mut self, front: usize) -> Wakeup {
        let work = self.work(front);
        if self.searching || work == 0 || self.at_work() >= self.target {
            return Wakeup::None;
        }
        if let Some(idle) = self.idle.pop() {
            self.searching = true;
            return Wakeup::Wake(idle);
        }
        if work <= self.starting {
            // Otherwise a slow hook would have all threads started for one job.
            return Wakeup::None;
        }
        if self.in_hooks > self.target {
            // Where each hook waits for a job, no number of threads is enough: each new one would
            // wait as well. The waiting ones help themselves: see `is_unattended`.
            self.awaited.iter().for_each(|awaited| awaited.unpark());
            return Wakeup::None;
        }
        self.searching = true;
        if self.live >= self.target {
            self.spares += 1;
        }
        Wakeup::Start(self.add_thread())
    }

    /// How much there is for threads to take, `front` included.
    pub(super) fn work(&self, front: usize) -> usize {
        front + self.back.len() + self.ranked.len() + self.awaited.len()
    }

    pub(super) fn add_thread(&mut self) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            // The lowest number, so that names are used again. Where none is free, the threads have
            // all those before.
            index: self.free.pop_first().unwrap_or(self.threads.len()),
            epoch: self.epoch,
            leave: AtomicBool::new(false),
            in_hook: AtomicBool::new(false),
            wake: AtomicU8::new(ASLEEP),
        });
        self.threads.push(Thread { seat: seat.clone(), started: None, gone: false });
        self.live += 1;
        seat
    }

    /// The system has started the thread of `seat`.
    pub(super) fn started(&mut self, seat: &Arc<Seat>, started: Started) {
        if let Some(thread) = self.threads.iter_mut().find(|thread| Arc::ptr_eq(&thread.seat, seat)) {
            thread.started = Some(started);
        }
        self.events += 1;
    }

    /// The system has refused the thread of `seat`.
    pub(super) fn refused(&mut self, seat: &Arc<Seat>) {
        self.leave(seat);
        self.searching = false;
        self.forget(seat);
        self.events += 1;
    }

    /// The thread-locals of the thread of `seat` are destroyed.
    pub(super) fn gone(&mut self, seat: &Arc<Seat>) {
        if let Some(thread) = self.threads.iter_mut().find(|thread| Arc::ptr_eq(&thread.seat, seat)) {
            thread.gone = true;
        }
        self.events += 1;
    }

    /// Takes the handles of those that are gone, for the caller to join, which takes no time.
    pub(super) fn take_gone(&mut self) -> Vec<JoinHandle<()>> {
        let (ended, threads) =
            std::mem::take(&mut self.threads).into_iter().partition(|thread| thread.gone && thread.started.is_some());
        self.threads = threads;
        let ended: Vec<Thread> = ended;
        let handles: Vec<JoinHandle<()>> = ended
            .into_iter()
            .filter_map(|thread| {
                self.free_number(thread.seat.index);
                match thread.started {
                    Some(Started::Joinable(handle)) => Some(handle),
                    _ => None,
                }
            })
            .collect();
        self.joining += handles.len();
        handles
    }

    /// How many threads of before `epoch` have not been joined.
    pub(super) fn threads_before(&self, epoch: u64) -> usize {
        self.threads.iter().filter(|thread| thread.seat.epoch < epoch).count() + self.joining
    }

    /// Whether a thread that was told to leave is still there.
    pub(super) fn has_leaving(&self) -> bool {
        self.threads.iter().any(|thread| !thread.gone && thread.seat.leave.load(Ordering::Relaxed))
    }

    pub(super) fn has_threads(&self) -> bool {
        !self.threads.is_empty() || self.joining > 0
    }

    fn forget(&mut self, seat: &Arc<Seat>) {
        self.threads.retain(|thread| !Arc::ptr_eq(&thread.seat, seat));
        self.free_number(seat.index);
    }

    fn free_number(&mut self, index: usize) {
        self.free.insert(index);
        if self.threads.is_empty() {
            self.free.clear();
        }
    }

    /// Changes the number of threads that may be at work. Sleepers that are too many end now, and
    /// the caller wakes the returned; others end when they have done what they do (`has_surplus`).
    pub(super) fn resize(&mut self, target: usize) -> Vec<Idle> {
        self.target = target;
        self.spares = 0;
        let surplus = (self.live - self.waiting).saturating_sub(target);
        let dismissed: Vec<Idle> = self.idle.drain(..surplus.min(self.idle.len())).collect();
        for idle in &dismissed {
            self.leave(&idle.seat);
        }
        dismissed
    }

    /// Tells all threads to end after what they run now.
    pub(super) fn dismiss_all(&mut self) -> Vec<Idle> {
        let seats: Vec<Arc<Seat>> = self.threads.iter().map(|thread| thread.seat.clone()).collect();
        let dismissed = std::mem::take(&mut self.idle);
        for seat in &seats {
            self.leave(seat);
        }
        // Those that wait are no longer live, and so no longer among the live that wait.
        self.waiting = 0;
        self.in_hooks = 0;
        self.starting = 0;
        self.spares = 0;
        dismissed
    }

    /// Counts a thread that is to end.
    pub(super) fn leave(&mut self, seat: &Seat) {
        // Relaxed: under the pool's lock. The worker looks without it, and sees it late at worst.
        if !seat.leave.swap(true, Ordering::Relaxed) {
            self.live -= 1;
        }
    }
}
