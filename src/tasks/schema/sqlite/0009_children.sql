-- A trigger costs a statement that could fire it a fifth of a task's time, whether it fires or not. So these belong to the
-- statements that name the parent: all that end a task or let it wait again, but for the one that ends a task without a parent.
DROP TRIGGER fulmar_child_ended;
DROP TRIGGER fulmar_child_back;
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
