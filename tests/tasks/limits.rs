//! Limits of a type that all machines share: at once by key, rates, turns of keys, and priority
//! that ages.

use std::collections::HashMap;
use std::time::Duration;

use fulmar::tasks::{
    Claim, Limits, NewTask, Rate, TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, Worker, WorkerId,
};

use crate::support::{Bed, HANG, LEASE, claims, eventually, names, task};

/// Task `name` of a key, that isn't a modifier.
fn of_key(key: &str, name: impl Into<String>) -> NewTask {
    task(name).ordered(key, false)
}

fn crowd(queue: &TaskQueue, key: &str, tasks: usize) {
    queue.enqueue_many((0..tasks).map(|n| of_key(key, format!("{key}{n}")))).expect("accepted");
}

fn taken(queue: &TaskQueue, limit: usize) -> Vec<Claim> {
    claims(queue, &WorkerId::new(), limit)
}

fn finish(claims: &[Claim]) {
    for claim in claims {
        claim.start().expect("ours");
        claim.finish().expect("ours");
    }
}

pub(crate) fn limits_are_set_listed_and_removed(bed: &dyn Bed) {
    let (queue, other) = (bed.queue(), bed.open());
    queue.register(TaskType::new("a")).expect("registered");
    let rate = Rate::new(7, Duration::from_millis(1_500)).burst(3);
    let limits =
        Limits::new().max_concurrent_by_key(2).rate(rate).rate_by_key(Rate::new(1, HANG)).turns(true).ageing(LEASE);
    queue.set_limits("t", limits).expect("set");
    queue.set_limits("a", Limits::new().turns(true)).expect("set");
    let both = [("a".to_owned(), Limits::new().turns(true)), ("t".to_owned(), limits)];
    assert_eq!(other.limits().expect("read"), both, "another process sees them");
    other.set_limits("t", Limits::new().max_concurrent_by_key(1)).expect("all of them are set anew");
    assert_eq!(queue.limits().expect("read")[1].1, Limits::new().max_concurrent_by_key(1));
    // Registering a type again, or pausing it, says nothing of limits; and limits don't pause it.
    queue.register(TaskType::new("t").restart_limit(9)).expect("registered");
    assert!(queue.depth().expect("counted").types.iter().all(|of_type| !of_type.paused));
    assert!(queue.stats().expect("counted").types.iter().all(|of_type| !of_type.paused));
    queue.pause_type("t").expect("paused");
    queue.resume_type("t").expect("resumed");
    assert_eq!(queue.limits().expect("read").len(), 2);
    assert!(queue.remove_limits("t").expect("removed"));
    assert!(!queue.remove_limits("t").expect("there are none"));
    queue.set_limits("a", Limits::new()).expect("empty ones are none");
    assert_eq!(queue.limits().expect("read"), []);
    assert!(matches!(queue.set_limits("no", limits), Err(TaskError::UnknownType(_))));
    for senseless in [
        Limits::new().max_concurrent_by_key(0),
        Limits::new().rate(Rate::new(0, HANG)),
        Limits::new().rate_by_key(Rate::new(1, Duration::ZERO)),
        Limits::new().rate(Rate::new(1, HANG).burst(0)),
        Limits::new().ageing(Duration::ZERO),
    ] {
        assert!(matches!(queue.set_limits("t", senseless), Err(TaskError::Invalid(_))), "{senseless:?}");
    }
    queue.set_limits("t", limits).expect("set");
    queue.force_unregister("t").expect("its limits go with a type");
    assert_eq!(queue.limits().expect("read"), []);
}

