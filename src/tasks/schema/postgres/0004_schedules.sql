-- The rule is for programs: a cron expression, or `every 600000ms`. The task is JSON, its input aside.
CREATE TABLE fulmar_schedule (
    name text PRIMARY KEY,
    rule text NOT NULL,
    zone text NOT NULL,
    -- What becomes of times that were missed: 0 one for all, 1 none, 2 each.
    missed int8 NOT NULL,
    task text NOT NULL,
    input bytea NOT NULL,
    next_at int8 NOT NULL,
    last_at int8,
    paused bool NOT NULL DEFAULT false
);

-- For people and dashboards.
CREATE VIEW fulmar_schedules AS
SELECT name, rule, zone, task::json ->> 'type' AS type, paused, fulmar_time(next_at) AS next_at, fulmar_time(last_at) AS last_at
FROM fulmar_schedule;
