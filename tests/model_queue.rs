//! The bounded queue's hand-overs, in every order that the memory model allows, on the code that
//! ships.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test model_queue -- --nocapture` prints how many
//! interleavings each model went through: all those with at most so many preemptions as it says; a
//! switch where a thread blocks or ends is free. A wake-up that is lost leaves every thread
//! blocked, which fails the model. Time stands still: a time limit has passed when the wait begins,
//! or never does. The ring is a stand-in that keeps the promise of `concurrent-queue`'s: each of
//! its calls happens at one moment, but for a get from a ring of one.
#![cfg(loom)]

mod explore;

use std::sync::Arc;
use std::time::Duration;

use explore::check;
use fulmar::pipeline::{PeriodicSubmitter, Processor};
use fulmar::queue::{Consumer, GetError, Producer, PutError, TryGetError, bounded};
use fulmar::{Error, Executor};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

fn halves(capacity: usize) -> (Producer<usize>, Consumer<usize>) {
    bounded(capacity).expect("holds something")
}

fn putter(producer: &Producer<usize>, value: usize) -> thread::JoinHandle<bool> {
    let producer = producer.clone();
    thread::spawn(move || {
        let refused = producer.put(value).map_err(|refused| refused.into_inner());
        assert!(matches!(refused, Ok(())) || refused == Err(value), "each put gets its own value back: {refused:?}");
        refused.is_ok()
    })
}

fn getter(consumer: &Consumer<usize>) -> thread::JoinHandle<Option<usize>> {
    let consumer = consumer.clone();
    thread::spawn(move || consumer.get().ok())
}

#[test]
fn a_get_sees_what_the_producer_did() {
    check("put/get", 4, || {
        let (producer, consumer) = halves(1);
        let written = Arc::new(AtomicUsize::new(0));
        let seen = written.clone();
        let thread = thread::spawn(move || {
            assert_eq!(consumer.get(), Ok(1));
            assert_eq!(seen.load(Ordering::Relaxed), 7);
            assert_eq!(consumer.get(), Ok(2), "the second put waited for room, or came later");
        });
        written.store(7, Ordering::Relaxed);
        producer.put(1).expect("a consumer lives");
        producer.put(2).expect("a consumer lives");
        thread.join().expect("no panic");
    });
}

#[test]
fn room_is_handed_over_with_what_was_done_before_the_get() {
    check("get/put", 4, || {
        let (producer, consumer) = halves(2);
        producer.put(1).expect("open");
        producer.put(2).expect("open");
        assert_eq!(consumer.get(), Ok(1));
        producer.put(3).expect("open");
        let written = Arc::new(AtomicUsize::new(0));
        let seen = written.clone();
        let thread = thread::spawn(move || {
            producer.put(4).expect("open");
            assert_eq!(seen.load(Ordering::Relaxed), 7, "the place was made by the get after the store");
        });
        written.store(7, Ordering::Relaxed);
        assert_eq!(consumer.get(), Ok(2));
        thread.join().expect("no panic");
        assert_eq!(consumer.drain(), [3, 4]);
    });
}

#[test]
fn two_sleeping_consumers_get_a_value_each() {
    check("2 gets, 2 puts", 3, || {
        let (producer, consumer) = halves(2);
        let getters = [getter(&consumer), getter(&consumer)];
        producer.put(1).expect("open");
        producer.put(2).expect("open");
        let sum: usize = getters.into_iter().map(|getter| getter.join().expect("no panic").expect("one each")).sum();
        assert_eq!((sum, consumer.len()), (3, 0));
    });
}

#[test]
fn two_sleeping_producers_get_in() {
    check("2 puts, 3 gets", 3, || {
        let (producer, consumer) = halves(1);
        producer.put(4).expect("open");
        let putters = [putter(&producer, 1), putter(&producer, 2)];
        assert_eq!(consumer.get(), Ok(4));
        let (second, third) = (consumer.get(), consumer.get());
        assert_eq!(second.unwrap_or(0) + third.unwrap_or(0), 3);
        assert!(putters.into_iter().all(|putter| putter.join().expect("no panic")));
    });
}

#[test]
fn a_faster_thread_takes_the_value_and_the_called_one_is_not_forgotten() {
    check("barging", 3, || {
        let (producer, consumer) = halves(2);
        let getters = [getter(&consumer), getter(&consumer)];
        producer.put(1).expect("open");
        // This thread never sleeps, and may be faster than the one that the first put called.
        let mine = consumer.try_get().ok();
        producer.put(2).expect("open");
        if mine.is_some() {
            producer.put(3).expect("open");
        }
        let got = getters.into_iter().filter_map(|getter| getter.join().expect("no panic")).count();
        assert_eq!((got, consumer.len()), (2, 0));
    });
}

