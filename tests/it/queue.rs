//! The bounded queue: its limit, its time limits, its close, and that no value is lost or handed out twice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use fulmar::Error;
use fulmar::queue::{GetError, GetTimeoutError, PutTimeoutError, TryGetError, TryPutError, bounded};

use crate::support::{Gate, HANG, eventually};

const MOMENT: Duration = Duration::from_millis(5);

#[test]
fn values_come_out_in_the_order_in_which_they_went_in() {
    let (producer, consumer) = bounded(3).expect("holds something");
    let mut next = 0;
    let mut expected = 0;
    // In and out by different steps, so that what waits begins and ends at every place of the ring.
    for step in [3, 1, 2, 3, 2, 1, 3] {
        while producer.try_put(next).is_ok() {
            next += 1;
        }
        assert_eq!(producer.len(), 3, "full");
        for _ in 0..step {
            assert_eq!(consumer.get(), Ok(expected));
            expected += 1;
        }
        assert_eq!(consumer.len(), 3 - step);
    }
    assert_eq!((producer.capacity(), consumer.capacity()), (3, 3));
}

#[test]
fn a_full_queue_blocks_a_put_and_a_get_releases_it() {
    let (producer, consumer) = bounded(1).expect("holds something");
    producer.put(1).expect("open");
    let (gate, done) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let putter = {
        let (gate, done) = (gate.clone(), done.clone());
        thread::spawn(move || {
            gate.pass();
            producer.put(2).expect("open");
            done.store(1, Ordering::SeqCst);
        })
    };
    gate.open();
    gate.await_arrivals(1);
    assert_eq!(done.load(Ordering::SeqCst), 0, "no room, so it has not come back");
    assert_eq!(consumer.len(), 1, "the limit holds");
    assert_eq!(consumer.get(), Ok(1));
    assert_eq!(consumer.get_timeout(HANG), Ok(2), "the get let the put in");
    putter.join().expect("no panic");
}

#[test]
fn a_put_wakes_a_waiting_get() {
    let (producer, consumer) = bounded(10).expect("holds something");
    let getter = thread::spawn(move || consumer.get_timeout(HANG));
    producer.put("value").expect("open");
    assert_eq!(getter.join().expect("no panic"), Ok("value"));
}

#[test]
fn a_time_limit_is_kept_and_the_value_comes_back() {
    let (producer, consumer) = bounded(1).expect("holds something");
    assert_eq!(consumer.get_timeout(MOMENT), Err(GetTimeoutError::Timeout));
    assert_eq!(consumer.get_timeout(Duration::ZERO), Err(GetTimeoutError::Timeout));
    producer.put("in".to_owned()).expect("open");
    let start = std::time::Instant::now();
    let refused = producer.put_timeout("out".to_owned(), MOMENT).expect_err("full");
    assert!(start.elapsed() >= MOMENT, "it waited");
    assert!(refused.is_timeout());
    assert_eq!(refused.into_inner(), "out");
    assert_eq!(producer.put_timeout("out".to_owned(), Duration::ZERO), Err(PutTimeoutError::Timeout("out".to_owned())));
    assert_eq!(producer.try_put("out".to_owned()), Err(TryPutError::Full("out".to_owned())));
    assert_eq!(consumer.get().as_deref(), Ok("in"), "a timeout changes nothing");
}

#[test]
fn a_time_limit_beyond_the_clock_is_none() {
    let (producer, consumer) = bounded(1).expect("holds something");
    assert_eq!(producer.put_timeout(1, Duration::MAX), Ok(()));
    let putter = thread::spawn(move || producer.put_timeout(2, Duration::MAX));
    assert_eq!(consumer.get_timeout(Duration::MAX), Ok(1));
    assert_eq!(consumer.get_timeout(Duration::MAX), Ok(2));
    assert_eq!(putter.join().expect("no panic"), Ok(()));
    assert_eq!(consumer.get_timeout(None), Err(GetTimeoutError::Closed));
}

