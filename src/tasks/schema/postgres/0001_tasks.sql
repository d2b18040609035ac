-- Times are milliseconds since 1970 by the server's clock, durations milliseconds, statuses the codes of status.rs.
CREATE TABLE fulmar_setting (
    name text PRIMARY KEY,
    value text
);

CREATE TABLE fulmar_task_type (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    time_limit int8,
    retention int8,
    restart_limit int8 NOT NULL,
    at_once int8,
    retry_limit int8 NOT NULL,
    retry_first int8 NOT NULL,
    retry_factor float8 NOT NULL,
    retry_cap int8 NOT NULL,
    retry_jitter float8 NOT NULL
);

-- A number is never used again, so a fence of a deleted task fits no other.
CREATE SEQUENCE fulmar_task_number;

CREATE TABLE fulmar_task (
    id int8 PRIMARY KEY,
    -- No foreign key, which would look once for each task: whoever inserts locks the type, whoever removes it, too.
    type_id int8 NOT NULL,
    identifier text NOT NULL,
    status int2 NOT NULL,
    -- What keeps a task that no worker holds: 0 nothing, 1 its time, 2 its order. NULL when held, or ended.
    gate int2,
    -- Minus the priority: what comes first is the smallest of (rank, id).
    rank int4 NOT NULL,
    run_at int8 NOT NULL,
    created int8 NOT NULL,
    ended int8,
    lane text,
    is_modifier bool NOT NULL,
    starts int8 NOT NULL DEFAULT 0,
    failures int8 NOT NULL DEFAULT 0,
    lost int8 NOT NULL DEFAULT 0,
    entries int8 NOT NULL DEFAULT 1,
    progress float8 NOT NULL DEFAULT 0,
    cancel_requested bool NOT NULL DEFAULT false,
    -- The fence: a worker holds the task as long as token and worker are still its own.
    token int8 NOT NULL DEFAULT 0,
    worker text,
    -- The end of the lease, and of the attempt's time. In no index, so that a heartbeat writes none.
    lease int8,
    deadline int8,
    -- A small input; a larger one has a row in fulmar_task_input, which no change of the task copies.
    input bytea,
    -- The log's entries without a message, 24 bytes each: its number, its time * 8 + its status, its token; behind that of a
    -- claim, 8 characters of the worker's name. Those with a message, and those of a trail that grew long, are in
    -- fulmar_task_log: a row for each entry would cost as much as the task.
    trail bytea NOT NULL DEFAULT '',
    UNIQUE (type_id, identifier)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.05);

CREATE INDEX fulmar_task_ready ON fulmar_task (type_id, rank, id) WHERE gate = 0;
CREATE INDEX fulmar_task_timed ON fulmar_task (run_at) WHERE gate = 1;
CREATE INDEX fulmar_task_gated ON fulmar_task (type_id, lane, is_modifier, id) WHERE gate = 2;
CREATE INDEX fulmar_task_lane ON fulmar_task (type_id, lane, is_modifier, id) WHERE lane IS NOT NULL AND ended IS NULL;
CREATE INDEX fulmar_task_held ON fulmar_task (worker) WHERE worker IS NOT NULL;
CREATE INDEX fulmar_task_ended ON fulmar_task (type_id, ended) WHERE ended IS NOT NULL;

CREATE TABLE fulmar_task_input (
    task_id int8 PRIMARY KEY,
    body bytea NOT NULL
);

CREATE TABLE fulmar_task_checkpoint (
    task_id int8 PRIMARY KEY,
    body bytea NOT NULL
);

CREATE TABLE fulmar_task_response (
    task_id int8 PRIMARY KEY,
    media_type text NOT NULL,
    body bytea NOT NULL
);

CREATE TABLE fulmar_task_log (
    task_id int8 NOT NULL,
    entry int8 NOT NULL,
    time int8 NOT NULL,
    status int2 NOT NULL,
    -- Of the worker that wrote it; 0 if it was no worker; a number of chance in the first entry of a task.
    token int8 NOT NULL,
    message text NOT NULL,
    PRIMARY KEY (task_id, entry)
);

