//! Promises under random schedules, at sizes where no model checker gets through all orders.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --release --no-default-features --test random_schedules -- --nocapture` takes each
//! scenario through five thousand schedules and prints its seed. With `FULMAR_PCT_SEED=SEED` the same schedules come again,
//! `FULMAR_PCT_SCHEDULES=N` says how many.
//!
//! The scheduler gives threads random priorities and lowers one at each of `DEPTH - 1` random steps: a bug that takes so
//! many ordered steps is found with a known probability. It calls all threads blocked a deadlock. Deadlines never pass, so
//! that whoever misses his wake-up is stuck. Source: Burckhardt, Kothari, Musuvathi, Nagarakatte, "A Randomized Scheduler
//! with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010.
#![cfg(shuttle)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fulmar::{AsyncRequest, Error, Executor, OnFull, Policy, as_completed};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::PctScheduler;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Barrier, Condvar, Mutex};
use shuttle::{Config, MaxSteps, Runner, thread};

const DEPTH: usize = 3;
const HOUR: Duration = Duration::from_secs(3_600);

fn check(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    let variable = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let seed = variable("FULMAR_PCT_SEED").unwrap_or_else(clock);
    let schedules = variable("FULMAR_PCT_SCHEDULES").unwrap_or(5_000) as usize;
    println!("{name}: FULMAR_PCT_SEED={seed}");

    let mut config = Config::new();
    config.stack_size = 512 * 1024;
    config.max_steps = MaxSteps::FailAfter(10_000_000);
    config.silence_warnings = true; // It takes every atomic for sequentially consistent: weaker ones are loom's.
    let start = Instant::now();
    Runner::new(PctScheduler::new_from_seed(seed, DEPTH, schedules), config).run(scenario);
    println!("{name}: {schedules} schedules in {:.1?}", start.elapsed());
}

fn executor(threads: usize) -> Executor {
    Executor::builder().threads(threads).build().expect("sound")
}

/// All that was accepted ends, and the threads, too.
fn end(executor: &Executor) {
    executor.shutdown(None).expect("ends");
    let stats = executor.stats();
    assert_eq!(stats.unfinished(), 0, "{stats}");
    let ended = stats.completed + stats.failed + stats.panicked + stats.cancelled;
    assert_eq!(stats.submitted, ended, "{stats}");
    assert_eq!(stats.threads, 0, "{stats}");
}

/// Requests that do nothing, after which a pool may believe that all are short.
fn short_ones(executor: &Executor, count: usize) {
    for _ in 0..count {
        drop(executor.spawn(|| ()).expect("accepted"));
    }
}

fn random(below: usize) -> usize {
    thread_rng().gen_range(0..below)
}

/// Whoever passes waits until it is open.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        let mut open = self.0.lock().expect("no panic");
        while !*open {
            open = self.1.wait(open).expect("no panic");
        }
    }

    fn open(&self) {
        *self.0.lock().expect("no panic") = true;
        self.1.notify_all();
    }
}

// Promise 11: a queued request is within reach of every free thread.

/// Pairs of which the first waits for the second, submitted in order.
fn pairs(threads: usize, pairs: usize) {
    let executor = executor(threads);
    short_ones(&executor, threads);
    let mut requests: Vec<AsyncRequest<()>> = Vec::new();
    for _ in 0..pairs {
        let gate = Arc::new(Gate::default());
        let opener = gate.clone();
        requests.push(executor.spawn(move || gate.pass()).expect("accepted"));
        requests.push(executor.spawn(move || opener.open()).expect("accepted"));
    }
    for request in &requests {
        request.wait(None).expect("ends");
    }
    end(&executor);
}

#[test]
fn pairs_that_wait_for_each_other_on_2_threads() {
    check("pairs on 2 threads", || pairs(2, 4));
}

#[test]
fn pairs_that_wait_for_each_other_on_4_threads() {
    check("pairs on 4 threads", || pairs(4, 16));
}

#[test]
fn pairs_that_wait_for_each_other_on_8_threads() {
    check("pairs on 8 threads", || pairs(8, 64));
}

#[test]
fn as_many_as_there_are_threads_meet_at_a_barrier() {
    check("barrier", || {
        let threads = 2 + random(3);
        let executor = executor(threads);
        short_ones(&executor, threads);
        for _ in 0..3 {
            let barrier = Arc::new(Barrier::new(threads));
            for _ in 0..threads {
                let barrier = barrier.clone();
                drop(executor.spawn(move || _ = barrier.wait()).expect("accepted"));
            }
        }
        end(&executor);
    });
}

