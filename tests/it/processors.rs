//! Submitters and processors at both ends of a queue: nothing hangs, nothing is lost, and the
//! account adds up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fulmar::pipeline::{Dropped, PeriodicSubmitter, Processor, ProcessorStats};
use fulmar::queue::bounded;
use fulmar::{Error, Executor, OnFull};

use crate::support::{Gate, HANG, eventually, executor, occupy};

const MOMENT: Duration = Duration::from_millis(5);

fn assert_adds_up(stats: &ProcessorStats) {
    assert_eq!(stats.taken, stats.running + stats.handled + stats.failed + stats.panicked, "{stats}");
}

#[test]
fn a_submitter_puts_its_value_n_times_on_its_cadence() {
    let (producer, consumer) = bounded(10).expect("holds something");
    let start = std::time::Instant::now();
    let submitter = PeriodicSubmitter::builder(producer).every(MOMENT).times(5).submit(100).expect("starts");
    assert_eq!(submitter.id(), 1);
    assert_eq!(consumer.iter().collect::<Vec<_>>(), [100; 5], "then it gives up its producer, the last");
    assert!(start.elapsed() >= 4 * MOMENT, "the first at once, and four periods");
    let stats = submitter.wait(HANG).expect("ended");
    assert_eq!((stats.offered(), stats.submitted, stats.dropped), (5, 5, 0), "{stats}");
}

#[test]
fn a_submitter_waits_for_its_cadence_and_not_longer_when_stopped() {
    let (producer, consumer) = bounded(10).expect("holds something");
    let never = PeriodicSubmitter::builder(producer.clone()).every(Duration::MAX).submit(1).expect("starts");
    let default = PeriodicSubmitter::builder(producer).every(HANG).submit(2).expect("starts");
    assert_eq!((never.id(), default.id()), (1, 2));
    let mut first = [consumer.get(), consumer.get()];
    first.sort_unstable_by_key(|value| value.unwrap_or_default());
    assert_eq!(first, [Ok(1), Ok(2)]);
    assert!(never.wait(Duration::ZERO).expect_err("it goes on").is_timeout());
    never.stop();
    assert_eq!(never.wait(HANG).expect("stopped").submitted, 1);
    drop(default);
    assert!(consumer.get().is_err(), "both have ended, and with them the producers");
}

#[test]
fn a_value_without_room_in_time_is_dropped_counted_and_handed_back() {
    let (producer, consumer) = bounded(1).expect("holds something");
    let (sender, dropped) = mpsc::channel();
    let mut number = 0;
    let submitter = PeriodicSubmitter::builder(producer)
        .every(Duration::ZERO)
        .times(4)
        .time_limit(MOMENT)
        .on_drop(move |value, why| sender.send((value, why)).expect("the test listens"))
        .submit_with(move || {
            number += 1;
            number
        })
        .expect("starts");
    let stats = submitter.wait(HANG).expect("ends by itself");
    assert_eq!((stats.offered(), stats.submitted, stats.dropped), (4, 1, 3), "{stats}");
    assert_eq!(stats.late, 0, "without a period there is no time to be late for");
    assert_eq!(dropped.iter().collect::<Vec<_>>(), [2, 3, 4].map(|value| (value, Dropped::TimedOut)));
    assert_eq!(consumer.drain(), [1], "put = taken + left");
}

#[test]
fn a_put_that_waits_makes_the_next_value_late_and_a_stop_ends_it() {
    let (producer, consumer) = bounded(1).expect("holds something");
    let (sender, dropped) = mpsc::channel();
    let submitter = PeriodicSubmitter::builder(producer)
        .every(MOMENT)
        .time_limit(None)
        .on_drop(move |value, why| sender.send((value, why)).expect("the test listens"))
        .submit("value")
        .expect("starts");
    assert_eq!(consumer.get_timeout(HANG), Ok("value"));
    // It fills the queue, and waits longer than a period for room.
    eventually("the queue is full", || consumer.len() == 1);
    assert!(submitter.wait(4 * MOMENT).expect_err("it waits for ever").is_timeout());
    assert_eq!(consumer.get_timeout(HANG), Ok("value"));
    assert_eq!(consumer.get_timeout(HANG), Ok("value"));
    eventually("a value is late", || submitter.stats().late > 0);
    eventually("the queue is full again", || consumer.len() == 1);
    submitter.stop();
    submitter.stop();
    let stats = submitter.wait(HANG).expect("a stop reaches a put that waits");
    assert!(dropped.iter().all(|dropped| dropped == ("value", Dropped::Stopped)));
    assert_eq!(stats.offered(), stats.submitted + stats.dropped);
    assert_eq!(stats.submitted, 4, "three taken and one left: {stats}");
}

