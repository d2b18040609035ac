//! Schedules: once for all processes, through time that passes, pauses and changes.

use std::sync::Barrier;
use std::time::Duration;

use fulmar::tasks::TaskStatus::{Accepted, Finished};
use fulmar::tasks::{
    Missed, NewTask, Schedule, TaskContext, TaskError, TaskFilter, TaskQueue, TaskType, Worker, WorkerId,
};

use crate::support::{Bed, HANG, claims, eventually, task};

const MINUTE: Duration = Duration::from_secs(60);

fn minutely(identifier: &str) -> Schedule {
    Schedule::every("s", MINUTE, task(identifier).input("report"))
}

fn identifiers(queue: &TaskQueue) -> Vec<String> {
    queue.list_all(&TaskFilter::new()).map(|task| task.expect("a sound row").identifier).collect()
}

pub(crate) fn a_schedule_fires_once_for_all(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.put_schedule(minutely("r")).expect("sound");
    assert_eq!(queue.fire_schedules().expect("looked"), 0, "its time has not come");
    const PROCESSES: usize = 6;
    let others: Vec<TaskQueue> = (0..PROCESSES).map(|_| bed.open()).collect();
    for round in 1..=20 {
        queue.pass_time(MINUTE).expect("it passes");
        let start = Barrier::new(PROCESSES);
        let fired: u64 = std::thread::scope(|scope| {
            let fire = |queue: &TaskQueue| {
                start.wait();
                queue.fire_schedules().expect("looked")
            };
            let threads: Vec<_> = others.iter().map(|queue| scope.spawn(move || fire(queue))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(fired, 1, "round {round}");
    }
    let names = identifiers(&queue);
    assert_eq!(names.len(), 20);
    assert!(names.iter().all(|name| name.starts_with("r@20") && name.ends_with('Z')), "{names:?}");
    assert_eq!(queue.list(&TaskFilter::new(), 1).expect("listed").tasks[0].status, Accepted);
}

pub(crate) fn workers_fire_schedules_and_their_tasks_carry_what_was_given(bed: &dyn Bed) {
    let queue = bed.queue();
    let report = task("r").input("report").priority(3).ordered("k", true).message("by the clock");
    queue.put_schedule(Schedule::every("s", MINUTE, report)).expect("sound");
    queue.pass_time(MINUTE).expect("it passes");
    let worker = Worker::builder(&queue)
        .handle("t", |task: &TaskContext| task.store_json(&task.input::<String>()?))
        .start()
        .expect("a worker");
    let waiting = TaskFilter::new().of_type("t");
    eventually("the worker fires it", || queue.count(&waiting).expect("counted") == 1);
    let info = queue.list(&waiting, 1).expect("listed").tasks.remove(0);
    assert_eq!((info.priority, info.key.as_deref(), info.is_modifier), (3, Some("k"), true));
    assert_eq!(queue.wait("t", &info.identifier, HANG).expect("it ends"), Finished);
    let response = queue.response("t", &info.identifier).expect("known").expect("stored");
    assert_eq!(response.text().expect("text"), "\"report\"");
    assert_eq!(queue.log("t", &info.identifier).expect("a log")[0].message, "by the clock");
    worker.drain(HANG).expect("drained");
    // And on a test's thread.
    queue.pass_time(MINUTE).expect("it passes");
    let handlers = Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<_, TaskError>(()));
    assert_eq!(handlers.run_due().expect("run").len(), 1);
}

pub(crate) fn missed_times_are_made_up_for_as_the_policy_says(bed: &dyn Bed) {
    let queue = bed.queue();
    for (name, missed) in [("once", Missed::Once), ("skip", Missed::Skip), ("each", Missed::Each)] {
        let hourly = Schedule::every(name, 60 * MINUTE, task(name)).missed(missed);
        queue.put_schedule(hourly).expect("sound");
    }
    queue.pass_time(60 * MINUTE * 300 + 30 * MINUTE).expect("it passes");
    assert_eq!(queue.fire_schedules().expect("fired"), 301);
    let of = |name: &str| identifiers(&queue).iter().filter(|task| task.starts_with(&format!("{name}@"))).count();
    assert_eq!((of("once"), of("skip"), of("each")), (1, 0, 300));
    assert_eq!(queue.fire_schedules().expect("looked"), 0);
    let infos = queue.schedules().expect("listed");
    assert_eq!(infos.iter().map(|info| &*info.name).collect::<Vec<_>>(), ["each", "once", "skip"]);
    assert_eq!(infos.iter().map(|info| info.missed).collect::<Vec<_>>(), [Missed::Each, Missed::Once, Missed::Skip]);
    assert_eq!(infos.iter().map(|info| info.last.is_some()).collect::<Vec<_>>(), [true, true, false]);
    // In time again, all three do the same.
    queue.pass_time(30 * MINUTE).expect("it passes");
    assert_eq!(queue.fire_schedules().expect("fired"), 3);
}

pub(crate) fn more_missed_times_than_there_is_room_for_come_one_after_the_other(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.set_capacity(3).expect("set");
    queue.put_schedule(minutely("r").missed(Missed::Each)).expect("sound");
    queue.pass_time(10 * MINUTE + MINUTE / 2).expect("it passes");
    let worker = WorkerId::new();
    for left in [7, 4, 1] {
        assert!(matches!(queue.fire_schedules(), Err(TaskError::QueueFull { .. })), "{left} are left");
        let claims = claims(&queue, &worker, 9);
        assert_eq!(claims.len(), 3, "there is room for three");
        claims.iter().for_each(|claim| claim.start().expect("ours"));
    }
    assert_eq!(queue.fire_schedules().expect("there is room"), 1);
    assert_eq!(identifiers(&queue).len(), 10);
}

pub(crate) fn putting_a_schedule_again_keeps_its_times(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.put_schedule(minutely("r")).expect("sound");
    let first = queue.schedules().expect("listed").remove(0);
    assert_eq!((&*first.rule, &*first.zone, &*first.task_type, first.paused), ("every 60000ms", "UTC", "t", false));
    // As a program does that starts: what was missed while it was away is not forgotten.
    queue.pass_time(MINUTE).expect("it passes");
    queue.put_schedule(minutely("q")).expect("sound");
    assert_eq!(queue.fire_schedules().expect("fired"), 1);
    assert!(identifiers(&queue)[0].starts_with("q@"), "the task is the new one");
    // Another rule begins anew.
    let next = queue.schedules().expect("listed")[0].next;
    queue.put_schedule(Schedule::every("s", 2 * MINUTE, task("r"))).expect("sound");
    assert!(queue.schedules().expect("listed")[0].next > next);
    assert!(queue.remove_schedule("s").expect("removed"));
    assert!(!queue.remove_schedule("s").expect("looked"));
    queue.pass_time(10 * MINUTE).expect("it passes");
    assert_eq!(queue.fire_schedules().expect("looked"), 0);
}

pub(crate) fn a_paused_schedule_makes_up_for_nothing(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.put_schedule(minutely("r").missed(Missed::Each)).expect("sound");
    queue.pause_schedule("s").expect("known");
    queue.pass_time(10 * MINUTE).expect("it passes");
    queue.put_schedule(minutely("r").missed(Missed::Each)).expect("a start of a program ends no pause");
    assert_eq!(bed.open().fire_schedules().expect("looked"), 0);
    assert!(queue.schedules().expect("listed")[0].paused);
    queue.resume_schedule("s").expect("known");
    assert_eq!(queue.fire_schedules().expect("looked"), 0, "what passed in the pause is over");
    queue.pass_time(MINUTE).expect("it passes");
    assert_eq!(queue.fire_schedules().expect("fired"), 1);
    for unknown in [queue.pause_schedule("x"), queue.resume_schedule("x")] {
        assert!(matches!(unknown, Err(TaskError::UnknownSchedule(name)) if name == "x"));
    }
}

pub(crate) fn what_can_not_be_fired_keeps_no_other_from_it(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    for name in ["a", "b", "c"] {
        let of_type = if name == "b" { "u" } else { "t" };
        queue.put_schedule(Schedule::every(name, MINUTE, NewTask::new(of_type, name))).expect("sound");
    }
    queue.unregister("u").expect("it has no tasks");
    bed.sql("UPDATE fulmar_schedule SET task = 'nonsense' WHERE name = 'a'");
    queue.pass_time(MINUTE).expect("it passes");
    assert!(queue.fire_schedules().is_err(), "the first trouble is told of");
    let names = identifiers(&queue);
    assert!(matches!(&*names, [name] if name.starts_with("c@")), "{names:?}");
    // What is mended is made up for.
    queue.register(TaskType::new("u")).expect("registered");
    bed.sql("DELETE FROM fulmar_schedule WHERE name = 'a'");
    assert_eq!(queue.fire_schedules().expect("fired"), 1);

    // A full queue takes the task when there is room.
    queue.set_capacity(2).expect("set");
    queue.pass_time(MINUTE).expect("it passes");
    assert!(matches!(queue.fire_schedules(), Err(TaskError::QueueFull { .. })));
    queue.set_capacity(None).expect("set");
    assert_eq!(queue.fire_schedules().expect("fired"), 2);
}

pub(crate) fn schedules_that_make_no_sense_are_refused(bed: &dyn Bed) {
    let queue = bed.queue();
    let refused = |schedule: Schedule| match queue.put_schedule(schedule) {
        Err(TaskError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(refused(Schedule::every("s", Duration::from_millis(999), task("r"))).contains("a second"));
    assert!(refused(Schedule::every("s", Duration::MAX, task("r"))).contains("a second"));
    assert!(refused(Schedule::every("", MINUTE, task("r"))).contains("name of a schedule"));
    assert!(refused(Schedule::every("s", MINUTE, task("r".repeat(500)))).contains("480"));
    let unknown = queue.put_schedule(Schedule::every("s", MINUTE, NewTask::new("x", "r")));
    assert!(matches!(unknown, Err(TaskError::UnknownType(name)) if name == "x"));
    assert!(queue.schedules().expect("listed").is_empty());
}
