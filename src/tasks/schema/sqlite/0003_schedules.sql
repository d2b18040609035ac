-- The rule is for programs: a cron expression, or `every 600000ms`. The task is JSON, its input aside.
CREATE TABLE fulmar_schedule (
    name TEXT NOT NULL PRIMARY KEY,
    rule TEXT NOT NULL,
    zone TEXT NOT NULL,
    -- What becomes of times that were missed: 0 one for all, 1 none, 2 each.
    missed INTEGER NOT NULL,
    task TEXT NOT NULL,
    input BLOB NOT NULL,
    next_at INTEGER NOT NULL,
    last_at INTEGER,
    paused INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX fulmar_schedule_due ON fulmar_schedule (next_at) WHERE paused = 0;

-- For people and dashboards. Times are UTC.
CREATE VIEW fulmar_schedules AS
SELECT name, rule, zone, json_extract(task, '$.type') AS type, paused > 0 AS paused,
    strftime('%Y-%m-%d %H:%M:%f', next_at / 1000.0, 'unixepoch') AS next_at,
    strftime('%Y-%m-%d %H:%M:%f', last_at / 1000.0, 'unixepoch') AS last_at
FROM fulmar_schedule;