/// Whatever another program wrote there: nothing of that type is taken, because what was meant
/// can't be known, and it is told.
pub(crate) fn limits_that_make_no_sense_hold_back_their_type_alone(bed: &dyn Bed) {
    let queue = bed.queue();
    let others = ["a", "z"];
    for name in others {
        queue.register(TaskType::new(name)).expect("registered");
    }
    let limits = Limits::new().max_concurrent_by_key(9).rate(Rate::new(9, HANG).burst(9)).ageing(LEASE);
    queue.set_limits("z", Limits::new().max_concurrent_by_key(9)).expect("set");
    let mut waiting = Vec::new();
    for (round, senseless) in [
        "key_at_once = -1",
        "key_at_once = 0",
        "key_at_once = 5000000000",
        "starts = -1",
        "starts = NULL",
        "period = -1",
        "period = NULL",
        "burst = 0",
        "ageing = -1",
    ]
    .into_iter()
    .enumerate()
    {
        queue.set_limits("t", limits).expect("set");
        bed.sql(&format!(
            "UPDATE fulmar_limit SET {senseless} WHERE type_id = (SELECT id FROM fulmar_task_type WHERE name = 't')"
        ));
        for name in others.into_iter().chain(["t"]) {
            let task = NewTask::new(name, round.to_string()).ordered("k", false);
            let handle = queue.enqueue(task).expect("accepted");
            waiting.extend((name == "t").then_some(handle));
        }
        let claims = queue.dequeue(&WorkerId::new(), &["a", "t", "z"], 9, LEASE).expect("claimed");
        let types: Vec<&str> = claims.iter().map(|claim| claim.task().task_type()).collect();
        assert_eq!(types, others, "{senseless}");
        finish(&claims);
        let listed = queue.limits().expect("read");
        assert_eq!(listed.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["z"], "{senseless}");
        let warnings = queue.stats().expect("counted").warnings;
        let told = |warning: &&String| warning.contains("type `t`") && warning.contains("no sense");
        assert_eq!(warnings.iter().filter(told).count(), 1, "{senseless}: {warnings:?}");
    }
    // A worker of all three types waits for what comes, and isn't kept from it.
    let worker = others
        .into_iter()
        .chain(["t"])
        .fold(Worker::builder(&queue), |worker, name| worker.handle(name, |_: &TaskContext| Ok::<(), TaskError>(())));
    let worker = worker.start().expect("started");
    let late = queue.enqueue(NewTask::new("a", "late")).expect("accepted");
    assert_eq!(late.wait(HANG).expect("it ends"), TaskStatus::Finished);
    queue.set_limits("t", Limits::new()).expect("set anew");
    assert_eq!(queue.wait_all(&waiting, HANG).expect("they end"), vec![TaskStatus::Finished; waiting.len()]);
    assert_eq!(queue.stats().expect("counted").warnings, [""; 0]);
    worker.drain(HANG).expect("idle");
}

pub(crate) fn a_key_has_its_limit_at_once(bed: &dyn Bed) {
    let (queue, other) = (bed.queue(), bed.open());
    queue.set_limits("t", Limits::new().max_concurrent_by_key(2)).expect("set");
    crowd(&queue, "a", 4);
    crowd(&queue, "b", 1);
    queue.enqueue_many([task("x"), task("y"), task("z")]).expect("accepted");
    let first = taken(&queue, 9);
    assert_eq!(names(&first), ["a0", "a1", "b0", "x", "y", "z"], "what has no key is not limited");
    assert!(taken(&other, 9).is_empty(), "for all machines");
    finish(&first[..1]);
    assert_eq!(names(&taken(&other, 9)), ["a2"]);
    // One that pauses makes room, and so does one whose lease is over.
    let pause = |task: &TaskContext| {
        task.pause(Duration::from_secs(3_600));
        Ok::<(), TaskError>(())
    };
    assert_eq!(first[1].run(&pause).expect("ours"), TaskStatus::Paused);
    assert_eq!(names(&taken(&other, 9)), ["a3"]);
    bed.pass(LEASE * 2);
    queue.tidy().expect("rescued");
    assert_eq!(taken(&queue, 9).iter().filter(|claim| claim.task().identifier().starts_with('a')).count(), 2);
}

pub(crate) fn limits_are_changed_while_tasks_wait_and_run(bed: &dyn Bed) {
    let queue = bed.queue();
    crowd(&queue, "a", 9);
    let first = taken(&queue, 3);
    queue.set_limits("t", Limits::new().max_concurrent_by_key(2)).expect("set");
    assert!(taken(&queue, 9).is_empty(), "more are held than may be");
    finish(&first[..2]);
    assert_eq!(taken(&queue, 9).len(), 1);
    queue.set_limits("t", Limits::new().max_concurrent_by_key(4)).expect("set");
    assert_eq!(taken(&queue, 9).len(), 2);
    // A slow rate is none any more once a faster one is set.
    queue.set_limits("t", Limits::new().rate(Rate::new(1, Duration::from_secs(86_400)))).expect("set");
    assert_eq!(taken(&queue, 9).len(), 1);
    assert!(taken(&queue, 9).is_empty());
    queue.set_limits("t", Limits::new().rate(Rate::new(60, Duration::from_secs(3_600)))).expect("set");
    queue.pass_time(Duration::from_secs(61)).expect("passed");
    assert_eq!(taken(&queue, 9).len(), 1);
    queue.remove_limits("t").expect("removed");
    assert_eq!(taken(&queue, 9).len(), 1, "the last of nine");
}

