//! What the server makes of the statements that workers run all the time, whatever it knows of the
//! tables.
//!
//! A session plans each statement once. So a plan that was made for an empty table is kept while
//! the table grows, and one for what the table was at its last analysis while it becomes another.

use std::time::Duration;

use super::super::engine::{Action, Engine, Step};
use super::super::new_task::NewTask;
use super::super::queue::TaskQueue;
use super::super::task_type::TaskType;
use super::super::worker_id::{WorkerId, random_name};
use super::PostgresEngine;

const LEASE: Duration = Duration::from_secs(60);

fn engine(queue: &TaskQueue) -> &PostgresEngine {
    queue.engine().as_any().downcast_ref().expect("it is on PostgreSQL")
}

/// Everything that a worker, a producer and their users do all the time, on one connection.
fn work(queue: &TaskQueue, round: &str) {
    let engine = engine(queue);
    let name = |n: &str| format!("{round}-{n}");
    let types: Vec<String> = ["one", "three", "two"].map(String::from).to_vec();
    let many: Vec<String> = (0..9).map(|n| format!("many{n}")).collect();
    let limited = vec![String::from("limited")];
    queue.enqueue(NewTask::new("one", name("a")).priority(9)).expect("accepted");
    for of_type in ["one", "two", "limited", "many3"] {
        queue.enqueue_many((0..20).map(|n| NewTask::new(of_type, name(&n.to_string())))).expect("accepted");
    }
    queue
        .enqueue_many((0..4).map(|n| NewTask::new("one", name(&format!("k{n}"))).ordered("k", true).priority(8)))
        .expect("accepted");
    queue.enqueue(NewTask::new("one", name("later")).run_after(LEASE)).expect("accepted");
    for types in [&types[..1], &types, &many, &limited] {
        let worker = WorkerId::new();
        assert!(engine.next_due(types).expect("looked").is_some());
        let claimed = engine.claim(&worker, types, 8, LEASE, "").expect("claimed");
        assert!(!claimed.is_empty(), "{types:?}");
        let step = |at: usize, action| Step {
            task: claimed[at].id,
            token: claimed[at].token,
            worker: worker.clone(),
            action,
            finished_in: false,
        };
        let finish = |words: &str| Action::Finish { message: words.into(), response: None };
        engine.step(vec![step(0, Action::Start), step(1, Action::Start)]).expect("started");
        engine.heartbeat(&worker, LEASE).expect("renewed");
        engine.cancel_requests(&worker).expect("looked");
        engine.step(vec![step(0, finish("")), step(1, finish("in words"))]).expect("ended");
        for at in 2..claimed.len() {
            engine.step(vec![step(at, Action::Start), step(at, finish(""))]).expect("ended");
        }
    }
    queue.depth().expect("counted");
    queue.wait("one", &name("a"), LEASE).expect("it has ended");
    queue.info("one", &name("a")).expect("known");
    queue.tidy().expect("tidied");
}

