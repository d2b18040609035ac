//! Everything at once, many times over, with accounts that have to add up.
//!
//! `FULMAR_STRESS_REQUESTS=10000000 cargo test --release --test stress -- --nocapture` submits that many. What each
//! thread does follows from a seed, which is printed; `FULMAR_STRESS_SEED` sets it. How the threads interleave doesn't,
//! so a seed brings back the same mix, and often but not always the same failure.
//!
//! What is checked: each accepted request's operation ran, or was cancelled, or followed one that gave no value; nothing
//! overlaps a modifier on its key, and nobody overtakes; each waiter gets its own result; what has to be refused is
//! refused; every snapshot of the counters adds up, and the last one agrees with the test's own books.
#![cfg(not(loom))]

use std::collections::VecDeque;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use fulmar::{Args, AsyncRequest, Error, Executor, OnFull, Result, Stats, Status, as_completed, is_cancelled, shield};

const SUBMITTERS: usize = 4;
const KEYS: [Option<&str>; 4] = [Some("AAPL"), Some("IBM"), Some("MSFT"), None];
const STORES: usize = 2;
/// Handles that a submitter holds at a time.
const WINDOW: usize = 96;
/// A minute without any progress is a hang.
const HANG: Duration = Duration::from_secs(60);

/// Pairs of which the first waits for the second, on threads that all were busy: a pool that holds one back from a free
/// thread is stuck, if not in this round, then in one of a thousand.
#[test]
fn no_pair_that_waits_for_each_other_is_stuck() {
    const ROUNDS: usize = 1_000;
    for threads in [2, 4, 8, 64] {
        let executor = Executor::builder().threads(threads).build().expect("sound");
        for round in 0..ROUNDS {
            let gates: Vec<_> = (0..threads).map(|_| channel::<()>()).collect();
            let (gates, holds): (Vec<_>, Vec<_>) = gates.into_iter().unzip();
            let mut requests: Vec<AsyncRequest<()>> = Vec::new();
            for hold in holds {
                requests.push(executor.spawn(move || _ = hold.recv()).expect("accepted"));
            }
            for _ in 0..threads {
                requests.push(executor.spawn(|| ()).expect("accepted"));
            }
            for _ in 0..2 * threads {
                let (send, receive) = channel();
                requests.push(executor.spawn(move || receive.recv().expect("it is sent")).expect("accepted"));
                requests.push(executor.spawn(move || send.send(()).expect("it is received")).expect("accepted"));
            }
            drop(gates);
            let ended = executor.wait_requests(&requests, HANG);
            assert!(ended.is_ok(), "{threads} threads, round {round}: {ended:?}, {}", executor.stats());
        }
        executor.shutdown(None).expect("ends");
    }
}

#[test]
fn any_mix_of_everything_loses_nothing_and_runs_nothing_twice() {
    let requests = number("FULMAR_STRESS_REQUESTS").unwrap_or(100_000);
    let seed = number("FULMAR_STRESS_SEED").unwrap_or_else(seed_of_the_moment);
    println!("seed {seed} (FULMAR_STRESS_SEED={seed} repeats it), {requests} requests");
    SEED.set(seed).expect("set nowhere else");
    keep_planned_panics_quiet();

    let world = Arc::new(World::new());
    let start = Instant::now();
    let (stop_watching, watch) = channel();
    let (stop_disturbing, disturb) = channel();
    std::thread::scope(|scope| {
        let (watched, disturbed) = (&world, &world);
        scope.spawn(move || watchdog(watched, &watch));
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|index| {
                let share = requests / SUBMITTERS as u64 + u64::from((index as u64) < requests % SUBMITTERS as u64);
                let world = &world;
                scope.spawn(move || Submitter::new(world, index, seed).run(share))
            })
            .collect();
        let disturber = scope.spawn(move || disturber(disturbed, Random::new(seed, 1_000), &disturb));
        submitters.into_iter().for_each(|submitter| submitter.join().expect("a submitter ends well"));
        drop(stop_disturbing);
        let snapshots = disturber.join().expect("the disturber ends well");
        for house in &world.houses {
            house.executor.shutdown(None).expect("all that was accepted ends");
        }
        let spent = start.elapsed();
        world.final_account();
        drop(stop_watching);
        let total: u64 = world.houses.iter().map(|house| house.executor.stats().submitted).sum();
        let rate = total as f64 / spent.as_secs_f64();
        let told = world.told.load(Relaxed);
        println!("{}", world.houses[0].executor.stats());
        println!(
            "{total} requests in {:.1} s, {rate:.0} requests/s; {snapshots} snapshots added up; {told} waits refused as \
             deadlocks; seed {seed}",
            spent.as_secs_f64()
        );
        assert!(total >= requests, "{total} of {requests} were accepted");
    });
}

