//! Pipelines: stages one behind the other, with a bounded queue between each and the next.

use std::any::Any;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use super::calls::call;
use super::failure::Failure;
use crate::error::{Error, Result};
use crate::executor::IntoOutput;
use crate::queue::{Consumer, GetError, Producer, bounded};
use crate::sync::thread;

/// What goes from stage to stage: a value, or the failure of an earlier one.
type Item<T> = std::result::Result<T, Failure>;

/// Runs every value of an iterator through stages, each on threads of its own, and yields the
/// results of the last stage.
///
/// Between two stages is a [bounded queue](crate::queue): a slow stage slows those before it down,
/// and none runs further ahead than the queues hold. So the iterator may be endless.
///
/// The pipeline is an iterator over `Result<T, Failure>`. A value that a stage can't handle comes
/// out as a [`Failure`], with the value in it, and the other values go on.
/// `collect::<Result<Vec<_>, _>>()` and `?` stop at the first failure. Values come in the order in
/// which they are finished; if each stage has one thread, that is the order of the iterator.
///
/// Dropping the pipeline stops it: each thread of a stage ends after the value at hand, the
/// source's thread after the value that it waits for, and the other values are dropped. The drop
/// doesn't wait for the threads. When the iterator has returned `None`, all threads have ended.
///
/// ```
/// use fulmar::pipeline::Pipeline;
///
/// let words = ["1", "2", "three", "4"];
/// let pipeline = Pipeline::builder(words)
///     .stage("parse", 2, |word| word.parse::<u64>()) // A stage that may fail borrows the value.
///     .map("square", 1, |number| number * number) // One that can't fail takes it.
///     .start()?;
///
/// let (mut squares, mut refused) = (Vec::new(), Vec::new());
/// for outcome in pipeline {
///     match outcome {
///         Ok(square) => squares.push(square),
///         Err(failure) => refused.extend(failure.take_value::<&str>()),
///     }
/// }
/// squares.sort();
/// assert_eq!((squares, refused), (vec![1, 4, 16], vec!["three"]));
/// # Ok::<(), fulmar::Error>(())
/// ```
///
/// To stop at the first failure is one call:
///
/// ```
/// # use fulmar::pipeline::Pipeline;
/// let pipeline = Pipeline::builder(["1", "two", "3"]).stage("parse", 2, |word| word.parse::<u64>()).start()?;
/// let failure = pipeline.collect::<Result<Vec<u64>, _>>().unwrap_err();
/// assert_eq!((failure.stage(), failure.take_value()), ("parse", Some("two")));
/// # Ok::<(), fulmar::Error>(())
/// ```
#[must_use = "dropping a pipeline stops it"]
pub struct Pipeline<T> {
    output: Consumer<Item<T>>,
    threads: Vec<thread::JoinHandle<()>>,
    closers: Vec<Closer>,
    /// Whether the last thing that came out told of a cancel.
    is_interrupted: bool,
}

/// Closes one of the queues, each of which has another type.
type Closer = Box<dyn FnOnce() + Send>;

/// The stages of a [`Pipeline`], which [`start`](PipelineBuilder::start) starts.
#[must_use = "a builder does nothing until `start`"]
pub struct PipelineBuilder<T> {
    buffer: usize,
    plan: Plan<T>,
}

/// Makes the queues from the source up to one stage, adds their threads to the layout, and returns
/// the last queue. It runs in `start`, so that a builder that is dropped has made nothing.
type Plan<T> = Box<dyn FnOnce(&mut Layout) -> Result<Consumer<Item<T>>>>;

type Halves<T> = (Producer<Item<T>>, Consumer<Item<T>>);

#[derive(Default)]
struct Layout {
    workers: Vec<Worker>,
    closers: Vec<Closer>,
}

impl Layout {
    fn queue<T: Send + 'static>(&mut self, capacity: usize) -> Result<Halves<T>> {
        let (producer, consumer) = bounded(capacity)?;
        let closer = consumer.clone();
        self.closers.push(Box::new(move || closer.close()));
        Ok((producer, consumer))
    }
}

/// A thread that `start` will start.
struct Worker {
    name: String,
    body: Box<dyn FnOnce() + Send>,
}

