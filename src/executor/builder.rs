//! How an executor is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Closed, Core};
use super::front::Executor;
use super::hooks::Hooks;
use super::pool::Pool;
use super::room::OnFull;
use super::threads;
use crate::error::{Error, Result};

/// Settings of an [`Executor`].
///
/// ```
/// use fulmar::{Executor, OnFull};
///
/// let executor = Executor::builder().threads(8).queue_capacity(1_000).on_full(OnFull::CallerRuns).thread_name("loader").build()?;
/// assert_eq!(executor.spawn(|| std::thread::current().name().map(str::to_owned))?.wait(None)?.as_deref(), Some("loader-0"));
/// # Ok::<(), fulmar::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    threads: Option<usize>,
    capacity: Option<usize>,
    on_full: OnFull,
    thread_name: String,
    stack_size: Option<usize>,
    idle_timeout: Option<Duration>,
    hooks: Hooks,
}

impl Builder {
    fn new() -> Builder {
        Builder {
            threads: None,
            capacity: None,
            on_full: OnFull::Reject,
            thread_name: "fulmar".into(),
            stack_size: None,
            idle_timeout: None,
            hooks: Hooks::default(),
        }
    }

    /// The number of threads at work, at least one. They start when they are needed. A thread whose
    /// operation waits for another request doesn't count meanwhile: one more may work in its place.
    /// Defaults to the number of cores, but at least 4, because blocking operations wait more than
    /// they work.
    pub fn threads(mut self, threads: usize) -> Builder {
        self.threads = Some(threads);
        self
    }

    /// How many requests may wait for a thread, and besides, for each key, how many it may hold
    /// back. So a slow key fills its own line and leaves the others their room. Defaults to no
    /// limit. What happens beyond it is [`on_full`](Builder::on_full)'s business. Requests that
    /// wait for their time ([`submit_after`](Executor::submit_after)) and continuations
    /// ([`then`](crate::AsyncRequest::then)) are never refused for it, and take up no room until
    /// then.
    pub fn queue_capacity(mut self, requests: usize) -> Builder {
        self.capacity = Some(requests);
        self
    }

    /// What a submission does when the queue is full. Defaults to [`OnFull::Reject`].
    pub fn on_full(mut self, on_full: OnFull) -> Builder {
        self.on_full = on_full;
        self
    }

    /// What the threads are named: `name-0`, `name-1` and so on. Defaults to `fulmar`.
    pub fn thread_name(mut self, name: impl Into<String>) -> Builder {
        self.thread_name = name.into();
        self
    }

    /// The stack of the threads, and of the one that keeps the time, in bytes. Defaults to that of
    /// `std::thread`. At most 16 operations run inside one another on one stack, and only where a
    /// full queue has its submitter run them, or the system refuses another thread.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// How long a thread that has nothing to do stays: then it ends, and another one starts when
    /// there is work again. For bursts that are far apart, or values of a
    /// [`PerThread`](crate::PerThread) that hold something dear, such as a connection; to start a
    /// thread takes some tens of microseconds. Defaults to no limit: a thread that sleeps costs no
    /// CPU.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let builder = fulmar::Executor::builder().threads(4);
    /// let executor = builder.idle_timeout(Duration::from_millis(1)).build()?;
    /// executor.spawn(|| ())?.wait(None)?;
    /// while executor.stats().threads > 0 { std::thread::yield_now() }
    /// assert_eq!(executor.spawn(|| 7)?.wait(None)?, 7);
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Builder {
        self.idle_timeout = timeout.into();
        self
    }

    /// Called on each thread when it starts. A panic in it is reported and changes nothing.
    pub fn on_thread_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.hooks.start = Some(Arc::new(hook));
        self
    }

    /// Called on each thread before it ends. A panic in it is reported and changes nothing.
    pub fn on_thread_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Builder {
        self.hooks.stop = Some(Arc::new(hook));
        self
    }

    /// Makes the executor. No thread starts before the first submission.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the setting: no threads or more than 65,536; a queue of none; a
    /// thread name with a NUL.
    pub fn build(self) -> Result<Executor> {
        let threads = threads::checked(self.threads.unwrap_or_else(threads::by_default))?;
        self.build_with(threads, None)
    }

    /// The global executor: its size comes from the environment, and if that makes no sense, every
    /// submission says so, and so does whatever is built upon it.
    pub(super) fn build_global() -> Executor {
        let (threads, closed) = match threads::from_environment() {
            Ok(threads) => (threads, None),
            Err(error) => (threads::by_default(), Some(Closed::Misconfigured(error.to_string()))),
        };
        let builder = Builder::new();
        Executor::new(Core::new(Pool::new(threads, builder.thread_name, None, None), None, builder.hooks, closed))
    }

    fn build_with(self, threads: usize, closed: Option<Closed>) -> Result<Executor> {
        if self.capacity == Some(0) {
            return Err(Error::Invalid("a queue capacity of 0 accepts nothing: use 1 or more, or leave it out".into()));
        }
        if self.thread_name.contains('\0') {
            let name = self.thread_name.escape_debug();
            return Err(Error::Invalid(format!("the thread name `{name}` contains a NUL, which no system takes")));
        }
        let pool = Pool::new(threads, self.thread_name, self.stack_size, self.idle_timeout);
        let capacity = self.capacity.map(|capacity| (capacity as u64, self.on_full));
        Ok(Executor::new(Core::new(pool, capacity, self.hooks, closed)))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("threads", &self.threads)
            .field("queue_capacity", &self.capacity)
            .field("on_full", &self.on_full)
            .field("thread_name", &self.thread_name)
            .field("stack_size", &self.stack_size)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// Settings for an executor of one's own.
    pub fn builder() -> Builder {
        Builder::new()
    }
}