// The world: executors, each with stores of its own and its own books.

struct World {
    /// Without a bound first, then one for each way of being full.
    houses: Vec<House>,
    /// Waits that were told of a deadlock.
    told: AtomicU64,
}

struct House {
    executor: Executor,
    stores: [Arc<Cells>; STORES],
    books: Arc<Books>,
}

/// What happened, counted by the operations, the submitters and the cancellers themselves.
#[derive(Default)]
struct Books {
    accepted: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    /// Calls of `cancel` that returned true.
    cancelled: AtomicU64,
    /// Of those, followers.
    cancelled_followers: AtomicU64,
    refused: AtomicU64,
    refused_followers: AtomicU64,
    /// Operations dropped without having run.
    dropped: AtomicU64,
    dropped_followers: AtomicU64,
    callbacks_registered: AtomicU64,
    callbacks_called: AtomicU64,
}

impl World {
    fn new() -> World {
        let bounded = |capacity, on_full| Executor::builder().threads(2).queue_capacity(capacity).on_full(on_full);
        let builders = [
            Executor::builder().threads(3),
            bounded(16, OnFull::Reject),
            bounded(16, OnFull::Wait(Duration::from_micros(500))),
            bounded(8, OnFull::CallerRuns),
        ];
        let houses = builders.map(|builder| House {
            executor: builder.build().expect("sound settings"),
            stores: std::array::from_fn(|_| Arc::new(Cells::default())),
            books: Arc::default(),
        });
        World { houses: houses.into(), told: AtomicU64::new(0) }
    }

    fn progress(&self) -> u64 {
        let of = |books: &Books| {
            [&books.accepted, &books.completed, &books.failed, &books.panicked, &books.dropped, &books.refused]
                .map(|count| count.load(Relaxed))
                .iter()
                .sum::<u64>()
        };
        self.houses.iter().map(|house| of(&house.books)).sum()
    }

    /// After all has ended.
    fn final_account(&self) {
        for (index, house) in self.houses.iter().enumerate() {
            let (stats, books) = (house.executor.stats(), &house.books);
            let get = |count: &AtomicU64| count.load(SeqCst);
            let same = |what: &str, counted: u64, expected: u64| {
                check(counted == expected, || format!("executor {index}: {what}: {counted}, but {expected}; {stats}"));
            };
            adds_up(&stats);
            // A follower that never ran failed with the error of the one before it, unless it was cancelled or refused.
            let skipped =
                get(&books.dropped_followers) - get(&books.cancelled_followers) - get(&books.refused_followers);
            same("unfinished", stats.unfinished(), 0);
            same("threads", stats.threads as u64, 0);
            same("accepted", stats.submitted, get(&books.accepted));
            same("completed", stats.completed, get(&books.completed));
            same("failed", stats.failed, get(&books.failed) + skipped);
            same("panicked", stats.panicked, get(&books.panicked));
            same("cancelled", stats.cancelled, get(&books.cancelled));
            let plain_cancelled = get(&books.cancelled) - get(&books.cancelled_followers);
            same("never run", get(&books.dropped), plain_cancelled + get(&books.refused));
            same("callbacks", get(&books.callbacks_called), get(&books.callbacks_registered));
            let cells = house.stores.iter().flat_map(|store| &store.0);
            check(cells.into_iter().all(|cell| cell.inside.load(SeqCst) == 0), || "somebody is still inside".into());
        }
    }
}

impl House {
    fn count(&self, count: fn(&Books) -> &AtomicU64) {
        count(&self.books).fetch_add(1, Relaxed);
    }

