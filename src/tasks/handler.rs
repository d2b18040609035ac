//! What handlers are, and what they may say about the task at hand.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::caller::{CallersTransaction, Ending};
use super::durable::Holder;
use super::engine::{Action, Claimed, Part, Step, Stepped, Wait};
use super::error::{Result, TaskError};
use super::new_task::{check_size, clean, to_json};
use super::queue::TaskQueue;
use super::status::{Response, TaskStatus};
use super::worker_id::{WorkerId, random_number};
use crate::backoff::Backoff;
use crate::error::{BoxError, chain};
use crate::executor::{self, Interruptible, IntoOutput, Told};
use crate::panics;
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::trace::event;

/// What the tasks of a type do: any function or closure `Fn(&TaskContext)` that returns a
/// `Result<(), E>`, or nothing. A closure that ends in `Ok(())` doesn't say its error's type: write
/// [`handler`](super::handler)`(|task| ..)`. One that wants its input typed:
/// [`handle_typed`](super::WorkerBuilder::handle_typed).
///
/// A task whose handler returns `Ok` is `Finished`, unless the handler [failed](TaskContext::fail)
/// or [paused](TaskContext::pause) it; one whose handler returns an error or panics is retried as
/// its type says, and then `Failed`. A task may run more than once, also at once with an attempt
/// that was given up: see the chapter of [`tasks`](super).
#[diagnostic::on_unimplemented(
    message = "`{Self}` isn't a handler of tasks",
    label = "can't be called with a `&TaskContext`",
    note = "a closure says so: `|task: &TaskContext| ..`, or `handler(|task| {{ ..; Ok(()) }})`",
    note = "one that takes the task's input goes with `handle_typed`, or reads it: `let input: Input = task.input()?`"
)]
pub trait Handler: Send + Sync + 'static {
    /// Does it. Runs on a thread of the worker's executor.
    ///
    /// # Errors
    /// The handler's own. Its text, with those of its sources, goes into the task's log.
    fn run(&self, task: &TaskContext) -> Result<(), BoxError>;
}

impl<F, R> Handler for F
where
    F: Fn(&TaskContext) -> R + Send + Sync + 'static,
    R: IntoOutput<Output = ()>,
{
    fn run(&self, task: &TaskContext) -> Result<(), BoxError> {
        self(task).into_output()
    }
}

/// The task at hand, for its handler.
///
/// What it stores is committed together with the end of the attempt, all or nothing.
pub struct TaskContext {
    queue: TaskQueue,
    worker: WorkerId,
    claimed: Claimed,
    cancelled: AtomicBool,
    lost: AtomicBool,
    called_off: AtomicBool,
    /// The database could not do what the attempt needs to go on.
    cut_off: AtomicBool,
    stopping: AtomicBool,
    /// A worker keeps the lease, and tells when it is lost.
    is_kept: bool,
    finished_in: AtomicBool,
    /// The handler's run, which is interrupted if it is to stop.
    run: Arc<Interruptible>,
    draft: Mutex<Draft>,
}

const UNCOMMITTED: &str = "it was finished in a transaction that was not committed";

/// What the attempt has come to so far.
#[derive(Clone, Default)]
struct Draft {
    end: Option<End>,
    message: String,
    response: Option<Arc<Response>>,
}

#[derive(Clone)]
enum End {
    Fail {
        reason: String,
    },
    Pause {
        after: Duration,
        checkpoint: Option<Arc<[u8]>>,
    },
    /// A durable function has to wait, whatever it returns.
    Wait(Arc<Wait>),
}

impl TaskContext {
    pub(super) fn new(queue: TaskQueue, worker: WorkerId, claimed: Claimed) -> TaskContext {
        TaskContext {
            queue,
            worker,
            claimed,
            cancelled: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            called_off: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            is_kept: false,
            stopping: AtomicBool::new(false),
            finished_in: AtomicBool::new(false),
            run: Interruptible::new(),
            draft: Mutex::new(Draft::default()),
        }
    }

    /// As [`new`](TaskContext::new), of a worker that keeps the lease.
    pub(super) fn kept(queue: TaskQueue, worker: WorkerId, claimed: Claimed) -> TaskContext {
        TaskContext { is_kept: true, ..TaskContext::new(queue, worker, claimed) }
    }

    /// The task's number.
    pub fn id(&self) -> i64 {
        self.claimed.id
    }

    /// The number of this claim of the task. It only grows: hand it to other systems, so that they
    /// can refuse an attempt that was given up after they have seen a later one.
    pub fn fence(&self) -> i64 {
        self.claimed.token
    }

