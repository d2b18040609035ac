//! The rivals: channels with a limit, each in its own idiom.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use fulmar::queue;

/// A queue with a limit, for any number of threads at both ends. It ends when the last `Put` is dropped.
pub(crate) trait Rival: 'static {
    const NAME: &'static str;
    type Put: Clone + Send + 'static;
    type Get: Clone + Send + 'static;

    fn bounded(capacity: usize) -> (Self::Put, Self::Get);
    fn put(half: &Self::Put, value: u64);
    /// `None` at the end.
    fn get(half: &Self::Get) -> Option<u64>;
}

pub(crate) struct Fulmar;

impl Rival for Fulmar {
    const NAME: &'static str = "fulmar";
    type Put = queue::Producer<u64>;
    type Get = queue::Consumer<u64>;

    fn bounded(capacity: usize) -> (Self::Put, Self::Get) {
        queue::bounded(capacity).expect("holds something")
    }

    fn put(half: &Self::Put, value: u64) {
        half.put(value).expect("open");
    }

    fn get(half: &Self::Get) -> Option<u64> {
        half.get().ok()
    }
}

/// The baseline.
pub(crate) struct Crossbeam;

impl Rival for Crossbeam {
    const NAME: &'static str = "crossbeam-channel";
    type Put = crossbeam_channel::Sender<u64>;
    type Get = crossbeam_channel::Receiver<u64>;

    fn bounded(capacity: usize) -> (Self::Put, Self::Get) {
        crossbeam_channel::bounded(capacity)
    }

    fn put(half: &Self::Put, value: u64) {
        half.send(value).expect("open");
    }

    fn get(half: &Self::Get) -> Option<u64> {
        half.recv().ok()
    }
}

/// Its receiver can't be cloned: one thread at a time waits in it.
pub(crate) struct Std;

impl Rival for Std {
    const NAME: &'static str = "std sync_channel";
    type Put = mpsc::SyncSender<u64>;
    type Get = Arc<Mutex<mpsc::Receiver<u64>>>;

    fn bounded(capacity: usize) -> (Self::Put, Self::Get) {
        let (put, get) = mpsc::sync_channel(capacity);
        (put, Arc::new(Mutex::new(get)))
    }

    fn put(half: &Self::Put, value: u64) {
        half.send(value).expect("open");
    }

    fn get(half: &Self::Get) -> Option<u64> {
        half.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }
}

pub(crate) struct Flume;

impl Rival for Flume {
    const NAME: &'static str = "flume";
    type Put = flume::Sender<u64>;
    type Get = flume::Receiver<u64>;

    fn bounded(capacity: usize) -> (Self::Put, Self::Get) {
        flume::bounded(capacity)
    }

    fn put(half: &Self::Put, value: u64) {
        half.send(value).expect("open");
    }

    fn get(half: &Self::Get) -> Option<u64> {
        half.recv().ok()
    }
}