    /// Counts a submission; `None` if it was refused, as only a closed or full executor may.
    fn booked<T>(&self, submitted: Result<T>, many: u64, follower: bool) -> Option<T> {
        let counts = match &submitted {
            Ok(_) => [Some(&self.books.accepted), None],
            Err(Error::ShutDown | Error::QueueFull) => {
                [(!follower).then_some(&self.books.refused), follower.then_some(&self.books.refused_followers)]
            }
            Err(other) => fail(&format!("refused with {other:?}")),
        };
        for count in counts.into_iter().flatten() {
            count.fetch_add(many, Relaxed);
        }
        submitted.ok()
    }

    fn cancel(&self, held: &Held) -> bool {
        let cancelled = held.request.cancel();
        if cancelled {
            self.count(|books| &books.cancelled);
            if held.follower {
                self.count(|books| &books.cancelled_followers);
            }
            check(held.request.status() == Status::Cancelled, || "a cancelled request has another status".into());
        }
        cancelled
    }
}

/// What the requests touch: who is inside each key, and who was there last.
#[derive(Default)]
struct Cells([Cell; KEYS.len()]);

#[derive(Default)]
struct Cell {
    /// How many accessors are inside; -1 for a modifier.
    inside: AtomicI64,
    /// By submitter: the number of the latest that was inside, and of the latest modifier.
    latest: [AtomicU64; SUBMITTERS],
    latest_modifier: [AtomicU64; SUBMITTERS],
}

/// Something to touch through `dyn`: the same store, and so the same order.
trait Touched: Send + Sync {
    fn touch(&self, touch: Touch) -> std::result::Result<u64, Planned>;
}

impl Touched for Cells {
    fn touch(&self, touch: Touch) -> std::result::Result<u64, Planned> {
        let cell = &self.0[touch.key];
        let _inside = cell.enter(&touch);
        touch.act()
    }
}

impl Cell {
    fn enter(&self, touch: &Touch) -> Inside<'_> {
        if touch.is_modifier {
            let before = self.inside.swap(-1, SeqCst);
            check(before == 0, || format!("a modifier found {before} inside its key"));
        } else {
            let before = self.inside.fetch_add(1, SeqCst);
            check(before >= 0, || "an accessor found a modifier inside its key".into());
        }
        if let Some((submitter, number)) = touch.number {
            let before = if touch.is_modifier {
                self.latest_modifier[submitter].store(number, SeqCst);
                self.latest[submitter].swap(number, SeqCst)
            } else {
                self.latest[submitter].fetch_max(number, SeqCst);
                self.latest_modifier[submitter].load(SeqCst)
            };
            check(before < number, || format!("{before} of submitter {submitter} overtook {number}"));
        }
        Inside { cell: self, is_modifier: touch.is_modifier }
    }
}

struct Inside<'a> {
    cell: &'a Cell,
    is_modifier: bool,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if self.is_modifier {
            self.cell.inside.store(0, SeqCst);
        } else {
            self.cell.inside.fetch_sub(1, SeqCst);
        }
    }
}

// One request: what it is to do, and that this is seen to.

/// The arguments of a request.
struct Touch {
    key: usize,
    is_modifier: bool,
    /// The submitter and its count, in the order of submission; none for those submitted inside operations.
    number: Option<(usize, u64)>,
    store: usize,
    plan: Plan,
    once: Once,
}

impl Args for Touch {
    fn key(&self) -> Option<&str> {
        KEYS[self.key]
    }
}

impl Touch {
    fn act(self) -> std::result::Result<u64, Planned> {
        let Touch { key, store, plan, once, .. } = self;
        match plan.what {
            What::Value => {}
            What::Fail => {
                once.ran(|books| &books.failed);
                return Err(Planned(plan.value));
            }
            What::Panic => {
                once.ran(|books| &books.panicked);
                panic!("planned {}", plan.value);
            }
            What::Yield => std::thread::yield_now(),
            What::Nest(nested) => nest(&nested, store, key),
        }
        once.ran(|books| &books.completed);
        Ok(plan.value)
    }
}

#[derive(Clone)]
struct Plan {
    value: u64,
    what: What,
}

#[derive(Clone)]
enum What {
    Value,
    Fail,
    Panic,
    Yield,
    /// Submits and waits, from inside, on the executor without a bound.
    Nest(Nest),
}

#[derive(Clone)]
struct Nest {
    world: Arc<World>,
    /// Where this operation itself was submitted.
    house: usize,
    seed: u64,
}

#[derive(Debug, PartialEq)]
struct Planned(u64);