#[test]
fn the_ends_of_a_bounded_queue_meet_on_one_pool() {
    check("bounded queue", || {
        let executor = executor(2);
        short_ones(&executor, 2);
        let (producer, consumer) = fulmar::queue::bounded(1).expect("sound");
        for _ in 0..4 {
            let (producer, consumer) = (producer.clone(), consumer.clone());
            drop(executor.spawn(move || consumer.get().map(drop)).expect("accepted"));
            drop(executor.spawn(move || producer.put(1)).expect("accepted"));
        }
        end(&executor);
    });
}

#[test]
fn requests_start_in_the_order_in_which_they_were_queued() {
    check("order of starts", || {
        let executor = executor(2);
        let (started, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Gate::default()));
        short_ones(&executor, 2);
        // One thread is held, so that all that follow start on the other, one by one.
        let held = gate.clone();
        drop(executor.spawn(move || held.pass()).expect("accepted"));
        let requests: Vec<AsyncRequest<()>> = (0..8)
            .map(|number| {
                let started = started.clone();
                executor.spawn(move || started.lock().expect("no panic").push(number)).expect("accepted")
            })
            .collect();
        for request in &requests {
            request.wait(None).expect("ends");
        }
        assert_eq!(*started.lock().expect("no panic"), (0..8).collect::<Vec<_>>());
        gate.open();
        end(&executor);
    });
}

// Waits inside operations.

fn tree(executor: &Executor, depth: usize) -> usize {
    if depth == 0 {
        return 1;
    }
    let below = |executor: Executor| move || tree(&executor, depth - 1);
    let requests: Vec<AsyncRequest<usize>> =
        (0..2).map(|_| executor.spawn(below(executor.clone())).expect("accepted")).collect();
    match random(3) {
        0 => requests.iter().map(|request| request.wait(None).expect("ends")).sum::<usize>() + 1,
        1 => as_completed(&requests, None).map(|(_, result)| result.expect("ends")).sum::<usize>() + 1,
        _ => {
            let first = executor.wait_any_request(&requests, None).expect("one ends");
            let rest = requests[1 - first].wait(HOUR).expect("ends");
            requests[first].wait(None).expect("it has ended") + rest + 1
        }
    }
}

#[test]
fn operations_that_wait_for_operations_end_on_any_number_of_threads() {
    check("nested waits", || {
        let executor = executor(1 + random(3));
        assert_eq!(tree(&executor, 3), 15);
        end(&executor);
    });
}

#[test]
fn operations_of_two_executors_wait_for_each_other() {
    check("two executors", || {
        let (one, other) = (executor(1 + random(2)), executor(1));
        let requests: Vec<AsyncRequest<usize>> = (0..3)
            .map(|_| {
                let (home, other) = (one.clone(), other.clone());
                let inside = move || {
                    let back = move || home.spawn(|| 1).expect("accepted").wait(None).expect("ends") + 1;
                    other.spawn(back).expect("accepted").wait(None).expect("ends") + 1
                };
                one.spawn(inside).expect("accepted")
            })
            .collect();
        for request in &requests {
            assert_eq!(request.wait(None).expect("ends"), 3);
        }
        end(&one);
        end(&other);
    });
}

// Order on a key.

/// Which request ran, and whether it modified.
type Log = Mutex<Vec<(usize, bool)>>;

#[test]
fn requests_on_one_key_run_as_if_in_the_order_of_submission() {
    check("order on keys", || {
        let executor = executor(3);
        let store: Arc<[Log; 2]> = Arc::default();
        let inside: Arc<[AtomicUsize; 2]> = Arc::default();
        let keys = ["a", "b"];
        let submit = |number: usize, key: usize, modifies: bool| {
            let inside = inside.clone();
            let operation = move |store: &[Log; 2], _key: &'static str| {
                // Modifiers alone count 100.
                let before = inside[key].fetch_add(if modifies { 100 } else { 1 }, Ordering::SeqCst);
                assert!(before == 0 || (!modifies && before < 100), "a modifier runs alone");
                store[key].lock().expect("no panic").push((number, modifies));
                thread::yield_now();
                inside[key].fetch_sub(if modifies { 100 } else { 1 }, Ordering::SeqCst);
                Ok::<_, Error>(())
            };
            executor.submit(&store, operation, modifies, keys[key]).expect("accepted")
        };
        let requests: Vec<_> = (0..12).map(|number| submit(number, random(2), random(2) == 0)).collect();
        let cancelled: Vec<bool> = requests.iter().map(|request| random(6) == 0 && request.cancel()).collect();
        for (request, cancelled) in requests.iter().zip(cancelled) {
            match request.wait(None) {
                Ok(()) => {}
                Err(Error::Cancelled) => assert!(cancelled),
                other => panic!("{other:?}"),
            }
        }
        for log in store.iter() {
            let log = log.lock().expect("no panic");
            for (at, (number, modifies)) in log.iter().enumerate() {
                let overtaken = log[at + 1..].iter().any(|(later, other)| later < number && (*modifies || *other));
                assert!(!overtaken, "{log:?}");
            }
        }
        end(&executor);
    });
}

