//! Processes that are killed, stopped, poisoned, and told wrong times, and a queue that must not
//! mind.
//!
//! In CI the numbers are small. `FULMAR_TASK_FAULTS=200` runs the full size: 150 kills and 50
//! stops.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fulmar::tasks::{RetryPolicy, TaskError, TaskQueue, TaskStatus, TaskType, WorkerId};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Bed, HANG, LEASE, claims, eventually, history, is_unfenced, number, open_at, put, task};

/// Another process. It ends with this.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(bed: &dyn Bed, part: &str, settings: &[(&str, i64)]) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["child::child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("FULMAR_CHILD", part).env("FULMAR_CHILD_QUEUE", bed.address());
        for (name, value) in settings {
            command.env(name, value.to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (tell, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The harness may have begun the line.
                let Some((_, said)) = line.split_once("@ ") else {
                    continue;
                };
                if tell.send(said.to_owned()).is_err() {
                    return;
                }
            }
        });
        Process { child, lines }
    }

    /// A worker with leases of half a second.
    fn worker(bed: &dyn Bed) -> Process {
        Process::start(bed, "work", &[])
    }

    /// The next line that begins so; what comes before is skipped.
    pub(crate) fn until(&self, what: &str) -> String {
        let deadline = Instant::now() + HANG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| panic!("no line `{what}`: {error}"));
            if let Some(rest) = line.strip_prefix(what) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Whether a line that begins so comes soon; what comes before is skipped.
    fn says(&self, what: &str, soon: Duration) -> bool {
        let deadline = Instant::now() + soon;
        let next = || self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
        std::iter::from_fn(next).any(|line| line.starts_with(what))
    }

    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{line}").expect("it listens");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there: nobody has waited for it");
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("ours").is_none()
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().expect("ours");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is wrong with the account of tasks that all have to be finished: each exactly once, with
/// its response.
pub(crate) fn violations(queue: &TaskQueue, names: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for name in names {
        let log = history(queue, name);
        let finishes = log.iter().filter(|&&status| status == TaskStatus::Finished).count();
        if finishes != 1 || log.last() != Some(&TaskStatus::Finished) {
            found.push(format!("`{name}` finished {finishes} times: {log:?}"));
        }
        let response = queue.response("t", name).expect("known");
        if response.is_none_or(|response| response.body != name.as_bytes()) {
            found.push(format!("`{name}` has not its response"));
        }
    }
    found
}

