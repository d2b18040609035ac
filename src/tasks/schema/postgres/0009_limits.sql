-- Limits of types beyond how many at once. Bit 4 of a type's `paused` says that it has some: then only claims that know of them take
-- its tasks, and no other claim has to look here.
CREATE TABLE fulmar_limit (
    type_id int8 PRIMARY KEY,
    -- How many of a key workers may hold.
    key_at_once int8,
    -- Starts in a period of milliseconds, and how many after a rest; of the type, and of each key.
    starts int8,
    period int8,
    burst int8,
    key_starts int8,
    key_period int8,
    key_burst int8,
    turns bool NOT NULL,
    -- For how many milliseconds of waiting a task counts as one of the next higher priority.
    ageing int8,
    -- The time of the type's bucket, in microseconds since 1970.
    next_at int8 NOT NULL DEFAULT 0,
    -- The key that had the last turn.
    turn text
);

-- The buckets of keys. Those that are full again go.
CREATE TABLE fulmar_limit_key (
    type_id int8 NOT NULL,
    key text NOT NULL,
    next_at int8 NOT NULL,
    PRIMARY KEY (type_id, key)
);
CREATE INDEX fulmar_limit_due ON fulmar_limit_key (type_id, next_at);

-- From key to key, whatever stands in front.
CREATE INDEX fulmar_task_keyed ON fulmar_task (type_id, lane, rank, id) WHERE gate = 0 AND lane IS NOT NULL;

-- The different ranks of what waits, of a type or of one of its keys, by one step in an index each.
CREATE FUNCTION fulmar_ranks(of_type int8, of_key text, most int8) RETURNS SETOF int4 LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_variable
DECLARE
    last_rank int8 := -9223372036854775808;
    found_rank int4;
BEGIN
    FOR looks IN 1 .. most LOOP
        IF of_key IS NULL THEN
            SELECT t.rank INTO found_rank FROM fulmar_task t WHERE t.gate = 0 AND t.type_id = of_type AND t.rank > last_rank
            ORDER BY t.type_id, t.rank LIMIT 1;
        ELSE
            SELECT t.rank INTO found_rank FROM fulmar_task t WHERE t.gate = 0 AND t.lane IS NOT NULL AND t.type_id = of_type
                AND t.lane = of_key AND t.rank > last_rank ORDER BY t.type_id, t.lane, t.rank LIMIT 1;
        END IF;
        EXIT WHEN found_rank IS NULL;
        RETURN NEXT found_rank;
        last_rank := found_rank;
    END LOOP;
END
$$;

-- The first tasks of a key.
CREATE FUNCTION fulmar_first_of_key(of_type int8, of_key text, most int8, by_age bool, most_ranks int8)
RETURNS TABLE (id int8, rank int4, waiting_since int8) LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_variable
DECLARE
    one int4;
BEGIN
    IF NOT by_age THEN
        RETURN QUERY SELECT t.id, t.rank, t.run_at FROM fulmar_task t WHERE t.gate = 0 AND t.lane IS NOT NULL
            AND t.type_id = of_type AND t.lane = of_key ORDER BY t.type_id, t.lane, t.rank, t.id LIMIT most;
        RETURN;
    END IF;
    FOR one IN SELECT r FROM fulmar_ranks(of_type, of_key, most_ranks) AS r LOOP
        RETURN QUERY SELECT t.id, t.rank, t.run_at FROM fulmar_task t WHERE t.gate = 0 AND t.lane IS NOT NULL
            AND t.type_id = of_type AND t.lane = of_key AND t.rank = one
            ORDER BY t.type_id, t.lane, t.rank, t.id LIMIT most;
    END LOOP;
END
$$;

-- The first tasks of a type; where priority ages, of each priority.
CREATE FUNCTION fulmar_first(of_type int8, most int8, by_age bool, most_ranks int8)
RETURNS TABLE (id int8, rank int4, key text, waiting_since int8, bucket int8) LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_variable
DECLARE
    one int4;
