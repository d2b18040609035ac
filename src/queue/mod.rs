//! A bounded queue between any number of threads that put values and any number that get them.
//!
//! Promises: values come out in the order in which they went in. A put either accepts its value,
//! which is then handed out exactly once, or returns it in the error. After
//! [`close`](Producer::close) the queue accepts nothing more, but still hands out the values in it.
//! A hand-over wakes one sleeping thread at most. A thread that waits uses no CPU. A wait ends with
//! the cancel, or the time limit, of the operation that it is part of, and loses nothing. `shared`
//! beside this file argues these promises, and `tests/model_queue.rs` tries every order of the
//! steps.
//!
//! Left to `pipeline`: threads that put on a schedule, and threads that have values handled on an
//! executor.
//!
//! # Why not a channel of `crossbeam-channel`
//!
//! It is the better library for passing messages, but its channel ends only when all senders are
//! dropped. A `close` around it that loses no accepted value is expensive. It has to count every
//! put in and out, so that a consumer that finds the queue closed and empty knows that no put is on
//! its way. And every wait becomes a `select` over two channels. Measured, that took 1.8 to 2.7
//! times the time of the bare channel. So this module takes the ring of `concurrent-queue`, which
//! can be closed, and adds the sleeping in safe code that a model checker can run.
//! `cargo bench --bench queue` compares them.

mod error;
mod line;
mod patience;
mod shared;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

pub use error::{GetError, GetTimeoutError, PutError, PutTimeoutError, TryGetError, TryPutError};

pub(crate) use shared::{GetRefusal, Nudge, PutRefusal};

use crate::error::Result;
use crate::sync::{AtomicBool, Ordering};
use crate::time::Deadline;
use shared::Shared;

/// Makes a queue that holds at most `capacity` values, and returns its two halves.
///
/// Both halves can be cloned, so that many threads put and many get. The queue closes when a thread
/// calls `close`, or when the last clone of either half is dropped. So no thread waits for a value
/// that can't come, or for room that no consumer can make.
///
/// The memory for all `capacity` values, and a word for each, is allocated here, so that a put
/// allocates nothing.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) if `capacity` is 0, or if there is no memory for it.
/// For a queue of capacity 0, in which a put waits until a consumer takes its value, use
/// `crossbeam-channel`.
/// # Examples
/// ```
/// use fulmar::queue::bounded;
/// use std::thread;
///
/// let (producer, consumer) = bounded(10)?;
/// let worker = thread::spawn(move || consumer.iter().sum::<u64>());
/// for value in 1..=100 {
///     producer.put(value)?; // Waits while the queue is full.
/// }
/// drop(producer); // Or `producer.close()`: what is left is still handed out.
/// assert_eq!(worker.join().expect("no panic"), 5050);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn bounded<T>(capacity: usize) -> Result<(Producer<T>, Consumer<T>)> {
    let shared = Arc::new(Shared::new(capacity)?);
    let half = || Arc::new(Half { shared: shared.clone() });
    Ok((Producer { half: half() }, Consumer { half: half() }))
}

/// Shared by all clones of one half: dropped with the last of them, it closes the queue.
struct Half<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Drop for Half<T> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The half of a [`bounded`] queue that puts values in. Cloning it is cheap and gives a handle to
/// the same queue.
///
/// Dropping the last clone closes the queue; what is in it can still be taken out.
pub struct Producer<T> {
    half: Arc<Half<T>>,
}

/// The half of a [`bounded`] queue that gets values out. Cloning it is cheap and gives a handle to
/// the same queue.
///
/// Dropping the last clone closes the queue. The values in it stay there until a producer takes
/// them ([`Producer::drain`]), or until the last producer is dropped.
pub struct Consumer<T> {
    half: Arc<Half<T>>,
}

