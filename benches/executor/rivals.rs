//! The rivals: who runs a closure on a thread and hands its result back, each in its own idiom.
//!
//! A pool without result handles gets a `oneshot` channel for each request, the cheapest of the
//! natural choices (measured against `std::sync::mpsc`). One that hands back a future is waited for
//! with one `block_on` for all, not one for each.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use futures::executor::block_on;
use futures::future::RemoteHandle;
use futures::task::SpawnExt;

/// One contestant. Requests return a `u64`, so that every workload can check the sum of its results.
pub(crate) trait Rival: Sized + Sync {
    /// Its name in the reports.
    const NAME: &'static str;
    /// Most requests it is asked to hold at once; figures are per request, so they still compare.
    const MOST: usize = usize::MAX;
    /// What the caller keeps of a request.
    type Handle: Send;

    fn start(threads: usize) -> Self;

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle;

    /// Requests that return 0, 1, .. `count - 1`, submitted from this thread one by one.
    fn spawn_numbers(&self, count: u64) -> Vec<Self::Handle> {
        (0..count).map(|number| self.spawn(move || number)).collect()
    }

    fn wait(&self, handle: Self::Handle) -> u64;

    /// Waits for all and adds the results up. The handles are gone afterwards.
    fn wait_all(&self, handles: Vec<Self::Handle>) -> u64 {
        handles.into_iter().map(|handle| self.wait(handle)).fold(0, u64::wrapping_add)
    }
}

/// The baseline: a channel of boxed closures, and a mutex with a condition variable a request.
pub(crate) struct Crossbeam {
    // `None` only in drop.
    sender: Option<crossbeam_channel::Sender<Box<dyn FnOnce() + Send>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// Where the baseline puts a result.
pub(crate) struct Slot {
    value: Mutex<Option<u64>>,
    filled: Condvar,
}

impl Rival for Crossbeam {
    const NAME: &'static str = "crossbeam";
    type Handle = Arc<Slot>;

    fn start(threads: usize) -> Self {
        let (sender, receiver) = crossbeam_channel::unbounded::<Box<dyn FnOnce() + Send>>();
        let threads = (0..threads)
            .map(|_| {
                let receiver = receiver.clone();
                thread::spawn(move || receiver.iter().for_each(|work| work()))
            })
            .collect();
        Self { sender: Some(sender), threads }
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        let slot = Arc::new(Slot { value: Mutex::new(None), filled: Condvar::new() });
        let filler = Arc::clone(&slot);
        self.send(Box::new(move || {
            let value = work();
            *filler.value.lock().expect("nobody panics with the lock") = Some(value);
            filler.filled.notify_one();
        }));
        slot
    }

    fn wait(&self, slot: Self::Handle) -> u64 {
        let value = slot.value.lock().expect("nobody panics with the lock");
        let mut value = slot.filled.wait_while(value, |value| value.is_none()).expect("nobody panics with the lock");
        value.take().expect("waited until it is there")
    }
}

impl Crossbeam {
    fn send(&self, job: Box<dyn FnOnce() + Send>) {
        let sender = self.sender.as_ref().expect("open until drop");
        sender.send(job).expect("workers live as long as the pool");
    }
}

impl Drop for Crossbeam {
    fn drop(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            thread.join().expect("no request panics");
        }
    }
}

/// The baseline with a `oneshot` channel in place of the mutex: the best that one can do by hand. No
/// crate that one would choose instead of this one, so it is shown, but is not counted among the rivals.
pub(crate) struct ByHand(Crossbeam);

impl Rival for ByHand {
    const NAME: &'static str = "by hand";
    type Handle = oneshot::Receiver<u64>;

    fn start(threads: usize) -> Self {
        Self(Crossbeam::start(threads))
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Box::new(move || sender.send(work()).expect("the caller waits")));
        receiver
    }

    fn wait(&self, receiver: Self::Handle) -> u64 {
        receiver.recv().expect("no request panics")
    }
}

/// `rayon::ThreadPool::spawn` and a `oneshot` channel.
pub(crate) struct Rayon(rayon::ThreadPool);

impl Rival for Rayon {
    const NAME: &'static str = "rayon";
    type Handle = oneshot::Receiver<u64>;

    fn start(threads: usize) -> Self {
        Self(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started"))
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        let (sender, receiver) = oneshot::channel();
        self.0.spawn(move || sender.send(work()).expect("the caller waits"));
        receiver
    }

    fn wait(&self, receiver: Self::Handle) -> u64 {
        receiver.recv().expect("no request panics")
    }
}

/// `threadpool::ThreadPool` and a `oneshot` channel.
pub(crate) struct Threadpool(threadpool::ThreadPool);

impl Rival for Threadpool {
    const NAME: &'static str = "threadpool";
    type Handle = oneshot::Receiver<u64>;

