-- The keys of tasks of which one is enough; most have none. They go with their tasks.
CREATE TABLE fulmar_task_unique (
    type_id int8 NOT NULL,
    key text NOT NULL,
    task_id int8 NOT NULL,
    PRIMARY KEY (type_id, key, task_id)
);
CREATE INDEX fulmar_task_unique_task ON fulmar_task_unique (task_id);
