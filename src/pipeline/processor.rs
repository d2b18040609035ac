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

/// Takes values out of a [bounded queue](crate::queue) as fast as it can, and runs a handler for
/// each on an
/// [`Executor`].
///
/// It takes a value only when the handler may run. So values that can't be handled yet stay in the
/// queue, and a full queue slows the producers down. Each value that it has taken is handled: if
/// the executor refuses it, because it is shut down or full, the processor's own thread runs the
/// handler.
///
/// It ends when it is [stopped](Processor::stop) or dropped, or when the queue is closed and
/// nothing is left in it. Then it drops its consumer, and if that was the last one, the queue
/// closes.
///
/// Each value is an operation of its own, which costs microseconds. If handling a value takes less
/// than that, or if values go through several stages, use a [`Pipeline`](super::Pipeline).
///
/// ```
/// use fulmar::Executor;
/// use fulmar::pipeline::Processor;
/// use fulmar::queue::bounded;
/// use std::time::Duration;
///
/// let executor = Executor::builder().threads(2).build()?;
/// let (producer, consumer) = bounded(10)?;
/// let processor = Processor::builder(consumer).executor(&executor).max_concurrent(2);
/// let processor = processor.handle(|text: &str| {
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

/// What a processor has done so far: a snapshot, in which
/// `taken = running + handled + failed + panicked`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessorStats {
    /// Values taken out of the queue.
    pub taken: u64,
    /// Values that are being handled now, or wait for a thread of the executor.
    pub running: u64,
    /// Values that the handler handled without an error.
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
    max_concurrent: usize,
    on_failure: Option<OnFailure>,
}

type OnFailure = Box<dyn Fn(&Error) + Send + Sync>;

impl<T: Send + 'static> ProcessorBuilder<T> {
    /// The executor on which the handler runs. Defaults to the global one. The processor keeps a
    /// handle to it until its thread ends.
    pub fn executor(mut self, executor: &Executor) -> ProcessorBuilder<T> {
        self.executor = Some(executor.clone());
        self
    }

    /// How many values may be handled at once, at least 1. Defaults to the number of cores, but at
    /// least 4. If the executor has fewer threads, these are the limit.
    pub fn max_concurrent(mut self, values: usize) -> ProcessorBuilder<T> {
        self.max_concurrent = values;
        self
    }

    /// Calls `look` with each failure of the handler, [`Error::Operation`] or [`Error::Panicked`],
    /// on the thread on which the handler ran. If `look` panics, the panic hook reports it, and
    /// nothing else changes. By default failures are only counted.
    pub fn on_failure(mut self, look: impl Fn(&Error) + Send + Sync + 'static) -> ProcessorBuilder<T> {
        self.on_failure = Some(Box::new(look));
        self
    }

    /// Starts the processor, which calls `handler` with each value. `handler` returns nothing, or a
    /// `Result` without a value. An error or a panic is counted and given to
    /// [`on_failure`](ProcessorBuilder::on_failure); other values are handled all the same.
    ///
    /// # Errors
    /// [`Error::Invalid`] if [`max_concurrent`](ProcessorBuilder::max_concurrent) is 0, or if
    /// `FULMAR_THREADS` is invalid. [`Error::Spawn`] if the system refuses a thread.
    pub fn handle<R>(self, handler: impl Fn(T) -> R + Send + Sync + 'static) -> Result<Processor>
    where
        R: IntoOutput<Output = ()>,
    {
        if self.max_concurrent == 0 {
            return Err(Error::Invalid("a processor of 0 values at once handles nothing: use 1 or more".into()));
        }
        let executor = self.executor.unwrap_or_else(|| Executor::global().clone());
        executor.check_settings()?;
        let id = self.consumer.next_number();
        let control = Control::new(self.consumer.nudger());
        let handle = move |value| handler(value).into_output().map_err(Error::Operation);
        let handling = Arc::new(Handling { id, control: control.clone(), handle, on_failure: self.on_failure });
        let (consumer, max_concurrent) = (self.consumer, self.max_concurrent as u64);
        control.start(format!("processor-{id}"), move || run(consumer, executor, max_concurrent, handling))?;
        event!(INFO, "processor created", processor = id, max_concurrent = max_concurrent);
        Ok(Processor { id, control })
    }
}