#[test]
fn close_wakes_every_waiter() {
    let (producer, consumer) = bounded(1).expect("holds something");
    producer.put(0).expect("open");
    let gate = Gate::new();
    gate.open();
    let putters: Vec<_> = (1..=4)
        .map(|value| {
            let (producer, gate) = (producer.clone(), gate.clone());
            thread::spawn(move || {
                gate.pass();
                if value % 2 == 0 {
                    producer.put(value).map_err(|refused| refused.into_inner())
                } else {
                    producer.put_timeout(value, HANG).map_err(|refused| refused.into_inner())
                }
            })
        })
        .collect();
    gate.await_arrivals(4);
    producer.close();
    let refused: Vec<_> = putters.into_iter().map(|putter| putter.join().expect("no panic")).collect();
    assert_eq!(refused, [Err(1), Err(2), Err(3), Err(4)], "each gets its value back");
    assert_eq!(consumer.get(), Ok(0), "what was accepted is handed out");
    assert_eq!(consumer.get(), Err(GetError::Closed));

    let (producer, consumer) = bounded::<u64>(1).expect("holds something");
    let gate = Gate::new();
    gate.open();
    let getters: Vec<_> = (0..4)
        .map(|_| {
            let (consumer, gate) = (consumer.clone(), gate.clone());
            thread::spawn(move || {
                gate.pass();
                consumer.get()
            })
        })
        .collect();
    gate.await_arrivals(4);
    producer.close();
    producer.close();
    for getter in getters {
        assert_eq!(getter.join().expect("no panic"), Err(GetError::Closed));
    }
}

#[test]
fn a_closed_queue_hands_out_what_is_left() {
    let (producer, consumer) = bounded(10).expect("holds something");
    (0..3).try_for_each(|value| producer.put(value)).expect("open");
    assert_eq!(consumer.get(), Ok(0));
    consumer.close();
    assert!(producer.is_closed() && consumer.is_closed());
    assert_eq!(producer.try_put(9), Err(TryPutError::Closed(9)));
    assert_eq!(producer.put_timeout(9, HANG), Err(PutTimeoutError::Closed(9)));
    assert_eq!(producer.put(9).expect_err("closed").into_inner(), 9);
    assert_eq!((consumer.try_get(), consumer.get_timeout(HANG)), (Ok(1), Ok(2)));
    assert_eq!(consumer.try_get(), Err(TryGetError::Closed));
    assert_eq!(consumer.get_timeout(None), Err(GetTimeoutError::Closed));
}

#[test]
fn the_last_of_either_half_closes() {
    let (producer, consumer) = bounded(10).expect("holds something");
    let another = producer.clone();
    producer.put(1).expect("open");
    drop(producer);
    another.put(2).expect("one producer is left");
    let getter = thread::spawn(move || consumer.iter().collect::<Vec<_>>());
    drop(another);
    assert_eq!(getter.join().expect("no panic"), [1, 2]);

    let (producer, consumer) = bounded(1).expect("holds something");
    producer.put(1).expect("open");
    let putter = {
        let producer = producer.clone();
        thread::spawn(move || producer.put(2))
    };
    drop(consumer.clone());
    assert!(!producer.is_closed(), "one consumer is left");
    drop(consumer);
    assert!(putter.join().expect("no panic").is_err(), "nobody would ever make room");
    assert_eq!(producer.drain(), [1], "what was accepted is not lost");
}

#[test]
fn drain_takes_all_and_lets_the_waiting_in() {
    let (producer, consumer) = bounded(4).expect("holds something");
    (0..4).try_for_each(|value| producer.put(value)).expect("open");
    assert_eq!(consumer.get(), Ok(0));
    producer.put(4).expect("open");
    let putters: Vec<_> = (5..8)
        .map(|value| {
            let producer = producer.clone();
            thread::spawn(move || producer.put(value))
        })
        .collect();
    let mut drained = Vec::new();
    while drained.len() < 7 {
        drained.extend(consumer.drain());
        thread::yield_now();
    }
    assert_eq!(drained[..4], [1, 2, 3, 4], "the oldest first");
    drained.sort_unstable();
    assert_eq!(drained, [1, 2, 3, 4, 5, 6, 7]);
    for putter in putters {
        putter.join().expect("no panic").expect("let in");
    }
    assert!(consumer.drain().is_empty());
}

