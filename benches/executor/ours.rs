//! Our own arms: `spawn` is what the rivals do, the others are doors that they don't have.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use fulmar::{AsyncRequest, Executor};

use crate::rivals::Rival;

/// `Executor::spawn`, and one wait for all.
pub(crate) struct Fulmar(Executor);

impl Rival for Fulmar {
    const NAME: &'static str = "fulmar";
    type Handle = AsyncRequest<u64>;

    fn start(threads: usize) -> Self {
        Self(Executor::builder().threads(threads).build().expect("threads can be started"))
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        self.0.spawn(work).expect("the executor is open")
    }

    fn wait(&self, request: Self::Handle) -> u64 {
        request.wait(None).expect("no request fails")
    }

    fn wait_all(&self, requests: Vec<Self::Handle>) -> u64 {
        let results = self.0.wait_requests(&requests, None).expect("no request fails");
        results.into_iter().fold(0, u64::wrapping_add)
    }
}

/// What the operations below work on.
struct Store;

/// `Executor::submit` of accessors without a key.
pub(crate) struct Submit {
    pool: Fulmar,
    store: Arc<Store>,
}

impl Rival for Submit {
    const NAME: &'static str = "fulmar submit";
    type Handle = AsyncRequest<u64>;

    fn start(threads: usize) -> Self {
        Self { pool: Fulmar::start(threads), store: Arc::new(Store) }
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        let operation = move |_: &Store, ()| Ok::<_, Infallible>(work());
        self.pool.0.submit(&self.store, operation, false, ()).expect("the executor is open")
    }

    fn wait(&self, request: Self::Handle) -> u64 {
        self.pool.wait(request)
    }

    fn wait_all(&self, requests: Vec<Self::Handle>) -> u64 {
        self.pool.wait_all(requests)
    }
}

/// `Executor::submit_many` of accessors without a key.
pub(crate) struct SubmitMany(Submit);

impl Rival for SubmitMany {
    const NAME: &'static str = "fulmar submit_many";
    type Handle = AsyncRequest<u64>;

    fn start(threads: usize) -> Self {
        Self(Submit::start(threads))
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        self.0.spawn(work)
    }

    fn spawn_numbers(&self, count: u64) -> Vec<Self::Handle> {
        let operation = |_: &Store, number: u64| Ok::<_, Infallible>(number);
        self.0.pool.0.submit_many(&self.0.store, operation, false, 0..count).expect("the executor is open")
    }

    fn wait(&self, request: Self::Handle) -> u64 {
        self.0.wait(request)
    }

    fn wait_all(&self, requests: Vec<Self::Handle>) -> u64 {
        self.0.wait_all(requests)
    }
}

/// `Executor::submit` of modifiers on `N` keys in turn, so that each waits for the one before it on its key.
pub(crate) struct Keys<const N: usize> {
    submit: Submit,
    keys: &'static [&'static str],
    turn: AtomicUsize,
}

static FEW_KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| make_keys(1_000));
static MANY_KEYS: LazyLock<Vec<&'static str>> = LazyLock::new(|| make_keys(1_000_000));

fn make_keys(count: usize) -> Vec<&'static str> {
    (0..count).map(|number| &*format!("key-{number}").leak()).collect()
}

impl<const N: usize> Keys<N> {
    fn spawn_on(&self, turn: usize, work: impl FnOnce() -> u64 + Send + 'static) -> AsyncRequest<u64> {
        let key = self.keys[turn % N];
        let operation = move |_: &Store, _key: &'static str| Ok::<_, Infallible>(work());
        self.submit.pool.0.submit(&self.submit.store, operation, true, key).expect("the executor is open")
    }
}

impl<const N: usize> Rival for Keys<N> {
    const NAME: &'static str = match N {
        1 => "fulmar 1 key",
        1_000 => "fulmar keys",
        _ => "fulmar many keys",
    };
    type Handle = AsyncRequest<u64>;

    fn start(threads: usize) -> Self {
        let keys = if N <= 1_000 { &FEW_KEYS[..N] } else { &MANY_KEYS[..N] };
        Self { submit: Submit::start(threads), keys, turn: AtomicUsize::new(0) }
    }

    fn spawn(&self, work: impl FnOnce() -> u64 + Send + 'static) -> Self::Handle {
        if N == 1 {
            // A gate has a request wait on each thread, and modifiers of one key never run at once.
            return self.submit.spawn(work);
        }
        self.spawn_on(self.turn.fetch_add(1, Ordering::Relaxed), work)
    }

    fn spawn_numbers(&self, count: u64) -> Vec<Self::Handle> {
        (0..count).map(|number| self.spawn_on(number as usize, move || number)).collect()
    }

    fn wait(&self, request: Self::Handle) -> u64 {
        self.submit.wait(request)
    }

    fn wait_all(&self, requests: Vec<Self::Handle>) -> u64 {
        self.submit.wait_all(requests)
    }
}
