-- Times are milliseconds since 1970 by the database's clock, durations milliseconds, statuses the codes of status.rs.
CREATE TABLE fulmar_setting (
    name TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

CREATE TABLE fulmar_task_type (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    time_limit INTEGER,
    retention INTEGER,
    restart_limit INTEGER NOT NULL,
    at_once INTEGER,
    retry_limit INTEGER NOT NULL,
    retry_first INTEGER NOT NULL,
    retry_factor REAL NOT NULL,
    retry_cap INTEGER NOT NULL,
    retry_jitter REAL NOT NULL
);

-- AUTOINCREMENT: a number is never used again, so a fence of a deleted task fits no other.
CREATE TABLE fulmar_task (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    type_id INTEGER NOT NULL REFERENCES fulmar_task_type (id),
    identifier TEXT NOT NULL,
    status INTEGER NOT NULL,
    -- What keeps a task that no worker holds: 0 nothing, 1 its time, 2 its order. NULL when held, or ended.
    gate INTEGER,
    priority INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    created INTEGER NOT NULL,
    ended INTEGER,
    lane TEXT,
    is_modifier INTEGER NOT NULL,
    starts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    entries INTEGER NOT NULL DEFAULT 1,
    progress REAL NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    -- The fence: a worker holds the task as long as token and worker are still its own.
    token INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    -- The end of the lease.
    lease INTEGER,
    -- The end of the attempt's time.
    deadline INTEGER,
    UNIQUE (type_id, identifier)
);

CREATE INDEX fulmar_task_ready ON fulmar_task (type_id, priority DESC, id) WHERE gate = 0;
CREATE INDEX fulmar_task_timed ON fulmar_task (run_at) WHERE gate = 1;
CREATE INDEX fulmar_task_gated ON fulmar_task (type_id, lane, is_modifier, id) WHERE gate = 2;
CREATE INDEX fulmar_task_lane ON fulmar_task (type_id, lane, is_modifier, id) WHERE lane IS NOT NULL AND ended IS NULL;
CREATE INDEX fulmar_task_held ON fulmar_task (worker) WHERE worker IS NOT NULL;
CREATE INDEX fulmar_task_lease ON fulmar_task (lease) WHERE lease IS NOT NULL;
CREATE INDEX fulmar_task_deadline ON fulmar_task (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX fulmar_task_ended ON fulmar_task (type_id, ended, status) WHERE ended IS NOT NULL;

CREATE TABLE fulmar_task_input (
    task_id INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);

CREATE TABLE fulmar_task_checkpoint (
    task_id INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);

CREATE TABLE fulmar_task_response (
    task_id INTEGER PRIMARY KEY,
    media_type TEXT NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE fulmar_task_log (
    task_id INTEGER NOT NULL,
    entry INTEGER NOT NULL,
    time INTEGER NOT NULL,
    status INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (task_id, entry)
) WITHOUT ROWID;
