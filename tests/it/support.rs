//! What tests wait on: gates and counts, never the clock. A wait that never ends fails with its name instead.

use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Far longer than anything takes here, under AddressSanitizer on a machine that is busy, too: it
/// only turns a hang into a failure with a reason.
pub(crate) const HANG: Duration = Duration::from_secs(300);

/// A gate that operations wait at until the test opens it, and that counts who has arrived.
#[derive(Clone)]
pub(crate) struct Gate(Arc<(Mutex<Inner>, Condvar)>);

struct Inner {
    open: bool,
    arrived: usize,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate(Arc::new((Mutex::new(Inner { open: false, arrived: 0 }), Condvar::new())))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn until(&self, what: &str, is_so: impl Fn(&Inner) -> bool) {
        let (inner, deadline) = (self.lock(), Instant::now() + HANG);
        let (inner, waited) = self
            .0
            .1
            .wait_timeout_while(inner, deadline - Instant::now(), |inner| !is_so(inner))
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        drop(inner);
        assert!(!waited.timed_out(), "hang: {what}");
    }

    /// An operation arrives and waits until the gate is open.
    pub(crate) fn pass(&self) {
        self.lock().arrived += 1;
        self.0.1.notify_all();
        self.until("the gate was not opened", |inner| inner.open);
    }

    /// The test waits until `count` have arrived.
    pub(crate) fn await_arrivals(&self, count: usize) {
        self.until("not enough arrived at the gate", |inner| inner.arrived >= count);
    }

    pub(crate) fn arrivals(&self) -> usize {
        self.lock().arrived
    }

    pub(crate) fn open(&self) {
        self.lock().open = true;
        self.0.1.notify_all();
    }
}

/// Looks again and again, yielding, until `is_so`: for what no event announces, such as the end of an OS thread.
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < HANG, "never came true: {what}");
        std::thread::yield_now();
    }
}

/// Fails instead of hanging: `body` runs on a thread of its own, which is left behind when it doesn't end.
#[track_caller]
pub(crate) fn ends<T: Send + 'static>(what: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (told, tell) = channel();
    std::thread::spawn(move || told.send(body()));
    tell.recv_timeout(HANG).unwrap_or_else(|_| panic!("hang or panic: {what}"))
}

/// Blocks until a cancel of the operation around it reaches its hook.
pub(crate) fn until_cancelled() -> fulmar::Error {
    let (told, tells) = channel();
    let _hook = fulmar::on_cancel(move || {
        let _ = told.send(());
    });
    // Without an operation the hook is dropped, and with it the sender.
    tells.recv().expect("it is in an operation");
    fulmar::Error::Interrupted
}

/// An executor with `threads` threads.
pub(crate) fn executor(threads: usize) -> fulmar::Executor {
    fulmar::Executor::builder().threads(threads).build().expect("a sound number of threads")
}

/// Occupies one thread until the gate opens; returns once it does.
pub(crate) fn occupy(executor: &fulmar::Executor, gate: &Gate) -> fulmar::AsyncRequest<()> {
    let arrived = gate.arrivals();
    let (inside, request_gate) = (gate.clone(), gate.clone());
    let request = executor.spawn(move || request_gate.pass()).expect("accepted");
    inside.await_arrivals(arrived + 1);
    request
}

/// The counters of an executor at rest and in motion add up, or the test fails with the snapshot.
pub(crate) fn assert_adds_up(stats: &fulmar::Stats) {
    let parts = stats.deferred
        + stats.queued
        + stats.running
        + stats.completed
        + stats.failed
        + stats.panicked
        + stats.cancelled;
    assert_eq!(stats.submitted, parts, "{stats}");
}

/// What comes of a request that is started before its limit: a machine that takes longer to start
/// it gets more time.
pub(crate) fn started_in_time<T>(run: impl Fn(Duration) -> Result<T, fulmar::Error>) -> T {
    let limits = (0..8).map(|doubled| Duration::from_millis(50 << doubled));
    let mut ends = limits.map(run).filter(|end| !matches!(end, Err(fulmar::Error::Expired)));
    ends.next().expect("it starts within seconds").expect("it is told, and ends well")
}