/// Without a fence, the test has to find what it looks for: else it proves nothing.
#[track_caller]
pub(crate) fn assert_account(found: &[String]) {
    if is_unfenced() {
        assert!(!found.is_empty(), "there is no fence, and this test does not notice");
    } else {
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// A queue with a type that bears any number of losses.
pub(crate) fn patient_queue(bed: &dyn Bed) -> TaskQueue {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(1_000_000)).expect("registered");
    queue
}

pub(crate) fn wait_for_all(queue: &TaskQueue, names: &[String]) {
    for name in names {
        assert_eq!(queue.wait("t", name, HANG).expect("it ends"), TaskStatus::Finished, "{name}");
    }
}

pub(crate) fn killed_and_stopped_workers_lose_nothing_and_finish_nothing_twice(bed: &dyn Bed) {
    let queue = patient_queue(bed);
    let faults = number("FULMAR_TASK_FAULTS", 16);
    let mut seed = number("FULMAR_TASK_SEED", std::process::id() as usize);
    println!("seed {seed}, {faults} faults");
    let mut workers: Vec<(Process, String)> = Vec::new();
    let start = || {
        let worker = Process::worker(bed);
        let id = worker.until("worker ");
        (worker, id)
    };
    workers.resize_with(4, start);
    let mut names = Vec::new();
    for fault in 0..faults {
        // Any of them, at work.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let victim = (seed >> 33) % workers.len();
        let (worker, id) = &workers[victim];
        eventually("the worker starts a task", || {
            // The others may have taken all there were before this one has looked.
            let more: Vec<String> = (names.len()..names.len() + 20).map(|n| n.to_string()).collect();
            queue.enqueue_many(more.iter().map(task)).expect("accepted");
            names.extend(more);
            worker.says("start ", Duration::from_millis(200))
        });
        if fault % 4 != 3 {
            worker.signal(Signal::KILL);
            workers[victim] = start();
        } else {
            worker.signal(Signal::STOP);
            // Until all it had is taken away; but it may have been stopped with the database's lock
            // in its hands.
            let (since, held) = (Instant::now(), format!("SELECT count(*) FROM fulmar_task WHERE worker = '{id}'"));
            while bed.count(&held) > 0 && since.elapsed() < Duration::from_secs(3) {
                std::thread::yield_now();
            }
            worker.signal(Signal::CONT);
        }
    }
    let last = Instant::now();
    wait_for_all(&queue, &names);
    println!("{} tasks, {} faults, all ended {:.1?} after the last", names.len(), faults, last.elapsed());
    let lost: i64 = bed.count("SELECT coalesce(sum(lost), 0) FROM fulmar_task");
    println!("{lost} attempts were lost and made up for");
    // Late finishes have to be in as well before the account is made.
    for (worker, _) in &mut workers {
        worker.signal(Signal::TERM);
        worker.until("drained ");
    }
    let found = violations(&queue, &names);
    println!("{} violations", found.len());
    if !is_unfenced() {
        assert_account(&found);
    }
}

/// The heart of it, step by step: the stopped worker goes on after another has finished its task.
pub(crate) fn a_stopped_worker_can_not_finish_late(bed: &dyn Bed) {
    let queue = patient_queue(bed);
    let name = "wait".to_owned();
    put(&queue, &name);
    let lease = [("FULMAR_CHILD_LEASE", LEASE.as_millis() as i64)];
    let mut late = Process::start(bed, "work", &lease);
    late.until("start wait 1");
    late.signal(Signal::STOP);
    bed.shift(2 * LEASE.as_millis() as i64);
    let mut second = Process::start(bed, "work", &lease);
    second.until("start wait 2");
    second.tell("go");
    wait_for_all(&queue, std::slice::from_ref(&name));
    late.signal(Signal::CONT);
    late.tell("go");
    late.signal(Signal::TERM);
    let stats = late.until("drained ");
    let found = violations(&queue, std::slice::from_ref(&name));
    assert_account(&found);
    if !is_unfenced() {
        assert!(stats.contains("0 finished") && stats.contains("1 stale"), "{stats}");
    }
}

pub(crate) fn a_poison_task_stops_and_its_neighbours_finish(bed: &dyn Bed) {
    // One thread, so that the restart limit is the poison's alone: a neighbour at work in the same
    // process would share it.
    poisoned(bed, &[("FULMAR_CHILD_THREADS", 1), ("FULMAR_CHILD_BATCH", 5)], 0);
}

pub(crate) fn a_poison_task_takes_those_started_with_it_along_once(bed: &dyn Bed) {
    let together = ("FULMAR_CHILD_TOGETHER", 5);
    poisoned(bed, &[("FULMAR_CHILD_THREADS", 1), ("FULMAR_CHILD_BATCH", 40), together], 1);
}

/// `losses`: how often a neighbour may be lost with the poison.
fn poisoned(bed: &dyn Bed, settings: &[(&str, i64)], losses: u32) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(2).retry(RetryPolicy::never())).expect("registered");
    let names: Vec<String> = (0..20).map(|n| format!("n{n}")).collect();
    queue.enqueue_many(names[..10].iter().map(task)).expect("accepted");
    let poison = put(&queue, "poison");
    queue.enqueue_many(names[10..].iter().map(task)).expect("accepted");
    // Long: only those that died with their worker lose their leases, when their time is moved on.
    let mut settings = settings.to_vec();
    settings.push(("FULMAR_CHILD_LEASE", LEASE.as_millis() as i64));
    let mut worker = Process::start(bed, "work", &settings);
    let mut deaths = 0;
    eventually("the poison task ends", || {
        if !worker.is_running() {
            deaths += 1;
            bed.shift(2 * LEASE.as_millis() as i64);
            worker = Process::start(bed, "work", &settings);
        }
        poison.status().expect("known").is_ended()
    });
    wait_for_all(&queue, &names);
    let info = poison.info().expect("known");
    assert_eq!((info.status, info.starts, info.lost), (TaskStatus::Failed, 3, 3));
    assert_eq!(deaths, 3);
    for name in &names {
        let info = queue.info("t", name).expect("known");
        assert!(info.lost <= losses && info.starts == 1 + info.lost, "{info:?}: what was only taken is not charged");
    }
    let lost = bed.count("SELECT count(*) FROM fulmar_task WHERE lost > 0 AND identifier <> 'poison'");
    assert_eq!(lost > 0, losses > 0, "{lost} neighbours were lost");
}

/// For the tasks, a clock that jumps by an hour is all of their times moved by one.
pub(crate) fn a_clock_that_jumps_finishes_nothing_twice(bed: &dyn Bed) {
    const HOUR: i64 = 3_600_000;
    let queue = patient_queue(bed);
    let workers = [Process::worker(bed), Process::worker(bed)];
    let mut names = Vec::new();
    for (round, jump) in [HOUR, -HOUR, HOUR, -HOUR].into_iter().enumerate() {
        let more: Vec<String> = (0..20).map(|n| format!("{round}-{n}")).collect();
        queue.enqueue_many(more.iter().map(task)).expect("accepted");
        workers[round % 2].until("start ");
        bed.shift(jump);
        // What waits must not wait for an hour now; that a clock went back is for the leases to
        // bear.
        bed.sql("UPDATE fulmar_task SET run_at = 0 WHERE gate IS NOT NULL");
        wait_for_all(&queue, &more);
        names.extend(more);
    }
    for worker in &workers {
        worker.signal(Signal::TERM);
        worker.until("drained ");
    }
    if !is_unfenced() {
        assert_account(&violations(&queue, &names));
    }
}