// Every accepted request ends exactly once.

#[test]
fn nothing_is_lost_and_nothing_runs_twice() {
    check("churn", || {
        let executor = executor(2);
        let runs: Arc<Vec<AtomicUsize>> = Arc::new((0..12).map(|_| AtomicUsize::new(0)).collect());
        let shakers: Vec<_> = (0..2)
            .map(|_| {
                let executor = executor.clone();
                thread::spawn(move || match random(4) {
                    0 => executor.resize(1 + random(3)).expect("live"),
                    1 => executor.reset(1 + random(3), None).expect("the old threads end"),
                    2 => executor.shutdown(None).and_then(|()| executor.reset(2, None)).expect("opens again"),
                    _ => drop(executor.stats()),
                })
            })
            .collect();
        let mut accepted = vec![false; runs.len()];
        let mut cancelled = vec![false; runs.len()];
        let mut requests = Vec::new();
        for number in 0..runs.len() {
            let runs = runs.clone();
            let run = move || runs[number].fetch_add(1, Ordering::SeqCst);
            match executor.spawn(run) {
                Ok(request) => {
                    accepted[number] = true;
                    cancelled[number] = random(4) == 0 && request.cancel();
                    requests.push(request);
                }
                Err(error) => assert!(matches!(error, Error::ShutDown), "{error}"),
            }
        }
        for shaker in shakers {
            shaker.join().expect("no panic");
        }
        end(&executor);
        for number in 0..runs.len() {
            let ran = runs[number].load(Ordering::SeqCst);
            // A running one that is cancelled runs to its end.
            assert!(ran <= 1, "ran twice");
            assert!(
                cancelled[number] || (ran == 1) == accepted[number],
                "{number}: accepted and not run, or the other way round"
            );
        }
        assert!(requests.iter().all(AsyncRequest::is_done));
    });
}

/// A request that has its place on its key and is not queued yet may still be refused: no waiting thread runs it before.
#[test]
fn a_request_is_run_only_after_it_was_queued() {
    check("submissions on one key during a shutdown", || {
        let executor = executor(1 + random(2));
        let (store, ran) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let submitters: Vec<_> = (0..2)
            .map(|_| {
                let (executor, store, ran) = (executor.clone(), store.clone(), ran.clone());
                thread::spawn(move || {
                    let operation = move |_: &(), _key: &'static str| {
                        ran.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, Error>(())
                    };
                    let Ok(request) = executor.submit(&store, operation, true, "a") else { return 0 };
                    // A thread stands in for the operation that waits, and runs first what is ahead of its request.
                    drop(executor.spawn(move || request.wait(None)));
                    1
                })
            })
            .collect();
        let watcher = thread::spawn({
            let executor = executor.clone();
            move || {
                let stats = executor.stats();
                assert!(stats.unfinished() <= stats.submitted, "{stats}");
            }
        });
        end(&executor);
        let accepted: usize = submitters.into_iter().map(|submitter| submitter.join().expect("no panic")).sum();
        watcher.join().expect("no panic");
        end(&executor);
        assert_eq!(ran.load(Ordering::SeqCst), accepted);
    });
}