/// The order of a key stays as it is: a modifier runs alone.
pub(crate) fn a_modifier_is_alone_below_a_limit(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.set_limits("t", Limits::new().max_concurrent_by_key(2).turns(true)).expect("set");
    crowd(&queue, "a", 1);
    queue.enqueue(task("write").ordered("a", true)).expect("accepted");
    queue.enqueue_many((0..3).map(|n| of_key("a", format!("behind{n}")))).expect("accepted");
    let first = taken(&queue, 9);
    assert_eq!(names(&first), ["a0"]);
    finish(&first);
    let second = taken(&queue, 9);
    assert_eq!(names(&second), ["write"]);
    finish(&second);
    assert_eq!(names(&taken(&queue, 9)), ["behind0", "behind1"]);
}

pub(crate) fn a_type_starts_no_faster_than_its_rate(bed: &dyn Bed) {
    let (queue, other) = (bed.queue(), bed.open());
    queue.set_limits("t", Limits::new().rate(Rate::new(2, Duration::from_secs(7_200)).burst(3))).expect("set");
    crowd(&queue, "a", 20);
    assert_eq!(taken(&queue, 2).len() + taken(&other, 9).len(), 3, "the burst, for both together");
    assert!(taken(&queue, 9).is_empty());
    queue.pass_time(Duration::from_secs(3_601)).expect("passed");
    assert_eq!(taken(&queue, 9).len(), 1);
    assert!(taken(&other, 9).is_empty());
    queue.pass_time(Duration::from_secs(100_000)).expect("passed");
    assert_eq!(taken(&queue, 9).len(), 3, "no more than the burst are saved up");
}

pub(crate) fn each_key_starts_no_faster_than_its_rate(bed: &dyn Bed) {
    let (queue, other) = (bed.queue(), bed.open());
    let each = Limits::new().rate_by_key(Rate::new(1, Duration::from_secs(3_600)));
    queue.set_limits("t", each).expect("set");
    crowd(&queue, "a", 3);
    crowd(&queue, "b", 1);
    queue.enqueue_many([task("x"), task("y")]).expect("accepted");
    assert_eq!(names(&taken(&queue, 9)), ["a0", "b0", "x", "y"]);
    assert!(taken(&other, 9).is_empty());
    queue.enqueue(of_key("c", "c0")).expect("accepted");
    assert_eq!(names(&taken(&other, 9)), ["c0"]);
    queue.pass_time(Duration::from_secs(3_601)).expect("passed");
    assert_eq!(names(&taken(&queue, 9)), ["a1"]);
    // Buckets that are full again don't stay for ever.
    queue.pass_time(Duration::from_secs(3_601)).expect("passed");
    assert_eq!(names(&taken(&queue, 9)), ["a2"]);
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_limit_key"), 1);
}

/// What a rate holds back holds no place below a limit at once, and no other key.
pub(crate) fn what_a_rate_holds_back_holds_nothing_else(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").max_concurrent(2)).expect("registered");
    let hour = Duration::from_secs(3_600);
    queue
        .set_limits("t", Limits::new().max_concurrent_by_key(1).rate_by_key(Rate::new(1, hour)).turns(true))
        .expect("set");
    crowd(&queue, "a", 50);
    let first = taken(&queue, 9);
    assert_eq!(names(&first), ["a0"]);
    finish(&first);
    assert!(taken(&queue, 9).is_empty());
    crowd(&queue, "b", 2);
    crowd(&queue, "c", 2);
    crowd(&queue, "d", 2);
    let second = taken(&queue, 9);
    assert_eq!(names(&second), ["b0", "c0"], "two of the type at once");
    finish(&second);
    assert_eq!(names(&taken(&queue, 9)), ["d0"]);
}

/// A hundred thousand of one key are in front, and ten of another.
pub(crate) fn keys_take_turns(bed: &dyn Bed) {
    let (queue, other) = (bed.queue(), bed.open());
    queue.set_limits("t", Limits::new().turns(true)).expect("set");
    for part in 0..20 {
        queue.enqueue_many((0..5_000).map(|n| of_key("a", format!("a{part}/{n}")))).expect("accepted");
    }
    crowd(&queue, "b", 10);
    crowd(&queue, "c", 10);
    let mut of_keys: HashMap<char, usize> = HashMap::new();
    for round in 0..15 {
        let from = if round % 2 == 0 { &queue } else { &other };
        let claims = taken(from, if round % 3 == 0 { 1 } else { 2 });
        for name in names(&claims) {
            *of_keys.entry(name.chars().next().expect("a name")).or_default() += 1;
        }
        finish(&claims);
    }
    assert_eq!(of_keys, HashMap::from([('a', 9), ('b', 8), ('c', 8)]), "25 in all, one of each after the other");
}

