//! What durable functions cost beside plain tasks and bare statements: their steps, their sleeps,
//! their children.

use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fulmar::tasks::durable::{Durable, function};
use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskType, Worker};

use super::{Load, Plan, met, ours};

/// `open` gives a new queue, and what is to live as long. `bare` inserts so many rows on so many
/// connections, a commit each, and says how many a second that were.
pub(crate) fn tell<G>(open: impl Fn() -> (TaskQueue, G), plan: &Plan, bare: impl Fn(Load) -> Option<f64>) {
    let has = |part| plan.has("durable") || plan.has(part);
    if has("steps") {
        steps(&open, plan.test, bare);
    }
    if has("sleepers") {
        let (queue, _bed) = open();
        sleepers(&queue, plan);
    }
    if has("children") {
        children(&open, plan.test);
    }
}

/// In turns: steps of functions, tasks claimed and finished one by one, and bare rows.
fn steps<G>(open: &impl Fn() -> (TaskQueue, G), test: bool, bare: impl Fn(Load) -> Option<f64>) {
    println!();
    let (steps, rounds) = if test { (80, 1) } else { (4_000, 5) };
    for threads in [1, 8] {
        let load = Load { tasks: steps, threads, batch: 1 };
        let (mut of_steps, mut of_tasks, mut of_rows) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (queue, bed) = open();
            of_steps.push(steps_a_second(&queue, load));
            drop((queue, bed));
            let (queue, bed) = open();
            ours::fill(&queue, Load { batch: 100, ..load }, "");
            of_tasks.push(load.whole() as f64 / ours::work_off(&queue, load).as_secs_f64());
            drop((queue, bed));
            of_rows.extend(bare(load));
        }
        let (step, task, row) = (median(&mut of_steps), median(&mut of_tasks), median(&mut of_rows));
        println!(
            "{threads} at once: {step:.0} steps a second; {task:.0} tasks claimed and finished one by one; {row:.0} bare rows; \
             step / task {:.2}, goal: >= 0.5, {}",
            step / task,
            met(step >= task / 2.0)
        );
    }
}

fn steps_a_second(queue: &TaskQueue, load: Load) -> f64 {
    let share = load.share();
    let (sender, times) = channel();
    let work = move |cx: &Durable<'_>, ()| {
        let start = Instant::now();
        for n in 0..share {
            cx.step("step", || Ok::<_, TaskError>(n))?;
        }
        let _ = sender.send((start, Instant::now()));
        Ok::<_, TaskError>(())
    };
    let queued = (0..load.threads).map(|n| NewTask::new("noop", format!("steps-{n}")).input(&()));
    queue.enqueue_many(queued).expect("accepted");
    let worker =
        Worker::builder(queue).max_concurrent(load.threads).handle("noop", function(work)).start().expect("started");
    let times: Vec<(Instant, Instant)> = times.iter().take(load.threads).collect();
    worker.drain(None).expect("it ends");
    let took = times.iter().map(|time| time.1).max().zip(times.iter().map(|time| time.0).min());
    load.whole() as f64 / took.map_or(f64::NAN, |(end, start)| (end - start).as_secs_f64())
}