/// A shutdown and a reset each change several parts: together they leave all of them open, or all closed.
#[test]
fn a_shutdown_during_a_reset_leaves_it_open_or_closed() {
    check("shutdown and reset", || {
        let executor = executor(1 + random(2));
        drop(executor.spawn(|| ()).expect("accepted"));
        let closers: Vec<_> = (0..2)
            .map(|_| {
                let executor = executor.clone();
                thread::spawn(move || executor.shutdown(None).expect("ends"))
            })
            .collect();
        // Zero looks once: what is left of the old threads doesn't matter here.
        drop(executor.reset(1, Duration::ZERO));
        closers.into_iter().for_each(|closer| closer.join().expect("no panic"));
        match executor.spawn(|| ()) {
            Ok(request) => {
                assert!(matches!(executor.await_termination(None), Err(Error::Invalid(_))), "it is open");
                request.then(|()| Ok::<_, Error>(())).expect("open for all").wait(None).expect("it runs");
            }
            Err(refused) => {
                assert!(matches!(refused, Error::ShutDown));
                executor.await_termination(None).expect("it is closed");
            }
        }
        end(&executor);
    });
}

/// A reset tells a thread to leave that has just decided which other one to wake: that one has to be woken all the same, or
/// the reset waits for it for ever.
#[test]
fn a_reset_beside_waits_inside_operations_ends() {
    check("reset and nested waits", || {
        let executor = executor(2 + random(2));
        let outer: Vec<_> = (0..3)
            .map(|_| {
                let inner = executor.clone();
                let wait = move || inner.spawn(|| ()).and_then(|request| request.wait(None));
                executor.spawn(wait).expect("accepted")
            })
            .collect();
        executor.reset(2, None).expect("the old threads end");
        for request in outer {
            request.wait(None).and_then(|waited| waited).expect("its part ran");
        }
        end(&executor);
    });
}

/// A reset may come between the end for which a shutdown waits and its last step, which joins the timer's thread: a series
/// that begins then has that thread run again, for as long as the executor is open.
#[test]
fn a_shutdown_beside_a_reset_and_a_series_ends() {
    check("shutdown, reset and series", || {
        let executor = executor(1);
        let nothing = |_: &(), _key: &'static str| Ok::<_, Error>(());
        drop(executor.submit_every(HOUR, &Arc::new(()), nothing, false, "a").expect("accepted"));
        let other = executor.clone();
        let closer = thread::spawn(move || other.shutdown(None).expect("ends"));
        executor.reset(1, None).expect("the old threads end");
        match executor.submit_every(HOUR, &Arc::new(()), nothing, false, "a") {
            Ok(series) => drop(series),
            Err(refused) => assert!(matches!(refused, Error::ShutDown), "{refused}"),
        }
        closer.join().expect("no panic");
        end(&executor);
    });
}

#[test]
fn whoever_waits_for_room_is_let_in() {
    check("full queue", || {
        let executor =
            Executor::builder().threads(1 + random(2)).queue_capacity(2 + random(2)).on_full(OnFull::Wait(HOUR));
        let executor = executor.build().expect("sound");
        let submitters: Vec<_> = (0..3)
            .map(|_| {
                let executor = executor.clone();
                thread::spawn(move || match random(2) {
                    0 => (0..3).map(|_| drop(executor.spawn(|| ()).expect("let in"))).count(),
                    _ => {
                        let operation = |_: &(), number: usize| Ok::<_, Error>(number);
                        executor.submit_many(&Arc::new(()), operation, random(2) == 0, 0..2).expect("let in").len()
                    }
                })
            })
            .collect();
        let submitted: usize = submitters.into_iter().map(|submitter| submitter.join().expect("no panic")).sum();
        end(&executor);
        assert_eq!(executor.stats().completed, submitted as u64);
    });
}

#[test]
fn a_full_executor_loses_nothing_of_what_keys_hold_back() {
    check("full queue, keys", || {
        let on_full = [OnFull::Wait(HOUR), OnFull::CallerRuns, OnFull::Reject][random(3)];
        let executor = Executor::builder().threads(1 + random(2)).queue_capacity(2).on_full(on_full);
        let executor = executor.build().expect("sound");
        let (store, ran) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let submitters: Vec<_> = (0..3)
            .map(|_| {
                let (executor, store, ran) = (executor.clone(), store.clone(), ran.clone());
                thread::spawn(move || {
                    let mut accepted = 0;
                    for _ in 0..2 {
                        let ran = ran.clone();
                        let operation = move |_: &(), _key: &'static str| {
                            ran.fetch_add(1, Ordering::SeqCst);
                            Ok::<_, Error>(())
                        };
                        let keys = [["a", "a"], ["a", "b"], ["b", "a"]][random(3)];
                        match executor.submit_many(&store, operation, random(3) > 0, keys) {
                            Ok(requests) => accepted += requests.len(),
                            Err(error) => assert!(matches!(error, Error::QueueFull), "{error}"),
                        }
                    }
                    accepted
                })
            })
            .collect();
        let accepted: usize = submitters.into_iter().map(|submitter| submitter.join().expect("no panic")).sum();
        end(&executor);
        assert_eq!(ran.load(Ordering::SeqCst), accepted);
    });
}

