//! When an executor says that it has ended, it has: threads, thread-locals and callbacks, whichever
//! thread runs them.

use std::cell::RefCell;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use fulmar::{Error, Executor, OnFull, Status};

use crate::support::{Gate, HANG, ends, eventually, executor, occupy};

/// Long beside everything that a thread does after its last request.
const LONG: Duration = Duration::from_millis(50);

/// Takes its time, as the flush of a connection does. No event could end it earlier.
fn linger() {
    let (_open, never) = channel::<()>();
    assert_eq!(never.recv_timeout(LONG), Err(RecvTimeoutError::Timeout));
}

struct Connection(Arc<AtomicUsize>);

impl Drop for Connection {
    fn drop(&mut self) {
        linger();
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

thread_local! {
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
    static AT_EXIT: RefCell<AtExit> = const { RefCell::new(AtExit(None)) };
}

/// An executor of `threads` threads, each with a connection that is slow to close.
fn connected(threads: usize) -> (Executor, Arc<AtomicUsize>) {
    let (executor, closed, together) = (executor(threads), Arc::default(), Arc::new(Barrier::new(threads)));
    let connect = |closed: &Arc<AtomicUsize>| {
        let (connection, together) = (Connection(closed.clone()), together.clone());
        let connect = move || {
            CONNECTION.set(Some(connection));
            together.wait();
        };
        executor.spawn(connect).expect("accepted")
    };
    let requests: Vec<_> = (0..threads).map(|_| connect(&closed)).collect();
    executor.wait_requests(&requests, None).expect("each on a thread of its own");
    (executor, closed)
}

#[test]
fn an_end_is_told_after_thread_locals_are_destroyed() {
    for threads in [1, 3] {
        let (executor, closed) = connected(threads);
        executor.shutdown(None).expect("ends");
        assert_eq!(closed.load(Ordering::SeqCst), threads, "shutdown");

        let (executor, closed) = connected(threads);
        executor.reset(threads, None).expect("the old threads end");
        assert_eq!(closed.load(Ordering::SeqCst), threads, "reset");

        let (executor, closed) = connected(threads);
        drop(executor.shutdown(Duration::ZERO));
        executor.await_termination(None).expect("ends");
        assert_eq!(closed.load(Ordering::SeqCst), threads, "await_termination");

        let (executor, closed) = connected(threads);
        executor.shutdown(HANG).expect("ends");
        assert_eq!(closed.load(Ordering::SeqCst), threads, "shutdown with a limit");
    }
}

#[test]
fn an_end_is_told_to_all_who_wait_after_thread_locals_are_destroyed() {
    let (executor, closed) = connected(2);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                executor.shutdown(None).expect("ends");
                assert_eq!(closed.load(Ordering::SeqCst), 2);
            });
        }
    });
}

/// A thread that a resize has dismissed is one of those that a shutdown waits for.
#[test]
fn an_end_is_told_after_the_thread_locals_of_dismissed_threads() {
    let (executor, closed) = connected(3);
    executor.resize(1).expect("live");
    executor.shutdown(None).expect("ends");
    assert_eq!(closed.load(Ordering::SeqCst), 3);
}

#[test]
fn an_end_is_told_after_the_callbacks_of_who_cancels() {
    let (executor, gate) = (executor(1), Gate::new());
    let held = occupy(&executor, &gate);
    let queued = executor.spawn(|| ()).expect("accepted");
    let (called, finished) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (inside, finish) = (called.clone(), finished.clone());
    queued.on_complete(move |status| {
        assert_eq!(status, Status::Cancelled);
        inside.pass();
        linger();
        finish.fetch_add(1, Ordering::SeqCst);
    });
    let canceller = thread::spawn(move || queued.cancel());
    called.await_arrivals(1);
    gate.open();
    called.open();
    executor.shutdown(None).expect("ends");
    assert_eq!(finished.load(Ordering::SeqCst), 1, "the canceller's callback was still at work");
    assert!(canceller.join().expect("no panic"));
    held.wait(None).expect("it was let go");
}

#[test]
fn an_end_is_told_after_what_a_caller_runs() {
    let gate = Gate::new();
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::CallerRuns).build().expect("sound");
    let held = occupy(&executor, &gate);
    let _queued = executor.spawn(|| ()).expect("there is room");
    let (called, finished) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (inside, finish, caller) = (called.clone(), finished.clone(), executor.clone());
    let submitter = thread::spawn(move || {
        let operation = move || {
            inside.pass();
            linger();
            finish.fetch_add(1, Ordering::SeqCst)
        };
        caller.spawn(operation).map(drop)
    });
    called.await_arrivals(1);
    gate.open();
    called.open();
    executor.shutdown(None).expect("ends");
    assert_eq!(finished.load(Ordering::SeqCst), 1, "the caller was still at work");
    submitter.join().expect("no panic").expect("it ran");
    held.wait(None).expect("it was let go");
}

// Thread-locals that submit while they are destroyed.

