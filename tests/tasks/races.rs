//! What threads do to each other.

use std::sync::Barrier;

use fulmar::tasks::{TaskError, TaskStatus, TaskType};

use crate::support::{Bed, LEASE, claim, history, put, races, task};

/// Runs `act` on so many threads at once, and collects what they say.
fn at_once<R: Send>(threads: usize, act: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let start = Barrier::new(threads);
    let run = |number| {
        start.wait();
        act(number)
    };
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads).map(|number| scope.spawn(move || run(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

pub(crate) fn sixteen_producers_fill_it_exactly(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.set_capacity(64).expect("set");
    let queues: Vec<_> = (0..4).map(|_| bed.open()).collect();
    let accepted: Vec<usize> = at_once(16, |producer| {
        let queue = &queues[producer % 4];
        let put = |n| match queue.enqueue(task(format!("{producer}-{n}"))) {
            Ok(_) => 1,
            Err(TaskError::QueueFull { capacity: 64 }) => 0,
            Err(other) => panic!("{other}"),
        };
        (0..20).map(put).sum()
    });
    assert_eq!(accepted.iter().sum::<usize>(), 64);
    assert_eq!(queue.stats().expect("read").count(TaskStatus::Accepted), 64);
}

pub(crate) fn one_of_many_gets_the_identifier(bed: &dyn Bed) {
    let queue = bed.queue();
    let queues: Vec<_> = (0..4).map(|_| bed.open()).collect();
    for round in 0..races().div_ceil(20) {
        let won = at_once(8, |producer| match queues[producer % 4].enqueue(task(round.to_string())) {
            Ok(_) => 1,
            Err(TaskError::Duplicate { .. }) => 0,
            Err(other) => panic!("{other}"),
        });
        assert_eq!(won.iter().sum::<usize>(), 1, "round {round}");
    }
    assert_eq!(queue.stats().expect("read").total(), races().div_ceil(20) as u64);
}

/// A worker finishes while its lease is taken away: one of them wins, and the loser changes nothing.
pub(crate) fn the_reaper_races_the_finish(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(0)).expect("registered");
    let other = bed.open();
    for round in 0..races() {
        let name = round.to_string();
        put(&queue, &name);
        let claim = claim(&queue);
        claim.start().expect("ours");
        bed.pass(2 * LEASE);
        let won = at_once(2, |side| match side {
            0 => match claim.finish() {
                Ok(status) => usize::from(status == TaskStatus::Finished),
                Err(error) => usize::from(!error.is_stale()) * 100,
            },
            _ => other.tidy().expect("tidied").failed as usize,
        });
        assert_eq!(won.iter().sum::<usize>(), 1, "round {round}: {won:?}");
        let expected = if won[0] == 1 { TaskStatus::Finished } else { TaskStatus::Failed };
        assert_one_end(&queue, &name, expected);
        queue.delete("t", &name).expect("ended");
    }
}

pub(crate) fn cancel_races_the_finish(bed: &dyn Bed) {
    let queue = bed.queue();
    let other = bed.open();
    for round in 0..races() {
        let name = round.to_string();
        put(&queue, &name);
        let claim = claim(&queue);
        let started = round % 2 == 0;
        if started {
            claim.start().expect("ours");
        }
        let said = at_once(2, |side| match side {
            0 if started => claim.finish().ok(),
            0 => claim.start().and_then(|()| claim.finish()).ok(),
            _ => Some(other.cancel("t", &name).expect("known")),
        });
        let end = queue.status("t", &name).expect("known");
        match said[..] {
            // It was told, or came too late.
            [Some(TaskStatus::Finished), Some(TaskStatus::Running | TaskStatus::Finished)] => {
                assert_one_end(&queue, &name, TaskStatus::Finished);
            }
            [None, Some(TaskStatus::Cancelled)] => assert_one_end(&queue, &name, TaskStatus::Cancelled),
            _ => panic!("round {round}: {said:?}, and it is {end}"),
        }
        queue.delete("t", &name).expect("ended");
    }
}

fn assert_one_end(queue: &fulmar::tasks::TaskQueue, name: &str, expected: TaskStatus) {
    assert_eq!(queue.status("t", name).expect("known"), expected);
    let ends: Vec<TaskStatus> = history(queue, name).into_iter().filter(|status| status.is_ended()).collect();
    assert_eq!(ends, [expected], "one end, never left again");
}
