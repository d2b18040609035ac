-- Bits: 1 the type is paused, 2 the whole queue is.
ALTER TABLE fulmar_task_type ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;

-- For lists of what went wrong, in a queue with millions that did not.
CREATE INDEX fulmar_task_failed ON fulmar_task (id) WHERE status IN (5, 6);

-- For people and dashboards. Times are UTC; the message is that of the log's last entry.
CREATE VIEW fulmar_tasks AS
SELECT t.id, y.name AS type, t.identifier,
    CASE t.status WHEN 0 THEN 'ACCEPTED' WHEN 1 THEN 'SCHEDULED' WHEN 2 THEN 'RUNNING' WHEN 3 THEN 'PAUSED'
        WHEN 4 THEN 'FINISHED' WHEN 5 THEN 'FAILED' WHEN 6 THEN 'CANCELLED' END AS status,
    t.priority, t.lane AS key, t.is_modifier, t.starts, t.failures, t.lost, t.progress, t.cancel_requested, t.worker,
    strftime('%Y-%m-%d %H:%M:%f', t.created / 1000.0, 'unixepoch') AS created,
    strftime('%Y-%m-%d %H:%M:%f', t.run_at / 1000.0, 'unixepoch') AS run_at,
    strftime('%Y-%m-%d %H:%M:%f', t.lease / 1000.0, 'unixepoch') AS lease_until,
    strftime('%Y-%m-%d %H:%M:%f', t.ended / 1000.0, 'unixepoch') AS ended,
    (SELECT l.message FROM fulmar_task_log l WHERE l.task_id = t.id ORDER BY l.entry DESC LIMIT 1) AS message
FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id;

-- How many tasks of each type stand where, types without tasks included.
CREATE VIEW fulmar_depth AS
SELECT y.name AS type, y.paused > 0 AS paused,
    CASE t.status WHEN 0 THEN 'ACCEPTED' WHEN 1 THEN 'SCHEDULED' WHEN 2 THEN 'RUNNING' WHEN 3 THEN 'PAUSED'
        WHEN 4 THEN 'FINISHED' WHEN 5 THEN 'FAILED' WHEN 6 THEN 'CANCELLED' END AS status,
    count(t.id) AS tasks
FROM fulmar_task_type y LEFT JOIN fulmar_task t ON t.type_id = y.id GROUP BY y.id, t.status;