pub(crate) fn a_priority_ages(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue(task("old")).expect("accepted");
    bed.pass(Duration::from_secs(100));
    queue.enqueue_many((0..200).map(|n| task(format!("high{n}")).priority(5))).expect("accepted");
    queue.enqueue(task("highest").priority(11)).expect("accepted");
    assert_eq!(names(&taken(&queue, 2)), ["highest", "high0"], "off by default");
    queue.set_limits("t", Limits::new().ageing(Duration::from_secs(30))).expect("set");
    assert_eq!(names(&taken(&queue, 1)), ["high1"], "by three");
    queue.set_limits("t", Limits::new().ageing(Duration::from_secs(10))).expect("set");
    assert_eq!(names(&taken(&queue, 2)), ["old", "high2"], "by ten");
    // With turns, it counts among the tasks of a key.
    queue.enqueue(of_key("a", "old of a")).expect("accepted");
    bed.pass(Duration::from_secs(100));
    queue.enqueue_many((0..100).map(|n| of_key("a", format!("a{n}")).priority(9))).expect("accepted");
    queue.set_limits("t", Limits::new().ageing(Duration::from_secs(10)).turns(true)).expect("set");
    assert_eq!(names(&taken(&queue, 1)), ["old of a"]);
}

/// Fifty thousand of a key that is at its limit are in front of other keys', and of another type.
pub(crate) fn what_is_held_back_blocks_no_other(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    for limits in [
        Limits::new().max_concurrent_by_key(1),
        Limits::new().rate_by_key(Rate::new(1, Duration::from_secs(86_400))),
        Limits::new().max_concurrent_by_key(1).turns(true),
    ] {
        queue.set_limits("t", limits).expect("set");
        if bed.count("SELECT count(*) FROM fulmar_task") == 0 {
            for part in 0..10 {
                let crowd = (0..5_000).map(|n| of_key("m", format!("{part}/{n}")).priority(9));
                queue.enqueue_many(crowd).expect("accepted");
            }
        }
        assert_eq!(taken(&queue, 1).len(), 1, "one of the crowd");
        let others = [of_key("a", "a"), of_key("z", "z"), NewTask::new("u", "u")];
        queue.enqueue_many(others).expect("accepted");
        let of_both = queue.dequeue(&WorkerId::new(), &["t", "u"], 4, LEASE).expect("claimed");
        let mut found = names(&of_both);
        found.sort_unstable();
        assert_eq!(found, ["a", "u", "z"], "{limits:?}");
        assert!(taken(&queue, 4).is_empty());
        for claim in &of_both {
            claim.start().expect("ours");
            claim.finish().expect("ours");
            queue.delete(claim.task().task_type(), claim.task().identifier()).expect("gone");
        }
        // What is held of the crowd goes back.
        bed.pass(LEASE * 2);
        queue.tidy().expect("rescued");
    }
}

/// Six hundred keys, all of them held back by their rate, are in front of one that is not.
pub(crate) fn many_keys_that_are_held_back_block_no_other(bed: &dyn Bed) {
    let queue = bed.queue();
    queue
        .set_limits("t", Limits::new().rate_by_key(Rate::new(1, Duration::from_secs(86_400))).turns(true))
        .expect("set");
    let two_of_each = (0..600).flat_map(|n| (0..2).map(move |m| of_key(&format!("k{n}"), format!("{n}/{m}"))));
    queue.enqueue_many(two_of_each).expect("accepted");
    let mut all = 0;
    loop {
        let claims = taken(&queue, 50);
        all += claims.len();
        if claims.is_empty() {
            break;
        }
    }
    assert_eq!(all, 600, "one of each");
    queue.enqueue(of_key("z", "z")).expect("accepted");
    assert_eq!(names(&taken(&queue, 9)), ["z"]);
    queue.pass_time(Duration::from_secs(86_401)).expect("passed");
    assert_eq!(taken(&queue, 9).len(), 9);
}

