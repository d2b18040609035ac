//! Ten thousand nested groups with random failures, cancels and time limits: none of their
//! operations outlives a group that it is in, and each account adds up.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fulmar::{Error, Executor, Group, Limit, Policy, is_cancelled, shield};

use crate::support::{assert_adds_up, ends, executor};

const GROUPS: u64 = 10_000;
const DEEPEST: usize = 8;

/// Xorshift: Marsaglia, "Xorshift RNGs", 2003.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn fork(&mut self) -> Random {
        Random(self.next() | 1)
    }

    fn short(&mut self) -> Duration {
        Duration::from_micros(self.below(300))
    }

    fn policy(&mut self) -> Policy {
        [Policy::All, Policy::Any, Policy::Each][self.below(3) as usize]
    }
}

struct World {
    executor: Executor,
    limit: Limit,
    groups: AtomicU64,
}

impl World {
    fn has_more(&self) -> bool {
        self.groups.fetch_add(1, Ordering::Relaxed) < GROUPS
    }
}

/// What the test knows about a group.
struct Watch {
    parent: Option<Arc<Watch>>,
    running: AtomicU64,
    ended: AtomicBool,
    submitted: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// An operation that runs in a group, and so in all groups around it.
struct Running(Arc<Watch>);

impl Watch {
    fn new(parent: Option<&Arc<Watch>>) -> Arc<Watch> {
        let zero = || AtomicU64::new(0);
        let parent = parent.cloned();
        Arc::new(Watch {
            parent,
            running: zero(),
            ended: AtomicBool::new(false),
            submitted: zero(),
            succeeded: zero(),
            failed: zero(),
        })
    }

    fn with_parents(&self, mut see: impl FnMut(&Watch)) {
        let mut next = Some(self);
        while let Some(watch) = next {
            see(watch);
            next = watch.parent.as_deref();
        }
    }

    fn assert_nothing_runs(&self) {
        assert_eq!(self.running.load(Ordering::Acquire), 0, "operations outlive their group");
    }
}

impl Running {
    fn start(watch: &Arc<Watch>) -> Running {
        watch.with_parents(|watch| {
            watch.running.fetch_add(1, Ordering::AcqRel);
            assert!(!watch.ended.load(Ordering::Acquire), "an operation starts after its group's end");
        });
        Running(watch.clone())
    }

