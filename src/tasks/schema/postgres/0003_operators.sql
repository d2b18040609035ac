-- Bits: 1 the type is paused, 2 the whole queue is.
ALTER TABLE fulmar_task_type ADD paused int4 NOT NULL DEFAULT 0;

-- For lists of what went wrong, in a queue with millions that did not. A column of its own, because an index that named the
-- status would be written at each change of it; this one's value changes with the end alone.
ALTER TABLE fulmar_task ADD went_wrong bool GENERATED ALWAYS AS (CASE WHEN status IN (5, 6) THEN true END) STORED;
CREATE INDEX fulmar_task_failed ON fulmar_task (id) WHERE went_wrong;

-- A time of ours, for people. What lies beyond the year 9999 is never.
CREATE FUNCTION fulmar_time(millis int8) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN millis < 253402300800000 THEN to_timestamp(greatest(millis, 0) / 1000.0) ELSE 'infinity' END
$$;

CREATE FUNCTION fulmar_status(code int2) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT ('{ACCEPTED,SCHEDULED,RUNNING,PAUSED,FINISHED,FAILED,CANCELLED}'::text[])[code + 1]
$$;

-- For people and dashboards. The message is that of the log's last entry, if it has one.
CREATE VIEW fulmar_tasks AS
SELECT t.id, y.name AS type, t.identifier, fulmar_status(t.status) AS status, -t.rank AS priority, t.lane AS key,
    t.is_modifier, t.starts, t.failures, t.lost, t.progress, t.cancel_requested, t.worker,
    fulmar_time(t.created) AS created, fulmar_time(t.run_at) AS run_at, fulmar_time(t.lease) AS lease_until,
    fulmar_time(t.ended) AS ended,
    (SELECT l.message FROM fulmar_task_log l WHERE l.task_id = t.id AND l.entry = t.entries) AS message
FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id;

-- How many tasks of each type stand where, types without tasks included.
CREATE VIEW fulmar_depth AS
SELECT y.name AS type, y.paused > 0 AS paused, fulmar_status(t.status) AS status, count(t.id) AS tasks
FROM fulmar_task_type y LEFT JOIN fulmar_task t ON t.type_id = y.id GROUP BY y.id, y.name, y.paused, t.status;