/// The default capacity of each queue: see [`PipelineBuilder::buffer`].
const BUFFER: usize = 64;

impl Pipeline<()> {
    /// Begins a pipeline whose source is `items`: an iterator, or a [`Consumer`] of a queue. A
    /// thread named `source` takes value after value from it. If the iterator panics, a [`Failure`]
    /// of the stage `source` comes out, and then the pipeline ends.
    pub fn builder<I>(items: I) -> PipelineBuilder<I::Item>
    where
        I: IntoIterator<IntoIter: Send + 'static, Item: Send + 'static> + 'static,
    {
        let items = items.into_iter();
        let plan = move |layout: &mut Layout| {
            // Always the default: `buffer` is for the queues behind the stages.
            let (producer, consumer) = layout.queue(BUFFER)?;
            let body = Box::new(move || pump(items, producer));
            layout.workers.push(Worker { name: "source".to_owned(), body });
            Ok(consumer)
        };
        PipelineBuilder { buffer: BUFFER, plan: Box::new(plan) }
    }
}

impl<T: Send + 'static> PipelineBuilder<T> {
    /// How many values the queue behind each of the following stages holds, at least 1. Defaults to
    /// 64. The pipeline holds at most the values in its queues, and one for each thread.
    pub fn buffer(mut self, values: usize) -> PipelineBuilder<T> {
        self.buffer = values;
        self
    }

    /// Adds a stage that may fail: `threads` threads, named `name-1` and so on, call `handler` with
    /// each value. If it returns an error or panics, the value comes out at the end as a
    /// [`Failure`]; the following stages don't see it.
    pub fn stage<R>(
        self,
        name: &str,
        threads: usize,
        handler: impl Fn(&T) -> R + Send + Sync + 'static,
    ) -> PipelineBuilder<R::Output>
    where
        R: IntoOutput<Output: Send + 'static>,
    {
        self.then(name, threads, move |stage, value| {
            let outcome = call(|| handler(&value).into_output().map_err(Error::Operation));
            match outcome.and_then(|outcome| outcome) {
                Ok(made) => {
                    // The handler only borrowed the value. It is the user's, and its destructor may
                    // panic.
                    let _ = call(move || drop(value));
                    Ok(made)
                }
                Err(error) => Err(Failure::new(stage, error, Some(Box::new(value) as Box<dyn Any + Send>))),
            }
        })
    }

    /// Adds a stage that can't fail: `threads` threads, named `name-1` and so on, turn each value
    /// into another. If `handler` panics, the value is lost, and a [`Failure`] without it comes out
    /// at the end.
    pub fn map<U: Send + 'static>(
        self,
        name: &str,
        threads: usize,
        handler: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> PipelineBuilder<U> {
        self.then(name, threads, move |stage, value| {
            call(|| handler(value)).map_err(|error| Failure::new(stage, error, None))
        })
    }

    /// Adds a stage whose threads call `handle` with the stage's name and each value. Settings are
    /// checked in `start`, where an error can be returned.
    fn then<U: Send + 'static>(
        self,
        name: &str,
        threads: usize,
        handle: impl Fn(&Arc<str>, T) -> Item<U> + Send + Sync + 'static,
    ) -> PipelineBuilder<U> {
        let PipelineBuilder { buffer, plan } = self;
        let stage: Arc<str> = name.into();
        let plan = move |layout: &mut Layout| {
            if threads == 0 {
                return Err(Error::Invalid(format!("a stage of 0 threads handles nothing: give `{stage}` 1 or more")));
            }
            if stage.contains('\0') {
                return Err(Error::Invalid(format!(
                    "{stage:?} can't be a stage's name: its threads are named after it"
                )));
            }
            let input = plan(layout)?;
            let (producer, output) = layout.queue(buffer)?;
            let handle = Arc::new(handle);
            for number in 1..=threads {
                let (input, producer, handle, stage) = (input.clone(), producer.clone(), handle.clone(), stage.clone());
                let name = format!("{stage}-{number}");
                let body = Box::new(move || work(input, producer, |value| handle(&stage, value)));
                layout.workers.push(Worker { name, body });
            }
            Ok(output)
        };
        PipelineBuilder { buffer, plan: Box::new(plan) }
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a stage has no threads, if a stage's name contains a NUL character, if
    /// a buffer is 0, or if there is no memory for it. [`Error::Spawn`] if the system refuses a
    /// thread; then nothing was taken from the source.
    pub fn start(self) -> Result<Pipeline<T>> {
        let mut layout = Layout::default();
        let output = (self.plan)(&mut layout)?;
        // Start the source last: if the system refuses a thread, nothing was taken from the source.
        let start = |Worker { name, body }| thread::spawn_joinable(name, None, body, || ()).map_err(Error::Spawn);
        // If a thread is refused, dropping this ends the threads that have started.
        let mut pipeline = Pipeline { output, threads: Vec::new(), closers: layout.closers, is_interrupted: false };
        for worker in layout.workers.into_iter().rev() {
            pipeline.threads.push(start(worker)?);
        }
        Ok(pipeline)
    }
}

