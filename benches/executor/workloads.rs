//! The workloads: each starts a pool, warms it up, measures one thing once, and checks the results.
//!
//! Times are in seconds, a request where nothing else is said. Starting and dropping the pool is never timed.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;

use crate::rivals::Rival;

/// Threads of every pool: as many as the machine that the goals were set on has cores.
pub(crate) const THREADS: usize = 2;

/// How much of everything; the figures are per request, so they compare across sizes.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) submits: usize,
    pub(crate) round_trips: usize,
    pub(crate) idle_round_trips: usize,
    pub(crate) idle: Duration,
    pub(crate) spins: usize,
    pub(crate) waits: usize,
    pub(crate) pending: usize,
    pub(crate) idle_threads: usize,
    pub(crate) idle_window: Duration,
    pub(crate) pairs: usize,
    pub(crate) many_threads: usize,
    /// Pending at once: few, then many.
    pub(crate) growth: [usize; 2],
}

impl Scale {
    /// The sizes that the goals speak of.
    pub(crate) const FULL: Self = Self {
        submits: 200_000,
        round_trips: 20_000,
        idle_round_trips: 500,
        idle: Duration::from_micros(500),
        spins: 10_000,
        waits: 100_000,
        pending: 10_000,
        idle_threads: 64,
        idle_window: Duration::from_secs(2),
        pairs: 10_000,
        many_threads: 64,
        growth: [1_000, 1_000_000],
    };

    /// Enough to see that everything works.
    pub(crate) const TEST: Self = Self {
        submits: 2_000,
        round_trips: 200,
        idle_round_trips: 10,
        idle: Duration::from_micros(200),
        spins: 200,
        waits: 1_000,
        pending: 1_000,
        idle_threads: 8,
        idle_window: Duration::from_millis(20),
        pairs: 100,
        many_threads: 8,
        growth: [100, 10_000],
    };
}

/// Submits from one thread, then waits for all. Time a request.
pub(crate) fn submit_wait<R: Rival>(scale: &Scale) -> Vec<f64> {
    let pool = warm::<R>();
    let count = scale.submits.min(R::MOST) as u64;
    let start = Instant::now();
    let handles = pool.spawn_numbers(count);
    let sum = pool.wait_all(handles);
    let elapsed = start.elapsed();
    assert_eq!(sum, sum_below(count), "{}", R::NAME);
    vec![elapsed.as_secs_f64() / count as f64]
}

/// Submits and waits, one at a time and back to back. Median.
pub(crate) fn round_trip_busy<R: Rival>(scale: &Scale) -> Vec<f64> {
    vec![round_trips::<R>(scale.round_trips, Duration::ZERO)]
}

/// The same with a nap before each, so that everybody is asleep when the request comes. Median.
pub(crate) fn round_trip_idle<R: Rival>(scale: &Scale) -> Vec<f64> {
    vec![round_trips::<R>(scale.idle_round_trips, scale.idle)]
}

/// Four threads submit a quarter each at the same time and wait for their own. Time a request.
pub(crate) fn four_submitters<R: Rival>(scale: &Scale) -> Vec<f64> {
    const SUBMITTERS: usize = 4;
    let pool = warm::<R>();
    let each = (scale.submits.min(R::MOST) / SUBMITTERS) as u64;
    let barrier = Barrier::new(SUBMITTERS + 1);
    let elapsed = thread::scope(|scope| {
        for _ in 0..SUBMITTERS {
            scope.spawn(|| {
                barrier.wait();
                let handles = pool.spawn_numbers(each);
                let sum = pool.wait_all(handles);
                barrier.wait();
                assert_eq!(sum, sum_below(each), "{}", R::NAME);
            });
        }
        barrier.wait();
        let start = Instant::now();
        barrier.wait();
        start.elapsed()
    });
    vec![elapsed.as_secs_f64() / (each as f64 * SUBMITTERS as f64)]
}

/// Requests of five microseconds of work each. Time of 10,000 of them: wall clock, then CPU of the process.
pub(crate) fn spin_5us<R: Rival>(scale: &Scale) -> Vec<f64> {
    let steps = *SPIN_STEPS;
    let pool = warm::<R>();
    let count = scale.spins.min(R::MOST);
    let expected = spin_for(steps).wrapping_mul(count as u64);
    let cpu = ProcessTime::now();
    let start = Instant::now();
    let handles = (0..count).map(|_| pool.spawn(move || spin_for(steps))).collect();
    let sum = pool.wait_all(handles);
    let (wall, cpu) = (start.elapsed(), cpu.elapsed());
    assert_eq!(sum, expected, "{}", R::NAME);
    let per_10k = 10_000.0 / count as f64;
    vec![wall.as_secs_f64() * per_10k, cpu.as_secs_f64() * per_10k]
}

