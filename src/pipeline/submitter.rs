//! A thread that puts values into a queue on a fixed schedule.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cadence::Cadence;
use super::calls::call;
use super::control::Control;
use crate::error::Result;
use crate::queue::{Producer, PutRefusal};
use crate::time::Deadline;
use crate::trace::event;

/// Puts values into a [bounded queue](crate::queue) on a fixed schedule, from a thread of its own.
///
/// It offers the first value at once, and each further one a whole number of periods after the
/// first, however long the puts take. If a put takes so long that points of the schedule pass
/// meanwhile, the next value is late: it is offered at once, in place of all of these points, and
/// the schedule goes on with the next point to come.
///
/// It ends after the number of values set by [`times`](SubmitterBuilder::times), when it is
/// [stopped](PeriodicSubmitter::stop) or dropped, or when the queue is closed. Then it drops its
/// producer, and if that was the last one, the queue closes.
///
/// ```
/// use fulmar::pipeline::PeriodicSubmitter;
/// use fulmar::queue::bounded;
/// use std::time::Duration;
///
/// let (producer, consumer) = bounded(10)?;
/// let submitter = PeriodicSubmitter::builder(producer).every(Duration::from_millis(1)).times(5).submit(100)?;
/// assert_eq!(consumer.iter().collect::<Vec<u64>>(), [100; 5]);
/// assert_eq!(submitter.wait(None)?.submitted, 5);
/// # Ok::<(), fulmar::Error>(())
/// ```
#[must_use = "dropping a submitter stops it"]
pub struct PeriodicSubmitter {
    id: u64,
    control: Arc<Control<SubmitterStats>>,
}

/// What a submitter has done so far: a snapshot, in which `offered() = submitted + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubmitterStats {
    /// Values that the queue took in.
    pub submitted: u64,
    /// Values that the queue didn't take: there was no room within the time limit, or before the
    /// stop or the close.
    pub dropped: u64,
    /// Values offered late, because the put before had not ended when their time came.
    pub late: u64,
    /// Panics of the user's closures: of the one that makes a value, which is then left out, and of
    /// the one that gets a dropped value.
    pub panicked: u64,
}

impl SubmitterStats {
    /// Values offered to the queue, without the one that may be waiting for room now.
    pub fn offered(&self) -> u64 {
        self.submitted + self.dropped
    }
}

impl fmt::Display for SubmitterStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SubmitterStats { submitted, dropped, late, panicked } = self;
        write!(f, "{} offered = {submitted} submitted + {dropped} dropped; {late} late", self.offered())?;
        if *panicked > 0 { write!(f, ", {panicked} panicked") } else { Ok(()) }
    }
}

/// Why a value was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dropped {
    /// There was no room within the time limit.
    TimedOut,
    /// The submitter was stopped while it waited for room.
    Stopped,
    /// The queue was closed.
    Closed,
}

/// Settings of a [`PeriodicSubmitter`].
#[must_use = "a builder does nothing until `submit` or `submit_with`"]
pub struct SubmitterBuilder<T> {
    producer: Producer<T>,
    period: Duration,
    times: Option<u64>,
    time_limit: Option<Duration>,
    on_drop: Option<OnDrop<T>>,
}

type OnDrop<T> = Box<dyn FnMut(T, Dropped) + Send>;