    /// The task's type.
    pub fn task_type(&self) -> &str {
        &self.claimed.task_type
    }

    /// The task's identifier.
    pub fn identifier(&self) -> &str {
        &self.claimed.identifier
    }

    /// Which start of the task this is, from 1; those after a pause count, too.
    pub fn attempt(&self) -> u32 {
        self.claimed.starts.saturating_add(1)
    }

    /// How many attempts have failed before, since the task paused last.
    pub fn failures(&self) -> u32 {
        self.claimed.failures
    }

    /// The context of the program that enqueued it, such as W3C's `traceparent`: what
    /// [`QueueBuilder::trace_context`](super::QueueBuilder::trace_context) gave there.
    pub fn trace_context(&self) -> Option<&str> {
        self.claimed.context.as_deref()
    }

    /// How long it could have started before it was taken.
    pub(super) fn waited(&self) -> Duration {
        self.claimed.waited
    }

    /// The input, as JSON, in any type that reads it; `serde_json::Value` reads all.
    ///
    /// # Errors
    /// [`TaskError::Invalid`] if it has another shape; those of the database for inputs above 64
    /// KiB, which are read when they are asked for.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T> {
        let read = |bytes: &[u8]| {
            serde_json::from_slice(bytes)
                .map_err(|error| TaskError::Invalid(format!("the input of task `{}`: {error}", self.identifier())))
        };
        match &self.claimed.input {
            Some(bytes) => read(bytes),
            None => read(&self.input_bytes()?),
        }
    }

    /// The input as it was given.
    ///
    /// # Errors
    /// Those of the database for inputs above 64 KiB; [`TaskError::Stale`] if the task was deleted.
    pub fn input_bytes(&self) -> Result<Vec<u8>> {
        match &self.claimed.input {
            Some(bytes) => Ok(bytes.clone()),
            None => Ok(self.queue.engine().load(self.id(), Part::Input)?.unwrap_or_default()),
        }
    }

    /// What an earlier attempt kept when it [paused](TaskContext::pause_with); `None` in the first.
    ///
    /// # Errors
    /// [`TaskError::Invalid`] if it has another shape; those of the database.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let read = |bytes: Vec<u8>| {
            serde_json::from_slice(&bytes)
                .map_err(|error| TaskError::Invalid(format!("the checkpoint of task `{}`: {error}", self.identifier())))
        };
        if !self.claimed.has_checkpoint {
            return Ok(None);
        }
        self.queue.engine().load(self.id(), Part::Checkpoint)?.map(read).transpose()
    }

    /// Notes how far the task is, from 0 to 1, with a message for its log, durably and at once. It
    /// costs a commit.
    ///
    /// # Errors
    /// [`TaskError::Stale`]: the lease is lost; stop. Those of the database.
    pub fn progress(&self, share: f32, message: &str) -> Result<()> {
        // What is not a number isn't progress.
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self.note(Some(share), message)
    }

    /// Writes a message into the task's log, durably and at once. It costs a commit, unlike a
    /// [`last_message`](TaskContext::last_message).
    ///
    /// # Errors
    /// Those of [`progress`](TaskContext::progress).
    pub fn message(&self, message: &str) -> Result<()> {
        self.note(None, message)
    }

    fn note(&self, progress: Option<f32>, message: &str) -> Result<()> {
        self.act(Action::Note { progress, message: clean(message) }).map(drop)
    }

    /// What the log is to say of the end of this attempt, if the task is finished then, or pauses:
    /// for words that need no commit of their own. The last one counts.
    pub fn last_message(&self, message: &str) {
        self.draft.lock().message = clean(message);
    }

    /// Stores the response for programs that ask for it, committed with the end of this attempt.
    /// The last one counts.
    ///
    /// # Errors
    /// [`TaskError::TooLarge`] above 64 MiB; [`TaskError::Invalid`] for a media type that is empty,
    /// or not one line.
    pub fn store_response(&self, body: impl Into<Vec<u8>>, media_type: &str) -> Result<()> {
        let body = body.into();
        check_size("response", &body)?;
        super::task_type::check_name("the media type of a response", media_type)?;
        self.draft.lock().response = Some(Arc::new(Response { media_type: media_type.to_owned(), body }));
        Ok(())
    }

    /// Stores a response as JSON.
    ///
    /// # Errors
    /// Those of [`store_response`](TaskContext::store_response); [`TaskError::Invalid`] if JSON
    /// can't express it.
    pub fn store_json(&self, response: &(impl Serialize + ?Sized)) -> Result<()> {
        let body = to_json(response).map_err(|why| why.error("response", "the response"))?;
        self.store_response(body, "application/json")
    }

    /// Finishes the task inside a transaction of the handler's own on the queue's database: what
    /// the handler writes there and the end of the task, with its response and
    /// [`last_message`](TaskContext::last_message), are one commit. So the effects happen exactly
    /// once, however often the task is attempted. Commit, and return `Ok`.
    ///
    /// If the transaction is not committed after all, the task has not finished: the attempt has
    /// failed, with the handler's error or with one that says so. If it was committed, the task is
    /// `Finished`, even if the handler returns an error then, or its worker dies before it returns.
    ///
    /// On SQLite the connection is a `rusqlite::Connection` of the handler's own; begin the
    /// transaction as `IMMEDIATE`, and keep it short, because no other thread or process writes
    /// meanwhile. On PostgreSQL it is that of
    /// [`postgres_transaction`](TaskQueue::postgres_transaction).
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{NewTask, TaskContext, TaskQueue, TaskStatus, TaskType, Worker, rusqlite};
    /// use std::time::Duration;
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-once-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// let file = folder.join("shop.db");
    /// let queue = TaskQueue::open(&file)?;
    /// queue.register(TaskType::new("credit"))?;
    /// let mut shop = rusqlite::Connection::open(&file)?;
    /// shop.execute_batch("CREATE TABLE account (cents INTEGER); INSERT INTO account VALUES (0)")?;
    ///
    /// let task = queue.enqueue(NewTask::new("credit", "order-1").input(&250))?;
    /// let worker = Worker::builder(&queue)
    ///     .handle("credit", move |task: &TaskContext| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///         let cents: i64 = task.input()?;
    ///         let mut shop = rusqlite::Connection::open(&file)?;
    ///         let credit = shop.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    ///         credit.execute("UPDATE account SET cents = cents + ?1", [cents])?;
    ///         task.finish_in(&*credit)?;
    ///         Ok(credit.commit()?)
    ///     })
    ///     .start()?;
    /// assert_eq!(task.wait(Duration::from_secs(60))?, TaskStatus::Finished);
    /// assert_eq!(shop.query_row("SELECT cents FROM account", [], |row| row.get::<_, i64>(0))?, 250);
    /// # worker.drain(Duration::from_secs(60))?;
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TaskError::Stale`]: the lease is lost; roll back. [`TaskError::Invalid`] after
    /// [`fail`](TaskContext::fail) or [`pause`](TaskContext::pause), if no transaction is open, or
    /// if it is another database; on PostgreSQL, too, at an isolation level above READ COMMITTED if
    /// the task has a key. Those of the database. Nothing is finished then.
    pub fn finish_in<C: CallersTransaction + ?Sized>(&self, connection: &C) -> Result<()> {
        let Draft { end, message, response } = self.draft.lock().clone();
        if end.is_some() {
            return Err(TaskError::Invalid("the task was told to fail or to pause, so it can't be finished".into()));
        }
        let step = self.step(Action::Finish { message, response });
        match connection.end(&self.queue, Ending(step))? {
            true => {
                self.finished_in.store(true, Ordering::Relaxed);
                Ok(())
            }
            false => {
                self.set_lost().interrupt();
                Err(TaskError::Stale { task: self.id() })
            }
        }
    }

    /// The task has failed for good: it is not retried. It takes effect when the handler returns.
    /// The first of `fail` and `pause` counts.
    pub fn fail(&self, reason: impl Into<String>) {
        self.draft.lock().end.get_or_insert(End::Fail { reason: clean(&reason.into()) });
    }

    /// Has the task wait for `delay`, without a thread, and then start again: for what some other
    /// service does meanwhile. It takes effect when the handler returns. The first of `fail` and
    /// `pause` counts.
    pub fn pause(&self, delay: Duration) {
        self.draft.lock().end.get_or_insert(End::Pause { after: delay, checkpoint: None });
    }

    /// As [`pause`](TaskContext::pause), with a state for the next start to read
    /// ([`checkpoint`](TaskContext::checkpoint)).
    ///
    /// # Errors
    /// [`TaskError::TooLarge`] above 64 MiB; [`TaskError::Invalid`] if JSON can't express it.
    pub fn pause_with(&self, delay: Duration, checkpoint: &(impl Serialize + ?Sized)) -> Result<()> {
        let checkpoint = to_json(checkpoint).map_err(|why| why.error("checkpoint", "the checkpoint"))?;
        self.draft.lock().end.get_or_insert(End::Pause { after: delay, checkpoint: Some(checkpoint.into()) });
        Ok(())
    }

    /// The task waits, whatever the handler returns.
    pub(super) fn wait(&self, wait: Wait) {
        self.draft.lock().end = Some(End::Wait(Arc::new(wait)));
    }

    pub(super) fn holder(&self) -> Holder {
        Holder { task: self.claimed.id, token: self.claimed.token, worker: self.worker.clone() }
    }

    /// Whether to stop: the task was cancelled, or its lease is [lost](TaskContext::is_lost), or
    /// the worker's time to drain is over, or the worker was dropped. Costs nothing; a task that
    /// takes long asks now and then, and returns an error.
    ///
    /// A handler that blocks needn't ask, for it is interrupted: [`fulmar::is_cancelled`] is true
    /// in it, the crate's HTTP calls and [`sleep`](crate::sleep)s end, and so do the statements of
    /// a `postgres_transaction` and of SQLite connections that were told so
    /// (`interrupt_on_cancel`). For other calls there is [`on_cancel`](crate::on_cancel).
    ///
    /// [`fulmar::is_cancelled`]: crate::is_cancelled
    ///
    /// Who asked decides what the error does. After a cancel the task is `Cancelled`. Where it was
    /// the worker, or its lease, the task goes back to the queue at once, for others: that counts
    /// as a lost attempt, against the type's [restart limit](super::TaskType::restart_limit), and
    /// not as a failed one.
    pub fn is_cancelled(&self) -> bool {
        // Relaxed, like all of these: they protect nothing.
        self.cancelled.load(Ordering::Relaxed) || self.why_called_off().is_some()
    }

    /// Why to stop, if it isn't the task that is to end, but this attempt.
    fn why_called_off(&self) -> Option<&'static str> {
        let reasons = [
            (&self.lost, "its lease was lost"),
            (&self.called_off, "its worker stopped"),
            (&self.cut_off, "the database was out of reach"),
        ];
        reasons.into_iter().find(|(is_so, _)| is_so.load(Ordering::Relaxed)).map(|(_, why)| why)
    }

    /// Does a call of the database that the attempt can't go on without. While the database is out
    /// of reach, or held by others, it tries again for as long as the worker has the task: what was
    /// done before is not to be done again. Without a worker that would tell when the lease is
    /// lost, one try is all, and the attempt is given up.
    pub(super) fn outlast<R>(&self, mut call: impl FnMut() -> Result<R>) -> Result<R> {
        let pauses = Backoff::new(Duration::from_millis(10)).cap(Duration::from_secs(1)).jitter(0.5);
        let mut tries = 0;
        loop {
            let error = match call() {
                Err(error) if error.is_outage() => error,
                done => return done,
            };
            event!(WARN, "an attempt waits for the database", task = self.id(), error = error.to_string());
            if !self.is_kept {
                self.set_cut_off();
            }
            if self.is_cancelled() || executor::sleep(pauses.delay_with(tries, random_number())).is_err() {
                return Err(error);
            }
            tries = tries.saturating_add(1);
        }
    }

    /// The attempt is given up, and has not failed: the database could not do what it needs.
    pub(super) fn set_cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
    }

    /// Whether this worker is known not to hold the task any more. What it does from now on is for
    /// nothing.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether the worker is being drained: a task that can [pause](TaskContext::pause_with) had
    /// better do it now.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The user has cancelled the task. As of the others: the caller interrupts the handler, under
    /// no lock.
    pub(super) fn set_cancelled(&self) -> Told {
        self.cancelled.store(true, Ordering::Relaxed);
        self.run.tell()
    }

    /// The worker's wish, not the user's.
    pub(super) fn set_called_off(&self) -> Told {
        self.called_off.store(true, Ordering::Relaxed);
        self.run.tell()
    }

    pub(super) fn set_lost(&self) -> Told {
        self.lost.store(true, Ordering::Relaxed);
        self.run.tell()
    }

    pub(super) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Runs `handler`, and says what the attempt came to. Its panics go no further.
    pub(super) fn attempt_with(&self, handler: &dyn Handler) -> Action {
        #[cfg(feature = "tracing")]
        let mut span = None;
        #[cfg(feature = "tracing")]
        crate::trace::tell(|| {
            let (task_type, identifier, attempt) = (self.task_type(), self.identifier(), self.attempt());
            let new = tracing::info_span!(target: "fulmar", "task", task_type, identifier, attempt, context = self.trace_context());
            span = Some(new.entered());
        });
        // What the handler's error says, and what its destructor does, is the user's code as well.
        let returned = self.run.run(|| panics::catch(|| handler.run(self).map_err(|error| chain(&*error))));
        if executor::is_cancelled() {
            // The operation that works on the claim was, and not the task.
            self.called_off.store(true, Ordering::Relaxed);
        }
        #[cfg(feature = "tracing")]
        crate::trace::tell(|| drop(span));
        self.outcome(returned.unwrap_or_else(|panic| Err(format!("panicked: {panic}"))))
    }

    /// What the attempt came to: what the handler said, or else what it returned.
    pub(super) fn outcome(&self, returned: Result<(), String>) -> Action {
        let Draft { end, message, response } = self.draft.lock().clone();
        // If that transaction was committed, this outcome comes to nothing.
        let returned = returned.and_then(|()| match self.finished_in.load(Ordering::Relaxed) {
            true if end.is_none() => Err(UNCOMMITTED.into()),
            _ => Ok(()),
        });
        match (end, returned) {
            (Some(End::Wait(wait)), _) => Action::Wait { message, wait },
            (Some(End::Fail { reason }), _) => Action::Fail { reason, retry: None, response },
            (_, Err(reason)) => match self.why_called_off() {
                // If the user cancelled the task, too, the database knows.
                Some(why) => Action::Lose { reason: clean(&format!("{why}: {reason}")) },
                None => {
                    let retry = self.claimed.retry.delay(self.claimed.failures, random_number());
                    let reason = match retry {
                        Some(delay) => format!("attempt {} failed, next in {delay:.1?}: {reason}", self.attempt()),
                        None => reason,
                    };
                    Action::Fail { reason: clean(&reason), retry, response }
                }
            },
            (Some(End::Pause { after, checkpoint }), Ok(())) => Action::Pause { message, after, checkpoint, response },
            (None, Ok(())) => Action::Finish { message, response },
        }
    }

    pub(super) fn step(&self, action: Action) -> Step {
        let finished_in = self.finished_in.load(Ordering::Relaxed);
        Step { task: self.claimed.id, token: self.claimed.token, worker: self.worker.clone(), action, finished_in }
    }

    /// Does one thing to the task; says where it stands then.
    pub(super) fn act(&self, action: Action) -> Result<TaskStatus> {
        let stepped = self.queue.engine().step(vec![self.step(action)])?;
        match stepped.first() {
            Some(Stepped::Done(status)) => Ok(*status),
            _ => {
                self.set_lost().interrupt();
                Err(TaskError::Stale { task: self.id() })
            }
        }
    }

    pub(super) fn queue(&self) -> &TaskQueue {
        &self.queue
    }

    pub(super) fn worker(&self) -> &WorkerId {
        &self.worker
    }
}

impl fmt::Debug for TaskContext {
    /// Without the input, which may be large or secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("id", &self.id())
            .field("task_type", &self.task_type())
            .field("identifier", &self.identifier())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "tracing", feature = "sqlite"))]
mod tests {
    use std::sync::Arc;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::super::new_task::NewTask;
    use super::super::task_type::TaskType;
    use super::super::worker::Worker;
    use super::*;

    /// What spans are called, and what they say.
    #[derive(Clone, Default)]
    struct Spans(Arc<Mutex<Vec<String>>>);

    impl Visit for &Spans {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.lock().push(format!("{}={value:?}", field.name()));
        }
    }

    impl Subscriber for Spans {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            if attributes.metadata().name() == "task" {
                attributes.record(&mut { self });
            }
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {
            self.0.lock().push("enter".into());
        }
        fn exit(&self, _: &Id) {
            self.0.lock().push("exit".into());
        }
    }

    #[test]
    fn an_attempt_is_a_span_with_the_submitter_s_context() {
        let folder = std::env::temp_dir().join(format!("fulmar-span-{}", WorkerId::new()));
        std::fs::create_dir(&folder).expect("a folder of its own");
        let queue = TaskQueue::open(folder.join("queue.db")).expect("the queue opens");
        queue.register(TaskType::new("t")).expect("registered");
        queue.enqueue(NewTask::new("t", "a").trace_context("00-1-2-01")).expect("accepted");
        let spans = Spans::default();
        let inside = spans.clone();
        let handlers = Worker::builder(&queue).handle("t", move |_: &TaskContext| {
            inside.0.lock().push("handler".into());
            Ok::<(), TaskError>(())
        });
        tracing::subscriber::with_default(spans.clone(), || handlers.run_due()).expect("run");
        let said = spans.0.lock().join(" ");
        assert_eq!(said, "task_type=\"t\" identifier=\"a\" attempt=1 context=\"00-1-2-01\" enter handler exit");
        let _ = std::fs::remove_dir_all(&folder);
    }
}