/// Heap bytes, then blocks, that a request holds while it is queued: 16 bytes of closure, 8 of result.
pub(crate) fn pending_memory<R: Rival>(scale: &Scale) -> Vec<f64> {
    let pool = warm::<R>();
    let gate = Gate::close(&pool);
    let count = scale.pending;
    let mut handles = Vec::with_capacity(count);
    let (first, second) = (black_box(1u64), black_box(2u64));
    let ((), live) = counting_alloc::live_after(|| {
        handles.extend((0..count).map(|_| pool.spawn(move || first + second)));
    });
    gate.open(&pool);
    assert_eq!(pool.wait_all(handles), 3 * count as u64, "{}", R::NAME);
    vec![live.bytes as f64 / count as f64, live.blocks as f64 / count as f64]
}

/// Waits for requests that ended long ago, and drops their handles. Time a handle.
pub(crate) fn wait_done<R: Rival>(scale: &Scale) -> Vec<f64> {
    let pool = warm::<R>();
    let count = scale.waits as u64;
    let ended = Arc::new(AtomicU64::new(0));
    let handles: Vec<_> = (0..count)
        .map(|number| {
            let ended = Arc::clone(&ended);
            pool.spawn(move || {
                ended.fetch_add(1, Ordering::Relaxed);
                number
            })
        })
        .collect();
    while ended.load(Ordering::Relaxed) < count {
        thread::sleep(Duration::from_micros(200));
    }
    // The last one has counted itself, now it hands over its result, and the workers go to sleep.
    thread::sleep(Duration::from_millis(2));
    let start = Instant::now();
    let sum = pool.wait_all(handles);
    let elapsed = start.elapsed();
    assert_eq!(sum, sum_below(count), "{}", R::NAME);
    vec![elapsed.as_secs_f64() / count as f64]
}

/// Waits for requests none of which has started, from the moment they may. Time a handle.
pub(crate) fn wait_pending<R: Rival>(scale: &Scale) -> Vec<f64> {
    let pool = warm::<R>();
    let gate = Gate::close(&pool);
    let count = scale.waits as u64;
    let handles = pool.spawn_numbers(count);
    let start = Instant::now();
    let blockers = gate.unlock();
    let sum = pool.wait_all(handles);
    let elapsed = start.elapsed();
    pool.wait_all(blockers);
    assert_eq!(sum, sum_below(count), "{}", R::NAME);
    vec![elapsed.as_secs_f64() / count as f64]
}

/// CPU of the process while many started threads have nothing to do.
pub(crate) fn idle_threads<R: Rival>(scale: &Scale) -> Vec<f64> {
    let pool = R::start(scale.idle_threads);
    Gate::close_with(&pool, scale.idle_threads).open(&pool);
    // What the threads do on their way to bed isn't idling: spinning before they park, say.
    thread::sleep(Duration::from_millis(20));
    let cpu = ProcessTime::now();
    thread::sleep(scale.idle_window);
    let cpu = cpu.elapsed();
    // Still alive, all of them.
    Gate::close_with(&pool, scale.idle_threads).open(&pool);
    vec![cpu.as_secs_f64()]
}

/// As [`submit_wait`], on many more threads than there are cores.
pub(crate) fn many_threads<R: Rival>(scale: &Scale) -> Vec<f64> {
    let pool = warm_with::<R>(scale.many_threads);
    let count = scale.submits as u64;
    let start = Instant::now();
    let handles = pool.spawn_numbers(count);
    let sum = pool.wait_all(handles);
    let elapsed = start.elapsed();
    assert_eq!(sum, sum_below(count), "{}", R::NAME);
    vec![elapsed.as_secs_f64() / count as f64]
}

/// Pairs of requests of which the first waits for the second. Time a request; infinite if they never end, as they do if a
/// pool holds queued requests back from a free thread.
pub(crate) fn pairs<R: Rival>(scale: &Scale) -> Vec<f64> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let pool = warm::<R>();
    let pairs: Vec<_> = (0..scale.pairs).map(|_| Arc::new((Mutex::new(false), Condvar::new()))).collect();
    let (ended, has_ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let pairs = &pairs;
        let rescue = scope.spawn(move || {
            let stuck = has_ended.recv_timeout(PATIENCE).is_err();
            if stuck {
                pairs.iter().for_each(|pair| send(pair));
            }
            stuck
        });
        let start = Instant::now();
        let mut handles = Vec::with_capacity(2 * pairs.len());
        for pair in pairs {
            let (waits, sends) = (Arc::clone(pair), Arc::clone(pair));
            handles.push(pool.spawn(move || {
                let sent = waits.0.lock().expect("nobody panics with the lock");
                drop(waits.1.wait_while(sent, |sent| !*sent));
                1
            }));
            handles.push(pool.spawn(move || {
                send(&sends);
                1
            }));
        }
        let count = handles.len();
        let sum = pool.wait_all(handles);
        let elapsed = start.elapsed();
        assert_eq!(sum, count as u64, "{}", R::NAME);
        let _ = ended.send(()); // The rescue may be over.
        let stuck = rescue.join().expect("it doesn't panic");
        vec![if stuck { f64::INFINITY } else { elapsed.as_secs_f64() / count as f64 }]
    })
}

