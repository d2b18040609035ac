-- Limits of types beyond how many at once. Bit 4 of a type's `paused` says that it has some: then only claims that know of them take
-- its tasks, and no other claim has to look here.
CREATE TABLE fulmar_limit (
    type_id INTEGER PRIMARY KEY,
    -- How many of a key workers may hold.
    key_at_once INTEGER,
    -- Starts in a period of milliseconds, and how many after a rest; of the type, and of each key.
    starts INTEGER,
    period INTEGER,
    burst INTEGER,
    key_starts INTEGER,
    key_period INTEGER,
    key_burst INTEGER,
    turns INTEGER NOT NULL,
    -- For how many milliseconds of waiting a task counts as one of the next higher priority.
    ageing INTEGER,
    -- The time of the type's bucket, in microseconds since 1970.
    next_at INTEGER NOT NULL DEFAULT 0,
    -- The key that had the last turn.
    turn TEXT
);

-- The buckets of keys. Those that are full again go.
CREATE TABLE fulmar_limit_key (
    type_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    next_at INTEGER NOT NULL,
    PRIMARY KEY (type_id, key)
) WITHOUT ROWID;
CREATE INDEX fulmar_limit_due ON fulmar_limit_key (type_id, next_at);

-- From key to key, whatever stands in front.
CREATE INDEX fulmar_task_keyed ON fulmar_task (type_id, lane, priority DESC, id) WHERE gate = 0 AND lane IS NOT NULL;

-- As before, but that limits are no pause.
DROP VIEW fulmar_depth;
CREATE VIEW fulmar_depth AS
SELECT y.name AS type, y.paused & 3 > 0 AS paused,
    CASE t.status WHEN 0 THEN 'ACCEPTED' WHEN 1 THEN 'SCHEDULED' WHEN 2 THEN 'RUNNING' WHEN 3 THEN 'PAUSED'
        WHEN 4 THEN 'FINISHED' WHEN 5 THEN 'FAILED' WHEN 6 THEN 'CANCELLED' END AS status,
    count(t.id) AS tasks
FROM fulmar_task_type y LEFT JOIN fulmar_task t ON t.type_id = y.id GROUP BY y.id, t.status;
