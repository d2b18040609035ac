//! Order: what shares a key, what doesn't, who goes first, and what a long wait costs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fulmar::{Args, AsyncRequest, Error, Executor, Status};

use crate::support::{Gate, HANG, eventually, executor, occupy};

trait Named: Send + Sync {
    fn name(&self) -> &str;
}

impl Named for String {
    fn name(&self) -> &str {
        self
    }
}

struct Symbol {
    symbol: String,
}

impl Args for Symbol {
    fn key(&self) -> Option<&str> {
        Some(&self.symbol)
    }
}

/// A modifier of `args` that runs until the gate opens.
fn hold<S, A>(executor: &Executor, store: &Arc<S>, args: A, gate: &Gate) -> AsyncRequest<()>
where
    S: ?Sized + Send + Sync + 'static,
    A: Args + Send + 'static,
{
    let (arrived, inside) = (gate.arrivals(), gate.clone());
    let held = executor.submit(
        store,
        move |_: &S, _: A| {
            inside.pass();
            Ok::<_, Error>(())
        },
        true,
        args,
    );
    gate.await_arrivals(arrived + 1);
    held.expect("accepted")
}

/// An accessor of `args`.
fn read<S, A>(executor: &Executor, store: &Arc<S>, args: A) -> AsyncRequest<()>
where
    S: ?Sized + Send + Sync + 'static,
    A: Args + Send + 'static,
{
    executor.submit(store, |_: &S, _: A| Ok::<_, Error>(()), false, args).expect("accepted")
}

#[test]
fn a_key_is_its_text_whatever_type_it_comes_in() {
    let (executor, store, gate) = (executor(2), Arc::new(()), Gate::new());
    let held = hold(&executor, &store, "AAPL", &gate);
    let same = [
        read(&executor, &store, "AAPL"),
        read(&executor, &store, "AAPL".to_owned()),
        read(&executor, &store, Box::<str>::from("AAPL")),
        read(&executor, &store, std::borrow::Cow::Borrowed("AAPL")),
        read(&executor, &store, ("AAPL", 1, vec![2])),
        read(&executor, &store, Symbol { symbol: "AAPL".into() }),
    ];
    assert!(same.iter().all(|request| request.status() == Status::Deferred), "{same:?}");
    let others = [
        read(&executor, &store, "AAP"),
        read(&executor, &store, ""),
        read(&executor, &store, "aapl"),
        read(&executor, &store, ()),
        read(&executor, &store, (1, "AAPL")),
        read(&executor, &store, Some("AAPL")),
    ];
    executor.wait_requests(&others, HANG).expect("none of them waits for another key");
    assert!(same.iter().all(|request| request.status() == Status::Deferred), "{same:?}");
    gate.open();
    executor.wait_requests(&same, HANG).expect("all end");
    held.wait(HANG).expect("it ends");
}

#[cfg(feature = "json")]
#[test]
fn a_json_object_names_its_key_too() {
    use serde_json::json;
    let (executor, store, gate) = (executor(2), Arc::new(()), Gate::new());
    let held = hold(&executor, &store, json!({"symbol": "AAPL", "price": 1}), &gate);
    let same = [read(&executor, &store, "AAPL"), read(&executor, &store, json!({"key": "AAPL"}))];
    assert!(same.iter().all(|request| request.status() == Status::Deferred), "{same:?}");
    read(&executor, &store, json!({"symbol": null, "key": "IBM"})).wait(HANG).expect("another key");
    gate.open();
    executor.wait_requests(&same, HANG).expect("all end");
    held.wait(HANG).expect("it ends");
}

#[test]
fn without_a_key_a_request_is_ordered_with_those_without_one() {
    let (executor, store, gate) = (executor(2), Arc::new(()), Gate::new());
    let held = hold(&executor, &store, (), &gate);
    let keyless = [read(&executor, &store, ()), read(&executor, &store, 7), read(&executor, &store, vec!["AAPL"])];
    assert!(keyless.iter().all(|request| request.status() == Status::Deferred), "{keyless:?}");
    read(&executor, &store, "AAPL").wait(HANG).expect("a key waits for its own");
    read(&executor, &Arc::new(()), ()).wait(HANG).expect("another store");
    executor.spawn(|| ()).expect("accepted").wait(HANG).expect("ordered with nothing");
    gate.open();
    executor.wait_requests(&keyless, HANG).expect("all end");
    held.wait(HANG).expect("it ends");
}