    fn end(self, succeeded: bool) {
        let count = if succeeded { &self.0.succeeded } else { &self.0.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.with_parents(|watch| {
            watch.running.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

/// Submits to `group`, and ends it.
fn tend(world: &Arc<World>, watch: &Arc<Watch>, mut random: Random, group: Group, depth: usize) {
    for _ in 0..1 + random.below(4) {
        let (own_world, own_watch, own_random) = (world.clone(), watch.clone(), random.fork());
        let operation = move || operate(&own_world, &own_watch, own_random, depth);
        watch.submitted.fetch_add(1, Ordering::Relaxed);
        let submitted = match random.below(8) {
            0 => group.within(random.short()).spawn(operation),
            1 => group.start_within(random.short()).spawn(operation),
            2 => group.submit_write(&Arc::new(()), move |_: &(), _: &str| operation(), "key"),
            _ => group.spawn(operation),
        };
        drop(submitted.expect("accepted, or cancelled already"));
    }
    if depth < DEEPEST && random.below(2) == 0 && world.has_more() {
        let policy = random.policy();
        let inside = match random.below(3) {
            0 => group.within(random.short()).group(policy),
            _ => group.group(policy),
        };
        tend(world, &Watch::new(Some(watch)), random.fork(), inside, depth + 1);
    }
    match random.below(4) {
        0 => {
            group.cancel();
        }
        // It is dropped with all that is in it.
        1 => {
            drop(group);
            watch.assert_nothing_runs();
            watch.ended.store(true, Ordering::Release);
            return;
        }
        _ => {}
    }
    let mut waited = group.wait(None);
    if matches!(waited, Err(Error::Interrupted)) {
        // The operation that waits was cancelled as well. The account is complete only at the end.
        waited = shield(|| group.wait(None));
    }
    watch.assert_nothing_runs();
    assert!(!matches!(waited, Err(Error::WouldDeadlock | Error::Timeout { .. } | Error::Interrupted)), "{waited:?}");
    let stats = group.stats();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(stats.unfinished(), 0, "{stats:?}");
    let known = (count(&watch.submitted), count(&watch.succeeded), count(&watch.failed));
    assert_eq!((stats.submitted, stats.succeeded, stats.failed), known, "{stats:?}");
    drop(group);
    watch.ended.store(true, Ordering::Release);
}

/// What a request of a group does.
fn operate(world: &Arc<World>, watch: &Arc<Watch>, mut random: Random, depth: usize) -> Result<(), &'static str> {
    let running = Running::start(watch);
    match random.below(10) {
        0..=2 if depth < DEEPEST && world.has_more() => {
            let (policy, executor) = (random.policy(), &world.executor);
            let inside = match random.below(3) {
                0 => executor.within(random.short()).group(policy),
                _ => executor.group(policy),
            };
            tend(world, &Watch::new(Some(watch)), random.fork(), inside, depth + 1);
        }
        3 => {
            let own_watch = watch.clone();
            let leaf = move || Running::start(&own_watch).end(true);
            watch.submitted.fetch_add(1, Ordering::Relaxed);
            let waited = match random.below(6) {
                0 => world.limit.spawn(leaf).expect("accepted, or cancelled already").wait(None),
                1 => {
                    let mut map = world.executor.map([()], 1, move |()| leaf()).expect("sound");
                    map.next().expect("one item")
                }
                2 => fulmar::scope(1, |s| s.spawn(leaf)?.wait(None)).expect("it starts"),
                3 => {
                    drop(world.executor.spawn(leaf).expect("accepted, or cancelled already"));
                    Ok(())
                }
                _ => world.executor.spawn(leaf).expect("accepted, or cancelled already").wait(None),
            };
            let is_expected = matches!(waited, Ok(()) | Err(Error::Cancelled | Error::Expired | Error::Interrupted));
            assert!(is_expected, "{waited:?}");
        }
        4 => {
            running.end(false);
            return Err("on purpose");
        }
        5 => {
            running.end(false);
            // Past the panic hook, which would print thousands of them.
            resume_unwind(Box::new("on purpose"));
        }
        _ => {
            for _ in 0..random.below(200) {
                if is_cancelled() {
                    break;
                }
                std::thread::yield_now();
            }
        }
    }
    running.end(true);
    Ok(())
}

#[test]
fn ten_thousand_nested_groups_end_before_their_parents_and_their_accounts_add_up() {
    let seed = std::env::var("FULMAR_GROUPS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_127);
    println!("FULMAR_GROUPS_SEED={seed}");
    let executor = executor(4);
    let limit = executor.limit(2).expect("sound");
    let world = Arc::new(World { executor: executor.clone(), limit, groups: AtomicU64::new(0) });
    let roots = [1, 2].map(|thread: u64| {
        let (world, mut random) = (world.clone(), Random((seed ^ thread.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1));
        std::thread::spawn(move || {
            while world.has_more() {
                let policy = random.policy();
                let group = match random.below(3) {
                    0 => world.executor.within(random.short()).group(policy),
                    _ => world.executor.group(policy),
                };
                tend(&world, &Watch::new(None), random.fork(), group, 0);
            }
        })
    });
    let are_ok = ends("ten thousand groups", move || roots.map(|root| root.join().is_ok()));
    assert_eq!(are_ok, [true, true], "see above");
    ends("a shutdown with nothing left", {
        let executor = executor.clone();
        move || executor.shutdown(None)
    })
    .expect("it ends");
    let stats = executor.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.unfinished(), stats.threads), (0, 0), "{stats}");
}
