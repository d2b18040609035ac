//! A function whose process is killed at every place where a crash would be noticed, one after the other: before and after
//! each commit on SQLite, before each message to the server on PostgreSQL, and in between.

use std::collections::HashSet;
use std::process::Command;

use fulmar::tasks::durable::{Durable, fault, function};
use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, Worker};

use super::{HOUR, ok, result};
use crate::support::{Bed, LEASE};

/// More places than there are.
const MANY: u64 = 10_000;

/// What the function came to if nothing was lost and nothing happened twice.
const RESULT: i64 = 1 + 10 + 7 + (2 + 4) + 100;

/// The process of the test: runs the function to its end, unless it dies before.
pub(crate) fn run_until_killed(queue: &TaskQueue) {
    let die_at: u64 = crate::support::number("FULMAR_CHILD_DIE", 0) as u64;
    let is_control = std::env::var_os("FULMAR_CHILD_CONTROL").is_some();
    let work = move |cx: &Durable<'_>, ()| campaign(cx, is_control);
    let double = |task: &TaskContext| task.store_json(&(2 * task.input::<i64>()?));
    let worker = Worker::builder(queue).lease(LEASE).handle("t", function(work)).handle("c", double);
    fault::die_at(if die_at == 0 { MANY } else { die_at });
    while queue.status("t", "a").expect("there") != TaskStatus::Finished {
        if worker.run_due().expect("run").is_empty() {
            // The server may have done what a killed process had asked for after its leases ended.
            queue.tidy().expect("tidied");
        }
        queue.pass_time(HOUR).expect("passed");
    }
    say("left", &fault::left().to_string());
}

fn campaign(cx: &Durable<'_>, is_control: bool) -> Result<i64, TaskError> {
    let one: i64 = if is_control {
        // Reported before it is stored.
        let one = ran("one", 1)?;
        say("has", "one");
        cx.step("one", || ok(one))?
    } else {
        cx.step("one", || ran("one", 1))?
    };
    say("has", "one");
    let booked: i64 = cx.step_in("book", |tx| {
        tx.execute("INSERT INTO effects VALUES (1)", &[])?;
        ok(10)
    })?;
    cx.sleep("settle", HOUR / 2)?;
    let word: i64 = cx.event("word", None)?;
    let doubled: Vec<i64> = cx.all("double", (1..=2).map(|n| cx.child("c", &n.to_string(), &n)))?;
    let end: i64 = cx.step("end", || ran("end", 100))?;
    say("has", "end");
    ok(one + booked + word + doubled.iter().sum::<i64>() + end)
}

fn ran(name: &str, value: i64) -> Result<i64, TaskError> {
    say("ran", name);
    Ok(value)
}

fn say(what: &str, name: &str) {
    use std::io::Write;
    // In one call, and flushed: an abort flushes nothing.
    let _ = std::io::stdout().write_all(format!("@ {what} {name}\n").as_bytes());
    let _ = std::io::stdout().flush();
}

/// What a process said, and whether it came to its end.
fn process(bed: &dyn Bed, die_at: u64, is_control: bool) -> (Vec<(String, String)>, bool) {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["child::child", "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.env("FULMAR_CHILD", "function").env("FULMAR_CHILD_QUEUE", bed.address());
    command.env("FULMAR_CHILD_DIE", die_at.to_string());
    if is_control {
        command.env("FULMAR_CHILD_CONTROL", "1");
    }
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().filter_map(|line| line.rsplit_once("@ ")?.1.split_once(' '));
    let said = said.map(|(what, name)| (what.to_owned(), name.to_owned())).collect();
    assert!(output.status.success() || die_at > 0, "{text}{}", String::from_utf8_lossy(&output.stderr));
    (said, output.status.success())
}

/// Kills at place `n`, and goes on. What was wrong, and whether there is such a place.
fn round(bed: &dyn Bed, queue: &TaskQueue, n: u64, is_control: bool) -> (Option<String>, bool) {
    bed.sql("DELETE FROM effects");
    let task = queue.enqueue(NewTask::new("t", "a").input(&())).expect("accepted");
    queue.send_event("t", "a", "word", &7).expect("kept");
    let (mut said, is_done) = process(bed, n, is_control);
    let stored: HashSet<String> = if is_done {
        HashSet::new()
    } else {
        let steps = queue.tree("t", "a", 0).expect("there").steps;
        let stored = steps.into_iter().filter(|step| step.state == "done").map(|step| step.name).collect();
        // Its leases end.
        queue.pass_time(2 * LEASE).expect("passed");
        queue.tidy().expect("tidied");
        stored
    };
    let mut wrong = None;
    if !is_done {
        let (more, _) = process(bed, 0, is_control);
        if let Some((_, name)) = more.iter().find(|(what, name)| what == "ran" && stored.contains(name)) {
            wrong = Some(format!("place {n}: `{name}` ran after its result was stored"));
        }
        said.extend(more);
    }
    let mut known = HashSet::new();
    for (what, name) in &said {
        match what.as_str() {
            "has" => drop(known.insert(name)),
            "ran" if known.contains(name) => wrong = Some(format!("place {n}: `{name}` ran after it was reported")),
            _ => {}
        }
    }
    assert_eq!(result::<i64>(&task), RESULT, "place {n}: {said:?}");
    assert_eq!(bed.count("SELECT count(*) FROM effects"), 1, "place {n}");
    let all: Vec<String> = queue.tree("t", "a", 0).expect("there").steps.into_iter().map(|step| step.name).collect();
    assert_eq!(all, ["one", "book", "settle", "word", "double", "end"], "place {n}");
    for (of_type, name) in [("t", "a"), ("c", "a/1"), ("c", "a/2")] {
        queue.delete(of_type, name).expect("deleted");
    }
    (wrong, is_done)
}

fn begin(bed: &dyn Bed) -> TaskQueue {
    bed.sql("CREATE TABLE effects (n INTEGER)");
    let queue = bed.open();
    for name in ["t", "c"] {
        queue.register(TaskType::new(name).restart_limit(9)).expect("registered");
    }
    queue
}

pub(crate) fn killed_anywhere_no_step_is_lost_and_none_runs_after_it_was_stored(bed: &dyn Bed) {
    let queue = begin(bed);
    for n in 1.. {
        let (wrong, is_done) = round(bed, &queue, n, false);
        assert_eq!(wrong, None);
        if is_done {
            assert!(n > 30, "only {n} places");
            println!("{n} places");
            return;
        }
    }
}

pub(crate) fn a_step_that_is_stored_after_it_is_reported_is_caught(bed: &dyn Bed) {
    let queue = begin(bed);
    // The place is one of the first.
    let caught = (1..60).find_map(|n| round(bed, &queue, n, true).0);
    assert!(caught.is_some_and(|caught| caught.contains("`one` ran after it was reported")));
}