impl<T> fmt::Debug for ProcessorBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorBuilder")
            .field("consumer", &self.consumer)
            .field("executor", &self.executor)
            .field("max_concurrent", &self.max_concurrent)
            .finish_non_exhaustive()
    }
}

impl Processor {
    /// Settings for a processor of this queue's values.
    pub fn builder<T: Send + 'static>(consumer: Consumer<T>) -> ProcessorBuilder<T> {
        ProcessorBuilder { consumer, executor: None, max_concurrent: thread::cores().max(4), on_failure: None }
    }

    /// Its number, which no other processor of the same queue has. Its thread is named `processor-`
    /// followed by it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it has done so far.
    pub fn stats(&self) -> ProcessorStats {
        self.control.stats()
    }

    /// Tells the processor to take no more values, and returns at once; [`wait`](Processor::wait)
    /// waits for its end. The values that it has taken are still handled, and those in the queue
    /// stay there. If its thread is just waiting for a full executor
    /// ([`OnFull::Wait`](crate::OnFull::Wait)), it ends after that wait.
    pub fn stop(&self) {
        self.control.stop();
    }

    /// Waits until the processor has ended and every value that it took is handled, for at most
    /// `timeout`. It ends after a stop, or when the queue is closed and empty. When this returns
    /// `Ok`, its closures and its consumer are dropped.
    ///
    /// Don't call it in its own handler, which would wait for itself. If another operation calls
    /// it, another thread works in its place meanwhile.
    ///
    /// # Errors
    /// [`Error::Timeout`] if `timeout` passes first: the processor goes on. `left` is the number of
    /// values that are being handled, or 1 if only its thread is still there.
    /// [`Error::Interrupted`] if the operation that waits here is cancelled: it goes on as well.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<ProcessorStats> {
        let deadline = Deadline::start(timeout);
        self.control.wait_for_end(deadline, |stats| stats.running == 0, |stats| stats.running.max(1))
    }
}

impl Drop for Processor {
    /// Stops the processor without waiting for its end: the values that it has taken are still
    /// handled.
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processor").field("id", &self.id).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The processor's thread: takes a value whenever fewer than `max_concurrent` are being handled,
/// and hands it to the executor.
fn run<T, H>(consumer: Consumer<T>, executor: Executor, max_concurrent: u64, handling: Arc<Handling<H>>)
where
    T: Send + 'static,
    H: Fn(T) -> Result<()> + Send + Sync + 'static,
{
    let control = &handling.control;
    while !control.wait_until(|stats| stats.running < max_concurrent) {
        let Ok(value) = consumer.get_unless(control.stop_flag()) else {
            // Stopped, or the queue is closed and empty.
            break;
        };
        control.count(|stats| {
            stats.taken += 1;
            stats.running += 1;
        });
        event!(TRACE, "processor has taken a value", processor = handling.id);
        // Share the value with the closure: if the executor refuses the closure, it drops it, but
        // this thread still has the value and handles it.
        let place = Arc::new(Mutex::new(Some(value)));
        let (workbench, work) = (handling.clone(), place.clone());
        if let Err(_error) = executor.spawn_kept(move || workbench.handle(&work)) {
            event!(DEBUG, "processor handles a value itself", processor = handling.id, refused = _error);
            handling.clone().handle(&place);
        }
    }
    event!(INFO, "processor ended", processor = handling.id, stats = control.stats());
    // If this was the last handle to the queue, the values in it are dropped here, and their
    // destructors may panic.
    let _ = call(move || drop(consumer));
}

/// What a thread needs to handle a value. Shared by the processor's thread and those of the
/// executor.
struct Handling<H> {
    id: u64,
    control: Arc<Control<ProcessorStats>>,
    handle: H,
    on_failure: Option<OnFailure>,
}

impl<H> Handling<H> {
    /// Handles the value in `place`, and counts the outcome only after it has dropped the error and
    /// its handle to the handler, so that a thread that has waited for the counters finds them
    /// dropped.
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
        // The error and the handler are the user's, and their destructors may panic.
        let _ = call(move || drop(outcome));
        let control = self.control.clone();
        let _ = call(move || drop(self));
        control.count(|stats| {
            stats.running -= 1;
            *tally(stats) += 1;
        });
    }
}