#[test]
fn a_store_is_the_same_through_clones_and_as_a_trait_object() {
    let (executor, gate) = (executor(2), Gate::new());
    let store = Arc::new("prices".to_owned());
    let shared: Arc<dyn Named> = store.clone();
    let held = hold(&executor, &store, "AAPL", &gate);
    let same = [
        read(&executor, &store.clone(), "AAPL"),
        read(&executor, &shared, "AAPL"),
        executor
            .submit(&shared, |_: &(dyn Named + 'static), _: &str| Ok::<_, Error>(()), false, "AAPL")
            .expect("accepted"),
    ];
    assert!(same.iter().all(|request| request.status() == Status::Deferred), "{same:?}");
    let equal: Arc<dyn Named> = Arc::new("prices".to_owned());
    assert_eq!(equal.name(), shared.name());
    read(&executor, &equal, "AAPL").wait(HANG).expect("an equal store is another one");
    gate.open();
    executor.wait_requests(&same, HANG).expect("all end");
    held.wait(HANG).expect("it ends");
}

#[test]
fn when_a_modifier_ends_all_accessors_up_to_the_next_one_start() {
    let (executor, store) = (executor(4), Arc::new(()));
    let (gate, together) = (Gate::new(), Gate::new());
    let held = hold(&executor, &store, "AAPL", &gate);
    let accessors: Vec<_> = (0..3)
        .map(|_| {
            let inside = together.clone();
            let operation = move |_: &(), _: &str| {
                inside.pass();
                Ok::<_, Error>(())
            };
            executor.submit(&store, operation, false, "AAPL").expect("accepted")
        })
        .collect();
    let next = executor.submit(&store, |_: &(), _: &str| Ok::<_, Error>(()), true, "AAPL").expect("accepted");
    gate.open();
    together.await_arrivals(3);
    assert_eq!(next.status(), Status::Deferred, "it runs alone");
    let late = read(&executor, &store, "AAPL");
    assert_eq!(late.status(), Status::Deferred, "nobody overtakes it");
    assert!(next.cancel());
    late.wait(HANG).expect("it joins those that run");
    together.open();
    executor.wait_requests(&accessors, HANG).expect("all end");
    held.wait(HANG).expect("it ends");
}

#[test]
fn a_modifier_waits_for_each_accessor_before_it() {
    for accessors in 1..4 {
        let (executor, store, gates) = (executor(4), Arc::new(()), [0, 1, 2].map(|_| Gate::new()));
        for gate in &gates[..accessors] {
            let inside = gate.clone();
            let operation = move |_: &(), _: &str| {
                inside.pass();
                Ok::<_, Error>(())
            };
            drop(executor.submit(&store, operation, false, "AAPL").expect("accepted"));
            gate.await_arrivals(1);
        }
        let modifier = executor.submit(&store, |_: &(), _: &str| Ok::<_, Error>(()), true, "AAPL").expect("accepted");
        for (ended, gate) in gates[..accessors].iter().enumerate() {
            assert_eq!(modifier.status(), Status::Deferred, "{ended} of {accessors} have ended");
            gate.open();
            eventually("it ends", || executor.stats().completed > ended as u64);
        }
        modifier.wait(HANG).expect("nobody is before it any more");
    }
}

#[test]
fn a_modifier_that_fails_or_panics_leaves_its_key() {
    let (executor, store) = (executor(1), Arc::new(()));
    let fails = executor.submit(&store, |_: &(), _: &str| Err::<(), _>("an error"), true, "AAPL").expect("accepted");
    let panic = |_: &(), _: &str| -> Result<(), Error> { panic!("a panic of a test, on purpose") };
    let panics = executor.submit(&store, panic, true, "AAPL").expect("accepted");
    read(&executor, &store, "AAPL").wait(HANG).expect("both have left");
    assert_eq!((fails.status(), panics.status()), (Status::Failed, Status::Panicked));
}

#[test]
fn a_hundred_thousand_modifiers_on_one_key_run_in_their_order() {
    const MANY: usize = 100_000;
    let (executor, gate) = (executor(3), Gate::new());
    let store = Arc::new(AtomicUsize::new(0));
    let held = hold(&executor, &store, "AAPL", &gate);
    let modify = |store: &AtomicUsize, (_, n): (&str, usize)| {
        let before = store.fetch_add(1, Ordering::Relaxed);
        if before == n { Ok(()) } else { Err(format!("{n} ran as number {before}")) }
    };
    let requests = executor.submit_many(&store, modify, true, (0..MANY).map(|n| ("AAPL", n))).expect("accepted");
    assert_eq!(executor.stats().deferred, MANY as u64);
    gate.open();
    executor.wait_requests(&requests, HANG).expect("each in its turn");
    held.wait(HANG).expect("it ends");
}

#[test]
fn a_long_lane_is_cancelled_from_either_end() {
    let (executor, store, gate) = (executor(1), Arc::new(()), Gate::new());
    let held = hold(&executor, &store, "AAPL", &gate);
    let keys = || std::iter::repeat_n("AAPL", 10_000);
    let requests = executor.submit_many(&store, |_: &(), _: &str| Ok::<_, Error>(()), true, keys()).expect("accepted");
    let (front, back) = requests.split_at(5_000);
    assert!(front.iter().chain(back[1..].iter().rev()).all(AsyncRequest::cancel));
    gate.open();
    back[0].wait(HANG).expect("the one that was left");
    held.wait(HANG).expect("it ends");
    executor.shutdown(HANG).expect("all ends");
    assert_eq!((executor.stats().completed, executor.stats().cancelled), (2, 9_999));
}

#[test]
fn slow_operations_start_in_the_order_of_their_submission() {
    let executor = executor(2);
    let started = Arc::new(Mutex::new(Vec::new()));
    let gate = Gate::new();
    let held = [occupy(&executor, &gate), occupy(&executor, &gate)];
    let requests: Vec<_> = (0..400)
        .map(|n| {
            let started = started.clone();
            let operation = move || {
                started.lock().expect("no panic under it").push(n);
                let start = Instant::now();
                while start.elapsed() < Duration::from_micros(50) {
                    std::hint::spin_loop();
                }
            };
            executor.spawn(operation).expect("accepted")
        })
        .collect();
    gate.open();
    executor.wait_requests(&requests, HANG).expect("all end");
    let started = started.lock().expect("no panic under it");
    // A thread may be interrupted between taking a request and saying so; a batch would put most of them out of order.
    let far: Vec<_> = started.iter().enumerate().filter(|(place, n)| place.abs_diff(**n) > 4).collect();
    assert!(far.len() < 80, "{} of 400 started far from their place: {far:?}", far.len());
    drop(held);
}

#[test]
fn what_a_cancelled_request_holds_is_freed_while_every_thread_is_busy() {
    let (executor, store, gate) = (executor(1), Arc::new(()), Gate::new());
    let blocker = occupy(&executor, &gate);
    let token = Arc::new(());
    let requests: Vec<_> = (0..200)
        .map(|n| {
            let token = token.clone();
            let operation = move |_: &(), ()| {
                drop(token);
                Ok::<_, Error>(())
            };
            // Some queued, some deferred.
            let store = if n % 2 == 0 { Arc::new(()) } else { store.clone() };
            executor.submit(&store, operation, true, ()).expect("accepted")
        })
        .collect();
    assert_eq!(Arc::strong_count(&token), 201);
    assert!(executor.stats().deferred > 0 && executor.stats().queued > 0);
    assert!(requests.iter().all(AsyncRequest::cancel));
    assert_eq!((Arc::strong_count(&token), Arc::strong_count(&store)), (1, 1), "freed by the cancel itself");
    gate.open();
    blocker.wait(HANG).expect("it ends");
}

#[test]
fn what_an_operation_holds_is_freed_before_its_end_is_seen() {
    let (executor, store, token) = (executor(2), Arc::new(()), Arc::new(()));
    for _ in 0..200 {
        let captured = token.clone();
        let operation = move |_: &(), _: &str| {
            let _captured = &captured;
            Ok::<_, Error>(())
        };
        executor.submit(&store, operation, true, "AAPL").expect("accepted").wait(HANG).expect("it ends");
        assert_eq!((Arc::strong_count(&token), Arc::strong_count(&store)), (1, 1));
    }
    let unclaimed = token.clone();
    drop(executor.spawn(move || unclaimed).expect("accepted"));
    eventually("a result that nobody can claim is dropped", || Arc::strong_count(&token) == 1);
}