impl<T> Producer<T> {
    /// Puts `value` in. While there is no room, the calling thread waits.
    ///
    /// # Memory consistency
    /// What the caller did before happens-before the return of the get that hands the value out.
    /// What a consumer did before the get that made the room happens-before the return from here.
    /// # Errors
    /// [`PutError`] with the value, if the queue was closed before the call, or while it waited, or
    /// if there is no room and the operation that puts is cancelled.
    /// # Examples
    /// ```
    /// let (producer, consumer) = fulmar::queue::bounded(1)?;
    /// producer.put("one")?;
    /// producer.close();
    /// assert_eq!(producer.put("two").map_err(|refused| refused.into_inner()), Err("two"));
    /// assert_eq!(consumer.get(), Ok("one"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.shared().put(value, Deadline::start(None), None).map_err(|refused| match refused {
            (PutRefusal::Interrupted, value) => PutError::Interrupted(value),
            (_, value) => PutError::Closed(value),
        })
    }

    /// Puts `value` in if there is room now.
    ///
    /// # Errors
    /// [`TryPutError`] with the value, if the queue is full or closed.
    /// # Examples
    /// ```
    /// use fulmar::queue::{TryPutError, bounded};
    ///
    /// let (producer, _consumer) = bounded(1)?;
    /// assert_eq!(producer.try_put(1), Ok(()));
    /// assert_eq!(producer.try_put(2), Err(TryPutError::Full(2)));
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn try_put(&self, value: T) -> Result<(), TryPutError<T>> {
        self.shared().put(value, Deadline::start(Duration::ZERO), None).map_err(|refused| match refused {
            (PutRefusal::Closed, value) => TryPutError::Closed(value),
            (_, value) => TryPutError::Full(value),
        })
    }

    /// Puts `value` in, and waits for room for at most `timeout`.
    ///
    /// # Timing
    /// Monotonic clock, counted from this call. `None` is no limit, zero tries once, and a sum past
    /// the clock's range is no limit. When time has run out, it tries once more.
    /// # Errors
    /// [`PutTimeoutError`] with the value, if there was no room in time, if the queue was closed
    /// before the call or while it waited, or if there is no room and the operation that puts is
    /// cancelled.
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let (producer, _consumer) = fulmar::queue::bounded(1)?;
    /// producer.put_timeout("one", None)?;
    /// let refused = producer.put_timeout("two", Duration::from_millis(5)).unwrap_err();
    /// assert!(refused.is_timeout());
    /// assert_eq!(refused.into_inner(), "two");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_timeout(&self, value: T, timeout: impl Into<Option<Duration>>) -> Result<(), PutTimeoutError<T>> {
        self.shared().put(value, Deadline::start(timeout), None).map_err(|refused| match refused {
            (PutRefusal::Closed, value) => PutTimeoutError::Closed(value),
            (PutRefusal::Interrupted, value) => PutTimeoutError::Interrupted(value),
            (_, value) => PutTimeoutError::Timeout(value),
        })
    }

    /// A receiver for `crossbeam_channel::select!`: it has a message while there may be room, and
    /// disconnects when the queue is closed.
    ///
    /// After a message, call [`try_put`](Producer::try_put) once: it returns `Full` if another
    /// thread was faster. If there is still room after a put, another message comes. Keep the
    /// receiver for as long as you select: dropping it ends the watch.
    ///
    /// A watch needs no thread, but while there is one, every put and get takes a lock.
    pub fn ready(&self) -> Receiver<()> {
        self.shared().watch_room()
    }

    /// As `put`, but gives up at `deadline`, or when [`Nudge::nudge`] is called after `stop` was
    /// set.
    pub(crate) fn put_unless(&self, stop: &AtomicBool, value: T, deadline: Deadline) -> Result<(), (PutRefusal, T)> {
        self.shared().put(value, deadline, Some(stop))
    }

    /// A number that no other submitter of this queue has.
    pub(crate) fn next_number(&self) -> u64 {
        // Relaxed: all it has to be is unique.
        self.shared().submitters.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value. While there is none, the calling thread waits.
    ///
    /// # Memory consistency
    /// What the producer did before it put the value happens-before the return from here.
    /// # Errors
    /// [`GetError::Closed`] if the queue is closed and nothing is left in it, before the call or
    /// while it waits. [`GetError::Interrupted`] if there is no value and the operation that gets
    /// is cancelled.
    /// # Examples
    /// ```
    /// use fulmar::queue::{GetError, bounded};
    ///
    /// let (producer, consumer) = bounded(10)?;
    /// producer.put(1)?;
    /// producer.close();
    /// assert_eq!(consumer.get(), Ok(1));
    /// assert_eq!(consumer.get(), Err(GetError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self) -> Result<T, GetError> {
        self.shared().get(Deadline::start(None), None).map_err(|refused| match refused {
            GetRefusal::Interrupted => GetError::Interrupted,
            _ => GetError::Closed,
        })
    }

    /// Takes the oldest value if there is one now.
    ///
    /// # Errors
    /// [`TryGetError::Empty`] if there is no value now; [`TryGetError::Closed`] if there never will
    /// be one.
    /// # Examples
    /// ```
    /// use fulmar::queue::{TryGetError, bounded};
    ///
    /// let (producer, consumer) = bounded::<u64>(10)?;
    /// assert_eq!(consumer.try_get(), Err(TryGetError::Empty));
    /// producer.close();
    /// assert_eq!(consumer.try_get(), Err(TryGetError::Closed));
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn try_get(&self) -> Result<T, TryGetError> {
        self.shared().get(Deadline::start(Duration::ZERO), None).map_err(|refused| match refused {
            GetRefusal::Closed => TryGetError::Closed,
            _ => TryGetError::Empty,
        })
    }

    /// Takes the oldest value, and waits for one for at most `timeout`.
    ///
    /// # Timing
    /// Monotonic clock, counted from this call. `None` is no limit, zero tries once, and a sum past
    /// the clock's range is no limit. When time has run out, it tries once more.
    /// # Errors
    /// [`GetTimeoutError::Timeout`] if no value came in time; [`GetTimeoutError::Closed`] if none
    /// will ever come; [`GetTimeoutError::Interrupted`] if there is none and the operation that
    /// gets is cancelled.
    /// # Examples
    /// ```
    /// use fulmar::queue::{GetTimeoutError, bounded};
    /// use std::time::Duration;
    ///
    /// let (producer, consumer) = bounded(10)?;
    /// producer.put("value")?;
    /// assert_eq!(consumer.get_timeout(Duration::from_secs(10)), Ok("value"));
    /// assert_eq!(consumer.get_timeout(Duration::ZERO), Err(GetTimeoutError::Timeout));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_timeout(&self, timeout: impl Into<Option<Duration>>) -> Result<T, GetTimeoutError> {
        self.shared().get(Deadline::start(timeout), None).map_err(|refused| match refused {
            GetRefusal::Closed => GetTimeoutError::Closed,
            GetRefusal::Interrupted => GetTimeoutError::Interrupted,
            _ => GetTimeoutError::Timeout,
        })
    }

    /// Takes value after value, waiting for each, until the queue is closed and nothing is left in
    /// it. In an operation that is cancelled it ends where it would have to wait; ask
    /// [`is_cancelled`](crate::is_cancelled) behind the loop.
    ///
    /// ```
    /// let (producer, consumer) = fulmar::queue::bounded(10)?;
    /// (1..=3).try_for_each(|value| producer.put(value))?;
    /// drop(producer);
    /// assert_eq!(consumer.iter().collect::<Vec<_>>(), [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.get().ok())
    }

    /// A receiver for `crossbeam_channel::select!`: it has a message while there may be a value,
    /// and disconnects when the queue is closed, although values may be left in it.
    ///
    /// After a message, call [`try_get`](Consumer::try_get) once: it returns `Empty` if another
    /// thread was faster. If there are more values after a get, another message comes. Keep the
    /// receiver for as long as you select: dropping it ends the watch.
    ///
    /// A watch needs no thread, but while there is one, every put and get takes a lock.
    ///
    /// ```
    /// use fulmar::crossbeam_channel::{never, select};
    ///
    /// let (producer, consumer) = fulmar::queue::bounded(10)?;
    /// let worker = std::thread::spawn(move || (1..=100).try_for_each(|value| producer.put(value)).is_ok());
    /// let (ready, stop) = (consumer.ready(), never::<()>());
    /// let mut sum = 0;
    /// loop {
    ///     select! {
    ///         recv(ready) -> closed => match consumer.try_get() {
    ///             Ok(value) => sum += value,
    ///             Err(_) if closed.is_err() => break,
    ///             Err(_) => {}
    ///         },
    ///         recv(stop) -> _ => break,
    ///     }
    /// }
    /// assert_eq!((sum, worker.join().expect("no panic")), (5050, true));
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn ready(&self) -> Receiver<()> {
        self.shared().watch_values()
    }

    /// As `get`, but gives up when [`Nudge::nudge`] is called after `stop` was set.
    pub(crate) fn get_unless(&self, stop: &AtomicBool) -> Result<T, GetRefusal> {
        self.shared().get(Deadline::start(None), Some(stop))
    }

    /// A number that no other processor of this queue has.
    pub(crate) fn next_number(&self) -> u64 {
        // Relaxed: all it has to be is unique.
        self.shared().processors.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// `for value in consumer`: takes each value as it comes, until the queue is closed and nothing is
/// left in it.
///
/// ```
/// let (producer, consumer) = fulmar::queue::bounded(10)?;
/// producer.put(7)?;
/// producer.close();
/// for value in consumer {
///     assert_eq!(value, 7);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<T> IntoIterator for Consumer<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { consumer: self }
    }
}