impl std::fmt::Display for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "planned {}", self.0)
    }
}

impl std::error::Error for Planned {}

/// Goes with each operation, and is told when it runs; an operation that is dropped unrun is counted as such.
struct Once {
    books: Arc<Books>,
    follower: bool,
    ran: bool,
}

impl Once {
    fn new(house: &House, follower: bool) -> Once {
        Once { books: house.books.clone(), follower, ran: false }
    }

    fn ran(mut self, how: fn(&Books) -> &AtomicU64) {
        self.ran = true;
        how(&self.books).fetch_add(1, Relaxed);
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        if !self.ran {
            let count = if self.follower { &self.books.dropped_followers } else { &self.books.dropped };
            count.fetch_add(1, Relaxed);
        }
    }
}

/// A handle, and what has to come out of it.
struct Held {
    house: usize,
    follower: bool,
    request: AsyncRequest<u64>,
    expected: Expected,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Value(u64),
    Failed(u64),
    Panicked(u64),
    Cancelled,
}

impl Plan {
    fn expected(&self) -> Expected {
        match self.what {
            What::Fail => Expected::Failed(self.value),
            What::Panic => Expected::Panicked(self.value),
            _ => Expected::Value(self.value),
        }
    }
}

impl Expected {
    fn verify(self, result: Result<u64>) {
        let found = match &result {
            Ok(value) => Some(Expected::Value(*value)),
            Err(Error::Operation(error)) => error.downcast_ref().map(|Planned(value)| Expected::Failed(*value)),
            Err(Error::Panicked(text)) => {
                text.strip_prefix("planned ").and_then(|text| text.parse().ok()).map(Expected::Panicked)
            }
            Err(Error::Cancelled) => Some(Expected::Cancelled),
            Err(_) => None,
        };
        check(found == Some(self), || format!("a wait gave {result:?} where {self:?} was due"));
    }
}

// The submitters.

struct Submitter<'a> {
    world: &'a Arc<World>,
    index: usize,
    random: Random,
    numbers: u64,
    accepted: u64,
    held: VecDeque<Held>,
}