impl<T: Send + 'static> SubmitterBuilder<T> {
    /// The time from one value to the next. Defaults to 2 s. Zero: as fast as the queue takes them.
    pub fn every(mut self, period: Duration) -> SubmitterBuilder<T> {
        self.period = period;
        self
    }

    /// How many values to offer. By default it goes on until it is stopped.
    pub fn times(mut self, values: u64) -> SubmitterBuilder<T> {
        self.times = Some(values);
        self
    }

    /// How long a value may wait for room before it is dropped. Defaults to 10 s; `None` is for
    /// ever, zero looks once.
    pub fn time_limit(mut self, limit: impl Into<Option<Duration>>) -> SubmitterBuilder<T> {
        self.time_limit = limit.into();
        self
    }

    /// Calls `look` with each dropped value and the reason, on the submitter's thread. A panic of
    /// `look` is counted. By default dropped values are only counted.
    pub fn on_drop(mut self, look: impl FnMut(T, Dropped) + Send + 'static) -> SubmitterBuilder<T> {
        self.on_drop = Some(Box::new(look));
        self
    }

    /// Starts the submitter, which puts a clone of `value` each time.
    ///
    /// # Errors
    /// [`Error::Spawn`](crate::Error::Spawn) if the system refuses a thread.
    pub fn submit(self, value: T) -> Result<PeriodicSubmitter>
    where
        T: Clone,
    {
        self.submit_with(move || value.clone())
    }

    /// Starts the submitter, which calls `make` on its thread each time and puts the value that it
    /// returns. If `make` panics, the panic is counted, and the submitter goes on with the next
    /// value.
    ///
    /// ```
    /// use fulmar::pipeline::PeriodicSubmitter;
    /// use std::time::Duration;
    ///
    /// let (producer, consumer) = fulmar::queue::bounded(10)?;
    /// let mut number = 0;
    /// let next = move || {
    ///     number += 1;
    ///     number
    /// };
    /// let _submitter = PeriodicSubmitter::builder(producer).every(Duration::ZERO).times(3).submit_with(next)?;
    /// assert_eq!(consumer.iter().collect::<Vec<_>>(), [1, 2, 3]);
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Spawn`](crate::Error::Spawn), if the system refuses a thread.
    pub fn submit_with(self, make: impl FnMut() -> T + Send + 'static) -> Result<PeriodicSubmitter> {
        let id = self.producer.next_number();
        let control = Control::new(self.producer.nudger());
        let (times, period) = (self.times, self.period);
        let thread = Submitter { id, control: control.clone(), make, settings: self };
        control.start(format!("submitter-{id}"), move || thread.run())?;
        event!(INFO, "submitter created", submitter = id, period = period, times = times);
        Ok(PeriodicSubmitter { id, control })
    }
}

impl<T> fmt::Debug for SubmitterBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitterBuilder")
            .field("producer", &self.producer)
            .field("every", &self.period)
            .field("times", &self.times)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

impl PeriodicSubmitter {
    /// Settings for a submitter to the queue of `producer`.
    pub fn builder<T: Send + 'static>(producer: Producer<T>) -> SubmitterBuilder<T> {
        SubmitterBuilder {
            producer,
            period: Duration::from_secs(2),
            times: None,
            time_limit: Some(Duration::from_secs(10)),
            on_drop: None,
        }
    }

    /// Its number, which no other submitter to the same queue has. Its thread is named `submitter-`
    /// followed by it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it has done so far.
    pub fn stats(&self) -> SubmitterStats {
        self.control.stats()
    }

    /// Tells the submitter to end, wherever it waits, and returns at once;
    /// [`wait`](PeriodicSubmitter::wait) waits for its end. A value that is just waiting for room
    /// is dropped, counted, and given to [`on_drop`](SubmitterBuilder::on_drop).
    pub fn stop(&self) {
        self.control.stop();
    }

    /// Waits until the submitter has ended, for at most `timeout`: after its last value, a stop, or
    /// a close of the queue. When this returns `Ok`, its closures and its producer are dropped.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) if `timeout` passes first,
    /// [`Error::Interrupted`](crate::Error::Interrupted) if the operation that waits here is
    /// cancelled: the submitter goes on.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<SubmitterStats> {
        let deadline = Deadline::start(timeout);
        self.control.wait_for_end(deadline, |_| true, |_| 1)
    }
}

impl Drop for PeriodicSubmitter {
    /// Stops the submitter without waiting for its end.
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for PeriodicSubmitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeriodicSubmitter").field("id", &self.id).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// All that the submitter's thread holds.
struct Submitter<T, F> {
    id: u64,
    control: Arc<Control<SubmitterStats>>,
    make: F,
    settings: SubmitterBuilder<T>,
}

impl<T: Send + 'static, F: FnMut() -> T> Submitter<T, F> {
    fn run(mut self) {
        let mut cadence = Cadence::new(Instant::now(), self.settings.period);
        let mut turn = 0;
        while self.settings.times.is_none_or(|times| turn < times) {
            turn += 1;
            let point = cadence.next(Instant::now());
            if self.control.sleep_until(point.at) || !self.offer(point.late) {
                break;
            }
        }
        event!(INFO, "submitter ended", submitter = self.id, stats = self.control.stats());
        // The user's closures may panic in their destructors. Contain that, and drop the other one
        // all the same.
        let Submitter { make, settings, .. } = self;
        let _ = call(move || drop(make));
        let _ = call(move || drop(settings));
    }

    /// Makes one value and offers it to the queue. Returns whether to go on: not after a stop or a
    /// close.
    fn offer(&mut self, late: bool) -> bool {
        let value = match call(&mut self.make) {
            Ok(value) => value,
            Err(_error) => {
                event!(WARN, "submitter made no value", submitter = self.id, error = _error);
                self.control.count(|stats| stats.panicked += 1);
                return true;
            }
        };
        event!(TRACE, "submitter puts a value", submitter = self.id, late = late);
        let deadline = Deadline::start(self.settings.time_limit);
        let refused = self.settings.producer.put_unless(self.control.stop_flag(), value, deadline);
        self.control.count(|stats| {
            stats.late += u64::from(late);
            match refused {
                Ok(()) => stats.submitted += 1,
                Err(_) => stats.dropped += 1,
            }
        });
        let Err((refusal, value)) = refused else {
            event!(TRACE, "submitter has put a value", submitter = self.id);
            return true;
        };
        let why = match refusal {
            PutRefusal::Full => Dropped::TimedOut,
            // A submitter's thread runs no operation that could be cancelled.
            PutRefusal::Stopped | PutRefusal::Interrupted => Dropped::Stopped,
            PutRefusal::Closed => Dropped::Closed,
        };
        event!(WARN, "submitter drops a value", submitter = self.id, why = why);
        let looked = match &mut self.settings.on_drop {
            Some(look) => call(|| look(value, why)),
            None => call(|| drop(value)),
        };
        if let Err(_error) = looked {
            event!(WARN, "submitter's look at a dropped value failed", submitter = self.id, error = _error);
            self.control.count(|stats| stats.panicked += 1);
        }
        why == Dropped::TimedOut
    }
}