struct AtExit(Option<Box<dyn FnOnce()>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

fn at_exit(last: impl FnOnce() + 'static) {
    AT_EXIT.with_borrow_mut(|at_exit| at_exit.0 = Some(Box::new(last)));
}

/// Any use of the crate that asks whether this thread is a worker.
fn touch(executor: &Executor) {
    drop(executor.wait_requests::<()>(&[], Duration::ZERO));
}

#[test]
fn a_thread_local_may_submit_while_it_is_destroyed() {
    type Submit = fn(&Executor) -> Result<u8, Error>;
    let ways: [(&str, Submit); 3] = [
        ("spawn", |executor| executor.spawn(|| 7)?.wait(HANG)),
        ("submit", |executor| {
            let operation = |_: &(), _key: &'static str| Ok::<_, Error>(7);
            executor.submit(&Arc::new(()), operation, true, "a key")?.wait(HANG)
        }),
        ("then", |executor| executor.spawn(|| 6)?.then(|n| Ok::<_, Error>(n + 1))?.wait(HANG)),
    ];
    for on_full in [OnFull::CallerRuns, OnFull::Wait(HANG)] {
        for made_first in [true, false] {
            for (way, submit) in ways {
                let what = format!("{way}, {on_full:?}, thread-local made first: {made_first}");
                ends(&what.clone(), move || {
                    let gate = Gate::new();
                    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(on_full).build();
                    let executor = executor.expect("sound");
                    let held = occupy(&executor, &gate);
                    let queued = executor.spawn(|| ()).expect("there is room");
                    let (told, tell): (Sender<Result<u8, Error>>, _) = channel();
                    let (theirs, open) = (executor.clone(), gate.clone());
                    let thread = thread::spawn(move || {
                        let user = theirs.clone();
                        let last = move || {
                            if on_full != OnFull::CallerRuns {
                                open.open();
                            }
                            told.send(submit(&theirs)).expect("the receiver lives");
                        };
                        if made_first {
                            at_exit(last);
                            touch(&user);
                        } else {
                            touch(&user);
                            at_exit(last);
                        }
                    });
                    // What runs here needs the held thread only where it is not the caller who
                    // runs.
                    let early = tell.recv_timeout(LONG);
                    gate.open();
                    let value = early.or_else(|_| tell.recv_timeout(HANG)).unwrap_or_else(|_| panic!("hang: {what}"));
                    assert_eq!(value.unwrap_or_else(|error| panic!("{what}: {error}")), 7);
                    thread.join().expect("no panic");
                    held.wait(None).expect("it was let go");
                    queued.wait(None).expect("it ends");
                    executor.shutdown(None).expect("ends");
                });
            }
        }
    }
}

/// On a worker of the executor itself.
#[test]
fn a_thread_local_of_a_worker_may_submit_while_it_is_destroyed() {
    ends("a worker's thread-local", || {
        let (a, b) = (executor(1), executor(1));
        let (told, tell) = channel();
        let (same, other) = (a.clone(), b.clone());
        let request = a.spawn(move || {
            at_exit(move || {
                let refused = same.spawn(|| 1).map(drop);
                told.send((refused, other.spawn(|| 2).and_then(|request| request.wait(None))))
                    .expect("the receiver lives");
            });
        });
        request.expect("accepted").wait(None).expect("ends");
        a.shutdown(None).expect("ends");
        let (same, other) = tell.recv().expect("the shutdown waited for it");
        assert!(matches!(same, Err(Error::ShutDown)), "{same:?}");
        assert_eq!(other.expect("another executor"), 2);
    });
}

// Threads that can't be had.

#[test]
#[cfg(target_os = "linux")]
fn a_thread_that_was_refused_is_tried_again() {
    if std::env::var_os("THREADS_REFUSED").is_some() {
        return without_threads_for_a_while();
    }
    let me = std::env::current_exe().expect("a path");
    let name = "ends::a_thread_that_was_refused_is_tried_again";
    let output = Command::new(me).args(["--exact", name, "--nocapture"]).env("THREADS_REFUSED", "1").output();
    let output = output.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // Under a wrong name nothing is run, and that succeeds as well.
    let is_run = text(&output.stdout).contains("1 passed");
    assert!(output.status.success() && is_run, "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Two threads are wanted, with a gigabyte of stack each, and for a while there is room for one.
#[cfg(target_os = "linux")]
fn without_threads_for_a_while() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = |bytes| {
        let maximum = getrlimit(Resource::As).maximum;
        setrlimit(Resource::As, Rlimit { current: bytes, maximum }).expect("one's own limit may be set");
    };
    let used = || {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("linux");
        pages.split(' ').next().and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4_096
    };
    let executor = Executor::builder().threads(2).stack_size(1 << 30).build().expect("sound");
    let gate = Gate::new();
    let held = occupy(&executor, &gate);
    limit(Some(used() + (512 << 20)));
    // Behind the held one; the second thread is refused.
    let queued = executor.spawn(|| 7).expect("there is a thread for it, if a busy one");
    assert!(queued.wait(Duration::from_millis(20)).expect_err("no thread is free").is_timeout());
    limit(None);
    // No push, no end of a request: it is tried again all the same.
    assert_eq!(queued.wait(HANG).expect("a thread can be had again"), 7);
    gate.open();
    held.wait(None).expect("it was let go");
    executor.shutdown(None).expect("ends");
    eventually("all threads have ended", || executor.stats().threads == 0);
}