impl<'a> Submitter<'a> {
    fn new(world: &'a Arc<World>, index: usize, seed: u64) -> Submitter<'a> {
        Submitter { world, index, random: Random::new(seed, index), numbers: 0, accepted: 0, held: VecDeque::new() }
    }

    fn run(mut self, share: u64) {
        while self.accepted < share {
            self.submit();
            while self.held.len() > WINDOW {
                self.collect();
            }
        }
        while !self.held.is_empty() {
            self.collect();
        }
    }

    fn submit(&mut self) {
        let house = if self.random.chance(80) { 0 } else { 1 + self.random.below(3) };
        match self.random.below(100) {
            0..25 => self.spawn(house),
            25..80 => self.touch(house),
            80..90 => self.touch_many(house),
            _ => self.follow(house),
        }
    }

    fn plan(&mut self, house: usize) -> Plan {
        let value = self.random.next();
        let what = match self.random.below(1_000) {
            0..30 => What::Fail,
            30..50 => What::Panic,
            50..80 => What::Yield,
            80..120 => What::Nest(Nest { world: self.world.clone(), house, seed: self.random.next() }),
            _ => What::Value,
        };
        Plan { value, what }
    }

    /// A new touch of a random key on a store of `house`.
    fn new_touch(&mut self, house: usize, store: usize, is_modifier: bool, plan: Plan) -> Touch {
        self.numbers += 1;
        let key = self.random.below(KEYS.len());
        let once = Once::new(&self.world.houses[house], false);
        Touch { key, is_modifier, number: Some((self.index, self.numbers)), store, plan, once }
    }

    fn keep(&mut self, house: usize, request: Option<AsyncRequest<u64>>, expected: Expected) {
        match request {
            Some(request) => {
                self.accepted += 1;
                self.held.push_back(Held { house, follower: false, request, expected });
            }
            // Full, or closed for a moment.
            None => std::thread::yield_now(),
        }
    }

    fn spawn(&mut self, index: usize) {
        let house = &self.world.houses[index];
        let (value, once) = (self.random.next(), Once::new(house, false));
        let submitted = house.executor.spawn(move || {
            once.ran(|books| &books.completed);
            value
        });
        let request = house.booked(submitted, 1, false);
        self.keep(index, request, Expected::Value(value));
    }

    fn touch(&mut self, index: usize) {
        let (store, is_modifier, plan) = (self.random.below(STORES), self.random.chance(45), self.plan(index));
        let expected = plan.expected();
        let touch = self.new_touch(index, store, is_modifier, plan);
        let house = &self.world.houses[index];
        let store = &house.stores[store];
        let submitted = if self.random.chance(25) {
            let store: Arc<dyn Touched> = store.clone();
            house.executor.submit(&store, <dyn Touched>::touch, is_modifier, touch)
        } else {
            house.executor.submit(store, Cells::touch, is_modifier, touch)
        };
        let request = house.booked(submitted, 1, false);
        self.keep(index, request, expected);
    }

    fn touch_many(&mut self, index: usize) {
        let (store, is_modifier) = (self.random.below(STORES), self.random.chance(30));
        let many = 1 + self.random.below(24);
        let plans: Vec<Plan> = (0..many).map(|_| self.plan(index)).collect();
        let touches: Vec<Touch> =
            plans.iter().map(|plan| self.new_touch(index, store, is_modifier, plan.clone())).collect();
        let house = &self.world.houses[index];
        if index == 3 {
            // Where the caller runs, the accepted ones before a refusal stay accepted, without a handle: one by one here.
            for (touch, plan) in touches.into_iter().zip(plans) {
                let submitted = house.executor.submit(&house.stores[store], Cells::touch, is_modifier, touch);
                let request = house.booked(submitted, 1, false);
                self.keep(index, request, plan.expected());
            }
            return;
        }
        let submitted = match house.executor.submit_many(&house.stores[store], Cells::touch, is_modifier, touches) {
            Err(Error::Invalid(_)) if many > 16 => Err(Error::QueueFull),
            submitted => submitted,
        };
        if let Some(requests) = house.booked(submitted, many as u64, false) {
            check(requests.len() == many, || format!("{} handles for {many}", requests.len()));
            for (request, plan) in requests.into_iter().zip(plans) {
                self.keep(index, Some(request), plan.expected());
            }
        }
    }

    /// Hangs a follower on one of the handles, which is dropped or cancelled then.
    fn follow(&mut self, fallback: usize) {
        if self.held.is_empty() {
            return self.touch(fallback);
        }
        let at = self.random.below(self.held.len());
        let Some(mut first) = self.held.swap_remove_back(at) else { return };
        let house = &self.world.houses[first.house];
        let once = Once::new(house, true);
        let then = first.request.then(move |value| {
            once.ran(|books| &books.completed);
            Ok::<_, Planned>(value.wrapping_add(1))
        });
        let Some(request) = house.booked(then, 1, true) else {
            return self.held.push_back(first);
        };
        if self.random.chance(20) && house.cancel(&first) {
            first.expected = Expected::Cancelled;
        }
        let expected = match first.expected {
            Expected::Value(value) => Expected::Value(value.wrapping_add(1)),
            other => other,
        };
        self.accepted += 1;
        self.held.push_back(Held { house: first.house, follower: true, request, expected });
    }

    /// Does something with some of the oldest handles.
    fn collect(&mut self) {
        let some = 1 + self.random.below(16).min(self.held.len() - 1);
        match self.random.below(100) {
            0..40 => (0..some).for_each(|_| self.wait_for_oldest()),
            40..50 => drop(self.held.drain(..some)),
            50..65 => {
                for held in self.held.drain(..some) {
                    let expected =
                        if self.world.houses[held.house].cancel(&held) { Expected::Cancelled } else { held.expected };
                    expected.verify(held.request.wait(None));
                }
            }
            65..75 => self.wait_for_all(some),
            75..85 => {
                let held: Vec<Held> = self.held.drain(..some).collect();
                let (requests, expected): (Vec<_>, Vec<_>) = split(held);
                let mut seen = vec![false; requests.len()];
                for (index, result) in as_completed(&requests, None) {
                    check(!std::mem::replace(&mut seen[index], true), || format!("{index} came twice"));
                    expected[index].verify(result);
                }
                check(seen.iter().all(|seen| *seen), || "not all came".into());
            }
            85..95 => {
                let (mut requests, mut expected) = split(self.held.drain(..some).collect());
                while !requests.is_empty() {
                    let timeout = self.random.timeout();
                    match self.world.houses[0].executor.wait_any_request(&requests, timeout) {
                        Ok(done) => {
                            check(requests[done].is_done(), || "wait_any named one that is not done".into());
                            let taken = requests.swap_remove(done).try_take();
                            expected.swap_remove(done).verify(taken.unwrap_or(Err(Error::ResultTaken)));
                        }
                        Err(Error::Timeout { .. }) if timeout.is_some() => {}
                        Err(other) => fail(&format!("wait_any gave {other:?}")),
                    }
                }
            }
            _ => self.race_for_oldest(),
        }
    }

    fn wait_for_oldest(&mut self) {
        let Some(held) = self.held.pop_front() else { return };
        let house = &self.world.houses[held.house];
        if self.random.chance(10) {
            house.count(|books| &books.callbacks_registered);
            let books = house.books.clone();
            held.request.on_complete(move |status| {
                check(status.is_final(), || format!("called back with {status:?}"));
                books.callbacks_called.fetch_add(1, Relaxed);
            });
        }
        if self.random.chance(10) {
            let mut request = held.request;
            let mut context = Context::from_waker(Waker::noop());
            return match Pin::new(&mut request).poll(&mut context) {
                Poll::Ready(result) => held.expected.verify(result),
                Poll::Pending => held.expected.verify(request.wait(None)),
            };
        }
        loop {
            let timeout = self.random.timeout();
            match held.request.wait(timeout) {
                Err(Error::Timeout { left, .. }) if timeout.is_some() => check(left == 1, || format!("{left} left")),
                result => break held.expected.verify(result),
            }
        }
        if held.expected != Expected::Cancelled && self.random.chance(5) {
            let again = held.request.wait(None);
            check(matches!(again, Err(Error::ResultTaken)), || format!("taken twice: {again:?}"));
        }
    }

    /// All or nothing.
    fn wait_for_all(&mut self, some: usize) {
        let (requests, expected) = split(self.held.drain(..some).collect());
        let executor = &self.world.houses[0].executor;
        let result = loop {
            let timeout = self.random.timeout();
            match executor.wait_requests(&requests, timeout) {
                Err(Error::Timeout { .. }) if timeout.is_some() => {}
                result => break result,
            }
        };
        let bad = expected.iter().position(|expected| !matches!(expected, Expected::Value(_)));
        match (result, bad) {
            (Ok(values), None) => {
                values.into_iter().zip(expected).for_each(|(value, expected)| expected.verify(Ok(value)));
            }
            (Err(error), Some(bad)) => {
                expected[bad].verify(Err(error));
                for (index, (request, expected)) in requests.iter().zip(expected).enumerate() {
                    if index != bad {
                        expected.verify(request.try_take().unwrap_or(Err(Error::ResultTaken)));
                    }
                }
            }
            (result, bad) => fail(&format!("wait_requests gave {result:?}, and {bad:?} is the first to fail")),
        }
    }

    /// A canceller against a waiter, on two threads.
    fn race_for_oldest(&mut self) {
        let Some(held) = self.held.pop_front() else { return };
        let request = &held.request;
        if self.accepted % 64 != 0 {
            return held.expected.verify(request.wait(None));
        }
        let (result, cancelled) = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| request.wait(None));
            let cancelled = self.world.houses[held.house].cancel(&held);
            (waiter.join().expect("a wait doesn't panic"), cancelled)
        });
        if cancelled { Expected::Cancelled.verify(result) } else { held.expected.verify(result) }
    }
}

