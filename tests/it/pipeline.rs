//! Pipelines: every value comes out once, whatever fails, and nothing goes on behind a pipeline
//! that is gone.

use std::cell::RefCell;
use std::num::ParseIntError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};

use fulmar::Error;
use fulmar::pipeline::{Failure, Pipeline, PipelineBuilder};
use fulmar::queue::bounded;

use crate::support::{HANG, eventually, executor};

#[test]
fn values_come_out_in_their_order_where_each_stage_has_one_thread() {
    let pipeline = Pipeline::builder(0..1_000u64)
        .map("double", 1, |number| number * 2)
        .buffer(1)
        .stage("text", 1, |number: &u64| Ok::<_, Error>(number.to_string()))
        .start()
        .expect("starts");
    let outcomes: Vec<String> = pipeline.collect::<Result<_, _>>().expect("no stage fails");
    assert_eq!(outcomes, (0..1_000).map(|number| (number * 2).to_string()).collect::<Vec<_>>());
}

#[test]
fn many_threads_at_each_stage_lose_nothing_and_repeat_nothing() {
    let pipeline = Pipeline::builder(0..20_000u64)
        .map("a", 4, |number| number + 1)
        .stage("b", 4, |number: &u64| if number % 7 == 0 { Err("on purpose") } else { Ok(*number) })
        .map("c", 4, |number| number)
        .start()
        .expect("starts");
    let mut all: Vec<u64> = pipeline
        .map(|outcome| outcome.unwrap_or_else(|failure| failure.take_value().expect("the value of stage b")))
        .collect();
    all.sort_unstable();
    assert_eq!(all, (1..=20_000).collect::<Vec<_>>());
}

#[test]
fn a_failure_carries_its_stage_its_error_and_its_value_and_concerns_no_other() {
    let words = ["1".to_owned(), "two".to_owned(), "3".to_owned(), "panic".to_owned()];
    let parse = |word: &String| {
        assert!(word != "panic", "in a test, on purpose");
        word.parse::<u64>()
    };
    let pipeline = Pipeline::builder(words).stage("parse", 1, parse).map("id", 1, |number| number);
    let mut outcomes = pipeline.start().expect("starts");
    assert_eq!(outcomes.next().expect("an outcome").expect("a number"), 1);
    let two = outcomes.next().expect("an outcome").expect_err("a failure");
    assert_eq!(two.to_string(), "stage `parse` of the pipeline failed");
    assert!(two.error().operation::<ParseIntError>().is_some(), "{two:?}");
    assert_eq!(two.take_value::<u64>(), None, "of another type");
    assert_eq!(two.take_value::<String>().as_deref(), Some("two"));
    assert_eq!(two.take_value::<String>(), None, "taken before");
    assert!(!format!("{two:?}").contains("two"), "a value may be secret");
    assert_eq!(outcomes.next().expect("an outcome").expect("a number"), 3);
    let panicked = outcomes.next().expect("an outcome").expect_err("a failure");
    assert!(matches!(panicked.error(), Error::Panicked(text) if text.contains("on purpose")), "{panicked:?}");
    assert_eq!(panicked.take_value::<String>().as_deref(), Some("panic"));
    assert!(outcomes.next().is_none());
    assert!(outcomes.next().is_none(), "and so it stays");
}

#[test]
fn a_panic_of_a_stage_that_takes_its_value_and_one_of_the_source_come_out() {
    let source = (1..).inspect(|number| assert!(*number < 3, "the source, on purpose"));
    let pipeline = Pipeline::builder(source).map("take", 1, |number: i32| {
        assert!(number != 2, "the stage, on purpose");
        number
    });
    let outcomes: Vec<Result<i32, Failure>> = pipeline.start().expect("starts").collect();
    let told: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().map_err(Failure::stage).copied()).collect();
    assert_eq!(told, [Ok(1), Err("take"), Err("source")]);
}

#[test]
fn the_first_failure_stops_an_endless_source() {
    let pipeline = Pipeline::builder(1u64..).stage("check", 2, |n: &u64| if *n == 500 { Err("500") } else { Ok(*n) });
    let failure = pipeline.start().expect("starts").collect::<Result<Vec<_>, _>>().expect_err("500 is refused");
    assert_eq!(failure.take_value(), Some(500u64));
}