#[test]
fn eight_producers_and_eight_consumers_lose_nothing_and_repeat_nothing() {
    const EACH: usize = 100_000;
    for capacity in [1_000, 7] {
        let (producer, consumer) = bounded(capacity).expect("holds something");
        let each = if capacity == 7 { EACH / 8 } else { EACH };
        let taken: Vec<AtomicU8> = (0..8 * each).map(|_| AtomicU8::new(0)).collect();
        thread::scope(|scope| {
            for number in 0..8 {
                let producer = producer.clone();
                scope.spawn(move || {
                    for value in number * each..(number + 1) * each {
                        match value % 5 {
                            0 => producer.put_timeout(value, HANG).expect("room in time"),
                            1 => {
                                let mut value = value;
                                while let Err(refused) = producer.try_put(value) {
                                    value = refused.into_inner();
                                    thread::yield_now();
                                }
                            }
                            _ => producer.put(value).expect("open"),
                        }
                    }
                });
                let (consumer, taken) = (consumer.clone(), &taken);
                scope.spawn(move || {
                    // The values of one producer come in their order.
                    let mut last = [None; 8];
                    for value in consumer.iter() {
                        let of = &mut last[value / each];
                        assert!(*of < Some(value), "{value} after {of:?}");
                        *of = Some(value);
                        taken[value].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            drop(producer);
            drop(consumer);
        });
        assert!(taken.iter().all(|taken| taken.load(Ordering::Relaxed) == 1), "each exactly once");
    }
}

#[test]
fn waiters_come_and_go_with_short_time_limits_and_nobody_is_forgotten() {
    let (producer, consumer) = bounded(2).expect("holds something");
    let (taken, put) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..4 {
            let (producer, put) = (producer.clone(), &put);
            scope.spawn(move || {
                for _ in 0..2_000 {
                    let limit = (number % 2 == 0).then_some(Duration::from_micros(50));
                    if producer.put_timeout((), limit).is_ok() {
                        put.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let (consumer, taken) = (consumer.clone(), &taken);
            scope.spawn(move || {
                loop {
                    let limit = (number % 2 == 0).then_some(Duration::from_micros(50));
                    match consumer.get_timeout(limit) {
                        Ok(()) => {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(GetTimeoutError::Timeout) => {}
                        Err(GetTimeoutError::Closed) => break,
                        Err(GetTimeoutError::Interrupted) => unreachable!("outside of an operation"),
                    }
                }
            });
        }
        drop(producer);
    });
    assert_eq!(taken.into_inner(), put.into_inner());
}

#[test]
fn what_a_producer_did_is_seen_by_the_consumer() {
    let (producer, consumer) = bounded(1).expect("holds something");
    let written = Arc::new(AtomicUsize::new(0));
    let sender = {
        let written = written.clone();
        thread::spawn(move || {
            written.store(7, Ordering::Relaxed);
            producer.put(()).expect("open");
        })
    };
    consumer.get().expect("a value");
    assert_eq!(written.load(Ordering::Relaxed), 7);
    sender.join().expect("no panic");
}

#[test]
fn values_are_dropped_with_the_queue_and_a_capacity_of_zero_is_refused() {
    let (producer, consumer) = bounded(10).expect("holds something");
    let value = Arc::new(());
    (0..3).try_for_each(|_| producer.put(value.clone())).expect("open");
    consumer.get().expect("a value");
    assert_eq!(Arc::strong_count(&value), 3);
    drop(consumer);
    drop(producer);
    assert_eq!(Arc::strong_count(&value), 1);
    match bounded::<()>(0) {
        Err(Error::Invalid(text)) => assert!(text.contains("capacity 0"), "{text}"),
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn a_destructor_that_panics_leaves_no_value_behind() {
    struct Fragile {
        number: usize,
        _alive: Arc<()>,
    }
    impl Drop for Fragile {
        fn drop(&mut self) {
            assert_ne!(self.number, 1, "meant to be");
        }
    }
    let (producer, consumer) = bounded(10).expect("holds something");
    let alive = Arc::new(());
    (0..3).try_for_each(|number| producer.put(Fragile { number, _alive: alive.clone() })).expect("open");
    drop(producer);
    catch_unwind(AssertUnwindSafe(|| drop(consumer))).expect_err("the destructor's own panic");
    assert_eq!(Arc::strong_count(&alive), 1, "those behind it are dropped as well");
}

#[test]
fn a_capacity_that_there_is_no_memory_for_is_refused() {
    for capacity in [usize::MAX, usize::MAX / 2, usize::MAX >> 8] {
        match bounded::<()>(capacity) {
            Err(Error::Invalid(text)) => assert!(text.contains(&capacity.to_string()), "{text}"),
            other => panic!("accepted: {other:?}"),
        }
    }
}

#[test]
fn puts_and_gets_that_race_with_a_close_lose_nothing_and_repeat_nothing() {
    for round in 0..500 {
        let (producer, consumer) = bounded(1 + round % 3).expect("holds something");
        let start = Barrier::new(4);
        thread::scope(|scope| {
            let putters: Vec<_> = (0..2)
                .map(|number| {
                    let (producer, start) = (&producer, &start);
                    scope.spawn(move || {
                        start.wait();
                        // Own values, on the heap, so that a mix-up shows.
                        let mut value = Box::new(number);
                        let mut accepted = Vec::new();
                        loop {
                            match producer.put(value) {
                                Ok(()) => accepted.push(number + 2 * accepted.len()),
                                Err(refused) => {
                                    assert_eq!(*refused.into_inner(), number + 2 * accepted.len(), "its own");
                                    return accepted;
                                }
                            }
                            value = Box::new(number + 2 * accepted.len());
                        }
                    })
                })
                .collect();
            let getter = scope.spawn(|| {
                start.wait();
                (0..round % 5).map_while(|_| consumer.get().ok()).collect::<Vec<_>>()
            });
            start.wait();
            producer.close();
            let left = if round % 2 == 0 { consumer.drain() } else { consumer.iter().collect() };
            // Nothing may come after this, wherever the others are.
            assert_eq!((consumer.try_get(), consumer.len()), (Err(TryGetError::Closed), 0));
            let mut got: Vec<_> =
                getter.join().expect("no panic").into_iter().chain(left).map(|value| *value).collect();
            let mut put: Vec<_> = putters.into_iter().flat_map(|putter| putter.join().expect("no panic")).collect();
            got.sort_unstable();
            put.sort_unstable();
            assert_eq!(got, put, "round {round}");
        });
    }
}

#[test]
fn a_queue_of_one_is_never_full_to_the_only_producer_who_has_seen_it_empty() {
    let (producer, consumer) = bounded(1).expect("holds something");
    let getter = thread::spawn(move || {
        while !matches!(consumer.try_get(), Err(TryGetError::Closed)) {
            thread::yield_now();
        }
    });
    for round in 0..50_000 {
        // The getter may be halfway out with the value.
        while !producer.is_empty() {
            thread::yield_now();
        }
        assert_eq!(producer.try_put(round), Ok(()));
    }
    drop(producer);
    getter.join().expect("no panic");
}

#[test]
fn errors_say_what_happened_and_ask_nothing_of_the_value() {
    struct Opaque;
    let (producer, consumer) = bounded(1).expect("holds something");
    producer.put(Opaque).expect("open");
    let full = producer.try_put(Opaque).expect_err("full");
    assert_eq!((full.to_string().as_str(), format!("{full:?}").as_str()), ("the queue is full", "Full(..)"));
    consumer.close();
    let closed: Box<dyn std::error::Error> = producer.put(Opaque).expect_err("closed").into();
    assert_eq!(closed.to_string(), "the queue is closed and takes no more values");
    assert_eq!(format!("{producer:?}"), "Producer { len: 1, capacity: 1, closed: true }");
    assert_eq!(consumer.drain().len(), 1);
    assert_eq!(
        consumer.get().err().map(|error| error.to_string()).as_deref(),
        Some("the queue is closed and nothing is left in it")
    );
}

#[test]
fn waiters_answer_one_value_at_a_time() {
    let (producer, consumer) = bounded(1).expect("holds something");
    let (sender, receiver) = mpsc::channel();
    let getters: Vec<_> = (0..3)
        .map(|_| {
            let (consumer, sender) = (consumer.clone(), sender.clone());
            thread::spawn(move || consumer.iter().for_each(|value| sender.send(value).expect("the test listens")))
        })
        .collect();
    for round in 0..100 {
        producer.put(round).expect("open");
        assert_eq!(receiver.recv_timeout(HANG), Ok(round));
    }
    drop(producer);
    eventually("the getters end", || getters.iter().all(thread::JoinHandle::is_finished));
}
