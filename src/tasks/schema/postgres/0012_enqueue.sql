-- As before, but that a task that has started once is not changed by one that is unique, as by the
-- programs; and that a capacity that makes no sense is called that, and one as large as programs
-- may set it fits.
CREATE OR REPLACE FUNCTION fulmar_enqueue(
    task_type text,
    identifier text,
    input bytea,
    message text DEFAULT '',
    priority int4 DEFAULT 0,
    run_after interval DEFAULT interval '0',
    key text DEFAULT NULL,
    is_modifier bool DEFAULT false,
    -- Of the tasks of the type with the same key, or with the same input, one is enough.
    unique_key text DEFAULT NULL,
    unique_input bool DEFAULT false,
    -- Which are in the way: `waiting`, `unended`, or those accepted within `unique_period`, which
    -- is `period`.
    unique_scope text DEFAULT 'waiting',
    unique_period interval DEFAULT NULL,
    -- What becomes of one that is in the way and waits: `keep`, `replace`, `push back`. Its number
    -- is returned.
    on_conflict text DEFAULT 'keep'
) RETURNS int8 LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    of_type int8;
    bound text;
    most numeric;
    is_blocked bool := false;
    number int8;
    existing int8;
    existing_waits bool;
    one text;
    statuses int2[];
    words text;
    entry int8;
    locks int4 := (1718971501 # hashtext('"' || replace(current_schema()::text, '"', '""') || '".fulmar_locks')) & -4;
    at_ms int8 := floor(date_part('epoch', statement_timestamp()) * 1000)::int8;
    delay_ms int8 := least(ceil(date_part('epoch', greatest(run_after, interval '0')) * 1000), 2e18)::int8;
    due_ms int8 := at_ms + delay_ms;
BEGIN
    PERFORM fulmar_check_name('the name of a task type', task_type);
    PERFORM fulmar_check_name('the identifier of a task', identifier);
    IF key <> '' THEN
        PERFORM fulmar_check_name('the key of a task''s order', key);
    END IF;
    IF input IS NULL THEN
        RAISE EXCEPTION 'the input of a task is null: use ''null'' for none' USING ERRCODE = '22023';
    END IF;
    IF octet_length(input) > 67108864 THEN
        RAISE EXCEPTION 'the input has % bytes, and at most 67108864 are allowed; store it elsewhere and pass its name',
            octet_length(input) USING ERRCODE = '22023';
    END IF;
    IF unique_key IS NOT NULL AND unique_input THEN
        RAISE EXCEPTION 'a task is unique by its key or by its input: use one of them' USING ERRCODE = '22023';
    END IF;
    IF unique_key IS NOT NULL THEN
        PERFORM fulmar_check_name('the key of a task''s uniqueness', unique_key);
        one := 'k:' || unique_key;
    ELSIF unique_input THEN
        one := 'i:' || encode(sha256(input), 'hex');
    END IF;
    -- The statuses that are in the way: 0 accepted, 1 scheduled, 2 running, 3 paused, 4 finished.
    statuses := CASE unique_scope
        WHEN 'waiting' THEN CASE WHEN on_conflict = 'keep' THEN '{0,1}' ELSE '{0}' END
        WHEN 'unended' THEN '{0,1,2,3}'
        WHEN 'period' THEN '{0,1,2,3,4}' END::int2[];
    IF statuses IS NULL OR (unique_scope = 'period') <> (unique_period IS NOT NULL) THEN
        RAISE EXCEPTION 'unique_scope is `waiting`, `unended`, or `period` together with a unique_period'
            USING ERRCODE = '22023';
    END IF;
    IF on_conflict IS NULL OR on_conflict NOT IN ('keep', 'replace', 'push back') THEN
        RAISE EXCEPTION 'on_conflict is `keep`, `replace` or `push back`' USING ERRCODE = '22023';
    END IF;
    IF priority IS NULL OR priority NOT BETWEEN -32768 AND 32767 THEN
        RAISE EXCEPTION 'the priority is %: use -32768 to 32767', priority USING ERRCODE = '22023';
    END IF;
    -- What goes beyond is cut off between characters, of which each has 4 bytes at most.
    IF octet_length(message) > 8192 THEN
        WHILE octet_length(message) > 8192 LOOP
            message := left(message, -greatest(1, (octet_length(message) - 8192) / 4));
        END LOOP;
        message := message || ' ..';
    END IF;
    message := coalesce(message, '');
    SELECT t.id INTO of_type FROM fulmar_task_type t WHERE t.name = task_type FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the task type `%` is not registered; register it first', task_type USING ERRCODE = '23503';
    END IF;
    SELECT s.value INTO bound FROM fulmar_setting s WHERE s.name = 'capacity';
    IF bound !~ '^[0-9]{1,20}$' THEN
        RAISE EXCEPTION 'the queue''s capacity makes no sense in the database: set it anew with `set_capacity`' USING ERRCODE = '22023';
    END IF;
    most := bound::numeric;
    IF (most IS NOT NULL OR key IS NOT NULL OR one IS NOT NULL)
        AND current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'a task with a key, one that is unique, or one for a queue with a capacity can''t be enqueued at isolation level %, which hides what others have enqueued meanwhile: begin the transaction at READ COMMITTED',
            upper(current_setting('transaction_isolation')) USING ERRCODE = '25001';
    END IF;
    -- Locks in the order that all take them in.
    IF most IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(locks, 1);
    END IF;
    IF key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(locks + 2, (hashtextextended(key, of_type) & 1023)::int4);
    END IF;
    IF one IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(locks + 3, (hashtextextended(one, of_type) & 1023)::int4);
        -- One that has started once may have read its input, and stored steps by it: it is not
        -- changed.
        SELECT t.id, t.status = 0 AND t.starts = 0 INTO existing, existing_waits
        FROM fulmar_task_unique u JOIN fulmar_task t ON t.id = u.task_id
        WHERE u.type_id = of_type AND u.key = one AND t.status = ANY(statuses)
            AND (t.starts = 0 OR unique_scope <> 'waiting' OR on_conflict = 'keep')
            AND (unique_period IS NULL
                OR t.created > at_ms - least(ceil(date_part('epoch', unique_period) * 1000), 2e18)::int8)
        ORDER BY t.status <> 0 OR t.starts > 0, t.id DESC LIMIT 1 FOR UPDATE OF t;
        IF FOUND AND existing_waits AND on_conflict <> 'keep' THEN
            UPDATE fulmar_task t SET rank = -priority, entries = t.entries + 1,
                run_at = CASE WHEN on_conflict = 'push back' THEN due_ms ELSE t.run_at END,
                gate = CASE WHEN t.gate = 2 OR on_conflict <> 'push back' THEN t.gate ELSE (due_ms > at_ms)::int4 END,
                input = CASE WHEN octet_length(input) <= 256 THEN input END
            WHERE t.id = existing RETURNING t.entries INTO entry;
            DELETE FROM fulmar_task_input i WHERE i.task_id = existing;
            IF octet_length(input) > 256 THEN
                INSERT INTO fulmar_task_input (task_id, body) VALUES (existing, input);
            END IF;
            words := CASE WHEN on_conflict = 'push back' THEN 'pushed back by another' ELSE 'replaced by another' END;
            words := words || CASE WHEN message = '' THEN '' ELSE ': ' || message END;
            INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
            VALUES (existing, entry, at_ms, 0, 0, words);
            PERFORM pg_notify('news_of_fulmar_' || to_hex(locks), 'w sql');
        END IF;
        IF existing IS NOT NULL THEN
            RETURN existing;
        END IF;
    END IF;
    IF most IS NOT NULL AND (SELECT count(*) FROM fulmar_task t WHERE t.gate IS NOT NULL AND t.status = 0)
        + (SELECT count(*) FROM fulmar_task t WHERE t.worker IS NOT NULL AND t.status = 1) >= most THEN
        RAISE EXCEPTION 'the queue is full: % tasks are waiting; try again when some have started', most
            USING ERRCODE = '54000';
    END IF;
    IF key IS NOT NULL THEN
        is_blocked := EXISTS (SELECT 1 FROM fulmar_task t WHERE t.type_id = of_type AND t.lane = key AND t.lane IS NOT NULL
            AND t.ended IS NULL AND (is_modifier OR t.is_modifier));
    END IF;
    number := nextval('fulmar_task_number');
    INSERT INTO fulmar_task AS t (id, type_id, identifier, status, gate, rank, run_at, created, lane, is_modifier, input)
    VALUES (number, of_type, identifier, 0, CASE WHEN is_blocked THEN 2 WHEN due_ms > at_ms THEN 1 ELSE 0 END, -priority,
        due_ms, at_ms, key, is_modifier, CASE WHEN octet_length(input) <= 256 THEN input END)
    ON CONFLICT ON CONSTRAINT fulmar_task_type_id_identifier_key DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a task `%` of type `%` exists; use another identifier, or delete it first', identifier, task_type
            USING ERRCODE = '23505';
    END IF;
    IF octet_length(input) > 256 THEN
        INSERT INTO fulmar_task_input (task_id, body) VALUES (number, input);
    END IF;
    IF one IS NOT NULL THEN
        INSERT INTO fulmar_task_unique (type_id, key, task_id) VALUES (of_type, one, number);
    END IF;
    INSERT INTO fulmar_task_log (task_id, entry, time, status, token, message)
    VALUES (number, 1, at_ms, 0, 0, message);
    PERFORM pg_notify('news_of_fulmar_' || to_hex(locks), 'w sql');
    RETURN number;
END
$$;

-- As before, but that one row whose priority makes no sense hides no other.
CREATE OR REPLACE VIEW fulmar_tasks AS
SELECT t.id, y.name AS type, t.identifier, fulmar_status(t.status) AS status, -greatest(t.rank, -2147483647) AS priority, t.lane AS key,
    t.is_modifier, t.starts, t.failures, t.lost, t.progress, t.cancel_requested, t.worker,
    fulmar_time(t.created) AS created, fulmar_time(t.run_at) AS run_at, fulmar_time(t.lease) AS lease_until,
    fulmar_time(t.ended) AS ended,
    (SELECT l.message FROM fulmar_task_log l WHERE l.task_id = t.id AND l.entry = t.entries) AS message
FROM fulmar_task t JOIN fulmar_task_type y ON y.id = t.type_id;