fn send((sent, wake): &(Mutex<bool>, Condvar)) {
    *sent.lock().expect("nobody panics with the lock") = true;
    wake.notify_one();
}

/// How much longer a request takes among many pending ones than among few, submitted and run; then both times.
///
/// As many requests in all: the few are done a thousand times.
pub(crate) fn growth<R: Rival>(scale: &Scale) -> Vec<f64> {
    let pool = warm::<R>();
    let [few, many] = scale.growth;
    let time = |pending: usize| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..many / pending {
            let gate = Gate::close(&pool);
            let start = Instant::now();
            let handles = pool.spawn_numbers(pending as u64);
            let blockers = gate.unlock();
            let sum = pool.wait_all(handles);
            elapsed += start.elapsed();
            pool.wait_all(blockers);
            assert_eq!(sum, sum_below(pending as u64), "{}", R::NAME);
        }
        elapsed.as_secs_f64() / many as f64
    };
    let (among_few, among_many) = (time(few), time(many));
    vec![among_many / among_few, among_few, among_many]
}

/// A started pool whose threads run: both have been seen inside a request at once.
fn warm<R: Rival>() -> R {
    warm_with(THREADS)
}

fn warm_with<R: Rival>(threads: usize) -> R {
    let pool = R::start(threads);
    Gate::close_with(&pool, threads).open(&pool);
    let handles = pool.spawn_numbers(500);
    assert_eq!(pool.wait_all(handles), sum_below(500), "{}", R::NAME);
    pool
}

fn round_trips<R: Rival>(count: usize, nap: Duration) -> f64 {
    let pool = warm::<R>();
    let mut trips: Vec<Duration> = (0..count as u64)
        .map(|number| {
            if !nap.is_zero() {
                thread::sleep(nap);
            }
            let start = Instant::now();
            let handle = pool.spawn(move || number);
            let back = pool.wait(handle);
            let elapsed = start.elapsed();
            assert_eq!(back, number, "{}", R::NAME);
            elapsed
        })
        .collect();
    trips.sort_unstable();
    trips[trips.len() / 2].as_secs_f64()
}

/// Holds every worker inside a request until it is opened.
struct Gate<H> {
    state: Arc<(Mutex<GateState>, Condvar)>,
    blockers: Vec<H>,
}

struct GateState {
    inside: usize,
    open: bool,
}

impl<H: Send> Gate<H> {
    fn close<R: Rival<Handle = H>>(pool: &R) -> Self {
        Self::close_with(pool, THREADS)
    }

    /// Returns when `threads` workers wait inside.
    fn close_with<R: Rival<Handle = H>>(pool: &R, threads: usize) -> Self {
        let state = Arc::new((Mutex::new(GateState { inside: 0, open: false }), Condvar::new()));
        let blockers = (0..threads)
            .map(|_| {
                let state = Arc::clone(&state);
                pool.spawn(move || {
                    let mut gate = state.0.lock().expect("nobody panics with the lock");
                    gate.inside += 1;
                    state.1.notify_all();
                    drop(state.1.wait_while(gate, |gate| !gate.open));
                    0
                })
            })
            .collect();
        let gate = state.0.lock().expect("nobody panics with the lock");
        drop(state.1.wait_while(gate, |gate| gate.inside < threads));
        Self { state, blockers }
    }

    /// Lets the workers go on, without waiting for them.
    fn unlock(self) -> Vec<H> {
        self.state.0.lock().expect("nobody panics with the lock").open = true;
        self.state.1.notify_all();
        self.blockers
    }

    fn open<R: Rival<Handle = H>>(self, pool: &R) {
        let blockers = self.unlock();
        pool.wait_all(blockers);
    }
}

/// Steps of [`spin_for`] that take five microseconds on a core of their own. A count and not a look
/// at the clock: a worker that loses its core must not get its work for free.
static SPIN_STEPS: LazyLock<u32> = LazyLock::new(|| {
    const STEPS: u32 = 10_000;
    let best = (0..500).map(|_| {
        let start = Instant::now();
        black_box(spin_for(STEPS));
        start.elapsed()
    });
    let best = best.min().expect("there were trials");
    (f64::from(STEPS) * 5e-6 / best.as_secs_f64()) as u32
});

fn spin_for(steps: u32) -> u64 {
    let mut state = black_box(1u64);
    for _ in 0..steps {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    state
}

fn sum_below(count: u64) -> u64 {
    count * (count - 1) / 2
}