#[test]
fn closing_ends_a_submitter_and_its_value_comes_back() {
    let (producer, consumer) = bounded(1).expect("holds something");
    let (sender, dropped) = mpsc::channel();
    let submitter = PeriodicSubmitter::builder(producer)
        .every(Duration::ZERO)
        .time_limit(None)
        .on_drop(move |value: String, why| sender.send((value, why)).expect("the test listens"))
        .submit("value".to_owned())
        .expect("starts");
    eventually("the queue is full", || consumer.len() == 1);
    consumer.close();
    let stats = submitter.wait(HANG).expect("nothing to do any more");
    assert_eq!((stats.submitted, stats.dropped), (1, 1), "{stats}");
    assert_eq!(dropped.iter().collect::<Vec<_>>(), [("value".to_owned(), Dropped::Closed)]);
}

#[test]
fn panics_of_a_submitters_closures_are_counted_and_go_nowhere() {
    let (producer, consumer) = bounded(1).expect("holds something");
    let mut number = 0;
    let submitter = PeriodicSubmitter::builder(producer)
        .every(Duration::ZERO)
        .times(4)
        .time_limit(Duration::ZERO)
        .on_drop(|_, _| panic!("a panic of a test, on purpose"))
        .submit_with(move || {
            number += 1;
            assert!(number != 2, "a panic of a test, on purpose");
            number
        })
        .expect("starts");
    let stats = submitter.wait(HANG).expect("ends by itself");
    assert_eq!((stats.submitted, stats.dropped, stats.panicked), (1, 2, 3), "{stats}");
    assert_eq!(consumer.drain(), [1]);
}

#[test]
fn destructors_that_panic_are_contained_and_lose_no_other_value() {
    #[derive(Debug)]
    struct Fragile;
    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("a panic of a test, on purpose");
        }
    }
    impl std::fmt::Display for Fragile {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("fragile")
        }
    }
    impl std::error::Error for Fragile {}

    let (producer, consumer) = bounded(1).expect("holds something");
    let submitter = PeriodicSubmitter::builder(producer).every(Duration::ZERO).times(3).time_limit(Duration::ZERO);
    let submitter = submitter.submit_with(|| Fragile).expect("starts");
    let stats = submitter.wait(HANG).expect("ends by itself");
    assert_eq!((stats.submitted, stats.dropped, stats.panicked), (1, 2, 2), "{stats}");
    consumer.drain().into_iter().for_each(std::mem::forget);

    let executor = executor(1);
    let (producer, consumer) = bounded(3).expect("holds something");
    let processor = Processor::builder(consumer).executor(&executor).handle(|_| Err(Fragile)).expect("starts");
    (0..3).try_for_each(|value| producer.put(value)).expect("open");
    drop(producer);
    assert_eq!(processor.wait(HANG).expect("closed and emptied").failed, 3);
}