pub(crate) fn a_worker_drains_at_the_first_signal_and_ends_at_the_second(bed: &dyn Bed) {
    let queue = patient_queue(bed);
    let names: Vec<String> = (0..10).map(|n| format!("wait{n}")).collect();
    queue.enqueue_many(names.iter().map(task)).expect("accepted");
    let lease = ("FULMAR_CHILD_LEASE", LEASE.as_millis() as i64);
    let mut worker = Process::start(bed, "work", &[lease, ("FULMAR_CHILD_BATCH", 10)]);
    worker.until("start ");
    worker.until("start ");
    eventually("it takes all ten", || queue.stats().expect("read").count(TaskStatus::Scheduled) == 8);
    let told = Instant::now();
    worker.signal(Signal::TERM);
    worker.until("draining");
    eventually("eight are given back", || queue.stats().expect("read").count(TaskStatus::Accepted) == 8);
    println!("given back after {:.1?}", told.elapsed());
    assert_eq!(queue.stats().expect("read").count(TaskStatus::Running), 2, "what runs may end");
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(1));
    bed.shift(2 * LEASE.as_millis() as i64);
    let mut second = Process::start(bed, "work", &[lease]);
    second.tell("go");
    wait_for_all(&queue, &names);
    for name in &names {
        let info = queue.info("t", name).expect("known");
        assert_eq!(info.starts, 1 + info.lost, "{info:?}");
    }
    assert_eq!(bed.count("SELECT sum(lost) FROM fulmar_task"), 2, "the two that ran, and no other");
}

pub(crate) fn a_killed_producer_loses_nothing_that_was_acknowledged(bed: &dyn Bed) {
    let queue = bed.queue();
    for round in 0..number("FULMAR_TASK_FAULTS", 16).div_ceil(8) {
        let producer = Process::start(bed, "produce", &[]);
        producer.until(&format!("accepted p{}", 10 + round));
        producer.signal(Signal::KILL);
        let mut producer = producer;
        producer.wait();
        // All that it had said before it was killed.
        let last =
            producer.lines.iter().filter_map(|line| line.strip_prefix("accepted p")?.parse::<usize>().ok()).last();
        for n in 0..=last.unwrap_or(10 + round) {
            let info = queue.info("t", &format!("p{n}")).unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(info.status, TaskStatus::Accepted);
            assert_eq!(history(&queue, &format!("p{n}")), [TaskStatus::Accepted]);
        }
        queue.force_unregister("t").expect("forced");
        queue.register(TaskType::new("t")).expect("registered");
    }
}

pub(crate) fn many_processes_open_a_new_database_at_once(bed: &dyn Bed) {
    let mut processes: Vec<Process> = (0..8).map(|_| Process::start(bed, "open", &[])).collect();
    for process in &processes {
        process.until("here");
    }
    for process in &mut processes {
        process.tell("go");
    }
    for process in &mut processes {
        process.until("opened");
        assert!(process.wait().success());
    }
    put(&bed.queue(), "a");
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_setting WHERE name = 'schema'"), 1);
}

pub(crate) fn a_newer_schema_is_refused(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "a");
    let known = bed.count("SELECT value FROM fulmar_setting WHERE name = 'schema'");
    assert_eq!(bed.sql("UPDATE fulmar_setting SET value = 99 WHERE name = 'schema'"), 1);
    let refused = open_at(&bed.address(), TaskQueue::builder()).expect_err("newer");
    assert!(matches!(refused, TaskError::SchemaTooNew { found: 99, known: newest } if newest == known), "{refused}");
    assert_eq!(claims(&queue, &WorkerId::new(), 9).len(), 1, "nothing was changed");
}

pub(crate) fn an_open_program_is_told_of_a_newer_schema(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "a");
    let told = || queue.stats().expect("counted").warnings.into_iter().find(|words| words.contains("schema"));
    assert_eq!(told(), None);
    assert_eq!(bed.sql("UPDATE fulmar_setting SET value = 99 WHERE name = 'schema'"), 1);
    let words = told().expect("a warning");
    assert!(words.contains("schema 99") && words.contains("replace this program"), "{words}");
    assert_eq!(claims(&queue, &WorkerId::new(), 9).len(), 1, "it goes on");
}