#[test]
fn a_slow_reader_holds_up_the_source() {
    let pulled = Arc::new(AtomicUsize::new(0));
    let count = pulled.clone();
    let source = std::iter::from_fn(move || Some(count.fetch_add(1, Ordering::SeqCst)));
    let (at_work, arrivals) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let pipeline = Pipeline::builder(source).buffer(2).map("held", 1, move |n| {
        at_work.send(()).expect("the test listens");
        let _ = gate.lock().expect("not poisoned").recv();
        n
    });
    let mut outcomes = pipeline.start().expect("starts");
    arrivals.recv_timeout(HANG).expect("the stage is at work");
    // 64 in the queue, one at the stage, and one that the source can't put.
    eventually("the source has filled its queue", || pulled.load(Ordering::SeqCst) == 66);
    open.send(()).expect("the stage listens");
    assert_eq!(outcomes.next().expect("an outcome").expect("the first"), 0);
    eventually("there was room for one more", || pulled.load(Ordering::SeqCst) == 67);
}

/// Tells when it is dropped.
struct Told(Sender<&'static str>, &'static str);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

#[test]
fn a_dropped_pipeline_ends_all_threads_even_behind_a_source_that_waits() {
    let (sender, ends) = mpsc::channel();
    let (feed, input) = mpsc::channel::<u32>();
    let told = |name| Told(sender.clone(), name);
    let (source, first, second) = (told("source"), told("first"), told("second"));
    let items = std::iter::from_fn(move || {
        let _ = &source;
        input.recv().ok()
    });
    let pipeline = Pipeline::builder(items)
        .map("first", 2, move |n| {
            let _ = &first;
            n
        })
        .map("second", 2, move |n| {
            let _ = &second;
            n
        });
    let mut outcomes = pipeline.start().expect("starts");
    feed.send(7).expect("the source listens");
    assert_eq!(outcomes.next().expect("an outcome").expect("the value"), 7);
    drop(outcomes);
    let mut ended = [(); 2].map(|()| ends.recv_timeout(HANG).expect("a stage ends"));
    ended.sort_unstable();
    assert_eq!(ended, ["first", "second"], "although the source waits for the world");
    assert_eq!(ends.try_recv().ok(), None, "which can't be interrupted");
    feed.send(8).expect("the source listens");
    assert_eq!(ends.recv_timeout(HANG).expect("the source ends"), "source");
}

thread_local! {
    static LAST: RefCell<Option<Told>> = const { RefCell::new(None) };
}

#[test]
fn when_the_iterator_has_ended_so_have_the_threads() {
    let (sender, ends) = mpsc::channel();
    let last = Mutex::new(sender);
    let pipeline = Pipeline::builder(0..100).map("tell", 4, move |n: i32| {
        let told = Told(last.lock().expect("not poisoned").clone(), "a thread has ended");
        LAST.with(|own| own.borrow_mut().get_or_insert(told).1);
        n
    });
    assert_eq!(pipeline.start().expect("starts").filter(Result::is_ok).count(), 100);
    // Each thread's thread-locals are gone, and with them the last senders.
    while ends.recv_timeout(std::time::Duration::ZERO).is_ok() {}
    assert_eq!(ends.recv_timeout(std::time::Duration::ZERO), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn destructors_that_panic_cost_no_thread_and_no_caller() {
    struct Bomb(u32);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(self.0 % 2 == 0, "in a test, on purpose");
        }
    }
    let bombs = || Pipeline::builder((0..100).map(Bomb)).stage("look", 2, |bomb: &Bomb| Ok::<_, Error>(bomb.0));
    let mut numbers: Vec<u32> = bombs().start().expect("starts").collect::<Result<_, _>>().expect("no stage fails");
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    // Dropped with values in all of its queues.
    drop(bombs().map("again", 1, Bomb).start().expect("starts"));
}

#[test]
fn a_pipeline_runs_inside_operations_on_one_thread_and_from_a_queue() {
    let executor = executor(1);
    let (producer, consumer) = bounded(1).expect("holds something");
    let sum = |items: Box<dyn Iterator<Item = u64> + Send>| {
        move || {
            let pipeline = Pipeline::builder(items).buffer(1).map("square", 1, |n| n * n).start()?;
            Ok::<u64, Error>(pipeline.map(|square| square.expect("no stage fails")).sum())
        }
    };
    let reads = executor.spawn(sum(Box::new(consumer.into_iter()))).expect("accepted");
    let writes = executor.spawn(move || (1..=100).try_for_each(|n| producer.put(n))).expect("accepted");
    writes.wait(HANG).expect("ends").expect("the reader takes all");
    assert_eq!(reads.wait(HANG).expect("ends").expect("starts"), 338_350);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let refused = |builder: PipelineBuilder<i32>| match builder.start() {
        Err(Error::Invalid(why)) => why,
        other => panic!("{other:?}"),
    };
    let items = || Pipeline::builder(0..3);
    assert!(refused(items().map("idle", 0, |n| n)).contains("give `idle` 1 or more"));
    assert!(refused(items().buffer(0).map("tight", 1, |n| n)).contains("capacity 0"));
    assert!(refused(items().map("a\0b", 1, |n| n)).contains("name"));
}