/// Takes the values of a queue, one by one, and owns the consumer: see [`Consumer`]'s `into_iter`.
#[derive(Debug)]
pub struct IntoIter<T> {
    consumer: Consumer<T>,
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    /// Waits for the next value.
    fn next(&mut self) -> Option<T> {
        self.consumer.get().ok()
    }
}

/// The methods that both halves have.
macro_rules! both {
    ($half:ident, $made:expr) => {
        impl<T> $half<T> {
            fn shared(&self) -> &Shared<T> {
                &self.half.shared
            }

            /// How many values are in the queue: a snapshot, which may be out of date when you read
            /// it.
            ///
            /// ```
            #[doc = $made]
            /// producer.put('a')?;
            /// assert_eq!((producer.len(), consumer.len(), consumer.is_empty()), (1, 1, false));
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            #[doc(alias = "qsize")]
            pub fn len(&self) -> usize {
                self.shared().len()
            }

            /// Whether no value is in the queue: a snapshot.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// How many values the queue holds at most.
            #[doc(alias = "maxsize")]
            pub fn capacity(&self) -> usize {
                self.shared().capacity()
            }

            /// Closes the queue for good: from now on it accepts no value, but still hands out
            /// those in it.
            ///
            /// All waiting threads wake up. A producer gets its value back. A consumer gets an
            /// error once nothing is left. Closing again changes nothing.
            ///
            /// A put on another thread comes either before the close or after it: when this
            /// returns, its value is in the queue, or goes back to that thread.
            ///
            /// ```
            #[doc = $made]
            /// producer.put('a')?;
            /// consumer.close();
            /// assert!(producer.try_put('b').is_err());
            /// assert_eq!((consumer.get(), consumer.get().is_err()), (Ok('a'), true));
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn close(&self) {
                self.shared().close();
            }

            /// Whether the queue is closed. Values may be left in it.
            pub fn is_closed(&self) -> bool {
                self.shared().is_closed()
            }

            /// Takes out all values that are in the queue now, the oldest first, without waiting.
            /// Producers that wait for room go on. If the queue is closed, these are all the values
            /// that there will ever be.
            ///
            /// ```
            #[doc = $made]
            /// "ab".chars().try_for_each(|letter| producer.put(letter))?;
            /// assert_eq!(consumer.drain(), ['a', 'b']);
            /// assert_eq!(consumer.len(), 0);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn drain(&self) -> Vec<T> {
                self.shared().drain()
            }
        }

        impl<T: Send + 'static> $half<T> {
            /// A handle that wakes all threads waiting for this queue. It doesn't keep the queue
            /// open.
            pub(crate) fn nudger(&self) -> Arc<dyn Nudge> {
                self.half.shared.clone()
            }
        }

        impl<T> Clone for $half<T> {
            fn clone(&self) -> $half<T> {
                $half { half: self.half.clone() }
            }
        }

        impl<T> fmt::Debug for $half<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($half))
                    .field("len", &self.len())
                    .field("capacity", &self.capacity())
                    .field("closed", &self.is_closed())
                    .finish()
            }
        }
    };
}

both!(Producer, "let (producer, consumer) = fulmar::queue::bounded(10)?;");
both!(Consumer, "let (producer, consumer) = fulmar::queue::bounded(10)?;");
