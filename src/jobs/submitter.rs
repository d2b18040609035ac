//! A thread that puts values into a queue on a set cadence.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cadence::Cadence;
use super::calls::call;
use super::control::Control;
use crate::error::{Error, Result};
use crate::queue::{Producer, PutRefusal};
use crate::time::Deadline;
use crate::trace::event;

/// Puts values into a [bounded queue](crate::queue) on a set cadence, from a thread of its own.
///
/// The schedule is fixed: the first value at once, and each further one a whole number of periods after it, however long
/// the puts before took. If a put takes so long that points in time pass meanwhile, the next value is late: it is offered
/// at once, for all of these points together, and the schedule goes on with the next one to come.
///
/// It ends after its [`times`](SubmitterBuilder::times), when it is [stopped](PeriodicSubmitter::stop) or dropped, or when
/// the queue is closed. Then it gives up its producer, and if that was the last, the queue closes.
///
/// ```
/// use fulmar::jobs::PeriodicSubmitter;
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
    /// Values that it did not take in: not within the time limit, or not before the stop or the close.
    pub dropped: u64,
    /// Values offered late, because the put before had not ended when their time came.
    pub late: u64,
    /// Panics of the closures that were given: in making a value, which then is none, or in looking at a dropped one.
    pub panicked: u64,
}

impl SubmitterStats {
    /// Values offered to the queue, but for one that is just waiting for room.
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
    /// The time from one value to the next. Defaults to 2 s; zero is as fast as the queue takes them.
    pub fn every(mut self, period: Duration) -> SubmitterBuilder<T> {
        self.period = period;
        self
    }

    /// How many values to offer. Defaults to no limit: until stopped.
    pub fn times(mut self, values: u64) -> SubmitterBuilder<T> {
        self.times = Some(values);
        self
    }

    /// How long a value may wait for room before it is dropped. Defaults to 10 s; `None` is for ever, zero looks once.
    pub fn time_limit(mut self, limit: impl Into<Option<Duration>>) -> SubmitterBuilder<T> {
        self.time_limit = limit.into();
        self
    }

    /// Gets each dropped value, and why it was dropped, on the submitter's thread. A panic in it is counted. By default
    /// they are only counted.
    pub fn on_drop(mut self, look: impl FnMut(T, Dropped) + Send + 'static) -> SubmitterBuilder<T> {
        self.on_drop = Some(Box::new(look));
        self
    }

    /// Starts, and puts a clone of `value` each time.
    ///
    /// # Errors
    /// [`Error::Spawn`], if the system refuses a thread.
    pub fn submit(self, value: T) -> Result<PeriodicSubmitter>
    where
        T: Clone,
    {
        self.submit_with(move || value.clone())
    }

    /// Starts, and puts what `make` returns each time; it is called on the submitter's thread, when the time has come. A
    /// panic in it is counted, and the submitter goes on with the next.
    ///
    /// ```
    /// use fulmar::jobs::PeriodicSubmitter;
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
    /// [`Error::Spawn`], if the system refuses a thread.
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
    /// Settings for a submitter to this queue.
    pub fn builder<T: Send + 'static>(producer: Producer<T>) -> SubmitterBuilder<T> {
        SubmitterBuilder {
            producer,
            period: Duration::from_secs(2),
            times: None,
            time_limit: Some(Duration::from_secs(10)),
            on_drop: None,
        }
    }

    /// Its number: no other submitter to the same queue has it. Its thread is named `submitter-` and this.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it has done so far.
    pub fn stats(&self) -> SubmitterStats {
        self.control.stats()
    }

    /// Has it end, wherever it waits, and returns at once; [`wait`](PeriodicSubmitter::wait) waits for the end. A value
    /// that is just waiting for room is dropped, counted, and given to [`on_drop`](SubmitterBuilder::on_drop).
    pub fn stop(&self) {
        self.control.stop();
    }

    /// Waits until it has ended, for at most `timeout`: after its last value, or after a stop or a close. Then its closures
    /// and its producer are dropped.
    ///
    /// # Errors
    /// [`Error::Timeout`]: it goes on.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<SubmitterStats> {
        let deadline = Deadline::start(timeout);
        self.control.wait_for_end(deadline, |_| true).map_err(|_| Error::Timeout { limit: deadline.limit(), left: 1 })
    }
}

impl Drop for PeriodicSubmitter {
    /// Stops it, and doesn't wait.
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for PeriodicSubmitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeriodicSubmitter").field("id", &self.id).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// What its thread holds.
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
        // What users gave may panic in its destructor, and that is to end here, too.
        let Submitter { make, settings, .. } = self;
        let _ = call(move || drop(make));
        let _ = call(move || drop(settings));
    }

    /// Offers one value. Says whether to go on.
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
            PutRefusal::Stopped => Dropped::Stopped,
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