BEGIN
    IF NOT by_age THEN
        RETURN QUERY SELECT t.id, t.rank, t.lane, t.run_at,
                (SELECT k.next_at FROM fulmar_limit_key k WHERE k.type_id = of_type AND k.key = t.lane)
            FROM fulmar_task t WHERE t.gate = 0 AND t.type_id = of_type ORDER BY t.type_id, t.rank, t.id LIMIT most;
        RETURN;
    END IF;
    FOR one IN SELECT r FROM fulmar_ranks(of_type, NULL, most_ranks) AS r LOOP
        RETURN QUERY SELECT t.id, t.rank, t.lane, t.run_at,
                (SELECT k.next_at FROM fulmar_limit_key k WHERE k.type_id = of_type AND k.key = t.lane)
            FROM fulmar_task t WHERE t.gate = 0 AND t.type_id = of_type AND t.rank = one
            ORDER BY t.type_id, t.rank, t.id LIMIT most;
    END LOOP;
END
$$;

-- The first tasks of one key after the other: those behind the one that had the last turn, then those before it, and those of which
-- the rate lets tasks pass again. It ends when as many keys as are wanted have a task that nothing holds back.
CREATE FUNCTION fulmar_by_key(of_type int8, want int8, most_keys int8, of_each int8, most_again int8, by_age bool, most_ranks int8,
    key_at_once int8, free_until int8, last_turn text)
RETURNS TABLE (id int8, rank int4, key text, waiting_since int8, bucket int8) LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_variable
DECLARE
    -- Keys of which workers hold as many as they may.
    held text[] := '{}';
    place text := last_turn;
    its_key text;
    wrapped bool := last_turn IS NULL;
    free_keys int8 := 0;
    its_bucket int8;
BEGIN
    IF key_at_once IS NOT NULL THEN
        held := ARRAY(SELECT t.lane FROM fulmar_task t WHERE t.worker IS NOT NULL AND t.type_id = of_type AND t.lane IS NOT NULL
            GROUP BY t.lane HAVING count(*) >= key_at_once);
    END IF;
    FOR looks IN 1 .. most_keys LOOP
        IF place IS NULL THEN
            SELECT t.lane INTO its_key FROM fulmar_task t WHERE t.gate = 0 AND t.lane IS NOT NULL AND t.type_id = of_type
            ORDER BY t.type_id, t.lane LIMIT 1;
        ELSE
            SELECT t.lane INTO its_key FROM fulmar_task t WHERE t.gate = 0 AND t.lane IS NOT NULL AND t.type_id = of_type
                AND t.lane > place ORDER BY t.type_id, t.lane LIMIT 1;
        END IF;
        IF its_key IS NULL THEN
            EXIT WHEN wrapped;
            place := NULL;
            wrapped := true;
            CONTINUE;
        END IF;
        EXIT WHEN wrapped AND its_key > last_turn;
        place := its_key;
        CONTINUE WHEN its_key = ANY (held);
        its_bucket := (SELECT k.next_at FROM fulmar_limit_key k WHERE k.type_id = of_type AND k.key = its_key);
        CONTINUE WHEN its_bucket > free_until;
        RETURN QUERY SELECT f.id, f.rank, its_key, f.waiting_since, its_bucket
            FROM fulmar_first_of_key(of_type, its_key, of_each, by_age, most_ranks) AS f;
        free_keys := free_keys + 1;
        EXIT WHEN free_keys >= want;
    END LOOP;
    IF free_until IS NOT NULL THEN
        FOR its_key, its_bucket IN SELECT k.key, k.next_at FROM fulmar_limit_key k
            WHERE k.type_id = of_type AND k.next_at <= free_until ORDER BY k.type_id, k.next_at LIMIT most_again LOOP
            CONTINUE WHEN its_key = ANY (held);
            RETURN QUERY SELECT f.id, f.rank, its_key, f.waiting_since, its_bucket
                FROM fulmar_first_of_key(of_type, its_key, of_each, by_age, most_ranks) AS f;
        END LOOP;
    END IF;
END
$$;

-- As before, but that limits are no pause.
CREATE OR REPLACE VIEW fulmar_depth AS
SELECT y.name AS type, y.paused & 3 > 0 AS paused, fulmar_status(t.status) AS status, count(t.id) AS tasks
FROM fulmar_task_type y LEFT JOIN fulmar_task t ON t.type_id = y.id GROUP BY y.id, y.name, y.paused, t.status;