    fn start(threads: usize) -> Self {
        Self(threadpool::ThreadPool::new(threads))
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        let (sender, receiver) = oneshot::channel();
        self.0.execute(move || sender.send(work()).expect("the caller waits"));
        receiver
    }

    fn wait(&self, receiver: Self::Handle) -> u64 {
        receiver.recv().expect("no request panics")
    }
}

/// `workerpool::Pool` of stateless workers and a `oneshot` channel.
pub(crate) struct Workerpool(workerpool::Pool<workerpool::thunk::ThunkWorker<()>>);

impl Rival for Workerpool {
    const NAME: &'static str = "workerpool";
    type Handle = oneshot::Receiver<u64>;

    fn start(threads: usize) -> Self {
        Self(workerpool::Pool::new(threads))
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        let (sender, receiver) = oneshot::channel();
        self.0.execute(workerpool::thunk::Thunk::of(move || sender.send(work()).expect("the caller waits")));
        receiver
    }

    fn wait(&self, receiver: Self::Handle) -> u64 {
        receiver.recv().expect("no request panics")
    }
}

/// `rusty_pool::ThreadPool::evaluate` and its join handle.
pub(crate) struct RustyPool(rusty_pool::ThreadPool);

impl Rival for RustyPool {
    const NAME: &'static str = "rusty_pool";
    type Handle = rusty_pool::JoinHandle<u64>;

    fn start(threads: usize) -> Self {
        Self(rusty_pool::Builder::new().core_size(threads).max_size(threads).build())
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        self.0.evaluate(work)
    }

    fn wait(&self, handle: Self::Handle) -> u64 {
        handle.await_complete()
    }
}

/// `futures::executor::ThreadPool` with `spawn_with_handle`.
pub(crate) struct Futures(futures::executor::ThreadPool);

impl Rival for Futures {
    const NAME: &'static str = "futures";
    type Handle = RemoteHandle<u64>;

    fn start(threads: usize) -> Self {
        let pool = futures::executor::ThreadPool::builder().pool_size(threads).create();
        Self(pool.expect("threads can be started"))
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        self.0.spawn_with_handle(async move { work() }).expect("the pool is open")
    }

    fn wait(&self, handle: Self::Handle) -> u64 {
        block_on(handle)
    }

    fn wait_all(&self, handles: Vec<Self::Handle>) -> u64 {
        block_on(async {
            let mut sum = 0u64;
            for handle in handles {
                sum = sum.wrapping_add(handle.await);
            }
            sum
        })
    }
}

/// `tokio::runtime::Runtime::spawn_blocking`: its pool for blocking work, without the scheduler.
pub(crate) struct Tokio(tokio::runtime::Runtime);

impl Rival for Tokio {
    const NAME: &'static str = "tokio";
    type Handle = tokio::task::JoinHandle<u64>;

    fn start(threads: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(threads).build();
        Self(runtime.expect("a runtime without drivers can be built"))
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        self.0.spawn_blocking(work)
    }

    // Not `Runtime::block_on`: with several submitters only one of them would drive the scheduler,
    // and the handle needs none.
    fn wait(&self, handle: Self::Handle) -> u64 {
        block_on(handle).expect("no request panics")
    }

    fn wait_all(&self, handles: Vec<Self::Handle>) -> u64 {
        block_on(async {
            let mut sum = 0u64;
            for handle in handles {
                sum = sum.wrapping_add(handle.await.expect("no request panics"));
            }
            sum
        })
    }
}

/// `blocking::unblock`, on the one global pool of that crate. `main` limits it to two threads.
pub(crate) struct Blocking;

impl Rival for Blocking {
    const NAME: &'static str = "blocking";
    type Handle = blocking::Task<u64>;

    fn start(threads: usize) -> Self {
        assert_eq!(std::env::var(crate::BLOCKING_THREADS).ok(), Some(threads.to_string()));
        Self
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        blocking::unblock(work)
    }

    fn wait(&self, task: Self::Handle) -> u64 {
        block_on(task)
    }

    fn wait_all(&self, tasks: Vec<Self::Handle>) -> u64 {
        block_on(async {
            let mut sum = 0u64;
            for task in tasks {
                sum = sum.wrapping_add(task.await);
            }
            sum
        })
    }
}

/// `std::thread::spawn`: a thread a request.
pub(crate) struct Threads;

impl Rival for Threads {
    const NAME: &'static str = "std::thread";
    const MOST: usize = 2_000;
    type Handle = thread::JoinHandle<u64>;

    fn start(_threads: usize) -> Self {
        Self
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        thread::spawn(work)
    }

    fn wait(&self, thread: Self::Handle) -> u64 {
        thread.join().expect("no request panics")
    }
}
