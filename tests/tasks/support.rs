//! What every test of durable tasks needs: a bed to put a queue in, and something to wait on.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use fulmar::tasks::{
    CallersTransaction, Claim, NewTask, QueueBuilder, TaskError, TaskHandle, TaskQueue, TaskStatus, TaskType, WorkerId,
    rusqlite,
};

/// Far longer than anything takes here: it only turns a hang into a failure with a reason.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// A lease that nobody outlives unless the test lets time pass.
pub(crate) const LEASE: Duration = Duration::from_secs(600);

/// An empty database of one engine, which goes with it.
pub(crate) trait Bed: Sync {
    /// What [`open_at`] opens, in this process or in another.
    fn address(&self) -> String;

    /// A queue with connections of its own.
    fn open_with(&self, builder: QueueBuilder) -> TaskQueue {
        open_at(&self.address(), builder).expect("the queue opens")
    }

    /// Runs SQL that both engines understand, and says how many rows it changed.
    fn sql(&self, sql: &str) -> usize;

    /// The one number that a query gives.
    fn count(&self, sql: &str) -> i64;

    /// How many bytes of the disk the tables and indexes take.
    fn size(&self) -> i64;

    /// Lets time pass for all tasks there are.
    fn pass(&self, time: Duration) {
        self.shift(i64::try_from(time.as_millis()).expect("a sound time"));
    }

    /// Moves every time in the database back by so many milliseconds, which is as if the clock had moved on.
    fn shift(&self, back: i64) {
        self.sql(&format!(
            "UPDATE fulmar_task SET run_at = run_at - {back}, created = created - {back}, lease = lease - {back},
                 deadline = deadline - {back}, ended = ended - {back}"
        ));
    }

    fn open(&self) -> TaskQueue {
        self.open_with(TaskQueue::builder().poll_interval(Duration::from_millis(5)))
    }

    /// A queue with the type `t`.
    fn queue(&self) -> TaskQueue {
        let queue = self.open();
        queue.register(TaskType::new("t")).expect("registered");
        queue
    }
}

/// Opens a queue of whichever engine the address is of.
pub(crate) fn open_at(address: &str, builder: QueueBuilder) -> Result<TaskQueue, TaskError> {
    #[cfg(feature = "postgres")]
    if address.starts_with("postgres://") {
        return builder.connect(address);
    }
    builder.open(address)
}

/// What may be done in a transaction: hand it to the queue, and run SQL.
pub(crate) type InTransaction<'a> =
    &'a dyn Fn(&dyn CallersTransaction, &dyn Fn(&str) -> Result<(), TaskError>) -> Result<(), TaskError>;

/// A transaction of the caller's on a queue's database, on a connection as users of the engine have it. It is committed if
/// `work` says so.
pub(crate) fn transaction_at(address: &str, queue: &TaskQueue, work: InTransaction<'_>) -> Result<(), TaskError> {
    #[cfg(not(feature = "postgres"))]
    let _ = queue;
    #[cfg(feature = "postgres")]
    if address.starts_with("postgres://") {
        return queue.postgres_transaction(|tx| work(tx, &|sql| tx.execute(sql, &[]).map(drop)));
    }
    let failed = |error: rusqlite::Error| TaskError::Invalid(error.to_string());
    let mut db = rusqlite::Connection::open(address).map_err(failed)?;
    db.busy_timeout(HANG).map_err(failed)?;
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    work(&*tx, &|sql| tx.execute(sql, []).map(drop).map_err(failed))?;
    tx.commit().map_err(failed)
}

/// A task of type `t`.
pub(crate) fn task(identifier: impl Into<String>) -> NewTask {
    NewTask::new("t", identifier)
}

pub(crate) fn put(queue: &TaskQueue, identifier: &str) -> TaskHandle {
    queue.enqueue(task(identifier)).expect("accepted")
}

pub(crate) fn claims(queue: &TaskQueue, worker: &WorkerId, limit: usize) -> Vec<Claim> {
    queue.dequeue(worker, &["t"], limit, LEASE).expect("claimed")
}

/// The one task that is ready.
pub(crate) fn claim(queue: &TaskQueue) -> Claim {
    let mut claims = claims(queue, &WorkerId::new(), 1);
    claims.pop().expect("a task is ready")
}

pub(crate) fn names(claims: &[Claim]) -> Vec<&str> {
    claims.iter().map(|claim| claim.task().identifier()).collect()
}

/// The statuses of a task's log.
pub(crate) fn history(queue: &TaskQueue, identifier: &str) -> Vec<TaskStatus> {
    queue.log("t", identifier).expect("a log").into_iter().map(|entry| entry.status).collect()
}

/// The last message of a task's log.
pub(crate) fn last_message(queue: &TaskQueue, identifier: &str) -> String {
    queue.log("t", identifier).expect("a log").pop().expect("an entry").message
}

/// A gate that handlers wait at until the test opens it, and that counts who has arrived.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    fn until(&self, what: &str, is_so: impl Fn(&(bool, usize)) -> bool) {
        let inner = self.0.0.lock().expect("nobody panics under it");
        let (inner, waited) =
            self.0.1.wait_timeout_while(inner, HANG, |inner| !is_so(inner)).expect("nobody panics under it");
        drop(inner);
        assert!(!waited.timed_out(), "hang: {what}");
    }

    pub(crate) fn pass(&self) {
        self.0.0.lock().expect("nobody panics under it").1 += 1;
        self.0.1.notify_all();
        self.until("the gate was not opened", |inner| inner.0);
    }

    pub(crate) fn await_arrivals(&self, count: usize) {
        self.until("not enough arrived at the gate", |inner| inner.1 >= count);
    }

    pub(crate) fn arrivals(&self) -> usize {
        self.0.0.lock().expect("nobody panics under it").1
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().expect("nobody panics under it").0 = true;
        self.0.1.notify_all();
    }
}

/// Looks again and again, yielding, until `is_so`: for what no event announces.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < HANG, "never came true: {what}");
        std::thread::yield_now();
    }
}

/// Runs `round` with a short lease, and again with twice as long a one if it says that a lease was
/// over before it was renewed: so it is on a machine that was held up for that long.
pub(crate) fn unless_held_up(shortest: Duration, round: impl Fn(Duration) -> bool) {
    let leases = (0..10).map(|doubled| shortest * (1 << doubled));
    assert!(leases.into_iter().any(round), "however long a lease is, it isn't renewed in time");
}

/// Waits for something that a worker does which is the only one to rescue what it holds. Returns
/// false, and puts its tasks back, if it was held up for longer than the lease.
pub(crate) fn in_time(queue: &TaskQueue, what: &str, is_so: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if queue.tidy().expect("looked").returned > 0 {
            return false;
        }
        assert!(start.elapsed() < HANG, "never came true: {what}");
        std::thread::yield_now();
    }
    true
}

/// This is a build of a copy of the crate that has no fence: see `unfenced` in tests/run.
pub(crate) fn is_unfenced() -> bool {
    std::env::var_os("FULMAR_UNFENCED").is_some()
}

/// How often races are run: few in CI, `FULMAR_TASK_RACES` for the full size.
pub(crate) fn races() -> usize {
    number("FULMAR_TASK_RACES", 200)
}

pub(crate) fn number(variable: &str, otherwise: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")),
        Err(_) => otherwise,
    }
}
