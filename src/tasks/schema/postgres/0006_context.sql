-- What those who enqueue want told where the task runs, such as a trace's number; most tasks have none. It goes with its task.
CREATE TABLE fulmar_task_context (
    task_id int8 PRIMARY KEY,
    context text NOT NULL
);
