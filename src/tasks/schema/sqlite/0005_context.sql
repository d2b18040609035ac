-- What those who enqueue want told where the task runs, such as a trace's number; most tasks have none. It goes with its task.
CREATE TABLE fulmar_task_context (
    task_id INTEGER PRIMARY KEY,
    context TEXT NOT NULL
);