#[test]
fn many_to_many_each_once() {
    check("2 producers, 2 consumers", 2, || {
        let (producer, consumer) = halves(1);
        let putters = [putter(&producer, 1), putter(&producer, 2)];
        let other = getter(&consumer);
        let mine = consumer.get().expect("two values for two");
        let others = other.join().expect("no panic").expect("two values for two");
        assert_eq!(mine + others, 3);
        assert!(putters.into_iter().all(|putter| putter.join().expect("no panic")));
    });
}

#[test]
fn close_wakes_all_and_every_accepted_value_is_handed_out() {
    check("close", 3, || {
        let (producer, consumer) = halves(1);
        let putters = [putter(&producer, 1), putter(&producer, 2)];
        let getter = getter(&consumer);
        producer.close();
        let accepted = putters.into_iter().map(|putter| putter.join().expect("no panic")).filter(|put| *put).count();
        let got = usize::from(getter.join().expect("no panic").is_some());
        let left = consumer.drain().len();
        assert_eq!(accepted, got + left, "put = taken + left");
        assert_eq!(consumer.try_get(), Err(TryGetError::Closed));
    });
}

#[test]
fn close_wakes_every_sleeping_producer() {
    check("close, 2 puts", 3, || {
        let (producer, consumer) = halves(1);
        producer.put(3).expect("open");
        let putters = [putter(&producer, 1), putter(&producer, 2)];
        consumer.close();
        assert!(!putters.into_iter().any(|putter| putter.join().expect("no panic")), "there was no room");
    });
}

#[test]
fn close_wakes_every_sleeping_consumer() {
    check("close, 2 gets", 3, || {
        let (producer, consumer) = halves(1);
        let getters = [getter(&consumer), getter(&consumer)];
        producer.close();
        assert!(getters.into_iter().all(|getter| getter.join().expect("no panic").is_none()));
    });
}

#[test]
fn closed_and_empty_is_final() {
    check("closed is final", 3, || {
        let (producer, consumer) = halves(1);
        let putter = putter(&producer, 1);
        let closer = thread::spawn(move || producer.close());
        let mut got = 0;
        while consumer.get().is_ok() {
            got += 1;
        }
        let accepted = putter.join().expect("no panic");
        assert_eq!(got, usize::from(accepted), "no value comes after the last");
        closer.join().expect("no panic");
    });
}

#[test]
fn puts_that_come_too_late_get_their_own_values_back() {
    check("late puts", 3, || {
        let (producer, consumer) = halves(2);
        let putters = [putter(&producer, 1), putter(&producer, 2)];
        producer.close();
        let got = std::iter::from_fn(|| consumer.get().ok()).count();
        let accepted = putters.into_iter().map(|putter| putter.join().expect("no panic")).filter(|put| *put).count();
        assert_eq!(got, accepted, "no value comes after the last");
    });
}

#[test]
fn a_drain_of_a_closed_queue_is_final() {
    check("closed, drained", 4, || {
        let (producer, consumer) = halves(1);
        let putter = putter(&producer, 1);
        producer.close();
        let left = consumer.drain().len();
        let accepted = putter.join().expect("no panic");
        assert_eq!(left, usize::from(accepted), "an accepted value is not left behind");
    });
}

#[test]
fn a_put_that_finds_a_get_halfway_out_of_a_queue_of_one_is_not_told_full() {
    check("a get halfway", 4, || {
        let (producer, consumer) = halves(1);
        producer.put(1).expect("open");
        let getter = getter(&consumer);
        for value in 2..4 {
            if producer.is_empty() {
                assert_eq!(producer.try_put(value), Ok(()), "there was room, and nobody else puts");
            }
        }
        assert_eq!(getter.join().expect("no panic"), Some(1));
    });
}

#[test]
fn dropping_the_last_of_a_half_wakes_the_other() {
    check("drop a half", 4, || {
        let (producer, consumer) = halves(1);
        let getter = thread::spawn(move || (consumer.get().ok(), consumer.get().ok()));
        producer.put(1).expect("open");
        drop(producer);
        assert_eq!(getter.join().expect("no panic"), (Some(1), None));

        let (producer, consumer) = halves(1);
        producer.put(1).expect("open");
        let putter = thread::spawn(move || producer.put(2).is_ok());
        drop(consumer);
        assert!(!putter.join().expect("no panic"));
    });
}

#[test]
fn a_drain_lets_all_sleeping_producers_in() {
    check("drain", 3, || {
        let (producer, consumer) = halves(2);
        producer.put(4).expect("open");
        producer.put(8).expect("open");
        let putters = [putter(&producer, 1), putter(&producer, 2)];
        let drained = consumer.drain();
        assert!(drained.len() <= 2, "no more than it holds at once: {drained:?}");
        let drained: usize = drained.into_iter().sum();
        assert!(putters.into_iter().all(|putter| putter.join().expect("no panic")), "nobody sleeps for ever");
        assert_eq!(drained + consumer.drain().into_iter().sum::<usize>(), 15);
    });
}

