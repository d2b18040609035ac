//! A queued request is within reach of every free thread: whatever others wait for, it starts, and in its turn.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::Duration;

use fulmar::queue::bounded;
use fulmar::{AsyncRequest, Error, Executor};

use crate::support::{Gate, HANG, ends, executor, occupy};

/// Holds all threads back while `submit` submits, after some that do nothing, from which a pool may conclude that all are
/// short; then lets go and waits for what it returned.
fn all_end(what: &str, threads: usize, submit: impl Fn(&Executor) -> Vec<AsyncRequest<()>>) {
    for round in 0..20 {
        let (executor, gate) = (executor(threads), Gate::new());
        let held: Vec<_> = (0..threads).map(|_| occupy(&executor, &gate)).collect();
        for _ in 0..threads {
            drop(executor.spawn(|| ()).expect("accepted"));
        }
        let requests = submit(&executor);
        gate.open();
        let ended = executor.wait_requests(&requests, HANG / 6);
        assert!(ended.is_ok(), "{what}, {threads} threads, round {round}: {ended:?}, {}", executor.stats());
        executor.wait_requests(&held, None).expect("they were let go");
    }
}

fn pairs(executor: &Executor, count: usize) -> Vec<AsyncRequest<()>> {
    let mut requests = Vec::new();
    for _ in 0..count {
        let (send, receive) = channel();
        requests.push(executor.spawn(move || receive.recv().expect("it is sent")).expect("accepted"));
        requests.push(executor.spawn(move || send.send(()).expect("it is received")).expect("accepted"));
    }
    requests
}

#[test]
fn a_queued_request_is_within_reach_of_every_free_thread() {
    for (threads, count) in [(2, 1), (2, 4), (2, 32), (4, 16), (8, 64)] {
        all_end("pairs", threads, |executor| pairs(executor, count));
    }
}

#[test]
fn a_queued_request_is_within_reach_when_nothing_was_held_back() {
    for _ in 0..20 {
        let executor = executor(2);
        for _ in 0..200 {
            drop(executor.spawn(|| ()).expect("accepted"));
        }
        let ended = executor.wait_requests(&pairs(&executor, 200), HANG / 6);
        assert!(ended.is_ok(), "{ended:?}, {}", executor.stats());
    }
}

#[test]
fn a_queued_request_is_within_reach_of_who_waits_at_a_barrier() {
    for (threads, meet) in [(2, 2), (4, 4), (4, 2), (8, 8)] {
        all_end("barriers", threads, |executor| {
            let mut requests = Vec::new();
            for _ in 0..8 {
                let barrier = Arc::new(Barrier::new(meet));
                for _ in 0..meet {
                    let barrier = barrier.clone();
                    requests.push(executor.spawn(move || _ = barrier.wait()).expect("accepted"));
                }
            }
            requests
        });
    }
}

#[test]
fn a_queued_request_is_within_reach_of_the_other_end_of_a_bounded_queue() {
    for threads in [2, 4] {
        all_end("bounded queues", threads, |executor| {
            let mut requests = Vec::new();
            for _ in 0..16 {
                let (producer, consumer) = bounded(1).expect("sound");
                let take = move || assert_eq!(consumer.iter().sum::<u64>(), 45);
                let put = move || (0..10).for_each(|value| producer.put(value).expect("it is open"));
                requests.push(executor.spawn(take).expect("accepted"));
                requests.push(executor.spawn(put).expect("accepted"));
            }
            requests
        });
    }
}

#[test]
fn a_queued_request_is_within_reach_of_who_waits_on_a_condition() {
    all_end("conditions", 4, |executor| {
        // Three wait for the fourth.
        let mut requests = Vec::new();
        for _ in 0..8 {
            let shared = Arc::new((Mutex::new(false), Condvar::new()));
            for _ in 0..3 {
                let shared = shared.clone();
                let wait = move || {
                    let is_set = shared.0.lock().expect("no panic");
                    drop(shared.1.wait_while(is_set, |is_set| !*is_set).expect("no panic"));
                };
                requests.push(executor.spawn(wait).expect("accepted"));
            }
            let set = move || {
                *shared.0.lock().expect("no panic") = true;
                shared.1.notify_all();
            };
            requests.push(executor.spawn(set).expect("accepted"));
        }
        requests
    });
}

/// Channels whose ends are taken one by one: receivers by even numbers, senders by odd ones.
type Lines = Mutex<Vec<(Option<Sender<()>>, Option<Receiver<()>>)>>;

fn one_end(lines: &Lines, number: usize) -> Result<(), Error> {
    let line = |lines: &Lines| {
        let line = &mut lines.lock().expect("no panic")[number / 2];
        if number % 2 == 0 { (None, line.1.take()) } else { (line.0.take(), None) }
    };
    let (send, receive) = line(lines);
    send.into_iter().for_each(|send| send.send(()).expect("it is received"));
    receive.into_iter().for_each(|receive| receive.recv().expect("it is sent"));
    Ok(())
}

