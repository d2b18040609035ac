//! A thread that takes values out of a queue and has an executor handle them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::calls::call;
use super::control::Control;
use crate::error::{Error, Result};
use crate::executor::{Executor, IntoOutput};
use crate::queue::Consumer;
use crate::sync::{Mutex, thread};
use crate::time::Deadline;
use crate::trace::event;

/// Takes values out of a [bounded queue](crate::queue) as fast as it can, and runs a handler for each on an
/// [`Executor`].
///
/// It takes a value only when the handler may run, so what can't be handled yet stays in the queue and fills it. What it
/// has taken is handled, whatever happens: if the executor refuses it, because it is shut down or full, the processor's
/// own thread runs the handler.
///
/// It ends when it is [stopped](Processor::stop) or dropped, or when the queue is closed and nothing is left in it. Then it
/// gives up its consumer, and if that was the last, the queue closes.
///
/// Each value is an operation of its own, which costs microseconds. For values that take less, or go through several stages,
/// see [`Pipeline`](super::Pipeline).
///
/// ```
/// use fulmar::Executor;
/// use fulmar::jobs::Processor;
/// use fulmar::queue::bounded;
/// use std::time::Duration;
///
/// let executor = Executor::builder().threads(2).build()?;
/// let (producer, consumer) = bounded(10)?;
/// let processor = Processor::builder(consumer).executor(&executor).at_once(2).handle(|text: &str| {
///     text.parse::<u64>().map(|number| assert!(number < 100)) // An error, or a panic, is counted.
/// })?;
/// for text in ["1", "two", "300"] {
///     producer.put(text)?;
/// }
/// producer.close();
/// let stats = processor.wait(Duration::from_secs(10))?;
/// assert_eq!((stats.taken, stats.handled, stats.failed, stats.panicked), (3, 1, 1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a processor stops it"]
pub struct Processor {
    id: u64,
    control: Arc<Control<ProcessorStats>>,
}

/// What a processor has done so far: a snapshot, in which `taken = running + handled + failed + panicked`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessorStats {
    /// Values taken out of the queue.
    pub taken: u64,
    /// Values at the handler now, or on their way to it.
    pub running: u64,
    /// Values that the handler handled well.
    pub handled: u64,
    /// Values for which it returned an error.
    pub failed: u64,
    /// Values for which it panicked.
    pub panicked: u64,
}

impl fmt::Display for ProcessorStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProcessorStats { taken, running, handled, failed, panicked } = self;
        write!(f, "{taken} taken = {running} running + {handled} handled + {failed} failed + {panicked} panicked")
    }
}

/// Settings of a [`Processor`].
#[must_use = "a builder does nothing until `handle`"]
pub struct ProcessorBuilder<T> {
    consumer: Consumer<T>,
    executor: Option<Executor>,
    at_once: usize,
    on_failure: Option<OnFailure>,
}

type OnFailure = Box<dyn Fn(&Error) + Send + Sync>;

impl<T: Send + 'static> ProcessorBuilder<T> {
    /// Where the handler runs. Defaults to the global executor. It is kept open as long as the processor's thread lives.
    pub fn executor(mut self, executor: &Executor) -> ProcessorBuilder<T> {
        self.executor = Some(executor.clone());
        self
    }

    /// How many values may be handled at once, at least 1. Defaults to the number of cores, but at least 4. The executor's
    /// threads may be fewer: they win.
    pub fn at_once(mut self, values: usize) -> ProcessorBuilder<T> {
        self.at_once = values;
        self
    }

    /// Gets each failure of the handler, [`Error::Operation`] or [`Error::Panicked`], on the thread that the handler ran
    /// on. A panic in it is reported by the panic hook and changes nothing. By default failures are only counted.
    pub fn on_failure(mut self, look: impl Fn(&Error) + Send + Sync + 'static) -> ProcessorBuilder<T> {
        self.on_failure = Some(Box::new(look));
        self
    }

    /// Starts, and calls `handler` with each value; it returns nothing, or a `Result` without a value. An error or a panic
    /// is counted and reported, and concerns no other value.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none at once, or if `FULMAR_THREADS` makes no sense; [`Error::Spawn`], if the system
    /// refuses a thread.
    pub fn handle<R>(self, handler: impl Fn(T) -> R + Send + Sync + 'static) -> Result<Processor>
    where
        R: IntoOutput<Output = ()>,
    {
        if self.at_once == 0 {
            return Err(Error::Invalid("a processor of 0 values at once handles nothing: use 1 or more".into()));
        }
        let executor = self.executor.unwrap_or_else(|| Executor::global().clone());
        executor.check_settings()?;
        let id = self.consumer.next_number();
        let control = Control::new(self.consumer.nudger());
        let handle = move |value| handler(value).into_output().map_err(Error::Operation);
        let bench = Arc::new(Bench { id, control: control.clone(), handle, on_failure: self.on_failure });
        let (consumer, at_once) = (self.consumer, self.at_once as u64);
        control.start(format!("processor-{id}"), move || run(consumer, executor, at_once, bench))?;
        event!(INFO, "processor created", processor = id, at_once = at_once);
        Ok(Processor { id, control })
    }
}