#[test]
fn waits_with_a_time_limit_are_called_as_well() {
    check("time limits", 3, || {
        let (producer, consumer) = halves(1);
        let limit = Duration::from_secs(60);
        let getter = thread::spawn(move || (consumer.get_timeout(limit), consumer.get_timeout(limit)));
        let mut put = 0;
        put += usize::from(producer.put_timeout(1, limit).is_ok());
        put += usize::from(producer.put_timeout(2, limit).is_ok());
        assert_eq!(put, 2);
        assert_eq!(getter.join().expect("no panic"), (Ok(1), Ok(2)));
    });
}

/// Has passed by the first look at the clock.
const AT_ONCE: Duration = Duration::from_nanos(1);

#[test]
fn a_get_whose_time_runs_out_takes_no_call_with_it() {
    check("a get gives up", 3, || {
        let (producer, consumer) = halves(2);
        let hasty = consumer.clone();
        let hasty = thread::spawn(move || hasty.get_timeout(AT_ONCE).is_ok());
        let patient = getter(&consumer);
        producer.put(1).expect("open");
        if hasty.join().expect("no panic") {
            producer.put(2).expect("open");
        }
        assert!(patient.join().expect("no panic").is_some());
        assert!(consumer.is_empty());
    });
}

#[test]
fn a_put_whose_time_runs_out_takes_no_call_with_it() {
    check("a put gives up", 3, || {
        let (producer, consumer) = halves(1);
        producer.put(1).expect("open");
        let hasty = producer.clone();
        let hasty = thread::spawn(move || hasty.put_timeout(2, AT_ONCE).is_ok());
        let patient = putter(&producer, 3);
        assert_eq!(consumer.get(), Ok(1));
        if hasty.join().expect("no panic") {
            assert!(consumer.get().is_ok());
        }
        assert!(patient.join().expect("no panic"));
        assert_eq!(consumer.len(), 1);
    });
}

#[test]
fn a_stop_reaches_a_submitter_wherever_it_waits() {
    check("stop", 2, || {
        let (producer, consumer) = halves(1);
        let submitter = PeriodicSubmitter::builder(producer).every(Duration::ZERO).time_limit(None).submit(1);
        let submitter = submitter.expect("a thread");
        submitter.stop();
        let stats = submitter.wait(None).expect("it ends");
        assert_eq!(consumer.drain().len() as u64, stats.submitted);
    });
}

#[test]
fn a_stop_reaches_a_processor_wherever_it_waits() {
    check("stop a processor", 3, || {
        // Starts no thread before there is something to do.
        let executor = Executor::builder().threads(1).build().expect("sound");
        let (_producer, consumer) = halves(1);
        let processor = Processor::builder(consumer).executor(&executor).max_concurrent(1).handle(drop::<usize>);
        let processor = processor.expect("a thread");
        processor.stop();
        assert_eq!(processor.wait(None).expect("it ends").taken, 0);
    });
}

/// A lost wake-up leaves the operation blocked, and with it the thread that waits for its end.
#[test]
fn a_cancel_ends_a_get_that_no_value_ends() {
    check("get/cancel", 3, || {
        let executor = Executor::builder().threads(1).build().expect("sound");
        let (producer, consumer) = halves(1);
        let getting = executor.spawn(move || consumer.get()).expect("accepted");
        let cancelled = getting.cancel();
        match getting.wait(None) {
            Ok(Err(GetError::Interrupted)) => assert!(!cancelled),
            Err(Error::Cancelled) => assert!(cancelled),
            other => panic!("{other:?}"),
        }
        drop(producer);
        executor.shutdown(None).expect("ends");
    });
}

#[test]
fn a_cancel_meets_a_put_and_the_get_that_makes_room() {
    check("put/cancel/get", 2, || {
        let executor = Executor::builder().threads(1).build().expect("sound");
        let (producer, consumer) = halves(1);
        producer.put(1).expect("open");
        let putting = executor.spawn(move || producer.put(2)).expect("accepted");
        let getter = getter(&consumer);
        let cancelled = putting.cancel();
        let accepted = match putting.wait(None) {
            Ok(Ok(())) => true,
            Ok(Err(PutError::Interrupted(2))) => false,
            Err(Error::Cancelled) if cancelled => false,
            other => panic!("{other:?}"),
        };
        assert_eq!(getter.join().expect("no panic"), Some(1));
        let left = if accepted { vec![2] } else { vec![] };
        assert_eq!(consumer.drain(), left, "once, here or there");
        executor.shutdown(None).expect("ends");
    });
}