/// Two thousand keys of which workers hold as many as they may are in front of one that is free,
/// and of one that was free before.
pub(crate) fn thousands_of_keys_at_their_limit_block_no_other(bed: &dyn Bed) {
    let queue = bed.queue();
    for turns in [false, true] {
        queue.set_limits("t", Limits::new().max_concurrent_by_key(1).turns(turns)).expect("set");
        if !turns {
            let two_of_each =
                (0..2_000).flat_map(|n| (0..2).map(move |m| of_key(&format!("k{n:04}"), format!("{n}/{m}"))));
            queue.enqueue_many(two_of_each).expect("accepted");
            assert_eq!(taken(&queue, 3_000).len(), 2_000, "one of each");
        }
        queue.enqueue_many([of_key("z", format!("z{turns}")), of_key("a", format!("a{turns}"))]).expect("accepted");
        let last = taken(&queue, 9);
        let mut found = names(&last);
        found.sort_unstable();
        assert_eq!(found, [format!("a{turns}"), format!("z{turns}")]);
        finish(&last);
    }
}

/// As [`many_keys_that_are_held_back_block_no_other`], with more of them than a claim goes past.
pub(crate) fn thousands_of_keys_held_by_their_rate_block_no_other(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.set_limits("t", Limits::new().rate_by_key(Rate::new(1, Duration::from_secs(86_400)))).expect("set");
    let two_of_each = (0..2_000).flat_map(|n| (0..2).map(move |m| of_key(&format!("k{n:04}"), format!("{n}/{m}"))));
    queue.enqueue_many(two_of_each).expect("accepted");
    let mut all = 0;
    // A search may have to rest.
    eventually("one of each key is taken", || {
        all += taken(&queue, 500).len();
        all == 2_000
    });
    queue.enqueue_many((0..3).map(|n| of_key("z", format!("z{n}")))).expect("accepted");
    let mut last = Vec::new();
    eventually("the one behind them is taken", || {
        last.extend(taken(&queue, 9));
        !last.is_empty()
    });
    assert_eq!(names(&last), ["z0"]);
    assert!(taken(&queue, 9).is_empty());
}

/// Ten thousand tasks of a key that is held back are in front of tasks without a key.
pub(crate) fn tasks_without_a_key_are_found_behind_a_crowd(bed: &dyn Bed) {
    let queue = bed.queue();
    for limits in [
        Limits::new().max_concurrent_by_key(1),
        Limits::new().max_concurrent_by_key(1).turns(true),
        Limits::new().rate_by_key(Rate::new(1, Duration::from_secs(86_400))),
        Limits::new().max_concurrent_by_key(1).ageing(Duration::from_secs(3_600)),
    ] {
        queue.set_limits("t", limits).expect("set");
        if bed.count("SELECT count(*) FROM fulmar_task") == 0 {
            for part in 0..2 {
                queue.enqueue_many((0..5_000).map(|n| of_key("m", format!("{part}/{n}")))).expect("accepted");
            }
        }
        assert_eq!(taken(&queue, 1).len(), 1, "one of the crowd");
        queue.enqueue_many((0..40).map(|n| task(format!("x{n}")))).expect("accepted");
        let mut found = Vec::new();
        eventually("all that have no key are taken", || {
            found.extend(taken(&queue, 8));
            found.len() >= 40
        });
        assert!(names(&found).iter().all(|name| name.starts_with('x')), "{limits:?}");
        finish(&found);
        for claim in &found {
            queue.delete("t", claim.task().identifier()).expect("gone");
        }
        // What is held of the crowd goes back.
        bed.pass(LEASE * 2);
        queue.tidy().expect("rescued");
    }
}

/// Workers that sleep learn of tasks behind what is held back, and of the next start of the key
/// that is behind them all.
pub(crate) fn a_worker_wakes_for_what_is_behind_all_that_is_held_back(bed: &dyn Bed) {
    // It looks by itself far too seldom.
    let queue = bed.open_with(TaskQueue::builder().poll_interval(HANG * 2));
    queue.register(TaskType::new("t")).expect("registered");
    queue.set_limits("t", Limits::new().rate_by_key(Rate::new(1, Duration::from_secs(86_400)))).expect("set");
    let two_of_each = (0..1_500).flat_map(|n| (0..2).map(move |m| of_key(&format!("k{n:04}"), format!("{n}/{m}"))));
    queue.enqueue_many(two_of_each).expect("accepted");
    let worker =
        Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<(), TaskError>(())).start().expect("started");
    for n in 0..1_500 {
        assert_eq!(queue.task("t", &format!("{n}/0")).wait(HANG).expect("in time"), TaskStatus::Finished);
    }
    for n in 0..5 {
        let (keyless, behind) = (task(format!("x{n}")), of_key(&format!("z{n}"), format!("z{n}")));
        for task in queue.enqueue_many([keyless, behind]).expect("accepted") {
            assert_eq!(task.wait(HANG).expect("in time"), TaskStatus::Finished);
        }
    }
    worker.drain(HANG).expect("drained");
}