#[test]
fn operations_wait_for_what_their_keys_hold_back_or_are_told() {
    check("waits on keys", || {
        let executor = executor(1 + random(2));
        let store = Arc::new(());
        let requests: Vec<AsyncRequest<()>> = (0..4)
            .map(|number| {
                let (inner, below) = (executor.clone(), store.clone());
                let operation = move |_: &(), _key: &'static str| {
                    let nothing = |_: &(), _key: &'static str| Ok::<_, Error>(());
                    let key = if random(2) == 0 { "a" } else { "b" };
                    let below = inner.submit(&below, nothing, random(2) == 0, key).expect("accepted");
                    match below.wait(None) {
                        Ok(()) | Err(Error::WouldDeadlock) => Ok::<_, Error>(()),
                        Err(other) => panic!("{other}"),
                    }
                };
                executor
                    .submit(&store, operation, random(2) == 0, if number % 2 == 0 { "a" } else { "b" })
                    .expect("accepted")
            })
            .collect();
        for request in &requests {
            request.wait(None).expect("ends");
        }
        end(&executor);
    });
}

/// It waits for what needs the caller's key, and the caller cancels it before it waits for its end:
/// that makes a circle which the cancel has broken before.
#[test]
fn a_wait_is_told_of_the_cancel_that_came_before_the_circle() {
    check("cancelled waits in a circle", || {
        let executor = executor(2);
        let (store, inner) = (Arc::new(()), executor.clone());
        let same = store.clone();
        let cancels = move |_: &(), _key: &'static str| {
            let nothing = |_: &(), _key: &'static str| Ok::<_, Error>(());
            let (below, kind) = (inner.clone(), random(4));
            let waits = inner.spawn(move || {
                let group = below.group(Policy::Each);
                let behind = (0..2).map(|_| match kind {
                    0 => group.submit(&same, nothing, true, "k"),
                    _ => below.submit(&same, nothing, true, "k"),
                });
                let behind = behind.collect::<Result<Vec<_>, Error>>()?;
                match kind {
                    0 => group.wait(None).map(drop),
                    1 => below.wait_requests(&behind, None).map(drop),
                    2 => as_completed(&behind, None).try_for_each(|(_, ended)| ended),
                    _ => below.wait_any_request(&behind, None).map(drop),
                }
            })?;
            thread::yield_now();
            waits.cancel();
            Ok::<_, Error>(waits.wait(None))
        };
        let told = executor.submit(&store, cancels, true, "k").expect("accepted").wait(None);
        assert!(matches!(told, Ok(Ok(Err(Error::Interrupted)) | Err(Error::Cancelled))), "{told:?}");
        end(&executor);
    });
}

/// What an operation waits for comes to wait for that operation only later: when its time or its key lets it go on, and it
/// asks for a turn that the operation has.
#[test]
fn operations_wait_for_turns_times_and_followers_or_are_told() {
    check("waits on turns", || {
        let executor = executor(1 + random(2));
        let limits = Arc::new([1, 2].map(|turns| executor.limit(turns).expect("sound")));
        let store = Arc::new(());
        let submit = move |executor: &Executor, inside: Box<dyn FnOnce() + Send>| {
            let (limit, modifies, key) = (&limits[random(2)], random(2) == 0, ["a", "b"][random(2)]);
            let on_key = |inside: Box<dyn FnOnce() + Send>| {
                move |_: &(), _key: &'static str| {
                    inside();
                    Ok::<_, Error>(())
                }
            };
            let request = match random(5) {
                0 => executor.submit(&store, on_key(inside), modifies, key),
                1 => executor.submit_after(Duration::ZERO, &store, on_key(inside), modifies, key),
                2 => limit.spawn(inside),
                _ => limit.submit(&store, on_key(inside), modifies, key),
            };
            let request: AsyncRequest<()> = request.expect("accepted");
            if random(2) == 0 { request } else { request.then(|()| ()).expect("accepted") }
        };
        let submit = Arc::new(submit);
        let requests: Vec<_> = (0..4)
            .map(|_| {
                let (inner, below) = (executor.clone(), submit.clone());
                let waits = move || match below(&inner, Box::new(|| ())).wait(None) {
                    Ok(()) | Err(Error::WouldDeadlock) => {}
                    Err(other) => panic!("{other}"),
                };
                submit(&executor, Box::new(waits))
            })
            .collect();
        for request in requests {
            request.wait(None).expect("ends");
        }
        end(&executor);
    });
}