#[test]
fn a_processor_handles_every_value_and_no_more_at_once_than_it_may() {
    let executor = executor(4);
    let (producer, consumer) = bounded(10).expect("holds something");
    let (running, most, sum) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let seen = Arc::new((running, most, sum));
    let processor = {
        let seen = seen.clone();
        Processor::builder(consumer).executor(&executor).max_concurrent(2).handle(move |value: usize| {
            seen.1.fetch_max(seen.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            seen.2.fetch_add(value, Ordering::SeqCst);
            seen.0.fetch_sub(1, Ordering::SeqCst);
        })
    }
    .expect("starts");
    (1..=1_000).try_for_each(|value| producer.put(value)).expect("open");
    drop(producer);
    let stats = processor.wait(HANG).expect("closed and emptied");
    assert_eq!((stats.taken, stats.handled, stats.running), (1_000, 1_000, 0), "{stats}");
    assert_eq!(seen.2.load(Ordering::SeqCst), 500_500, "each once");
    assert!(seen.1.load(Ordering::SeqCst) <= 2, "two at once, and no more");
}

#[test]
fn a_processor_leaves_in_the_queue_what_it_cannot_handle_yet() {
    let executor = executor(4);
    let (producer, consumer) = bounded(10).expect("holds something");
    let gate = Gate::new();
    let pass = gate.clone();
    let processor = Processor::builder(consumer).executor(&executor).max_concurrent(2).handle(move |_| pass.pass());
    let processor = processor.expect("starts");
    (0..6).try_for_each(|value| producer.put(value)).expect("open");
    gate.await_arrivals(2);
    assert_eq!((producer.len(), processor.stats().taken, processor.stats().running), (4, 2, 2));
    assert_adds_up(&processor.stats());
    let timeout = processor.wait(MOMENT).expect_err("two are held");
    assert!(matches!(timeout, Error::Timeout { left: 2, .. }), "{timeout:?}");
    gate.open();
    producer.close();
    assert_eq!(processor.wait(HANG).expect("closed and emptied").handled, 6);
}

#[test]
fn a_panic_or_an_error_in_a_handler_is_counted_reported_and_loses_no_other_value() {
    let executor = executor(2);
    let (producer, consumer) = bounded(10).expect("holds something");
    let reports = Arc::new(Mutex::new(Vec::new()));
    let seen = reports.clone();
    let processor = Processor::builder(consumer)
        .executor(&executor)
        .max_concurrent(1)
        .on_failure(move |error| {
            seen.lock().expect("no panic under it").push(match error {
                Error::Panicked(message) => message.clone(),
                Error::Operation(error) => error.to_string(),
                other => panic!("neither: {other:?}"),
            });
            panic!("a panic of a test, on purpose");
        })
        .handle(|value: u64| match value {
            3 => panic!("three, on purpose"),
            4 => Err("four"),
            _ => Ok(()),
        })
        .expect("starts");
    (1..=6).try_for_each(|value| producer.put(value)).expect("open");
    producer.close();
    let stats = processor.wait(HANG).expect("closed and emptied");
    assert_eq!((stats.taken, stats.handled, stats.failed, stats.panicked), (6, 4, 1, 1), "{stats}");
    assert_eq!(*reports.lock().expect("no panic under it"), ["three, on purpose", "four"]);
    assert_eq!(executor.spawn(|| 7).expect("accepted").wait(HANG).expect("the threads live on"), 7);
}

#[test]
fn when_a_processor_has_ended_nothing_is_left_of_its_handler_and_its_errors() {
    struct Slow(Gate);
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.pass();
        }
    }
    impl std::fmt::Debug for Slow {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Slow")
        }
    }
    impl std::fmt::Display for Slow {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("meant to be")
        }
    }
    impl std::error::Error for Slow {}

    let executor = executor(1);
    let (producer, consumer) = bounded(1).expect("holds something");
    let (gate, results) = (Gate::new(), Arc::new(Mutex::new(Vec::new())));
    let (hold, keep) = (gate.clone(), results.clone());
    let processor = Processor::builder(consumer).executor(&executor).handle(move |value: u64| {
        keep.lock().expect("no panic under it").push(value);
        Err(Slow(hold.clone()))
    });
    let processor = processor.expect("starts");
    producer.put(7).expect("open");
    drop(producer);
    gate.await_arrivals(1);
    assert!(processor.wait(MOMENT).expect_err("the error's destructor is at work").is_timeout());
    gate.open();
    assert_eq!(processor.wait(HANG).expect("closed and emptied").failed, 1);
    let results = Arc::into_inner(results).expect("the handler is gone, and what it captured");
    assert_eq!(results.into_inner().expect("no panic under it"), [7]);
}

#[test]
fn what_a_refusing_executor_does_not_take_the_processor_handles_itself() {
    // Shut down before, and full: its one thread is held, and its queue of one taken.
    let closed = executor(1);
    closed.shutdown(HANG).expect("nothing to do");
    let full = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::Reject).build().expect("sound");
    let gate = Gate::new();
    drop(occupy(&full, &gate));
    let waiting = full.spawn(|| ()).expect("room for one");
    for executor in [&closed, &full] {
        let (producer, consumer) = bounded(10).expect("holds something");
        let (sender, names) = mpsc::channel();
        let processor = Processor::builder(consumer)
            .executor(executor)
            .handle(move |value: u64| {
                let name = std::thread::current().name().map(str::to_owned);
                sender.send((value, name)).expect("the test listens");
            })
            .expect("starts");
        (0..3).try_for_each(|value| producer.put(value)).expect("open");
        drop(producer);
        assert_eq!(processor.wait(HANG).expect("closed and emptied").handled, 3);
        drop(processor);
        let itself = Some("processor-1".to_owned());
        assert_eq!(names.iter().collect::<Vec<_>>(), (0..3).map(|value| (value, itself.clone())).collect::<Vec<_>>());
    }
    gate.open();
    waiting.wait(HANG).expect("ends");
}