-- What is stored once and read once need not be compressed.
ALTER TABLE fulmar_task_input ALTER body SET STORAGE EXTERNAL;
ALTER TABLE fulmar_task_checkpoint ALTER body SET STORAGE EXTERNAL;
ALTER TABLE fulmar_task_response ALTER body SET STORAGE EXTERNAL;

-- For those who enqueue by other means than this program, in a transaction of their own: the task is there if, and only if,
-- that commits. A transaction that enqueues with an order, or with a capacity set, holds a lock until it ends.
CREATE FUNCTION fulmar_enqueue(
    task_type text,
    identifier text,
    input bytea,
    message text DEFAULT '',
    priority int4 DEFAULT 0,
    run_after interval DEFAULT interval '0',
    key text DEFAULT NULL,
    is_modifier bool DEFAULT false
) RETURNS int8 LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    of_type int8;
    most int8;
    is_blocked bool := false;
    number int8;
    at_ms int8 := floor(date_part('epoch', statement_timestamp()) * 1000)::int8;
    due_ms int8 := at_ms + ceil(date_part('epoch', greatest(run_after, interval '0')) * 1000)::int8;
BEGIN
    IF octet_length(identifier) NOT BETWEEN 1 AND 512 OR identifier ~ '[[:cntrl:]]'
        OR octet_length(key) > 512 OR key ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'identifiers and keys have 1 to 512 bytes and no control characters' USING ERRCODE = '22023';
    END IF;
    IF input IS NULL OR octet_length(input) > 67108864 OR octet_length(message) > 8192
        OR priority NOT BETWEEN -32768 AND 32767 THEN
        RAISE EXCEPTION 'the input has at most 64 MiB, the message 8192 bytes, the priority 16 bits' USING ERRCODE = '22023';
    END IF;
    SELECT t.id INTO of_type FROM fulmar_task_type t WHERE t.name = task_type FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the task type "%" is not registered', task_type USING ERRCODE = '23503';
    END IF;
    SELECT s.value::int8 INTO most FROM fulmar_setting s WHERE s.name = 'capacity';
    IF (most IS NOT NULL OR key IS NOT NULL) AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'with a capacity or a key, enqueue at isolation level READ COMMITTED' USING ERRCODE = '25001';
    END IF;
    IF most IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(1718971501, 1);
        IF (SELECT count(*) FROM fulmar_task t WHERE t.gate IS NOT NULL AND t.status = 0)
            + (SELECT count(*) FROM fulmar_task t WHERE t.worker IS NOT NULL AND t.status = 1) >= most THEN
            RAISE EXCEPTION 'the queue is full: % tasks are waiting', most USING ERRCODE = '54000';
        END IF;
    END IF;
    IF key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(1718971503, (hashtextextended(key, of_type) & 1023)::int4);
        is_blocked := EXISTS (SELECT 1 FROM fulmar_task t WHERE t.type_id = of_type AND t.lane = key AND t.lane IS NOT NULL
            AND t.ended IS NULL AND (is_modifier OR t.is_modifier));
    END IF;
    number := nextval('fulmar_task_number');
    INSERT INTO fulmar_task AS t (id, type_id, identifier, status, gate, rank, run_at, created, lane, is_modifier, input)
    VALUES (number, of_type, identifier, 0, CASE WHEN is_blocked THEN 2 WHEN due_ms > at_ms THEN 1 ELSE 0 END, -priority,
        due_ms, at_ms, key, is_modifier, CASE WHEN octet_length(input) <= 256 THEN input END);
    IF octet_length(input) > 256 THEN
        INSERT INTO fulmar_task_input (task_id, body) VALUES (number, input);
    END IF;
    INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
    VALUES (number, 1, at_ms, 0, 0, coalesce(message, ''));
    PERFORM pg_notify('fulmar_news', 'w sql');
    RETURN number;
END
$$;