fn split(held: Vec<Held>) -> (Vec<AsyncRequest<u64>>, Vec<Expected>) {
    held.into_iter().map(|held| (held.request, held.expected)).unzip()
}

// Inside an operation.

/// A wait that a cancel of the operation may interrupt, and then once more in a shield: it has
/// changed nothing.
fn wait_inside<T>(wait: impl Fn() -> Result<T>) -> Result<T> {
    match wait() {
        Err(Error::Interrupted) => {
            check(is_cancelled(), || "interrupted without a cancel".into());
            shield(wait)
        }
        waited => waited,
    }
}

/// Submits and waits on the executor without a bound, from inside an operation on that one or on another.
fn nest(nest: &Nest, store: usize, key: usize) {
    let (house, random) = (&nest.world.houses[0], &mut Random(nest.seed));
    let (value, at_home) = (random.next(), nest.house == 0);
    let told = || _ = nest.world.told.fetch_add(1, Relaxed);
    match random.below(12) {
        // Nothing stands in the way of this one: it has to end, on however few threads.
        0..3 => {
            let once = Once::new(house, false);
            let nested = house.executor.spawn(move || {
                once.ran(|books| &books.completed);
                value
            });
            if let Some(nested) = house.booked(nested, 1, false) {
                Expected::Value(value).verify(wait_inside(|| nested.wait(None)));
            }
        }
        3..5 => nest_many(house, random),
        // A request behind this very one can't start before this one ends.
        5..7 if at_home => {
            let Some(nested) = touch_inside(nest, random, (store, key, true), value) else { return };
            let limit = if random.chance(50) { None } else { Some(Duration::from_secs(3_600)) };
            let refused = wait_inside(|| nested.wait(limit));
            check(matches!(refused, Err(Error::WouldDeadlock)), || format!("waiting behind oneself gave {refused:?}"));
            told();
        }
        // Waiting for one's own thread to end.
        7 if at_home => {
            let waits = [house.executor.shutdown(None), house.executor.reset(None, Duration::from_secs(1))];
            let all_told = waits.iter().all(|wait| matches!(wait, Err(Error::WouldDeadlock)));
            check(all_told, || format!("waiting for one's own thread gave {waits:?}"));
            told();
        }
        8 => adds_up(&house.executor.stats()),
        // Anywhere: it ends, unless somebody waits the other way round.
        _ => {
            let place = (random.below(STORES), random.below(KEYS.len()), random.chance(50));
            let timeout = random.timeout();
            let Some(nested) = touch_inside(nest, random, place, value) else { return };
            match wait_inside(|| nested.wait(timeout)) {
                Ok(found) => Expected::Value(value).verify(Ok(found)),
                Err(Error::Timeout { .. }) if timeout.is_some() => {}
                Err(Error::WouldDeadlock) => told(),
                Err(other) => fail(&format!("a nested wait gave {other:?}")),
            }
        }
    }
}

