-- As before, but that locks and news are those of the queue's own schema: queues beside each other in one database neither wait for
-- each other nor wake each other's workers. The path of a function is that of the migration: the schema comes first.
CREATE OR REPLACE FUNCTION fulmar_enqueue(
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
    locks int4 := (1718971501 # hashtext('"' || replace(current_schema()::text, '"', '""') || '".fulmar_locks')) & -4;
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
    IF (most IS NOT NULL OR key IS NOT NULL) AND current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'with a capacity or a key, enqueue at isolation level READ COMMITTED' USING ERRCODE = '25001';
    END IF;
    IF most IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(locks, 1);
        IF (SELECT count(*) FROM fulmar_task t WHERE t.gate IS NOT NULL AND t.status = 0)
            + (SELECT count(*) FROM fulmar_task t WHERE t.worker IS NOT NULL AND t.status = 1) >= most THEN
            RAISE EXCEPTION 'the queue is full: % tasks are waiting', most USING ERRCODE = '54000';
        END IF;
    END IF;
    IF key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(locks + 2, (hashtextextended(key, of_type) & 1023)::int4);
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
    PERFORM pg_notify('news_of_fulmar_' || to_hex(locks), 'w sql');
    RETURN number;
END
$$;