/// Runs all frequent statements in new sessions, which plan them anew, while the server's
/// statistics are missing, up to date, or older than the tables' growth or shrinking. Fails if a
/// plan reads a table whole, or an index that grows with the tasks that wait or have ended.
#[test]
#[ignore = "tests/run brings it: a PostgreSQL server"]
fn no_plan_hangs_on_what_the_server_knows_of_the_tables() {
    let url = super::tests::url();
    let schema = format!("fulmar_plans_{}", random_name());
    let open = || TaskQueue::builder().connections(1).schema(&schema).connect(&url).expect("the queue opens");
    let queue = open();
    for of_type in ["one", "two", "three"].map(String::from).into_iter().chain((0..9).map(|n| format!("many{n}"))) {
        queue.register(TaskType::new(of_type).retention(Duration::ZERO)).expect("registered");
    }
    queue.register(TaskType::new("limited").max_concurrent(100)).expect("registered");
    let script = |sql: &str| {
        let sql = format!("SET search_path = {schema}; {sql}; RESET search_path");
        engine(&queue).core.pool.take().expect("a connection").script(&sql).expect("sound SQL");
    };
    let tables = ["task", "task_type", "task_input", "task_log", "task_response", "task_checkpoint", "task_context"];
    for table in tables {
        script(&format!("ALTER TABLE fulmar_{table} SET (autovacuum_enabled = false)"));
    }
    let fill =
        "INSERT INTO fulmar_task (id, type_id, identifier, status, gate, rank, run_at, created, ended, is_modifier)
        SELECT nextval('fulmar_task_number'), y.id, 'many-' || n, n % 2 * 4, CASE n % 2 WHEN 0 THEN 0 END, 0, 0, 0,
            CASE n % 2 WHEN 1 THEN 1 END, false
        FROM fulmar_task_type y CROSS JOIN generate_series(1, 2000) AS n WHERE y.retention IS NOT NULL";
    let look = |knows: &str| {
        // A new session, which plans anew.
        let queue = open();
        work(&queue, knows);
        let plans = engine(&queue).core.pool.take().expect("a connection").plans();
        assert!(plans.len() > 20, "{}", plans.len());
        let bad: Vec<String> = plans.iter().filter_map(|(sql, plan)| walks(sql, plan)).collect();
        assert!(bad.is_empty(), "what the server knows is {knows}:\n{}", bad.join("\n"));
    };
    look("nothing, of empty tables");
    script("ANALYZE fulmar_task; ANALYZE fulmar_task_type; ANALYZE fulmar_task_log");
    look("that there is little");
    script(fill);
    look("what was before it grew");
    script("ANALYZE");
    look("all");
    script("DELETE FROM fulmar_task WHERE identifier LIKE 'many-%'");
    look("what was before it shrank");
    drop(queue);
    super::tests::connect().script(&format!("DROP SCHEMA {schema} CASCADE")).expect("dropped");
}

/// What is wrong with a plan: it reads a table whole, or an index whose size grows with the tasks
/// that wait or have ended.
fn walks(sql: &str, plan: &str) -> Option<String> {
    // It counts what waits.
    if sql.contains("d.oldest") {
        return None;
    }
    let lines: Vec<&str> = plan.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        let is_of_ours = |line: &str| line.contains("Scan on fulmar_task") && !line.contains("fulmar_task_type");
        let condition = lines.get(at + 1).filter(|next| next.starts_with("Index Cond")).copied().unwrap_or_default();
        let index = line.split_once("Scan using ").or(line.split_once("Bitmap Index Scan on ")).map(|(_, rest)| rest);
        let index = index.and_then(|rest| rest.split_whitespace().next());
        let needs: &[&str] = match index {
            // Those who wait for children are few.
            None if line.contains("fulmar_task_family") => &[],
            None if line.contains("Seq Scan") && is_of_ours(line) => &["an index"],
            // Held tasks are few.
            None | Some("fulmar_task_held" | "fulmar_task_cancelling") => &[],
            Some("fulmar_task_children") => &["parent = "],
            // In its order, up to a limit.
            Some("fulmar_task_first" | "fulmar_task_timed") if lines[at - 1] == "->  Limit" => &[],
            Some("fulmar_task_timed") => &["run_at <="],
            Some("fulmar_task_pkey") => &["id = "],
            Some("fulmar_task_type_id_identifier_key") => &["type_id = ", "identifier = "],
            Some("fulmar_task_gated" | "fulmar_task_lane") => &["type_id = ", "lane = "],
            Some("fulmar_task_ready" | "fulmar_task_ended") => &["type_id = "],
            Some("fulmar_task_first") => &["a limit"],
            Some(index) if index.starts_with("fulmar_task_type") || index.starts_with("fulmar_setting") => &[],
            Some(_) => &["task_id = "],
        };
        if let Some(missing) = needs.iter().find(|needed| !condition.contains(**needed)) {
            return Some(format!("no `{missing}` in `{line}`:\n{sql}\n{plan}\n"));
        }
    }
    None
}