/// Each claim counts, whatever became of it: one that is given back, one that is lost, one after a
/// pause or a failure.
pub(crate) fn a_rate_counts_claims(bed: &dyn Bed) {
    let queue = bed.queue();
    let hour = Duration::from_secs(3_600);
    for limits in
        [Limits::new().rate(Rate::new(1, hour).burst(4)), Limits::new().rate_by_key(Rate::new(1, hour).burst(4))]
    {
        queue.set_limits("t", limits).expect("set");
        crowd(&queue, "a", 1);
        let given_back = taken(&queue, 1).pop().expect("the first");
        given_back.give_back("not now").expect("ours");
        let paused = taken(&queue, 1).pop().expect("the second");
        let pause = |task: &TaskContext| {
            task.pause(Duration::ZERO);
            Ok::<(), TaskError>(())
        };
        assert_eq!(paused.run(&pause).expect("ours"), TaskStatus::Paused);
        let lost = taken(&queue, 1).pop().expect("the third");
        lost.start().expect("ours");
        bed.pass(LEASE * 2);
        queue.tidy().expect("rescued");
        assert_eq!(taken(&queue, 9).len(), 1, "the fourth");
        bed.pass(LEASE * 2);
        queue.tidy().expect("rescued");
        assert!(taken(&queue, 9).is_empty(), "{limits:?}: four claims were all");
        queue.pass_time(hour).expect("passed");
        let fifth = taken(&queue, 9);
        assert_eq!(fifth.len(), 1);
        finish(&fifth);
        queue.delete("t", "a0").expect("gone");
    }
}

/// Workers hear of a rate's next start by themselves, and of room below a key's limit.
pub(crate) fn a_worker_wakes_when_the_next_start_is_due(bed: &dyn Bed) {
    // It looks by itself far too seldom.
    let queue = bed.open_with(TaskQueue::builder().poll_interval(HANG));
    queue.register(TaskType::new("t")).expect("registered");
    queue.set_limits("t", Limits::new().rate(Rate::new(10, Duration::from_secs(1)))).expect("set");
    let worker =
        Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<(), TaskError>(())).start().expect("started");
    let tasks: Vec<_> = (0..5).map(|n| queue.enqueue(of_key("a", format!("a{n}"))).expect("accepted")).collect();
    for task in &tasks {
        assert_eq!(task.wait(HANG / 2).expect("in time"), TaskStatus::Finished);
    }
    queue.set_limits("t", Limits::new().max_concurrent_by_key(1)).expect("set");
    let tasks: Vec<_> = (0..5).map(|n| queue.enqueue(of_key("b", format!("b{n}"))).expect("accepted")).collect();
    for task in &tasks {
        assert_eq!(task.wait(HANG / 2).expect("in time"), TaskStatus::Finished);
    }
    worker.drain(HANG).expect("drained");
}

/// Four workers on two connections: never more of a key at once than may be, and all come to an
/// end.
pub(crate) fn many_workers_keep_a_key_s_limit(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.set_limits("t", Limits::new().max_concurrent_by_key(2).turns(true)).expect("set");
    crowd(&queue, "a", 40);
    crowd(&queue, "b", 40);
    let running = std::sync::Arc::new(std::sync::Mutex::new((HashMap::<char, usize>::new(), 0)));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let running = running.clone();
            let handler = move |task: &TaskContext| {
                let key = task.identifier().chars().next().expect("a name");
                {
                    let mut running = running.lock().expect("no panic under it");
                    let now = running.0.entry(key).or_default();
                    *now += 1;
                    let now = *now;
                    running.1 = running.1.max(now);
                }
                std::thread::yield_now();
                *running.lock().expect("no panic under it").0.entry(key).or_default() -= 1;
                Ok::<(), TaskError>(())
            };
            Worker::builder(&bed.open()).max_concurrent(3).handle("t", handler).start().expect("started")
        })
        .collect();
    for key in ["a", "b"] {
        for n in 0..40 {
            assert_eq!(queue.task("t", &format!("{key}{n}")).wait(HANG).expect("in time"), TaskStatus::Finished);
        }
    }
    for worker in &workers {
        worker.drain(HANG).expect("drained");
    }
    assert!(running.lock().expect("no panic").1 <= 2);
}
