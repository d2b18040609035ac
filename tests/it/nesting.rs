//! However deep it goes, nothing aborts the process: each case in a process of its own, which a stack overflow would end.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use fulmar::{AsyncRequest, Error, Executor, OnFull};

use crate::support::{Gate, HANG, executor, occupy};

/// Runs `body` in a process of its own, which runs the test of this name again.
#[track_caller]
fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os("NESTING_ALONE").is_some() {
        return body();
    }
    let me = std::env::current_exe().expect("a path");
    let name = format!("nesting::{test}");
    let output = Command::new(me).args(["--exact", &name]).env("NESTING_ALONE", "1").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{test}: {}\n{said}{error}", output.status);
}

fn chain(executor: &Executor, left: usize, done: Sender<()>) {
    if left == 0 {
        return done.send(()).expect("the receiver lives");
    }
    let next = executor.clone();
    drop(executor.spawn(move || chain(&next, left - 1, done)).expect("accepted"));
}

/// A chain of operations, each of which submits its successor to an executor that somebody else's request keeps full.
fn chain_on_a_full_executor(on_full: OnFull, threads: usize, length: usize) {
    let executor = Executor::builder().threads(threads).queue_capacity(1).on_full(on_full).build().expect("sound");
    let (gate, hold) = (Gate::new(), Gate::new());
    let held: Vec<_> = (1..threads).map(|_| occupy(&executor, &hold)).collect();
    let (done, is_done) = channel();
    let (first, pass) = (executor.clone(), gate.clone());
    let begin = move || {
        pass.pass();
        chain(&first, length, done);
    };
    drop(executor.spawn(begin).expect("accepted"));
    gate.await_arrivals(1);
    drop(executor.spawn(|| ()).expect("there is room for one"));
    gate.open();
    is_done.recv_timeout(HANG).expect("the chain ends");
    hold.open();
    executor.wait_requests(&held, None).expect("they were let go");
    executor.shutdown(None).expect("ends");
}

#[test]
fn a_chain_of_callers_that_run_their_successors_ends() {
    alone("a_chain_of_callers_that_run_their_successors_ends", || {
        for threads in [1, 2] {
            for length in [100, 3_000] {
                chain_on_a_full_executor(OnFull::CallerRuns, threads, length);
            }
        }
    });
}

/// It has 6,250 threads at once, each with a part of the chain on its stack.
#[test]
fn a_chain_of_a_hundred_thousand_callers_ends() {
    alone("a_chain_of_a_hundred_thousand_callers_ends", || {
        for threads in [1, 2] {
            chain_on_a_full_executor(OnFull::CallerRuns, threads, 100_000);
        }
    });
}

#[test]
fn a_chain_of_operations_that_wait_for_room_ends() {
    alone("a_chain_of_operations_that_wait_for_room_ends", || {
        for length in [100, 3_000, 30_000] {
            chain_on_a_full_executor(OnFull::Wait(HANG), 1, length);
        }
    });
}

/// Requests whose callbacks end the next one each, by cancelling it.
#[test]
fn callbacks_that_each_end_the_next_end() {
    alone("callbacks_that_each_end_the_next_end", || {
        const COUNT: usize = 100_000;
        let (executor, gate) = (executor(1), Gate::new());
        let held = occupy(&executor, &gate);
        let called = Arc::new(AtomicUsize::new(0));
        let mut next: Option<AsyncRequest<()>> = None;
        for _ in 0..COUNT {
            let request = executor.spawn(|| ()).expect("accepted");
            let (called, behind) = (called.clone(), next.take());
            request.on_complete(move |_| {
                called.fetch_add(1, Ordering::Relaxed);
                behind.into_iter().for_each(|behind| _ = behind.cancel());
            });
            next = Some(request);
        }
        assert!(next.expect("there are some").cancel());
        gate.open();
        held.wait(None).expect("it was let go");
        executor.shutdown(None).expect("ends");
        assert_eq!(called.load(Ordering::Relaxed), COUNT);
    });
}

/// The same by results: each callback's cancel comes too late, or the follower of each is the next.
#[test]
fn followers_of_followers_end() {
    alone("followers_of_followers_end", || {
        let (executor, gate) = (executor(1), Gate::new());
        let held = occupy(&executor, &gate);
        let mut last = executor.spawn(|| 0_usize).expect("accepted");
        for _ in 0..50_000 {
            last = last.then(|n| Ok::<_, Error>(n + 1)).expect("accepted");
        }
        gate.open();
        assert_eq!(last.wait(None).expect("it ends"), 50_000);
        // And where the first gives no value, so that all of them fail at once.
        let mut last = held.then(|()| Err::<usize, _>("an error")).expect("accepted");
        for _ in 0..50_000 {
            last = last.then(Ok::<_, Error>).expect("accepted");
        }
        assert!(matches!(last.wait(None), Err(Error::Operation(_))));
    });
}

fn nest(executor: &Executor, depth: usize) -> Result<usize, Error> {
    if depth == 0 {
        return Ok(0);
    }
    let inner = executor.clone();
    Ok(executor.spawn(move || nest(&inner, depth - 1))?.wait(None)?? + 1)
}

#[test]
fn nested_waits_end_however_deep() {
    alone("nested_waits_end_however_deep", || {
        for (threads, depth) in [(1, 50), (1, 500), (4, 500), (1, 2_000), (2, 5_000)] {
            let executor = executor(threads);
            let inner = executor.clone();
            let outer = executor.spawn(move || nest(&inner, depth)).expect("accepted");
            match outer.wait(HANG).expect("it ends, and doesn't panic") {
                Ok(reached) => assert_eq!(reached, depth),
                // As deep as memory and the system's threads go, and then the typed error that `wait` documents.
                Err(error) => assert!(depth > 500 && matches!(error, Error::Spawn(_)), "{depth}: {error:?}"),
            }
            executor.shutdown(None).expect("ends");
        }
    });
}

/// The same between executors: each waits on the other's thread.
#[test]
fn nested_waits_across_executors_end_however_deep() {
    fn ping(here: &Executor, there: &Executor, depth: usize) -> Result<usize, Error> {
        if depth == 0 {
            return Ok(0);
        }
        let (back, forth) = (here.clone(), there.clone());
        Ok(there.spawn(move || ping(&forth, &back, depth - 1))?.wait(None)?? + 1)
    }
    alone("nested_waits_across_executors_end_however_deep", || {
        for depth in [40, 500, 2_000] {
            let (a, b) = (executor(1), executor(1));
            match ping(&a, &b, depth) {
                Ok(reached) => assert_eq!(reached, depth),
                Err(error) => assert!(depth > 500 && matches!(error, Error::Spawn(_)), "{depth}: {error:?}"),
            }
            a.shutdown(None).expect("ends");
            b.shutdown(None).expect("ends");
        }
    });
}