/// The source's thread: puts the iterator's values into the first queue until one of the two ends.
/// A panic of the iterator is its last item.
fn pump<T: Send + 'static>(mut items: impl Iterator<Item = T>, producer: Producer<Item<T>>) {
    loop {
        let item = match call(|| items.next()) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => break,
            Err(error) => Err(Failure::new(&"source".into(), error, None)),
        };
        let is_last = item.is_err();
        if let Err(refused) = producer.put(item) {
            let _ = call(move || drop(refused));
            break;
        }
        if is_last {
            break;
        }
    }
    let _ = call(move || drop((items, producer)));
}

/// A stage's thread: handles values until its input has ended, or until its output is closed. The
/// last thread of a stage closes the output by dropping its producer.
fn work<T, U>(input: Consumer<Item<T>>, output: Producer<Item<U>>, handle: impl Fn(T) -> Item<U>) {
    while let Ok(item) = input.get() {
        // A failure of an earlier stage is passed on, and not handled.
        if let Err(refused) = output.put(item.and_then(&handle)) {
            let _ = call(move || drop(refused));
            break;
        }
    }
    // The last thread of a stage drops the values left in its input, and the handler. Their
    // destructors may panic.
    let _ = call(move || drop((input, output, handle)));
}

impl<T> Iterator for Pipeline<T> {
    type Item = std::result::Result<T, Failure>;

    /// Waits for the next value that comes out. `None`: the source has ended, every value of it has
    /// come out, and all threads have ended. In an operation that is cancelled, a [`Failure`] with
    /// [`Error::Interrupted`], of the stage `output`, comes instead of a wait, and the pipeline can
    /// be read on elsewhere, or in a [`shield`](crate::shield); a second wait of that operation
    /// ends the pipeline as dropping it does.
    fn next(&mut self) -> Option<Self::Item> {
        let item = match self.output.get() {
            Ok(item) => Some(item),
            Err(GetError::Interrupted) if !self.is_interrupted => {
                self.is_interrupted = true;
                return Some(Err(Failure::new(&"output".into(), Error::Interrupted, None)));
            }
            // A loop that passes over failures would go round and never wait, as long as the source
            // lasts.
            Err(GetError::Interrupted) => {
                self.close();
                self.threads.clear();
                None
            }
            Err(GetError::Closed) => None,
        };
        self.is_interrupted = false;
        if item.is_none() {
            for thread in self.threads.drain(..) {
                // Never an error: the thread has contained all panics.
                let _ = thread.join();
            }
        }
        item
    }
}

impl<T> FusedIterator for Pipeline<T> {}

impl<T> Pipeline<T> {
    /// Closes every queue, not only the last: otherwise the threads of the stages would wait until
    /// the source gives its next value, and a source may wait for something outside.
    fn close(&mut self) {
        // Values left in a queue may be dropped here, and their destructors may panic.
        for close in self.closers.drain(..) {
            let _ = call(close);
        }
    }
}

impl<T> Drop for Pipeline<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> fmt::Debug for PipelineBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder").field("buffer", &self.buffer).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Pipeline<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("output", &self.output).finish_non_exhaustive()
    }
}