impl<T> fmt::Debug for ProcessorBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorBuilder")
            .field("consumer", &self.consumer)
            .field("executor", &self.executor)
            .field("at_once", &self.at_once)
            .finish_non_exhaustive()
    }
}

impl Processor {
    /// Settings for a processor of this queue's values.
    pub fn builder<T: Send + 'static>(consumer: Consumer<T>) -> ProcessorBuilder<T> {
        ProcessorBuilder { consumer, executor: None, at_once: thread::cores().max(4), on_failure: None }
    }

    /// Its number: no other processor of the same queue has it. Its thread is named `processor-` and this.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it has done so far.
    pub fn stats(&self) -> ProcessorStats {
        self.control.stats()
    }

    /// Has it take no more values, and returns at once; [`wait`](Processor::wait) waits for the end. What it has taken is
    /// handled to the end, and what is in the queue stays there. On an executor whose queue is full and that has
    /// [`OnFull::Wait`](crate::OnFull::Wait), the end waits for that to be over.
    pub fn stop(&self) {
        self.control.stop();
    }

    /// Waits until it has ended and every value that it took is handled, for at most `timeout`: after a stop, or after the
    /// queue was closed and emptied. Then its closures and its consumer are dropped.
    ///
    /// Not for its own handlers, which would wait for themselves. In another operation the thread lends its place meanwhile.
    ///
    /// # Errors
    /// [`Error::Timeout`]: it goes on; `left` values are being handled, or it is still at the queue.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<ProcessorStats> {
        let deadline = Deadline::start(timeout);
        let ended = self.control.wait_for_end(deadline, |stats| stats.running == 0);
        ended.map_err(|stats| Error::Timeout { limit: deadline.limit(), left: stats.running.max(1) })
    }
}

impl Drop for Processor {
    /// Stops it, and doesn't wait: what it has taken is still handled.
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processor").field("id", &self.id).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The processor's thread.
fn run<T, H>(consumer: Consumer<T>, executor: Executor, at_once: u64, bench: Arc<Bench<H>>)
where
    T: Send + 'static,
    H: Fn(T) -> Result<()> + Send + Sync + 'static,
{
    let control = &bench.control;
    while !control.wait_until(|stats| stats.running < at_once) {
        let Ok(value) = consumer.get_unless(control.stop_flag()) else {
            break;
        };
        control.count(|stats| {
            stats.taken += 1;
            stats.running += 1;
        });
        event!(TRACE, "processor has taken a value", processor = bench.id);
        // In a place of its own, so that it is still there when the executor has dropped what it refused.
        let place = Arc::new(Mutex::new(Some(value)));
        let (workbench, work) = (bench.clone(), place.clone());
        if let Err(_error) = executor.spawn(move || workbench.handle(&work)) {
            event!(DEBUG, "processor handles a value itself", processor = bench.id, refused = _error);
            bench.clone().handle(&place);
        }
    }
    event!(INFO, "processor ended", processor = bench.id, stats = control.stats());
    // Values left behind may be dropped with the last handle to the queue, and their destructors may panic.
    let _ = call(move || drop(consumer));
}

/// Where values are handled, on whichever thread.
struct Bench<H> {
    id: u64,
    control: Arc<Control<ProcessorStats>>,
    handle: H,
    on_failure: Option<OnFailure>,
}

impl<H> Bench<H> {
    /// Counts when all is over, what the handler left behind included: a thread that waits for the counters finds nothing of it.
    fn handle<T>(self: Arc<Self>, place: &Mutex<Option<T>>)
    where
        H: Fn(T) -> Result<()>,
    {
        let value = place.lock().take();
        let Some(value) = value else { return };
        let outcome = call(|| (self.handle)(value)).and_then(|outcome| outcome);
        if let Err(error) = &outcome {
            event!(WARN, "processor's handler failed", processor = self.id, error = error);
            if let Some(look) = &self.on_failure {
                let _ = call(|| look(error));
            }
        }
        let tally: fn(&mut ProcessorStats) -> &mut u64 = match &outcome {
            Ok(()) => |stats| &mut stats.handled,
            Err(Error::Panicked(_)) => |stats| &mut stats.panicked,
            Err(_) => |stats| &mut stats.failed,
        };
        // The error is the user's, and so is the handler. Their destructors may panic.
        let _ = call(move || drop(outcome));
        let control = self.control.clone();
        let _ = call(move || drop(self));
        control.count(|stats| {
            stats.running -= 1;
            *tally(stats) += 1;
        });
    }
}
