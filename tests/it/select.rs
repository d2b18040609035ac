//! Ends, results and queues in crossbeam's `select!`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fulmar::crossbeam_channel::{RecvTimeoutError, TryRecvError, after, never, select};
use fulmar::queue::{TryGetError, bounded};
use fulmar::{Error, Executor, RequestSet, Status};

use crate::support::{Gate, HANG, executor};

#[test]
fn the_end_of_a_request_is_selected_and_stays_so() {
    let gate = Gate::new();
    let hold = gate.clone();
    let request = executor(1).spawn(move || hold.pass()).expect("accepted");
    let (done, other) = (request.done(), request.done());
    gate.await_arrivals(1);
    assert_eq!(done.try_recv(), Err(TryRecvError::Empty), "it runs");
    gate.open();
    for _ in 0..2 {
        select! {
            recv(done) -> end => assert!(end.is_err(), "nothing is ever sent"),
            recv(after(HANG)) -> _ => panic!("hang"),
        }
    }
    assert_eq!(request.status(), Status::Completed, "the end is seen behind it");
    assert_eq!(other.recv_timeout(HANG), Err(RecvTimeoutError::Disconnected), "each that was asked for");
    assert_eq!(request.done().try_recv(), Err(TryRecvError::Disconnected), "and one that is asked for afterwards");
    request.wait(HANG).expect("the result is still there");
}

#[test]
fn every_kind_of_end_is_selected() {
    let executor = executor(1);
    let gate = Gate::new();
    let hold = gate.clone();
    let busy = executor.spawn(move || hold.pass()).expect("accepted");
    let panics = executor.spawn(|| panic!("in a test, on purpose")).expect("accepted");
    let cancelled = executor.spawn(|| ()).expect("accepted");
    let done = [busy.done(), panics.done(), cancelled.done()];
    assert!(cancelled.cancel());
    assert_eq!(done[2].recv_timeout(HANG), Err(RecvTimeoutError::Disconnected));
    gate.open();
    for done in done {
        assert_eq!(done.recv_timeout(HANG), Err(RecvTimeoutError::Disconnected));
    }
}

#[test]
fn a_set_gives_each_result_once_with_its_key_also_of_what_is_added_meanwhile() {
    const CHAINS: usize = 50;
    const LENGTH: usize = 20;
    let executor = executor(4);
    let set = RequestSet::new();
    for chain in 0..CHAINS {
        set.add(chain, executor.spawn(move || 1).expect("accepted"));
    }
    let mut reached = BTreeMap::new();
    while !set.is_empty() {
        let (chain, result) = set.receiver().recv_timeout(HANG).expect("a set that isn't empty has a result to come");
        let at = result.expect("a value");
        assert_eq!(reached.insert(chain, at).unwrap_or(0) + 1, at, "chain {chain}");
        if at < LENGTH {
            set.add(chain, executor.spawn(move || at + 1).expect("accepted"));
        }
    }
    assert_eq!(reached, (0..CHAINS).map(|chain| (chain, LENGTH)).collect());
    assert_eq!(set.receiver().try_recv().map(|_| ()), Err(TryRecvError::Empty), "and it waits for more");
}

#[test]
fn a_set_has_the_errors_too_and_cancels_all() {
    let executor = executor(1);
    let (gate, set) = (Gate::new(), RequestSet::default());
    let hold = gate.clone();
    let ended = executor.spawn(|| 9).expect("accepted");
    assert_eq!(ended.wait(HANG).expect("it ends"), 9);
    set.add("taken", ended);
    set.add(
        "runs",
        executor
            .spawn(move || {
                hold.pass();
                7
            })
            .expect("accepted"),
    );
    gate.await_arrivals(1);
    set.add("waits", executor.spawn(|| 8).expect("accepted"));
    set.add("panics", executor.spawn(|| panic!("never called")).expect("accepted"));
    assert_eq!((set.len(), set.cancel_all()), (4, 2));
    gate.open();
    let mut ends = BTreeMap::new();
    while !set.is_empty() {
        let (key, result) = set.receiver().recv_timeout(HANG).expect("one to come");
        assert!(ends.insert(key, result).is_none(), "{key} twice");
    }
    assert!(matches!(ends["taken"], Err(Error::ResultTaken)), "{ends:?}");
    assert!(matches!(ends["runs"], Ok(7)), "{ends:?}");
    assert!(matches!(ends["waits"], Err(Error::Cancelled)), "{ends:?}");
    assert!(matches!(ends["panics"], Err(Error::Cancelled)), "{ends:?}");
}