#[test]
fn a_queued_request_is_within_reach_on_keys_and_of_submit_many() {
    all_end("many at once", 2, |executor| {
        let lines = (0..16).map(|_| channel()).map(|(send, receive)| (Some(send), Some(receive)));
        let lines: Arc<Lines> = Arc::new(Mutex::new(lines.collect()));
        executor.submit_many(&lines, one_end, false, 0..32).expect("accepted")
    });
    all_end("modifiers on keys", 2, |executor| {
        let store = Arc::new(());
        let mut requests = Vec::new();
        for pair in 0..16 {
            let (send, receive) = channel();
            let wait = move |_: &(), _key: String| receive.recv();
            let open = move |_: &(), _key: String| send.send(());
            requests.push(executor.submit(&store, wait, true, format!("{pair} waits")).expect("accepted"));
            requests.push(executor.submit(&store, open, true, format!("{pair} sends")).expect("accepted"));
        }
        requests
    });
    // What is released is queued behind the others, so that one pair is all that two threads can bear.
    all_end("what a modifier held back", 2, |executor| {
        let (send, receive) = channel();
        let first = |_: &(), _key: &'static str| Ok::<_, Error>(());
        let open = move |_: &(), _key: &'static str| send.send(());
        let store = Arc::new(());
        let mut requests = vec![executor.submit(&store, first, true, "key").expect("accepted")];
        requests.push(executor.spawn(move || receive.recv().expect("it is sent")).expect("accepted"));
        requests.push(executor.submit(&store, open, true, "key").expect("accepted"));
        requests.extend((0..16).map(|_| executor.spawn(|| ()).expect("accepted")));
        requests
    });
}

#[test]
fn a_queued_request_is_within_reach_as_a_follower_and_after_a_delay() {
    all_end("followers", 2, |executor| {
        let (send, receive) = channel();
        let first = executor.spawn(|| ()).expect("accepted");
        let mut requests = vec![executor.spawn(move || receive.recv().expect("it is sent")).expect("accepted")];
        requests.push(first.then(move |()| send.send(())).expect("accepted"));
        requests.extend((0..16).map(|_| executor.spawn(|| ()).expect("accepted")));
        requests
    });
    all_end("delayed", 2, |executor| {
        let mut requests = Vec::new();
        let (send, receive) = channel();
        requests.push(executor.spawn(move || receive.recv().expect("it is sent")).expect("accepted"));
        let open = move |_: &(), ()| send.send(());
        requests
            .push(executor.submit_after(Duration::from_millis(1), &Arc::new(()), open, false, ()).expect("accepted"));
        requests.extend((0..16).map(|_| executor.spawn(|| ()).expect("accepted")));
        requests
    });
}

/// One of two threads is held by a long operation: what is queued starts on the other, one by one, in its turn.
#[test]
fn short_requests_behind_a_long_one_start_before_what_came_later() {
    for _ in 0..20 {
        let (executor, gate, long) = (executor(2), Gate::new(), Gate::new());
        let held = [occupy(&executor, &gate), occupy(&executor, &gate)];
        for _ in 0..2 {
            drop(executor.spawn(|| ()).expect("accepted"));
        }
        let pass = long.clone();
        let slow = executor.spawn(move || pass.pass()).expect("accepted");
        let started = Arc::new(Mutex::new(Vec::new()));
        let submit = |number| {
            let started = started.clone();
            executor.spawn(move || started.lock().expect("no panic").push(number)).expect("accepted")
        };
        let requests: Vec<_> = (0..3_000).map(submit).collect();
        gate.open();
        executor.wait_requests(&requests, HANG).expect("one thread is free");
        let started = std::mem::take(&mut *started.lock().expect("no panic"));
        let first_late = started.windows(2).find(|pair| pair[0] > pair[1]);
        assert_eq!(first_late, None, "requests start in the order in which they were queued");
        long.open();
        slow.wait(None).expect("it was let go");
        executor.wait_requests(&held, None).expect("they were let go");
    }
}

/// A resize and a reset take nothing out of reach.
#[test]
fn a_queued_request_stays_within_reach_through_resize_and_reset() {
    ends("pairs while the pool changes", || {
        for round in 0..50 {
            let executor = executor(2);
            let requests = pairs(&executor, 50);
            match round % 3 {
                0 => executor.resize(3).and_then(|()| executor.resize(2)).expect("live"),
                1 => drop(executor.reset(2, Duration::ZERO)),
                _ => drop(executor.shutdown(Duration::ZERO)),
            }
            executor.wait_requests(&requests, None).expect("all end");
        }
    });
}