#[test]
fn followers_callbacks_and_cancels_end_exactly_once() {
    check("followers", || {
        let executor = executor(1 + random(2));
        let called = Arc::new(AtomicUsize::new(0));
        let first = executor.spawn(|| 0_usize).expect("accepted");
        let mut requests = vec![first];
        for _ in 0..5 {
            let last = requests.last().expect("the first");
            let next = last.then(|n| Ok::<_, Error>(n + 1)).expect("accepted");
            let count = called.clone();
            next.on_complete(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
            });
            requests.push(next);
        }
        let last = requests.pop().expect("the last");
        let victims = requests;
        let canceller = thread::spawn(move || (random(3) == 0) && victims[random(victims.len())].cancel());
        let result = last.wait(None);
        let cancelled = canceller.join().expect("no panic");
        match result {
            Ok(value) => assert_eq!(value, 5),
            Err(Error::Cancelled) => assert!(cancelled),
            Err(other) => panic!("{other}"),
        }
        end(&executor);
        assert_eq!(called.load(Ordering::SeqCst), 5, "a callback is still to come");
    });
}

#[test]
fn the_last_handle_lets_what_was_accepted_finish() {
    check("last handle", || {
        let ran = Arc::new(AtomicUsize::new(0));
        let executor = executor(2);
        let store = Arc::new(());
        let requests: Vec<AsyncRequest<()>> = (0..6)
            .map(|number| {
                let ran = ran.clone();
                let operation = move |_: &(), _key: &'static str| {
                    ran.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Error>(())
                };
                executor.submit(&store, operation, number % 2 == 0, "a key").expect("accepted")
            })
            .collect();
        let other = executor.clone();
        let dropper = thread::spawn(move || drop(other));
        drop(executor);
        for request in requests {
            request.wait(None).expect("ends");
        }
        dropper.join().expect("no panic");
        assert_eq!(ran.load(Ordering::SeqCst), 6);
    });
}

// Ends.

#[test]
fn a_shutdown_returns_after_threads_and_callbacks() {
    check("shutdown", || {
        let executor = executor(1 + random(3));
        let called = Arc::new(AtomicUsize::new(0));
        for _ in 0..4 {
            let request = executor.spawn(|| ()).expect("accepted");
            let count = called.clone();
            request.on_complete(move |_| {
                thread::yield_now();
                count.fetch_add(1, Ordering::SeqCst);
            });
            if random(3) == 0 {
                let canceller = thread::spawn(move || request.cancel());
                if random(2) == 0 {
                    canceller.join().expect("no panic");
                }
            }
        }
        let other = executor.clone();
        let second = thread::spawn(move || other.shutdown(None).expect("ends"));
        end(&executor);
        assert_eq!(called.load(Ordering::SeqCst), 4, "a callback is still to come");
        second.join().expect("no panic");
    });
}

#[test]
fn many_wait_for_one_and_one_gets_the_result() {
    check("many waiters", || {
        let executor = executor(1);
        let request = Arc::new(executor.spawn(|| ()).expect("accepted"));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let request = request.clone();
                thread::spawn(move || match request.wait(None) {
                    Ok(()) => 1,
                    Err(Error::ResultTaken) => 0,
                    Err(other) => panic!("{other}"),
                })
            })
            .collect();
        let taken: usize = waiters.into_iter().map(|waiter| waiter.join().expect("no panic")).sum();
        assert_eq!(taken, 1);
        end(&executor);
    });
}

#[test]
fn executors_that_shut_each_other_down_are_told() {
    check("ring of shutdowns", || {
        let executors = [executor(1), executor(1)];
        // The first may shut the second down before that has its request.
        let requests: Vec<AsyncRequest<bool>> = (0..2)
            .filter_map(|index| {
                let other = executors[1 - index].clone();
                let shut = move || match other.shutdown(None) {
                    Ok(()) => true,
                    Err(Error::WouldDeadlock) => false,
                    Err(error) => panic!("{error}"),
                };
                executors[index].spawn(shut).ok()
            })
            .collect();
        let _ = requests.iter().map(|request| request.wait(None).expect("ends")).collect::<Vec<_>>();
        executors.iter().for_each(end);
    });
}
