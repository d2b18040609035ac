-- Durable functions. A child's parent; and that something happened to a task at work that it may want to know before it pauses.
ALTER TABLE fulmar_task ADD COLUMN parent INTEGER;
ALTER TABLE fulmar_task ADD COLUMN woken INTEGER NOT NULL DEFAULT 0;
CREATE INDEX fulmar_task_children ON fulmar_task (parent, id) WHERE parent IS NOT NULL;

-- What the steps of a function came to. Kinds: 0 a step, 1 a sleep, 2 an event, 3 children, 4 a patch.
-- States: 0 begun, 1 done, 2 failed for good.
CREATE TABLE fulmar_task_step (
    task_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    -- How often the name was used before.
    number INTEGER NOT NULL,
    ord INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    until INTEGER,
    token INTEGER NOT NULL,
    is_json INTEGER NOT NULL,
    body BLOB,
    PRIMARY KEY (task_id, name, number)
);

CREATE TABLE fulmar_task_event (
    task_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    key TEXT,
    body BLOB,
    -- A taken one stays, so that its key is known.
    taken INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX fulmar_task_event_key ON fulmar_task_event (task_id, name, key) WHERE key IS NOT NULL;
CREATE INDEX fulmar_task_event_next ON fulmar_task_event (task_id, name, number) WHERE taken = 0;

-- How many children a function still waits for.
CREATE TABLE fulmar_task_family (
    task_id INTEGER PRIMARY KEY,
    pending INTEGER NOT NULL,
    -- 1: the first that does not finish wakes it.
    fail_fast INTEGER NOT NULL
);

-- In triggers, because tasks end in many ways. They belong to the statements that name the parent,
-- which are all that end a task or let it wait again, but for the one that ends a task without a
-- parent: a trigger costs a statement that could fire it a fifth of a task's time, whether it fires
-- or not.
CREATE TRIGGER fulmar_child_ended AFTER UPDATE OF parent ON fulmar_task
WHEN NEW.parent IS NOT NULL AND OLD.ended IS NULL AND NEW.ended IS NOT NULL
BEGIN
    UPDATE fulmar_task_family SET pending = pending - 1 WHERE task_id = NEW.parent;
    UPDATE fulmar_task SET woken = NOT (gate IS 1 AND status = 3), run_at = CASE WHEN gate IS 1 AND status = 3 THEN min(run_at, NEW.ended) ELSE run_at END,
        gate = CASE WHEN gate IS 1 AND status = 3 THEN 0 ELSE gate END
    WHERE id = NEW.parent AND ended IS NULL
        AND (SELECT pending <= 0 OR (fail_fast = 1 AND NEW.status <> 4) FROM fulmar_task_family WHERE task_id = NEW.parent);
END;
CREATE TRIGGER fulmar_child_back AFTER UPDATE OF parent ON fulmar_task
WHEN NEW.parent IS NOT NULL AND OLD.ended IS NOT NULL AND NEW.ended IS NULL
BEGIN
    UPDATE fulmar_task_family SET pending = pending + 1 WHERE task_id = NEW.parent;
END;
CREATE TRIGGER fulmar_child_deleted AFTER DELETE ON fulmar_task
WHEN OLD.parent IS NOT NULL AND OLD.ended IS NULL
BEGIN
    UPDATE fulmar_task_family SET pending = pending - 1 WHERE task_id = OLD.parent;
    UPDATE fulmar_task SET woken = NOT (gate IS 1 AND status = 3), gate = CASE WHEN gate IS 1 AND status = 3 THEN 0 ELSE gate END
    WHERE id = OLD.parent AND ended IS NULL;
END;
