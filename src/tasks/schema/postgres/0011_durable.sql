-- Durable functions. A child's parent; and that something happened to a task at work that it may want to know before it pauses.
ALTER TABLE fulmar_task ADD COLUMN parent int8;
ALTER TABLE fulmar_task ADD COLUMN woken bool NOT NULL DEFAULT false;
CREATE INDEX fulmar_task_children ON fulmar_task (parent, id) WHERE parent IS NOT NULL;

-- What the steps of a function came to. Kinds: 0 a step, 1 a sleep, 2 an event, 3 children, 4 a patch.
-- States: 0 begun, 1 done, 2 failed for good.
CREATE TABLE fulmar_task_step (
    task_id int8 NOT NULL,
    name text NOT NULL,
    -- How often the name was used before.
    number int8 NOT NULL,
    ord int8 NOT NULL,
    kind int2 NOT NULL,
    state int2 NOT NULL,
    attempts int8 NOT NULL DEFAULT 0,
    until int8,
    token int8 NOT NULL,
    is_json bool NOT NULL,
    body bytea,
    PRIMARY KEY (task_id, name, number)
);
ALTER TABLE fulmar_task_step ALTER body SET STORAGE EXTERNAL;

CREATE TABLE fulmar_task_event (
    task_id int8 NOT NULL,
    number int8 NOT NULL,
    name text NOT NULL,
    key text,
    body bytea,
    -- A taken one stays, so that its key is known.
    taken int2 NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, number)
);
CREATE UNIQUE INDEX fulmar_task_event_key ON fulmar_task_event (task_id, name, key) WHERE key IS NOT NULL;
CREATE INDEX fulmar_task_event_next ON fulmar_task_event (task_id, name, number) WHERE taken = 0;

-- How many children a function still waits for. Each that ends changes its row, so that there is room for versions of it.
CREATE TABLE fulmar_task_family (
    task_id int8 PRIMARY KEY,
    pending int8 NOT NULL,
    -- 1: the first that does not finish wakes it.
    fail_fast int2 NOT NULL
) WITH (fillfactor = 10);

-- In a trigger, because tasks end in many ways. Only children have it fire.
CREATE FUNCTION fulmar_child() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    of_parent int8 := CASE TG_OP WHEN 'DELETE' THEN OLD.parent ELSE NEW.parent END;
    left_to_do int8;
    is_fast int2;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.ended IS NULL THEN
        UPDATE fulmar_task_family SET pending = pending + 1 WHERE task_id = of_parent;
        RETURN NULL;
    END IF;
    UPDATE fulmar_task_family SET pending = pending - 1 WHERE task_id = of_parent RETURNING pending, fail_fast INTO left_to_do, is_fast;
    IF FOUND AND (left_to_do <= 0 OR TG_OP = 'DELETE' OR (is_fast = 1 AND NEW.status <> 4)) THEN
        UPDATE fulmar_task t SET woken = NOT (t.gate IS NOT DISTINCT FROM 1 AND t.status = 3),
            run_at = CASE WHEN t.gate = 1 AND t.status = 3
                THEN least(t.run_at, floor(date_part('epoch', clock_timestamp()) * 1000)::int8) ELSE t.run_at END,
            gate = CASE WHEN t.gate = 1 AND t.status = 3 THEN 0 ELSE t.gate END
        WHERE t.id = of_parent AND t.ended IS NULL;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER fulmar_child_ended AFTER UPDATE OF ended ON fulmar_task FOR EACH ROW
    WHEN (NEW.parent IS NOT NULL AND (OLD.ended IS NULL) <> (NEW.ended IS NULL)) EXECUTE FUNCTION fulmar_child();
CREATE TRIGGER fulmar_child_deleted AFTER DELETE ON fulmar_task FOR EACH ROW
    WHEN (OLD.parent IS NOT NULL AND OLD.ended IS NULL) EXECUTE FUNCTION fulmar_child();