#[test]
fn a_set_that_is_dropped_lets_its_requests_go_on_and_keeps_no_result() {
    let executor = executor(1);
    let (gate, alive) = (Gate::new(), Arc::new(()));
    let set = RequestSet::new();
    for _ in 0..3 {
        let (hold, value) = (gate.clone(), alive.clone());
        set.add(
            (),
            executor
                .spawn(move || {
                    hold.pass();
                    value
                })
                .expect("accepted"),
        );
    }
    let results = set.receiver().clone();
    drop(set);
    gate.open();
    executor.shutdown(HANG).expect("all end");
    assert_eq!(executor.stats().completed, 3);
    assert_eq!(results.recv_timeout(HANG).map(|_| ()), Err(RecvTimeoutError::Disconnected));
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn ends_that_race_with_the_adding_are_not_missed() {
    let executor = executor(2);
    let set = Arc::new(RequestSet::new());
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        for adder in 0..2 {
            let (set, executor) = (set.clone(), executor.clone());
            scope.spawn(move || {
                for n in 0..2_000 {
                    set.add((adder, n), executor.spawn(move || n).expect("accepted"));
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while taken.fetch_add(1, Ordering::SeqCst) < 4_000 {
                    let ((_, key), value) = set.receiver().recv_timeout(HANG).expect("each comes");
                    assert_eq!(key, value.expect("a value"));
                }
            });
        }
    });
    assert!(set.is_empty());
}

#[test]
fn a_queue_is_ready_while_there_is_something_and_when_it_closes() {
    let (producer, consumer) = bounded(4).expect("a queue");
    let (ready, room) = (consumer.ready(), producer.ready());
    assert_eq!(ready.try_recv(), Err(TryRecvError::Empty), "nothing to get");
    assert_eq!(room.try_recv(), Ok(()), "room from the start");
    for value in 0..4 {
        producer.put(value).expect("open");
    }
    // One message for many puts, and another as long as something is left: one get a message gets them all.
    for value in 0..4 {
        assert_eq!((ready.try_recv(), consumer.try_get()), (Ok(()), Ok(value)));
    }
    assert_eq!((ready.try_recv(), consumer.try_get()), (Err(TryRecvError::Empty), Err(TryGetError::Empty)));
    assert_eq!(room.try_recv(), Ok(()));
    producer.put(9).expect("open");
    let late = consumer.ready();
    assert_eq!(late.try_recv(), Ok(()), "a watch that begins when there is a value");
    producer.close();
    // What was told before is still in the channel.
    assert_eq!([ready.try_recv(), ready.try_recv()], [Ok(()), Err(TryRecvError::Disconnected)]);
    assert_eq!(consumer.try_get(), Ok(9));
    assert_eq!(consumer.ready().try_recv().map_err(|_| consumer.try_get()), Err(Err(TryGetError::Closed)));
}

#[test]
fn selected_gets_and_puts_pass_every_value_on_beside_blocking_ones() {
    const EACH: u64 = 5_000;
    for capacity in [1, 2, 16] {
        let (producer, consumer) = bounded(capacity).expect("a queue");
        let mut sums = Vec::new();
        thread::scope(|scope| {
            let mut takers = Vec::new();
            for is_selecting in [true, true, false] {
                let consumer = consumer.clone();
                takers.push(scope.spawn(move || {
                    if !is_selecting {
                        return consumer.iter().sum::<u64>();
                    }
                    let (ready, idle) = (consumer.ready(), never::<()>());
                    let mut sum = 0;
                    loop {
                        select! {
                            recv(ready) -> _ => match consumer.try_get() {
                                Ok(value) => sum += value,
                                Err(TryGetError::Closed) => return sum,
                                Err(TryGetError::Empty) => {}
                            },
                            recv(idle) -> _ => {}
                            recv(after(HANG)) -> _ => panic!("hang"),
                        }
                    }
                }));
            }
            let putters: Vec<_> = [true, false]
                .map(|is_selecting| {
                    let producer = producer.clone();
                    scope.spawn(move || {
                        let room = producer.ready();
                        for value in 1..=EACH {
                            while is_selecting && producer.try_put(value).is_err() {
                                room.recv_timeout(HANG).expect("room in time");
                            }
                            if !is_selecting {
                                producer.put(value).expect("open");
                            }
                        }
                    })
                })
                .into_iter()
                .collect();
            putters.into_iter().for_each(|putter| putter.join().expect("no panic"));
            producer.close();
            sums.extend(takers.into_iter().map(|taker| taker.join().expect("no panic")));
        });
        assert_eq!(sums.iter().sum::<u64>(), EACH * (EACH + 1), "capacity {capacity}: {sums:?}");
    }
}

#[test]
fn a_watch_that_was_dropped_costs_nothing_more() {
    let (producer, consumer) = bounded(1).expect("a queue");
    for value in 0..10_000 {
        drop((consumer.ready(), producer.ready()));
        producer.put(value).expect("open");
        assert_eq!(consumer.get(), Ok(value));
    }
    let executor = Executor::builder().threads(1).build().expect("an executor");
    let gate = Gate::new();
    let hold = gate.clone();
    let request = executor.spawn(move || hold.pass()).expect("accepted");
    for _ in 0..10_000 {
        assert_eq!(request.done().try_recv(), Err(TryRecvError::Empty));
    }
    gate.open();
    request.wait(HANG).expect("it ends");
}
