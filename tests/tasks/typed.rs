//! Handlers as people write them: without types, without a result, with a typed input.

use fulmar::tasks::{
    NewTask, TaskContext, TaskHandle, TaskStatus, TaskType, TypedTask, Worker, WorkerBuilder, handler,
};
use serde::{Deserialize, Serialize};

use crate::support::{Bed, last_message};

#[derive(Deserialize, Serialize)]
struct Mail {
    to: String,
}

const MAIL: TypedTask<Mail> = TypedTask::new("mail");

pub(crate) fn a_typed_task_has_its_input(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(MAIL.task_type()).expect("registered");
    let worker = Worker::builder(&queue).handle_typed(MAIL, |task, mail| {
        let number: u8 = mail.to.parse()?;
        task.store_json(&(number + 1))?;
        Ok(())
    });
    let good = queue.enqueue(MAIL.task("good", &Mail { to: "7".into() })).expect("accepted");
    let unnamed = queue.enqueue(MAIL.unnamed(&Mail { to: "8".into() })).expect("accepted");
    let bad = queue.enqueue(MAIL.task("bad", &Mail { to: "many".into() })).expect("accepted");
    let other = queue.enqueue(NewTask::new(MAIL.name(), "other").input(&[1, 2])).expect("accepted");
    assert_eq!(worker.run_due().expect("run").len(), 4);
    let response = |task: &TaskHandle| task.response().expect("known").expect("stored").json::<u8>();
    assert_eq!((response(&good).expect("a number"), response(&unnamed).expect("a number")), (8, 9));
    for (task, why) in [(bad, "invalid digit"), (other, "the input of task `other`: invalid type")] {
        assert_eq!(task.status().expect("known"), TaskStatus::Failed);
        let log = queue.log(MAIL.name(), task.identifier()).expect("there");
        let told = log.iter().any(|entry| entry.message.contains(why));
        assert!(told, "{why}: {:?}", log.iter().map(|entry| &entry.message).collect::<Vec<_>>());
    }
}

pub(crate) fn a_handler_needs_no_types_and_no_result(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t")).expect("registered");
    let run = |worker: WorkerBuilder, number: u64| {
        let name = format!("task {number}");
        queue.enqueue(NewTask::new("t", &*name).input(&number)).expect("accepted");
        (worker.run_due().expect("run")[0].status, last_message(&queue, &name))
    };
    let silent = Worker::builder(&queue).handle("t", |_: &TaskContext| {});
    assert_eq!(run(silent, 1).0, TaskStatus::Finished);
    let untyped = || {
        Worker::builder(&queue).handle(
            "t",
            handler(|task| {
                let number: u64 = task.input()?;
                if number == 2 { Ok(()) } else { Err("of another number")? }
            }),
        )
    };
    assert_eq!(run(untyped(), 2).0, TaskStatus::Finished);
    let (status, why) = run(untyped(), 3);
    assert_eq!(status, TaskStatus::Failed);
    assert!(why.contains("of another number"), "{why}");
}