/// Submits a touch of (store, key, modifier or not), which may nest in turn.
fn touch_inside(
    nest: &Nest,
    random: &mut Random,
    (store, key, is_modifier): (usize, usize, bool),
    value: u64,
) -> Option<AsyncRequest<u64>> {
    let house = &nest.world.houses[0];
    let what = if random.chance(15) {
        What::Nest(Nest { world: nest.world.clone(), house: 0, seed: random.next() })
    } else {
        What::Value
    };
    let once = Once::new(house, false);
    let touch = Touch { key, is_modifier, number: None, store, plan: Plan { value, what }, once };
    house.booked(house.executor.submit(&house.stores[store], Cells::touch, is_modifier, touch), 1, false)
}

/// Many on a store of their own, waited for in each way that there is.
fn nest_many(house: &House, random: &mut Random) {
    let values: Vec<u64> = (0..1 + random.below(12)).map(|_| random.next()).collect();
    let is_modifier = random.chance(50);
    let touch = |value: &u64| {
        let (plan, once) = (Plan { value: *value, what: What::Value }, Once::new(house, false));
        Touch { key: 0, is_modifier, number: None, store: 0, plan, once }
    };
    let touches: Vec<Touch> = values.iter().map(touch).collect();
    let store = Arc::new(Cells::default());
    let submitted = house.executor.submit_many(&store, Cells::touch, is_modifier, touches);
    let Some(requests) = house.booked(submitted, values.len() as u64, false) else { return };
    match random.below(3) {
        0 => {
            let found = wait_inside(|| house.executor.wait_requests(&requests, None));
            check(found.as_ref().is_ok_and(|found| *found == values), || format!("{values:?} came back as {found:?}"));
        }
        1 => {
            let mut order = 0;
            for (index, result) in as_completed(&requests, None) {
                let interrupted = matches!(result, Err(Error::Interrupted));
                let result = if interrupted { wait_inside(|| requests[index].wait(None)) } else { result };
                Expected::Value(values[index]).verify(result);
                order += 1;
            }
            check(order == values.len(), || format!("{order} of {} came", values.len()));
        }
        _ => {
            let done = wait_inside(|| house.executor.wait_any_request(&requests, None));
            check(done.as_ref().is_ok_and(|done| requests[*done].is_done()), || format!("wait_any gave {done:?}"));
        }
    }
}

