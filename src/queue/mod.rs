//! A queue with a limit, between any number of threads that put and any number that get.
//!
//! Promises: values come out in the order in which they went in; a value is either taken in, and then handed out exactly
//! once, or comes back in the error; after [`close`](Producer::close) nothing more is taken in, and what is left is still
//! handed out; a hand-over wakes one thread, and only one that sleeps; a thread that waits uses no CPU. `shared` beside
//! this file argues them, and `tests/model_queue.rs` tries every order of the steps.
//!
//! Left to others: what puts on a cadence, and what has values handled on an executor (`jobs`).
//!
//! # Why not a channel of `crossbeam-channel`
//!
//! It is the better library for passing messages, but its channel ends only when all senders are gone, and a `close` that
//! loses no accepted value can't be had cheaply from outside: every put has to be counted in and out, so that a consumer
//! that finds the queue closed and empty knows that no put is on its way, and every wait becomes a `select` over two
//! channels. Measured, that took 1.8 to 2.7 times the time of the bare channel. So this takes a ring that can be closed,
//! `concurrent-queue`'s, and puts the sleeping around it, in safe code that a model checker can run.
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

/// A queue that holds at most `capacity` values, as its two halves.
///
/// Both halves can be cloned, so that many threads put and many get. The queue closes when someone says so, or when the
/// last clone of either half is dropped: no thread waits for values that can't come, or for room that none makes.
///
/// Memory for all `capacity` values, and a word for each, is taken at once, so that a put never has to.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for a capacity that there is no memory for, and for one of 0. A queue that
/// holds nothing would be a meeting point, in which no value is ever accepted before it is taken; that is another tool, and
/// for it there is `crossbeam-channel`.
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

/// One half's share of the queue: closes it when the last clone of the half goes.
struct Half<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Drop for Half<T> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The half of a [`bounded`] queue that takes values in. Cloning it is cheap and gives a handle to the same queue.
///
/// Dropping the last clone closes the queue; what is in it can still be taken out.
pub struct Producer<T> {
    half: Arc<Half<T>>,
}

/// The half of a [`bounded`] queue that hands values out. Cloning it is cheap and gives a handle to the same queue.
///
/// Dropping the last clone closes the queue; what is in it stays there until the last producer takes it
/// ([`Producer::drain`]) or is dropped.
pub struct Consumer<T> {
    half: Arc<Half<T>>,
}

impl<T> Producer<T> {
    /// Puts `value` in, and waits as long as there is no room.
    ///
    /// # Memory consistency
    /// What the caller did before happens-before the return of the get that hands the value out. What a consumer did
    /// before the get that made the room happens-before the return from here.
    /// # Errors
    /// [`PutError`] with the value, if the queue is closed, before or meanwhile.
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
        self.shared().put(value, Deadline::start(None), None).map_err(|(_, value)| PutError(value))
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
    /// Monotonic clock, counted from this call. `None` is no limit, zero looks once, and a sum past the clock's range is
    /// no limit. After time has run out it looks once more.
    /// # Errors
    /// [`PutTimeoutError`] with the value, if there was no room in time, or the queue is closed, before or meanwhile.
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
            (_, value) => PutTimeoutError::Timeout(value),
        })
    }

    /// A receiver for `crossbeam_channel::select!`: it has a message while there may be room, and disconnects when the queue is closed.
    ///
    /// After a message, call [`try_put`](Producer::try_put) once, which is told of a full queue if another thread was faster. If there is
    /// more room after a put, there is another message. Keep the receiver for as long as you select; dropping it ends the watch.
    ///
    /// It costs no thread, and puts and gets take a lock while there is a watch.
    pub fn ready(&self) -> Receiver<()> {
        self.shared().watch_room()
    }

    /// Waits for room until `deadline`, or until a nudge finds `stop` set.
    pub(crate) fn put_unless(&self, stop: &AtomicBool, value: T, deadline: Deadline) -> Result<(), (PutRefusal, T)> {
        self.shared().put(value, deadline, Some(stop))
    }

    /// The next of the numbers that tell this queue's submitters apart.
    pub(crate) fn next_number(&self) -> u64 {
        // Relaxed: all it has to be is unique.
        self.shared().submitters.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value, and waits as long as there is none.
    ///
    /// # Memory consistency
    /// What the producer did before it put the value happens-before the return from here.
    /// # Errors
    /// [`GetError`], if the queue is closed, before or meanwhile, and nothing is left in it.
    /// # Examples
    /// ```
    /// use fulmar::queue::{GetError, bounded};
    ///
    /// let (producer, consumer) = bounded(10)?;
    /// producer.put(1)?;
    /// producer.close();
    /// assert_eq!(consumer.get(), Ok(1));
    /// assert_eq!(consumer.get(), Err(GetError));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self) -> Result<T, GetError> {
        self.shared().get(Deadline::start(None), None).map_err(|_| GetError)
    }

    /// Takes the oldest value if there is one now.
    ///
    /// # Errors
    /// [`TryGetError`], which says whether there may be one later.
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
    /// As for [`Producer::put_timeout`].
    /// # Errors
    /// [`GetTimeoutError`], which says whether there may be one later.
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
            _ => GetTimeoutError::Timeout,
        })
    }

    /// Takes value after value, waiting for each, until the queue is closed and nothing is left in it.
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

    /// A receiver for `crossbeam_channel::select!`: it has a message while there may be a value, and disconnects when the queue is
    /// closed, with what is left still in it.
    ///
    /// After a message, call [`try_get`](Consumer::try_get) once, which is told of an empty queue if another thread was faster. If there
    /// are more values after a get, there is another message. Keep the receiver for as long as you select; dropping it ends the watch.
    ///
    /// It costs no thread, and puts and gets take a lock while there is a watch.
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

    /// Waits for a value until one comes, or until a nudge finds `stop` set.
    pub(crate) fn get_unless(&self, stop: &AtomicBool) -> Result<T, GetRefusal> {
        self.shared().get(Deadline::start(None), Some(stop))
    }

    /// The next of the numbers that tell this queue's processors apart.
    pub(crate) fn next_number(&self) -> u64 {
        // Relaxed: all it has to be is unique.
        self.shared().processors.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// `for value in consumer`: each value as it comes, until the queue is closed and nothing is left in it.
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

/// The values of a queue, one by one, with a consumer of its own: see [`Consumer`]'s `into_iter`.
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

/// What both halves can do.
macro_rules! both {
    ($half:ident, $made:expr) => {
        impl<T> $half<T> {
            fn shared(&self) -> &Shared<T> {
                &self.half.shared
            }

            /// How many values wait in the queue: a snapshot, which may be out of date when it is read.
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

            /// Whether no value waits in the queue: a snapshot.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// How many values the queue holds at most.
            #[doc(alias = "maxsize")]
            pub fn capacity(&self) -> usize {
                self.shared().capacity()
            }

            /// Closes the queue for good: from now on it takes nothing in, and hands out what is left.
            ///
            /// Wakes everybody: those who wait for room get their value back, and those who wait for a value are told
            /// once nothing is left. Closing again changes nothing.
            ///
            /// A put that is under way just now comes before the close or after it: its value is in when this returns, or goes
            /// back.
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

            /// Takes out all values that wait now, the oldest first. It waits for none and closes nothing; the room that
            /// it makes goes to those who wait for it. Of a closed queue it takes all there will ever be.
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
            /// Wakes all who wait for this queue, and doesn't keep it open.
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