#[test]
fn an_executor_that_shuts_down_on_the_way_loses_no_value() {
    for round in 0..20 {
        let executor = executor(2);
        let (producer, consumer) = bounded(4).expect("holds something");
        let handled = Arc::new(AtomicUsize::new(0));
        let count = handled.clone();
        let processor = Processor::builder(consumer).executor(&executor).handle(move |_: usize| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let processor = processor.expect("starts");
        for value in 0..200 {
            producer.put(value).expect("open");
            if value == round * 7 {
                executor.shutdown(HANG).expect("what it accepted ends");
            }
        }
        drop(producer);
        let stats = processor.wait(HANG).expect("closed and emptied");
        assert_eq!((stats.handled, handled.load(Ordering::Relaxed)), (200, 200), "{stats}");
    }
}

#[test]
fn stopping_any_of_them_in_any_order_neither_hangs_nor_loses_an_accepted_value() {
    // Every order of two submitters and two processors, each stopped, or dropped, or left to a
    // close.
    let orders = (0..256).map(|code: usize| [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6 & 3]);
    let orders = orders.filter(|order| (0..4).all(|number| order.contains(&number)));
    for (round, order) in orders.enumerate() {
        let executor = executor(2);
        let (producer, consumer) = bounded(3).expect("holds something");
        let handled = Arc::new(AtomicUsize::new(0));
        let mut submitters: Vec<_> = (0..2)
            .map(|number| {
                let builder = PeriodicSubmitter::builder(producer.clone()).every(Duration::ZERO);
                let limit = (number == 0).then_some(MOMENT);
                Some(builder.time_limit(limit).submit(number).expect("starts"))
            })
            .collect();
        let mut processors: Vec<_> = (0..2)
            .map(|_| {
                let handled = handled.clone();
                let count = move |_| {
                    handled.fetch_add(1, Ordering::SeqCst);
                };
                Some(
                    Processor::builder(consumer.clone())
                        .executor(&executor)
                        .max_concurrent(1)
                        .handle(count)
                        .expect("starts"),
                )
            })
            .collect();
        eventually("all are at work", || {
            let submitted = submitters.iter().flatten().all(|submitter| submitter.stats().submitted > 0);
            submitted && processors.iter().flatten().all(|processor| processor.stats().taken > 0)
        });
        let mut put = 0;
        for which in order {
            match which {
                2.. => {
                    let processor = processors[which - 2].take().expect("each once");
                    if round % 3 == 0 {
                        processor.stop();
                    } else if round % 3 == 1 {
                        consumer.close();
                        processor.stop();
                    }
                    if round % 3 < 2 {
                        assert_adds_up(&processor.wait(HANG).expect("stopped"));
                    }
                }
                _ => {
                    let submitter = submitters[which].take().expect("each once");
                    submitter.stop();
                    let stats = submitter.wait(HANG).expect("stopped");
                    assert_eq!(stats.offered(), stats.submitted + stats.dropped);
                    put += stats.submitted as usize;
                }
            }
        }
        // What a dropped processor has taken it still handles, so only what is left is known at
        // once.
        let left = consumer.drain().len();
        eventually("put = handled + left", || put == handled.load(Ordering::SeqCst) + left);
    }
}

#[test]
fn a_handful_share_one_queue_and_the_account_adds_up() {
    let executor = executor(3);
    let (producer, consumer) = bounded(10).expect("holds something");
    let sum = Arc::new(AtomicUsize::new(0));
    let processors: Vec<_> = (0..3)
        .map(|_| {
            let sum = sum.clone();
            let add = move |value| {
                sum.fetch_add(value, Ordering::Relaxed);
            };
            Processor::builder(consumer.clone()).executor(&executor).handle(add).expect("starts")
        })
        .collect();
    let submitters: Vec<_> = [1, 10, 100]
        .map(|value| PeriodicSubmitter::builder(producer.clone()).every(Duration::ZERO).times(500).submit(value))
        .into_iter()
        .map(|submitter| submitter.expect("starts"))
        .collect();
    drop(producer);
    let put: u64 = submitters.iter().map(|submitter| submitter.wait(HANG).expect("ends").submitted).sum();
    let taken: u64 = processors.iter().map(|processor| processor.wait(HANG).expect("closed").taken).sum();
    assert_eq!((put, taken, consumer.len()), (1_500, 1_500, 0));
    assert_eq!(sum.load(Ordering::Relaxed), 500 * 111);
    assert_eq!(processors.iter().map(Processor::id).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn dropping_a_processor_stops_it() {
    let executor = executor(1);
    let (producer, consumer) = bounded::<u64>(1).expect("holds something");
    let processor = Processor::builder(consumer).executor(&executor).handle(drop).expect("starts");
    drop(processor);
    eventually("it gives up its consumer, the last", || producer.is_closed());
}

#[test]
fn a_processor_of_none_at_once_is_refused() {
    let (_producer, consumer) = bounded::<u64>(1).expect("holds something");
    match Processor::builder(consumer).max_concurrent(0).handle(drop) {
        Err(Error::Invalid(text)) => assert!(text.contains("0 values at once"), "{text}"),
        other => panic!("accepted: {other:?}"),
    }
}