// Around it all.

/// Resizes, resets, and shuts down, all the while. Returns how many snapshots of the counters it saw add up.
fn disturber(world: &World, mut random: Random, stop: &Receiver<()>) -> u64 {
    let mut snapshots = 0;
    // A pause now and then, or all the time would go into starting threads.
    while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(Duration::from_micros(random.below(2_000) as u64)) {
        for house in &world.houses {
            adds_up(&house.executor.stats());
            snapshots += 1;
        }
        let house = if random.chance(70) { 0 } else { 1 + random.below(3) };
        let executor = &world.houses[house].executor;
        let threads = 1 + random.below(5);
        match random.below(100) {
            0..60 => executor.resize(threads).expect("a sound number"),
            60..90 => {
                let timeout = random.timeout();
                match executor.reset(random.chance(50).then_some(threads), timeout) {
                    Err(Error::Timeout { .. }) if timeout.is_some() => {}
                    result => result.expect("a reset ends"),
                }
            }
            _ => {
                let timeout = random.timeout();
                match executor.shutdown(timeout) {
                    Err(Error::Timeout { .. }) if timeout.is_some() => {
                        if random.chance(50) {
                            executor.await_termination(None).expect("what was accepted ends");
                        }
                    }
                    result => result.expect("a shutdown ends"),
                }
                let refused = executor.spawn(|| ());
                check(matches!(refused, Err(Error::ShutDown)), || format!("shut down, it gave {refused:?}"));
                executor.reset(threads, None).expect("it opens again");
            }
        }
    }
    snapshots
}

/// Ends the process, with the reason, when nothing has moved for a long time.
fn watchdog(world: &Arc<World>, stop: &Receiver<()>) {
    let mut last = (world.progress(), Instant::now());
    while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(Duration::from_secs(1)) {
        let progress = world.progress();
        if progress != last.0 {
            last = (progress, Instant::now());
        } else if last.1.elapsed() > HANG {
            // On a thread of its own, because a lock of the executor may be what hangs.
            let (told, tell) = channel::<()>();
            let world = world.clone();
            std::thread::spawn(move || {
                for (index, house) in world.houses.iter().enumerate() {
                    say(&format!("executor {index}: {}", house.executor.stats()));
                }
                drop(told);
            });
            if tell.recv_timeout(Duration::from_secs(5)) == Err(RecvTimeoutError::Timeout) {
                say("the counters can't be read: a lock is held for ever");
            }
            fail(&format!("hang: nothing was accepted or ended for {HANG:?}"));
        }
    }
}

fn adds_up(stats: &Stats) {
    let parts = stats.unfinished() + stats.completed + stats.failed + stats.panicked + stats.cancelled;
    check(stats.submitted == parts, || format!("the counters don't add up: {stats}"));
}

// Failing from wherever, with a reason.

static SEED: OnceLock<u64> = OnceLock::new();

fn check(is_so: bool, otherwise: impl FnOnce() -> String) {
    if !is_so {
        fail(&otherwise());
    }
}

/// Ends the process: a panic would be the result of the operation that found the fault.
fn fail(reason: &str) -> ! {
    say(&format!("stress test failed: {reason}; seed {}", SEED.get().copied().unwrap_or_default()));
    std::process::exit(101)
}

/// Past the capture of the test harness, which the end of the process would lose.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn keep_planned_panics_quiet() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload().downcast_ref::<String>();
        if !payload.is_some_and(|text| text.starts_with("planned ")) {
            usual(info);
        }
    }));
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`: set it to a number, or unset it")))
}

fn seed_of_the_moment() -> u64 {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(0) >> 16
}

/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: usize) -> Random {
        let mut random = Random(seed ^ (stream as u64).wrapping_mul(0xd1342543de82ef95));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e3779b97f4a7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d049bb133111eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Mostly none; or a look; or hardly any time; or more than any clock can count.
    fn timeout(&mut self) -> Option<Duration> {
        match self.below(10) {
            0 => Some(Duration::ZERO),
            1..4 => Some(Duration::from_micros(self.below(60) as u64)),
            4 => Some(Duration::MAX),
            _ => None,
        }
    }
}