/// What functions that sleep hold in the process of their worker.
fn sleepers(queue: &TaskQueue, plan: &Plan) {
    let count = if plan.test { 200 } else { plan.sleepers };
    let sleep = |cx: &Durable<'_>, ()| cx.sleep("rest", Duration::from_secs(1_000_000));
    // All threads that the worker may have are there from the start.
    let all_there = Barrier::new(8);
    let meet = move |_: &TaskContext| {
        all_there.wait();
        Ok::<_, TaskError>(())
    };
    queue.register(TaskType::new("meet")).expect("registered");
    let worker = Worker::builder(queue).max_concurrent(8).handle("noop", function(sleep)).handle("meet", meet);
    let worker = worker.start().expect("started");
    let met_up = queue.enqueue_many((0..8).map(|n| NewTask::new("meet", n.to_string()))).expect("accepted");
    met_up.iter().for_each(|task| task.wait(None).map(drop).expect("it ends"));
    let mut asleep = 0;
    // The first few fill all caches.
    let mut settle = |upto: usize| {
        for from in (asleep..upto).step_by(1_000) {
            let some = (from..upto.min(from + 1_000)).map(|n| NewTask::new("noop", n.to_string()).input(&()));
            queue.enqueue_many(some).expect("accepted");
        }
        asleep = upto;
        // The worker's own count: one by the database reads all tasks, ten times a second.
        while worker.stats().paused < upto as u64 {
            std::thread::sleep(Duration::from_millis(10));
        }
        process()
    };
    let (start, before) = (Instant::now(), settle(count / 20));
    let after = settle(count);
    let took = start.elapsed();
    match before.zip(after) {
        Some((before, after)) => {
            let each = after.0.saturating_sub(before.0) as f64 / (count - count / 20) as f64;
            let threads = after.1.saturating_sub(before.1);
            println!(
                "\n{count} functions fell asleep in {took:.1?}: {threads} more threads than for {}, goal: none for each, \
                 < 8, {}; {each:.3} KiB of memory each, goal: <= 1, {}",
                count / 20,
                met(threads < 8),
                met(each <= 1.0)
            );
            println!("threads at first: {}\nthreads then:     {}", before.2.join(", "), after.2.join(", "));
        }
        None => {
            println!("\n{count} functions sleep, and hold an unknown amount of memory: NOT RUN, /proc is not there")
        }
    }
    worker.drain(None).expect("it ends");
}

/// The memory of this process in KiB, the number of its threads, and their names.
fn process() -> Option<(u64, u64, Vec<String>)> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    let mut names: Vec<String> = std::fs::read_dir("/proc/self/task").ok()?.filter_map(name).collect();
    names.iter_mut().for_each(|name| *name = name.trim_end().to_owned());
    names.sort();
    Some((field("VmRSS:")?, field("Threads:")?, names))
}

/// In turns: so many tasks enqueued and worked off, and so many children, with their parent, which
/// has all results.
fn children<G>(open: &impl Fn() -> (TaskQueue, G), test: bool) {
    let (count, rounds) = if test { (80, 1) } else { (10_000, 3) };
    let (mut plain, mut out_and_back) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (queue, bed) = open();
        let start = Instant::now();
        let load = Load { tasks: count, threads: 8, batch: count };
        queue.enqueue_many((0..count).map(|n| NewTask::new("noop", n.to_string()).input(&n))).expect("accepted");
        ours::work_off(&queue, Load { batch: 100, ..load });
        plain.push(start.elapsed().as_secs_f64());
        drop((queue, bed));

        let (queue, _bed) = open();
        queue.register(TaskType::new("parent")).expect("registered");
        let start = Instant::now();
        let parent = move |cx: &Durable<'_>, ()| {
            let sums: Vec<usize> = cx.all("all", (0..count).map(|n| cx.child("noop", &n.to_string(), &n)))?;
            Ok::<_, TaskError>(sums.iter().sum::<usize>())
        };
        let parent = function(parent);
        let worker = Worker::builder(&queue)
            .max_concurrent(8)
            .batch(800)
            .start_together(100)
            .handle("noop", |task: &TaskContext| task.store_json(&task.input::<usize>()?))
            .handle("parent", parent)
            .start()
            .expect("started");
        let task = queue.enqueue(NewTask::new("parent", "parent").input(&())).expect("accepted");
        task.wait(None).expect("it ends");
        out_and_back.push(start.elapsed().as_secs_f64());
        let sum: usize = task.response().expect("read").expect("a sum").json().expect("a number");
        assert_eq!(sum, count * (count - 1) / 2);
        worker.drain(None).expect("it ends");
    }
    let (plain, out_and_back) = (median(&mut plain), median(&mut out_and_back));
    let ratio = out_and_back / plain;
    println!(
        "\n{count} children out and back: {out_and_back:.2} s; {count} plain tasks: {plain:.2} s; {ratio:.2} times as long; goal: \
         <= 3, {}",
        met(ratio <= 3.0)
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
