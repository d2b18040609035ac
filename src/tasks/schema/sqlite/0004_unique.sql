-- The keys of tasks of which one is enough; most have none. They go with their tasks.
CREATE TABLE fulmar_task_unique (
    type_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    PRIMARY KEY (type_id, key, task_id)
) WITHOUT ROWID;
CREATE INDEX fulmar_task_unique_task ON fulmar_task_unique (task_id);
